//! Layers made ready for the outputs while other steps still run.
//!
//! An output asks a layer for its diff id, or for a compressed blob. What a target is going to have is known as soon as
//! its vertex has run, so that it can be made on a core that the steps leave idle.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use cache::{Layer, LayerId};

use crate::value::Value;

/// Makes of a layer what the outputs of a job will want. Errors are met again by the output.
pub type Prepare = dyn Fn(&Layer) + Send + Sync;

/// Hands layers to threads that prepare them, one for each core.
pub(crate) struct Beforehand<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    prepare: Option<&'env Prepare>,
    /// Whether the layers of a vertex are layers of a target.
    wanted: Vec<bool>,
    taken: HashSet<LayerId>,
    threads: usize,
    most: usize,
    /// Layers that are waited for.
    open: Arc<AtomicUsize>,
    next: Sender<Layer>,
    queue: Arc<Mutex<Receiver<Layer>>>,
}

impl<'scope, 'env> Beforehand<'scope, 'env> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        prepare: Option<&'env Prepare>,
        wanted: Vec<bool>,
    ) -> Self {
        let (next, queue) = channel();
        Self {
            scope,
            prepare,
            wanted,
            taken: HashSet::new(),
            threads: 0,
            most: std::thread::available_parallelism().map_or(1, usize::from),
            open: Arc::default(),
            next,
            queue: Arc::new(Mutex::new(queue)),
        }
    }

    /// Takes what a vertex has made.
    pub(crate) fn take(&mut self, vertex: usize, values: &[Value]) {
        if self.prepare.is_none() || !self.wanted[vertex] {
            return;
        }
        let trees = values.iter().filter_map(|value| match value {
            Value::Tree(reference) => Some(reference),
            Value::Context(..) | Value::Archive(_) => None,
        });
        for layer in trees.flat_map(cache::Ref::layers) {
            if layer.known_diff_id().is_none() && self.taken.insert(layer.id()) {
                self.begin(layer.clone());
            }
        }
    }

    fn begin(&mut self, layer: Layer) {
        let Some(prepare) = self.prepare else { return };
        let open = self.open.fetch_add(1, Ordering::AcqRel) + 1;
        // The queue lives as long as this does.
        let _ = self.next.send(layer);
        if open <= self.threads || self.threads == self.most {
            return;
        }
        self.threads += 1;
        let (open, queue) = (Arc::clone(&self.open), Arc::clone(&self.queue));
        self.scope.spawn(move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            while let Ok(layer) = next() {
                prepare(&layer);
                open.fetch_sub(1, Ordering::AcqRel);
            }
        });
    }
}
