//! Expands the words of `FROM`: the name of the base, and `--platform`.

use llb::Platform;
use parser::word::Expanded;
use parser::{FromInstruction, Word};

use crate::context::Context;
use crate::error::{ErrorKind, FrontendError};
use crate::lint::Rule;
use crate::place::Place;
use crate::{expand, go_text};

/// The base of a `FROM` with variables replaced.
pub(crate) fn base_name(
    cx: &Context<'_>,
    from: &FromInstruction,
    place: Place,
    args: &mut Vec<String>,
) -> Result<Expanded, FrontendError> {
    let written = &from.image;
    if let Some(defaults) = &cx.globals.defaults
        && let Ok(default) = expand::single(&written.text, cx.escape(), defaults, cx.budget)
        && !(default.used.is_empty() && default.unset.is_empty())
        && (default.text.is_empty() || llb::Reference::parse(&default.text).is_err())
    {
        cx.linter.report(Rule::InvalidDefaultArgInFrom, place.lines, || {
            format!(
                "Default value for ARG {} results in empty or invalid base image name",
                written.text
            )
        });
    }
    let expanded = expand::single(&written.text, cx.escape(), &cx.globals.scope, cx.budget)
        .map_err(|error| place.error_at(written.span, error.into()))?;
    cx.report_unknown_in_from(&expanded.unset, place);
    args.extend(expanded.used.iter().cloned());
    if expanded.text.is_empty() {
        let hint = undeclared(cx, &expanded.unset);
        let kind = ErrorKind::BlankBase { written: written.text.clone() };
        return Err(place.error_at(written.span, kind).with_hint(hint));
    }
    Ok(expanded)
}

/// What to do about a variable of a `FROM` that has no value.
pub(crate) fn undeclared(cx: &Context<'_>, unset: &[String]) -> Option<String> {
    let name = unset.first()?;
    Some(match llb::suggest::nearest(name, cx.globals.scope.names()) {
        Some(near) => format!("`${name}` has no value: did you mean `${near}`?"),
        None => format!("`${name}` has no value: declare `ARG {name}=...` before the first FROM"),
    })
}

/// The platform of a `FROM --platform`.
pub(crate) fn base_platform(
    cx: &Context<'_>,
    word: &Word,
    stage: Option<&str>,
    place: Place,
    args: &mut Vec<String>,
) -> Result<Platform, FrontendError> {
    let globals = &cx.globals.scope;
    let expanded = expand::single(&word.text, cx.escape(), globals, cx.budget)
        .map_err(|error| place.error_at(word.span, error.into()))?;
    cx.report_unknown_in_from(&expanded.unset, place);
    args.extend(expanded.used.iter().cloned());
    let with_hint = |error: FrontendError| match undeclared(cx, &expanded.unset) {
        Some(hint) => error.with_hint(Some(hint)),
        None => error,
    };
    if expanded.text.is_empty() {
        let kind = ErrorKind::EmptyPlatform { written: word.text.clone() };
        return Err(with_hint(place.error_at(word.span, kind)));
    }
    let platform = Platform::parse(&expanded.text).map_err(|source| {
        let kind = ErrorKind::InvalidPlatform { written: word.text.clone(), source };
        with_hint(place.error_at(word.span, kind))
    })?;
    let is_target = expanded.used == ["TARGETPLATFORM"] && expanded.unset.is_empty();
    if is_target && globals.get("TARGETPLATFORM") == Some(expanded.text.as_str()) {
        cx.linter.report(Rule::RedundantTargetPlatform, place.lines, || {
            let written = &word.text;
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior")
        });
    }
    let stage = stage.unwrap_or_default();
    let names_it = stage.contains(&platform.os) || stage.contains(&platform.architecture);
    if expanded.used.is_empty() && expanded.unset.is_empty() && !names_it {
        cx.linter.report(Rule::FromPlatformFlagConstDisallowed, place.lines, || {
            format!(
                "FROM --platform flag should not use constant value {}",
                go_text::quote(&expanded.text)
            )
        });
    }
    Ok(platform)
}
