//! Directories of the layer that is being made, and what is made in them.
//!
//! Invariants:
//! - A [`Folder`] exists in the upper folder. One that only lay below was copied up first, with its mode,
//!   owner, extended attributes and time, as overlayfs does.
//! - A new directory at a name that the layers below have as a directory is opaque: what they have there
//!   was deleted before, and must not come back.
//! - Names are looked up one by one in open directories; nothing follows a symlink.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use crate::layer::{self, Encoding, LayerDir};
use crate::owner::Keeper;
use crate::stack::{Merged, Stack};
use crate::{Kind, Metadata, Timestamp, TreeError, walk};

/// A directory of the layer that is being made.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    /// The same directory below, unless it is hidden or not there.
    below: Option<Arc<Merged>>,
    path: PathBuf,
    encoding: Encoding,
    keeper: Keeper,
}

/// What a path is given; `None` leaves what is there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) xattrs: &'a [(OsString, Vec<u8>)],
    pub(crate) mtime: Option<Timestamp>,
}

/// What the upper folder itself has of a name.
enum Upper {
    Nothing,
    Whiteout,
    Present(Metadata),
}

impl Folder {
    pub(super) fn root(lower: &Stack, upper: &LayerDir, encoding: Encoding) -> io::Result<Self> {
        let fd = upper.root()?.try_clone_to_owned()?;
        let below = if layer::is_opaque(fd.as_fd(), encoding.whiteouts)? {
            None
        } else {
            lower.merged(Path::new(""))?
        };
        let keeper = upper.keeper().clone();
        Ok(Self { fd, below, path: PathBuf::new(), encoding, keeper })
    }

    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn failed<E: Into<io::Error>>(
        &self,
        action: &'static str,
        name: &OsStr,
    ) -> impl FnOnce(E) -> TreeError {
        move |error| TreeError::io(action, &self.path_of(name))(error)
    }

    fn upper(&self, name: &OsStr) -> Result<Upper, TreeError> {
        let read = || {
            Ok::<_, io::Error>(match walk::metadata(self.fd(), name)? {
                None => Upper::Nothing,
                Some(metadata) if layer::is_whiteout(self.fd(), name, &metadata)? => {
                    Upper::Whiteout
                }
                Some(metadata) => Upper::Present(self.keeper.refine(self.fd(), name, metadata)?),
            })
        };
        read().map_err(self.failed("read", name))
    }

    fn below(&self, name: &OsStr) -> Result<Option<Metadata>, TreeError> {
        match &self.below {
            Some(below) => below.metadata(name).map_err(self.failed("read", name)),
            None => Ok(None),
        }
    }

    /// Metadata of a name as the tree shows it.
    pub(super) fn metadata(&self, name: &OsStr) -> Result<Option<Metadata>, TreeError> {
        match self.upper(name)? {
            Upper::Nothing => self.below(name),
            Upper::Whiteout => Ok(None),
            Upper::Present(metadata) => Ok(Some(metadata)),
        }
    }

    /// Opens a directory, copying it up if need be; `None` when there is nothing of this name.
    pub(super) fn enter(&self, name: &OsStr) -> Result<Option<Self>, TreeError> {
        let not_a_directory =
            || TreeError::NotDirectory { path: crate::path::absolute(&self.path_of(name)) };
        match self.upper(name)? {
            Upper::Whiteout => Ok(None),
            Upper::Present(metadata) if metadata.kind != Kind::Dir => Err(not_a_directory()),
            Upper::Present(_) => self.open(name).map(Some),
            Upper::Nothing => match self.below(name)? {
                None => Ok(None),
                Some(metadata) if metadata.kind != Kind::Dir => Err(not_a_directory()),
                Some(_) => self.copy_up(name).map(Some),
            },
        }
    }

    fn open(&self, name: &OsStr) -> Result<Self, TreeError> {
        let open = || {
            let fd = walk::open_dir(self.fd(), name)?.ok_or(Errno::NOTDIR)?;
            let below = match &self.below {
                Some(below) if !layer::is_opaque(fd.as_fd(), self.encoding.whiteouts)? => {
                    below.dir(name)?.map(Arc::new)
                }
                _ => None,
            };
            Ok::<_, io::Error>(Self {
                fd,
                below,
                path: self.path_of(name),
                encoding: self.encoding,
                keeper: self.keeper.clone(),
            })
        };
        open().map_err(self.failed("open", name))
    }

    fn copy_up(&self, name: &OsStr) -> Result<Self, TreeError> {
        rustix::fs::mkdirat(self.fd(), name, Mode::RWXU).map_err(self.failed("create", name))?;
        let folder = self.open(name)?;
        let read =
            |below: &Merged| Ok::<_, io::Error>((below.own_metadata()?, below.own_xattrs()?));
        let found =
            folder.below.as_deref().map(read).transpose().map_err(self.failed("read", name))?;
        if let Some((Some(metadata), xattrs)) = found {
            folder.set(&Attributes {
                mode: Some(metadata.mode),
                owner: Some((metadata.uid, metadata.gid)),
                xattrs: &xattrs,
                mtime: Some(metadata.mtime),
            })?;
        }
        Ok(folder)
    }

    /// Makes a directory where the tree shows nothing.
    pub(super) fn make_dir(&self, name: &OsStr) -> Result<Self, TreeError> {
        if let Upper::Whiteout = self.upper(name)? {
            self.unlink(name)?;
        }
        let hides = self.below(name)?.is_some_and(|below| below.kind == Kind::Dir);
        rustix::fs::mkdirat(self.fd(), name, Mode::from_raw_mode(0o755))
            .map_err(self.failed("create", name))?;
        if hides {
            let fd = walk::open_dir(self.fd(), name).map_err(self.failed("open", name))?;
            let fd = fd.ok_or(Errno::NOTDIR).map_err(self.failed("open", name))?;
            layer::set_opaque(fd.as_fd(), self.encoding).map_err(self.failed("create", name))?;
        }
        // The mode of `mkdir` is subject to the umask.
        let folder = self.open(name)?;
        folder.set(&Attributes { mode: Some(0o755), ..Attributes::default() })?;
        Ok(folder)
    }

