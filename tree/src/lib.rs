//! File trees and layers, whatever they are kept in: folders of the store, the build context, tars.
//!
//! Everything here blocks, and nothing here knows what an image or a build is. Paths are untrusted: they
//! are resolved inside their root, and no symlink of a tree is ever followed by the kernel.

pub mod apply;
pub mod checkout;
pub mod codec;
pub mod compare;
pub mod content;
pub mod context;
mod data;
pub mod diff;
pub mod draft;
pub mod error;
pub mod layer;
pub mod listing;
pub mod node;
pub mod owner;
mod packed;
mod part;
pub mod passwd;
pub mod path;
pub mod pattern;
mod recent;
pub mod secret;
mod select;
pub mod sketch;
pub mod stack;
mod stop;
pub mod survey;
pub mod tar;
pub mod trace;
mod walk;

pub use data::FileData;
pub use error::TreeError;
pub use node::{DirEntry, Kind, Metadata, Timestamp, View};
pub use packed::Packed;
pub use stop::{Guarded, Stop};

#[cfg(test)]
mod view_tests;
