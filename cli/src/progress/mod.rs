//! Shows a build while it runs: events in, lines on standard error out.
//!
//! Builders of events never wait for the terminal: events go through a channel to one thread, which owns
//! all output of the build. [`Progress::finish`] waits until everything is shown.

mod plain;
mod raw;
mod tty;

use std::io::{IsTerminal, LineWriter};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use llb::{Event, EventSink};

pub(crate) use plain::bytes;
pub(crate) use raw::warning_line as raw_warning;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lines that are never taken back.
    Plain,
    /// A few lines that are drawn again and again.
    Tty,
    /// Each event as a JSON object, for programs.
    RawJson,
    /// Nothing; `-q` prints the image id at the end.
    Quiet,
}

impl Mode {
    /// Reads `--progress`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" | "" if std::io::stderr().is_terminal() => Some(Self::Tty),
            "auto" | "" | "plain" => Some(Self::Plain),
            "tty" => Some(Self::Tty),
            "rawjson" => Some(Self::RawJson),
            "quiet" | "none" => Some(Self::Quiet),
            _ => None,
        }
    }
}

/// The display of one build.
pub(crate) struct Progress {
    sender: Mutex<Option<Sender<Event>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Progress {
    /// Starts the display.
    pub(crate) fn start(mode: Mode) -> Self {
        let (sender, receiver) = channel();
        // Whole lines, without holding standard error: others tell of what they meet while the build is shown.
        let lines = || LineWriter::new(std::io::stderr());
        let thread = std::thread::spawn(move || match mode {
            Mode::Plain => plain::show(receiver, &mut lines()),
            Mode::Tty => tty::show(receiver),
            Mode::RawJson => raw::show(receiver, &mut lines()),
            Mode::Quiet => drain(receiver),
        });
        Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) }
    }

    /// Shows what is left and ends the display; later events are dropped.
    pub(crate) fn finish(&self) {
        if let Ok(mut sender) = self.sender.lock() {
            sender.take();
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // The display thread only writes to the terminal; if that panicked there is nobody to tell.
            let _ = thread.join();
        }
    }
}

impl EventSink for Progress {
    fn send(&self, event: Event) {
        if let Ok(sender) = self.sender.lock()
            && let Some(sender) = sender.as_ref()
        {
            // The receiver ends only when the sender is gone.
            let _ = sender.send(crate::guard::redact_event(event));
        }
    }
}

fn drain(receiver: Receiver<Event>) {
    while receiver.recv().is_ok() {}
}
