//! Layers read as one tree, without mounting them.
//!
//! The rules are overlayfs's: the topmost layer that has a name decides; a whiteout or anything but a
//! directory hides all below; directories merge until an opaque one, with the metadata of the topmost.
//!
//! Invariants:
//! - What is read does not change: the layers are finished. (A [`Draft`](crate::draft::Draft) makes a new
//!   `Stack` each time it wants to read what it has written.)
//! - Few descriptors are kept: one per layer, and those of the directories asked for last.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::layer::LayerDir;
use crate::packed::{Builder, Packed};
use crate::part::{Keeping, Part};
use crate::path::split;
use crate::recent::Recent;
use crate::{DirEntry, FileData, Kind, Metadata, View, walk};

/// One layer in a form in which it can be read.
#[derive(Debug, Clone)]
pub enum Layer {
    /// Unpacked.
    Folder(LayerDir),
    /// As its tar, with an index.
    Packed(Packed),
}

impl From<LayerDir> for Layer {
    fn from(folder: LayerDir) -> Self {
        Self::Folder(folder)
    }
}

impl From<Packed> for Layer {
    fn from(packed: Packed) -> Self {
        Self::Packed(packed)
    }
}

impl Layer {
    pub(crate) fn root(&self) -> io::Result<Part> {
        Ok(match self {
            Self::Folder(folder) => {
                Part::Folder(folder.shared_root()?, Keeping::of(folder), folder.names()?)
            }
            Self::Packed(packed) => Part::Packed(packed.clone(), Builder::ROOT),
        })
    }

    pub(crate) fn is_opaque(&self) -> io::Result<bool> {
        match self {
            Self::Folder(folder) => folder.is_opaque(),
            Self::Packed(_) => Ok(false),
        }
    }
}

/// Read-only view of layers, one over the other; clones are cheap.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// What lies below the layers; what was found in it is found again at once.
    base: Option<Stack>,
    layers: Vec<Layer>,
    recent: Recent<Merged>,
}

/// The directories of all layers that make up one directory of the stack, topmost first.
#[derive(Debug)]
pub(crate) struct Merged {
    dirs: Vec<Part>,
    below: Option<Below>,
}

/// The same directory in the stack below.
#[derive(Debug)]
struct Below {
    stack: Stack,
    path: PathBuf,
    merged: Arc<Merged>,
}

/// Where a name of a merged directory is.
struct Found<'a> {
    dir: &'a Part,
    metadata: Metadata,
}

impl Stack {
    /// Stacks layers, lowest first; none at all is an empty tree.
    #[must_use]
    pub fn new<L: Into<Layer>>(layers: Vec<L>) -> Self {
        let layers = layers.into_iter().map(Into::into).collect();
        Self { inner: Arc::new(Inner { base: None, layers, recent: Recent::default() }) }
    }

    /// A tree with nothing in it.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The same stack with one more layer on top.
    #[must_use]
    pub fn push(&self, layer: impl Into<Layer>) -> Self {
        let (base, layers) = (Some(self.clone()), vec![layer.into()]);
        Self { inner: Arc::new(Inner { base, layers, recent: Recent::default() }) }
    }

    /// The directory at `path`, or `None` when there is none.
    pub(crate) fn merged(&self, path: &Path) -> io::Result<Option<Arc<Merged>>> {
        let recent = &self.inner.recent;
        let (mut at, mut merged) = match recent.nearest(path) {
            Some((at, merged)) => (at.to_owned(), merged),
            None => (PathBuf::new(), Arc::new(self.root()?)),
        };
        let rest = path.strip_prefix(&at).unwrap_or(path).to_owned();
        for name in &rest {
            recent.keep(&at, own_descriptors(&at, &merged), &merged);
            match merged.dir(name)? {
                Some(next) => merged = Arc::new(next),
                None => return Ok(None),
            }
            at.push(name);
        }
        recent.keep(&at, own_descriptors(&at, &merged), &merged);
        Ok(Some(merged))
    }

    fn root(&self) -> io::Result<Merged> {
        let mut dirs = Vec::new();
        for layer in self.inner.layers.iter().rev() {
            dirs.push(layer.root()?);
            if layer.is_opaque()? {
                return Ok(Merged { dirs, below: None });
            }
        }
        let below = match &self.inner.base {
            Some(base) => base.below(Path::new(""))?,
            None => None,
        };
        Ok(Merged { dirs, below })
    }

    /// A directory as something that others lie over.
    fn below(&self, path: &Path) -> io::Result<Option<Below>> {
        let merged = self.merged(path)?;
        Ok(merged.map(|merged| Below { stack: self.clone(), path: path.to_owned(), merged }))
    }

