//! Images from elsewhere into the store: archives and layouts (`load`), registries (`pull`).
//!
//! ```text
//! archive   files by name        plan   documents, checked
//! stage     layers, checked ───▶ blobs, base layers, image
//! ```
//!
//! Invariants:
//! - Every byte is checked before the first becomes part of the store: an archive that is not whole, or whose bytes
//!   are not those that are named, leaves nothing.
//! - Layers that the store has already are not kept once more.
//! - Unlike a build, which can be done again, both wait for the disk: what was told to be there outlives a power cut.

mod archive;
mod error;
mod plan;
mod pull;
mod stage;

use std::time::SystemTime;

use cache::{NewImage, NewVariant, Ref, Store};
use jiff::Timestamp;
use llb::{Digest, Platform, Reference};

pub use archive::Input;
pub use error::ImportError;
pub use pull::{Pulled, pull};

use archive::Archive;
use plan::{PlannedImage, PlannedVariant};
use stage::Staged;

/// An image that was brought into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its id.
    pub id: Digest,
    /// The names it was given.
    pub names: Vec<Reference>,
}

/// Brings the images of an archive or layout into the store, under the names that it gives them. Without `platforms`
/// all platforms of an image are taken. When this returns, they are on the disk.
///
/// # Errors
/// When the archive cannot be read, is not whole, or has something that is not what it should be.
pub fn load(
    store: &Store,
    input: Input,
    platforms: &[Platform],
) -> Result<Vec<Imported>, ImportError> {
    let archive = Archive::open(store, input)?;
    let images = plan::images(&archive, platforms)?;
    let wanted = images.iter().filter(|image| known(store, image).is_none());
    let layers = wanted.flat_map(|image| &image.variants).flat_map(|variant| &variant.layers);
    let mut staged = Staged::of(store, &archive, layers)?;
    staged.commit(store)?;
    let mut imported = Vec::with_capacity(images.len());
    for image in images {
        let id = match known(store, &image) {
            Some(id) => {
                let tag = |name| store.images().tag(&id.to_string(), name);
                image.names.iter().try_for_each(tag)?;
                id
            }
            None => put(store, &image, &staged)?,
        };
        imported.push(Imported { id, names: image.names });
    }
    store.sync()?;
    Ok(imported)
}

/// The id of an image of one platform that the store has already, with all its layers.
fn known(store: &Store, image: &PlannedImage) -> Option<Digest> {
    let [only] = image.variants.as_slice() else { return None };
    let id = Digest::of(&only.config);
    let stored = store.images().get(&id.to_string()).ok()?;
    let whole = stored.variants.iter().all(|variant| store.images().reference(variant).is_ok());
    whole.then_some(id)
}

/// Makes the image of layers whose blobs are in the store.
fn put(store: &Store, image: &PlannedImage, staged: &Staged) -> Result<Digest, ImportError> {
    let mut variants = Vec::with_capacity(image.variants.len());
    for variant in &image.variants {
        variants.push(NewVariant {
            platform: variant.platform.clone(),
            config: variant.config.clone(),
            reference: chain(store, variant, staged)?,
            manifest: variant.manifest.clone(),
        });
    }
    let created = image.variants.iter().filter_map(|variant| time(variant.created.as_deref()));
    let created = created.max().unwrap_or(SystemTime::UNIX_EPOCH);
    let new = NewImage { variants, created, index: image.index.clone() };
    Ok(store.images().put(&new, &image.names)?)
}

fn chain(store: &Store, variant: &PlannedVariant, staged: &Staged) -> Result<Ref, ImportError> {
    let mut chain = Ref::scratch();
    for planned in &variant.layers {
        let descriptor = staged.descriptor(planned);
        let layer = store.base_layer_over(&chain, planned.diff_id, descriptor, None)?;
        layer.note_size(staged.size(planned));
        chain = chain.push(layer);
    }
    Ok(chain)
}

/// A time of a config; one that is none counts as not there.
fn time(text: Option<&str>) -> Option<SystemTime> {
    text?.parse::<Timestamp>().ok().map(SystemTime::from)
}
