//! The Dockerfile of a build: parsed, and turned into a definition by the frontend.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use frontend::{
    Build, EpochSource, ImageLocation, ImageRequest, Options, Outcome, ResolveMode, ResolvedImages,
};
use llb::event::VertexError;
use llb::url::redacted;
use llb::{Digest, Event, EventSink, Reference, SourceInfo};
use parser::Dockerfile;
use solver::{Job, LayoutPick, OpError};
use tree::trace::span;

use crate::args::BuildArgs;
use crate::commands::build::{progress_mode, warn};
use crate::commands::context::Origin;
use crate::commands::op_failure;
use crate::commands::options::named_context;
use crate::inputs::DockerfileText;
use crate::mistakes::{frontend_failure, further_mistakes, parse_failure, unresolved};
use crate::report::{Exit, Failure, chain};
use crate::syntax;

/// A Dockerfile that has been read, and what is wrong with it.
pub(super) struct Parsed {
    pub(super) tree: Result<Dockerfile, Failure>,
    pub(super) info: Arc<SourceInfo>,
}

/// Parses a Dockerfile that has been read; it may ask for a frontend that is not there.
pub(super) fn parsed(
    source: &DockerfileText,
    args: &BuildArgs,
    options: &mut Options,
) -> Result<Parsed, Failure> {
    let _span = span("parse", || source.name.clone());
    options.filename.clone_from(&source.name);
    let directives = parser::directives(&source.text);
    if let Some(warning) = syntax::check(&options.build_args, directives.syntax.as_ref())? {
        warn(progress_mode(args)?, &warning);
    }
    let info = source_info(source);
    Ok(Parsed { tree: parse(source, &info, args, options), info })
}

/// Brings what is not at hand of the context and the Dockerfile.
pub(super) fn settle(
    job: &Job,
    origin: Origin,
    at_hand: Option<Parsed>,
    args: &BuildArgs,
    options: &mut Options,
) -> Result<Parsed, Failure> {
    let _span = at_hand.is_none().then(|| span("bring", || "context and Dockerfile".to_owned()));
    let brought = origin.settle(job, options)?;
    match (at_hand, brought) {
        (Some(at_hand), _) => Ok(at_hand),
        (None, Some(brought)) => parsed(&brought, args, options),
        (None, None) => Err(Failure::new(Exit::Usage, "there is no Dockerfile")),
    }
}

/// The Dockerfile as messages refer to it.
fn source_info(source: &DockerfileText) -> Arc<SourceInfo> {
    let text = parser::decode(&source.text);
    Arc::new(SourceInfo { filename: source.name.clone(), text })
}

/// Parses the Dockerfile; every mistake of it is shown.
fn parse(
    source: &DockerfileText,
    info: &Arc<SourceInfo>,
    args: &BuildArgs,
    options: &Options,
) -> Result<Dockerfile, Failure> {
    parser::parse(&source.text).map_err(|errors| {
        let failures = errors.errors.iter().map(|error| parse_failure(error, info));
        let mut options = options.clone();
        let contexts = args.build_contexts.iter().filter_map(|text| named_context(text).ok());
        options.contexts.extend(contexts);
        let mut all: Vec<Failure> =
            failures.chain(further_mistakes(&source.text, &options, info)).collect();
        all.sort_by_key(Failure::line);
        Failure::several(all)
    })
}

/// Runs the frontend, getting it the images that it asks for.
pub(super) fn convert(
    job: &Job,
    tree: &Dockerfile,
    options: &Options,
    events: &dyn EventSink,
    info: &Arc<SourceInfo>,
) -> Result<Build, Failure> {
    let _span = span("convert", || info.filename.clone());
    let options = &with_epoch(job, tree, options, info)?;
    let mut images = ResolvedImages::default();
    loop {
        match frontend::convert(tree, options, &images) {
            Ok(Outcome::Done(build)) => return Ok(*build),
            Ok(Outcome::Needs(requests)) => {
                for request in requests {
                    if images.find(&request.location, &request.platform).is_some() {
                        continue;
                    }
                    let image = resolve(job, &request, events)
                        .map_err(|error| unresolved(&error, &request, info))?;
                    images.insert(&request, image);
                }
            }
            Err(errors) => return Err(frontend_failure(&errors, info)),
        }
    }
}

