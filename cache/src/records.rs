//! Results by cache key.
//!
//! Keys form a graph: `link(op, output, input, parent, selector) -> key` says that `op`, given at `input` what
//! `parent` names, makes what `key` names; a result belongs to a key. Both ways of knowing an input, by
//! definition and by content, are links to one key.
//!
//! Invariants:
//! - Links and results are added and deleted, never changed.
//! - The graph has no cycle: a link that would close one is not saved.
//! - Entries are hints. A result whose layers are gone is deleted when it is found, and not returned.

use std::time::SystemTime;

use rusqlite::{Transaction, params};

use crate::error::CacheError;
use crate::key::Key;
use crate::layer::LayerId;
use crate::reference::Ref;
use crate::store::{Store, nanoseconds, now, time};

/// An edge of the key graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What is done.
    pub op: Key,
    /// Which of its outputs.
    pub output: u32,
    /// Which of its inputs.
    pub input: u32,
    /// What names the input.
    pub parent: Key,
    /// What is used of the input.
    pub selector: Key,
    /// What names the output.
    pub key: Key,
}

/// A result to be saved.
#[derive(Debug, Clone)]
pub struct NewResult {
    /// What names it.
    pub key: Key,
    /// Its layers.
    pub reference: Ref,
    /// When it was made; of several results of one key the newest is preferred.
    pub created: SystemTime,
    /// The parts of its key, in an encoding of the caller's, to explain a later miss.
    pub why: Vec<u8>,
}

/// A result that was found.
#[derive(Debug, Clone)]
pub struct StoredResult {
    /// Its layers.
    pub reference: Ref,
    /// When it was made.
    pub created: SystemTime,
    /// The parts of its key.
    pub why: Vec<u8>,
}

/// Where results are kept.
pub trait Records: Send + Sync {
    /// Keys that links lead to from any of `parents`.
    ///
    /// # Errors
    /// When the records cannot be read.
    fn query(
        &self,
        op: &Key,
        output: u32,
        input: u32,
        parents: &[Key],
        selector: &Key,
    ) -> Result<Vec<Key>, CacheError>;

    /// The newest result of a key whose layers are all there.
    ///
    /// # Errors
    /// When the records cannot be read.
    fn load(&self, key: &Key) -> Result<Option<StoredResult>, CacheError>;

    /// Saves links and, with them, a result.
    ///
    /// # Errors
    /// When the records cannot be written.
    fn save(&self, links: &[Link], result: Option<&NewResult>) -> Result<(), CacheError>;
}

impl Records for Store {
    fn query(
        &self,
        op: &Key,
        output: u32,
        input: u32,
        parents: &[Key],
        selector: &Key,
    ) -> Result<Vec<Key>, CacheError> {
        self.0.read(|db| {
            let sql = "SELECT key FROM link WHERE op = ?1 AND parent = ?2 AND output = ?3 AND input = ?4 AND selector = ?5";
            let mut statement = db.prepare_cached(sql)?;
            let mut keys: Vec<Key> = Vec::new();
            for parent in parents {
                let found = statement
                    .query_map(params![op.0, parent.0, output, input, selector.0], |row| Ok(Key(row.get(0)?)))?;
                for key in found {
                    let key = key?;
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
            }
            Ok(keys)
        })
    }

    fn load(&self, key: &Key) -> Result<Option<StoredResult>, CacheError> {
        let rows: Vec<(i64, i64, Vec<u8>, Vec<u8>)> = self.0.read(|db| {
            let sql = "SELECT id, created, layers, why FROM result WHERE key = ?1 ORDER BY created DESC, id DESC";
            db.prepare_cached(sql)?
                .query_map([key.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
                .collect()
        })?;
        for (id, created, layers, why) in rows {
            match self.reference(&LayerId::unpack(&layers))? {
                Some(reference) if self.touch_result(id)? => {
                    return Ok(Some(StoredResult { reference, created: time(created), why }));
                }
                Some(_) => {}
                None => {
                    self.0.write(|transaction| {
                        transaction.execute("DELETE FROM result WHERE id = ?1", [id])
                    })?;
                }
            }
        }
        Ok(None)
    }

    fn save(&self, links: &[Link], result: Option<&NewResult>) -> Result<(), CacheError> {
        let inner = &self.0;
        let (boot, generation) = (inner.boot()?, inner.generation()?);
        inner.write(|transaction| {
            for link in links {
                add_link(transaction, link)?;
            }
            let Some(result) = result else { return Ok(()) };
            let sql = "INSERT INTO result (key, created, layers, why, used, generation, boot)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let layers =
                LayerId::pack(result.reference.layers().iter().map(crate::layer::Layer::id));
            let created = nanoseconds(result.created);
            let values =
                params![result.key.0, created, layers, result.why, now(), generation, boot];
            transaction.prepare_cached(sql)?.execute(values).map(drop)
        })
    }
}

impl Store {
    /// The chain of these layers, if the store has every one.
    ///
    /// # Errors
    /// When the database or file system fails.
    pub fn reference(&self, layers: &[LayerId]) -> Result<Option<Ref>, CacheError> {
        let mut found = Vec::with_capacity(layers.len());
        for id in layers {
            match self.layer(id)? {
                Some(layer) => found.push(layer),
                None => return Ok(None),
            }
        }
        Ok(Some(Ref::new(found)))
    }

    /// Notes a use; false when the result has been pruned meanwhile.
    fn touch_result(&self, id: i64) -> Result<bool, CacheError> {
        let generation = self.0.generation()?;
        let current: i64 = self.0.read(|db| {
            db.prepare_cached("SELECT COALESCE(MAX(generation), -1) FROM result WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
        })?;
        if current >= generation {
            return Ok(true);
        }
        let sql = "UPDATE result SET used = ?2, generation = ?3 WHERE id = ?1";
        let kept = self.0.write(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![id, now(), generation])
        })?;
        Ok(kept > 0)
    }
}

fn add_link(transaction: &Transaction<'_>, link: &Link) -> rusqlite::Result<()> {
    // A new key has nothing below it, so this looks at more than one row only for a known one.
    let sql = "WITH RECURSIVE below (key) AS (
            SELECT ?1 UNION SELECT link.key FROM link JOIN below ON link.parent = below.key
        ) SELECT EXISTS (SELECT 1 FROM below WHERE key = ?2)";
    let cycle: bool = transaction
        .prepare_cached(sql)?
        .query_row(params![link.key.0, link.parent.0], |row| row.get(0))?;
    if cycle {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO link (op, output, input, parent, selector, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values =
        params![link.op.0, link.output, link.input, link.parent.0, link.selector.0, link.key.0];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}
