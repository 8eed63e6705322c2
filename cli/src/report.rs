//! The wording of failures and the one table of exit codes.
//!
//! A failure is shown as the last output of the step, the part of the Dockerfile that it comes from, one
//! line that begins with `ERROR:`, and what to do.

use std::fmt::{Arguments, Write as _};
use std::io::{ErrorKind, Write as _};

pub(crate) use solver::chain;

pub(crate) use crate::excerpt::{Excerpt, Mark, SourceLines};
use crate::look::{Look, visible};

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
    /// Where it comes from, innermost first.
    pub(crate) sources: Vec<Excerpt>,
    /// Further failures, shown before this one.
    pub(crate) before: Vec<Failure>,
}

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

    /// The line of the Dockerfile that it is about; those about none come last.
    pub(crate) fn line(&self) -> usize {
        self.sources.last().map_or(usize::MAX, |source| source.range.start)
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the word that may be meant, if there is one.
    #[must_use]
    pub(crate) fn did_you_mean(self, word: Option<&str>) -> Self {
        match word {
            Some(word) => self.hint(format!("did you mean `{word}`?")),
            None => self,
        }
    }

    /// The whole text, ending in a newline.
    pub(crate) fn render(&self, look: &Look) -> String {
        let mut text: String = self.before.iter().map(|failure| failure.render(look)).collect();
        if let Some((step, lines)) = self.log.as_deref().filter(|(_, lines)| !lines.is_empty()) {
            let shown = &lines[lines.len().saturating_sub(10)..];
            let _ = writeln!(text, "------\n > {step}:");
            shown.iter().for_each(|line| {
                let _ = writeln!(text, "{line}");
            });
            text.push_str("------\n");
        }
        for source in &self.sources {
            text.push_str(&source.render(look));
        }
        let message = clipped(&self.message, LONGEST_MESSAGE);
        let _ = writeln!(text, "{} {}", look.alarming("ERROR:"), safe(&message));
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "  {} {}", look.helping("help:"), safe(hint));
        }
        text
    }
}

/// Text without characters that would steer the terminal.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { visible(c) }).collect()
}

/// Prints a failure on standard error and gives its exit code.
pub(crate) fn fail(failure: &Failure) -> Exit {
    tell(format_args!("{}", failure.render(&Look::of_stderr()).trim_end()));
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
    let text = line.to_string();
    let text = crate::guard::redact(&text);
    let _ = std::io::stderr().lock().write_fmt(format_args!("{text}\n"));
}

/// The beginning of a text that may be of any length.
fn clipped(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}
