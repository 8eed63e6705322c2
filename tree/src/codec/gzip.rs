//! Gzip members, one per block.
//!
//! A member is made by libdeflate from its block alone, so blocks are made on any thread in any order and
//! the result is always the same. The header is the one of Go's `compress/gzip`: no name, no time, unknown
//! system.
//!
//! Format: RFC 1952.

use std::io;

use libdeflater::{CompressionLvl, Compressor};

/// A level of libdeflate, 0 to 12.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    level: CompressionLvl,
    /// The header's extra flags: 4 for the fastest level of the reference, 2 for its best.
    flags: u8,
}

impl Level {
    pub(super) fn new(number: u32) -> io::Result<Self> {
        let flags = match number {
            1 => 4,
            9 => 2,
            _ => 0,
        };
        let level = i32::try_from(number).ok().and_then(|number| CompressionLvl::new(number).ok());
        let unknown = || {
            io::Error::new(io::ErrorKind::InvalidInput, format!("unknown gzip level `{number}`"))
        };
        Ok(Self { level: level.ok_or_else(unknown)?, flags })
    }
}

/// Compresses a block into one member.
pub(super) fn member(level: Level, block: &[u8]) -> io::Result<Vec<u8>> {
    const HEADER: usize = 10;
    let mut compressor = Compressor::new(level.level);
    let mut member = vec![0; HEADER + compressor.deflate_compress_bound(block.len())];
    member[..HEADER].copy_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, level.flags, 255]);
    let length = compressor
        .deflate_compress(block, &mut member[HEADER..])
        .map_err(|error| io::Error::other(format!("cannot compress a block: {error}")))?;
    member.truncate(HEADER + length);
    member.extend(libdeflater::crc32(block).to_le_bytes());
    // A block is far shorter than the 4 GiB at which this field would wrap.
    member.extend(u32::try_from(block.len()).unwrap_or(u32::MAX).to_le_bytes());
    Ok(member)
}
