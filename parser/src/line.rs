//! From physical lines to logical ones: comments, directives and continuations.

use crate::ast::{Comment, Lines, Span};
use crate::directive::Scan;
use crate::error::ParseError;
use crate::text::{Logical, PhysicalLines};

/// One instruction's logical line, before its heredoc bodies.
pub(crate) struct Unit {
    pub(crate) line: Logical,
    pub(crate) comments: Vec<Comment>,
    pub(crate) lines: Lines,
    /// The first blank line inside the continuation.
    pub(crate) blank: Option<Span>,
    /// Offset after the last physical line.
    pub(crate) end: usize,
}

/// Reads logical lines.
pub(crate) struct Reader<'a> {
    pub(crate) lines: PhysicalLines<'a>,
    pub(crate) directives: Scan,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { lines: PhysicalLines::new(text), directives: Scan::default() }
    }

    /// Returns the next logical line that is no comment and not blank.
    pub(crate) fn next(&mut self, errors: &mut Vec<ParseError>) -> Option<Unit> {
        let mut comments = Vec::new();
        loop {
            let line = self.lines.next()?;
            let is_directive = self.directives.line(line, errors);
            if line.is_comment() {
                let mut text = line.text.chars();
                text.next();
                match text.as_str().trim() {
                    "" => comments.clear(),
                    _ if is_directive => {}
                    text => comments.push(Comment {
                        text: text.to_owned(),
                        span: line.span(),
                        line: line.number,
                    }),
                }
                continue;
            }
            let text = line.text.trim_start();
            if text.is_empty() {
                continue;
            }
            let start = line.start + (line.text.len() - text.len());
            let (text, continues) = trim_continuation(text, self.directives.escape.char());
            let mut unit = Unit {
                line: Logical::whole(text, start),
                comments,
                lines: Lines { start: line.number, end: line.number },
                blank: None,
                end: line.start + line.full.len(),
            };
            if continues {
                self.continuation(&mut unit);
            }
            return Some(unit);
        }
    }

    /// Adds the lines that continue the first one.
    fn continuation(&mut self, unit: &mut Unit) {
        for line in self.lines.by_ref() {
            unit.lines.end = line.number;
            unit.end = line.start + line.full.len();
            if line.is_comment() {
                continue;
            }
            if line.text.trim_start().is_empty() {
                unit.blank.get_or_insert(line.span());
                continue;
            }
            let (text, continues) = trim_continuation(line.text, self.directives.escape.char());
            unit.line.push(text, line.start);
            if !continues {
                return;
            }
        }
    }
}

/// Splits off the continuation mark: one escape, not preceded by another, and blanks after it.
fn trim_continuation(text: &str, escape: char) -> (&str, bool) {
    match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &[&str]) {
        let mut reader = Reader::new(text);
        let mut errors = Vec::new();
        let mut actual = Vec::new();
        while let Some(unit) = reader.next(&mut errors) {
            let Lines { start, end } = unit.lines;
            let blank = if unit.blank.is_some() { " blank" } else { "" };
            actual.push(format!("{start}-{end} {}{blank}", unit.line.text));
        }
        assert_eq!(actual, expect, "text: {text:?}");
        assert_eq!(errors, []);
    }

    #[test]
    fn continuations() {
        check("RUN a \\\n  b\n", &["1-2 RUN a   b"]);
        check("RUN a \\ \t\r\n# c\r\n b\r\n", &["1-3 RUN a  b"]);
        check("RUN a\\\n\n \nb", &["1-4 RUN ab blank"]);
        check("RUN a\\\\\nRUN b\\\\\\\n", &["1-1 RUN a\\\\", "2-2 RUN b\\\\\\"]);
        check("RUN a \\", &["1-1 RUN a "]);
        check("\\\n  RUN a", &["1-2   RUN a"]);
        check("# escape=`\nCOPY a c:\\\nRUN b `\n c", &["2-2 COPY a c:\\", "3-4 RUN b  c"]);
        check("\n# escape=`\nRUN a `\n", &["3-3 RUN a `"]);
    }

    #[test]
    fn comments_belong_to_the_next_instruction() {
        let text = "# escape=\\\n# a\n#\n# b\n\n  # c\nRUN x\nRUN y\n";
        let mut reader = Reader::new(text);
        let comments = |reader: &mut Reader<'_>| {
            let unit = reader.next(&mut Vec::new()).unwrap();
            unit.comments.into_iter().map(|it| it.text).collect::<Vec<_>>()
        };
        assert_eq!(comments(&mut reader), ["b", "# c"]);
        assert_eq!(comments(&mut reader), [""; 0]);
    }
}
