//! `build [OPTIONS] CONTEXT`: the main job, from the Dockerfile to what was asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use exporters::{Attestation, ImageResult, Stop};
use frontend::{
    Build, EpochSource, ImageLocation, ImageRequest, NamedContext, Options, Outcome, ResolveMode,
    ResolvedImages, Target,
};
use llb::event::VertexError;
use llb::url::redacted;
use llb::{Digest, Event, EventSink, Platform, Reference, SourceInfo};
use parser::Dockerfile;
use sandbox::Cancel;
use solver::{Engine, Job, LayoutPick, OpError};
use tree::trace::span;

use crate::args::BuildArgs;
use crate::commands::call::{Call, Images, report_warnings, send_warnings};
use crate::commands::context::Origin;
use crate::commands::export::{Exported, Outputs};
use crate::commands::options::{frontend_options, named_context, tags};
use crate::commands::print_llb::Form;
use crate::commands::tidy::{self, Limits};
use crate::commands::{engine_options, epoch, guess, limits, op_failure, solve_failure, verify};
use crate::inputs::{DockerfileText, Given, ignore_file, secret};
use crate::mistakes::{frontend_failure, further_mistakes, parse_failure, unresolved};
use crate::progress::{Mode, Progress, raw_warning};
use crate::provenance::{Facts, Provenance};
use crate::report::{Exit, Failure, chain, print, tell};
use crate::trace::Trace;
use crate::{explain, guard, metadata, signals, syntax};

/// Runs the command; the program began at `began`.
pub(crate) fn run(args: BuildArgs, began: Instant) -> Result<Exit, Failure> {
    if let Some(flag) = args.unsupported() {
        return Err(Failure::new(Exit::Usage, format!("{flag} is not supported yet")));
    }
    let trace = Trace::begin(args.trace.as_deref(), began)?;
    let outcome = {
        let _whole = span("build", String::new);
        run_traced(args, &trace)
    };
    match (outcome, trace.write()) {
        (Err(failure), Err(second)) => {
            tell(format_args!("WARNING: {}", second.message));
            Err(failure)
        }
        (Err(failure), _) | (_, Err(failure)) => Err(failure),
        (done, Ok(())) => done,
    }
}

