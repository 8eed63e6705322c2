//! Runs an LLB definition: each vertex at most once, from the cache where its key matches.
//!
//! ```text
//! Engine ─job─▶ Job ─resolve_image─▶ ResolvedImage        (for the frontend)
//!                   ─solve─────────▶ Ref                  (for the exporters)
//! ```
//!
//! `scheduler` decides what is next, `known` by which keys a vertex is found, `solve` does the work on
//! threads, `op` knows each kind of op. `explain` says why a step ran.

mod beforehand;
mod cache_key;
mod check;
mod course;
mod engine;
mod error;
mod explain;
mod graph;
mod guard;
mod image;
mod known;
mod layout;
mod op;
mod room;
mod scheduler;
mod session;
mod solve;
mod timeline;
mod value;
mod waiting;
mod workers;

pub use beforehand::Prepare;
pub use engine::{Engine, EngineOptions, IsolationOptions, Job};
pub use error::{OpError, SolveError, chain};
pub use explain::BuildLabel;
pub use guard::{Guard, Reaction};
pub use image::{ImageLocation, ResolvedImage};
pub use layout::{LayoutPick, layout_config};
pub use op::missing::MissingPart;
pub use op::source::git::{GitError, GitOptions, Trouble};
pub use session::Session;
