//! `ADD` of an archive: its entries into a directory of the layer.
//!
//! Paths of entries are resolved with the destination as the root, so that neither `..` nor a symlink, of the
//! archive or of the image, leads out of it. Names like `.wh.x` mean nothing here.
//!
//! Format: spec `instructions.md` §8.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::data::DataCopier;
use super::folder::{Attributes, Folder};
use super::{BUFFER, Draft, NewDirs, UnpackOptions};
use crate::codec::decompress;
use crate::path::{clean, clean_path, resolve, split};
use crate::stack::Stack;
use crate::tar::{Entry, EntryKind, Reader};
use crate::{DirEntry, FileData, Kind, Metadata, Timestamp, TreeError, View};

type Archive = Reader<Box<dyn Read + Send>>;

/// Whether a file is an archive: its first header must parse.
pub(super) fn is_archive(file: FileData) -> bool {
    let first = decompress(Box::new(file)).map(Reader::new).and_then(|mut tar| tar.next_entry());
    matches!(first, Ok(Some(_)))
}

/// Reads the beginning of an archive, plain or compressed, that is to be unpacked.
///
/// # Errors
/// When it is damaged there, is no archive, or has no entries.
pub fn check_archive(archive: Box<dyn Read + Send>) -> Result<(), TreeError> {
    let failed = |source| TreeError::Archive { source };
    let mut tar = Reader::new(decompress(archive).map_err(failed)?);
    match tar.next_entry().map_err(failed)? {
        Some(_) => Ok(()),
        None => Err(failed(io::Error::other("it has no entries"))),
    }
}

/// An archive on its way into a directory.
struct Unpack<'a> {
    draft: &'a Draft,
    dest: PathBuf,
    options: &'a UnpackOptions,
    /// The directory of the last entry: most entries lie beside the one before.
    last: Option<(PathBuf, Folder)>,
    /// Directories and the times they get when all is in them.
    times: Vec<(PathBuf, Timestamp)>,
}

impl Draft {
    /// Unpacks an archive, plain or compressed, into a directory, which is made if it is missing.
    ///
    /// # Errors
    /// When the archive is damaged or the file system fails.
    pub fn unpack(
        &mut self,
        archive: Box<dyn Read + Send>,
        dest: &str,
        options: &UnpackOptions,
    ) -> Result<(), TreeError> {
        let dest = self.resolve(&clean(dest), true)?;
        let new = NewDirs { mode: 0o755, owner: options.owner, mtime: options.timestamp };
        self.make_dirs(&dest, &new)?;
        let failed = |source| TreeError::Archive { source };
        let plain = options.stop.guard(decompress(archive).map_err(failed)?);
        let mut archive: Archive = Reader::new(Box::new(plain));
        let mut unpack = Unpack { draft: self, dest, options, last: None, times: Vec::new() };
        while let Some(entry) = archive.next_entry().map_err(failed)? {
            unpack.entry(&entry, &mut archive)?;
        }
        unpack.finish()
    }
}

