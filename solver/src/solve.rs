//! One solve: drives the [scheduler](crate::scheduler) with threads that do the work.
//!
//! Every action that is under way has a thread to itself, because a vertex may wait for a process, a
//! network or a lock for any length of time. A thread whose action is over asks the scheduler what that
//! leads to, and does one part of it itself; the one that called [`Solve::run`] gives the rest to others,
//! with what is left to do for a vertex when those that wait for it have been told. No thread outlives the
//! solve.

use std::collections::HashSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cache::{Key, KeyBuilder, Layer, NewResult, Records, StoredResult};
use llb::event::VertexError;
use llb::op::{Mount, MountKind, SourceOp};
use llb::{Definition, Digest, Edge, Event, Op};
use tree::trace;

use crate::beforehand::Beforehand;
use crate::cache_key::InputMap;
use crate::course::{Course, Piece};
use crate::engine::JobInner;
use crate::error::{OpError, SolveError, chain};
use crate::explain::{self, Diary};
use crate::graph;
use crate::known::{Facts, Known, VertexKeys};
use crate::op;
use crate::scheduler::{Action, Input, Scheduler};
use crate::timeline::Timeline;
use crate::value::{Memory, Value};
use crate::waiting::Wait;
use crate::workers::Workers;

/// A solve that is over sooner never looks at how full the disk is.
const SHORT: Duration = Duration::from_millis(100);

/// What takes longer to hash than this is not hashed twice.
const WORTH_KEEPING: Duration = Duration::from_millis(3);

/// Everything the threads of one solve share.
pub(crate) struct Solve<'a> {
    pub(crate) job: &'a JobInner,
    pub(crate) definition: &'a Definition,
    known: Known<'a>,
    values: Vec<OnceLock<Vec<Value>>>,
    /// Keys computed by the second look, for the execution that may follow.
    fresh: Vec<OnceLock<VertexKeys>>,
    /// Vertices of which the user was told that they began, and that they ended, in places where that is told once.
    begun: Vec<OnceLock<()>>,
    ended: Vec<OnceLock<()>>,
    /// Vertices that earlier solves of the job have told of.
    told_before: HashSet<Digest>,
    /// Vertices whose files no step needs in folders.
    streamed: Vec<bool>,
    /// Vertices that RUN steps build upon.
    leads_to_step: Vec<bool>,
    /// Vertices whose layers RUN steps have in their roots.
    in_roots: Vec<bool>,
    /// Vertices whose results are not kept: a folder of the user's changed while they read it, or the disk was full.
    unsteady: Vec<OnceLock<()>>,
    failure: OnceLock<Box<SolveError>>,
    /// What is left to do for vertices whose ends were told, kept by threads that go on to a step.
    left: Mutex<Vec<Rest>>,
    /// Failures of that, for the step that runs meanwhile.
    late: Mutex<Vec<Failure>>,
    timeline: Timeline<'a>,
    pub(crate) diary: Diary,
}

/// What is known when the records are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The definition, and the contents of the user's folders.
    ByDefinition,
    /// The inputs too.
    WithInputs,
}

/// A vertex that failed: its index, so that a failure found early is told of the right vertex.
struct Failure {
    vertex: usize,
    error: Box<OpError>,
    log: Vec<String>,
}

impl From<(usize, OpError)> for Failure {
    fn from((vertex, error): (usize, OpError)) -> Self {
        Self { vertex, error: Box::new(error), log: Vec::new() }
    }
}

