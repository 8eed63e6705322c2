//! Folders that a program has filled from a repository: checked, moved and given what layers need.
//!
//! Invariants:
//! - Every name is looked up in an open directory; a symlink is never followed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::draft::{Attributes, set_attributes};
use crate::owner::Keeper;
use crate::select::MAX_DEPTH;
use crate::{Kind, Metadata, Timestamp, TreeError, walk};

/// Whether `path` below the folder `root` is a directory, and every part of it too.
///
/// # Errors
/// When the file system fails.
pub fn is_real_dir(root: &Path, path: &Path) -> io::Result<bool> {
    let root = walk::open_root(root)?;
    Ok(walk::open_below(root.as_fd(), path)?.is_some())
}

/// Moves everything in the directory `path` below the folder `from` into the folder `into`, which has none of
/// its names.
///
/// # Errors
/// When `path` or a part of it is no directory, or the file system fails.
pub fn move_contents(from: &Path, path: &Path, into: &Path) -> io::Result<()> {
    let root = walk::open_root(from)?;
    let folder = walk::open_below(root.as_fd(), path)?
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotADirectory))?;
    let into = walk::open_root(into)?;
    for (name, _) in walk::names(folder.as_fd())? {
        rustix::fs::renameat(&folder, &name, &into, &name)?;
    }
    Ok(())
}

/// Gives a folder and everything in it the owner 0:0 and the modes that git keeps: directories and programs
/// 0755, files 0644, and 0444 for those that even their owner may not write. With `mtime`, everything gets
/// this time.
///
/// # Errors
/// When the file system fails.
pub fn settle(root: &Path, mtime: Option<Timestamp>) -> Result<(), TreeError> {
    let top = Path::new("");
    let open = walk::open_root(root).map_err(TreeError::io("open", root))?;
    let metadata = walk::metadata_of(open.as_fd()).map_err(TreeError::io("read", root))?;
    let settle = Settle { mtime };
    settle.contents(&open, top, 0)?;
    settle.one(open.as_fd(), OsStr::new(""), top, &metadata)
}

struct Settle {
    mtime: Option<Timestamp>,
}

impl Settle {
    fn contents(&self, folder: &OwnedFd, path: &Path, depth: usize) -> Result<(), TreeError> {
        if depth > MAX_DEPTH {
            return Err(TreeError::TooDeep { path: path.to_owned() });
        }
        let names = walk::names(folder.as_fd()).map_err(TreeError::io("read", path))?;
        names.par_iter().try_for_each(|(name, _)| self.entry(folder, name, path.join(name), depth))
    }

    fn entry(
        &self,
        folder: &OwnedFd,
        name: &OsStr,
        path: PathBuf,
        depth: usize,
    ) -> Result<(), TreeError> {
        let metadata =
            walk::metadata(folder.as_fd(), name).map_err(TreeError::io("read", &path))?;
        let Some(metadata) = metadata else { return Ok(()) };
        if metadata.kind == Kind::Dir {
            let below =
                walk::open_dir(folder.as_fd(), name).map_err(TreeError::io("open", &path))?;
            if let Some(below) = below {
                self.contents(&below, &path, depth + 1)?;
            }
        }
        self.one(folder.as_fd(), name, &path, &metadata)
    }

    fn one(
        &self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        path: &Path,
        found: &Metadata,
    ) -> Result<(), TreeError> {
        let mode = match found.kind {
            Kind::Dir => 0o755,
            _ if found.mode & 0o100 != 0 => 0o755,
            _ if found.mode & 0o200 != 0 => 0o644,
            _ => 0o444,
        };
        let owned = (found.uid, found.gid) == (0, 0);
        let attributes = Attributes {
            mode: (found.mode != mode).then_some(mode),
            owner: (!owned).then_some((0, 0)),
            mtime: self.mtime,
            ..Attributes::default()
        };
        // Only the owner that every folder can keep is given.
        set_attributes(folder, name, found.kind, &attributes, &Keeper::default())
            .map_err(TreeError::io("change", path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fs_err as fs;
    use fs_err::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn modes_and_times_are_those_of_a_repository() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: owners need root");
            return;
        }
        let top = tempfile::tempdir().unwrap();
        let root = top.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        for (name, mode) in [("d/a", 0o600), ("d/e/x", 0o770), ("r", 0o400), ("d/e", 0o2700)] {
            if name != "d/e" {
                fs::write(root.join(name), name).unwrap();
            }
            fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::lchown(root.join("d/a"), Some(7), Some(8)).unwrap();
        symlink("/etc/passwd", root.join("link")).unwrap();
        let before = fs::metadata("/etc/passwd").unwrap().permissions().mode();
        settle(root, Some(Timestamp { seconds: 1_000_000_000, nanoseconds: 0 })).unwrap();
        let dir = walk::open_root(root).unwrap();
        for (path, mode) in [
            ("", 0o755),
            ("d", 0o755),
            ("d/a", 0o644),
            ("d/e", 0o755),
            ("d/e/x", 0o755),
            ("r", 0o444),
        ] {
            let found =
                walk::metadata(dir.as_fd(), OsStr::new(if path.is_empty() { "." } else { path }));
            let found = found.unwrap().unwrap();
            assert_eq!((found.mode, found.uid, found.gid), (mode, 0, 0), "{path}");
            assert_eq!(found.mtime.seconds, 1_000_000_000, "{path}");
        }
        let link = walk::metadata(dir.as_fd(), OsStr::new("link")).unwrap().unwrap();
        assert_eq!(link.mtime.seconds, 1_000_000_000);
        assert_eq!(fs::metadata("/etc/passwd").unwrap().permissions().mode(), before);
    }

    #[test]
    fn nothing_is_reached_through_a_symlink() {
        let top = tempfile::tempdir().unwrap();
        let (from, into, other) =
            (top.path().join("f"), top.path().join("i"), top.path().join("o"));
        for folder in [&from.join("a/b"), &into, &other.join("b")] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(from.join("a/b/x"), "x").unwrap();
        fs::write(other.join("b/secret"), "s").unwrap();
        symlink(&other, from.join("link")).unwrap();
        assert!(is_real_dir(&from, Path::new("a/b")).unwrap());
        for path in ["link", "link/b", "a/b/x", "none", "../o"] {
            assert!(
                path.starts_with("..") || !is_real_dir(&from, Path::new(path)).unwrap(),
                "{path}"
            );
        }
        assert!(move_contents(&from, Path::new("link/b"), &into).is_err());
        move_contents(&from, Path::new("a/b"), &into).unwrap();
        assert_eq!(fs::read_to_string(into.join("x")).unwrap(), "x");
        assert!(other.join("b/secret").exists() && !into.join("secret").exists());
    }
}
