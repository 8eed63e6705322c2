//! An image of a registry, brought into the store with all its layers.

use cache::{NewImage, NewVariant, Ref, Store};
use llb::image::ImageConfig;
use llb::{Digest, Platform, Reference};
use registry::Client;

use super::archive::LARGEST_DOCUMENT;
use super::plan::check_count;
use super::{ImportError, time};
use crate::blobs::in_parallel;

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Its id.
    pub id: Digest,
    /// What the name stands for in the registry: the digest of an index, or of the only manifest.
    pub digest: Digest,
    /// Whether the store had just this image under the name before.
    pub up_to_date: bool,
}

/// Brings what `name` stands for on each of `platforms` into the store, and calls it `name`. Every layer is fetched, if
/// it is not there, and read through; `told` hears of each that is. When this returns, the image is on the disk.
///
/// # Errors
/// When the registry fails, has nothing for one of the platforms, or gives what is not what it says.
pub fn pull(
    client: &Client,
    store: &Store,
    name: &Reference,
    platforms: &[Platform],
    told: &(dyn Fn(&Digest) + Sync),
) -> Result<Pulled, ImportError> {
    let origin = format!("docker-image://{name}");
    let mut variants: Vec<NewVariant> = Vec::new();
    let mut created = None;
    let mut top: Option<registry::Document> = None;
    for platform in platforms {
        // A tag may move between two questions, so it is asked for once.
        let asked = top.as_ref().map(|top| name.with_digest(top.descriptor.digest));
        let known = |digest: Digest| {
            let top = top.as_ref().filter(|top| top.descriptor.digest == digest)?;
            Some(top.bytes.clone())
        };
        let asked = asked.as_ref().unwrap_or(name);
        let image = client.resolve_image_knowing(asked, platform, &known)?;
        let top = top.get_or_insert_with(|| image.top.clone());
        let config = match store.blob(&image.manifest.config.digest)? {
            Some(blob) => blob.read()?,
            None => {
                // A tag may move between two questions, so what belongs together is asked for by digest.
                let repository = name.without_version().with_digest(top.descriptor.digest);
                client.small_blob(&repository, &image.manifest.config, LARGEST_DOCUMENT)?
            }
        };
        let stranger = || ImportError::NotAnImage {
            name: name.familiar(),
            media_type: image
                .manifest
                .config
                .media_type
                .chars()
                .filter(|c| !c.is_control())
                .collect(),
        };
        let parsed: ImageConfig = serde_json::from_slice(&config).map_err(|_| stranger())?;
        if parsed.os.is_empty() && parsed.architecture.is_empty() {
            return Err(stranger());
        }
        let offered = Platform::from(&parsed);
        if platform.rank(&offered.normalized()).is_none() {
            return Err(ImportError::Platform {
                image: format!("image `{}`", name.familiar()),
                platform: platform.to_string(),
                offered: format!("`{offered}`"),
            });
        }
        if variants.iter().any(|variant| variant.config == config) {
            continue;
        }
        created = created.max(time(parsed.created.as_deref()));
        variants.push(NewVariant {
            platform: offered,
            reference: match built(store, &config) {
                Some(layers) => layers,
                None => chain(store, &image.manifest, &parsed, &origin)?,
            },
            config,
            manifest: Some(image.document.bytes),
        });
    }
    let layers: Vec<_> =
        variants.iter().flat_map(|variant| variant.reference.layers().to_vec()).collect();
    in_parallel(&layers, |layer| {
        layer.measure()?;
        if let Some(descriptor) = layer.descriptor()? {
            told(&descriptor.digest);
        }
        Ok::<_, ImportError>(())
    })?;
    let top = top.ok_or_else(|| ImportError::NoImages { path: name.to_string() })?;
    let is_index = variants
        .iter()
        .all(|variant| variant.manifest.as_ref().is_none_or(|manifest| *manifest != top.bytes));
    let before = store.images().by_name(name)?;
    let new = NewImage {
        variants,
        created: created.unwrap_or(std::time::SystemTime::UNIX_EPOCH),
        index: is_index.then(|| top.bytes.clone()),
    };
    let id = store.images().put(&new, std::slice::from_ref(name))?;
    store.sync()?;
    let digest = top.descriptor.digest;
    let same = |image: cache::Image| image.id == id && image.digest() == Some(digest);
    Ok(Pulled { id, digest, up_to_date: before.is_some_and(same) })
}

/// The layers of an image with this config that the store has, such as one that was built and pushed here.
fn built(store: &Store, config: &[u8]) -> Option<Ref> {
    let (images, digest) = (store.images(), Digest::of(config));
    let image = images.get(&digest.to_string()).ok()?;
    let variant = image.variants.iter().find(|variant| variant.config == digest)?;
    images.reference(variant).ok()
}

/// The layers of a manifest, to be fetched when they are asked for.
fn chain(
    store: &Store,
    manifest: &llb::image::Manifest,
    config: &ImageConfig,
    origin: &str,
) -> Result<Ref, ImportError> {
    let descriptors = manifest.layers.clone().unwrap_or_default();
    let diff_ids = config.rootfs.diff_ids.clone().unwrap_or_default();
    check_count(&format!("`{origin}`"), descriptors.len(), diff_ids.len())?;
    Ok(store.base_layers(diff_ids.into_iter().zip(&descriptors), origin)?)
}
