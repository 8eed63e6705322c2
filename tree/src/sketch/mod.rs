//! One new layer over a stack of others, planned in memory and written straight to its tar.
//!
//! A `COPY` that no step runs upon needs no unpacked files: what it makes is a list of names with their
//! attributes, and the bytes are read when the tar is written. The result is a [`Packed`] layer. What such a
//! layer may not hold (deletions, unpacked archives) is left to a [`Draft`](crate::draft::Draft).
//!
//! Invariants:
//! - The tar is byte for byte that of the layer which a draft would have made, times of the making aside.
//! - Bytes are read once, and few are in memory at any time.
//!
//! Format: spec `instructions.md` §7-§9.

mod ahead;
mod copy;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::diff::write_part;
use crate::draft::{CopyOptions, MkdirOptions, MkfileOptions, NewDirs, SymlinkOptions};
use crate::packed::{Builder, Entry, Node, Origin, Packed, Written};
use crate::part::Part;
use crate::path::{absolute, clean, resolve, split};
use crate::stack::{Merged, Stack, empty_root};
use crate::{DirEntry, FileData, Kind, Metadata, Timestamp, TreeError, View};

/// A layer that is being planned.
pub struct Sketch {
    lower: Stack,
    dirs: Vec<Dir>,
    /// Number that the next file with several names gets.
    next_file: u32,
    /// Bytes of files that are read ahead, and of larger ones.
    bytes: (u64, u64),
}

/// Number of a directory of the plan.
type DirId = usize;

const ROOT: DirId = 0;

/// A directory that the layer has, made by it or copied up.
struct Dir {
    metadata: Metadata,
    xattrs: Vec<(OsString, Vec<u8>)>,
    /// The same directory below.
    below: Option<Arc<Merged>>,
    children: BTreeMap<OsString, Child>,
}

enum Child {
    Dir(DirId),
    Leaf(Box<Leaf>),
}

/// Anything but a directory.
#[derive(Clone)]
struct Leaf {
    metadata: Metadata,
    xattrs: Vec<(OsString, Vec<u8>)>,
    target: Option<OsString>,
    origin: Origin,
    /// Equal for names of one file.
    file: Option<u32>,
}

impl std::fmt::Debug for Sketch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sketch").field("dirs", &self.dirs.len()).finish_non_exhaustive()
    }
}

/// A layer whose tar has been written and has no name yet.
#[derive(Debug, Clone)]
pub struct Unplaced {
    plan: Packed,
    written: Vec<Written>,
}

impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Unplaced {
    /// The layer, read from its tar.
    #[must_use]
    pub fn place(self, tar: File) -> Packed {
        self.plan.placed(tar, self.written)
    }
}

impl Sketch {
    /// Whether a copy can be planned here; others need a draft.
    #[must_use]
    pub fn takes(options: &CopyOptions) -> bool {
        !options.attempt_unpack && !options.always_replace
    }

    /// Starts a layer over a stack.
    ///
    /// # Errors
    /// When the stack cannot be read.
    pub fn new(lower: Stack) -> Result<Self, TreeError> {
        let root = Path::new("");
        let below = lower.merged(root).map_err(TreeError::io("read", root))?;
        let mut metadata = empty_root();
        metadata.mtime = now();
        let dir = Dir { metadata, xattrs: Vec::new(), below, children: BTreeMap::new() };
        Ok(Self { lower, dirs: vec![dir], next_file: 0, bytes: (0, 0) })
    }

    /// The layers below.
    #[must_use]
    pub fn lower(&self) -> &Stack {
        &self.lower
    }

    /// Whether most of the bytes are those of large files, which nobody reads ahead: writing them is worth a thread.
    #[must_use]
    pub fn is_of_large_files(&self) -> bool {
        let (small, large) = self.bytes;
        large > small
    }

