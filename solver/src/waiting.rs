//! Waiting for what another build holds, and saying so when it takes a while.
//!
//! Locks are those of the kernel and end with their holders, so that only a holder that is stopped (`SIGSTOP`, Ctrl-Z) is
//! waited for without end. Such a one is named.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

use llb::Event;

use crate::solve::Solve;

/// Who has waited for so long is told for what.
const SOON: Duration = Duration::from_secs(2);

/// How often it is looked whether a holder is stopped, from then on.
const AGAIN: Duration = Duration::from_secs(2);

/// A wait of a vertex.
pub(crate) struct Wait<'s, 'a> {
    solve: &'s Solve<'a>,
    vertex: usize,
    /// What is waited for, until that is told.
    what: Cell<Option<String>>,
    since: Instant,
    /// When it is looked for stopped holders next; `None` once one was told of.
    look: Cell<Option<Instant>>,
}

impl<'s, 'a> Wait<'s, 'a> {
    /// Begins to wait for `what`; `None` when the user knows already.
    pub(crate) fn new(solve: &'s Solve<'a>, vertex: usize, what: Option<String>) -> Self {
        let since = Instant::now();
        let look = Cell::new(Some(since + SOON));
        Self { solve, vertex, what: Cell::new(what), since, look }
    }

    /// Whether to give up; to be asked again and again.
    pub(crate) fn is_given_up(&self) -> bool {
        if self.since.elapsed() > SOON
            && let Some(what) = self.what.take()
        {
            self.tell(&format!("waiting for {what}\n"));
        }
        if self.look.get().is_some_and(|look| look <= Instant::now()) {
            let stopped = self.solve.job.engine.store.stopped_holders();
            self.look.set(stopped.is_empty().then(|| Instant::now() + AGAIN));
            stopped.iter().for_each(|stopped| self.tell(&format!("{stopped}\n")));
        }
        self.solve.job.cancel.is_cancelled()
    }

    fn tell(&self, text: &str) {
        let (vertex, at) = (self.solve.shown(self.vertex), SystemTime::now());
        let data = text.as_bytes().to_vec();
        self.solve.job.events.send(Event::Log { vertex, stream: 2, data, at });
    }
}
