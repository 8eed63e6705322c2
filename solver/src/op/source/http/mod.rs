//! Files behind URLs.
//!
//! A file is known by its content, name, mode, owner and `Last-Modified`, never by its URL: the same file elsewhere is
//! the same input. Where a checksum is given the file is known by it before anything is asked, and one that the store
//! has is taken without a request. Otherwise the server is asked whether what the store has is still current, for all
//! URLs of a build at once; only a file that is new, or that the store has lost, is transferred, and only when a step
//! needs it.
//!
//! Invariants:
//! - A URL is asked for once in a job, whoever wants it, and transferred by one process at a time.
//! - A file gets its name in the store only when it is whole; what the store has is hashed before it is used.

mod flight;
mod record;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use cache::{Key, KeyBuilder, LayerMeta, Records, Ref};
use llb::op::SourceOp;
use llb::url::redacted;
use llb::{Digest, Event, EventSink};
use tree::codec::Sha256;
use tree::draft::CopyOptions;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;
use flight::Flight;
use record::Download;

/// What the URLs of one job have come to.
#[derive(Default)]
pub(crate) struct Downloads {
    flights: Mutex<HashMap<String, Arc<Mutex<Flight>>>>,
}

impl Downloads {
    fn flight(&self, url: &str) -> Arc<Mutex<Flight>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(flights.entry(url.to_owned()).or_default())
    }
}

/// Where progress is told.
pub(crate) struct Progress<'a> {
    /// Takes it.
    pub(crate) events: &'a dyn EventSink,
    /// Whose it is.
    pub(crate) vertex: Digest,
}

impl Progress<'_> {
    /// Shows what a program says.
    pub(crate) fn log(&self, words: &[u8]) {
        let (data, at) = (words.to_vec(), SystemTime::now());
        self.events.send(Event::Log { vertex: self.vertex, stream: 1, data, at });
    }
}

/// What a source asks for.
struct Wanted<'a> {
    url: &'a str,
    file: &'a str,
    checksum: Option<Digest>,
    mode: u32,
    owner: (u32, u32),
}

/// Mode of a file for which none is asked.
const MODE: u32 = 0o600;

impl<'a> Wanted<'a> {
    fn of(source: &'a SourceOp) -> Result<Self, OpError> {
        let url = source.identifier.as_str();
        let mut wanted = Self { url, file: "download", checksum: None, mode: MODE, owner: (0, 0) };
        for (name, value) in &source.attrs {
            let bad = || OpError::Invalid(format!("`{name}` of `{}` is `{value}`", redacted(url)));
            let number = |radix| u32::from_str_radix(value, radix).map_err(|_| bad());
            match name.as_str() {
                "http.filename" => wanted.file = value,
                "http.checksum" => wanted.checksum = Some(value.parse().map_err(|_| bad())?),
                "http.perm" => wanted.mode = number(8)? & 0o7777,
                "http.uid" => wanted.owner.0 = number(10)?,
                "http.gid" => wanted.owner.1 = number(10)?,
                _ => {
                    let what = format!("`{name}` of `{}`", redacted(url));
                    return Err(OpError::NotSupported(what));
                }
            }
        }
        if ["", ".", ".."].contains(&wanted.file) || wanted.file.contains(['/', '\0']) {
            return Err(OpError::Invalid(format!("`{}` is not a file name", wanted.file)));
        }
        Ok(wanted)
    }

    /// The key of a file with this content. One that is known by its checksum alone has no time.
    fn key(&self, digest: &Digest, modified: Option<i64>) -> Key {
        KeyBuilder::new("http.v1")
            .bytes(digest.as_bytes())
            .str(self.file)
            .u64(self.mode.into())
            .u64(self.owner.0.into())
            .u64(self.owner.1.into())
            .option(modified, KeyBuilder::i64)
            .finish()
    }

    fn is_plain(&self) -> bool {
        self.mode == MODE && self.owner == (0, 0)
    }
}

/// Asks the server whether what the store has of a URL is current, so that its keys are known before anything is
/// built. `begin` is called before a request is made.
pub(super) fn prepare(job: &JobInner, source: &SourceOp, begin: &dyn Fn()) -> Result<(), OpError> {
    let wanted = Wanted::of(source)?;
    if wanted.checksum.is_some() {
        return Ok(());
    }
    let flight = job.downloads.flight(wanted.url);
    let mut flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
    flight.look(job, wanted.url, begin)
}

/// Keys of a file, as far as it is known without transferring it.
pub(super) fn keys(job: &JobInner, source: &SourceOp) -> Result<Vec<Key>, OpError> {
    let wanted = Wanted::of(source)?;
    if let Some(digest) = &wanted.checksum {
        return Ok(vec![wanted.key(digest, None)]);
    }
    let flight = job.downloads.flight(wanted.url);
    let flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
    let key = |known: &Download| wanted.key(&known.digest, known.validators.modified());
    Ok(flight.known().map(key).into_iter().collect())
}

