//! The build context: a user's folder, as the build may see it.
//!
//! Owners are 0:0, the root's own metadata does not count, and what the ignore file matches is not there.
//! Nothing is read before it is asked for: a `COPY` of one file looks at one file.
//!
//! Hashes of file contents are kept between builds in a stat cache (`stat_cache`), and those of whole
//! directories beside it (`folder_cache`), so that an unchanged context costs one `stat` per file.
//!
//! A directory is listed once, and a path that is asked for by itself is looked at once: what is copied is what was
//! hashed. What has changed by the time it is read raises a [flag](Context::has_changed).

mod folder_cache;
mod stat_cache;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::data::is_unchanged;
use crate::path::split;
use crate::pattern::{Inherited, Patterns};
use crate::recent::Recent;
use crate::{DirEntry, FileData, Kind, Metadata, Stop, Timestamp, TreeError, View, content, walk};
use folder_cache::FolderCache;
use stat_cache::{Clock, StatCache};

/// Times a file is hashed again because it changed meanwhile.
const ATTEMPTS: usize = 4;

/// [`View`] of a build context.
#[derive(Debug)]
pub struct Context {
    root: Arc<OwnedFd>,
    clock: Clock,
    opened: Timestamp,
    ignore: Patterns,
    recent: Recent<OwnedFd>,
    stat_cache: StatCache,
    folder_cache: FolderCache,
    listed: Listed,
    /// Paths that were asked for before their directories were listed.
    looked_at: Mutex<HashMap<PathBuf, Metadata>>,
    changed: Arc<AtomicBool>,
    /// Whether there were more names than are remembered.
    forgetful: AtomicBool,
    /// Ends the reading of a file.
    stop: OnceLock<Stop>,
}

/// Directories as they were listed, and the number of names in them.
type Listed = Mutex<(HashMap<PathBuf, Arc<Vec<DirEntry>>>, usize)>;

/// Names that are remembered at most; a larger context is listed again when it is asked for again.
const MOST_LISTED: usize = 300_000;

