//! Owners and devices that the file system of a store cannot have, kept beside the files.
//!
//! ```text
//! regular file, folder   attribute `user.bricklayer.node`: uid:gid, decimal
//! device                 empty regular file with the attribute uid:gid:c|b:major:minor
//! symlink, pipe, socket  a line of the file `links` beside the layer's folder, for they have no such attributes
//! ```
//!
//! Who builds in a user namespace can only give files the ids that the namespace has, and can make no devices.
//! What [`Owners`] says decides when a record counts:
//! - with a range of ids, only where the file itself belongs to [`MARKER`]: a later change of owner wins by itself;
//! - with one id, wherever there is one.
//!
//! Invariants:
//! - With [`Owners::Native`] nothing is recorded, looked for or opened.
//! - A line of `links` counts for one file only: it names the inode and the time it was made, so that neither a file
//!   that got the number of one that is gone nor a copy of the store is mistaken for it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::{Kind, Metadata, walk};

/// The attribute that holds a record.
pub const ATTRIBUTE: &str = "user.bricklayer.node";

/// User and group of a file whose owner is recorded, in a namespace with a range of ids: the last of the range, which
/// images hardly ever use.
pub const MARKER: u32 = 65_536;

/// Name of the file with the owners of links, beside a layer's folder.
pub const LINKS: &str = "links";

/// Length of a line of [`LINKS`].
const LINE: usize = 32;

/// How a folder keeps the owners of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Owners {
    /// As they are in the image.
    #[default]
    Native,
    /// As they are in the image if they are at most [`MARKER`], else recorded.
    Ranged,
    /// Everything belongs to one id; other owners are recorded.
    Recorded,
}

/// What is recorded of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Owner in the image.
    pub uid: u32,
    /// Group in the image.
    pub gid: u32,
    /// Kind and number of a device.
    pub device: Option<(Kind, (u32, u32))>,
}

impl Record {
    /// The value of [`ATTRIBUTE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let owner = format!("{}:{}", self.uid, self.gid);
        match self.device {
            Some((Kind::BlockDevice, (major, minor))) => format!("{owner}:b:{major}:{minor}"),
            Some((_, (major, minor))) => format!("{owner}:c:{major}:{minor}"),
            None => owner,
        }
    }

    /// Reads the value of [`ATTRIBUTE`]; `None` for what makes no sense.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = std::str::from_utf8(value).ok()?.split(':');
        let mut number = || fields.next()?.parse().ok();
        let (uid, gid) = (number()?, number()?);
        let device = match fields.next() {
            None => None,
            Some(kind) => {
                let kind = match kind {
                    "c" => Kind::CharDevice,
                    "b" => Kind::BlockDevice,
                    _ => return None,
                };
                let numbers = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                // That one would be a deletion.
                (numbers != (0, 0)).then_some((kind, numbers))
            }
        };
        Some(Self { uid, gid, device })
    }
}

/// How one folder is kept; clones share what they know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keeper {
    owners: Owners,
    links: Option<Arc<Links>>,
}

impl Keeper {
    /// That of the folder at `path`.
    pub(crate) fn new(owners: Owners, path: &Path) -> Self {
        let links = || Arc::new(Links::new(path.with_file_name(LINKS)));
        Self { owners, links: (owners != Owners::Native).then(links) }
    }

    /// Corrects what the file system says of a name by what is recorded.
    pub(crate) fn refine(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        found: Metadata,
    ) -> io::Result<Metadata> {
        match self.owners {
            Owners::Native => return Ok(found),
            Owners::Ranged if found.uid != MARKER => return Ok(found),
            _ => {}
        }
        let record = match found.kind {
            Kind::File | Kind::Dir => record(dir, name)?,
            _ => match &self.links {
                Some(links) => links.find(dir, name, &found)?,
                None => None,
            },
        };
        let Some(record) = record else { return Ok(found) };
        let known = Metadata { uid: record.uid, gid: record.gid, ..found };
        Ok(match record.device {
            Some((kind, rdev)) if known.kind == Kind::File => {
                Metadata { kind, rdev, size: 0, ..known }
            }
            _ => known,
        })
    }

