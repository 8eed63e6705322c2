//! Content digests: what a `COPY` or a bind mount selects, as 32 bytes.
//!
//! Two selections have one digest when copying them gives the same files. What counts of a path: kind,
//! permission bits, owner, bytes, link target, device number, and the extended attributes outside of
//! `security.*` and `system.*`, `security.capability` being the exception. What does not: times, where the
//! selection lies, which layer holds it, that names are hard links.
//!
//! ```text
//! record  = hash(tag, mode, uid, gid, payload | xattrs, target, rdev)
//! leaves  = hash((name, record) for each selected child that is no directory, in byte order)
//! folder  = hash(own record, leaves, (name, folder) for each selected directory, in byte order)
//! payload = hash(xattrs, bytes)
//! ```
//!
//! Every field is fixed in width or preceded by its length, and every hash begins with `VERSION`.
//!
//! Format: our own; spec `solver-and-cache.md` §3 says what counts.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;

use crate::select::{self, Filter, FilterState, Source, Verdict};
use crate::{DirEntry, Kind, Metadata, TreeError, View};

/// Goes into every hash; another number makes all digests new.
const VERSION: &[u8] = b"bricklayer content v2";

/// Files from this size on are hashed on several threads.
const LARGE: u64 = 16 << 20;

/// What of a tree is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Source paths, with or without a leading `/`; one that ends in `/` leaves the directory's own
    /// metadata out.
    pub paths: Vec<String>,
    /// The paths may have wildcards; one that matches nothing is no error.
    pub wildcard: bool,
    /// A symlink named or matched itself is followed.
    pub follow_links: bool,
    /// Only paths that match one of these, relative to each source directory.
    pub include: Vec<String>,
    /// No path that matches these, relative to each source directory.
    pub exclude: Vec<String>,
    /// Paths that must exist below each source.
    pub required: Vec<String>,
}

/// Hashes what a selection selects.
///
/// # Errors
/// [`TreeError::NotFound`] when a path without wildcards or a required one is missing; a malformed pattern;
/// when the file system fails.
pub fn digest(view: &dyn View, selection: &Selection) -> Result<[u8; 32], TreeError> {
    let filter = Filter::new(&selection.include, &selection.exclude)?;
    let mut digests = Vec::new();
    for path in &selection.paths {
        digests.push(path_digest(view, path, selection, &filter)?);
    }
    if let [only] = digests[..] {
        return Ok(only);
    }
    let mut hash = Framed::new("paths");
    for digest in digests {
        hash.put(&digest);
    }
    Ok(hash.finish())
}

fn path_digest(
    view: &dyn View,
    path: &str,
    selection: &Selection,
    filter: &Filter,
) -> Result<[u8; 32], TreeError> {
    let sources = select::sources(view, path, selection.wildcard, selection.follow_links)?;
    let contents_only = path.ends_with('/');
    let digest_of = |source: &Source| {
        select::require(view, source, &selection.required)?;
        source_digest(view, source, contents_only, filter)
    };
    if !selection.wildcard || !select::has_wildcards(path) {
        return sources.first().map_or_else(|| Ok(Framed::new("none").finish()), digest_of);
    }
    let (base, pattern) = select::split_wildcards(path);
    // One match under the name that was asked for: nothing but its content can matter.
    if let [only] = &sources[..]
        && only.named.file_name() == pattern.last().map(OsStr::new)
    {
        return digest_of(only);
    }
    let mut hash = Framed::new("matches");
    for source in &sources {
        let named = source.named.strip_prefix(&base).unwrap_or(&source.named);
        hash.put(named.as_os_str().as_bytes());
        hash.put(&digest_of(source)?);
    }
    Ok(hash.finish())
}

fn source_digest(
    view: &dyn View,
    source: &Source,
    contents_only: bool,
    filter: &Filter,
) -> Result<[u8; 32], TreeError> {
    if source.metadata.kind != Kind::Dir {
        return record(view, &source.path, &source.metadata);
    }
    let header = if contents_only || source.path.as_os_str().is_empty() {
        None
    } else {
        Some(record(view, &source.path, &source.metadata)?)
    };
    let walk = Walk { view, filter, root: &source.path };
    Ok(walk.folder(Path::new(""), header, &FilterState::default())?.0)
}

struct Walk<'a> {
    view: &'a dyn View,
    filter: &'a Filter,
    root: &'a Path,
}

