//! A layer kept as its plain tar, with an index by which it is read like a folder.
//!
//! The tar lies elsewhere and does not change; the index says where in it the bytes of each file are, and what
//! a tar does not say: fractions of seconds, and extended attributes that layers do not carry.
//!
//! ```text
//! magic (8) · records (u32) · names (u64) · attributes (u64) · record… · names · attributes · BLAKE3 (32)
//! record     = name (u64, u32) · kind (u8) · mode, uid, gid (u32) · size (u64) · mtime (i64, u32)
//!            · rdev (u32, u32) · links (u32) · file (u32) · place (u64) · count (u32) · attributes (u32)
//! attributes = per list: count (u32), then name and value, each after its length (u32)
//! ```
//!
//! `place` and `count` are the first child and the number of children of a directory, the offset in the tar of
//! a file's bytes, or where in `names` a link's target is and its length. Numbers are little-endian.
//!
//! Invariants:
//! - Record 0 is the root. Children of a directory come after it, are neighbours, and sorted by name.
//! - A packed layer hides nothing of what lies below it but what it has itself.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{FileData, Kind, Metadata, Timestamp, View};

const MAGIC: &[u8; 8] = b"BLpack\x00\x01";

/// Bytes of a record.
const RECORD: usize = 12 + 1 + 12 + 8 + 12 + 8 + 4 + 4 + 8 + 4 + 4;

/// Bytes before the records.
const HEAD: usize = 8 + 4 + 8 + 8;

/// A packed layer; clones are cheap.
#[derive(Debug, Clone)]
pub struct Packed(Arc<Inner>);

/// A path of a packed layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Node(u32);

struct Inner {
    index: Index,
    contents: Contents,
    /// Stands for the device of its files.
    device: u64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packed").field("records", &self.index.records.len()).finish_non_exhaustive()
    }
}

/// Where the bytes of files are.
enum Contents {
    /// In the tar.
    Tar(Arc<File>),
    /// Where they come from, by record; the tar is still to be written.
    Pending(Vec<Origin>),
}

/// Where the bytes of a file come from.
#[derive(Clone)]
pub(crate) enum Origin {
    /// It has none.
    None,
    /// From memory.
    Bytes(Arc<[u8]>),
    /// From a path of another tree.
    Tree(Arc<dyn View>, PathBuf),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Index {
    records: Vec<Record>,
    names: Vec<u8>,
    xattrs: Vec<Vec<(OsString, Vec<u8>)>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Record {
    name: (u64, u32),
    kind: Kind,
    /// Taken out again: what lies below shows.
    absent: bool,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: Timestamp,
    rdev: (u32, u32),
    links: u32,
    /// Equal for names of one file.
    file: u32,
    place: u64,
    count: u32,
    /// Number of its list of attributes, plus one.
    xattrs: u32,
}

/// A name to be added to a packed layer.
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) metadata: Metadata,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
    /// Target of a symlink.
    pub(crate) target: Option<OsString>,
    pub(crate) origin: Origin,
    /// Node of another name of the same file.
    pub(crate) same_as: Option<Node>,
}

/// What a tar has of a name that is no directory.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) node: Node,
    /// Where its bytes begin.
    pub(crate) place: u64,
    /// Extended attributes that were found when it was read.
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// Puts the index of a packed layer together, directories before what is in them.
pub(crate) struct Builder {
    index: Index,
    origins: Vec<Origin>,
}

impl Builder {
    /// Begins with the root.
    pub(crate) fn new(root: &Metadata, xattrs: Vec<(OsString, Vec<u8>)>) -> Self {
        let mut builder = Self { index: Index::default(), origins: Vec::new() };
        builder.add(Entry {
            name: OsString::new(),
            metadata: root.clone(),
            xattrs,
            target: None,
            origin: Origin::None,
            same_as: None,
        });
        builder
    }

    pub(crate) const ROOT: Node = Node(0);

