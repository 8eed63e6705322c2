//! Content hashes of files that have not changed since they were hashed.
//!
//! One flat file per context, sorted by path, read whole and searched in place, and a small one of the same form
//! beside it, `.recent`, with what was hashed since that was written: a build that hashes a few files writes only
//! those again.
//!
//! ```text
//! magic (8) · entries (u32) · entry… · BLAKE3 of all before (32)
//! entry = path length (u32) · size (u64) · mtime (i64, u32) · ctime (i64, u32) · inode (u64) · age (u8)
//!       · hash (32) · path
//! ```
//!
//! Numbers are little-endian.
//!
//! Invariants:
//! - An entry was made from a file that had rested for long enough when it was hashed: a later change must
//!   show in its times, however coarse the file system's clock is.
//! - The file is written aside and renamed into place; a damaged one counts as empty.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Metadata, Timestamp, walk};

const MAGIC: &[u8; 8] = b"BLstat\x00\x01";

/// Bytes of an entry before its path.
const FIXED: usize = 4 + 8 + 12 + 12 + 8 + 1 + 32;

/// For how long a file must have been left alone to be trusted by its times, in nanoseconds.
const RESTED: i128 = 3_000_000_000;

/// The same on a file system whose clock ticks with the kernel's, every 10 ms or oftener.
const RESTED_FINE: i128 = 100_000_000;

/// File systems with such a clock, by the magic number that `statfs` tells: tmpfs, ext4, xfs, btrfs and f2fs.
const FINE: [u64; 5] = [0x0102_1994, 0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

/// How fine the clock of the file system is that a context is on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    device: u64,
    is_fine: bool,
}

impl Clock {
    pub(super) fn of(root: BorrowedFd<'_>) -> io::Result<Self> {
        let kind = rustix::fs::fstatfs(root)?.f_type.cast_unsigned();
        Ok(Self { device: walk::metadata_of(root)?.inode.0, is_fine: FINE.contains(&kind) })
    }

    /// Whether a path had been left alone for long enough at `started` to be trusted by its times.
    pub(super) fn has_rested(self, metadata: &Metadata, started: Timestamp) -> bool {
        let nanoseconds = |time: Timestamp| {
            i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds)
        };
        // Inodes of an old size keep only seconds.
        if self.is_fine && metadata.inode.0 == self.device && metadata.ctime.nanoseconds != 0 {
            return nanoseconds(metadata.ctime) + RESTED_FINE < nanoseconds(started);
        }
        nanoseconds(metadata.mtime.max(metadata.ctime)) + RESTED < nanoseconds(started)
    }
}

/// The file of recent entries is at most this part of the other.
const RECENT_SHARE: u64 = 8;

/// What a file is worth beside its bytes, when it is asked whether keeping hashes costs less than making them.
const FILE_WORTH: u64 = 8 << 10;

/// Files that are not worth more than this in all are read again by the next build.
const WORTHLESS: u64 = 128 << 10;

/// Times an entry may be written again without having been asked for.
const MAX_AGE: u8 = 16;

#[derive(Debug, Default)]
pub(super) struct StatCache {
    file: Option<PathBuf>,
    /// Read when first asked for: directories that have not changed are known without.
    known: OnceLock<Known>,
    recent: OnceLock<Known>,
    fresh: Mutex<HashMap<PathBuf, Entry>>,
}

#[derive(Debug, Default)]
struct Known {
    bytes: Vec<u8>,
    /// Where entries begin, in order of their paths.
    starts: Vec<usize>,
    used: Vec<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    stamp: Stamp,
    age: u8,
    hash: [u8; 32],
}

/// What shows that a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let Metadata { size, mtime, ctime, inode, .. } = *metadata;
        Self { size, mtime, ctime, inode: inode.1 }
    }
}