impl Walk<'_> {
    /// Digest of a directory, and whether anything in it is selected.
    fn folder(
        &self,
        relative: &Path,
        header: Option<[u8; 32]>,
        state: &FilterState,
    ) -> Result<([u8; 32], bool), TreeError> {
        let path = self.root.join(relative);
        select::check_depth(relative, &path)?;
        let entries = self.view.list(&path).map_err(TreeError::io("read", &path))?;
        let (mut leaves, mut folders) = (Vec::new(), Vec::new());
        for entry in entries.iter() {
            let kind = entry.metadata.kind;
            let (verdict, state) = match self.filter.takes_all() {
                true => (Verdict::Selected, FilterState::default()),
                false => self.filter.step(&relative.join(&entry.name), kind, state),
            };
            match (verdict, kind) {
                (Verdict::Skipped, _) => {}
                (_, Kind::Dir) => folders.push((entry, verdict, state)),
                _ => leaves.push(entry),
            }
        }
        let mut hash = Framed::new("folder");
        hash.put(header.as_ref().map_or(&[], |header| &header[..]));
        let mut any = !leaves.is_empty();
        if any {
            let records = || self.leaves(&path, &leaves);
            hash.put(&self.view.leaves(&path, &leaves, &records)?);
        } else {
            hash.put(&[]);
        }
        let below = folders
            .par_iter()
            .map(|(entry, verdict, state)| self.subfolder(relative, entry, *verdict, state))
            .collect::<Result<Vec<_>, _>>()?;
        for ((entry, ..), digest) in folders.iter().zip(below) {
            if let Some(digest) = digest {
                hash.put(entry.name.as_bytes());
                hash.put(&digest);
                any = true;
            }
        }
        Ok((hash.finish(), any))
    }

    /// Hash of names of a directory that are no directories.
    fn leaves(&self, directory: &Path, entries: &[&DirEntry]) -> Result<[u8; 32], TreeError> {
        let records = entries
            .par_iter()
            .with_min_len(8)
            .map(|entry| record(self.view, &directory.join(&entry.name), &entry.metadata))
            .collect::<Result<Vec<_>, _>>()?;
        let mut hash = Framed::new("leaves");
        for (entry, record) in entries.iter().zip(records) {
            hash.put(entry.name.as_bytes());
            hash.put(&record);
        }
        Ok(hash.finish())
    }

    fn subfolder(
        &self,
        parent: &Path,
        entry: &DirEntry,
        verdict: Verdict,
        state: &FilterState,
    ) -> Result<Option<[u8; 32]>, TreeError> {
        let relative = parent.join(&entry.name);
        let record = record(self.view, &self.root.join(&relative), &entry.metadata)?;
        let (digest, any) = self.folder(&relative, Some(record), state)?;
        Ok((any || verdict == Verdict::Selected).then_some(digest))
    }
}

/// Hash of some files of one directory, as [`View::leaves`] may know it.
pub(crate) fn files_digest(
    view: &dyn View,
    directory: &Path,
    entries: &[&DirEntry],
) -> Result<[u8; 32], TreeError> {
    let filter = Filter::new(&[], &[])?;
    let walk = Walk { view, filter: &filter, root: directory };
    view.leaves(directory, entries, &|| walk.leaves(directory, entries))
}

/// Hash of what one path holds, without its mode and owner: bytes, target, device number, extended attributes.
pub(crate) fn held_digest(
    view: &dyn View,
    path: &Path,
    metadata: &Metadata,
) -> Result<[u8; 32], TreeError> {
    record(view, path, &Metadata { mode: 0, uid: 0, gid: 0, ..metadata.clone() })
}

/// Hashes one path without what is below it.
fn record(view: &dyn View, path: &Path, metadata: &Metadata) -> Result<[u8; 32], TreeError> {
    let context = || TreeError::io("read", path);
    let mut hash = Framed::new(match metadata.kind {
        // A socket is copied as an empty file.
        Kind::File | Kind::Socket => "file",
        Kind::Dir => "header",
        Kind::Symlink => "symlink",
        Kind::CharDevice => "char",
        Kind::BlockDevice => "block",
        Kind::Fifo => "fifo",
    });
    // A symlink has no mode of its own.
    hash.number(if metadata.kind == Kind::Symlink { 0o777 } else { metadata.mode });
    hash.number(metadata.uid);
    hash.number(metadata.gid);
    match metadata.kind {
        Kind::File => hash.put(&view.payload(path, metadata).map_err(context())?),
        Kind::Socket => hash.put(&payload_of_bytes(&[])),
        Kind::Dir => put_xattrs(&mut hash, &view.xattrs(path).map_err(context())?),
        Kind::Symlink => {
            let target = view.read_link(path).map_err(context())?;
            hash.put(target.as_os_str().as_bytes());
            put_xattrs(&mut hash, &view.xattrs(path).map_err(context())?);
        }
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
            hash.number(metadata.rdev.0);
            hash.number(metadata.rdev.1);
            put_xattrs(&mut hash, &view.xattrs(path).map_err(context())?);
        }
    }
    Ok(hash.finish())
}

/// Hashes what a regular file of about `size` bytes holds.
///
/// # Errors
/// When reading fails.
pub fn payload(
    file: &mut dyn Read,
    size: u64,
    xattrs: &[(OsString, Vec<u8>)],
) -> io::Result<[u8; 32]> {
    let mut hash = Framed::new("payload");
    put_xattrs(&mut hash, xattrs);
    let large = size >= LARGE;
    let usual = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(64 << 10);
    let mut buffer = vec![0; if large { 4 << 20 } else { usual }];
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if large {
            hash.0.update_rayon(&buffer[..filled]);
        } else {
            hash.0.update(&buffer[..filled]);
        }
        if filled < buffer.len() {
            return Ok(hash.finish());
        }
    }
}

fn payload_of_bytes(bytes: &[u8]) -> [u8; 32] {
    let mut hash = Framed::new("payload");
    put_xattrs(&mut hash, &[]);
    hash.0.update(bytes);
    hash.finish()
}

fn put_xattrs(hash: &mut Framed, xattrs: &[(OsString, Vec<u8>)]) {
    let counted = xattrs.iter().filter(|(name, _)| counts(name));
    hash.number(u32::try_from(counted.clone().count()).unwrap_or(u32::MAX));
    for (name, value) in counted {
        hash.put(name.as_bytes());
        hash.put(value);
    }
}

fn counts(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"security.capability"
        || !(name.starts_with(b"security.") || name.starts_with(b"system."))
}

/// A hash over fields that cannot run into each other.
struct Framed(blake3::Hasher);

impl Framed {
    fn new(tag: &str) -> Self {
        let mut framed = Self(blake3::Hasher::new());
        framed.put(VERSION);
        framed.put(tag.as_bytes());
        framed
    }

    fn put(&mut self, field: &[u8]) {
        self.0.update(&(field.len() as u64).to_le_bytes());
        self.0.update(field);
    }

    fn number(&mut self, number: u32) {
        self.0.update(&number.to_le_bytes());
    }

    fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