impl Context {
    /// Opens a context folder. `stat_cache` names the file that keeps content hashes; it need not exist, and
    /// a damaged one is as good as none.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn open(root: &Path, ignore: Patterns, stat_cache: Option<&Path>) -> io::Result<Self> {
        let root = Arc::new(walk::open_root(root)?);
        Ok(Self {
            clock: Clock::of(root.as_fd())?,
            root,
            opened: now(),
            ignore,
            recent: Recent::default(),
            stat_cache: StatCache::load(stat_cache),
            folder_cache: FolderCache::new(stat_cache.map(|path| path.with_extension("folders"))),
            listed: Listed::default(),
            looked_at: Mutex::default(),
            changed: Arc::default(),
            forgetful: AtomicBool::new(false),
            stop: OnceLock::new(),
        })
    }

    /// Has the hashing of a file, however large, end with an error when `stop` says so; only the first one counts.
    pub fn stop_when(&self, stop: Stop) {
        let _ = self.stop.set(stop);
    }

    /// Whether a file that was read was not, or did not stay, as it had been when its directory was listed.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Whether every directory is listed only once: then what is copied is what was hashed.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        !self.forgetful.load(Ordering::Relaxed)
    }

    /// A directory as it was listed before.
    fn listing(&self, path: &Path) -> Option<Arc<Vec<DirEntry>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner).0.get(path).cloned()
    }

    fn remember(&self, path: &Path, entries: &Arc<Vec<DirEntry>>) {
        let mut listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner);
        if listed.1 + entries.len() < MOST_LISTED {
            listed.1 += entries.len();
            listed.0.insert(path.to_owned(), Arc::clone(entries));
        } else {
            self.forgetful.store(true, Ordering::Relaxed);
        }
    }

    /// Metadata of a path as its directory was listed, or it was looked at by itself, before.
    fn listed(&self, path: &Path) -> Option<Option<Metadata>> {
        let (parent, name) = split(path)?;
        let Some(entries) = self.listing(parent) else {
            return self.looked_at().get(path).cloned().map(Some);
        };
        let found = entries.binary_search_by(|entry| entry.name.as_os_str().cmp(name)).ok();
        Some(found.map(|found| entries[found].metadata.clone()))
    }

    fn looked_at(&self) -> MutexGuard<'_, HashMap<PathBuf, Metadata>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a path that was looked at by itself.
    fn remember_one(&self, path: &Path, metadata: &Metadata) {
        let mut looked_at = self.looked_at();
        if looked_at.len() < MOST_LISTED {
            looked_at.insert(path.to_owned(), metadata.clone());
        } else {
            self.forgetful.store(true, Ordering::Relaxed);
        }
    }

    /// Raises the flag if a path is not as it was before.
    fn compare(&self, before: &Metadata, now: &Metadata) {
        if !is_unchanged(before, now) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }

    /// What stands for names of a directory and for all that shows a change of them.
    fn fingerprint(directory: &Path, entries: &[&DirEntry]) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(64 + entries.len() * 96);
        let text = |bytes: &mut Vec<u8>, text: &[u8]| {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
        };
        text(&mut bytes, directory.as_os_str().as_bytes());
        for DirEntry { name, metadata } in entries {
            text(&mut bytes, name.as_bytes());
            bytes.push(metadata.kind as u8);
            for number in [metadata.mode, metadata.rdev.0, metadata.rdev.1] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&metadata.size.to_le_bytes());
            for time in [metadata.mtime, metadata.ctime] {
                bytes.extend_from_slice(&time.seconds.to_le_bytes());
                bytes.extend_from_slice(&time.nanoseconds.to_le_bytes());
            }
            bytes.extend_from_slice(&metadata.inode.1.to_le_bytes());
        }
        blake3::hash(&bytes).into()
    }

    /// Writes the stat cache, if anything was hashed since it was read.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is then left as it is.
    pub fn save_cache(&self) -> io::Result<()> {
        self.stat_cache.save()?;
        self.folder_cache.save()
    }

    fn dir(&self, path: &Path) -> io::Result<Option<Arc<OwnedFd>>> {
        let (mut at, mut dir) = match self.recent.nearest(path) {
            Some((at, dir)) => (at.to_owned(), dir),
            None => (PathBuf::new(), Arc::clone(&self.root)),
        };
        let rest = path.strip_prefix(&at).unwrap_or(path).to_owned();
        for name in &rest {
            match walk::open_dir(dir.as_fd(), name)? {
                Some(next) => dir = Arc::new(next),
                None => return Ok(None),
            }
            at.push(name);
            self.recent.keep(&at, 1, &dir);
        }
        Ok(Some(dir))
    }

    /// What the ignore patterns say of a path, and what they hand down from it.
    fn ignored(&self, path: &Path) -> (bool, Inherited) {
        let mut state = (false, Inherited::default());
        if self.ignore.is_empty() {
            return state;
        }
        let mut at = PathBuf::new();
        for name in path {
            at.push(name);
            state = self.ignore.step(&at, &state.1);
        }
        state
    }

    /// Whether an ignored directory shows because of what is in it.
    fn has_visible(
        &self,
        dir: BorrowedFd<'_>,
        path: &Path,
        inherited: &Inherited,
    ) -> io::Result<bool> {
        if !self.ignore.may_reinclude_below(path) || path.iter().count() > crate::select::MAX_DEPTH
        {
            return Ok(false);
        }
        for (name, _) in walk::names(dir)? {
            let child = path.join(&name);
            let (ignored, inherited) = self.ignore.step(&child, inherited);
            if !ignored {
                return Ok(true);
            }
            if let Some(below) = walk::open_dir(dir, &name)?
                && self.has_visible(below.as_fd(), &child, &inherited)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a name that the patterns match shows nevertheless.
    fn shows(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        kind: Kind,
        inherited: &Inherited,
    ) -> io::Result<bool> {
        if kind != Kind::Dir || !self.ignore.may_reinclude_below(path) {
            return Ok(false);
        }
        match walk::open_dir(dir, name)? {
            Some(below) => self.has_visible(below.as_fd(), path, inherited),
            None => Ok(false),
        }
    }

    /// Runs `read` on the directory and name of a path that is not ignored.
    fn at<T>(
        &self,
        path: &Path,
        read: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let Some((parent, name)) = split(path) else {
            return read(self.root.as_fd(), OsStr::new(""));
        };
        let run = || {
            self.metadata(path)?.ok_or_else(missing)?;
            let dir = self.dir(parent)?.ok_or_else(missing)?;
            read(dir.as_fd(), name)
        };
        run().map_err(|error| walk::with_path(error, "cannot read", path))
    }

    /// Hashes a file until it does not change meanwhile; one that never rests counts as it was read last.
    fn hash(&self, path: &Path) -> io::Result<(Metadata, [u8; 32], bool)> {
        let (parent, name) =
            split(path).ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let dir = self.dir(parent)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut attempt = 1;
        loop {
            let (mut file, before) = walk::open_file_as_it_is(dir.as_fd(), name)?;
            let xattrs = walk::xattrs(dir.as_fd(), name)?;
            let stop = self.stop.get().cloned().unwrap_or_default();
            let hash = content::payload(&mut stop.guard(&mut file), before.size, &xattrs)?;
            let after = walk::metadata_of(file.as_fd())?;
            let steady = before.size == after.size
                && before.mtime == after.mtime
                && before.ctime == after.ctime
                && walk::metadata(dir.as_fd(), name)?.is_some_and(|now| now.inode == after.inode);
            if steady || attempt == ATTEMPTS {
                return Ok((after, hash, steady));
            }
            attempt += 1;
        }
    }
}

impl View for Context {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some((parent, name)) = split(path) else {
            return Ok(Some(Metadata {
                mode: 0o755,
                mtime: self.opened,
                ..owned(walk::metadata_of(self.root.as_fd())?)
            }));
        };
        if let Some(listed) = self.listed(path) {
            return Ok(listed);
        }
        let Some(dir) = self.dir(parent)? else { return Ok(None) };
        let Some(metadata) = walk::metadata(dir.as_fd(), name)? else { return Ok(None) };
        let (ignored, inherited) = self.ignored(path);
        if ignored && !self.shows(dir.as_fd(), name, path, metadata.kind, &inherited)? {
            return Ok(None);
        }
        let metadata = owned(metadata);
        self.remember_one(path, &metadata);
        Ok(Some(metadata))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.list(path).map(Arc::unwrap_or_clone)
    }

    fn list(&self, path: &Path) -> io::Result<Arc<Vec<DirEntry>>> {
        if let Some(listed) = self.listing(path) {
            return Ok(listed);
        }
        let list = || {
            let dir =
                self.dir(path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?;
            let (_, inherited) = self.ignored(path);
            let mut entries = Vec::new();
            let were_looked_at = !self.looked_at().is_empty();
            for (name, _) in walk::names(dir.as_fd())? {
                let mut below = None;
                if !self.ignore.is_empty() {
                    let child = path.join(&name);
                    let (ignored, handed) = self.ignore.step(&child, &inherited);
                    below = ignored.then_some((child, handed));
                }
                // An ignored name is not even looked at, unless it may be a directory that shows.
                if let Some((child, _)) = &below
                    && !self.ignore.may_reinclude_below(child)
                {
                    continue;
                }
                let Some(metadata) = walk::metadata(dir.as_fd(), &name)? else { continue };
                if let Some((child, handed)) = below
                    && !self.shows(dir.as_fd(), &name, &child, metadata.kind, &handed)?
                {
                    continue;
                }
                let mut metadata = owned(metadata);
                if were_looked_at && let Some(before) = self.looked_at().get(&path.join(&name)) {
                    if before.kind != Kind::Dir {
                        self.compare(before, &metadata);
                    }
                    metadata = before.clone();
                }
                entries.push(DirEntry { name, metadata });
            }
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let entries = Arc::new(entries);
            self.remember(path, &entries);
            Ok(entries)
        };
        list().map_err(|error| walk::with_path(error, "cannot read directory", path))
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        let (file, now) = self.at(path, walk::open_file_as_it_is)?;
        let now = owned(now);
        let before = self.listed(path).flatten().unwrap_or_else(|| now.clone());
        self.compare(&before, &now);
        Ok(FileData::watched(file, before, Arc::clone(&self.changed)))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.at(path, |dir, name| {
            let target = walk::read_link(dir, name)?;
            if let (Some(before), Some(now)) =
                (self.listed(path).flatten(), walk::metadata(dir, name)?)
            {
                self.compare(&before, &now);
            }
            Ok(target)
        })
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        if path.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        self.at(path, walk::xattrs)
    }

    fn payload(&self, path: &Path, metadata: &Metadata) -> io::Result<[u8; 32]> {
        if let Some(hash) = self.stat_cache.find(path, metadata) {
            return Ok(hash);
        }
        let started = now();
        let (metadata, hash, steady) =
            self.hash(path).map_err(|error| walk::with_path(error, "cannot read", path))?;
        if steady && self.clock.has_rested(&metadata, started) {
            self.stat_cache.add(path, &metadata, hash);
        }
        Ok(hash)
    }

    fn leaves(
        &self,
        directory: &Path,
        entries: &[&DirEntry],
        hash: &dyn Fn() -> Result<[u8; 32], TreeError>,
    ) -> Result<[u8; 32], TreeError> {
        let fingerprint = Self::fingerprint(directory, entries);
        if let Some(known) = self.folder_cache.find(&fingerprint) {
            return Ok(known);
        }
        let started = now();
        let hash = hash()?;
        let is_settled = |entry: &&DirEntry| {
            let path = directory.join(&entry.name);
            self.clock.has_rested(&entry.metadata, started)
                && (entry.metadata.kind != Kind::File
                    || self.stat_cache.find(&path, &entry.metadata).is_some())
        };
        if entries.iter().all(is_settled) {
            self.folder_cache.add(fingerprint, hash);
        }
        Ok(hash)
    }
}

fn owned(metadata: Metadata) -> Metadata {
    Metadata { uid: 0, gid: 0, ..metadata }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}
