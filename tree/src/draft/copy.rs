//! `COPY`: files of any view into the layer.
//!
//! Directories are walked in parallel. A directory that the patterns do not select itself, but that leads to
//! something selected, is a [`Place`] that is made when the first path below it is.
//!
//! Format: spec `instructions.md` §7.2-§7.10.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType};

use super::data::DataCopier;
use super::folder::{Attributes, Folder};
use super::mode::ModeChange;
use super::{CopyOptions, Draft, NewDirs, UnpackOptions};
use crate::path::{absolute, clean, resolve, split};
use crate::select::{self, Filter, FilterState, Source, Verdict};
use crate::{DirEntry, Kind, Metadata, TreeError, View, walk};

/// Copies from one source.
struct Copier<'a> {
    view: &'a dyn View,
    options: &'a CopyOptions,
    mode: &'a ModeChange,
    filter: &'a Filter,
    source: &'a Path,
    root: &'a Folder,
    data: &'a DataCopier,
    /// Where the first name of a file with several was copied to.
    links: Mutex<HashMap<(u64, u64), PathBuf>>,
}

/// A directory of the destination that may not be made yet.
struct Place<'a> {
    parent: Option<&'a Self>,
    name: OsString,
    /// The directory of the source it is made after.
    source: PathBuf,
    metadata: &'a Metadata,
    folder: Mutex<Option<Arc<Folder>>>,
}

impl Draft {
    /// Copies what a path or pattern selects of a tree.
    ///
    /// # Errors
    /// [`TreeError::NotFound`] for a missing source, [`TreeError::ReplaceDirectory`] and
    /// [`TreeError::NotDirectory`] where kinds clash, and when a file system fails.
    pub fn copy(&mut self, source: &dyn View, options: &CopyOptions) -> Result<(), TreeError> {
        let mode = ModeChange::new(options.mode, &options.mode_text)?;
        let filter = Filter::new(&options.include, &options.exclude)?;
        let sources = select::sources(
            source,
            &options.source,
            options.allow_wildcard,
            options.follow_symlink,
        )?;
        if sources.is_empty() && !options.allow_empty_wildcard {
            return Err(TreeError::not_found(&clean(&options.source)));
        }
        if !options.create_dest_path {
            let dest = self.resolve(&clean(&options.dest), true)?;
            if let Some((parent, _)) = split(&dest)
                && self.metadata(parent)?.is_none()
            {
                return Err(TreeError::not_found(parent));
            }
        }
        for found in &sources {
            select::require(source, found, &options.required)?;
            if options.attempt_unpack && self.try_unpack(source, found, options)? {
                continue;
            }
            self.copy_source(source, found, options, &mode, &filter)?;
        }
        Ok(())
    }

    fn try_unpack(
        &mut self,
        view: &dyn View,
        source: &Source,
        options: &CopyOptions,
    ) -> Result<bool, TreeError> {
        // An archive is found behind a symlink whether or not links are followed.
        let path =
            resolve(view, &source.path, true).map_err(TreeError::io("resolve", &source.path))?;
        let metadata = view.metadata(&path).map_err(TreeError::io("read", &path))?;
        if metadata.is_none_or(|metadata| metadata.kind != Kind::File || metadata.size == 0) {
            return Ok(false);
        }
        let open = || view.open(&path).map_err(TreeError::io("read", &path));
        if !super::unpack::is_archive(open()?) {
            return Ok(false);
        }
        let unpack = UnpackOptions {
            owner: options.owner,
            timestamp: options.timestamp,
            stop: options.stop.clone(),
        };
        self.unpack(Box::new(open()?), &options.dest, &unpack)?;
        Ok(true)
    }

