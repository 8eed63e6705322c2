//! One unpacked layer: a folder in the form that overlayfs stacks.
//!
//! ```text
//! a name that is gone     character device 0:0, or an empty file with xattr `*.overlay.whiteout`
//! a folder that hides     directory with xattr `*.overlay.opaque` = `y`
//! what lies below it
//! ```
//!
//! `*` is `trusted` or `user`: both are read, [`Encoding`] says which is written.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{FileType, Mode, XattrFlags};

use crate::walk;
use crate::{Kind, Metadata};

/// How a folder keeps the owners of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Owners {
    /// As they are in the image.
    #[default]
    Native,
}

/// Which extended attributes mark what is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Whiteouts {
    /// `trusted.overlay.*`, for a mount made by root.
    #[default]
    Trusted,
    /// `user.overlay.*`, for a mount with `userxattr`.
    User,
}

/// How the folders of a store keep what their file system cannot say directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Encoding {
    /// Owners of files.
    pub owners: Owners,
    /// Deletions.
    pub whiteouts: Whiteouts,
}

impl Encoding {
    /// Name of the attribute that makes a directory opaque.
    #[must_use]
    pub fn opaque_xattr(self) -> &'static str {
        match self.whiteouts {
            Whiteouts::Trusted => "trusted.overlay.opaque",
            Whiteouts::User => "user.overlay.opaque",
        }
    }
}

/// The folder of one layer; clones share its open descriptor.
#[derive(Debug, Clone)]
pub struct LayerDir {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: OnceLock<OwnedFd>,
}

impl LayerDir {
    /// Names the folder; it is opened when something first reads it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { inner: Arc::new(Inner { path: path.into(), root: OnceLock::new() }) }
    }

    /// Where the folder is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The folder itself as an `O_PATH` descriptor.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn root(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(root) = self.inner.root.get() {
            return Ok(root.as_fd());
        }
        let opened = walk::open_root(&self.inner.path)?;
        Ok(self.inner.root.get_or_init(|| opened).as_fd())
    }
}

/// Whether metadata alone says that a name is deleted.
#[must_use]
pub fn is_whiteout_node(metadata: &Metadata) -> bool {
    metadata.kind == Kind::CharDevice && metadata.rdev == (0, 0)
}

/// Whether a name in a layer's directory says that the name is deleted, in either form.
///
/// # Errors
/// When the file system fails.
pub fn is_whiteout(dir: BorrowedFd<'_>, name: &OsStr, metadata: &Metadata) -> io::Result<bool> {
    if is_whiteout_node(metadata) {
        return Ok(true);
    }
    if metadata.kind != Kind::File || metadata.size != 0 {
        return Ok(false);
    }
    Ok(walk::xattr(dir, name, "trusted.overlay.whiteout")?.is_some()
        || walk::xattr(dir, name, "user.overlay.whiteout")?.is_some())
}

/// Whether a directory of a layer hides what lies below it.
///
/// # Errors
/// When the file system fails.
pub fn is_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    let marked =
        |key| Ok::<_, io::Error>(walk::xattr(dir, OsStr::new(""), key)?.as_deref() == Some(b"y"));
    Ok(marked("trusted.overlay.opaque")? || marked("user.overlay.opaque")?)
}

/// Makes a directory of a layer hide what lies below it.
///
/// # Errors
/// When the file system fails.
pub fn set_opaque(dir: BorrowedFd<'_>, encoding: Encoding) -> io::Result<()> {
    let path = walk::proc_path(dir, OsStr::new(""));
    Ok(rustix::fs::setxattr(path, encoding.opaque_xattr(), b"y", XattrFlags::empty())?)
}

/// Marks a name as deleted; nothing of this name may be there.
///
/// # Errors
/// When the file system fails.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    Ok(rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

/// Whether the store itself uses an extended attribute, so that no image can have it.
#[must_use]
pub fn is_store_xattr(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}
