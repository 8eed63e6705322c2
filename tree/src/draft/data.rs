//! File contents from one file to another: shared where the file system can, copied where it cannot.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most bytes that are asked of the kernel in one call.
const CHUNK: usize = 1 << 30;

/// Copies data, remembering what the file systems at hand cannot do.
#[derive(Debug)]
pub(super) struct DataCopier {
    clones: AtomicBool,
    ranges: AtomicBool,
}

impl DataCopier {
    pub(super) fn new() -> Self {
        Self { clones: AtomicBool::new(true), ranges: AtomicBool::new(true) }
    }

    /// Fills the empty file `to` with what `from` holds from its start on.
    pub(super) fn copy(&self, from: &mut File, to: &mut File, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if self.clones.load(Ordering::Relaxed) {
            if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
                return Ok(());
            }
            self.clones.store(false, Ordering::Relaxed);
        }
        let mut copied = 0;
        while self.ranges.load(Ordering::Relaxed) {
            match rustix::fs::copy_file_range(&*from, None, &*to, None, CHUNK) {
                // Some file systems say 0 where there is something to read.
                Ok(0) if copied > 0 => return Ok(()),
                Ok(0) => break,
                Ok(count) => copied += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) if copied > 0 => return Err(error.into()),
                Err(_) => self.ranges.store(false, Ordering::Relaxed),
            }
        }
        io::copy(from, to).map(drop)
    }
}
