//! The stages of a Dockerfile and how they depend on each other.
//!
//! A *hidden* stage stands for an image, named context or empty tree that an instruction reads
//! without a stage of its own (`COPY --from=alpine`).
//!
//! Invariants:
//! - The stages of the file come first, in order, then the hidden ones.
//! - The dependencies of stages have no cycle once [`Plan::new`] has returned.

use std::borrow::Cow;
use std::collections::BTreeMap;

use llb::Platform;
use parser::word;
use parser::{Comment, FromInstruction, Instruction, InstructionKind, Span, Word};

use crate::context::Context;
use crate::error::{ErrorKind, FrontendError};
use crate::named_context;
use crate::options::{NamedContext, Options};
use crate::place::{Place, Triggers};

/// Bytes that an instruction takes besides its text, roughly.
const STEP_SIZE: usize = 1 << 10;

/// Index of a stage in its [`Plan`].
pub(crate) type StageId = usize;

/// What a stage starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Base {
    /// An earlier stage.
    Stage(StageId),
    /// Nothing.
    Scratch,
    /// An image or a named context of this name.
    Named(String),
    /// A named context instead of the whole stage.
    Replaced {
        /// Name of the context.
        name: String,
        /// The context.
        context: NamedContext,
    },
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage<'d> {
    /// Name, lower-case.
    pub(crate) name: Option<String>,
    /// Name for the user: `stage-N` when it has none.
    pub(crate) shown: String,
    /// Where it begins; for a hidden stage, where it is used.
    pub(crate) place: Place,
    /// Comments above the instruction at that place.
    pub(crate) comments: &'d [Comment],
    /// Global arguments that its `FROM` uses.
    pub(crate) args: Vec<String>,
    /// What it starts from.
    pub(crate) base: Base,
    /// Platform asked for in `FROM`.
    pub(crate) platform: Option<Platform>,
    /// Its instructions, with triggers first.
    pub(crate) steps: Vec<Step<'d>>,
    /// Whether the triggers of its base are among the steps.
    pub(crate) has_triggers: bool,
    /// Whether it is not in the file.
    pub(crate) is_hidden: bool,
    /// Where the name of its base stands in the instruction at `place`.
    pub(crate) name_span: Span,
    /// Variables in the name of its base that have no value.
    pub(crate) unset: Vec<String>,
}

/// An instruction of a stage.
#[derive(Debug)]
pub(crate) struct Step<'d> {
    /// The instruction.
    pub(crate) instruction: Cow<'d, Instruction>,
    /// Where it stands.
    pub(crate) place: Place,
    /// Stages that it reads: one for each `--mount`, or the one of `--from`.
    pub(crate) sources: Vec<Option<StageId>>,
    /// Whether it reads a stage that does not exist; it is left out then.
    pub(crate) is_broken: bool,
}

impl<'d> Step<'d> {
    fn new(instruction: Cow<'d, Instruction>, place: Place) -> Self {
        Self { instruction, place, sources: Vec::new(), is_broken: false }
    }

    /// Comments above the instruction; a trigger has none.
    fn comments(&self) -> &'d [Comment] {
        match &self.instruction {
            Cow::Borrowed(instruction) => &instruction.comments,
            Cow::Owned(_) => &[],
        }
    }
}

/// Place of an instruction that reads a stage, with the comments above it.
type User<'d> = (Place, &'d [Comment]);

/// All stages for one platform.
#[derive(Debug)]
pub(crate) struct Plan<'d> {
    /// The stages of the file, then hidden ones.
    pub(crate) stages: Vec<Stage<'d>>,
    /// Stages by name; the last one of a name counts.
    names: BTreeMap<String, StageId>,
    /// Hidden stages that stand for images and named contexts, by name.
    hidden: BTreeMap<String, StageId>,
    /// The stage to build.
    pub(crate) target: StageId,
    /// Whether step names leave the stage out.
    pub(crate) is_single: bool,
    options: &'d Options,
    /// What the words of the file, and what is made of them, may still cost.
    pub(crate) budget: &'d word::Budget,
    target_platform: Platform,
    /// The triggers among the steps.
    pub(crate) triggers: Triggers,
    /// Mistakes that leave the stages what they are.
    pub(crate) errors: Vec<FrontendError>,
    /// Stages whose layers are in the image of the target: itself and those it is built on.
    shipped: Vec<bool>,
}

