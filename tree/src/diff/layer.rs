//! The tar of a layer, straight from the folder that overlayfs wrote it to.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::iter::Peekable;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::vec;

use rustix::io::Errno;

use super::{CAPABILITY, entry, push, same};
use crate::layer::{self, Encoding, LayerDir, Owners, Whiteouts};
use crate::stack::{Merged, Stack};
use crate::tar::{Entry, EntryKind, Writer};
use crate::{DirEntry, Kind, Metadata, View, walk};

/// Largest list of names of extended attributes, the kernel's limit.
const MAX_XATTRS: usize = 1 << 16;

/// Writes the layer tar of an upper folder over the layers it was made on.
///
/// # Errors
/// When a folder cannot be read, changes while it is read, was written by an overlay
/// with `redirect_dir` or `metacopy`, or `out` fails.
pub fn write_layer(
    upper: &LayerDir,
    lower: &Stack,
    encoding: Encoding,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Owners::Native = encoding.owners;
    let root = upper.root()?;
    let below = lower.merged(Path::new(""))?;
    let mut walk = Walk {
        writer: Writer::new(out),
        lower,
        whiteouts: encoding.whiteouts,
        path: Vec::new(),
        parents: Vec::new(),
        written: HashMap::new(),
        unchanged: HashMap::new(),
    };
    walk.directory(root, below.as_deref(), layer::is_opaque(root, encoding.whiteouts)?)?;
    walk.writer.finish()?;
    Ok(())
}

struct Walk<'a> {
    writer: Writer<&'a mut dyn Write>,
    lower: &'a Stack,
    whiteouts: Whiteouts,
    /// Path of what is looked at.
    path: Vec<u8>,
    /// Directories on the way to it that are unchanged and not yet written, outermost first.
    parents: Vec<Entry>,
    /// First name written of each file with several.
    written: HashMap<(u64, u64), Vec<u8>>,
    /// Names of such files in opaque directories that are as they were below. Should another name of the
    /// file turn out to be new, these have to follow it.
    unchanged: HashMap<(u64, u64), Vec<Entry>>,
}

