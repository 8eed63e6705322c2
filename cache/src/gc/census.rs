//! What lies on the disk: every byte of the store's folder, by what it belongs to, in real blocks.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Usage;
use crate::error::{At, CacheError};
use crate::layer::hex;
use crate::store::Inner;

/// Bytes by name of what they belong to.
#[derive(Debug, Default)]
pub(super) struct Census {
    pub(super) layers: HashMap<String, u64>,
    pub(super) blobs: HashMap<String, u64>,
    pub(super) mounts: HashMap<String, u64>,
    /// With the time of the last change, in nanoseconds.
    pub(super) contexts: HashMap<String, (u64, i64)>,
    /// What is being written, and what dead processes left.
    pub(super) ingest: u64,
    pub(super) database: u64,
    /// Folders, locks, what is set aside, and what nobody knows.
    pub(super) other: u64,
}

impl Census {
    pub(super) fn usage(&self) -> Usage {
        Usage {
            layers: self.layers.values().sum(),
            blobs: self.blobs.values().sum(),
            mounts: self.mounts.values().sum(),
            contexts: self.contexts.values().map(|(bytes, _)| bytes).sum(),
            ingest: self.ingest,
            metadata: self.database,
            other: self.other,
        }
    }
}

impl Inner {
    /// Looks at the whole store. Of layers whose size is known, which never changes, only the size is asked.
    pub(super) fn census(&self) -> Result<Census, CacheError> {
        let known: HashMap<String, u64> = self.read(|db| {
            db.prepare("SELECT id, disk FROM layer WHERE dir AND disk IS NOT NULL")?
                .query_map([], |row| {
                    let id: [u8; 16] = row.get(0)?;
                    Ok((hex(&id), row.get::<_, i64>(1)?.cast_unsigned()))
                })?
                .collect()
        })?;
        let mut census =
            Census { other: own(&self.root)?.map_or(0, |it| size(&it)), ..Census::default() };
        for (name, path) in entries(&self.root)? {
            match name.as_str() {
                "layers" => {
                    census.other += own(&path)?.map_or(0, |it| size(&it));
                    for (name, path) in entries(&path)? {
                        let bytes = match known.get(&name) {
                            Some(bytes) if path.is_dir() => *bytes,
                            _ => blocks(&path)?,
                        };
                        census.layers.insert(name, bytes);
                    }
                }
                "blobs" => census.blobs(&path)?,
                "mounts" => {
                    census.other += own(&path)?.map_or(0, |it| size(&it));
                    for (name, path) in entries(&path)? {
                        census.mounts.insert(name, blocks(&path)?);
                    }
                }
                "contexts" => {
                    census.other += own(&path)?.map_or(0, |it| size(&it));
                    for (name, path) in entries(&path)? {
                        let Some(metadata) = own(&path)? else { continue };
                        let changed = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
                        census.contexts.insert(name, (blocks(&path)?, changed));
                    }
                }
                "ingest" => census.ingest += blocks(&path)?,
                name if name.starts_with("db.sqlite") => census.database += blocks(&path)?,
                _ => census.other += blocks(&path)?,
            }
        }
        Ok(census)
    }
}

impl Census {
    fn blobs(&mut self, folder: &Path) -> Result<(), CacheError> {
        self.other += own(folder)?.map_or(0, |it| size(&it));
        for (_, path) in entries(folder)? {
            self.other += own(&path)?.map_or(0, |it| size(&it));
            for (name, path) in entries(&path)? {
                self.blobs.insert(name, blocks(&path)?);
            }
        }
        Ok(())
    }
}

/// Names and paths in a folder; none when it is gone.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, CacheError> {
    let listed = match fs::read_dir(folder) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other.at(folder)?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry.at(folder)?;
        names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(names)
}

/// Bytes on the disk of a file or folder with all that is in it; what is gone takes none.
pub(super) fn blocks(path: &Path) -> Result<u64, CacheError> {
    let mut linked = HashSet::new();
    let mut sum = 0;
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let Some(metadata) = own(&path)? else { continue };
        if metadata.is_dir() {
            open.extend(entries(&path)?.into_iter().map(|(_, path)| path));
        } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        sum += size(&metadata);
    }
    Ok(sum)
}

fn own(path: &Path) -> Result<Option<Metadata>, CacheError> {
    match fs::symlink_metadata(path) {
        Err(error) if is_gone(&error) => Ok(None),
        other => other.at(path).map(Some),
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn size(metadata: &Metadata) -> u64 {
    metadata.blocks() * 512
}
