//! Unpacks a layer tar into a folder of its own, in overlay form.
//!
//! Nothing but the tar is looked at: no layer below needs to be there, so layers unpack in any order and at
//! the same time. What a tar leaves open and only the layers below can tell, the attributes of parent
//! directories that it does not list, is handed back as [`Applied::implied`].
//!
//! Invariants:
//! - Tars are hostile. Every path is walked name by name below the folder; a symlink on the way is one of
//!   this tar and is followed inside the folder; `..` stops at its root.
//! - The marks that the store keeps in extended attributes come from here, never from the tar.
//! - A folder that a failed call leaves behind is incomplete and must be thrown away.
//!
//! Format: OCI image layer, section "Applying changesets"; spec `solver-and-cache.md` §7.3.

mod folder;
mod place;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};

use crate::layer::{self, Encoding, LayerDir};
use crate::owner::Keeper;
use crate::stack::Stack;
use crate::tar::{Entry, EntryKind, Reader};
use crate::{Kind, Timestamp, View, walk};

use folder::{Folder, Paths, Slot};

const WHITEOUT: &[u8] = b".wh.";
const RESERVED: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Mode of directories that a tar does not list.
const IMPLIED: u32 = 0o755;

/// What is known of an unpacked layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Directories that hold something but have no entry, each before those in it; they have mode
    /// 0755, owner 0:0 and the time 0. [`adopt_parents`] gives them what the layers below have.
    pub implied: Vec<PathBuf>,
}

/// Why an entry could not be unpacked; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack `{}` from the layer", path.display())]
struct UnpackError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Unpacks a layer tar, not compressed, into an existing empty folder.
///
/// The tar is read to its very end, so that a hash taken of it on the way is complete.
///
/// # Errors
/// When the tar is malformed or truncated, an entry is refused (sparse files, names that are too long,
/// hard links to what the layer does not have), or the folder cannot be written.
pub fn apply_layer(tar: &mut dyn Read, into: &LayerDir, encoding: Encoding) -> io::Result<Applied> {
    let mut reader = Reader::new(tar);
    let mut apply = Apply {
        folder: Folder::open(into)?,
        encoding,
        keeper: into.keeper().clone(),
        times: Vec::new(),
        opaque: Paths::default(),
        implied: Paths::default(),
        buffer: vec![0; 64 * 1024],
    };
    while let Some(entry) = reader.next_entry()? {
        apply.entry(&entry, &mut reader).map_err(|source| {
            let path = Path::new(OsStr::from_bytes(&entry.path)).to_owned();
            io::Error::new(source.kind(), UnpackError { path, source })
        })?;
    }
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    apply.finish()
}

/// Gives directories that the layer's tar did not list the attributes that they have in the layers below;
/// those that are not there stay as they are.
///
/// # Errors
/// When a folder cannot be read or written.
pub fn adopt_parents(layer: &LayerDir, implied: &[PathBuf], below: &Stack) -> io::Result<()> {
    let mut folder = Folder::open(layer)?;
    for path in implied {
        let Some(found) = below.metadata(path)?.filter(|found| found.kind == Kind::Dir) else {
            continue;
        };
        let bytes = path.as_os_str().as_bytes();
        let (parent, name) = folder::split(bytes);
        let Some(dir) = folder.find(parent)? else { continue };
        let attributes = Entry {
            mode: found.mode,
            uid: found.uid,
            gid: found.gid,
            xattrs: below.xattrs(path)?,
            ..Entry::new(EntryKind::Dir, Vec::new())
        };
        place::attributes(dir.as_fd(), OsStr::from_bytes(name), &attributes, layer.keeper())?;
        place::time(dir.as_fd(), OsStr::from_bytes(name), found.mtime)?;
    }
    Ok(())
}

struct Apply {
    folder: Folder,
    encoding: Encoding,
    keeper: Keeper,
    /// Times of directories, set at the end: whatever is made in a directory changes its time.
    times: Vec<(Vec<u8>, Timestamp)>,
    /// Directories that hide all that lies below; there and deeper nothing needs a whiteout.
    opaque: Paths,
    implied: Paths,
    buffer: Vec<u8>,
}

impl Apply {
    fn entry(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut parts = folder::parts(&entry.path);
        // The root is the folder itself; its attributes are the store's.
        let Some(name) = parts.pop() else { return Ok(()) };
        if parts.iter().any(|part| part.starts_with(RESERVED)) {
            return Ok(());
        }
        let parent = self.parent(&parts)?;
        if name == OPAQUE {
            return self.hide_all(&parent);
        }
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        match name.strip_prefix(WHITEOUT) {
            Some(b"" | b"." | b"..") => Err(refused("a whiteout of no name")),
            Some(name) => self.delete(&parent, name),
            None => self.create(&parent, name, entry, content),
        }
    }

    /// Resolves the directory of an entry and makes what is missing of it.
    fn parent(&mut self, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
        let resolved = self.folder.resolve(parts)?;
        for missing in &resolved.missing {
            self.directory(missing, None)?;
            self.implied.insert(missing);
        }
        Ok(resolved.path)
    }

    fn hide_all(&mut self, path: &[u8]) -> io::Result<()> {
        // Where all is hidden, whiteouts would only show up as device nodes.
        let dir = self.folder.dir(path)?;
        place::drop_whiteouts(dir.as_fd())?;
        if !self.opaque.covers(path) {
            layer::set_opaque(dir.as_fd(), self.encoding)?;
            self.opaque.insert(path);
        }
        Ok(())
    }

