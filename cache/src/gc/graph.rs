//! What keeps what, and what goes.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Transaction};

use super::Freed;
use super::census::Census;
use crate::layer::{Chain, LayerId};
use crate::lock::Lock;

/// What may go, in the terms of the rows.
pub(super) struct Limits {
    /// Bytes to free; `None` for all there are.
    pub(super) excess: Option<u64>,
    /// Last use of the youngest that may go.
    pub(super) newest: Option<i64>,
    /// Ids of the entries that may go; `None` for all there are.
    pub(super) allowed: Option<HashSet<String>>,
}

impl Limits {
    fn allow(&self, id: &str) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(id))
    }

    fn allow_layer(&self, id: &LayerId) -> bool {
        self.allowed.is_none() || self.allow(&id.to_string())
    }
}

/// What stands for itself: a cache mount that nobody uses, and nobody can as long as the lock is held, or what is
/// known of a context.
pub(super) struct Loose {
    pub(super) id: String,
    pub(super) used: i64,
    pub(super) bytes: u64,
    /// Held for as long as it may go.
    pub(super) _lock: Option<Lock>,
}

/// A row that holds layers, and may go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RowId {
    Result(i64),
    /// One without a name.
    Image([u8; 32]),
}

struct Holder {
    id: RowId,
    /// That of its layers when they have been used since: what is built upon it is found without it.
    used: i64,
    in_use: bool,
    layers: Vec<LayerId>,
    configs: Vec<[u8; 32]>,
}

struct LayerRow {
    parents: Vec<LayerId>,
    bytes: u64,
    used: i64,
    in_use: bool,
    /// Blobs that go with it.
    blobs: Vec<[u8; 32]>,
    /// Whether its blobs go though it stays.
    sheds_blobs: bool,
}

/// A blob as its row has it.
struct BlobRow {
    bytes: u64,
    used: i64,
    /// Whether it is kept for its own sake.
    kept: bool,
}

/// All that keeps something.
pub(super) struct Graph {
    /// Whether results go that free nothing, and blobs of layers that stay.
    all: bool,
    /// Results, and images without a name, the least recently used first.
    holders: Vec<Holder>,
    layers: HashMap<LayerId, LayerRow>,
    blobs: HashMap<[u8; 32], BlobRow>,
    /// Layers of the images that have a name.
    images: Vec<Vec<LayerId>>,
    /// Configs of those.
    configs: HashSet<[u8; 32]>,
}

/// What goes.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) results: Vec<i64>,
    /// Those without a name.
    pub(super) images: Vec<[u8; 32]>,
    pub(super) mounts: Vec<String>,
    pub(super) contexts: Vec<String>,
    pub(super) layers: Vec<LayerId>,
    pub(super) blobs: Vec<[u8; 32]>,
}

impl Graph {
    pub(super) fn read(db: &Connection, floor: i64, all: bool) -> rusqlite::Result<Self> {
        let layers = Self::read_layers(db, floor, all)?;
        let mut holders: Vec<Holder> = db
            .prepare("SELECT id, used, generation, layers FROM result")?
            .query_map([], |row| {
                Ok(Holder {
                    id: RowId::Result(row.get(0)?),
                    used: row.get(1)?,
                    in_use: row.get::<_, i64>(2)? >= floor,
                    // What those were made over is reached from them.
                    layers: Chain::unpack(&row.get::<_, Vec<u8>>(3)?).named(),
                    configs: Vec::new(),
                })
            })?
            .collect::<Result<_, _>>()?;
        let mut unnamed: HashMap<[u8; 32], Holder> = HashMap::new();
        let (mut images, mut configs) = (Vec::new(), HashSet::new());
        let mut statement = db.prepare(
            "SELECT image, layers, config, image.created, image IN (SELECT image FROM image_name)
            FROM variant JOIN image ON image.id = variant.image",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (image, config): ([u8; 32], [u8; 32]) = (row.get(0)?, row.get(2)?);
            let chain = LayerId::unpack(&row.get::<_, Vec<u8>>(1)?);
            if row.get(4)? {
                images.push(chain);
                configs.insert(config);
                continue;
            }
            let (id, used, in_use) = (RowId::Image(image), row.get(3)?, false);
            let (layers, its) = (Vec::new(), Vec::new());
            let holder =
                unnamed.entry(image).or_insert(Holder { id, used, in_use, layers, configs: its });
            holder.layers.extend(chain);
            holder.configs.push(config);
        }
        holders.extend(unnamed.into_values());
        for holder in &mut holders {
            let used = holder.layers.iter().map(|id| layers.get(id).map_or(0, |layer| layer.used));
            holder.used = holder.used.max(used.min().unwrap_or(0));
        }
        holders.sort_by_key(|holder| (holder.used, holder.id));
        let blobs = db
            .prepare("SELECT digest, size, generation, used FROM blob")?
            .query_map([], |row| {
                let digest: [u8; 32] = row.get(0)?;
                let kept = configs.contains(&digest) || row.get::<_, i64>(2)? >= floor;
                let bytes = row.get::<_, i64>(1)?.cast_unsigned();
                Ok((digest, BlobRow { bytes, used: row.get(3)?, kept }))
            })?
            .collect::<Result<_, _>>()?;
        Ok(Self { all, holders, layers, blobs, images, configs })
    }

