//! Compressed blobs: any bytes are decompressed or refused, in memory that does not grow with what they say
//! of themselves.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use tree::codec::{decompress, detect};

/// Most bytes taken of what comes out: a small input may stand for a large one.
const MOST: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let _ = detect(bytes);
    if let Ok(reader) = decompress(Box::new(Cursor::new(bytes.to_vec()))) {
        let _ = std::io::copy(&mut reader.take(MOST), &mut std::io::sink());
    }
});
