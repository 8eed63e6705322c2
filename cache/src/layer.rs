//! Layers and their forms.
//!
//! A layer is the change one step made. It has one or more forms, each made once, when first asked for,
//! and shared by all who wait for it:
//!
//! | form | is | made from |
//! |---|---|---|
//! | descriptor | where a blob of it can be fetched | given |
//! | blob(codec) | its tar, plain or compressed, under `blobs/` | the folder, or another blob |
//! | dir | a folder usable as an overlay lower, `layers/<id>/fs` | a workspace, or a blob |
//!
//! Invariants:
//! - A folder under `layers/` never changes once it has its name.
//! - A form is made while holding the layer's lock, in this process a mutex and between processes `flock`.
//! - What a form loses on the disk is taken from its row; a layer without any form is dropped.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use fs_err as fs;
use llb::image::{Descriptor, media_type};
use llb::{DiffId, Digest};
use rusqlite::{OptionalExtension, params};
use tree::codec::{Codec, Compressor, HashReader, HashWriter};
use tree::layer::LayerDir;
use tree::stack::Stack;

use crate::blob::BlobFile;
use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode};
use crate::reference::Ref;
use crate::store::{Store, now, time};

/// Name of a layer in one store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(pub(crate) [u8; 16]);

impl LayerId {
    pub(crate) fn pack(ids: impl IntoIterator<Item = Self>) -> Vec<u8> {
        ids.into_iter().flat_map(|id| id.0).collect()
    }

    /// Ids packed by [`pack`](Self::pack); a damaged tail is ignored.
    pub(crate) fn unpack(bytes: &[u8]) -> Vec<Self> {
        bytes.as_chunks::<16>().0.iter().map(|id| Self(*id)).collect()
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of a layer made by a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerMeta {
    /// When it was made.
    pub created: SystemTime,
    /// What made it, for people.
    pub description: String,
}

impl LayerMeta {
    /// A layer made now.
    pub fn now(description: impl Into<String>) -> Self {
        Self { created: SystemTime::now(), description: description.into() }
    }
}

/// A layer; cheap to clone. Two are equal when they have the same id.
#[derive(Clone)]
pub struct Layer(pub(crate) Arc<LayerInner>);

pub(crate) struct LayerInner {
    pub(crate) store: Store,
    pub(crate) id: LayerId,
    is_base: bool,
    created: i64,
    parents: Vec<LayerId>,
    /// The layers it was made over, as long as they are at hand.
    below: Vec<Layer>,
    /// Held while a form is made.
    making: Mutex<()>,
    known: Mutex<Known>,
}

/// What has been found out about a layer.
#[derive(Default)]
struct Known {
    dir: bool,
    diff_id: Option<DiffId>,
}

impl PartialEq for Layer {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Layer {}

impl Hash for Layer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layer({})", self.0.id)
    }
}

/// A blob known to hold a layer.
#[derive(Debug, Clone)]
struct KnownBlob {
    codec: String,
    descriptor: Descriptor,
    origin: Option<String>,
}

impl Layer {
    /// Its name.
    pub fn id(&self) -> LayerId {
        self.0.id
    }

    /// When it was made.
    pub fn created(&self) -> SystemTime {
        time(self.0.created)
    }

    /// Whether it comes from an image, not from a step.
    pub fn is_base(&self) -> bool {
        self.0.is_base
    }

    /// Whether it has a folder already.
    pub fn has_dir(&self) -> bool {
        self.known().dir
    }

    /// A blob of it that can be fetched elsewhere, if one is known.
    ///
    /// # Errors
    /// When the database fails.
    pub fn descriptor(&self) -> Result<Option<Descriptor>, CacheError> {
        Ok(self.remote()?.map(|blob| blob.descriptor))
    }

    /// Where [`descriptor`](Self::descriptor) can be fetched.
    ///
    /// # Errors
    /// When the database fails.
    pub fn origin(&self) -> Result<Option<String>, CacheError> {
        Ok(self.remote()?.and_then(|blob| blob.origin))
    }

    /// Its folder, unpacked from a blob if need be.
    ///
    /// # Errors
    /// When no blob can be had or it cannot be unpacked.
    pub fn dir(&self) -> Result<LayerDir, CacheError> {
        if !self.has_dir() {
            let _turn = self.turn()?;
            self.refresh()?;
            if !self.has_dir() {
                self.unpack()?;
            }
        }
        Ok(self.layer_dir())
    }

