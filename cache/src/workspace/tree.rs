//! Trees that steps work in where the kernel does not merge layers: one for each chain of steps.
//!
//! ```text
//! ingest/<process>/<n>/root    all that the step sees, changed in place
//! ingest/<process>/<n>/aside   what a sandbox without mounts puts aside meanwhile
//! ```
//!
//! The first step of a chain has the layers below it copied together. When it is done, the layer is taken out of the
//! tree, and the tree waits for the next step of the chain, which goes on in it: what lies between the two, such as a
//! `COPY`, is put onto it. Of several steps that could go on the first does; the others get copies.
//!
//! Invariants:
//! - A tree that waits is equal to the layers it is noted with; one that a step failed in is dropped.
//! - Nothing in a tree is shared with a layer but what the file system parts again when it is written.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use tree::diff::{Changes, extract_changes};
use tree::layer::LayerDir;
use tree::survey::Survey;

use super::make_folder;
use crate::error::{At, CacheError};
use crate::layer::Layer;
use crate::process::Process;
use crate::reference::Ref;
use crate::store::Store;

/// A tree that a step works in.
#[derive(Debug)]
pub(crate) struct WorkingTree {
    folder: Folder,
    /// What it was equal to when it was looked at.
    layers: Ref,
    survey: Survey,
}

/// The folder of a tree, removed when nobody waits for it.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    process: Arc<Process>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.process.remove_large_later(std::mem::take(&mut self.path));
    }
}

impl WorkingTree {
    /// The tree, as a folder that may be changed.
    pub(super) fn root(&self, store: &Store) -> LayerDir {
        LayerDir::encoded(self.folder.path.join("root"), store.encoding())
    }

    /// A tree that is equal to `parent`: one that waits for whoever goes on in it, or a copy.
    pub(super) fn over(store: &Store, parent: &Ref) -> Result<Self, CacheError> {
        match store.waiting_tree(parent) {
            Some(tree) => tree.advance(store, parent),
            None => Self::copy(store, parent),
        }
    }

    fn copy(store: &Store, parent: &Ref) -> Result<Self, CacheError> {
        let _span = tree::trace::span("copy tree", || parent.layers().len().to_string());
        let process = store.0.process()?;
        let folder = Folder { path: process.fresh(), process };
        let root = folder.path.join("root");
        for path in [&folder.path, &root] {
            make_folder(path)?;
        }
        let root = LayerDir::encoded(root, store.encoding());
        tree::draft::copy_tree(&parent.stack()?, Path::new(""), &root, store.encoding())
            .map_err(|error| CacheError::io(root.path(), std::io::Error::other(error)))?;
        let survey = Survey::take(&root).at(root.path())?;
        Ok(Self { folder, layers: parent.clone(), survey })
    }

    /// Puts the layers onto the tree that `parent` has more than it.
    fn advance(mut self, store: &Store, parent: &Ref) -> Result<Self, CacheError> {
        let more = &parent.layers()[self.layers.layers().len()..];
        if more.is_empty() {
            return Ok(self);
        }
        let root = self.root(store);
        for layer in more {
            self.graft(store, layer.files()?)?;
        }
        self.survey = Survey::take(&root).at(root.path())?;
        self.layers = parent.clone();
        Ok(self)
    }

    /// Puts a layer onto the tree; it is not noted as part of it.
    pub(super) fn graft(
        &self,
        store: &Store,
        layer: impl Into<tree::stack::Layer>,
    ) -> Result<(), CacheError> {
        let root = self.root(store);
        tree::draft::graft(layer.into(), &root, store.encoding())
            .map_err(|error| CacheError::io(root.path(), std::io::Error::other(error)))
    }

    /// Waits until what is changed from now on can be told from what was there.
    pub(super) fn settle(&self) {
        self.survey.settle();
    }

    /// Writes what has changed to the empty folder `into`; moves it there unless the tree is needed on.
    pub(super) fn extract(
        &mut self,
        store: &Store,
        into: &LayerDir,
        keep: bool,
    ) -> Result<(), CacheError> {
        let root = self.root(store);
        let after = {
            let _span = tree::trace::span("look for changes", String::new);
            Survey::take(&root).at(root.path())?
        };
        let lower = &self.layers.stack()?;
        let changes = Changes { folder: &root, before: &self.survey, after: &after, lower, keep };
        extract_changes(&changes, into, store.encoding()).at(root.path())?;
        self.survey = after;
        // What a sandbox has put aside is of no use any more.
        let (aside, process) = (self.folder.path.join("aside"), &self.folder.process);
        let away = process.fresh();
        if keep && fs_err::rename(&aside, &away).is_ok() {
            process.remove_large_later(away);
        }
        Ok(())
    }

    /// Has the tree wait for the next step of its chain; its changes are by now the layer `done`.
    pub(super) fn wait(self, store: &Store, done: Layer) {
        let layers = self.layers.push(done);
        let mut waiting = store.0.trees.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(Self { layers, ..self });
    }
}

impl Store {
    /// Takes the tree that waits and is nearest to `parent`, if any is on the way to it.
    fn waiting_tree(&self, parent: &Ref) -> Option<WorkingTree> {
        let mut waiting = self.0.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, _) = waiting
            .iter()
            .enumerate()
            .filter(|(_, tree)| parent.layers().starts_with(tree.layers.layers()))
            .max_by_key(|(_, tree)| tree.layers.layers().len())?;
        Some(waiting.swap_remove(at))
    }

    /// Removes the trees that wait, where their space is wanted for something else; returns how many there were.
    pub fn drop_waiting_trees(&self) -> usize {
        let trees =
            std::mem::take(&mut *self.0.trees.lock().unwrap_or_else(PoisonError::into_inner));
        for tree in &trees {
            // What cannot be removed now is removed when the tree is dropped.
            let _ = crate::removal::remove_large_tree(&tree.folder.path);
        }
        trees.len()
    }
}
