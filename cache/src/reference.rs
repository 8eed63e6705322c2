//! Results as chains of layers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llb::DiffId;
use tree::layer::LayerDir;
use tree::stack::Stack;

use crate::error::CacheError;
use crate::layer::Layer;

/// How many layers are fetched and unpacked at once.
const PARALLEL: usize = 8;

/// The result of a vertex: layers, lowest first. Cheap to clone; making one touches no files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ref(Arc<[Layer]>);

impl Ref {
    /// The empty file tree.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// A chain of these layers, lowest first.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self(layers.into_iter().collect())
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Layer] {
        &self.0
    }

    /// This chain with one layer more on top.
    #[must_use]
    pub fn push(&self, layer: Layer) -> Self {
        Self(self.0.iter().cloned().chain([layer]).collect())
    }

    /// The layers of all `refs`, the first lowest: MergeOp.
    pub fn concat(refs: &[Self]) -> Self {
        Self(refs.iter().flat_map(|one| one.0.iter().cloned()).collect())
    }

    /// The folders of the layers, lowest first. Those that are missing are fetched and unpacked, several at
    /// once.
    ///
    /// # Errors
    /// When a layer's folder cannot be made.
    pub fn dirs(&self) -> Result<Vec<LayerDir>, CacheError> {
        let missing: Vec<&Layer> = self.0.iter().filter(|layer| !layer.has_dir()).collect();
        if missing.len() > 1 {
            unpack_all(&missing)?;
        }
        self.0.iter().map(Layer::dir).collect()
    }

    /// The merged file tree, each layer in a form that it has. Those that have none are fetched and unpacked,
    /// several at once.
    ///
    /// # Errors
    /// When a layer's folder cannot be made.
    pub fn stack(&self) -> Result<Stack, CacheError> {
        self.files().map(Stack::new)
    }

    /// The layers of [`stack`](Self::stack).
    pub(crate) fn files(&self) -> Result<Vec<tree::stack::Layer>, CacheError> {
        let missing: Vec<&Layer> = self.0.iter().filter(|layer| !layer.is_readable()).collect();
        if missing.len() > 1 {
            unpack_all(&missing)?;
        }
        self.0.iter().map(Layer::files).collect()
    }

    /// Digests of the uncompressed layers, lowest first; tars are written and hashed where none is known.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn diff_ids(&self) -> Result<Vec<DiffId>, CacheError> {
        self.0.iter().map(Layer::diff_id).collect()
    }
}

/// Unpacks on own threads, as each of them waits for the network or the disk.
fn unpack_all(layers: &[&Layer]) -> Result<(), CacheError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(layer) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
            layer.dir()?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..layers.len().min(PARALLEL)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