    /// Says that the `count` names that are added next are those of a directory.
    pub(crate) fn begin(&mut self, parent: Node, count: usize) {
        let first = self.index.records.len();
        let parent = &mut self.index.records[parent.0 as usize];
        (parent.place, parent.count) = (first as u64, count as u32);
    }

    /// Adds the next name.
    pub(crate) fn add(&mut self, entry: Entry) -> Node {
        let Entry { name, metadata, xattrs, target, origin, same_as } = entry;
        let name = self.text(&name);
        let (place, count) = target.map_or((0, 0), |target| self.text(&target));
        let number = self.index.records.len() as u32;
        let list = if xattrs.is_empty() {
            0
        } else {
            self.index.xattrs.push(xattrs);
            self.index.xattrs.len() as u32
        };
        self.index.records.push(Record {
            name,
            kind: metadata.kind,
            absent: false,
            mode: metadata.mode,
            uid: metadata.uid,
            gid: metadata.gid,
            size: metadata.size,
            mtime: metadata.mtime,
            rdev: metadata.rdev,
            links: u32::try_from(metadata.links).unwrap_or(u32::MAX),
            file: same_as.map_or(number, |first| self.index.records[first.0 as usize].file),
            place,
            count,
            xattrs: list,
        });
        self.origins.push(origin);
        Node(number)
    }

    fn text(&mut self, text: &OsStr) -> (u64, u32) {
        let at = self.index.names.len() as u64;
        self.index.names.extend_from_slice(text.as_bytes());
        (at, text.len() as u32)
    }

    /// The layer, of which the tar is still to be written.
    pub(crate) fn finish(self) -> Packed {
        Packed::of(self.index, Contents::Pending(self.origins))
    }
}

