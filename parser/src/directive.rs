//! Parser directives: `# name=value` lines at the top of the file.
//!
//! There are two readings, as in the reference. `escape`, and what counts as a comment, is found
//! while lines are read: nothing may stand before it. `syntax` and `check` are looked up on the
//! text alone: a shebang line may stand before them, and they start in column 0.

use nom::bytes::complete::{tag, take_while};
use nom::character::complete::{alpha1, alphanumeric0};
use nom::combinator::{recognize, rest, verify};
use nom::sequence::{delimited, pair, preceded};
use nom::{IResult, Parser};

use crate::ast::{Directive, Directives, Escape, Lines, Span};
use crate::error::{ParseError, ParseErrorKind};
use crate::json;
use crate::text::{Line, PhysicalLines};

/// The known names.
const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// A directive line: name in lower case, value trimmed, as a part of the line.
struct Found<'a> {
    name: &'static str,
    value: &'a str,
}

/// Parses `# name=value` behind the given comment prefix.
fn directive<'a>(prefix: &str, input: &'a str) -> IResult<&'a str, (&'a str, &'a str)> {
    let blank = || take_while::<_, &str, _>(char::is_whitespace);
    let name = recognize(pair(alpha1, alphanumeric0));
    let value = verify(rest.map(str::trim), |value: &str| !value.is_empty());
    let name = delimited(pair(tag(prefix), blank()), name, pair(blank(), tag("=")));
    pair(name, preceded(blank(), value)).parse(input)
}

/// Returns the directive on the line, if it is a known one.
fn find<'a>(prefix: &str, line: &'a str) -> Option<Found<'a>> {
    let (_, (name, value)) = directive(prefix, line).ok()?;
    let name = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some(Found { name, value })
}

/// Recognises directives while lines are read.
#[derive(Default)]
pub(crate) struct Scan {
    is_done: bool,
    seen: Vec<&'static str>,
    pub(crate) escape: Escape,
}

impl Scan {
    /// Looks at the next line that is no continuation. Returns whether it is a directive.
    pub(crate) fn line(&mut self, line: Line<'_>, errors: &mut Vec<ParseError>) -> bool {
        if self.is_done {
            return false;
        }
        let Some(found) = find("#", line.text.trim_start()) else {
            self.is_done = true;
            return false;
        };
        let lines = Some(Lines { start: line.number, end: line.number });
        if self.seen.contains(&found.name) {
            let kind = ParseErrorKind::DuplicateDirective(found.name);
            errors.push(ParseError::new(kind, line.span(), lines));
            return true;
        }
        self.seen.push(found.name);
        match (found.name, found.value) {
            ("escape", "\\") => self.escape = Escape::Backslash,
            ("escape", "`") => self.escape = Escape::Backtick,
            ("escape", value) => {
                let kind = ParseErrorKind::InvalidEscape(value.to_owned());
                errors.push(ParseError::new(kind, value_span(line, value), lines));
            }
            _ => {}
        }
        true
    }
}

/// Where the value, the last part of the line but for blanks, stands.
fn value_span(line: Line<'_>, value: &str) -> Span {
    let end = line.start + line.text.trim_end().len();
    Span::new(end - value.len(), end)
}

/// Looks up `syntax` and `check` on the text alone.
pub(crate) fn look_up(text: &str) -> Directives {
    let mut directives = Directives {
        syntax: in_comments("#", "syntax", text),
        check: in_comments("#", "check", text),
        escape: Escape::default(),
    };
    if directives.syntax.is_none() {
        directives.syntax = in_comments("//", "syntax", text).or_else(|| in_json(text));
    }
    directives
}

fn in_comments(prefix: &str, name: &str, text: &str) -> Option<Directive> {
    let has_shebang = text.starts_with("#!");
    for line in PhysicalLines::new(text).skip(usize::from(has_shebang)) {
        let found = find(prefix, line.text)?;
        if found.name == name {
            let value = found.value.to_owned();
            return Some(Directive {
                value,
                span: value_span(line, found.value),
                line: line.number,
            });
        }
    }
    None
}

/// A file that is a JSON object as a whole can name its syntax in a member.
fn in_json(text: &str) -> Option<Directive> {
    let value = json::string_member(text, "syntax")?;
    Some(Directive { value, span: Span::default(), line: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, syntax: Option<&str>, check: Option<&str>) {
        let found = look_up(text);
        assert_eq!(found.syntax.map(|it| it.value).as_deref(), syntax);
        assert_eq!(found.check.map(|it| it.first_word().to_owned()).as_deref(), check);
    }

    #[test]
    fn directives_are_found_at_the_top_only() {
        check("# syntax=a:1 x\n#CHECK = skip=A error=true\n", Some("a:1 x"), Some("skip=A"));
        check("#!/bin/x\n# syntax=a\n", Some("a"), None);
        check("\n# syntax=a\n", None, None);
        check("# other=1\n# syntax=a\n", None, None);
        check(" # syntax=a\n", None, None);
        check("# syntax=\n", None, None);
        check("// syntax=a\n", Some("a"), None);
        check(r#"{"syntax": "a"}"#, Some("a"), None);
    }
}
