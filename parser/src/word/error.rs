//! Why a text cannot be processed as shell words.

use std::fmt;

use thiserror::Error;

use super::MAX_SIZE;
use crate::quote::Quoted;

/// Why a word cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("failed to process {}: {cause}", Quoted(.word))]
pub struct WordError {
    /// The whole word.
    pub word: String,
    /// What is wrong with it.
    pub cause: WordErrorKind,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WordErrorKind {
    /// A quote without its partner.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unterminated(QuoteKind),
    /// `${}`, `${:...` or `${{...`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// A `${` form without its end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// A `${v/p` form without its second slash.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// A `${}` form with an unknown operator.
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    /// `${v?w}` or `${v:?w}` of a variable without value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the form says, or the default text.
        message: String,
    },
    /// A pattern with an unknown escape.
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// The character after the backslash.
        escaped: char,
    },
    /// A result larger than [`MAX_SIZE`].
    #[error("the result is larger than {} MiB", MAX_SIZE >> 20)]
    TooLarge,
    /// Results that are too large together.
    #[error("what all words expand to together is too large")]
    TooLargeTogether,
    /// Patterns that take too long, or large values in too many forms.
    #[error("the substitutions take too many steps")]
    TooExpensive,
}

/// The two kinds of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuoteKind {
    /// `'`
    Single,
    /// `"`
    Double,
}

impl fmt::Display for QuoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Single => "single-quote",
            Self::Double => "double-quote",
        })
    }
}
