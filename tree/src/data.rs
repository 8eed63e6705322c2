//! Bytes of a regular file, wherever they are kept.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Metadata, walk};

/// Bytes of a regular file, read from its start on.
#[derive(Debug)]
pub struct FileData {
    source: Source,
    watch: Option<Watch>,
}

/// Tells when a file has changed by the time it has been read.
#[derive(Debug)]
struct Watch {
    before: Metadata,
    changed: Arc<AtomicBool>,
}

impl Drop for FileData {
    fn drop(&mut self) {
        if let (Some(watch), Source::File(file)) = (&self.watch, &self.source) {
            let now = walk::metadata_of(file.as_fd());
            if !now.is_ok_and(|now| is_unchanged(&watch.before, &now)) {
                watch.changed.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Whether two looks at a file say that nothing has changed between them.
pub(crate) fn is_unchanged(before: &Metadata, now: &Metadata) -> bool {
    (before.kind, before.size, before.mtime, before.ctime, before.inode)
        == (now.kind, now.size, now.mtime, now.ctime, now.inode)
}

#[derive(Debug)]
enum Source {
    File(File),
    Part { file: Arc<File>, at: u64, left: u64 },
    Bytes(Cursor<Vec<u8>>),
}

impl FileData {
    /// All of a file, from where it stands.
    #[must_use]
    pub fn whole(file: File) -> Self {
        Self { source: Source::File(file), watch: None }
    }

    /// All of a file that may change; `changed` is raised if it is not as it was `before` by the time this is
    /// dropped.
    pub(crate) fn watched(file: File, before: Metadata, changed: Arc<AtomicBool>) -> Self {
        Self { source: Source::File(file), watch: Some(Watch { before, changed }) }
    }

    /// `length` bytes of a file that does not change, from the offset `at` on.
    #[must_use]
    pub fn part(file: Arc<File>, at: u64, length: u64) -> Self {
        Self { source: Source::Part { file, at, left: length }, watch: None }
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(bytes: Vec<u8>) -> Self {
        Self { source: Source::Bytes(Cursor::new(bytes)), watch: None }
    }

    /// The file that holds nothing else.
    pub(crate) fn as_file(&self) -> Option<&File> {
        if let Source::File(file) = &self.source { Some(file) } else { None }
    }

    /// The file that holds the bytes, where in it the next one is, and how many there are.
    pub(crate) fn as_part(&self) -> Option<(&File, u64, u64)> {
        if let Source::Part { file, at, left } = &self.source {
            Some((file, *at, *left))
        } else {
            None
        }
    }
}

impl Read for FileData {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::File(file) => file.read(buffer),
            Source::Bytes(bytes) => bytes.read(buffer),
            Source::Part { file, at, left } => {
                let most =
                    usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                let count = file.read_at(&mut buffer[..most], *at)?;
                if count == 0 && most > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *at += count as u64;
                *left -= count as u64;
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_ends_where_it_should_and_not_before() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let file = Arc::new(file);
        let read = |at, length| io::read_to_string(FileData::part(Arc::clone(&file), at, length));
        assert_eq!(read(2, 3).unwrap(), "234");
        assert_eq!(read(10, 0).unwrap(), "");
        assert_eq!(read(8, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
