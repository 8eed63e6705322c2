//! Locks between processes: one file per name under `locks/`, held by `flock`.
//!
//! The kernel releases a lock when its holder dies. A file is removed by its last holder, so a lock
//! counts only when its file still has a name: whoever got hold of a removed file tries again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use rustix::fs::FlockOperation;

use crate::error::{At, CacheError};
use crate::key::KeyBuilder;

/// How long a cancellable wait sleeps between two tries.
const POLL: Duration = Duration::from_millis(20);

/// Whether others may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock with the file `path`.
    pub(crate) fn wait(path: &Path, mode: Mode) -> Result<Self, CacheError> {
        let operation = match mode {
            Mode::Shared => FlockOperation::LockShared,
            Mode::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            let file = open(path)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)).at(path)?;
            if has_name(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Waits for the lock, asking `cancelled` again and again whether to give up.
    pub(crate) fn wait_unless(
        path: &Path,
        mode: Mode,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, CacheError> {
        loop {
            if let Some(lock) = Self::attempt(path, mode)? {
                return Ok(lock);
            }
            if cancelled() {
                return Err(CacheError::Cancelled(path.display().to_string()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// A file that holds the lock too, as long as it is open anywhere.
    pub(crate) fn share(&self) -> Result<std::fs::File, CacheError> {
        self.file.file().try_clone().at(&self.path)
    }

    /// Takes the lock if it is free.
    pub(crate) fn attempt(path: &Path, mode: Mode) -> Result<Option<Self>, CacheError> {
        let operation = match mode {
            Mode::Shared => FlockOperation::NonBlockingLockShared,
            Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = open(path)?;
            match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation)) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                other => other.at(path)?,
            }
            if has_name(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }
}

impl Drop for Lock {
    /// Removes the file if nobody else holds it; closing it releases the lock.
    fn drop(&mut self) {
        let alone = rustix::fs::flock(&self.file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if alone && has_name(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> Result<fs::File, CacheError> {
    fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).at(path)
}

/// Whether `path` still leads to the open file.
fn has_name(file: &fs::File, path: &Path) -> Result<bool, CacheError> {
    let held = file.metadata().at(path)?;
    Ok(fs::symlink_metadata(path)
        .is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
}

/// File name for a lock of any name.
pub(crate) fn file_name(kind: &str, name: &str) -> String {
    format!("{kind}-{}", KeyBuilder::new("lock.v1").str(name).finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_until_it_is_dropped_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let held = Lock::wait(&path, Mode::Exclusive).unwrap();
        assert!(Lock::attempt(&path, Mode::Shared).unwrap().is_none());
        assert!(matches!(
            Lock::wait_unless(&path, Mode::Shared, &|| true),
            Err(CacheError::Cancelled(_))
        ));
        drop(held);
        let one = Lock::attempt(&path, Mode::Shared).unwrap().unwrap();
        let two = Lock::attempt(&path, Mode::Shared).unwrap().unwrap();
        assert!(Lock::attempt(&path, Mode::Exclusive).unwrap().is_none());
        drop(one);
        assert!(path.exists());
        drop(two);
        assert!(!path.exists());
    }
}