impl<'a> Solve<'a> {
    pub(crate) fn new(job: &'a JobInner, definition: &'a Definition, targets: &[Edge]) -> Self {
        let count = definition.vertices().len();
        Self {
            job,
            definition,
            known: Known::new(definition, &job.engine.store, targets),
            values: (0..count).map(|_| OnceLock::new()).collect(),
            fresh: (0..count).map(|_| OnceLock::new()).collect(),
            begun: (0..count).map(|_| OnceLock::new()).collect(),
            ended: (0..count).map(|_| OnceLock::new()).collect(),
            told_before: job.told.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            streamed: graph::in_folders(definition).into_iter().map(|needed| !needed).collect(),
            leads_to_step: graph::below_steps(definition),
            in_roots: graph::in_roots(definition),
            unsteady: (0..count).map(|_| OnceLock::new()).collect(),
            failure: OnceLock::new(),
            left: Mutex::default(),
            late: Mutex::default(),
            timeline: Timeline::new(definition),
            diary: Diary::new(count),
        }
    }

    /// Gets the targets' values for `then`; the definition has been [checked](crate::check).
    pub(crate) fn run<T>(
        self,
        targets: &[Edge],
        then: impl FnOnce(Vec<Value>) -> Result<T, Box<SolveError>>,
    ) -> Result<T, Box<SolveError>> {
        let inputs = graph::dependencies(self.definition);
        let limited = self
            .definition
            .vertices()
            .iter()
            .map(|vertex| matches!(vertex.op, Op::Exec(_)))
            .collect();
        let scheduler = Scheduler::new(inputs, limited, self.job.engine.options.jobs);
        let course = Course::new(scheduler);
        std::thread::scope(|scope| {
            let (solve, course) = (&self, &course);
            let mut workers = Workers::new(scope, usize::MAX, move |piece| match piece {
                Piece::Action(action) => solve.go_on_from(action, course, targets),
                Piece::Rest(rest) => solve.do_rest(rest, course),
            });
            let mut beforehand = Beforehand::new(graph::in_targets(solve.definition, targets));
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            let mut preparers = solve
                .job
                .prepare
                .get()
                .map(|prepare| Workers::new(scope, cores, move |layer: Layer| prepare(&layer)));
            let mut sandbox_is_wanted = false;
            for target in targets {
                let actions = course.scheduler().demand(target.vertex);
                actions.into_iter().for_each(|action| workers.perform(Piece::Action(action)));
            }
            let began = Instant::now();
            loop {
                // Nothing fills a disk before anybody has looked at it.
                let quick = SHORT.saturating_sub(began.elapsed());
                let watch = || solve.job.engine.watch_space();
                let Some(event) = course.next_event(quick, watch) else { break };
                // What takes a moment to start is started as soon as a step seems to need it.
                if let Input::Miss(vertex) = event.input
                    && !sandbox_is_wanted
                    && solve.is_step(vertex)
                {
                    sandbox_is_wanted = true;
                    // A failure is met again by the step.
                    scope.spawn(|| drop(solve.job.engine.sandbox()));
                }
                for piece in event.pieces {
                    match piece {
                        Piece::Action(Action::Stop) => solve.job.stop(),
                        piece => workers.perform(piece),
                    }
                }
                // After the last one the output does it itself.
                if let Input::Finished(vertex) = event.input
                    && !course.scheduler().is_over()
                    && let Some(preparers) = &mut preparers
                    && let Some(values) = solve.values[vertex].get()
                {
                    let layers = beforehand.take(vertex, values);
                    layers.into_iter().for_each(|layer| preparers.perform(layer));
                }
            }
        });
        let values: Option<Vec<Value>> = targets
            .iter()
            .map(|target| self.values[target.vertex].get()?.get(target.output).cloned())
            .collect();
        match (self.failure.get(), values) {
            // The user sees the explanations before what comes then.
            (None, Some(values)) if explain::is_asked(&self) => {
                explain::conclude(&self);
                then(values)
            }
            (None, Some(values)) => std::thread::scope(|scope| {
                if explain::is_due(&self) {
                    scope.spawn(|| explain::conclude(&self));
                }
                if self.job.engine.store.has_to_clear_up() {
                    scope.spawn(|| self.job.engine.store.clear_up());
                }
                then(values)
            }),
            _ => {
                explain::conclude(&self);
                Err(self.failure.into_inner().unwrap_or_else(|| {
                    Box::new(SolveError {
                        vertex: String::new(),
                        sources: Vec::new(),
                        log: Vec::new(),
                        error: OpError::Canceled,
                    })
                }))
            }
        }
    }

