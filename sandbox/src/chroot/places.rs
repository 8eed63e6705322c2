//! What other tiers mount, put into the tree of a step and taken out again.
//!
//! ```text
//! <tree>/../aside/<n>    what was at the n-th place before
//! <tree>/../aside/<n>x   what the step left there
//! ```
//!
//! The folder is there for whoever made the tree to remove, between two steps at the latest.
//!
//! Whatever is at a place is renamed aside, something new is made or moved there, and after the step both are swapped
//! back. So nothing of it gets into the layer, and what the image has there is as it was, whatever the step did.
//!
//! Invariants:
//! - No process of the step runs while things are moved.
//! - Names are looked up inside the tree by the kernel, and changed in directories held open meanwhile: that is where
//!   things go back, wherever the step has moved those directories.
//! - The times of the directories around a place are what the step made them.
//! - A secret is in the tree for as long as the step runs; if the builder is killed meanwhile it goes with the tree,
//!   which the next builder removes.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps,
    UTIME_OMIT, Uid, fchmod, fchown, fstat, linkat, makedev, mkdirat, mknodat, open, openat,
    openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::SandboxError;
use crate::spec::{MountKind, Root, Spec, clean};
use crate::step::{LINKS, NODES};

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = PATH_ONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Folders of `/dev`, and their modes.
const FOLDERS: [(&str, u32); 3] = [("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)];

/// Files that the builder gives to every step.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Everything that was put into a tree.
#[derive(Debug)]
pub(crate) struct Places {
    root: OwnedFd,
    aside: OwnedFd,
    done: Vec<Place>,
}

/// One of them.
#[derive(Debug)]
struct Place {
    target: PathBuf,
    /// The directory that it is in, and its name there.
    parent: OwnedFd,
    name: OsString,
    /// Whether something was there before.
    hides: bool,
    /// The directory as it was before.
    before: Stat,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Made for the step, and of no use afterwards.
    Made,
    /// A file of the builder's with this content.
    File(Vec<u8>),
    /// Moved there from elsewhere.
    Moved { source: PathBuf, note: Option<PathBuf>, identity: Identity },
}

/// What tells whether something is still the same: device, inode and kind. A number is used again for something new.
type Identity = (u64, u64, FileType);

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino, FileType::from_raw_mode(stat.st_mode))
}

type Outcome<T> = Result<T, SandboxError>;

trait During<T> {
    fn during(self, action: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during(self, action: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|errno| SandboxError::Setup { action: action(), source: errno.into() })
    }
}

impl<T> During<T> for std::io::Result<T> {
    fn during(self, action: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|source| SandboxError::Setup { action: action(), source })
    }
}

