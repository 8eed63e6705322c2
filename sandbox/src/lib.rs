//! Runs one process in a root file system under namespaces, mounts and limits.
//!
//! ```text
//! threads of the builder ── Sandbox::run ──▶ zygote ──▶ step, step, step
//! ```
//!
//! [`Sandbox::start`] starts a small helper, the zygote, which makes the process of each step in
//! namespaces of its own; [`Sandbox::run`] hands it one [`Spec`] and waits for the end. What a step
//! finds is that of BuildKit: mounts, users, capabilities, system calls and names.
//!
//! Invariants:
//! - Nothing outlives a step: it is PID 1 of its namespace, so its end takes everything in there
//!   along, and every mount belongs to its mount namespace. That holds however it ends, also when
//!   the builder or the zygote is killed. Where there are no namespaces, a keeper does it (see `chroot`).
//! - Nothing that an image, a mount source or a step says is looked up outside of it: paths are
//!   resolved by the kernel inside a descriptor of their root, and mounted by descriptor.
//! - A step holds no descriptor but its three standard ones.
//! - Secrets are in memory only, but without mounts.
//!
//! Needs Linux 5.12 (`mount_setattr`).

mod cancel;
mod cgroup;
mod chroot;
mod emulation;
mod environment;
mod error;
mod landlock;
mod limits;
mod names;
mod recorder;
mod seccomp;
mod spec;
mod step;
mod supervisor;
mod sys;
pub mod tier;
mod wire;
mod zygote;

pub use cancel::Cancel;
pub use cgroup::{Cgroup, CgroupError, Cgroups, Resources};
pub use emulation::{architectures_that_run, runs};
pub use environment::{Environment, Proxies, complete_environment};
pub use error::{ExecReason, IsolationError, SandboxError};
pub use landlock::landlock_version;
pub use limits::{missing_stack, raise_limits};
pub use names::{ResolverOverrides, hosts_file, machine_resolver, resolv_conf};
pub use spec::{
    Credentials, DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, Mount, MountKind, Network, Resource, Rlimit,
    Root, Security, Spec,
};
pub use supervisor::{Exit, Sandbox};
pub use tier::Tier;
pub use zygote::maybe_run_zygote;
