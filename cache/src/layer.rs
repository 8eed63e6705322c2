//! Layers and their forms.
//!
//! A layer is the change one step made. It has one or more forms, each made once, when first asked for,
//! and shared by all who wait for it:
//!
//! | form | is | made from |
//! |---|---|---|
//! | descriptor | where a blob of it can be fetched | given |
//! | blob(codec) | its tar, plain or compressed, under `blobs/` | the folder, or another blob |
//! | packed | an index over its plain blob, by which it is read in place, `layers/<id>/index` | a sketch |
//! | dir | a folder usable as an overlay lower, `layers/<id>/fs` | a workspace, the packed form, or a blob |
//!
//! Invariants:
//! - A folder under `layers/` never changes once it has its name.
//! - A form is made while holding the layer's lock, in this process a mutex and between processes `flock`.
//! - What a form loses on the disk is taken from its row; a layer without any form is dropped.

mod arriving;
mod chain;
mod rewrite;
mod rows;
mod unpack;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use fs_err as fs;
use llb::image::{Descriptor, media_type};
use llb::{DiffId, Digest};
use rusqlite::{OptionalExtension, params};
use tree::codec::{Codec, Compressor, HashWriter};
use tree::layer::LayerDir;
use tree::stack::Stack;
use tree::trace;
use tree::{Packed, Stop};

use crate::blob::{BlobFile, Ingest};
use crate::error::{At, CacheError};
use crate::growing::Follow;
use crate::lock::{Lock, Mode};
use crate::reference::Ref;
use crate::store::{Store, time};
use arriving::Arriving;

pub(crate) use chain::Chain;
pub use rewrite::Rewrite;

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
    /// The layers it was made over.
    below: Ref,
    /// Held while a form is made.
    making: Mutex<()>,
    known: Mutex<Known>,
    /// Whether it has its row, without which no other process knows of it.
    is_listed: Arc<AtomicBool>,
}

/// What a layer has under `layers/<id>`, as its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Files {
    /// Nothing.
    #[default]
    None = 0,
    /// A folder.
    Dir = 1,
    /// An index of its plain blob.
    Packed = 2,
}

impl rusqlite::types::FromSql for Files {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        Ok(match value.as_i64()? {
            1 => Self::Dir,
            2 => Self::Packed,
            // Whatever it is, this builder cannot read it.
            _ => Self::None,
        })
    }
}

/// What has been found out about a layer.
#[derive(Default)]
struct Known {
    files: Files,
    diff_id: Option<DiffId>,
    folder: Option<LayerDir>,
    packed: Option<Packed>,
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

/// Stands where the name of a codec does, for a plain blob that nobody has asked for.
const PACKED: &str = "packed";

impl KnownBlob {
    /// Whether `codec` would make this, or, of a blob made elsewhere, something of its kind.
    fn is_made_by(&self, codec: Codec) -> bool {
        if self.codec == PACKED {
            return codec == Codec::Plain;
        }
        if !self.codec.is_empty() {
            return self.codec == codec_name(codec);
        }
        let kind = match self.descriptor.media_type.rsplit(['.', '+']).next() {
            Some("gzip") => Some("gzip"),
            Some("zstd") => Some("zstd"),
            Some("tar") => Some("plain"),
            _ => None,
        };
        kind.is_some_and(|kind| codec_name(codec).starts_with(kind))
    }
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
        self.known().files == Files::Dir
    }

    /// Whether its files can be read without making another form.
    pub fn is_readable(&self) -> bool {
        self.known().files != Files::None
    }

    /// Its files in the form that costs least: the folder, or the packed form; unpacked when it has neither.
    ///
    /// # Errors
    /// As [`dir`](Self::dir).
    pub fn files(&self) -> Result<tree::stack::Layer, CacheError> {
        if self.known().files == Files::Packed {
            match self.packed() {
                Ok(packed) => return Ok(packed.into()),
                // Another process may have unpacked it, or the index is damaged.
                Err(_) => self.refresh()?,
            }
        }
        self.dir().map(Into::into)
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
        self.diff_id_unless(&Stop::default())
    }

    /// As [`diff_id`](Self::diff_id), but gives up when `stop` says so.
    ///
    /// # Errors
    /// When the folder cannot be read, or then.
    pub fn diff_id_unless(&self, stop: &Stop) -> Result<DiffId, CacheError> {
        if let Some(diff_id) = self.known().diff_id {
            return Ok(diff_id);
        }
        let _turn = self.turn()?;
        self.refresh()?;
        if let Some(diff_id) = self.known().diff_id {
            return Ok(diff_id);
        }
        let _span = self.span("hash", || "tar".to_owned());
        let mut out = HashWriter::new(stop.guard(io::sink()));
        self.write_tar(&mut out)?;
        let (_, hash, size) = out.finish();
        let diff_id = DiffId(Digest::from_bytes(hash));
        self.save_diff_id(diff_id, size);
        Ok(diff_id)
    }