    /// The value of an input; the scheduler has seen to it that it is there.
    pub(crate) fn value(&self, edge: Edge) -> Result<&Value, OpError> {
        self.values[edge.vertex]
            .get()
            .and_then(|values| values.get(edge.output))
            .ok_or_else(|| OpError::Invalid("an output that its vertex does not make".to_owned()))
    }

    fn is_step(&self, vertex: usize) -> bool {
        matches!(self.definition.vertex(vertex).op, Op::Exec(_))
    }

    /// Whether a RUN step builds upon what the vertex makes.
    pub(crate) fn leads_to_step(&self, vertex: usize) -> bool {
        self.leads_to_step[vertex]
    }

    /// Whether the root of a RUN step has the layers that the vertex makes.
    pub(crate) fn is_in_root(&self, vertex: usize) -> bool {
        self.in_roots[vertex]
    }

    /// Performs an action, and then those that it leads to, one after the other.
    fn go_on_from(&self, first: Action, course: &Course<Rest>, targets: &[Edge]) {
        // After the last one nothing else is left to do, and all would wait for it.
        let is_last = |action| {
            let is = |vertex| targets.iter().any(|target| target.vertex == vertex);
            matches!(action, Action::Execute(vertex) if is(vertex))
        };
        let mut next = Some(first);
        while let Some(action) = next {
            let report = Report { course, input: failed(action) };
            let (mut input, mut rest) = self.perform(action);
            if is_last(action)
                && let Some(unsaved) = rest.take()
                && let Err(failure) = self.keep(unsaved)
            {
                input = Input::Failed(failure.vertex);
                self.fail(failure);
            }
            if let Input::Hit(vertex) = input {
                // Before anything that waits for it begins.
                self.announce(vertex, &course.scheduler());
            }
            // What is left is done by this thread: while the program of the next step runs, or at once if there is none.
            let keeps = |next: Option<Action>| next.is_none_or(|next| self.runs_soon(next));
            let (action, kept) = report.tell(input, rest, keeps);
            self.left().extend(kept);
            if !action.is_some_and(|next| self.runs_soon(next)) {
                self.do_left(Some(course));
            }
            next = action;
        }
    }

