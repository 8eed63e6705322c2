//! `build [OPTIONS] CONTEXT`: the main job, from the Dockerfile to what was asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use exporters::{Attestation, ImageResult, Stop};
use frontend::{Build, NamedContext, Options, Target};
use llb::{EventSink, Platform, SourceInfo};
use sandbox::Cancel;
use solver::{Engine, EngineOptions, Job};
use tree::trace::{Span, span};

use crate::args::BuildArgs;
use crate::commands::call::{Call, Images, report_warnings, send_warnings};
use crate::commands::context::Origin;
use crate::commands::dockerfile::{Parsed, announce_definition, convert, parsed, settle};
use crate::commands::export::{Exported, Outputs, export_failure};
use crate::commands::options::{frontend_options, named_context, tags};
use crate::commands::print_llb::Form;
use crate::commands::tidy::{self, Limits};
use crate::commands::{engine_options, epoch, guess, limits, op_failure, solve_failure, verify};
use crate::inputs::{Given, ignore_file, secret};
use crate::progress::{Mode, Progress, raw_warning};
use crate::provenance::{Facts, Provenance};
use crate::report::{Exit, Failure, chain, print, tell};
use crate::trace::Trace;
use crate::{explain, guard, metadata, signals};

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
    let purpose = Purpose::of(&args)?;
    if let Purpose::Answer(call) = purpose
        && let Some(answer) = call.answer_at_once()
    {
        return answer;
    }
    let (mut request, mut origin) = Request::of(args, mode, purpose)?;
    let source = origin.dockerfile()?;
    // Mistakes in a Dockerfile that is at hand are told before anything is opened.
    let at_hand = source
        .as_ref()
        .map(|source| parsed(source, &request.args, &mut request.options))
        .transpose()?;
    if let Some(Parsed { tree: Err(failure), info }) = at_hand {
        return purpose.fail(failure, &info);
    }
    let path = source.and_then(|source| source.path);
    let limits = Limits::from_environment()?;
    let opening = span("open", || "contexts and store".to_owned());
    let (settings, given) = request.prepare(&origin, path.as_deref())?;
    let start = Start { origin, at_hand, path, settings, given };
    match purpose {
        Purpose::Answer(call) => answer(call, request, start),
        Purpose::Print(form) => print_definition(form, request, start),
        Purpose::Build => build(request, start, &limits, trace, opening),
    }
}

/// What becomes of the Dockerfile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Build,
    /// A question about it is answered.
    Answer(Call),
    /// Its definition is printed.
    Print(Form),
}

impl Purpose {
    fn of(args: &BuildArgs) -> Result<Self, Failure> {
        let call = Call::parse(args.check, args.call.as_deref())?;
        Ok(match (call, Form::parse(args)?) {
            (Some(call), _) => Self::Answer(call),
            (None, Some(form)) => Self::Print(form),
            (None, None) => Self::Build,
        })
    }

    /// What comes of a Dockerfile that cannot be parsed.
    fn fail(self, failure: Failure, info: &Arc<SourceInfo>) -> Result<Exit, Failure> {
        match self {
            Self::Answer(call) => call.answer_unparsed(failure, info),
            Self::Build | Self::Print(_) => Err(failure),
        }
    }
}

/// What the command line asks for, checked as far as that needs neither the Dockerfile nor the store.
struct Request {
    args: BuildArgs,
    mode: Mode,
    /// When the command began.
    began: jiff::Timestamp,
    /// What is said beside the image of how it was made.
    provenance: Option<Provenance>,
    /// What is said of that in the metadata file.
    noted: Option<Provenance>,
    options: Options,
    outputs: Outputs,
}

