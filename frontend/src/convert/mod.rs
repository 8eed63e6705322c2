//! Turns the instructions of one stage into vertices and config, each instruction in its own file.

mod arguments;
mod commands;
mod copy;
mod metadata;
mod mount;
mod run;
mod start;
mod workdir;

use llb::image::ImageConfig;
use llb::op::NetworkMode;
use llb::{Definition, DiffId, Edge, Op, Platform, VertexMetadata};
use parser::{InstructionKind, Word};

use crate::context::Context;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Rule;
use crate::lint::image::UserInstruction;
use crate::options::NoCache;
use crate::place::Place;
use crate::resolve::Start;
use crate::scope::{LinePlaces, Variables};
use crate::stage::{Plan, StageId, Step};
use crate::step_name::StepNames;
use crate::{expand, image, local, main_context, platform_args};

/// Bytes that an entry of a list or map takes besides its text, roughly.
const ENTRY_SIZE: usize = 64;

/// What a stage has come to.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// File tree; `None` is an empty one.
    pub(crate) edge: Option<Edge>,
    /// Platform of its steps.
    pub(crate) platform: Platform,
    /// Config so far.
    pub(crate) image: ImageConfig,
    /// Environment of its steps: `ENV` and `ARG`.
    env: Variables,
    /// Names declared by `ARG`, each once, in order.
    declared: Variables,
    /// Where the variables of the image's config stand.
    env_places: LinePlaces,
    /// Whether a `WORKDIR` has been seen.
    workdir_is_set: bool,
    /// The last `USER` of the stage and those below it.
    pub(crate) user: Option<UserInstruction>,
    /// Whether the base image is not known, so that there may be more variables than are known.
    pub(crate) base_is_unknown: bool,
    /// Local source whose tree this is or was made from.
    local: Option<String>,
    /// History entries of the base image.
    pub(crate) base_history_len: usize,
    /// Layers of the base image.
    pub(crate) base_layers: Vec<DiffId>,
    /// The base image.
    pub(crate) base_image: Option<String>,
}

impl StageState {
    /// Bytes that it takes, roughly.
    fn size(&self) -> usize {
        let config = &self.image.config;
        let variables = self.env.iter().chain(self.declared.iter());
        let labels = config.labels.iter().map(|(name, value)| name.len() + value.len());
        let history = self.image.history.iter().flatten().map(|entry| entry.created_by.len());
        let texts = config.exposed_ports.keys().chain(config.volumes.keys());
        let texts = texts.chain([&config.user, &config.working_dir, &config.stop_signal]);
        let test = config.healthcheck.as_ref().map(|healthcheck| &healthcheck.test);
        let lists = [&config.env, &config.on_build, &config.shell, &config.cmd, &config.entrypoint];
        let lists = lists.into_iter().chain(test).flatten();
        let sizes = texts.chain([&self.image.author]).chain(lists).map(String::len);
        let sizes = sizes.chain(variables.map(|(name, value)| 2 * name.len() + value.len()));
        sizes.chain(labels).chain(history).map(|size| size + ENTRY_SIZE).sum()
    }

    /// Notes that all files of the state are used.
    pub(crate) fn note_result(&self, cx: &Context<'_>) {
        if let Some(local) = &self.local {
            cx.locals.note(local, "/");
        }
    }
}

/// Stages that are converted already, by id.
pub(crate) type Done = Vec<Option<StageState>>;