    /// Whether an action is about a step whose program waits neither for an input that is mounted nor for a cache mount.
    fn runs_soon(&self, action: Action) -> bool {
        let waits = |mount: &Mount| {
            mount.dest != "/"
                && (mount.input.is_some() || matches!(mount.kind, MountKind::Cache(_)))
        };
        match action {
            Action::Lookup(vertex) | Action::LookupWithInputs(vertex) | Action::Execute(vertex) => {
                matches!(&self.definition.vertex(vertex).op, Op::Exec(exec) if !exec.mounts.iter().any(waits))
            }
            Action::Stop => false,
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<Rest>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does all that was left to do. Without a course that could be told of a failure it is the next vertex that fails.
    fn do_left(&self, course: Option<&Course<Rest>>) {
        let left = std::mem::take(&mut *self.left());
        for rest in left {
            match course {
                Some(course) => self.do_rest(rest, course),
                None => {
                    if let Err(failure) = self.keep(rest) {
                        self.late.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                    }
                    self.job.engine.store.clear_up();
                }
            }
        }
    }

    /// Does what can wait while the program of a step runs.
    pub(crate) fn meanwhile(&self, vertex: usize) {
        if self.leads_to_step(vertex) {
            // What could not be made is made when it is needed.
            let _ = self.job.engine.store.make_workspace_ahead();
        }
        self.do_left(None);
    }

    /// Does what is left to do for a vertex that others go on from already.
    fn do_rest(&self, rest: Rest, course: &Course<Rest>) {
        let report = Report { course, input: Input::Cancel };
        match self.keep(rest) {
            Ok(()) => report.forget(),
            Err(failure) => {
                self.fail(failure);
                report.tell(Input::Cancel, None, |_| false);
            }
        }
        self.job.engine.store.clear_up();
    }

    /// Sees to it that what a vertex has made is found by other builds.
    fn keep(&self, Rest { vertex, turn }: Rest) -> Result<(), Failure> {
        let kept = self.with_room(|| Ok(self.job.engine.store.settle()?));
        drop(turn);
        kept.map_err(|error| Failure::from((vertex, error)))
    }

    fn perform(&self, action: Action) -> (Input, Option<Rest>) {
        let _turn = self.timeline.begin(action);
        let (vertex, outcome) = match action {
            Action::Lookup(vertex) => (vertex, self.lookup(vertex)),
            Action::LookupWithInputs(vertex) => (vertex, self.lookup_with_inputs(vertex)),
            Action::Execute(vertex) => match self.execute(vertex) {
                Ok(rest) => return (Input::Finished(vertex), rest),
                Err(failure) => (vertex, Err(failure)),
            },
            Action::Stop => return (Input::Cancel, None),
        };
        let input = match outcome {
            Ok(true) => Input::Hit(vertex),
            Ok(false) => Input::Miss(vertex),
            Err(failure) => {
                self.fail(failure);
                Input::Failed(vertex)
            }
        };
        (input, None)
    }

    pub(crate) fn source_value(&self, vertex: usize, source: &SourceOp) -> Result<Value, OpError> {
        let platform = self.definition.vertex(vertex).platform.as_ref();
        op::source::value(self.job, source, platform, &self.progress(vertex))
    }

    fn progress(&self, vertex: usize) -> op::source::Progress<'_> {
        let events = self.job.events.as_ref();
        op::source::Progress { events, vertex: self.shown(vertex) }
    }

    fn fail(&self, failure: Failure) {
        let vertex = self.definition.vertex(failure.vertex);
        // Whatever fails after the stop was stopped.
        let canceled = failure.error.is_canceled() || self.job.cancel.is_cancelled();
        let error = if canceled {
            VertexError::Canceled
        } else {
            VertexError::Failed(chain(failure.error.as_ref()))
        };
        self.started(failure.vertex);
        self.completed(failure.vertex, false, Some(error));
        if !canceled {
            let _ = self.failure.set(Box::new(SolveError {
                vertex: vertex.metadata.name.clone(),
                sources: vertex.metadata.sources.clone(),
                log: failure.log,
                error: *failure.error,
            }));
        }
    }

    fn lookup(&self, vertex: usize) -> Result<bool, Failure> {
        if let Op::Source(source) = &self.definition.vertex(vertex).op
            && !op::source::is_fetched(source)
        {
            let is_remote = op::source::is_remote(source);
            if is_remote {
                self.begin(vertex);
            }
            let value = self.source_value(vertex, source).map_err(|error| (vertex, error))?;
            let keys = self.source_keys(vertex).map_err(|error| (vertex, error))?;
            self.finish(vertex, vec![value], Some(VertexKeys::of_source(keys)));
            if is_remote {
                self.end(vertex, false);
            }
            return Ok(true);
        }
        let keys = self.known.early(vertex, self)?.clone();
        self.with_room(|| self.load(vertex, &keys, Look::ByDefinition))
            .map_err(|error| Failure::from((vertex, error)))
    }

    fn lookup_with_inputs(&self, vertex: usize) -> Result<bool, Failure> {
        let content = |edge: Edge, map: &InputMap| self.hash(edge, map).map(Some);
        let keys = self.known.late(vertex, self, &content).map_err(|error| (vertex, error))?;
        let found = self.with_room(|| self.load(vertex, &keys, Look::WithInputs));
        let found = found.map_err(|error| Failure::from((vertex, error)))?;
        if !found {
            let _ = self.fresh[vertex].set(keys);
        }
        Ok(found)
    }

    /// Takes results from the records, if there is one for every output: of all that the keys lead to the
    /// newest. When the vertex was found by its inputs' content, its other keys are linked to it, so that
    /// the next build finds it at once.
    fn load(&self, vertex: usize, keys: &VertexKeys, look: Look) -> Result<bool, OpError> {
        let records = &self.job.engine.store;
        let mut settled = keys.clone();
        let (mut values, mut first) = (Vec::new(), None);
        for (number, output) in keys.outputs.iter().enumerate() {
            let mut newest: Option<(Key, StoredResult)> = None;
            for key in &output.lookup {
                if let Some(result) = records.load(key)?
                    && newest.as_ref().is_none_or(|(_, other)| other.created < result.created)
                {
                    newest = Some((*key, result));
                }
            }
            let Some((key, result)) = newest else { return Ok(false) };
            first.get_or_insert((key, result.created));
            settled.choose(number, key);
            values.push(Value::Tree(result.reference));
        }
        let Some((key, created)) = first else { return Ok(false) };
        self.diary.found(vertex, key, created);
        if look == Look::WithInputs && keys.renews {
            self.save(vertex, &settled, &values)?;
        } else if look == Look::WithInputs && keys.parents.iter().any(|parents| parents.len() > 1) {
            records.save(&self.known.links(vertex, &settled), None)?;
        }
        self.finish(vertex, values, Some(settled));
        Ok(true)
    }

    /// Runs a vertex; returns what is left to do once others go on from its result.
    fn execute(&self, vertex: usize) -> Result<Option<Rest>, Failure> {
        let fail = |error: OpError| Failure::from((vertex, error));
        let keys = self.fresh[vertex].get().cloned().unwrap_or_default();
        let own = keys.outputs.first().and_then(|output| output.save);
        if self.is_step(vertex) {
            self.job.tell_isolation();
        }
        self.started(vertex);
        if self.job.cancel.is_cancelled() {
            return Err(fail(OpError::Canceled));
        }
        // One at a time runs a step, in all processes; who comes later takes what the other made.
        let lock = own.map(|key| self.take_turn(vertex, &key)).transpose().map_err(fail)?;
        if lock.is_some()
            && !self.definition.vertex(vertex).metadata.ignore_cache
            && self.load(vertex, &keys, Look::WithInputs).map_err(fail)?
        {
            self.completed(vertex, true, None);
            return Ok(None);
        }
        let mut log = Vec::new();
        let result = self.execute_with_room(vertex, &mut log);
        if let Some(failure) = self.late.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Err(failure);
        }
        let values = result.map_err(|error| {
            self.diary.ran(vertex, &keys, false);
            Failure { vertex, error: Box::new(error), log }
        })?;
        self.diary.ran(vertex, &keys, self.unsteady[vertex].get().is_none());
        if self.unsteady[vertex].get().is_some() {
            // Nobody knows what exactly was read, or could be written: neither this nor what is built upon it is kept.
            self.finish(vertex, values, Some(VertexKeys::default()));
        } else {
            self.save_later(vertex, &keys, &values).map_err(fail)?;
            self.finish(vertex, values, Some(keys.made()));
        }
        self.completed(vertex, false, None);
        Ok(Some(Rest { vertex, turn: lock }))
    }

