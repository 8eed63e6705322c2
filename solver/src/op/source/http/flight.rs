//! One URL in one job: asked about, asked for, transferred.

use std::io::{self, Read};
use std::time::{Duration, Instant, SystemTime};

use cache::{CacheError, LayerMeta, Lock, Ref};
use llb::Event;
use llb::url::redacted;
use registry::{FetchError, FileReader, Validators};
use tree::draft::MkfileOptions;
use tree::{Timestamp, TreeError};

use super::record::{Download, lock_name};
use super::{MODE, Progress, Wanted, discard, is_whole, keep, stored};
use crate::engine::JobInner;
use crate::error::OpError;

/// How often a file that changed while it came is begun anew.
const FRESH_STARTS: u32 = 2;

/// Pause between two reports of progress.
const REPORTS: Duration = Duration::from_millis(100);

/// How far a URL has come in a job.
#[derive(Default)]
pub(super) enum Flight {
    /// Nobody has asked yet.
    #[default]
    New,
    /// The server has begun to send the file.
    Coming(Box<FileReader>),
    /// The server says that the store's file is current.
    Current(Download),
    /// The file is in the store, and whole.
    Landed(Download),
    /// It cannot be had.
    Failed(FetchError),
}

impl Flight {
    /// What the file is, as far as that is known.
    pub(super) fn known(&self) -> Option<&Download> {
        match self {
            Self::Current(download) | Self::Landed(download) => Some(download),
            _ => None,
        }
    }

    /// Asks whether the store's file is current, if there is one about which can be asked.
    /// `begin` is called before a request is made.
    pub(super) fn look(
        &mut self,
        job: &JobInner,
        url: &str,
        begin: &dyn Fn(),
    ) -> Result<(), OpError> {
        match self {
            Self::New => {
                let known = Download::load(&job.engine.store, url)?;
                match known.filter(|known| !known.validators.is_empty()) {
                    Some(known) => {
                        begin();
                        self.ask(job, url, Some(known))
                    }
                    None => Ok(()),
                }
            }
            Self::Failed(error) => Err(failed(url, error.clone())),
            _ => Ok(()),
        }
    }

    /// Asks for the file, unless it is still `known`.
    fn ask(&mut self, job: &JobInner, url: &str, known: Option<Download>) -> Result<(), OpError> {
        let validators = known.as_ref().map(|known| known.validators.clone()).unwrap_or_default();
        match job.files.fetch(url, &validators) {
            Ok(Some(reader)) => *self = Self::Coming(Box::new(reader)),
            Ok(None) => *self = known.map_or(Self::New, Self::Current),
            Err(error) => {
                *self = Self::Failed(error.clone());
                return Err(failed(url, error));
            }
        }
        Ok(())
    }

    /// Sees to it that the file is in the store.
    pub(super) fn land(
        &mut self,
        job: &JobInner,
        wanted: &Wanted<'_>,
        progress: &Progress<'_>,
    ) -> Result<Download, OpError> {
        let (store, url) = (&job.engine.store, wanted.url);
        // Held from before the last question to the last byte.
        let mut turn: Option<Lock> = None;
        loop {
            match std::mem::take(self) {
                Self::New => {
                    let known = Download::load(store, url)?;
                    self.ask(job, url, known.filter(|known| !known.validators.is_empty()))?;
                }
                Self::Current(known) => {
                    if is_whole(job, &known.tree, &known.file, &known.digest)? {
                        *self = Self::Landed(known);
                    } else {
                        discard(job, known.tree)?;
                        self.ask(job, url, None)?;
                    }
                }
                Self::Coming(reader) if turn.is_some() => {
                    let outcome = transfer(job, wanted, *reader, progress);
                    let download = outcome.inspect_err(|error| {
                        if let OpError::Fetch { source, .. } = error {
                            *self = Self::Failed(source.as_ref().clone());
                        }
                    })?;
                    *self = Self::Landed(download);
                }
                Self::Coming(reader) => {
                    turn = store.try_lock(&lock_name(url))?;
                    if turn.is_some() {
                        *self = Self::Coming(reader);
                    } else {
                        // Another process transfers it, and may have it when it is done.
                        drop(reader);
                        turn = Some(wait(job, url)?);
                    }
                }
                Self::Landed(download) => {
                    *self = Self::Landed(download.clone());
                    return Ok(download);
                }
                Self::Failed(error) => {
                    *self = Self::Failed(error.clone());
                    return Err(failed(url, error));
                }
            }
        }
    }
}

