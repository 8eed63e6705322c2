//! Reads archives from anywhere, trusting nothing in them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;

use super::{BLOCK, Entry, EntryKind, pax};
use crate::Timestamp;

/// Largest extended header, as in Go.
const MAX_RECORDS: u64 = 1 << 20;
/// Largest file: what the kernel can address.
const MAX_SIZE: u64 = 1 << 62;
/// Longest path and link target; the kernel takes no longer ones either.
const MAX_NAME: usize = 4096;

/// Reads the entries of a tar archive in order; between two entries, [`Read`] yields the content of the
/// first.
#[derive(Debug)]
pub struct Reader<R: Read> {
    inner: R,
    /// Bytes of the current entry's content that are still to come.
    left: u64,
    padding: u64,
    ended: bool,
}

/// What extended headers said about the entry that follows them.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Starts to read an archive.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, ended: false }
    }

    /// Returns the reader behind the archive, at its end when all entries were read.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The reader behind the archive.
    pub(crate) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Returns the next entry, skipping what is left of the last one's content.
    ///
    /// # Errors
    /// When the archive is truncated or malformed, has a sparse file or an unknown kind of entry, or the
    /// inner reader fails.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut extended = Extended::default();
        loop {
            self.skip_content()?;
            let Some(block) = self.next_header()? else {
                return Ok(None);
            };
            let header = Header(&block);
            let size = header.number(124..136)?;
            match block[156] {
                b'x' => extended.records = parse_records(&self.small_content(size)?)?,
                b'g' => drop(self.small_content(size)?),
                b'L' => extended.path = Some(until_nul(self.small_content(size)?)),
                b'K' => extended.link = Some(until_nul(self.small_content(size)?)),
                flag => {
                    let entry = entry(header, flag, extended)?;
                    if entry.size > MAX_SIZE {
                        return Err(malformed("a size that is too large"));
                    }
                    self.left = entry.size;
                    self.padding = padding(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn skip_content(&mut self) -> io::Result<()> {
        let total = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.inner).take(total), &mut io::sink())? < total {
            return Err(truncated());
        }
        Ok(())
    }

    /// Reads the next header block that is not empty; `None` at the end.
    fn next_header(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let first = self.block()?;
        match first {
            Some(block) if block != [0; BLOCK] => {
                check_sum(&block)?;
                return Ok(Some(block));
            }
            // A second empty block belongs to the end, but some writers leave it away.
            Some(_) => match self.block()? {
                Some(block) if block != [0; BLOCK] => return Err(malformed("data after its end")),
                _ => {}
            },
            None => {}
        }
        self.ended = true;
        Ok(None)
    }

    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(block))
    }

    fn small_content(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_RECORDS {
            return Err(malformed("an extended header of more than 1 MiB"));
        }
        let mut content = Vec::new();
        (&mut self.inner).take(size).read_to_end(&mut content)?;
        if (content.len() as u64) < size {
            return Err(truncated());
        }
        self.padding = padding(size);
        Ok(content)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..count])?;
        if count == 0 {
            return Err(truncated());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Fields of a header block.
#[derive(Clone, Copy)]
struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn text(self, range: Range<usize>) -> Vec<u8> {
        until_nul(self.0[range].to_vec())
    }

    /// The path; only POSIX archives have the field for what does not fit in the first.
    fn path(self) -> Vec<u8> {
        let name = self.text(0..100);
        let prefix = if &self.0[257..263] == b"ustar\0" { self.text(345..500) } else { Vec::new() };
        if prefix.is_empty() { name } else { [prefix.as_slice(), b"/", &name].concat() }
    }

    fn number(self, range: Range<usize>) -> io::Result<u64> {
        u64::try_from(self.signed(range)?).map_err(|_| malformed("a negative number in a header"))
    }

    /// Octal digits among blanks and NULs, nothing being 0; or, with the first bit set, as many bytes in
    /// big-endian order with a sign.
    fn signed(self, range: Range<usize>) -> io::Result<i64> {
        let field = &self.0[range];
        let bad = || malformed("a bad number in a header");
        if field[0] & 0x80 != 0 {
            let sign = if field[0] & 0x40 != 0 { -1_i64 } else { 0 };
            let first = if sign == 0 { field[0] & 0x7f } else { field[0] };
            return [first].iter().chain(&field[1..]).try_fold(sign, |number, &byte| {
                number.checked_mul(256).map(|number| number | i64::from(byte)).ok_or_else(bad)
            });
        }
        let blank = |byte: &u8| matches!(byte, b' ' | 0);
        let start = field.iter().position(|byte| !blank(byte)).unwrap_or(field.len());
        let digits = field[start..].iter().take_while(|byte| !blank(byte));
        digits.copied().try_fold(0_i64, |number, digit| match digit {
            b'0'..=b'7' => Ok(number << 3 | i64::from(digit - b'0')),
            _ => Err(bad()),
        })
    }
}

