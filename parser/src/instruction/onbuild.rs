//! `ONBUILD`.

use crate::ast::{Heredoc, InstructionKind, Onbuild, Span};
use crate::error::ParseErrorKind;

use super::{Context, Site, Statement};

/// Reads the arguments of `ONBUILD`. Of the trigger only the keyword and the form of its words is
/// checked; the rest is checked where it runs.
pub(super) fn parse(
    cx: &mut Context<'_>,
    site: Site<'_>,
    heredocs: &[Heredoc],
) -> Option<InstructionKind> {
    if site.args.is_empty() {
        return cx.refuse(ParseErrorKind::AtLeastOneArgument("ONBUILD"), site.keyword);
    }
    let trigger = Statement::new(site.args, cx.escape);
    match trigger.known {
        Some("onbuild") => return cx.refuse(ParseErrorKind::OnbuildChain, trigger.keyword),
        Some("from" | "maintainer") => {
            let kind = ParseErrorKind::OnbuildTrigger(trigger.keyword.to_uppercase());
            return cx.refuse(kind, trigger.keyword);
        }
        _ => check_words(cx, trigger),
    }
    let mut span = cx.line.span_of(site.args);
    let mut text = site.args.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
        span = span.to(Span::new(span.end, heredoc.body_span.end));
    }
    Some(InstructionKind::Onbuild(Onbuild { trigger: text, span }))
}

/// Notes the mistakes of the trigger that are those of its words.
fn check_words(cx: &mut Context<'_>, trigger: Statement<'_>) {
    let mut errors = Vec::new();
    let mut inner =
        Context { line: cx.line, escape: cx.escape, lines: cx.lines, errors: &mut errors };
    // There is no second level: a trigger that is itself a trigger is refused before.
    super::parse(&mut inner, trigger, Vec::new());
    cx.errors.extend(errors.into_iter().filter(|error| !error.is_prefixed()));
}
