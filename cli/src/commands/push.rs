//! `build push`.

use exporters::{Content, ImageOptions, PushOptions, assemble_stored, push};
use llb::Reference;
use registry::HostOptions;
use solver::Engine;

use crate::commands::export::export_failure;
use crate::commands::{RootArg, image_failure, op_failure};
use crate::report::{Exit, Failure, print};

/// Push an image of the local store to the registry in its name
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build push registry.example.com/team/app:1.0")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    root: RootArg,
    /// Allow plain HTTP and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Pushes the image and prints its digest.
pub(crate) fn run(args: &PushArgs) -> Result<Exit, Failure> {
    let name = Reference::parse(&args.image).map_err(|error| {
        Failure::new(Exit::Usage, format!("invalid name \"{}\": {error}", args.image))
    })?;
    let mut options = args.root.options()?;
    if args.insecure {
        options.registry.hosts.insert(name.host().to_owned(), HostOptions { insecure: Some(true) });
    }
    let engine = Engine::open(options).map_err(|error| op_failure(&error))?;
    let store = engine.store();
    let image =
        store.images().get(&args.image).map_err(|error| image_failure(&error, &args.image))?;
    let fail = |error| export_failure(&error);
    let assembled = assemble_stored(store, &image, &ImageOptions::default(), Content::Elsewhere)
        .map_err(fail)?;
    let options = PushOptions { enabled: true, insecure: args.insecure, by_digest: false };
    let pushed =
        push::push(engine.registry(), store, &assembled, &[name], options).map_err(fail)?;
    if let Some(descriptor) = pushed.descriptor {
        print(format_args!("{}", descriptor.digest))?;
    }
    Ok(Exit::Done)
}
