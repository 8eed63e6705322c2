//! The shared vocabulary of the builder: data only, no I/O.
//!
//! A [`Definition`] is a directed acyclic graph of [`Op`]s, each of which turns input file trees into
//! output file trees. It maps without loss to BuildKit's `pb.Definition` (see [`pb`]), so that a graph
//! made here can be run by another engine and one made elsewhere can be run here.
//!
//! Invariants:
//! - Nothing here reads a file, the clock or the environment.
//! - Types that go to disk or over the wire have their own encoding ([`pb`], [`image`]); the core types
//!   carry no `Serialize`.

pub mod base64;
pub mod definition;
pub mod digest;
pub mod entitlement;
pub mod event;
pub mod git_url;
pub mod image;
pub mod op;
pub mod pb;
pub mod platform;
pub mod reference;
pub mod suggest;
pub mod url;
pub mod variable;

pub use definition::{Definition, Edge, SourceInfo, SourceRange, Vertex, VertexMetadata};
pub use digest::{ChainId, DiffId, Digest};
pub use event::{Event, EventSink};
pub use git_url::GitUrl;
pub use op::Op;
pub use platform::{InvalidPlatform, Platform};
pub use reference::{InvalidReference, Reference};
