//! `mode=delete` of the `local` exporter: removes from the folder what the result does not have.
//!
//! Invariant: as for [`local`](crate::local), nothing outside the folder is touched; links are removed, not followed.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use tree::stack::Stack;
use tree::{Kind, View};

use crate::local::{open_own, remove_tree};
use crate::{ExportError, Stop};

/// Removes everything that none of the trees has, below `path` in all of them.
pub(crate) fn remove_others(
    trees: &[&Stack],
    path: &Path,
    folder: BorrowedFd<'_>,
    stop: &Stop,
) -> Result<(), ExportError> {
    let failed = |source| ExportError::File { path: path.to_owned(), source };
    let mut owners: HashMap<OsString, Vec<&Stack>> = HashMap::new();
    for tree in trees {
        for entry in tree.read_dir(path).map_err(failed)? {
            let with_it = owners.entry(entry.name).or_default();
            if entry.metadata.kind == Kind::Dir {
                with_it.push(tree);
            }
        }
    }
    let kept: BTreeSet<OsString> = owners.keys().cloned().collect();
    remove_except(&kept, folder).map_err(failed)?;
    for (name, trees) in owners.iter().filter(|(_, trees)| !trees.is_empty()) {
        stop.check().map_err(failed)?;
        let below = path.join(name);
        let opened = open_existing(folder, name)
            .map_err(|source| ExportError::File { path: below.clone(), source })?;
        if let Some(dir) = opened {
            remove_others(trees, &below, dir.as_fd(), stop)?;
        }
    }
    Ok(())
}

/// Removes everything in a folder but these names.
pub(crate) fn remove_except(kept: &BTreeSet<OsString>, folder: BorrowedFd<'_>) -> io::Result<()> {
    let entries: Vec<_> = fs::Dir::read_from(folder)?.collect::<Result<_, _>>()?;
    for entry in entries {
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." || kept.contains(name) {
            continue;
        }
        match fs::unlinkat(folder, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove_tree(folder, name)?,
            Err(Errno::NOENT) => {}
            done => done?,
        }
    }
    Ok(())
}

/// The directory `name`; `None` when it is none, or nothing.
fn open_existing(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    match open_own(parent, name) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
