//! Small files read by a thread of its own, while the one that writes the tar hashes those before.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::diff::{ReadAhead, WholeFile};
use crate::packed::{Builder, Node, Origin, Packed};
use crate::part::Part;
use crate::{FileData, View, walk};

/// Largest file that is read ahead, in bytes.
const SMALL: u64 = 256 << 10;
/// Fewest files for which a thread is worth its while.
const FEW: usize = 16;
/// Bytes and files that are handed over at once.
const BATCH: (usize, usize) = (512 << 10, 64);
/// Batches that are under way.
const BATCHES: usize = 8;

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
    std::thread::scope(|scope| {
        let (sender, receiver) = bounded(BATCHES);
        let files = &files;
        std::thread::Builder::new()
            .name("read-ahead".to_owned())
            .spawn_scoped(scope, move || read(plan, files, &sender))?;
        let mut taken = Taken { receiver, batch: Vec::new().into_iter() };
        write(&mut |part, name| taken.take(part, name))
    })
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

/// Reads the files until nobody wants them any more.
fn read(plan: &Packed, files: &[Node], sender: &Sender<Vec<Done>>) {
    let (mut batch, mut size) = (Vec::new(), 0);
    for &node in files {
        let Some(Origin::Tree(view, path)) = plan.origin(node) else { continue };
        let expected = plan.metadata(node).size;
        let read = whole(view.as_ref(), path, expected);
        size += read.as_ref().map_or(0, |(bytes, _)| bytes.len());
        batch.push(Done { node, read });
        if size >= BATCH.0 || batch.len() >= BATCH.1 {
            size = 0;
            if sender.send(std::mem::take(&mut batch)).is_err() {
                return;
            }
        }
    }
    // Nobody may be left to take it.
    let _ = sender.send(batch);
}

type Whole = (Vec<u8>, Vec<(OsString, Vec<u8>)>);

/// All bytes of a file, one more than expected at most, and its extended attributes.
fn whole(view: &dyn View, path: &std::path::Path, expected: u64) -> io::Result<Whole> {
    let data = view.open(path)?;
    let xattrs = match data.as_file() {
        Some(file) if !walk::has_xattrs(file)? => Vec::new(),
        _ => view.xattrs(path)?,
    };
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    data.take(expected + 1).read_to_end(&mut bytes)?;
    Ok((bytes, xattrs))
}

/// Takes what was read.
struct Taken {
    receiver: Receiver<Vec<Done>>,
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
            self.batch = self.receiver.recv().ok()?.into_iter();
        }
    }
}