impl Request {
    fn of(args: BuildArgs, mode: Mode, purpose: Purpose) -> Result<(Self, Origin), Failure> {
        if args.explain && purpose != Purpose::Build {
            return Err(usage("--explain is about what a build did, and nothing is built here")
                .hint("leave out --check, --call or --print-llb"));
        }
        let began = jiff::Timestamp::now();
        let provenance = Provenance::parse(&args)?;
        let noted = metadata::provenance(provenance.as_ref())?;
        let origin = Origin::of(&args)?;
        let names = tags(&args.tags)?;
        let mut options = frontend_options(&args)?;
        epoch::apply(&args, origin.folder(), &mut options)?;
        let mut outputs = Outputs::parse(&args, &names, &options)?;
        if let Some(provenance) = &provenance {
            outputs.attest(provenance.inline_only);
            if !outputs.carry_attestations() {
                let text = "no output carries the provenance: push the image or write it as an OCI archive";
                warn(mode, text);
            }
        }
        let prints = args.quiet || purpose != Purpose::Build || outputs.uses_stdout();
        if prints && Trace::is_stdout(args.trace.as_deref()) {
            return Err(usage(
                "the trace and something else cannot both be written to standard output",
            )
            .hint("give --trace a file"));
        }
        if let Some(path) = &args.iidfile {
            outputs.check_iidfile()?;
            remove_if_there(path)?;
        }
        Ok((Self { args, mode, began, provenance, noted, options, outputs }, origin))
    }

    /// Settings of the engine, and what the build is given: secrets, agents, and folders with what is ignored in them.
    /// `dockerfile` is where the Dockerfile is, if it is a file.
    fn prepare(
        &mut self,
        origin: &Origin,
        dockerfile: Option<&Path>,
    ) -> Result<(EngineOptions, Arc<Given>), Failure> {
        let args = &self.args;
        if args.jobs == Some(0) {
            return Err(usage("invalid --jobs 0: want 1 or more"));
        }
        let secrets = secrets(&args.secrets)?;
        let secret_guard = guard::reaction(args.secret_guard.as_deref())?;
        let resources = limits::resources(args)?;
        let mut settings =
            engine_options(args.root.as_deref(), args.jobs, args.isolation.as_deref())?;
        settings.registry.hosts = self.outputs.hosts();
        settings.resources = resources;
        let hashes = settings.root.join("contexts");
        let own_agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        let agents = crate::inputs::agents(&args.ssh, own_agent)?;
        let mut given = Given::new(secrets, secret_guard, agents);
        if let Some(folder) = origin.folder() {
            let ignore = ignore_file(folder, dockerfile)?;
            self.options.ignore_patterns = ignore_lines(&ignore);
            given.add_context("context", folder, &ignore, &hashes)?;
        }
        add_named_contexts(args, &mut self.options, &mut given, &hashes)?;
        Ok((settings, Arc::new(given)))
    }
}

/// What a build begins with, beside what was asked for.
struct Start {
    origin: Origin,
    /// The Dockerfile, if no engine is needed to read it.
    at_hand: Option<Parsed>,
    /// Where it is, if it is a file.
    path: Option<PathBuf>,
    settings: EngineOptions,
    given: Arc<Given>,
}

/// Answers a question about the Dockerfile.
fn answer(call: Call, mut request: Request, start: Start) -> Result<Exit, Failure> {
    let Start { origin, at_hand, settings, given, .. } = start;
    let Parsed { tree, info } = match at_hand {
        Some(at_hand) => at_hand,
        None => {
            let engine = open(settings.clone())?;
            let job = engine.job(Arc::clone(&given) as _, Arc::new(()), cancel()?);
            settle(&job, origin, None, &request.args, &mut request.options)?
        }
    };
    match tree {
        Ok(tree) => call.answer(&tree, &request.options, &mut Images::new(settings, given), &info),
        Err(failure) => call.answer_unparsed(failure, &info),
    }
}

fn print_definition(form: Form, mut request: Request, start: Start) -> Result<Exit, Failure> {
    let engine = open(start.settings)?;
    let job = engine.job(start.given, Arc::new(()), cancel()?);
    let Parsed { tree, info } =
        settle(&job, start.origin, start.at_hand, &request.args, &mut request.options)?;
    form.print(&convert(&job, &tree?, &request.options, &(), &info)?)
}

