//! The tar of a layer, straight from the folder that overlayfs wrote it to, or from a plan of it in memory.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::vec;

use rustix::io::Errno;

use super::{CAPABILITY, entry, push, same};
use crate::layer::{Encoding, LayerDir};
use crate::packed::Written;
use crate::part::{Keeping, Part};
use crate::stack::{Merged, Stack};
use crate::tar::{Entry, EntryKind, Writer};
use crate::{DirEntry, FileData, Kind, Metadata, View, walk};

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
    let keeping = Keeping { whiteouts: encoding.whiteouts, ..Keeping::of(upper) };
    let root = Part::Folder(upper.shared_root()?, keeping, None);
    write_part(&root, lower, out, &mut |_, _| Ok(None)).map(drop)
}

/// Bytes and extended attributes of a file.
pub(crate) type WholeFile = (FileData, Vec<(OsString, Vec<u8>)>);

/// Yields a file that was read ahead.
pub(crate) type ReadAhead<'a> = dyn FnMut(&Part, &OsStr) -> io::Result<Option<WholeFile>> + 'a;

/// Writes the tar of a layer whose root is `root`. Returns what it has of a packed root.
pub(crate) fn write_part(
    root: &Part,
    lower: &Stack,
    out: &mut dyn Write,
    ahead: &mut ReadAhead<'_>,
) -> io::Result<Vec<Written>> {
    let below = lower.merged(Path::new(""))?;
    let mut walk = Walk {
        writer: Writer::new(out),
        lower,
        ahead,
        noted: Vec::new(),
        path: Vec::new(),
        parents: Vec::new(),
        written: HashMap::new(),
        unchanged: HashMap::new(),
    };
    walk.directory(root, below.as_deref(), root.is_opaque()?)?;
    walk.writer.finish()?;
    Ok(walk.noted)
}

struct Walk<'a, 'r> {
    writer: Writer<&'a mut dyn Write>,
    lower: &'a Stack,
    ahead: &'a mut ReadAhead<'r>,
    /// What was written of a packed layer.
    noted: Vec<Written>,
    /// Path of what is looked at.
    path: Vec<u8>,
    /// Directories on the way to it that are unchanged and not yet written, outermost first.
    parents: Vec<Entry>,
    /// First name written of each file with several, and where its bytes are.
    written: HashMap<(u64, u64), (Vec<u8>, u64)>,
    /// Names of such files in opaque directories that are as they were below. Should another name of the
    /// file turn out to be new, these have to follow it.
    unchanged: HashMap<(u64, u64), Vec<Entry>>,
}

/// A name of the upper folder, or one that only the layers below an opaque directory have.
struct Name<'a> {
    dir: &'a Part,
    name: &'a OsStr,
    metadata: Metadata,
    below: Option<Metadata>,
}

