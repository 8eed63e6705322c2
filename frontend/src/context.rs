//! What stays the same while a Dockerfile is converted for one platform.

use std::sync::Arc;

use llb::{Platform, SourceInfo};
use parser::{Arg, Dockerfile, Instruction, InstructionKind};

use crate::error::FrontendError;
use crate::lint::{Linter, Rule};
use crate::local::Locals;
use crate::options::Options;
use crate::outcome::ResolvedImages;
use crate::place::Place;
use crate::scope::Variables;
use crate::{epoch, expand, lint, platform_args, suggest};

/// Input and surroundings of one conversion for one platform.
pub(crate) struct Context<'a> {
    /// The Dockerfile.
    pub(crate) dockerfile: &'a Dockerfile,
    /// Settings.
    pub(crate) options: &'a Options,
    /// What is known of images.
    pub(crate) images: &'a ResolvedImages,
    /// The Dockerfile as vertices refer to it.
    pub(crate) info: Arc<SourceInfo>,
    /// Takes findings.
    pub(crate) linter: &'a Linter,
    /// Paths of local sources that steps use.
    pub(crate) locals: &'a Locals,
    /// The platform to build for.
    pub(crate) target_platform: Platform,
    /// The global scope.
    pub(crate) globals: Variables,
    /// The global scope if there were no build-args.
    pub(crate) default_globals: Variables,
    /// Time of the build in seconds since the epoch, when it is fixed.
    pub(crate) epoch: Option<i64>,
}

impl Context<'_> {
    /// The escape character.
    pub(crate) fn escape(&self) -> char {
        self.dockerfile.directives.escape.char()
    }

    /// Whether the user named the platforms to build for.
    pub(crate) fn platform_is_chosen(&self) -> bool {
        !self.options.platforms.is_empty()
    }

    /// Whether step names show the platform.
    pub(crate) fn shows_platform(&self) -> bool {
        self.options.multi_platform || self.options.platforms.len() > 1
    }

    /// Starts to work on an instruction: its comments may switch build checks off.
    pub(crate) fn enter(&self, instruction: &Instruction) {
        self.linter.enter(instruction.comments.iter().map(|comment| comment.text.as_str()));
    }

    /// Reports unknown variables of a `FROM`.
    pub(crate) fn report_unknown_in_from(&self, unset: &[String], place: Place) {
        for name in unset {
            self.linter.report(Rule::UndefinedArgInFrom, place.lines, || {
                let nearest = suggest::nearest(name, self.globals.names());
                let hint = nearest
                    .map_or_else(String::new, |nearest| format!(" (did you mean {nearest}?)"));
                format!("FROM argument '{name}' is not declared{hint}")
            });
        }
    }
}

/// The global scopes: with build-args and without.
///
/// # Errors
/// Those of default values that can not be expanded.
pub(crate) fn global_scopes(
    dockerfile: &Dockerfile,
    options: &Options,
    target_platform: &Platform,
    linter: &Linter,
) -> Result<(Variables, Variables), Vec<FrontendError>> {
    let target_stage = target_stage_name(dockerfile, options);
    let none = std::collections::BTreeMap::new();
    let scope = |args| {
        platform_args::global_scope(target_platform, &options.build_platform, &target_stage, args)
    };
    let (mut globals, mut defaults) = (scope(&options.build_args), scope(&none));
    let escape = dockerfile.directives.escape.char();
    let mut errors = Vec::new();
    for instruction in &dockerfile.instructions {
        let InstructionKind::Arg(arg) = &instruction.kind else { break };
        linter.enter(instruction.comments.iter().map(|comment| comment.text.as_str()));
        let place = Place::of(instruction);
        report_secret_names(arg, place, linter);
        for item in &arg.args {
            let name = &item.name.text;
            let given = options.build_args.get(name);
            if let Some(value) = given {
                globals.set(name, value);
            }
            let Some(default) = &item.default else { continue };
            if name == epoch::NAME && options.epoch_of_source.is_some() {
                // What it named has been asked.
                continue;
            }
            if given.is_none() {
                match expand::single(&default.text, escape, &globals) {
                    Ok(value) => globals.set(name, &value.text),
                    Err(error) => errors.push(place.error_at(default.span, error.into())),
                }
            }
            if let Ok(value) = expand::single(&default.text, escape, &defaults) {
                defaults.set(name, &value.text);
            }
        }
    }
    if errors.is_empty() { Ok((globals, defaults)) } else { Err(errors) }
}

/// Reports arguments that look like secrets.
pub(crate) fn report_secret_names(arg: &Arg, place: Place, linter: &Linter) {
    for item in &arg.args {
        report_secret_name("ARG", &item.name.text, place, linter);
    }
}

/// Reports a variable that looks like a secret.
pub(crate) fn report_secret_name(instruction: &str, name: &str, place: Place, linter: &Linter) {
    if lint::names::looks_secret(name) {
        linter.report(Rule::SecretsUsedInArgOrEnv, place.lines, || {
            format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})"
            )
        });
    }
}

/// Value of `TARGETSTAGE`: the target asked for, else the name of the last stage, else `default`.
fn target_stage_name(dockerfile: &Dockerfile, options: &Options) -> String {
    if let Some(target) = options.target.as_ref().filter(|target| !target.is_empty()) {
        return target.clone();
    }
    let last =
        dockerfile.instructions.iter().rev().find_map(|instruction| match &instruction.kind {
            InstructionKind::From(from) => Some(from),
            _ => None,
        });
    let name = last.and_then(|from| from.stage.as_ref()).map(|stage| stage.name.clone());
    name.unwrap_or_else(|| "default".to_owned())
}
