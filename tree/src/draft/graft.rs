//! A layer put onto a plain folder that has those below it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::folder::remove_tree;
use super::whole::WithoutSockets;
use super::{CopyOptions, Draft};
use crate::layer::{Encoding, LayerDir};
use crate::part::Part;
use crate::path::absolute;
use crate::select::check_depth;
use crate::stack::{Layer, Stack};
use crate::{Kind, TreeError, walk};

/// Changes a plain folder that is equal to some layers into one that is equal to them and one more.
///
/// # Errors
/// When a file system fails. The folder is of no use then.
pub fn graft(layer: Layer, into: &LayerDir, encoding: Encoding) -> Result<(), TreeError> {
    let root = Path::new("");
    let failed = TreeError::io("change", root);
    let part = layer.root().and_then(|part| {
        clear(&part, into.root()?, layer.is_opaque()?, &PathBuf::new())?;
        Ok(())
    });
    part.map_err(failed)?;
    let options = CopyOptions {
        source: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        always_replace: true,
        ..CopyOptions::default()
    };
    let layer = Stack::new(vec![layer]);
    Draft::new(Stack::empty(), into.clone(), encoding).copy(&WithoutSockets(&layer), &options)
}

/// Removes what a directory of a layer hides of the one below it.
fn clear(part: &Part, dir: BorrowedFd<'_>, is_opaque: bool, path: &Path) -> io::Result<()> {
    let at = |error| walk::with_path(error, "cannot change", &absolute(path));
    check_depth(path, path).map_err(io::Error::other)?;
    strip(part, dir).map_err(at)?;
    if is_opaque {
        for (name, _) in walk::names(dir).map_err(at)? {
            remove(dir, &name).map_err(at)?;
        }
        return Ok(());
    }
    for name in part.names().map_err(at)? {
        let Some(metadata) = part.metadata(&name).map_err(at)? else { continue };
        let Some(found) = walk::metadata(dir, &name).map_err(at)? else { continue };
        if metadata.kind == Kind::Dir && found.kind == Kind::Dir {
            let (Some(part), Some(inner)) = (part.dir(&name)?, walk::open_dir(dir, &name)?) else {
                continue;
            };
            clear(&part, inner.as_fd(), part.is_opaque()?, &path.join(&name))?;
        } else if metadata.kind == Kind::Socket || part.is_whiteout(&name, &metadata).map_err(at)? {
            remove(dir, &name).map_err(at)?;
        }
    }
    Ok(())
}

/// Removes extended attributes that a directory of a layer does not have, though the one below it does.
fn strip(part: &Part, dir: BorrowedFd<'_>) -> io::Result<()> {
    let found = walk::xattrs(dir, OsStr::new(""))?;
    if found.is_empty() {
        return Ok(());
    }
    let kept = part.own_xattrs()?;
    for (key, _) in found.iter().filter(|(key, _)| kept.iter().all(|(other, _)| other != key)) {
        // Best effort, as setting them is: those of the machine may not be to be removed.
        let _ = rustix::fs::lremovexattr(walk::proc_path(dir, OsStr::new("")), key.as_os_str());
    }
    Ok(())
}

/// Removes a name with all that is in it.
fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match walk::metadata(dir, name)?.map(|metadata| metadata.kind) {
        None => Ok(()),
        Some(Kind::Dir) => remove_tree(dir, name, 0),
        Some(_) => Ok(rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty())?),
    }
}
