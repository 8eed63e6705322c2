//! A token that stops steps.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use crate::SandboxError;

/// Stops every step that was given a clone of it, once and for all.
#[derive(Debug, Clone)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    raised: AtomicBool,
    /// Readable once raised, and never read.
    event: OwnedFd,
}

impl Cancel {
    /// Returns a token that is not raised.
    ///
    /// # Errors
    ///
    /// When the process can have no more descriptors.
    pub fn new() -> Result<Self, SandboxError> {
        let event =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
                SandboxError::Supervise {
                    action: "make a cancellation event",
                    source: errno.into(),
                }
            })?;
        Ok(Self { inner: Arc::new(Inner { raised: AtomicBool::new(false), event }) })
    }

    /// Raises the token; doing it again changes nothing.
    pub fn cancel(&self) {
        if !self.inner.raised.swap(true, Ordering::SeqCst) {
            // The counter is 0 before this one write, which therefore cannot fail.
            let _ = rustix::io::write(&self.inner.event, &1u64.to_ne_bytes());
        }
    }

    /// Returns whether the token was raised.
    pub fn is_cancelled(&self) -> bool {
        self.inner.raised.load(Ordering::SeqCst)
    }
}

/// The descriptor becomes readable when the token is raised.
impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn raising_one_clone_raises_all() {
        let token = Cancel::new().unwrap();
        let other = token.clone();
        let readable = |token: &Cancel| {
            let mut fds = [PollFd::new(token, PollFlags::IN)];
            poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        assert!(!other.is_cancelled() && !readable(&other));
        token.cancel();
        token.cancel();
        assert!(other.is_cancelled() && readable(&other));
    }
}
