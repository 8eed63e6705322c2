//! Content-addressed blobs.
//!
//! ```text
//! blobs/sha256/<hex>        finished blobs
//! ingest/<process>/<n>      blobs still being written
//! ```
//!
//! Invariants:
//! - A file under `blobs/` hashes to its name: bytes are hashed while written, then renamed into place.
//! - A blob without a row is not there. One whose file is missing, has another size, or proves damaged
//!   when read, loses its row.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use fs_err as fs;
use llb::Digest;
use rusqlite::{OptionalExtension, Transaction, params};
use tree::codec::{Background, Sha256};

use crate::error::{At, CacheError};
use crate::growing::{Grower, Growing};
use crate::layer::Aside;
use crate::store::{Inner, Store, now};

/// A blob in the store.
#[derive(Debug, Clone)]
pub struct BlobFile {
    store: Store,
    digest: Digest,
    size: u64,
}

impl BlobFile {
    /// Its name.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it lies. Reading it there skips the verification that [`open`](Self::open) does.
    pub fn path(&self) -> PathBuf {
        self.store.0.blob_path(&self.digest)
    }

    /// Opens it for reading. The last read fails, and the blob is dropped from the store, when the bytes do
    /// not hash to the digest.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> Result<BlobReader, CacheError> {
        let path = self.path();
        let file = fs::File::open(&path).at(&path)?;
        Ok(BlobReader { file, blob: self.clone(), hash: Some(Sha256::new()), left: self.size })
    }

    /// Whether the bytes hash to the digest; the blob is dropped when they do not.
    ///
    /// # Errors
    /// When the database fails.
    pub fn is_whole(&self) -> Result<bool, CacheError> {
        let read = self
            .open()
            .and_then(|mut reader| io::copy(&mut reader, &mut io::sink()).at(&self.path()));
        if read.is_err() {
            self.store.drop_blob(&self.digest)?;
        }
        Ok(read.is_ok())
    }

    /// The whole blob, verified; for configs and manifests.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn read(&self) -> Result<Vec<u8>, CacheError> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes).at(&self.path())?;
        Ok(bytes)
    }
}

/// Reads a blob and verifies it on the way.
#[derive(Debug)]
pub struct BlobReader {
    file: fs::File,
    blob: BlobFile,
    hash: Option<Sha256>,
    left: u64,
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let length = self.file.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..length]);
        }
        self.left = self.left.wrapping_sub(length as u64);
        // The verdict comes with the last bytes, as a reader of a known length may not ask once more.
        if (self.left == 0 || length == 0)
            && let Some(hash) = self.hash.take()
        {
            let actual = Digest::from_bytes(hash.finish());
            if actual != self.blob.digest {
                self.blob.store.drop_blob(&self.blob.digest).map_err(io::Error::other)?;
                let digest = self.blob.digest;
                return Err(io::Error::other(CacheError::DamagedBlob { digest }));
            }
        }
        Ok(length)
    }
}

/// Where the bytes of a blob go.
#[derive(Debug)]
enum Out {
    /// To the file.
    File(fs::File),
    /// To a thread that writes the file.
    Background(Background<fs::File>),
    /// Nowhere: all are written.
    Done,
}

/// A blob being written; dropped without [`commit`](Self::commit) it is gone.
#[derive(Debug)]
pub struct Ingest {
    store: Store,
    path: PathBuf,
    out: Out,
    hash: Sha256,
    size: u64,
    /// Tells those who read it meanwhile.
    grower: Option<Grower>,
    finished: bool,
}

impl Ingest {
    /// Puts the blob into the store under its digest, which must be `expected` when that is given.
    ///
    /// # Errors
    /// When the bytes have another digest, or the file system fails.
    pub fn commit(self, expected: Option<Digest>) -> Result<(Digest, u64), CacheError> {
        self.finish(expected, |_, _, _, _| Ok(()))
    }

