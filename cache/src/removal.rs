//! Removal of files and folders.
//!
//! A file system may wait for the disk whenever it frees a file's blocks, as ext4 does when mounted with
//! `discard`: some milliseconds for each file, one after the other, but many at once when asked by many.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err as fs;
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, renameat, unlinkat};

/// How many files are removed at once; the threads only wait.
const THREADS: usize = 8;

/// As many files are removed one after the other.
const SMALL: usize = 16;

/// How deep threads go down, as each level takes a descriptor and some stack. What lies deeper is moved up: steps
/// can make trees of any depth.
const DEEPEST: usize = 32;

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

/// As [`remove_tree`], for a folder in which an overlay worked that did not promise to outlive a power cut. What
/// such a one leaves is known, and no folder need be read for it.
pub(crate) fn remove_work(path: &Path) -> std::io::Result<()> {
    let volatile = path.join("work/incompat/volatile");
    // What is not there, or is more than that, is told by the last one.
    let _ = fs::remove_file(volatile.join("dirty"));
    for folder in volatile.ancestors().take(3) {
        let _ = fs::remove_dir(folder);
    }
    fs::remove_dir(path).or_else(|_| remove_tree(path))
}

/// As [`remove_tree`], for folders that may hold many files, or be deep.
pub(crate) fn remove_large_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    if is_small(path) {
        return remove_tree(path);
    }
    if let Ok(top) = openat(CWD, path, FOLDER, Mode::empty())
        && let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build()
    {
        let removal = Removal { top, done: AtomicU64::new(0), tried: AtomicU64::new(0) };
        pool.install(|| {
            let mut before = None;
            while before != Some(removal.done.load(Ordering::Relaxed)) {
                before = Some(removal.done.load(Ordering::Relaxed));
                removal.clear(&removal.top, 0);
            }
        });
    }
    // What is left by now is removed, or reported, here.
    remove_tree(path)
}

/// Whether there is too little in a folder to start threads for.
fn is_small(path: &Path) -> bool {
    let mut left = SMALL;
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(folder) else { return false };
        for entry in entries.flatten() {
            left -= 1;
            if left == 0 {
                return false;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    true
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Removal {
    top: OwnedFd,
    /// How much has been removed or moved.
    done: AtomicU64,
    /// How often moving has been tried.
    tried: AtomicU64,
}

impl Removal {
    /// Removes what can be removed of what is in the folder.
    fn clear(&self, folder: &OwnedFd, depth: usize) {
        let Ok(entries) = Dir::read_from(folder) else { return };
        let (mut files, mut folders): (Vec<CString>, Vec<CString>) = (Vec::new(), Vec::new());
        for entry in entries.flatten() {
            match (entry.file_name().to_bytes(), entry.file_type()) {
                (b"." | b"..", _) => {}
                (_, FileType::Directory) => folders.push(entry.file_name().to_owned()),
                _ => files.push(entry.file_name().to_owned()),
            }
        }
        files.par_iter().for_each(|name| self.note(unlinkat(folder, name, AtFlags::empty())));
        folders.par_iter().for_each(|name| {
            if depth == DEEPEST {
                let place = format!("deep-{}", self.tried.fetch_add(1, Ordering::Relaxed));
                return self.note(renameat(folder, name, &self.top, place));
            }
            if let Ok(child) = openat(folder, name, FOLDER, Mode::empty()) {
                self.clear(&child, depth + 1);
            }
            self.note(unlinkat(folder, name, AtFlags::REMOVEDIR));
        });
    }

    fn note(&self, outcome: rustix::io::Result<()>) {
        if outcome.is_ok() {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
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
    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_large_tree_goes_and_what_its_links_name_stays() {
        let top = tempfile::tempdir().unwrap();
        let (tree, kept) = (top.path().join("tree"), top.path().join("kept"));
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        for folder in ["a/b/c", "a/d", "e"].map(|name| tree.join(name)) {
            fs::create_dir_all(&folder).unwrap();
            for name in ["1", "2"] {
                fs::write(folder.join(name), "").unwrap();
            }
            std::os::unix::fs::symlink(&kept, folder.join("link")).unwrap();
        }
        remove_large_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        remove_large_tree(&tree).unwrap();
    }

    #[test]
    fn a_tree_goes_however_deep_it_is() {
        // In memory, if that may be: some disks take their time for each folder.
        let top = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut folder = openat(CWD, &tree, FOLDER, Mode::empty()).unwrap();
        for _ in 0..5000 {
            mkdirat(&folder, "deeper", Mode::RWXU).unwrap();
            folder = openat(&folder, "deeper", FOLDER, Mode::empty()).unwrap();
        }
        remove_large_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
