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
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use fs_err as fs;

use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode, Place};
use crate::removal::{remove_large_tree, remove_tree, remove_work};
use crate::store::random_bytes;

/// An open store's own folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    folder: PathBuf,
    name: String,
    next: AtomicU64,
    /// Folders that were given up, see [`clear_up`](Self::clear_up).
    given_up: Mutex<Vec<PathBuf>>,
    /// Folders that were made before they were asked for.
    ahead: Mutex<Ahead>,
    garbage: OnceLock<Option<Garbage>>,
    _lock: Lock,
}

/// Folders that were made before they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// For a layer each.
    pub(crate) layers: Vec<PathBuf>,
    /// For overlayfs.
    pub(crate) works: Vec<PathBuf>,
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
            given_up: Mutex::default(),
            ahead: Mutex::default(),
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

    /// Has a folder that overlayfs worked in removed by [`clear_up`](Self::clear_up), or at the end.
    pub(crate) fn give_up(&self, work: PathBuf) {
        self.given_up().push(work);
    }

    /// Removes what was given up.
    pub(crate) fn clear_up(&self) {
        let given_up = std::mem::take(&mut *self.given_up());
        for work in given_up {
            // What cannot be removed now is removed with all the rest at the end.
            let _ = remove_work(&work);
        }
    }

    pub(crate) fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether [`clear_up`](Self::clear_up) has anything to do.
    pub(crate) fn has_given_up(&self) -> bool {
        !self.given_up().is_empty()
    }

    fn given_up(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a folder of this process that may hold many files, later and on another thread.
    pub(crate) fn remove_large_later(&self, path: PathBuf) {
        if let Some(garbage) = self.garbage.get_or_init(Garbage::start) {
            let _ = garbage.paths.send(path);
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
        self.clear_up();
        let _ = remove_large_tree(&self.folder);
    }
}

/// A thread that removes folders: a file system may be slow at it, and no step need wait.
#[derive(Debug)]
struct Garbage {
    paths: Sender<PathBuf>,
    thread: JoinHandle<()>,
}

impl Garbage {
    fn start() -> Option<Self> {
        let (paths, given) = channel::<PathBuf>();
        let work = move || given.iter().for_each(|path| drop(remove_large_tree(&path)));
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

/// Words about processes of this machine that have the store open and are stopped, as far as this one can see: who waits
/// for a lock of theirs waits until somebody lets them go on.
pub(crate) fn stopped(root: &Path) -> Vec<String> {
    let Ok(locks) = fs::canonicalize(root.join("locks/names")) else { return Vec::new() };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let is_stopped = |process: &u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name may hold blanks and brackets; after its last bracket stands the state.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
    };
    let has_locks = |process: &u32| {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
        let mut links = descriptors.flatten().map(|entry| fs::read_link(entry.path()));
        links.any(|link| link.is_ok_and(|link| link == locks))
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = names.filter(|process| is_stopped(process) && has_locks(process));
    let words = |process: u32| {
        format!(
            "process {process} uses the same state folder and is stopped: `kill -CONT {process}` lets it go on"
        )
    };
    found.map(words).collect()
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
