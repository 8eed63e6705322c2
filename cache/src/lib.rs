//! Keeps blobs by digest, layers and their forms, results by cache key; collects garbage.
//!
//! Many processes use one root at the same time:
//!
//! ```text
//! format                    version and encoding of the store
//! db.sqlite                 metadata (see `database`)
//! blobs/sha256/<hex>        finished blobs (see `blob`)
//! layers/<id>/fs            unpacked layers in overlay form (see `layer`)
//! layers/<id>/index         what packed layers have, and where in their blobs
//! mounts/<id>/              cache mounts, and what else outlives builds (see `mount`)
//! lent/<id>                 where a mount is that was moved into the tree of a step (see `mount`)
//! contexts/<hex>            hashes of the files of the user's folders; written and read by the caller
//! reserve/                  space that tidying up a full disk needs (see `reserve`)
//! ingest/<process>/<n>      what is being written, swept when its process is dead (see `process`)
//! ingest/<process>.lock     held while the process lives
//! locks/                    one file for each lock that is held (see `lock`)
//! ```
//!
//! Invariants:
//! - What is under `blobs/` and `layers/` never changes. It is written under `ingest/`, and renamed into
//!   place and noted in the database while the database's write lock is held.
//! - Nothing waits for the disk on the way of a build. After a power cut, what had not been synced is
//!   forgotten (see [`Store::sync`]).
//! - Every entry is a hint: what is missing or damaged is forgotten, and the step runs again.

mod blob;
mod database;
mod error;
mod gc;
mod growing;
mod image_store;
mod key;
mod layer;
mod lock;
mod mount;
mod process;
mod records;
mod reference;
mod removal;
mod reserve;
mod space;
mod store;
mod why;
mod workspace;

pub use blob::{BlobFile, BlobReader, Ingest, Spool};
pub use error::CacheError;
pub use gc::{Entry, Filter, FilterError, Freed, GcLimits, Kind, PruneOptions, SpaceWatch, Usage};
pub use growing::{End, Follow, Growing, Grown};
pub use image_store::{Image, Images, NewImage, NewVariant, Removed, Variant};
pub use key::{Key, KeyBuilder};
pub use layer::{Layer, LayerId, LayerMeta, Rewrite};
pub use lock::{Lock, tell_long_waits};
pub use mount::{CacheMount, CacheMountRequest, Sharing};
pub use records::{Link, NewResult, Records, StoredResult};
pub use reference::Ref;
pub use space::FileSystem;
pub use store::{BlobProvider, Store, StoreOptions, Unfinished};
pub use why::{BuildNote, NewNote, Note, NoteOf};
pub use workspace::{Workspace, WorkspaceKind, WorkspaceRoot};