    /// Digest of its uncompressed tar, which is written and hashed, not kept, when it is not known.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn diff_id(&self) -> Result<DiffId, CacheError> {
        if let Some(diff_id) = self.known().diff_id {
            return Ok(diff_id);
        }
        let _turn = self.turn()?;
        self.refresh()?;
        if let Some(diff_id) = self.known().diff_id {
            return Ok(diff_id);
        }
        let mut out = HashWriter::new(io::sink());
        self.write_tar(&mut out)?;
        let (_, hash, size) = out.finish();
        let diff_id = DiffId(Digest::from_bytes(hash));
        self.save_diff_id(diff_id, size)?;
        Ok(diff_id)
    }

    /// A blob of it in any compression: one in the store, else one that can be fetched, else a new one
    /// made with `codec`.
    ///
    /// # Errors
    /// When no blob can be made.
    pub fn blob_any(&self, codec: Codec) -> Result<Descriptor, CacheError> {
        for blob in self.blobs()? {
            if self.0.store.blob(&blob.descriptor.digest)?.is_some() {
                return Ok(blob.descriptor);
            }
        }
        if let Some(blob) = self.remote()? {
            let _turn = self.turn()?;
            self.fetch(&blob)?;
            return Ok(blob.descriptor);
        }
        self.blob(codec)
    }

    /// Its blob as `codec` makes it, now in the store.
    ///
    /// # Errors
    /// When the blob cannot be made.
    pub fn blob(&self, codec: Codec) -> Result<Descriptor, CacheError> {
        let _turn = self.turn()?;
        self.refresh()?;
        let name = codec_name(codec);
        for blob in self.blobs()?.into_iter().filter(|blob| blob.codec == name) {
            if self.0.store.blob(&blob.descriptor.digest)?.is_some() {
                return Ok(blob.descriptor);
            }
        }
        let ingest = self.0.store.ingest()?;
        let compressor =
            Compressor::new(ingest, codec).map_err(|error| self.failed("compress", error))?;
        let mut out = HashWriter::new(compressor);
        self.write_tar(&mut out)?;
        let (compressor, hash, size) = out.finish();
        let ingest = compressor.finish().map_err(|error| self.failed("compress", error))?;
        let diff_id = DiffId(Digest::from_bytes(hash));
        self.check_diff_id(diff_id)?;
        let (digest, length) = ingest.commit(None)?;
        let descriptor = descriptor(media_type_of(codec), digest, length);
        self.save_blob(&name, &descriptor, None)?;
        self.save_diff_id(diff_id, size)?;
        Ok(descriptor)
    }

