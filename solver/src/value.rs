//! What an output of a vertex is while a job runs.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cache::{CacheError, Ref};
use sandbox::Cancel;
use tree::context::Context;
use tree::{DirEntry, FileData, Metadata, TreeError, View};

use crate::op::source::Archive;

/// A file tree in the form in which it was made.
#[derive(Clone)]
pub(crate) enum Value {
    /// Layers of the store.
    Tree(Ref),
    /// A folder of the user's, by its context name; read in place.
    Context(String, Arc<Context>),
    /// An archive of the user's, as a file.
    Archive(Arc<Archive>),
}

impl Value {
    /// Reads the tree, making the unpacked form of its layers if need be; fails once `cancel` is raised.
    pub(crate) fn view(&self, cancel: &Cancel) -> Result<Arc<dyn View>, CacheError> {
        let view: Arc<dyn View> = match self {
            Self::Tree(reference) => Arc::new(reference.stack()?),
            Self::Context(_, context) => Arc::clone(context) as Arc<dyn View>,
            Self::Archive(archive) => Arc::clone(archive) as Arc<dyn View>,
        };
        Ok(Arc::new(Cancellable { view, cancel: cancel.clone() }))
    }
}

/// A view whose readers stop soon after a token is raised: whoever copies or hashes a tree asks it for
/// every file.
struct Cancellable {
    view: Arc<dyn View>,
    cancel: Cancel,
}

impl Cancellable {
    fn live(&self) -> io::Result<&dyn View> {
        if self.cancel.is_cancelled() {
            Err(io::Error::other("canceled"))
        } else {
            Ok(self.view.as_ref())
        }
    }
}

/// A view that keeps the hashes of what was read, for a second look at it.
pub(crate) struct Memory {
    view: Arc<dyn View>,
    payloads: Mutex<HashMap<PathBuf, [u8; 32]>>,
    is_full: AtomicBool,
}

impl Memory {
    /// Files whose hashes are kept at most.
    const MOST: usize = 100_000;

    pub(crate) fn of(view: Arc<dyn View>) -> Self {
        Self { view, payloads: Mutex::default(), is_full: AtomicBool::new(false) }
    }

    /// Itself, unless it has forgotten something.
    pub(crate) fn view(self: Arc<Self>) -> Option<Arc<dyn View>> {
        (!self.is_full.load(Ordering::Relaxed)).then_some(self as Arc<dyn View>)
    }
}

impl View for Memory {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        self.view.metadata(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.view.read_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Arc<Vec<DirEntry>>> {
        self.view.list(path)
    }

    fn leaves(
        &self,
        directory: &Path,
        entries: &[&DirEntry],
        hash: &dyn Fn() -> Result<[u8; 32], TreeError>,
    ) -> Result<[u8; 32], TreeError> {
        self.view.leaves(directory, entries, hash)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.view.open(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.view.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.view.xattrs(path)
    }

    fn payload(&self, path: &Path, metadata: &Metadata) -> io::Result<[u8; 32]> {
        let payloads = || self.payloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = payloads().get(path) {
            return Ok(*known);
        }
        let payload = self.view.payload(path, metadata)?;
        let mut payloads = payloads();
        if payloads.len() < Self::MOST {
            payloads.insert(path.to_owned(), payload);
        } else {
            self.is_full.store(true, Ordering::Relaxed);
        }
        Ok(payload)
    }
}

impl View for Cancellable {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        self.live()?.metadata(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.live()?.read_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Arc<Vec<DirEntry>>> {
        self.live()?.list(path)
    }

    fn leaves(
        &self,
        directory: &Path,
        entries: &[&DirEntry],
        hash: &dyn Fn() -> Result<[u8; 32], TreeError>,
    ) -> Result<[u8; 32], TreeError> {
        self.live().map_err(TreeError::io("read", directory))?.leaves(directory, entries, hash)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.live()?.open(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.live()?.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.live()?.xattrs(path)
    }

    fn payload(&self, path: &Path, metadata: &Metadata) -> io::Result<[u8; 32]> {
        self.live()?.payload(path, metadata)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Knows everything from before, and must be asked for nothing else.
    struct Knowing;

    impl View for Knowing {
        fn metadata(&self, _: &Path) -> io::Result<Option<Metadata>> {
            unreachable!("nobody asks")
        }

        fn read_dir(&self, _: &Path) -> io::Result<Vec<DirEntry>> {
            unreachable!("it has a list")
        }

        fn list(&self, _: &Path) -> io::Result<Arc<Vec<DirEntry>>> {
            Ok(Arc::default())
        }

        fn open(&self, _: &Path) -> io::Result<FileData> {
            unreachable!("its hashes are known")
        }

        fn read_link(&self, _: &Path) -> io::Result<PathBuf> {
            unreachable!("nobody asks")
        }

        fn xattrs(&self, _: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
            unreachable!("its hashes are known")
        }

        fn payload(&self, _: &Path, _: &Metadata) -> io::Result<[u8; 32]> {
            Ok([1; 32])
        }

        fn leaves(
            &self,
            _: &Path,
            _: &[&DirEntry],
            _: &dyn Fn() -> Result<[u8; 32], TreeError>,
        ) -> Result<[u8; 32], TreeError> {
            Ok([2; 32])
        }
    }

    #[test]
    fn what_a_view_knows_from_before_is_asked_through_what_wraps_it() {
        let wrapped: [Arc<dyn View>; 2] = [
            Arc::new(Cancellable { view: Arc::new(Knowing), cancel: Cancel::new().unwrap() }),
            Arc::new(Memory::of(Arc::new(Knowing))),
        ];
        for view in wrapped {
            assert!(view.list(Path::new("d")).unwrap().is_empty());
            let leaves = view.leaves(Path::new("d"), &[], &|| unreachable!("it is known"));
            assert_eq!(leaves.unwrap(), [2; 32]);
        }
    }
}
