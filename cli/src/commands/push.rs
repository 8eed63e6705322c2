//! `build push`.

use cache::{Image, Images};
use exporters::{Content, ImageOptions, PushOptions, assemble_stored_followed, push};
use llb::Reference;
use registry::HostOptions;
use solver::Engine;

use crate::commands::export::export_failure;
use crate::commands::facts::variant;
use crate::commands::transfers::tell_notices;
use crate::commands::{RootArg, image_failure, op_failure, store_failure};
use crate::report::{Exit, Failure, chain, print};

/// Push an image of the local store to the registry in its name
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build push registry.example.com/team/app:1.0")]
pub(crate) struct PushArgs {
    #[command(flatten)]
    root: RootArg,
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Allow plain HTTP and certificates that nobody vouches for
    #[arg(long)]
    insecure: bool,
    /// Push only this platform of an image of several
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Pushes the image and prints its digest.
pub(crate) fn run(args: &PushArgs) -> Result<Exit, Failure> {
    let invalid = |reason: String| {
        Failure::new(Exit::Usage, format!("invalid name \"{}\": {reason}", args.image))
    };
    let name = Reference::parse(&args.image).map_err(|error| invalid(error.to_string()))?;
    let bare = Reference::parse_as_is(&args.image).map_err(|error| invalid(error.to_string()))?;
    if args.all_tags && (bare.tag().is_some() || bare.digest().is_some()) {
        return Err(invalid("with --all-tags it must have no tag".to_owned()));
    }
    let mut options = args.root.options()?;
    if args.insecure {
        options.registry.hosts.insert(name.host().to_owned(), HostOptions { insecure: Some(true) });
    }
    let engine = Engine::open(options).map_err(|error| op_failure(&error))?;
    let images = engine.store().images();
    if !args.all_tags {
        let image = images.get(&args.image).map_err(|error| image_failure(&error, &args.image))?;
        push_one(&engine, args, image, name, false)?;
        return Ok(Exit::Done);
    }
    let mut found = false;
    for (image, name) in tags(&images, &bare)? {
        found = true;
        push_one(&engine, args, image, name, true)?;
    }
    if !found {
        return Err(image_failure(&cache::CacheError::UnknownImage(bare.to_string()), &args.image));
    }
    Ok(Exit::Done)
}

/// The images of a repository with their names.
fn tags(images: &Images, repository: &Reference) -> Result<Vec<(Image, Reference)>, Failure> {
    let all = images.list().map_err(|error| store_failure(&error, chain(&error)))?;
    let mut found = Vec::new();
    for image in all {
        let names = image.names.iter().filter_map(|name| Reference::parse_as_is(name).ok());
        let names = names.filter(|name| name.tag().is_some() && name.name() == repository.name());
        found.extend(names.map(|name| (image.clone(), name)));
    }
    Ok(found)
}

fn push_one(
    engine: &Engine,
    args: &PushArgs,
    mut image: Image,
    name: Reference,
    with_tag: bool,
) -> Result<(), Failure> {
    let store = engine.store();
    let id = image.id;
    let is_whole = args.platform.is_none() || image.variants.len() == 1;
    if let Some(platform) = args.platform.as_deref() {
        image.variants = vec![variant(&image, &args.image, Some(platform))?.clone()];
    }
    let fail = |error| export_failure(&error);
    let options = PushOptions { enabled: true, insecure: args.insecure, by_digest: false };
    let title = name.tag().map(|tag| format!("{tag}: ")).filter(|_| with_tag).unwrap_or_default();
    let (given, content) = (ImageOptions::default(), Content::Elsewhere);
    let make = |follow: &cache::Follow<'_>| {
        assemble_stored_followed(store, &image, &given, content, Some(follow))
    };
    let pushed = push::make_and_push(engine.registry(), store, &[name], options, make);
    if !args.quiet {
        tell_notices(engine.registry());
    }
    let (assembled, pushed) = pushed.map_err(fail)?;
    if is_whole {
        let noted = store.images().set_documents(
            &id,
            assembled.index.as_ref().map(|index| index.bytes.as_slice()),
            assembled
                .manifests
                .iter()
                .map(|image| (image.config.descriptor.digest, image.manifest.bytes.as_slice())),
        );
        noted.map_err(|error| store_failure(&error, chain(&error)))?;
    }
    match pushed.descriptor {
        Some(descriptor) if !args.quiet => print(format_args!("{title}{}", descriptor.digest)),
        _ => Ok(()),
    }
}
