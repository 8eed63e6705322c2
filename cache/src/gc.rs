//! What the store takes, and what of it may go.
//!
//! Roots are images, results, and what a store that is still open has used. Pruning deletes results, images that have
//! no name, cache mounts and what is known of contexts, the least recently used first, then every layer and blob that
//! no root leads to, and what has no row at all. Sizes are real blocks.
//!
//! Invariants:
//! - Names go in the write transaction that deletes the rows, so whoever writes next sees neither; the files behind
//!   the names are removed after it. Where the disk is full they are removed before the rows: rows without files are
//!   forgotten by whoever finds them.
//! - A layer keeps the layers it was made over: its tar cannot be written without them.

mod census;
mod entry;
mod filter;
mod graph;
mod limits;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rusqlite::{Connection, Transaction, params};

use crate::error::{At, CacheError};
use crate::layer::{Aside, LayerId, hex};
use crate::lock::{Lock, Mode};
use crate::reserve::TIGHT;
use crate::space::FileSystem;
use crate::store::{Inner, Store, now};
use census::{Census, blocks};
use graph::{Graph, Limits, Loose, Plan};

pub use entry::{Entry, Kind};
pub use filter::{Filter, FilterError};
pub use limits::{GcLimits, SpaceWatch};

/// What is pruned. By default everything that no image with a name and no running build needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Also takes results of which images have all layers, and blobs kept beside an unpacked layer of what stays: they
    /// can be fetched or made again.
    pub all: bool,
    /// Only what it accepts, and has not been used for as long as it says.
    pub filter: Filter,
    /// Stops as soon as the store takes no more than so many bytes.
    pub max_used_space: Option<u64>,
    /// Stops only when the file system has so many bytes free, even below `max_used_space`.
    pub min_free_space: Option<u64>,
    /// Never goes below so many bytes in use.
    pub reserved_space: Option<u64>,
}

impl PruneOptions {
    /// Everything that has not been used for so long.
    pub fn until(age: Duration) -> Self {
        Self { filter: Filter::until(age), ..Self::default() }
    }
}

/// What a prune took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freed {
    /// Results.
    pub results: usize,
    /// Images without a name.
    pub images: usize,
    /// Layers.
    pub layers: usize,
    /// Blobs.
    pub blobs: usize,
    /// Cache mounts.
    pub mounts: usize,
    /// Bytes, in real blocks.
    pub bytes: u64,
    /// All of it that took space.
    pub entries: Vec<Entry>,
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
    /// What is known of the files of contexts.
    pub contexts: u64,
    /// What is being written, and what dead processes left.
    pub ingest: u64,
    /// The database.
    pub metadata: u64,
    /// Folders, locks, and what is set aside for a full disk.
    pub other: u64,
}

impl Usage {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.layers
            + self.blobs
            + self.mounts
            + self.contexts
            + self.ingest
            + self.metadata
            + self.other
    }
}

/// How much is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// As much as the options say.
    Options,
    /// So many bytes.
    Bytes(u64),
}

