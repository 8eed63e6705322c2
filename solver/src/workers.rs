//! Threads that are made when there is work for them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

/// Threads that do pieces of work, each one after the other; as many as there are pieces at the same time, up to a most.
pub(crate) struct Workers<'scope, 'env, T, F> {
    scope: &'scope Scope<'scope, 'env>,
    perform: Arc<F>,
    most: usize,
    threads: usize,
    idle: Arc<AtomicUsize>,
    next: Sender<T>,
    queue: Arc<Mutex<Receiver<T>>>,
}

impl<'scope, 'env, T, F, R> Workers<'scope, 'env, T, F>
where
    T: Send + 'scope,
    F: Fn(T) -> R + Send + Sync + 'scope,
{
    /// `perform` does one piece; what it returns is dropped once its thread can take another.
    pub(crate) fn new(scope: &'scope Scope<'scope, 'env>, most: usize, perform: F) -> Self {
        let (next, queue) = channel();
        let (perform, queue) = (Arc::new(perform), Arc::new(Mutex::new(queue)));
        Self { scope, perform, most, threads: 0, idle: Arc::default(), next, queue }
    }

    pub(crate) fn perform(&mut self, piece: T) {
        let take = |idle: usize| idle.checked_sub(1);
        let is_one_idle = self.idle.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok();
        if is_one_idle || self.threads == self.most {
            // The queue lives until all threads have ended.
            let _ = self.next.send(piece);
            return;
        }
        self.threads += 1;
        let (perform, idle, queue) =
            (Arc::clone(&self.perform), Arc::clone(&self.idle), Arc::clone(&self.queue));
        self.scope.spawn(move || {
            let mut next = Some(piece);
            while let Some(piece) = next {
                let done = perform(piece);
                idle.fetch_add(1, Ordering::AcqRel);
                drop(done);
                // One idle thread waits for the next piece, the others for their turn to wait.
                next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
            }
        });
    }
}
