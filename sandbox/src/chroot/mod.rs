//! Steps without namespaces and mounts: what root inside a plain container can do.
//!
//! ```text
//! supervisor   Places: puts /dev, /etc/hosts, mounts … into the tree, and takes them out again
//! zygote ── fork ──▶ keeper ── fork ──▶ step: chroot, Landlock, seccomp filter, program
//! ```
//!
//! The root of a step is a folder that it changes in place. What other tiers mount is put into it before the step
//! starts and taken out after it has ended ([`Places`]), so that nothing of it is in the layer. The [keeper](keeper) is
//! what the first process of a pid namespace is elsewhere: everything that the step starts ends up as its child when
//! its own parent has gone, and is killed by it when the step has ended.
//!
//! What keeps a step in its tree:
//! - The root directory is changed through a descriptor, and none is kept. A step has no right to change its root
//!   directory again, by which root could get out: `CAP_SYS_CHROOT` is dropped and the filter refuses the call.
//! - [Landlock](crate::landlock), where the kernel has it, allows files below the tree only, no tracing of processes outside, no
//!   signals to them and no abstract sockets of theirs.
//! - There is no `/proc` in it, the executable and the environment of the builder cannot be named, and the builder cannot
//!   be traced by a process without `CAP_SYS_PTRACE`.
//!
//! `no_new_privs` is on, without which an unprivileged process may load neither Landlock rules nor filters.

mod keeper;
mod places;
mod step;

pub(crate) use keeper::{keep, kill_strangers};
pub(crate) use places::Places;

use rustix::process::Signal;

/// What ends a keeper, and with it the step that it keeps.
pub(crate) const END: Signal = Signal::TERM;