    /// Waits until nobody else runs the step with this key, and says so if it has to.
    fn take_turn(&self, vertex: usize, key: &Key) -> Result<cache::Lock, OpError> {
        if let Some(lock) = self.job.try_lock(key)? {
            return Ok(lock);
        }
        // Whoever has the step may wait for what was made here.
        self.do_left(None);
        let data = b"waiting for another build that runs this step\n".to_vec();
        let (shown, at) = (self.shown(vertex), SystemTime::now());
        self.job.events.send(Event::Log { vertex: shown, stream: 2, data, at });
        let wait = Wait::new(self, vertex, None);
        self.job.lock(key, &|| wait.is_given_up())
    }

    /// Looks once more at the user's folders that a vertex has read by now: one that changed since its key
    /// was made has given a result that must not be found under that key. Returns whether all is as it was.
    pub(crate) fn check_folders(&self, vertex: usize) -> bool {
        let contexts = || {
            let inputs = self.definition.vertex(vertex).inputs.iter();
            inputs.filter_map(|edge| match self.value(*edge) {
                Ok(Value::Context(_, context)) => Some(context),
                _ => None,
            })
        };
        let steady = if contexts().all(|context| context.is_remembered()) {
            !contexts().any(|context| context.has_changed())
        } else {
            let content = |edge: Edge, map: &InputMap| self.hash(edge, map).map(Some);
            matches!(self.known.is_steady(vertex, &content), Ok(true))
        };
        if !steady {
            self.doubt(vertex);
            let text = "WARNING: files of the context have changed since the build began: what this step made of them \
                is not kept for other builds\n";
            let (shown, data) = (self.shown(vertex), text.as_bytes().to_vec());
            self.job.events.send(Event::Log {
                vertex: shown,
                stream: 2,
                data,
                at: SystemTime::now(),
            });
        }
        steady
    }