impl Places {
    /// Puts everything into the tree of a step. After an error nothing is left in it.
    pub(crate) fn put(spec: &Spec) -> Outcome<Self> {
        let Root::Dir(tree) = &spec.root else {
            return Err(SandboxError::Unusable { what: "a root of layers" });
        };
        let root = open(tree, DIRECTORY, Mode::empty())
            .during(|| format!("open the tree `{}`", tree.display()))?;
        let aside_path = tree.with_file_name("aside");
        let action = || format!("make the folder `{}`", aside_path.display());
        match mkdirat(CWD, &aside_path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).during(action),
        }
        let aside = open(&aside_path, DIRECTORY, Mode::empty()).during(action)?;
        let mut places = Self { root, aside, done: Vec::new() };
        match places.put_all(spec) {
            Ok(()) => Ok(places),
            Err(error) => {
                places.take_back()?;
                Err(error)
            }
        }
    }

    fn put_all(&mut self, spec: &Spec) -> Outcome<()> {
        let mut mounts: Vec<(PathBuf, &MountKind)> =
            spec.mounts.iter().map(|mount| (clean(&mount.target), &mount.kind)).collect();
        // What is mounted in something else comes after it; of two with one target the later one counts.
        mounts.sort_by(|a, b| a.0.cmp(&b.0));
        let is_users = |target: &str| mounts.iter().any(|(at, _)| at == Path::new(target));
        for target in ["/proc", "/sys"].into_iter().filter(|target| !is_users(target)) {
            self.directory(Path::new(target), 0o555)?;
        }
        if !is_users("/dev") {
            self.devices()?;
        }
        for (target, contents) in FILES.into_iter().zip([&spec.resolv_conf, &spec.hosts]) {
            if !is_users(target) {
                self.file(Path::new(target), contents, 0o644, (0, 0))?;
                self.filled(What::File(contents.clone()))?;
            }
        }
        for (target, kind) in mounts {
            self.mount(&target, kind)?;
        }
        Ok(())
    }

    fn mount(&mut self, target: &Path, kind: &MountKind) -> Outcome<()> {
        match kind {
            MountKind::Tmpfs { .. } => self.directory(target, 0o1777),
            MountKind::File { contents, mode, uid, gid } => {
                self.file(target, contents, *mode, (*uid, *gid))?;
                self.filled(What::Made)
            }
            MountKind::Moved { source, note } => self.moved(target, source, note.as_deref()),
            MountKind::Bind { source, sub } if sub.as_os_str().is_empty() && is_socket(source) => {
                self.clear(target)?;
                let (parent, name) = self.last();
                linkat(CWD, source, parent, name, AtFlags::empty())
                    .during(|| format!("put a socket at `{}`", target.display()))?;
                self.filled(What::Made)
            }
            MountKind::Bind { .. } | MountKind::Overlay { .. } => {
                Err(SandboxError::Unusable { what: "a mount of folders" })
            }
        }
    }

    fn devices(&mut self) -> Outcome<()> {
        self.directory(Path::new("/dev"), 0o755)?;
        let dev = {
            let (parent, name) = self.last();
            openat(parent, name, DIRECTORY, Mode::empty()).during(|| "open `/dev`".to_owned())?
        };
        for (name, major, minor) in NODES {
            let action = || {
                format!(
                    "make the device `/dev/{name}` (the builder needs CAP_MKNOD, and a state folder that takes devices)"
                )
            };
            let mode = Mode::from_raw_mode(0o666);
            mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor))
                .during(action)?;
            set_mode(&dev, name, 0o666).during(action)?;
        }
        // Without `/proc` and terminals they lead nowhere, which is what there is.
        for (target, link) in LINKS {
            symlinkat(target, &dev, link).during(|| format!("make `/dev/{link}`"))?;
        }
        for (name, mode) in FOLDERS {
            let action = || format!("make `/dev/{name}`");
            mkdirat(&dev, name, Mode::RWXU).during(action)?;
            set_mode(&dev, name, mode).during(action)?;
        }
        Ok(())
    }

    fn directory(&mut self, target: &Path, mode: u32) -> Outcome<()> {
        self.clear(target)?;
        let (parent, name) = self.last();
        let action = || format!("make `{}`", target.display());
        mkdirat(parent, name, Mode::RWXU).during(action)?;
        set_mode(parent, name, mode).during(action)?;
        self.filled(What::Made)
    }

    fn file(
        &mut self,
        target: &Path,
        contents: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
    ) -> Outcome<()> {
        self.clear(target)?;
        let (parent, name) = self.last();
        let action = || format!("make the file `{}`", target.display());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).during(action)?;
        let mut file = std::fs::File::from(file);
        file.write_all(contents).during(action)?;
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).during(action)?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).during(action)
    }

    fn moved(&mut self, target: &Path, source: &Path, note: Option<&Path>) -> Outcome<()> {
        let action = || format!("move `{}` to `{}`", source.display(), target.display());
        self.clear(target)?;
        let stat = statat(CWD, source, AtFlags::SYMLINK_NOFOLLOW).during(action)?;
        let (parent, name) = self.last();
        if let Some(note) = note {
            let place = place_of(parent).during(action)?.join(name);
            symlinkat(place, CWD, note).during(action)?;
        }
        let moved = renameat(CWD, source, parent, name);
        if let (Err(_), Some(note)) = (&moved, note) {
            let _ = unlinkat(CWD, note, AtFlags::empty());
        }
        moved.during(action)?;
        let what = What::Moved {
            source: source.to_owned(),
            note: note.map(Path::to_owned),
            identity: identity(&stat),
        };
        self.filled(what)
    }

    /// Renames aside what is at a place, so that something new can be there.
    fn clear(&mut self, target: &Path) -> Outcome<()> {
        let (parent, name) = self.resolve(target)?;
        let action = || format!("make room for `{}`", target.display());
        let before = fstat(&parent).during(action)?;
        let hides = match renameat(&parent, &name, &self.aside, self.done.len().to_string()) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(errno).during(action),
        };
        let target = target.to_owned();
        self.done.push(Place { target, parent, name, hides, before, what: What::Made });
        Ok(())
    }

    /// Notes that something is at the last place now, which leaves the times around it.
    fn filled(&mut self, what: What) -> Outcome<()> {
        let Some(place) = self.done.last_mut() else { return Ok(()) };
        place.what = what;
        set_times(&place.parent, &place.before)
            .during(|| format!("keep the times around `{}`", place.target.display()))
    }

    /// The directory that holds a place, which is made if it is missing, and the name in it.
    fn resolve(&self, target: &Path) -> Outcome<(OwnedFd, OsString)> {
        let action = || format!("find `{}` in the tree", target.display());
        // What is there may be a link, which leads to the place meant.
        let found = match openat2(&self.root, target, PATH_ONLY, Mode::empty(), INSIDE) {
            Ok(found) => {
                let (top, found) =
                    (place_of(&self.root).during(action)?, place_of(&found).during(action)?);
                match found.strip_prefix(&top) {
                    Ok(inside) => Path::new("/").join(inside),
                    Err(_) => return Err(Errno::XDEV).during(action),
                }
            }
            Err(Errno::NOENT) => target.to_owned(),
            Err(errno) => return Err(errno).during(action),
        };
        let (Some(parent), Some(name)) = (found.parent(), found.file_name()) else {
            return Err(Errno::BUSY).during(action);
        };
        let mut at = self.root.try_clone().during(action)?;
        for part in parent.components() {
            let Component::Normal(part) = part else { continue };
            at = match openat(&at, part, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(&at, part, Mode::from_raw_mode(0o755)).during(action)?;
                    openat(&at, part, DIRECTORY, Mode::empty()).during(action)?
                }
                other => other.during(action)?,
            };
        }
        Ok((at, name.to_owned()))
    }

    /// Where the last place is.
    fn last(&self) -> (&OwnedFd, &OsStr) {
        let place = self.done.last().expect("asked for right after a place was cleared");
        (&place.parent, &place.name)
    }

    /// Whether a node of one of the machine's devices would not open, as in a container whose devices are confined.
    pub(crate) fn devices_are_confined(&self) -> bool {
        const LOOP: (u32, u32) = (7, 0);
        let mode = Mode::RUSR;
        let device = makedev(LOOP.0, LOOP.1);
        if mknodat(&self.aside, "probe", FileType::BlockDevice, mode, device).is_err() {
            // The step could make none either.
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&self.aside, "probe", flags, Mode::empty());
        let _ = unlinkat(&self.aside, "probe", AtFlags::empty());
        matches!(opened, Err(Errno::PERM | Errno::ACCESS))
    }

    /// Takes everything out again; says what the step did that has no effect.
    pub(crate) fn take_back(mut self) -> Outcome<Vec<String>> {
        let mut remarks = Vec::new();
        let mut first = Ok(());
        // The last first: it may be in another one.
        while let Some(place) = self.done.pop() {
            let number = self.done.len();
            if let Err(error) = self.take(number, &place, &mut remarks) {
                first = first.and(Err(error));
            }
        }
        first.map(|()| remarks)
    }

    fn take(&self, number: usize, place: &Place, remarks: &mut Vec<String>) -> Outcome<()> {
        let target = place.target.display();
        let action = || format!("put back what was at `{target}`");
        let before = fstat(&place.parent).during(action)?;
        let found = statat(&place.parent, &place.name, AtFlags::SYMLINK_NOFOLLOW);
        match (&place.what, &found) {
            (What::File(contents), found) if !self.is_file(place, found, contents) => {
                remarks.push(format!(
                    "the step changed `{target}`, which is the builder's while it runs: the image keeps its own"
                ));
            }
            (What::Moved { source, identity: it, .. }, Ok(stat)) if *it == identity(stat) => {
                renameat(&place.parent, &place.name, CWD, source).during(action)?;
            }
            (What::Moved { source, .. }, _) => {
                remarks.push(format!(
                    "the step moved or removed `{target}`, where something was mounted: what was in it is not kept"
                ));
                mkdirat(CWD, source, Mode::from_raw_mode(0o755)).during(action)?;
            }
            _ => {}
        }
        if let What::Moved { note: Some(note), .. } = &place.what {
            unlinkat(CWD, note, AtFlags::empty()).during(action)?;
        }
        let left = format!("{number}x");
        match renameat(&place.parent, &place.name, &self.aside, &left) {
            // A file, which may be a secret, goes at once.
            Ok(()) => drop(unlinkat(&self.aside, &left, AtFlags::empty())),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).during(action),
        }
        if place.hides {
            match renameat(&self.aside, number.to_string(), &place.parent, &place.name) {
                // The step removed the directory, and with it what was there.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).during(action),
            }
        }
        set_times(&place.parent, &before).during(action)
    }

    /// Whether a file of the builder's is still what it was.
    fn is_file(&self, place: &Place, found: &rustix::io::Result<Stat>, contents: &[u8]) -> bool {
        let is_same = |stat: &Stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && usize::try_from(stat.st_size).is_ok_and(|size| size == contents.len())
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        found.as_ref().is_ok_and(is_same)
            && openat(&place.parent, &place.name, flags, Mode::empty()).is_ok_and(|file| {
                let mut bytes = Vec::new();
                let mut file = std::fs::File::from(file);
                std::io::Read::read_to_end(&mut file, &mut bytes).is_ok() && bytes == contents
            })
    }
}

fn is_socket(path: &Path) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

/// The path of an open file or directory.
fn place_of(fd: &OwnedFd) -> std::io::Result<PathBuf> {
    fs_err::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Sets the mode of what the builder has just made, whatever the umask.
fn set_mode(dir: &OwnedFd, name: impl AsRef<OsStr>, mode: u32) -> rustix::io::Result<()> {
    let name = name.as_ref().as_bytes();
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Gives a directory the time of change of its content that it had.
fn set_times(dir: &OwnedFd, before: &Stat) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: before.st_mtime,
            tv_nsec: i64::try_from(before.st_mtime_nsec).unwrap_or(0),
        },
    };
    utimensat(dir, ".", &times, AtFlags::empty())
}