/// The options with the time of the build, asked where it comes from if it is not given.
fn with_epoch<'a>(
    job: &Job,
    tree: &Dockerfile,
    options: &'a Options,
    info: &Arc<SourceInfo>,
) -> Result<Cow<'a, Options>, Failure> {
    let time = match frontend::epoch_source(tree, options) {
        Ok(EpochSource::Given) => return Ok(Cow::Borrowed(options)),
        Ok(EpochSource::Timeless) => None,
        Ok(EpochSource::Source(source)) => {
            job.source_time(&source).map_err(|error| op_failure(&error))?
        }
        Err(error) => return Err(frontend_failure(&[error], info)),
    };
    Ok(Cow::Owned(Options { epoch_of_source: Some(time), ..options.clone() }))
}

/// Resolves an image, shown as a step of its own.
pub(crate) fn resolve(
    job: &Job,
    request: &ImageRequest,
    events: &dyn EventSink,
) -> Result<frontend::ResolvedImage, OpError> {
    let (location, name) = match &request.location {
        ImageLocation::Registry(name) => {
            let reference = Reference::parse(name).map_err(|error| OpError::Layout {
                name: name.clone(),
                message: error.to_string(),
            })?;
            (solver::ImageLocation::Registry(reference), name.clone())
        }
        ImageLocation::OciLayout { context, path, tag, digest } => {
            let pick = match digest {
                Some(digest) => LayoutPick::Digest(*digest),
                None => LayoutPick::Tag(tag.clone().unwrap_or_else(|| "latest".to_owned())),
            };
            (
                solver::ImageLocation::Layout { name: context.clone(), path: path.into(), pick },
                context.clone(),
            )
        }
    };
    let title = format!("[internal] load metadata for {name}");
    let vertex = Digest::of(format!("{title} {}", request.platform).as_bytes());
    events.send(Event::VertexStarted {
        vertex,
        inputs: Vec::new(),
        name: title,
        at: SystemTime::now(),
    });
    let resolving = span("resolve", || redacted(&name).into_owned());
    let outcome = job.resolve_image(
        &location,
        &request.platform,
        request.any_platform,
        request.mode == ResolveMode::ForcePull,
    );
    drop(resolving);
    let error = outcome.as_ref().err().map(|error| VertexError::Failed(chain(error)));
    events.send(Event::VertexCompleted { vertex, cached: false, error, at: SystemTime::now() });
    let image = outcome?;
    let mut platform = request.platform.clone();
    platform.os.clone_from(&image.config.os);
    platform.architecture.clone_from(&image.config.architecture);
    platform.variant.clone_from(&image.config.variant);
    Ok(frontend::ResolvedImage {
        digest: image.digest,
        config: image.config,
        platform: platform.normalized(),
        reference: name,
    })
}

/// The vertex of reading the Dockerfile: its title and name in events.
pub(crate) fn definition_vertex(info: &SourceInfo) -> (String, Digest) {
    let title = format!("[internal] load build definition from {}", info.filename);
    let vertex = Digest::of(title.as_bytes());
    (title, vertex)
}

pub(super) fn announce_definition(events: &dyn EventSink, info: &SourceInfo) {
    let (title, vertex) = definition_vertex(info);
    let at = SystemTime::now();
    events.send(Event::VertexStarted { vertex, inputs: Vec::new(), name: title, at });
    let (id, current) = ("reading".to_owned(), info.text.len() as u64);
    events.send(Event::Status { vertex, id, current, total: 0, started: at, completed: Some(at) });
    events.send(Event::VertexCompleted { vertex, cached: false, error: None, at });
}
