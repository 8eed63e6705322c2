//! Turns a parsed Dockerfile into an LLB definition and an image config; pure.
//!
//! ```text
//! Dockerfile ─stage─▶ plan ─resolve─▶ starts ─convert─▶ definition, configs, warnings
//!                      ▲                │ images not known yet: the caller resolves them
//!                      ╰────────────────╯ and calls again
//! ```
//!
//! Invariants:
//! - Nothing is fetched, read or run, and the result depends on the arguments alone.
//! - Only stages that the target needs are converted.
//! - Vertices carry nothing of the Dockerfile's layout: comments, letter case, stage names and line
//!   numbers are in their metadata only.
//!
//! Format: the Dockerfile reference, as BuildKit's frontend implements it.

mod chmod;
mod context;
mod convert;
mod epoch;
mod error;
mod expand;
mod from;
mod go_text;
mod image;
mod lint;
mod local;
mod main_context;
mod named_context;
mod options;
mod outcome;
mod outline;
mod paths;
mod place;
mod platform_args;
mod ports;
mod question;
mod remote;
mod resolve;
mod scope;
mod signal;
mod stage;
mod step_name;
mod suggest;

use std::cell::OnceCell;
use std::sync::Arc;

use llb::{Definition, Platform, SourceInfo};
use parser::{Dockerfile, Span};

pub use crate::epoch::{EpochSource, epoch_source};
pub use crate::error::{ErrorKind, FrontendError};
pub use crate::lint::{Rule, parse_bool};
pub use crate::main_context::main_context;
pub use crate::options::{MainContext, NamedContext, NoCache, Options, ResolveMode};
pub use crate::outcome::{
    Build, ImageLocation, ImageRequest, LineRange, Outcome, ResolvedImage, ResolvedImages,
    StageInfo, Target, Warning,
};
pub use crate::outline::{Outline, OutlineArg, OutlineMount};
pub use crate::place::InTrigger;
pub use crate::question::{Answer, Findings, check, outline, stages};
pub use crate::remote::git::InvalidGitRef;

use crate::context::Context;
use crate::lint::{LintOptions, Linter};
use crate::local::Locals;
use crate::outline::Notes;
use crate::resolve::Resolution;
use crate::stage::Plan;
use crate::suggest::Budget;

/// Converts a Dockerfile, or says which images must be resolved first.
///
/// Call it again with the images in `images` until the outcome is [`Outcome::Done`].
///
/// # Errors
/// All mistakes found; more may show once these are gone. Also findings of the build checks when they
/// are to fail the build.
pub fn convert(
    dockerfile: &Dockerfile,
    options: &Options,
    images: &ResolvedImages,
) -> Result<Outcome, Vec<FrontendError>> {
    let options = &*epoch::settled(options);
    let lint = lint_options(dockerfile, options).map_err(|error| vec![error])?;
    if options
        .build_args
        .get("BUILDKIT_DISABLE_FILEOP")
        .is_some_and(|value| parse_bool(value) == Some(true))
    {
        return Err(vec![FrontendError::nowhere(ErrorKind::FileOpDisabled)]);
    }
    let locals = Locals::collecting();
    let (silent, notes) = (Linter::silent(), Notes::default());
    let collectors = Collectors {
        locals: &locals,
        linter: &silent,
        notes: &notes,
        budget: &expand::budget(),
        wants_definition: true,
    };
    if let Converted::Needs(needs) = convert_platforms(dockerfile, options, images, &collectors)? {
        return Ok(Outcome::Needs(needs));
    }
    let linter = Linter::new(lint);
    lint::file::check(dockerfile, &linter);
    let locals = locals.known();
    let collectors = Collectors {
        locals: &locals,
        linter: &linter,
        notes: &notes,
        budget: &expand::budget(),
        wants_definition: true,
    };
    let converted = convert_platforms(dockerfile, options, images, &collectors)?;
    let (warnings, violation) = linter.finish();
    if let Some(violation) = violation {
        return Err(vec![violation_error(dockerfile, violation)]);
    }
    Ok(match converted {
        Converted::Needs(needs) => Outcome::Needs(needs),
        Converted::Done { definition, targets } => {
            Outcome::Done(Box::new(Build { definition, targets, warnings }))
        }
    })
}

/// The error that findings are when they are to fail the conversion.
fn violation_error(
    dockerfile: &Dockerfile,
    (kind, lines): (ErrorKind, LineRange),
) -> FrontendError {
    let at = line_span(&dockerfile.text, lines.start).into();
    FrontendError { at, lines, ..FrontendError::nowhere(kind) }
}

/// What takes notes during a conversion.
struct Collectors<'a> {
    locals: &'a Locals,
    linter: &'a Linter,
    notes: &'a Notes,
    /// What this pass may still cost.
    budget: &'a parser::word::Budget,
    wants_definition: bool,
}

/// What one pass over all platforms gives.
enum Converted {
    Needs(Vec<ImageRequest>),
    Done { definition: Definition, targets: Vec<Target> },
}

fn convert_platforms(
    dockerfile: &Dockerfile,
    options: &Options,
    images: &ResolvedImages,
    collectors: &Collectors<'_>,
) -> Result<Converted, Vec<FrontendError>> {
    // Findings are those for the first platform.
    let silent = Linter::silent();
    let mut definition = Definition::default();
    let (mut needs, mut targets) = (Vec::new(), Vec::new());
    for (index, platform) in platforms(options).iter().enumerate() {
        let linter = if index == 0 { collectors.linter } else { &silent };
        let collectors = Collectors { linter, ..*collectors };
        let cx = context(dockerfile, options, images, &collectors, platform)?;
        match convert_platform(&cx, &mut definition)? {
            Ok((_, target)) => targets.push(target),
            Err(missing) => {
                needs.extend(
                    missing
                        .into_iter()
                        .filter(|request| !needs.contains(request))
                        .collect::<Vec<_>>(),
                );
            }
        }
    }
    if !needs.is_empty() {
        return Ok(Converted::Needs(needs));
    }
    if let [target] = targets.as_slice() {
        definition.result = target.result;
    }
    Ok(Converted::Done { definition, targets })
}

