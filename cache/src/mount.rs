//! Cache mounts: plain folders that outlive builds, `mounts/<id>/`, and a row each.
//!
//! An identity may have several instances, since `private` steps that run at the same time get one each.
//! An instance is in use while its lock is held: shared for `shared`, exclusive for the other two.

use std::path::{Path, PathBuf};

use fs_err as fs;
use rusqlite::params;

use crate::error::{At, CacheError};
use crate::layer::{Aside, hex};
use crate::lock::{Lock, Mode, Place};
use crate::store::{Inner, Store, now, random_bytes};

/// How steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own: a free one, else a new one.
    Private,
    /// One after the other.
    Locked,
}

/// What a step asks for.
#[derive(Clone, Copy)]
pub struct CacheMountRequest<'a> {
    /// Which mount: id and base.
    pub identity: &'a str,
    /// How it is shared.
    pub sharing: Sharing,
    /// How owners are kept in it; a mount with another map is not used.
    pub owners: &'a str,
    /// Fills a new folder.
    pub init: &'a dyn Fn(&Path) -> Result<(), CacheError>,
    /// Whether to give up waiting.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for CacheMountRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheMountRequest")
            .field("identity", &self.identity)
            .field("sharing", &self.sharing)
            .finish_non_exhaustive()
    }
}

/// A cache mount in use; dropping it lets others have it.
#[derive(Debug)]
pub struct CacheMount {
    /// The folder to mount.
    pub path: PathBuf,
    lock: Lock,
}

impl CacheMount {
    /// A file by which another process keeps the mount in use: for one that may outlive this process.
    ///
    /// # Errors
    /// When the process can have no more descriptors.
    pub fn holder(&self) -> Result<std::fs::File, CacheError> {
        self.lock.share()
    }
}

impl Store {
    /// Takes a cache mount into use, making it if there is none; waits as its sharing mode says.
    ///
    /// # Errors
    /// When the folder cannot be made, or [`CacheError::Cancelled`].
    pub fn cache_mount(&self, request: &CacheMountRequest<'_>) -> Result<CacheMount, CacheError> {
        let inner = &self.0;
        let mode = if request.sharing == Sharing::Shared { Mode::Shared } else { Mode::Exclusive };
        loop {
            // Held while one is looked for and made, so that two steps do not both make one.
            let name = format!("{} {}", request.owners, request.identity);
            let turn = Lock::wait_unless(
                &inner.lock_place("mounts", &name),
                Mode::Exclusive,
                request.cancelled,
            )?;
            let instances = inner.mounts(request.identity, request.owners)?;
            for id in &instances {
                if let Some(lock) = Lock::attempt(&inner.mount_lock(id), mode)? {
                    let path = inner.path("mounts").join(id);
                    if path.is_dir() && inner.touch_mount(id)? {
                        return Ok(CacheMount { path, lock });
                    }
                    inner.write(|transaction| {
                        transaction.execute("DELETE FROM mount WHERE id = ?1", [id])
                    })?;
                }
            }
            let Some(busy) = instances.first().filter(|_| request.sharing == Sharing::Locked)
            else {
                return inner.make_mount(request, mode);
            };
            drop(turn);
            // The lock is let go at once: the search above takes it together with the row.
            drop(Lock::wait_unless(&inner.mount_lock(busy), mode, request.cancelled).map_err(
                |error| match error {
                    CacheError::Cancelled(_) => {
                        CacheError::Cancelled(format!("cache mount {}", request.identity))
                    }
                    other => other,
                },
            )?);
        }
    }

    /// Empties the cache mounts of an identity, as `--no-cache` asks: what is in use goes on being used
    /// by those who have it, and by nobody else.
    ///
    /// # Errors
    /// When the database or file system fails.
    pub fn reset_cache_mounts(&self, identity: &str) -> Result<(), CacheError> {
        let inner = &self.0;
        let ids: Vec<String> = inner.write(|transaction| {
            let mut statement =
                transaction.prepare("DELETE FROM mount WHERE identity = ?1 RETURNING id")?;
            statement.query_map([identity], |row| row.get(0))?.collect()
        })?;
        for id in ids {
            if let Some(_free) = Lock::attempt(&inner.mount_lock(&id), Mode::Exclusive)? {
                inner.discard(&inner.path("mounts").join(&id))?;
            }
        }
        Ok(())
    }
}

impl Inner {
    pub(crate) fn mount_lock(&self, id: &str) -> Place {
        self.lock_place("mount", id)
    }

    fn mounts(&self, identity: &str, owners: &str) -> Result<Vec<String>, CacheError> {
        self.read(|db| {
            let sql =
                "SELECT id FROM mount WHERE identity = ?1 AND owners = ?2 ORDER BY created, id";
            db.prepare_cached(sql)?.query_map([identity, owners], |row| row.get(0))?.collect()
        })
    }

    fn touch_mount(&self, id: &str) -> Result<bool, CacheError> {
        // What its user writes is not on the disk yet.
        let sql = "UPDATE mount SET used = ?2, boot = ?3, synced = 0 WHERE id = ?1";
        let boot = self.boot()?;
        Ok(self.write(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![id, now(), boot])
        })? > 0)
    }

    /// Notes which mounts nobody is writing to, before a sync.
    pub(crate) fn mark_free_mounts(&self) -> Result<(), CacheError> {
        let ids: Vec<String> = self.read(|db| {
            db.prepare("SELECT id FROM mount WHERE synced <> 1")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        for id in ids {
            if let Some(_free) = Lock::attempt(&self.mount_lock(&id), Mode::Exclusive)? {
                self.write(|transaction| {
                    transaction.execute("UPDATE mount SET synced = 2 WHERE id = ?1", [id])
                })?;
            }
        }
        Ok(())
    }

    fn make_mount(
        &self,
        request: &CacheMountRequest<'_>,
        mode: Mode,
    ) -> Result<CacheMount, CacheError> {
        let id = hex(&random_bytes()?);
        let lock = Lock::wait(&self.mount_lock(&id), mode)?;
        let aside = Aside(self.process()?.fresh());
        fs::create_dir(&aside.0).at(&aside.0)?;
        (request.init)(&aside.0)?;
        let path = self.path("mounts").join(&id);
        let boot = self.boot()?;
        self.write_files(|transaction, database| {
            fs::rename(&aside.0, &path).at(&path)?;
            let sql = "INSERT INTO mount (id, identity, owners, created, used, boot) VALUES (?1, ?2, ?3, ?4, ?4, ?5)";
            let values = params![id, request.identity, request.owners, now(), boot];
            transaction.execute(sql, values).at(database)
        })?;
        Ok(CacheMount { path, lock })
    }

    /// Takes a name away at once and the files after it.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), CacheError> {
        let aside = Aside(self.process()?.fresh());
        match fs::rename(path, &aside.0) {
            Ok(()) => crate::removal::remove_large_tree(&aside.0).at(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(CacheError::io(path, error)),
        }
    }
}
