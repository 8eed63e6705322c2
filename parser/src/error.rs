//! Why a text is not a Dockerfile.

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

use crate::ast::Lines;

/// All mistakes of a Dockerfile, in file order.
#[derive(Debug, Clone, Error, Diagnostic)]
#[error("{}", .errors.first().map(ParseError::message).unwrap_or_default())]
pub struct ParseErrors {
    /// The text that the spans refer to.
    #[source_code]
    pub text: String,
    /// The mistakes; at least one.
    #[related]
    pub errors: Vec<ParseError>,
}

/// One mistake in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Error, Diagnostic)]
#[error("{kind}")]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Where exactly.
    #[label("{label}")]
    pub at: SourceSpan,
    /// What stands there.
    pub label: &'static str,
    /// What to do about it.
    #[help]
    pub help: Option<String>,
    /// The lines to show; none for mistakes of the file as a whole.
    pub lines: Option<Lines>,
}

impl ParseError {
    /// Returns whether the message is reported with the prefix `dockerfile parse error on line N`.
    pub fn is_prefixed(&self) -> bool {
        false
    }

    /// Returns the message, with the prefix `dockerfile parse error on line N: ` if it has one.
    pub fn message(&self) -> String {
        match self.lines {
            Some(lines) if self.is_prefixed() => {
                format!("dockerfile parse error on line {}: {}", lines.start, self.kind)
            }
            _ => self.kind.to_string(),
        }
    }
}

/// The kinds of mistakes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A file of zero bytes.
    #[error("the Dockerfile cannot be empty")]
    Empty,
}