impl Store {
    /// Sums up what the store takes.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn usage(&self) -> Result<Usage, CacheError> {
        self.0.read(|_| Ok(()))?;
        Ok(self.0.census()?.usage())
    }

    /// Removes what nothing needs, and syncs what stays.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn prune(&self, options: &PruneOptions) -> Result<Freed, CacheError> {
        let _turn = self
            .with_reserve(|| Lock::wait(&self.0.lock_place("store", "prune"), Mode::Exclusive))?;
        self.prune_in_turn(options, Need::Options)
    }

    /// Removes the least recently used until so many bytes have been freed, for a disk that is full; returns how many
    /// have been.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn relieve(&self, bytes: u64) -> Result<u64, CacheError> {
        let _turn = self
            .with_reserve(|| Lock::wait(&self.0.lock_place("store", "prune"), Mode::Exclusive))?;
        Ok(self.prune_in_turn(&PruneOptions::default(), Need::Bytes(bytes))?.bytes)
    }

    fn prune_in_turn(&self, options: &PruneOptions, need: Need) -> Result<Freed, CacheError> {
        let inner = &self.0;
        let freed = self.with_reserve(|| self.prune_once(options, need))?;
        let tight = FileSystem::of(&inner.root)?.free() < TIGHT;
        // Under pressure there is no time to wait for the disk.
        let noted = match need {
            Need::Options => self.sync().and_then(|()| inner.note_usage()),
            Need::Bytes(_) => Ok(()),
        };
        crate::reserve::fill(&inner.root);
        if tight { Ok(freed) } else { noted.map(|()| freed) }
    }

    fn prune_once(&self, options: &PruneOptions, need: Need) -> Result<Freed, CacheError> {
        let inner = &self.0;
        crate::process::sweep(&inner.root)?;
        let tight = FileSystem::of(&inner.root)?.free() < TIGHT;
        if !tight {
            inner.measure_layers()?;
        }
        inner.read(|_| Ok(()))?;
        let census = inner.census()?;
        let entries = inner.list(&census)?;
        let filter = &options.filter;
        let accepted = entries.iter().filter(|entry| filter.accepts(entry));
        let limits = Limits {
            excess: match need {
                Need::Options => self.excess(options, &census)?,
                Need::Bytes(bytes) => Some(bytes),
            },
            newest: filter.until.map(before),
            allowed: filter.has_terms().then(|| accepted.map(|entry| entry.id.clone()).collect()),
        };
        let mounts = inner.free_mounts(&census)?;
        let contexts = contexts(&census);
        let trash = Aside(inner.process()?.fresh());
        fs::create_dir(&trash.0).at(&trash.0)?;
        let mut bin = Bin { folder: &trash.0, next: 0, bytes: 0 };
        let (mut freed, taken) = inner.write_files(|transaction, database| {
            let at = |source| CacheError::database(database, source);
            let floor = floor_of(inner, transaction).map_err(at)?;
            let mut graph = Graph::read(transaction, floor, options.all).map_err(at)?;
            graph.measure(&census);
            let plan = graph.plan(&limits, &mounts, &contexts);
            inner.take_planned(&plan, &mut bin)?;
            if tight {
                bin.empty()?;
            }
            forget_dead(inner, transaction).map_err(at)?;
            plan.delete(transaction).map_err(at)?;
            crate::why::note_gone(transaction).map_err(at)?;
            let mut taken = plan.names();
            if limits.allowed.is_none() {
                inner.take_strays(transaction, database, &mut bin, &mut taken)?;
            }
            Ok((plan.freed(), taken))
        })?;
        drop(mounts);
        bin.empty()?;
        freed.bytes = bin.bytes;
        freed.entries = entries.into_iter().filter(|entry| taken.contains(&entry.id)).collect();
        Ok(freed)
    }

    /// Bytes above what the options allow; `None` when they set no limit.
    fn excess(&self, options: &PruneOptions, census: &Census) -> Result<Option<u64>, CacheError> {
        if options.max_used_space.is_none()
            && options.min_free_space.is_none()
            && options.reserved_space.is_none()
        {
            return Ok(None);
        }
        let limits = GcLimits {
            max_used: options.max_used_space.unwrap_or(u64::MAX),
            min_free: options.min_free_space.unwrap_or(0),
            reserved: options.reserved_space.unwrap_or(0),
        };
        let free = FileSystem::of(&self.0.root)?.free();
        Ok(Some(limits.excess(census.usage().total(), free)))
    }
}

fn before(age: Duration) -> i64 {
    now().saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX))
}

/// A folder that takes what goes.
struct Bin<'a> {
    folder: &'a Path,
    next: u64,
    /// What has been removed.
    bytes: u64,
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

    /// Removes what was taken.
    fn empty(&mut self) -> Result<(), CacheError> {
        for (_, path) in census::entries(self.folder)? {
            self.bytes += blocks(&path)?;
            crate::removal::remove_large_tree(&path).at(&path)?;
        }
        Ok(())
    }
}

/// Number of the oldest store that is still open.
fn floor_of(inner: &Inner, db: &Connection) -> rusqlite::Result<i64> {
    let mut oldest = i64::MAX;
    let mut statement = db.prepare("SELECT generation, name FROM process ORDER BY generation")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // One that cannot be asked counts as alive.
        if crate::process::is_alive(&inner.root, &row.get::<_, String>(1)?).unwrap_or(true) {
            oldest = oldest.min(row.get(0)?);
        }
    }
    Ok(oldest)
}

fn forget_dead(inner: &Inner, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let rows: Vec<(i64, String)> = transaction
        .prepare("SELECT generation, name FROM process")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (generation, name) in rows {
        if !crate::process::is_alive(&inner.root, &name).unwrap_or(true) {
            transaction.execute("DELETE FROM process WHERE generation = ?1", [generation])?;
        }
    }
    Ok(())
}