/// A name of the upper folder, or one that only the layers below an opaque directory have.
struct Name<'a> {
    dir: BorrowedFd<'a>,
    name: &'a OsStr,
    metadata: Metadata,
    below: Option<Metadata>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        below: Option<&Merged>,
        opaque: bool,
    ) -> io::Result<()> {
        let mut names: Vec<_> = walk::names(dir)?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let mut hidden = match below {
            Some(_) if opaque => self.lower.read_dir(Path::new(OsStr::from_bytes(&self.path)))?,
            _ => Vec::new(),
        }
        .into_iter()
        .peekable();
        for name in &names {
            self.deletions(&mut hidden, Some(name))?;
            let Some(metadata) = walk::metadata(dir, name)? else {
                return Err(self.error("disappeared while it was read"));
            };
            let found = match below {
                Some(_) if opaque => {
                    hidden.next_if(|entry| entry.name == *name).map(|entry| entry.metadata)
                }
                Some(below) => below.metadata(name)?,
                None => None,
            };
            let length = push(&mut self.path, name.as_bytes());
            if layer::is_whiteout(dir, name, &metadata)? {
                if found.is_some() {
                    self.whiteout(length)?;
                }
            } else if metadata.kind == Kind::Dir {
                self.subdirectory(&Name { dir, name, metadata, below: found }, below, opaque)?;
            } else {
                self.leaf(&Name { dir, name, metadata, below: found }, opaque)?;
            }
            self.path.truncate(length);
        }
        self.deletions(&mut hidden, None)
    }

    /// Writes whiteouts for what the layers below have before `until` and this directory has not.
    fn deletions(
        &mut self,
        hidden: &mut Peekable<vec::IntoIter<DirEntry>>,
        until: Option<&OsStr>,
    ) -> io::Result<()> {
        while let Some(entry) =
            hidden.next_if(|entry| until.is_none_or(|until| entry.name.as_os_str() < until))
        {
            let length = push(&mut self.path, entry.name.as_bytes());
            self.whiteout(length)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn subdirectory(
        &mut self,
        item: &Name<'_>,
        parent_below: Option<&Merged>,
        opaque: bool,
    ) -> io::Result<()> {
        let Some(dir) = walk::open_dir(item.dir, item.name)? else {
            return Err(self.error("disappeared while it was read"));
        };
        let dir = dir.as_fd();
        for redirect in ["trusted.overlay.redirect", "user.overlay.redirect"] {
            if walk::xattr(dir, OsStr::new(""), redirect)?.is_some() {
                return Err(self.error(
                    "was renamed by an overlay with `redirect_dir`, which is not supported",
                ));
            }
        }
        let below = match (parent_below, &item.below) {
            (Some(parent), Some(found)) if found.kind == Kind::Dir => parent.dir(item.name)?,
            _ => None,
        };
        let Some(mut entry) = entry(&self.path, &item.metadata) else { return Ok(()) };
        let xattrs = walk::xattrs(dir, OsStr::new(""))?;
        let unchanged = match (&item.below, &below) {
            (Some(found), Some(below)) => {
                same::metadata_equal(&item.metadata, found)
                    && same::capabilities_equal(&xattrs, &below.own_xattrs()?)
            }
            _ => false,
        };
        entry.xattrs = xattrs.into_iter().filter(|(name, _)| name == CAPABILITY).collect();
        self.parents.push(entry);
        if !unchanged {
            self.write_parents()?;
        }
        let waiting = self.parents.len();
        self.directory(dir, below.as_ref(), opaque || layer::is_opaque(dir, self.whiteouts)?)?;
        // Nothing below it was written: then neither is it.
        if unchanged && self.parents.len() == waiting {
            self.parents.pop();
        }
        Ok(())
    }

    fn leaf(&mut self, item: &Name<'_>, opaque: bool) -> io::Result<()> {
        let Some(mut entry) = entry(&self.path, &item.metadata) else { return Ok(()) };
        let inode = (item.metadata.links > 1).then_some(item.metadata.inode);
        let unchanged = self.is_unchanged(item)?;
        if let Some(first) = inode.and_then(|inode| self.written.get(&inode)) {
            if unchanged && !opaque {
                return Ok(());
            }
            entry.link = first.clone();
            entry.kind = EntryKind::HardLink;
            let file = self.open(item)?;
            entry.xattrs = self.capability(file.as_ref())?;
            return self.write(&entry);
        }
        if unchanged {
            if let Some(inode) = inode.filter(|_| opaque) {
                entry.kind = EntryKind::HardLink;
                self.unchanged.entry(inode).or_default().push(entry);
            }
            return Ok(());
        }
        if let Some(inode) = inode {
            self.written.insert(inode, self.path.clone());
        }
        self.write_content(item, &mut entry)?;
        for mut link in inode.and_then(|inode| self.unchanged.remove(&inode)).unwrap_or_default() {
            link.link.clone_from(&entry.path);
            link.xattrs.clone_from(&entry.xattrs);
            self.write(&link)?;
        }
        Ok(())
    }

    fn write_content(&mut self, item: &Name<'_>, entry: &mut Entry) -> io::Result<()> {
        if item.metadata.kind == Kind::Symlink {
            entry.link =
                walk::read_link(item.dir, item.name)?.into_os_string().into_encoded_bytes();
        }
        let Some(mut file) = self.open(item)? else {
            return self.write(entry);
        };
        entry.xattrs = self.capability(Some(&file))?;
        self.write_parents()?;
        self.writer.append_file(entry, &mut file)
    }

    fn open(&self, item: &Name<'_>) -> io::Result<Option<File>> {
        if item.metadata.kind != Kind::File {
            return Ok(None);
        }
        let path = Path::new(OsStr::from_bytes(&self.path));
        let file = walk::open_file(item.dir, item.name);
        file.map(Some)
            .map_err(|error| walk::with_path(error, "cannot read", &crate::path::absolute(path)))
    }

    fn capability(&self, file: Option<&File>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let path = Path::new(OsStr::from_bytes(&self.path));
        capability(file)
            .map_err(|error| walk::with_path(error, "cannot read", &crate::path::absolute(path)))
    }

    fn is_unchanged(&self, item: &Name<'_>) -> io::Result<bool> {
        let Some(below) = &item.below else { return Ok(false) };
        if !same::metadata_equal(&item.metadata, below) {
            return Ok(false);
        }
        let path = Path::new(OsStr::from_bytes(&self.path));
        let xattrs = walk::xattrs(item.dir, item.name)?;
        Ok(same::capabilities_equal(&xattrs, &self.lower.xattrs(path)?)
            && same::content_equal(item.dir, item.name, &item.metadata, self.lower, path)?)
    }

    /// Writes a whiteout for the current path, whose last name begins behind `parent` bytes.
    fn whiteout(&mut self, parent: usize) -> io::Result<()> {
        let mut path = self.path.clone();
        let name = if parent == 0 { 0 } else { parent + 1 };
        path.splice(name..name, *b".wh.");
        self.write(&Entry::new(EntryKind::File, path))
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.write_parents()?;
        self.writer.append(entry)
    }

    fn write_parents(&mut self) -> io::Result<()> {
        for parent in self.parents.drain(..) {
            self.writer.append(&parent)?;
        }
        Ok(())
    }

    fn error(&self, what: &str) -> io::Error {
        io::Error::other(format!("`/{}` {what}", self.path.escape_ascii()))
    }
}

/// The capabilities of a file; one call tells for most files that they have nothing of the kind.
fn capability(file: Option<&File>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let Some(file) = file else { return Ok(Vec::new()) };
    let mut names = vec![0; 256];
    let length = loop {
        match rustix::fs::flistxattr(file, &mut names[..]) {
            Ok(length) => break length,
            Err(Errno::NOTSUP) => break 0,
            Err(Errno::RANGE) if names.len() < MAX_XATTRS => names.resize(MAX_XATTRS, 0),
            Err(error) => return Err(error.into()),
        }
    };
    let mut found = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        if name.ends_with(b".overlay.metacopy") {
            let message = "has only metadata in an overlay with `metacopy`, which is not supported";
            return Err(io::Error::other(message));
        }
        if name == CAPABILITY.as_bytes() {
            let mut value = vec![0; 64];
            let length = rustix::fs::fgetxattr(file, CAPABILITY, &mut value[..])?;
            value.truncate(length);
            found.push((CAPABILITY.into(), value));
        }
    }
    Ok(found)
}
