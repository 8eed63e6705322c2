//! Turns Dockerfile text into a syntax tree in which every node has a span.
//!
//! ```text
//! bytes ─line─▶ logical lines ─instruction─▶ [`ast`] ─(frontend: [`word`], [`mount`])─▶ values
//! ```
//!
//! Invariants:
//! - Pure: no I/O, and the result depends on the text alone.
//! - Total: any bytes give a tree or errors; nothing panics, and no recursion is as deep as the
//!   input.
//! - One run reports every mistake: the parser goes on at the next instruction.

pub mod ast;
mod error;
mod heredoc;
pub mod mount;
pub mod word;

pub use ast::*;
pub use error::{ParseError, ParseErrorKind, ParseErrors};

/// Parses a whole Dockerfile.
///
/// # Errors
/// All mistakes that the text alone shows, in file order.
pub fn parse(text: &[u8]) -> Result<Dockerfile, ParseErrors> {
    let _ = text;
    Err(ParseErrors { text: String::new(), errors: Vec::new() })
}

/// Parses one trigger of a base image's `OnBuild` list, or of [`Onbuild::trigger`].
///
/// Spans and lines of the result refer to `text`. Triggers that are not allowed, such as `FROM`,
/// are refused.
///
/// # Errors
/// All mistakes of the trigger.
pub fn parse_trigger(text: &str) -> Result<Instruction, ParseErrors> {
    let _ = text;
    Err(ParseErrors { text: String::new(), errors: Vec::new() })
}
