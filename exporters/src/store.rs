//! The result as an image of the local store: no tar and no compressed copy is made of any layer.

use std::collections::HashMap;
use std::time::SystemTime;

use cache::{LayerId, NewImage, NewVariant, Store};
use jiff::Timestamp;
use llb::{DiffId, Digest, Reference};

use crate::blobs::in_parallel;
use crate::image::finished_config;
use crate::{ExportError, Exported, Image, ImageOptions, ImageResult, Stop, history};

/// Stores the image under `names`, which may be none.
///
/// `pushed` is the image as it was pushed or written in the same build; the store keeps its documents,
/// so that a later push gives the same digest.
///
/// # Errors
/// When a layer cannot be read or the store not be written.
pub fn put(
    store: &Store,
    result: &ImageResult,
    options: &ImageOptions,
    names: &[Reference],
    pushed: Option<&Image>,
) -> Result<Exported, ExportError> {
    let diff_ids = diff_ids(result, &options.stop)?;
    let mut created: Option<Timestamp> = None;
    let mut variants = Vec::with_capacity(result.platforms.len());
    for (number, platform) in result.platforms.iter().enumerate() {
        let layers =
            platform.reference.layers().iter().map(|layer| diff_ids[&layer.id()]).collect();
        let epoch = options.source_date_epoch.or(platform.source_date_epoch);
        let config = finished_config(platform, layers, epoch)?;
        created = created.max(history::parse(config.created.as_deref())?);
        variants.push(NewVariant {
            platform: platform.platform.clone(),
            config: config.to_json(),
            reference: platform.reference.clone(),
            manifest: pushed
                .and_then(|image| image.manifests.get(number))
                .map(|image| image.manifest.bytes.clone()),
        });
    }
    let config = match variants.as_slice() {
        [only] => Some(Digest::of(&only.config)),
        _ => None,
    };
    let image = NewImage {
        variants,
        created: created.map_or(SystemTime::UNIX_EPOCH, SystemTime::from),
        index: pushed.and_then(|image| image.index.as_ref()).map(|index| index.bytes.clone()),
    };
    let id = store.images().put(&image, names)?;
    Ok(Exported {
        descriptor: pushed.map(Image::descriptor),
        config,
        id,
        names: names.iter().map(Reference::to_string).collect(),
    })
}

/// The diff ids of all layers; those not known are found on several threads.
fn diff_ids(result: &ImageResult, stop: &Stop) -> Result<HashMap<LayerId, DiffId>, ExportError> {
    let layers = result.platforms.iter().flat_map(|platform| platform.reference.layers());
    let unique: HashMap<LayerId, _> = layers.map(|layer| (layer.id(), layer)).collect();
    let (mut known, mut work) = (HashMap::new(), Vec::new());
    for (id, layer) in unique {
        match layer.known_diff_id() {
            Some(diff_id) => drop(known.insert(id, diff_id)),
            None => work.push(layer),
        }
    }
    let found = in_parallel(&work, |layer| {
        Ok::<_, ExportError>((layer.id(), layer.diff_id_unless(stop)?))
    })?;
    known.extend(found);
    Ok(known)
}
