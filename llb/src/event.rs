//! What a build tells while it runs (`spec/solver-and-cache.md` §10).

use std::time::SystemTime;

use crate::{Digest, SourceRange};

/// Something happened in a build.
#[derive(Debug, Clone)]
pub enum Event {
    /// A vertex is known and will be worked on, or was found in the cache.
    VertexStarted {
        /// Which.
        vertex: Digest,
        /// Vertices whose results it uses.
        inputs: Vec<Digest>,
        /// Name for the user.
        name: String,
        /// When.
        at: SystemTime,
    },
    /// A vertex is done.
    VertexCompleted {
        /// Which.
        vertex: Digest,
        /// Whether the result came from the cache.
        cached: bool,
        /// Why it failed, if it did.
        error: Option<VertexError>,
        /// When.
        at: SystemTime,
    },
    /// Output of a step.
    Log {
        /// Whose.
        vertex: Digest,
        /// 1 for standard output, 2 for standard error.
        stream: u8,
        /// Bytes as written.
        data: Vec<u8>,
        /// When.
        at: SystemTime,
    },
    /// Progress of a part of a vertex, such as a layer that is pulled.
    Status {
        /// Whose.
        vertex: Digest,
        /// Which part.
        id: String,
        /// Amount done.
        current: u64,
        /// Amount in all; 0 when not known.
        total: u64,
        /// When the part began.
        started: SystemTime,
        /// When it was done.
        completed: Option<SystemTime>,
    },
    /// A warning of the frontend.
    Warning {
        /// Vertex it belongs to.
        vertex: Digest,
        /// Rule name and short text.
        short: String,
        /// Further lines.
        detail: Vec<String>,
        /// Where to read more.
        url: String,
        /// Where in the source.
        range: Vec<SourceRange>,
    },
}

/// How a vertex failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VertexError {
    /// It was stopped because something else failed or the user asked.
    Canceled,
    /// It failed by itself.
    Failed(String),
}

/// Takes events; shared by all threads of a build.
pub trait EventSink: Send + Sync {
    /// Takes one event; must not block for long.
    fn send(&self, event: Event);
}

/// Drops all events.
impl EventSink for () {
    fn send(&self, _event: Event) {}
}
