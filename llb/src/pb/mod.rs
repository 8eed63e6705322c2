//! BuildKit's wire form of operations and definitions (`pb.Op`, `pb.Definition` of `solver/pb/ops.proto`).
//!
//! ```text
//! Op + digests of its inputs + platform  <->  protobuf bytes, whose sha256 names the vertex
//! ```
//!
//! Invariants:
//! - Encoding is deterministic: fields by number, map entries sorted by key, nothing else repeated
//!   than what was a list before.
//! - Decoding what was encoded gives the same op, inputs and platform, or the same graph. What this crate
//!   has no word for (build ops, worker filters, unknown fields and enum values) is an error, never dropped.
//! - Decoding never recurses deeper than the messages of `ops.proto` do.

mod decode;
mod definition;
#[cfg(test)]
mod definition_tests;
mod encode;
mod json;
mod schema;
#[cfg(test)]
mod tests;
mod wire;

pub use decode::{DecodeError, Decoded, decode_op};
pub use definition::{decode_definition, encode_definition};
pub use encode::encode_op;
pub use json::definition_json;

/// How "no input" and "no output" are written.
const NONE: i64 = -1;

/// Numbers of the enum values of `ops.proto`.
mod number {
    pub(super) const BIND: i32 = 0;
    pub(super) const SECRET: i32 = 1;
    pub(super) const SSH: i32 = 2;
    pub(super) const CACHE: i32 = 3;
    pub(super) const TMPFS: i32 = 4;
}
