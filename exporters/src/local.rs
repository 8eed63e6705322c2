//! The `local` exporter: the files of a result in a folder.
//!
//! Files belong to the caller; modes, links, hard links and times are kept. What is in the folder already
//! stays, unless a file has the same name or `mode=delete` was asked for.
//!
//! Invariant: nothing is written outside the folder. The result is hostile, and so is what an earlier one
//! left there: every directory is opened from its parent without following links, and a link that is in
//! the way is replaced.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use llb::Platform;
use rayon::prelude::*;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use tree::stack::Stack;
use tree::{DirEntry, FileData, Kind, Metadata, View};

use crate::{ExportError, ImageResult, Output, Stop, mirror};

/// The files of one platform.
pub(crate) struct Root<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) files: Stack,
    /// Seconds since the epoch that every time is set to.
    pub(crate) epoch: Option<i64>,
    /// Files that say something about the others.
    pub(crate) said: Vec<(String, Vec<u8>)>,
}

/// The files of all platforms.
pub(crate) struct Roots<'a> {
    /// Whether each platform has a folder of its own.
    pub(crate) split: bool,
    pub(crate) roots: Vec<Root<'a>>,
}

/// Unpacks the result; platforms that share a folder must not have files of one name.
pub(crate) fn roots<'a>(
    result: &'a ImageResult,
    output: &Output,
) -> Result<Roots<'a>, ExportError> {
    let mut roots = Vec::with_capacity(result.platforms.len());
    for result in &result.platforms {
        let epoch = output.image.source_date_epoch.or(result.source_date_epoch);
        let files = result.reference.stack()?;
        roots.push(Root { platform: &result.platform, files, epoch, said: Vec::new() });
    }
    let split = output.platform_split.unwrap_or(roots.len() > 1);
    for (number, root) in roots.iter_mut().enumerate() {
        let prefix = &output.attestation_prefix;
        root.said = crate::attest::files(result, number, &root.files, prefix, split)?;
    }
    if !split && roots.len() > 1 {
        let mut owners = HashMap::new();
        for (number, root) in roots.iter().enumerate() {
            find_collisions(&roots, number, &root.files, Path::new(""), &mut owners)?;
        }
    }
    Ok(Roots { split, roots })
}

