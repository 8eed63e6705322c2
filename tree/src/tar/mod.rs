//! Tar archives as layers have them: reading what others wrote, writing what others would have written.
//!
//! The [`Writer`] gives the same bytes as Go's `archive/tar` does in its PAX form, since a layer's diff id
//! is the hash of those bytes: `ustar` headers, and extended records only for what does not fit in them.
//! The [`Reader`] takes `ustar`, PAX, GNU and old archives, and holds at most 1 MiB of extended records.
//!
//! Format: POSIX.1-2001 pax; spec `solver-and-cache.md` §7.2.

mod dated;
mod pax;
mod reader;
mod writer;

use std::ffi::OsString;

use crate::Timestamp;

pub use dated::no_later_than;
pub use reader::{Reader, is_archive};
pub use writer::Writer;

const BLOCK: usize = 512;

/// What a tar entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Dir,
    /// Named pipe.
    Fifo,
}

/// One entry of a tar archive, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path as the archive has it, but without the `/` that ends a directory's.
    pub path: Vec<u8>,
    /// Kind.
    pub kind: EntryKind,
    /// Target of a link, else empty.
    pub link: Vec<u8>,
    /// Permission, set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content that follow; 0 for all but files.
    pub size: u64,
    /// Time of the last change of the content. Only whole seconds are written.
    pub mtime: Timestamp,
    /// Major and minor number of a device, else (0, 0).
    pub device: (u32, u32),
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Entry {
    /// An entry with mode 0, owner 0:0, no content and the time 0.
    #[must_use]
    pub fn new(kind: EntryKind, path: Vec<u8>) -> Self {
        Self {
            path,
            kind,
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: Timestamp::default(),
            device: (0, 0),
            xattrs: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
