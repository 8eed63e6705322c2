//! Paths of a tar, resolved inside the folder it is unpacked into.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::refused;
use crate::layer::{self, LayerDir};
use crate::{Kind, walk};

/// Symlinks followed for one path, as many as the reference follows.
const MAX_LINKS: usize = 255;
/// Longest resolved path: what the kernel takes, so that every path can be named later.
const MAX_PATH: usize = 4095;
/// Open directories kept, the deepest of a path; one above them is opened anew from the root.
const KEPT: usize = 24;

/// A folder and the directories in it that were used last.
pub(super) struct Folder {
    root: Arc<OwnedFd>,
    /// Names from the root down and their descriptors; tars list trees in order, so most of the way to the
    /// next entry is the way to the last.
    open: Vec<(Vec<u8>, Option<Arc<OwnedFd>>)>,
}

/// A directory as a tar names it.
pub(super) struct Resolved {
    /// Its path, without any symlink.
    pub(super) path: Vec<u8>,
    /// Which directories of the path are not there yet, outermost first.
    pub(super) missing: Vec<Vec<u8>>,
}

/// A name in an open directory.
pub(super) struct Slot {
    pub(super) dir: Arc<OwnedFd>,
    name: Vec<u8>,
}

impl Slot {
    pub(super) fn new(dir: Arc<OwnedFd>, name: &[u8]) -> Self {
        Self { dir, name: name.to_vec() }
    }

    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }
}

impl Folder {
    pub(super) fn open(layer: &LayerDir) -> io::Result<Self> {
        Ok(Self { root: Arc::new(layer.root()?.try_clone_to_owned()?), open: Vec::new() })
    }

    /// Opens a directory by its resolved path; `None` when it is not there.
    pub(super) fn find(&mut self, path: &[u8]) -> io::Result<Option<Arc<OwnedFd>>> {
        let names: Vec<&[u8]> =
            path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()).collect();
        let mut known =
            self.open.iter().zip(&names).take_while(|((open, _), name)| open == *name).count();
        let mut dir = Arc::clone(&self.root);
        while let Some(last) = known.checked_sub(1) {
            if let Some(open) = &self.open[last].1 {
                dir = Arc::clone(open);
                break;
            }
            known = last;
        }
        if known < names.len() {
            self.open.truncate(known);
        }
        for name in &names[known..] {
            let Some(next) = walk::open_dir(dir.as_fd(), OsStr::from_bytes(name))? else {
                return Ok(None);
            };
            dir = Arc::new(next);
            self.open.push((name.to_vec(), Some(Arc::clone(&dir))));
            if let Some(above) = self.open.len().checked_sub(KEPT + 1) {
                self.open[above].1 = None;
            }
        }
        Ok(Some(dir))
    }

    /// Opens a directory that is there.
    pub(super) fn dir(&mut self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        self.find(path)?.ok_or_else(|| {
            refused(&format!("`{}` as a directory, which it is not", path.escape_ascii()))
        })
    }

    /// A name in a directory that is there.
    pub(super) fn slot(&mut self, parent: &[u8], name: &[u8]) -> io::Result<Slot> {
        Ok(Slot::new(self.dir(parent)?, name))
    }

    /// Closes what is kept of a path that is about to go.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let names = path.split(|&byte| byte == b'/');
        let known =
            self.open.iter().zip(names).take_while(|((open, _), name)| open == name).count();
        self.open.truncate(known.saturating_sub(1));
    }

    /// Resolves a directory, following symlinks of the folder inside it.
    pub(super) fn resolve(&mut self, parts: &[&[u8]]) -> io::Result<Resolved> {
        let plain = parts.join(&b'/');
        if plain.len() <= MAX_PATH && self.find(&plain)?.is_some() {
            return Ok(Resolved { path: plain, missing: Vec::new() });
        }
        let mut todo: Vec<Vec<u8>> = parts.iter().rev().map(|part| part.to_vec()).collect();
        let mut resolved = Resolved { path: Vec::new(), missing: Vec::new() };
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                let length = split(&resolved.path).0.len();
                resolved.path.truncate(length);
                if resolved.missing.last().is_some_and(|missing| missing.len() > length) {
                    resolved.missing.pop();
                }
                continue;
            }
            match self.look(&resolved, &name)? {
                Step::Dir => resolved.path = join(&resolved.path, &name),
                Step::Missing => {
                    resolved.path = join(&resolved.path, &name);
                    resolved.missing.push(resolved.path.clone());
                }
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(rustix::io::Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        resolved.path.clear();
                        resolved.missing.clear();
                    }
                    let names = target.split(|&byte| byte == b'/').rev();
                    todo.extend(
                        names.filter(|name| !matches!(*name, b"" | b".")).map(<[u8]>::to_vec),
                    );
                }
            }
            if resolved.path.len() > MAX_PATH {
                return Err(rustix::io::Errno::NAMETOOLONG.into());
            }
        }
        Ok(resolved)
    }

    fn look(&mut self, resolved: &Resolved, name: &[u8]) -> io::Result<Step> {
        // Nothing is in a directory that is itself missing.
        if resolved.missing.last().is_some_and(|missing| *missing == resolved.path) {
            return Ok(Step::Missing);
        }
        let dir = self.dir(&resolved.path)?;
        let Some(found) = walk::metadata(dir.as_fd(), OsStr::from_bytes(name))? else {
            return Ok(Step::Missing);
        };
        match found.kind {
            Kind::Dir => Ok(Step::Dir),
            Kind::Symlink => {
                let target = walk::read_link(dir.as_fd(), OsStr::from_bytes(name))?;
                Ok(Step::Link(target.into_os_string().into_encoded_bytes()))
            }
            _ if layer::is_whiteout(dir.as_fd(), OsStr::from_bytes(name), &found)? => {
                Ok(Step::Missing)
            }
            _ => {
                let path = join(&resolved.path, name);
                Err(refused(&format!(
                    "`{}` as a directory and as something else",
                    path.escape_ascii()
                )))
            }
        }
    }
}

enum Step {
    Dir,
    Missing,
    Link(Vec<u8>),
}

/// Parts of a path as a tar has it, cleaned: `..` takes a part back, at the root it does nothing.
pub(super) fn parts(path: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts
}

/// Paths of a directory tree, from which whole branches can be cut.
#[derive(Debug, Default)]
pub(super) struct Paths(BTreeSet<Vec<u8>>);

impl Paths {
    pub(super) fn insert(&mut self, path: &[u8]) {
        self.0.insert(path.to_vec());
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        self.0.remove(path);
    }

    /// Removes a path and all below it.
    pub(super) fn remove_branch(&mut self, path: &[u8]) {
        self.0.remove(path);
        // `0` is what comes after `/`.
        let range = [path, b"/"].concat()..[path, b"0"].concat();
        let branch: Vec<_> = self.0.range(range).cloned().collect();
        for path in branch {
            self.0.remove(&path);
        }
    }

    /// Whether a path or one above it is there.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        let mut path = path;
        while !self.0.is_empty() {
            if self.0.contains(path) {
                return true;
            }
            if path.is_empty() {
                break;
            }
            (path, _) = split(path);
        }
        false
    }

    /// The paths, those above before those below.
    pub(super) fn into_sorted(self) -> impl Iterator<Item = Vec<u8>> {
        self.0.into_iter()
    }
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Splits the last name off.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}