    /// The layers it was made over.
    pub(crate) fn below(&self) -> &Ref {
        &self.0.below
    }

    /// Its diff id, if somebody has asked for it before.
    pub fn known_diff_id(&self) -> Option<DiffId> {
        self.known().diff_id
    }

    /// Bytes of its uncompressed tar; `None` as long as nobody has asked for its diff id.
    ///
    /// # Errors
    /// When the database fails.
    pub fn size(&self) -> Result<Option<u64>, CacheError> {
        self.0.store.layer_size(&self.0.id)
    }

    /// Reads the whole of its tar, fetched if need be, and returns its size in bytes. Of a layer that was measured
    /// before nothing is read, unless it lost its files.
    ///
    /// # Errors
    /// When it cannot be fetched or read, or is not what its diff id says.
    pub fn measure(&self) -> Result<u64, CacheError> {
        if let Some(size) = self.size()?
            && (self.is_readable() || self.stored_blob()?.is_some())
        {
            return Ok(size);
        }
        self.write_plain(&mut io::sink())
    }

    /// Writes its uncompressed tar, making no other form, and returns how many bytes that were. What was written is
    /// to be thrown away when this fails: that the bytes are not those of the diff id shows at their end.
    ///
    /// # Errors
    /// When the tar cannot be read or written, or is not what its diff id says.
    pub fn write_plain(&self, out: &mut dyn Write) -> Result<u64, CacheError> {
        let mut out = HashWriter::new(out);
        self.write_tar(&mut out)?;
        let (_, hash, size) = out.finish();
        let diff_id = DiffId(Digest::from_bytes(hash));
        self.check_diff_id(diff_id)?;
        self.save_diff_id(diff_id, size);
        Ok(size)
    }

    /// Notes how many bytes its uncompressed tar has, for a layer whose diff id was checked already.
    pub fn note_size(&self, size: u64) {
        if let Some(diff_id) = self.known_diff_id() {
            self.save_diff_id(diff_id, size);
        }
    }

    /// A blob of it that is in the store, in any compression.
    fn stored_blob(&self) -> Result<Option<(Descriptor, BlobFile)>, CacheError> {
        for blob in self.blobs()? {
            if let Some(file) = self.0.store.blob(&blob.descriptor.digest)? {
                return Ok(Some((blob.descriptor, file)));
            }
        }
        Ok(None)
    }

    /// A blob of it in any compression: one in the store, else one that can be fetched, else a new one
    /// made with `codec`.
    ///
    /// # Errors
    /// When no blob can be made.
    pub fn blob_any(&self, codec: Codec) -> Result<Descriptor, CacheError> {
        if let Some((descriptor, _)) = self.stored_blob()? {
            return Ok(descriptor);
        }
        if let Some(blob) = self.remote()? {
            let _turn = self.turn()?;
            self.fetch(&blob)?;
            return Ok(blob.descriptor);
        }
        self.blob(codec)
    }

    /// Its blob in the compression of `codec`, now in the store: one that came with the layer, whatever its
    /// level, else one as `codec` makes it.
    ///
    /// # Errors
    /// When the blob cannot be made.
    pub fn blob(&self, codec: Codec) -> Result<Descriptor, CacheError> {
        self.blob_unless(codec, &Stop::default())
    }

    /// As [`blob`](Self::blob), but gives up when `stop` says so.
    ///
    /// # Errors
    /// When the blob cannot be made, or then.
    pub fn blob_unless(&self, codec: Codec, stop: &Stop) -> Result<Descriptor, CacheError> {
        self.blob_followed(codec, stop, None)
    }

    /// As [`blob_unless`](Self::blob_unless); `follow` is given the blob if it has to be made, when that begins.
    ///
    /// # Errors
    /// When the blob cannot be made, or `stop` says so.
    pub fn blob_followed(
        &self,
        codec: Codec,
        stop: &Stop,
        follow: Option<&Follow<'_>>,
    ) -> Result<Descriptor, CacheError> {
        let _turn = self.turn()?;
        self.refresh()?;
        for blob in self.blobs()?.into_iter().filter(|blob| blob.is_made_by(codec)) {
            if blob.origin.is_some() {
                self.fetch(&blob)?;
            }
            if self.0.store.blob(&blob.descriptor.digest)?.is_some() {
                if blob.codec == PACKED {
                    self.save_blob(&codec_name(codec), &blob.descriptor)?;
                }
                return Ok(blob.descriptor);
            }
        }
        let _span = self.span("compress", || codec_name(codec));
        let mut ingest = self.0.store.ingest()?;
        if let Some(follow) = follow {
            follow(ingest.follow()?);
        }
        let (ingest, diff_id, size) = self.compress(ingest, codec, stop)?;
        self.check_diff_id(diff_id)?;
        let (digest, length) = ingest.commit(None)?;
        let descriptor = Descriptor::new(media_type_of(codec), digest, length);
        self.save_blob(&codec_name(codec), &descriptor)?;
        self.save_diff_id(diff_id, size);
        Ok(descriptor)
    }

