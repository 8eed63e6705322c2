//! Blobs of a layer that hold another tar than the layer's own.
//!
//! An image may be asked for with times that are cut back, or with tables of contents. Such a blob has a diff id of its
//! own. It is kept like others, and never stands for the layer: no other form is made from it.

use std::io::{self, Read};
use std::thread::{self, ScopedJoinHandle};

use llb::image::{Descriptor, annotation};
use llb::{DiffId, Digest};
use rusqlite::{OptionalExtension, params};
use tree::Stop;
use tree::codec::{Codec, Compressor, HashReader, HashWriter};

use super::{Layer, codec_name, media_type_of};
use crate::blob::Ingest;
use crate::error::CacheError;

/// The size of what the blob holds, for who fetches only parts of it.
const SIZE: &str = "io.containers.estargz.uncompressed-size";
/// Of the layer's own tar: the earliest time known that no file of it is younger than.
const LATEST: &str = "buildkit/latest";

/// How the tar of a layer is changed before it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// Files that were changed later than this, in seconds, get this time.
    pub latest: Option<i64>,
    /// A table of contents is added, which makes of gzip eStargz.
    pub table: bool,
}

impl Rewrite {
    /// Whether nothing is changed.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Name of what is made so; no codec's own has an `@` in it.
    fn name(self, codec: Codec) -> String {
        let latest = self.latest.map(|latest| latest.to_string()).unwrap_or_default();
        let table = if self.table { "+table" } else { "" };
        format!("{}@{latest}{table}", codec_name(codec))
    }
}

impl Layer {
    /// Its blob as `codec` makes it of its tar changed by `rewrite`, now in the store, and the diff id of that.
    ///
    /// # Errors
    /// When the blob cannot be made, or `stop` says so.
    pub fn rewritten_blob(
        &self,
        rewrite: Rewrite,
        codec: Codec,
        stop: &Stop,
    ) -> Result<(Descriptor, DiffId), CacheError> {
        if rewrite.is_none() {
            return Ok((self.blob_unless(codec, stop)?, self.diff_id_unless(stop)?));
        }
        let _turn = self.turn()?;
        self.refresh()?;
        if let Some(found) = self.known_rewritten(rewrite, codec)? {
            return Ok(found);
        }
        let _span = self.span("compress", || rewrite.name(codec));
        let ingest = self.0.store.ingest()?;
        let (own, made) = self.rewritten(rewrite, codec, stop, ingest)?;
        let (hash, size) = own;
        let own = DiffId(Digest::from_bytes(hash));
        self.check_diff_id(own)?;
        let (digest, length) = made.ingest.commit(None)?;
        let mut descriptor = Descriptor::new(media_type_of(codec), digest, length);
        let annotations = descriptor.annotations.get_or_insert_default();
        let mut name = rewrite.name(codec);
        if made.diff_id == own {
            name = codec_name(codec);
            let latest = rewrite.latest.map(|latest| latest.to_string()).unwrap_or_default();
            annotations.insert(LATEST.to_owned(), latest);
        } else {
            annotations.insert(annotation::DIFF_ID.to_owned(), made.diff_id.to_string());
        }
        if let Some(table) = made.table {
            annotations.insert(annotation::TABLE.to_owned(), table.to_string());
            annotations.insert(SIZE.to_owned(), made.size.to_string());
        }
        self.save_blob(&name, &descriptor)?;
        self.save_diff_id(own, size);
        Ok((descriptor, made.diff_id))
    }

