//! `COPY`, `ADD`, `WORKDIR` and heredoc files: actions that build one layer without running anything.
//!
//! Actions form chains: each changes the result of the one before. A chain that ends in an output becomes
//! one layer over the tree it began with.
//!
//! A layer that no step runs upon is written straight to its tar (see [`tree::sketch`]); one that a step
//! needs in a folder is made there. A copy whose layer would be the same as one that was made over another
//! tree takes that one (see [`reuse`](super::reuse)).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::{Key, Layer, LayerMeta, NewResult, Records, Ref};
use llb::op::{
    CopyAction, FileAction, FileActionKind, FileInput, FileOp, MkdirAction, MkfileAction, Owner,
    SymlinkAction, UserId,
};
use tree::draft::{CopyOptions, Draft, MkdirOptions, MkfileOptions, RemoveOptions, SymlinkOptions};
use tree::sketch::Sketch;

use crate::check;
use crate::error::OpError;
use crate::guard;
use crate::op::reuse;
use crate::solve::Solve;
use crate::value::Value;

/// The actions of a vertex, and what some of them made.
struct Actions<'a> {
    solve: &'a Solve<'a>,
    vertex: usize,
    file: &'a FileOp,
    made: BTreeMap<usize, Value>,
    /// Layers that other vertices may take.
    reusable: Vec<(Key, Layer)>,
}

/// Runs the actions.
pub(crate) fn execute(
    solve: &Solve<'_>,
    vertex: usize,
    file: &FileOp,
) -> Result<Vec<Value>, OpError> {
    // What is an output, or is read by others, is made once, in order; all others are parts of chains.
    let mut wanted = BTreeSet::new();
    for (index, action) in file.actions.iter().enumerate() {
        wanted.extend(action.output.map(|_| index));
        wanted.extend(check::inputs_of(action).skip(1).filter_map(|input| match input {
            FileInput::Action(earlier) => Some(earlier),
            FileInput::Scratch | FileInput::Input(_) => None,
        }));
    }
    let mut actions = Actions { solve, vertex, file, made: BTreeMap::new(), reusable: Vec::new() };
    for index in wanted {
        let value = actions.make(index)?;
        actions.made.insert(index, value);
    }
    if solve.check_folders(vertex) {
        actions.save_reusable()?;
    }
    let mut outputs: Vec<(usize, &Value)> = Vec::new();
    for (index, value) in &actions.made {
        outputs.extend(file.actions[*index].output.map(|output| (output, value)));
    }
    outputs.sort_by_key(|(output, _)| *output);
    Ok(outputs.into_iter().map(|(_, value)| value.clone()).collect())
}

