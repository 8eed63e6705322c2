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
use tree::survey::{Survey, has_fine_times};

use super::make_folder;
use crate::error::{At, CacheError};
use crate::layer::{Layer, LayerId};
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

/// A tree that waits for the next step of its chain.
///
/// It knows its layers by name alone: a [`Ref`] keeps its store open, and the store keeps this.
#[derive(Debug)]
pub(crate) struct WaitingTree {
    folder: Folder,
    /// What it is equal to, lowest first.
    layers: Vec<LayerId>,
    survey: Survey,
}

impl WaitingTree {
    /// Whether what it is equal to is the lower part of `parent`, or all of it.
    fn is_below(&self, parent: &Ref) -> bool {
        let layers = parent.layers();
        self.layers.len() <= layers.len()
            && self.layers.iter().zip(layers).all(|(id, layer)| *id == layer.id())
    }
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
            Some(tree) => Self::advance(tree, store, parent),
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

    /// Goes on in a tree, once the layers that `parent` has more than it are put onto it.
    fn advance(waiting: WaitingTree, store: &Store, parent: &Ref) -> Result<Self, CacheError> {
        let WaitingTree { folder, layers, survey } = waiting;
        let mut tree = Self { folder, layers: parent.clone(), survey };
        let more = &parent.layers()[layers.len()..];
        for layer in more {
            tree.graft(store, layer.files()?)?;
        }
        if !more.is_empty() {
            let root = tree.root(store);
            tree.survey = Survey::take(&root).at(root.path())?;
        }
        Ok(tree)
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
    pub(super) fn settle(&self, store: &Store) {
        if !store.has_fine_times() {
            self.survey.settle();
        }
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
        let Self { folder, layers, survey } = self;
        let layers = layers.layers().iter().chain([&done]).map(Layer::id).collect();
        let mut waiting = store.0.trees.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push(WaitingTree { folder, layers, survey });
    }
}

impl Store {
    /// Whether a change in the store has a time of its own, see [`has_fine_times`].
    fn has_fine_times(&self) -> bool {
        *self.0.has_fine_times.get_or_init(|| {
            let probe = || {
                let path = self.0.process()?.fresh();
                let file = fs_err::File::create_new(&path).at(&path)?;
                let fine = has_fine_times(&file).at(&path);
                fs_err::remove_file(&path).at(&path)?;
                fine
            };
            // Without an answer it is waited for.
            probe().unwrap_or(false)
        })
    }

    /// Takes the tree that waits and is nearest to `parent`, if any is on the way to it.
    fn waiting_tree(&self, parent: &Ref) -> Option<WaitingTree> {
        let mut waiting = self.0.trees.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, _) = waiting
            .iter()
            .enumerate()
            .filter(|(_, tree)| tree.is_below(parent))
            .max_by_key(|(_, tree)| tree.layers.len())?;
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
