//! `build rmi`.

use cache::CacheError;

use crate::commands::facts::familiar;
use crate::commands::{RootArg, image_failure, store_failure};
use crate::report::{Exit, Failure, chain, print, tell};

/// Remove images from the local store, with what nothing else needs
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build rmi app:1.0 app:latest

A name is taken away, and with its last name the image. What it alone had is freed, but for what builds may find in the \
cache: that is freed by `build prune`.")]
pub(crate) struct RmiArgs {
    #[command(flatten)]
    root: RootArg,
    /// Remove an image given by its id even if it has several names; what is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Leave the layers of the image until the next `build prune`
    #[arg(long)]
    no_prune: bool,
    /// Names, ids or prefixes of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Removes one after the other; what cannot be removed does not keep others from it.
pub(crate) fn run(args: &RmiArgs) -> Result<Exit, Failure> {
    let engine = args.root.engine()?;
    let images = engine.store().images();
    let (mut failures, mut is_deleted) = (Vec::new(), false);
    for name in &args.images {
        let removed = match images.remove(name, args.force) {
            Ok(removed) => removed,
            Err(CacheError::UnknownImage(_)) if args.force => {
                tell(format_args!("no such image: `{name}`"));
                continue;
            }
            Err(error) => {
                failures.push(failure(&error, name));
                continue;
            }
        };
        for name in &removed.untagged {
            print(format_args!("Untagged: {}", familiar(name)))?;
        }
        if let Some(id) = removed.deleted {
            print(format_args!("Deleted: {id}"))?;
            is_deleted = true;
        }
    }
    if is_deleted && !args.no_prune {
        images.free_unused().map_err(|error| store_failure(&error, chain(&error)))?;
    }
    if failures.is_empty() { Ok(Exit::Done) } else { Err(Failure::several(failures)) }
}

fn failure(error: &CacheError, name: &str) -> Failure {
    match error {
        CacheError::ImageInUse { .. } => Failure::new(Exit::Build, chain(error))
            .hint("remove its names one by one, or all at once with --force"),
        _ => image_failure(error, name),
    }
}