/// Platforms to build for; never empty.
fn platforms(options: &Options) -> &[Platform] {
    match options.platforms.as_slice() {
        [] => std::slice::from_ref(&options.build_platform),
        platforms => platforms,
    }
}

/// Surroundings of a conversion for one platform.
fn context<'a>(
    dockerfile: &'a Dockerfile,
    options: &'a Options,
    images: &'a ResolvedImages,
    collectors: &Collectors<'a>,
    platform: &Platform,
) -> Result<Context<'a>, Vec<FrontendError>> {
    let info = SourceInfo { filename: options.filename.clone(), text: dockerfile.text.clone() };
    let globals =
        context::globals(dockerfile, options, platform, collectors.linter, collectors.budget)?;
    let epoch = match epoch::epoch(dockerfile, options, &globals.scope) {
        // What is said of the file does not depend on the time, so that nobody has asked for it.
        Err(_) if !collectors.wants_definition && epoch::is_named(dockerfile, options) => None,
        epoch => epoch.map_err(|error| vec![error])?,
    };
    Ok(Context {
        dockerfile,
        options,
        images,
        info: Arc::new(info),
        linter: collectors.linter,
        locals: collectors.locals,
        notes: collectors.notes,
        target_platform: platform.clone(),
        budget: collectors.budget,
        globals,
        ignored: OnceCell::new(),
        suggestions: Budget::new(),
        wants_definition: collectors.wants_definition,
        epoch,
    })
}

/// Converts for one platform; the inner error is what must be resolved first.
#[expect(clippy::type_complexity, reason = "the two ways to fail are of different kinds")]
fn convert_platform<'a>(
    cx: &Context<'a>,
    definition: &mut Definition,
) -> Result<Result<(Plan<'a>, Target), Vec<ImageRequest>>, Vec<FrontendError>> {
    let mut plan = Plan::new(cx)?;
    let resolved = resolve::resolve(cx, &mut plan);
    let mut errors = std::mem::take(&mut plan.errors);
    let starts = match resolved {
        Ok(Resolution::Known(starts)) => starts,
        Ok(Resolution::Needs(needs)) if errors.is_empty() => return Ok(Err(needs)),
        // Nothing is fetched for a file that is wrong anyway.
        Ok(Resolution::Needs(_)) => return Err(plan.explain(errors)),
        Err(found) => {
            errors.extend(found);
            return Err(plan.explain(errors));
        }
    };
    for (id, start) in starts.iter().enumerate() {
        if let Some(start) = start.as_ref().filter(|_| !plan.stages[id].is_hidden) {
            convert::add_source(cx, &plan, definition, id, start);
        }
    }
    let mut done: convert::Done = vec![None; plan.stages.len()];
    for id in plan.order() {
        if let Some(start) = starts[id].as_ref().filter(|_| !cx.budget.is_used_up()) {
            let (state, found) = convert::stage(cx, &plan, &done, definition, id, start);
            done[id] = Some(state);
            errors.extend(found);
        }
    }
    if !errors.is_empty() {
        return Err(plan.explain(errors));
    }
    let Some(state) = done.swap_remove(plan.target) else {
        return Err(vec![FrontendError::nowhere(ErrorKind::NoStages)]);
    };
    let last = lint::image::Final {
        stage: &plan.stages[plan.target],
        config: &state.image,
        user: state.user,
        base_is_unknown: state.base_is_unknown,
    };
    lint::image::check(&last, cx.linter);
    state.note_result(cx);
    Ok(Ok((plan, target(cx, state))))
}

/// Finishes the result of the target stage.
fn target(cx: &Context<'_>, state: convert::StageState) -> Target {
    let mut config = state.image;
    config.config.labels.extend(cx.options.labels.clone());
    let platform = if cx.platform_is_chosen() {
        image::set_platform(&mut config, &cx.target_platform);
        cx.target_platform.clone()
    } else {
        state.platform
    };
    image::normalize_platform(&mut config);
    Target {
        platform,
        result: state.edge,
        config,
        base_history_len: state.base_history_len,
        base_layers: state.base_layers,
        base_image: state.base_image,
        source_date_epoch: cx.epoch,
    }
}

/// Options of the build checks: those of the build-arg, else those of the directive.
fn lint_options(dockerfile: &Dockerfile, options: &Options) -> Result<LintOptions, FrontendError> {
    if let Some(text) = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        return LintOptions::parse(text).map_err(FrontendError::nowhere);
    }
    let Some(check) = &dockerfile.directives.check else { return Ok(LintOptions::default()) };
    LintOptions::parse(check.first_word()).map_err(|kind| {
        let lines = LineRange { start: check.line, end: check.line };
        FrontendError { at: check.span.into(), lines, ..FrontendError::nowhere(kind) }
    })
}

/// Bytes of a line, without its line break.
fn line_span(text: &str, line: usize) -> Span {
    let mut start = 0;
    for (index, full) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            return Span::new(start, start + full.trim_end().len());
        }
        start += full.len();
    }
    Span::new(start, start)
}
