//! The files of an image archive by name, wherever they are: in a tar, compressed or not, or in a folder.
//!
//! ```text
//! folder                      files are opened in place
//! plain tar in a file         read through once for its entries, then in place
//! compressed, or from a pipe  copied into the store's `ingest/` for as long as it is read
//! ```
//!
//! Invariants:
//! - Nothing of an archive is ever unpacked into a file system; its links only say which entry is meant.
//! - An entry that leads out of the archive makes it unusable as a whole.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache::{Spool, Store};
use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use tree::FileData;
use tree::codec::{Compression, MAGIC_LENGTH, detect};
use tree::tar::{EntryKind, Reader};

use super::ImportError;

/// Most entries of an archive. One of the largest images has a few hundred.
const MOST_ENTRIES: usize = 100_000;

/// Most links that lead from one to the next.
const MOST_LINKS: usize = 8;

/// Largest document that is read, in bytes.
pub(super) const LARGEST_DOCUMENT: u64 = 4 << 20;

/// What an image archive is read from.
pub enum Input {
    /// A file or a folder.
    Path(PathBuf),
    /// A stream, such as standard input.
    Stream(Box<dyn Read + Send>),
}

/// The files of an archive.
pub(super) struct Archive {
    /// For messages.
    pub(super) name: String,
    files: Files,
}

enum Files {
    Folder(PathBuf),
    Tar { file: Arc<std::fs::File>, entries: BTreeMap<String, Item>, _spool: Option<Spool> },
}

/// What a name of a tar stands for.
enum Item {
    File {
        at: u64,
        size: u64,
    },
    /// Another name, from the top of the archive.
    Link(String),
}

/// A file of an archive, opened.
pub(super) type Content = Box<dyn Read + Send>;

impl Archive {
    /// Finds out what there is.
    pub(super) fn open(store: &Store, input: Input) -> Result<Self, ImportError> {
        match input {
            Input::Path(path) => {
                let name = path.display().to_string();
                let failed = |source| ImportError::Read { path: name.clone(), source };
                let file = open_file(&path).map_err(failed)?;
                if file.metadata().map_err(failed)?.is_dir() {
                    return Ok(Self { name, files: Files::Folder(path) });
                }
                Self::of_file(store, name, file.into_parts().0)
            }
            Input::Stream(stream) => {
                let name = "standard input".to_owned();
                Self::of_stream(store, name, stream)
            }
        }
    }

