//! Cache mounts: plain folders that outlive builds, `mounts/<id>/`, and a row each.
//!
//! Where nothing can be mounted, a mount is moved into the tree of a step and back. While it is away `lent/<id>` is a
//! symlink that says where it is: if the process is killed meanwhile, whoever finds it dead or takes the mount next
//! [brings it back](bring_back).
//!
//! An identity may have several instances, since `private` steps that run at the same time get one each.
//! An instance is in use while its lock is held: shared for `shared`, exclusive for the other two.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use rusqlite::params;

use crate::error::{At, CacheError};
use crate::layer::{Aside, hex};
use crate::lock::{Lock, Mode, Place};
use crate::store::{Inner, Store, now, random_bytes};

/// How long is waited for another process that is about to bring a mount back.
const PATIENCE: Duration = Duration::from_secs(2);

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

    /// Where a symlink is to be made before the folder is moved elsewhere, and removed when it is back. What it names
    /// is in a [workspace](crate::Workspace) of this store. The mount must be in use by nobody else.
    ///
    /// # Errors
    /// When the folder of such links cannot be made.
    pub fn note(&self) -> Result<PathBuf, CacheError> {
        let (mounts, name) = (self.path.parent(), self.path.file_name());
        let root = mounts.and_then(Path::parent).unwrap_or(&self.path);
        let folder = root.join("lent");
        fs::create_dir_all(&folder).at(&folder)?;
        let note = folder.join(name.unwrap_or_default());
        // Of a process that was killed when the folder was back already.
        crate::removal::remove_tree(&note).at(&note)?;
        Ok(note)
    }
}

/// Moves a mount back that a dead process had moved away; does nothing if it is there. The caller holds its lock.
fn bring_back(root: &Path, id: &str) -> Result<(), CacheError> {
    let (note, home) = (root.join("lent").join(id), root.join("mounts").join(id));
    let Ok(away) = fs::read_link(&note) else { return Ok(()) };
    if !home.exists()
        && let Some(inside) = below_ingest(root, &away)
    {
        move_from(root, &inside, &home).at(&home)?;
    }
    crate::removal::remove_tree(&note).at(&note)
}

/// The part of a path from `ingest` on, whatever the store was called when it was noted.
fn below_ingest(root: &Path, path: &Path) -> Option<PathBuf> {
    let parts: Vec<_> = path.components().collect();
    let starts = (0..parts.len()).filter(|at| parts[*at].as_os_str() == "ingest");
    starts.map(|at| parts[at..].iter().collect::<PathBuf>()).find(|inside| {
        let process: PathBuf = inside.components().take(2).collect();
        root.join(process).is_dir()
    })
}

/// Renames a folder in a tree that a step has changed: no symlink on the way to it is followed.
fn move_from(root: &Path, inside: &Path, home: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat2, renameat};
    use rustix::io::Errno;
    let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else { return Ok(()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let moved = openat2(&root, parent, flags, Mode::empty(), resolve).and_then(|parent| {
        let is_folder = openat2(&parent, name, flags, Mode::empty(), resolve).is_ok();
        if is_folder { renameat(&parent, name, CWD, home) } else { Ok(()) }
    });
    match moved {
        // The step has put it elsewhere.
        Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(()),
        other => other,
    }
}

/// The mounts that a process has moved into its trees: their ids and links.
fn lent_by(root: &Path, process: &str) -> Vec<(String, PathBuf)> {
    let folder = Path::new("ingest").join(process);
    let Ok(entries) = fs::read_dir(root.join("lent")) else { return Vec::new() };
    let is_its = |note: &Path| {
        let away = fs::read_link(note).ok().and_then(|away| below_ingest(root, &away));
        away.is_some_and(|inside| inside.starts_with(&folder))
    };
    let named = entries.flatten().filter_map(|entry| {
        let id = entry.file_name().to_str()?.to_owned();
        Some((id, entry.path()))
    });
    named.filter(|(_, note)| is_its(note)).collect()
}

/// Brings the mounts back that a dead process had moved into its trees.
pub(crate) fn rescue(root: &Path, process: &str) -> Result<(), CacheError> {
    for (id, note) in lent_by(root, process) {
        let begin = Instant::now();
        // Whoever has taken it since has brought it back, and the link is gone.
        while note.is_symlink() && begin.elapsed() < PATIENCE {
            if let Some(_lock) = Lock::attempt(&Place::new(root, "mount", &id), Mode::Exclusive)? {
                bring_back(root, &id)?;
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Brings the mounts back that this process, which holds their locks, has moved into its trees.
pub(crate) fn reclaim(root: &Path, process: &str) {
    for (id, _) in lent_by(root, process) {
        // What is left is lost with its tree, and filled anew by the next step.
        let _ = bring_back(root, &id);
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
                    if !path.is_dir() {
                        bring_back(&inner.root, id)?;
                    }
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
