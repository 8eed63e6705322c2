//! `COPY`: paths of any view into the plan, by the rules of [`Draft::copy`](crate::draft::Draft::copy).
//!
//! Format: spec `instructions.md` §7.2-§7.10.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirId, Leaf, Sketch, now};
use crate::draft::{CopyOptions, ModeChange, NewDirs, means_directory};
use crate::packed::Origin;
use crate::path::{absolute, clean, split};
use crate::select::{self, Filter, FilterState, Source, Verdict};
use crate::{DirEntry, Kind, Metadata, TreeError, View};

/// Copies from one source.
struct Copier<'a> {
    view: &'a Arc<dyn View>,
    options: &'a CopyOptions,
    mode: &'a ModeChange,
    filter: &'a Filter,
    source: &'a Path,
    /// The first name of each file with several, as it was planned.
    links: HashMap<(u64, u64), Leaf>,
}

/// A directory of the destination that may not be made yet.
struct Place<'a> {
    parent: Option<&'a Self>,
    /// Path in the plan.
    path: PathBuf,
    /// The directory of the source it is made after.
    source: PathBuf,
    metadata: &'a Metadata,
    dir: Cell<Option<DirId>>,
}

impl Sketch {
    /// Plans a copy that [`takes`](Sketch::takes) allows.
    ///
    /// # Errors
    /// As [`Draft::copy`](crate::draft::Draft::copy).
    pub fn copy(&mut self, source: &Arc<dyn View>, options: &CopyOptions) -> Result<(), TreeError> {
        let mode = ModeChange::new(options.mode, &options.mode_text)?;
        let filter = Filter::new(&options.include, &options.exclude)?;
        let view = source.as_ref();
        let (wildcard, follow) = (options.allow_wildcard, options.follow_symlink);
        let sources = select::sources(view, &options.source, wildcard, follow)?;
        if sources.is_empty() && !options.allow_empty_wildcard {
            return Err(TreeError::not_found(&clean(&options.source)));
        }
        if !options.create_dest_path {
            let dest = self.resolve(&clean(&options.dest), true)?;
            if let Some((parent, _)) = split(&dest)
                && self.metadata_at(parent)?.is_none()
            {
                return Err(TreeError::not_found(parent));
            }
        }
        for found in &sources {
            select::require(view, found, &options.required)?;
            self.copy_source(source, found, options, &mode, &filter)?;
        }
        Ok(())
    }

    fn copy_source(
        &mut self,
        view: &Arc<dyn View>,
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
            let ensured = self.resolve(ensured, true)?;
            self.make_dirs(&ensured, &new)?;
        }
        let mut dest = self.resolve(&dest, true)?;
        let existing = self.metadata_at(&dest)?.map(|metadata| metadata.kind);
        let inside = if is_dir { !options.dir_copy_contents } else { existing == Some(Kind::Dir) };
        if inside && existing.is_some() {
            dest.extend(source.named.file_name());
        }
        let mut copier =
            Copier { view, options, mode, filter, source: &source.path, links: HashMap::new() };
        if !is_dir {
            let Some((parent, name)) = split(&dest) else {
                return Err(TreeError::ReplaceDirectory { path: absolute(&dest) });
            };
            let dir = self.make_dirs(parent, &new)?;
            return copier.file(self, dir, name, &dest, &source.path, &source.metadata);
        }
        let (dir, created) = match split(&dest) {
            None => (super::ROOT, false),
            // A directory whose contents are copied belongs to the destination, not to the source.
            Some(_) if options.dir_copy_contents && existing.is_none() => {
                (self.make_dirs(&dest, &new)?, false)
            }
            Some((parent, name)) => {
                let parent = self.make_dirs(parent, &new)?;
                match self.enter(parent, name, &dest)? {
                    Some(dir) => (dir, false),
                    None => (self.make_dir(parent, name), true),
                }
            }
        };
        copier.whole(self, dir, &dest, created, source)
    }
}

