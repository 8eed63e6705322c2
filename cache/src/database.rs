//! The metadata: one SQLite file in WAL mode, shared by all processes on a root, opened when first asked.
//!
//! Invariants:
//! - Every writer is one `BEGIN IMMEDIATE` transaction. Files under `blobs/` and `layers/` get and lose their names inside one, so that whoever holds the write lock sees files and rows agree.
//! - Commits do not wait for the disk: in WAL mode a power cut may lose the last ones, never the file. Rows therefore say in which boot they were written and whether their files have been synced since. At the first use in another boot, unsynced rows of earlier boots are dropped.
//! - A file that proves damaged is set aside and an empty one takes its place: what it knew can be made again.
//! - `generation` is the number of the last [`Store`](crate::Store) that used a row. Numbers only grow, so what a live store uses has at least the lowest number of all live ones.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use crate::error::{At, CacheError};

const VERSION: i64 = 4;
/// Beginning of the names of files that were set aside.
pub(crate) const DAMAGED: &str = "db.sqlite.damaged";
/// For how long a writer waits for others.
const BUSY: Duration = Duration::from_secs(60);
/// Pauses between the tries of a writer, in microseconds; the last one is repeated. A transaction takes some hundreds.
const PAUSES: [u64; 8] = [100, 200, 300, 500, 800, 1_500, 3_000, 5_000];

