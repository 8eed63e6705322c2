//! Layers as rows of the database: found, made, forgotten.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use fs_err as fs;
use llb::image::{Descriptor, media_type};
use llb::{DiffId, Digest};
use rusqlite::{OptionalExtension, params};

use super::chain::Chain;
use super::{Aside, Files, Known, Layer, LayerId, LayerInner, LayerMeta};
use tree::sketch::Unplaced;

use crate::blob::Ingest;
use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode};
use crate::reference::Ref;
use crate::store::{Store, now};

impl Store {
    /// The lowest layer of an image: [`base_layer_over`](Self::base_layer_over) nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub fn base_layer(
        &self,
        diff_id: DiffId,
        descriptor: &Descriptor,
        origin: String,
    ) -> Result<Layer, CacheError> {
        self.base_layer_over(&Ref::scratch(), diff_id, descriptor, origin)
    }

    /// The layers of an image, lowest first, each over those before it; see [`base_layer_over`](Self::base_layer_over).
    ///
    /// # Errors
    /// When the database fails.
    pub fn base_layers<'a>(
        &self,
        layers: impl IntoIterator<Item = (DiffId, &'a Descriptor)>,
        origin: &str,
    ) -> Result<Ref, CacheError> {
        layers.into_iter().try_fold(Ref::scratch(), |below, (diff_id, descriptor)| {
            let layer = self.base_layer_over(&below, diff_id, descriptor, origin.to_owned())?;
            Ok(below.push(layer))
        })
    }

    /// The layer of an image with this diff id over `below`, to be fetched as `descriptor` from `origin` when
    /// a form asks for it. A layer known already gets the blob as one more. Without an origin the blob is in the store
    /// already, and nowhere else.
    ///
    /// What lies below counts, since directories that the layer's tar does not list take their attributes from there.
    ///
    /// # Errors
    /// When the database fails.
    pub fn base_layer_over(
        &self,
        below: &Ref,
        diff_id: DiffId,
        descriptor: &Descriptor,
        origin: impl Into<Option<String>>,
    ) -> Result<Layer, CacheError> {
        let (inner, origin) = (&self.0, origin.into());
        let boot = inner.boot()?;
        let fresh = crate::store::random_bytes()?;
        let text = serde_json::to_string(descriptor)
            .map_err(|error| CacheError::io(&inner.root, error.into()))?;
        let parents = Chain::of(below).pack();
        let id = inner.write_as_user(|transaction, generation| {
            let sql = "INSERT INTO layer (id, base, dir, diff_id, parents, description, created, used, generation, boot)
                VALUES (?1, 1, 0, ?2, ?3, ?4, ?5, ?5, ?6, ?7)
                ON CONFLICT (diff_id, parents) WHERE base DO UPDATE SET used = excluded.used,
                generation = MAX(generation, excluded.generation) RETURNING id";
            let description = format!("base layer {diff_id}");
            let values = params![fresh, diff_id.0.as_bytes(), parents, description, now(), generation, boot];
            let id: [u8; 16] = transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
            let sql = "INSERT INTO layer_blob (layer, digest, codec, descriptor, origin) VALUES (?1, ?2, '', ?3, ?4)
                ON CONFLICT (layer, digest) DO UPDATE SET descriptor = excluded.descriptor,
                origin = COALESCE(excluded.origin, origin)";
            transaction.prepare_cached(sql)?.execute(params![id, descriptor.digest.as_bytes(), text, origin])?;
            Ok(LayerId(id))
        })?;
        self.layer(&id)?.ok_or_else(|| CacheError::LayerGone(id.to_string()))
    }

    /// The layer `id`, if the store has it in any form.
    ///
    /// # Errors
    /// When the database or file system fails.
    pub fn layer(&self, id: &LayerId) -> Result<Option<Layer>, CacheError> {
        let inner = &self.0;
        if let Some(layer) = self.shared(id)
            && (!layer.has_dir() || layer.layer_dir().path().is_dir())
        {
            return Ok(Some(layer));
        }
        let generation = inner.generation()?;
        let row = inner.read(|db| {
            db.prepare_cached(
                "SELECT base, dir, diff_id, parents, created, generation FROM layer WHERE id = ?1",
            )?
            .query_row([id.0], LayerRow::read)
            .optional()
        })?;
        let Some(mut row) = row else { return Ok(None) };
        if row.generation < generation {
            let kept = inner.write(|transaction| {
                transaction
                    .prepare_cached("UPDATE layer SET used = ?2, generation = MAX(generation, ?3) WHERE id = ?1")?
                    .execute(params![id.0, now(), generation])
            })?;
            if kept == 0 {
                return Ok(None);
            }
        }
        let files = inner.layer_path(id);
        match row.files {
            Files::Dir if !files.join("fs").is_dir() => {
                row.files = Files::None;
                if !self.forget_files(id)? {
                    return Ok(None);
                }
            }
            Files::Packed => {
                let blob = row.diff_id.map_or(Ok(None), |diff_id| self.blob(&diff_id.0))?;
                if blob.is_none() {
                    return self.drop_layer(id).map(|()| None);
                }
                if !files.join("index").is_file() {
                    row.files = Files::None;
                    self.forget_files(id)?;
                }
            }
            Files::Dir | Files::None => {}
        }
        let Some(below) = self.chain(row.parents)? else {
            return self.drop_layer(id).map(|()| None);
        };
        Ok(Some(self.share(LayerInner {
            store: self.clone(),
            id: *id,
            is_base: row.base,
            created: row.created,
            below,
            making: Mutex::new(()),
            known: Mutex::new(Known { files: row.files, diff_id: row.diff_id, ..Known::default() }),
            is_listed: listed(),
        })))
    }

    /// Bytes of a layer's uncompressed tar; `None` for a layer that was never read, or is gone. Nothing else of the
    /// layer is looked at.
    ///
    /// # Errors
    /// When the database fails.
    pub fn layer_size(&self, id: &LayerId) -> Result<Option<u64>, CacheError> {
        self.settle()?;
        let size = self.0.read(|db| {
            let mut statement = db.prepare_cached("SELECT size FROM layer WHERE id = ?1")?;
            statement.query_row([id.0], |row| row.get::<_, Option<i64>>(0)).optional()
        })?;
        Ok(size.flatten().map(i64::unsigned_abs))
    }

    /// The layers of a chain, if the store has every one.
    pub(crate) fn chain(&self, chain: Chain) -> Result<Option<Ref>, CacheError> {
        // One that is in use has been looked at before.
        if let Chain::Whole(top) = &chain
            && let Some(top) = self.shared(top)
        {
            return Ok(Some(top.below().push(top.clone())));
        }
        // From the lowest up, so that each finds those below it in use.
        match self.0.read(|db| chain.ids(db))? {
            Some(ids) => self.reference(&ids),
            None => Ok(None),
        }
    }

    /// The object that others in the process have of a layer.
    fn shared(&self, id: &LayerId) -> Option<Layer> {
        self.0
            .layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .and_then(Weak::upgrade)
            .map(Layer)
    }

    /// One object for each layer in the process, so that a form is waited for by all.
    pub(crate) fn share(&self, layer: LayerInner) -> Layer {
        let files = layer.known.lock().unwrap_or_else(PoisonError::into_inner).files;
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = layers.get(&layer.id).and_then(Weak::upgrade) {
            let mut known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
            // A folder made meanwhile by another thread is newer than the row; what is lost is lost.
            if files == Files::None {
                known.files = files;
            }
            drop(known);
            return Layer(shared);
        }
        if layers.len() > 4096 {
            layers.retain(|_, layer| layer.strong_count() > 0);
        }
        let layer = Arc::new(layer);
        layers.insert(layer.id, Arc::downgrade(&layer));
        Layer(layer)
    }

    /// Notes that a layer's folder or index is missing; false when it has no other form and is dropped.
    fn forget_files(&self, id: &LayerId) -> Result<bool, CacheError> {
        let blobs: Vec<([u8; 32], Option<String>)> = self.0.read(|db| {
            let sql =
                "SELECT digest, origin FROM layer_blob WHERE layer = ?1 AND instr(codec, '@') = 0";
            db.prepare_cached(sql)?
                .query_map([id.0], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        for (digest, origin) in blobs {
            if origin.is_some() || self.blob(&Digest::from_bytes(digest))?.is_some() {
                self.0.write(|transaction| {
                    transaction.execute("UPDATE layer SET dir = 0 WHERE id = ?1", [id.0])
                })?;
                return Ok(true);
            }
        }
        self.drop_layer(id).map(|()| false)
    }

    /// Forgets a layer whose folder proved damaged, and with it every result that has it.
    ///
    /// # Errors
    /// When the database or file system fails.
    pub fn discard_layer(&self, layer: &Layer) -> Result<(), CacheError> {
        let path = self.0.layer_path(&layer.id());
        self.drop_layer(&layer.id())?;
        crate::removal::remove_tree(&path).at(&path)
    }

    /// Forgets a layer that cannot be had any more.
    pub(crate) fn drop_layer(&self, id: &LayerId) -> Result<(), CacheError> {
        self.0.write(|transaction| {
            transaction.execute("DELETE FROM layer WHERE id = ?1", [id.0])?;
            transaction.execute("DELETE FROM layer_blob WHERE layer = ?1", [id.0]).map(drop)
        })
    }

    /// Takes a finished folder as a new layer over `below`. It gets its row with the next transaction; until then a lock
    /// keeps it from being taken for a folder that nobody knows.
    pub(crate) fn add_layer(
        &self,
        folder: Aside,
        below: Ref,
        meta: &LayerMeta,
    ) -> Result<Layer, CacheError> {
        let inner = &self.0;
        let id = LayerId(crate::store::random_bytes()?);
        let (boot, generation) = (inner.boot()?.to_owned(), inner.generation()?);
        let parents = Chain::of(&below).pack();
        let created = crate::store::nanoseconds(meta.created);
        let (target, description) = (inner.layer_path(&id), meta.description.clone());
        let kept = Lock::wait(&inner.unlisted_lock(&id.to_string()), Mode::Shared)?;
        fs::rename(&folder.0, &target).at(&target)?;
        let is_listed = Arc::new(AtomicBool::new(false));
        let listing = Arc::clone(&is_listed);
        inner.defer(move |transaction, database| {
            let _ = &kept;
            let sql = "INSERT INTO layer (id, base, dir, parents, description, created, used, generation, boot)
                VALUES (?1, 0, 1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let values = params![id.0, parents, description, created, now(), generation, boot];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database)?;
            listing.store(true, Ordering::Release);
            Ok(())
        });
        Ok(self.share(LayerInner {
            store: self.clone(),
            id,
            is_base: false,
            created,
            below,
            making: Mutex::new(()),
            known: Mutex::new(Known { files: Files::Dir, ..Known::default() }),
            is_listed,
        }))
    }

    /// Takes a written tar with its index as a new layer over `below`.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn add_packed(
        &self,
        mut tar: Ingest,
        layer: Unplaced,
        below: &Ref,
        meta: &LayerMeta,
    ) -> Result<Layer, CacheError> {
        let inner = &self.0;
        let id = LayerId(crate::store::random_bytes()?);
        let (boot, generation) = (inner.boot()?, inner.generation()?);
        let packed = layer.place(tar.reopen()?);
        let aside = Aside(inner.process()?.fresh());
        crate::workspace::make_folder(&aside.0)?;
        let index = aside.0.join("index");
        fs::write(&index, packed.encode()).at(&index)?;
        let parents = Chain::of(below).pack();
        let created = crate::store::nanoseconds(meta.created);
        let target = inner.layer_path(&id);
        let (digest, size) = tar.commit_with(|transaction, database, digest, size| {
            fs::rename(&aside.0, &target).at(&target)?;
            let sql = "INSERT INTO layer (id, base, dir, diff_id, size, parents, description, created, used, generation, boot)
                VALUES (?1, 0, 2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let (description, size) = (&meta.description, size.cast_signed());
            let values = params![
                id.0, digest.as_bytes(), size, parents, description, created, now(), generation, boot
            ];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database)?;
            let text = serde_json::to_string(&Descriptor::new(media_type::OCI_LAYER, *digest, size.cast_unsigned()))
                .map_err(|error| CacheError::io(&inner.root, error.into()))?;
            let sql = "INSERT INTO layer_blob (layer, digest, codec, descriptor) VALUES (?1, ?2, ?3, ?4)";
            let values = params![id.0, digest.as_bytes(), super::PACKED, text];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database).map(drop)
        })?;
        let _ = size;
        let known = Known {
            files: Files::Packed,
            diff_id: Some(DiffId(digest)),
            packed: Some(packed),
            ..Known::default()
        };
        Ok(self.share(LayerInner {
            store: self.clone(),
            id,
            is_base: false,
            created,
            below: below.clone(),
            making: Mutex::new(()),
            known: Mutex::new(known),
            is_listed: listed(),
        }))
    }
}

/// Of a layer that has its row.
fn listed() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

struct LayerRow {
    base: bool,
    files: Files,
    diff_id: Option<DiffId>,
    parents: Chain,
    created: i64,
    generation: i64,
}

impl LayerRow {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            base: row.get(0)?,
            files: row.get(1)?,
            diff_id: row
                .get::<_, Option<[u8; 32]>>(2)?
                .map(|hash| DiffId(Digest::from_bytes(hash))),
            parents: Chain::unpack(&row.get::<_, Vec<u8>>(3)?),
            created: row.get(4)?,
            generation: row.get(5)?,
        })
    }
}