    /// Writes its compressed tar; returns the diff id and size of that too.
    fn compress(
        &self,
        ingest: Ingest,
        codec: Codec,
        stop: &Stop,
    ) -> Result<(Ingest, DiffId, u64), CacheError> {
        let failed = |error| self.failed("compress", error);
        let mut compressor = Compressor::new(ingest, codec).map_err(failed)?;
        let own = match self.known_diff_id().filter(|_| !self.has_dir()) {
            Some(diff_id) => self.0.store.blob(&diff_id.0)?,
            None => None,
        };
        // A blob that is the tar is verified by reading it, and need not be hashed once more.
        if let Some(tar) = own {
            io::copy(&mut tar.open()?, &mut stop.guard(&mut compressor)).map_err(failed)?;
            let ingest = compressor.finish().map_err(failed)?;
            return Ok((ingest, DiffId(*tar.digest()), tar.size()));
        }
        let mut out = HashWriter::new(compressor);
        self.write_tar(&mut stop.guard(&mut out))?;
        let (compressor, hash, size) = out.finish();
        let ingest = compressor.finish().map_err(failed)?;
        Ok((ingest, DiffId(Digest::from_bytes(hash)), size))
    }

    /// Descriptors of all blobs that it came with or that were asked for, in the store or elsewhere. The packed form
    /// is the store's own affair and none of them.
    ///
    /// # Errors
    /// When the database fails.
    pub fn known_blobs(&self) -> Result<Vec<Descriptor>, CacheError> {
        let blobs = self.blobs()?.into_iter().filter(|blob| blob.codec != PACKED);
        Ok(blobs.map(|blob| blob.descriptor).collect())
    }

    /// The packed form, opened once for all who read it in this process.
    fn packed(&self) -> Result<Packed, CacheError> {
        if let Some(packed) = &self.known().packed {
            return Ok(packed.clone());
        }
        let store = &self.0.store;
        let blob = match self.known().diff_id {
            Some(diff_id) => store.blob(&diff_id.0)?,
            None => None,
        };
        let blob = blob.ok_or_else(|| CacheError::LayerGone(self.0.id.to_string()))?;
        let index = store.0.layer_path(&self.0.id).join("index");
        let bytes = fs::read(&index).at(&index)?;
        let tar = fs::File::open(blob.path()).at(&blob.path())?.into_parts().0;
        let packed = Packed::decode(&bytes, tar).map_err(|error| self.failed("read", error))?;
        Ok(self.known().packed.get_or_insert(packed).clone())
    }

    /// Time spent on the layer, for a trace.
    fn span(&self, kind: &'static str, what: impl FnOnce() -> String) -> trace::Span {
        trace::span(kind, || format!("{} of layer {}", what(), self.0.id))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder, opened once for all who read it in this process.
    fn layer_dir(&self) -> LayerDir {
        let store = &self.0.store;
        let new =
            || LayerDir::finished(store.0.layer_path(&self.0.id).join("fs"), store.encoding());
        self.known().folder.get_or_insert_with(new).clone()
    }

    fn failed(&self, action: &'static str, error: io::Error) -> CacheError {
        let is_content =
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof);
        if is_content
            && action != "write"
            && let Some((digest, origin)) = self.came_from()
        {
            return CacheError::BrokenLayer { digest, origin, source: error.into() };
        }
        CacheError::layer(action, &self.0.id.to_string(), &self.0.store.0.root, error)
    }

    /// The blob that it was made of, and where that is kept, if it is not of the store's own making.
    fn came_from(&self) -> Option<(Digest, String)> {
        let remote = self.remote().ok()??;
        Some((remote.descriptor.digest, remote.origin?))
    }

    /// The right to make a form, in this process and among all.
    fn turn(&self) -> Result<(MutexGuard<'_, ()>, Lock), CacheError> {
        let here = self.0.making.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.0.store.0.lock_place("layer", &self.0.id.to_string());
        Ok((here, Lock::wait(&place, Mode::Exclusive)?))
    }

    /// Learns what another process has made meanwhile.
    fn refresh(&self) -> Result<(), CacheError> {
        if !self.0.is_listed.load(Ordering::Acquire) {
            return Ok(());
        }
        let row = self.0.store.0.read(|db| {
            db.prepare_cached("SELECT dir, diff_id FROM layer WHERE id = ?1")?
                .query_row([self.0.id.0], |row| {
                    Ok((row.get(0)?, row.get::<_, Option<[u8; 32]>>(1)?))
                })
                .optional()
        })?;
        let (files, diff_id) = row.ok_or_else(|| CacheError::LayerGone(self.0.id.to_string()))?;
        let mut known = self.known();
        known.files = files;
        // One that was found out may not have been noted yet.
        let diff_id = diff_id.map(|hash| DiffId(Digest::from_bytes(hash)));
        known.diff_id = diff_id.or(known.diff_id);
        if files != Files::Dir {
            known.folder = None;
        }
        Ok(())
    }

