//! Decompression by what the bytes say.

use std::io::{self, BufReader, Cursor, Read};
use std::panic::{self, AssertUnwindSafe};

/// Bytes that [`detect`] wants to see.
pub const MAGIC_LENGTH: usize = 6;

/// Largest zstd window accepted, as a power of two: 128 MiB, the default limit of other tools.
const ZSTD_WINDOW: u32 = 27;
const BUFFER: usize = 64 * 1024;

/// A compression format of incoming bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// None of those below.
    Plain,
    /// Gzip, one member or many.
    Gzip,
    /// Zstandard, frames or skippable frames.
    Zstd,
    /// Bzip2.
    Bzip2,
    /// Xz.
    Xz,
}

/// Tells the format from the first bytes; [`MAGIC_LENGTH`] of them, or fewer when there are no more.
#[must_use]
pub fn detect(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::Plain,
    }
}

/// Returns the plain bytes of a stream that may be compressed.
///
/// Reading fails with `UnexpectedEof` or `InvalidData` where the stream is truncated or corrupt, and from
/// then on always.
///
/// # Errors
/// When the first bytes cannot be read.
pub fn decompress(mut input: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut start = Vec::with_capacity(MAGIC_LENGTH);
    (&mut input).take(MAGIC_LENGTH as u64).read_to_end(&mut start)?;
    let compression = detect(&start);
    let input = Cursor::new(start).chain(input);
    let buffered = |input| BufReader::with_capacity(BUFFER, input);
    let (name, decoder): (_, Box<dyn Read + Send>) = match compression {
        Compression::Plain => return Ok(Box::new(input)),
        Compression::Gzip => {
            ("gzip", Box::new(flate2::bufread::MultiGzDecoder::new(buffered(input))))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(input))?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            ("zstd", Box::new(decoder))
        }
        Compression::Bzip2 => {
            ("bzip2", Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(input))))
        }
        Compression::Xz => ("xz", Box::new(lzma_rust2::XzReader::new(buffered(input), true))),
    };
    Ok(Box::new(Guarded { name, decoder: Some(decoder) }))
}

/// Says which decoder failed, and never asks it again after that.
struct Guarded {
    name: &'static str,
    decoder: Option<Box<dyn Read + Send>>,
}

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let corrupt = |kind, name: &str, cause: &str| {
            io::Error::new(kind, format!("corrupt {name} stream: {cause}"))
        };
        let Some(decoder) = &mut self.decoder else {
            return Err(corrupt(io::ErrorKind::InvalidData, self.name, "read after an error"));
        };
        // Decoders are other people's code fed with hostile bytes; one that panics must not take the
        // build with it. It is dropped then, so its state no longer matters.
        let result = panic::catch_unwind(AssertUnwindSafe(|| decoder.read(buffer)));
        let error = match result {
            Ok(Ok(count)) => return Ok(count),
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Ok(Err(error)) => corrupt(kind(&error), self.name, &error.to_string()),
            Err(_) => corrupt(io::ErrorKind::InvalidData, self.name, "the decoder gave up"),
        };
        self.decoder = None;
        Err(error)
    }
}

fn kind(error: &io::Error) -> io::ErrorKind {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidInput => io::ErrorKind::InvalidData,
        kind => kind,
    }
}