    /// Descriptors of all blobs of it that are known, in the store or elsewhere.
    ///
    /// # Errors
    /// When the database fails.
    pub fn known_blobs(&self) -> Result<Vec<Descriptor>, CacheError> {
        Ok(self.blobs()?.into_iter().map(|blob| blob.descriptor).collect())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layer_dir(&self) -> LayerDir {
        LayerDir::new(self.0.store.0.layer_path(&self.0.id).join("fs"))
    }

    fn failed(&self, action: &'static str, error: io::Error) -> CacheError {
        CacheError::layer(action, &self.0.id.to_string(), &self.0.store.0.root, error)
    }

    /// The right to make a form, in this process and among all.
    fn turn(&self) -> Result<(MutexGuard<'_, ()>, Lock), CacheError> {
        let here = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.0.store.0.lock_path("layer", &self.0.id.to_string());
        Ok((here, Lock::wait(&path, Mode::Exclusive)?))
    }

    /// Learns what another process has made meanwhile.
    fn refresh(&self) -> Result<(), CacheError> {
        let row = self.0.store.0.read(|db| {
            db.prepare_cached("SELECT dir, diff_id FROM layer WHERE id = ?1")?
                .query_row([self.0.id.0], |row| {
                    Ok((row.get(0)?, row.get::<_, Option<[u8; 32]>>(1)?))
                })
                .optional()
        })?;
        let (dir, diff_id) = row.ok_or_else(|| CacheError::LayerGone(self.0.id.to_string()))?;
        *self.known() =
            Known { dir, diff_id: diff_id.map(|hash| DiffId(Digest::from_bytes(hash))) };
        Ok(())
    }

    fn blobs(&self) -> Result<Vec<KnownBlob>, CacheError> {
        let rows: Vec<(String, String, Option<String>)> = self.0.store.0.read(|db| {
            db.prepare_cached("SELECT codec, descriptor, origin FROM layer_blob WHERE layer = ?1")?
                .query_map([self.0.id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect()
        })?;
        // A descriptor that cannot be read is one that is not there.
        let blob = |(codec, text, origin): (String, String, Option<String>)| {
            Some(KnownBlob { codec, descriptor: serde_json::from_str(&text).ok()?, origin })
        };
        Ok(rows.into_iter().filter_map(blob).collect())
    }

    fn remote(&self) -> Result<Option<KnownBlob>, CacheError> {
        Ok(self.blobs()?.into_iter().find(|blob| blob.origin.is_some()))
    }

    /// Writes the layer's tar: from the folder if there is one, else from a blob.
    fn write_tar(&self, out: &mut dyn Write) -> Result<(), CacheError> {
        let store = &self.0.store;
        if self.has_dir() && !self.0.is_base {
            let lower = self.lower()?;
            return tree::diff::write_layer(&self.layer_dir(), &lower, store.encoding(), out)
                .map_err(|error| self.failed("write", error));
        }
        // A folder unpacked from a blob need not give the same tar again. What has gone out already
        // cannot be taken back, so a damaged blob ends this.
        let blob = self.any_blob()?;
        let mut tar = self.open_tar(&blob)?;
        io::copy(&mut tar, out).map(drop).map_err(|error| self.failed("read", error))
    }

    /// The merged tree the layer was made over.
    fn lower(&self) -> Result<Stack, CacheError> {
        if self.0.below.len() != self.0.parents.len() {
            return Err(CacheError::LayerGone(self.0.id.to_string()));
        }
        Ok(Stack::new(self.0.below.iter().map(Self::dir).collect::<Result<_, _>>()?))
    }

    /// A blob of the layer, fetched if need be.
    fn any_blob(&self) -> Result<BlobFile, CacheError> {
        for blob in self.blobs()? {
            if let Some(file) = self.0.store.blob(&blob.descriptor.digest)? {
                return Ok(file);
            }
        }
        match self.remote()? {
            Some(remote) => self.fetch(&remote),
            None => {
                self.0.store.drop_layer(&self.0.id)?;
                Err(CacheError::LayerGone(self.0.id.to_string()))
            }
        }
    }

    /// Does something with a blob of the layer, and again with another one if that proves damaged.
    fn with_blob<T>(
        &self,
        mut body: impl FnMut(&BlobFile) -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let blob = self.any_blob()?;
        match body(&blob) {
            Err(_) if !blob.is_whole()? => body(&self.any_blob()?),
            other => other,
        }
    }

    fn open_tar(&self, blob: &BlobFile) -> Result<Box<dyn io::Read + Send>, CacheError> {
        tree::codec::decompress(Box::new(blob.open()?))
            .map_err(|error| self.failed("decompress", error))
    }

    /// Brings a blob from its origin into the store.
    fn fetch(&self, blob: &KnownBlob) -> Result<BlobFile, CacheError> {
        let store = &self.0.store;
        let digest = blob.descriptor.digest;
        if let Some(file) = store.blob(&digest)? {
            return Ok(file);
        }
        let origin = blob.origin.as_deref().unwrap_or_default();
        let failed = |source| CacheError::Fetch { digest, origin: origin.to_owned(), source };
        let mut reader = store.0.provider.open(origin, &blob.descriptor).map_err(failed)?;
        let mut ingest = store.ingest()?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            // Reading is the provider's failure, writing the disk's.
            let length = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error.into())),
            };
            if ingest.size() + length as u64 > blob.descriptor.size {
                return Err(failed(format!("more than {} bytes", blob.descriptor.size).into()));
            }
            ingest.write_all(&buffer[..length]).at(&store.0.blob_path(&digest))?;
        }
        ingest.commit(Some(digest))?;
        store.blob(&digest)?.ok_or_else(|| CacheError::LayerGone(self.0.id.to_string()))
    }

    /// Makes the folder from a blob.
    fn unpack(&self) -> Result<(), CacheError> {
        let store = &self.0.store.0;
        let (aside, diff_id, size) = self.with_blob(|blob| self.unpack_aside(blob))?;
        self.check_diff_id(diff_id)?;
        let boot = store.boot()?;
        let target = store.layer_path(&self.0.id);
        store.write_files(|transaction, database| {
            crate::process::remove_tree(&target).at(&target)?;
            fs::rename(&aside.0, &target).at(&target)?;
            let sql = "UPDATE layer SET dir = 1, diff_id = ?2, size = ?3, disk = NULL, boot = ?4, synced = 0 WHERE id = ?1";
            let values = params![self.0.id.0, diff_id.0.as_bytes(), size.cast_signed(), boot];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database)
        })?;
        *self.known() = Known { dir: true, diff_id: Some(diff_id) };
        Ok(())
    }

    /// Unpacks a blob into a folder that has no name yet.
    fn unpack_aside(&self, blob: &BlobFile) -> Result<(Aside, DiffId, u64), CacheError> {
        let store = &self.0.store.0;
        let aside = Aside(store.process()?.fresh());
        let fs_path = aside.0.join("fs");
        for folder in [&aside.0, &fs_path] {
            crate::workspace::make_folder(folder)?;
        }
        let failed = |error| self.failed("unpack", error);
        let into = LayerDir::new(fs_path);
        let mut tar = HashReader::new(self.open_tar(blob)?);
        let applied = tree::apply::apply_layer(&mut tar, &into, store.encoding).map_err(failed)?;
        // The end of a tar is not the end of the stream that is hashed.
        io::copy(&mut tar, &mut io::sink()).map_err(failed)?;
        if !applied.implied.is_empty() {
            tree::apply::adopt_parents(&into, &applied.implied, &self.lower()?).map_err(failed)?;
        }
        let (_, hash, size) = tar.finish();
        Ok((aside, DiffId(Digest::from_bytes(hash)), size))
    }

    fn check_diff_id(&self, actual: DiffId) -> Result<(), CacheError> {
        match self.known().diff_id {
            Some(expected) if expected != actual => Err(CacheError::DigestMismatch {
                what: format!("layer {} uncompressed", self.0.id),
                expected: expected.0,
                actual: actual.0,
            }),
            _ => Ok(()),
        }
    }

    fn save_diff_id(&self, diff_id: DiffId, size: u64) -> Result<(), CacheError> {
        self.0.store.0.write(|transaction| {
            transaction
                .prepare_cached("UPDATE layer SET diff_id = ?2, size = ?3 WHERE id = ?1")?
                .execute(params![self.0.id.0, diff_id.0.as_bytes(), size.cast_signed()])
        })?;
        self.known().diff_id = Some(diff_id);
        Ok(())
    }

    fn save_blob(
        &self,
        codec: &str,
        descriptor: &Descriptor,
        origin: Option<&str>,
    ) -> Result<(), CacheError> {
        let text = serde_json::to_string(descriptor)
            .map_err(|error| self.failed("describe", error.into()))?;
        self.0.store.0.write(|transaction| {
            let sql = "INSERT INTO layer_blob (layer, digest, codec, descriptor, origin) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (layer, digest) DO UPDATE SET codec = excluded.codec, origin = COALESCE(excluded.origin, origin)";
            let values = params![self.0.id.0, descriptor.digest.as_bytes(), codec, text, origin];
            transaction.prepare_cached(sql)?.execute(values).map(drop)
        })
    }
}

