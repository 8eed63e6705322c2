//! An image of the local store, to be pushed or written as it is.
//!
//! Invariant: the config is used byte for byte, so the image keeps its id; documents it was pushed or
//! pulled with are used again as long as they name the same blobs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use llb::image::{ImageConfig, Index, Manifest, media_type};
use llb::{Digest, Platform};

use crate::blobs::{self, Choice, Content, Wanted};
use crate::image::{self, Document, PlatformImage};
use crate::{Annotations, ExportError, Image, ImageOptions, history};

/// Puts a stored image together, making layer blobs where there are none, several at once.
///
/// # Errors
/// When the store has lost a part of the image, or a layer blob cannot be made.
pub fn assemble_stored(
    store: &cache::Store,
    stored: &cache::Image,
    options: &ImageOptions,
    content: Content,
) -> Result<Image, ExportError> {
    assemble_stored_followed(store, stored, options, content, None)
}

/// As [`assemble_stored`]; `follow` is given the layer blobs that have to be made, when that begins.
///
/// # Errors
/// When the store has lost a part of the image, or a layer blob cannot be made.
pub fn assemble_stored_followed(
    store: &cache::Store,
    stored: &cache::Image,
    options: &ImageOptions,
    content: Content,
    follow: Option<&cache::Follow<'_>>,
) -> Result<Image, ExportError> {
    let images = store.images();
    let chains = stored
        .variants
        .iter()
        .map(|variant| images.reference(variant))
        .collect::<Result<Vec<_>, _>>()?;
    let layers = blobs::of_layers(
        store,
        chains.iter().flat_map(cache::Ref::layers),
        &Wanted { options, content, choice: Choice::AsKnown, follow },
    )?;
    let mut created: Option<Timestamp> = None;
    let mut manifests = Vec::with_capacity(chains.len());
    for (variant, chain) in stored.variants.iter().zip(&chains) {
        let text = images.config(variant)?;
        let damaged = |source| ExportError::StoredImage { id: stored.id, source };
        let config = ImageConfig::from_json(&text).map_err(damaged)?;
        created = created.max(history::parse(config.created.as_deref())?);
        let platform = Platform::from(&config);
        let mut made = PlatformImage::new(
            &platform,
            text,
            layers.of(chain),
            BTreeMap::new(),
            options.oci_types,
        );
        if let Some(document) =
            variant.manifest.as_deref().and_then(|text| same_manifest(text, &made))
        {
            made.manifest = document;
        }
        manifests.push(made);
    }
    let old = stored.index.as_deref().and_then(|text| same_index(text, &manifests));
    let several = manifests.len() != 1;
    let index = old.or_else(|| {
        several.then(|| image::index(&manifests, &[], &Annotations::default(), options))
    });
    Ok(Image {
        manifests,
        attestations: Vec::new(),
        index,
        created: image::in_seconds(created),
        top_annotations: BTreeMap::new(),
        stop: options.stop.clone(),
    })
}

/// The manifest an image was pushed or pulled with, if it names just what `made` does.
fn same_manifest(text: &[u8], made: &PlatformImage) -> Option<Document> {
    let old = Manifest::from_json(text).ok()?;
    let digests: Vec<Digest> =
        old.layers.unwrap_or_default().iter().map(|layer| layer.digest).collect();
    let wanted = made.layers.iter().map(|layer| layer.descriptor.digest);
    let same = old.config.digest == made.config.descriptor.digest && wanted.eq(digests);
    same.then(|| Document::new(or(&old.media_type, media_type::OCI_MANIFEST), text.to_vec()))
}

/// The index an image was pushed or pulled with, if it names just these manifests.
fn same_index(text: &[u8], manifests: &[PlatformImage]) -> Option<Document> {
    let old = Index::from_json(text).ok()?;
    let wanted = manifests.iter().map(|image| image.manifest.descriptor.digest);
    let same = old.manifests.iter().map(|descriptor| descriptor.digest).eq(wanted);
    same.then(|| Document::new(or(&old.media_type, media_type::OCI_INDEX), text.to_vec()))
}

/// OCI documents need not say what they are.
fn or<'a>(media_type: &'a str, default: &'a str) -> &'a str {
    if media_type.is_empty() { default } else { media_type }
}
