//! Values that must not get into what a build makes, and the search for them.
//!
//! A [`Secrets`] holds values by id. [`leaks`](Secrets::leaks) looks for them in a tree: in what its files hold, in
//! names, link targets and extended attributes. A [`Redactor`] takes them out of an output as it comes, a piece at a
//! time, and [`redact`](Secrets::redact) out of a text.
//!
//! What is looked for, of a value of at least [`SHORTEST`] bytes without the line ends at its end: its bytes as they
//! are, and in base64 (both alphabets) on one line, whatever it stands behind. Anything else that a program may make of a value,
//! such as a hash or its text in hexadecimal, is not found.
//!
//! Invariants:
//! - What is found is found wherever pieces of the input begin and end.
//! - Time is linear in the input, for each value, whatever they are.
//! - Nothing here tells a value; memory that held one is overwritten when it is given back.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use memchr::memmem::Finder;
use zeroize::Zeroizing;

use crate::{Kind, Stop, View};

/// Shorter values are not looked for: they would be found everywhere.
pub const SHORTEST: usize = 8;

/// What stands where a value stood.
pub const REDACTED: &str = "***";

/// Bytes of a file that are looked at in one piece, at least.
const PIECE: usize = 256 << 10;

/// Leaks that are told of one tree.
const MOST: usize = 20;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Where a tree has the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// Which secret.
    pub id: String,
    /// The path, without values of secrets in it.
    pub path: PathBuf,
    /// What of the path has it.
    pub place: Place,
}

/// What of a path has the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The bytes of the file.
    Content,
    /// Its name.
    Name,
    /// Where the symlink points.
    Target,
    /// The name or value of the extended attribute.
    Attribute(String),
}

/// What is looked for.
struct Needle {
    id: String,
    bytes: Zeroizing<Vec<u8>>,
    /// For each beginning of `bytes` the length of the longest shorter one that it ends with.
    borders: Vec<u32>,
}

/// Values by id; more may come while others are looked for.
#[derive(Default)]
pub struct Secrets {
    needles: RwLock<Arc<Vec<Arc<Needle>>>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("needles", &self.needles().len()).finish()
    }
}

impl Secrets {
    /// Adds a value. One that is too short is not looked for.
    pub fn add(&self, id: &str, value: &[u8]) {
        let end = value.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r'));
        let value = &value[..end.map_or(0, |last| last + 1)];
        if value.len() < SHORTEST {
            return;
        }
        let mut slot = self.needles.write().unwrap_or_else(PoisonError::into_inner);
        let mut needles = slot.as_ref().clone();
        let encoded = [STANDARD, URL_SAFE]
            .into_iter()
            .flat_map(|alphabet| (0..3).map(move |before| base64_within(value, before, alphabet)));
        for bytes in [Zeroizing::new(value.to_vec())].into_iter().chain(encoded) {
            if !needles.iter().any(|needle| needle.bytes == bytes) {
                let borders = borders(&bytes);
                needles.push(Arc::new(Needle { id: id.to_owned(), bytes, borders }));
            }
        }
        *slot = Arc::new(needles);
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.needles().is_empty()
    }

