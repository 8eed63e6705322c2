//! SHA-256 and streams that hash what passes through them.

use std::fmt;
use std::io::{self, Read, Write};

use aws_lc_rs::digest;

/// A running SHA-256.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Sha256 {
    /// Starts with no input.
    #[must_use]
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the hash of all that was added.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        to_array(&self.0.finish())
    }

    /// Hashes one byte string.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> [u8; 32] {
        to_array(&digest::digest(&digest::SHA256, bytes))
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

fn to_array(digest: &digest::Digest) -> [u8; 32] {
    let mut result = [0; 32];
    result.copy_from_slice(digest.as_ref());
    result
}

/// Hashes and counts what is written through it.
#[derive(Debug, Clone)]
pub struct HashWriter<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> HashWriter<W> {
    /// Wraps a writer.
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the writer, the SHA-256 and the number of bytes of what went through.
    pub fn finish(self) -> (W, [u8; 32], u64) {
        (self.inner, self.hash.finish(), self.length)
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashReader<R> {
    inner: R,
    hash: Sha256,
    length: u64,
}

impl<R: Read> HashReader<R> {
    /// Wraps a reader.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    /// Bytes read so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the reader, the SHA-256 and the number of bytes of what went through.
    pub fn finish(self) -> (R, [u8; 32], u64) {
        (self.inner, self.hash.finish(), self.length)
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}
