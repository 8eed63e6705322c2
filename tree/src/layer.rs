//! One unpacked layer: a folder in the form that overlayfs stacks.
//!
//! ```text
//! a name that is gone     character device 0:0, or an empty file with xattr `*.overlay.whiteout`
//! a folder that hides     directory with xattr `*.overlay.opaque` = `y`
//! what lies below it
//! ```
//!
//! `*` is `trusted` or `user`, as the [`Encoding`] of the store says. Only that one makes a folder opaque: the
//! other a step may set as it likes, and the kernel does not heed it either.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::owner::Keeper;
pub use crate::owner::Owners;
use crate::walk;
use crate::{Kind, Metadata};

/// Attributes of which one makes an empty file stand for a deletion.
const WHITEOUT_XATTRS: [&str; 2] = ["trusted.overlay.whiteout", "user.overlay.whiteout"];

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
    whiteouts: Whiteouts,
    keeper: Keeper,
    /// Whether nothing in it changes any more.
    finished: bool,
    root: OnceLock<Root>,
}

/// Names in the root of a layer.
pub(crate) type Names = Arc<HashSet<OsString>>;

#[derive(Debug)]
struct Root {
    fd: Arc<OwnedFd>,
    opaque: OnceLock<bool>,
    names: OnceLock<Names>,
}

impl LayerDir {
    /// Names the folder; it is opened when something first reads it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::encoded(path, Encoding::default())
    }

    /// Names a folder of a store with this encoding.
    #[must_use]
    pub fn encoded(path: impl Into<PathBuf>, encoding: Encoding) -> Self {
        Self::named(path.into(), encoding, false)
    }

    /// Names a folder in which nothing changes any more: what is in its root is looked up once.
    #[must_use]
    pub fn finished(path: impl Into<PathBuf>, encoding: Encoding) -> Self {
        Self::named(path.into(), encoding, true)
    }

    fn named(path: PathBuf, encoding: Encoding, finished: bool) -> Self {
        let (whiteouts, keeper) = (encoding.whiteouts, Keeper::new(encoding.owners, &path));
        let root = OnceLock::new();
        Self { inner: Arc::new(Inner { path, whiteouts, keeper, finished, root }) }
    }

    /// How deletions are kept in it.
    #[must_use]
    pub fn whiteouts(&self) -> Whiteouts {
        self.inner.whiteouts
    }

    /// How owners are kept in it.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.inner.keeper
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
        Ok(self.opened()?.fd.as_fd())
    }

    /// The same descriptor, to be kept.
    pub(crate) fn shared_root(&self) -> io::Result<Arc<OwnedFd>> {
        Ok(Arc::clone(&self.opened()?.fd))
    }

    /// Whether the folder itself hides everything below it; looked up once.
    pub(crate) fn is_opaque(&self) -> io::Result<bool> {
        let root = self.opened()?;
        if let Some(opaque) = root.opaque.get() {
            return Ok(*opaque);
        }
        let opaque = is_opaque(root.fd.as_fd(), self.inner.whiteouts)?;
        Ok(*root.opaque.get_or_init(|| opaque))
    }

    /// Names in the folder itself, of one that is finished.
    pub(crate) fn names(&self) -> io::Result<Option<Names>> {
        if !self.inner.finished {
            return Ok(None);
        }
        let root = self.opened()?;
        if let Some(names) = root.names.get() {
            return Ok(Some(Arc::clone(names)));
        }
        let names = walk::names(root.fd.as_fd())?.into_iter().map(|(name, _)| name);
        let names = Arc::new(names.collect::<HashSet<_>>());
        Ok(Some(Arc::clone(root.names.get_or_init(|| names))))
    }

    fn opened(&self) -> io::Result<&Root> {
        if let Some(root) = self.inner.root.get() {
            return Ok(root);
        }
        let fd = Arc::new(walk::open_root(&self.inner.path)?);
        Ok(self.inner.root.get_or_init(|| Root {
            fd,
            opaque: OnceLock::new(),
            names: OnceLock::new(),
        }))
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
    for key in WHITEOUT_XATTRS {
        if walk::xattr(dir, name, key)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a directory of a layer hides what lies below it.
///
/// # Errors
/// When the file system fails.
pub fn is_opaque(dir: BorrowedFd<'_>, whiteouts: Whiteouts) -> io::Result<bool> {
    let key = Encoding { whiteouts, ..Encoding::default() }.opaque_xattr();
    Ok(walk::xattr(dir, OsStr::new(""), key)?.as_deref() == Some(b"y"))
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
/// A file system that is itself an overlay takes no such devices: there it is an empty file with an attribute.
///
/// # Errors
/// When the file system fails.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM) => mark_file(dir, name),
        other => Ok(other?),
    }
}

fn mark_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let mut marked = Err(Errno::NOTSUP);
    for key in WHITEOUT_XATTRS {
        marked = rustix::fs::fsetxattr(&file, key, b"y", XattrFlags::empty());
        if marked.is_ok() {
            break;
        }
    }
    if marked.is_err() {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
    }
    Ok(marked?)
}

/// Takes from a regular file what would make it stand for a deletion.
pub(crate) fn unmark_file(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    metadata: &Metadata,
) -> io::Result<()> {
    if is_whiteout(dir, name, metadata)? {
        for key in WHITEOUT_XATTRS {
            match rustix::fs::lremovexattr(walk::proc_path(dir, name), key) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Whether the store itself uses an extended attribute, so that no image can have it.
#[must_use]
pub fn is_store_xattr(name: &OsStr) -> bool {
    let name = name.as_bytes();
    [&b"trusted.overlay."[..], b"user.overlay.", b"user.bricklayer."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