impl<'d> Plan<'d> {
    /// Finds the stages, their bases and what their instructions read.
    ///
    /// Mistakes in `--from` and in triggers are among the [`errors`](Self::errors) of the plan.
    ///
    /// # Errors
    /// All mistakes in `FROM`, an unknown target, and circular dependencies.
    pub(crate) fn new(cx: &Context<'d>) -> Result<Self, Vec<FrontendError>> {
        let mut plan = Self::collect(cx)?;
        let mut errors = plan.link_contexts();
        errors.extend(plan.add_triggers_of_stages());
        plan.errors = errors;
        for id in 0..plan.stages.len() {
            let found = plan.find_sources(id);
            plan.errors.extend(found);
        }
        plan.is_single = plan.stages.len() == 1 && !plan.has_mounts();
        let target = plan.find_target(cx).and_then(|target| plan.check_circles().map(|()| target));
        match target {
            Ok(target) => {
                plan.target = target;
                plan.shipped = plan.find_shipped();
                Ok(plan)
            }
            Err(error) => {
                let errors = plan.errors.drain(..).chain([error]).collect();
                Err(plan.explain(errors))
            }
        }
    }

    /// Errors in file order, with the texts of the triggers that they are about.
    pub(crate) fn explain(&self, mut errors: Vec<FrontendError>) -> Vec<FrontendError> {
        errors.sort_by_key(|error| error.lines.start);
        errors.into_iter().map(|error| self.triggers.explain(error)).collect()
    }

    /// The stages of the file with their bases and instructions.
    fn collect(cx: &Context<'d>) -> Result<Self, Vec<FrontendError>> {
        let mut plan = Self {
            stages: Vec::new(),
            names: BTreeMap::new(),
            hidden: BTreeMap::new(),
            target: 0,
            is_single: false,
            options: cx.options,
            budget: cx.budget,
            target_platform: cx.target_platform.clone(),
            triggers: Triggers::default(),
            errors: Vec::new(),
            shipped: Vec::new(),
        };
        let mut errors = Vec::new();
        for instruction in &cx.dockerfile.instructions {
            let place = Place::of(instruction);
            if let InstructionKind::From(from) = &instruction.kind {
                cx.enter(instruction);
                errors.extend(plan.add_stage(cx, from, place, &instruction.comments));
                if cx.budget.is_used_up() {
                    break;
                }
            } else if let Some(stage) = plan.stages.last_mut() {
                stage.steps.push(Step::new(Cow::Borrowed(instruction), place));
            }
        }
        if plan.stages.is_empty() {
            errors.push(FrontendError::nowhere(ErrorKind::NoStages));
        }
        if errors.is_empty() { Ok(plan) } else { Err(errors) }
    }

    fn add_stage(
        &mut self,
        cx: &Context<'d>,
        from: &FromInstruction,
        place: Place,
        comments: &'d [Comment],
    ) -> Vec<FrontendError> {
        let name = from.stage.as_ref().map(|stage| stage.name.clone());
        let index = self.stages.len();
        let mut args = Vec::new();
        let image = crate::from::base_name(cx, from, place, &mut args);
        let platform =
            from.platform.as_ref().filter(|word| !word.text.is_empty()).map(|word| {
                crate::from::base_platform(cx, word, name.as_deref(), place, &mut args)
            });
        let platform = platform.transpose();
        // The stage is added even if its FROM is wrong, so that later stages find it.
        let replaced = name.as_deref().and_then(|name| {
            let platform =
                platform.as_ref().ok().and_then(Option::as_ref).unwrap_or(&cx.target_platform);
            named_context::find(cx.options, name, platform)
        });
        let base = match (replaced, &image) {
            (Some((name, context)), _) => Base::Replaced { name, context },
            (None, Ok(image)) => match self.names.get(&image.text) {
                Some(&earlier) => Base::Stage(earlier),
                None if image.text == "scratch" => Base::Scratch,
                None => Base::Named(image.text.clone()),
            },
            (None, Err(_)) => Base::Scratch,
        };
        self.stages.push(Stage {
            shown: name.clone().unwrap_or_else(|| format!("stage-{index}")),
            place,
            comments,
            args,
            base,
            platform: platform.as_ref().ok().cloned().flatten(),
            steps: Vec::new(),
            has_triggers: false,
            is_hidden: false,
            name_span: from.image.span,
            unset: image.as_ref().map(|image| image.unset.clone()).unwrap_or_default(),
            name: name.clone(),
        });
        if let Some(name) = name {
            self.names.insert(name, index);
        }
        image.err().into_iter().chain(platform.err()).collect()
    }

