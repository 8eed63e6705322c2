//! The layer that a step made of a working tree, from what the tree looked like before it and after.
//!
//! Two [surveys](Survey) are compared, in memory: what is the same in both costs nothing more. What is new or changed is
//! moved into the layer, or copied when the tree is needed on; what is gone becomes whiteouts. Names of one file stay
//! names of one file. The result is what an overlay would have left in its upper folder, but that an overlay also keeps
//! what it copied up without need.
//!
//! Invariants:
//! - Of what stays in the tree nothing is shared with the layer but what a file system shares and parts again when one
//!   of both is written (reflinks). Hard links are between names of the layer only.
//! - Whatever [`write_layer`](super::write_layer) counts as changed is in the layer; so are directories whose
//!   time alone changed, for later steps see it.
//! - Names are looked up one by one in open directories; nothing follows a symlink.
//!
//! Format: spec `solver-and-cache.md` §7.1, "Double walk".

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::same;
use crate::draft::{Attributes, DataCopier, set_attributes};
use crate::layer::{self, Encoding, LayerDir};
use crate::owner::{Keeper, Owners};
use crate::path::absolute;
use crate::select::check_depth;
use crate::stack::Stack;
use crate::survey::{Directory, Entry, Survey};
use crate::{FileData, Kind, Metadata, Timestamp, View, walk};

/// Extended attributes with which a directory would mean something else in a layer.
const REDIRECTS: [&str; 2] = ["trusted.overlay.redirect", "user.overlay.redirect"];

/// Directories with fewer names than this are compared on one processor.
const FEW: usize = 16;

/// Changes of a folder between two moments.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// The folder.
    pub folder: &'a LayerDir,
    /// What it looked like, equal to `lower`.
    pub before: &'a Survey,
    /// What it looks like.
    pub after: &'a Survey,
    /// The layers that it was, for what they have of a path that has been touched.
    pub lower: &'a Stack,
    /// Whether the folder is to stay as it is; else what has changed is moved out of it.
    pub keep: bool,
}

/// Writes the changes to the empty folder `into` on the same file system.
///
/// # Errors
/// When the file system fails, or the folder has what no layer can hold.
pub fn extract_changes(
    changes: &Changes<'_>,
    into: &LayerDir,
    encoding: Encoding,
) -> io::Result<()> {
    let source = Place::root(changes.folder.root()?)?;
    let target = Place::root(into.root()?)?;
    let extract = Extract {
        from: changes.folder.keeper(),
        to: into.keeper(),
        changes,
        encoding,
        data: DataCopier::new(),
        links: Mutex::new(HashMap::new()),
    };
    let (before, after) = (&changes.before.root, &changes.after.root);
    extract.names(before, after, Path::new(""), &source, &target)?;
    extract.directory(false, changes.after.stamp.mtime(), Path::new(""), &source, &target)
}

struct Extract<'a> {
    /// How owners are kept in the folder, and in the layer.
    from: &'a Keeper,
    to: &'a Keeper,
    changes: &'a Changes<'a>,
    encoding: Encoding,
    data: DataCopier,
    /// Where in the layer the first name of a file with several was copied to.
    links: Mutex<HashMap<(u64, u64), Name>>,
}

/// A name in an open directory.
type Name = (Arc<OwnedFd>, Box<OsStr>);

/// A directory that is opened when something in it is looked at, or made when something has to be in it.
struct Place<'a> {
    parent: Option<&'a Self>,
    name: &'a OsStr,
    /// Whether it is to be made.
    makes: bool,
    fd: Mutex<Option<Arc<OwnedFd>>>,
}

impl<'a> Place<'a> {
    fn root(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = Mutex::new(Some(Arc::new(fd.try_clone_to_owned()?)));
        Ok(Self { parent: None, name: OsStr::new(""), makes: false, fd })
    }

    fn below(parent: &'a Self, name: &'a OsStr, makes: bool) -> Self {
        Self { parent: Some(parent), name, makes, fd: Mutex::new(None) }
    }

    fn fd(&self) -> io::Result<Arc<OwnedFd>> {
        let mut slot = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = &*slot {
            return Ok(Arc::clone(fd));
        }
        let parent = self.parent.ok_or(Errno::BADF)?.fd()?;
        if self.makes {
            rustix::fs::mkdirat(&*parent, self.name, Mode::RWXU)?;
        }
        let fd = walk::open_dir(parent.as_fd(), self.name)?.ok_or(Errno::NOTDIR)?;
        Ok(Arc::clone(slot.insert(Arc::new(fd))))
    }

