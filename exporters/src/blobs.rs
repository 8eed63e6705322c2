//! Layer blobs for an image: which one of a layer's blobs, and making those that are missing.
//!
//! A layer of a base image keeps the blob it came with, whatever its compression, unless another is forced. A new layer
//! gets the compression that was asked for: what it was exported as before does not count, so that a result comes out
//! the same from an empty store and from any other. An image that is in the store keeps the blobs it was pushed with.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cache::{Follow, Layer, LayerId, Rewrite, Store};
use llb::DiffId;
use llb::image::{Compression, Descriptor, annotation};
use tree::codec::Codec;

use crate::ExportError;
use crate::options::ImageOptions;

/// Layers that are fetched or compressed at once. Compression uses all cores for each.
const AT_ONCE: usize = 4;

/// Where the bytes of layers must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// In the store.
    Here,
    /// In the store, or in a registry that is known to have them.
    Elsewhere,
}

/// Which blobs may stand for a layer when none is forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// What a layer came with, else what was asked for.
    AsAsked,
    /// Any that there is; what was asked for is preferred.
    AsKnown,
}

/// One layer of an image as a blob.
#[derive(Debug, Clone)]
pub struct LayerBlob {
    /// Media type, digest and size as the manifest has them.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Where a registry has the blob.
    pub origin: Option<String>,
    layer: Layer,
    codec: Codec,
}

impl LayerBlob {
    /// The blob in the store, fetched from its registry if need be.
    ///
    /// # Errors
    /// When it cannot be fetched.
    pub(crate) fn content(&self, store: &Store) -> Result<cache::BlobFile, ExportError> {
        let digest = self.descriptor.digest;
        if let Some(blob) = store.blob(&digest)? {
            return Ok(blob);
        }
        self.layer.blob_any(self.codec)?;
        store.blob(&digest)?.ok_or(ExportError::MissingBlob(digest))
    }
}

/// Makes beforehand what an export of an image with these options will ask of a layer. `content` is `None` for an image
/// that only the store is to have.
///
/// # Errors
/// When it cannot be made; the export will meet the same.
pub fn prepare(
    store: &Store,
    layer: &Layer,
    options: &ImageOptions,
    content: Option<Content>,
) -> Result<(), ExportError> {
    if options.rewrite_timestamp && options.source_date_epoch.is_none() {
        // The time is known with the result only.
        return Ok(());
    }
    if let Some(content) = content {
        let wanted = Wanted { options, content, choice: Choice::AsAsked, follow: None };
        choose(store, layer, &wanted)?;
    }
    layer.diff_id_unless(&options.stop)?;
    Ok(())
}

/// The blobs of all layers of a result.
pub(crate) struct LayerBlobs(HashMap<LayerId, LayerBlob>);

impl LayerBlobs {
    /// The blobs of a chain whose layers were given to [`of_layers`], lowest first.
    pub(crate) fn of(&self, chain: &cache::Ref) -> Vec<LayerBlob> {
        chain.layers().iter().map(|layer| self.0[&layer.id()].clone()).collect()
    }
}

/// What is wanted of layers.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// As what.
    pub(crate) options: &'a ImageOptions,
    /// Where the bytes must be.
    pub(crate) content: Content,
    /// Which of the blobs that there are.
    pub(crate) choice: Choice,
    /// Is given the blobs that have to be made, when that begins.
    pub(crate) follow: Option<&'a Follow<'a>>,
}

/// Finds or makes a blob for each of the layers.
pub(crate) fn of_layers<'a>(
    store: &Store,
    layers: impl Iterator<Item = &'a Layer>,
    wanted: &Wanted<'_>,
) -> Result<LayerBlobs, ExportError> {
    let options = wanted.options;
    let unique: HashMap<LayerId, &Layer> = layers.map(|layer| (layer.id(), layer)).collect();
    let work: Vec<&Layer> = unique.into_values().collect();
    let done = in_parallel(&work, |layer| {
        let Chosen { descriptor, diff_id, origin } = choose(store, layer, wanted)?;
        let blob = LayerBlob {
            descriptor: for_manifest(&descriptor, options)?,
            diff_id,
            origin,
            layer: (*layer).clone(),
            codec: options.compression,
        };
        Ok::<_, ExportError>((layer.id(), blob))
    })?;
    Ok(LayerBlobs(done.into_iter().collect()))
}

/// Does all the work on this thread and a few of its own, as it waits for the network as often as for a core.
///
/// After an error no new piece is begun; the first error is returned.
pub(crate) fn in_parallel<T: Sync, U: Send, E: Send>(
    work: &[T],
    run: impl Fn(&T) -> Result<U, E> + Sync,
) -> Result<Vec<U>, E> {
    if work.len() <= 1 {
        return work.iter().map(run).collect();
    }
    let next = Mutex::new(work.iter());
    let done = Mutex::new((Vec::with_capacity(work.len()), None));
    let lock = |()| done.lock().unwrap_or_else(PoisonError::into_inner);
    let take_turns = || {
        while lock(()).1.is_none() {
            let Some(piece) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                break;
            };
            match run(piece) {
                Ok(result) => lock(()).0.push(result),
                Err(error) => drop(lock(()).1.get_or_insert(error)),
            }
        }
    };
    std::thread::scope(|scope| {
        (1..AT_ONCE.min(work.len())).for_each(|_| drop(scope.spawn(take_turns)));
        take_turns();
    });
    let (results, error) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    error.map_or(Ok(results), Err)
}

/// The blob that stands for a layer.
struct Chosen {
    descriptor: Descriptor,
    diff_id: DiffId,
    /// Where a registry has it.
    origin: Option<String>,
}

