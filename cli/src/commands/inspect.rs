//! `build inspect`.

use cache::{Image, Store};
use llb::Reference;
use llb::image::ImageConfig;
use serde_json::{Map, Value, json};

use crate::commands::facts::{config, familiar, layer_size, size, timestamp, variant};
use crate::commands::rows::failure;
use crate::commands::{RootArg, image_failure};
use crate::report::{Exit, Failure, print};
use crate::template::Template;

/// Show what is known of images, as JSON
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build inspect --format '{{json .Config.Env}}' app:1.0

Of an image of several platforms, that of this machine is shown, or that of --platform, and all under .Variants.")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    root: RootArg,
    /// json, or a template such as '{{.Id}} {{index .RepoTags 0}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Kind of what is shown; there are only images
    #[arg(long = "type", value_name = "KIND", value_parser = ["image"])]
    kind: Option<String>,
    /// Platform to show, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Names, ids or prefixes of ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Prints an array with one object for each image, or a line for each.
pub(crate) fn run(args: &InspectArgs) -> Result<Exit, Failure> {
    let text = args.format.as_deref().filter(|text| !matches!(*text, "json" | ""));
    let template =
        text.map(|text| Template::parse(text).map_err(|error| failure(text, error))).transpose()?;
    let engine = args.root.engine()?;
    let store = engine.store();
    let (mut shown, mut failures) = (Vec::new(), Vec::new());
    for name in &args.images {
        match store.images().get(name) {
            Ok(image) => shown.push(object(store, &image, name, args.platform.as_deref())?),
            Err(error) => failures.push(image_failure(&error, name)),
        }
    }
    match &template {
        Some(template) => {
            for image in &shown {
                let line = template.render(image);
                let line = line.map_err(|error| failure(text.unwrap_or_default(), error))?;
                print(format_args!("{line}"))?;
            }
        }
        None => {
            let text = serde_json::to_string_pretty(&shown).unwrap_or_default();
            print(format_args!("{text}"))?;
        }
    }
    if failures.is_empty() { Ok(Exit::Done) } else { Err(Failure::several(failures)) }
}

/// An image as Docker shows one, with all platforms besides.
fn object(
    store: &Store,
    image: &Image,
    name: &str,
    platform: Option<&str>,
) -> Result<Value, Failure> {
    let main = variant(image, name, platform)?;
    let (_, main_config) = config(store, main, name)?;
    let mut variants = Vec::new();
    for variant in &image.variants {
        let (text, _) = config(store, variant, name)?;
        let config: Value = serde_json::from_slice(&text).unwrap_or_default();
        let manifest = variant.manifest.as_deref().map(|text| llb::Digest::of(text).to_string());
        variants.push(json!({
            "Platform": variant.platform, "ConfigDigest": variant.config.to_string(),
            "ManifestDigest": manifest, "Config": config,
        }));
    }
    let mut bytes = 0;
    for id in &main.layers {
        bytes += layer_size(store, id)?;
    }
    let tags: Vec<String> = image
        .names
        .iter()
        .filter(|name| Reference::parse_as_is(name).is_ok_and(|name| name.tag().is_some()))
        .map(|name| familiar(name))
        .collect();
    let last = main_config.history.as_ref().and_then(|history| history.last());
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests(image),
        "Comment": last.map(|entry| entry.comment.as_str()).unwrap_or_default(),
        "Created": main_config.created.clone().unwrap_or_else(|| timestamp(image.created)),
        "Author": main_config.author,
        "Architecture": main_config.architecture,
        "Variant": main_config.variant,
        "Os": main_config.os,
        "OsVersion": main_config.os_version,
        "Size": bytes,
        "TotalSize": size(store, image)?,
        "Config": container(&main_config),
        "RootFS": { "Type": main_config.rootfs.kind, "Layers": main_config.rootfs.diff_ids.clone().unwrap_or_default() },
        "Variants": variants,
    }))
}

/// The names by digest of an image that was pushed or pulled.
fn digests(image: &Image) -> Vec<String> {
    let Some(digest) = image.digest() else { return Vec::new() };
    let names = image.names.iter().filter_map(|name| Reference::parse_as_is(name).ok());
    let mut all: Vec<String> =
        names.map(|name| format!("{}@{digest}", name.familiar_name())).collect();
    all.dedup();
    all
}

/// What a container gets, with every member that there may be.
fn container(config: &ImageConfig) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for (name, value) in [
        ("User", json!("")),
        ("ExposedPorts", json!({})),
        ("Env", json!([])),
        ("Entrypoint", Value::Null),
        ("Cmd", Value::Null),
        ("Volumes", json!({})),
        ("WorkingDir", json!("")),
        ("Labels", json!({})),
        ("StopSignal", json!("")),
        ("Healthcheck", Value::Null),
        ("OnBuild", Value::Null),
        ("Shell", Value::Null),
    ] {
        all.insert(name.to_owned(), value);
    }
    if let Ok(Value::Object(given)) = serde_json::to_value(&config.config) {
        all.extend(given);
    }
    all.into()
}
