//! Landlock: what a step may do to files, sockets and processes outside of it.
//!
//! Where a step has mounts and namespaces of its own, two things are left that those do not close: signals to processes
//! that it can name, and abstract sockets, which belong to the network that it shares with the machine ([`Rules::scopes`]).
//! Where it has none, everything outside of its tree is closed ([`Landlock::confine`]).
//!
//! Versions of the kernel's interface differ in what they can forbid; everything that this one can is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// The rights over files by the version that brought them: how many of the lowest bits there are.
const FILE_RIGHTS: [(u32, u32); 4] = [(1, 13), (2, 14), (3, 15), (5, 16)];

/// Connecting and sending to abstract sockets that were made outside.
const ABSTRACT_SOCKETS: u64 = 1;
/// Sending signals to processes outside.
const SIGNALS: u64 = 2;

/// The first version with which those two can be kept inside (Linux 6.12).
const SCOPED: u32 = 6;

/// The first version with which a name can be moved to another directory at all.
const LEAST: u32 = 2;

/// The version of Landlock that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landlock(u32);

impl Landlock {
    /// Asks the kernel; `None` where it has none that could confine a step.
    pub(crate) fn probe() -> Option<Self> {
        let version = sys::landlock_version();
        (version >= LEAST).then_some(Self(version))
    }

    /// Rules by which everything is allowed below `root` and nothing elsewhere.
    pub(crate) fn confine(self, root: BorrowedFd<'_>) -> io::Result<Rules> {
        let bits = FILE_RIGHTS.iter().rev().find(|(since, _)| *since <= self.0);
        let rights = bits.map_or(0, |(_, count)| (1 << count) - 1);
        let scopes = (self.0 >= SCOPED).then_some(ABSTRACT_SOCKETS | SIGNALS);
        let rules = sys::landlock_ruleset(rights, scopes)?;
        sys::landlock_allow(rules.as_fd(), root, rights)?;
        Ok(Rules(rules))
    }
}

/// Rules that are ready.
#[derive(Debug)]
pub(crate) struct Rules(OwnedFd);

impl Rules {
    /// Rules that keep signals and abstract sockets inside, and nothing else; `None` where the kernel has no such thing.
    pub(crate) fn scopes() -> Option<Self> {
        sys::landlock_ruleset(0, Some(ABSTRACT_SOCKETS | SIGNALS)).ok().map(Self)
    }

    /// Puts the thread, and all that it becomes and makes, under the rules for good.
    ///
    /// # Errors
    /// When neither `no_new_privs` is on nor the process has `CAP_SYS_ADMIN` in its user namespace.
    pub(crate) fn enter(&self) -> io::Result<()> {
        sys::landlock_restrict(self.0.as_fd())
    }
}

/// Returns the version of Landlock that the kernel has; 0 for none, 6 and above keep signals and abstract sockets inside.
pub fn landlock_version() -> u32 {
    sys::landlock_version()
}
