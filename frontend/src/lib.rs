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
//! Format: `spec/instructions.md`, `spec/dockerfile-syntax.md` §10-12, `spec/solver-and-cache.md` §1.

mod chmod;
mod context;
mod convert;
mod epoch;
mod error;
mod expand;
mod go_text;
mod image;
mod lint;
mod local;
mod main_context;
mod named_context;
mod options;
mod outcome;
mod paths;
mod place;
mod platform_args;
mod ports;
mod remote;
mod resolve;
mod scope;
mod signal;
mod stage;
mod step_name;
mod suggest;

use std::sync::Arc;

use llb::{Definition, SourceInfo};
use parser::{Dockerfile, InstructionKind, Span};

pub use crate::epoch::{EpochSource, epoch_source};
pub use crate::error::{ErrorKind, FrontendError};
pub use crate::lint::Rule;
pub use crate::main_context::main_context;
pub use crate::options::{MainContext, NamedContext, NoCache, Options, ResolveMode};
pub use crate::outcome::{
    Build, ImageLocation, ImageRequest, LineRange, Outcome, ResolvedImage, ResolvedImages,
    StageInfo, Target, Warning,
};
pub use crate::remote::git::InvalidGitRef;
pub use crate::suggest::nearest;

use crate::context::Context;
use crate::lint::{LintOptions, Linter};
use crate::local::Locals;
use crate::place::Place;
use crate::resolve::Resolution;
use crate::stage::Plan;

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
        .is_some_and(|value| lint::parse_bool(value) == Some(true))
    {
        return Err(vec![FrontendError::at_start(ErrorKind::FileOpDisabled)]);
    }
    let locals = Locals::collecting();
    let collected =
        convert_platforms(dockerfile, options, images, &locals, &Linter::new(LintOptions::new()))?;
    if let Converted::Needs(needs) = collected {
        return Ok(Outcome::Needs(needs));
    }
    let linter = Linter::new(lint);
    lint::file::check(dockerfile, &linter);
    let converted = convert_platforms(dockerfile, options, images, &locals.known(), &linter)?;
    let warnings = linter.finish().map_err(|(kind, lines)| {
        let at = line_span(&dockerfile.text, lines.start).into();
        vec![FrontendError { at, lines, ..FrontendError::at_start(kind) }]
    })?;
    Ok(match converted {
        Converted::Needs(needs) => Outcome::Needs(needs),
        Converted::Done { definition, targets } => Outcome::Done(Box::new(Build {
            definition,
            targets,
            warnings,
            stages: stages(dockerfile),
        })),
    })
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
    locals: &Locals,
    linter: &Linter,
) -> Result<Converted, Vec<FrontendError>> {
    let info =
        Arc::new(SourceInfo { filename: options.filename.clone(), text: dockerfile.text.clone() });
    let platforms = match options.platforms.as_slice() {
        [] => std::slice::from_ref(&options.build_platform),
        platforms => platforms,
    };
    // Findings are those for the first platform.
    let silent = Linter::new(LintOptions::new());
    let mut definition = Definition::default();
    let (mut needs, mut targets) = (Vec::new(), Vec::new());
    for (index, platform) in platforms.iter().enumerate() {
        let linter = if index == 0 { linter } else { &silent };
        let (globals, default_globals) =
            context::global_scopes(dockerfile, options, platform, linter)?;
        let epoch = epoch::epoch(options, &globals).map_err(|error| vec![error])?;
        let cx = Context {
            dockerfile,
            options,
            images,
            info: info.clone(),
            linter,
            locals,
            target_platform: platform.clone(),
            globals,
            default_globals,
            epoch,
        };
        match convert_platform(&cx, &mut definition)? {
            Ok(target) => targets.push(target),
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

/// Converts for one platform; the inner error is what must be resolved first.
fn convert_platform(
    cx: &Context<'_>,
    definition: &mut Definition,
) -> Result<Result<Target, Vec<ImageRequest>>, Vec<FrontendError>> {
    let mut plan = Plan::new(cx)?;
    let starts = match resolve::resolve(cx, &mut plan)? {
        Resolution::Known(starts) => starts,
        Resolution::Needs(needs) => return Ok(Err(needs)),
    };
    for (id, start) in starts.iter().enumerate() {
        if let Some(start) = start.as_ref().filter(|_| !plan.stages[id].is_hidden) {
            convert::add_source(cx, &plan, definition, id, start);
        }
    }
    let mut done: convert::Done = vec![None; plan.stages.len()];
    let mut errors = Vec::new();
    for id in plan.order() {
        if let Some(start) = &starts[id] {
            let (state, found) = convert::stage(cx, &plan, &done, definition, id, start);
            done[id] = Some(state);
            errors.extend(found);
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let Some(state) = done.swap_remove(plan.target) else {
        return Err(vec![FrontendError::at_start(ErrorKind::NoStages)]);
    };
    state.note_result(cx);
    Ok(Ok(target(cx, state)))
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
        return LintOptions::parse(text).map_err(FrontendError::at_start);
    }
    let Some(check) = &dockerfile.directives.check else { return Ok(LintOptions::new()) };
    LintOptions::parse(check.first_word()).map_err(|kind| {
        let lines = LineRange { start: check.line, end: check.line };
        FrontendError { at: check.span.into(), lines, ..FrontendError::at_start(kind) }
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

/// Describes the stages of the file.
fn stages(dockerfile: &Dockerfile) -> Vec<StageInfo> {
    let mut stages: Vec<StageInfo> = Vec::new();
    for instruction in &dockerfile.instructions {
        let InstructionKind::From(from) = &instruction.kind else { continue };
        let name = from.stage.as_ref().map(|stage| stage.name.clone());
        stages.push(StageInfo {
            description: name
                .as_deref()
                .and_then(|name| lint::file::description(instruction, name)),
            name,
            base: from.image.text.clone(),
            is_default: false,
            lines: Place::of(instruction).lines,
        });
    }
    if let Some(last) = stages.last_mut() {
        last.is_default = true;
    }
    stages
}