const SCHEMA: &str = "
CREATE TABLE meta (boot TEXT NOT NULL);
CREATE TABLE process (generation INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
CREATE TABLE blob (
    digest BLOB PRIMARY KEY, size INTEGER NOT NULL,
    used INTEGER NOT NULL, generation INTEGER NOT NULL, boot TEXT NOT NULL, synced INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE layer (
    id BLOB PRIMARY KEY, base INTEGER NOT NULL, dir INTEGER NOT NULL, diff_id BLOB, size INTEGER, disk INTEGER,
    parents BLOB NOT NULL, description TEXT NOT NULL, created INTEGER NOT NULL,
    used INTEGER NOT NULL, generation INTEGER NOT NULL, boot TEXT NOT NULL, synced INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX layer_base ON layer (diff_id, parents) WHERE base;
CREATE TABLE layer_blob (
    layer BLOB NOT NULL, digest BLOB NOT NULL, codec TEXT NOT NULL, descriptor TEXT NOT NULL, origin TEXT,
    PRIMARY KEY (layer, digest)
) WITHOUT ROWID;
CREATE TABLE link (
    op BLOB NOT NULL, output INTEGER NOT NULL, input INTEGER NOT NULL, parent BLOB NOT NULL, selector BLOB NOT NULL,
    key BLOB NOT NULL, PRIMARY KEY (op, parent, output, input, selector, key)
) WITHOUT ROWID;
CREATE INDEX link_parent ON link (parent);
CREATE INDEX link_key ON link (key);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, created INTEGER NOT NULL, layers BLOB NOT NULL, why BLOB NOT NULL,
    used INTEGER NOT NULL, generation INTEGER NOT NULL, boot TEXT NOT NULL, synced INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX result_key ON result (key, created);
CREATE TABLE image (
    id BLOB PRIMARY KEY, created INTEGER NOT NULL, index_bytes BLOB,
    boot TEXT NOT NULL, synced INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE variant (
    image BLOB NOT NULL, position INTEGER NOT NULL, platform TEXT NOT NULL, config BLOB NOT NULL, layers BLOB NOT NULL,
    manifest BLOB, PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE TABLE image_name (name TEXT PRIMARY KEY, image BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE mount (
    id TEXT PRIMARY KEY, identity TEXT NOT NULL, owners TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX mount_identity ON mount (identity, created);
";

/// From the first version to the second. `gc` is what was measured last: bytes in use, bytes free, when.
const SECOND: &str = "
ALTER TABLE mount ADD COLUMN boot TEXT NOT NULL DEFAULT '';
ALTER TABLE mount ADD COLUMN synced INTEGER NOT NULL DEFAULT 0;
CREATE TABLE gc (used INTEGER NOT NULL, free INTEGER NOT NULL, at INTEGER NOT NULL);
";

/// From the second version to the third. `grown` is what has been written since the last measurement.
const THIRD: &str = "ALTER TABLE gc ADD COLUMN grown INTEGER NOT NULL DEFAULT 0;";

/// From the third version to the fourth: nobody asks for links by what they lead to.
const FOURTH: &str = "DROP INDEX link_key;";

/// An open connection.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens the file, creating it if need be. One that is no database is set aside; then the second value is true.
    pub(crate) fn open(path: &Path, boot: &str) -> Result<(Self, bool), CacheError> {
        match Self::try_open(path, boot) {
            Err(error) if error.is_damage() => {
                set_aside(path)?;
                let mut database = Self::try_open(path, boot)?;
                // Files that the lost rows led to are to be removed soon.
                database.write(|transaction| {
                    let sql = "INSERT INTO gc (used, free, at) VALUES (0, 0, 0)";
                    transaction.execute(sql, []).map(drop)
                })?;
                Ok((database, true))
            }
            other => other.map(|database| (database, false)),
        }
    }

    /// Opens the file, creating it if need be.
    pub(crate) fn try_open(path: &Path, boot: &str) -> Result<Self, CacheError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).at(path)?;
        let mut database = Self { connection, path: path.to_owned() };
        database.configure().at(path)?;
        database.migrate(boot)?;
        Ok(database)
    }

    fn configure(&mut self) -> rusqlite::Result<()> {
        self.connection.busy_handler(Some(pause))?;
        // A file system without shared memory refuses WAL, and the rollback journal stays.
        self.connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))?;
        self.connection.pragma_update(None, "synchronous", "normal")?;
        // Whoever merges the log waits for the disk, and a step that makes a folder waits with it: that is left to
        // `merge_log`, and this is for when nobody comes to it.
        self.connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
        // The last process to leave would otherwise wait for the disk.
        self.connection
            .set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        self.connection.set_prepared_statement_cache_capacity(64);
        Ok(())
    }

    fn migrate(&mut self, boot: &str) -> Result<(), CacheError> {
        let path = self.path.clone();
        match self.version().at(&path)? {
            VERSION => {}
            0..VERSION => self.write(|transaction| {
                // Another process may have been faster.
                let version =
                    transaction.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?;
                if version == 0 {
                    transaction.execute_batch(SCHEMA)?;
                    transaction.execute("INSERT INTO meta (boot) VALUES (?1)", [boot])?;
                }
                if version < 2 {
                    transaction.execute_batch(SECOND)?;
                }
                if version < 3 {
                    transaction.execute_batch(THIRD)?;
                    transaction.execute_batch(crate::why::TABLES)?;
                }
                if version < VERSION {
                    transaction.execute_batch(FOURTH)?;
                    transaction.pragma_update(None, "user_version", VERSION)?;
                }
                Ok(())
            })?,
            other => {
                let root = path.parent().unwrap_or(&path).to_owned();
                let reason =
                    format!("its database has version {other}, this builder knows {VERSION}");
                return Err(CacheError::Format { root, reason });
            }
        }
        let last: String = self.read(|connection| {
            connection.query_row("SELECT boot FROM meta", [], |row| row.get(0))
        })?;
        if last == boot {
            return Ok(());
        }
        self.write(|transaction| drop_unsynced(transaction, boot))
    }

    /// Merges what was committed into the file, and empties the log if nobody is at work on it.
    pub(crate) fn merge_log(&mut self) -> Result<(), CacheError> {
        // The first does nearly everything and keeps no writer waiting.
        for mode in ["PASSIVE", "TRUNCATE"] {
            let pragma = format!("PRAGMA wal_checkpoint({mode})");
            self.connection.query_row(&pragma, [], |_| Ok(())).at(&self.path)?;
        }
        Ok(())
    }

    fn version(&self) -> rusqlite::Result<i64> {
        self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))
    }

    /// Runs `body` without a transaction of its own.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        body(&self.connection).at(&self.path)
    }

    /// Runs `body` as the only writer; its error rolls everything back.
    pub(crate) fn write<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, CacheError> {
        self.write_files(|transaction, path| body(transaction).at(path))
    }

    /// As [`write`](Self::write), for a body that also renames files.
    pub(crate) fn write_files<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>, &Path) -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .at(&self.path)?;
        let value = body(&transaction, &self.path)?;
        transaction.commit().at(&self.path)?;
        Ok(value)
    }
}