impl StatCache {
    pub(super) fn load(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_owned), ..Self::default() }
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| Known::read(self.file.as_deref()))
    }

    fn recent(&self) -> &Known {
        self.recent.get_or_init(|| Known::read(self.file.as_deref().map(recent).as_deref()))
    }

    /// The hash of a file, if it is known and the file has not changed.
    pub(super) fn find(&self, path: &Path, metadata: &Metadata) -> Option<[u8; 32]> {
        let stamp = Stamp::of(metadata);
        let fresh = || {
            let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            fresh.get(path).filter(|entry| entry.stamp == stamp).map(|entry| entry.hash)
        };
        let known = || self.known().find(path, stamp);
        self.recent().find(path, stamp).or_else(known).or_else(fresh)
    }

    /// Notes the hash of a file that was read from `started` on and did not change meanwhile.
    pub(super) fn add(&self, path: &Path, metadata: &Metadata, hash: [u8; 32]) {
        let stamp = Stamp::of(metadata);
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.insert(path.to_owned(), Entry { stamp, age: 0, hash });
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let worth = |entry: &Entry| entry.stamp.size.saturating_add(FILE_WORTH);
        if fresh.values().map(worth).fold(0, u64::saturating_add) < WORTHLESS {
            return Ok(());
        }
        let fresh = fresh.iter().map(|(path, entry)| (path.as_os_str().as_bytes(), *entry));
        let mut all: BTreeMap<&[u8], Entry> = self.recent().entries().chain(fresh).collect();
        let size = |count: usize| (count * FIXED) as u64;
        if fs_err::metadata(file).is_ok_and(|it| size(all.len()) <= it.len() / RECENT_SHARE) {
            return write(&recent(file), &encode(&all));
        }
        let known = self.known();
        for (&start, used) in known.starts.iter().zip(&known.used) {
            let Some(mut entry) = known.entry(start) else { continue };
            entry.age = if used.load(Ordering::Relaxed) { 0 } else { entry.age.saturating_add(1) };
            if entry.age <= MAX_AGE {
                all.entry(known.path(start)).or_insert(entry);
            }
        }
        write(file, &encode(&all))?;
        if self.recent().bytes.is_empty() {
            return Ok(());
        }
        match fs_err::remove_file(recent(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where the entries are that are newer than those of `file`.
fn recent(file: &Path) -> PathBuf {
    file.with_extension("recent")
}

impl Known {
    fn read(file: Option<&Path>) -> Self {
        let bytes = file.and_then(|file| fs_err::read(file).ok()).unwrap_or_default();
        let starts = index(&bytes).unwrap_or_default();
        let used = starts.iter().map(|_| AtomicBool::new(false)).collect();
        Self { bytes, starts, used }
    }

    fn find(&self, path: &Path, stamp: Stamp) -> Option<[u8; 32]> {
        let wanted = path.as_os_str().as_bytes();
        let found = self.starts.binary_search_by(|&start| self.path(start).cmp(wanted)).ok()?;
        let entry = self.entry(self.starts[found]).filter(|entry| entry.stamp == stamp)?;
        self.used[found].store(true, Ordering::Relaxed);
        Some(entry.hash)
    }

    fn entries(&self) -> impl Iterator<Item = (&[u8], Entry)> {
        self.starts.iter().filter_map(|&start| Some((self.path(start), self.entry(start)?)))
    }

    fn entry(&self, start: usize) -> Option<Entry> {
        let mut fields = Fields(self.bytes.get(start + 4..)?);
        let stamp = Stamp {
            size: u64::from_le_bytes(fields.take()?),
            mtime: fields.timestamp()?,
            ctime: fields.timestamp()?,
            inode: u64::from_le_bytes(fields.take()?),
        };
        let [age] = fields.take()?;
        Some(Entry { stamp, age, hash: fields.take()? })
    }

    fn path(&self, start: usize) -> &[u8] {
        entry_path(&self.bytes, start).unwrap_or_default()
    }
}

fn entry_path(bytes: &[u8], start: usize) -> Option<&[u8]> {
    let length = u32::from_le_bytes(Fields(bytes.get(start..)?).take()?) as usize;
    let begin = start.checked_add(FIXED)?;
    bytes.get(begin..begin.checked_add(length)?)
}

/// Finds where the entries begin; `None` when anything is wrong with the file.
fn index(bytes: &[u8]) -> Option<Vec<usize>> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != sum || !body.starts_with(MAGIC) {
        return None;
    }
    let count = u32::from_le_bytes(Fields(body.get(MAGIC.len()..)?).take()?) as usize;
    let mut starts = Vec::new();
    let mut at = MAGIC.len() + 4;
    for _ in 0..count {
        let path = entry_path(body, at)?;
        starts.push(at);
        at += FIXED + path.len();
    }
    (at == body.len()).then_some(starts)
}

fn encode(entries: &BTreeMap<&[u8], Entry>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let mut count: u32 = 0;
    bytes.extend(count.to_le_bytes());
    for (path, entry) in entries {
        let Ok(length) = u32::try_from(path.len()) else { continue };
        bytes.extend(length.to_le_bytes());
        bytes.extend(entry.stamp.size.to_le_bytes());
        for time in [entry.stamp.mtime, entry.stamp.ctime] {
            bytes.extend(time.seconds.to_le_bytes());
            bytes.extend(time.nanoseconds.to_le_bytes());
        }
        bytes.extend(entry.stamp.inode.to_le_bytes());
        bytes.push(entry.age);
        bytes.extend(entry.hash);
        bytes.extend(*path);
        count += 1;
    }
    bytes[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&count.to_le_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{:016x}", std::process::id(), next_number()));
    let aside = PathBuf::from(name);
    let created = match (fs_err::File::create_new(&aside), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            fs_err::create_dir_all(folder).and_then(|()| fs_err::File::create_new(&aside))
        }
        (created, _) => created,
    };
    let result = created
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs_err::rename(&aside, path));
    if result.is_err() {
        // The error that matters is the one above.
        let _ = fs_err::remove_file(&aside);
    }
    result
}

/// Tells the files of threads of one process apart.
fn next_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Reads fields off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn timestamp(&mut self) -> Option<Timestamp> {
        let seconds = i64::from_le_bytes(self.take()?);
        let nanoseconds = u32::from_le_bytes(self.take()?);
        Some(Timestamp { seconds, nanoseconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn metadata(seconds: i64, inode: u64) -> Metadata {
        let time = Timestamp { seconds, nanoseconds: 7 };
        Metadata {
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 1 << 20,
            mtime: time,
            ctime: time,
            rdev: (0, 0),
            inode: (1, inode),
            links: 1,
        }
    }

    #[test]
    fn only_what_has_rested_is_trusted() {
        let started = Timestamp { seconds: 100, nanoseconds: 50_000_000 };
        let rested = |is_fine, seconds, nanoseconds, device| {
            let time = Timestamp { seconds, nanoseconds };
            let metadata =
                Metadata { mtime: time, ctime: time, inode: (device, 2), ..metadata(0, 2) };
            Clock { device: 1, is_fine }.has_rested(&metadata, started)
        };
        assert!(rested(true, 99, 949_000_000, 1));
        assert!(!rested(true, 99, 951_000_000, 1));
        assert!(!rested(true, 99, 0, 1), "times of whole seconds");
        assert!(!rested(true, 99, 1, 2), "another file system");
        assert!(!rested(false, 97, 51_000_000, 1));
        assert!(rested(false, 97, 49_000_000, 1));
    }

    #[test]
    fn what_is_hashed_in_no_time_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stat");
        let save = |count: u64, size: u64| {
            let cache = StatCache::load(Some(&file));
            for inode in 0..count {
                let its = Metadata { size, ..metadata(90, inode) };
                cache.add(Path::new(&inode.to_string()), &its, [0; 32]);
            }
            cache.save().unwrap();
            file.exists()
        };
        assert!(!save(1, 100));
        assert!(!save(15, 0));
        assert!(save(16, 0));
        fs_err::remove_file(&file).unwrap();
        assert!(save(1, 120 << 10));
    }

    #[test]
    fn what_is_saved_is_found_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stat");
        let cache = StatCache::load(Some(&file));
        for (index, path) in ["b", "a/c", "a"].iter().enumerate() {
            let inode = index as u64;
            cache.add(Path::new(path), &metadata(90, inode), [index as u8; 32]);
        }
        cache.save().unwrap();
        let cache = StatCache::load(Some(&file));
        assert_eq!(cache.find(Path::new("a/c"), &metadata(90, 1)), Some([1; 32]));
        assert_eq!(cache.find(Path::new("b"), &metadata(90, 0)), Some([0; 32]));
        assert_eq!(cache.find(Path::new("b"), &metadata(91, 0)), None);
        assert_eq!(cache.find(Path::new("b"), &metadata(90, 5)), None);
        // A few new entries go beside the file, until they are many.
        let before = fs_err::read(&file).unwrap();
        let many = StatCache::load(Some(&file));
        for number in 0..64 {
            many.add(Path::new(&format!("many/{number}")), &metadata(90, number), [7; 32]);
        }
        many.save().unwrap();
        assert!(!recent(&file).exists());
        let base = fs_err::read(&file).unwrap();
        assert!(base.len() > before.len());
        for (number, is_beside) in (0..12).map(|number| (number, number < 8)) {
            let cache = StatCache::load(Some(&file));
            cache.add(Path::new("b"), &metadata(95, number), [8; 32]);
            cache.add(Path::new(&format!("new{number}")), &metadata(95, 70), [9; 32]);
            cache.save().unwrap();
            assert_eq!(recent(&file).exists() && fs_err::read(&file).unwrap() == base, is_beside);
            let cache = StatCache::load(Some(&file));
            assert_eq!(cache.find(Path::new("b"), &metadata(95, number)), Some([8; 32]));
            assert_eq!(cache.find(Path::new("new0"), &metadata(95, 70)), Some([9; 32]));
            assert_eq!(cache.find(Path::new("many/9"), &metadata(90, 9)), Some([7; 32]));
            if !is_beside {
                break;
            }
        }
        let bytes = fs_err::read(&file).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], b""] {
            assert!(index(damaged).is_none());
        }
    }
}