    /// Where a named context that is itself a stage (`target:`) stands for a base or for a whole stage, makes that stage
    /// the base.
    fn link_contexts(&mut self) -> Vec<FrontendError> {
        let mut errors = Vec::new();
        for id in 0..self.stages.len() {
            let stage = &self.stages[id];
            let platform = stage.platform.as_ref().unwrap_or(&self.target_platform);
            let (context, is_replaced) = match &stage.base {
                Base::Named(name) => (named_context::find(self.options, name, platform), false),
                Base::Replaced { name, context } => (Some((name.clone(), context.clone())), true),
                Base::Stage(_) | Base::Scratch => continue,
            };
            match self.context_stage(context, stage.place) {
                Ok(None) => {}
                Ok(Some(base)) => {
                    let stage = &mut self.stages[id];
                    stage.base = Base::Stage(base);
                    if is_replaced {
                        stage.steps.clear();
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// The stage that a named context is, if it is one.
    fn context_stage(
        &self,
        context: Option<(String, NamedContext)>,
        place: Place,
    ) -> Result<Option<StageId>, FrontendError> {
        let Some((context, NamedContext::Stage { name: stage })) = context else { return Ok(None) };
        match self.names.get(&stage.to_lowercase()) {
            Some(&id) => Ok(Some(id)),
            None => {
                let near = llb::suggest::nearest(&stage, self.stage_names()).map(str::to_owned);
                let error = place.error(ErrorKind::UnknownContextStage { context, stage });
                Err(error.with_suggestion(near.as_deref()))
            }
        }
    }

    /// Puts the `ONBUILD` instructions of base stages in front of the stages on top of them.
    fn add_triggers_of_stages(&mut self) -> Vec<FrontendError> {
        let mut errors = Vec::new();
        for id in 0..self.stages.len() {
            let Base::Stage(base) = self.stages[id].base else { continue };
            let base = &self.stages[base];
            let triggers: Vec<String> = base.steps.iter().filter_map(trigger_of).collect();
            let base = format!("stage `{}`", base.shown);
            errors.extend(self.add_triggers(id, &triggers, &base));
            if self.budget.is_used_up() {
                break;
            }
        }
        errors
    }

    /// Puts trigger texts in front of the instructions of a stage; call [`find_sources`](Self::find_sources) then.
    ///
    /// Returns the mistakes of triggers that are not one valid instruction.
    pub(crate) fn add_triggers(
        &mut self,
        id: StageId,
        triggers: &[String],
        base: &str,
    ) -> Vec<FrontendError> {
        let stage = &mut self.stages[id];
        stage.has_triggers = true;
        let size = triggers.iter().map(|trigger| trigger.len() + STEP_SIZE).sum();
        if self.budget.keep(size).is_err() {
            return vec![stage.place.error(ErrorKind::TooLarge)];
        }
        let (mut steps, mut errors) = (Vec::new(), Vec::new());
        for trigger in triggers {
            let place = stage.place.for_trigger(self.triggers.add(base, trigger));
            match parser::parse_trigger(trigger) {
                Ok(instruction) => steps.push(Step::new(Cow::Owned(instruction), place)),
                Err(found) => errors.extend(found.errors.into_iter().map(|error| {
                    let (trigger, base) = (trigger.clone(), base.to_owned());
                    let reason = error.kind.to_string();
                    let span = Span::new(error.at.offset(), error.at.offset() + error.at.len());
                    place
                        .error_at(span, ErrorKind::InvalidTrigger { trigger, base, reason })
                        .with_hint(error.help)
                })),
            }
        }
        stage.steps.splice(0..0, steps);
        errors
    }

    /// Finds what the instructions of a stage read, and adds hidden stages where needed.
    ///
    /// Returns the mistakes: each `--from=N` that has no such stage, and each with a variable in it.
    pub(crate) fn find_sources(&mut self, id: StageId) -> Vec<FrontendError> {
        let mut steps = std::mem::take(&mut self.stages[id].steps);
        let mut errors = Vec::new();
        for step in steps.iter_mut().filter(|step| step.sources.is_empty() && !step.is_broken) {
            let found = match &step.instruction.kind {
                InstructionKind::Copy(copy) => {
                    match copy.from.as_ref().filter(|from| !from.text.is_empty()) {
                        Some(from) => {
                            let user = (step.place, step.comments());
                            self.copy_source(from, user).map(|id| vec![Some(id)])
                        }
                        None => Ok(Vec::new()),
                    }
                }
                InstructionKind::Run(run) => run
                    .mounts
                    .iter()
                    .map(|mount| {
                        let Some(from) = mount.from.as_deref().filter(|from| !from.is_empty())
                        else {
                            return Ok(None);
                        };
                        let user = (step.place, step.comments());
                        self.named_source(from, user, mount.value.span).map(Some)
                    })
                    .collect(),
                _ => continue,
            };
            match found {
                Ok(sources) => step.sources = sources,
                Err(error) => {
                    step.is_broken = true;
                    errors.push(error);
                }
            }
        }
        self.stages[id].steps = steps;
        errors
    }

    /// The stage of `COPY --from`.
    fn copy_source(&mut self, from: &Word, user: User<'d>) -> Result<StageId, FrontendError> {
        let Ok(index) = from.text.parse::<i64>() else {
            return match from.text.contains('$') {
                true => Err(user.0.error_at(from.span, ErrorKind::VariableInFrom)),
                false => self.named_source(&from.text, user, from.span),
            };
        };
        let is_in_file = |&index: &usize| self.stages.get(index).is_some_and(|it| !it.is_hidden);
        usize::try_from(index).ok().filter(is_in_file).ok_or_else(|| {
            user.0.error_at(from.span, ErrorKind::InvalidStageIndex { index: from.text.clone() })
        })
    }

    /// The stage of this name in any letter case, else a new hidden one.
    fn named_source(
        &mut self,
        name: &str,
        (place, comments): User<'d>,
        span: Span,
    ) -> Result<StageId, FrontendError> {
        if let Some(&id) = self.names.get(&name.to_lowercase()) {
            return Ok(id);
        }
        let context = named_context::find(self.options, name, &self.target_platform);
        let base = match self.context_stage(context, place)? {
            Some(id) => Base::Stage(id),
            None if name == "scratch" => Base::Scratch,
            None => Base::Named(name.to_owned()),
        };
        let same = match &base {
            Base::Named(name) => self.hidden.get(name).copied(),
            _ => self.stages.iter().position(|stage| stage.is_hidden && stage.base == base),
        };
        Ok(same.unwrap_or_else(|| {
            self.hidden.insert(name.to_owned(), self.stages.len());
            self.stages.push(Stage {
                name: None,
                shown: name.to_owned(),
                place,
                comments,
                args: Vec::new(),
                base,
                platform: None,
                steps: Vec::new(),
                has_triggers: true,
                is_hidden: true,
                name_span: span,
                unset: Vec::new(),
            });
            self.stages.len() - 1
        }))
    }

    fn find_target(&self, cx: &Context<'_>) -> Result<StageId, FrontendError> {
        let in_file = || self.stages.iter().filter(|stage| !stage.is_hidden);
        let last = in_file().count() - 1;
        let Some(wanted) = cx.options.target.as_deref().filter(|target| !target.is_empty()) else {
            return Ok(last);
        };
        self.names.get(&wanted.to_lowercase()).copied().ok_or_else(|| {
            let named = || in_file().filter_map(|it| Some((it.name.as_deref()?, it.place)));
            let kind = ErrorKind::UnknownTarget { name: wanted.to_owned() };
            if let Some(near) = llb::suggest::nearest(wanted, named().map(|(name, _)| name)) {
                let place = named().find(|(name, _)| *name == near).map(|(_, place)| place);
                let place = place.unwrap_or(self.stages[last].place);
                return place.error(kind).with_suggestion(Some(near));
            }
            let names: Vec<String> = named().map(|(name, _)| format!("`{name}`")).collect();
            let hint = match &names[..] {
                [] => "no stage has a name: give one with `FROM image AS name`".to_owned(),
                names => format!("the stages are {}", names.join(", ")),
            };
            self.stages[last].place.error(kind).with_hint(Some(hint))
        })
    }

    /// Stages that `id` depends on directly, its base first.
    pub(crate) fn dependencies(&self, id: StageId) -> Vec<StageId> {
        let stage = &self.stages[id];
        let base = match stage.base {
            Base::Stage(base) => Some(base),
            // The instructions of a replaced stage are never run.
            Base::Replaced { .. } => return Vec::new(),
            _ => None,
        };
        base.into_iter()
            .chain(stage.steps.iter().flat_map(|step| step.sources.iter().flatten().copied()))
            .collect()
    }

    /// Stages that the target needs, or all of the file when every stage is wanted.
    pub(crate) fn reachable(&self, all: bool) -> Vec<bool> {
        let mut reached = vec![false; self.stages.len()];
        let mut pending: Vec<StageId> = vec![self.target];
        if all {
            pending.extend((0..self.stages.len()).filter(|&id| !self.stages[id].is_hidden));
        }
        while let Some(id) = pending.pop() {
            if !std::mem::replace(&mut reached[id], true) {
                pending.extend(self.dependencies(id));
            }
        }
        reached
    }

    /// All stages, each after those that it needs: as a rule hidden ones first, then those of the file in order.
    pub(crate) fn order(&self) -> Vec<StageId> {
        let (hidden, in_file): (Vec<_>, Vec<_>) =
            (0..self.stages.len()).partition(|&id| self.stages[id].is_hidden);
        let mut order = Vec::with_capacity(self.stages.len());
        let mut seen = vec![false; self.stages.len()];
        for root in hidden.into_iter().chain(in_file) {
            // A stage is left for the second time when all that it needs has been ordered.
            let mut open = vec![(root, false)];
            while let Some((id, is_ready)) = open.pop() {
                if is_ready {
                    order.push(id);
                } else if !std::mem::replace(&mut seen[id], true) {
                    open.push((id, true));
                    open.extend(self.dependencies(id).into_iter().rev().map(|id| (id, false)));
                }
            }
        }
        order
    }

    /// Whether the stage `id` of the file does not come before `user`. One that is named through a context may come
    /// later.
    pub(crate) fn is_later(&self, id: StageId, user: StageId) -> bool {
        id >= user && !self.stages[id].is_hidden
    }

    /// Whether the layers of a stage are in the image of the target.
    pub(crate) fn is_shipped(&self, id: StageId) -> bool {
        self.shipped.get(id).copied().unwrap_or(false)
    }

    fn find_shipped(&self) -> Vec<bool> {
        let mut shipped = vec![false; self.stages.len()];
        let mut next = Some(self.target);
        while let Some(id) = next.filter(|id| !shipped[*id]) {
            shipped[id] = true;
            next = match self.stages[id].base {
                Base::Stage(base) => Some(base),
                _ => None,
            };
        }
        shipped
    }

    /// Fails when stages need each other.
    pub(crate) fn check_circles(&self) -> Result<(), FrontendError> {
        // 0: not seen, 1: on the path, 2: done. Frames hold what is still to be visited.
        let mut marks = vec![0_u8; self.stages.len()];
        for root in 0..self.stages.len() {
            if marks[root] != 0 {
                continue;
            }
            marks[root] = 1;
            let mut frames = vec![(root, self.dependencies(root))];
            while let Some((id, pending)) = frames.last_mut() {
                let Some(next) = pending.pop() else {
                    marks[*id] = 2;
                    frames.pop();
                    continue;
                };
                match marks[next] {
                    0 => {
                        marks[next] = 1;
                        let pending = self.dependencies(next);
                        frames.push((next, pending));
                    }
                    1 => {
                        let stage = &self.stages[next];
                        return Err(stage
                            .place
                            .error(ErrorKind::CircularStages { stage: stage.shown.clone() }));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn has_mounts(&self) -> bool {
        self.stages.iter().flat_map(|stage| &stage.steps).any(
            |step| matches!(&step.instruction.kind, InstructionKind::Run(run) if !run.mounts.is_empty()),
        )
    }

    /// Names of the stages.
    pub(crate) fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }
}

/// Trigger text of an `ONBUILD`.
fn trigger_of(step: &Step<'_>) -> Option<String> {
    match &step.instruction.kind {
        InstructionKind::Onbuild(onbuild) if !step.place.is_trigger() => {
            Some(onbuild.trigger.clone())
        }
        _ => None,
    }
}
