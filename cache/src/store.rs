//! The store: one folder, used by many processes at once.
//!
//! [`Store::open`] does little: it reads `format` and sweeps what dead processes left. The database is
//! opened, and the process's own folder made, when first asked for.
//!
//! An open [`Store`] is a lease: what it has used since it was opened is not pruned until it is dropped
//! or its process dies. A program that runs many builds opens one store for each.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use fs_err as fs;
use llb::image::Descriptor;
use rusqlite::Transaction;
use tree::layer::{Encoding, Owners, Whiteouts};

use crate::database::Database;
use crate::error::{At, CacheError};
use crate::layer::{LayerId, LayerInner, hex};
use crate::lock::{Lock, Mode, Place};
use crate::process::Process;
use crate::workspace::{WaitingTree, WorkspaceKind};

/// First line of `format`.
const FORMAT: &str = "bricklayer store 1";

/// Bytes of the database's log that are merged soon: what some builds write.
const LONG_LOG: u64 = 1 << 20;

/// Fetches blobs that the store knows only by descriptor.
pub trait BlobProvider: Send + Sync {
    /// Opens the blob `descriptor` kept at `origin`, as given to [`Store::base_layer`]. The store verifies
    /// the digest.
    ///
    /// # Errors
    /// When the blob cannot be had.
    fn open(
        &self,
        origin: &str,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>>;

    /// Whether a blob that could not be read to its end may be had when it is opened once more, from another place. An
    /// answer `true` must not come for ever.
    fn is_elsewhere(&self, error: &io::Error) -> bool {
        let _ = error;
        false
    }
}

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Where blobs come from.
    pub provider: Arc<dyn BlobProvider>,
    /// How this builder keeps layers; a store kept otherwise is refused.
    pub encoding: Encoding,
    /// How steps see what they build upon, at first.
    pub workspaces: WorkspaceKind,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("encoding", &self.encoding)
            .field("workspaces", &self.workspaces)
            .finish_non_exhaustive()
    }
}

/// A handle on a root; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) provider: Arc<dyn BlobProvider>,
    pub(crate) encoding: Encoding,
    pub(crate) workspaces: Mutex<WorkspaceKind>,
    /// Trees that wait for the next step of their chain.
    pub(crate) trees: Mutex<Vec<WaitingTree>>,
    boot: OnceLock<String>,
    database: Mutex<Option<Database>>,
    /// Whether a damaged database was found, and set aside.
    lost: AtomicBool,
    /// Bytes that have been added to the store since the last look at its limits.
    pub(crate) written: AtomicU64,
    /// When the disk was last seen full; 0 for never.
    pub(crate) full_at: AtomicI64,
    /// Changes that wait for the next transaction.
    deferred: Mutex<Vec<Change>>,
    process: Mutex<Option<Arc<Process>>>,
    generation: OnceLock<i64>,
    pub(crate) has_points: OnceLock<()>,
    /// Whether a change of a file has a time of its own, once that was asked.
    pub(crate) has_fine_times: OnceLock<bool>,
    pub(crate) layers: Mutex<HashMap<LayerId, Weak<LayerInner>>>,
}

