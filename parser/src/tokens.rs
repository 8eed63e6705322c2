//! Splitting the arguments of an instruction: flags, quote-aware words, plain words.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{consumed, map, opt, recognize, value};
use nom::multi::{fold_many0, many0_count, many1_count};
use nom::sequence::{delimited, pair, preceded};
use nom::{IResult, Parser};

/// A flag word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFlag<'a> {
    /// The text as written.
    pub(crate) raw: &'a str,
    /// The text after `--`, with quotes and escapes removed.
    pub(crate) text: String,
}

/// Splits leading flags off the arguments. Both the arguments and the rest are trimmed.
///
/// The flags end at the first word that does not start with `--`, or with a bare `--`, which is
/// dropped.
pub(crate) fn flags(args: &str, escape: char) -> (Vec<RawFlag<'_>>, &str) {
    let mut flags = Vec::new();
    let mut rest = args.trim();
    while let Ok((after, (raw, text))) = consumed(flag(escape)).parse_complete(rest) {
        rest = after.trim_start();
        if text.is_empty() {
            break;
        }
        flags.push(RawFlag { raw, text });
    }
    (flags, rest)
}

/// Parses one flag word: what follows `--`, up to the next blank outside of quotes.
///
/// Quotes are removed, and an escape makes the next character an ordinary one, also in quotes. An
/// escape at the end of the text is dropped.
fn flag<'a>(
    escape: char,
) -> impl Parser<&'a str, Output = String, Error = nom::error::Error<&'a str>> {
    let plain = map(satisfy(|c| !c.is_whitespace()), String::from);
    let piece = alt((flag_quoted('\'', escape), flag_quoted('"', escape), escaped(escape), plain));
    preceded(tag("--"), fold_many0(piece, String::new, |text, piece| text + &piece))
}

/// Parses an escape and the character after it, which it yields.
fn escaped<'a>(
    escape: char,
) -> impl Parser<&'a str, Output = String, Error = nom::error::Error<&'a str>> {
    let next = opt(anychar);
    map(preceded(char(escape), next), |c| c.map(String::from).unwrap_or_default())
}

/// Parses a quoted part of a flag word. A missing closing quote ends it at the end of the text.
fn flag_quoted<'a>(
    quote: char,
    escape: char,
) -> impl Parser<&'a str, Output = String, Error = nom::error::Error<&'a str>> {
    let plain = map(satisfy(move |c| c != quote), String::from);
    let inner = fold_many0(alt((escaped(escape), plain)), String::new, |text, it| text + &it);
    delimited(char(quote), inner, opt(char(quote)))
}

/// Splits the arguments of `ENV`, `LABEL` and `ARG` at blanks outside of quotes. Quotes and escapes
/// stay in the words, but an escape at the end of the text is dropped.
pub(crate) fn quoted_words(args: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = args.trim_start();
    while let Ok((after, word)) = quoted_word(rest, escape) {
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// Parses one word, as [`quoted_words`] says.
fn quoted_word(input: &str, escape: char) -> IResult<&str, &str> {
    let pair_of = |escape| value((), pair(char(escape), anychar));
    let single = value((), (char('\''), many0_count(satisfy(|c| c != '\'')), opt(char('\''))));
    let in_double = alt((pair_of(escape), value((), satisfy(move |c| c != '"' && c != escape))));
    let double = value((), (char('"'), many0_count(in_double), opt(char('"'))));
    let plain = value((), satisfy(move |c| !c.is_whitespace() && c != escape));
    recognize(many1_count(alt((pair_of(escape), single, double, plain)))).parse(input)
}

/// Returns whether the character separates a keyword from its arguments, and plain words.
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits arguments at blanks, whatever quotes say.
pub(crate) fn plain_words(args: &str) -> Vec<&str> {
    args.split(is_separator).filter(|word| !word.is_empty()).collect()
}

/// Splits text at its first run of blanks. The second part is `None` if there is none.
pub(crate) fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.split_once(is_separator) {
        Some((first, rest)) => (first, Some(rest.trim_start_matches(is_separator))),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let split = |args| {
            let (flags, rest) = flags(args, '\\');
            (flags.into_iter().map(|it| it.text).collect::<Vec<_>>().join("|"), rest)
        };
        assert_eq!(split("--a --b=c  d --e"), ("a|b=c".into(), "d --e"));
        assert_eq!(split("--a -- --b"), ("a".into(), "--b"));
        assert_eq!(split("-a"), (String::new(), "-a"));
        assert_eq!(split("--a='b c'\"d\\\"e\"\\ f g"), ("a=b cd\"e f".into(), "g"));
        assert_eq!(split("--a='b"), ("a=b".into(), ""));
        assert_eq!(split("--a=b\\"), ("a=b".into(), ""));
        assert_eq!(split("--a\u{a0}b"), ("a".into(), "b"));
        assert_eq!(split("--"), (String::new(), ""));
    }

    #[test]
    fn quoted_words_keep_quotes() {
        let words = |args| quoted_words(args, '\\');
        assert_eq!(words(r#" a=b  c="d e"'f g' "#), ["a=b", r#"c="d e"'f g'"#]);
        assert_eq!(words(r#"a\ b "c\" d" 'e\' f"#), [r"a\ b", r#""c\" d""#, r"'e\'", "f"]);
        assert_eq!(words("a='b c"), ["a='b c"]);
        assert_eq!(words("a\\"), ["a"]);
        assert_eq!(words("\"a\\"), ["\"a"]);
        assert_eq!(words("\\"), [""; 0]);
        assert_eq!(words("'' \"\""), ["''", "\"\""]);
    }
}