    /// Has what a vertex makes not be kept, nor what is built upon it.
    pub(crate) fn doubt(&self, vertex: usize) {
        let _ = self.unsteady[vertex].set(());
    }

    /// Whether no step needs the files of a vertex in a folder.
    pub(crate) fn is_streamed(&self, vertex: usize) -> bool {
        self.streamed[vertex]
    }

    /// Key of the op of a vertex by itself.
    pub(crate) fn op_key(&self, vertex: usize) -> Key {
        self.known.map(vertex).op
    }

    /// Keys by which a vertex is known so far.
    pub(crate) fn keys_of(&self, vertex: usize) -> Vec<Key> {
        let output = self.known.keys(vertex).and_then(|keys| keys.outputs.first());
        output
            .into_iter()
            .flat_map(|output| output.lookup.iter().chain(&output.save))
            .copied()
            .collect()
    }

    /// How an input of a vertex counts.
    pub(crate) fn input_map(&self, vertex: usize, input: usize) -> Option<&InputMap> {
        self.known.map(vertex).inputs.get(input)
    }

    /// Key of the content that a vertex, whose keys are all known, selects of an input; `None` when the input
    /// counts by its definition.
    pub(crate) fn content_key_of(&self, vertex: usize, input: usize) -> Option<Key> {
        self.known.map(vertex).inputs.get(input).filter(|map| !map.content.is_empty())?;
        Some(self.fresh[vertex].get()?.parents.get(input)?.first()?.0)
    }

    fn save(&self, vertex: usize, keys: &VertexKeys, values: &[Value]) -> Result<(), OpError> {
        self.save_later(vertex, keys, values)?;
        Ok(self.job.engine.store.settle()?)
    }

    /// Has results written with whatever is written next.
    fn save_later(
        &self,
        vertex: usize,
        keys: &VertexKeys,
        values: &[Value],
    ) -> Result<(), OpError> {
        let mut links = self.known.links(vertex, keys);
        for (output, value) in keys.outputs.iter().zip(values) {
            if let (Some(key), Value::Tree(reference)) = (output.save, value) {
                let why = self.definition.vertex(vertex).metadata.name.as_bytes().to_vec();
                let (reference, created) = (reference.clone(), SystemTime::now());
                let result = NewResult { key, reference, created, why };
                // The links are those of all outputs.
                self.job.engine.store.save_later(std::mem::take(&mut links), &result)?;
            }
        }
        Ok(())
    }

    /// Notes a result.
    fn finish(&self, vertex: usize, values: Vec<Value>, keys: Option<VertexKeys>) {
        if let Some(keys) = keys {
            self.known.settle(vertex, keys);
        }
        let _ = self.values[vertex].set(values);
    }

