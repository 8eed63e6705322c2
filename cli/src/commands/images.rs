//! `build images`.

use cache::Image;
use llb::Reference;

use crate::commands::{RootArg, store_failure};
use crate::progress::bytes;
use crate::report::{Exit, Failure, chain, print};

/// List the images of the local store
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build images --format json")]
pub(crate) struct ImagesArgs {
    #[command(flatten)]
    root: RootArg,
    /// table or json (one object per line)
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Only print image ids
    #[arg(short, long)]
    quiet: bool,
}

/// Prints one line for each name of each image.
pub(crate) fn run(args: &ImagesArgs) -> Result<Exit, Failure> {
    let engine = args.root.engine()?;
    let images =
        engine.store().images().list().map_err(|error| store_failure(&error, chain(&error)))?;
    if args.quiet {
        for image in &images {
            print(format_args!("{}", image.id))?;
        }
        return Ok(Exit::Done);
    }
    let table = args.format == "table";
    if table {
        print(format_args!(
            "{:<40} {:<16} {:<14} {:<22} SIZE",
            "REPOSITORY", "TAG", "IMAGE ID", "CREATED"
        ))?;
    }
    for image in &images {
        let created = jiff::Timestamp::try_from(image.created)
            .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .unwrap_or_default();
        let size = size(&engine, image)?;
        for (repository, tag) in names(image) {
            if table {
                let id = &image.id.hex()[..12];
                print(format_args!(
                    "{repository:<40} {tag:<16} {id:<14} {created:<22} {}",
                    bytes(size)
                ))?;
            } else {
                let row = serde_json::json!({
                    "Repository": repository, "Tag": tag, "ID": image.id.to_string(), "CreatedAt": created, "Size": size,
                });
                print(format_args!("{row}"))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Repository and tag of each name, as people write them.
fn names(image: &Image) -> Vec<(String, String)> {
    let none = || "<none>".to_owned();
    if image.names.is_empty() {
        return vec![(none(), none())];
    }
    let split = |name: &String| match Reference::parse(name) {
        Ok(reference) => {
            (reference.familiar_name(), reference.tag().map_or_else(none, str::to_owned))
        }
        Err(_) => (name.clone(), none()),
    };
    image.names.iter().map(split).collect()
}

/// Bytes of the uncompressed layers of all platforms, each layer once.
fn size(engine: &solver::Engine, image: &Image) -> Result<u64, Failure> {
    let mut seen = std::collections::HashSet::new();
    let mut sum = 0;
    for id in image.variants.iter().flat_map(|variant| &variant.layers) {
        if seen.insert(*id) {
            let layer =
                engine.store().layer(id).map_err(|error| store_failure(&error, chain(&error)))?;
            let size = layer
                .map(|layer| layer.size())
                .transpose()
                .map_err(|error| store_failure(&error, chain(&error)))?;
            sum += size.flatten().unwrap_or(0);
        }
    }
    Ok(sum)
}
