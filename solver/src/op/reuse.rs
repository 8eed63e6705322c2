//! One layer for copies that cannot differ.
//!
//! What a copy makes depends on what is copied, and on what the tree has where it goes. Where the tree has
//! nothing there, only the directories on the way count: their attributes, for a layer lists them. A copy
//! that finds all of this as it was takes the layer that was made then, whatever else has changed below.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cache::{Key, KeyBuilder, Ref};
use llb::op::{CopyAction, FileAction, FileActionKind, FileInput, UserId};
use tree::View;
use tree::node::Kind;
use tree::stack::Stack;

use crate::error::OpError;
use crate::solve::Solve;

/// Key of the layer that a chain of actions makes, by what it depends on; `None` when that is more than
/// what is copied and the way to it.
pub(crate) fn key(
    solve: &Solve<'_>,
    vertex: usize,
    last: usize,
    chain: &[&FileAction],
    base: &Ref,
) -> Result<Option<Key>, OpError> {
    let Some(copies) = copies(chain) else { return Ok(None) };
    let mut key = KeyBuilder::new("layer.v1").key(&solve.op_key(vertex)).u64(last as u64);
    for action in chain {
        // Of an input that is built upon only what is looked at here counts.
        let FileInput::Input(input) = action.secondary_input else { return Ok(None) };
        let Some(content) = solve.content_key_of(vertex, input) else { return Ok(None) };
        key = key.key(&content);
    }
    let Some(first) = copies.first() else { return Ok(None) };
    let stack = base.stack()?;
    let io = |source| OpError::Io { action: "read", path: PathBuf::from(&first.dest), source };
    way(&stack, Path::new(&first.dest), key).map(|key| key.map(KeyBuilder::finish)).map_err(io)
}

/// The copies of a chain, if it has nothing else and all go to one place.
fn copies<'a>(chain: &[&'a FileAction]) -> Option<Vec<&'a CopyAction>> {
    let copies: Vec<&CopyAction> = chain
        .iter()
        .map(|action| match &action.kind {
            FileActionKind::Copy(copy) => Some(&**copy),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let named = |id: &Option<UserId>| matches!(id, Some(UserId::Name { .. }));
    let plain = |copy: &&CopyAction| {
        copy.follow_symlink
            && copy.create_dest_path
            && copy.dest == copies[0].dest
            && !copy.owner.as_ref().is_some_and(|owner| named(&owner.user) || named(&owner.group))
    };
    copies.iter().all(plain).then_some(copies)
}

/// Adds the directories on the way to `dest` to a key; `None` when there is something at `dest`.
fn way(stack: &Stack, dest: &Path, key: KeyBuilder) -> std::io::Result<Option<KeyBuilder>> {
    let resolved = tree::path::resolve(stack, &tree::path::clean(&dest.to_string_lossy()), true)?;
    let mut key = key.bytes(resolved.as_os_str().as_bytes());
    let mut at = PathBuf::new();
    for name in &resolved {
        at.push(name);
        let Some(found) = stack.metadata(&at)? else { return Ok(Some(key)) };
        if found.kind != Kind::Dir {
            return Ok(None);
        }
        key = key
            .u64(u64::from(found.mode))
            .u64(u64::from(found.uid))
            .u64(u64::from(found.gid))
            .i64(found.mtime.seconds)
            .u64(u64::from(found.mtime.nanoseconds))
            .list(&stack.xattrs(&at)?, |key, (name, value)| {
                key.bytes(name.as_bytes()).bytes(value)
            });
    }
    Ok(None)
}