    fn read_layers(
        db: &Connection,
        floor: i64,
        all: bool,
    ) -> rusqlite::Result<HashMap<LayerId, LayerRow>> {
        let mut layers: HashMap<LayerId, LayerRow> = db
            .prepare("SELECT id, parents, generation, base, dir = 1, used FROM layer")?
            .query_map([], |row| {
                let layer = LayerRow {
                    parents: Chain::unpack(&row.get::<_, Vec<u8>>(1)?).named(),
                    bytes: 0,
                    used: row.get(5)?,
                    in_use: row.get::<_, i64>(2)? >= floor,
                    blobs: Vec::new(),
                    // What came from elsewhere may not be there any more.
                    sheds_blobs: all && !row.get::<_, bool>(3)? && row.get::<_, bool>(4)?,
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

    /// Takes the sizes of the layers from what lies on the disk.
    pub(super) fn measure(&mut self, census: &Census) {
        for (id, layer) in &mut self.layers {
            layer.bytes = census.layers.get(&id.to_string()).copied().unwrap_or(0);
        }
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

    fn reach_all<'a>(&self, chains: impl Iterator<Item = &'a [LayerId]>) -> HashSet<LayerId> {
        chains.flat_map(|chain| self.reach(chain)).collect()
    }

    /// Layers that an image needs.
    pub(super) fn kept_by_images(&self) -> HashSet<LayerId> {
        self.reach_all(self.images.iter().map(Vec::as_slice))
    }

    /// Layers that an open store needs.
    pub(super) fn kept_by_users(&self) -> HashSet<LayerId> {
        let layers: Vec<LayerId> =
            self.layers.iter().filter(|(_, layer)| layer.in_use).map(|(id, _)| *id).collect();
        let results = self.holders.iter().filter(|row| row.in_use).map(|row| row.layers.as_slice());
        self.reach_all(results.chain([layers.as_slice()]))
    }

    pub(super) fn is_config(&self, digest: &[u8; 32]) -> bool {
        self.configs.contains(digest)
    }

    /// Decides what goes; `mounts` and `contexts` are sorted by their last use.
    pub(super) fn plan(&self, limits: &Limits, mounts: &[Loose], contexts: &[Loose]) -> Plan {
        let mut users = self.users();
        let mut plan = Plan::default();
        let mut left = limits.excess;
        // Nothing leads to these whatever else goes.
        plan.layers = users.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
        let old = |used: i64| limits.newest.is_none_or(|newest| used <= newest);
        plan.layers.retain(|id| limits.allow_layer(id) && old(self.layers[id].used));
        plan.layers.iter().for_each(|id| self.count_down(*id, &mut left));
        let may_go = |loose: &&Loose| old(loose.used) && limits.allow(&loose.id);
        let mut mounts = mounts.iter().filter(may_go).peekable();
        let mut contexts = contexts.iter().filter(may_go).peekable();
        // What stands for itself and was not used after `used`, as long as there is a need.
        let mut take_loose = |used: i64, plan: &mut Plan, left: &mut Option<u64>| {
            while *left != Some(0) {
                let (next, list) = if let Some(it) = mounts.next_if(|it| it.used <= used) {
                    (it, &mut plan.mounts)
                } else if let Some(it) = contexts.next_if(|it| it.used <= used) {
                    (it, &mut plan.contexts)
                } else {
                    return;
                };
                list.push(next.id.clone());
                *left = left.map(|left| left.saturating_sub(next.bytes));
            }
        };
        // A result of what an image has anyway takes next to nothing, and finds that again.
        let with_images = if self.all { HashSet::new() } else { self.kept_by_images() };
        let frees_nothing = |row: &Holder| {
            matches!(row.id, RowId::Result(_))
                && !row.layers.is_empty()
                && row.layers.iter().all(|id| with_images.contains(id))
        };
        let free = |row: &&Holder| {
            !row.in_use
                && !frees_nothing(row)
                && old(row.used)
                && (limits.allowed.is_none()
                    || row.layers.last().is_some_and(|top| limits.allow_layer(top)))
        };
        for row in self.holders.iter().filter(free) {
            take_loose(row.used, &mut plan, &mut left);
            if left == Some(0) {
                break;
            }
            match row.id {
                RowId::Result(id) => plan.results.push(id),
                RowId::Image(id) => plan.images.push(id),
            }
            for id in self.reach(&row.layers) {
                let count = users.entry(id).or_insert(1);
                *count -= 1;
                if *count == 0 && limits.allow_layer(&id) {
                    plan.layers.push(id);
                    self.count_down(id, &mut left);
                }
            }
        }
        take_loose(i64::MAX, &mut plan, &mut left);
        let of_layers: HashSet<_> =
            plan.layers.iter().flat_map(|id| &self.layers[id].blobs).collect();
        plan.blobs = self.unused_blobs(&plan);
        plan.blobs.retain(|digest| {
            of_layers.contains(digest)
                || limits.allow(&crate::layer::hex(digest)) && old(self.blobs[digest].used)
        });
        plan
    }

    /// How many images, results and layers in use lead to each layer.
    fn users(&self) -> HashMap<LayerId, usize> {
        let mut users: HashMap<LayerId, usize> = self.layers.keys().map(|id| (*id, 0)).collect();
        let in_use = self.layers.iter().filter(|(_, layer)| layer.in_use).map(|(id, _)| vec![*id]);
        let results = self.holders.iter().map(|row| row.layers.clone());
        for id in self
            .images
            .iter()
            .cloned()
            .chain(in_use)
            .chain(results)
            .flat_map(|chain| self.reach(&chain))
        {
            *users.entry(id).or_default() += 1;
        }
        users
    }

    /// Takes what a layer frees from what is still to be freed.
    fn count_down(&self, id: LayerId, left: &mut Option<u64>) {
        let (Some(left), Some(layer)) = (left, self.layers.get(&id)) else { return };
        let blobs = layer.blobs.iter().filter_map(|digest| self.blobs.get(digest));
        let bytes =
            layer.bytes + blobs.filter(|blob| !blob.kept).map(|blob| blob.bytes).sum::<u64>();
        *left = left.saturating_sub(bytes);
    }

    fn unused_blobs(&self, plan: &Plan) -> Vec<[u8; 32]> {
        let gone: HashSet<&LayerId> = plan.layers.iter().collect();
        let images: HashSet<&[u8; 32]> = plan.images.iter().collect();
        let keeping =
            self.layers.iter().filter(|(id, layer)| !gone.contains(id) && !layer.sheds_blobs);
        let stays = |row: &&Holder| !matches!(&row.id, RowId::Image(id) if images.contains(id));
        let configs = self.holders.iter().filter(stays).flat_map(|row| &row.configs);
        let needed: HashSet<&[u8; 32]> =
            keeping.flat_map(|(_, layer)| &layer.blobs).chain(configs).collect();
        let unused =
            self.blobs.iter().filter(|(digest, blob)| !blob.kept && !needed.contains(digest));
        unused.map(|(digest, _)| *digest).collect()
    }
}

impl Plan {
    pub(super) fn freed(&self) -> Freed {
        Freed {
            results: self.results.len(),
            images: self.images.len(),
            layers: self.layers.len(),
            blobs: self.blobs.len(),
            mounts: self.mounts.len(),
            bytes: 0,
            entries: Vec::new(),
        }
    }

    pub(super) fn delete(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut delete = transaction.prepare("DELETE FROM result WHERE id = ?1")?;
        self.results.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        for sql in ["DELETE FROM image WHERE id = ?1", "DELETE FROM variant WHERE image = ?1"] {
            let mut delete = transaction.prepare(sql)?;
            self.images.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
        }
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
