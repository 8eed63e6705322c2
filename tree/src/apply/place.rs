//! Making one path, with its attributes in the order in which they do not undo each other: content, owner,
//! extended attributes, mode, time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::folder::Slot;
use super::{node_type, refused};
use crate::owner::Keeper;
use crate::tar::{Entry, EntryKind};
use crate::{Kind, Timestamp, layer, walk};

/// Makes a regular file; nothing of its name may be there.
pub(super) fn file(
    slot: &Slot,
    entry: &Entry,
    content: &mut dyn Read,
    buffer: &mut [u8],
    keeper: &Keeper,
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&slot.dir, slot.name(), flags, Mode::RUSR | Mode::WUSR)?;
    let mut file = File::from(file);
    let mut left = entry.size;
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        content.read_exact(&mut buffer[..room])?;
        file.write_all(&buffer[..room])?;
        left -= room as u64;
    }
    keeper.own_new_file(&file, (entry.uid, entry.gid))?;
    for (key, value) in &entry.xattrs {
        if !layer::is_store_xattr(key) {
            tolerate(
                rustix::fs::fsetxattr(&file, key.as_os_str(), value, XattrFlags::empty()),
                false,
            )?;
        }
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    rustix::fs::futimens(&file, &times(entry.mtime))?;
    Ok(())
}

/// Makes a symlink; nothing of its name may be there.
pub(super) fn symlink(slot: &Slot, entry: &Entry, keeper: &Keeper) -> io::Result<()> {
    rustix::fs::symlinkat(entry.link.as_slice(), &slot.dir, slot.name())?;
    attributes(slot.dir.as_fd(), slot.name(), entry, keeper)?;
    time(slot.dir.as_fd(), slot.name(), entry.mtime)
}

/// Makes a device or a pipe; nothing of its name may be there.
pub(super) fn node(slot: &Slot, entry: &Entry, keeper: &Keeper) -> io::Result<()> {
    if entry.kind == EntryKind::CharDevice && entry.device == (0, 0) {
        return Err(refused("a device node that would be a whiteout"));
    }
    keeper.make_node(slot.dir.as_fd(), slot.name(), node_type(entry.kind), entry.device)?;
    attributes(slot.dir.as_fd(), slot.name(), entry, keeper)?;
    time(slot.dir.as_fd(), slot.name(), entry.mtime)
}

/// Gives a path that is there another name.
pub(super) fn link(from: &Slot, to: &Slot) -> io::Result<()> {
    Ok(rustix::fs::linkat(&from.dir, from.name(), &to.dir, to.name(), AtFlags::empty())?)
}

/// Sets owner, extended attributes and mode of anything but a regular file.
pub(super) fn attributes(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    keeper: &Keeper,
) -> io::Result<()> {
    let kind = match entry.kind {
        EntryKind::Dir => Kind::Dir,
        EntryKind::Symlink => Kind::Symlink,
        EntryKind::CharDevice => Kind::CharDevice,
        EntryKind::BlockDevice => Kind::BlockDevice,
        EntryKind::Fifo => Kind::Fifo,
        EntryKind::File | EntryKind::HardLink => Kind::File,
    };
    keeper.own(dir, name, kind, (entry.uid, entry.gid))?;
    for (key, value) in &entry.xattrs {
        if !layer::is_store_xattr(key) {
            let special = entry.kind != EntryKind::Dir && key.as_bytes().starts_with(b"user.");
            let path = walk::proc_path(dir, name);
            tolerate(
                rustix::fs::lsetxattr(path, key.as_os_str(), value, XattrFlags::empty()),
                special,
            )?;
        }
    }
    // A symlink has no mode of its own; all else here was made by us and is no symlink.
    if entry.kind != EntryKind::Symlink {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    Ok(())
}

/// Extended attributes are kept as far as the file system has them; those of users are for files and
/// directories only.
fn tolerate(result: rustix::io::Result<()>, special: bool) -> io::Result<()> {
    match result {
        Err(Errno::NOTSUP) => Ok(()),
        Err(Errno::PERM) if special => Ok(()),
        other => Ok(other?),
    }
}

/// Sets the time of a path, a symlink's own.
pub(super) fn time(dir: BorrowedFd<'_>, name: &OsStr, mtime: Timestamp) -> io::Result<()> {
    Ok(rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes a name and, when it is a directory, all that is in it.
pub(super) fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Err(Errno::NOENT) => return Ok(()),
        other => return Ok(other?),
    }
    if let Some(inner) = walk::open_dir(dir, name)? {
        for (child, _) in walk::names(inner.as_fd())? {
            remove(inner.as_fd(), &child)?;
        }
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Removes the whiteouts in a directory and below it.
pub(super) fn drop_whiteouts(dir: BorrowedFd<'_>) -> io::Result<()> {
    for (name, _) in walk::names(dir)? {
        let Some(found) = walk::metadata(dir, &name)? else { continue };
        if layer::is_whiteout(dir, &name, &found)? {
            rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
        } else if found.kind == Kind::Dir
            && let Some(inner) = walk::open_dir(dir, &name)?
        {
            drop_whiteouts(inner.as_fd())?;
        }
    }
    Ok(())
}
