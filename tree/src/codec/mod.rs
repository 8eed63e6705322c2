//! Hashing, compressing and decompressing byte streams.
//!
//! ```text
//! tar ─▶ HashWriter (diff id) ─▶ Compressor ─▶ HashWriter (blob digest) ─▶ file
//! ```
//!
//! Invariants:
//! - Compressed bytes depend on content, codec and level only: not on the number of threads, not on the
//!   sizes of the `write` calls. They are made of whole blocks of [`BLOCK`] bytes.
//! - Memory is a few blocks per stream, whatever passes through it.
//! - Truncated or corrupt input of a decoder is an error, never a short result or a panic.

mod background;
mod compress;
mod decompress;
mod estargz;
mod gzip;
mod hash;

pub use background::Background;
pub use compress::{Codec, Compressor};
pub use decompress::{Compression, MAGIC_LENGTH, decompress, detect};
pub use estargz::{Estargz, write_estargz};
pub use hash::{HashReader, HashWriter, Sha256};

/// Bytes of input that are compressed as one block.
pub const BLOCK: usize = 1 << 20;

#[cfg(test)]
mod tests;
