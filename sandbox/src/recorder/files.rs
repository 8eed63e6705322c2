//! Owners and devices of the files of a step.
//!
//! A path is looked up by taking the caller's place: its root and its working directory, or the descriptor that the
//! call names. Then what is found is a descriptor, and everything else is done with that.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, XattrFlags, chownat, fchmod, fstat, open,
    openat, readlinkat,
};
use rustix::io::Errno;
use tree::Kind;
use tree::owner::{ATTRIBUTE, LINKS, Record, note_link};

use super::identity::Identity;

/// "No change".
const SAME: u32 = u32::MAX;

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The files that a step can reach.
pub(super) struct Files {
    /// The recorder's own root.
    root: OwnedFd,
    /// `/proc`, in which all processes of the step are.
    processes: OwnedFd,
    /// The folder that takes what the step changes.
    upper: Option<OwnedFd>,
    links: PathBuf,
}

impl Files {
    pub(super) fn new(upper: &Path) -> rustix::io::Result<Self> {
        let directory = PATH_ONLY | OFlags::DIRECTORY;
        Ok(Self {
            root: open("/", directory, Mode::empty())?,
            processes: open("/proc", directory, Mode::empty())?,
            upper: open(upper, directory, Mode::empty()).ok(),
            links: upper.with_file_name(LINKS),
        })
    }

    /// Opens what a link in the folder of a process in `/proc` leads to.
    fn of_process(&self, pid: u32, link: &str) -> rustix::io::Result<OwnedFd> {
        openat(&self.processes, format!("{pid}/{link}"), PATH_ONLY, Mode::empty())
    }

    /// Runs `look` where relative and absolute paths mean what they mean to a process.
    fn in_place_of<T>(
        &self,
        pid: u32,
        dir: i64,
        look: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        let root = self.of_process(pid, "root")?;
        let start = if dir == i64::from(libc::AT_FDCWD) {
            self.of_process(pid, "cwd")?
        } else {
            self.of_process(pid, &format!("fd/{dir}"))?
        };
        rustix::process::fchdir(&root)?;
        rustix::process::chroot(".")?;
        // What is no directory is of no matter to an absolute path.
        let entered = rustix::process::fchdir(&start);
        let found = match entered {
            Ok(()) | Err(Errno::NOTDIR) => look(),
            Err(errno) => Err(errno),
        };
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        found
    }

    /// The path of a descriptor of the process's own, if that is what a path names.
    fn descriptor_of(path: &Path) -> Option<i32> {
        let rest = path.strip_prefix("/proc/self/fd").or_else(|_| path.strip_prefix("/dev/fd"));
        rest.ok()?.to_str()?.parse().ok()
    }

    /// Changes the owner of a path.
    pub(super) fn chown(
        &self,
        pid: u32,
        dir: i64,
        path: &Path,
        owner: (u32, u32),
        follow: bool,
        who: &Identity,
    ) -> rustix::io::Result<()> {
        if let (true, Some(descriptor)) = (follow, Self::descriptor_of(path)) {
            return self.chown_descriptor(pid, descriptor, owner, who);
        }
        let flags = if follow { PATH_ONLY } else { PATH_ONLY | OFlags::NOFOLLOW };
        let found = self.in_place_of(pid, dir, || open(path, flags, Mode::empty()))?;
        self.own(&found, owner, who)
    }

