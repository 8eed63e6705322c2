//! What the tests share: reading options, and answering requests from the images of the conformance kit.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use std::path::{Path, PathBuf};

use frontend::{
    Answer, Build, Findings, FrontendError, ImageLocation, ImageRequest, MainContext, NamedContext,
    NoCache, Options, Outcome, Outline, ResolvedImage, ResolvedImages, Warning,
};
use llb::image::{Index, Manifest};
use llb::{Digest, Platform};

/// Folder with the images.
pub(crate) fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance/images")
}

/// Options of a command line.
pub(crate) fn options(args: &[String], context: &str) -> Options {
    let mut options = Options {
        filename: "Dockerfile".to_owned(),
        build_platform: Platform::parse("linux/amd64").unwrap(),
        ..Options::default()
    };
    let mut args = args.iter().map(|arg| arg.replace("{ctx}", context));
    while let Some(flag) = args.next() {
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (flag, None),
        };
        let mut value = || value.clone().or_else(|| args.next()).unwrap();
        match flag.as_str() {
            "--build-arg" => {
                if let Some((name, value)) = value().split_once('=') {
                    options.build_args.insert(name.to_owned(), value.to_owned());
                }
            }
            "--label" => {
                let label = value();
                let (name, value) = label.split_once('=').unwrap();
                options.labels.insert(name.to_owned(), value.to_owned());
            }
            "--target" => options.target = Some(value()),
            "--platform" => {
                options
                    .platforms
                    .extend(value().split(',').map(|platform| Platform::parse(platform).unwrap()));
            }
            "--build-context" => {
                let given = value();
                let (name, value) = given.split_once('=').unwrap();
                options.contexts.insert(name.to_owned(), named_context(name, value));
            }
            "--context" => options.context = main_context(&value()),
            "--no-cache" => options.no_cache = NoCache::All,
            "--no-cache-filter" => options.no_cache = NoCache::Stages(vec![value()]),
            "--shm-size" => options.shm_size = value().parse().unwrap_or(64 << 20),
            "--ignore" => options.ignore_patterns.push(value()),
            "--epoch-of-source" => options.epoch_of_source = Some(value().parse().ok()),
            "--epoch" => options.source_date_epoch = value().parse().ok(),
            "--allow" => {
                options.entitlements.insert(match value().as_str() {
                    "network.host" => llb::entitlement::Entitlement::NetworkHost,
                    _ => llb::entitlement::Entitlement::SecurityInsecure,
                });
            }
            "--all-stages" => options.all_stages = true,
            "--check" => {}
            flag if flag.starts_with("--call") => {}
            _ => drop(value()),
        }
    }
    options
}

fn main_context(value: &str) -> MainContext {
    match value {
        "empty" => MainContext::Empty,
        "archive" => MainContext::Archive { digest: Digest::of(b"archive") },
        url if url.ends_with(".tar") => MainContext::HttpArchive { url: url.to_owned() },
        other => MainContext::remote(other).unwrap_or_default(),
    }
}

fn named_context(name: &str, value: &str) -> NamedContext {
    if let Some(stage) = value.strip_prefix("target:") {
        NamedContext::Stage { name: stage.to_owned() }
    } else if let Some(reference) = value.strip_prefix("docker-image://") {
        NamedContext::Image { reference: reference.to_owned() }
    } else if let Some(path) = value.strip_prefix("oci-layout://") {
        let (path, tag) =
            path.rsplit_once(':').map_or((path, None), |(path, tag)| (path, Some(tag.to_owned())));
        NamedContext::OciLayout { path: path.to_owned(), tag, digest: None }
    } else {
        NamedContext::remote(value).unwrap_or_else(|| NamedContext::Local { name: name.to_owned() })
    }
}

/// Converts, answering requests from the conformance images; the requests that stay open are the inner error.
pub(crate) fn convert(
    text: &[u8],
    options: &Options,
) -> Result<Result<Build, Vec<ImageRequest>>, Vec<String>> {
    let dockerfile = parser::parse(text)
        .map_err(|errors| errors.errors.iter().map(|error| error.message()).collect::<Vec<_>>())?;
    let mut known = ResolvedImages::default();
    for _ in 0..10 {
        match frontend::convert(&dockerfile, options, &known) {
            Ok(Outcome::Done(build)) => return Ok(Ok(*build)),
            Ok(Outcome::Needs(requests)) => {
                let mut open = Vec::new();
                for request in requests {
                    match resolve(&request) {
                        Some(image) => known.insert(&request, image),
                        None => open.push(request),
                    }
                }
                if !open.is_empty() {
                    return Ok(Err(open));
                }
            }
            Err(errors) => {
                return Err(errors.iter().map(|error| describe(error, &dockerfile.text)).collect());
            }
        }
    }
    panic!("the frontend asks for images that it was given");
}

