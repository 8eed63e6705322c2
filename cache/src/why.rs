//! Why results were made: the parts of their keys, by the step that made them, to explain a later miss.
//!
//! A *note* says with which key a step ran, of what parts that key was made, and in which build. A step is known by
//! where it stands (`place`) and by what it says (`text`), both within a `scope`, such as one Dockerfile with one
//! context. A *listing* tells the files behind the key of some content, for the notes that name it.
//!
//! Notes outlive results: one whose result has been pruned says so.
//!
//! Invariants:
//! - Notes are hints. What cannot be read counts as not there, and no build depends on any.
//! - Their number is bounded: [`MOST_OF_A_PLACE`] of one place, [`MOST_LISTINGS`] listings.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::error::CacheError;
use crate::key::Key;
use crate::store::{Store, nanoseconds, now, time};

/// Notes that are kept of one place.
const MOST_OF_A_PLACE: i64 = 32;

/// Listings that are kept.
const MOST_LISTINGS: i64 = 128;

/// Age of the end of a result, in nanoseconds, at which a prune takes its notes too: 90 days.
const MOURNING: i64 = 90 * 24 * 3600 * 1_000_000_000;

/// The tables, for a database that may have them.
pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS build (id TEXT PRIMARY KEY, at INTEGER NOT NULL, label TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, scope BLOB NOT NULL, place BLOB NOT NULL, text BLOB NOT NULL,
    build TEXT NOT NULL, at INTEGER NOT NULL, parts BLOB NOT NULL, gone INTEGER
);
CREATE INDEX IF NOT EXISTS note_key ON note (key, id);
CREATE INDEX IF NOT EXISTS note_place ON note (scope, place, id);
CREATE INDEX IF NOT EXISTS note_text ON note (text, scope, id);
CREATE TABLE IF NOT EXISTS listing (key BLOB PRIMARY KEY, made INTEGER NOT NULL, files BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS listing_made ON listing (made);
";

/// A build, as notes refer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildNote {
    /// Its name among all builds.
    pub id: String,
    /// When it began.
    pub at: SystemTime,
    /// What its user called the result, such as `-t app:1.0`.
    pub label: String,
}

/// A note to be kept.
#[derive(Debug, Clone)]
pub struct NewNote {
    /// Under which the result was saved.
    pub key: Key,
    /// Builds whose steps may be compared.
    pub scope: Key,
    /// Where the step stands.
    pub place: Key,
    /// What it says.
    pub text: Key,
    /// Parts of the key, in an encoding of the caller's.
    pub parts: Vec<u8>,
}

/// A note that was found.
#[derive(Debug, Clone)]
pub struct Note {
    /// Under which the result was saved.
    pub key: Key,
    /// When.
    pub at: SystemTime,
    /// By which build.
    pub build: Option<BuildNote>,
    /// Parts of the key.
    pub parts: Vec<u8>,
    /// When the result was pruned.
    pub gone: Option<SystemTime>,
}

