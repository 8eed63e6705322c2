//! What is known of an image of the store, as people and programs want it.

use std::collections::HashSet;
use std::time::SystemTime;

use cache::{Image, LayerId, Store, Variant};
use llb::image::ImageConfig;
use llb::{Platform, Reference};

use crate::commands::{image_failure, store_failure};
use crate::report::{Exit, Failure, chain};

/// Stands for a repository, tag or digest that there is not.
pub(crate) const NONE: &str = "<none>";

/// Digits of an id that are shown.
const SHORT: usize = 12;

/// A time as RFC 3339, in whole seconds.
pub(crate) fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// An id as it is shown.
pub(crate) fn shown_id(id: &llb::Digest, whole: bool) -> String {
    if whole { id.to_string() } else { id.hex()[..SHORT].to_owned() }
}

/// A name as users write it.
pub(crate) fn familiar(name: &str) -> String {
    Reference::parse_as_is(name).map_or_else(|_| name.to_owned(), |name| name.familiar())
}

/// Bytes of the uncompressed layers of all platforms, each layer once.
pub(crate) fn size(store: &Store, image: &Image) -> Result<u64, Failure> {
    let mut seen = HashSet::new();
    let layers = image.variants.iter().flat_map(|variant| &variant.layers);
    layers.filter(|id| seen.insert(**id)).map(|id| layer_size(store, id)).sum()
}

/// Bytes of an uncompressed layer; 0 for one that was never read.
pub(crate) fn layer_size(store: &Store, id: &LayerId) -> Result<u64, Failure> {
    let size = store.layer_size(id).map_err(|error| store_failure(&error, chain(&error)))?;
    Ok(size.unwrap_or(0))
}

/// The variant of an image for a platform; without one, the variant for this machine or else the first.
pub(crate) fn variant<'i>(
    image: &'i Image,
    name: &str,
    platform: Option<&str>,
) -> Result<&'i Variant, Failure> {
    let wanted = match platform {
        Some(text) => platform_of(text)?,
        None => Platform::host(),
    };
    let offered =
        |variant: &&Variant| wanted.rank(&Platform::parse(&variant.platform).ok()?.normalized());
    let best = image
        .variants
        .iter()
        .filter_map(|variant| Some((offered(&variant)?, variant)))
        .min_by_key(|(rank, _)| *rank);
    match (best, platform, image.variants.first()) {
        (Some((_, variant)), _, _) | (None, None, Some(variant)) => Ok(variant),
        (None, _, _) => {
            let all: Vec<&str> =
                image.variants.iter().map(|variant| variant.platform.as_str()).collect();
            Err(Failure::new(Exit::Build, format!("`{name}` has nothing for platform `{wanted}`"))
                .hint(format!("it is for {}", all.join(", "))))
        }
    }
}

/// The config of a variant, as text and read.
pub(crate) fn config(
    store: &Store,
    variant: &Variant,
    name: &str,
) -> Result<(Vec<u8>, ImageConfig), Failure> {
    let text = store.images().config(variant).map_err(|error| image_failure(&error, name))?;
    let config = ImageConfig::from_json(&text).map_err(|error| {
        Failure::new(Exit::Machine, format!("the config of `{name}` is damaged: {}", chain(&error)))
    })?;
    Ok((text, config))
}

/// Reads `--platform`.
pub(crate) fn platform_of(text: &str) -> Result<Platform, Failure> {
    Platform::parse(text).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
}

/// Reads a list of `--platform`.
pub(crate) fn platforms_of(texts: &[String]) -> Result<Vec<Platform>, Failure> {
    texts.iter().map(|text| platform_of(text)).collect()
}