/// Builds, exports, and shows what came of it. `opening` lasts until the store is open.
fn build(
    mut request: Request,
    start: Start,
    limits: &Limits,
    trace: &Trace,
    opening: Span,
) -> Result<Exit, Failure> {
    let Start { origin, at_hand, path, settings, given } = start;
    let mode = request.mode;
    let engine = open(settings)?;
    let tree = at_hand.as_ref().and_then(|parsed| parsed.tree.as_ref().ok());
    let last_written = || engine.store().last_written();
    engine.warm_up(
        request.args.no_cache
            || tree.is_some_and(|tree| {
                guess::expects_steps(tree, path.as_deref(), origin.folder(), last_written())
            }),
    );
    let cancel = cancel()?;
    let interrupted = watch_signals(&engine, &cancel, trace)?;
    let wish = cancel.clone();
    let stop = Stop::when(move || wish.is_cancelled());
    request.outputs.stop_when(&stop);
    let progress = Arc::new(Progress::start(mode));
    let job = engine.job(Arc::clone(&given) as _, Arc::clone(&progress) as _, cancel.clone());
    let label = explain::label(&request.args, path.as_deref());
    let id = label.id.clone();
    job.label(label);
    job.prepare_layers(request.outputs.preparation(&engine));
    drop(opening);

    let settled = settle(&job, origin, at_hand, &request.args, &mut request.options);
    let run = Run { request: &request, engine: &engine, job: &job, given: &given, id: &id };
    let built = settled.and_then(|parsed| run.build(parsed, progress.as_ref()));
    if let (Ok(built), Mode::RawJson) = (&built, mode) {
        send_warnings(progress.as_ref(), &built.build.warnings, &built.info);
    }
    let saving = span("save", || "hashes of the contexts".to_owned());
    given.save_hashes();
    drop(saving);
    let showing = span("wait", || "for the display".to_owned());
    progress.finish();
    drop(showing);
    if mode != Mode::Quiet {
        engine.registry().take_notices().iter().for_each(|notice| warn(mode, notice));
    }
    let explanations = job.explanations();
    if request.args.explain && !matches!(mode, Mode::Quiet | Mode::RawJson) {
        tell(format_args!("\n{}", explain::text(&explanations).trim_end()));
    }
    if interrupted.is_set() {
        return Err(Failure::new(Exit::Interrupted, "canceled"));
    }
    let outcome = built.and_then(|mut built| {
        if request.args.explain {
            built.exported.explain(&explanations);
        }
        let done = run.finish(&built)?;
        if request.args.verify {
            run.verify(&built, cancel, &stop, &interrupted)?;
        }
        Ok(done)
    });
    tidy::after_build(&engine, limits);
    let _closing = span("close", || "store".to_owned());
    drop((job, engine));
    outcome
}

fn open(settings: EngineOptions) -> Result<Engine, Failure> {
    Engine::open(settings).map_err(|error| op_failure(&error))
}

fn watch_signals(
    engine: &Engine,
    cancel: &Cancel,
    trace: &Trace,
) -> Result<signals::Interrupted, Failure> {
    let unfinished = engine.store().unfinished();
    let last = trace.clone();
    signals::watch(
        cancel.clone(),
        engine.transfers(),
        move || unfinished.discard(),
        // What cannot be written then is lost with the rest.
        move || drop(last.write()),
    )
    .map_err(|error| Failure::new(Exit::Machine, format!("cannot watch for signals: {error}")))
}

/// A build under way.
struct Run<'a> {
    request: &'a Request,
    engine: &'a Engine,
    job: &'a Job,
    given: &'a Arc<Given>,
    /// The build's id in the notes of its steps.
    id: &'a str,
}

/// What came of a build.
struct Built {
    build: Build,
    exported: Exported,
    result: ImageResult,
    info: Arc<SourceInfo>,
}