    /// Runs `read` on the directory and name that a path really is.
    fn at<T>(
        &self,
        path: &Path,
        read: impl FnOnce(&Part, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let context = |error| walk::with_path(error, "cannot read", &crate::path::absolute(path));
        let Some((parent, name)) = split(path) else {
            return Err(context(io::ErrorKind::IsADirectory.into()));
        };
        let merged = self.merged(parent)?.ok_or_else(missing).map_err(context)?;
        let found = merged.find(name)?.ok_or_else(missing).map_err(context)?;
        read(found.dir, name).map_err(context)
    }
}

impl Merged {
    /// Finds a name: the topmost layer that says anything about it.
    fn find(&self, name: &OsStr) -> io::Result<Option<Found<'_>>> {
        for dir in &self.dirs {
            if let Some(metadata) = dir.metadata(name)? {
                let gone = dir.is_whiteout(name, &metadata)?;
                return Ok((!gone).then_some(Found { dir, metadata }));
            }
        }
        self.below.as_ref().map_or(Ok(None), |below| below.merged.find(name))
    }

    /// Metadata of a name, or `None` when there is nothing.
    pub(crate) fn metadata(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        Ok(self.find(name)?.map(|found| found.metadata))
    }

    /// The topmost of the directories; none for the root of an empty stack.
    fn topmost(&self) -> Option<&Part> {
        self.dirs.first().or_else(|| self.below.as_ref()?.merged.topmost())
    }

    /// Extended attributes of the directory itself.
    pub(crate) fn own_xattrs(&self) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.topmost().map_or(Ok(Vec::new()), Part::own_xattrs)
    }

    /// Metadata of the directory itself; `None` for the root of an empty stack.
    pub(crate) fn own_metadata(&self) -> io::Result<Option<Metadata>> {
        self.topmost().map(Part::own_metadata).transpose()
    }

    /// The directory of a name, or `None` when the name is no directory.
    pub(crate) fn dir(&self, name: &OsStr) -> io::Result<Option<Self>> {
        let mut dirs = Vec::new();
        for (layer, dir) in self.dirs.iter().enumerate() {
            let Some(child) = dir.dir(name)? else {
                if dir.metadata(name)?.is_some() {
                    return Ok((!dirs.is_empty()).then_some(Self { dirs, below: None }));
                }
                continue;
            };
            // Below the lowest there is nothing to hide.
            let is_lowest = layer + 1 == self.dirs.len() && self.below.is_none();
            let opaque = !is_lowest && child.is_opaque()?;
            dirs.push(child);
            if opaque {
                return Ok(Some(Self { dirs, below: None }));
            }
        }
        let below = match &self.below {
            Some(below) => below.stack.below(&below.path.join(name))?,
            None => None,
        };
        Ok((!dirs.is_empty() || below.is_some()).then_some(Self { dirs, below }))
    }

    /// What is in the directory, in byte order.
    pub(crate) fn entries(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        self.collect(&mut HashSet::new(), &mut entries)?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Adds what is in the directory, except for the names that were `seen` above it.
    fn collect(&self, seen: &mut HashSet<OsString>, entries: &mut Vec<DirEntry>) -> io::Result<()> {
        for (layer, dir) in self.dirs.iter().enumerate() {
            let is_lowest = layer + 1 == self.dirs.len() && self.below.is_none();
            for name in dir.names()? {
                if seen.contains(&name) {
                    continue;
                }
                let Some(metadata) = dir.metadata(&name)? else { continue };
                if !is_lowest {
                    seen.insert(name.clone());
                }
                if !dir.is_whiteout(&name, &metadata)? {
                    entries.push(DirEntry { name, metadata });
                }
            }
        }
        self.below.as_ref().map_or(Ok(()), |below| below.merged.collect(seen, entries))
    }
}

impl View for Stack {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some((parent, name)) = split(path) else {
            return match self.merged(path)? {
                Some(root) => Ok(Some(root.own_metadata()?.unwrap_or_else(empty_root))),
                None => Ok(None),
            };
        };
        self.merged(parent)?.map_or(Ok(None), |merged| merged.metadata(name))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.merged(path)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))
            .and_then(|merged| merged.entries())
            .map_err(|error| {
                walk::with_path(error, "cannot read directory", &crate::path::absolute(path))
            })
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.at(path, Part::open)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.at(path, Part::read_link)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        if path.as_os_str().is_empty() {
            return self.merged(path)?.map_or(Ok(Vec::new()), |root| root.own_xattrs());
        }
        self.at(path, Part::xattrs)
    }
}

/// Descriptors that only this directory keeps open: the roots are the layers' own.
fn own_descriptors(path: &Path, merged: &Merged) -> usize {
    if path.as_os_str().is_empty() {
        return 0;
    }
    merged.dirs.iter().map(Part::descriptors).sum()
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

/// The root of a tree that nothing was put into.
pub(crate) fn empty_root() -> Metadata {
    Metadata {
        kind: Kind::Dir,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: crate::Timestamp::default(),
        ctime: crate::Timestamp::default(),
        rdev: (0, 0),
        inode: (0, 0),
        links: 1,
    }
}
