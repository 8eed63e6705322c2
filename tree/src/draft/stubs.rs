//! Mount targets and the working directory of a step.
//!
//! A mount needs something to be mounted on. What is made for that is removed again after the step, unless
//! the step has put something there.
//!
//! Format: spec `sandbox.md` §1 and §7.

use std::path::{Path, PathBuf};

use super::folder::Attributes;
use super::{Draft, NewDirs};
use crate::path::{clean, split};
use crate::{Kind, TreeError, View};

/// A path that was made for a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    path: PathBuf,
    directory: bool,
}

impl Stub {
    /// The path, relative to the root, without symlinks.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Draft {
    /// Makes a directory to mount on, with its parents; returns what was missing, deepest first.
    ///
    /// # Errors
    /// When a parent is no directory or the file system fails.
    pub fn ensure_dir(&mut self, path: &str) -> Result<Vec<Stub>, TreeError> {
        let path = self.resolve(&clean(path), true)?;
        let stubs = self.missing(&path, true)?;
        if !stubs.is_empty() {
            self.make_dirs(&path, &PLAIN)?;
        }
        Ok(stubs)
    }

    /// Makes an empty file to mount on, with its parents; returns what was missing, deepest first.
    ///
    /// # Errors
    /// When a parent is no directory or the file system fails.
    pub fn ensure_file(&mut self, path: &str) -> Result<Vec<Stub>, TreeError> {
        let path = self.resolve(&clean(path), true)?;
        let stubs = self.missing(&path, false)?;
        if let (false, Some((parent, name))) = (stubs.is_empty(), split(&path)) {
            let folder = self.make_dirs(parent, &PLAIN)?;
            let file = folder.create(name)?;
            let attributes =
                Attributes { mode: Some(0o755), owner: Some((0, 0)), ..Attributes::default() };
            folder.set_file(&file, &attributes).map_err(TreeError::io("change", &path))?;
        }
        Ok(stubs)
    }

    /// Makes the working directory of a step, if it is missing; it stays in the layer.
    ///
    /// # Errors
    /// When a parent is no directory or the file system fails.
    pub fn ensure_cwd(&mut self, path: &str, uid: u32, gid: u32) -> Result<(), TreeError> {
        let path = self.resolve(&clean(path), true)?;
        if self.metadata(&path)?.is_none() {
            self.make_dirs(&path, &NewDirs { owner: Some((uid, gid)), ..PLAIN })?;
        }
        Ok(())
    }

    /// Removes what was made for mounts and is still empty, leaving the times of the directories around it.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn remove_stubs(&mut self, mut stubs: Vec<Stub>) -> Result<(), TreeError> {
        stubs.sort_by_key(|stub| std::cmp::Reverse(stub.path.iter().count()));
        stubs.dedup();
        for stub in &stubs {
            let Some((parent, name)) = split(&stub.path) else { continue };
            // The step may have put a symlink where a directory was.
            if self.resolve(parent, true)? != parent {
                continue;
            }
            let view = self.view();
            let read = TreeError::io("read", &stub.path);
            let empty = match view.metadata(&stub.path).map_err(read)? {
                Some(found) if stub.directory && found.kind == Kind::Dir => {
                    view.read_dir(&stub.path).map_err(TreeError::io("read", &stub.path))?.is_empty()
                }
                Some(found) => !stub.directory && found.kind == Kind::File && found.size == 0,
                None => false,
            };
            if !empty {
                continue;
            }
            let before = view.metadata(parent).map_err(TreeError::io("read", parent))?;
            let folder = self.folder(parent)?;
            if folder.remove(name)? {
                let mtime = before.map(|before| before.mtime);
                folder.set(&Attributes { mtime, ..Attributes::default() })?;
            }
        }
        Ok(())
    }

    /// The parts of a resolved path that are not there, deepest first.
    fn missing(&self, path: &Path, directory: bool) -> Result<Vec<Stub>, TreeError> {
        let mut stubs = Vec::new();
        for part in path.ancestors().filter(|part| !part.as_os_str().is_empty()) {
            if self.metadata(part)?.is_some() {
                break;
            }
            stubs.push(Stub { path: part.to_owned(), directory: directory || part != path });
        }
        Ok(stubs)
    }
}

const PLAIN: NewDirs = NewDirs { mode: 0o755, owner: None, mtime: None };
