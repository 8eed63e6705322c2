//! Expansion of variables, with the findings it gives rise to.

use parser::word::{self, Expanded, ExpandedWords, Mode, WordError};

use crate::error::ErrorKind;
use crate::scope::Variables;

impl From<WordError> for ErrorKind {
    fn from(error: WordError) -> Self {
        Self::Expansion { word: error.word, reason: error.cause.to_string() }
    }
}

/// Processes quotes, escapes and variables of one word.
pub(crate) fn single(text: &str, escape: char, scope: &Variables) -> Result<Expanded, WordError> {
    word::expand(text, escape, &|name| scope.get(name).map(str::to_owned), Mode::default())
}

/// Like [`single`], but blanks in the result separate words.
pub(crate) fn several(
    text: &str,
    escape: char,
    scope: &Variables,
) -> Result<ExpandedWords, WordError> {
    word::expand_words(text, escape, &|name| scope.get(name).map(str::to_owned), Mode::default())
}

/// Expands an inline file.
pub(crate) fn heredoc(body: &str, scope: &Variables) -> Result<Expanded, WordError> {
    word::expand_heredoc(body, &|name| scope.get(name).map(str::to_owned))
}

/// Replaces known variables in a text that is only shown; `hidden` ones become stars.
///
/// Quotes and escapes stay, and a text that can not be expanded is shown as it is.
pub(crate) fn for_display(
    text: &str,
    escape: char,
    scope: &Variables,
    hidden: &[String],
) -> String {
    let lookup = |name: &str| {
        let is_hidden = hidden.iter().any(|known| known == name);
        if is_hidden { Some("****".to_owned()) } else { scope.get(name).map(str::to_owned) }
    };
    let mode = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Mode::default() };
    word::expand(text, escape, &lookup, mode)
        .map_or_else(|_| text.to_owned(), |expanded| expanded.text)
}
