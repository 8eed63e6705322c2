//! Images: resolved before a definition is made, so that their keys are known and nothing is fetched here.

use std::sync::{Arc, PoisonError};

use cache::Key;
use llb::Platform;
use llb::op::SourceOp;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::image::ImageFacts;
use crate::value::Value;

/// The layers of an image, as descriptors.
pub(super) fn value(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Value, OpError> {
    Ok(Value::Tree(facts(job, source, platform)?.layers.clone()))
}

/// Keys of an image: of its manifest and of its chain of layers.
pub(super) fn keys(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Vec<Key>, OpError> {
    Ok(facts(job, source, platform)?.keys.clone())
}

fn facts(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Arc<ImageFacts>, OpError> {
    let images = job.engine.images.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (source.identifier.clone(), platform.cloned());
    // An image without an index may say of itself that it is for another platform than was asked for.
    let only = || {
        let mut all = images.iter().filter(|((identifier, _), _)| *identifier == key.0);
        all.next().filter(|_| all.next().is_none()).map(|(_, facts)| facts)
    };
    images
        .get(&key)
        .or_else(only)
        .map(Arc::clone)
        .ok_or_else(|| OpError::Missing { kind: "image", name: source.identifier.clone() })
}
