//! Layers of an archive, read and checked, before any of them is part of the store.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use cache::{Spool, Store};
use llb::image::{Compression, Descriptor};
use llb::{DiffId, Digest};
use tree::codec::{HashReader, MAGIC_LENGTH, detect};

use super::ImportError;
use super::archive::{Archive, open_spool, spooled};
use super::plan::{PlannedLayer, check_size};
use crate::blobs::in_parallel;

/// The layers of an archive, each once, by the file that has them.
pub(super) struct Staged(HashMap<String, StagedLayer>);

struct StagedLayer {
    descriptor: Descriptor,
    diff_id: DiffId,
    /// Bytes of the uncompressed tar.
    size: u64,
    /// The bytes, as long as they are no blob of the store.
    spool: Option<Spool>,
}

impl Staged {
    /// Reads and checks layers, several at once.
    pub(super) fn of<'p>(
        store: &Store,
        archive: &Archive,
        layers: impl Iterator<Item = &'p PlannedLayer>,
    ) -> Result<Self, ImportError> {
        let mut unique: HashMap<&str, &PlannedLayer> = HashMap::new();
        let mut again = Vec::new();
        for layer in layers {
            let first = unique.entry(&layer.file).or_insert(layer);
            again.push((first.file.clone(), layer));
        }
        let work: Vec<&PlannedLayer> = unique.into_values().collect();
        let done = in_parallel(&work, |layer| {
            Ok::<_, ImportError>((layer.file.clone(), stage(store, archive, layer)?))
        })?;
        let staged: HashMap<String, StagedLayer> = done.into_iter().collect();
        for (file, layer) in again {
            let first = &staged[&file];
            check(&file, layer.diff_id, first.diff_id)?;
            if let Some(descriptor) = &layer.descriptor {
                check_size(&file, first.descriptor.size, descriptor)?;
            }
        }
        Ok(Self(staged))
    }

    /// Makes blobs of the store of what was read.
    pub(super) fn commit(&mut self, store: &Store) -> Result<(), ImportError> {
        for layer in self.0.values_mut() {
            if let Some(spool) = layer.spool.take() {
                spool.commit(store)?;
            }
        }
        Ok(())
    }

    /// What the layer is as a blob.
    pub(super) fn descriptor(&self, layer: &PlannedLayer) -> &Descriptor {
        &self.0[&layer.file].descriptor
    }

    /// Bytes of the layer's uncompressed tar.
    pub(super) fn size(&self, layer: &PlannedLayer) -> u64 {
        self.0[&layer.file].size
    }
}

fn stage(
    store: &Store,
    archive: &Archive,
    layer: &PlannedLayer,
) -> Result<StagedLayer, ImportError> {
    let unreadable = |source| ImportError::Read { path: layer.file.clone(), source };
    if let Some(descriptor) = &layer.descriptor
        && let Some(blob) = store.blob(&descriptor.digest)?
    {
        check_size(&layer.file, blob.size(), descriptor)?;
        let (diff_id, size) = plain_hash(Box::new(blob.open()?)).map_err(unreadable)?;
        check(&layer.file, layer.diff_id, diff_id)?;
        let descriptor = descriptor.clone();
        return Ok(StagedLayer { descriptor, diff_id, size, spool: None });
    }
    let Some((content, length)) = archive.file(&layer.file)? else {
        let by = if layer.descriptor.is_some() { "the image manifest" } else { "`manifest.json`" };
        return Err(ImportError::Missing { file: layer.file.clone(), by: by.to_owned() });
    };
    // A file of a folder may have grown meanwhile.
    let spool = spooled(store, &layer.file, &mut content.take(length.saturating_add(1)))?;
    if spool.size() > length {
        return Err(unreadable(io::Error::other("it grows while it is read")));
    }
    if let Some(descriptor) = &layer.descriptor {
        let (expected, actual) = (descriptor.digest, *spool.digest());
        if expected != actual {
            let what = format!("`{}` of the archive", layer.file);
            return Err(ImportError::Digest { what, expected, actual });
        }
        check_size(&layer.file, spool.size(), descriptor)?;
    }
    let file = open_spool(&spool)?;
    let mut start = [0; MAGIC_LENGTH];
    let started = file.file().read_at(&mut start, 0).map_err(unreadable)?;
    let compression = detect(&start[..started]);
    let (diff_id, size) = match compression {
        tree::codec::Compression::Plain => (DiffId(*spool.digest()), spool.size()),
        _ => plain_hash(Box::new(file)).map_err(unreadable)?,
    };
    check(&layer.file, layer.diff_id, diff_id)?;
    let descriptor = match &layer.descriptor {
        Some(descriptor) => descriptor.clone(),
        None => {
            let compression = known_compression(compression).ok_or_else(|| {
                unreadable(io::Error::other("a layer compressed otherwise than by gzip or zstd"))
            })?;
            Descriptor::new(compression.layer_type(false), *spool.digest(), spool.size())
        }
    };
    Ok(StagedLayer { descriptor, diff_id, size, spool: Some(spool) })
}

/// Digest and size of what a layer's blob is uncompressed.
fn plain_hash(blob: Box<dyn Read + Send>) -> io::Result<(DiffId, u64)> {
    let mut plain = HashReader::new(tree::codec::decompress(blob)?);
    io::copy(&mut plain, &mut io::sink())?;
    let (_, hash, size) = plain.finish();
    Ok((DiffId(Digest::from_bytes(hash)), size))
}

fn check(file: &str, expected: DiffId, actual: DiffId) -> Result<(), ImportError> {
    if expected == actual {
        return Ok(());
    }
    let what = format!("the layer in `{file}`");
    Err(ImportError::Digest { what, expected: expected.0, actual: actual.0 })
}

fn known_compression(compression: tree::codec::Compression) -> Option<Compression> {
    match compression {
        tree::codec::Compression::Plain => Some(Compression::Uncompressed),
        tree::codec::Compression::Gzip => Some(Compression::Gzip),
        tree::codec::Compression::Zstd => Some(Compression::Zstd),
        _ => None,
    }
}
