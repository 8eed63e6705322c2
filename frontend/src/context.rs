//! What stays the same while a Dockerfile is converted for one platform.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use llb::{Platform, SourceInfo};
use parser::word::{self, WordError};
use parser::{ArgItem, Dockerfile, Instruction, InstructionKind, Span};
use tree::pattern::Patterns;

use crate::error::FrontendError;
use crate::lint::{Linter, Rule};
use crate::local::Locals;
use crate::options::Options;
use crate::outcome::{LineRange, ResolvedImages};
use crate::outline::Notes;
use crate::place::Place;
use crate::scope::Variables;
use crate::suggest::Budget;
use crate::{epoch, expand, go_text, lint, platform_args};

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
    /// Takes notes of what stages ask of the user.
    pub(crate) notes: &'a Notes,
    /// The platform to build for.
    pub(crate) target_platform: Platform,
    /// What the words of the file, and what is made of them, may still cost.
    pub(crate) budget: &'a word::Budget,
    /// The global scope.
    pub(crate) globals: Globals,
    /// Patterns of the ignore file, once they are asked for; `None` when there are none.
    pub(crate) ignored: OnceCell<Option<Patterns>>,
    /// Finds similar names for findings.
    pub(crate) suggestions: Budget,
    /// Whether the graph is wanted, and not only what can be said of the file; commands can then be left out.
    pub(crate) wants_definition: bool,
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
        self.linter.enter(&instruction.comments);
    }

    /// Patterns of the ignore file, unless there are none or some of them take names back.
    pub(crate) fn ignored(&self) -> Option<&Patterns> {
        let patterns = &self.options.ignore_patterns;
        let compile = || {
            let is_plain = !patterns.iter().any(|pattern| pattern.starts_with('!'));
            (is_plain && !patterns.is_empty()).then(|| Patterns::new(patterns).ok()).flatten()
        };
        self.ignored.get_or_init(compile).as_ref()
    }

    /// Reports unknown variables of a `FROM`.
    pub(crate) fn report_unknown_in_from(&self, unset: &[String], place: Place) {
        let known =
            || self.globals.scope.names().chain(self.globals.args.keys().map(String::as_str));
        for name in unset.iter().filter(|name| !self.globals.args.contains_key(*name)) {
            self.linter.report(Rule::UndefinedArgInFrom, place.lines, || {
                let nearest = self.suggestions.nearest(name, known());
                let hint = nearest
                    .map_or_else(String::new, |nearest| format!(" (did you mean {nearest}?)"));
                format!("FROM argument '{name}' is not declared{hint}")
            });
        }
    }
}

/// The global scope.
#[derive(Debug)]
pub(crate) struct Globals {
    /// Its variables.
    pub(crate) scope: Variables,
    /// Its variables if there were no build-args; `None` when a default value cannot be expanded then.
    pub(crate) defaults: Option<Variables>,
    /// The arguments that the file declares, by name.
    pub(crate) args: BTreeMap<String, GlobalArg>,
}

/// A global argument.
#[derive(Debug, Clone)]
pub(crate) struct GlobalArg {
    /// Its value, if it has one.
    pub(crate) value: Option<String>,
    /// Its doc comment.
    pub(crate) description: Option<String>,
    /// Where it is declared.
    pub(crate) lines: LineRange,
    /// Other arguments that its default value is made from.
    pub(crate) uses: Vec<String>,
}

/// The global scope of a Dockerfile.
///
/// # Errors
/// Those of default values that cannot be expanded.
pub(crate) fn globals(
    dockerfile: &Dockerfile,
    options: &Options,
    target_platform: &Platform,
    linter: &Linter,
    budget: &word::Budget,
) -> Result<Globals, Vec<FrontendError>> {
    let target_stage = target_stage_name(dockerfile, options);
    let scope = platform_args::global_scope(
        target_platform,
        &options.build_platform,
        &target_stage,
        &options.build_args,
    );
    let mut globals = Globals { defaults: Some(scope.clone()), scope, args: BTreeMap::new() };
    let escape = dockerfile.directives.escape.char();
    let mut errors = Vec::new();
    for instruction in &dockerfile.instructions {
        let InstructionKind::Arg(arg) = &instruction.kind else { break };
        if budget.is_used_up() && !errors.is_empty() {
            break;
        }
        linter.enter(&instruction.comments);
        for item in &arg.args {
            let place = Place::of(instruction);
            let declared = globals.declare(instruction, item, options, escape, budget);
            errors.extend(declared.map_err(|error| place.error_at(error.0, error.1.into())).err());
            let value = globals.args.get(&item.name.text).and_then(|arg| arg.value.as_deref());
            report_secret_value("ARG", &item.name.text, value, place, linter);
        }
    }
    if errors.is_empty() { Ok(globals) } else { Err(errors) }
}

