//! What a folder looked like at a moment, to tell later what has changed in it.
//!
//! A [`Survey`] holds, of every path, what the file system changes whenever anything of the path does. No file is
//! read; a walk costs one `fstatat` per path and one listing per directory, on all processors.
//!
//! Invariants:
//! - Two stamps of a path are equal only if nothing of it has changed between them: content, owner, mode, extended
//!   attributes, number of names. The time of the last change of the inode (ctime) cannot be set by a process; that it
//!   moves on between a survey and the next change is what [`Survey::settle`] waits for.
//! - Sockets are not in it: nobody listens on them any more, and no layer holds them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use crate::layer::LayerDir;
use crate::path::absolute;
use crate::select::MAX_DEPTH;
use crate::{Kind, Metadata, Timestamp, walk};

/// How long a moment may be at most in which two changes have the same time, see [`Survey::settle`].
const LONGEST_TICK: Duration = Duration::from_millis(20);

/// How long such a moment is at least, where there are any.
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// Directories with fewer names than this are walked on one processor.
const FEW: usize = 16;

/// All paths of a folder as they were at a moment.
#[derive(Debug)]
pub struct Survey {
    pub(crate) root: Directory,
    pub(crate) stamp: Stamp,
}

/// A directory of a survey.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// What is in it, in the order of names.
    pub(crate) entries: Vec<Entry>,
}

/// A name in a directory of a survey.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Box<OsStr>,
    pub(crate) stamp: Stamp,
    /// What is in it, of a directory.
    pub(crate) inside: Option<Box<Directory>>,
}

/// What differs whenever anything of a path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) kind: Kind,
    mode: u16,
    inode: u64,
    size: u64,
    mtime: i64,
    ctime: i64,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            kind: metadata.kind,
            // Permission, set-id and sticky bits are twelve.
            mode: (metadata.mode & 0o7777) as u16,
            inode: metadata.inode.1,
            size: metadata.size,
            mtime: nanoseconds(metadata.mtime),
            ctime: nanoseconds(metadata.ctime),
        }
    }

    /// Time of the last change of the content.
    pub(crate) fn mtime(&self) -> Timestamp {
        let nanoseconds = self.mtime.rem_euclid(1_000_000_000);
        Timestamp {
            seconds: self.mtime.div_euclid(1_000_000_000),
            nanoseconds: u32::try_from(nanoseconds).unwrap_or(0),
        }
    }
}

/// A point in time in one number. It wraps around after some centuries, which keeps differences.
fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds.wrapping_mul(1_000_000_000).wrapping_add(i64::from(time.nanoseconds))
}

impl Directory {
    /// What is under a name.
    pub(crate) fn find(&self, name: &OsStr) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| (*entry.name).cmp(name)).ok()?;
        self.entries.get(at)
    }

    fn count(&self) -> usize {
        let inside = self.entries.iter().filter_map(|entry| entry.inside.as_deref());
        self.entries.len() + inside.map(Self::count).sum::<usize>()
    }

    fn newest(&self) -> i64 {
        let newest = |entry: &Entry| {
            entry.stamp.ctime.max(entry.inside.as_deref().map_or(i64::MIN, Self::newest))
        };
        self.entries.iter().map(newest).max().unwrap_or(i64::MIN)
    }
}

impl Survey {
    /// Walks a folder in which nothing changes meanwhile.
    ///
    /// # Errors
    /// When the file system fails, or directories are nested too deeply.
    pub fn take(folder: &LayerDir) -> io::Result<Self> {
        let stamp = Stamp::new(&walk::metadata_of(folder.root()?)?);
        Ok(Self { root: directory(folder.root()?, Path::new(""), 0)?, stamp })
    }

