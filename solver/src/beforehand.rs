//! Layers made ready for the outputs while other steps still run.
//!
//! An output asks a layer for its diff id, or for a compressed blob. What a target is going to have is known as soon as
//! its vertex has run, so that it can be made on a core that the steps leave idle.

use std::collections::HashSet;

use cache::{Layer, LayerId};

use crate::value::Value;

/// Makes of a layer what the outputs of a job will want. Errors are met again by the output.
pub type Prepare = dyn Fn(&Layer) + Send + Sync;

/// Which layers are to be prepared, each once.
pub(crate) struct Beforehand {
    /// Whether the layers of a vertex are layers of a target.
    wanted: Vec<bool>,
    taken: HashSet<LayerId>,
}

impl Beforehand {
    pub(crate) fn new(wanted: Vec<bool>) -> Self {
        Self { wanted, taken: HashSet::new() }
    }

    /// The layers of what a vertex has made that nobody has prepared yet.
    pub(crate) fn take(&mut self, vertex: usize, values: &[Value]) -> Vec<Layer> {
        let mut layers = Vec::new();
        for value in values.iter().filter(|_| self.wanted[vertex]) {
            let Value::Tree(reference) = value else { continue };
            // Below one that is prepared all are: only what is new is looked at.
            let from_top = reference.layers().iter().rev();
            let new = from_top.take_while(|layer| {
                layer.known_diff_id().is_none() && self.taken.insert(layer.id())
            });
            layers.extend(new.cloned());
        }
        layers
    }
}
