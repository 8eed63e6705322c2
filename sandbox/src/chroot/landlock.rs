//! Landlock: what a step may do to files, sockets and processes outside of its tree, which is nothing.
//!
//! Versions of the kernel's interface differ in what they can forbid; everything that this one can is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// The rights over files by the version that brought them: how many of the lowest bits there are.
const FILE_RIGHTS: [(u32, u32); 4] = [(1, 13), (2, 14), (3, 15), (5, 16)];

/// Abstract sockets and signals, since version 6.
const SCOPES: u64 = 0b11;

/// The first version with which a name can be moved to another directory at all.
const LEAST: u32 = 2;

/// The version of Landlock that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landlock(u32);

impl Landlock {
    /// Asks the kernel; `None` where it has none that could be used.
    pub(crate) fn probe() -> Option<Self> {
        let version = sys::landlock_version();
        (version >= LEAST).then_some(Self(version))
    }

    /// Whether signals and abstract sockets can be kept inside.
    pub(crate) fn has_scopes(self) -> bool {
        self.0 >= 6
    }

    /// Rules by which everything is allowed below `root` and nothing elsewhere.
    pub(super) fn confine(self, root: BorrowedFd<'_>) -> io::Result<Rules> {
        let bits = FILE_RIGHTS.iter().rev().find(|(since, _)| *since <= self.0);
        let rights = bits.map_or(0, |(_, count)| (1 << count) - 1);
        let scopes = if self.has_scopes() { Some(SCOPES) } else { None };
        let rules = sys::landlock_ruleset(rights, scopes)?;
        sys::landlock_allow(rules.as_fd(), root, rights)?;
        Ok(Rules(rules))
    }
}

/// Rules that are ready.
pub(super) struct Rules(OwnedFd);

impl Rules {
    /// Has the process live by the rules from now on, with all that it starts. `no_new_privs` must be on.
    pub(super) fn enforce(self) -> io::Result<()> {
        sys::landlock_restrict(self.0.as_fd())
    }
}
