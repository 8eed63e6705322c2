//! `SOURCE_DATE_EPOCH`: the time that a build pretends to be made at.
//!
//! It is a number of seconds, or names where the time comes from: `context`, a named context, or a stage that only
//! downloads. The frontend fetches nothing, so the caller asks [`epoch_source`] first and puts what it found out into
//! [`Options::epoch_of_source`](crate::Options::epoch_of_source).

use std::borrow::Cow;

use llb::op::SourceOp;
use llb::{Definition, Op};
use parser::{AddInstruction, Dockerfile, Instruction, InstructionKind, Span};

use crate::context;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Linter;
use crate::local::Locals;
use crate::named_context::{self, Located, NamePlace};
use crate::options::{MainContext, NamedContext, Options};
use crate::outcome::{Outcome, ResolvedImages};
use crate::place::Place;
use crate::scope::Variables;
use crate::{expand, main_context, remote};

/// Name of the argument.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Where the time of a build comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// It is given as a number, or not at all.
    Given,
    /// From something that has no time, such as a folder.
    Timeless,
    /// From what this source brings.
    Source(SourceOp),
}

/// Finds out where the time of a build comes from.
///
/// # Errors
/// When the value is neither a number nor the name of anything that has a time, and those of default values that can
/// not be expanded.
pub fn epoch_source(
    dockerfile: &Dockerfile,
    options: &Options,
) -> Result<EpochSource, FrontendError> {
    if options.source_date_epoch.is_some() || options.epoch_of_source.is_some() {
        return Ok(EpochSource::Given);
    }
    let platform = options.platforms.first().unwrap_or(&options.build_platform);
    let Ok(globals) =
        context::globals(dockerfile, options, platform, &Linter::silent(), &expand::budget())
    else {
        // The conversion tells of it.
        return Ok(EpochSource::Given);
    };
    let value = value(options, &globals.scope).unwrap_or_default();
    if value.is_empty() || value.parse::<i64>().is_ok() {
        return Ok(EpochSource::Given);
    }
    if value == "context" {
        return of_main_context(options);
    }
    if let Some((name, context)) = named_context::find(options, value, platform) {
        return of_named_context(dockerfile, options, name, context);
    }
    of_stage(dockerfile, options, value)
}

/// The time that options and the global scope give.
///
/// # Errors
/// When it is no number, and nobody has asked where it comes from.
pub(crate) fn epoch(
    dockerfile: &Dockerfile,
    options: &Options,
    globals: &Variables,
) -> Result<Option<i64>, FrontendError> {
    if options.source_date_epoch.is_some() || options.epoch_of_source.is_some() {
        return Ok(options.source_date_epoch);
    }
    let is_unset = |value: &&str| value.is_empty() || (*value == "context" && has_no_time(options));
    let value = value(options, globals).filter(|value| !is_unset(value));
    value.map(|value| value.parse().map_err(|_| invalid(dockerfile, options, value))).transpose()
}

/// Whether the time comes from something that has to be asked.
pub(crate) fn is_named(dockerfile: &Dockerfile, options: &Options) -> bool {
    !matches!(epoch_source(dockerfile, options), Ok(EpochSource::Given) | Err(_))
}

/// Options in which what the source of the time said stands as a number.
pub(crate) fn settled(options: &Options) -> Cow<'_, Options> {
    let Some(time) = options.epoch_of_source else { return Cow::Borrowed(options) };
    let mut settled = Options { source_date_epoch: time, ..options.clone() };
    match time {
        Some(time) => settled.build_args.insert(NAME.to_owned(), time.to_string()),
        None => settled.build_args.remove(NAME),
    };
    Cow::Owned(settled)
}

fn value<'a>(options: &'a Options, globals: &'a Variables) -> Option<&'a str> {
    options.build_args.get(NAME).map(String::as_str).or_else(|| globals.get(NAME))
}

