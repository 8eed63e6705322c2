//! `build tag`.

use llb::Reference;

use crate::commands::{RootArg, image_failure};
use crate::report::{Exit, Failure};

/// Give an image of the local store one more name; another image that had it loses it
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build tag app:1.0 registry.example.com/team/app:1.0")]
pub(crate) struct TagArgs {
    #[command(flatten)]
    root: RootArg,
    /// Name, id or prefix of an id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The new name, `name[:tag]`
    #[arg(value_name = "NAME")]
    name: String,
}

/// Adds the name.
pub(crate) fn run(args: &TagArgs) -> Result<Exit, Failure> {
    let name = new_name(&args.name)?;
    let engine = args.root.engine()?;
    let tagged = engine.store().images().tag(&args.image, &name);
    tagged.map_err(|error| image_failure(&error, &args.image))?;
    Ok(Exit::Done)
}

/// Reads a name that an image is to have.
fn new_name(text: &str) -> Result<Reference, Failure> {
    let invalid =
        |reason: String| Failure::new(Exit::Usage, format!("invalid tag \"{text}\": {reason}"));
    let name = Reference::parse(text).map_err(|error| invalid(error.to_string()))?;
    if name.looks_like_id() {
        return Err(invalid("it looks like the id of an image".to_owned()));
    }
    match name.digest() {
        None => Ok(name),
        Some(_) => Err(invalid("a digest cannot be given to an image".to_owned())
            .hint("leave out the part from `@` on")),
    }
}