fn run_traced(args: BuildArgs, trace: &Trace) -> Result<Exit, Failure> {
    let mode = progress_mode(&args)?;
    for flag in args.without_effect() {
        warn(mode, &format!("{flag} has no effect"));
    }
    let call = Call::parse(args.check, args.call.as_deref())?;
    let llb_form = Form::parse(&args)?;
    if let Some(answer) = call.and_then(Call::answer_at_once) {
        return answer;
    }
    if args.explain && (call.is_some() || llb_form.is_some()) {
        return Err(Failure::new(
            Exit::Usage,
            "--explain is about what a build did, and nothing is built here",
        )
        .hint("leave out --check, --call or --print-llb"));
    }
    let began = jiff::Timestamp::now();
    let provenance = Provenance::parse(&args)?;
    let noted = metadata::provenance(provenance.as_ref())?;
    let mut origin = Origin::of(&args)?;
    let names = tags(&args.tags)?;
    let mut options = frontend_options(&args)?;
    epoch::apply(&args, origin.folder(), &mut options)?;
    let mut outputs = Outputs::parse(&args, &names, &options)?;
    if let Some(provenance) = &provenance {
        outputs.attest(provenance.inline_only);
        if !outputs.carry_attestations() {
            warn(
                mode,
                "no output carries the provenance: push the image or write it as an OCI archive",
            );
        }
    }
    let prints = args.quiet || call.is_some() || llb_form.is_some() || outputs.uses_stdout();
    if prints && Trace::is_stdout(args.trace.as_deref()) {
        return Err(Failure::new(
            Exit::Usage,
            "the trace and something else cannot both be written to standard output",
        )
        .hint("give --trace a file"));
    }
    if let Some(path) = &args.iidfile {
        outputs.check_iidfile()?;
        remove_if_there(path)?;
    }
    let source = origin.dockerfile()?;
    // Mistakes in a Dockerfile that is at hand are told before anything is opened.
    let at_hand = source.as_ref().map(|source| parsed(source, &args, &mut options)).transpose()?;
    let at_hand = match (at_hand, call) {
        (Some(Parsed { tree: Err(failure), info }), Some(call)) => {
            return call.answer_unparsed(failure, &info);
        }
        (Some(Parsed { tree: Err(failure), .. }), None) => return Err(failure),
        (at_hand, _) => at_hand,
    };
    if args.jobs == Some(0) {
        return Err(Failure::new(Exit::Usage, "invalid --jobs 0: want 1 or more"));
    }
    let secrets = secrets(&args.secrets)?;
    let secret_guard = guard::reaction(args.secret_guard.as_deref())?;
    let limits = Limits::from_environment()?;
    let resources = limits::resources(&args)?;

    let opening = span("open", || "contexts and store".to_owned());
    let mut root = engine_options(args.root.as_deref(), args.jobs, args.isolation.as_deref())?;
    root.registry.hosts = outputs.hosts();
    root.resources = resources;
    let hashes = root.root.join("contexts");
    let agents =
        crate::inputs::agents(&args.ssh, std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from))?;
    let mut given = Given::new(secrets, secret_guard, agents);
    if let Some(folder) = origin.folder() {
        let path = source.as_ref().and_then(|source| source.path.as_deref());
        let ignore = ignore_file(folder, path)?;
        options.ignore_patterns = ignore_lines(&ignore);
        given.add_context("context", folder, &ignore, &hashes)?;
    }
    add_named_contexts(&args, &mut options, &mut given, &hashes)?;
    let given = Arc::new(given);
    if let Some(call) = call {
        let Parsed { tree, info } = match at_hand {
            Some(at_hand) => at_hand,
            None => {
                let engine = Engine::open(root.clone()).map_err(|error| op_failure(&error))?;
                let job = engine.job(Arc::clone(&given) as _, Arc::new(()), cancel()?);
                settle(&job, origin, None, &args, &mut options)?
            }
        };
        return match tree {
            Ok(tree) => call.answer(&tree, &options, &mut Images::new(root, given), &info),
            Err(failure) => call.answer_unparsed(failure, &info),
        };
    }
    if let Some(form) = llb_form {
        let engine = Engine::open(root).map_err(|error| op_failure(&error))?;
        let job = engine.job(given, Arc::new(()), cancel()?);
        let Parsed { tree, info } = settle(&job, origin, at_hand, &args, &mut options)?;
        return form.print(&convert(&job, &tree?, &options, &(), &info)?);
    }

    let engine = Engine::open(root).map_err(|error| op_failure(&error))?;
    let expects_steps = args.no_cache
        || at_hand.as_ref().and_then(|parsed| parsed.tree.as_ref().ok()).is_some_and(|tree| {
            let path = source.as_ref().and_then(|source| source.path.as_deref());
            guess::expects_steps(tree, path, origin.folder(), engine.store().last_written())
        });
    engine.warm_up(expects_steps);
    let cancel = cancel()?;
    let unfinished = engine.store().unfinished();
    let last = trace.clone();
    let interrupted = signals::watch(
        cancel.clone(),
        engine.transfers(),
        move || unfinished.discard(),
        // What cannot be written then is lost with the rest.
        move || drop(last.write()),
    )
    .map_err(|error| Failure::new(Exit::Machine, format!("cannot watch for signals: {error}")))?;
    let wish = cancel.clone();
    let stop = Stop::when(move || wish.is_cancelled());
    outputs.stop_when(&stop);
    let progress = Arc::new(Progress::start(mode));
    let job = engine.job(Arc::clone(&given) as _, Arc::clone(&progress) as _, cancel.clone());
    let label = explain::label(&args, source.as_ref().and_then(|source| source.path.as_deref()));
    let id = label.id.clone();
    job.label(label);
    job.prepare_layers(outputs.preparation(&engine));
    drop(opening);
    let settled = settle(&job, origin, at_hand, &args, &mut options);
    let built = settled.and_then(|Parsed { tree, info }| {
        let tree = tree?;
        announce_definition(progress.as_ref(), &info);
        let build = convert(&job, &tree, &options, progress.as_ref(), &info)?;
        outputs.check_times(&build.targets)?;
        check_images(&given, &build, &outputs, &options, mode, &info)?;
        let said = |provenance: &Option<Provenance>| {
            let facts = Facts { id: &id, build: &build, options: &options, info: &info, began };
            provenance.as_ref().map_or_else(Vec::new, |it| it.attestations(&job, &facts))
        };
        let events = progress.as_ref();
        let (mut exported, result) =
            solve(&engine, &job, &build, &outputs, events, || said(&provenance))?;
        if args.metadata_file.is_some() {
            let platforms: Vec<_> =
                build.targets.iter().map(|target| target.platform.clone()).collect();
            exported.note(metadata::provenance_entries(&said(&noted), &platforms));
            exported.note(metadata::warnings(&build.warnings, &info));
        }
        Ok((build, exported, result, info))
    });
    if let (Ok((build, .., info)), Mode::RawJson) = (&built, mode) {
        send_warnings(progress.as_ref(), &build.warnings, info);
    }
    let saving = span("save", || "hashes of the contexts".to_owned());
    given.save_hashes();
    drop(saving);
    let showing = span("wait", || "for the display".to_owned());
    progress.finish();
    drop(showing);
    let explanations = job.explanations();
    if args.explain && !matches!(mode, Mode::Quiet | Mode::RawJson) {
        tell(format_args!("\n{}", explain::text(&explanations).trim_end()));
    }
    if interrupted.is_set() {
        return Err(Failure::new(Exit::Interrupted, "canceled"));
    }
    let outcome = built.and_then(|(build, mut exported, result, info)| {
        if args.explain {
            exported.explain(&explanations);
        }
        report_warnings(&build.warnings, mode, args.debug, &info);
        warn_of_other_platforms(&build, &options, mode);
        let done = finish(&args, mode, &id, &exported)?;
        if args.verify {
            let progress = Arc::new(Progress::start(mode));
            let job = engine.job(given, Arc::clone(&progress) as _, cancel);
            let verified =
                verify::again(&job, &build, &outputs, &result, &stop, || progress.finish());
            if interrupted.is_set() {
                return Err(Failure::new(Exit::Interrupted, "canceled"));
            }
            verified?;
        }
        Ok(done)
    });
    tidy::after_build(&engine, &limits);
    let _closing = span("close", || "store".to_owned());
    drop((job, engine));
    outcome
}