    /// Whether an owner is recorded of a name, of which the file system says `found`.
    pub(crate) fn knows(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        found: &Metadata,
    ) -> io::Result<bool> {
        match (found.kind, &self.links) {
            (Kind::File | Kind::Dir, _) => Ok(record(dir, name)?.is_some()),
            (_, Some(links)) => Ok(links.find(dir, name, found)?.is_some()),
            (_, None) => Ok(false),
        }
    }

    /// Gives a name an owner; `kind` is what it stands for.
    pub(crate) fn own(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: Kind,
        owner: (u32, u32),
    ) -> io::Result<()> {
        let path = walk::proc_path(dir, name);
        let change = |(uid, gid): (u32, u32)| {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(rustix::fs::CWD, &path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice if self.owners != Owners::Native => {
                record(dir, name)?.and_then(|record| record.device)
            }
            _ => None,
        };
        let Some(stand_in) = self.stand_in(owner, device.is_some(), change)? else {
            return Ok(());
        };
        if self.owners == Owners::Ranged {
            change(stand_in)?;
        }
        match (kind, &self.links) {
            (Kind::Symlink | Kind::Fifo | Kind::Socket, Some(links)) => {
                // Most links are root's, and need no line.
                if owner == stand_in && !links.knows(dir, name)? {
                    return Ok(());
                }
                links.add(dir, name, owner)
            }
            _ => {
                let record = Record { uid: owner.0, gid: owner.1, device };
                let value = record.encode();
                let flags = XattrFlags::empty();
                Ok(rustix::fs::lsetxattr(&path, ATTRIBUTE, value.as_bytes(), flags)?)
            }
        }
    }

    /// Gives a file that has just been made for a layer of its own an owner.
    pub(crate) fn own_new_file(&self, file: &File, owner: (u32, u32)) -> io::Result<()> {
        match (self.owners, owner) {
            // It belongs to nobody else.
            (Owners::Recorded, (0, 0)) => Ok(()),
            _ => self.own_file(file, owner),
        }
    }

    /// Gives an open file an owner.
    pub(crate) fn own_file(&self, file: &File, owner: (u32, u32)) -> io::Result<()> {
        let change = |(uid, gid): (u32, u32)| {
            rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        };
        let Some(stand_in) = self.stand_in(owner, false, change)? else { return Ok(()) };
        if self.owners == Owners::Ranged {
            change(stand_in)?;
        }
        let value = Record { uid: owner.0, gid: owner.1, device: None }.encode();
        Ok(rustix::fs::fsetxattr(file, ATTRIBUTE, value.as_bytes(), XattrFlags::empty())?)
    }

    /// The owner that a file itself gets where the wanted one is recorded; `None` once it has got the wanted one.
    fn stand_in(
        &self,
        owner: (u32, u32),
        is_recorded: bool,
        change: impl Fn((u32, u32)) -> rustix::io::Result<()>,
    ) -> io::Result<Option<(u32, u32)>> {
        match self.owners {
            Owners::Native => change(owner).map(|()| None).map_err(io::Error::from),
            // All of it is the one id's already.
            Owners::Recorded => Ok(Some((0, 0))),
            Owners::Ranged => {
                if !is_recorded && owner.0 != MARKER {
                    match change(owner) {
                        // The namespace has no such id.
                        Err(Errno::INVAL) => {}
                        other => return other.map(|()| None).map_err(io::Error::from),
                    }
                }
                Ok(Some((MARKER, MARKER)))
            }
        }
    }

    /// Makes a device or a pipe; nothing of its name may be there.
    pub(crate) fn make_node(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        numbers: (u32, u32),
    ) -> rustix::io::Result<()> {
        let mode = Mode::RUSR | Mode::WUSR;
        let device = rustix::fs::makedev(numbers.0, numbers.1);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        match rustix::fs::mknodat(dir, name, kind, mode, device) {
            Err(Errno::PERM) if is_device && self.owners != Owners::Native => {}
            other => return other,
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, mode)?;
        let kind = if kind == FileType::BlockDevice { Kind::BlockDevice } else { Kind::CharDevice };
        let record = Record { uid: 0, gid: 0, device: Some((kind, numbers)) };
        rustix::fs::fsetxattr(&file, ATTRIBUTE, record.encode().as_bytes(), XattrFlags::empty())?;
        if self.owners == Owners::Ranged {
            let (uid, gid) = (Uid::from_raw(MARKER), Gid::from_raw(MARKER));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        Ok(())
    }
}

fn record(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Record>> {
    Ok(walk::xattr(dir, name, ATTRIBUTE)?.as_deref().and_then(Record::decode))
}

/// The owners of links, pipes and sockets of a layer.
#[derive(Debug)]
struct Links {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// How much of the file was read.
    length: u64,
    /// By inode number: when it was made, and its owner.
    owners: HashMap<u64, (Made, (u32, u32))>,
}

/// When a file was made; zero where the file system does not keep that.
type Made = (i64, u32);

impl Links {
    fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    fn find(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
    ) -> io::Result<Option<Record>> {
        let found = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            self.read(&mut known)?;
            known.owners.get(&metadata.inode.1).copied()
        };
        let Some((made, (uid, gid))) = found else { return Ok(None) };
        let (_, now) = identity(dir, name)?;
        Ok((made == now).then_some(Record { uid, gid, device: None }))
    }

    /// Whether a name has an owner here.
    fn knows(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
        match walk::metadata(dir, name)? {
            Some(metadata) => Ok(self.find(dir, name, &metadata)?.is_some()),
            None => Ok(false),
        }
    }

    /// Reads what was added since the last time.
    fn read(&self, known: &mut Known) -> io::Result<()> {
        let mut file = match File::from_path(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        file.seek(SeekFrom::Start(known.length))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        for line in bytes.chunks_exact(LINE) {
            let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| line[at + byte]));
            let short = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| line[at + byte]));
            let made = (long(8).cast_signed(), short(16));
            known.owners.insert(long(0), (made, (short(20), short(24))));
            known.length += LINE as u64;
        }
        Ok(())
    }

    fn add(&self, dir: BorrowedFd<'_>, name: &OsStr, owner: (u32, u32)) -> io::Result<()> {
        let (inode, made) = identity(dir, name)?;
        add_link(&self.path, inode, made, owner)
    }
}