/// Works on one stage.
pub(crate) struct Converter<'c, 'a> {
    cx: &'c Context<'a>,
    plan: &'c Plan<'a>,
    done: &'c Done,
    definition: &'c mut Definition,
    id: StageId,
    state: StageState,
    names: StepNames,
    ignore_cache: bool,
    /// The build context, once a step has asked for it: its vertex names all paths that any step uses.
    main_context: Option<Option<Edge>>,
    /// Whether `CMD` was seen in this stage.
    cmd_is_set: bool,
    /// Where `CMD`, `ENTRYPOINT` and `HEALTHCHECK` were seen last in this stage.
    seen: Vec<(&'static str, Place)>,
    /// Mistakes of the current instruction besides the one that ends it.
    further: Vec<FrontendError>,
}

/// Converts the stage `id`, whose dependencies are `done`.
///
/// Also gives all mistakes in its instructions; an instruction with a mistake has no effect on the state.
pub(crate) fn stage<'a>(
    cx: &Context<'a>,
    plan: &Plan<'a>,
    done: &Done,
    definition: &mut Definition,
    id: StageId,
    start: &Start<'_>,
) -> (StageState, Vec<FrontendError>) {
    let platform = start::platform(cx, plan, done, id, start);
    let mut names = StepNames::new(cx, plan, id, &platform);
    let state = start::state(cx, plan, done, definition, id, start, &mut names);
    let stage = &plan.stages[id];
    if cx.budget.keep(state.size()).is_err() {
        return (state, vec![stage.place.error(ErrorKind::TooLarge)]);
    }
    let ignore_cache = match &cx.options.no_cache {
        NoCache::None => false,
        NoCache::All => true,
        NoCache::Stages(filter) => stage
            .name
            .as_ref()
            .is_some_and(|name| filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))),
    };
    let is_replaced = matches!(stage.base, crate::stage::Base::Replaced { .. });
    let mut converter = Converter {
        cx,
        plan,
        done,
        definition,
        id,
        state,
        names,
        ignore_cache,
        main_context: None,
        cmd_is_set: false,
        seen: Vec::new(),
        further: Vec::new(),
    };
    let mut errors = Vec::new();
    if !stage.is_hidden && !is_replaced {
        for step in stage.steps.iter().filter(|step| !step.is_broken) {
            cx.enter(&step.instruction);
            let before = converter.definition.size();
            let result = converter.step(step);
            let _ = cx.budget.keep(converter.definition.size() - before);
            if cx.budget.is_used_up() {
                errors.push(result.err().unwrap_or_else(|| step.place.error(ErrorKind::TooLarge)));
                break;
            }
            errors.extend(result.err());
            errors.append(&mut converter.further);
        }
    }
    (converter.state, errors)
}

/// Adds the source of stage `id` ahead of its turn, so that it has the name that this stage gives it.
pub(crate) fn add_source<'a>(
    cx: &Context<'a>,
    plan: &Plan<'a>,
    definition: &mut Definition,
    id: StageId,
    start: &Start<'_>,
) {
    let done = Vec::new();
    let mut names = StepNames::new(cx, plan, id, &start::platform(cx, plan, &done, id, start));
    start::edge(cx, plan, definition, id, start, &mut names);
}

impl Converter<'_, '_> {
    fn step(&mut self, step: &Step<'_>) -> Result<(), FrontendError> {
        let place = step.place;
        let keyword = step.instruction.keyword.text.as_str();
        match &step.instruction.kind {
            InstructionKind::Add(add) => self.add(step, add),
            InstructionKind::Arg(arg) => self.arg(place, &step.instruction, arg),
            InstructionKind::Cmd(command) => self.cmd(place, keyword, command),
            InstructionKind::Copy(copy) => self.copy(step, copy),
            InstructionKind::Entrypoint(command) => self.entrypoint(place, keyword, command),
            InstructionKind::Env(pairs) => self.env(place, keyword, pairs),
            InstructionKind::Expose(words) => self.expose(place, words),
            // A FROM begins a stage, and a trigger cannot be one.
            InstructionKind::From(_) => Ok(()),
            InstructionKind::Healthcheck(healthcheck) => {
                self.healthcheck(place, keyword, healthcheck)
            }
            InstructionKind::Label(pairs) => self.label(place, keyword, pairs),
            InstructionKind::Maintainer(word) => self.maintainer(word),
            InstructionKind::Onbuild(onbuild) => {
                self.state.image.config.on_build.push(onbuild.trigger.clone());
                Ok(())
            }
            InstructionKind::Run(run) => self.run(step, run),
            InstructionKind::Shell(shell) => self.shell(shell),
            InstructionKind::Stopsignal(word) => self.stopsignal(place, word),
            InstructionKind::User(word) => self.user(place, word),
            InstructionKind::Volume(words) => self.volume(place, words),
            InstructionKind::Workdir(word) => self.workdir(step, word),
        }
    }

