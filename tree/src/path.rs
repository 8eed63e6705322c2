//! Paths inside a root, whatever a tree's symlinks say.
//!
//! Every link is resolved here, over a [`View`], and stays inside the root: an absolute target starts at
//! the root, and `..` at the root is the root. The kernel is never asked to follow one.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::{Kind, View};

/// Symlinks that may be followed in one path.
const MAX_LINKS: usize = 255;

/// Cleans a user's path against the root: no `.`, `..`, empty parts or leading `/`.
#[must_use]
pub fn clean(path: &str) -> PathBuf {
    clean_path(Path::new(path))
}

/// [`clean`] for a path that need not be UTF-8.
#[must_use]
pub fn clean_path(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// A path of a [`View`] as a user writes it: with a leading `/`.
#[must_use]
pub fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

/// Resolves a path to one without symlinks, inside the root of a view.
///
/// Parts that do not exist are kept as they are, so the result may name nothing. With `follow_last`, a
/// symlink at the end is followed too; without, it is the result.
///
/// # Errors
/// `ELOOP` after 255 links, and when the file system fails.
pub fn resolve(view: &dyn View, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
    let mut todo = parts(path);
    let mut resolved = PathBuf::new();
    let mut links = 0;
    // Below a part that is missing there is nothing to ask for until `..` leads back out.
    let mut missing = 0_usize;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            resolved.pop();
            missing = missing.saturating_sub(1);
            continue;
        }
        resolved.push(&part);
        if missing > 0 {
            missing += 1;
            continue;
        }
        if todo.is_empty() && !follow_last {
            break;
        }
        match view.metadata(&resolved)?.map(|metadata| metadata.kind) {
            None => missing = 1,
            Some(Kind::Symlink) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from(rustix::io::Errno::LOOP));
                }
                let target = view.read_link(&resolved)?;
                resolved.pop();
                if target.is_absolute() {
                    resolved = PathBuf::new();
                }
                let mut next = parts(&target);
                next.append(&mut todo);
                todo = next;
            }
            Some(_) => {}
        }
    }
    Ok(resolved)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Splits a path into its directory and its name; `None` for the root.
pub(crate) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}