    /// Changes the owner of an open file.
    pub(super) fn chown_descriptor(
        &self,
        pid: u32,
        descriptor: i32,
        owner: (u32, u32),
        who: &Identity,
    ) -> rustix::io::Result<()> {
        let found = self
            .of_process(pid, &format!("fd/{descriptor}"))
            .map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })?;
        self.own(&found, owner, who)
    }

    fn own(
        &self,
        file: &OwnedFd,
        (uid, gid): (u32, u32),
        who: &Identity,
    ) -> rustix::io::Result<()> {
        let stat = fstat(file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let path = path_of(file);
        let keeps_attributes = matches!(kind, FileType::RegularFile | FileType::Directory);
        let before = if keeps_attributes { record_at(&path)? } else { None };
        let old = before.map_or((0, 0), |record| (record.uid, record.gid));
        let new = (if uid == SAME { old.0 } else { uid }, if gid == SAME { old.1 } else { gid });
        if who.effective() != 0 {
            let is_own = who.owner().0 == old.0 && new.0 == old.0;
            if !is_own || !(new.1 == old.1 || who.is_in(new.1)) {
                return Err(Errno::PERM);
            }
        }
        // What comes with a change of owner: a copy in the layer, a new time, no set-id bits, no capabilities.
        let touch = |id: u32| (id != SAME).then_some(());
        let (touched_uid, touched_gid) =
            (touch(uid).map(|()| Uid::ROOT), touch(gid).map(|()| Gid::ROOT));
        chownat(file, "", touched_uid, touched_gid, AtFlags::EMPTY_PATH)?;
        if keeps_attributes {
            if new == old && before.is_some() {
                return Ok(());
            }
            let device = before.and_then(|record| record.device);
            return set_record(&path, Record { uid: new.0, gid: new.1, device });
        }
        self.note(file, &stat, new)
    }

    /// Notes the owner of what keeps no attributes, if it is in the layer of the step.
    fn note(&self, file: &OwnedFd, stat: &Stat, owner: (u32, u32)) -> rustix::io::Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        // As the namespace of the step has it, whatever its process has for a root.
        let Ok(path) = readlinkat(&self.processes, self.link_to(file), Vec::new()) else {
            return Ok(());
        };
        let path = Path::new(OsStr::from_bytes(path.as_bytes())).to_owned();
        let Some((parent, name)) = inside(&path) else { return Ok(()) };
        let Some(dir) = open_below(upper.as_fd(), &parent) else { return Ok(()) };
        // Something of the same name in another mount is not meant.
        let same = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| found.st_mode == stat.st_mode && found.st_size == stat.st_size);
        if same {
            note_link(&self.links, dir.as_fd(), name.as_os_str(), owner)
                .map_err(super::errno_of)?;
        }
        Ok(())
    }

    /// Makes an empty file that stands for a device.
    pub(super) fn make_device(
        &self,
        pid: u32,
        dir: i64,
        path: &Path,
        mode: u32,
        numbers: (u32, u32),
        who: &Identity,
    ) -> rustix::io::Result<()> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.in_place_of(pid, dir, || open(path, flags, Mode::RUSR | Mode::WUSR))?;
        let mask = self.mask_of(pid);
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777 & !mask))?;
        let kind =
            if mode & libc::S_IFMT == libc::S_IFBLK { Kind::BlockDevice } else { Kind::CharDevice };
        let (uid, gid) = who.owner();
        let record = Record { uid, gid, device: Some((kind, numbers)) };
        set_record(&path_of(&file), record)
    }

    /// The mask of permissions of a process.
    fn mask_of(&self, pid: u32) -> u32 {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file =
                openat(&self.processes, format!("{pid}/status"), flags, Mode::empty()).ok()?;
            let mut text = vec![0; 512];
            let length = rustix::io::read(&file, &mut text[..]).ok()?;
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        };
        read().unwrap_or(0o022)
    }

    fn link_to(&self, file: &OwnedFd) -> String {
        format!("{}/fd/{}", std::process::id(), file.as_raw_fd())
    }
}

/// A path that leads to an open file, for attributes.
fn path_of(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The directory and the name of an absolute path, in which there is nothing that leads elsewhere.
fn inside(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let relative = path.strip_prefix("/").ok()?;
    let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let name = relative.file_name()?;
    is_plain.then(|| (relative.parent().unwrap_or(Path::new("")).to_owned(), name.into()))
}

/// Opens a directory some levels below another, following nothing.
fn open_below(root: BorrowedFd<'_>, path: &Path) -> Option<OwnedFd> {
    let flags = PATH_ONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut at = root.try_clone_to_owned().ok()?;
    for name in path {
        at = openat(&at, name, flags, Mode::empty()).ok()?;
    }
    Some(at)
}

fn record_at(path: &Path) -> rustix::io::Result<Option<Record>> {
    let mut value = [0; 128];
    match rustix::fs::getxattr(path, ATTRIBUTE, &mut value[..]) {
        Ok(length) => Ok(Record::decode(&value[..length])),
        // What is none of ours says nothing.
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn set_record(path: &Path, record: Record) -> rustix::io::Result<()> {
    let value = record.encode();
    match rustix::fs::setxattr(path, ATTRIBUTE, value.as_bytes(), XattrFlags::empty()) {
        // Not a place where anything is kept for the image.
        Err(Errno::NOTSUP) => Ok(()),
        other => other,
    }
}