/// Waits until no other process transfers the file.
fn wait(job: &JobInner, url: &str) -> Result<Lock, OpError> {
    let cancelled = || job.cancel.is_cancelled();
    job.engine.store.lock(&lock_name(url), &cancelled).map_err(|error| match error {
        CacheError::Cancelled(_) => OpError::Canceled,
        error => error.into(),
    })
}

fn failed(url: &str, error: FetchError) -> OpError {
    OpError::Fetch { url: redacted(url).into_owned(), source: Box::new(error) }
}

/// Brings the file into the store; one that changes meanwhile is begun anew.
fn transfer(
    job: &JobInner,
    wanted: &Wanted<'_>,
    reader: FileReader,
    progress: &Progress<'_>,
) -> Result<Download, OpError> {
    let mut reader = reader;
    let mut fresh_starts = 0;
    loop {
        match write(job, wanted, reader, progress) {
            Err(OpError::Fetch { source, .. })
                if matches!(*source, FetchError::Changed) && fresh_starts < FRESH_STARTS => {}
            other => return other,
        }
        fresh_starts += 1;
        let again = job.files.fetch(wanted.url, &Validators::default());
        reader = again
            .and_then(|reader| reader.ok_or(FetchError::Status { status: 304 }))
            .map_err(|error| failed(wanted.url, error))?;
    }
}

/// Writes the file into a layer of its own, which gets its name when the file is whole.
fn write(
    job: &JobInner,
    wanted: &Wanted<'_>,
    reader: FileReader,
    progress: &Progress<'_>,
) -> Result<Download, OpError> {
    let store = &job.engine.store;
    let validators = reader.validators().clone();
    let modified = validators.modified();
    let workspace = store.workspace(&Ref::scratch())?;
    let mut draft = workspace.draft()?;
    let options = MkfileOptions {
        path: format!("/{}", wanted.file),
        mode: MODE,
        timestamp: Some(Timestamp { seconds: modified.unwrap_or(0), nanoseconds: 0 }),
        ..MkfileOptions::default()
    };
    let mut counted = Counted::new(reader, wanted.file, progress);
    let size = draft
        .mkfile_from(&options, &mut counted)
        .map_err(|error| transfer_error(wanted.url, error))?;
    counted.report(Some(SystemTime::now()));
    let digest = counted.reader.digest();
    drop(draft);
    let plain = Wanted { mode: MODE, owner: (0, 0), checksum: None, ..*wanted };
    // The same file as before stays the same layer.
    let tree = match stored(job, &plain, &digest, modified)? {
        Some(tree) => tree,
        None => {
            let name = format!("download of {}", wanted.file);
            let tree = Ref::scratch().push(workspace.commit(&LayerMeta::now(name))?);
            keep(job, &plain, &digest, modified, &tree)?;
            tree
        }
    };
    let file = wanted.file.to_owned();
    let download = Download { digest, size, file, validators, tree };
    download.save(store, wanted.url)?;
    Ok(download)
}

/// A transfer that failed: what the network did, or else what the disk did.
fn transfer_error(url: &str, error: TreeError) -> OpError {
    let fetch = match &error {
        TreeError::Io { source, .. } => {
            source.get_ref().and_then(|inner| inner.downcast_ref::<FetchError>())
        }
        _ => None,
    };
    match fetch {
        Some(fetch) => failed(url, fetch.clone()),
        None => OpError::File(error),
    }
}

/// A reader that tells how far it is.
struct Counted<'a> {
    reader: FileReader,
    file: &'a str,
    progress: &'a Progress<'a>,
    current: u64,
    started: SystemTime,
    last: Option<Instant>,
}

impl<'a> Counted<'a> {
    fn new(reader: FileReader, file: &'a str, progress: &'a Progress<'a>) -> Self {
        Self { reader, file, progress, current: 0, started: SystemTime::now(), last: None }
    }

    fn report(&mut self, completed: Option<SystemTime>) {
        self.last = Some(Instant::now());
        self.progress.events.send(Event::Status {
            vertex: self.progress.vertex,
            id: self.file.to_owned(),
            current: self.current,
            total: self.reader.size().unwrap_or(0),
            started: self.started,
            completed,
        });
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.current += length as u64;
        if length > 0 && self.last.is_none_or(|last| last.elapsed() >= REPORTS) {
            self.report(None);
        }
        Ok(length)
    }
}