    /// How many paths there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.root.count()
    }

    /// Waits until a change from now on has another time than any that the survey has seen.
    ///
    /// Where a file system takes times from the clock of the last timer interrupt, all changes within some milliseconds
    /// have the same. Mostly more than that has passed since the last change, and nothing is waited for. Nothing need be
    /// where the file system [has fine times](has_fine_times).
    pub fn settle(&self) {
        let newest = self.root.newest();
        let longest = i64::try_from(LONGEST_TICK.as_nanos()).unwrap_or(i64::MAX);
        loop {
            let now = clock_gettime(ClockId::RealtimeCoarse);
            let now = nanoseconds(Timestamp {
                seconds: now.tv_sec,
                nanoseconds: u32::try_from(now.tv_nsec).unwrap_or(0),
            });
            // A time far ahead is that of a clock since set back: no change of now has it.
            if now > newest || newest - now > longest {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether the file system gives a change another time than the one before whenever somebody has looked at that, as
/// Linux 6.13 and later do on the usual ones. Found out with `probe`, whose mode is changed.
///
/// # Errors
/// When it cannot be changed or looked at.
pub fn has_fine_times(probe: impl AsFd) -> io::Result<bool> {
    let change = |mode: u32| -> io::Result<_> {
        rustix::fs::fchmod(&probe, mode.into())?;
        let found = rustix::fs::fstat(&probe)?;
        Ok((found.st_ctime, found.st_ctime_nsec))
    };
    // Whoever is held up in the middle tries again.
    for _ in 0..3 {
        let began = Instant::now();
        let (first, second, third) = (change(0o600)?, change(0o640)?, change(0o600)?);
        let all_differ = first != second && second != third;
        // Within this time the clock of the timer interrupt moves on once at most.
        if began.elapsed() < SHORTEST_TICK {
            return Ok(all_differ);
        }
    }
    Ok(false)
}

fn directory(dir: BorrowedFd<'_>, path: &Path, depth: usize) -> io::Result<Directory> {
    let at = |error| walk::with_path(error, "cannot look at", &absolute(path));
    if depth > MAX_DEPTH {
        return Err(at(io::Error::other("directories are nested too deeply")));
    }
    let mut names: Vec<OsString> =
        walk::names(dir).map_err(at)?.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let look = |name: OsString| -> io::Result<Option<Entry>> {
        let metadata = walk::metadata(dir, &name).map_err(at)?;
        let Some(metadata) = metadata.filter(|found| found.kind != Kind::Socket) else {
            return Ok(None);
        };
        let inside = if metadata.kind == Kind::Dir {
            let path = path.join(&name);
            let inner = walk::open_dir(dir, &name).map_err(at)?;
            let inner = inner.ok_or_else(|| at(io::ErrorKind::NotFound.into()))?;
            Some(Box::new(directory(inner.as_fd(), &path, depth + 1)?))
        } else {
            None
        };
        Ok(Some(Entry { name: name.into(), stamp: Stamp::new(&metadata), inside }))
    };
    let entries: io::Result<Vec<Option<Entry>>> = if names.len() < FEW {
        names.into_iter().map(look).collect()
    } else {
        names.into_par_iter().with_min_len(FEW).map(look).collect()
    };
    Ok(Directory { entries: entries?.into_iter().flatten().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerDir;
    use fs_err as fs;

    #[test]
    fn a_survey_tells_every_change_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("d/f");
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(&file, "one").unwrap();
        let layer = LayerDir::new(folder.path());
        let stamp = || {
            let survey = Survey::take(&layer).unwrap();
            assert_eq!(survey.count(), 2);
            survey.settle();
            let inside = survey.root.entries[0].inside.as_ref().unwrap();
            inside.find(OsStr::new("f")).unwrap().stamp
        };
        let first = stamp();
        assert_eq!(stamp(), first);
        // The same size, and the same time of change.
        let mtime = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "two").unwrap();
        fs::OpenOptions::new().write(true).open(&file).unwrap().file().set_modified(mtime).unwrap();
        let second = stamp();
        assert_ne!(second, first);
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_ne!(stamp(), second);
    }

    #[test]
    fn two_writes_right_after_each_other_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let probe = tempfile::tempfile_in(folder.path()).unwrap();
        let file = folder.path().join("f");
        let layer = LayerDir::new(folder.path());
        for round in 0..50 {
            fs::write(&file, format!("{round:03}")).unwrap();
            let before = Survey::take(&layer).unwrap();
            if !has_fine_times(&probe).unwrap() {
                before.settle();
            }
            // In place, with the same size.
            fs::write(&file, format!("{:03}", round + 500)).unwrap();
            let after = Survey::take(&layer).unwrap();
            assert_ne!(before.root.entries[0].stamp, after.root.entries[0].stamp, "round {round}");
        }
    }
}
