//! What the store takes, and what of it may go.
//!
//! Roots are images, results, and what a store that is still open has used. Pruning deletes results and
//! cache mounts, the least recently used first, then every layer and blob that no root leads to, and what
//! has no row at all. Sizes are real blocks.
//!
//! Invariants:
//! - Rows and names go in one write transaction, so whoever writes next sees neither; the files behind the
//!   names are removed after it.
//! - A layer keeps the layers it was made over: its tar cannot be written without them.

mod graph;

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rusqlite::{Transaction, params};

use crate::error::{At, CacheError};
use crate::layer::{Aside, LayerId};
use crate::lock::{Lock, Mode};
use crate::store::{Inner, Store, now};
use graph::{FreeMount, Graph, Limits, Plan};

/// What is pruned. By default everything that no image and no running build needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also takes blobs kept beside an unpacked layer of what stays: they can be fetched or made again.
    pub all: bool,
    /// Only results and cache mounts that have not been used for so long.
    pub until: Option<Duration>,
    /// Stops as soon as the store takes no more than so many bytes.
    pub max_used_space: Option<u64>,
    /// Stops only when the file system has so many bytes free, even below `max_used_space`.
    pub min_free_space: Option<u64>,
    /// Never goes below so many bytes in use.
    pub reserved_space: Option<u64>,
}

/// What a prune took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Results.
    pub results: usize,
    /// Layers.
    pub layers: usize,
    /// Blobs.
    pub blobs: usize,
    /// Cache mounts.
    pub mounts: usize,
    /// Bytes, in real blocks.
    pub bytes: u64,
}

/// What a store takes: bytes, in real blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Unpacked layers.
    pub layers: u64,
    /// Blobs.
    pub blobs: u64,
    /// Cache mounts.
    pub mounts: u64,
    /// What is being written, and what dead processes left.
    pub ingest: u64,
    /// The database.
    pub metadata: u64,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.layers + self.blobs + self.mounts + self.ingest + self.metadata
    }
}

impl Store {
    /// Sums up what the store takes.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        let inner = &self.0;
        inner.measure_layers()?;
        let layers: i64 = inner.read(|db| {
            db.query_row("SELECT COALESCE(SUM(disk), 0) FROM layer WHERE dir", [], |row| row.get(0))
        })?;
        let metadata = ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm", "format"];
        Ok(Usage {
            layers: layers.cast_unsigned(),
            blobs: blocks(&inner.path("blobs"))?,
            mounts: blocks(&inner.path("mounts"))?,
            ingest: blocks(&inner.path("ingest"))?,
            metadata: metadata
                .iter()
                .map(|name| blocks(&inner.path(name)))
                .sum::<Result<_, _>>()?,
        })
    }

    /// Removes what nothing needs, and syncs what stays.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn prune(&self, options: &PruneOptions) -> Result<Freed, CacheError> {
        let inner = &self.0;
        let _turn = Lock::wait(&inner.lock_place("store", "prune"), Mode::Exclusive)?;
        crate::process::sweep(&inner.root)?;
        let limits = Limits {
            excess: self.excess(options)?,
            newest: options.until.map(before),
            all: options.all,
        };
        inner.measure_layers()?;
        let mounts = inner.free_mounts()?;
        let trash = Aside(inner.process()?.fresh());
        fs::create_dir(&trash.0).at(&trash.0)?;
        let bin = Bin { folder: &trash.0, next: 0 };
        let mut freed = inner.write_files(|transaction, database| {
            let at = |source| CacheError::database(database, source);
            let floor = inner.oldest_live(transaction).map_err(at)?;
            let graph = Graph::read(transaction, floor, limits.all).map_err(at)?;
            let plan = graph.plan(&limits, &mounts);
            plan.delete(transaction).map_err(at)?;
            crate::why::note_gone(transaction).map_err(at)?;
            inner.take_files(transaction, database, &plan, bin)?;
            Ok(plan.freed())
        })?;
        drop(mounts);
        freed.bytes = blocks(&trash.0)?;
        crate::removal::remove_large_tree(&trash.0).at(&trash.0)?;
        self.sync()?;
        Ok(freed)
    }

    /// Bytes above what the options allow; `None` when they set no limit.
    fn excess(&self, options: &PruneOptions) -> Result<Option<u64>, CacheError> {
        if options.max_used_space.is_none()
            && options.min_free_space.is_none()
            && options.reserved_space.is_none()
        {
            return Ok(None);
        }
        let used = self.usage()?.total();
        let file_system = rustix::fs::statvfs(&self.0.root).at(&self.0.root)?;
        let free = file_system.f_bavail * file_system.f_frsize;
        let missing = options.min_free_space.unwrap_or(0).saturating_sub(free);
        let keep = options.max_used_space.unwrap_or(u64::MAX).min(used.saturating_sub(missing));
        Ok(Some(used.saturating_sub(keep.max(options.reserved_space.unwrap_or(0)))))
    }
}