/// A Dockerfile that has been read, and what is wrong with it.
struct Parsed {
    tree: Result<Dockerfile, Failure>,
    info: Arc<SourceInfo>,
}

/// Parses a Dockerfile that has been read; it may ask for a frontend that is not there.
fn parsed(
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
fn settle(
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

/// Solves and exports.
fn solve(
    engine: &Engine,
    job: &Job,
    build: &Build,
    outputs: &Outputs,
    events: &dyn EventSink,
    said: impl FnOnce() -> Vec<Attestation>,
) -> Result<(Exported, ImageResult), Failure> {
    let edges: Vec<_> = build.targets.iter().filter_map(|target| target.result).collect();
    let solving = span("solve", String::new);
    let exported = job.solve_then(&build.definition, &edges, |trees| {
        drop(solving);
        let mut result = outputs.result(&results(build, trees));
        result.attestations = said();
        outputs.export(engine, result.clone(), events).map(|exported| (exported, result))
    });
    exported.map_err(|error| solve_failure(&error))?
}

/// The targets of a build with their trees.
pub(crate) fn results(build: &Build, trees: Vec<cache::Ref>) -> Vec<(&Target, cache::Ref)> {
    let mut trees = trees.into_iter();
    let tree = |target: &Target| match target.result {
        Some(_) => trees.next().unwrap_or_else(cache::Ref::scratch),
        None => cache::Ref::scratch(),
    };
    let trees: Vec<cache::Ref> = build.targets.iter().map(tree).collect();
    build.targets.iter().zip(trees).collect()
}

/// Looks for values of secrets in what images have besides their layers, before anything runs.
fn check_images(
    given: &Given,
    build: &Build,
    outputs: &Outputs,
    options: &Options,
    mode: Mode,
    info: &Arc<SourceInfo>,
) -> Result<(), Failure> {
    let Some(secrets) = solver::Session::guard(given).filter(|_| outputs.has_image()) else {
        return Ok(());
    };
    let targets = build.targets.iter();
    let warning = guard::check_images(&secrets, targets, outputs.annotations(), options, info)?;
    if let Some(text) = warning {
        warn(mode, &text);
    }
    Ok(())
}

fn cancel() -> Result<Cancel, Failure> {
    Cancel::new().map_err(|error| Failure::new(Exit::Machine, chain(&error)))
}

fn progress_mode(args: &BuildArgs) -> Result<Mode, Failure> {
    let given = args.progress.as_deref().unwrap_or("auto");
    let mode = Mode::parse(given).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!(
                "invalid progress mode `{given}`: want auto, plain, tty, quiet, rawjson or none"
            ),
        )
    })?;
    match (args.quiet, given) {
        (true, "auto" | "quiet") => Ok(Mode::Quiet),
        (true, _) => Err(Failure::new(
            Exit::Usage,
            format!("progress={given} and quiet cannot be used together"),
        )),
        (false, _) => Ok(mode),
    }
}

