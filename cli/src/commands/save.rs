//! `build save`.

use std::io::IsTerminal;
use std::path::PathBuf;

use cache::{Image, Store};
use exporters::layout::{Flavor, write_tar_of};
use exporters::{Content, Destination, ExportError, ImageOptions, assemble_stored};
use llb::Reference;

use crate::commands::export::export_failure;
use crate::commands::facts::{familiar, variant};
use crate::commands::{RootArg, image_failure, store_failure};
use crate::report::{Exit, Failure, chain};

/// Write images of the local store as one archive
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build save -o app.tar app:1.0 db:2.1

An image keeps the names that it is given by; a repository without a tag stands for all its tags, an id for no name. \
Layers that images share are in the archive once.")]
pub(crate) struct SaveArgs {
    #[command(flatten)]
    root: RootArg,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// docker (read by `docker load`, `podman load` and `build load`) or oci
    #[arg(long, default_value = "docker", value_parser = ["docker", "docker-archive", "oci", "oci-archive"])]
    format: String,
    /// Save only this platform of images of several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Names, ids or prefixes of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Writes the archive.
pub(crate) fn run(args: &SaveArgs) -> Result<Exit, Failure> {
    let destination = match &args.output {
        Some(path) if path.as_os_str() != "-" => Destination::File(path.clone()),
        _ if std::io::stdout().is_terminal() => {
            return Err(Failure::new(Exit::Usage, "an archive is not written to a terminal")
                .hint("give -o FILE or redirect the output"));
        }
        _ => Destination::Stream(Box::new(std::io::stdout())),
    };
    let engine = args.root.engine()?;
    let store = engine.store();
    let chosen = chosen(store, args)?;
    let flavor = if args.format.starts_with("oci") { Flavor::Oci } else { Flavor::Docker };
    let mut assembled = Vec::with_capacity(chosen.len());
    for (image, names) in &chosen {
        let made = assemble_stored(store, image, &ImageOptions::default(), Content::Here);
        assembled.push((made.map_err(|error| export_failure(&error))?, names));
    }
    let images: Vec<(&exporters::Image, &[Reference])> =
        assembled.iter().map(|(image, names)| (image, names.as_slice())).collect();
    write_tar_of(store, &images, flavor, destination).map_err(|error| match error {
        ExportError::SeveralPlatforms => Failure::new(
            Exit::Build,
            "an archive for Docker has one platform of each image, and one of these has several",
        )
        .hint("choose one with --platform, or write all with --format oci"),
        error => export_failure(&error),
    })?;
    Ok(Exit::Done)
}

/// The images that are meant, each once, with the names that they are meant by.
fn chosen(store: &Store, args: &SaveArgs) -> Result<Vec<(Image, Vec<Reference>)>, Failure> {
    let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
    let mut add = |mut image: Image, name: Option<Reference>| {
        if let Some(platform) = args.platform.as_deref() {
            let shown = name.as_ref().map_or_else(|| image.id.to_string(), Reference::familiar);
            image.variants = vec![variant(&image, &shown, Some(platform))?.clone()];
        }
        let at = chosen.iter().position(|(other, _)| other.id == image.id);
        let (_, names) = match at {
            Some(at) => &mut chosen[at],
            None => {
                chosen.push((image, Vec::new()));
                chosen.last_mut().expect("it was just put there")
            }
        };
        names.extend(name.filter(|name| !names.contains(name)));
        Ok::<_, Failure>(())
    };
    for text in &args.images {
        let tags = all_tags(store, text)?;
        if !tags.is_empty() {
            tags.into_iter().try_for_each(|(image, name)| add(image, Some(name)))?;
            continue;
        }
        let image = store.images().get(text).map_err(|error| image_failure(&error, text))?;
        let name = Reference::parse(text).ok().filter(|name| {
            name.tag().is_some() && image.names.iter().any(|one| *one == name.to_string())
        });
        add(image, name)?;
    }
    Ok(chosen)
}

/// The images of a repository that is named without a tag.
fn all_tags(store: &Store, text: &str) -> Result<Vec<(Image, Reference)>, Failure> {
    let Ok(repository) = Reference::parse_as_is(text) else { return Ok(Vec::new()) };
    if repository.tag().is_some() || repository.digest().is_some() {
        return Ok(Vec::new());
    }
    let images = store.images().list().map_err(|error| store_failure(&error, chain(&error)))?;
    let mut found = Vec::new();
    for image in images {
        let names = image.names.iter().filter_map(|name| Reference::parse_as_is(name).ok());
        let tagged = names.filter(|name| name.tag().is_some() && name.name() == repository.name());
        found.extend(tagged.map(|name| (image.clone(), name)));
    }
    found.sort_by_key(|(_, name)| familiar(&name.to_string()));
    Ok(found)
}