/// The tree that has the file.
pub(super) fn value(
    job: &JobInner,
    source: &SourceOp,
    progress: &Progress<'_>,
) -> Result<Value, OpError> {
    let wanted = Wanted::of(source)?;
    if let Some(digest) = &wanted.checksum
        && let Some(tree) = stored(job, &wanted, digest, None)?
    {
        return Ok(Value::Tree(tree));
    }
    let download = {
        let flight = job.downloads.flight(wanted.url);
        let mut flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
        flight.land(job, &wanted, progress)?
    };
    let got = download.digest;
    if let Some(want) = wanted.checksum.filter(|want| *want != got) {
        return Err(OpError::WrongChecksum { url: redacted(wanted.url).into_owned(), got, want });
    }
    tree_as(job, &wanted, &download).map(Value::Tree)
}

/// The hash of the file, as far as that is known.
pub(super) fn digest(job: &JobInner, source: &SourceOp) -> Result<Option<Digest>, OpError> {
    let wanted = Wanted::of(source)?;
    if let Some(digest) = wanted.checksum {
        return Ok(Some(digest));
    }
    let flight = job.downloads.flight(wanted.url);
    let flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(flight.known().map(|download| download.digest))
}

/// When the file was changed last, in seconds since the epoch, if the server says.
pub(super) fn time(job: &JobInner, source: &SourceOp) -> Result<Option<i64>, OpError> {
    let wanted = Wanted::of(source)?;
    let progress =
        Progress { events: job.events.as_ref(), vertex: Digest::of(wanted.url.as_bytes()) };
    let flight = job.downloads.flight(wanted.url);
    let mut flight = flight.lock().unwrap_or_else(PoisonError::into_inner);
    flight.look(job, wanted.url, &|| {})?;
    if flight.known().is_none() {
        flight.land(job, &wanted, &progress)?;
    }
    Ok(flight.known().and_then(|download| download.validators.modified()))
}

/// A file of the store by its content, if it is there and whole.
fn stored(
    job: &JobInner,
    wanted: &Wanted<'_>,
    digest: &Digest,
    modified: Option<i64>,
) -> Result<Option<Ref>, OpError> {
    let Some(result) = job.engine.store.load(&wanted.key(digest, modified))? else {
        return Ok(None);
    };
    let tree = result.reference;
    if is_whole(job, &tree, wanted.file, digest)? { Ok(Some(tree)) } else { discard(job, tree) }
}

/// Forgets a tree that is damaged.
fn discard(job: &JobInner, tree: Ref) -> Result<Option<Ref>, OpError> {
    for layer in tree.layers() {
        job.engine.store.discard_layer(layer)?;
    }
    Ok(None)
}

/// Whether a tree has the file with this content.
fn is_whole(job: &JobInner, tree: &Ref, file: &str, digest: &Digest) -> Result<bool, OpError> {
    let hash = || -> io::Result<Digest> {
        let view = Value::Tree(tree.clone()).view(&job.cancel).map_err(io::Error::other)?;
        let mut data = view.open(Path::new(file))?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
        loop {
            if job.cancel.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match io::Read::read(&mut data, &mut buffer)? {
                0 => return Ok(Digest::from_bytes(hash.finish())),
                length => hash.update(&buffer[..length]),
            }
        }
    };
    let found = hash();
    if job.cancel.is_cancelled() {
        return Err(OpError::Canceled);
    }
    Ok(found.is_ok_and(|found| found == *digest))
}

/// The file of a download under the name, mode and owner that are wanted.
fn tree_as(job: &JobInner, wanted: &Wanted<'_>, download: &Download) -> Result<Ref, OpError> {
    if wanted.file == download.file && wanted.is_plain() {
        return Ok(download.tree.clone());
    }
    let modified = download.validators.modified();
    if let Some(tree) = stored(job, wanted, &download.digest, modified)? {
        return Ok(tree);
    }
    let store = &job.engine.store;
    let workspace = store.workspace(&Ref::scratch())?;
    let mut draft = workspace.draft()?;
    let options = CopyOptions {
        source: format!("/{}", download.file),
        dest: format!("/{}", wanted.file),
        mode: Some(wanted.mode),
        owner: Some(wanted.owner),
        ..CopyOptions::default()
    };
    let view = Value::Tree(download.tree.clone()).view(&job.cancel)?;
    draft.copy(view.as_ref(), &options).map_err(OpError::File)?;
    drop(draft);
    let layer = workspace.commit(&LayerMeta::now(format!("download of {}", wanted.file)))?;
    let tree = Ref::scratch().push(layer);
    keep(job, wanted, &download.digest, modified, &tree)?;
    Ok(tree)
}

/// Keeps a file under its keys.
fn keep(
    job: &JobInner,
    wanted: &Wanted<'_>,
    digest: &Digest,
    modified: Option<i64>,
    tree: &Ref,
) -> Result<(), OpError> {
    let mut keys = vec![wanted.key(digest, None), wanted.key(digest, modified)];
    keys.dedup();
    for key in keys {
        record::save(&job.engine.store, key, tree, b"download".to_vec())?;
    }
    Ok(())
}
