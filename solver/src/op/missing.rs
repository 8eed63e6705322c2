//! What to say about a file that a COPY, ADD or bind mount names and that is not there.

use std::path::{Component, Path, PathBuf};

use tree::{Kind, TreeError, View};

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;

/// Most names of a folder that are looked at for one that is meant.
const MOST_NAMES: usize = 10_000;

/// What makes the tree that has nothing in it.
pub(crate) const EMPTY: &str = "an empty tree";

/// Says which file of a value is not there; `made_by` names the vertex that the value comes from.
pub(crate) fn explain(
    job: &JobInner,
    value: &Value,
    made_by: &str,
    view: &dyn View,
    error: TreeError,
) -> OpError {
    match value {
        Value::Context(name, _) => in_context(job, name, view, error),
        Value::Tree(_) | Value::Archive(_) => in_tree(made_by, view, error),
    }
}

/// Says which file of a build context is not there, and whether the ignore file hides it.
fn in_context(job: &JobInner, name: &str, context: &dyn View, error: TreeError) -> OpError {
    let TreeError::NotFound { path } = &error else { return error.into() };
    let shown = path.display();
    let place = match name {
        "context" => "the build context".to_owned(),
        name => format!("the build context `{name}`"),
    };
    let end = led_to(context, path);
    let is_ignored = |path: &Path| job.session.is_ignored(name, &path.to_string_lossy());
    let is_there = |path: &Path| matches!(context.metadata(path), Ok(Some(_)));
    let hint = match &end {
        Some(end) if is_there(end.strip_prefix("/").unwrap_or(end)) => format!(
            "`{shown}` leads through a link to `{}`, and this copy follows no links on the way: name that itself",
            end.display()
        ),
        Some(end) if is_ignored(end) => format!(
            "`{shown}` leads through a link to `{}`, which is in {place}, but its .dockerignore file excludes it",
            end.display()
        ),
        Some(end) => format!(
            "`{shown}` leads through a link to `{}`, and there is no such file in {place}",
            end.display()
        ),
        None if is_ignored(path) => {
            format!("`{shown}` is in {place}, but its .dockerignore file excludes it")
        }
        None if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"--")) => {
            format!(
                "`{}` is taken for a file: flags come right after the instruction, before all paths",
                path.file_name().unwrap_or_default().display()
            )
        }
        None => format!("there is no `{shown}` in {place}; paths are relative to its root"),
    };
    OpError::Checksum {
        reference: format!("build context `{name}`"),
        message: error.to_string(),
        path: path.clone(),
        hint: Some(hint),
        missing: missing_part(context, end.as_deref().unwrap_or(path)),
    }
}

fn in_tree(name: &str, tree: &dyn View, error: TreeError) -> OpError {
    let TreeError::NotFound { path } = &error else { return error.into() };
    let (shown, end) = (path.display(), led_to(tree, path));
    // The context comes from a vertex of its own when it is no folder.
    let place = match name.starts_with("[internal] ") {
        true => "build context",
        false => "stage or image that is read",
    };
    let hint = match &end {
        _ if name == EMPTY => {
            "what is read is empty: a Dockerfile from standard input has no build context, and `scratch` has no files"
                .to_owned()
        }
        Some(end) => format!(
            "`{shown}` leads through a link to `{}`, and there is no such file in the {place}",
            end.display()
        ),
        None if name.starts_with("[internal] ") => {
            format!("there is no `{shown}` in the build context; paths are relative to its root")
        }
        None => format!("there is no `{shown}` in the {place}"),
    };
    OpError::Checksum {
        reference: format!("`{name}`"),
        message: error.to_string(),
        path: path.clone(),
        hint: Some(hint),
        missing: missing_part(tree, end.as_deref().unwrap_or(path)),
    }
}

/// Where a path ends that has links on its way; `None` when it has none.
fn led_to(view: &dyn View, path: &Path) -> Option<PathBuf> {
    let end = Path::new("/").join(tree::path::resolve(view, path, true).ok()?);
    (end != path).then_some(end)
}

/// The first part of a path that is not there, in the folder that is.
fn missing_part(view: &dyn View, path: &Path) -> Option<Box<MissingPart>> {
    let mut folder = PathBuf::from("/");
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        let next = folder.join(name);
        let found = tree::path::resolve(view, &next, true).ok()?;
        match view.metadata(&found).ok()? {
            Some(metadata) if metadata.kind == Kind::Dir => folder = next,
            Some(_) => return None,
            None => {
                let place = tree::path::resolve(view, &folder, true).ok()?;
                let entries = view.read_dir(&place).ok()?;
                let names = entries.into_iter().take(MOST_NAMES);
                return Some(Box::new(MissingPart {
                    folder,
                    name: name.to_string_lossy().into_owned(),
                    others: names.map(|it| it.name.to_string_lossy().into_owned()).collect(),
                }));
            }
        }
    }
    None
}

/// A name that is not in a folder, and those that are.
#[derive(Debug)]
pub struct MissingPart {
    /// Path of the folder.
    pub folder: PathBuf,
    /// What was looked for.
    pub name: String,
    /// What is there.
    pub others: Vec<String>,
}