    /// Makes a file, as [`Draft::mkfile`](crate::draft::Draft::mkfile) does.
    ///
    /// # Errors
    /// When the directory is missing or `path` is a directory.
    pub fn mkfile(&mut self, options: &MkfileOptions) -> Result<(), TreeError> {
        let path = self.resolve(&clean(&options.path), true)?;
        let (dir, name) = self.existing_parent(&path)?;
        let (uid, gid) = options.owner.unwrap_or_default();
        let metadata = Metadata {
            kind: Kind::File,
            mode: options.mode & 0o7777,
            uid,
            gid,
            size: options.data.len() as u64,
            mtime: options.timestamp.unwrap_or_else(now),
            ..empty_root()
        };
        let origin = Origin::Bytes(options.data.as_slice().into());
        let leaf = Leaf { metadata, xattrs: Vec::new(), target: None, origin, file: None };
        self.put(dir, &name, &path, leaf)
    }

    /// Makes a directory, as [`Draft::mkdir`](crate::draft::Draft::mkdir) does.
    ///
    /// # Errors
    /// When a parent is missing and none is to be made, or something else is there.
    pub fn mkdir(&mut self, options: &MkdirOptions) -> Result<(), TreeError> {
        let path = self.resolve(&clean(&options.path), true)?;
        if let Some(metadata) = self.metadata_at(&path)? {
            return match metadata.kind {
                Kind::Dir => Ok(()),
                _ => Err(TreeError::NotDirectory { path: absolute(&path) }),
            };
        }
        if !options.make_parents {
            self.existing_parent(&path)?;
        }
        let new =
            NewDirs { mode: options.mode & 0o7777, owner: options.owner, mtime: options.timestamp };
        self.make_dirs(&path, &new).map(drop)
    }

    /// Makes a symbolic link, as [`Draft::symlink`](crate::draft::Draft::symlink) does.
    ///
    /// # Errors
    /// When something is there already or the directory is missing.
    pub fn symlink(&mut self, options: &SymlinkOptions) -> Result<(), TreeError> {
        let path = self.resolve(&clean(&options.path), false)?;
        let (dir, name) = self.existing_parent(&path)?;
        if self.child(dir, &name)?.is_some() {
            return Err(TreeError::Exists { path: absolute(&path) });
        }
        let (uid, gid) = options.owner.unwrap_or_default();
        let metadata = Metadata {
            kind: Kind::Symlink,
            mode: 0o777,
            uid,
            gid,
            size: options.target.len() as u64,
            mtime: options.timestamp.unwrap_or_else(now),
            ..empty_root()
        };
        let target = Some(OsString::from(&options.target));
        let leaf = Leaf { metadata, xattrs: Vec::new(), target, origin: Origin::None, file: None };
        self.put(dir, &name, &path, leaf)
    }

    /// Writes the layer's tar.
    ///
    /// # Errors
    /// When something cannot be read, has another size by now, or `out` fails.
    pub fn write(self, out: &mut dyn Write) -> io::Result<Unplaced> {
        let lower = self.lower.clone();
        let plan = self.plan();
        let root = Part::Packed(plan.clone(), Builder::ROOT);
        let written = ahead::with_files(&plan, |ahead| write_part(&root, &lower, out, ahead))?;
        Ok(Unplaced { plan, written })
    }

    /// The index of the layer, directories before what is in them.
    fn plan(mut self) -> Packed {
        let root = &mut self.dirs[ROOT];
        let mut builder = Builder::new(&root.metadata, std::mem::take(&mut root.xattrs));
        let mut files: HashMap<u32, Node> = HashMap::new();
        let mut open = std::collections::VecDeque::from([(ROOT, Builder::ROOT)]);
        while let Some((dir, node)) = open.pop_front() {
            let children = std::mem::take(&mut self.dirs[dir].children);
            builder.begin(node, children.len());
            for (name, child) in children {
                match child {
                    Child::Dir(id) => {
                        let dir = &mut self.dirs[id];
                        let node = builder.add(Entry {
                            name,
                            metadata: dir.metadata.clone(),
                            xattrs: std::mem::take(&mut dir.xattrs),
                            target: None,
                            origin: Origin::None,
                            same_as: None,
                        });
                        open.push_back((id, node));
                    }
                    Child::Leaf(leaf) => {
                        let Leaf { metadata, xattrs, target, origin, file } = *leaf;
                        let same_as = file.and_then(|file| files.get(&file).copied());
                        let node =
                            builder.add(Entry { name, metadata, xattrs, target, origin, same_as });
                        if let Some(file) = file {
                            files.entry(file).or_insert(node);
                        }
                    }
                }
            }
        }
        builder.finish()
    }

    fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf, TreeError> {
        resolve(self, path, follow_last).map_err(TreeError::io("resolve", path))
    }

    fn metadata_at(&self, path: &Path) -> Result<Option<Metadata>, TreeError> {
        self.metadata(path).map_err(TreeError::io("read", path))
    }

    /// Metadata of a name in a directory of the plan, as the tree shows it.
    fn child(&self, dir: DirId, name: &OsStr) -> Result<Option<Metadata>, TreeError> {
        let dir = &self.dirs[dir];
        match dir.children.get(name) {
            Some(Child::Dir(id)) => Ok(Some(self.dirs[*id].metadata.clone())),
            Some(Child::Leaf(leaf)) => Ok(Some(leaf.metadata.clone())),
            None => match &dir.below {
                Some(below) => below.metadata(name).map_err(TreeError::io("read", Path::new(name))),
                None => Ok(None),
            },
        }
    }

    /// Enters a directory, copying it up if need be; `None` when there is nothing of this name.
    fn enter(&mut self, dir: DirId, name: &OsStr, path: &Path) -> Result<Option<DirId>, TreeError> {
        let not_a_directory = || TreeError::NotDirectory { path: absolute(path) };
        match self.dirs[dir].children.get(name) {
            Some(Child::Dir(id)) => return Ok(Some(*id)),
            Some(Child::Leaf(_)) => return Err(not_a_directory()),
            None => {}
        }
        let Some(metadata) = self.child(dir, name)? else { return Ok(None) };
        if metadata.kind != Kind::Dir {
            return Err(not_a_directory());
        }
        let io = |error| TreeError::io("read", path)(error);
        let below = match &self.dirs[dir].below {
            Some(below) => below.dir(name).map_err(io)?.map(Arc::new),
            None => None,
        };
        let xattrs = match &below {
            Some(below) => below.own_xattrs().map_err(TreeError::io("read", path))?,
            None => Vec::new(),
        };
        Ok(Some(self.insert_dir(
            dir,
            name,
            Dir { metadata, xattrs, below, children: BTreeMap::new() },
        )))
    }

    fn insert_dir(&mut self, parent: DirId, name: &OsStr, dir: Dir) -> DirId {
        let id = self.dirs.len();
        self.dirs.push(dir);
        let parent = &mut self.dirs[parent];
        parent.children.insert(name.to_owned(), Child::Dir(id));
        parent.metadata.mtime = now();
        id
    }

    /// Makes a directory where the tree shows nothing.
    fn make_dir(&mut self, parent: DirId, name: &OsStr) -> DirId {
        let metadata = Metadata { mtime: now(), ..empty_root() };
        let dir = Dir { metadata, xattrs: Vec::new(), below: None, children: BTreeMap::new() };
        self.insert_dir(parent, name, dir)
    }

    /// The directory at a resolved path, which must exist, and the name in it.
    fn existing_parent(&mut self, path: &Path) -> Result<(DirId, OsString), TreeError> {
        let Some((parent, name)) = split(path) else {
            return Err(TreeError::ReplaceDirectory { path: absolute(path) });
        };
        let mut dir = ROOT;
        let mut at = PathBuf::new();
        for part in parent {
            at.push(part);
            dir = self.enter(dir, part, &at)?.ok_or_else(|| TreeError::not_found(parent))?;
        }
        Ok((dir, name.to_owned()))
    }

    /// The directory at a resolved path, making what is missing.
    fn make_dirs(&mut self, path: &Path, new: &NewDirs) -> Result<DirId, TreeError> {
        let mut dir = ROOT;
        let mut at = PathBuf::new();
        for name in path {
            at.push(name);
            dir = match self.enter(dir, name, &at)? {
                Some(next) => next,
                None => {
                    let next = self.make_dir(dir, name);
                    let metadata = &mut self.dirs[next].metadata;
                    metadata.mode = new.mode;
                    (metadata.uid, metadata.gid) = new.owner.unwrap_or_default();
                    metadata.mtime = new.mtime.unwrap_or(metadata.mtime);
                    next
                }
            };
        }
        Ok(dir)
    }