impl Packed {
    fn of(index: Index, contents: Contents) -> Self {
        static DEVICES: AtomicU64 = AtomicU64::new(1 << 62);
        let device = DEVICES.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(Inner { index, contents, device }))
    }

    /// The same layer, once its tar has been written: `written` says what of it the tar has. What the tar has
    /// not has been found to be as it is below.
    pub(crate) fn placed(&self, tar: File, written: Vec<Written>) -> Self {
        let mut index = self.0.index.clone();
        let mut is_written = vec![false; index.records.len()];
        for Written { node, place, xattrs } in written {
            let record = &mut index.records[node.0 as usize];
            is_written[node.0 as usize] = true;
            if record.kind == Kind::File {
                record.place = place;
            }
            if !xattrs.is_empty() {
                index.xattrs.push(xattrs);
                record.xattrs = index.xattrs.len() as u32;
            }
        }
        for (record, is_written) in index.records.iter_mut().zip(is_written) {
            record.absent = record.kind != Kind::Dir && !is_written;
        }
        Self::of(index, Contents::Tar(Arc::new(tar)))
    }

    /// The index as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.0.index)
    }

    /// Reads an index of a tar.
    ///
    /// # Errors
    /// When the bytes are no index, or a damaged one.
    pub fn decode(bytes: &[u8], tar: File) -> io::Result<Self> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the index of a layer is damaged");
        let index = decode(bytes).ok_or_else(damaged)?;
        Ok(Self::of(index, Contents::Tar(Arc::new(tar))))
    }

    fn record(&self, node: Node) -> &Record {
        &self.0.index.records[node.0 as usize]
    }

    fn text(&self, (at, length): (u64, u32)) -> &[u8] {
        let at = at as usize;
        &self.0.index.names[at..at + length as usize]
    }

    pub(crate) fn name(&self, node: Node) -> &OsStr {
        OsStr::from_bytes(self.text(self.record(node).name))
    }

    pub(crate) fn is_dir(&self, node: Node) -> bool {
        self.record(node).kind == Kind::Dir
    }

    pub(crate) fn is_file(&self, node: Node) -> bool {
        self.record(node).kind == Kind::File
    }

    /// Names in a directory, sorted.
    pub(crate) fn children(&self, node: Node) -> impl DoubleEndedIterator<Item = Node> + '_ {
        self.range(node).map(Node).filter(|child| !self.record(*child).absent)
    }

    fn range(&self, node: Node) -> std::ops::Range<u32> {
        let record = self.record(node);
        if record.kind != Kind::Dir {
            return 0..0;
        }
        let first = record.place as u32;
        first..first + record.count
    }

    pub(crate) fn child(&self, node: Node, name: &OsStr) -> Option<Node> {
        let range = self.range(node);
        let records = &self.0.index.records[range.start as usize..range.end as usize];
        let found = records.binary_search_by(|record| self.text(record.name).cmp(name.as_bytes()));
        let child = Node(range.start + found.ok()? as u32);
        (!self.record(child).absent).then_some(child)
    }

    pub(crate) fn metadata(&self, node: Node) -> Metadata {
        let record = self.record(node);
        Metadata {
            kind: record.kind,
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            size: record.size,
            mtime: record.mtime,
            ctime: record.mtime,
            rdev: record.rdev,
            inode: (self.0.device, u64::from(record.file)),
            links: u64::from(record.links),
        }
    }

    /// Extended attributes; of a file whose tar is still to be written they are not known.
    pub(crate) fn known_xattrs(&self, node: Node) -> &[(OsString, Vec<u8>)] {
        match self.record(node).xattrs.checked_sub(1) {
            Some(list) => &self.0.index.xattrs[list as usize],
            None => &[],
        }
    }

    /// Extended attributes, asked for where the bytes come from if need be.
    pub(crate) fn xattrs(&self, node: Node) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self.origin(node) {
            Some(Origin::Tree(view, path)) => view.xattrs(path),
            _ => Ok(self.known_xattrs(node).to_vec()),
        }
    }

    /// Where the bytes of a file come from whose tar is still to be written.
    pub(crate) fn origin(&self, node: Node) -> Option<&Origin> {
        match &self.0.contents {
            Contents::Tar(_) => None,
            Contents::Pending(origins) => origins.get(node.0 as usize),
        }
    }

    pub(crate) fn read_link(&self, node: Node) -> io::Result<PathBuf> {
        let record = self.record(node);
        if record.kind != Kind::Symlink {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let target = self.text((record.place, record.count)).to_vec();
        Ok(PathBuf::from(OsString::from_vec(target)))
    }

    /// Bytes of a regular file.
    pub(crate) fn open(&self, node: Node) -> io::Result<FileData> {
        let record = self.record(node);
        if record.kind != Kind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        match &self.0.contents {
            Contents::Tar(tar) => Ok(FileData::part(Arc::clone(tar), record.place, record.size)),
            Contents::Pending(origins) => match &origins[node.0 as usize] {
                Origin::None => Ok(FileData::bytes(Vec::new())),
                Origin::Bytes(bytes) => Ok(FileData::bytes(bytes.to_vec())),
                Origin::Tree(view, path) => view.open(path),
            },
        }
    }
}