impl Unpack<'_> {
    fn entry(&mut self, entry: &Entry, archive: &mut Archive) -> Result<(), TreeError> {
        let named = clean_path(Path::new(OsStr::from_bytes(&entry.path)));
        let Some((parent, name)) = split(&named) else {
            // The archive's root: the destination itself, which is there.
            return Ok(());
        };
        let source = match entry.kind {
            EntryKind::HardLink => {
                let target = clean_path(Path::new(OsStr::from_bytes(&entry.link)));
                if self.locate(&target)? == self.locate(&named)? {
                    return Ok(());
                }
                Some(self.link_source(&target)?)
            }
            _ => None,
        };
        let folder = self.take_folder(parent)?;
        if let Some(existing) = folder.metadata(name)?
            && !(existing.kind == Kind::Dir && entry.kind == EntryKind::Dir)
        {
            folder.remove(name)?;
        }
        self.make(&folder, name, entry, archive, source.as_ref())?;
        self.last = Some((parent.to_owned(), folder));
        Ok(())
    }

    fn make(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        entry: &Entry,
        archive: &mut Archive,
        source: Option<&(Folder, OsString)>,
    ) -> Result<(), TreeError> {
        let attributes = Attributes {
            mode: Some(entry.mode & 0o7777),
            owner: Some(self.options.owner.unwrap_or((entry.uid, entry.gid))),
            xattrs: &entry.xattrs,
            mtime: Some(entry.mtime),
        };
        let path = folder.path_of(name);
        let kind = match entry.kind {
            EntryKind::File => {
                let buffer = usize::try_from(entry.size).map_or(BUFFER, |size| size.min(BUFFER));
                let mut file = BufWriter::with_capacity(buffer, folder.create(name)?);
                let copied = io::copy(&mut archive.take(entry.size), &mut file)
                    .and_then(|copied| file.flush().map(|()| copied));
                if copied.map_err(TreeError::io("unpack", &path))? < entry.size {
                    return Err(TreeError::Archive { source: io::ErrorKind::UnexpectedEof.into() });
                }
                return folder
                    .set_file(file.get_ref(), &attributes)
                    .map_err(TreeError::io("change", &path));
            }
            EntryKind::Dir => {
                let made = match folder.enter(name)? {
                    Some(made) => made,
                    None => folder.make_dir(name)?,
                };
                made.set(&attributes)?;
                self.times.push((path, entry.mtime));
                return Ok(());
            }
            EntryKind::HardLink => {
                let Some((from, from_name)) = source else { return Ok(()) };
                return folder.replace(name, |dir| {
                    rustix::fs::linkat(from.fd(), from_name, dir, name, AtFlags::empty())
                });
            }
            EntryKind::Symlink => {
                let target = entry.link.as_slice();
                folder.replace(name, |dir| rustix::fs::symlinkat(target, dir, name))?;
                Kind::Symlink
            }
            EntryKind::CharDevice => node(folder, name, FileType::CharacterDevice, entry)?,
            EntryKind::BlockDevice => node(folder, name, FileType::BlockDevice, entry)?,
            EntryKind::Fifo => node(folder, name, FileType::Fifo, entry)?,
        };
        folder.set_child(name, kind, &attributes)
    }

    /// Where a path of the archive is: its directory's symlinks resolved inside the destination.
    fn locate(&self, named: &Path) -> Result<PathBuf, TreeError> {
        let below = Below { stack: self.draft.view(), root: &self.dest };
        let found = resolve(&below, named, false).map_err(TreeError::io("resolve", named))?;
        Ok(self.dest.join(found))
    }

    /// The directory of an entry, made if the archive lacks it.
    fn take_folder(&mut self, parent: &Path) -> Result<Folder, TreeError> {
        if let Some((at, folder)) = self.last.take()
            && at == parent
        {
            return Ok(folder);
        }
        let below = Below { stack: self.draft.view(), root: &self.dest };
        let found = resolve(&below, parent, true).map_err(TreeError::io("resolve", parent))?;
        let new = NewDirs { mode: 0o755, owner: None, mtime: None };
        self.draft.make_dirs(&self.dest.join(found), &new)
    }

    /// The file that a hard link is to; one that lies in a layer below is copied up.
    fn link_source(&self, target: &Path) -> Result<(Folder, OsString), TreeError> {
        let path = self.locate(target)?;
        let view = self.draft.view();
        let metadata = view.metadata(&path).map_err(TreeError::io("read", &path))?;
        let (Some(metadata), Some((parent, name))) = (metadata, split(&path)) else {
            return Err(TreeError::not_found(&path));
        };
        if metadata.kind == Kind::Dir {
            let source = io::Error::other("a hard link to a directory");
            return Err(TreeError::io("link", &path)(source));
        }
        let folder = self.draft.folder(parent)?;
        let in_upper = Stack::new(vec![self.draft.upper.clone()]);
        if metadata.kind == Kind::File
            && in_upper.metadata(&path).map_err(TreeError::io("read", &path))?.is_none()
        {
            let mut from = view.open(&path).map_err(TreeError::io("read", &path))?;
            let xattrs = view.xattrs(&path).map_err(TreeError::io("read", &path))?;
            let mut to = folder.create(name)?;
            let copied = DataCopier::new().copy(&mut from, &mut to, metadata.size);
            copied.map_err(TreeError::io("copy", &path))?;
            let attributes = Attributes {
                mode: Some(metadata.mode),
                owner: Some((metadata.uid, metadata.gid)),
                xattrs: &xattrs,
                mtime: Some(metadata.mtime),
            };
            folder.set_file(&to, &attributes).map_err(TreeError::io("change", &path))?;
        }
        Ok((folder, name.to_owned()))
    }

    /// Gives directories their times, which making their contents has changed.
    fn finish(self) -> Result<(), TreeError> {
        for (path, mtime) in self.times {
            // A later entry may have replaced the directory.
            let found = self.draft.metadata(&path)?;
            if found.is_some_and(|found| found.kind == Kind::Dir) {
                let mtime = Some(mtime);
                self.draft.folder(&path)?.set(&Attributes { mtime, ..Attributes::default() })?;
            }
        }
        Ok(())
    }
}

fn node(folder: &Folder, name: &OsStr, kind: FileType, entry: &Entry) -> Result<Kind, TreeError> {
    if kind == FileType::CharacterDevice && entry.device == (0, 0) {
        let source = io::Error::other("a character device 0:0 marks a deletion");
        return Err(TreeError::io("unpack", &folder.path_of(name))(source));
    }
    folder.make_node(name, kind, entry.device)?;
    Ok(match kind {
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        _ => Kind::Fifo,
    })
}

/// A directory of a stack as the root of a tree, for resolving paths in it.
struct Below<'a> {
    stack: Stack,
    root: &'a Path,
}

impl View for Below<'_> {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        self.stack.metadata(&self.root.join(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.stack.read_dir(&self.root.join(path))
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.stack.open(&self.root.join(path))
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.stack.read_link(&self.root.join(path))
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.stack.xattrs(&self.root.join(path))
    }
}