fn choose(store: &Store, layer: &Layer, wanted: &Wanted<'_>) -> Result<Chosen, ExportError> {
    let options = wanted.options;
    let rewrite = rewrite(layer, options)?;
    if !rewrite.is_none() {
        let (descriptor, diff_id) =
            layer.rewritten_blob(rewrite, options.compression, &options.stop)?;
        return Ok(Chosen { descriptor, diff_id, origin: None });
    }
    let (descriptor, origin) = choose_as_it_is(store, layer, wanted)?;
    Ok(Chosen { descriptor, diff_id: layer.diff_id_unless(&options.stop)?, origin })
}

/// What is changed in the tar of a layer. Those of a base image stay what they are, unless they are forced into another
/// compression.
fn rewrite(layer: &Layer, options: &ImageOptions) -> Result<Rewrite, ExportError> {
    let is_new = !layer.is_base();
    let mut table = options.table && is_new;
    if options.table && !is_new && options.force_compression {
        let has_one = |blob: &Descriptor| {
            blob.annotations.as_ref().is_some_and(|notes| notes.contains_key(annotation::TABLE))
        };
        table = !layer.known_blobs()?.iter().any(has_one);
    }
    let latest = match options.source_date_epoch {
        _ if !options.rewrite_timestamp || !is_new => None,
        None => return Err(ExportError::NoEpoch),
        epoch => epoch,
    };
    Ok(Rewrite { latest, table })
}

/// The blob that holds the layer's own tar, and where a registry has it.
fn choose_as_it_is(
    store: &Store,
    layer: &Layer,
    wanted: &Wanted<'_>,
) -> Result<(Descriptor, Option<String>), ExportError> {
    let Wanted { options, content, choice, follow } = *wanted;
    let make = || Ok((layer.blob_followed(options.compression, &options.stop, follow)?, None));
    if choice == Choice::AsAsked && !layer.is_base() {
        return make();
    }
    let wanted = compression_of(options.compression);
    let remote = layer.descriptor()?.map(|descriptor| descriptor.digest);
    let mut known = layer.known_blobs()?;
    known.retain(|blob| {
        let compression = Compression::of_layer(&blob.media_type);
        compression == Some(wanted) || (!options.force_compression && compression.is_some())
    });
    if choice == Choice::AsAsked && !options.force_compression && remote.is_some() {
        known.retain(|blob| remote == Some(blob.digest));
    }
    known.sort_by_key(|blob| {
        let other = Compression::of_layer(&blob.media_type) != Some(wanted);
        (other, remote != Some(blob.digest), blob.size, blob.digest)
    });
    for blob in known {
        let here = store.blob(&blob.digest)?.is_some();
        let elsewhere = remote == Some(blob.digest);
        if here || (elsewhere && content == Content::Elsewhere) {
            let origin = if elsewhere { layer.origin()? } else { None };
            return Ok((blob, origin));
        }
        if elsewhere {
            let fetched = layer.blob_any(options.compression)?;
            if fetched.digest == blob.digest {
                return Ok((fetched, layer.origin()?));
            }
        }
    }
    make()
}

fn compression_of(codec: Codec) -> Compression {
    match codec {
        Codec::Plain => Compression::Uncompressed,
        Codec::Gzip(_) => Compression::Gzip,
        Codec::Zstd(_) => Compression::Zstd,
    }
}

/// The descriptor for a manifest: media type of the wanted family, without other places and without the
/// notes that builders and stores keep for themselves.
fn for_manifest(
    descriptor: &Descriptor,
    options: &ImageOptions,
) -> Result<Descriptor, ExportError> {
    let compression =
        Compression::of_layer(&descriptor.media_type).ok_or_else(|| ExportError::LayerType {
            digest: descriptor.digest,
            media_type: descriptor.media_type.clone(),
        })?;
    let internal = [annotation::DIFF_ID, "buildkit/", "containerd.io/distribution.source."];
    let mut annotations = descriptor.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| {
        options.oci_types && !internal.iter().any(|prefix| key.starts_with(prefix))
    });
    let stays_marked = options.prefer_nondist && is_nondistributable(descriptor);
    let media_type = if stays_marked {
        &descriptor.media_type
    } else {
        compression.layer_type(!options.oci_types)
    };
    Ok(Descriptor {
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        urls: descriptor.urls.clone().filter(|_| stays_marked),
        ..Descriptor::new(media_type, descriptor.digest, descriptor.size)
    })
}

/// Whether a layer is one that its owner does not let others hand on.
pub(crate) fn is_nondistributable(descriptor: &Descriptor) -> bool {
    let kind = &descriptor.media_type;
    kind.contains(".nondistributable.") || kind.contains(".foreign.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_may_not_be_handed_on_stay_marked_if_that_is_preferred() {
        let kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
        let notes = [("containerd.io/uncompressed", "x"), ("org.example", "y")];
        let layer = Descriptor {
            urls: Some(vec!["https://example.com/layer".to_owned()]),
            annotations: Some(notes.map(|(key, value)| (key.into(), value.into())).into()),
            ..Descriptor::new(kind, llb::Digest::of(b"layer"), 5)
        };
        let options = |prefer_nondist| ImageOptions { prefer_nondist, ..ImageOptions::default() };
        let plain = for_manifest(&layer, &options(false)).unwrap();
        assert_eq!(plain.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        assert!(plain.urls.is_none() && !is_nondistributable(&plain));
        assert_eq!(plain.annotations.as_ref().unwrap().len(), 1);
        let marked = for_manifest(&layer, &options(true)).unwrap();
        assert_eq!((marked.media_type.as_str(), &marked.urls), (kind, &layer.urls));
        assert!(is_nondistributable(&marked));
    }
}