impl Actions<'_> {
    /// The tree that an action's input stands for.
    fn input(&self, input: FileInput) -> Result<Value, OpError> {
        match input {
            FileInput::Scratch => Ok(Value::Tree(Ref::scratch())),
            FileInput::Input(index) => {
                let edge = self.solve.definition.vertex(self.vertex).inputs.get(index).copied();
                let edge = edge.ok_or_else(|| {
                    OpError::Invalid(format!("file input {index} of a vertex without it"))
                })?;
                self.solve.value(edge).cloned()
            }
            FileInput::Action(index) => {
                self.made.get(&index).cloned().ok_or_else(|| {
                    OpError::Invalid("a file action that uses a later one".to_owned())
                })
            }
        }
    }

    /// One layer from the chain of actions that ends in one of them.
    fn make(&mut self, last: usize) -> Result<Value, OpError> {
        let (mut chain, mut base) = (Vec::new(), FileInput::Action(last));
        while let FileInput::Action(index) = base {
            let action = &self.file.actions[index];
            chain.push(action);
            base = action.input;
        }
        chain.reverse();
        let base = super::tree(self.solve, &self.input(base)?)?;
        let reuse = reuse::key(self.solve, self.vertex, last, &chain, &base)?;
        let store = &self.solve.job.engine.store;
        if let Some(key) = &reuse
            && !self.solve.definition.vertex(self.vertex).metadata.ignore_cache
            && let Some(found) = store.load(key)?
        {
            return Ok(Value::Tree(Ref::concat(&[base, found.reference])));
        }
        let layer = if self.solve.is_streamed(self.vertex) && chain.iter().all(|it| is_sketched(it))
        {
            self.stream(&chain, &base)?
        } else {
            self.build(&chain, &base)?
        };
        self.reusable.extend(reuse.map(|key| (key, layer.clone())));
        Ok(Value::Tree(base.push(layer)))
    }

    /// Keeps what was made for others that would make the same.
    fn save_reusable(&mut self) -> Result<(), OpError> {
        for (key, layer) in self.reusable.drain(..) {
            let created = layer.created();
            let reference = Ref::scratch().push(layer);
            let result = NewResult { key, reference, created, why: Vec::new() };
            self.solve.job.engine.store.save_later(Vec::new(), &result)?;
        }
        Ok(())
    }

    /// Makes the layer in a folder.
    fn build(&self, chain: &[&FileAction], base: &Ref) -> Result<Layer, OpError> {
        let _span = tree::trace::span("write layer", || "folder".to_owned());
        let workspace = self.solve.job.engine.store.workspace(base)?;
        let mut draft = workspace.draft()?;
        for action in chain {
            if self.solve.job.cancel.is_cancelled() {
                return Err(OpError::Canceled);
            }
            self.apply(action, &mut draft)?;
        }
        drop(draft);
        guard::check(self.solve, self.vertex, || Ok(workspace.upper().into()))?;
        // The result that has it is saved next.
        Ok(workspace.commit_later(&self.meta())?)
    }

    /// Writes the layer to its tar.
    fn stream(&self, chain: &[&FileAction], base: &Ref) -> Result<Layer, OpError> {
        let _span = tree::trace::span("write layer", || "tar".to_owned());
        let store = &self.solve.job.engine.store;
        let mut sketch = Sketch::new(base.stack()?)?;
        for action in chain {
            if self.solve.job.cancel.is_cancelled() {
                return Err(OpError::Canceled);
            }
            self.sketch(action, &mut sketch)?;
        }
        let mut tar = store.ingest()?;
        if sketch.is_of_large_files() {
            tar.write_in_background();
        }
        let stop = self.solve.job.stop_reading();
        let layer = sketch.write(&mut stop.guard(&mut tar)).map_err(|source| {
            if self.solve.job.cancel.is_cancelled() {
                return OpError::Canceled;
            }
            OpError::Io {
                action: "write the layer of",
                path: self.meta().description.into(),
                source,
            }
        })?;
        let placed = || Ok(layer.clone().place(tar.reopen()?).into());
        guard::check(self.solve, self.vertex, placed)?;
        Ok(store.add_packed(tar, layer, base, &self.meta())?)
    }

    fn meta(&self) -> LayerMeta {
        LayerMeta::now(&self.solve.definition.vertex(self.vertex).metadata.name)
    }

    fn sketch(&self, action: &FileAction, sketch: &mut Sketch) -> Result<(), OpError> {
        let owner = |sketch: &Sketch, owner: Option<&Owner>| {
            self.resolve_owner(owner, || Ok(Arc::new(sketch.lower().clone())))
        };
        let outcome = match &action.kind {
            FileActionKind::Copy(copy) => {
                let source = self.input(action.secondary_input)?;
                let view = source.view(&self.solve.job.cancel)?;
                let options = copy_options(copy, owner(sketch, copy.owner.as_ref())?);
                return sketch.copy(&view, &options).map_err(|error| {
                    let name = self.source_name(action.secondary_input);
                    super::missing::explain(self.solve.job, &source, name, view.as_ref(), error)
                });
            }
            FileActionKind::Mkfile(make) => {
                let owner = owner(sketch, make.owner.as_ref())?;
                sketch.mkfile(&mkfile_options(make, owner))
            }
            FileActionKind::Mkdir(make) => {
                let owner = owner(sketch, make.owner.as_ref())?;
                sketch.mkdir(&mkdir_options(make, owner))
            }
            FileActionKind::Symlink(link) => {
                let owner = owner(sketch, link.owner.as_ref())?;
                sketch.symlink(&symlink_options(link, owner))
            }
            FileActionKind::Rm(_) => {
                return Err(OpError::Invalid("a removal that was to be sketched".to_owned()));
            }
        };
        outcome.map_err(OpError::File)
    }

    fn apply(&self, action: &FileAction, draft: &mut Draft) -> Result<(), OpError> {
        let owner = |draft: &Draft, owner: Option<&Owner>| {
            self.resolve_owner(owner, || Ok(Arc::new(draft.view())))
        };
        let outcome = match &action.kind {
            FileActionKind::Copy(copy) => {
                let source = self.input(action.secondary_input)?;
                let view = source.view(&self.solve.job.cancel)?;
                let stop = self.solve.job.stop_reading();
                let options = copy_options(copy, owner(draft, copy.owner.as_ref())?);
                let options = CopyOptions { stop, ..options };
                return draft.copy(view.as_ref(), &options).map_err(|error| {
                    let name = self.source_name(action.secondary_input);
                    super::missing::explain(self.solve.job, &source, name, view.as_ref(), error)
                });
            }
            FileActionKind::Mkfile(make) => {
                let owner = owner(draft, make.owner.as_ref())?;
                draft.mkfile(&mkfile_options(make, owner))
            }
            FileActionKind::Mkdir(make) => {
                let owner = owner(draft, make.owner.as_ref())?;
                draft.mkdir(&mkdir_options(make, owner))
            }
            FileActionKind::Rm(remove) => draft.remove(&RemoveOptions {
                path: remove.path.clone(),
                allow_not_found: remove.allow_not_found,
                allow_wildcard: remove.allow_wildcard,
            }),
            FileActionKind::Symlink(link) => {
                let owner = owner(draft, link.owner.as_ref())?;
                draft.symlink(&symlink_options(link, owner))
            }
        };
        outcome.map_err(OpError::File)
    }

    /// Name of the vertex that made an input.
    fn source_name(&self, input: FileInput) -> &str {
        let index = match input {
            FileInput::Scratch => return super::missing::EMPTY,
            FileInput::Action(_) => return "an earlier action",
            FileInput::Input(index) => index,
        };
        let edge = self.solve.definition.vertex(self.vertex).inputs.get(index);
        edge.map_or("", |edge| &self.solve.definition.vertex(edge.vertex).metadata.name)
    }

    /// Numbers of an owner; names are looked up in the tree that the owner names.
    fn resolve_owner(
        &self,
        owner: Option<&Owner>,
        here: impl FnOnce() -> Result<Arc<dyn tree::View>, OpError>,
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
        let view = match input {
            None => here()?,
            Some(input) => self.input(input)?.view(&self.solve.job.cancel)?,
        };
        let (user, group) = (id(owner.user.as_ref())?, id(owner.group.as_ref())?);
        let ids = tree::passwd::owner(view.as_ref(), user.as_ref(), group.as_ref());
        ids.map(Some).map_err(OpError::Passwd)
    }
}