    fn copy_source(
        &self,
        view: &dyn View,
        source: &Source,
        options: &CopyOptions,
        mode: &ModeChange,
        filter: &Filter,
    ) -> Result<(), TreeError> {
        let new = NewDirs { mode: mode.parents(), owner: options.owner, mtime: options.timestamp };
        let is_dir = source.metadata.kind == Kind::Dir;
        let dest = clean(&options.dest);
        let ensured =
            if means_directory(&options.dest) { Some(dest.as_path()) } else { dest.parent() };
        if let Some(ensured) = ensured {
            self.make_dirs(&self.resolve(ensured, true)?, &new)?;
        }
        let mut dest = self.resolve(&dest, true)?;
        let existing = self.metadata(&dest)?.map(|metadata| metadata.kind);
        let inside = if is_dir { !options.dir_copy_contents } else { existing == Some(Kind::Dir) };
        if inside && existing.is_some() {
            dest.extend(source.named.file_name());
        }
        let root = self.root()?;
        let copier = Copier {
            view,
            options,
            mode,
            filter,
            source: &source.path,
            root: &root,
            data: &DataCopier::new(),
            links: Mutex::default(),
        };
        if !is_dir {
            let Some((parent, name)) = split(&dest) else {
                return Err(TreeError::ReplaceDirectory { path: absolute(&dest) });
            };
            let folder = self.make_dirs(parent, &new)?;
            return copier.file(&folder, name, &source.path, &source.metadata);
        }
        let (folder, created) = match split(&dest) {
            None => (self.root()?, false),
            // A directory whose contents are copied belongs to the destination, not to the source.
            Some((parent, name)) if options.dir_copy_contents && existing.is_none() => {
                let parent = self.make_dirs(parent, &new)?;
                copier.clear(&parent, name)?;
                (self.make_dirs(&dest, &new)?, false)
            }
            Some((parent, name)) => {
                let parent = self.make_dirs(parent, &new)?;
                copier.clear(&parent, name)?;
                match parent.enter(name)? {
                    Some(folder) => (folder, false),
                    None => (parent.make_dir(name)?, true),
                }
            }
        };
        copier.whole(folder, created, source)
    }
}

/// Whether a destination says itself that it is a directory.
pub(crate) fn means_directory(dest: &str) -> bool {
    dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.")
}