/// A folder that is removed when dropped, unless it has been renamed.
#[derive(Debug)]
pub(crate) struct Aside(pub(crate) PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = crate::process::remove_tree(&self.0);
    }
}

fn codec_name(codec: Codec) -> String {
    match codec {
        Codec::Plain => "plain".to_owned(),
        Codec::Gzip(level) => format!("gzip {level}"),
        Codec::Zstd(level) => format!("zstd {level}"),
    }
}

fn media_type_of(codec: Codec) -> &'static str {
    match codec {
        Codec::Plain => media_type::OCI_LAYER,
        Codec::Gzip(_) => media_type::OCI_LAYER_GZIP,
        Codec::Zstd(_) => media_type::OCI_LAYER_ZSTD,
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        urls: None,
        annotations: None,
        data: None,
        platform: None,
        artifact_type: None,
    }
}

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

    /// The layer of an image with this diff id over `below`, to be fetched as `descriptor` from `origin` when
    /// a form asks for it. A layer known already gets the blob as one more.
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
        origin: String,
    ) -> Result<Layer, CacheError> {
        let inner = &self.0;
        let (boot, generation) = (inner.boot()?, inner.generation()?);
        let fresh = crate::store::random_bytes()?;
        let text = serde_json::to_string(descriptor)
            .map_err(|error| CacheError::io(&inner.root, error.into()))?;
        let parents = LayerId::pack(below.layers().iter().map(Layer::id));
        let id = inner.write(|transaction| {
            let sql = "INSERT INTO layer (id, base, dir, diff_id, parents, description, created, used, generation, boot)
                VALUES (?1, 1, 0, ?2, ?3, ?4, ?5, ?5, ?6, ?7)
                ON CONFLICT (diff_id, parents) WHERE base DO UPDATE SET used = excluded.used,
                generation = MAX(generation, excluded.generation) RETURNING id";
            let description = format!("base layer {diff_id}");
            let values = params![fresh, diff_id.0.as_bytes(), parents, description, now(), generation, boot];
            let id: [u8; 16] = transaction.prepare_cached(sql)?.query_row(values, |row| row.get(0))?;
            let sql = "INSERT INTO layer_blob (layer, digest, codec, descriptor, origin) VALUES (?1, ?2, '', ?3, ?4)
                ON CONFLICT (layer, digest) DO UPDATE SET descriptor = excluded.descriptor, origin = excluded.origin";
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
        let shared = inner
            .layers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .and_then(Weak::upgrade);
        if let Some(layer) = shared.map(Layer)
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
        if row.dir && !inner.layer_path(id).join("fs").is_dir() {
            row.dir = false;
            if !self.forget_dir(id)? {
                return Ok(None);
            }
        }
        let mut below = Vec::with_capacity(row.parents.len());
        for parent in &row.parents {
            match self.layer(parent)? {
                Some(layer) => below.push(layer),
                None => return self.drop_layer(id).map(|()| None),
            }
        }
        Ok(Some(self.share(LayerInner {
            store: self.clone(),
            id: *id,
            is_base: row.base,
            created: row.created,
            parents: row.parents,
            below,
            making: Mutex::new(()),
            known: Mutex::new(Known { dir: row.dir, diff_id: row.diff_id }),
        })))
    }

    /// One object for each layer in the process, so that a form is waited for by all.
    pub(crate) fn share(&self, layer: LayerInner) -> Layer {
        let row_has_dir = layer.known.lock().unwrap_or_else(PoisonError::into_inner).dir;
        let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = layers.get(&layer.id).and_then(Weak::upgrade) {
            shared.known.lock().unwrap_or_else(PoisonError::into_inner).dir &= row_has_dir;
            return Layer(shared);
        }
        if layers.len() > 4096 {
            layers.retain(|_, layer| layer.strong_count() > 0);
        }
        let layer = Arc::new(layer);
        layers.insert(layer.id, Arc::downgrade(&layer));
        Layer(layer)
    }

    /// Notes that a layer's folder is missing; false when it has no other form and is dropped.
    fn forget_dir(&self, id: &LayerId) -> Result<bool, CacheError> {
        let blobs: Vec<([u8; 32], Option<String>)> = self.0.read(|db| {
            db.prepare_cached("SELECT digest, origin FROM layer_blob WHERE layer = ?1")?
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

    /// Forgets a layer that cannot be had any more.
    pub(crate) fn drop_layer(&self, id: &LayerId) -> Result<(), CacheError> {
        self.0.write(|transaction| {
            transaction.execute("DELETE FROM layer WHERE id = ?1", [id.0])?;
            transaction.execute("DELETE FROM layer_blob WHERE layer = ?1", [id.0]).map(drop)
        })
    }

    /// Takes a finished folder as a new layer over `below`.
    pub(crate) fn add_layer(
        &self,
        folder: &Aside,
        below: Vec<Layer>,
        meta: &LayerMeta,
    ) -> Result<Layer, CacheError> {
        let inner = &self.0;
        let id = LayerId(crate::store::random_bytes()?);
        let (boot, generation) = (inner.boot()?, inner.generation()?);
        let parents: Vec<LayerId> = below.iter().map(Layer::id).collect();
        let created = crate::store::nanoseconds(meta.created);
        let target = inner.layer_path(&id);
        inner.write_files(|transaction, database| {
            fs::rename(&folder.0, &target).at(&target)?;
            let sql = "INSERT INTO layer (id, base, dir, parents, description, created, used, generation, boot)
                VALUES (?1, 0, 1, ?2, ?3, ?4, ?5, ?6, ?7)";
            let packed = LayerId::pack(parents.iter().copied());
            let values = params![id.0, packed, meta.description, created, now(), generation, boot];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database)
        })?;
        Ok(self.share(LayerInner {
            store: self.clone(),
            id,
            is_base: false,
            created,
            parents,
            below,
            making: Mutex::new(()),
            known: Mutex::new(Known { dir: true, diff_id: None }),
        }))
    }
}

struct LayerRow {
    base: bool,
    dir: bool,
    diff_id: Option<DiffId>,
    parents: Vec<LayerId>,
    created: i64,
    generation: i64,
}

impl LayerRow {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            base: row.get(0)?,
            dir: row.get(1)?,
            diff_id: row
                .get::<_, Option<[u8; 32]>>(2)?
                .map(|hash| DiffId(Digest::from_bytes(hash))),
            parents: LayerId::unpack(&row.get::<_, Vec<u8>>(3)?),
            created: row.get(4)?,
            generation: row.get(5)?,
        })
    }
}