/// A change that can wait. It is made once more when the transaction that it was made in failed.
type Change = Box<dyn FnMut(&Transaction<'_>, &Path) -> Result<(), CacheError> + Send>;

impl Drop for Inner {
    fn drop(&mut self) {
        // What nobody can be told of any more is made anew when it is wanted.
        let _ = self.settle();
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store at `root`, creating it if there is none.
    ///
    /// # Errors
    /// When the folder cannot be written, or was made by a builder whose format or encoding differs.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self, CacheError> {
        Self::open_in_boot(root, options, None)
    }

    /// As [`open`](Self::open), but as if the machine had been started as `boot`, for tests of what happens
    /// after a power cut.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[doc(hidden)]
    pub fn open_in_boot(
        root: &Path,
        options: StoreOptions,
        boot: Option<String>,
    ) -> Result<Self, CacheError> {
        check_format(root, options.encoding)?;
        let root = fs::canonicalize(root).at(root)?;
        mend(&root)?;
        // What cannot be removed is in nobody's way; prune tells of it.
        let _ = crate::process::sweep(&root);
        let boot = boot.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self(Arc::new(Inner {
            root,
            provider: options.provider,
            encoding: options.encoding,
            workspaces: Mutex::new(options.workspaces),
            trees: Mutex::default(),
            boot,
            database: Mutex::default(),
            lost: AtomicBool::new(false),
            written: AtomicU64::new(0),
            full_at: AtomicI64::new(0),
            deferred: Mutex::default(),
            process: Mutex::default(),
            generation: OnceLock::new(),
            has_points: OnceLock::new(),
            has_fine_times: OnceLock::new(),
            layers: Mutex::default(),
        })))
    }

    /// Opens what the first use would open, for a thread that has nothing else to do meanwhile.
    pub fn warm_up(&self) {
        // Whoever needs it meets the error again.
        let _ = self.0.database().map(drop);
        let _ = self.0.process();
    }

    /// The store's folder.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// When anything was written to the store last, by anybody; `None` for a store that has nothing.
    pub fn last_written(&self) -> Option<SystemTime> {
        let modified = |name| fs::metadata(self.0.path(name)).and_then(|it| it.modified());
        ["db.sqlite-wal", "db.sqlite"].into_iter().find_map(|name| modified(name).ok())
    }

    /// Whether the log of the database has become so long that the next builds would notice: who opens a database that
    /// nobody uses reads it.
    pub fn has_long_log(&self) -> bool {
        fs::metadata(self.0.path("db.sqlite-wal")).is_ok_and(|log| log.len() > LONG_LOG)
    }

    /// Merges the log of the database into its file, which waits for the disk.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn merge_log(&self) -> Result<(), CacheError> {
        self.0.noticing(self.0.database()?, Database::merge_log)
    }

    /// Whether there is anything for [`clear_up`](Self::clear_up).
    pub fn has_to_clear_up(&self) -> bool {
        self.0.started_process().is_some_and(|process| process.has_given_up())
    }

    /// Removes what steps that are over have left: for a thread that nobody waits for. Closing the store does it too.
    pub fn clear_up(&self) {
        if let Some(process) = self.0.started_process() {
            process.clear_up();
        }
    }

    /// Whether the database was found damaged and begun anew since the store was opened.
    pub fn has_lost_database(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// How layers are kept.
    pub fn encoding(&self) -> Encoding {
        self.0.encoding
    }

    /// Makes the changes that wait for the next transaction, if there are any.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn settle(&self) -> Result<(), CacheError> {
        self.0.settle()
    }

    /// Waits until nobody else, in this process or another, holds the lock `name`.
    ///
    /// # Errors
    /// When the file system fails, or [`CacheError::Cancelled`] once `cancelled` says so.
    pub fn lock(&self, name: &str, cancelled: &dyn Fn() -> bool) -> Result<Lock, CacheError> {
        let place = self.0.lock_place("name", name);
        Lock::wait_unless(&place, Mode::Exclusive, cancelled).map_err(|error| match error {
            CacheError::Cancelled(_) => CacheError::Cancelled(name.to_owned()),
            other => other,
        })
    }

    /// Takes the lock `name` if nobody holds it.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>, CacheError> {
        Lock::attempt(&self.0.lock_place("name", name), Mode::Exclusive)
    }

    /// Words about processes that have the store open and are stopped, as far as this one can see.
    pub fn stopped_holders(&self) -> Vec<String> {
        crate::process::stopped(&self.0.root)
    }

    /// A handle on what this process is writing; it does not keep the store open.
    pub fn unfinished(&self) -> Unfinished {
        Unfinished(Arc::downgrade(&self.0))
    }

    /// Waits until everything in the store is on the disk, and notes that: a later power cut does not
    /// make it doubtful.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn sync(&self) -> Result<(), CacheError> {
        let _span = tree::trace::span("sync", || "store".to_owned());
        let inner = &self.0;
        let _turn = Lock::wait(&inner.lock_place("store", "sync"), Mode::Exclusive)?;
        // What is written or changed while the disk is busy stays doubtful: it leaves the middle state.
        let tables = ["blob", "layer", "result", "image"];
        let mark = |from: &str, to: u8| {
            inner.write(|transaction| {
                let statement = |table| format!("UPDATE {table} SET synced = {to} WHERE {from}");
                tables
                    .iter()
                    .try_for_each(|table| transaction.execute(&statement(table), []).map(drop))
            })
        };
        mark("synced <> 1", 2)?;
        inner.mark_free_mounts()?;
        let folder = fs::File::open(&inner.root).at(&inner.root)?;
        rustix::fs::syncfs(&folder).at(&inner.root)?;
        mark("synced = 2", 1)?;
        inner.write(|transaction| {
            transaction.execute("UPDATE mount SET synced = 1 WHERE synced = 2", []).map(drop)
        })
    }
}