impl Globals {
    /// Adds an argument, whose value is that of its build-arg, else its default.
    fn declare(
        &mut self,
        instruction: &Instruction,
        item: &ArgItem,
        options: &Options,
        escape: char,
        budget: &word::Budget,
    ) -> Result<(), (Span, WordError)> {
        let name = &item.name.text;
        // What it names has been asked.
        let is_answered = name == epoch::NAME && options.epoch_of_source.is_some();
        let expand = |scope: &Variables| {
            item.default
                .as_ref()
                .filter(|_| !is_answered)
                .map(|default| expand::single(&default.text, escape, scope, budget))
                .transpose()
        };
        self.defaults = self.defaults.take().and_then(|mut defaults| {
            if let Some(value) = expand(&defaults).ok()? {
                defaults.set(name, &value.text);
            }
            Some(defaults)
        });
        let given = options.build_args.get(name);
        let value = match given {
            Some(_) => None,
            None => expand(&self.scope).map_err(|error| {
                (item.default.as_ref().map_or(item.name.span, |default| default.span), error)
            })?,
        };
        let mut uses: Vec<String> = Vec::new();
        if let Some(value) = &value {
            uses.extend(value.used.iter().filter(|used| *used != name).cloned());
            // One that is made from its own earlier value is made from what that was made from.
            if let Some(earlier) = self.args.get(name).filter(|_| value.used.contains(name)) {
                uses.extend(earlier.uses.iter().cloned());
            }
        }
        let value = given.cloned().or(value.map(|value| value.text));
        if let Some(value) = &value {
            self.scope.set(name, value);
        }
        let description = lint::file::description(instruction, name);
        let lines = Place::of(instruction).lines;
        self.args.insert(name.clone(), GlobalArg { value, description, lines, uses });
        Ok(())
    }
}

/// Where the default of a global argument stands.
pub(crate) fn default_of(dockerfile: &Dockerfile, name: &str) -> Option<(Place, Span)> {
    let globals = dockerfile.instructions.iter().map_while(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => Some((instruction, arg)),
        _ => None,
    });
    let named = globals.flat_map(|(instruction, arg)| {
        let items = arg.args.iter().filter(|item| item.name.text == name);
        items.filter_map(move |item| Some((Place::of(instruction), item.default.as_ref()?.span)))
    });
    named.last()
}

/// Reports a variable that looks like a secret.
pub(crate) fn report_secret_name(instruction: &str, name: &str, place: Place, linter: &Linter) {
    if lint::names::looks_secret(name) {
        linter.report(Rule::SecretsUsedInArgOrEnv, place.lines, || {
            format!(
                "Do not use ARG or ENV instructions for sensitive data ({instruction} {})",
                go_text::quote(name)
            )
        });
    }
}

/// Reports a variable whose value looks like a secret; the value itself is not shown.
pub(crate) fn report_secret_value(
    instruction: &str,
    name: &str,
    value: Option<&str>,
    place: Place,
    linter: &Linter,
) {
    if place.is_trigger() || !linter.is_on(Rule::SecretValueInArgOrEnv) {
        return;
    }
    if let Some(kind) = value.and_then(|value| lint::secret::kind(name, value)) {
        linter.report(Rule::SecretValueInArgOrEnv, place.lines, || {
            format!(
                "Value of {instruction} {} looks like {kind}, and stays readable in the image's history",
                go_text::quote(name)
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