/// What the build checks say, and the errors; images that are not in the kit are not known.
pub(crate) fn check(text: &str, options: &Options) -> (Vec<Warning>, Vec<String>) {
    let dockerfile = parser::parse(text.as_bytes()).unwrap();
    let mut known = ResolvedImages::default();
    for _ in 0..10 {
        match frontend::check(&dockerfile, options, &known) {
            Answer::Known(Findings { warnings, errors }) => {
                return (warnings, errors.iter().map(|error| describe(error, text)).collect());
            }
            Answer::Needs(requests) => {
                requests.iter().for_each(|request| answer(&mut known, request))
            }
        }
    }
    panic!("the frontend asks for images that it was given");
}

/// The outline of the target, or the errors; images that are not in the kit are not known.
pub(crate) fn outline(text: &str, options: &Options) -> Result<Outline, Vec<String>> {
    let dockerfile = parser::parse(text.as_bytes()).unwrap();
    let mut known = ResolvedImages::default();
    for _ in 0..10 {
        let outline = frontend::outline(&dockerfile, options, &known);
        match outline.map_err(|errors| {
            errors.iter().map(|error| describe(error, text)).collect::<Vec<_>>()
        })? {
            Answer::Known(outline) => return Ok(outline),
            Answer::Needs(requests) => {
                requests.iter().for_each(|request| answer(&mut known, request))
            }
        }
    }
    panic!("the frontend asks for images that it was given");
}

fn answer(known: &mut ResolvedImages, request: &ImageRequest) {
    match resolve(request) {
        Some(image) => known.insert(request, image),
        None => known.insert_unknown(request),
    }
}

/// An error with its cause, lines, marked text and hint.
fn describe(error: &FrontendError, text: &str) -> String {
    let mut described = format!("line {}-{}: {error}", error.lines.start, error.lines.end);
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        described += &format!(": {cause}");
        source = cause.source();
    }
    let marked = &text[error.at.offset()..error.at.offset() + error.at.len()];
    described += &format!("\n  at {marked:?}");
    if let Some(hint) = &error.hint {
        described += &format!("\n  help: {hint}");
    }
    described
}

/// Finds an image of the kit.
fn resolve(request: &ImageRequest) -> Option<ResolvedImage> {
    let (layout, reference) = match &request.location {
        ImageLocation::Registry(reference) => {
            let name = reference.strip_prefix("docker.io/library/")?.split([':', '@']).next()?;
            (images().join(name), reference.clone())
        }
        ImageLocation::OciLayout { context, path, .. } => {
            (PathBuf::from(path), llb::Reference::parse(context).ok()?.to_string())
        }
    };
    let index: Index =
        serde_json::from_slice(&fs_err::read(layout.join("index.json")).ok()?).ok()?;
    let digest = index.manifests.first()?.digest;
    let mut manifests = vec![digest];
    if let Ok(index) = serde_json::from_slice::<Index>(&blob(&layout, digest)?)
        && !index.manifests.is_empty()
    {
        manifests = index.manifests.iter().map(|manifest| manifest.digest).collect();
    }
    let found = manifests.into_iter().filter_map(|manifest| {
        let manifest: Manifest = serde_json::from_slice(&blob(&layout, manifest)?).ok()?;
        let config: llb::image::ImageConfig =
            serde_json::from_slice(&blob(&layout, manifest.config.digest)?).ok()?;
        let platform = Platform::parse(&format!("{}/{}", config.os, config.architecture)).ok()?;
        Some(ResolvedImage { digest, config, platform, reference: reference.clone() })
    });
    let found: Vec<ResolvedImage> = found.collect();
    let matching =
        found.iter().find(|image| image.platform.architecture == request.platform.architecture);
    matching.or(found.first()).cloned()
}

fn blob(layout: &Path, digest: Digest) -> Option<Vec<u8>> {
    fs_err::read(layout.join("blobs/sha256").join(digest.hex())).ok()
}
