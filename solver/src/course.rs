//! The course of a solve: the [scheduler](crate::scheduler) as its threads share it.
//!
//! Whoever has done something tells it here, and takes one part of what is to be done now: no thread need wake up
//! another for a line of steps. All that is told is also passed on, in the order in which the scheduler took it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::scheduler::{Action, Input, Scheduler};

/// Something that happened, and what somebody is to do now.
pub(crate) struct Event<R> {
    pub(crate) input: Input,
    pub(crate) pieces: Vec<Piece<R>>,
}

/// A piece of work.
pub(crate) enum Piece<R> {
    Action(Action),
    /// What is left to do for an action whose end was told.
    Rest(R),
}

/// What the threads of a solve share of its course; `R` is what an action can leave to do.
pub(crate) struct Course<R> {
    scheduler: Mutex<Scheduler>,
    /// Used under the lock of the scheduler.
    sender: Sender<Event<R>>,
    receiver: Mutex<Receiver<Event<R>>>,
}

impl<R> Course<R> {
    pub(crate) fn new(scheduler: Scheduler) -> Self {
        let (sender, receiver) = channel();
        Self { scheduler: Mutex::new(scheduler), sender, receiver: Mutex::new(receiver) }
    }

    pub(crate) fn scheduler(&self) -> MutexGuard<'_, Scheduler> {
        self.scheduler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what happened; returns an action for the caller, and has others do what else there is to do. The rest is
    /// returned too if the caller, knowing the action, `keeps` it.
    pub(crate) fn tell(
        &self,
        input: Input,
        mut rest: Option<R>,
        keeps: impl FnOnce(Option<Action>) -> bool,
    ) -> (Option<Action>, Option<R>) {
        let mut scheduler = self.scheduler();
        let mut actions = scheduler.step(input);
        let own = actions.iter().position(|action| *action != Action::Stop);
        let own = own.map(|index| actions.remove(index));
        let kept = if keeps(own) { rest.take() } else { None };
        let pieces = actions.into_iter().map(Piece::Action);
        let pieces = pieces.chain(rest.map(Piece::Rest)).collect();
        // The receiver lives as long as this does.
        let _ = self.sender.send(Event { input, pieces });
        (own, kept)
    }

    /// The next that happened; `None` when all is over. Calls `waiting` once when nothing has happened for `quick`.
    pub(crate) fn next_event(&self, quick: Duration, waiting: impl FnOnce()) -> Option<Event<R>> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = self.scheduler().is_over();
        match receiver.try_recv() {
            Ok(event) => return Some(event),
            // Whatever ended it was told before it was over.
            Err(TryRecvError::Empty) if is_over => return None,
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return None,
        }
        match receiver.recv_timeout(quick) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                waiting();
                receiver.recv().ok()
            }
        }
    }
}