fn before(age: Duration) -> i64 {
    now().saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// A folder that takes what goes.
struct Bin<'a> {
    folder: &'a Path,
    next: u64,
}

impl Bin<'_> {
    fn take(&mut self, path: &Path) -> Result<(), CacheError> {
        self.next += 1;
        match fs::rename(path, self.folder.join(self.next.to_string())) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CacheError::io(path, error))
            }
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// Number of the oldest store that is still open; forgets the others.
    fn oldest_live(&self, transaction: &Transaction<'_>) -> rusqlite::Result<i64> {
        let rows: Vec<(i64, String)> = transaction
            .prepare("SELECT generation, name FROM process ORDER BY generation")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let mut oldest = i64::MAX;
        for (generation, name) in rows {
            // One that cannot be asked counts as alive.
            if crate::process::is_alive(&self.root, &name).unwrap_or(true) {
                oldest = oldest.min(generation);
            } else {
                transaction.execute("DELETE FROM process WHERE generation = ?1", [generation])?;
            }
        }
        Ok(oldest)
    }

    /// Moves every file without a row into the bin: what has just lost its row, and what a power cut left.
    fn take_files(
        &self,
        transaction: &Transaction<'_>,
        database: &Path,
        plan: &Plan,
        mut bin: Bin<'_>,
    ) -> Result<(), CacheError> {
        let names = |sql: &str| -> Result<HashSet<String>, CacheError> {
            let mut statement = transaction.prepare(sql).at(database)?;
            statement
                .query_map([], |row| row.get(0))
                .at(database)?
                .collect::<Result<_, _>>()
                .at(database)
        };
        for (folder, sql) in [
            ("blobs/sha256", "SELECT lower(hex(digest)) FROM blob"),
            ("layers", "SELECT lower(hex(id)) FROM layer WHERE dir"),
        ] {
            let kept = names(sql)?;
            for (name, path) in self.names_in(folder)? {
                if !kept.contains(&name) {
                    bin.take(&path)?;
                }
            }
        }
        let kept = names("SELECT id FROM mount")?;
        for (name, path) in self.names_in("mounts")? {
            if plan.mounts.contains(&name) {
                bin.take(&path)?;
            } else if !kept.contains(&name)
                && let Some(_free) = Lock::attempt(&self.mount_lock(&name), Mode::Exclusive)?
            {
                bin.take(&path)?;
            }
        }
        Ok(())
    }

    fn names_in(&self, folder: &str) -> Result<Vec<(String, PathBuf)>, CacheError> {
        let folder = self.path(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).at(&folder)? {
            let entry = entry.at(&folder)?;
            names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
        }
        Ok(names)
    }

    /// Cache mounts nobody uses, the least recently used first, kept from use meanwhile.
    fn free_mounts(&self) -> Result<Vec<FreeMount>, CacheError> {
        let rows: Vec<(String, i64)> = self.read(|db| {
            db.prepare("SELECT id, used FROM mount ORDER BY used, id")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let mut free = Vec::new();
        for (id, used) in rows {
            if let Some(lock) = Lock::attempt(&self.mount_lock(&id), Mode::Exclusive)? {
                let bytes = blocks(&self.path("mounts").join(&id))?;
                free.push(FreeMount { id, used, bytes, _lock: lock });
            }
        }
        Ok(free)
    }

    /// Sums up the layers whose size is not known yet; it never changes.
    fn measure_layers(&self) -> Result<(), CacheError> {
        let ids: Vec<[u8; 16]> = self.read(|db| {
            db.prepare("SELECT id FROM layer WHERE dir AND disk IS NULL")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let mut sizes = Vec::with_capacity(ids.len());
        for id in ids {
            sizes.push((id, blocks(&self.layer_path(&LayerId(id)))?));
        }
        if sizes.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut update =
                transaction.prepare("UPDATE layer SET disk = ?2 WHERE id = ?1 AND dir")?;
            sizes.iter().try_for_each(|(id, bytes)| {
                update.execute(params![id, bytes.cast_signed()]).map(drop)
            })
        })
    }
}

/// Bytes on the disk of a file or folder with all that is in it; what is gone takes none.
fn blocks(path: &Path) -> Result<u64, CacheError> {
    let mut linked = HashSet::new();
    let mut sum = 0;
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.at(&path)?,
        };
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => {
                    for entry in entries.at(&path)? {
                        open.push(entry.at(&path)?.path());
                    }
                }
            }
        } else if metadata.nlink() > 1 && !linked.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        sum += metadata.blocks() * 512;
    }
    Ok(sum)
}
