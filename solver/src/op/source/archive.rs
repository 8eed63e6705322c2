//! Archives that the caller has handed over: known by their content, kept as long as the job.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use cache::{Key, KeyBuilder, Spool};
use llb::Digest;
use llb::op::SourceOp;
use tree::{DirEntry, FileData, Kind, Metadata, Timestamp, View};

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;

/// Name of the archive in the tree that it is the source of.
const FILE: &str = "context";

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Takes an archive from the caller, whatever its size.
pub(crate) fn keep(job: &JobInner, archive: &mut dyn Read) -> Result<Digest, OpError> {
    let failed =
        |action| move |source| OpError::Io { action, path: PathBuf::from("archive"), source };
    let mut ingest = job.engine.store.ingest()?;
    let mut buffer = vec![0; CHUNK];
    loop {
        if job.cancel.is_cancelled() {
            return Err(OpError::Canceled);
        }
        match archive.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => io::Write::write_all(&mut ingest, &buffer[..length])
                .map_err(failed("cannot keep the"))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("cannot receive the")(error)),
        }
    }
    let spool = ingest.hold()?;
    let file = fs_err::File::open(spool.path()).map_err(failed("cannot read the"))?;
    tree::draft::check_archive(Box::new(file))?;
    let digest = *spool.digest();
    let mut archives = job.archives.lock().unwrap_or_else(PoisonError::into_inner);
    archives.insert(digest, Arc::new(spool));
    Ok(digest)
}

/// The tree that has the archive.
pub(super) fn value(job: &JobInner, source: &SourceOp) -> Result<Value, OpError> {
    let digest = digest(source)?;
    let archives = job.archives.lock().unwrap_or_else(PoisonError::into_inner);
    let spool = archives.get(&digest).map(Arc::clone);
    let missing = || OpError::Missing { kind: "archive", name: digest.to_string() };
    Ok(Value::Archive(Arc::new(Archive(spool.ok_or_else(missing)?))))
}

/// The key of an archive: its content.
pub(super) fn keys(source: &SourceOp) -> Result<Vec<Key>, OpError> {
    let digest = digest(source)?;
    Ok(vec![KeyBuilder::new("archive.v1").bytes(digest.as_bytes()).finish()])
}

/// The time of its newest file, in seconds since the epoch.
pub(super) fn time(job: &JobInner, source: &SourceOp) -> Result<Option<i64>, OpError> {
    let Value::Archive(archive) = value(job, source)? else { return Ok(None) };
    let file = archive.open(Path::new(FILE)).map_err(|source| OpError::Io {
        action: "cannot read the",
        path: PathBuf::from("archive"),
        source,
    })?;
    let failed = |source| OpError::File(tree::TreeError::Archive { source });
    let plain = tree::codec::decompress(Box::new(file)).map_err(failed)?;
    let mut tar = tree::tar::Reader::new(plain);
    let mut newest = None;
    while let Some(entry) = tar.next_entry().map_err(failed)? {
        if job.cancel.is_cancelled() {
            return Err(OpError::Canceled);
        }
        if entry.kind == tree::tar::EntryKind::File {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    Ok(newest)
}

fn digest(source: &SourceOp) -> Result<Digest, OpError> {
    let text = source.attrs.get("archive.digest").map(String::as_str).unwrap_or_default();
    let bad = |_| OpError::Invalid(format!("`{}` has no digest", source.identifier));
    text.parse().map_err(bad)
}

/// The tree of one file that an archive is.
#[derive(Debug)]
pub(crate) struct Archive(Arc<Spool>);

impl Archive {
    fn entry(&self, kind: Kind) -> Metadata {
        let (mode, size) = match kind {
            Kind::Dir => (0o755, 0),
            _ => (0o600, self.0.size()),
        };
        Metadata {
            kind,
            mode,
            uid: 0,
            gid: 0,
            size,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            rdev: (0, 0),
            inode: (0, u64::from(kind == Kind::Dir)),
            links: 1,
        }
    }
}

impl View for Archive {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        Ok(if path.as_os_str().is_empty() {
            Some(self.entry(Kind::Dir))
        } else {
            (path == Path::new(FILE)).then(|| self.entry(Kind::File))
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        if !path.as_os_str().is_empty() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(vec![DirEntry { name: FILE.into(), metadata: self.entry(Kind::File) }])
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        if path != Path::new(FILE) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(FileData::whole(fs_err::File::open(self.0.path())?.into_file()))
    }

    fn read_link(&self, _: &Path) -> io::Result<PathBuf> {
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn xattrs(&self, _: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        Ok(Vec::new())
    }
}