impl Copier<'_> {
    /// Copies a source directory into a folder.
    fn whole(&self, folder: Folder, created: bool, source: &Source) -> Result<(), TreeError> {
        let folder = Arc::new(folder);
        let place = Place {
            parent: None,
            name: OsString::new(),
            source: source.path.clone(),
            metadata: &source.metadata,
            folder: Mutex::new(Some(Arc::clone(&folder))),
        };
        self.contents(&place, Path::new(""), &FilterState::default())?;
        let xattrs = if created { self.xattrs(&source.path)? } else { Vec::new() };
        folder.set(&self.attributes(&source.metadata, &xattrs, created))
    }

    fn contents(
        &self,
        place: &Place<'_>,
        relative: &Path,
        state: &FilterState,
    ) -> Result<(), TreeError> {
        let path = self.source.join(relative);
        select::check_depth(relative, &path)?;
        let entries = self.view.read_dir(&path).map_err(TreeError::io("read", &path))?;
        entries.par_iter().try_for_each(|entry| self.child(place, relative, entry, state))
    }

    fn child(
        &self,
        place: &Place<'_>,
        parent: &Path,
        entry: &DirEntry,
        state: &FilterState,
    ) -> Result<(), TreeError> {
        let relative = parent.join(&entry.name);
        let (verdict, state) = self.filter.step(&relative, entry.metadata.kind, state);
        let path = self.source.join(&relative);
        let child = |folder| Place {
            parent: Some(place),
            name: entry.name.clone(),
            source: path.clone(),
            metadata: &entry.metadata,
            folder: Mutex::new(folder),
        };
        match (verdict, entry.metadata.kind) {
            (Verdict::Skipped, _) => Ok(()),
            (Verdict::Passage, _) => self.contents(&child(None), &relative, &state),
            (Verdict::Selected, Kind::Dir) => {
                let (folder, created) = self.enter_or_make(&*self.folder(place)?, &entry.name)?;
                let folder = Arc::new(folder);
                self.contents(&child(Some(Arc::clone(&folder))), &relative, &state)?;
                // Under `--parents` a directory that was there keeps its owner.
                let full = created || !self.filter.has_includes();
                let xattrs = if full { self.xattrs(&path)? } else { Vec::new() };
                folder.set(&self.attributes(&entry.metadata, &xattrs, full))
            }
            (Verdict::Selected, _) => {
                self.file(&*self.folder(place)?, &entry.name, &path, &entry.metadata)
            }
        }
    }

    /// The folder of a place, made now if it was not needed before.
    fn folder(&self, place: &Place<'_>) -> Result<Arc<Folder>, TreeError> {
        let mut folder = place.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &*folder {
            return Ok(Arc::clone(folder));
        }
        let Some(parent) = place.parent else { return Err(TreeError::not_found(&place.source)) };
        let parent = self.folder(parent)?;
        let (made, created) = self.enter_or_make(&parent, &place.name)?;
        if created {
            let xattrs = self.xattrs(&place.source)?;
            let attributes = self.attributes(place.metadata, &xattrs, true);
            made.set(&Attributes { mtime: self.options.timestamp, ..attributes })?;
        }
        let made = Arc::new(made);
        *folder = Some(Arc::clone(&made));
        Ok(made)
    }

    fn enter_or_make(&self, parent: &Folder, name: &OsStr) -> Result<(Folder, bool), TreeError> {
        self.clear(parent, name)?;
        match parent.enter(name)? {
            Some(folder) => Ok((folder, false)),
            None => Ok((parent.make_dir(name)?, true)),
        }
    }

    /// Removes what is no directory from where one is to be, if that was asked for.
    fn clear(&self, parent: &Folder, name: &OsStr) -> Result<(), TreeError> {
        if self.options.always_replace
            && parent.metadata(name)?.is_some_and(|metadata| metadata.kind != Kind::Dir)
        {
            parent.remove(name)?;
        }
        Ok(())
    }

    /// What a copied path is given; without `full`, its time only.
    fn attributes<'x>(
        &self,
        metadata: &Metadata,
        xattrs: &'x [(OsString, Vec<u8>)],
        full: bool,
    ) -> Attributes<'x> {
        let mtime = Some(self.options.timestamp.unwrap_or(metadata.mtime));
        if !full {
            return Attributes { mtime, ..Attributes::default() };
        }
        Attributes {
            mode: Some(self.mode.apply(metadata.mode, metadata.kind == Kind::Dir)),
            owner: Some(self.options.owner.unwrap_or((metadata.uid, metadata.gid))),
            xattrs,
            mtime,
        }
    }

    fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, TreeError> {
        self.view.xattrs(path).map_err(TreeError::io("read", path))
    }

    /// Copies anything but a directory.
    fn file(
        &self,
        folder: &Folder,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), TreeError> {
        if self.options.always_replace
            && folder.metadata(name)?.is_some_and(|existing| existing.kind == Kind::Dir)
        {
            folder.remove(name)?;
        }
        if metadata.kind == Kind::File && metadata.links > 1 {
            // Held until the first name is there, for the others to be linked to it.
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = links.get(&metadata.inode)
                && self.link(folder, name, first)?
            {
                return Ok(());
            }
            self.regular(folder, name, path, metadata)?;
            links.insert(metadata.inode, folder.path_of(name));
            return Ok(());
        }
        match metadata.kind {
            Kind::File | Kind::Socket => self.regular(folder, name, path, metadata),
            _ => self.node(folder, name, path, metadata),
        }
    }

    fn regular(
        &self,
        folder: &Folder,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), TreeError> {
        let mut file = folder.create(name)?;
        let socket = metadata.kind == Kind::Socket;
        if !socket {
            let mut from = self.view.open(path).map_err(TreeError::io("read", path))?;
            let copied = self.data.copy(&mut from, &mut file, metadata.size);
            copied.map_err(TreeError::io("copy", path))?;
        }
        let xattrs = if socket { Vec::new() } else { self.xattrs(path)? };
        folder
            .set_file(&file, &self.attributes(metadata, &xattrs, true))
            .map_err(TreeError::io("change", &folder.path_of(name)))
    }

    fn node(
        &self,
        folder: &Folder,
        name: &OsStr,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), TreeError> {
        if metadata.kind == Kind::Symlink {
            let target = self.view.read_link(path).map_err(TreeError::io("read", path))?;
            folder.replace(name, |dir| rustix::fs::symlinkat(&target, dir, name))?;
        } else {
            let kind = match metadata.kind {
                Kind::CharDevice => FileType::CharacterDevice,
                Kind::BlockDevice => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            if crate::layer::is_whiteout_node(metadata) {
                let source = io::Error::other("a character device 0:0 marks a deletion");
                return Err(TreeError::io("copy", path)(source));
            }
            folder.make_node(name, kind, metadata.rdev)?;
        }
        let xattrs = self.xattrs(path)?;
        folder.set_child(name, metadata.kind, &self.attributes(metadata, &xattrs, true))
    }

    /// Makes another name of a file that was copied; false when the file system has no more room for one.
    fn link(&self, folder: &Folder, name: &OsStr, first: &Path) -> Result<bool, TreeError> {
        let Some((parent, first_name)) = split(first) else { return Ok(false) };
        let parent =
            walk::open_below(self.root.fd(), parent).map_err(TreeError::io("open", parent))?;
        let Some(parent) = parent else { return Ok(false) };
        let linked = folder.replace(name, |dir| {
            match rustix::fs::linkat(&parent, first_name, dir, name, AtFlags::empty()) {
                Err(rustix::io::Errno::MLINK) => Ok(false),
                other => other.map(|()| true),
            }
        })?;
        Ok(linked)
    }
}
