//! Ctrl-C and SIGTERM: the first stops the build in order, the next one at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sandbox::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::report::Exit;

/// Time after which a build that was told to stop is ended the hard way.
const PATIENCE: Duration = Duration::from_millis(700);

/// Time for removing what is half written. What is left of it is swept at the next start.
const TIDYING: Duration = Duration::from_millis(200);

/// Knows whether the user has asked to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    /// Whether a signal has come.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Cancels steps and transfers when the user asks to stop; `discard` removes what is half written if the
/// build does not end in time, `last` is done before the program is ended.
///
/// # Errors
/// When the handlers cannot be installed.
pub(crate) fn watch(
    cancel: Cancel,
    transfers: registry::Cancel,
    discard: impl Fn() + Send + Clone + 'static,
    last: impl Fn() + Send + Clone + 'static,
) -> std::io::Result<Interrupted> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let interrupted = Interrupted::default();
    let flag = Arc::clone(&interrupted.0);
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if flag.swap(true, Ordering::SeqCst) {
                last();
                std::process::exit(Exit::Interrupted as i32);
            }
            cancel.cancel();
            transfers.cancel();
            let (discard, last) = (discard.clone(), last.clone());
            std::thread::spawn(move || {
                std::thread::sleep(PATIENCE);
                std::thread::spawn(discard);
                std::thread::sleep(TIDYING);
                last();
                std::process::exit(Exit::Interrupted as i32);
            });
        }
    });
    Ok(interrupted)
}
