//! Folders of the user's: the build context and named contexts. They are read in place; what a step needs as
//! layers is copied as far as it is used.

use std::time::SystemTime;

use cache::{KeyBuilder, LayerMeta, NewResult, Records, Ref};
use llb::op::SourceOp;
use tree::content::Selection;
use tree::draft::CopyOptions;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;

/// Whether a source is a folder of the user's.
pub(crate) fn is_local(source: &SourceOp) -> bool {
    source.identifier.starts_with("local://")
}

/// The folder.
pub(super) fn value(job: &JobInner, source: &SourceOp) -> Result<Value, OpError> {
    let name = source.identifier.trim_start_matches("local://");
    let context = job.session.context(name);
    let context =
        context.ok_or_else(|| OpError::Missing { kind: "build context", name: name.to_owned() })?;
    context.stop_when(job.stop_reading());
    Ok(Value::Context(name.to_owned(), context))
}

/// Copies what is at `path` of a context into a layer, so that it can be mounted or built upon.
///
/// The layer is kept under the hash of its content: an unchanged context is copied once.
pub(crate) fn materialise(job: &JobInner, value: &Value, path: &str) -> Result<Ref, OpError> {
    let name = match value {
        Value::Context(name, _) => format!("build context {name}"),
        Value::Archive(_) => "archive".to_owned(),
        Value::Tree(reference) => return Ok(reference.clone()),
    };
    let view = value.view(&job.cancel)?;
    let selection =
        Selection { paths: vec![path.to_owned()], follow_links: true, ..Selection::default() };
    let hash = || {
        tree::content::digest(view.as_ref(), &selection)
            .map_err(|error| crate::op::missing::explain(job, value, &name, view.as_ref(), error))
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
    let layer = workspace.commit(&LayerMeta::now(name.as_str()))?;
    let tree = Ref::scratch().push(layer);
    let is_steady = match value {
        Value::Context(_, context) => {
            !context.has_changed() && (context.is_remembered() || hash()? == digest)
        }
        Value::Archive(_) | Value::Tree(_) => true,
    };
    if !is_steady {
        return Ok(tree);
    }
    let result =
        NewResult { key, reference: tree.clone(), created: SystemTime::now(), why: Vec::new() };
    store.save(&[], Some(&result))?;
    Ok(tree)
}