fn remove_if_there(path: &Path) -> Result<(), Failure> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Machine, error.to_string()))
        }
        _ => Ok(()),
    }
}

fn secrets(given: &[String]) -> Result<BTreeMap<String, crate::inputs::SecretSource>, Failure> {
    given.iter().map(|spec| secret(spec, |name| std::env::var_os(name).is_some())).collect()
}

fn ignore_lines(ignore: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(ignore);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.trim().to_owned())
        .collect()
}

fn add_named_contexts(
    args: &BuildArgs,
    options: &mut Options,
    given: &mut Given,
    hashes: &Path,
) -> Result<(), Failure> {
    for text in &args.build_contexts {
        let (name, context) = named_context(text)?;
        if let NamedContext::Local { name } = &context {
            let folder = PathBuf::from(text.split_once('=').map_or("", |(_, value)| value));
            let ignore = ignore_file(&folder, None)?;
            given.add_context(name, &folder, &ignore, hashes)?;
        }
        options.contexts.insert(name, context);
    }
    Ok(())
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
fn convert(
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

fn announce_definition(events: &dyn EventSink, info: &SourceInfo) {
    let (title, vertex) = definition_vertex(info);
    let at = SystemTime::now();
    events.send(Event::VertexStarted { vertex, inputs: Vec::new(), name: title, at });
    let (id, current) = ("reading".to_owned(), info.text.len() as u64);
    events.send(Event::Status { vertex, id, current, total: 0, started: at, completed: Some(at) });
    events.send(Event::VertexCompleted { vertex, cached: false, error: None, at });
}

/// Tells of something that is no reason to fail, in the form in which the rest is told.
fn warn(mode: Mode, text: &str) {
    match mode {
        Mode::RawJson => tell(format_args!("{}", raw_warning(text))),
        _ => tell(format_args!("WARNING: {text}")),
    }
}

/// Tells of results that are for another platform than was asked for.
fn warn_of_other_platforms(build: &Build, options: &Options, mode: Mode) {
    for (asked, target) in options.platforms.iter().zip(&build.targets) {
        let (asked, got) = (asked.normalized(), Platform::from(&target.config).normalized());
        if asked != got && mode != Mode::Quiet {
            let text =
                format!("Requested platform \"{asked}\" does not match result platform \"{got}\"");
            warn(mode, &text);
        }
    }
}

/// Writes a file so that it is there in full or not at all.
fn write_aside(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}.partial", std::process::id()));
    fs_err::write(&aside, text)?;
    fs_err::rename(&aside, path)
}

/// Prints and writes what identifies the result.
fn finish(args: &BuildArgs, mode: Mode, id: &str, exported: &Exported) -> Result<Exit, Failure> {
    let write = |path: &Path, text: &[u8]| {
        write_aside(path, text).map_err(|error| Failure::new(Exit::Machine, error.to_string()))
    };
    if let Some(path) = &args.iidfile {
        write(path, exported.id.map(|id| id.to_string()).unwrap_or_default().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        write(path, exported.metadata_json(id).as_bytes())?;
    }
    // Nothing belongs behind an archive.
    if mode == Mode::Quiet && args.quiet && !exported.to_stdout {
        print(format_args!("{}", exported.id.map(|id| id.to_string()).unwrap_or_default()))?;
    }
    Ok(Exit::Done)
}
