//! From bytes to physical lines.

use crate::ast::Span;

/// Longest physical line that is accepted, in bytes, without its line feed.
pub(crate) const MAX_LINE: usize = 65535;

/// The text of a file, and where its bytes were not UTF-8.
pub(crate) struct Text {
    pub(crate) text: String,
    /// Replaced characters, ascending.
    pub(crate) invalid: Vec<Span>,
}

/// Decodes a file: removes the byte order mark and replaces what is not UTF-8.
pub(crate) fn decode(bytes: &[u8]) -> Text {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    let mut invalid = Vec::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            let start = text.len();
            text.push(char::REPLACEMENT_CHARACTER);
            invalid.push(Span::new(start, text.len()));
        }
    }
    Text { text, invalid }
}

/// One physical line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// The text without its line break (all of `\r` and `\n` at its end).
    pub(crate) text: &'a str,
    /// The text with its line break.
    pub(crate) full: &'a str,
    /// Offset of its first byte.
    pub(crate) start: usize,
    /// One-based number.
    pub(crate) number: usize,
}

impl Line<'_> {
    /// Returns the range of the text without its line break.
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    /// Returns whether it is a comment, possibly indented.
    pub(crate) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    /// Returns whether it is over the limit.
    pub(crate) fn is_too_long(&self) -> bool {
        self.full.strip_suffix('\n').unwrap_or(self.full).len() > MAX_LINE
    }
}

/// Iterates over the physical lines of a text.
#[derive(Debug, Clone)]
pub(crate) struct PhysicalLines<'a> {
    text: &'a str,
    start: usize,
    number: usize,
}

impl<'a> PhysicalLines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, start: 0, number: 0 }
    }

    /// Returns the number of the last line that was read; 0 before the first.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Returns a part of the whole text, which has to be whole lines.
    pub(crate) fn text(&self, span: Span) -> &'a str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// Returns the offset of the end of the last line that was read, before its line break.
    pub(crate) fn end_of_last(&self) -> usize {
        self.text[..self.start].trim_end_matches(['\r', '\n']).len()
    }
}

impl<'a> Iterator for PhysicalLines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let full = self.text[self.start..].split_inclusive('\n').next()?;
        let start = self.start;
        self.start += full.len();
        self.number += 1;
        let text = full.trim_end_matches(['\r', '\n']);
        Some(Line { text, full, start, number: self.number })
    }
}

/// A logical line: several physical ones, joined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logical {
    /// The joined text.
    pub(crate) text: String,
    /// Where each piece starts: offset in `text`, offset in the file; ascending.
    pieces: Vec<(usize, usize)>,
}

impl Logical {
    /// Returns the logical line that is the same as its text.
    pub(crate) fn whole(text: &str, start: usize) -> Self {
        Self { text: text.to_owned(), pieces: vec![(0, start)] }
    }

    /// Adds a piece that stands at `start` in the file.
    pub(crate) fn push(&mut self, piece: &str, start: usize) {
        self.pieces.push((self.text.len(), start));
        self.text.push_str(piece);
    }

    /// Returns where a part of `text` stands in the file.
    ///
    /// The part has to be a sub-slice of `text`, or an empty one at its end.
    pub(crate) fn span_of(&self, part: &str) -> Span {
        let start = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let start = start.min(self.text.len());
        self.span(start, start + part.len())
    }

    /// Returns where the range of `text` stands in the file.
    pub(crate) fn span(&self, start: usize, end: usize) -> Span {
        let first = self.in_file(start);
        // The end is that of the last character, which may be in another piece than what follows.
        let last = if end > start { self.in_file(end - 1) + 1 } else { first };
        Span::new(first, last)
    }

    fn in_file(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(start, _)| *start <= offset);
        let (start, in_file) = match after {
            0 => (0, 0),
            _ => self.pieces[after - 1],
        };
        in_file + (offset - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_all_line_breaks_and_are_counted() {
        let lines: Vec<_> =
            PhysicalLines::new("a\r\n\nb\r\r").map(|it| (it.number, it.start, it.text)).collect();
        assert_eq!(lines, [(1, 0, "a"), (2, 3, ""), (3, 4, "b")]);
    }

    #[test]
    fn invalid_bytes_are_replaced_and_noted() {
        let decoded = decode(b"\xEF\xBB\xBFa\xFFb");
        assert_eq!(decoded.text, "a\u{fffd}b");
        assert_eq!(decoded.invalid, [Span::new(1, 4)]);
    }

    #[test]
    fn spans_of_joined_lines_are_those_of_the_file() {
        let mut line = Logical::default();
        line.push("ab", 0);
        line.push("cd", 10);
        assert_eq!(line.span(0, 2), Span::new(0, 2));
        assert_eq!(line.span(1, 3), Span::new(1, 11));
        assert_eq!(line.span(2, 4), Span::new(10, 12));
        assert_eq!(line.span_of(&line.text[4..]), Span::new(12, 12));
    }
}
