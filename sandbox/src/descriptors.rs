//! The limit on open descriptors: high for the builder, which reads many layers at once, and for steps as
//! it was, because programs take it for a sign of how many descriptors to care about.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// What the process was started with, once it has been raised.
static ORIGINAL: OnceLock<Rlimit> = OnceLock::new();

/// Raises this process's own limit on open descriptors as far as it may. Steps keep the limit that the
/// process was started with.
pub fn raise_descriptor_limit() {
    let original = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: original.maximum, ..original };
    if original.current != original.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        ORIGINAL.get_or_init(|| original);
    }
}

/// Gives a process, which its steps inherit from, the limit as it was.
pub(crate) fn restore_descriptor_limit(process: u32) {
    if let (Some(original), Some(pid)) =
        (ORIGINAL.get(), i32::try_from(process).ok().and_then(Pid::from_raw))
    {
        // A process that has ended meanwhile is noticed by whoever waits for it.
        let _ = prlimit(Some(pid), Resource::Nofile, *original);
    }
}
