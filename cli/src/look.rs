//! How reports look: with colours or without, and how wide the terminal is.
//!
//! Colour is never the only carrier of meaning, and there is none unless a terminal shows it.

use std::io::IsTerminal;

/// How a report is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    /// Whether there are colours.
    pub(crate) has_color: bool,
    /// Columns of the terminal; `None` when it is none.
    pub(crate) columns: Option<usize>,
}

impl Look {
    /// The look of standard error.
    pub(crate) fn of_stderr() -> Self {
        let stderr = std::io::stderr();
        if !stderr.is_terminal() {
            return Self::default();
        }
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let size = rustix::termios::tcgetwinsize(&stderr).ok();
        Self {
            has_color: !is_set("NO_COLOR") && !is_dumb,
            columns: size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0),
        }
    }

    /// Text that says what is wrong: bold red.
    pub(crate) fn alarming(&self, text: &str) -> String {
        self.styled("1;31", text)
    }

    /// Text that says what to do: cyan.
    pub(crate) fn helping(&self, text: &str) -> String {
        self.styled("36", text)
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.has_color { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A text of which nothing steers the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// A character as it is shown: one that would steer the terminal is replaced by a picture of it.
pub(crate) fn visible(c: char) -> char {
    match c {
        '\t' => '\t',
        '\u{0}'..='\u{1f}' => {
            char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
        }
        '\u{7f}' => '\u{2421}',
        // What turns the direction of text around can hide what is there.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        c => c,
    }
}