    fn of_file(store: &Store, name: String, file: std::fs::File) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: name.clone(), source };
        let is_regular = file.metadata().map_err(failed)?.is_file();
        let mut start = [0; MAGIC_LENGTH];
        if is_regular {
            let length = file.read_at(&mut start, 0).map_err(failed)?;
            if detect(&start[..length]) == Compression::Plain {
                return Self::of_tar(name, file, None);
            }
        }
        Self::of_stream(store, name, Box::new(file))
    }

    /// Of what may be compressed or come only once.
    fn of_stream(
        store: &Store,
        name: String,
        stream: Box<dyn Read + Send>,
    ) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: name.clone(), source };
        let mut plain = tree::codec::decompress(stream).map_err(failed)?;
        let spool = spooled(store, &name, &mut plain)?;
        let file = open_spool(&spool)?.into_parts().0;
        Self::of_tar(name, file, Some(spool))
    }

    fn of_tar(
        name: String,
        file: std::fs::File,
        spool: Option<Spool>,
    ) -> Result<Self, ImportError> {
        let failed = |source| ImportError::Read { path: name.clone(), source };
        let position = Arc::new(AtomicU64::new(0));
        let counted =
            Counted { inner: BufReader::with_capacity(1 << 20, &file), position: position.clone() };
        let mut tar = Reader::new(counted);
        let mut entries = BTreeMap::new();
        while let Some(entry) = tar.next_entry().map_err(failed)? {
            let text = String::from_utf8_lossy(&entry.path).into_owned();
            let path = inside("", &text).filter(|_| !text.split('/').any(|part| part == ".."));
            let path = path.ok_or(ImportError::Outside { entry: text })?;
            let target = String::from_utf8_lossy(&entry.link).into_owned();
            let from = match entry.kind {
                EntryKind::Symlink => path.rsplit_once('/').map_or("", |(folder, _)| folder),
                _ => "",
            };
            let item = match entry.kind {
                EntryKind::File => {
                    Item::File { at: position.load(Ordering::Relaxed), size: entry.size }
                }
                EntryKind::Symlink | EntryKind::HardLink => match inside(from, &target) {
                    Some(target) => Item::Link(target),
                    None => {
                        return Err(ImportError::Outside { entry: format!("{path} -> {target}") });
                    }
                },
                // Folders are implied by what is in them; nothing else can be part of an image.
                _ => continue,
            };
            entries.insert(path, item);
            if entries.len() > MOST_ENTRIES {
                return Err(ImportError::TooManyEntries(MOST_ENTRIES));
            }
        }
        Ok(Self { name, files: Files::Tar { file: Arc::new(file), entries, _spool: spool } })
    }

    /// Opens a file, if there is one of that name, and says how many bytes it has.
    pub(super) fn file(&self, path: &str) -> Result<Option<(Content, u64)>, ImportError> {
        let Some(path) = inside("", path) else {
            return Err(ImportError::Outside { entry: path.to_owned() });
        };
        match &self.files {
            Files::Folder(folder) => {
                let whole = folder.join(&path);
                let failed =
                    |source| ImportError::Read { path: whole.display().to_string(), source };
                match open_file(&whole) {
                    Ok(file) => {
                        let metadata = file.metadata().map_err(failed)?;
                        if !metadata.is_file() {
                            return Err(failed(io::Error::other("no regular file")));
                        }
                        Ok(Some((Box::new(file), metadata.len())))
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(failed(error)),
                }
            }
            Files::Tar { file, entries, .. } => {
                let mut path = path.as_str();
                for _ in 0..=MOST_LINKS {
                    match entries.get(path) {
                        Some(Item::File { at, size }) => {
                            let data = FileData::part(Arc::clone(file), *at, *size);
                            return Ok(Some((Box::new(data), *size)));
                        }
                        Some(Item::Link(target)) => path = target,
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Reads a short file, if there is one of that name.
    pub(super) fn document(&self, path: &str) -> Result<Option<Vec<u8>>, ImportError> {
        let Some((content, size)) = self.file(path)? else { return Ok(None) };
        if size > LARGEST_DOCUMENT {
            return Err(ImportError::Document {
                file: path.to_owned(),
                kind: "document of an image",
                reason: format!("it has {size} bytes, more than {LARGEST_DOCUMENT}"),
            });
        }
        let mut bytes = Vec::new();
        // A file of a folder may have grown meanwhile.
        content
            .take(LARGEST_DOCUMENT)
            .read_to_end(&mut bytes)
            .map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
        Ok(Some(bytes))
    }
}

/// Opens whatever is there; a pipe is not waited for.
fn open_file(path: &Path) -> io::Result<fs::File> {
    // A pipe given by name, as a shell does for `<(…)`, is to be waited for, but not one in a folder.
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| {
        use std::os::unix::fs::FileTypeExt;
        metadata.file_type().is_fifo() && path.starts_with("/dev/fd")
    });
    let flags = if is_pipe { 0 } else { rustix::fs::OFlags::NONBLOCK.bits().cast_signed() };
    let mut options = fs::OpenOptions::new();
    options.read(true).custom_flags(flags).open(path)
}

/// Copies what `name` has into the store's own folder, for as long as the result lives or until it is made a blob.
pub(super) fn spooled(
    store: &Store,
    name: &str,
    content: &mut dyn Read,
) -> Result<Spool, ImportError> {
    let not_written = |source| ImportError::Write { path: store.root().to_owned(), source };
    let mut ingest = store.ingest()?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        // Reading is the archive's failure, writing the disk's.
        match content.read(&mut buffer) {
            Ok(0) => return Ok(ingest.hold()?),
            Ok(length) => ingest.write_all(&buffer[..length]).map_err(not_written)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ImportError::Read { path: name.to_owned(), source }),
        }
    }
}

/// Opens what was copied.
pub(super) fn open_spool(spool: &Spool) -> Result<fs::File, ImportError> {
    let path = spool.path();
    fs::File::open(path)
        .map_err(|source| ImportError::Read { path: path.display().to_string(), source })
}

/// A path from the top of the archive, for a path as it is written in `folder`; `None` for one that leads out of the
/// archive.
fn inside(folder: &str, path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    position: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.position.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (folder, path, expect) in [
            ("", "./a/b", Some("a/b")),
            ("", "a//b/", Some("a/b")),
            ("x", "../y/layer.tar", Some("y/layer.tar")),
            ("", "a/../b", Some("b")),
            ("x", "../../y", None),
            ("", "../a", None),
            ("", "/etc/passwd", None),
        ] {
            assert_eq!(inside(folder, path).as_deref(), expect, "{folder:?} {path:?}");
        }
    }
}
