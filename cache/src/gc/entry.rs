//! What the store has, entry by entry, for people: the sizes add up to what the disk says.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use rusqlite::Connection;

use super::census::Census;
use super::graph::Graph;
use crate::error::CacheError;
use crate::layer::{Chain, LayerId, hex};
use crate::store::{Inner, Store, time};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A layer with its blobs, or a blob alone.
    Regular,
    /// What the store needs for itself.
    Internal,
    /// What is known of a folder of the user's.
    Local,
    /// What was fetched of a git repository.
    Git,
    /// A cache mount.
    CacheMount,
}

impl Kind {
    /// Whether its content changes.
    pub fn is_mutable(self) -> bool {
        self != Self::Regular
    }
}

/// A part of what the store takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as filters have it.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// Ids of what it was made over, lowest first.
    pub parents: Vec<String>,
    /// What made it, for people.
    pub description: String,
    /// Bytes on the disk, in real blocks.
    pub bytes: u64,
    /// When it was made, if that is known.
    pub created: Option<SystemTime>,
    /// When it was last used, if that is known.
    pub used: Option<SystemTime>,
    /// Whether a store that is open uses it.
    pub in_use: bool,
    /// Whether an image with a name has it.
    pub shared: bool,
    /// Whether a prune of everything takes it.
    pub reclaimable: bool,
}

impl Store {
    /// Everything that the store takes, the largest first.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        self.with_reserve(|| {
            let inner = &self.0;
            // The database is opened first, as its files count.
            inner.read(|_| Ok(()))?;
            inner.list(&inner.census()?)
        })
    }
}

impl Inner {
    /// The entries that make up a census.
    pub(super) fn list(&self, census: &Census) -> Result<Vec<Entry>, CacheError> {
        let floor = self.floor()?;
        let mut listing = self.read(|db| Listing::read(db, floor, census))?;
        for row in self.mount_rows()? {
            let Some(&bytes) = census.mounts.get(&row.id) else { continue };
            let in_use = self.is_mount_in_use(&row.id)?;
            listing.counted.insert((MOUNT, row.id.clone()));
            listing.entries.push(Entry {
                kind: if row.is_git() { Kind::Git } else { Kind::CacheMount },
                created: Some(time(row.created)),
                used: Some(time(row.used)),
                in_use,
                reclaimable: !in_use,
                ..internal(&row.id, bytes, &row.identity)
            });
        }
        for (what, sizes) in
            [(LAYER, &census.layers), (BLOB, &census.blobs), (MOUNT, &census.mounts)]
        {
            for (name, &bytes) in sizes {
                if !listing.counted.contains(&(what, name.clone())) {
                    let lost = format!("{what} that nothing leads to");
                    listing
                        .entries
                        .push(Entry { reclaimable: true, ..internal(name, bytes, &lost) });
                }
            }
        }
        for (name, (bytes, changed)) in &census.contexts {
            listing.entries.push(Entry {
                kind: Kind::Local,
                used: Some(time(*changed)),
                reclaimable: true,
                ..internal(name, *bytes, "hashes of the files of a context")
            });
        }
        let own = [
            ("ingest", census.ingest, "what is being written"),
            ("database", census.database, "records of the store"),
            ("store", census.other, "folders, locks, and what is set aside for a full disk"),
        ];
        let mut entries = listing.entries;
        entries.extend(own.iter().map(|(id, bytes, text)| internal(id, *bytes, text)));
        entries.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        Ok(entries)
    }
}

fn internal(id: &str, bytes: u64, description: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        kind: Kind::Internal,
        parents: Vec::new(),
        description: description.to_owned(),
        bytes,
        created: None,
        used: None,
        in_use: false,
        shared: false,
        reclaimable: false,
    }
}

const LAYER: &str = "layer";
const BLOB: &str = "blob";
const MOUNT: &str = "cache mount";

/// Entries, and what and which names on the disk are counted in them.
#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    counted: HashSet<(&'static str, String)>,
}

impl Listing {
    /// The layers, each with its blobs, and the blobs that belong to none.
    fn read(db: &Connection, floor: i64, census: &Census) -> rusqlite::Result<Self> {
        let graph = Graph::read(db, floor, false)?;
        let (shared, used) = (graph.kept_by_images(), graph.kept_by_users());
        let mut listing = Self::default();
        let mut blobs: HashMap<LayerId, u64> = HashMap::new();
        for row in db
            .prepare("SELECT layer, digest FROM layer_blob ORDER BY layer, digest")?
            .query_map([], |row| Ok((LayerId(row.get(0)?), row.get::<_, [u8; 32]>(1)?)))?
        {
            let (layer, digest) = row?;
            let name = hex(&digest);
            // One that several layers have counts for the first.
            if let Some(bytes) = census.blobs.get(&name)
                && listing.counted.insert((BLOB, name))
            {
                *blobs.entry(layer).or_default() += bytes;
            }
        }
        let mut statement =
            db.prepare("SELECT id, parents, description, created, used FROM layer")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id = LayerId(row.get(0)?);
            let folder = census.layers.get(&id.to_string()).copied();
            let blob = blobs.get(&id).copied();
            // What is only known by name takes nothing.
            if folder.is_none() && blob.is_none() {
                continue;
            }
            listing.counted.insert((LAYER, id.to_string()));
            let parents = Chain::unpack(&row.get::<_, Vec<u8>>(1)?).named();
            let (shared, in_use) = (shared.contains(&id), used.contains(&id));
            listing.entries.push(Entry {
                kind: Kind::Regular,
                parents: parents.iter().map(LayerId::to_string).collect(),
                created: Some(time(row.get(3)?)),
                used: Some(time(row.get(4)?)),
                in_use,
                shared,
                reclaimable: !shared && !in_use,
                ..internal(
                    &id.to_string(),
                    folder.unwrap_or(0) + blob.unwrap_or(0),
                    &row.get::<_, String>(2)?,
                )
            });
        }
        let mut statement = db.prepare("SELECT digest, used, generation FROM blob")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let digest: [u8; 32] = row.get(0)?;
            let name = hex(&digest);
            let Some(&bytes) = census.blobs.get(&name) else { continue };
            if !listing.counted.insert((BLOB, name.clone())) {
                continue;
            }
            let (shared, in_use) = (graph.is_config(&digest), row.get::<_, i64>(2)? >= floor);
            let text = if shared { "config of an image" } else { "blob of no layer" };
            listing.entries.push(Entry {
                kind: Kind::Regular,
                used: Some(time(row.get(1)?)),
                in_use,
                shared,
                reclaimable: !shared && !in_use,
                ..internal(&name, bytes, text)
            });
        }
        Ok(listing)
    }
}