    /// All values, or the first mistake; the others are noted.
    fn all<T>(
        &mut self,
        results: impl IntoIterator<Item = Result<T, FrontendError>>,
    ) -> Result<Vec<T>, FrontendError> {
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(value) => values.push(value),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            return Ok(values);
        }
        let first = errors.remove(0);
        self.further.append(&mut errors);
        Err(first)
    }

    /// Processes quotes, escapes and variables of a word.
    fn expand(&self, place: Place, word: &Word) -> Result<String, FrontendError> {
        let expanded =
            expand::single(&word.text, self.cx.escape(), &self.state.env, self.cx.budget)
                .map_err(|error| place.error_at(word.span, error.into()))?;
        self.report_unset(place, &expanded.unset);
        Ok(expanded.text)
    }

    /// Reports variables that nobody has set or declared.
    fn report_unset(&self, place: Place, unset: &[String]) {
        if self.state.base_is_unknown {
            return;
        }
        let is_known =
            |name: &String| self.state.declared.contains(name) || !platform_args::is_variable(name);
        for name in unset.iter().filter(|name| !is_known(name)) {
            self.cx.linter.report(Rule::UndefinedVar, place.lines, || {
                let nearest = self.cx.suggestions.nearest(name, self.state.env.names());
                let hint = nearest
                    .map_or_else(String::new, |nearest| format!(" (did you mean ${nearest}?)"));
                format!("Usage of undefined variable '${name}'{hint}")
            });
        }
    }

    /// The working directory, absolute and clean.
    fn cwd(&self) -> String {
        crate::paths::clean(&self.state.image.config.working_dir)
    }

    /// Puts the stage's shell before a command.
    fn with_shell(&self, command: String) -> Vec<String> {
        let config = &self.state.image.config;
        let mut args = if !config.shell.is_empty() {
            config.shell.clone()
        } else if self.state.platform.os == "windows" {
            vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()]
        } else {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        };
        args.push(command);
        args
    }

    /// Adds a history entry.
    fn history(&mut self, created_by: String, layer: bool) {
        // That nothing is left is noticed after the step.
        let _ = self.cx.budget.keep(created_by.len());
        image::add_history(&mut self.state.image, created_by, layer);
    }

    /// Metadata of a vertex for `step`.
    fn metadata(&self, step: &Step<'_>, name: String, ignore_cache: bool) -> VertexMetadata {
        let command =
            ("com.docker.dockerfile.v1.command".to_owned(), step.instruction.text.clone());
        VertexMetadata {
            ignore_cache,
            name,
            description: [command].into(),
            stage: self.plan.stages[self.id].name.clone(),
            sources: step.place.sources(&self.cx.info, &self.plan.triggers),
        }
    }

    /// Adds a vertex that belongs to a step but is not the step itself.
    fn add_internal(&mut self, place: Place, name: &str, op: Op, inputs: Vec<Edge>) -> Edge {
        let metadata = VertexMetadata {
            name: format!("[internal] {name}"),
            sources: place.sources(&self.cx.info, &self.plan.triggers),
            ..VertexMetadata::default()
        };
        Edge { vertex: self.definition.add(op, inputs, None, metadata), output: 0 }
    }

    /// File tree of the build context, of which `path` is used; `None` is an empty one.
    fn context_source(&mut self, place: Place, path: &str) -> Result<Option<Edge>, FrontendError> {
        self.cx.locals.note(local::CONTEXT, path);
        if let Some(known) = self.main_context {
            return Ok(known);
        }
        let found = main_context::add(self.cx.options, self.cx.locals, self.definition)
            .map_err(|kind| place.error(kind))?;
        self.main_context = Some(found);
        Ok(found)
    }

    /// File tree of a stage, of which `path` is used.
    fn stage_source(&self, id: StageId, path: &str) -> Option<&StageState> {
        let state = self.done.get(id)?.as_ref()?;
        if let Some(local) = &state.local {
            self.cx.locals.note(local, path);
        }
        Some(state)
    }

    /// Network of a step that asks for `mode`.
    fn network(&self, asked: Option<parser::Network>) -> NetworkMode {
        match asked {
            None | Some(parser::Network::Default) => self.cx.options.network,
            Some(parser::Network::None) => NetworkMode::None,
            Some(parser::Network::Host) => NetworkMode::Host,
        }
    }

    /// Fails unless `right` was granted.
    fn require(
        &self,
        place: Place,
        right: llb::entitlement::Entitlement,
    ) -> Result<(), FrontendError> {
        if self.cx.options.entitlements.contains(&right) {
            return Ok(());
        }
        let right = right.to_string();
        let hint = Some(format!("grant it with `--allow {right}`"));
        Err(place.error(ErrorKind::NotAllowed { right }).with_hint(hint))
    }
}
