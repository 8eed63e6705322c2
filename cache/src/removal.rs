//! Removal of files and folders.
//!
//! A file system may wait for the disk whenever it frees a file's blocks, as ext4 does when mounted with
//! `discard`: some milliseconds for each file, one after the other, but many at once when asked by many.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use fs_err as fs;
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, unlinkat};

/// How many files are removed at once; the threads only wait.
const THREADS: usize = 8;

/// How deep threads go down; each level takes a descriptor and some stack.
const DEEPEST: usize = 64;

/// Removes a file or folder with all that is in it; what is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => remove_guarded(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// As [`remove_tree`], for folders that may hold many files.
pub(crate) fn remove_large_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    if let Ok(folder) = openat(CWD, path, FOLDER, Mode::empty())
        && let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build()
    {
        pool.install(|| clear(&folder, 0));
    }
    // What is left by now is removed, or reported, here.
    remove_tree(path)
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes what can be removed of what is in the folder.
fn clear(folder: &OwnedFd, depth: usize) {
    let Ok(entries) = Dir::read_from(folder) else { return };
    let (mut files, mut folders): (Vec<CString>, Vec<CString>) = (Vec::new(), Vec::new());
    for entry in entries.flatten() {
        match (entry.file_name().to_bytes(), entry.file_type()) {
            (b"." | b"..", _) => {}
            (_, FileType::Directory) => folders.push(entry.file_name().to_owned()),
            _ => files.push(entry.file_name().to_owned()),
        }
    }
    files.par_iter().for_each(|name| {
        let _ = unlinkat(folder, name, AtFlags::empty());
    });
    if depth == DEEPEST {
        return;
    }
    folders.par_iter().for_each(|name| {
        if let Ok(child) = openat(folder, name, FOLDER, Mode::empty()) {
            clear(&child, depth + 1);
        }
        let _ = unlinkat(folder, name, AtFlags::REMOVEDIR);
    });
}

/// Without root, folders that their owner may not enter are opened first.
fn remove_guarded(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fn open_up(folder: &Path) -> std::io::Result<()> {
        fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open_up(&entry.path())?;
            }
        }
        Ok(())
    }
    open_up(path)?;
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_tree_goes_and_what_its_links_name_stays() {
        let top = tempfile::tempdir().unwrap();
        let (tree, kept) = (top.path().join("tree"), top.path().join("kept"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        let mut folder = tree.clone();
        for level in 0..DEEPEST + 10 {
            fs::create_dir(&folder).unwrap();
            for name in ["a", "b"] {
                fs::write(folder.join(name), "").unwrap();
            }
            std::os::unix::fs::symlink(&kept, folder.join("link")).unwrap();
            folder.push(level.to_string());
        }
        remove_large_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        remove_large_tree(&tree).unwrap();
    }
}
