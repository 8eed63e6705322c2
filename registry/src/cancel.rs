//! A flag that ends requests under way.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;

/// Ends what was started with it. Clones share one flag, which is never taken back.
#[derive(Clone)]
pub struct Cancel(Arc<watch::Sender<bool>>);

impl Cancel {
    /// Makes a flag that is not set.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Sets the flag: requests under way end with [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when the flag is set.
    pub(crate) async fn cancelled(&self) {
        // The sender lives as long as `self`, so waiting ends only by the flag.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
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
