//! Progress events of a build.

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
    /// What is known of the outcome of a vertex, when the user has asked.
    Explained(Explanation),
}

/// Why a vertex ran, or where its result came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which.
    pub vertex: Digest,
    /// Its name for the user.
    pub name: String,
    /// Whether its result was found, so that it did not run.
    pub cached: bool,
    /// What kind of reason, in one word for programs.
    pub reason: &'static str,
    /// The reason in words, without the name.
    pub text: String,
    /// The build that made the result that was found, or the one that the step was compared with.
    pub build: Option<MadeBy>,
}

/// A build of before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeBy {
    /// Its id; empty when it is not known.
    pub id: String,
    /// When it made what it made.
    pub at: SystemTime,
    /// What its user called the result, such as `-t app:1.0`; empty when that is not known.
    pub label: String,
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