    fn delete(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let path = folder::join(parent, name);
        let dir = self.folder.dir(parent)?;
        let name = OsStr::from_bytes(name);
        if let Some(found) = walk::metadata(dir.as_fd(), name)? {
            if layer::is_whiteout(dir.as_fd(), name, &found)? {
                return Ok(());
            }
            self.forget(&path);
            place::remove(dir.as_fd(), name)?;
        }
        if self.opaque.covers(parent) {
            return Ok(());
        }
        layer::make_whiteout(dir.as_fd(), name)
    }

    fn create(
        &mut self,
        parent: &[u8],
        name: &[u8],
        entry: &Entry,
        content: &mut dyn Read,
    ) -> io::Result<()> {
        let path = folder::join(parent, name);
        match entry.kind {
            EntryKind::Dir => return self.directory(&path, Some(entry)),
            EntryKind::HardLink => return self.hard_link(&path, &entry.link),
            _ => {}
        }
        let mut slot = self.folder.slot(parent, name)?;
        let keeper = &self.keeper.clone();
        let attempt = |slot: &Slot, buffer: &mut [u8], content: &mut dyn Read| match entry.kind {
            EntryKind::File => place::file(slot, entry, content, buffer, keeper),
            EntryKind::Symlink => place::symlink(slot, entry, keeper),
            _ => place::node(slot, entry, keeper),
        };
        match attempt(&slot, &mut self.buffer, content) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        // An earlier entry of the same name gives way to this one.
        self.forget(&path);
        slot = self.folder.slot(parent, name)?;
        place::remove(slot.dir.as_fd(), slot.name())?;
        attempt(&slot, &mut self.buffer, content)
    }

    /// Makes or merges a directory; without an entry it is an implied one.
    fn directory(&mut self, path: &[u8], entry: Option<&Entry>) -> io::Result<()> {
        let (parent, name) = folder::split(path);
        let slot = self.folder.slot(parent, name)?;
        let mut replaces = false;
        if let Some(found) = walk::metadata(slot.dir.as_fd(), slot.name())? {
            // What was here, or the whiteout of it, hid the directory of the layers below.
            replaces = found.kind != Kind::Dir;
            if replaces {
                place::remove(slot.dir.as_fd(), slot.name())?;
            }
        }
        match rustix::fs::mkdirat(&slot.dir, slot.name(), Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let implied = Entry { mode: IMPLIED, ..Entry::new(EntryKind::Dir, Vec::new()) };
        if entry.is_some() {
            self.implied.remove(path);
        }
        let entry = entry.unwrap_or(&implied);
        place::attributes(slot.dir.as_fd(), slot.name(), entry, &self.keeper)?;
        self.times.push((path.to_vec(), entry.mtime));
        if replaces && !self.opaque.covers(parent) {
            layer::set_opaque(self.folder.dir(path)?.as_fd(), self.encoding)?;
            self.opaque.insert(path);
        }
        Ok(())
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let missing = || {
            refused(&format!(
                "a hard link to `{}`, which the layer does not have",
                target.escape_ascii()
            ))
        };
        let mut parts = folder::parts(target);
        let last = parts.pop().ok_or_else(missing)?;
        let resolved = self.folder.resolve(&parts)?;
        if !resolved.missing.is_empty() {
            return Err(missing());
        }
        let (parent, name) = folder::split(path);
        let to = self.folder.slot(parent, name)?;
        let from = self.folder.slot(&resolved.path, last)?;
        match walk::metadata(from.dir.as_fd(), from.name())? {
            Some(found) if found.kind == Kind::Dir => {
                return Err(refused("a hard link to a directory"));
            }
            Some(found) if !layer::is_whiteout(from.dir.as_fd(), from.name(), &found)? => {}
            _ => return Err(missing()),
        }
        if folder::join(&resolved.path, last) == path {
            return Ok(());
        }
        match place::link(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
        // The target may lie in what has to give way; it is then no longer there.
        self.forget(path);
        place::remove(to.dir.as_fd(), to.name())?;
        let from = self.folder.find(&resolved.path)?.ok_or_else(missing)?;
        place::link(&Slot::new(from, last), &to)
    }

    /// Forgets what is kept about a path that is about to go, and about all below it.
    fn forget(&mut self, path: &[u8]) {
        self.folder.forget(path);
        self.opaque.remove_branch(path);
        self.implied.remove_branch(path);
    }

    fn finish(mut self) -> io::Result<Applied> {
        for (path, time) in &self.times {
            let (parent, name) = folder::split(path);
            // A directory may have been replaced since; it has been asked for again then, or is gone.
            let Some(dir) = self.folder.find(parent)? else { continue };
            let name = OsStr::from_bytes(name);
            if walk::metadata(dir.as_fd(), name)?.is_some_and(|found| found.kind == Kind::Dir) {
                place::time(dir.as_fd(), name, *time)?;
            }
        }
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        Ok(Applied { implied: self.implied.into_sorted().map(path).collect() })
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the layer has {what}"))
}

/// Type of a device or pipe, for `mknod`.
fn node_type(kind: EntryKind) -> FileType {
    match kind {
        EntryKind::CharDevice => FileType::CharacterDevice,
        EntryKind::BlockDevice => FileType::BlockDevice,
        _ => FileType::Fifo,
    }
}

#[cfg(test)]
pub(crate) mod tests;
