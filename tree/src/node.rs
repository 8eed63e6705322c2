//! One path of a file tree, and the one way to read trees.
//!
//! [`View`] yields paths, owners and modes *as the image has them*, whatever the tree is kept in: an
//! unpacked layer stack, the build context, or (later) layers with recorded owners.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{FileData, TreeError};

/// Kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

/// A point in time: seconds and nanoseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1e9.
    pub nanoseconds: u32,
}

/// What is known of a path without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Kind.
    pub kind: Kind,
    /// Permission, set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner as the image has it.
    pub uid: u32,
    /// Group as the image has it.
    pub gid: u32,
    /// Bytes of a regular file, length of a link target, else 0.
    pub size: u64,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Time of the last change of anything, as the file system keeps it; for the stat cache.
    pub ctime: Timestamp,
    /// Major and minor number of a device, else (0, 0).
    pub rdev: (u32, u32),
    /// Device and inode number: equal for hard links of one file.
    pub inode: (u64, u64),
    /// Number of hard links.
    pub links: u64,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// File name, without any `/`.
    pub name: OsString,
    /// Its metadata; a symlink's own.
    pub metadata: Metadata,
}

/// Reads a file tree.
///
/// Paths are relative to the root, without `.`, `..`, empty parts or a leading `/`; the empty path is the
/// root. No method follows a symlink, not even in the middle: a path through one is simply not there.
/// [`resolve`](crate::path::resolve) turns a user's path into one that can be asked for here.
pub trait View: Send + Sync {
    /// Metadata of a path, or `None` when there is nothing.
    ///
    /// # Errors
    /// When the file system fails.
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>>;

    /// Names in a directory, in byte order.
    ///
    /// # Errors
    /// When `path` is no directory or the file system fails.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// As [`read_dir`](Self::read_dir), for a view that keeps what it has listed.
    ///
    /// # Errors
    /// As [`read_dir`](Self::read_dir).
    fn list(&self, path: &Path) -> io::Result<Arc<Vec<DirEntry>>> {
        self.read_dir(path).map(Arc::new)
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// When `path` is no regular file or the file system fails.
    fn open(&self, path: &Path) -> io::Result<FileData>;

    /// Target of a symlink.
    ///
    /// # Errors
    /// When `path` is no symlink or the file system fails.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// Extended attributes of a path, sorted by name, without those that the store itself uses.
    ///
    /// # Errors
    /// When the file system fails; one without extended attributes yields none.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>>;

    /// Hash of what a regular file holds: its bytes and the extended attributes that count, see
    /// [`content`](crate::content). A view that knows it already answers without reading.
    ///
    /// # Errors
    /// When `path` is no regular file or the file system fails.
    fn payload(&self, path: &Path, metadata: &Metadata) -> io::Result<[u8; 32]> {
        crate::content::payload(&mut self.open(path)?, metadata.size, &self.xattrs(path)?)
    }

    /// Hash of some names of a directory that are no directories, as `hash` gives it. A view that knows it
    /// from before answers without asking.
    ///
    /// # Errors
    /// Those of `hash`.
    fn leaves(
        &self,
        directory: &Path,
        entries: &[&DirEntry],
        hash: &dyn Fn() -> Result<[u8; 32], TreeError>,
    ) -> Result<[u8; 32], TreeError> {
        let _ = (directory, entries);
        hash()
    }
}