    /// A blob made so before, or one whose files were all old enough.
    fn known_rewritten(
        &self,
        rewrite: Rewrite,
        codec: Codec,
    ) -> Result<Option<(Descriptor, DiffId)>, CacheError> {
        let note = |descriptor: &Descriptor, key: &str| {
            descriptor.annotations.as_ref().and_then(|all| all.get(key)).cloned()
        };
        let row: Option<String> = self.0.store.0.read(|db| {
            db.prepare_cached("SELECT descriptor FROM layer_blob WHERE layer = ?1 AND codec = ?2")?
                .query_row(params![self.0.id.0, rewrite.name(codec)], |row| row.get(0))
                .optional()
        })?;
        let made: Option<Descriptor> = row.and_then(|text| serde_json::from_str(&text).ok());
        if let Some(made) = made
            && let Some(diff_id) =
                note(&made, annotation::DIFF_ID).and_then(|text| text.parse().ok())
            && self.0.store.blob(&made.digest)?.is_some()
        {
            return Ok(Some((made, DiffId(diff_id))));
        }
        let (Some(latest), false) = (rewrite.latest, rewrite.table) else { return Ok(None) };
        for blob in self.blobs()?.into_iter().filter(|blob| blob.codec == codec_name(codec)) {
            let youngest = note(&blob.descriptor, LATEST).and_then(|text| text.parse().ok());
            let fits = youngest.is_some_and(|youngest: i64| youngest <= latest);
            if let Some(diff_id) = self.known_diff_id().filter(|_| fits)
                && self.0.store.blob(&blob.descriptor.digest)?.is_some()
            {
                return Ok(Some((blob.descriptor, diff_id)));
            }
        }
        Ok(None)
    }

    /// Writes the blob; each stage has a thread of its own. Returns hash and size of the layer's own tar, and what was
    /// made.
    fn rewritten(
        &self,
        rewrite: Rewrite,
        codec: Codec,
        stop: &Stop,
        ingest: Ingest,
    ) -> Result<(([u8; 32], u64), Made), CacheError> {
        let failed = |error| self.failed("compress", error);
        thread::scope(|scope| {
            let (mut tar, pipe) = io::pipe().map_err(failed)?;
            let source = scope.spawn(move || {
                let mut pipe = stop.guard(pipe);
                // What goes into the blob as it is, is hashed there.
                if rewrite.latest.is_none() {
                    return self.write_tar(&mut pipe).map(|()| None);
                }
                let mut out = HashWriter::new(pipe);
                self.write_tar(&mut out)?;
                let (_, hash, size) = out.finish();
                Ok(Some((hash, size)))
            });
            let dating = match rewrite.latest {
                Some(latest) => {
                    let (dated, pipe) = io::pipe().map_err(failed)?;
                    let undated = std::mem::replace(&mut tar, dated);
                    Some(scope.spawn(move || tree::tar::no_later_than(latest, undated, pipe)))
                }
                None => None,
            };
            let made = Made::write(tar, rewrite, codec, ingest);
            // What failed first is the cause of what failed behind it; who is only not listened to is no cause.
            let own = join(source).and_then(|own: Result<_, CacheError>| match own {
                Err(error) if !error.is_unheard() => Err(error),
                own => Ok(own),
            });
            let dated = dating
                .map_or(Ok(()), |dating| join(dating).and_then(|dated| dated.map_err(failed)));
            let own = own?;
            match dated {
                Err(error) if !error.is_unheard() => return Err(error),
                _ => {}
            }
            let made = made.map_err(failed)?;
            Ok((own?.unwrap_or(made.tar), made))
        })
    }
}

/// A blob that has been written, but has no name yet.
struct Made {
    ingest: Ingest,
    /// Hash and size of the tar that it was made of.
    tar: ([u8; 32], u64),
    diff_id: DiffId,
    size: u64,
    table: Option<Digest>,
}

impl Made {
    fn write(
        tar: impl Read,
        rewrite: Rewrite,
        codec: Codec,
        mut ingest: Ingest,
    ) -> io::Result<Self> {
        let id = |hash| DiffId(Digest::from_bytes(hash));
        if rewrite.table {
            let Codec::Gzip(level) = codec else {
                return Err(io::Error::other("only gzip can have a table of contents"));
            };
            let made = tree::codec::write_estargz(tar, &mut ingest, level)?;
            let table = Some(Digest::from_bytes(made.table));
            let (diff_id, size) = made.diff_id;
            return Ok(Self { ingest, tar: made.tar, diff_id: id(diff_id), size, table });
        }
        let mut tar = HashReader::new(tar);
        let mut compressor = Compressor::new(ingest, codec)?;
        io::copy(&mut tar, &mut compressor)?;
        let ingest = compressor.finish()?;
        let (_, hash, size) = tar.finish();
        Ok(Self { ingest, tar: (hash, size), diff_id: id(hash), size, table: None })
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> Result<T, CacheError> {
    thread.join().map_err(|panic| std::panic::resume_unwind(panic))
}