fn entry(header: Header<'_>, flag: u8, extended: Extended) -> io::Result<Entry> {
    let Extended { path, link, records } = extended;
    if flag == b'S' || records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
        return Err(malformed("a sparse file, which is not supported"));
    }
    let record = |key: &str| records.get(key.as_bytes()).filter(|value| !value.is_empty());
    let text = |key: &str, long: Option<Vec<u8>>| record(key).cloned().or(long);
    let mut path = text("path", path).unwrap_or_else(|| header.path());
    let link = text("linkpath", link).unwrap_or_else(|| header.text(157..257));
    let kind = kind(flag, &path)?;
    while path.ends_with(b"/") && path.len() > 1 {
        path.pop();
    }
    for name in [&path, &link] {
        if name.contains(&0) {
            return Err(malformed("a name with a NUL in it"));
        }
        if name.len() > MAX_NAME {
            return Err(malformed(&format!("a name of more than {MAX_NAME} bytes")));
        }
    }
    let number = |key: &str, plain: Range<usize>| match record(key) {
        Some(text) => pax::number(text).ok_or_else(|| malformed(&format!("a bad `{key}` record"))),
        None => header.number(plain),
    };
    let owner = |key: &str, plain: Range<usize>| {
        // The largest number is how system calls say "as it is".
        let number = u32::try_from(number(key, plain)?).ok().filter(|&id| id != u32::MAX);
        number.ok_or_else(|| malformed(&format!("a `{key}` that is too large")))
    };
    let mtime = match record("mtime") {
        Some(text) => pax::time(text).ok_or_else(|| malformed("a bad `mtime` record"))?,
        None => Timestamp { seconds: header.signed(136..148)?, nanoseconds: 0 },
    };
    let is_file = kind == EntryKind::File;
    let is_device = matches!(kind, EntryKind::CharDevice | EntryKind::BlockDevice);
    let is_link = matches!(kind, EntryKind::HardLink | EntryKind::Symlink);
    let device = if is_device {
        let part =
            |range| u32::try_from(header.number(range)?).map_err(|_| malformed("a bad header"));
        (part(329..337)?, part(337..345)?)
    } else {
        (0, 0)
    };
    Ok(Entry {
        kind,
        link: if is_link { link } else { Vec::new() },
        mode: u32::try_from(header.number(100..108)? & 0o7777).unwrap_or(0),
        uid: owner("uid", 108..116)?,
        gid: owner("gid", 116..124)?,
        size: if is_file { number("size", 124..136)? } else { 0 },
        mtime,
        device,
        xattrs: xattrs(&records)?,
        path,
    })
}

fn kind(flag: u8, path: &[u8]) -> io::Result<EntryKind> {
    Ok(match flag {
        // Old archives know no directories but by their names.
        0 if path.ends_with(b"/") => EntryKind::Dir,
        0 | b'0' | b'7' => EntryKind::File,
        b'1' => EntryKind::HardLink,
        b'2' => EntryKind::Symlink,
        b'3' => EntryKind::CharDevice,
        b'4' => EntryKind::BlockDevice,
        b'5' => EntryKind::Dir,
        b'6' => EntryKind::Fifo,
        _ => {
            return Err(malformed(&format!("an unknown kind of entry, `{}`", flag.escape_ascii())));
        }
    })
}

fn parse_records(bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut records = BTreeMap::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (key, value, after) =
            pax::split_first(rest).ok_or_else(|| malformed("a bad extended header"))?;
        records.insert(key.to_vec(), value.to_vec());
        rest = after;
    }
    Ok(records)
}

fn xattrs(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut list = Vec::new();
    for (key, value) in records {
        let Some(name) = key.strip_prefix(pax::XATTR.as_bytes()) else { continue };
        if name.is_empty() || name.contains(&0) {
            return Err(malformed("a bad name of an extended attribute"));
        }
        list.push((OsString::from_vec(name.to_vec()), value.clone()));
    }
    Ok(list)
}

/// Whether bytes begin as an archive does: with a header whose checksum is right.
#[must_use]
pub fn is_archive(start: &[u8]) -> bool {
    start
        .first_chunk::<BLOCK>()
        .is_some_and(|block| *block != [0; BLOCK] && check_sum(block).is_ok())
}

/// Old writers summed the bytes as signed numbers; both are fine.
fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let expect = Header(block).signed(148..156)?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (place, &byte) in block.iter().enumerate() {
        let byte = if (148..156).contains(&place) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    if expect == unsigned || expect == signed {
        return Ok(());
    }
    Err(malformed("a header with a wrong checksum"))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the tar archive is truncated")
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the tar archive has {what}"))
}