impl Run<'_> {
    /// Converts the Dockerfile, solves, and exports.
    fn build(&self, parsed: Parsed, events: &dyn EventSink) -> Result<Built, Failure> {
        let Request { options, outputs, .. } = self.request;
        let Parsed { tree, info } = parsed;
        let tree = tree?;
        announce_definition(events, &info);
        let build = convert(self.job, &tree, options, events, &info)?;
        outputs.check_times(&build.targets)?;
        self.check_images(&build, &info)?;
        let edges: Vec<_> = build.targets.iter().filter_map(|target| target.result).collect();
        let solving = span("solve", String::new);
        let exported = self.job.solve_then(&build.definition, &edges, |trees| {
            drop(solving);
            let mut result = outputs.result(&results(&build, trees));
            result.attestations =
                self.attestations(self.request.provenance.as_ref(), &build, &info);
            outputs.export(self.engine, result.clone(), events).map(|exported| (exported, result))
        });
        let (mut exported, result) = exported.map_err(|error| solve_failure(&error))??;
        if self.request.args.metadata_file.is_some() {
            let platforms: Vec<_> =
                build.targets.iter().map(|target| target.platform.clone()).collect();
            let noted = self.attestations(self.request.noted.as_ref(), &build, &info);
            exported.note(metadata::provenance_entries(&noted, &platforms));
            exported.note(metadata::warnings(&build.warnings, &info));
        }
        Ok(Built { build, exported, result, info })
    }

    fn attestations(
        &self,
        provenance: Option<&Provenance>,
        build: &Build,
        info: &SourceInfo,
    ) -> Vec<Attestation> {
        let Request { options, began, .. } = self.request;
        let facts = Facts { id: self.id, build, options, info, began: *began };
        provenance.map_or_else(Vec::new, |it| it.attestations(self.job, &facts))
    }

    /// Looks for values of secrets in what images have besides their layers, before anything runs.
    fn check_images(&self, build: &Build, info: &Arc<SourceInfo>) -> Result<(), Failure> {
        let Request { options, outputs, mode, .. } = self.request;
        let guarded = solver::Session::guard(self.given.as_ref());
        let Some(secrets) = guarded.filter(|_| outputs.has_image()) else { return Ok(()) };
        let targets = build.targets.iter();
        let about = (outputs.annotations(), &outputs.image_names()[..]);
        let warning = guard::check_images(&secrets, targets, about, options, info)?;
        if let Some(text) = warning {
            warn(*mode, &text);
        }
        Ok(())
    }

    /// Shows warnings, and prints and writes what identifies the result.
    fn finish(&self, built: &Built) -> Result<Exit, Failure> {
        let Request { args, mode, options, .. } = self.request;
        report_warnings(&built.build.warnings, *mode, args.debug, &built.info);
        warn_of_other_platforms(&built.build, options, *mode);
        let write = |path: &Path, text: &[u8]| {
            exporters::write_file(path, text).map_err(|error| export_failure(&error))
        };
        let exported = &built.exported;
        let image = exported.id.map(|id| id.to_string()).unwrap_or_default();
        if let Some(path) = &args.iidfile {
            write(path, image.as_bytes())?;
        }
        if let Some(path) = &args.metadata_file {
            write(path, exported.metadata_json(self.id).as_bytes())?;
        }
        // Nothing belongs behind an archive.
        if *mode == Mode::Quiet && args.quiet && !exported.to_stdout {
            print(format_args!("{image}"))?;
        }
        Ok(Exit::Done)
    }

    /// Builds once more without the cache; fails if that gives something else.
    fn verify(
        &self,
        built: &Built,
        cancel: Cancel,
        stop: &Stop,
        interrupted: &signals::Interrupted,
    ) -> Result<(), Failure> {
        let Request { outputs, mode, .. } = self.request;
        let progress = Arc::new(Progress::start(*mode));
        let job = self.engine.job(Arc::clone(self.given) as _, Arc::clone(&progress) as _, cancel);
        let finish = || progress.finish();
        let verified = verify::again(&job, &built.build, outputs, &built.result, stop, finish);
        if interrupted.is_set() {
            return Err(Failure::new(Exit::Interrupted, "canceled"));
        }
        verified
    }
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

fn usage(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn cancel() -> Result<Cancel, Failure> {
    Cancel::new().map_err(|error| Failure::new(Exit::Machine, chain(&error)))
}

pub(super) fn progress_mode(args: &BuildArgs) -> Result<Mode, Failure> {
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
    // A folder is refused when it is written, and a link, device or pipe is not the build's to remove.
    if !fs_err::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Ok(());
    }
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

/// Tells of something that is no reason to fail, in the form in which the rest is told.
pub(super) fn warn(mode: Mode, text: &str) {
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
