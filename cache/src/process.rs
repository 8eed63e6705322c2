//! What a store is writing: one folder per open store under `ingest/`.
//!
//! ```text
//! ingest/<process>        its lock is held for as long as the store is open
//! ingest/<process>/<n>    a blob, a layer or garbage: on its way in or out
//! ```
//!
//! Invariants:
//! - A folder is made by who holds its lock, so whoever can take the lock may remove it: the owner is dead.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use fs_err as fs;

use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode, Place};
use crate::removal::{remove_large_tree, remove_tree};
use crate::store::random_bytes;

/// Folders that may lie about until the end.
const FEW: usize = 2;

/// An open store's own folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
    name: String,
    next: AtomicU64,
    /// Folders that were given up.
    given_up: AtomicUsize,
    garbage: OnceLock<Option<Garbage>>,
    _lock: Lock,
}

impl Process {
    pub(crate) fn start(root: &Path) -> Result<Self, CacheError> {
        let name = crate::layer::hex(&random_bytes()?);
        let folder = root.join("ingest").join(&name);
        let lock = Lock::wait(&place(root, &name), Mode::Exclusive)?;
        fs::create_dir(&folder).at(&folder)?;
        Ok(Self {
            folder,
            name,
            next: AtomicU64::new(0),
            given_up: AtomicUsize::new(0),
            garbage: OnceLock::new(),
            _lock: lock,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Removes everything that is being written, on this thread alone: the others may be at work on it.
    pub(crate) fn discard(&self) {
        if let Some(root) = self.folder.parent().and_then(Path::parent) {
            crate::mount::reclaim(root, &self.name);
        }
        // What is left of it is swept by the next process.
        let _ = remove_tree(&self.folder);
    }

    /// Removes a folder of this process, later and on another thread.
    pub(crate) fn remove_later(&self, path: PathBuf) {
        // For a few a thread costs more than it saves: they go with all the rest.
        if self.given_up.fetch_add(1, Ordering::Relaxed) < FEW {
            return;
        }
        // What cannot be removed now is removed with all the rest at the end.
        if let Some(garbage) = self.garbage.get_or_init(Garbage::start) {
            let _ = garbage.paths.send((path, remove_tree));
        }
    }

    /// As [`remove_later`](Self::remove_later), for a folder that may hold many files.
    pub(crate) fn remove_large_later(&self, path: PathBuf) {
        if let Some(garbage) = self.garbage.get_or_init(Garbage::start) {
            let _ = garbage.paths.send((path, remove_large_tree));
        }
    }

    /// A path in the folder that nothing has yet.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(Some(garbage)) = self.garbage.take() {
            drop(garbage.paths);
            let _ = garbage.thread.join();
        }
        let _ = remove_large_tree(&self.folder);
    }
}

/// How something is removed.
type Remove = fn(&Path) -> std::io::Result<()>;

/// A thread that removes folders: a file system may be slow at it, and no step need wait.
#[derive(Debug)]
struct Garbage {
    paths: Sender<(PathBuf, Remove)>,
    thread: JoinHandle<()>,
}

impl Garbage {
    fn start() -> Option<Self> {
        let (paths, given) = channel::<(PathBuf, Remove)>();
        let work = move || given.iter().for_each(|(path, remove)| drop(remove(&path)));
        let thread = std::thread::Builder::new().name("garbage".to_owned()).spawn(work);
        Some(Self { paths, thread: thread.ok()? })
    }
}

fn place(root: &Path, name: &str) -> Place {
    Place::new(root, "process", name)
}

/// Whether the store with this folder name is still open somewhere.
pub(crate) fn is_alive(root: &Path, name: &str) -> Result<bool, CacheError> {
    Ok(Lock::attempt(&place(root, name), Mode::Exclusive)?.is_none())
}

/// Removes the folders of dead processes.
pub(crate) fn sweep(root: &Path) -> Result<(), CacheError> {
    let ingest = root.join("ingest");
    for entry in fs::read_dir(&ingest).at(&ingest)? {
        let entry = entry.at(&ingest)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(_dead) = Lock::attempt(&place(root, name), Mode::Exclusive)? {
            let folder = entry.path();
            crate::mount::rescue(root, name)?;
            remove_large_tree(&folder).at(&folder)?;
        }
    }
    Ok(())
}