/// Notes which platform has a path, and whether it is a directory.
fn find_collisions(
    roots: &[Root<'_>],
    number: usize,
    files: &Stack,
    path: &Path,
    owners: &mut HashMap<PathBuf, (usize, bool)>,
) -> Result<(), ExportError> {
    let entries = files
        .read_dir(path)
        .map_err(|source| ExportError::File { path: path.to_owned(), source })?;
    for entry in entries {
        let path = path.join(&entry.name);
        let is_dir = entry.metadata.kind == Kind::Dir;
        let (owner, was_dir) = *owners.entry(path.clone()).or_insert((number, is_dir));
        if owner != number && !(is_dir && was_dir) {
            return Err(ExportError::Collision {
                path: path.display().to_string(),
                first: roots[owner].platform.to_string(),
                second: roots[number].platform.to_string(),
            });
        }
        if is_dir {
            find_collisions(roots, number, files, &path, owners)?;
        }
    }
    Ok(())
}

/// Writes the files of all platforms; with several, each has a folder of its own.
///
/// # Errors
/// When the files cannot be read or the folder not be written. What was written until then stays.
pub fn write(result: &ImageResult, output: &Output, folder: &Path) -> Result<(), ExportError> {
    let Roots { split, roots } = roots(result, output)?;
    let failed = |source| ExportError::Write { path: folder.to_owned(), source };
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs_err::create_dir_all(parent).map_err(failed)?;
    }
    match fs::mkdir(folder, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error.into())),
    }
    // The folder itself is the caller's: a link to it is followed, and it keeps its metadata.
    let target = fs::open(folder, FOLDER - OFlags::NOFOLLOW, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    if output.delete && split {
        let kept = roots.iter().map(|root| root.platform.directory_name().into()).collect();
        mirror::remove_except(&kept, target.as_fd()).map_err(failed)?;
    } else if output.delete {
        let trees: Vec<&Stack> = roots.iter().map(|root| &root.files).collect();
        mirror::remove_others(&trees, Path::new(""), target.as_fd(), &output.image.stop)?;
    }
    for root in &roots {
        let copy = Copy {
            view: &root.files,
            epoch: root.epoch,
            several: Mutex::default(),
            stop: &output.image.stop,
        };
        if !split {
            copy.run(target.as_fd())?;
            said(root, target.as_fd())?;
            continue;
        }
        let name = OsString::from(root.platform.directory_name());
        let dir = open_dir(target.as_fd(), &name).map_err(|source| ExportError::Write {
            path: folder.join(&name),
            source: source.into(),
        })?;
        fs::fchmod(&dir, Mode::from_raw_mode(0o755)).map_err(|error| failed(error.into()))?;
        if output.delete {
            mirror::remove_others(&[&root.files], Path::new(""), dir.as_fd(), &output.image.stop)?;
        }
        copy.run(dir.as_fd())?;
        said(root, dir.as_fd())?;
        if let Some(seconds) = root.epoch {
            fs::futimens(&dir, &times(seconds, 0)).map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

/// Writes what is said about the files beside them.
fn said(root: &Root<'_>, dir: BorrowedFd<'_>) -> Result<(), ExportError> {
    for (name, text) in &root.said {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let name = OsStr::new(name);
        let write = || -> io::Result<()> {
            let open = || fs::openat(dir, name, flags, private);
            let mut file = File::from(make(dir, name, open)?);
            io::Write::write_all(&mut file, text)?;
            if let Some(seconds) = root.epoch {
                fs::futimens(&file, &times(seconds, 0))?;
            }
            Ok(())
        };
        write().map_err(|source| ExportError::File { path: name.into(), source })?;
    }
    Ok(())
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes copied between two looks at whether to stop.
const PIECE: u64 = 16 << 20;

/// What must get its mode and time later, when the files with several names are made.
#[derive(Default)]
struct Unfinished {
    /// The directory that was copied.
    itself: bool,
    /// Directories below it.
    directories: Vec<(PathBuf, Metadata)>,
}

/// Copies one tree.
struct Copy<'a> {
    view: &'a Stack,
    epoch: Option<i64>,
    /// Files with several names, which are made last, one after the other.
    several: Mutex<Vec<(PathBuf, Metadata)>>,
    stop: &'a Stop,
}

impl Copy<'_> {
    fn run(self, target: BorrowedFd<'_>) -> Result<(), ExportError> {
        let mut unfinished = self.directory(Path::new(""), target)?.directories;
        let mut several =
            std::mem::take(&mut *self.several.lock().unwrap_or_else(PoisonError::into_inner));
        several.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for (path, metadata) in several {
            let done = self.one_of_several(target, &path, &metadata, &mut first);
            done.map_err(|source| ExportError::File { path, source })?;
        }
        // Deepest first, as a finished directory may not let its children be reached.
        unfinished.sort_by(|(a, _), (b, _)| b.cmp(a));
        for (path, metadata) in unfinished {
            let done = parent_of(target, &path).and_then(|(parent, name)| {
                self.finish_directory(
                    fs::openat(parent.as_fd(), name, FOLDER, Mode::empty())?.as_fd(),
                    &metadata,
                )
            });
            done.map_err(|source| ExportError::File { path, source })?;
        }
        Ok(())
    }

    /// Copies what is in a directory, on several threads, except for files with several names.
    fn directory(&self, path: &Path, target: BorrowedFd<'_>) -> Result<Unfinished, ExportError> {
        let failed = |path: &Path, source| ExportError::File { path: path.to_owned(), source };
        let entries = self.view.read_dir(path).map_err(|source| failed(path, source))?;
        let copied = entries.par_iter().map(|entry| {
            let path = path.join(&entry.name);
            self.stop.check().map_err(|source| failed(&path, source))?;
            if entry.metadata.kind == Kind::Dir {
                return self.subdirectory(&path, entry, target);
            }
            if entry.metadata.links > 1 && entry.metadata.kind != Kind::Symlink {
                let mut several = self.several.lock().unwrap_or_else(PoisonError::into_inner);
                several.push((path, entry.metadata.clone()));
                return Ok(Unfinished { itself: true, directories: Vec::new() });
            }
            self.one(&path, entry, target).map_err(|source| failed(&path, source))?;
            Ok(Unfinished::default())
        });
        copied.try_reduce(Unfinished::default, |mut all, mut more| {
            all.directories.append(&mut more.directories);
            Ok(Unfinished { itself: all.itself || more.itself, ..all })
        })
    }

    fn subdirectory(
        &self,
        path: &Path,
        entry: &DirEntry,
        parent: BorrowedFd<'_>,
    ) -> Result<Unfinished, ExportError> {
        let failed = |source| ExportError::File { path: path.to_owned(), source };
        let dir = open_dir(parent, &entry.name).map_err(|error| failed(error.into()))?;
        let Unfinished { itself, mut directories } = self.directory(path, dir.as_fd())?;
        if itself || !directories.is_empty() {
            directories.push((path.to_owned(), entry.metadata.clone()));
        } else {
            self.finish_directory(dir.as_fd(), &entry.metadata).map_err(failed)?;
        }
        Ok(Unfinished { itself: false, directories })
    }

    fn one_of_several(
        &self,
        target: BorrowedFd<'_>,
        path: &Path,
        metadata: &Metadata,
        first: &mut HashMap<(u64, u64), PathBuf>,
    ) -> io::Result<()> {
        let (parent, name) = parent_of(target, path)?;
        let Some(existing) = first.get(&metadata.inode) else {
            first.insert(metadata.inode, path.to_owned());
            let entry = DirEntry { name: name.to_owned(), metadata: metadata.clone() };
            return self.one(path, &entry, parent.as_fd());
        };
        let (from, from_name) = parent_of(target, existing)?;
        make(parent.as_fd(), name, || {
            fs::linkat(&from, from_name, &parent, name, AtFlags::empty())
        })?;
        Ok(())
    }

    /// Makes anything but a directory.
    fn one(&self, path: &Path, entry: &DirEntry, parent: BorrowedFd<'_>) -> io::Result<()> {
        let (name, metadata) = (entry.name.as_os_str(), &entry.metadata);
        let private = Mode::RUSR | Mode::WUSR;
        let node = |kind: FileType| {
            let device = fs::makedev(metadata.rdev.0, metadata.rdev.1);
            make(parent, name, || fs::mknodat(parent, name, kind, private, device))
        };
        match metadata.kind {
            Kind::File => return self.file(path, name, metadata, parent),
            Kind::Symlink => {
                let link = self.view.read_link(path)?;
                make(parent, name, || fs::symlinkat(&link, parent, name))?;
            }
            Kind::Fifo => node(FileType::Fifo)?,
            Kind::CharDevice => node(FileType::CharacterDevice)?,
            Kind::BlockDevice => node(FileType::BlockDevice)?,
            Kind::Socket | Kind::Dir => return Ok(()),
        }
        if metadata.kind != Kind::Symlink {
            fs::chmodat(parent, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())?;
        }
        fs::utimensat(parent, name, &self.times(metadata), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn file(
        &self,
        path: &Path,
        name: &OsStr,
        metadata: &Metadata,
        parent: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let mut source = self.view.open(path)?;
        let mut file = File::from(make(parent, name, || fs::openat(parent, name, flags, private))?);
        if let Err(error) = self.content(&mut source, &mut file) {
            // A file is there in full or not at all.
            let _ = fs::unlinkat(parent, name, AtFlags::empty());
            return Err(error);
        }
        fs::fchmod(&file, Mode::from_raw_mode(metadata.mode))?;
        fs::futimens(&file, &self.times(metadata))?;
        Ok(())
    }

    /// Copies what is in a file, in pieces, so that it can be stopped.
    fn content(&self, source: &mut FileData, file: &mut File) -> io::Result<()> {
        loop {
            self.stop.check()?;
            if io::copy(&mut source.take(PIECE), file)? < PIECE {
                return Ok(());
            }
        }
    }

    fn finish_directory(&self, dir: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
        fs::fchmod(dir, Mode::from_raw_mode(metadata.mode))?;
        Ok(fs::futimens(dir, &self.times(metadata))?)
    }

    fn times(&self, metadata: &Metadata) -> Timestamps {
        match self.epoch {
            Some(seconds) => times(seconds, 0),
            None => times(metadata.mtime.seconds, metadata.mtime.nanoseconds),
        }
    }
}

fn times(seconds: i64, nanoseconds: u32) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// Runs `create`, again after removing what is in the way.
fn make<T>(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    create: impl Fn() -> rustix::io::Result<T>,
) -> io::Result<T> {
    match create() {
        Err(Errno::EXIST) => {}
        done => return Ok(done?),
    }
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => remove_tree(parent, name)?,
        done => done?,
    }
    Ok(create()?)
}

/// Opens a directory, even one that an earlier export closed to its owner; it gets its mode again when it is finished.
pub(crate) fn open_own(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match fs::openat(parent, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {}
        opened => return opened,
    }
    let found = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    fs::openat(parent, name, FOLDER, Mode::empty())
}

/// Removes a directory that a file takes the place of.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let dir = open_own(parent, name)?;
    let entries: Vec<_> = fs::Dir::read_from(&dir)?.collect::<Result<_, _>>()?;
    for entry in entries {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match fs::unlinkat(&dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(dir.as_fd(), name)?,
            done => done?,
        }
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Opens the directory `name`, made if need be in the place of anything else.
fn open_dir(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => return fs::openat(parent, name, FOLDER, Mode::empty()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let existing = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(existing.st_mode) != FileType::Directory {
        fs::unlinkat(parent, name, AtFlags::empty())?;
        fs::mkdirat(parent, name, Mode::RWXU)?;
    } else if !Mode::from_raw_mode(existing.st_mode).contains(Mode::RWXU) {
        // Closed to its owner by an earlier export; it gets its mode again when it is finished.
        fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
    }
    fs::openat(parent, name, FOLDER, Mode::empty())
}

/// Opens the directory that `path` is in, and gives its name there.
fn parent_of<'p>(root: BorrowedFd<'_>, path: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut dir = root.try_clone_to_owned()?;
    for part in path.parent().into_iter().flatten() {
        dir = fs::openat(&dir, part, FOLDER, Mode::empty())?;
    }
    Ok((dir, name))
}
