//! Heredocs: finding their words in a line, and reading their bodies.
//!
//! Words are split and unquoted with the escape `\`, whatever the file's own escape is.

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::digit0;
use nom::combinator::{opt, rest};
use nom::{IResult, Parser};

use crate::ast::Heredoc;
use crate::ast::Span;
use crate::text::PhysicalLines;
use crate::word::{Budget, Mode, expand_words};

/// Everything stays as it is; only words are split.
const RAW: Mode =
    Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ignore_quotes: false };

/// Quotes and escapes are removed.
const UNQUOTED: Mode =
    Mode { raw_quotes: false, raw_escapes: false, skip_unset: true, ignore_quotes: false };

/// A heredoc word: everything but the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: String,
    pub(crate) fd: Option<u32>,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
}

/// Parses digits, `<<`, perhaps `-`, blanks, and the raw name.
fn head(input: &str) -> IResult<&str, (&str, Option<&str>, &str)> {
    let blanks = take_while(char::is_whitespace);
    let (input, (fd, _, chomp, _, name)) =
        (digit0, tag("<<"), opt(tag("-")), blanks, rest).parse(input)?;
    Ok((input, (fd, chomp, name)))
}

/// Returns the heredoc that the word is, if it is one.
pub(crate) fn parse_word(word: &str) -> Option<Head> {
    let (_, (fd, chomp, raw)) = head(word).ok()?;
    if raw.is_empty() || raw.contains('<') {
        return None;
    }
    let name = sole_word(raw, UNQUOTED)?;
    let expand = sole_word(raw, RAW)? == name;
    Some(Head { name, fd: fd.parse().ok(), expand, chomp: chomp.is_some() })
}

fn sole_word(text: &str, mode: Mode) -> Option<String> {
    let mut words = expand_words(text, '\\', &|_| None, mode, &budget(text)).ok()?.words;
    if words.len() == 1 { words.pop() } else { None }
}

/// Enough for any text without variables, which costs little and does not grow.
fn budget(text: &str) -> Budget {
    Budget::new(1 << 25, text.len())
}

/// Returns whether the text is one heredoc word, such as `<<-EOF`.
pub(crate) fn is_heredoc_word(text: &str) -> bool {
    parse_word(text).is_some()
}

/// Returns the heredoc words of a logical line. If its quotes do not match there are none.
pub(crate) fn find_words(line: &str) -> Vec<Head> {
    if !line.contains("<<") {
        return Vec::new();
    }
    match expand_words(line, '\\', &|_| None, RAW, &budget(line)) {
        Ok(expanded) => expanded.words.iter().filter_map(|word| parse_word(word)).collect(),
        Err(_) => Vec::new(),
    }
}

/// What the bodies of a line's heredocs are.
pub(crate) struct Bodies {
    pub(crate) heredocs: Vec<Heredoc>,
    /// False if the file ended before the last one did.
    pub(crate) is_complete: bool,
}

/// Reads the bodies of the heredocs from the following lines.
pub(crate) fn read_bodies(heads: Vec<Head>, lines: &mut PhysicalLines<'_>, at: usize) -> Bodies {
    let mut bodies = Bodies { heredocs: Vec::with_capacity(heads.len()), is_complete: true };
    let mut start = at;
    for head in heads {
        let mut end = start;
        let mut is_closed = false;
        let mut next = start;
        for line in lines.by_ref() {
            next = line.start + line.full.len();
            let closing = if head.chomp { line.text.trim_start_matches('\t') } else { line.text };
            if closing == head.name {
                is_closed = true;
                break;
            }
            end = next;
        }
        let Head { name, fd, expand, chomp } = head;
        let body_span = Span::new(start, end);
        let body = lines.text(body_span).into();
        bodies.heredocs.push(Heredoc { name, fd, expand, chomp, body, body_span });
        start = next;
        bodies.is_complete &= is_closed;
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expect: &[&str]) {
        let show = |it: &Head| {
            let fd = it.fd.map(|fd| fd.to_string()).unwrap_or_default();
            let chomp = if it.chomp { "-" } else { "" };
            let quoted = if it.expand { "" } else { " quoted" };
            format!("{fd}{chomp}{}{quoted}", it.name)
        };
        let actual: Vec<_> = find_words(line).iter().map(show).collect();
        assert_eq!(actual, expect, "line: {line:?}");
    }

    #[test]
    fn heredoc_words() {
        check("RUN <<EOF", &["EOF"]);
        check("RUN <<-EOF 3<<B cat", &["-EOF", "3B"]);
        check("RUN <<'EOF' <<\"A B\" <<C\"D\"", &["EOF quoted", "A B quoted", "CD quoted"]);
        check("RUN << EOF <<- B", &["EOF", "-B"]);
        check("RUN <<$EOF <<${a}", &["$EOF", "${a}"]);
        check("RUN <<\\EOF", &["EOF quoted"]);
        check("COPY <<dir/f /x", &["dir/f"]);
    }

    #[test]
    fn other_words() {
        check("RUN cat<<EOF", &[]);
        check("RUN a;<<EOF", &[]);
        check("RUN <<<EOF", &[]);
        check("RUN <<EOF it's", &[]);
        check("RUN \"<<EOF\"", &[]);
        check("RUN a <<", &[]);
        check("RUN < <EOF", &[]);
    }
}
