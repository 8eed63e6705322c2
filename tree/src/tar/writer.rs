//! Writes archives byte for byte as Go's `archive/tar` would.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use super::{BLOCK, Entry, EntryKind, pax};

/// Small enough to come from the allocator's own memory, large enough for few calls.
const BUFFER: usize = 64 * 1024;
const NAME: usize = 100;
const PREFIX: usize = 155;
/// Largest extended header that readers accept.
const MAX_RECORDS: usize = 1 << 20;

/// Writes a tar archive; [`finish`](Self::finish) must be called at the end.
///
/// Headers and small files are gathered in a buffer, so the inner writer sees few and large writes.
#[derive(Debug)]
pub struct Writer<W: Write> {
    inner: W,
    /// As long as was needed up to here: a short archive touches little memory.
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes that were handed on.
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::with_capacity(BUFFER), filled: 0, written: 0 }
    }

    /// Writes an entry that has no content, whatever its `size` says.
    ///
    /// # Errors
    /// When the entry cannot be encoded or the inner writer fails.
    pub fn append(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(entry, 0)
    }

    /// Writes a regular file of `entry.size` bytes, read from `content`.
    ///
    /// # Errors
    /// When `content` ends early or fails, the entry cannot be encoded, or the inner writer fails.
    pub fn append_file(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        self.begin_file(entry)?;
        self.content(entry, content)
    }

    /// Writes the header of a regular file, whose [`content`](Self::content) must follow.
    pub(crate) fn begin_file(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(entry, entry.size)
    }

    /// Bytes of the archive up to here.
    pub(crate) fn position(&self) -> u64 {
        self.written + self.filled as u64
    }

    /// Writes the content that belongs to the header before.
    pub(crate) fn content(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut left = entry.size;
        while left > 0 {
            if self.filled == BUFFER {
                self.flush_buffer()?;
            }
            let room = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER - self.filled);
            let count = match content.read(self.room(room)) {
                Ok(0) => {
                    let message =
                        format!("`{}` became shorter while it was read", entry.path.escape_ascii());
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.filled += count;
            left -= count as u64;
        }
        self.put(&[0; BLOCK][..padding(entry.size)])
    }

    /// Lets `write` write the content that belongs to the header before.
    pub(crate) fn stream(
        &mut self,
        entry: &Entry,
        write: impl FnOnce(&mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        self.flush_buffer()?;
        write(&mut self.inner)?;
        self.written += entry.size;
        self.put(&[0; BLOCK][..padding(entry.size)])
    }

    /// Writes the end of the archive and returns the inner writer.
    ///
    /// # Errors
    /// When the inner writer fails.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(&[0; 2 * BLOCK])?;
        self.flush_buffer()?;
        Ok(self.inner)
    }

    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.filled == BUFFER {
                self.flush_buffer()?;
            }
            let count = bytes.len().min(BUFFER - self.filled);
            self.room(count).copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// The next `count` bytes of the buffer, which has room for them.
    fn room(&mut self, count: usize) -> &mut [u8] {
        let end = self.filled + count;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.filled..end]
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.inner.write_all(&self.buffer[..self.filled])?;
        self.written += self.filled as u64;
        self.filled = 0;
        Ok(())
    }

    fn header(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        let mut name = entry.path.clone();
        if entry.kind == EntryKind::Dir {
            name.push(b'/');
        }
        if name.contains(&0)
            || entry.link.contains(&0)
            || !fits(8, entry.device.0)
            || !fits(8, entry.device.1)
        {
            let message = format!("`{}` cannot be written to a tar archive", name.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let records = records(entry, &name, size)?;
        let split = split_name(&name);
        let only_path = records.keys == 1 && records.path && split.is_some();
        if records.keys == 0 || only_path {
            let (prefix, suffix) = split.unwrap_or((&[], &name));
            return self.put(&block(entry, suffix, prefix, size));
        }
        self.put(&extended_block(&name, records.bytes.len()))?;
        self.put(&records.bytes)?;
        self.put(&[0; BLOCK][..padding(records.bytes.len() as u64)])?;
        self.put(&block(entry, &name, &[], size))
    }
}

/// The values that do not fit in a plain header, sorted by key.
struct Records {
    bytes: Vec<u8>,
    keys: usize,
    path: bool,
}

fn records(entry: &Entry, name: &[u8], size: u64) -> io::Result<Records> {
    let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| list.push((key.into(), value));
    let path = !name.is_ascii() || name.len() > NAME;
    if path {
        add("path", name.to_vec());
    }
    if !entry.link.is_ascii() || entry.link.len() > NAME {
        add("linkpath", entry.link.clone());
    }
    if !fits(8, entry.uid) {
        add("uid", entry.uid.to_string().into());
    }
    if !fits(8, entry.gid) {
        add("gid", entry.gid.to_string().into());
    }
    if !fits(12, size) {
        add("size", size.to_string().into());
    }
    if !u64::try_from(entry.mtime.seconds).is_ok_and(|seconds| fits(12, seconds)) {
        add("mtime", entry.mtime.seconds.to_string().into());
    }
    for (name, value) in &entry.xattrs {
        list.push(([pax::XATTR.as_bytes(), name.as_bytes()].concat(), value.clone()));
    }
    list.sort();
    let mut bytes = Vec::new();
    for (key, value) in &list {
        pax::write(&mut bytes, key, value);
    }
    if bytes.len() > MAX_RECORDS {
        let message = format!("the extended attributes of `{}` are too large", name.escape_ascii());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(Records { bytes, keys: list.len(), path })
}

/// Whether a number fits in an octal field of `width` bytes, the last of which is NUL.
fn fits(width: u32, number: impl Into<u64>) -> bool {
    number.into() < 1 << (3 * (width - 1))
}

fn padding(size: u64) -> usize {
    // Below the block size, so it fits.
    (size.wrapping_neg() % BLOCK as u64) as usize
}

/// Splits a long name at a `/` into a header's prefix and name fields.
///
/// The prefix is made as long as it can be, and the name may not be empty.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let mut end = name.len();
    if end > PREFIX + 1 {
        end = PREFIX + 1;
    } else if name.ends_with(b"/") {
        end -= 1;
    }
    let slash = name[..end].iter().rposition(|&byte| byte == b'/').filter(|&slash| slash > 0)?;
    let (prefix, suffix) = (&name[..slash], &name[slash + 1..]);
    (!suffix.is_empty() && suffix.len() <= NAME).then_some((prefix, suffix))
}

fn block(entry: &Entry, name: &[u8], prefix: &[u8], size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    text(&mut block[..100], name);
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut block[108..116], entry.uid.into());
    octal(&mut block[116..124], entry.gid.into());
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], u64::try_from(entry.mtime.seconds).unwrap_or(0));
    block[156] = match entry.kind {
        EntryKind::File => b'0',
        EntryKind::HardLink => b'1',
        EntryKind::Symlink => b'2',
        EntryKind::CharDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Dir => b'5',
        EntryKind::Fifo => b'6',
    };
    text(&mut block[157..257], &entry.link);
    octal(&mut block[329..337], entry.device.0.into());
    octal(&mut block[337..345], entry.device.1.into());
    text(&mut block[345..500], prefix);
    seal(&mut block);
    block
}

