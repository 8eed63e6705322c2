//! `build save`.

use std::io::IsTerminal;
use std::path::PathBuf;

use exporters::layout::{Flavor, write_tar};
use exporters::{Content, Destination, ImageOptions, assemble_stored};
use llb::Reference;

use crate::commands::export::export_failure;
use crate::commands::{RootArg, image_failure};
use crate::report::{Exit, Failure};

/// Write an image of the local store as an archive
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build save -o app.tar app:1.0")]
pub(crate) struct SaveArgs {
    #[command(flatten)]
    root: RootArg,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker (read by `docker load`) or oci
    #[arg(long, default_value = "docker", value_parser = ["docker", "oci"])]
    format: String,
    /// Name, id or prefix of an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Writes the archive.
pub(crate) fn run(args: &SaveArgs) -> Result<Exit, Failure> {
    let destination = match &args.output {
        Some(path) => Destination::File(path.clone()),
        None if std::io::stdout().is_terminal() => {
            return Err(Failure::new(Exit::Usage, "an archive is not written to a terminal")
                .hint("give -o FILE or redirect the output"));
        }
        None => Destination::Stream(Box::new(std::io::stdout())),
    };
    let engine = args.root.engine()?;
    let store = engine.store();
    let image =
        store.images().get(&args.image).map_err(|error| image_failure(&error, &args.image))?;
    let names: Vec<Reference> =
        image.names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    let flavor = if args.format == "oci" { Flavor::Oci } else { Flavor::Docker };
    let fail = |error| export_failure(&error);
    let assembled =
        assemble_stored(store, &image, &ImageOptions::default(), Content::Here).map_err(fail)?;
    write_tar(store, &assembled, &names, flavor, destination).map_err(fail)?;
    Ok(Exit::Done)
}
