//! `COPY`, `ADD`, `WORKDIR` and heredoc files: actions that build one layer without running anything.
//!
//! Actions form chains: each changes the result of the one before. A chain that ends in an output becomes
//! one layer over the tree it began with.

use cache::LayerMeta;
use llb::op::{FileAction, FileActionKind, FileInput, FileOp, Owner, UserId};
use tree::draft::{CopyOptions, Draft, MkdirOptions, MkfileOptions, RemoveOptions, SymlinkOptions};

use crate::error::OpError;
use crate::solve::Solve;
use crate::value::Value;

/// Runs the actions.
pub(crate) fn execute(
    solve: &Solve<'_>,
    vertex: usize,
    file: &FileOp,
) -> Result<Vec<Value>, OpError> {
    let mut outputs: Vec<(usize, Value)> = Vec::new();
    for (index, action) in file.actions.iter().enumerate() {
        if let Some(output) = action.output {
            outputs.push((output, evaluate(solve, vertex, file, FileInput::Action(index))?));
        }
    }
    outputs.sort_by_key(|(output, _)| *output);
    Ok(outputs.into_iter().map(|(_, value)| value).collect())
}

/// The tree that an action's input stands for.
fn evaluate(
    solve: &Solve<'_>,
    vertex: usize,
    file: &FileOp,
    input: FileInput,
) -> Result<Value, OpError> {
    let last = match input {
        FileInput::Scratch => return Ok(Value::Tree(cache::Ref::scratch())),
        FileInput::Input(index) => {
            let edge = solve.definition.vertex(vertex).inputs.get(index).copied();
            let edge = edge.ok_or_else(|| {
                OpError::NotSupported(format!("file input {index} of a vertex without it"))
            })?;
            return solve.value(edge).cloned();
        }
        FileInput::Action(last) => last,
    };
    // The actions from the first of the chain to this one, and the tree below them.
    let (mut chain, mut base) = (Vec::new(), FileInput::Action(last));
    while let FileInput::Action(index) = base {
        let action = file
            .actions
            .get(index)
            .filter(|_| chain.last().is_none_or(|&(later, _)| index < later));
        let action = action.ok_or_else(|| {
            OpError::NotSupported("a file action that uses a later one".to_owned())
        })?;
        chain.push((index, action));
        base = action.input;
    }
    let base = super::tree(solve, &evaluate(solve, vertex, file, base)?)?;
    let workspace = solve.job.engine.store.workspace(&base)?;
    let mut draft = workspace.draft()?;
    for (_, action) in chain.iter().rev() {
        if solve.job.cancel.is_cancelled() {
            return Err(OpError::Canceled);
        }
        apply(solve, vertex, file, action, &mut draft)?;
    }
    drop(draft);
    let layer =
        workspace.commit(&LayerMeta::now(&solve.definition.vertex(vertex).metadata.name))?;
    Ok(Value::Tree(base.push(layer)))
}