/// Header of the records that belong to the entry behind it; its device fields stay empty.
fn extended_block(name: &[u8], size: usize) -> [u8; BLOCK] {
    let slash = name.iter().rposition(|&byte| byte == b'/');
    let (dir, base) = slash.map_or((&[][..], name), |slash| (&name[..slash], &name[slash + 1..]));
    let mut path = Vec::with_capacity(name.len() + 16);
    for part in [dir, b"PaxHeaders.0", base] {
        if !path.is_empty() && !part.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    let mut path = to_ascii(&path);
    path.truncate(NAME);
    while path.ends_with(b"/") {
        path.pop();
    }
    let mut block = [0; BLOCK];
    text(&mut block[..100], &path);
    for field in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[field], 0);
    }
    octal(&mut block[124..136], size as u64);
    block[156] = b'x';
    seal(&mut block);
    block
}

/// Fills in magic, version and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    octal(&mut block[148..155], sum);
}

/// Text without what is not ASCII; cut when it is too long, for the records have all of it.
fn text(field: &mut [u8], value: &[u8]) {
    let value = to_ascii(value);
    let count = value.len().min(field.len());
    field[..count].copy_from_slice(&value[..count]);
    // A cut that happens to end in `/` would make old readers see a directory.
    if value.len() > field.len() && field.ends_with(b"/") {
        let kept =
            field[..count - 1].iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        field[kept] = 0;
    }
}

fn to_ascii(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(u8::is_ascii).collect()
}

/// Octal digits and a NUL; what does not fit is 0, for the records have it.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let mut number = if number >> (3 * digits) == 0 { number } else { 0 };
    for place in field[..digits].iter_mut().rev() {
        *place = b'0' + (number & 7) as u8;
        number >>= 3;
    }
    field[digits] = 0;
}
