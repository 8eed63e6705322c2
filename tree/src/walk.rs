//! One directory at a time, by descriptor: the only place where trees on disk are read.
//!
//! Invariants:
//! - Every name is looked up in an open directory, never through a path, and never followed when it is a
//!   symlink.
//! - Directories are held as `O_PATH` descriptors; opening one neither reads it nor has side effects.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::{Kind, Metadata, Timestamp};

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Room for names read in one call, in bytes.
const NAMES: usize = 32 << 10;

/// Opens the root directory of a tree; this one path is the builder's own and may hold symlinks.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| with_path(error.into(), "cannot open directory", path))
}

/// Opens a directory in a directory; `None` when there is none of this name.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match rustix::fs::openat(dir, name, DIRECTORY, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory some levels below another; `None` when any part is missing or no directory.
pub(crate) fn open_below(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    let mut at = root.try_clone_to_owned()?;
    for name in path.iter() {
        match open_dir(at.as_fd(), name)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Opens a regular file for reading, without waiting for a writer should it be a pipe by now.
pub(crate) fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    open_file_as_it_is(dir, name).map(|(file, _)| file)
}

/// As [`open_file`], with its metadata.
pub(crate) fn open_file_as_it_is(
    dir: BorrowedFd<'_>,
    name: &OsStr,
) -> io::Result<(File, Metadata)> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty())?,
        other => other?,
    };
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((File::from(file), from_stat(&stat)))
}

/// Metadata of a name in a directory, the symlink's own for a symlink.
pub(crate) fn metadata(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Metadata>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(from_stat(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Metadata of an open file or directory.
pub(crate) fn metadata_of(fd: BorrowedFd<'_>) -> io::Result<Metadata> {
    Ok(from_stat(&rustix::fs::fstat(fd)?))
}

/// Target of a symlink in a directory.
pub(crate) fn read_link(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(dir, name, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Names in a directory, unsorted, with what the directory itself says of their kind.
pub(crate) fn names(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, FileType)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(dir, c".", flags, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(readable, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Extended attributes of a name in a directory, sorted by name; the store's own are left out.
pub(crate) fn xattrs(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let path = proc_path(dir, name);
    let mut list = Vec::<u8>::new();
    loop {
        let size = match rustix::fs::llistxattr_query(&path) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            Ok(size) => size,
            Err(error) => return Err(error.into()),
        };
        list.resize(size, 0);
        match rustix::fs::llistxattr(&path, &mut list[..]) {
            Ok(size) => {
                list.truncate(size);
                break;
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut found = Vec::new();
    for key in list.split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
        let key = OsStr::from_bytes(key);
        if crate::layer::is_store_xattr(key) {
            continue;
        }
        if let Some(value) = xattr_at(&path, key)? {
            found.push((key.to_owned(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether an open file has extended attributes at all.
pub(crate) fn has_xattrs(file: &File) -> io::Result<bool> {
    match rustix::fs::flistxattr_query(file) {
        Ok(size) => Ok(size > 0),
        Err(Errno::NOTSUP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One extended attribute of a name in a directory.
pub(crate) fn xattr(dir: BorrowedFd<'_>, name: &OsStr, key: &str) -> io::Result<Option<Vec<u8>>> {
    xattr_at(&proc_path(dir, name), OsStr::new(key))
}

fn xattr_at(path: &Path, key: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, key, &mut value[..]) {
            Ok(size) => {
                value.truncate(size);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) => value.resize(64 << 10, 0),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::NOENT | Errno::PERM) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A path that leads to a name in an open directory without any lookup above it: attributes of anything
/// but an open file can be had by path only. The empty name is the directory itself.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(if name.is_empty() { OsStr::new(".") } else { name });
    path
}

fn from_stat(stat: &Stat) -> Metadata {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        _ => Kind::File,
    };
    let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    Metadata {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if matches!(kind, Kind::File | Kind::Symlink) {
            u64::try_from(stat.st_size).unwrap_or(0)
        } else {
            0
        },
        mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
        ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
        rdev: if device {
            (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
        } else {
            (0, 0)
        },
        inode: (stat.st_dev, stat.st_ino),
        links: stat.st_nlink,
    }
}

fn timestamp(seconds: i64, nanoseconds: u64) -> Timestamp {
    Timestamp { seconds, nanoseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}

/// Adds what was tried and where to an error.
pub(crate) fn with_path(error: io::Error, action: &str, path: &Path) -> io::Error {
    let kind = error.kind();
    io::Error::new(kind, AtPath { message: format!("{action} `{}`", path.display()), error })
}

/// Whether an error is one of [`with_path`].
pub(crate) fn names_path(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<AtPath>())
}

/// What failed, at which path; the whole text is its own, as the callers print no sources.
#[derive(Debug, thiserror::Error)]
#[error("{message}: {error}")]
struct AtPath {
    message: String,
    error: io::Error,
}
