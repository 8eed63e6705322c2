//! The lines of a source file that a failure is about.
//!
//! ```text
//! Dockerfile:3
//! --------------------
//!    1 |     FROM busybox AS base
//!    2 |     WORKDIR /app
//!    3 | >>> COPY --from=bsae /app /app
//!      |             ^^^^^^^^ no stage has this name
//!    4 |     CMD ["app"]
//! --------------------
//! ```
//!
//! Invariants:
//! - What follows `>>>` is the line as it is, but for characters that would steer the terminal and for
//!   lines of any length, of which a part is shown.
//! - The carets stand below what they mark at any tab width, whatever else the line has.

use std::fmt::Write as _;
use std::ops::Range;

use llb::{SourceInfo, SourceRange};
use unicode_width::UnicodeWidthChar;

use crate::look::{Look, harmless, visible};

/// Columns before the text of a line whose number has up to three digits.
const MARGIN: usize = 11;

/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// Most columns shown of a line without a mark.
const LONGEST_LINE: usize = 500;

/// Most columns shown of a line with a mark when nothing says how wide the place for it is.
const LONGEST_MARKED: usize = 160;

/// Columns shown before a mark that does not fit otherwise.
const BEFORE_MARK: usize = 30;

/// Most lines shown of one place, but for those of the mark.
const MOST_LINES: usize = 200;

/// Lines shown around those of the mark when it is in the middle of a place that is too long.
const AROUND: usize = 2;

/// Lines of a source file, and what of them is meant.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    /// The file and the lines.
    pub(crate) range: SourceRange,
    /// The exact part.
    pub(crate) mark: Option<Mark>,
}

/// A part of a source file.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    /// Its bytes in the text; an empty range is a place between two characters.
    pub(crate) bytes: Range<usize>,
    /// What to say about it, in a few words.
    pub(crate) label: String,
}

impl From<SourceRange> for Excerpt {
    fn from(range: SourceRange) -> Self {
        Self { range, mark: None }
    }
}

impl Excerpt {
    /// The block as it is shown, ending in a newline.
    pub(crate) fn render(&self, look: &Look) -> String {
        let SourceRange { info, start, end } = &self.range;
        SourceLines::of(info).render(*start, *end, self.mark.as_ref(), look)
    }
}

/// A source file taken apart, to show several places of it.
pub(crate) struct SourceLines<'t> {
    name: &'t str,
    text: &'t str,
    lines: Vec<Line<'t>>,
}

/// A physical line: its text without the line break, and where that is.
#[derive(Clone, Copy)]
struct Line<'t> {
    text: &'t str,
    start: usize,
}

impl Line<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

impl<'t> SourceLines<'t> {
    /// Lines of a file; there is always one.
    pub(crate) fn of(info: &'t SourceInfo) -> Self {
        let mut position = 0;
        let lines = info.text.split('\n').map(|full| {
            let line = Line { text: full.trim_end_matches('\r'), start: position };
            position += full.len() + 1;
            line
        });
        Self { name: &info.filename, text: &info.text, lines: lines.collect() }
    }

    /// The lines around a range, the range marked with `>>>`.
    pub(crate) fn block(&self, start: usize, end: usize) -> String {
        self.render(start, end, None, &Look::default())
    }

    /// The lines around a range, with carets below the mark; the middle of a very long range is left out.
    fn render(&self, start: usize, end: usize, mark: Option<&Mark>, look: &Look) -> String {
        let (start, end) = (start.clamp(1, self.lines.len()), end.clamp(1, self.lines.len()));
        let end = end.max(start);
        let parts = mark.map(|mark| self.parts(&mark.bytes)).unwrap_or_default();
        let rule = "-".repeat(20);
        let name = harmless(self.name);
        let mut text = format!("{name}:{start}\n{rule}\n");
        let (first, last) = padded(start, end, self.lines.len());
        let mut hidden = 0;
        for number in first..=last {
            if !is_shown(number, first, last, &parts) {
                hidden += 1;
                continue;
            }
            if hidden > 0 {
                let _ = writeln!(text, "     |     ({hidden} more lines)");
                hidden = 0;
            }
            let arrow = if (start..=end).contains(&number) { ">>>" } else { "   " };
            let part = parts.iter().find(|(line, _)| *line == number).map(|(_, part)| part.clone());
            let (shown, carets) = lay_out(self.lines[number - 1].text, part, look.columns);
            let _ = writeln!(text, " {number:>3} | {arrow} {shown}");
            if let Some(carets) = carets {
                let is_last = parts.last().is_some_and(|(line, _)| *line == number);
                let label = mark.filter(|_| is_last).map_or("", |mark| &mark.label);
                let label = harmless(label);
                let (before, carets) = carets.split_at(carets.find('^').unwrap_or(0));
                let space = if label.is_empty() { "" } else { " " };
                let marked = look.alarming(&format!("{carets}{space}{label}"));
                let width = number.to_string().len().max(3);
                let _ = writeln!(text, " {:width$} |     {before}{marked}", "");
            }
        }
        text.push_str(&rule);
        text.push('\n');
        text
    }