/// Notes the owner of a link, pipe or socket in the file at `path`.
///
/// # Errors
/// When the file cannot be written.
fn add_link(path: &Path, inode: u64, made: Made, owner: (u32, u32)) -> io::Result<()> {
    let mut line = [0; LINE];
    line[..8].copy_from_slice(&inode.to_le_bytes());
    line[8..16].copy_from_slice(&made.0.to_le_bytes());
    line[16..20].copy_from_slice(&made.1.to_le_bytes());
    line[20..24].copy_from_slice(&owner.0.to_le_bytes());
    line[24..28].copy_from_slice(&owner.1.to_le_bytes());
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
    File::from(file).write_all(&line)
}

/// Notes the owner of a link, pipe or socket of the layer whose `links` is at `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn note_link(
    path: &Path,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    owner: (u32, u32),
) -> io::Result<()> {
    let (inode, made) = identity(dir, name)?;
    add_link(path, inode, made, owner)
}

/// Number of an inode and when it was made.
fn identity(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<(u64, Made)> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let found = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted)?;
    let has_time = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let made = (found.stx_btime.tv_sec, found.stx_btime.tv_nsec);
    Ok((found.stx_ino, if has_time { made } else { (0, 0) }))
}

/// Opens without naming the path in errors, as they are met by who knows it.
trait FromPath: Sized {
    fn from_path(path: &Path) -> io::Result<Self>;
}

