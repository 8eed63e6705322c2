//! What the local store keeps of an image: its layers as they were written, and its further names.

use std::borrow::Cow;

use cache::{Ref, Store};
use llb::{Digest, Reference};

use crate::options::Naming;
use crate::{ExportError, Image, ImageResult, PlatformResult};

/// The result with the layers that `image` has, where they are not the result's own: those with other times, or with
/// tables of contents.
///
/// # Errors
/// When the store fails.
pub fn as_written<'a>(
    store: &Store,
    result: &'a ImageResult,
    image: &Image,
) -> Result<Cow<'a, ImageResult>, ExportError> {
    let mut platforms = Vec::with_capacity(result.platforms.len());
    let mut is_other = false;
    for (platform, written) in result.platforms.iter().zip(&image.manifests) {
        let mut chain = Ref::scratch();
        for (layer, blob) in platform.reference.layers().iter().zip(&written.layers) {
            if layer.known_diff_id() == Some(blob.diff_id) {
                chain = chain.push(layer.clone());
                continue;
            }
            is_other = true;
            let layer = store.base_layer_over(&chain, blob.diff_id, &blob.descriptor, None)?;
            chain = chain.push(layer);
        }
        platforms.push(PlatformResult { reference: chain, ..platform.clone() });
    }
    Ok(match is_other {
        true => Cow::Owned(ImageResult { platforms, ..result.clone() }),
        false => Cow::Borrowed(result),
    })
}

impl Naming {
    /// Whether the digest of the image is part of a name.
    pub fn needs_digest(&self) -> bool {
        self.canonical || self.dangling_prefix.is_some()
    }

    /// All names of an image with this digest that was given `names`.
    pub fn names(&self, names: &[Reference], digest: Digest) -> Vec<Reference> {
        let mut all = names.to_vec();
        if self.canonical {
            all.extend(names.iter().map(|name| name.without_version().with_digest(digest)));
        }
        if let Some(prefix) = &self.dangling_prefix
            && (names.is_empty() || !self.dangling_if_unnamed)
        {
            all.push(prefix.without_version().with_digest(digest));
        }
        all.dedup();
        all
    }
}