impl Walk<'_, '_> {
    fn directory(&mut self, dir: &Part, below: Option<&Merged>, opaque: bool) -> io::Result<()> {
        let mut names = dir.names()?;
        names.sort_unstable();
        let mut hidden = match below {
            Some(_) if opaque => self.lower.read_dir(Path::new(OsStr::from_bytes(&self.path)))?,
            _ => Vec::new(),
        }
        .into_iter()
        .peekable();
        for name in &names {
            self.deletions(&mut hidden, Some(name))?;
            let Some(metadata) = dir.metadata(name)? else {
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
            if dir.is_whiteout(name, &metadata)? {
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
        let Some(dir) = item.dir.dir(item.name)? else {
            return Err(self.error("disappeared while it was read"));
        };
        for redirect in ["trusted.overlay.redirect", "user.overlay.redirect"] {
            if dir.own_xattr(redirect)?.is_some() {
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
        let xattrs = dir.own_xattrs()?;
        let unchanged = match (&item.below, &below) {
            (Some(found), Some(below)) => {
                same::metadata_equal(&item.metadata, found)
                    && same::capabilities_equal(&xattrs, &below.own_xattrs()?)
            }
            _ => false,
        };
        entry.xattrs = capability_of(&xattrs);
        self.parents.push(entry);
        if !unchanged {
            self.write_parents()?;
        }
        let waiting = self.parents.len();
        self.directory(&dir, below.as_ref(), opaque || dir.is_opaque()?)?;
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
        if let Some((first, place)) = inode.and_then(|inode| self.written.get(&inode)) {
            if unchanged && !opaque {
                return Ok(());
            }
            let place = *place;
            entry.link = first.clone();
            entry.kind = EntryKind::HardLink;
            let xattrs = item.dir.xattrs(item.name).map_err(|error| self.unreadable(error))?;
            entry.xattrs = capability_of(&xattrs);
            self.write(&entry)?;
            self.note(item, place, xattrs);
            return Ok(());
        }
        if unchanged {
            if let Some(inode) = inode.filter(|_| opaque) {
                entry.kind = EntryKind::HardLink;
                self.unchanged.entry(inode).or_default().push(entry);
            }
            return Ok(());
        }
        let place = self.write_content(item, &mut entry)?;
        if let Some(inode) = inode {
            self.written.insert(inode, (self.path.clone(), place));
        }
        for mut link in inode.and_then(|inode| self.unchanged.remove(&inode)).unwrap_or_default() {
            link.link.clone_from(&entry.path);
            link.xattrs.clone_from(&entry.xattrs);
            self.write(&link)?;
        }
        Ok(())
    }

    /// Writes a name with its content; returns where that begins.
    fn write_content(&mut self, item: &Name<'_>, entry: &mut Entry) -> io::Result<u64> {
        if item.metadata.kind == Kind::Symlink {
            entry.link = item.dir.read_link(item.name)?.into_os_string().into_encoded_bytes();
        }
        if item.metadata.kind != Kind::File {
            self.write(entry)?;
            self.note(item, 0, Vec::new());
            return Ok(0);
        }
        let (mut file, xattrs) = self.open(item).map_err(|error| self.unreadable(error))?;
        entry.xattrs = capability_of(&xattrs);
        self.write_parents()?;
        self.writer.begin_file(entry)?;
        let place = self.writer.position();
        self.note(item, place, xattrs);
        self.writer.content(entry, &mut file)?;
        Ok(place)
    }

    /// Notes that a name has been written.
    fn note(&mut self, item: &Name<'_>, place: u64, xattrs: Vec<(OsString, Vec<u8>)>) {
        if let Part::Packed(packed, node) = item.dir
            && let Some(node) = packed.child(*node, item.name)
        {
            self.noted.push(Written { node, place, xattrs });
        }
    }

    /// A file, with those of its extended attributes that may count.
    fn open(&mut self, item: &Name<'_>) -> io::Result<WholeFile> {
        if let Some(found) = (self.ahead)(item.dir, item.name)? {
            return Ok(found);
        }
        let file = item.dir.open(item.name)?;
        let xattrs = match (item.dir, file.as_file()) {
            (Part::Folder(..), Some(file)) => capability(file)?,
            _ => item.dir.xattrs(item.name)?,
        };
        Ok((file, xattrs))
    }

    fn unreadable(&self, error: io::Error) -> io::Error {
        let path = Path::new(OsStr::from_bytes(&self.path));
        walk::with_path(error, "cannot read", &crate::path::absolute(path))
    }

    fn is_unchanged(&self, item: &Name<'_>) -> io::Result<bool> {
        let Some(below) = &item.below else { return Ok(false) };
        if !same::metadata_equal(&item.metadata, below) {
            return Ok(false);
        }
        let path = Path::new(OsStr::from_bytes(&self.path));
        let xattrs = item.dir.xattrs(item.name)?;
        Ok(same::capabilities_equal(&xattrs, &self.lower.xattrs(path)?)
            && same::content_equal(
                &item.metadata,
                self.lower,
                path,
                || item.dir.read_link(item.name),
                || item.dir.open(item.name),
            )?)
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

fn capability_of(xattrs: &[(OsString, Vec<u8>)]) -> Vec<(OsString, Vec<u8>)> {
    xattrs.iter().filter(|(name, _)| name == CAPABILITY).cloned().collect()
}

/// The capabilities of a file; one call tells for most files that they have nothing of the kind.
fn capability(file: &File) -> io::Result<Vec<(OsString, Vec<u8>)>> {
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