fn encode(index: &Index) -> Vec<u8> {
    let mut attributes = Vec::new();
    let text = |out: &mut Vec<u8>, text: &[u8]| {
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        out.extend_from_slice(text);
    };
    for list in &index.xattrs {
        attributes.extend_from_slice(&(list.len() as u32).to_le_bytes());
        for (name, value) in list {
            text(&mut attributes, name.as_bytes());
            text(&mut attributes, value);
        }
    }
    let length = HEAD + index.records.len() * RECORD + index.names.len() + attributes.len() + 32;
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(index.records.len() as u32).to_le_bytes());
    out.extend_from_slice(&(index.names.len() as u64).to_le_bytes());
    out.extend_from_slice(&(attributes.len() as u64).to_le_bytes());
    for record in &index.records {
        record.encode(&mut out);
    }
    out.extend_from_slice(&index.names);
    out.extend_from_slice(&attributes);
    let sum = blake3::hash(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

/// Kinds by their number; absent names have a number of their own.
const KINDS: [Kind; 7] = [
    Kind::File,
    Kind::Dir,
    Kind::Symlink,
    Kind::CharDevice,
    Kind::BlockDevice,
    Kind::Fifo,
    Kind::Socket,
];

/// Added to the number of a kind when the name is absent.
const ABSENT: u8 = 0x80;

impl Record {
    fn encode(&self, out: &mut Vec<u8>) {
        let kind = KINDS.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u8;
        out.extend_from_slice(&self.name.0.to_le_bytes());
        out.extend_from_slice(&self.name.1.to_le_bytes());
        out.push(kind | if self.absent { ABSENT } else { 0 });
        for number in [self.mode, self.uid, self.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.mtime.seconds.to_le_bytes());
        out.extend_from_slice(&self.mtime.nanoseconds.to_le_bytes());
        for number in [self.rdev.0, self.rdev.1, self.links, self.file] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.place.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.xattrs.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let name = (fields.u64()?, fields.u32()?);
        let [kind] = fields.take()?;
        Some(Self {
            name,
            kind: *KINDS.get(usize::from(kind & !ABSENT))?,
            absent: kind & ABSENT != 0,
            mode: fields.u32()?,
            uid: fields.u32()?,
            gid: fields.u32()?,
            size: fields.u64()?,
            mtime: Timestamp {
                seconds: i64::from_le_bytes(fields.take()?),
                nanoseconds: fields.u32()?,
            },
            rdev: (fields.u32()?, fields.u32()?),
            links: fields.u32()?,
            file: fields.u32()?,
            place: fields.u64()?,
            count: fields.u32()?,
            xattrs: fields.u32()?,
        })
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk()?;
        self.0 = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = tail;
        Some(head)
    }
}

/// Reads an index; `None` when anything is wrong with it.
fn decode(bytes: &[u8]) -> Option<Index> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let mut fields = Fields(body.strip_prefix(MAGIC)?);
    let (count, names, attributes) = (fields.u32()?, fields.u64()?, fields.u64()?);
    let mut records = Fields(fields.bytes(u64::from(count) * RECORD as u64)?);
    let records: Vec<Record> =
        (0..count).map(|_| Record::decode(&mut records)).collect::<Option<_>>()?;
    let names = fields.bytes(names)?.to_vec();
    let mut fields = Fields(fields.bytes(attributes)?);
    let mut xattrs = Vec::new();
    while !fields.0.is_empty() {
        let mut list = Vec::new();
        for _ in 0..fields.u32()? {
            let length = fields.u32()?;
            let name = OsString::from_vec(fields.bytes(u64::from(length))?.to_vec());
            let length = fields.u32()?;
            list.push((name, fields.bytes(u64::from(length))?.to_vec()));
        }
        xattrs.push(list);
    }
    let index = Index { records, names, xattrs };
    index.is_sound().then_some(index)
}

impl Index {
    /// Whether all numbers lead somewhere, and none in a circle.
    fn is_sound(&self) -> bool {
        let text = |at: u64, length: u32| {
            at.checked_add(u64::from(length)).is_some_and(|end| end <= self.names.len() as u64)
        };
        let sound = |(number, record): (usize, &Record)| {
            let place = match record.kind {
                Kind::Dir => {
                    record.count == 0
                        || (record.place > number as u64
                            && record
                                .place
                                .checked_add(u64::from(record.count))
                                .is_some_and(|end| end <= self.records.len() as u64))
                }
                Kind::Symlink => text(record.place, record.count),
                _ => true,
            };
            place
                && text(record.name.0, record.name.1)
                && (record.file as usize) < self.records.len()
                && record.xattrs as usize <= self.xattrs.len()
        };
        self.records.first().is_some_and(|root| root.kind == Kind::Dir)
            && self.records.iter().enumerate().all(sound)
    }
}
