//! What keeps what, and what goes.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Transaction};

use super::Freed;
use crate::layer::LayerId;
use crate::lock::Lock;

/// What may go, in the terms of the rows.
pub(super) struct Limits {
    /// Bytes to free; `None` for all there are.
    pub(super) excess: Option<u64>,
    /// Last use of the youngest that may go.
    pub(super) newest: Option<i64>,
    pub(super) all: bool,
}

/// A cache mount that nobody uses, and nobody can as long as the lock is held.
pub(super) struct FreeMount {
    pub(super) id: String,
    pub(super) used: i64,
    pub(super) bytes: u64,
    pub(super) _lock: Lock,
}

struct ResultRow {
    id: i64,
    used: i64,
    in_use: bool,
    layers: Vec<LayerId>,
}

struct LayerRow {
    parents: Vec<LayerId>,
    bytes: u64,
    in_use: bool,
    /// Blobs that go with it.
    blobs: Vec<[u8; 32]>,
    /// Whether its blobs go though it stays.
    sheds_blobs: bool,
}

/// All that keeps something.
pub(super) struct Graph {
    results: Vec<ResultRow>,
    layers: HashMap<LayerId, LayerRow>,
    /// Size, and whether it is kept for its own sake.
    blobs: HashMap<[u8; 32], (u64, bool)>,
    images: Vec<Vec<LayerId>>,
}

/// What goes.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) results: Vec<i64>,
    pub(super) mounts: Vec<String>,
    pub(super) layers: Vec<LayerId>,
    pub(super) blobs: Vec<[u8; 32]>,
}

