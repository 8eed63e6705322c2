//! `ENV`, `LABEL` and `ARG`.

use crate::ast::{Arg, ArgItem, InstructionKind, Pair, Pairs};
use crate::error::ParseErrorKind;
use crate::tokens;

use super::{Context, Site};

/// Reads the arguments of `ENV` and `LABEL`.
pub(super) fn parse(
    cx: &mut Context<'_>,
    site: Site<'_>,
    instruction: &'static str,
) -> Option<Pairs> {
    let words = tokens::quoted_words(site.args, cx.escape);
    match words.first() {
        None => cx.refuse(ParseErrorKind::AtLeastOneArgument(instruction), site.part()),
        Some(first) if !first.contains('=') => legacy(cx, site, instruction),
        Some(_) => {
            // One word without `=` is mostly a value with blanks, and so are those after it.
            let pairs = words.into_iter().map(|word| pair(cx, word, instruction));
            Some(Pairs { pairs: pairs.collect::<Option<_>>()?, legacy: false })
        }
    }
}

/// Reads `NAME VALUE`, whose value is all of the rest.
fn legacy(cx: &mut Context<'_>, site: Site<'_>, instruction: &'static str) -> Option<Pairs> {
    match tokens::split_first(site.args) {
        (name, Some(value)) => {
            let pair = Pair { name: cx.word(name), value: cx.word(value) };
            Some(Pairs { pairs: vec![pair], legacy: true })
        }
        (_, None) => cx.refuse(ParseErrorKind::TwoArguments(instruction), site.args),
    }
}

/// Reads one `NAME=VALUE`.
fn pair(cx: &mut Context<'_>, word: &str, instruction: &'static str) -> Option<Pair> {
    match word.split_once('=') {
        None => cx.refuse(ParseErrorKind::MissingEquals(word.to_owned()), word),
        Some(("", _)) => cx.refuse(ParseErrorKind::BlankName(instruction), word),
        Some((name, value)) => Some(Pair { name: cx.word(name), value: cx.word(value) }),
    }
}

/// Reads the arguments of `ARG`.
pub(super) fn arg(cx: &mut Context<'_>, site: Site<'_>) -> Option<InstructionKind> {
    let words = tokens::quoted_words(site.args, cx.escape);
    if words.is_empty() {
        return cx.refuse(ParseErrorKind::AtLeastOneArgument("ARG"), site.part());
    }
    let mut args = Vec::with_capacity(words.len());
    for word in words {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(cx.word(default))),
            None => (word, None),
        };
        if name.is_empty() {
            cx.refuse::<()>(ParseErrorKind::BlankName("ARG"), word);
        }
        args.push(ArgItem { name: cx.word(name), default });
    }
    Some(InstructionKind::Arg(Arg { args }))
}
