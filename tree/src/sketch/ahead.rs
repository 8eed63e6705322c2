//! Small files read by threads of their own, while the one that writes the tar hashes those before.
//!
//! The files are cut into batches, and each thread reads every n-th of them into a queue of its own, so that the order
//! is known without anybody sorting.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};

use crossbeam_channel::{Receiver, bounded};

use crate::diff::{ReadAhead, WholeFile};
use crate::packed::{Builder, Node, Origin, Packed};
use crate::part::Part;
use crate::{FileData, View, walk};

/// Largest file that is read ahead, in bytes.
pub(super) const SMALL: u64 = 256 << 10;
/// Fewest files for which a thread is worth its while.
const FEW: usize = 16;
/// Bytes and files that are handed over at once.
const BATCH: (u64, usize) = (512 << 10, 64);
/// Batches that are under way for each thread.
const BATCHES: usize = 4;
/// Most threads: opening files is work for the kernel, which has locks of its own.
const MOST_THREADS: usize = 4;

/// A file that was read, or could not be.
struct Done {
    node: Node,
    read: io::Result<Whole>,
}

/// Runs `write` with the small files of a plan read ahead in the order in which a tar has them.
pub(super) fn with_files<T>(
    plan: &Packed,
    write: impl FnOnce(&mut ReadAhead<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let files = small_files(plan);
    if files.len() < FEW {
        return write(&mut |_, _| Ok(None));
    }
    let batches = &batches(plan, &files);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    std::thread::scope(|scope| {
        let mut queues = Vec::with_capacity(threads);
        for first in 0..threads {
            let (sender, receiver) = bounded(BATCHES);
            std::thread::Builder::new().name("read-ahead".to_owned()).spawn_scoped(
                scope,
                move || {
                    let mut own = batches.iter().skip(first).step_by(threads);
                    // It ends when nobody wants them any more.
                    own.try_for_each(|files| sender.send(read(plan, files))).ok();
                },
            )?;
            queues.push(receiver);
        }
        let mut taken = Taken { queues, next: 0, batch: Vec::new().into_iter() };
        write(&mut |part, name| taken.take(part, name))
    })
}

/// Cuts the files into pieces of about the same amount of work.
fn batches<'f>(plan: &Packed, files: &'f [Node]) -> Vec<&'f [Node]> {
    let (mut batches, mut rest, mut size) = (Vec::new(), files, 0);
    let mut count = 0;
    for &node in files {
        count += 1;
        size += plan.metadata(node).size;
        if size >= BATCH.0 || count == BATCH.1 {
            let (batch, left) = rest.split_at(count);
            batches.push(batch);
            (rest, size, count) = (left, 0, 0);
        }
    }
    batches.push(rest);
    batches
}

/// Nodes of small files, in the order of a walk.
fn small_files(plan: &Packed) -> Vec<Node> {
    let mut files = Vec::new();
    let mut open = vec![Builder::ROOT];
    while let Some(node) = open.pop() {
        if plan.is_dir(node) {
            open.extend(plan.children(node).rev());
        } else if is_read_ahead(plan, node) {
            files.push(node);
        }
    }
    files
}

fn is_read_ahead(plan: &Packed, node: Node) -> bool {
    // Of several names of a file only the first one written is read.
    plan.is_file(node)
        && plan.metadata(node).size <= SMALL
        && plan.metadata(node).links == 1
        && matches!(plan.origin(node), Some(Origin::Tree(..)))
}

fn read(plan: &Packed, files: &[Node]) -> Vec<Done> {
    let one = |node: &Node| match plan.origin(*node) {
        Some(Origin::Tree(view, path)) => {
            Some(Done { node: *node, read: whole(view.as_ref(), path, plan.metadata(*node).size) })
        }
        _ => None,
    };
    files.iter().filter_map(one).collect()
}

type Whole = (Vec<u8>, Vec<(OsString, Vec<u8>)>);

/// All bytes of a file, one more than expected at most, and its extended attributes.
fn whole(view: &dyn View, path: &std::path::Path, expected: u64) -> io::Result<Whole> {
    let data = view.open(path)?;
    let xattrs = match data.as_file() {
        Some(file) if !walk::has_xattrs(file)? => Vec::new(),
        _ => view.xattrs(path)?,
    };
    Ok((read_whole(data, usize::try_from(expected).unwrap_or(0))?, xattrs))
}

/// Bytes of a file that should have `expected`; one more if there are more.
fn read_whole(mut data: FileData, expected: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; expected + 1];
    let mut length = 0;
    // What gave all that was expected and not the byte after it need not be asked for the end.
    while length != expected || length == 0 {
        match data.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            break;
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Takes what was read.
struct Taken {
    queues: Vec<Receiver<Vec<Done>>>,
    /// The queue with the next batch.
    next: usize,
    batch: std::vec::IntoIter<Done>,
}

impl Taken {
    /// The file, if it is one that is read ahead. Those before it were not wanted.
    fn take(&mut self, part: &Part, name: &OsStr) -> io::Result<Option<WholeFile>> {
        let Part::Packed(packed, node) = part else { return Ok(None) };
        let Some(wanted) = packed.child(*node, name).filter(|it| is_read_ahead(packed, *it)) else {
            return Ok(None);
        };
        while let Some(next) = self.next() {
            if next.node == wanted {
                let (bytes, xattrs) = next.read?;
                return Ok(Some((FileData::bytes(bytes), xattrs)));
            }
        }
        Ok(None)
    }

    fn next(&mut self) -> Option<Done> {
        loop {
            if let Some(next) = self.batch.next() {
                return Some(next);
            }
            let queue = &self.queues[self.next];
            self.next = (self.next + 1) % self.queues.len();
            self.batch = queue.recv().ok()?.into_iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_one_byte_behind_its_expected_end() {
        let read = |content: &[u8], expected| {
            read_whole(FileData::bytes(content.to_vec()), expected).unwrap()
        };
        assert_eq!(read(b"abc", 3), b"abc");
        assert_eq!(read(b"abcdef", 3), b"abcd");
        assert_eq!(read(b"ab", 3), b"ab");
        assert_eq!(read(b"", 0), b"");
        assert_eq!(read(b"x", 0), b"x");
    }
}
