//! Whether a path that was copied up is still what it was below.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::stack::Stack;
use crate::{FileData, Kind, Metadata, View};

/// Whether metadata alone allows two paths to be the same.
///
/// The time of a directory is not compared, for making a name in it changes it.
pub(super) fn metadata_equal(a: &Metadata, b: &Metadata) -> bool {
    let owner = (a.kind, a.mode, a.uid, a.gid, a.rdev) == (b.kind, b.mode, b.uid, b.gid, b.rdev);
    owner && (a.kind == Kind::Dir || (a.size == b.size && a.mtime == b.mtime))
}

/// Whether two lists of extended attributes have the same capabilities, or none.
pub(super) fn capabilities_equal(a: &[(OsString, Vec<u8>)], b: &[(OsString, Vec<u8>)]) -> bool {
    capability(a) == capability(b)
}

fn capability(xattrs: &[(OsString, Vec<u8>)]) -> Option<&[u8]> {
    let (_, value) = xattrs.iter().find(|(name, _)| name == super::CAPABILITY)?;
    Some(value.as_slice())
}

/// Whether a path that is no directory, with equal metadata, has equal content as far as that has to be
/// asked: times without nanoseconds may have been cut, so they prove nothing.
pub(super) fn content_equal(
    metadata: &Metadata,
    lower: &Stack,
    path: &Path,
    read_link: impl FnOnce() -> io::Result<PathBuf>,
    open: impl FnOnce() -> io::Result<FileData>,
) -> io::Result<bool> {
    if metadata.mtime.nanoseconds != 0 {
        return Ok(true);
    }
    match metadata.kind {
        Kind::Symlink => Ok(read_link()? == lower.read_link(path)?),
        Kind::File if metadata.size > 0 => bytes_equal(open()?, lower.open(path)?),
        _ => Ok(true),
    }
}

fn bytes_equal(a: impl Read, b: impl Read) -> io::Result<bool> {
    const PIECE: u64 = 64 * 1024;
    let (mut a, mut b) = (a, b);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&mut a).take(PIECE).read_to_end(&mut left)?;
        (&mut b).take(PIECE).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
