//! The layer that turns a merged tree into what a step made of a plain copy of it.
//!
//! Both trees are walked. What is new or changed is moved out of the copy, so it costs no second copy and
//! names of one file stay names of one file; what is gone becomes whiteouts. The result is what an overlay
//! would have left in its upper folder, but that an overlay also keeps what it copied up without need.
//!
//! Invariants:
//! - Names are looked up one by one in open directories; nothing follows a symlink.
//! - Whatever [`write_layer`](super::write_layer) counts as changed is in the layer; so are directories whose
//!   time alone changed, for later steps see it.
//!
//! Format: spec `solver-and-cache.md` §7.1, "Double walk".

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;

use super::same;
use crate::draft::{Attributes, set_attributes};
use crate::layer::{self, Encoding, LayerDir};
use crate::owner::Keeper;
use crate::path::absolute;
use crate::select::MAX_DEPTH;
use crate::stack::{Merged, Stack};
use crate::{FileData, Kind, Metadata, View, walk};

/// Extended attributes with which a directory would mean something else in a layer.
const REDIRECTS: [&str; 2] = ["trusted.overlay.redirect", "user.overlay.redirect"];

/// Moves what differs between `lower` and `edited`, a changed copy of it, to the empty folder `into` on the
/// same file system. What is left in `edited` is of no use.
///
/// # Errors
/// When the file system fails, or `edited` has what no layer can hold.
pub fn extract_layer(
    edited: &LayerDir,
    lower: &Stack,
    into: &LayerDir,
    encoding: Encoding,
) -> io::Result<()> {
    let root = edited.root()?;
    let target = Target { parent: None, name: OsStr::new(""), fd: OnceCell::new() };
    // The root of a layer is always there.
    let _ = target.fd.set(into.root()?.try_clone_to_owned()?);
    let below = lower.merged(Path::new(""))?;
    let keeper = edited.keeper();
    let metadata = keeper.refine(root, OsStr::new(""), walk::metadata_of(root)?)?;
    Extract { lower, encoding, keeper }.directory(
        root,
        &metadata,
        below.as_deref(),
        Path::new(""),
        &target,
    )
}

struct Extract<'a> {
    lower: &'a Stack,
    encoding: Encoding,
    keeper: &'a Keeper,
}

/// A directory of the layer, made when something has to be in it.
struct Target<'a> {
    parent: Option<&'a Self>,
    name: &'a OsStr,
    fd: OnceCell<OwnedFd>,
}

impl Target<'_> {
    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd.as_fd());
        }
        let parent = self.parent.ok_or(Errno::BADF)?.fd()?;
        rustix::fs::mkdirat(parent, self.name, Mode::RWXU)?;
        let fd = walk::open_dir(parent, self.name)?.ok_or(Errno::NOTDIR)?;
        Ok(self.fd.get_or_init(|| fd).as_fd())
    }
}