    fn is_open(&self) -> bool {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Extract<'_> {
    /// Compares what is in a directory that was there before.
    fn names(
        &self,
        before: &Directory,
        after: &Directory,
        path: &Path,
        source: &Place<'_>,
        target: &Place<'_>,
    ) -> io::Result<()> {
        let each = |entry: &Entry| {
            self.name(before.find(&entry.name), entry, path, source, target).map_err(|error| {
                // What comes from further inside names its path already.
                if walk::names_path(&error) {
                    return error;
                }
                walk::with_path(error, "cannot keep", &absolute(&path.join(&*entry.name)))
            })
        };
        let done = if after.entries.len() < FEW {
            after.entries.iter().try_for_each(each)
        } else {
            after.entries.par_iter().with_min_len(FEW).try_for_each(each)
        };
        done?;
        let gone = || before.entries.iter().filter(|entry| after.find(&entry.name).is_none());
        let hide = || -> io::Result<()> {
            let count = gone().count();
            if count > 0 && count == before.entries.len() && !path.as_os_str().is_empty() {
                return layer::set_opaque(target.fd()?.as_fd(), self.encoding);
            }
            gone().try_for_each(|entry| layer::make_whiteout(target.fd()?.as_fd(), &entry.name))
        };
        hide().map_err(|error| walk::with_path(error, "cannot compare", &absolute(path)))
    }

    /// Handles a name that the folder has; `before` is what it had there.
    fn name(
        &self,
        before: Option<&Entry>,
        after: &Entry,
        parent: &Path,
        source: &Place<'_>,
        target: &Place<'_>,
    ) -> io::Result<()> {
        let is_same = before.is_some_and(|before| before.stamp == after.stamp);
        let was = before.and_then(|before| before.inside.as_deref());
        if let (Some(was), Some(is)) = (was, after.inside.as_deref()) {
            let path = parent.join(&*after.name);
            let inner = Place::below(source, &after.name, false);
            let target = Place::below(target, &after.name, true);
            self.names(was, is, &path, &inner, &target)?;
            let mtime = after.stamp.mtime();
            return self.directory(is_same, mtime, &path, &inner, &target);
        }
        if is_same {
            return Ok(());
        }
        let dir = source.fd()?;
        let metadata = walk::metadata(dir.as_fd(), &after.name)?.ok_or(Errno::NOENT)?;
        let metadata = self.from.refine(dir.as_fd(), &after.name, metadata)?;
        let path = parent.join(&*after.name);
        if before.is_some() && self.equals_below(dir.as_fd(), &after.name, &metadata, &path)? {
            return Ok(());
        }
        // Owners that are recorded beside the folder do not move along.
        if self.changes.keep || self.encoding.owners != Owners::Native {
            let to = target.fd()?;
            return match after.inside.as_deref() {
                Some(inside) => {
                    self.copy_directory(after, inside, &metadata, source, target, &path)
                }
                None => self.copy(dir.as_fd(), &after.name, &metadata, &to),
            };
        }
        unmark(self.encoding, dir.as_fd(), &after.name, &metadata, &path)?;
        Ok(rustix::fs::renameat(&*dir, &*after.name, &*target.fd()?, &*after.name)?)
    }

    /// Keeps the attributes of a directory that was there before, if they count or something in it does.
    fn directory(
        &self,
        is_same: bool,
        mtime: Timestamp,
        path: &Path,
        source: &Place<'_>,
        target: &Place<'_>,
    ) -> io::Result<()> {
        if is_same && !target.is_open() {
            return Ok(());
        }
        let dir = source.fd()?;
        // What was moved out of it has changed its time.
        let metadata = Metadata { mtime, ..walk::metadata_of(dir.as_fd())? };
        let metadata = self.from.refine(dir.as_fd(), OsStr::new(""), metadata)?;
        let xattrs = walk::xattrs(dir.as_fd(), OsStr::new(""))?;
        let lower = self.changes.lower;
        let differs = !target.is_open()
            && lower.metadata(path)?.is_none_or(|below| {
                !same::metadata_equal(&metadata, &below) || metadata.mtime != below.mtime
            });
        let differs =
            differs || (!target.is_open() && counted(&xattrs) != counted(&lower.xattrs(path)?));
        if differs || target.is_open() {
            self.set_directory(&metadata, &xattrs, target)?;
        }
        Ok(())
    }

    fn set_directory(
        &self,
        metadata: &Metadata,
        xattrs: &[(OsString, Vec<u8>)],
        target: &Place<'_>,
    ) -> io::Result<()> {
        let attributes = attributes(metadata, xattrs);
        set_attributes(target.fd()?.as_fd(), OsStr::new(""), Kind::Dir, &attributes, self.to)
    }

    /// Whether what has been touched is what the layers have nevertheless.
    fn equals_below(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
        path: &Path,
    ) -> io::Result<bool> {
        let lower = self.changes.lower;
        let Some(below) = lower.metadata(path)? else { return Ok(false) };
        Ok(metadata.kind != Kind::Dir
            && same::metadata_equal(metadata, &below)
            && counted(&walk::xattrs(dir, name)?) == counted(&lower.xattrs(path)?)
            && same::content_equal(
                metadata,
                lower,
                path,
                || walk::read_link(dir, name),
                || walk::open_file(dir, name).map(FileData::whole),
            )?)
    }

    /// Copies a directory that is new, with all that is in it.
    fn copy_directory(
        &self,
        entry: &Entry,
        inside: &Directory,
        metadata: &Metadata,
        source: &Place<'_>,
        target: &Place<'_>,
        path: &Path,
    ) -> io::Result<()> {
        let source = Place::below(source, &entry.name, false);
        let target = Place::below(target, &entry.name, true);
        // Also one with nothing in it.
        target.fd()?;
        self.names(&Directory::default(), inside, path, &source, &target)?;
        let xattrs = walk::xattrs(source.fd()?.as_fd(), OsStr::new(""))?;
        self.set_directory(metadata, &xattrs, &target)
    }

    /// Copies what is no directory.
    fn copy(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
        target: &Arc<OwnedFd>,
    ) -> io::Result<()> {
        if layer::is_whiteout_node(metadata) {
            return Err(io::Error::other("a character device 0:0 marks a deletion"));
        }
        if metadata.kind == Kind::File && metadata.links > 1 {
            // Held until the first name is there, for the others to be linked to it.
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((first, first_name)) = links.get(&metadata.inode) {
                let linked =
                    rustix::fs::linkat(first, &**first_name, target, name, AtFlags::empty());
                match linked {
                    Ok(()) => return Ok(()),
                    // The file system has no room for more names of a file.
                    Err(Errno::MLINK) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.copy_node(dir, name, metadata, target)?;
            links.insert(metadata.inode, (Arc::clone(target), name.into()));
            return Ok(());
        }
        self.copy_node(dir, name, metadata, target)
    }

    fn copy_node(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
        target: &OwnedFd,
    ) -> io::Result<()> {
        match metadata.kind {
            Kind::File => {
                let flags = OFlags::RDWR
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let mut to = std::fs::File::from(rustix::fs::openat(target, name, flags, mode)?);
                let mut from = FileData::whole(walk::open_file(dir, name)?);
                self.data.copy(&mut from, &mut to, metadata.size)?;
            }
            Kind::Symlink => {
                rustix::fs::symlinkat(walk::read_link(dir, name)?, target, name)?;
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match metadata.kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                self.to.make_node(target.as_fd(), name, kind, metadata.rdev)?;
            }
            Kind::Dir | Kind::Socket => return Ok(()),
        }
        let xattrs = walk::xattrs(dir, name)?;
        let attributes = attributes(metadata, &xattrs);
        set_attributes(target.as_fd(), name, metadata.kind, &attributes, self.to)
    }
}

fn attributes<'x>(metadata: &Metadata, xattrs: &'x [(OsString, Vec<u8>)]) -> Attributes<'x> {
    Attributes {
        mode: Some(metadata.mode),
        owner: Some((metadata.uid, metadata.gid)),
        xattrs,
        mtime: Some(metadata.mtime),
    }
}

/// Takes from what is to be moved, and all below it, what would mean something else in a layer.
fn unmark(
    encoding: Encoding,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    metadata: &Metadata,
    path: &Path,
) -> io::Result<()> {
    check_depth(path, path).map_err(io::Error::other)?;
    let at = |error| walk::with_path(error, "cannot keep", &absolute(path));
    if layer::is_whiteout_node(metadata) {
        return Err(at(io::Error::other("a character device 0:0 marks a deletion")));
    }
    if metadata.kind == Kind::File {
        return layer::unmark_file(dir, name, metadata).map_err(at);
    }
    if metadata.kind != Kind::Dir {
        return Ok(());
    }
    let own = walk::proc_path(dir, name);
    for key in REDIRECTS.into_iter().chain([encoding.opaque_xattr()]) {
        match rustix::fs::lremovexattr(&own, key) {
            // Who may not set such an attribute may not remove it, and it has no meaning to him.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(at(error.into())),
        }
    }
    let inner = walk::open_dir(dir, name).map_err(at)?.ok_or(Errno::NOTDIR)?;
    for (name, _) in walk::names(inner.as_fd()).map_err(at)? {
        let found = walk::metadata(inner.as_fd(), &name).map_err(at)?.ok_or(Errno::NOENT)?;
        unmark(encoding, inner.as_fd(), &name, &found, &path.join(&name))?;
    }
    Ok(())
}

/// The extended attributes that a copy keeps everywhere: others belong to the machine.
fn counted(xattrs: &[(OsString, Vec<u8>)]) -> Vec<&(OsString, Vec<u8>)> {
    let counts = |key: &OsStr| {
        key == super::CAPABILITY
            || [&b"user."[..], b"system."].iter().any(|it| key.as_bytes().starts_with(it))
    };
    xattrs.iter().filter(|(key, _)| counts(key)).collect()
}