    /// Makes something that is no directory, in place of what is there unless that is a directory.
    pub(super) fn replace<T>(
        &self,
        name: &OsStr,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, TreeError> {
        let directory =
            || TreeError::ReplaceDirectory { path: crate::path::absolute(&self.path_of(name)) };
        if self.below(name)?.is_some_and(|below| below.kind == Kind::Dir)
            && matches!(self.upper(name)?, Upper::Nothing)
        {
            return Err(directory());
        }
        match make(self.fd()) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(self.failed("create", name)),
        }
        match self.upper(name)? {
            Upper::Present(metadata) if metadata.kind == Kind::Dir => return Err(directory()),
            Upper::Nothing => {}
            _ => self.unlink(name)?,
        }
        make(self.fd()).map_err(self.failed("create", name))
    }

    /// Makes an empty regular file, in place of what is there unless that is a directory.
    pub(super) fn create(&self, name: &OsStr) -> Result<File, TreeError> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replace(name, |dir| rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR))
            .map(File::from)
    }

    /// Removes what the tree shows of a name, with all that is in it; false when there is nothing.
    pub(super) fn remove(&self, name: &OsStr) -> Result<bool, TreeError> {
        let upper = self.upper(name)?;
        let below = self.below(name)?.is_some();
        let shown = match upper {
            Upper::Whiteout => return Ok(false),
            Upper::Nothing => below,
            Upper::Present(metadata) => {
                if metadata.kind == Kind::Dir {
                    remove_tree(self.fd(), name, 0).map_err(self.failed("remove", name))?;
                } else {
                    self.unlink(name)?;
                }
                true
            }
        };
        if below {
            layer::make_whiteout(self.fd(), name).map_err(self.failed("remove", name))?;
        }
        Ok(shown)
    }

    fn unlink(&self, name: &OsStr) -> Result<(), TreeError> {
        rustix::fs::unlinkat(self.fd(), name, AtFlags::empty()).map_err(self.failed("remove", name))
    }

    /// Sets attributes of the directory itself.
    pub(super) fn set(&self, attributes: &Attributes<'_>) -> Result<(), TreeError> {
        let name = OsStr::new("");
        set(self.fd(), name, Kind::Dir, attributes, &self.keeper)
            .map_err(self.failed("change", name))
    }

    /// Sets attributes of a name that is no directory.
    pub(super) fn set_child(
        &self,
        name: &OsStr,
        kind: Kind,
        attributes: &Attributes<'_>,
    ) -> Result<(), TreeError> {
        set(self.fd(), name, kind, attributes, &self.keeper).map_err(self.failed("change", name))
    }

    /// Sets attributes of an open file of the folder.
    pub(super) fn set_file(&self, file: &File, attributes: &Attributes<'_>) -> io::Result<()> {
        set_file(file, attributes, &self.keeper)
    }

    /// Makes a device or a pipe, in place of what is there unless that is a directory.
    pub(super) fn make_node(
        &self,
        name: &OsStr,
        kind: FileType,
        numbers: (u32, u32),
    ) -> Result<(), TreeError> {
        self.replace(name, |dir| self.keeper.make_node(dir, name, kind, numbers))
    }
}

/// Sets attributes in the order in which they do not undo each other.
pub(crate) fn set(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: Kind,
    attributes: &Attributes<'_>,
    keeper: &Keeper,
) -> Result<(), io::Error> {
    let path = walk::proc_path(dir, name);
    if let Some(owner) = attributes.owner {
        keeper.own(dir, name, kind, owner)?;
    }
    for (key, value) in attributes.xattrs {
        // Best effort: file systems differ in what they take.
        if !layer::is_store_xattr(key) {
            let _ = rustix::fs::lsetxattr(&path, key.as_os_str(), value, XattrFlags::empty());
        }
    }
    if let Some(mode) = attributes.mode
        && kind != Kind::Symlink
    {
        // The builder itself has just made this name: it is no symlink.
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(rustix::fs::CWD, &path, mode, AtFlags::empty())?;
    }
    if let Some(mtime) = attributes.mtime {
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Sets attributes of an open file.
fn set_file(file: &File, attributes: &Attributes<'_>, keeper: &Keeper) -> io::Result<()> {
    if let Some(owner) = attributes.owner {
        keeper.own_file(file, owner)?;
    }
    for (key, value) in attributes.xattrs {
        if !layer::is_store_xattr(key) {
            let _ = rustix::fs::fsetxattr(file, key.as_os_str(), value, XattrFlags::empty());
        }
    }
    if let Some(mode) = attributes.mode {
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    }
    if let Some(mtime) = attributes.mtime {
        rustix::fs::futimens(file, &times(mtime))?;
    }
    Ok(())
}

fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: i64::from(mtime.nanoseconds.min(999_999_999)),
        },
    }
}

pub(super) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr, depth: usize) -> io::Result<()> {
    if depth > crate::select::MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    if let Some(folder) = walk::open_dir(dir, name)? {
        for (child, _) in walk::names(folder.as_fd())? {
            match rustix::fs::unlinkat(&folder, &child, AtFlags::empty()) {
                Err(Errno::ISDIR | Errno::PERM) => remove_tree(folder.as_fd(), &child, depth + 1)?,
                other => other?,
            }
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
