//! A flag that ends requests under way.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

type Flag = Arc<watch::Sender<bool>>;

/// Ends what was started with it. Clones share one flag, which is never taken back.
#[derive(Clone)]
pub struct Cancel {
    own: Flag,
    /// Flags that count too.
    above: Vec<Flag>,
}

impl Cancel {
    /// Makes a flag that is not set.
    pub fn new() -> Self {
        Self { own: Arc::new(watch::Sender::new(false)), above: Vec::new() }
    }

    /// Makes a flag that is set when `self` is, and may be set alone.
    #[must_use]
    pub fn child(&self) -> Self {
        let above = self.flags().cloned().collect();
        Self { above, ..Self::new() }
    }

    /// Sets the flag: requests under way end with [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(&self) {
        self.own.send_replace(true);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.flags().any(|flag| *flag.borrow())
    }

    /// Ends when the flag is set.
    pub(crate) async fn cancelled(&self) {
        let wait = |flag: &Flag| {
            let mut seen = flag.subscribe();
            // The sender lives as long as `self`, so waiting ends only by the flag.
            Box::pin(async move { drop(seen.wait_for(|set| *set).await) })
        };
        let mut waits: Vec<_> = self.flags().map(wait).collect();
        poll_fn(|cx| {
            let any = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn flags(&self) -> impl Iterator<Item = &Flag> {
        self.above.iter().chain([&self.own])
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_hears_its_parent_and_not_the_other_way() {
        let parent = Cancel::new();
        let (one, two) = (parent.child(), parent.child().child());
        one.cancel();
        assert!(one.is_cancelled() && !parent.is_cancelled() && !two.is_cancelled());
        parent.cancel();
        assert!(two.is_cancelled());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(two.cancelled());
    }
}
