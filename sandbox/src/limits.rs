//! Limits that the builder raises for itself: on open descriptors, which steps have as it was because programs take
//! it for a sign of how many to care about, and on a stack that is too small for anything.

use std::sync::OnceLock;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::sys;

/// How many descriptors the process was started with, once that has been raised.
static DESCRIPTORS: OnceLock<Rlimit> = OnceLock::new();

/// What the stack of the main thread has room for at least, in bytes.
const LEAST_STACK: u64 = 1 << 20;

/// What it gets where that is less.
const USUAL_STACK: u64 = 8 << 20;

/// Raises this process's own limits: on open descriptors as far as it may, since many layers are read at once, and on
/// the stack where that is very small. A write beyond the limit on the size of files is an error from then on, and not
/// the end of the process.
pub fn raise_limits() {
    let original = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: original.maximum, ..original };
    if original.current != original.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
        DESCRIPTORS.get_or_init(|| original);
    }
    if missing_stack().is_some() {
        let original = getrlimit(Resource::Stack);
        let most = original.maximum.map(|most| most.max(USUAL_STACK));
        let within = original.maximum.map_or(USUAL_STACK, |most| most.min(USUAL_STACK));
        // Beyond the hard limit if the process may.
        let raised = [
            Rlimit { current: Some(USUAL_STACK), maximum: most },
            Rlimit { current: Some(within), ..original },
        ];
        let _ = raised.into_iter().find(|raised| setrlimit(Resource::Stack, *raised).is_ok());
    }
    sys::ignore_signal(libc::SIGXFSZ);
}

/// Bytes that the stack of the main thread may have, if they are too few to build with.
#[must_use]
pub fn missing_stack() -> Option<u64> {
    getrlimit(Resource::Stack).current.filter(|size| *size < LEAST_STACK)
}

/// Gives a process, which its steps inherit from, as many descriptors as there were.
pub(crate) fn restore_descriptors(process: u32) {
    if let (Some(original), Some(pid)) =
        (DESCRIPTORS.get(), i32::try_from(process).ok().and_then(Pid::from_raw))
    {
        // A process that has ended meanwhile is noticed by whoever waits for it.
        let _ = prlimit(Some(pid), Resource::Nofile, *original);
    }
}