/// Whether an action can be planned without making files.
fn is_sketched(action: &FileAction) -> bool {
    match &action.kind {
        FileActionKind::Copy(copy) => Sketch::takes(&copy_options(copy, None)),
        FileActionKind::Mkfile(_) | FileActionKind::Mkdir(_) | FileActionKind::Symlink(_) => true,
        FileActionKind::Rm(_) => false,
    }
}

fn copy_options(copy: &CopyAction, owner: Option<(u32, u32)>) -> CopyOptions {
    CopyOptions {
        source: copy.src.clone(),
        dest: copy.dest.clone(),
        owner,
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
        ..CopyOptions::default()
    }
}

fn mkfile_options(make: &MkfileAction, owner: Option<(u32, u32)>) -> MkfileOptions {
    MkfileOptions {
        path: make.path.clone(),
        mode: u32::try_from(make.mode).unwrap_or(0o644),
        data: make.data.clone(),
        owner,
        timestamp: timestamp(make.timestamp),
    }
}

fn mkdir_options(make: &MkdirAction, owner: Option<(u32, u32)>) -> MkdirOptions {
    MkdirOptions {
        path: make.path.clone(),
        mode: u32::try_from(make.mode).unwrap_or(0o755),
        make_parents: make.make_parents,
        owner,
        timestamp: timestamp(make.timestamp),
    }
}

fn symlink_options(link: &SymlinkAction, owner: Option<(u32, u32)>) -> SymlinkOptions {
    SymlinkOptions {
        target: link.old_path.clone(),
        path: link.new_path.clone(),
        owner,
        timestamp: timestamp(link.timestamp),
    }
}

/// Nanoseconds since the epoch as a point in time; negative means "as it comes".
fn timestamp(nanoseconds: i64) -> Option<tree::Timestamp> {
    (nanoseconds >= 0).then_some(tree::Timestamp {
        seconds: nanoseconds / 1_000_000_000,
        nanoseconds: (nanoseconds % 1_000_000_000) as u32,
    })
}
