//! What is set aside so that a full disk can be tidied up.
//!
//! ```text
//! reserve/0     one MiB that nothing uses
//! reserve/1…7   empty files, each of which takes an inode
//! ```
//!
//! Removing anything from the store takes some space first: a lock, a folder for what goes, pages of the database.
//! [`release`] gives that space back to the file system, [`fill`] takes it again once there is plenty.

use std::io::Write;
use std::path::Path;

use fs_err as fs;

use crate::error::CacheError;
use crate::space::FileSystem;
use crate::store::Store;

/// Bytes set aside.
const BYTES: u64 = 1 << 20;

/// Files set aside, the one with the bytes among them.
const FILES: usize = 8;

/// With less than this many bytes left, what goes is removed before its rows are.
pub(crate) const TIGHT: u64 = 16 << 20;

/// Whether the space is taken.
pub(crate) fn is_there(root: &Path) -> bool {
    root.join("reserve").is_dir()
}

/// Takes the space; what is not there already. A disk that has no room for it is left as it is.
pub(crate) fn fill(root: &Path) {
    let folder = root.join("reserve");
    if is_there(root) || FileSystem::of(root).is_ok_and(|disk| disk.free() < 8 * BYTES) {
        return;
    }
    let made = make(&folder.with_extension("new"));
    // Of several processes one wins; what the others made is taken away again.
    if made.is_err() || fs::rename(folder.with_extension("new"), &folder).is_err() {
        let _ = fs::remove_dir_all(folder.with_extension("new"));
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    fs::create_dir(folder)?;
    for number in 0..FILES {
        let mut file = fs::File::create(folder.join(number.to_string()))?;
        if number == 0 {
            use rustix::fs::{FallocateFlags, fallocate};
            // File systems that cannot promise space get it by writing.
            match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
                Ok(()) => {}
                Err(_) => file.write_all(&vec![0; 1 << 20])?,
            }
        }
    }
    Ok(())
}

/// Gives the space back.
pub(crate) fn release(root: &Path) {
    let _ = fs::remove_dir_all(root.join("reserve"));
}

impl Store {
    /// Does something that is to work on a full disk too: it may be done twice.
    pub(crate) fn with_reserve<T>(
        &self,
        mut body: impl FnMut() -> Result<T, CacheError>,
    ) -> Result<T, CacheError> {
        let root = self.root();
        if FileSystem::of(root)?.is_full() {
            release(root);
        }
        match body() {
            // Quotas do not show in the file system's figures.
            Err(CacheError::NoSpace { .. }) => {
                release(root);
                body()
            }
            other => other,
        }
    }
}
