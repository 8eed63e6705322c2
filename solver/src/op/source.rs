//! Sources: images and the build context.

use std::sync::{Arc, PoisonError};

use cache::{Key, KeyBuilder, Records, Ref};
use llb::op::SourceOp;
use tree::content::Selection;
use tree::draft::CopyOptions;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::image::ImageFacts;
use crate::value::Value;

/// The tree that a source stands for; nothing is fetched or read yet.
pub(crate) fn value(job: &JobInner, source: &SourceOp) -> Result<Value, OpError> {
    if let Some(name) = source.identifier.strip_prefix("local://") {
        let context = job.session.context(name);
        let context = context.ok_or_else(|| OpError::Missing { kind: "build context", name: name.to_owned() })?;
        return Ok(Value::Context(name.to_owned(), context));
    }
    Ok(Value::Tree(image(job, source)?.layers.clone()))
}

/// Keys of a source; a folder has none, only its content counts.
pub(crate) fn keys(job: &JobInner, source: &SourceOp) -> Result<Vec<Key>, OpError> {
    if source.identifier.starts_with("local://") {
        return Ok(Vec::new());
    }
    Ok(image(job, source)?.keys.clone())
}

fn image(job: &JobInner, source: &SourceOp) -> Result<Arc<ImageFacts>, OpError> {
    let scheme = source.identifier.split("://").next().unwrap_or_default();
    if !matches!(scheme, "docker-image" | "oci-layout") {
        return Err(OpError::NotSupported(format!("the source `{}`", source.identifier)));
    }
    let images = job.engine.images.lock().unwrap_or_else(PoisonError::into_inner);
    let found = images.iter().find(|((identifier, _), _)| *identifier == source.identifier);
    found
        .map(|(_, facts)| Arc::clone(facts))
        .ok_or_else(|| OpError::Missing { kind: "image", name: source.identifier.clone() })
}

/// Copies what is at `path` of a context into a layer, so that it can be mounted or built upon.
///
/// The layer is kept under the hash of its content: an unchanged context is copied once.
pub(crate) fn materialise(job: &JobInner, value: &Value, path: &str) -> Result<Ref, OpError> {
    let Value::Context(name, context) = value else {
        return Err(OpError::NotSupported("copying a tree that is in the store already".to_owned()));
    };
    let selection = Selection { path: path.to_owned(), follow: true, ..Selection::default() };
    let digest = tree::content::digest(context.as_ref(), &selection).map_err(|error| OpError::Checksum {
        reference: format!("build context `{name}`"),
        message: error.to_string(),
        hint: None,
    })?;
    let key = KeyBuilder::new("context.v1").str(path).bytes(&digest).finish();
    let records = job.engine.store.records();
    if let Some(found) = records.load(&key)? {
        return Ok(found.reference);
    }
    let workspace = job.engine.store.workspace(&Ref::scratch())?;
    let mut draft = workspace.draft()?;
    let options = CopyOptions {
        source: path.to_owned(),
        dest: path.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    draft.copy(context.as_ref(), &options).map_err(OpError::File)?;
    drop(draft);
    let tree = Ref::scratch().push(workspace.commit()?);
    records.save(&key, &tree, b"context")?;
    Ok(tree)
}
