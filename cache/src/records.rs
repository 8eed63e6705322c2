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

use std::collections::HashSet;
use std::time::SystemTime;

use rusqlite::{Connection, Transaction, params};

use crate::error::{At, CacheError};
use crate::key::Key;
use crate::layer::{Chain, LayerId};
use crate::reference::Ref;
use crate::store::{Inner, Store, nanoseconds, now, time};

/// Number of keys from which on another input is asked first.
const FEW: usize = 8;

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
    /// Keys to which links of `op` lead from every input: `inputs` has for each of them what may name it, with the
    /// selector. Takes no longer when the records know many results of the op with one of the inputs, if only few are
    /// known with another.
    ///
    /// # Errors
    /// When the records cannot be read.
    fn query(
        &self,
        op: &Key,
        output: u32,
        inputs: &[Vec<(Key, Key)>],
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
        inputs: &[Vec<(Key, Key)>],
    ) -> Result<Vec<Key>, CacheError> {
        self.0.read(|db| Joint { db, op, output, inputs }.keys())
    }

    fn load(&self, key: &Key) -> Result<Option<StoredResult>, CacheError> {
        let rows: Vec<ResultRow> = self.0.read(|db| {
            let sql = "SELECT id, created, layers, why, generation FROM result WHERE key = ?1
                ORDER BY created DESC, id DESC";
            db.prepare_cached(sql)?.query_map([key.0], ResultRow::read)?.collect()
        })?;
        let generation = if rows.is_empty() { 0 } else { self.0.generation()? };
        for row in rows {
            let layers = self.0.read(|db| row.layers.ids(db))?;
            // What this store has loaded before is leased already.
            if let Some(layers) = &layers
                && row.generation < generation
                && !self.0.touch(Some(row.id), layers, generation)?
            {
                continue;
            }
            if let Some(layers) = layers
                && let Some(reference) = self.reference(&layers)?
            {
                return Ok(Some(StoredResult {
                    reference,
                    created: time(row.created),
                    why: row.why,
                }));
            }
            // Its note stays as it is: it was lost, not pruned.
            self.0.write(|transaction| {
                transaction.execute("DELETE FROM result WHERE id = ?1", [row.id]).map(drop)
            })?;
        }
        Ok(None)
    }

    fn save(&self, links: &[Link], result: Option<&NewResult>) -> Result<(), CacheError> {
        let inner = &self.0;
        let boot = inner.boot()?;
        inner.write_as_user(|transaction, generation| {
            for link in links {
                add_link(transaction, link)?;
            }
            match result {
                Some(result) => ResultValues::of(result).insert(transaction, generation, boot),
                None => Ok(()),
            }
        })
    }
}

impl Store {
    /// Saves links and a result together with whatever is written next.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn save_later(&self, links: Vec<Link>, result: &NewResult) -> Result<(), CacheError> {
        let (boot, generation) = (self.0.boot()?.to_owned(), self.0.generation()?);
        let row = ResultValues::of(result);
        self.0.defer(move |transaction, database| {
            links.iter().try_for_each(|link| add_link(transaction, link)).at(database)?;
            row.insert(transaction, generation, &boot).at(database)
        });
        Ok(())
    }

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
}

struct ResultRow {
    id: i64,
    created: i64,
    layers: Chain,
    why: Vec<u8>,
    generation: i64,
}

impl ResultRow {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            created: row.get(1)?,
            layers: Chain::unpack(&row.get::<_, Vec<u8>>(2)?),
            why: row.get(3)?,
            generation: row.get(4)?,
        })
    }
}

impl Inner {
    /// Notes a use of a result and of layers, in one transaction; false when the result has been pruned.
    fn touch(
        &self,
        result: Option<i64>,
        layers: &[LayerId],
        generation: i64,
    ) -> Result<bool, CacheError> {
        self.write(|transaction| {
            let now = now();
            if let Some(id) = result {
                let sql =
                    "UPDATE result SET used = ?2, generation = MAX(generation, ?3) WHERE id = ?1";
                if transaction.prepare_cached(sql)?.execute(params![id, now, generation])? == 0 {
                    return Ok(false);
                }
            }
            let sql = "UPDATE layer SET used = ?2, generation = MAX(generation, ?3) WHERE id = ?1";
            let mut update = transaction.prepare_cached(sql)?;
            layers
                .iter()
                .try_for_each(|id| update.execute(params![id.0, now, generation]).map(drop))?;
            Ok(true)
        })
    }
}