    /// Lines with carets below them, 1-based, with the marked bytes of each: the first and the last line of a mark.
    fn parts(&self, bytes: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let clamp = |at: usize| self.text.floor_char_boundary(at.min(self.text.len()));
        let start = clamp(bytes.start);
        // Blanks and line breaks at the end are not worth a line of their own.
        let end = start + self.text[start..clamp(bytes.end).max(start)].trim_end().len();
        let line_of = |at: usize| self.lines.partition_point(|line| line.start <= at).max(1) - 1;
        let (first, last) = (line_of(start), line_of(end.max(start + 1) - 1));
        let part = |index: usize| {
            let line = &self.lines[index];
            let blank = line.text.len() - line.text.trim_start().len();
            let from = if index == first { start } else { line.start + blank };
            let to = if index == last { end } else { line.start + line.text.trim_end().len() };
            let from = from.clamp(line.start, line.end());
            from - line.start..to.clamp(from, line.end()) - line.start
        };
        let mut parts = vec![(first + 1, part(first))];
        if last > first {
            parts.push((last + 1, part(last)));
        }
        parts
    }
}

/// Whether a line is shown of lines that may be too many for that.
fn is_shown(number: usize, first: usize, last: usize, parts: &[(usize, Range<usize>)]) -> bool {
    last - first <= MOST_LINES
        || number < first + MOST_LINES / 2
        || number > last - MOST_LINES / 2
        || parts.iter().any(|(line, _)| line.abs_diff(number) <= AROUND)
}

/// A line as it is shown, and the carets below its marked bytes.
fn lay_out(
    line: &str,
    mark: Option<Range<usize>>,
    columns: Option<usize>,
) -> (String, Option<String>) {
    let cells: Vec<(usize, char)> = line.char_indices().map(|(at, c)| (at, visible(c))).collect();
    let window = window(&cells, mark.as_ref(), columns);
    let (mut shown, mut below) = (String::new(), String::new());
    let mut column = MARGIN;
    if window.start > 0 {
        shown.push('…');
        below.push(' ');
        column += 1;
    }
    let mut has_caret = false;
    for (at, c) in &cells[window.clone()] {
        shown.push(*c);
        let width = width_at(*c, column);
        column += width;
        match &mark {
            Some(mark) if mark.contains(at) => {
                below.extend(std::iter::repeat_n('^', width));
                has_caret |= width > 0;
            }
            Some(mark) if *at >= mark.end => {}
            // A tab is as wide below as above, whatever its width.
            Some(_) if *c == '\t' => below.push('\t'),
            Some(_) => below.extend(std::iter::repeat_n(' ', width)),
            None => {}
        }
    }
    if window.end < cells.len() {
        shown.push('…');
    }
    if !has_caret {
        below.push('^');
    }
    (shown, mark.is_some().then_some(below))
}

/// Columns that a character takes when it stands at this one.
fn width_at(c: char, column: usize) -> usize {
    if c == '\t' { TAB - column % TAB } else { c.width().unwrap_or(0) }
}

/// The characters of a line that are shown: all, or as many as fit around the mark.
fn window(
    cells: &[(usize, char)],
    mark: Option<&Range<usize>>,
    columns: Option<usize>,
) -> Range<usize> {
    let most = match mark {
        None => LONGEST_LINE,
        Some(_) => columns.map_or(LONGEST_MARKED, |columns| columns.saturating_sub(MARGIN).max(40)),
    };
    // How far a line is shown from here on; what is left out takes a column for the dots.
    let fits = |start: usize| {
        let (mut column, mut end) = (usize::from(start > 0), start);
        for (index, (_, c)) in cells.iter().enumerate().skip(start) {
            column += width_at(*c, MARGIN + column);
            if column > most {
                return end;
            }
            if column < most {
                end = index + 1;
            }
        }
        cells.len()
    };
    let end = fits(0);
    if end == cells.len() {
        return 0..end;
    }
    let Some(mark) = mark else { return 0..end };
    let marked = |at: usize| cells.partition_point(|(start, _)| *start < at);
    let (from, to) = (marked(mark.start), marked(mark.end));
    if to < end {
        return 0..end;
    }
    let start = from.saturating_sub(BEFORE_MARK);
    // A mark at the end of the line is shown with as much of the line before it as fits.
    let start =
        (0..=start).rev().take_while(|start| fits(*start) >= cells.len()).last().unwrap_or(start);
    start..fits(start)
}