/// Waits before the next try of a writer; false when it has tried for long enough.
fn pause(tried: i32) -> bool {
    let tried = usize::try_from(tried).unwrap_or_default();
    let last = PAUSES[PAUSES.len() - 1];
    std::thread::sleep(Duration::from_micros(*PAUSES.get(tried).unwrap_or(&last)));
    let step = Duration::from_micros(last);
    let waited = step * u32::try_from(tried).unwrap_or(u32::MAX);
    crate::lock::tell_of_database(waited, step);
    waited < BUSY
}

/// Whether the file is damaged: looks at all of it.
pub(crate) fn is_damaged(path: &Path) -> bool {
    let check = || -> rusqlite::Result<bool> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_handler(Some(pause))?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| {
            Ok(row.get::<_, String>(0)?.as_str() != "ok")
        })
    };
    check()
        .map_err(|source| CacheError::database(path, source))
        .unwrap_or_else(|error| error.is_damage())
}

/// Whether the file says that it is in WAL mode.
pub(crate) fn is_in_wal_mode(path: &Path) -> bool {
    const WAL: [u8; 2] = [2, 2];
    let mut header = [0; 20];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)).is_ok()
        && header.ends_with(&WAL)
}

/// Puts a damaged file out of the way, in place of an earlier one.
pub(crate) fn set_aside(path: &Path) -> Result<(), CacheError> {
    let beside = |end: &str| path.with_file_name(format!("db.sqlite{end}"));
    for end in ["-wal", "-shm"] {
        let path = beside(end);
        crate::removal::remove_tree(&path).at(&path)?;
    }
    let aside = path.with_file_name(DAMAGED);
    crate::removal::remove_tree(&aside).at(&aside)?;
    fs::rename(path, &aside).at(path)
}

/// Drops what may not have reached the disk before the machine went down. Files that lose their row here
/// are removed by the next prune; until then nothing leads to them.
fn drop_unsynced(transaction: &Transaction<'_>, boot: &str) -> rusqlite::Result<()> {
    let last: String = transaction.query_row("SELECT boot FROM meta", [], |row| row.get(0))?;
    if last == boot {
        return Ok(());
    }
    // A layer that can be fetched again stays, without its folder.
    let fetched = "SELECT layer FROM layer_blob WHERE origin IS NOT NULL";
    let doubtful = "synced <> 1 AND boot <> ?1";
    transaction.execute(
        &format!("UPDATE layer SET dir = 0 WHERE id IN ({fetched}) AND {doubtful}"),
        [boot],
    )?;
    transaction.execute(
        &format!("DELETE FROM layer WHERE id NOT IN ({fetched}) AND {doubtful}"),
        [boot],
    )?;
    for table in ["blob", "result", "image", "mount"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE {doubtful}"), [boot])?;
    }
    transaction.execute("DELETE FROM layer_blob WHERE layer NOT IN (SELECT id FROM layer)", [])?;
    transaction.execute("DELETE FROM variant WHERE image NOT IN (SELECT id FROM image)", [])?;
    transaction.execute("DELETE FROM image_name WHERE image NOT IN (SELECT id FROM image)", [])?;
    transaction.execute("UPDATE meta SET boot = ?1", params![boot])?;
    Ok(())
}