    /// Hash of what is selected of an input that is there.
    fn hash(&self, edge: Edge, map: &InputMap) -> Result<Key, OpError> {
        let value = match self.values[edge.vertex].get().and_then(|values| values.get(edge.output))
        {
            Some(value) => value.clone(),
            None => match &self.definition.vertex(edge.vertex).op {
                Op::Source(source) => self.source_value(edge.vertex, source)?,
                _ => return Err(OpError::Canceled),
            },
        };
        let records = &self.job.engine.store;
        let known = match &value {
            Value::Tree(reference) => Some((hashed_key(reference, map), reference)),
            Value::Context(..) | Value::Archive(_) => None,
        };
        // Layers never change, so their files are hashed once.
        if let Some((key, _)) = &known
            && let Some(found) = records.load(key)?
            && let Ok(hash) = found.why.as_slice().try_into()
        {
            return Ok(Key(hash));
        }
        let _span = trace::span("hash", || {
            format!("files of {}", self.definition.vertex(edge.vertex).metadata.name)
        });
        let began = Instant::now();
        let mut view = value.view(&self.job.cancel)?;
        // Of a context the hashes are kept anyway.
        let memory = known.is_some().then(|| Arc::new(Memory::of(Arc::clone(&view))));
        if let Some(memory) = &memory {
            view = Arc::clone(memory) as _;
        }
        let mut key = KeyBuilder::new("content.v1");
        for selection in &map.content {
            let digest = tree::content::digest(view.as_ref(), selection).map_err(|error| {
                let name = &self.definition.vertex(edge.vertex).metadata.name;
                op::missing::explain(self.job, &value, name, view.as_ref(), error)
            })?;
            key = key.bytes(&digest);
        }
        let key = key.finish();
        if let Some(memory) = memory {
            self.diary.remember(key, memory);
        }
        if let Some((of, reference)) = known
            && began.elapsed() > WORTH_KEEPING
        {
            let (reference, created) = (reference.clone(), SystemTime::now());
            let result = NewResult { key: of, reference, created, why: key.0.to_vec() };
            records.save(&[], Some(&result))?;
        }
        Ok(key)
    }

    /// Tells of a vertex that was found, after those below it: they need no work, but the user wants to
    /// see them.
    fn announce(&self, vertex: usize, scheduler: &Scheduler) {
        for below in graph::ancestors(self.definition, vertex) {
            if scheduler.is_idle(below) {
                self.announce_one(below);
            }
        }
        self.announce_one(vertex);
    }

    fn announce_one(&self, vertex: usize) {
        let is_source = matches!(
            &self.definition.vertex(vertex).op,
            Op::Source(source) if !op::source::is_fetched(source)
        );
        self.begin(vertex);
        self.end(vertex, !is_source);
    }

    fn begin(&self, vertex: usize) {
        let is_new = !self.told_before.contains(&self.shown(vertex));
        if self.begun[vertex].set(()).is_ok() && is_new {
            self.started(vertex);
        }
    }

    fn end(&self, vertex: usize, cached: bool) {
        let is_new = !self.told_before.contains(&self.shown(vertex));
        if self.ended[vertex].set(()).is_ok() && is_new {
            self.completed(vertex, cached, None);
        }
    }

    /// Name of a vertex in events. Vertices of one digest are told apart when one ignores the cache.
    pub(crate) fn shown(&self, vertex: usize) -> Digest {
        let its = self.definition.vertex(vertex);
        if its.metadata.ignore_cache {
            Digest::of(format!("{} afresh", its.digest).as_bytes())
        } else {
            its.digest
        }
    }

    fn started(&self, vertex: usize) {
        let its = self.definition.vertex(vertex);
        self.job.events.send(Event::VertexStarted {
            vertex: self.shown(vertex),
            inputs: its.inputs.iter().map(|edge| self.shown(edge.vertex)).collect(),
            name: its.metadata.name.clone(),
            at: SystemTime::now(),
        });
    }

