//! The file system that a path is on, and how much room it has.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::error::{At, CacheError};

/// With less than this many bytes left nothing useful can be written.
const FULL: u64 = 2 << 20;

/// With room for fewer files than this, neither.
const FEW: u64 = 16;

/// A file system as it is at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    place: PathBuf,
    size: u64,
    free: u64,
    /// What is kept back for root, besides.
    reserved: u64,
    /// Files that can still be made; `None` when that is not limited.
    files: Option<u64>,
}

impl FileSystem {
    /// The file system of a path, or of the nearest folder above it that is there.
    ///
    /// # Errors
    /// When none of them can be asked.
    pub fn of(path: &Path) -> Result<Self, CacheError> {
        let mut place = path;
        let it = loop {
            match rustix::fs::statvfs(place) {
                Ok(it) => break it,
                Err(rustix::io::Errno::NOENT) if place.parent().is_some() => {
                    place = place.parent().unwrap_or(place);
                }
                Err(errno) => return Err(errno).at(place),
            }
        };
        Ok(Self {
            place: place.to_owned(),
            size: it.f_blocks.saturating_mul(it.f_frsize),
            free: it.f_bavail.saturating_mul(it.f_frsize),
            reserved: it.f_bfree.saturating_sub(it.f_bavail).saturating_mul(it.f_frsize),
            files: (it.f_files > 0).then_some(it.f_favail),
        })
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// Whether hardly anything can be written any more.
    pub fn is_full(&self) -> bool {
        let has_more = || self.reserved >= FULL && may_use_reserved();
        self.free < FULL && !has_more() || self.files.is_some_and(|files| files < FEW)
    }

    /// Where it is mounted, as far as that can be told from the path that was asked for.
    pub fn mount_point(&self) -> PathBuf {
        let place = fs::canonicalize(&self.place).unwrap_or_else(|_| self.place.clone());
        let device = |path: &Path| fs::metadata(path).map(|it| it.dev()).ok();
        let own = device(&place);
        let inside = place.ancestors().take_while(|folder| device(folder) == own);
        inside.last().unwrap_or(&place).to_owned()
    }
}

/// Whether this process may write what a file system keeps back: as root, and not of a user namespace.
fn may_use_reserved() -> bool {
    let held = rustix::thread::capabilities(None).map(|sets| sets.effective);
    held.is_ok_and(|held| held.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
        && fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

impl fmt::Display for FileSystem {
    /// ``file system `/var` of 24 MB``
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.size.div_ceil(1_000_000);
        write!(f, "file system `{}` of {megabytes} MB", self.mount_point().display())?;
        match self.files {
            Some(files) if files < FEW && self.free >= FULL => write!(f, ", no inodes left"),
            _ => Ok(()),
        }
    }
}
