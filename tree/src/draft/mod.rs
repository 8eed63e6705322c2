//! One new layer over a stack of others, made without running or mounting anything.
//!
//! `COPY`, `ADD`, `WORKDIR` and heredoc files are made of these actions. Each reads the merged tree, resolves
//! its paths inside it, and writes to the upper folder alone, in the form overlayfs would have given it.
//!
//! Invariants:
//! - Nothing outside the upper folder is written, whatever sources, archives and symlinks say.
//! - What was there and is not touched is not copied: the layer is the change.
//!
//! Format: spec `instructions.md` §7-§9, `sandbox.md` §1 and §7.

mod copy;
mod data;
mod folder;
mod graft;
mod mode;
mod owners;
mod stubs;
mod unpack;
mod whole;

use std::ffi::OsStr;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::layer::{Encoding, LayerDir};
use crate::path::{absolute, clean, resolve, split};
use crate::select;
use crate::stack::Stack;
use crate::{Kind, Stop, Timestamp, TreeError, View};
use folder::Folder;

pub(crate) use copy::means_directory;
pub(crate) use data::DataCopier;
pub(crate) use folder::{Attributes, set as set_attributes};
pub use graft::graft;
pub(crate) use mode::ModeChange;
pub use stubs::Stub;
pub use unpack::check_archive;
pub use whole::copy_tree;

/// Bytes of a file that are written at once.
const BUFFER: usize = 256 << 10;

/// A layer that is being made.
#[derive(Debug)]
pub struct Draft {
    lower: Stack,
    upper: LayerDir,
    encoding: Encoding,
}

/// `COPY` and `ADD` of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// Source path or pattern, absolute within the source tree.
    pub source: String,
    /// Destination, absolute; a trailing `/` means a directory.
    pub dest: String,
    /// Owner of what is copied; `None` keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// Permission bits; `None` keeps the source's.
    pub mode: Option<u32>,
    /// Symbolic mode (`u+x`); empty when not used.
    pub mode_text: String,
    /// Follow a symlink named as source.
    pub follow_symlink: bool,
    /// Copy the contents of a directory instead of the directory.
    pub dir_copy_contents: bool,
    /// Unpack archives.
    pub attempt_unpack: bool,
    /// Make missing parents of `dest`.
    pub create_dest_path: bool,
    /// `source` may be a pattern.
    pub allow_wildcard: bool,
    /// A pattern that matches nothing is no error.
    pub allow_empty_wildcard: bool,
    /// Modification time of what is copied; `None` keeps the source's.
    pub timestamp: Option<Timestamp>,
    /// Only paths matching one of these, relative to a source directory.
    pub include: Vec<String>,
    /// No path matching these, relative to a source directory.
    pub exclude: Vec<String>,
    /// Paths that must exist below the source.
    pub required: Vec<String>,
    /// Replace what is at the destination even if its kind differs.
    pub always_replace: bool,
    /// When to give up unpacking.
    pub stop: Stop,
}

/// A file with given content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MkfileOptions {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner; `None` is root.
    pub owner: Option<(u32, u32)>,
    /// Modification time; `None` is now.
    pub timestamp: Option<Timestamp>,
}

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MkdirOptions {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Make missing parents.
    pub make_parents: bool,
    /// Owner; `None` is root.
    pub owner: Option<(u32, u32)>,
    /// Modification time; `None` is now.
    pub timestamp: Option<Timestamp>,
}

/// A removal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// What.
    pub path: String,
    /// A missing path is no error.
    pub allow_not_found: bool,
    /// `path` may be a pattern.
    pub allow_wildcard: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymlinkOptions {
    /// What the link says.
    pub target: String,
    /// Where the link is.
    pub path: String,
    /// Owner; `None` is root.
    pub owner: Option<(u32, u32)>,
    /// Modification time; `None` is now.
    pub timestamp: Option<Timestamp>,
}

/// An archive that is unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpackOptions {
    /// Owner of every entry and of the directories of the destination; `None` keeps the archive's.
    pub owner: Option<(u32, u32)>,
    /// Modification time of directories made for the destination; `None` is now.
    pub timestamp: Option<Timestamp>,
    /// When to give up.
    pub stop: Stop,
}

/// What directories are given that are made on the way to a path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewDirs {
    pub(crate) mode: u32,
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mtime: Option<Timestamp>,
}

impl Draft {
    /// Starts a layer in the folder `upper`, which may hold what an earlier draft or a mount left there.
    #[must_use]
    pub fn new(lower: Stack, upper: LayerDir, encoding: Encoding) -> Self {
        Self { lower, upper, encoding }
    }

    /// The tree as it is now, with the new layer on top. It is not to be used after the next change.
    #[must_use]
    pub fn view(&self) -> Stack {
        self.lower.push(self.upper.clone())
    }

    /// Makes a file, in place of one that is there; its directory must exist.
    ///
    /// # Errors
    /// When the directory is missing, `path` is a directory, or the file system fails.
    pub fn mkfile(&mut self, options: &MkfileOptions) -> Result<(), TreeError> {
        self.mkfile_from(options, &mut options.data.as_slice()).map(drop)
    }

