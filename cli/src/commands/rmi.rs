//! `build rmi`.

use crate::commands::{RootArg, image_failure};
use crate::report::{Exit, Failure, print};

/// Remove images from the local store; what nothing else uses is freed by `build prune`
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build rmi app:1.0")]
pub(crate) struct RmiArgs {
    #[command(flatten)]
    root: RootArg,
    /// Remove an image given by its id even if it has several names
    #[arg(short, long)]
    force: bool,
    /// Names, ids or prefixes of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Removes one after the other.
pub(crate) fn run(args: &RmiArgs) -> Result<Exit, Failure> {
    let engine = args.root.engine()?;
    for name in &args.images {
        let removed = engine
            .store()
            .images()
            .remove(name, args.force)
            .map_err(|error| image_failure(&error, name))?;
        for name in &removed.untagged {
            print(format_args!("Untagged: {name}"))?;
        }
        if let Some(id) = removed.deleted {
            print(format_args!("Deleted: {id}"))?;
        }
    }
    Ok(Exit::Done)
}