    fn completed(&self, vertex: usize, cached: bool, error: Option<VertexError>) {
        let vertex = self.shown(vertex);
        self.job.told.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex);
        self.job.events.send(Event::VertexCompleted {
            vertex,
            cached,
            error,
            at: SystemTime::now(),
        });
    }
}

/// Under which the hash of what is selected of layers is kept.
fn hashed_key(reference: &cache::Ref, map: &InputMap) -> Key {
    let key = KeyBuilder::new("hashed.v1")
        .list(reference.layers(), |key, layer| key.str(&layer.id().to_string()));
    map.add_selection(key).finish()
}

/// What is left to do for a vertex once others go on from its result.
struct Rest {
    vertex: usize,
    /// The right to run the step, which nobody else gets before the result can be found.
    turn: Option<cache::Lock>,
}

/// Tells the end of an action, or of what is left of one, even when it panics.
struct Report<'a> {
    course: &'a Course<Rest>,
    /// What is told when it never comes to its end.
    input: Input,
}

impl Report<'_> {
    fn tell(
        self,
        input: Input,
        rest: Option<Rest>,
        keeps: impl FnOnce(Option<Action>) -> bool,
    ) -> (Option<Action>, Option<Rest>) {
        let course = self.course;
        self.forget();
        course.tell(input, rest, keeps)
    }

    fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        // Other threads end by it; this one does not go on.
        let _ = self.course.tell(self.input, None, |_| false);
    }
}

/// The report of an action that never came to its end.
fn failed(action: Action) -> Input {
    match action {
        Action::Lookup(vertex) | Action::LookupWithInputs(vertex) | Action::Execute(vertex) => {
            Input::Failed(vertex)
        }
        Action::Stop => Input::Cancel,
    }
}

impl Facts for Solve<'_> {
    /// Asks about all remote sources at once. The first that fails ends the rest, as the job is to fail.
    fn prepare(&self, vertices: &[usize]) -> Result<(), (usize, OpError)> {
        let remote = vertices.iter().filter_map(|&index| match &self.definition.vertex(index).op {
            Op::Source(source) if op::source::is_remote(source) => Some((index, source)),
            _ => None,
        });
        let remote: Vec<(usize, &SourceOp)> = remote.collect();
        if remote.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            for (index, source) in remote {
                let sender = sender.clone();
                scope.spawn(move || {
                    let begin = || self.begin(index);
                    let outcome =
                        op::source::prepare(self.job, source, &self.progress(index), &begin);
                    let is_known = outcome.is_ok()
                        && op::source::keys(self.job, source, None)
                            .is_ok_and(|keys| !keys.is_empty());
                    let is_all = is_known && !op::source::is_fetched(source);
                    if is_all && self.begun[index].get().is_some() {
                        self.end(index, false);
                    }
                    // The receiver lives until all have reported.
                    let _ = sender.send(outcome.map_err(|error| (index, error)));
                });
            }
            drop(sender);
            let mut first = Ok(());
            for outcome in receiver {
                if outcome.is_err() && first.is_ok() {
                    self.job.stop_transfers();
                    first = outcome;
                }
            }
            first
        })
    }

    fn source_keys(&self, vertex: usize) -> Result<Vec<Key>, OpError> {
        match &self.definition.vertex(vertex).op {
            Op::Source(source) => {
                op::source::keys(self.job, source, self.definition.vertex(vertex).platform.as_ref())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn content_key(
        &self,
        _user: usize,
        edge: Edge,
        map: &InputMap,
    ) -> Result<Option<Key>, OpError> {
        match &self.definition.vertex(edge.vertex).op {
            Op::Source(source) if op::source::is_local(source) => self.hash(edge, map).map(Some),
            _ => Ok(None),
        }
    }
}
