//! Expansion of variables, with the findings it gives rise to.

use parser::word::{self, Budget, Expanded, ExpandedWords, Mode, WordError};

use crate::error::ErrorKind;
use crate::scope::Variables;

/// Steps that the words of a file may take: a second or so.
const STEPS: u64 = 1 << 26;

/// Bytes that may be kept of what the words of a file expand to, and of what is made of that.
const BYTES: usize = 128 << 20;

/// What one conversion may cost: more than any file that somebody has written needs.
pub(crate) fn budget() -> Budget {
    Budget::new(STEPS, BYTES)
}

impl From<WordError> for ErrorKind {
    fn from(error: WordError) -> Self {
        Self::Expansion { word: error.word, reason: error.cause.to_string() }
    }
}

/// Processes quotes, escapes and variables of one word.
pub(crate) fn single(
    text: &str,
    escape: char,
    scope: &Variables,
    budget: &Budget,
) -> Result<Expanded, WordError> {
    word::expand(text, escape, &|name| scope.get(name).map(str::to_owned), Mode::default(), budget)
}

/// Like [`single`], but blanks in the result separate words.
pub(crate) fn several(
    text: &str,
    escape: char,
    scope: &Variables,
    budget: &Budget,
) -> Result<ExpandedWords, WordError> {
    let lookup = |name: &str| scope.get(name).map(str::to_owned);
    word::expand_words(text, escape, &lookup, Mode::default(), budget)
}

/// Expands an inline file.
pub(crate) fn heredoc(
    body: &str,
    scope: &Variables,
    budget: &Budget,
) -> Result<Expanded, WordError> {
    word::expand_heredoc(body, &|name| scope.get(name).map(str::to_owned), budget)
}

/// Replaces known variables in a text that is only shown; `hidden` ones become stars.
///
/// Quotes and escapes stay, and a text that cannot be expanded is shown as it is.
pub(crate) fn for_display(
    text: &str,
    escape: char,
    scope: &Variables,
    hidden: &[String],
    budget: &Budget,
) -> String {
    let lookup = |name: &str| {
        let is_hidden = hidden.iter().any(|known| known == name);
        if is_hidden { Some("****".to_owned()) } else { scope.get(name).map(str::to_owned) }
    };
    let mode = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Mode::default() };
    word::expand(text, escape, &lookup, mode, budget)
        .map_or_else(|_| text.to_owned(), |expanded| expanded.text)
}