    fn needles(&self) -> Arc<Vec<Arc<Needle>>> {
        Arc::clone(&self.needles.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Id of a secret whose value is in `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Option<String> {
        let needles = self.needles();
        let found =
            needles.iter().find(|needle| memchr::memmem::find(bytes, &needle.bytes).is_some());
        found.map(|needle| needle.id.clone())
    }

    /// The text without values of secrets.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text.into(),
            Cow::Owned(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text.into(),
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned().into(),
            },
        }
    }

    /// The same for bytes.
    pub fn redact_bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let found = occurrences(&self.needles(), bytes);
        match found.is_empty() {
            true => bytes.into(),
            false => replaced(bytes, &found).into(),
        }
    }

    /// Looks through a tree, the root itself included; finds a limited number of places.
    ///
    /// # Errors
    /// When the tree cannot be read, or `stop` says so.
    pub fn leaks(&self, tree: &dyn View, stop: &Stop) -> io::Result<Vec<Leak>> {
        let needles = self.needles();
        let mut search = Search::new(&needles, stop);
        if !search.finders.is_empty() {
            search.attributes(tree, Path::new(""))?;
            search.directory(tree, Path::new(""))?;
        }
        let paths = |leak: Leak| Leak { path: self.redact_path(&leak.path), ..leak };
        Ok(search.leaks.into_iter().map(paths).collect())
    }

    fn redact_path(&self, path: &Path) -> PathBuf {
        let bytes = self.redact_bytes(path.as_os_str().as_bytes());
        Path::new("/").join(OsStr::from_bytes(&bytes))
    }
}

/// A search of one tree.
struct Search<'n> {
    finders: Vec<(&'n str, Finder<'n>)>,
    /// Bytes of the longest value.
    longest: usize,
    piece: Vec<u8>,
    /// Files with several names that have been looked at.
    seen: HashSet<(u64, u64)>,
    leaks: Vec<Leak>,
    stop: &'n Stop,
}

impl<'n> Search<'n> {
    fn new(needles: &'n [Arc<Needle>], stop: &'n Stop) -> Self {
        let finders: Vec<_> = needles
            .iter()
            .map(|needle| (needle.id.as_str(), Finder::new(needle.bytes.as_slice())))
            .collect();
        let longest = needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or(0);
        let (piece, seen, leaks) = (Vec::new(), HashSet::new(), Vec::new());
        Self { finders, longest, piece, seen, leaks, stop }
    }

    fn directory(&mut self, tree: &dyn View, path: &Path) -> io::Result<()> {
        for entry in tree.list(path)?.iter() {
            if self.leaks.len() >= MOST {
                return Ok(());
            }
            self.stop.check()?;
            let below = path.join(&entry.name);
            self.bytes(entry.name.as_bytes(), &below, || Place::Name);
            self.attributes(tree, &below)?;
            match entry.metadata.kind {
                Kind::Dir => self.directory(tree, &below)?,
                Kind::Symlink => {
                    let target = tree.read_link(&below)?;
                    self.bytes(target.as_os_str().as_bytes(), &below, || Place::Target);
                }
                Kind::File if entry.metadata.size >= SHORTEST as u64 => {
                    let is_new = entry.metadata.links < 2 || self.seen.insert(entry.metadata.inode);
                    if is_new && let Some(id) = self.content(&mut tree.open(&below)?)? {
                        self.leaks.push(Leak { id, path: below, place: Place::Content });
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn attributes(&mut self, tree: &dyn View, path: &Path) -> io::Result<()> {
        for (name, value) in tree.xattrs(path)? {
            let place = || Place::Attribute(String::from_utf8_lossy(name.as_bytes()).into_owned());
            self.bytes(&value, path, place);
            // The name is not told if it is the name that gives the value away.
            self.bytes(name.as_bytes(), path, || Place::Attribute(REDACTED.to_owned()));
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8], path: &Path, place: impl FnOnce() -> Place) {
        let found = self.finders.iter().find(|(_, finder)| finder.find(bytes).is_some());
        if let Some((id, _)) = found {
            let leak = Leak { id: (*id).to_owned(), path: path.to_owned(), place: place() };
            self.leaks.push(leak);
        }
    }

    /// Looks through all that a reader gives; returns the id of the first secret that is found.
    fn content(&mut self, reader: &mut dyn Read) -> io::Result<Option<String>> {
        let overlap = self.longest - 1;
        self.piece.resize(PIECE.max(2 * self.longest), 0);
        let mut filled = 0;
        loop {
            self.stop.check()?;
            let mut is_over = false;
            while filled < self.piece.len() && !is_over {
                match reader.read(&mut self.piece[filled..]) {
                    Ok(count) => {
                        is_over = count == 0;
                        filled += count;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let bytes = &self.piece[..filled];
            let found = self.finders.iter().find(|(_, finder)| finder.find(bytes).is_some());
            if found.is_some() || is_over {
                return Ok(found.map(|(id, _)| (*id).to_owned()));
            }
            self.piece.copy_within(filled - overlap..filled, 0);
            filled = overlap;
        }
    }
}

/// Takes values out of an output that comes in pieces. What may be the beginning of a value is held back until the
/// next piece says.
#[derive(Debug)]
pub struct Redactor {
    secrets: Arc<Secrets>,
    held: Zeroizing<Vec<u8>>,
}

impl Redactor {
    /// Begins at the beginning of an output.
    pub fn new(secrets: Arc<Secrets>) -> Self {
        Self { secrets, held: Zeroizing::default() }
    }

    /// Takes the next piece and gives what can be shown by now, which may be nothing.
    pub fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let needles = self.secrets.needles();
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(piece);
        let found = occurrences(&needles, &all);
        let held = needles.iter().map(|needle| needle.begun_at_end_of(&all)).max().unwrap_or(0);
        let mut shown = all.len() - held;
        // A value that may be part of a longer one waits for that.
        if let Some(cut) = found.iter().find(|range| range.start < shown && shown < range.end) {
            shown = cut.start;
        }
        let found: Vec<_> = found.into_iter().filter(|range| range.end <= shown).collect();
        self.held.extend_from_slice(&all[shown..]);
        replaced(&all[..shown], &found)
    }

    /// Gives the rest, at the end of the output.
    pub fn end(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.secrets.redact_bytes(&held).into_owned()
    }
}

impl Needle {
    /// How many bytes at the end of `bytes` are a beginning of the value, but not all of it.
    fn begun_at_end_of(&self, bytes: &[u8]) -> usize {
        let mut length = 0;
        for byte in &bytes[bytes.len().saturating_sub(self.bytes.len() - 1)..] {
            while length > 0 && self.bytes[length] != *byte {
                length = self.borders[length - 1] as usize;
            }
            if self.bytes[length] == *byte {
                length += 1;
            }
        }
        length
    }
}

/// Where any value stands, in order, overlapping ones as one.
fn occurrences(needles: &[Arc<Needle>], bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for needle in needles {
        let finder = Finder::new(needle.bytes.as_slice());
        let places = finder.find_iter(bytes);
        found.extend(places.map(|start| start..start + needle.bytes.len()));
    }
    found.sort_by_key(|range| range.start);
    found.dedup_by(|next, before| {
        let overlaps = next.start < before.end;
        if overlaps {
            before.end = before.end.max(next.end);
        }
        overlaps
    });
    found
}

fn replaced(bytes: &[u8], found: &[Range<usize>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for range in found {
        out.extend_from_slice(&bytes[at..range.start]);
        out.extend_from_slice(REDACTED.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(&bytes[at..]);
    out
}

fn borders(bytes: &[u8]) -> Vec<u32> {
    let mut borders = vec![0; bytes.len()];
    let mut length = 0;
    for index in 1..bytes.len() {
        while length > 0 && bytes[length] != bytes[index] {
            length = borders[length - 1] as usize;
        }
        if bytes[length] == bytes[index] {
            length += 1;
        }
        borders[index] = length as u32;
    }
    borders
}

/// The digits that a value brings to base64 when `before` bytes, or three more each time, stand before it: those that
/// nothing else has a part in.
fn base64_within(value: &[u8], before: usize, alphabet: &[u8; 64]) -> Zeroizing<Vec<u8>> {
    let bit = |index: usize| match (index / 8).checked_sub(before) {
        Some(byte) => value[byte] >> (7 - index % 8) & 1,
        None => 0,
    };
    let digits = (before * 8).div_ceil(6)..(before + value.len()) * 8 / 6;
    let digit =
        |digit: usize| (0..6).fold(0, |sum, at| sum << 1 | usize::from(bit(digit * 6 + at)));
    Zeroizing::new(digits.map(|index| alphabet[digit(index)]).collect())
}

#[cfg(test)]
mod tests;