    /// Makes a file as [`mkfile`](Self::mkfile) does, but with the content that `data` gives, however large; returns
    /// its size.
    ///
    /// # Errors
    /// As [`mkfile`](Self::mkfile), and when `data` fails.
    pub fn mkfile_from(
        &mut self,
        options: &MkfileOptions,
        data: &mut dyn Read,
    ) -> Result<u64, TreeError> {
        let path = self.resolve(&clean(&options.path), true)?;
        let (folder, name) = self.existing_parent(&path)?;
        let mut file = BufWriter::with_capacity(BUFFER, folder.create(name)?);
        let written = io::copy(data, &mut file).and_then(|size| file.flush().map(|()| size));
        let size = written.map_err(TreeError::io("write", &path))?;
        let attributes = Attributes {
            mode: Some(options.mode & 0o7777),
            owner: Some(options.owner.unwrap_or_default()),
            mtime: options.timestamp,
            ..Attributes::default()
        };
        folder.set_file(file.get_ref(), &attributes).map_err(TreeError::io("change", &path))?;
        Ok(size)
    }

    /// Makes a directory; one that exists is left as it is.
    ///
    /// # Errors
    /// When a parent is missing and none is to be made, something else is there, or the file system fails.
    pub fn mkdir(&mut self, options: &MkdirOptions) -> Result<(), TreeError> {
        let path = self.resolve(&clean(&options.path), true)?;
        if let Some(metadata) = self.metadata(&path)? {
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

    /// Removes paths with all that is in them.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] when nothing is there, unless that is allowed; when the file system fails.
    pub fn remove(&mut self, options: &RemoveOptions) -> Result<(), TreeError> {
        let paths = if options.allow_wildcard && select::has_wildcards(&options.path) {
            let found = select::sources(&self.view(), &options.path, true, false)?;
            found.into_iter().map(|source| source.named).collect()
        } else {
            vec![clean(&options.path)]
        };
        for named in paths {
            let path = self.resolve(&named, false)?;
            let found = self.metadata(&path)?.is_some();
            if let (true, Some((parent, name))) = (found, split(&path)) {
                self.folder(parent)?.remove(name)?;
            } else if !options.allow_not_found {
                return Err(TreeError::not_found(&named));
            }
        }
        Ok(())
    }

    /// Makes a symbolic link; its directory must exist.
    ///
    /// # Errors
    /// When something is there already, the directory is missing, or the file system fails.
    pub fn symlink(&mut self, options: &SymlinkOptions) -> Result<(), TreeError> {
        let path = self.resolve(&clean(&options.path), false)?;
        let (folder, name) = self.existing_parent(&path)?;
        if folder.metadata(name)?.is_some() {
            return Err(TreeError::Exists { path: absolute(&path) });
        }
        folder.replace(name, |dir| rustix::fs::symlinkat(options.target.as_str(), dir, name))?;
        let attributes = Attributes {
            owner: Some(options.owner.unwrap_or_default()),
            mtime: options.timestamp,
            ..Attributes::default()
        };
        folder.set_child(name, Kind::Symlink, &attributes)
    }

    fn resolve(&self, path: &Path, follow_last: bool) -> Result<PathBuf, TreeError> {
        resolve(&self.view(), path, follow_last).map_err(TreeError::io("resolve", path))
    }

    fn metadata(&self, path: &Path) -> Result<Option<crate::Metadata>, TreeError> {
        self.view().metadata(path).map_err(TreeError::io("read", path))
    }

    fn root(&self) -> Result<Folder, TreeError> {
        let root = Folder::root(&self.lower, &self.upper, self.encoding);
        root.map_err(TreeError::io("open", Path::new("")))
    }

    /// The directory at a resolved path, which must exist.
    fn folder(&self, path: &Path) -> Result<Folder, TreeError> {
        let mut folder = self.root()?;
        for name in path {
            folder = folder.enter(name)?.ok_or_else(|| TreeError::not_found(path))?;
        }
        Ok(folder)
    }

    /// The directory of a resolved path, which must exist, and the name in it.
    fn existing_parent<'a>(&self, path: &'a Path) -> Result<(Folder, &'a OsStr), TreeError> {
        let Some((parent, name)) = split(path) else {
            return Err(TreeError::ReplaceDirectory { path: absolute(path) });
        };
        Ok((self.folder(parent)?, name))
    }

    /// The directory at a resolved path, making what is missing.
    fn make_dirs(&self, path: &Path, new: &NewDirs) -> Result<Folder, TreeError> {
        let mut folder = self.root()?;
        for name in path {
            folder = match folder.enter(name)? {
                Some(next) => next,
                None => {
                    let next = folder.make_dir(name)?;
                    next.set(&Attributes {
                        mode: Some(new.mode),
                        owner: Some(new.owner.unwrap_or_default()),
                        mtime: new.mtime,
                        ..Attributes::default()
                    })?;
                    next
                }
            };
        }
        Ok(folder)
    }
}

#[cfg(test)]
mod tests;