impl Extract<'_> {
    /// Handles a directory that both trees have. `metadata` is from before anything was moved out of it.
    fn directory(
        &self,
        dir: BorrowedFd<'_>,
        metadata: &Metadata,
        below: Option<&Merged>,
        path: &Path,
        target: &Target<'_>,
    ) -> io::Result<()> {
        check_depth(path)?;
        let at = |error| walk::with_path(error, "cannot compare", &absolute(path));
        let mut gone = match below {
            Some(below) => below.entries().map_err(at)?,
            None => Vec::new(),
        };
        // Sockets are not copied, so they cannot be missed.
        gone.retain(|entry| entry.metadata.kind != Kind::Socket);
        let had = gone.len();
        let mut found: HashMap<OsString, Metadata> =
            gone.drain(..).map(|entry| (entry.name, entry.metadata)).collect();
        for (name, _) in walk::names(dir).map_err(at)? {
            let before = found.remove(&name);
            self.name(dir, &name, before.as_ref(), below, path, target)?;
        }
        let (all_gone, is_root) = (found.len() == had, path.as_os_str().is_empty());
        let hide = || -> io::Result<()> {
            if had > 0 && all_gone && !is_root {
                return layer::set_opaque(target.fd()?, self.encoding);
            }
            found.keys().try_for_each(|name| layer::make_whiteout(target.fd()?, name))
        };
        hide().map_err(at)?;
        let xattrs = walk::xattrs(dir, OsStr::new("")).map_err(at)?;
        let differs = match below {
            None => true,
            Some(below) => {
                below.own_metadata().map_err(at)?.is_none_or(|below| {
                    !same::metadata_equal(metadata, &below) || metadata.mtime != below.mtime
                }) || counted(&xattrs) != counted(&below.own_xattrs().map_err(at)?)
            }
        };
        if differs || target.fd.get().is_some() {
            let attributes = Attributes {
                mode: Some(metadata.mode),
                owner: Some((metadata.uid, metadata.gid)),
                xattrs: &xattrs,
                mtime: Some(metadata.mtime),
            };
            let fd = target.fd().map_err(at)?;
            set_attributes(fd, OsStr::new(""), Kind::Dir, &attributes, self.keeper).map_err(at)?;
        }
        Ok(())
    }

    /// Handles a name of the changed tree; `before` is what the lower tree has there.
    fn name(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        before: Option<&Metadata>,
        below: Option<&Merged>,
        parent: &Path,
        target: &Target<'_>,
    ) -> io::Result<()> {
        let path = parent.join(name);
        let at = |error| walk::with_path(error, "cannot compare", &absolute(&path));
        let metadata = walk::metadata(dir, name).map_err(at)?.ok_or(Errno::NOENT)?;
        let metadata = self.keeper.refine(dir, name, metadata).map_err(at)?;
        if metadata.kind == Kind::Dir && before.is_some_and(|before| before.kind == Kind::Dir) {
            let inner = walk::open_dir(dir, name).map_err(at)?.ok_or(Errno::NOTDIR)?;
            let below = match below {
                Some(below) => below.dir(name).map_err(at)?,
                None => None,
            };
            let target = Target { parent: Some(target), name, fd: OnceCell::new() };
            return self.directory(inner.as_fd(), &metadata, below.as_ref(), &path, &target);
        }
        if let Some(before) = before
            && self.is_same(dir, name, &metadata, before, &path).map_err(at)?
        {
            return Ok(());
        }
        self.prepare(dir, name, &metadata, &path)?;
        let take = || Ok(rustix::fs::renameat(dir, name, target.fd()?, name)?);
        take().map_err(|error| walk::with_path(error, "cannot keep", &absolute(&path)))
    }

    fn is_same(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
        before: &Metadata,
        path: &Path,
    ) -> io::Result<bool> {
        Ok(same::metadata_equal(metadata, before)
            && counted(&walk::xattrs(dir, name)?) == counted(&self.lower.xattrs(path)?)
            && same::content_equal(
                metadata,
                self.lower,
                path,
                || walk::read_link(dir, name),
                || walk::open_file(dir, name).map(FileData::whole),
            )?)
    }

    /// Takes from what is to be moved, and all below it, what would mean something else in a layer.
    fn prepare(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        metadata: &Metadata,
        path: &Path,
    ) -> io::Result<()> {
        check_depth(path)?;
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
        for key in REDIRECTS.into_iter().chain([self.encoding.opaque_xattr()]) {
            match rustix::fs::lremovexattr(&own, key) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(at(error.into())),
            }
        }
        let inner = walk::open_dir(dir, name).map_err(at)?.ok_or(Errno::NOTDIR)?;
        for (name, _) in walk::names(inner.as_fd()).map_err(at)? {
            let found = walk::metadata(inner.as_fd(), &name).map_err(at)?.ok_or(Errno::NOENT)?;
            self.prepare(inner.as_fd(), &name, &found, &path.join(&name))?;
        }
        Ok(())
    }
}

/// The extended attributes that a copy keeps everywhere: others belong to the machine.
fn counted(xattrs: &[(OsString, Vec<u8>)]) -> Vec<&(OsString, Vec<u8>)> {
    let counts = |key: &OsStr| {
        key == super::CAPABILITY
            || [&b"user."[..], b"system."].iter().any(|it| key.as_bytes().starts_with(it))
    };
    xattrs.iter().filter(|(key, _)| counts(key)).collect()
}

fn check_depth(path: &Path) -> io::Result<()> {
    if path.iter().count() > MAX_DEPTH {
        let near: PathBuf = path.iter().take(3).collect();
        let error = io::Error::other("directories are nested too deeply");
        return Err(walk::with_path(error, "cannot compare", &absolute(&near)));
    }
    Ok(())
}
