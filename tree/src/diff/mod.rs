//! Tars made from trees: the layer that a step made, and a whole tree flattened; and layers made by
//! comparing trees.
//!
//! Invariants:
//! - The walk is lexical per directory, so equal trees give equal bytes.
//! - Cost is that of what changed: of the layers below, only names that the upper folder has are looked
//!   up, and whole directories only where an opaque one hides them.
//!
//! Format: spec `solver-and-cache.md` §7.1 and §7.2, `cli-and-outputs.md` §3.2.

mod changes;
mod flat;
mod layer;
mod same;

use crate::tar::{Entry, EntryKind};
use crate::{Kind, Metadata};

pub use changes::{Changes, extract_changes};
pub use flat::{FlatOptions, append_tree, write_tree};
pub use layer::write_layer;
pub(crate) use layer::{ReadAhead, WholeFile, write_part};

/// The one extended attribute that layers carry.
const CAPABILITY: &str = "security.capability";

/// An entry for a path, without link target and extended attributes; `None` for a socket.
fn entry(path: &[u8], metadata: &Metadata) -> Option<Entry> {
    let kind = match metadata.kind {
        Kind::File => EntryKind::File,
        Kind::Dir => EntryKind::Dir,
        Kind::Symlink => EntryKind::Symlink,
        Kind::CharDevice => EntryKind::CharDevice,
        Kind::BlockDevice => EntryKind::BlockDevice,
        Kind::Fifo => EntryKind::Fifo,
        Kind::Socket => return None,
    };
    Some(Entry {
        mode: metadata.mode,
        uid: metadata.uid,
        gid: metadata.gid,
        size: if metadata.kind == Kind::File { metadata.size } else { 0 },
        mtime: metadata.mtime,
        device: metadata.rdev,
        ..Entry::new(kind, path.to_vec())
    })
}

/// Appends a name to a path; returns the length to cut it back to.
fn push(path: &mut Vec<u8>, name: &[u8]) -> usize {
    let length = path.len();
    if length > 0 {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    length
}

#[cfg(test)]
mod changes_tests;
#[cfg(test)]
pub(crate) mod snapshot_tests;
#[cfg(test)]
mod tests;