impl Copier<'_> {
    /// Copies a source directory into a directory.
    fn whole(
        &mut self,
        sketch: &mut Sketch,
        dir: DirId,
        path: &Path,
        created: bool,
        source: &Source,
    ) -> Result<(), TreeError> {
        let place = Place {
            parent: None,
            path: path.to_owned(),
            source: source.path.clone(),
            metadata: &source.metadata,
            dir: Cell::new(Some(dir)),
        };
        self.contents(sketch, &place, Path::new(""), &FilterState::default())?;
        self.set(sketch, dir, &source.path, &source.metadata, created)
    }

    fn contents(
        &mut self,
        sketch: &mut Sketch,
        place: &Place<'_>,
        relative: &Path,
        state: &FilterState,
    ) -> Result<(), TreeError> {
        let path = self.source.join(relative);
        select::check_depth(relative, &path)?;
        let entries = self.view.read_dir(&path).map_err(TreeError::io("read", &path))?;
        for entry in &entries {
            self.child(sketch, place, relative, entry, state)?;
        }
        Ok(())
    }

    fn child(
        &mut self,
        sketch: &mut Sketch,
        place: &Place<'_>,
        parent: &Path,
        entry: &DirEntry,
        state: &FilterState,
    ) -> Result<(), TreeError> {
        let relative = parent.join(&entry.name);
        let (verdict, state) = self.filter.step(&relative, entry.metadata.kind, state);
        let path = self.source.join(&relative);
        let child = |dir| Place {
            parent: Some(place),
            path: place.path.join(&entry.name),
            source: path.clone(),
            metadata: &entry.metadata,
            dir: Cell::new(dir),
        };
        match (verdict, entry.metadata.kind) {
            (Verdict::Skipped, _) => Ok(()),
            (Verdict::Passage, _) => self.contents(sketch, &child(None), &relative, &state),
            (Verdict::Selected, Kind::Dir) => {
                let parent = self.dir(sketch, place)?;
                let at = place.path.join(&entry.name);
                let (dir, created) = enter_or_make(sketch, parent, &entry.name, &at)?;
                self.contents(sketch, &child(Some(dir)), &relative, &state)?;
                // Under `--parents` a directory that was there keeps its owner.
                let full = created || !self.filter.has_includes();
                self.set(sketch, dir, &path, &entry.metadata, full)
            }
            (Verdict::Selected, _) => {
                let dir = self.dir(sketch, place)?;
                let at = place.path.join(&entry.name);
                self.file(sketch, dir, &entry.name, &at, &path, &entry.metadata)
            }
        }
    }

    /// The directory of a place, made now if it was not needed before.
    fn dir(&self, sketch: &mut Sketch, place: &Place<'_>) -> Result<DirId, TreeError> {
        if let Some(dir) = place.dir.get() {
            return Ok(dir);
        }
        let Some(parent) = place.parent else { return Err(TreeError::not_found(&place.source)) };
        let parent = self.dir(sketch, parent)?;
        let name = place.path.file_name().unwrap_or_default();
        let (dir, created) = enter_or_make(sketch, parent, name, &place.path)?;
        if created {
            self.set(sketch, dir, &place.source, place.metadata, true)?;
            sketch.dirs[dir].metadata.mtime = self.options.timestamp.unwrap_or_else(now);
        }
        place.dir.set(Some(dir));
        Ok(dir)
    }

    /// Gives a directory the attributes of a source; without `full`, its time only.
    fn set(
        &self,
        sketch: &mut Sketch,
        dir: DirId,
        path: &Path,
        metadata: &Metadata,
        full: bool,
    ) -> Result<(), TreeError> {
        let xattrs = if full { self.xattrs(path)? } else { Vec::new() };
        let mtime = self.options.timestamp.unwrap_or(metadata.mtime);
        let dir = &mut sketch.dirs[dir];
        dir.metadata.mtime = mtime;
        if full {
            let attributes = self.attributes(metadata);
            (dir.metadata.mode, dir.metadata.uid, dir.metadata.gid) =
                (attributes.mode, attributes.uid, attributes.gid);
            for (name, value) in xattrs {
                dir.xattrs.retain(|(known, _)| *known != name);
                dir.xattrs.push((name, value));
            }
            dir.xattrs.sort();
        }
        Ok(())
    }

    /// Metadata of the copy of a path.
    fn attributes(&self, metadata: &Metadata) -> Metadata {
        let (uid, gid) = self.options.owner.unwrap_or((metadata.uid, metadata.gid));
        let mode = match metadata.kind {
            Kind::Symlink => 0o777,
            kind => self.mode.apply(metadata.mode, kind == Kind::Dir),
        };
        let mtime = self.options.timestamp.unwrap_or(metadata.mtime);
        Metadata { mode, uid, gid, mtime, ..metadata.clone() }
    }

    fn xattrs(&self, path: &Path) -> Result<Vec<(OsString, Vec<u8>)>, TreeError> {
        self.view.xattrs(path).map_err(TreeError::io("read", path))
    }

    /// Copies anything but a directory.
    fn file(
        &mut self,
        sketch: &mut Sketch,
        dir: DirId,
        name: &OsStr,
        at: &Path,
        path: &Path,
        metadata: &Metadata,
    ) -> Result<(), TreeError> {
        let has_names = metadata.kind == Kind::File && metadata.links > 1;
        if has_names && let Some(first) = self.links.get(&metadata.inode) {
            let first = first.clone();
            return sketch.put(dir, name, at, first);
        }
        let mut leaf = Leaf {
            metadata: Metadata { links: 1, ..self.attributes(metadata) },
            xattrs: Vec::new(),
            target: None,
            origin: Origin::None,
            file: None,
        };
        match metadata.kind {
            Kind::File => leaf.origin = Origin::Tree(Arc::clone(self.view), path.to_owned()),
            Kind::Socket => {
                (leaf.metadata.kind, leaf.metadata.size) = (Kind::File, 0);
                leaf.origin = Origin::Bytes(Arc::default());
            }
            Kind::Symlink => {
                let target = self.view.read_link(path).map_err(TreeError::io("read", path))?;
                leaf.target = Some(target.into_os_string());
                leaf.xattrs = self.xattrs(path)?;
            }
            _ if crate::layer::is_whiteout_node(metadata) => {
                let source = io::Error::other("a character device 0:0 marks a deletion");
                return Err(TreeError::io("copy", path)(source));
            }
            _ => leaf.xattrs = self.xattrs(path)?,
        }
        if has_names {
            leaf.metadata.links = metadata.links;
            leaf.file = Some(sketch.next_file);
            sketch.next_file += 1;
            self.links.insert(metadata.inode, leaf.clone());
        }
        sketch.put(dir, name, at, leaf)
    }
}

fn enter_or_make(
    sketch: &mut Sketch,
    parent: DirId,
    name: &OsStr,
    path: &Path,
) -> Result<(DirId, bool), TreeError> {
    match sketch.enter(parent, name, path)? {
        Some(dir) => Ok((dir, false)),
        None => Ok((sketch.make_dir(parent, name), true)),
    }
}
