//! Room on the disk for what a vertex writes.
//!
//! When a solve takes a moment, somebody keeps an eye on the disk. When it is full all the same, what is least
//! recently used in the store is removed, and what the builder itself was writing is written once more. A step whose
//! own process found the disk full is not run again: nobody knows what it has done elsewhere.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use cache::{CacheError, FileSystem};

use crate::error::OpError;
use crate::op;
use crate::solve::Solve;
use crate::value::Value;

/// Bytes that are freed for the first new try; for the second everything goes.
pub(crate) const FIRST: u64 = 256 << 20;

impl Solve<'_> {
    /// Runs a vertex.
    pub(crate) fn execute_with_room(
        &self,
        vertex: usize,
        log: &mut Vec<String>,
    ) -> Result<Vec<Value>, OpError> {
        self.job.engine.has_worked.store(true, Ordering::Relaxed);
        self.with_room(|| {
            log.clear();
            op::execute(self, vertex, log)
        })
    }

    /// Does something, again when the disk was full and something could be removed.
    pub(crate) fn with_room<T>(
        &self,
        mut body: impl FnMut() -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        let store = &self.job.engine.store;
        let mut need = [FIRST, u64::MAX].into_iter();
        loop {
            let error = match body() {
                Err(error) if is_no_space(&error) => error,
                other => return other,
            };
            let was_freed = |bytes| {
                // Trees that wait for a step are only there to save the next one a copy.
                let trees = store.drop_waiting_trees();
                store.relieve(bytes).is_ok_and(|freed| freed > 0) || trees > 0
            };
            if self.job.is_stopping() || !need.next().is_some_and(was_freed) {
                return Err(match FileSystem::of(store.root()) {
                    Ok(disk) => OpError::DiskFull { disk, source: Box::new(error) },
                    Err(_) => error,
                });
            }
        }
    }
}

/// Whether the builder could not write for want of space.
fn is_no_space(error: &(dyn StdError + 'static)) -> bool {
    if let Some(CacheError::NoSpace { .. }) = error.downcast_ref() {
        return true;
    }
    let io = error.downcast_ref::<std::io::Error>();
    if io.is_some_and(|io| matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)) {
        return true;
    }
    // A transparent error and an I/O error that wraps another leave it out of the causes.
    if let Some(OpError::Store(error)) = error.downcast_ref() {
        return is_no_space(error);
    }
    if let Some(OpError::File(error)) = error.downcast_ref() {
        return is_no_space(error);
    }
    let wrapped = io.and_then(std::io::Error::get_ref);
    let cause = wrapped.map(|error| error as &(dyn StdError + 'static)).or_else(|| error.source());
    cause.is_some_and(is_no_space)
}
