//! Two file trees, compared path by path.
//!
//! Cost is that of listing both trees and of reading the files of equal size that are not one file.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::select::check_depth;
use crate::{Kind, Metadata, Timestamp, TreeError, View};

/// A path that differs between two trees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path, relative to the root.
    pub path: PathBuf,
    /// How it differs.
    pub change: Change,
}

/// How a path differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second tree has it.
    Added(Metadata),
    /// Only the first tree has it.
    Removed(Metadata),
    /// Both have it, and these of its aspects are not the same.
    Changed(Vec<Aspect>),
}

/// What differs of a path that two trees have, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aspect {
    /// Kind of thing.
    Kind(Kind, Kind),
    /// Permission bits.
    Mode(u32, u32),
    /// User and group.
    Owner((u32, u32), (u32, u32)),
    /// Bytes of a file, whose content then differs too.
    Size(u64, u64),
    /// Bytes of a file, which are as many.
    Content,
    /// Target of a symlink.
    Target(PathBuf, PathBuf),
    /// Number of a device.
    Device((u32, u32), (u32, u32)),
    /// Extended attributes of these names.
    Attributes(Vec<OsString>),
    /// Time of the last change of the content.
    Time(Timestamp, Timestamp),
}

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompareOptions {
    /// Times too.
    pub times: bool,
}

/// Compares two trees; what differs is in byte order of the paths.
///
/// # Errors
/// When a tree cannot be read, or is nested too deeply.
pub fn compare(
    before: &dyn View,
    after: &dyn View,
    options: CompareOptions,
) -> Result<Vec<Difference>, TreeError> {
    let mut walk = Walk { before, after, options, found: Vec::new() };
    let root = Path::new("");
    if let (Some(old), Some(new)) = (walk.metadata(before, root)?, walk.metadata(after, root)?) {
        walk.pair(root, &old, &new)?;
    }
    walk.found.sort_by(|one, other| one.path.as_os_str().cmp(other.path.as_os_str()));
    Ok(walk.found)
}

struct Walk<'a> {
    before: &'a dyn View,
    after: &'a dyn View,
    options: CompareOptions,
    found: Vec<Difference>,
}

impl Walk<'_> {
    fn metadata(&self, view: &dyn View, path: &Path) -> Result<Option<Metadata>, TreeError> {
        view.metadata(path).map_err(TreeError::io("read", path))
    }

    /// A path that both have.
    fn pair(&mut self, path: &Path, old: &Metadata, new: &Metadata) -> Result<(), TreeError> {
        let aspects = self.aspects(path, old, new).map_err(TreeError::io("compare", path))?;
        if !aspects.is_empty() {
            let change = Change::Changed(aspects);
            self.found.push(Difference { path: path.to_owned(), change });
        }
        match (old.kind, new.kind) {
            (Kind::Dir, Kind::Dir) => self.folders(path),
            (Kind::Dir, _) => self.below(path, false),
            (_, Kind::Dir) => self.below(path, true),
            _ => Ok(()),
        }
    }

    /// What is in a folder that both have.
    fn folders(&mut self, path: &Path) -> Result<(), TreeError> {
        check_depth(path, path)?;
        let read = |view: &dyn View| view.read_dir(path).map_err(TreeError::io("read", path));
        let (old, new) = (read(self.before)?, read(self.after)?);
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.name.cmp(&new.name),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return Ok(()),
            };
            let gone = if order.is_le() { old.next() } else { None };
            let come = if order.is_ge() { new.next() } else { None };
            match (gone, come) {
                (Some(old), Some(new)) => {
                    self.pair(&path.join(&old.name), &old.metadata, &new.metadata)?;
                }
                (Some(entry), None) => {
                    self.alone(&path.join(&entry.name), &entry.metadata, false)?
                }
                (None, Some(entry)) => {
                    self.alone(&path.join(&entry.name), &entry.metadata, true)?
                }
                (None, None) => {}
            }
        }
    }

    /// A path that only one has, with all that is in it.
    fn alone(&mut self, path: &Path, metadata: &Metadata, is_new: bool) -> Result<(), TreeError> {
        let change = match is_new {
            true => Change::Added(metadata.clone()),
            false => Change::Removed(metadata.clone()),
        };
        self.found.push(Difference { path: path.to_owned(), change });
        if metadata.kind == Kind::Dir { self.below(path, is_new) } else { Ok(()) }
    }

    fn below(&mut self, path: &Path, is_new: bool) -> Result<(), TreeError> {
        check_depth(path, path)?;
        let view = if is_new { self.after } else { self.before };
        let entries = view.read_dir(path).map_err(TreeError::io("read", path))?;
        entries
            .iter()
            .try_for_each(|entry| self.alone(&path.join(&entry.name), &entry.metadata, is_new))
    }

    fn aspects(&self, path: &Path, old: &Metadata, new: &Metadata) -> std::io::Result<Vec<Aspect>> {
        let mut found = Vec::new();
        let is_same_file = (old.inode, old.size, old.mtime, old.ctime)
            == (new.inode, new.size, new.mtime, new.ctime)
            && old.kind == new.kind
            && old.inode != (0, 0);
        if old.kind != new.kind {
            found.push(Aspect::Kind(old.kind, new.kind));
        }
        if old.mode != new.mode {
            found.push(Aspect::Mode(old.mode, new.mode));
        }
        if (old.uid, old.gid) != (new.uid, new.gid) {
            found.push(Aspect::Owner((old.uid, old.gid), (new.uid, new.gid)));
        }
        match (old.kind, new.kind) {
            (Kind::File, Kind::File) if old.size != new.size => {
                found.push(Aspect::Size(old.size, new.size));
            }
            (Kind::File, Kind::File) if !is_same_file && !self.has_same_bytes(path)? => {
                found.push(Aspect::Content);
            }
            (Kind::Symlink, Kind::Symlink) => {
                let (old, new) = (self.before.read_link(path)?, self.after.read_link(path)?);
                if old != new {
                    found.push(Aspect::Target(old, new));
                }
            }
            _ if old.rdev != new.rdev => found.push(Aspect::Device(old.rdev, new.rdev)),
            _ => {}
        }
        if !is_same_file && old.kind == new.kind {
            let (old, new) = (self.before.xattrs(path)?, self.after.xattrs(path)?);
            let only = |some: &[(OsString, Vec<u8>)], others: &[(OsString, Vec<u8>)]| {
                let missing = some.iter().filter(|one| !others.contains(one));
                missing.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            let mut names = only(&old, &new);
            names.extend(only(&new, &old));
            names.sort();
            names.dedup();
            if !names.is_empty() {
                found.push(Aspect::Attributes(names));
            }
        }
        if self.options.times && old.mtime.seconds != new.mtime.seconds {
            // A layer's tar has no fractions.
            found.push(Aspect::Time(old.mtime, new.mtime));
        }
        Ok(found)
    }

    fn has_same_bytes(&self, path: &Path) -> std::io::Result<bool> {
        let (mut old, mut new) = (self.before.open(path)?, self.after.open(path)?);
        let (mut one, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        loop {
            let length = fill(&mut old, &mut one)?;
            let length_of_other = fill(&mut new, &mut other)?;
            if one[..length] != other[..length_of_other] {
                return Ok(false);
            }
            if length == 0 {
                return Ok(true);
            }
        }
    }
}

/// Reads until the buffer is full or there is no more.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
