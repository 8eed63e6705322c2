//! The wording of failures and the one table of exit codes (`design.md`, "Errors").
//!
//! A failure is shown as the last output of the step, the part of the Dockerfile that it comes from, one
//! line that begins with `ERROR:`, and what to do (`spec/dockerfile-syntax.md` §13).

use std::fmt::{Arguments, Write as _};
use std::io::{ErrorKind, Write as _};

use llb::{SourceInfo, SourceRange};
pub(crate) use solver::chain;

/// Exit codes of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done = 0,
    /// A step or the Dockerfile failed.
    Build = 1,
    /// The command line is wrong, or asks for what is not there yet.
    Usage = 2,
    /// The registry or the network failed.
    Network = 3,
    /// The machine failed: disk, permissions, kernel.
    Machine = 4,
    /// The user stopped it.
    Interrupted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A failure as it is shown.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Decides the exit code.
    pub(crate) exit: Exit,
    /// What failed, without `ERROR:`.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Name of the failed step and the last lines of its output.
    pub(crate) log: Option<Box<(String, Vec<String>)>>,
    /// Where it comes from.
    pub(crate) sources: Vec<SourceRange>,
    /// Further failures, shown before this one.
    pub(crate) before: Vec<Failure>,
}

/// Most characters shown of a line of a Dockerfile.
const LONGEST_LINE: usize = 500;

/// Most lines shown of one place.
const MOST_LINES: usize = 200;

/// Most characters shown of a message.
const LONGEST_MESSAGE: usize = 4000;

/// Most failures shown in one report.
const MOST: usize = 20;

impl Failure {
    /// A failure that is only a message.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: None,
            log: None,
            sources: Vec::new(),
            before: Vec::new(),
        }
    }

    /// Several failures as one; the last decides the exit code.
    pub(crate) fn several(mut all: Vec<Self>) -> Self {
        let hidden = all.len().saturating_sub(MOST);
        all.truncate(MOST);
        let mut last = all.pop().unwrap_or_else(|| Self::new(Exit::Build, "failed to solve"));
        if hidden > 0 {
            last.message.push_str(&format!("\n({hidden} more mistakes are not shown)"));
        }
        last.before = all;
        last
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The whole text, ending in a newline.
    pub(crate) fn render(&self) -> String {
        let mut text: String = self.before.iter().map(Self::render).collect();
        if let Some((step, lines)) = self.log.as_deref().filter(|(_, lines)| !lines.is_empty()) {
            let shown = &lines[lines.len().saturating_sub(10)..];
            let _ = writeln!(text, "------\n > {step}:");
            shown.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            text.push_str("------\n");
        }
        for source in &self.sources {
            text.push_str(&source_block(source));
        }
        let _ = writeln!(text, "ERROR: {}", clipped(&self.message, LONGEST_MESSAGE));
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  help: {hint}");
        }
        text
    }
}

/// Prints a failure on standard error and gives its exit code.
pub(crate) fn fail(failure: &Failure) -> Exit {
    tell(format_args!("{}", failure.render().trim_end()));
    failure.exit
}

/// Prints a line on standard output. A reader that went away, such as `head`, has seen enough.
pub(crate) fn print(line: Arguments<'_>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(format_args!("{line}\n")).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Machine, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a line on standard error. If that fails there is nobody left to tell.
pub(crate) fn tell(line: Arguments<'_>) {
    let _ = std::io::stderr().lock().write_fmt(format_args!("{line}\n"));
}

/// The beginning of a text that may be of any length.
fn clipped(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// The lines of a source file around a range, the range marked with `>>>`.
pub(crate) fn source_block(range: &SourceRange) -> String {
    SourceLines::of(&range.info).block(range.start, range.end)
}

/// A source file taken apart, to show several places of it.
pub(crate) struct SourceLines<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> SourceLines<'a> {
    /// Lines of a file; there is always one.
    pub(crate) fn of(info: &'a SourceInfo) -> Self {
        let lines = info.text.split('\n').map(|line| line.trim_end_matches('\r'));
        Self { name: &info.filename, lines: lines.collect() }
    }

    /// The lines around a range, the range marked with `>>>`; the middle of a very long one is left out.
    pub(crate) fn block(&self, start: usize, end: usize) -> String {
        let lines = &self.lines;
        let (start, end) = (start.clamp(1, lines.len()), end.clamp(1, lines.len()));
        let end = end.max(start);
        let (first, last) = padded(start, end, lines.len());
        let rule = "-".repeat(20);
        let mut text = format!("{}:{start}\n{rule}\n", self.name);
        let left_out = (first + MOST_LINES / 2)..=last.saturating_sub(MOST_LINES / 2);
        for number in first..=last {
            if left_out.contains(&number) && last - first > MOST_LINES {
                if number == *left_out.start() {
                    let _ = writeln!(text, "     |     ({} more lines)", left_out.clone().count());
                }
                continue;
            }
            let mark = if (start..=end).contains(&number) { ">>>" } else { "   " };
            let line = clipped(lines[number - 1], LONGEST_LINE);
            let _ = writeln!(text, " {number:>3} | {mark} {line}");
        }
        text.push_str(&rule);
        text.push('\n');
        text
    }
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
    use super::*;
    use std::sync::Arc;

    #[test]
    fn source_block_marks_the_range() {
        let text = "FROM busybox\n\nRUNN true\n".to_owned();
        let info = Arc::new(SourceInfo { filename: "Dockerfile".to_owned(), text });
        let block = source_block(&SourceRange { info, start: 3, end: 3 });
        assert_eq!(
            block,
            "Dockerfile:3\n--------------------\n   1 |     FROM busybox\n   2 |     \n   3 | >>> RUNN true\n   4 |     \n--------------------\n"
        );
    }

    #[test]
    fn the_middle_of_a_long_range_is_left_out() {
        let info = SourceInfo { filename: "f".to_owned(), text: "x\n".repeat(1000) };
        let block = SourceLines::of(&info).block(2, 900);
        assert_eq!(block.lines().count(), MOST_LINES + 4, "{block}");
        assert!(
            block.contains("\n 100 | >>> x\n     |     (701 more lines)\n 802 | >>> x\n"),
            "{block}"
        );
        let block = SourceLines::of(&info).block(2, 199);
        assert_eq!(block.lines().count(), 198 + 2 + 3, "{block}");
    }

    #[test]
    fn a_range_outside_the_file_is_clamped() {
        let info = Arc::new(SourceInfo { filename: "f".to_owned(), text: "a".to_owned() });
        assert!(source_block(&SourceRange { info, start: 9, end: 12 }).contains(">>> a"));
    }
}
