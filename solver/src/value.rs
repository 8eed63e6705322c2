//! What an output of a vertex is while a job runs.

use std::sync::Arc;

use cache::Ref;
use tree::View;
use tree::context::Context;

/// A file tree in the form in which it was made.
#[derive(Clone)]
pub(crate) enum Value {
    /// Layers of the store.
    Tree(Ref),
    /// A folder of the user's, by its context name; read in place.
    Context(String, Arc<Context>),
}

impl Value {
    /// Reads the tree, making the unpacked form of its layers if need be.
    pub(crate) fn view(&self) -> Result<Arc<dyn View>, cache::CacheError> {
        match self {
            Self::Tree(reference) => Ok(Arc::new(reference.stack()?)),
            Self::Context(_, context) => Ok(Arc::clone(context) as Arc<dyn View>),
        }
    }
}