fn contexts(census: &Census) -> Vec<Loose> {
    let loose = |(name, (bytes, used)): (&String, &(u64, i64))| Loose {
        id: name.clone(),
        used: *used,
        bytes: *bytes,
        _lock: None,
    };
    let mut all: Vec<Loose> = census.contexts.iter().map(loose).collect();
    all.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    all
}

impl Plan {
    /// Names of the entries that go.
    fn names(&self) -> HashSet<String> {
        let loose = self.mounts.iter().chain(&self.contexts).cloned();
        let layers = self.layers.iter().map(LayerId::to_string);
        loose.chain(layers).chain(self.blobs.iter().map(|digest| hex(digest))).collect()
    }
}

/// A cache mount as its row has it.
pub(crate) struct MountRow {
    pub(crate) id: String,
    pub(crate) identity: String,
    pub(crate) owners: String,
    pub(crate) created: i64,
    pub(crate) used: i64,
}

impl MountRow {
    /// Whether it holds what was fetched of a git repository.
    pub(crate) fn is_git(&self) -> bool {
        self.owners == "git"
    }
}

impl Inner {
    pub(crate) fn floor(&self) -> Result<i64, CacheError> {
        self.read(|db| floor_of(self, db))
    }

    /// Cache mounts, the least recently used first.
    fn mount_rows(&self) -> Result<Vec<MountRow>, CacheError> {
        self.read(|db| {
            let sql = "SELECT id, identity, owners, created, used FROM mount ORDER BY used, id";
            let row = |row: &rusqlite::Row<'_>| {
                Ok(MountRow {
                    id: row.get(0)?,
                    identity: row.get(1)?,
                    owners: row.get(2)?,
                    created: row.get(3)?,
                    used: row.get(4)?,
                })
            };
            db.prepare(sql)?.query_map([], row)?.collect()
        })
    }

    fn is_mount_in_use(&self, id: &str) -> Result<bool, CacheError> {
        Ok(Lock::attempt(&self.mount_lock(id), Mode::Exclusive)?.is_none())
    }

    /// Moves what is planned into the bin.
    fn take_planned(&self, plan: &Plan, bin: &mut Bin<'_>) -> Result<(), CacheError> {
        let layers = plan.layers.iter().map(|id| self.layer_path(id));
        let blobs = plan.blobs.iter().map(|digest| self.path("blobs/sha256").join(hex(digest)));
        let mounts = plan.mounts.iter().map(|id| self.path("mounts").join(id));
        let contexts = plan.contexts.iter().map(|id| self.path("contexts").join(id));
        let mut all = layers.chain(blobs).chain(mounts).chain(contexts);
        all.try_for_each(|path| bin.take(&path))
    }

    /// Moves every file without a row into the bin: what a power cut or a lost database left.
    fn take_strays(
        &self,
        transaction: &Transaction<'_>,
        database: &Path,
        bin: &mut Bin<'_>,
        taken: &mut HashSet<String>,
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
            ("mounts", "SELECT id FROM mount"),
        ] {
            let kept = names(sql)?;
            for (name, path) in self.names_in(folder)? {
                if kept.contains(&name) {
                    continue;
                }
                // One that was emptied for others is still used by those who have it, and may be waited for.
                let _free = match folder {
                    "mounts" => match Lock::attempt(&self.mount_lock(&name), Mode::Exclusive)? {
                        None => continue,
                        free => free,
                    },
                    // Its row may be about to be written.
                    "layers" => match Lock::attempt(&self.unlisted_lock(&name), Mode::Exclusive)? {
                        None => continue,
                        free => free,
                    },
                    _ => None,
                };
                bin.take(&path)?;
                taken.insert(name);
            }
        }
        for (name, path) in self.names_in("")? {
            if name.starts_with(crate::database::DAMAGED) {
                bin.take(&path)?;
            }
        }
        Ok(())
    }

    fn names_in(&self, folder: &str) -> Result<Vec<(String, PathBuf)>, CacheError> {
        census::entries(&self.path(folder))
    }

    /// Cache mounts nobody uses, the least recently used first, kept from use meanwhile.
    fn free_mounts(&self, census: &Census) -> Result<Vec<Loose>, CacheError> {
        let mut free = Vec::new();
        for row in self.mount_rows()? {
            if let Some(lock) = Lock::attempt(&self.mount_lock(&row.id), Mode::Exclusive)? {
                let bytes = census.mounts.get(&row.id).copied().unwrap_or(0);
                free.push(Loose { id: row.id, used: row.used, bytes, _lock: Some(lock) });
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