    /// Puts the blob into the store, and does more in the same transaction.
    pub(crate) fn commit_with(
        self,
        more: impl FnOnce(&Transaction<'_>, &Path, &Digest, u64) -> Result<(), CacheError>,
    ) -> Result<(Digest, u64), CacheError> {
        self.finish(None, more)
    }

    /// The file once more, for reading.
    ///
    /// # Errors
    /// When it cannot be written or opened.
    pub fn reopen(&mut self) -> Result<std::fs::File, CacheError> {
        self.settle()?;
        Ok(fs::File::open(&self.path).at(&self.path)?.into_parts().0)
    }

    /// The blob for others to read while this thread writes it.
    pub(crate) fn follow(&mut self) -> Result<Growing, CacheError> {
        let file = fs::File::open(&self.path).at(&self.path)?.into_parts().0;
        let (grower, growing) = Grower::start(file, self.size);
        self.grower = Some(grower);
        Ok(growing)
    }

    /// Has what comes from now on written by another thread, while this one hashes it.
    pub fn write_in_background(&mut self) {
        self.out = match std::mem::replace(&mut self.out, Out::Done) {
            Out::File(file) => Out::Background(Background::new(file)),
            other => other,
        };
    }

    /// Waits until all is in the file.
    fn settle(&mut self) -> Result<(), CacheError> {
        match std::mem::replace(&mut self.out, Out::Done) {
            Out::Background(out) => out.finish().map(drop).at(&self.path),
            Out::File(_) | Out::Done => Ok(()),
        }
    }

    fn finish(
        mut self,
        expected: Option<Digest>,
        more: impl FnOnce(&Transaction<'_>, &Path, &Digest, u64) -> Result<(), CacheError>,
    ) -> Result<(Digest, u64), CacheError> {
        self.settle()?;
        let digest = Digest::from_bytes(std::mem::take(&mut self.hash).finish());
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(CacheError::DigestMismatch {
                what: "blob".to_owned(),
                expected,
                actual: digest,
            });
        }
        if let Some(grower) = self.grower.take() {
            grower.end(digest);
        }
        place(&self.store, &self.path, &digest, self.size, more)?;
        self.finished = true;
        Ok((digest, self.size))
    }

    /// Keeps the bytes for this process alone, as long as the value lives.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn hold(mut self) -> Result<Spool, CacheError> {
        self.settle()?;
        self.finished = true;
        let digest = Digest::from_bytes(std::mem::take(&mut self.hash).finish());
        Ok(Spool { path: std::mem::take(&mut self.path), digest, size: self.size })
    }

    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Bytes that only this process needs, and only for a while. They are removed when the value is dropped, or swept
/// when the process has died.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Spool {
    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Their digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Makes a blob of `store` of them, in which they were written.
    ///
    /// # Errors
    /// When the file system or database fails.
    pub fn commit(self, store: &Store) -> Result<(), CacheError> {
        place(store, &self.path, &self.digest, self.size, |_, _, _, _| Ok(()))
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.out {
            Out::File(file) => file.write(bytes)?,
            Out::Background(out) => out.write(bytes)?,
            Out::Done => return Err(io::Error::other("the blob is written already")),
        };
        self.hash.update(&bytes[..length]);
        self.size += length as u64;
        if let Some(grower) = &self.grower {
            grower.grow(self.size);
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Store {
    /// The blob `digest`, if the store has it whole (by size).
    ///
    /// # Errors
    /// When the database or file system fails.
    pub fn blob(&self, digest: &Digest) -> Result<Option<BlobFile>, CacheError> {
        let inner = &self.0;
        let found = inner.read(|db| {
            db.prepare_cached("SELECT size, generation FROM blob WHERE digest = ?1")?
                .query_row([digest.as_bytes()], |row| {
                    Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
                })
                .optional()
        })?;
        let Some((size, used_by)) = found else { return Ok(None) };
        let size = size.cast_unsigned();
        if !has_size(&inner.blob_path(digest), size)? {
            self.drop_blob(digest)?;
            return Ok(None);
        }
        let generation = inner.generation()?;
        if used_by < generation {
            let kept = inner.write(|transaction| {
                transaction
                    .prepare_cached("UPDATE blob SET used = ?2, generation = MAX(generation, ?3) WHERE digest = ?1")?
                    .execute(params![digest.as_bytes(), now(), generation])
            })?;
            if kept == 0 {
                return Ok(None);
            }
        }
        Ok(Some(BlobFile { store: self.clone(), digest: *digest, size }))
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn ingest(&self) -> Result<Ingest, CacheError> {
        let path = self.0.process()?.fresh();
        let file = fs::File::create_new(&path).at(&path)?;
        Ok(Ingest {
            store: self.clone(),
            path,
            out: Out::File(file),
            hash: Sha256::new(),
            size: 0,
            grower: None,
            finished: false,
        })
    }

    /// Puts `bytes` into the store.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = self.put_blob_later(bytes)?;
        self.settle()?;
        Ok(digest)
    }

    /// As [`put_blob`](Self::put_blob), but in the next transaction.
    pub(crate) fn put_blob_later(&self, bytes: &[u8]) -> Result<Digest, CacheError> {
        let digest = Digest::from_bytes(Sha256::digest(bytes));
        if self.blob(&digest)?.is_some() {
            return Ok(digest);
        }
        let inner = &self.0;
        let aside = Aside(inner.process()?.fresh());
        fs::write(&aside.0, bytes).at(&aside.0)?;
        let (boot, generation) = (inner.boot()?.to_owned(), inner.generation()?);
        let (target, size) = (inner.blob_path(&digest), bytes.len() as u64);
        let mut is_placed = false;
        inner.defer(move |transaction, database| {
            if !is_placed {
                fs::rename(&aside.0, &target).at(&target)?;
                is_placed = true;
            }
            insert_blob(transaction, &digest, size, generation, &boot).at(database)
        });
        inner.add_written(size);
        Ok(digest)
    }

    /// Forgets a damaged blob.
    pub(crate) fn drop_blob(&self, digest: &Digest) -> Result<(), CacheError> {
        let inner = &self.0;
        let path = inner.blob_path(digest);
        inner.write_files(|transaction, database| {
            transaction
                .execute("DELETE FROM blob WHERE digest = ?1", [digest.as_bytes()])
                .at(database)?;
            crate::removal::remove_tree(&path).at(&path)
        })
    }
}

impl Inner {
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

/// Gives a written file its name as a blob, and does more in the same transaction.
fn place(
    store: &Store,
    path: &Path,
    digest: &Digest,
    size: u64,
    more: impl FnOnce(&Transaction<'_>, &Path, &Digest, u64) -> Result<(), CacheError>,
) -> Result<(), CacheError> {
    let inner = &store.0;
    let (boot, generation) = (inner.boot()?, inner.generation()?);
    let target = inner.blob_path(digest);
    inner.write_files(|transaction, database| {
        fs::rename(path, &target).at(&target)?;
        insert_blob(transaction, digest, size, generation, boot).at(database)?;
        more(transaction, database, digest, size)
    })?;
    inner.add_written(size);
    Ok(())
}

fn insert_blob(
    transaction: &Transaction<'_>,
    digest: &Digest,
    size: u64,
    generation: i64,
    boot: &str,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO blob (digest, size, used, generation, boot) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (digest) DO UPDATE SET size = excluded.size, used = excluded.used, boot = excluded.boot,
        synced = 0, generation = MAX(generation, excluded.generation)";
    let values = params![digest.as_bytes(), size.cast_signed(), now(), generation, boot];
    transaction.prepare_cached(sql)?.execute(values).map(drop)
}

fn has_size(path: &Path, size: u64) -> Result<bool, CacheError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_file() && metadata.len() == size),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CacheError::io(path, error)),
    }
}