/// A value that gives no time, with the default that it comes from if it comes from the file.
fn invalid(dockerfile: &Dockerfile, options: &Options, value: &str) -> FrontendError {
    let hint = "write seconds since 1970 such as 1700000000, `context`, or the name of a build context or of a stage that is `FROM scratch` and one ADD from elsewhere";
    let kind = ErrorKind::InvalidEpoch { value: value.to_owned() };
    let is_given = options.build_args.contains_key(NAME);
    let error = match context::default_of(dockerfile, NAME).filter(|_| !is_given) {
        Some((place, span)) => place.error_at(span, kind),
        None => FrontendError::nowhere(kind),
    };
    error.with_hint(Some(hint.to_owned()))
}

fn has_no_time(options: &Options) -> bool {
    matches!(options.context, MainContext::Local | MainContext::Empty)
}

fn of_main_context(options: &Options) -> Result<EpochSource, FrontendError> {
    if has_no_time(options) {
        return Ok(EpochSource::Timeless);
    }
    let mut definition = Definition::default();
    main_context::add(options, &Locals::collecting(), &mut definition)
        .map_err(FrontendError::nowhere)?;
    Ok(first_source(&definition))
}

fn of_named_context(
    dockerfile: &Dockerfile,
    options: &Options,
    name: String,
    context: NamedContext,
) -> Result<EpochSource, FrontendError> {
    if let NamedContext::Stage { name } = &context {
        return of_stage(dockerfile, options, name);
    }
    let nowhere = NamePlace { place: Place::at_start(), span: Span::default() };
    match named_context::locate_context(name.clone(), context, nowhere)? {
        Located::Local { .. } => Ok(EpochSource::Timeless),
        Located::Source { source, .. } => Ok(EpochSource::Source(source)),
        Located::Image { .. } => Err(invalid(dockerfile, options, &name)),
    }
}

/// The source of a stage that does nothing but bring one thing from elsewhere.
fn of_stage(
    dockerfile: &Dockerfile,
    options: &Options,
    name: &str,
) -> Result<EpochSource, FrontendError> {
    if !is_source_only(&dockerfile.instructions, name) {
        return Err(invalid(dockerfile, options, name));
    }
    let options = Options {
        target: Some(name.to_owned()),
        epoch_of_source: Some(None),
        all_stages: false,
        platforms: options.platforms.first().cloned().into_iter().collect(),
        ..options.clone()
    };
    match crate::convert(dockerfile, &options, &ResolvedImages::default()) {
        Ok(Outcome::Done(build)) => Ok(first_source(&build.definition)),
        // A mistake elsewhere in the file is told by the conversion of the target.
        Ok(Outcome::Needs(_)) | Err(_) => Err(invalid(dockerfile, &options, name)),
    }
}

/// Whether the last stage of this name is `FROM scratch` and one `ADD` from elsewhere.
fn is_source_only(instructions: &[Instruction], name: &str) -> bool {
    let begins = |instruction: &Instruction| match &instruction.kind {
        InstructionKind::From(from) => {
            from.stage.as_ref().is_some_and(|stage| stage.name == name.to_lowercase())
                && from.image.text == "scratch"
        }
        _ => false,
    };
    let Some(start) = instructions.iter().rposition(begins) else { return false };
    let mut adds = 0;
    for instruction in &instructions[start + 1..] {
        match &instruction.kind {
            InstructionKind::From(_) => break,
            InstructionKind::Arg(_) => {}
            InstructionKind::Add(add) if is_one_remote(add) => adds += 1,
            _ => return false,
        }
    }
    adds == 1
}

/// Whether an `ADD` has one source, which is not a path as far as that shows before variables are replaced.
fn is_one_remote(add: &AddInstruction) -> bool {
    let [source] = add.sources.paths.as_slice() else { return false };
    add.sources.files.is_empty()
        && (remote::kind(&source.text).is_some() || source.text.contains('$'))
}

fn first_source(definition: &Definition) -> EpochSource {
    let mut sources = definition.vertices().iter().filter_map(|vertex| match &vertex.op {
        Op::Source(source) if !source.identifier.starts_with("local://") => Some(source.clone()),
        _ => None,
    });
    sources.next().map_or(EpochSource::Timeless, EpochSource::Source)
}