fn apply(
    solve: &Solve<'_>,
    vertex: usize,
    file: &FileOp,
    action: &FileAction,
    draft: &mut Draft,
) -> Result<(), OpError> {
    let owner =
        |draft: &Draft, owner: Option<&Owner>| resolve_owner(solve, vertex, file, draft, owner);
    let outcome = match &action.kind {
        FileActionKind::Copy(copy) => {
            let source = evaluate(solve, vertex, file, action.secondary_input)?;
            let view = source.view()?;
            let options = CopyOptions {
                source: copy.src.clone(),
                dest: copy.dest.clone(),
                owner: owner(draft, copy.owner.as_ref())?,
                mode: u32::try_from(copy.mode).ok(),
                mode_text: copy.mode_str.clone(),
                follow_symlink: copy.follow_symlink,
                dir_copy_contents: copy.dir_copy_contents,
                attempt_unpack: copy.attempt_unpack,
                create_dest_path: copy.create_dest_path,
                allow_wildcard: copy.allow_wildcard,
                allow_empty_wildcard: copy.allow_empty_wildcard,
                timestamp: timestamp(copy.timestamp),
                include: copy.include_patterns.clone(),
                exclude: copy.exclude_patterns.clone(),
                required: copy.required_paths.clone(),
                always_replace: copy.always_replace_existing_dest_paths,
            };
            return draft.copy(view.as_ref(), &options).map_err(|error| {
                let name = source_name(solve, vertex, action.secondary_input);
                super::missing::explain(solve.job, &source, name, view.as_ref(), error)
            });
        }
        FileActionKind::Mkfile(make) => draft.mkfile(&MkfileOptions {
            path: make.path.clone(),
            mode: u32::try_from(make.mode).unwrap_or(0o644),
            data: make.data.clone(),
            owner: owner(draft, make.owner.as_ref())?,
            timestamp: timestamp(make.timestamp),
        }),
        FileActionKind::Mkdir(make) => draft.mkdir(&MkdirOptions {
            path: make.path.clone(),
            mode: u32::try_from(make.mode).unwrap_or(0o755),
            make_parents: make.make_parents,
            owner: owner(draft, make.owner.as_ref())?,
            timestamp: timestamp(make.timestamp),
        }),
        FileActionKind::Rm(remove) => draft.remove(&RemoveOptions {
            path: remove.path.clone(),
            allow_not_found: remove.allow_not_found,
            allow_wildcard: remove.allow_wildcard,
        }),
        FileActionKind::Symlink(link) => draft.symlink(&SymlinkOptions {
            target: link.old_path.clone(),
            path: link.new_path.clone(),
            owner: owner(draft, link.owner.as_ref())?,
            timestamp: timestamp(link.timestamp),
        }),
    };
    outcome.map_err(OpError::File)
}

/// Name of the vertex that made an input.
fn source_name<'s>(solve: &'s Solve<'_>, vertex: usize, input: FileInput) -> &'s str {
    let FileInput::Input(index) = input else { return "an earlier action" };
    let edge = solve.definition.vertex(vertex).inputs.get(index);
    edge.map_or("", |edge| &solve.definition.vertex(edge.vertex).metadata.name)
}

/// Nanoseconds since the epoch as a point in time; negative means "as it comes".
fn timestamp(nanoseconds: i64) -> Option<tree::Timestamp> {
    (nanoseconds >= 0).then_some(tree::Timestamp {
        seconds: nanoseconds / 1_000_000_000,
        nanoseconds: (nanoseconds % 1_000_000_000) as u32,
    })
}

/// Numbers of an owner; names are looked up in the tree that the owner names.
fn resolve_owner(
    solve: &Solve<'_>,
    vertex: usize,
    file: &FileOp,
    draft: &Draft,
    owner: Option<&Owner>,
) -> Result<Option<(u32, u32)>, OpError> {
    let Some(owner) = owner else { return Ok(None) };
    let id = |id: Option<&UserId>| -> Result<Option<tree::passwd::Spec>, OpError> {
        Ok(id.map(|id| match id {
            UserId::Id(id) => tree::passwd::Spec::Id(*id),
            UserId::Name { name, .. } => tree::passwd::Spec::Name(name.clone()),
        }))
    };
    let names = [owner.user.as_ref(), owner.group.as_ref()];
    let input = names.into_iter().flatten().find_map(|id| match id {
        UserId::Name { input, .. } => Some(*input),
        UserId::Id(_) => None,
    });
    let view: std::sync::Arc<dyn tree::View> = match input {
        None => std::sync::Arc::new(draft.view()),
        Some(input) => evaluate(solve, vertex, file, input)?.view()?,
    };
    let (user, group) = (id(owner.user.as_ref())?, id(owner.group.as_ref())?);
    let ids = tree::passwd::owner(view.as_ref(), user.as_ref(), group.as_ref());
    ids.map(Some).map_err(OpError::Passwd)
}