    /// Blobs that hold its tar as it is.
    fn blobs(&self) -> Result<Vec<KnownBlob>, CacheError> {
        let rows: Vec<(String, String, Option<String>)> = self.0.store.0.read(|db| {
            let sql = "SELECT codec, descriptor, origin FROM layer_blob WHERE layer = ?1 AND instr(codec, '@') = 0";
            db.prepare_cached(sql)?
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
        let below = self.0.below.layers().iter().map(Self::files);
        Ok(Stack::new(below.collect::<Result<Vec<_>, CacheError>>()?))
    }

    /// A blob of the layer, fetched if need be.
    fn any_blob(&self) -> Result<BlobFile, CacheError> {
        if let Some((_, file)) = self.stored_blob()? {
            return Ok(file);
        }
        match self.remote()? {
            Some(remote) => self.fetch(&remote),
            None => {
                self.0.store.drop_layer(&self.0.id)?;
                Err(CacheError::LayerGone(self.0.id.to_string()))
            }
        }
    }

    fn open_tar(&self, blob: &BlobFile) -> Result<Box<dyn io::Read + Send>, CacheError> {
        tree::codec::decompress(Box::new(blob.open()?))
            .map_err(|error| self.failed("decompress", error))
    }

    /// Brings a blob from its origin into the store.
    fn fetch(&self, blob: &KnownBlob) -> Result<BlobFile, CacheError> {
        let _span = self.span("fetch", || format!("blob {}", blob.descriptor.digest));
        let store = &self.0.store;
        let digest = blob.descriptor.digest;
        // Layers that lie over different ones may share a blob.
        let _turn = Lock::wait(&store.0.lock_place("blob", &digest.hex()), Mode::Exclusive)?;
        if let Some(file) = store.blob(&digest)? {
            return Ok(file);
        }
        arriving::or_again(store, || Arriving::open(store, blob)?.finish())?;
        store.blob(&digest)?.ok_or_else(|| CacheError::LayerGone(self.0.id.to_string()))
    }

    /// Checks what was read of its files. Those of a step that are not what they were are dropped.
    fn check_diff_id(&self, actual: DiffId) -> Result<(), CacheError> {
        let expected = self.known().diff_id;
        match expected {
            Some(expected) if expected != actual && self.has_dir() && !self.0.is_base => {
                self.0.store.discard_layer(self)?;
                Err(CacheError::DamagedLayer { id: self.0.id.to_string() })
            }
            Some(expected) if expected != actual => Err(match self.came_from() {
                Some((digest, origin)) => CacheError::BrokenLayer {
                    digest,
                    origin,
                    source: format!(
                        "uncompressed it has digest {actual} but should have {expected}"
                    )
                    .into(),
                },
                None => CacheError::DigestMismatch {
                    what: format!("layer {} uncompressed", self.0.id),
                    expected: expected.0,
                    actual: actual.0,
                },
            }),
            _ => Ok(()),
        }
    }

    /// Notes the diff id, in the database with the next transaction.
    fn save_diff_id(&self, diff_id: DiffId, size: u64) {
        let id = self.0.id;
        self.0.store.0.defer(move |transaction, database| {
            let sql = "UPDATE layer SET diff_id = ?2, size = ?3 WHERE id = ?1";
            let values = params![id.0, diff_id.0.as_bytes(), size.cast_signed()];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database).map(drop)
        });
        // Only a folder comes before its diff id.
        self.0.store.0.add_written(size);
        self.known().diff_id = Some(diff_id);
    }

    fn save_blob(&self, codec: &str, descriptor: &Descriptor) -> Result<(), CacheError> {
        let text = serde_json::to_string(descriptor)
            .map_err(|error| self.failed("describe", error.into()))?;
        self.0.store.0.write(|transaction| {
            let sql =
                "INSERT INTO layer_blob (layer, digest, codec, descriptor) VALUES (?1, ?2, ?3, ?4)
                ON CONFLICT (layer, digest) DO UPDATE SET codec = excluded.codec";
            let values = params![self.0.id.0, descriptor.digest.as_bytes(), codec, text];
            transaction.prepare_cached(sql)?.execute(values).map(drop)
        })
    }
}

/// A folder that is removed when dropped, unless it has been renamed.
#[derive(Debug)]
pub(crate) struct Aside(pub(crate) PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = crate::removal::remove_large_tree(&self.0);
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