impl Graph {
    pub(super) fn read(db: &Connection, floor: i64, all: bool) -> rusqlite::Result<Self> {
        let results = db
            .prepare("SELECT id, used, generation, layers FROM result ORDER BY used, id")?
            .query_map([], |row| {
                let layers = LayerId::unpack(&row.get::<_, Vec<u8>>(3)?);
                Ok(ResultRow {
                    id: row.get(0)?,
                    used: row.get(1)?,
                    in_use: row.get::<_, i64>(2)? >= floor,
                    layers,
                })
            })?
            .collect::<Result<_, _>>()?;
        let mut images = Vec::new();
        let mut configs = HashSet::new();
        for row in db
            .prepare("SELECT layers, config FROM variant")?
            .query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, [u8; 32]>(1)?)))?
        {
            let (layers, config) = row?;
            images.push(LayerId::unpack(&layers));
            configs.insert(config);
        }
        let blobs = db
            .prepare("SELECT digest, size, generation FROM blob")?
            .query_map([], |row| {
                let digest: [u8; 32] = row.get(0)?;
                let kept = configs.contains(&digest) || row.get::<_, i64>(2)? >= floor;
                Ok((digest, (row.get::<_, i64>(1)?.cast_unsigned(), kept)))
            })?
            .collect::<Result<_, _>>()?;
        let layers = Self::read_layers(db, floor, all)?;
        Ok(Self { results, layers, blobs, images })
    }

    fn read_layers(
        db: &Connection,
        floor: i64,
        all: bool,
    ) -> rusqlite::Result<HashMap<LayerId, LayerRow>> {
        let mut layers: HashMap<LayerId, LayerRow> = db
            .prepare("SELECT id, parents, COALESCE(disk, 0), generation, base, dir = 1 FROM layer")?
            .query_map([], |row| {
                let layer = LayerRow {
                    parents: LayerId::unpack(&row.get::<_, Vec<u8>>(1)?),
                    bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                    in_use: row.get::<_, i64>(3)? >= floor,
                    blobs: Vec::new(),
                    // What came from elsewhere may not be there any more.
                    sheds_blobs: all && !row.get::<_, bool>(4)? && row.get::<_, bool>(5)?,
                };
                Ok((LayerId(row.get(0)?), layer))
            })?
            .collect::<Result<_, _>>()?;
        for row in db
            .prepare("SELECT layer, digest FROM layer_blob")?
            .query_map([], |row| Ok((LayerId(row.get(0)?), row.get(1)?)))?
        {
            let (layer, digest) = row?;
            if let Some(layer) = layers.get_mut(&layer) {
                layer.blobs.push(digest);
            }
        }
        Ok(layers)
    }

    /// Layers of a chain with all they were made over, each once.
    fn reach(&self, chain: &[LayerId]) -> HashSet<LayerId> {
        let mut reached = HashSet::new();
        let mut open = chain.to_vec();
        while let Some(id) = open.pop() {
            if let Some(layer) = self.layers.get(&id)
                && reached.insert(id)
            {
                open.extend(&layer.parents);
            }
        }
        reached
    }

    pub(super) fn plan(&self, limits: &Limits, mounts: &[FreeMount]) -> Plan {
        let mut users: HashMap<LayerId, usize> = self.layers.keys().map(|id| (*id, 0)).collect();
        let in_use = self.layers.iter().filter(|(_, layer)| layer.in_use).map(|(id, _)| vec![*id]);
        let chains = self
            .images
            .iter()
            .cloned()
            .chain(in_use)
            .chain(self.results.iter().map(|row| row.layers.clone()));
        for id in chains.flat_map(|chain| self.reach(&chain)) {
            *users.entry(id).or_default() += 1;
        }
        let mut plan = Plan::default();
        let mut left = limits.excess;
        // Nothing leads to these whatever else goes.
        let mut gone: Vec<LayerId> =
            users.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        gone.iter().for_each(|id| self.count_down(*id, &mut left));
        let old = |used: i64| limits.newest.is_none_or(|newest| used <= newest);
        let mut mounts = mounts.iter().filter(|mount| old(mount.used)).peekable();
        for row in self.results.iter().filter(|row| !row.in_use && old(row.used)) {
            while left != Some(0)
                && let Some(mount) = mounts.next_if(|mount| mount.used <= row.used)
            {
                plan.mounts.push(mount.id.clone());
                left = left.map(|left| left.saturating_sub(mount.bytes));
            }
            if left == Some(0) {
                break;
            }
            plan.results.push(row.id);
            for id in self.reach(&row.layers) {
                let count = users.entry(id).or_insert(1);
                *count -= 1;
                if *count == 0 {
                    gone.push(id);
                    self.count_down(id, &mut left);
                }
            }
        }
        for mount in mounts {
            if left == Some(0) {
                break;
            }
            plan.mounts.push(mount.id.clone());
            left = left.map(|left| left.saturating_sub(mount.bytes));
        }
        plan.layers = gone;
        plan.blobs = self.unused_blobs(&plan.layers);
        plan
    }

    /// Takes what a layer frees from what is still to be freed.
    fn count_down(&self, id: LayerId, left: &mut Option<u64>) {
        let (Some(left), Some(layer)) = (left, self.layers.get(&id)) else { return };
        let blobs = layer.blobs.iter().filter_map(|digest| self.blobs.get(digest));
        let bytes =
            layer.bytes + blobs.filter(|(_, kept)| !kept).map(|(size, _)| size).sum::<u64>();
        *left = left.saturating_sub(bytes);
    }

    fn unused_blobs(&self, gone: &[LayerId]) -> Vec<[u8; 32]> {
        let gone: HashSet<&LayerId> = gone.iter().collect();
        let keeping =
            self.layers.iter().filter(|(id, layer)| !gone.contains(id) && !layer.sheds_blobs);
        let needed: HashSet<&[u8; 32]> = keeping.flat_map(|(_, layer)| &layer.blobs).collect();
        let unused =
            self.blobs.iter().filter(|(digest, (_, kept))| !kept && !needed.contains(digest));
        unused.map(|(digest, _)| *digest).collect()
    }
}

impl Plan {
    pub(super) fn freed(&self) -> Freed {
        Freed {
            results: self.results.len(),
            layers: self.layers.len(),
            blobs: self.blobs.len(),
            mounts: self.mounts.len(),
            bytes: 0,
        }
    }

    pub(super) fn delete(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut delete = transaction.prepare("DELETE FROM result WHERE id = ?1")?;
        self.results.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        let mut delete = transaction.prepare("DELETE FROM mount WHERE id = ?1")?;
        self.mounts.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        let mut delete = transaction.prepare("DELETE FROM blob WHERE digest = ?1")?;
        self.blobs.iter().try_for_each(|digest| delete.execute([digest]).map(drop))?;
        for sql in ["DELETE FROM layer WHERE id = ?1", "DELETE FROM layer_blob WHERE layer = ?1"] {
            let mut delete = transaction.prepare(sql)?;
            self.layers.iter().try_for_each(|id| delete.execute([id.0]).map(drop))?;
        }
        // A key that names no result and leads to no other key has lost its use.
        let sql = "DELETE FROM link WHERE key NOT IN (SELECT key FROM result) AND key NOT IN (SELECT parent FROM link)";
        let mut delete = transaction.prepare(sql)?;
        while delete.execute([])? > 0 {}
        Ok(())
    }
}