/// What a process is writing into its store.
#[derive(Debug, Clone)]
pub struct Unfinished(Weak<Inner>);

impl Unfinished {
    /// Removes it, whoever is at work on it: for a program about to end that cannot wait for its threads.
    pub fn discard(&self) {
        let Some(store) = self.0.upgrade() else { return };
        if let Some(process) = store.started_process() {
            process.discard();
        }
    }
}

impl Inner {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn lock_place(&self, kind: &str, name: &str) -> Place {
        Place::new(&self.root, kind, name)
    }

    /// What keeps a layer's folder as long as the layer has no row.
    pub(crate) fn unlisted_lock(&self, id: &str) -> Place {
        self.lock_place("unlisted layer", id)
    }

    pub(crate) fn layer_path(&self, id: &LayerId) -> PathBuf {
        self.root.join("layers").join(id.to_string())
    }

    /// Id of the running boot of the machine.
    pub(crate) fn boot(&self) -> Result<&str, CacheError> {
        if let Some(boot) = self.boot.get() {
            return Ok(boot);
        }
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        // Without /proc every start counts as the same boot, as it must: nothing tells them apart.
        let boot = fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Ok(self.boot.get_or_init(|| boot))
    }

    fn database(&self) -> Result<MutexGuard<'_, Option<Database>>, CacheError> {
        let mut guard = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            let (database, is_new) = self.open_database()?;
            *guard = Some(database);
            self.lost.fetch_or(is_new, Ordering::Relaxed);
        }
        Ok(guard)
    }

    /// The database, and whether it was begun anew because it was damaged.
    fn open_database(&self) -> Result<(Database, bool), CacheError> {
        let (path, boot) = (self.path("db.sqlite"), self.boot()?);
        // Most often there is nothing to make, and nobody to wait for.
        if crate::reserve::is_there(&self.root)
            && crate::database::is_in_wal_mode(&path)
            && let Ok(database) = Database::try_open(&path, boot)
        {
            return Ok((database, false));
        }
        // A switch to WAL does not wait for others that open the file at the same time.
        let _turn = Lock::wait(&self.lock_place("store", "database"), Mode::Exclusive)?;
        crate::reserve::fill(&self.root);
        Database::open(&path, boot)
    }

    /// Sets the database aside if an error comes from its being damaged: the next use begins a new one.
    fn noticing<T>(
        &self,
        mut guard: MutexGuard<'_, Option<Database>>,
        body: impl FnOnce(&mut Database) -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let result = body(guard.as_mut().expect("opened by whoever made the guard"));
        match result {
            Err(error) if error.is_damage() => {
                *guard = None;
                let path = self.path("db.sqlite");
                let _turn = Lock::wait(&self.lock_place("store", "database"), Mode::Exclusive)?;
                // Another process may have been faster.
                if crate::database::is_damaged(&path) {
                    crate::database::set_aside(&path)?;
                }
                Err(CacheError::Damaged { path })
            }
            other => other,
        }
    }

    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.noticing(self.database()?, |database| database.read(body))
    }

    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.write_files(|transaction, path| body(transaction).at(path))
    }

    /// As [`write`](Self::write), for a body that also renames files.
    pub(crate) fn write_files<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>, &Path) -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let _span = tree::trace::span("records", || "write".to_owned());
        self.noticing(self.database()?, |database| {
            let mut changes = std::mem::take(&mut *self.deferred());
            let result = database.write_files(|transaction, path| {
                changes.iter_mut().try_for_each(|change| change(transaction, path))?;
                body(transaction, path)
            });
            if result.is_err() && !changes.is_empty() {
                // Files may have got their names: their rows must not wait for long.
                let made = database.write_files(|transaction, path| {
                    changes.iter_mut().try_for_each(|change| change(transaction, path))
                });
                if made.is_err() {
                    self.deferred().splice(0..0, changes);
                }
            }
            result
        })
    }

    /// Has a change made in the next transaction of whoever writes next, or by [`settle`](Self::settle), or at the end.
    pub(crate) fn defer(
        &self,
        change: impl FnMut(&Transaction<'_>, &Path) -> Result<(), CacheError> + Send + 'static,
    ) {
        self.deferred().push(Box::new(change));
    }

    /// Makes what was deferred, or waits for whoever is making it.
    pub(crate) fn settle(&self) -> Result<(), CacheError> {
        let writer = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if self.deferred().is_empty() {
            return Ok(());
        }
        drop(writer);
        self.write(|_| Ok(()))
    }

    fn deferred(&self) -> MutexGuard<'_, Vec<Change>> {
        self.deferred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This store's own folder, made when first asked for.
    pub(crate) fn process(&self) -> Result<Arc<Process>, CacheError> {
        let mut guard = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = guard.as_ref() {
            return Ok(Arc::clone(process));
        }
        let process = Arc::new(Process::start(&self.root)?);
        *guard = Some(Arc::clone(&process));
        Ok(process)
    }

    /// This store's own folder, if it has been made.
    fn started_process(&self) -> Option<Arc<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of this store among all that ever used the root.
    pub(crate) fn generation(&self) -> Result<i64, CacheError> {
        match self.generation.get() {
            Some(generation) => Ok(*generation),
            None => self.write_as_user(|_, generation| Ok(generation)),
        }
    }

    /// As [`write`](Self::write), for a body that notes the use of something by the number of this store.
    pub(crate) fn write_as_user<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>, i64) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        if let Some(generation) = self.generation.get() {
            return self.write(|transaction| body(transaction, *generation));
        }
        let process = self.process()?;
        let (generation, value) = self.write(|transaction| {
            let sql = "INSERT INTO process (name) VALUES (?1)";
            transaction.prepare_cached(sql)?.execute([process.name()])?;
            let generation = transaction.last_insert_rowid();
            Ok((generation, body(transaction, generation)?))
        })?;
        // Of two threads one wins; the row of the other says nothing wrong.
        self.generation.get_or_init(|| generation);
        Ok(value)
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    nanoseconds(SystemTime::now())
}

pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

pub(crate) fn time(nanoseconds: i64) -> SystemTime {
    UNIX_EPOCH + std::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

/// A name that nothing else has.
pub(crate) fn random_bytes() -> Result<[u8; 16], CacheError> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .at(Path::new("/dev/urandom"))?;
    // The kernel fills up to 256 bytes at once.
    debug_assert_eq!(filled, bytes.len());
    Ok(bytes)
}

fn format_text(encoding: Encoding) -> String {
    let owners = match encoding.owners {
        Owners::Native => "native",
        Owners::Ranged => "ranged",
        Owners::Recorded => "recorded",
    };
    let whiteouts = match encoding.whiteouts {
        Whiteouts::Trusted => "trusted",
        Whiteouts::User => "user",
    };
    format!("{FORMAT}\nowners {owners}\nwhiteouts {whiteouts}\n")
}

/// Reads `format`, or makes the folders and writes it.
fn check_format(root: &Path, encoding: Encoding) -> Result<(), CacheError> {
    let path = root.join("format");
    let wanted = format_text(encoding);
    let found = match fs::read_to_string(&path) {
        // A power cut may have left nothing or a part of it.
        Ok(text) if text != wanted && wanted.starts_with(text.trim_end_matches('\0')) => {
            crate::removal::remove_tree(&path).at(&path)?;
            create(root, &path, &wanted)?
        }
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(root, &path, &wanted)?,
        Err(error) => return Err(CacheError::io(&path, error)),
    };
    if found == wanted {
        return Ok(());
    }
    let reason = if found.lines().next() == Some(FORMAT) {
        let line = |text: &str| text.lines().skip(1).collect::<Vec<_>>().join(", ");
        format!("it keeps layers with {}, this builder with {}", line(&found), line(&wanted))
    } else {
        "it was made by another version of the builder".to_owned()
    };
    Err(CacheError::Format { root: root.to_owned(), reason })
}

