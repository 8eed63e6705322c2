//! File contents from one file to another: shared where the file system can, copied where it cannot.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::FileData;

/// Most bytes that are asked of the kernel in one call.
const CHUNK: usize = 1 << 30;

/// Copies data, remembering what the file systems at hand cannot do.
#[derive(Debug)]
pub(crate) struct DataCopier {
    clones: AtomicBool,
    ranges: AtomicBool,
}

impl DataCopier {
    pub(crate) fn new() -> Self {
        Self { clones: AtomicBool::new(true), ranges: AtomicBool::new(true) }
    }

    /// Fills the empty file `to` with what `from` holds from its start on.
    pub(crate) fn copy(&self, from: &mut FileData, to: &mut File, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        if let Some(file) = from.as_file() {
            if self.copy_file(file, to)? {
                return Ok(());
            }
        } else if let Some((file, at, length)) = from.as_part()
            && self.copy_part(file, at, length, to)?
        {
            return Ok(());
        }
        io::copy(from, to).map(drop)
    }

    /// Copies all of a file inside the kernel; false when that cannot be done.
    fn copy_file(&self, from: &File, to: &File) -> io::Result<bool> {
        if self.clones.load(Ordering::Relaxed) {
            if rustix::fs::ioctl_ficlone(to, from).is_ok() {
                return Ok(true);
            }
            self.clones.store(false, Ordering::Relaxed);
        }
        let mut copied = 0;
        while self.ranges.load(Ordering::Relaxed) {
            match rustix::fs::copy_file_range(from, None, to, None, CHUNK) {
                // Some file systems say 0 where there is something to read.
                Ok(0) if copied > 0 => return Ok(true),
                Ok(0) => break,
                Ok(count) => copied += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) if copied > 0 => return Err(error.into()),
                Err(_) => self.ranges.store(false, Ordering::Relaxed),
            }
        }
        Ok(false)
    }

    /// Copies a part of a file inside the kernel; false when that cannot be done.
    fn copy_part(&self, from: &File, at: u64, length: u64, to: &File) -> io::Result<bool> {
        let (mut offset, end) = (at, at.saturating_add(length));
        while self.ranges.load(Ordering::Relaxed) && offset < end {
            let left = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            match rustix::fs::copy_file_range(from, Some(&mut offset), to, None, left) {
                Ok(0) if offset > at => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(0) => return Ok(false),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) if offset > at => return Err(error.into()),
                Err(_) => self.ranges.store(false, Ordering::Relaxed),
            }
        }
        Ok(offset == end)
    }
}