impl FromPath for File {
    fn from_path(path: &Path) -> io::Result<Self> {
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        for device in
            [None, Some((Kind::CharDevice, (1, 3))), Some((Kind::BlockDevice, (259, 70_000)))]
        {
            let record = Record { uid: 4_000_000_000, gid: 0, device };
            assert_eq!(Record::decode(record.encode().as_bytes()), Some(record));
        }
        for text in ["", "1", "1:x", "-1:0", "1:2:d:1:3", "1:2:c:1", "4294967296:0"] {
            assert_eq!(Record::decode(text.as_bytes()), None, "{text}");
        }
        let gone = Record { uid: 1, gid: 2, device: None };
        assert_eq!(Record::decode(b"1:2:c:0:0"), Some(gone), "no deletion");
    }

    /// Any user can keep what one id cannot have.
    #[test]
    fn owners_and_devices_are_kept_beside_files_of_one_id() {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() || !gid.is_root() {
            println!("SKIP: records stand for files of root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("fs");
        fs_err::create_dir(&path).unwrap();
        let dir = walk::open_root(&path).unwrap();
        let keeper = Keeper::new(Owners::Recorded, &path);
        let seen = |name: &str| {
            let name = OsStr::new(name);
            let found = walk::metadata(dir.as_fd(), name).unwrap().unwrap();
            keeper.refine(dir.as_fd(), name, found).unwrap()
        };
        fs_err::write(path.join("file"), "x").unwrap();
        fs_err::os::unix::fs::symlink("file", path.join("link")).unwrap();
        fs_err::os::unix::fs::symlink("file", path.join("other")).unwrap();
        for (name, kind) in [("file", Kind::File), ("link", Kind::Symlink)] {
            keeper.own(dir.as_fd(), OsStr::new(name), kind, (1000, 300_000)).unwrap();
            assert_eq!((seen(name).uid, seen(name).gid), (1000, 300_000), "{name}");
            let raw = walk::metadata(dir.as_fd(), OsStr::new(name)).unwrap().unwrap();
            assert_eq!((raw.uid, raw.gid), (0, 0), "{name}");
        }
        assert_eq!(seen("other").uid, 0);
        // Another link with the number of the one that is gone has nothing of its owner.
        fs_err::rename(path.join("other"), path.join("link")).unwrap();
        assert_eq!(seen("link").uid, 0);

        let kind = FileType::BlockDevice;
        // Root may make the device itself; what a user gets is made by hand.
        keeper.make_node(dir.as_fd(), OsStr::new("real"), kind, (7, 1)).unwrap();
        assert_eq!((seen("real").kind, seen("real").rdev), (Kind::BlockDevice, (7, 1)));
        fs_err::write(path.join("disk"), "").unwrap();
        let record = Record { uid: 5, gid: 6, device: Some((Kind::BlockDevice, (7, 1))) };
        let value = record.encode();
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(path.join("disk"), ATTRIBUTE, value.as_bytes(), flags).unwrap();
        let disk = seen("disk");
        assert_eq!((disk.kind, disk.rdev, disk.uid), (Kind::BlockDevice, (7, 1), 5));
        keeper.own(dir.as_fd(), OsStr::new("disk"), Kind::BlockDevice, (8, 9)).unwrap();
        assert_eq!((seen("disk").rdev, seen("disk").gid), ((7, 1), 9));
    }

    #[test]
    fn a_change_of_owner_outlives_a_record_where_ids_are_at_hand() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: owners need root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("fs");
        fs_err::create_dir(&path).unwrap();
        let dir = walk::open_root(&path).unwrap();
        let keeper = Keeper::new(Owners::Ranged, &path);
        let name = OsStr::new("file");
        fs_err::write(path.join("file"), "x").unwrap();
        let seen = || {
            let found = walk::metadata(dir.as_fd(), name).unwrap().unwrap();
            let found = keeper.refine(dir.as_fd(), name, found).unwrap();
            (found.uid, found.gid)
        };
        keeper.own(dir.as_fd(), name, Kind::File, (MARKER, 4)).unwrap();
        assert_eq!(seen(), (MARKER, 4));
        std::os::unix::fs::lchown(path.join("file"), Some(7), Some(8)).unwrap();
        assert_eq!(seen(), (7, 8));
    }
}