/// The range with lines of context: 4 in all for one line, 2 for several, before and after in turn.
fn padded(start: usize, end: usize, count: usize) -> (usize, usize) {
    let (mut first, mut last) = (start, end);
    let mut left = if start == end { 4 } else { 2 };
    let mut failed = 0;
    let mut before = true;
    // At an end of the file the available side gets no more than two lines.
    let most = left / 2;
    let (mut used_before, mut used_after) = (0, 0);
    while left > 0 && failed < 2 {
        let moved = if before {
            first > 1 && used_before < most
        } else {
            last < count && used_after < most
        };
        if moved {
            if before {
                first -= 1;
                used_before += 1;
            } else {
                last += 1;
                used_after += 1;
            }
            left -= 1;
            failed = 0;
        } else {
            failed += 1;
        }
        before = !before;
    }
    (first, last)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use llb::SourceInfo;

    use super::*;

    fn excerpt(text: &str, lines: (usize, usize), mark: Option<(Range<usize>, &str)>) -> Excerpt {
        let info =
            Arc::new(SourceInfo { filename: "Dockerfile".to_owned(), text: text.to_owned() });
        let mark = mark.map(|(bytes, label)| Mark { bytes, label: label.to_owned() });
        Excerpt { range: SourceRange { info, start: lines.0, end: lines.1 }, mark }
    }

    /// Checks the lines between the rules; `marked` stands in the text between « and ».
    #[track_caller]
    fn check(text: &str, lines: (usize, usize), expect: &[&str]) {
        check_on(text, lines, &Look::default(), expect);
    }

    #[track_caller]
    fn check_on(text: &str, lines: (usize, usize), look: &Look, expect: &[&str]) {
        let start = text.find('«').unwrap();
        let end = text.find('»').unwrap() - '«'.len_utf8();
        let text = text.replace(['«', '»'], "");
        let block = excerpt(&text, lines, Some((start..end, "label"))).render(look);
        let shown: Vec<&str> = block.lines().collect();
        assert_eq!(&shown[2..shown.len() - 1], expect, "{text:?}");
    }

    #[test]
    fn the_range_is_marked_with_arrows() {
        let block = excerpt("FROM busybox\n\nRUNN true\n", (3, 3), None).render(&Look::default());
        assert_eq!(
            block,
            "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     \n   3 | >>> RUNN true\n   4 |     \n--------------------\n"
        );
    }

    #[test]
    fn a_range_outside_the_file_is_clamped() {
        assert!(excerpt("a", (9, 12), None).render(&Look::default()).contains(">>> a"));
        let mark = Some((70..90, "far"));
        assert!(excerpt("é", (1, 1), mark).render(&Look::default()).contains(" ^ far"));
        assert!(
            excerpt("é", (1, 1), Some((1..1, "in"))).render(&Look::default()).contains(" ^ in")
        );
        assert!(
            excerpt("", (1, 1), Some((0..0, "none"))).render(&Look::default()).contains(" ^ none")
        );
    }

    #[test]
    fn the_exact_part_has_carets_below() {
        check(
            "«RUNN» true\n",
            (1, 1),
            &["   1 | >>> RUNN true", "     |     ^^^^ label", "   2 |     "],
        );
        check(
            "COPY a«»\n",
            (1, 1),
            &["   1 | >>> COPY a", "     |           ^ label", "   2 |     "],
        );
        check(
            "FROM a\r\nCOPY «b»\r\n",
            (2, 2),
            &["   1 |     FROM a", "   2 | >>> COPY b", "     |          ^ label", "   3 |     "],
        );
    }

    #[test]
    fn wide_and_joined_characters_and_tabs_keep_the_carets_in_place() {
        check(
            "COPY 漢字 «ü» /\n",
            (1, 1),
            &["   1 | >>> COPY 漢字 ü /", "     |               ^ label", "   2 |     "],
        );
        check(
            "COPY «漢字» /\n",
            (1, 1),
            &["   1 | >>> COPY 漢字 /", "     |          ^^^^ label", "   2 |     "],
        );
        check(
            "COPY u\u{308} «e\u{301}» /",
            (1, 1),
            &["   1 | >>> COPY u\u{308} e\u{301} /", "     |            ^ label"],
        );
        check("COPY\ta\t«b»", (1, 1), &["   1 | >>> COPY\ta\tb", "     |         \t \t^ label"]);
        // The tab within goes from column 17 to the stop at 24.
        check("COPY «a\tb»", (1, 1), &["   1 | >>> COPY a\tb", "     |          ^^^^^^^^^ label"]);
    }

    #[test]
    fn a_part_in_a_continuation_line_is_marked_there() {
        check(
            "FROM a\nRUN --mount=x \\\n  «--mount=y» \\\n  true\n",
            (2, 4),
            &[
                "   1 |     FROM a",
                "   2 | >>> RUN --mount=x \\",
                "   3 | >>>   --mount=y \\",
                "     |       ^^^^^^^^^ label",
                "   4 | >>>   true",
                "   5 |     ",
            ],
        );
    }

    #[test]
    fn a_part_of_several_lines_is_marked_at_its_ends() {
        check(
            "«RUN <<EOF\n  one\n  two\n\n»",
            (1, 4),
            &[
                "   1 | >>> RUN <<EOF",
                "     |     ^^^^^^^^^",
                "   2 | >>>   one",
                "   3 | >>>   two",
                "     |       ^^^ label",
                "   4 | >>> ",
                "   5 |     ",
            ],
        );
    }

    #[test]
    fn long_lines_are_shown_around_the_part() {
        let narrow = Look { columns: Some(60), has_color: false };
        let long = "x".repeat(100);
        check_on(
            &format!("{long} «b» {long}"),
            (1, 1),
            &narrow,
            &[
                &format!("   1 | >>> …{} b {}…", "x".repeat(29), "x".repeat(15)),
                &format!("     |     {}^ label", " ".repeat(31)),
            ],
        );
        check_on(
            &format!("«b» {long}"),
            (1, 1),
            &narrow,
            &[&format!("   1 | >>> b {}…", "x".repeat(46)), "     |     ^ label"],
        );
        check_on(
            &format!("{long} «bb»"),
            (1, 1),
            &narrow,
            &[
                &format!("   1 | >>> …{} bb", "x".repeat(45)),
                &format!("     |     {}^^ label", " ".repeat(47)),
            ],
        );
        check_on(
            &format!("«{long}»"),
            (1, 1),
            &narrow,
            &[
                &format!("   1 | >>> {}…", "x".repeat(48)),
                &format!("     |     {} label", "^".repeat(48)),
            ],
        );
        let unmarked = excerpt(&"x".repeat(600), (1, 1), None).render(&Look::default());
        assert!(unmarked.contains(&format!(">>> {}…\n", "x".repeat(499))), "{unmarked}");
    }

    #[test]
    fn the_middle_of_a_long_range_is_left_out_but_for_the_marked_lines() {
        let text: String = (1..=1000).map(|line| format!("l{line}\n")).collect();
        let info = SourceInfo { filename: "f".to_owned(), text: text.clone() };
        let block = SourceLines::of(&info).block(2, 900);
        assert_eq!(block.lines().count(), MOST_LINES + 4, "{block}");
        assert!(
            block.contains("\n 100 | >>> l100\n     |     (701 more lines)\n 802 | >>> l802\n"),
            "{block}"
        );
        let block = SourceLines::of(&info).block(2, 199);
        assert_eq!(block.lines().count(), 198 + 2 + 3, "{block}");
        let at = text.find("l500").unwrap();
        let block = excerpt(&text, (2, 900), Some((at..at + 4, "here"))).render(&Look::default());
        let expect = "\n 100 | >>> l100\n     |     (397 more lines)\n 498 | >>> l498\n 499 | >>> l499\n 500 | >>> l500\n     |     ^^^^ here\n 501 | >>> l501\n 502 | >>> l502\n     |     (299 more lines)\n 802 | >>> l802\n";
        assert!(block.contains(expect), "{block}");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        check(
            "FROM \u{1b}[2J\u{202e}«b»\u{7f}",
            (1, 1),
            &["   1 | >>> FROM ␛[2J\u{fffd}b␡", "     |               ^ label"],
        );
    }

    #[test]
    fn colours_are_around_the_carets_only() {
        let colored = Look { columns: None, has_color: true };
        check_on(
            "«RUNN» x",
            (1, 1),
            &colored,
            &["   1 | >>> RUNN x", "     |     \u{1b}[1;31m^^^^ label\u{1b}[0m"],
        );
    }
}
