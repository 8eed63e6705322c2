//! Makes the folder of a layer: from its packed form, from a blob that is being fetched, or from one in the store.
//!
//! Files are written into a folder aside, which gets its name once the diff id has been checked.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use llb::{DiffId, Digest};
use rusqlite::params;
use tree::codec::HashReader;
use tree::layer::LayerDir;
use tree::stack::Stack;

use super::arriving::{self, Arriving};
use super::{Aside, Files, Known, Layer};
use crate::blob::BlobFile;
use crate::error::{At, CacheError};
use crate::lock::{Lock, Mode};

/// A blob that was unpacked.
struct Unpacked {
    aside: Aside,
    into: LayerDir,
    /// Folders that it does not list.
    implied: Vec<PathBuf>,
    diff_id: DiffId,
    /// Bytes of the tar.
    size: u64,
}

impl Layer {
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

    /// Makes the folder, from the packed form or a blob.
    pub(super) fn unpack(&self) -> Result<(), CacheError> {
        let _span = self.span("unpack", || "files".to_owned());
        let store = &self.0.store.0;
        let (aside, diff_id, size) = match self.unpack_packed()? {
            Some(unpacked) => unpacked,
            None => match self.unpack_arriving()? {
                Some(unpacked) => self.adopt(unpacked)?,
                None => {
                    self.with_blob(|blob| self.adopt(self.unpack_aside(Box::new(blob.open()?))?))?
                }
            },
        };
        self.check_diff_id(diff_id)?;
        let boot = store.boot()?;
        let target = store.layer_path(&self.0.id);
        store.write_files(|transaction, database| {
            crate::removal::remove_large_tree(&target).at(&target)?;
            fs::rename(&aside.0, &target).at(&target)?;
            let sql = "UPDATE layer SET dir = 1, diff_id = ?2, size = ?3, disk = NULL, boot = ?4, synced = 0 WHERE id = ?1";
            let values = params![self.0.id.0, diff_id.0.as_bytes(), size.cast_signed(), boot];
            transaction.prepare_cached(sql).at(database)?.execute(values).at(database)
        })?;
        store.add_written(size);
        let (files, diff_id) = (Files::Dir, Some(diff_id));
        *self.known() = Known { files, diff_id, folder: None, packed: None };
        Ok(())
    }

    /// Unpacks the packed form, if there is a sound one: with the fractions of times that a tar does not hold,
    /// and many files at once.
    fn unpack_packed(&self) -> Result<Option<(Aside, DiffId, u64)>, CacheError> {
        if self.known().files != Files::Packed {
            return Ok(None);
        }
        let (Ok(packed), Some(diff_id)) = (self.packed(), self.known().diff_id) else {
            return Ok(None);
        };
        let store = &self.0.store.0;
        let aside = Aside(store.process()?.fresh());
        let fs_path = aside.0.join("fs");
        for folder in [&aside.0, &fs_path] {
            crate::workspace::make_folder(folder)?;
        }
        let into = LayerDir::encoded(fs_path, store.encoding);
        let tree = Stack::new(vec![packed]);
        let copied = tree::draft::copy_tree(&tree, Path::new(""), &into, store.encoding);
        match (copied, self.size()?) {
            (Ok(()), Some(size)) => Ok(Some((aside, diff_id, size))),
            // A damaged blob shows when it is read whole.
            _ => Ok(None),
        }
    }

    /// Unpacks a blob while it is fetched; `None` when there is one already, or nowhere to fetch one from.
    fn unpack_arriving(&self) -> Result<Option<Unpacked>, CacheError> {
        let store = &self.0.store;
        let Some(remote) = self.remote()? else { return Ok(None) };
        if self.stored_blob()?.is_some() {
            return Ok(None);
        }
        let digest = remote.descriptor.digest;
        // Layers that lie over different ones may share a blob.
        let _turn = Lock::wait(&store.0.lock_place("blob", &digest.hex()), Mode::Exclusive)?;
        if store.blob(&digest)?.is_some() {
            return Ok(None);
        }
        let _span = self.span("fetch", || format!("blob {digest}"));
        let attempt = || {
            let arriving = Arriving::open(store, &remote)?;
            let unpacked = self.unpack_aside(Box::new(arriving.clone()));
            // What was read is worth something only if it is the blob that was asked for. If it is not,
            // that is the error to tell, not what became of it.
            arriving.finish().map(|()| unpacked)
        };
        arriving::or_again(store, attempt)?.map(Some)
    }

    /// Gives folders that a layer has without saying so what they have below. May unpack what is below.
    fn adopt(&self, unpacked: Unpacked) -> Result<(Aside, DiffId, u64), CacheError> {
        let Unpacked { aside, into, implied, diff_id, size } = unpacked;
        if !implied.is_empty() {
            tree::apply::adopt_parents(&into, &implied, &self.lower()?)
                .map_err(|error| self.failed("unpack", error))?;
        }
        Ok((aside, diff_id, size))
    }

    /// Unpacks the bytes of a blob into a folder that has no name yet.
    fn unpack_aside(&self, blob: Box<dyn io::Read + Send>) -> Result<Unpacked, CacheError> {
        let store = &self.0.store.0;
        let aside = Aside(store.process()?.fresh());
        let fs_path = aside.0.join("fs");
        for folder in [&aside.0, &fs_path] {
            crate::workspace::make_folder(folder)?;
        }
        let failed = |error| self.failed("unpack", error);
        let into = LayerDir::encoded(fs_path, store.encoding);
        let tar = tree::codec::decompress(blob);
        let tar = tar.map_err(|error| self.failed("decompress", error))?;
        let mut tar = HashReader::new(tar);
        let applied = tree::apply::apply_layer(&mut tar, &into, store.encoding).map_err(failed)?;
        // The end of a tar is not the end of the stream that is hashed.
        io::copy(&mut tar, &mut io::sink()).map_err(failed)?;
        let (_, hash, size) = tar.finish();
        let diff_id = DiffId(Digest::from_bytes(hash));
        Ok(Unpacked { aside, into, implied: applied.implied, diff_id, size })
    }
}
