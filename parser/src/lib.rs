//! Turns Dockerfile text into a syntax tree in which every node has a span.
//!
//! ```text
//! bytes ─text─▶ physical lines ─line, directive─▶ logical lines ─heredoc─▶ with bodies
//!       ─tokens, json, instruction─▶ ast ─(frontend: word, mount)─▶ values
//!                                    ast ─print─▶ text
//! ```
//!
//! Invariants:
//! - Pure: no I/O, and the result depends on the text alone.
//! - Total: any bytes give a tree or errors, in time linear in their number; nothing panics, and no
//!   recursion is as deep as the input.
//! - One run reports every mistake: the parser goes on at the next instruction.

pub mod ast;
mod directive;
mod duration;
mod error;
mod file;
mod heredoc;
mod instruction;
mod json;
mod layout;
mod line;
pub mod mount;
mod pattern;
mod print;
mod quote;
mod text;
mod tokens;
pub mod word;

pub use ast::*;
pub use error::{ParseError, ParseErrorKind, ParseErrors};
pub use file::{decode, directives, parse, parse_rest, parse_trigger};
pub use print::print;
