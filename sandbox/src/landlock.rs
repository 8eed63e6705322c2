//! What of Landlock a step is held with: signals to processes outside of it, and abstract sockets, which belong to the network that a
//! step shares with the machine. Needs Linux 6.12.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys;

/// Connecting and sending to abstract sockets that were made outside.
const ABSTRACT_SOCKETS: u64 = 1;
/// Sending signals to processes outside.
const SIGNALS: u64 = 2;

/// The scope of a step; made once, entered by each.
#[derive(Debug)]
pub(crate) struct Scope(OwnedFd);

impl Scope {
    /// Makes it; `None` where the kernel has no scopes.
    pub(crate) fn new() -> Option<Self> {
        sys::landlock_scope(ABSTRACT_SOCKETS | SIGNALS).ok().map(Self)
    }

    /// Puts the thread, and all that it becomes and makes, in it for good.
    ///
    /// # Errors
    /// When the process lacks `CAP_SYS_ADMIN` in its user namespace.
    pub(crate) fn enter(&self) -> io::Result<()> {
        sys::landlock_restrict(self.0.as_fd())
    }
}

/// Returns the version of Landlock that the kernel has; 0 for none, 6 and above have scopes.
pub fn landlock_version() -> u32 {
    sys::landlock_version()
}
