//! Directories that were asked for last, kept open for the next lookup.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Descriptors that are kept.
const KEPT: usize = 256;

/// Open directories by path. Only for trees that do not change.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    /// Least recently used first, each with its number of descriptors.
    entries: Mutex<Vec<(PathBuf, usize, Arc<T>)>>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { entries: Mutex::new(Vec::new()) }
    }
}

impl<T> Recent<T> {
    /// The nearest kept directory on the way to `path`, with its own path.
    pub(crate) fn nearest<'a>(&self, path: &'a Path) -> Option<(&'a Path, Arc<T>)> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Most lookups are for the directory asked for last, or for one beside it.
        for ancestor in path.ancestors() {
            if let Some(index) = entries.iter().rposition(|(kept, _, _)| kept == ancestor) {
                entries[index..].rotate_left(1);
                return entries.last().map(|(_, _, found)| (ancestor, Arc::clone(found)));
            }
        }
        None
    }

    pub(crate) fn keep(&self, path: &Path, descriptors: usize, value: &Arc<T>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.iter().any(|(kept, _, _)| kept == path) {
            return;
        }
        entries.push((path.to_owned(), descriptors, Arc::clone(value)));
        let mut total: usize = entries.iter().map(|(_, descriptors, _)| descriptors).sum();
        let mut dropped = 0;
        while total > KEPT && dropped + 1 < entries.len() {
            total -= entries[dropped].1;
            dropped += 1;
        }
        entries.drain(..dropped);
    }
}
