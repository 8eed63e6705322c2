//! Questions about a Dockerfile that need no build: what the checks say, what a target asks for, which
//! targets there are.
//!
//! An image that cannot be resolved is no reason not to answer: mark it with
//! [`ResolvedImages::insert_unknown`](crate::ResolvedImages::insert_unknown), and what follows from it is left out.

use llb::Definition;
use parser::{Dockerfile, InstructionKind};

use crate::error::FrontendError;
use crate::lint::{self, Linter};
use crate::local::Locals;
use crate::options::Options;
use crate::outcome::{ImageRequest, ResolvedImages, StageInfo, Warning};
use crate::outline::{Notes, Outline};
use crate::place::Place;
use crate::{Collectors, Converted, convert_platforms, expand, lint_options, violation_error};

/// An answer, or what is needed for it.
#[derive(Debug)]
pub enum Answer<T> {
    /// These images must be resolved first; ask again with them.
    Needs(Vec<ImageRequest>),
    /// The answer.
    Known(T),
}

/// What the build checks say.
#[derive(Debug, Default)]
pub struct Findings {
    /// What they found, by line; also when the file has mistakes.
    pub warnings: Vec<Warning>,
    /// Mistakes for which the file cannot be built.
    pub errors: Vec<FrontendError>,
}

/// Evaluates the build checks; for every stage of the file unless a target is named.
pub fn check(
    dockerfile: &Dockerfile,
    options: &Options,
    images: &ResolvedImages,
) -> Answer<Findings> {
    let lint = match lint_options(dockerfile, options) {
        Ok(lint) => lint,
        Err(error) => {
            return Answer::Known(Findings { errors: vec![error], ..Findings::default() });
        }
    };
    let has_target = options.target.as_deref().is_some_and(|target| !target.is_empty());
    let options = Options { all_stages: options.all_stages || !has_target, ..options.clone() };
    let linter = Linter::new(lint);
    lint::file::check(dockerfile, &linter);
    let collectors = Collectors {
        locals: &Locals::collecting(),
        linter: &linter,
        notes: &Notes::default(),
        budget: &expand::budget(),
        wants_definition: false,
    };
    let mut errors = match convert_platforms(dockerfile, &options, images, &collectors) {
        Ok(Converted::Needs(needs)) => return Answer::Needs(needs),
        Ok(Converted::Done { .. }) => Vec::new(),
        Err(errors) => errors,
    };
    let (warnings, violation) = linter.finish();
    if errors.is_empty() {
        // The findings are shown with it, so there is nothing to look up.
        let error = |violation| violation_error(dockerfile, violation).with_hint(None);
        errors.extend(violation.map(error));
    }
    Answer::Known(Findings { warnings, errors })
}

/// Tells which arguments, secrets and ssh agents the target uses, on the first platform.
///
/// # Errors
/// All mistakes found.
pub fn outline(
    dockerfile: &Dockerfile,
    options: &Options,
    images: &ResolvedImages,
) -> Result<Answer<Outline>, Vec<FrontendError>> {
    let linter = Linter::silent();
    let collectors = Collectors {
        locals: &Locals::collecting(),
        linter: &linter,
        notes: &Notes::kept(),
        budget: &expand::budget(),
        wants_definition: false,
    };
    let platform = &crate::platforms(options)[0];
    let cx = crate::context(dockerfile, options, images, &collectors, platform)?;
    Ok(match crate::convert_platform(&cx, &mut Definition::default())? {
        Err(needs) => Answer::Needs(needs),
        Ok((plan, _)) => {
            let mut outline = cx.notes.outline(&plan, &cx.globals);
            let stage = stages(dockerfile).into_iter().nth(plan.target);
            if let Some(stage) = stage {
                (outline.name, outline.description) = (stage.name, stage.description);
            }
            Answer::Known(outline)
        }
    })
}

/// The stages of the file, each of which can be a target if it has a name.
pub fn stages(dockerfile: &Dockerfile) -> Vec<StageInfo> {
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
            platform: from.platform.as_ref().map(|platform| platform.text.clone()),
            is_default: false,
            lines: Place::of(instruction).lines,
        });
    }
    if let Some(last) = stages.last_mut() {
        last.is_default = true;
    }
    stages
}