/// How a note is looked for.
#[derive(Debug, Clone, Copy)]
pub enum NoteOf<'k> {
    /// The newest with this key.
    Key(&'k Key),
    /// That of the last run of what stands at a place of a scope.
    Place(&'k Key, &'k Key),
    /// That of the last run of what says this, in a scope.
    Text(&'k Key, &'k Key),
    /// That of the last run of what says this, anywhere.
    AnyText(&'k Key),
}

const COLUMNS: &str =
    "SELECT note.key, note.at, note.parts, note.gone, build.id, build.at, build.label
    FROM note LEFT JOIN build ON build.id = note.build";

/// A result that was found has been used later than it was made.
const LAST_RUN: &str = "ORDER BY MAX(note.at, COALESCE((SELECT MAX(used) FROM result WHERE result.key = note.key), 0)) DESC,
    note.id DESC LIMIT 1";

impl Store {
    /// Finds a note.
    ///
    /// # Errors
    /// When the database fails.
    pub fn note(&self, of: NoteOf<'_>) -> Result<Option<Note>, CacheError> {
        self.0.read(|db| match of {
            NoteOf::Key(key) => {
                let sql = format!("{COLUMNS} WHERE note.key = ?1 ORDER BY note.id DESC LIMIT 1");
                db.prepare_cached(&sql)?.query_row([key.0], read_note).optional()
            }
            NoteOf::Place(scope, place) => {
                let sql = format!("{COLUMNS} WHERE note.scope = ?1 AND note.place = ?2 {LAST_RUN}");
                db.prepare_cached(&sql)?.query_row([scope.0, place.0], read_note).optional()
            }
            NoteOf::Text(scope, text) => {
                let sql = format!("{COLUMNS} WHERE note.scope = ?1 AND note.text = ?2 {LAST_RUN}");
                db.prepare_cached(&sql)?.query_row([scope.0, text.0], read_note).optional()
            }
            NoteOf::AnyText(text) => {
                let sql = format!("{COLUMNS} WHERE note.text = ?1 {LAST_RUN}");
                db.prepare_cached(&sql)?.query_row([text.0], read_note).optional()
            }
        })
    }

    /// The listing of some content.
    ///
    /// # Errors
    /// When the database fails.
    pub fn listing(&self, content: &Key) -> Result<Option<Vec<u8>>, CacheError> {
        self.0.read(|db| {
            db.prepare_cached("SELECT files FROM listing WHERE key = ?1")?
                .query_row([content.0], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps the notes of a build, with listings of contents that they name, in one transaction.
    ///
    /// # Errors
    /// When the database fails.
    pub fn save_notes(
        &self,
        build: &BuildNote,
        notes: &[NewNote],
        listings: &[(Key, Vec<u8>)],
    ) -> Result<(), CacheError> {
        self.0.write(|transaction| {
            let sql = "INSERT OR IGNORE INTO build (id, at, label) VALUES (?1, ?2, ?3)";
            let values = params![build.id, nanoseconds(build.at), build.label];
            transaction.prepare_cached(sql)?.execute(values)?;
            for note in notes {
                save_note(transaction, &build.id, note)?;
            }
            let sql = "INSERT OR REPLACE INTO listing (key, made, files) VALUES (?1, ?2, ?3)";
            let mut insert = transaction.prepare_cached(sql)?;
            for (key, files) in listings {
                insert.execute(params![key.0, now(), files])?;
            }
            if !listings.is_empty() {
                // A limit that is a parameter has SQLite prepare the statement once more.
                let sql = format!(
                    "DELETE FROM listing WHERE key IN
                    (SELECT key FROM listing ORDER BY made DESC LIMIT -1 OFFSET {MOST_LISTINGS})"
                );
                transaction.prepare_cached(&sql)?.execute([])?;
            }
            Ok(())
        })
    }
}

fn save_note(transaction: &Transaction<'_>, build: &str, note: &NewNote) -> rusqlite::Result<()> {
    let sql = "INSERT INTO note (key, scope, place, text, build, at, parts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let NewNote { key, scope, place, text, parts } = note;
    let values = params![key.0, scope.0, place.0, text.0, build, now(), parts];
    transaction.prepare_cached(sql)?.execute(values)?;
    let sql = format!(
        "DELETE FROM note WHERE scope = ?1 AND place = ?2 AND id <=
        (SELECT id FROM note WHERE scope = ?1 AND place = ?2 ORDER BY id DESC LIMIT 1 OFFSET {MOST_OF_A_PLACE})"
    );
    transaction.prepare_cached(&sql)?.execute([scope.0, place.0]).map(drop)
}

fn read_note(row: &Row<'_>) -> rusqlite::Result<Note> {
    let build: Option<String> = row.get(4)?;
    let build = match build {
        Some(id) => Some(BuildNote { id, at: time(row.get(5)?), label: row.get(6)? }),
        None => None,
    };
    Ok(Note {
        key: Key(row.get(0)?),
        at: time(row.get(1)?),
        parts: row.get(2)?,
        gone: row.get::<_, Option<i64>>(3)?.map(time),
        build,
    })
}

/// Notes that results are gone, in the transaction that has taken them, and forgets what is of no use any more.
pub(crate) fn note_gone(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql =
        "UPDATE note SET gone = ?1 WHERE gone IS NULL AND key NOT IN (SELECT key FROM result)";
    transaction.execute(sql, [now()])?;
    transaction.execute("DELETE FROM note WHERE gone < ?1", [now() - MOURNING])?;
    transaction.execute("DELETE FROM build WHERE id NOT IN (SELECT build FROM note)", [])?;
    Ok(())
}