    /// Puts anything but a directory under a name, in place of what is there unless that is a directory.
    fn put(&mut self, dir: DirId, name: &OsStr, path: &Path, leaf: Leaf) -> Result<(), TreeError> {
        if self.child(dir, name)?.is_some_and(|existing| existing.kind == Kind::Dir) {
            return Err(TreeError::ReplaceDirectory { path: absolute(path) });
        }
        let (small, large) = &mut self.bytes;
        *if leaf.metadata.size <= ahead::SMALL { small } else { large } += leaf.metadata.size;
        let dir = &mut self.dirs[dir];
        dir.children.insert(name.to_owned(), Child::Leaf(Box::new(leaf)));
        dir.metadata.mtime = now();
        Ok(())
    }

    /// What of the plan a path leads to; the inner error is a directory below that the plan does not have.
    fn find(&self, path: &Path) -> Option<Result<DirId, ()>> {
        let mut dir = ROOT;
        for name in path {
            match self.dirs[dir].children.get(name) {
                Some(Child::Dir(id)) => dir = *id,
                Some(Child::Leaf(_)) => return None,
                None => return Some(Err(())),
            }
        }
        Some(Ok(dir))
    }
}

/// The tree as it is planned by now.
impl View for Sketch {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        let Some((parent, name)) = split(path) else {
            return Ok(Some(self.dirs[ROOT].metadata.clone()));
        };
        match self.find(parent) {
            None => Ok(None),
            Some(Err(())) => self.lower.metadata(path),
            Some(Ok(dir)) => match self.dirs[dir].children.get(name) {
                Some(Child::Dir(id)) => Ok(Some(self.dirs[*id].metadata.clone())),
                Some(Child::Leaf(leaf)) => Ok(Some(leaf.metadata.clone())),
                None => match &self.dirs[dir].below {
                    Some(below) => below.metadata(name),
                    None => Ok(None),
                },
            },
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = match self.find(path) {
            None => return Err(io::ErrorKind::NotADirectory.into()),
            Some(Err(())) => return self.lower.read_dir(path),
            Some(Ok(dir)) => &self.dirs[dir],
        };
        let below = dir.below.as_ref().map_or(Ok(Vec::new()), |below| below.entries())?;
        let mut all: BTreeMap<OsString, Metadata> =
            below.into_iter().map(|entry| (entry.name, entry.metadata)).collect();
        for (name, child) in &dir.children {
            let metadata = match child {
                Child::Dir(id) => &self.dirs[*id].metadata,
                Child::Leaf(leaf) => &leaf.metadata,
            };
            all.insert(name.clone(), metadata.clone());
        }
        Ok(all.into_iter().map(|(name, metadata)| DirEntry { name, metadata }).collect())
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        match self.leaf(path) {
            None => self.lower.open(path),
            Some(leaf) => match &leaf.origin {
                Origin::None => Err(io::ErrorKind::InvalidInput.into()),
                Origin::Bytes(bytes) => Ok(FileData::bytes(bytes.to_vec())),
                Origin::Tree(view, path) => view.open(path),
            },
        }
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        match self.leaf(path) {
            None => self.lower.read_link(path),
            Some(leaf) => {
                leaf.target.as_ref().map(PathBuf::from).ok_or(io::ErrorKind::InvalidInput.into())
            }
        }
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match (self.leaf(path), self.find(path)) {
            (Some(leaf), _) => match &leaf.origin {
                Origin::Tree(view, path) => view.xattrs(path),
                _ => Ok(leaf.xattrs.clone()),
            },
            (None, Some(Ok(dir))) => Ok(self.dirs[dir].xattrs.clone()),
            _ => self.lower.xattrs(path),
        }
    }
}

impl Sketch {
    fn leaf(&self, path: &Path) -> Option<&Leaf> {
        let (parent, name) = split(path)?;
        let Some(Ok(dir)) = self.find(parent) else { return None };
        match self.dirs[dir].children.get(name) {
            Some(Child::Leaf(leaf)) => Some(leaf),
            _ => None,
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests;