/// A question for the keys that all inputs of an op lead to.
struct Joint<'a> {
    db: &'a Connection,
    op: &'a Key,
    output: u32,
    inputs: &'a [Vec<(Key, Key)>],
}

impl Joint<'_> {
    fn keys(&self) -> rusqlite::Result<Vec<Key>> {
        // One input with few keys is enough: whether the others lead to those is asked for each of them.
        let mut few = None;
        for input in 0..self.inputs.len() {
            let found = self.led_to(input, Some(FEW))?;
            if found.len() < FEW {
                few = Some((input, found));
                break;
            }
        }
        let (first, mut keys) = match few {
            Some(few) => few,
            None if self.inputs.is_empty() => return Ok(Vec::new()),
            None => (0, self.led_to(0, None)?),
        };
        for input in (0..self.inputs.len()).filter(|input| *input != first) {
            let mut kept = Vec::with_capacity(keys.len());
            for key in keys {
                if self.leads_to(input, &key)? {
                    kept.push(key);
                }
            }
            keys = kept;
        }
        Ok(keys)
    }

    /// Keys that links lead to from one input, at most so many, each once.
    fn led_to(&self, input: usize, most: Option<usize>) -> rusqlite::Result<Vec<Key>> {
        // A limit that is a parameter has SQLite prepare the statement once more.
        let limit = most.map(|most| format!(" LIMIT {most}")).unwrap_or_default();
        let sql = format!(
            "SELECT key FROM link WHERE op = ?1 AND parent = ?2 AND output = ?3 AND input = ?4 AND selector = ?5{limit}"
        );
        let mut statement = self.db.prepare_cached(&sql)?;
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        for (parent, selector) in &self.inputs[input] {
            let values = params![self.op.0, parent.0, self.output, input as u32, selector.0];
            for key in statement.query_map(values, |row| Ok(Key(row.get(0)?)))? {
                let key = key?;
                if most.is_none_or(|most| keys.len() < most) && seen.insert(key) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    fn leads_to(&self, input: usize, key: &Key) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM link
            WHERE op = ?1 AND parent = ?2 AND output = ?3 AND input = ?4 AND selector = ?5 AND key = ?6)";
        let mut statement = self.db.prepare_cached(sql)?;
        for (parent, selector) in &self.inputs[input] {
            let values = params![self.op.0, parent.0, self.output, input as u32, selector.0, key.0];
            if statement.query_row(values, |row| row.get(0))? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A result as it is kept.
struct ResultValues {
    key: Key,
    created: i64,
    layers: Vec<u8>,
    why: Vec<u8>,
}

impl ResultValues {
    fn of(result: &NewResult) -> Self {
        Self {
            key: result.key,
            created: nanoseconds(result.created),
            layers: Chain::of(&result.reference).pack(),
            why: result.why.clone(),
        }
    }

    fn insert(
        &self,
        transaction: &Transaction<'_>,
        generation: i64,
        boot: &str,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO result (key, created, layers, why, used, generation, boot)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Self { key, created, layers, why } = self;
        let values = params![key.0, created, layers, why, now(), generation, boot];
        transaction.prepare_cached(sql)?.execute(values).map(drop)
    }
}

fn add_link(transaction: &Transaction<'_>, link: &Link) -> rusqlite::Result<()> {
    if closes_cycle(transaction, link)? {
        return Ok(());
    }
    let sql = "INSERT OR IGNORE INTO link (op, output, input, parent, selector, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values =
        params![link.op.0, link.output, link.input, link.parent.0, link.selector.0, link.key.0];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

fn closes_cycle(transaction: &Transaction<'_>, link: &Link) -> rusqlite::Result<bool> {
    if link.key == link.parent {
        return Ok(true);
    }
    // A new key has nothing below it, and few questions are as dear as the one that follows.
    let sql = "SELECT EXISTS (SELECT 1 FROM link WHERE parent = ?1)";
    if !transaction.prepare_cached(sql)?.query_row([link.key.0], |row| row.get(0))? {
        return Ok(false);
    }
    let sql = "WITH RECURSIVE below (key) AS (
            SELECT ?1 UNION SELECT link.key FROM link JOIN below ON link.parent = below.key
        ) SELECT EXISTS (SELECT 1 FROM below WHERE key = ?2)";
    transaction.prepare_cached(sql)?.query_row(params![link.key.0, link.parent.0], |row| row.get(0))
}
