//! What a store is writing: one folder per open store under `ingest/`.
//!
//! ```text
//! ingest/<process>.lock   held by flock for as long as the store is open
//! ingest/<process>/<n>    a blob, a layer or garbage: on its way in or out
//! ```
//!
//! Invariants:
//! - A folder exists only while its lock file does, so whoever can take the lock may remove both: the
//!   owner is dead.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;

use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode};
use crate::removal::{remove_large_tree, remove_tree};
use crate::store::random_bytes;

const LOCK: &str = ".lock";

/// An open store's own folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
    name: String,
    next: AtomicU64,
    _lock: Lock,
}

impl Process {
    pub(crate) fn start(root: &Path) -> Result<Self, CacheError> {
        let name = crate::layer::hex(&random_bytes()?);
        let folder = root.join("ingest").join(&name);
        let lock = Lock::wait(&lock_path(root, &name), Mode::Exclusive)?;
        fs::create_dir(&folder).at(&folder)?;
        Ok(Self { folder, name, next: AtomicU64::new(0), _lock: lock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes everything that is being written, on this thread alone: the others may be at work on it.
    pub(crate) fn discard(&self) {
        // What is left of it is swept by the next process.
        let _ = remove_tree(&self.folder);
    }

    /// A path in the folder that nothing has yet.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = remove_large_tree(&self.folder);
    }
}

fn lock_path(root: &Path, name: &str) -> PathBuf {
    root.join("ingest").join(format!("{name}{LOCK}"))
}

/// Whether the store with this folder name is still open somewhere.
pub(crate) fn is_alive(root: &Path, name: &str) -> Result<bool, CacheError> {
    let path = lock_path(root, name);
    Ok(path.exists() && Lock::attempt(&path, Mode::Exclusive)?.is_none())
}

/// Removes the folders of dead processes.
pub(crate) fn sweep(root: &Path) -> Result<(), CacheError> {
    let ingest = root.join("ingest");
    for entry in fs::read_dir(&ingest).at(&ingest)? {
        let entry = entry.at(&ingest)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let name = name.strip_suffix(LOCK).unwrap_or(name);
        if let Some(_dead) = Lock::attempt(&lock_path(root, name), Mode::Exclusive)? {
            let folder = ingest.join(name);
            remove_large_tree(&folder).at(&folder)?;
        }
    }
    Ok(())
}