/// Has an ext4 without a journal keep folders that are made in `folder` apart from others.
///
/// Such a file system does not use the inodes again that were deleted in the last minutes, and looks through all of
/// them whenever a file is made near them: where much is deleted, as by builds, that is most of what a step costs.
fn spread(folder: &Path) -> io::Result<()> {
    const EXT4: u64 = 0xef53;
    let open = fs::File::open(folder)?;
    if rustix::fs::fstatfs(&open)?.f_type.cast_unsigned() != EXT4 {
        return Ok(());
    }
    let device = rustix::fs::fstat(&open)?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
    let name = device.file_name().unwrap_or_default();
    let journal = fs::read_to_string(Path::new("/sys/fs/ext4").join(name).join("journal_task"))?;
    if journal.trim() == "<none>" {
        let flags = rustix::fs::ioctl_getflags(&open)?;
        rustix::fs::ioctl_setflags(&open, flags | rustix::fs::IFlags::TOPDIR)?;
    }
    Ok(())
}

/// Folders of a store.
const FOLDERS: [&str; 6] = ["blobs", "blobs/sha256", "ingest", "layers", "mounts", "locks"];

/// Makes the folders that somebody has removed, and closes those that others could look into.
fn mend(root: &Path) -> Result<(), CacheError> {
    use std::os::unix::fs::PermissionsExt;
    for folder in FOLDERS.map(|folder| root.join(folder)) {
        match fs::metadata(&folder) {
            Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {}
            Ok(_) => {
                // Who may not, such as a user of somebody else's store, learns of it when writing.
                let _ = fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700));
            }
            Err(_) => make_private(&folder)?,
        }
    }
    Ok(())
}

/// Makes a folder that nobody but its owner can look into, if there is none: images have set-uid programs and devices, which
/// other users of the machine must not reach.
fn make_private(folder: &Path) -> Result<(), CacheError> {
    use std::os::unix::fs::PermissionsExt;
    match fs::create_dir(folder) {
        Ok(()) => fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).at(folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(CacheError::io(folder, error)),
    }
}

/// Makes an empty store. Of several processes one writes `format`; the text that counts is returned.
fn create(root: &Path, path: &Path, text: &str) -> Result<String, CacheError> {
    if let Some(above) = root.parent() {
        fs::create_dir_all(above).at(above)?;
    }
    make_private(root)?;
    mend(root)?;
    // A matter of speed alone.
    let _ = spread(&root.join("ingest"));
    let aside = root.join("locks").join(format!("format-{}", hex(&random_bytes()?)));
    fs::write(&aside, text).at(&aside)?;
    let linked = fs::hard_link(&aside, path);
    fs::remove_file(&aside).at(&aside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CacheError::io(path, error))
        }
        _ => fs::read_to_string(path).at(path),
    }
}
