//! Sources: images and the build context.

use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use cache::{Key, KeyBuilder, LayerMeta, NewResult, Records, Ref};
use llb::Platform;
use llb::op::SourceOp;
use tree::content::Selection;
use tree::draft::CopyOptions;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::image::ImageFacts;
use crate::value::Value;

/// The tree that a source stands for; nothing is fetched or read yet.
pub(crate) fn value(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Value, OpError> {
    if let Some(name) = source.identifier.strip_prefix("local://") {
        let context = job.session.context(name);
        let context = context
            .ok_or_else(|| OpError::Missing { kind: "build context", name: name.to_owned() })?;
        return Ok(Value::Context(name.to_owned(), context));
    }
    Ok(Value::Tree(image(job, source, platform)?.layers.clone()))
}

/// Whether a source is a folder of the user's.
pub(crate) fn is_local(source: &SourceOp) -> bool {
    source.identifier.starts_with("local://")
}

/// Keys of a source; a folder has none, only its content counts.
pub(crate) fn keys(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Vec<Key>, OpError> {
    if is_local(source) {
        return Ok(Vec::new());
    }
    Ok(image(job, source, platform)?.keys.clone())
}

fn image(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Arc<ImageFacts>, OpError> {
    let scheme = source.identifier.split("://").next().unwrap_or_default();
    if !matches!(scheme, "docker-image" | "oci-layout") {
        return Err(OpError::NotSupported(format!("the source `{}`", source.identifier)));
    }
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

/// Copies what is at `path` of a context into a layer, so that it can be mounted or built upon.
///
/// The layer is kept under the hash of its content: an unchanged context is copied once.
pub(crate) fn materialise(job: &JobInner, value: &Value, path: &str) -> Result<Ref, OpError> {
    let Value::Context(name, context) = value else {
        return Err(OpError::NotSupported(
            "copying a tree that is in the store already".to_owned(),
        ));
    };
    let view = value.view(&job.cancel)?;
    let selection =
        Selection { paths: vec![path.to_owned()], follow_links: true, ..Selection::default() };
    let hash = || {
        tree::content::digest(view.as_ref(), &selection)
            .map_err(|error| super::missing::in_context(job, name, context.as_ref(), error))
    };
    let digest = hash()?;
    let key = KeyBuilder::new("context.v1").str(path).bytes(&digest).finish();
    let store = &job.engine.store;
    if let Some(found) = store.load(&key)? {
        return Ok(found.reference);
    }
    let workspace = store.workspace(&Ref::scratch())?;
    let mut draft = workspace.draft()?;
    let options = CopyOptions {
        source: path.to_owned(),
        dest: path.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    draft.copy(view.as_ref(), &options).map_err(OpError::File)?;
    drop(draft);
    let layer = workspace.commit(&LayerMeta::now(format!("build context {name}")))?;
    let tree = Ref::scratch().push(layer);
    if hash()? != digest {
        return Ok(tree);
    }
    let result =
        NewResult { key, reference: tree.clone(), created: SystemTime::now(), why: Vec::new() };
    store.save(&[], Some(&result))?;
    Ok(tree)
}
