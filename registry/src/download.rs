//! The bytes of a blob on their way from the network to its reader.
//!
//! A small blob comes as one stream. Of a large one ranges are asked for, several at once, and handed over in
//! order; a server that does not know ranges sends it all to the first request, and then that is the stream.
//!
//! ```text
//! reader ◀─ bounded channel ─ range 0 │ range 1 │ range 2 │ range 3 │ …
//!                             streams   read ahead into memory        not asked for yet
//! ```
//!
//! Invariants:
//! - Bytes are handed over in order and once, whatever broke on the way: each part asks for its rest (`Range`).
//! - Memory is bounded: no more ranges are read ahead than the client has permits, and the part that the reader
//!   waits for needs none, so no blob waits for another.
//! - A part ends within the read timeout when its server sends too little.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llb::Reference;
use llb::image::Descriptor;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::Error;
use crate::auth::Scopes;
use crate::place::Place;
use crate::pull::{BodyProblem, blob_name, blob_path};
use crate::session::{Ask, Host, Shared};
use crate::transport::{Request, bad_answer, too_slow};

/// Bytes that must arrive before an interruption counts as the first one again.
const PROGRESS: u64 = 1 << 20;

/// Bytes that must arrive within each read timeout: a server that drips is as good as silent.
const LEAST: u64 = 16 << 10;

/// Ranges of one blob that are on their way at once.
const AT_ONCE: usize = 4;

/// Ranges that all blobs of a client together may have in memory. With ranges of 4 MiB these are 32 MiB.
pub(crate) const AHEAD: usize = 8;

/// Where the bytes of a part go.
enum Out<'a> {
    /// To the reader, who sets the pace.
    Reader(&'a mpsc::Sender<Result<Bytes, Error>>),
    /// Into memory; a part is never longer than a range.
    Memory(mpsc::UnboundedSender<Bytes>),
}

impl Out<'_> {
    /// Hands `chunk` over; whether anybody takes it.
    async fn give(&self, chunk: Bytes) -> bool {
        match self {
            Self::Reader(reader) => reader.send(Ok(chunk)).await.is_ok(),
            Self::Memory(memory) => memory.send(chunk).is_ok(),
        }
    }
}

/// A blob that is asked for.
#[derive(Debug, Clone)]
struct Wanted {
    shared: Arc<Shared>,
    host: Arc<Host>,
    repository: Reference,
    blob: Descriptor,
    what: String,
    /// Whether passing errors of the first request are tried again, as there is no other place.
    is_last: bool,
}

impl Wanted {
    /// Asks for the blob, or for a part of it; the first time, or for more of what has begun.
    async fn ask(&self, range: Option<Range<u64>>, is_first: bool) -> Result<Response, Error> {
        let scopes = Scopes::pull(&self.repository);
        let path = blob_path(&self.repository, self.blob.digest);
        let mut ask = Ask::new(Method::GET, path, &scopes, &self.what);
        if let Some(Range { start, end }) = range {
            let text = if end == self.blob.size {
                format!("bytes={start}-")
            } else {
                format!("bytes={start}-{}", end - 1)
            };
            ask.headers.extend(HeaderValue::from_str(&text).ok().map(|value| (RANGE, value)));
        }
        ask.retry = self.is_last || !is_first;
        let response = self.shared.send(&self.host, &ask).await?;
        match response.status() {
            StatusCode::NOT_FOUND => {
                Err(Error::NotFound { what: self.what.clone(), lacks_repository: false })
            }
            _ => Ok(response),
        }
    }

    fn wrong_size(&self, got: impl std::fmt::Display) -> Error {
        let problem = format!("expected {} bytes, got {got}", self.blob.size);
        Error::BadDigest { what: self.what.clone(), problem }
    }

    /// First byte of a partial answer, which must be the one that was asked for.
    fn check_range(&self, response: &Response, wanted: u64) -> Result<(), Error> {
        let text = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let (start, whole) = text.and_then(content_range).unwrap_or_default();
        if let Some(whole) = whole.filter(|whole| *whole != self.blob.size) {
            return Err(self.wrong_size(whole));
        }
        if start != Some(wanted) {
            let request = Request::new(Method::GET, response.url().clone());
            let answer = "answered another range than asked for".to_owned();
            return Err(bad_answer(&self.host.name, &request, answer));
        }
        Ok(())
    }
}

/// First byte and whole length in a `Content-Range`: `bytes 5-9/10`, or `bytes 5-9/*` where the length is not
/// known.
///
/// Format: RFC 9110 §14.4.
pub(crate) fn content_range(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split('-').next()?.parse().ok(), whole.trim().parse().ok()))
}

/// A blob under way.
#[derive(Debug)]
pub(crate) struct Download {
    first: Part,
}

impl Download {
    /// Asks for the blob, or its first range; the answer's body is read by [`run`](Self::run).
    pub(crate) async fn start(
        shared: Arc<Shared>,
        place: &Place,
        blob: &Descriptor,
    ) -> Result<Self, Error> {
        let (host, repository) = (Arc::clone(&place.host), place.reference.clone());
        let (what, blob) = (blob_name(&repository, blob.digest), blob.clone());
        let wanted = Wanted { shared, host, repository, blob, what, is_last: place.is_last };
        let mut attempt = 0;
        loop {
            let error = match Self::ask(&wanted).await {
                Ok(download) => return Ok(download),
                Err(error) => error,
            };
            // What passes was tried again already; this may be an answer to somebody else.
            let wrong = wanted.is_last && matches!(error, Error::BadDigest { .. });
            let Some(pause) = wanted.shared.pause(&error, attempt).filter(|_| wrong) else {
                return Err(error);
            };
            attempt += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(wanted: &Wanted) -> Result<Self, Error> {
        let range = wanted.shared.options.range_size.max(1);
        if wanted.blob.size >= range.saturating_mul(2)
            && let Some(first) = Part::of_ranges(wanted, 0..range).await?
        {
            return Ok(Self { first });
        }
        let response = wanted.ask(None, true).await?;
        Ok(Self { first: Part::whole(wanted.clone(), response)? })
    }

    /// Hands all bytes to the reader. Ends early when the reader is gone.
    pub(crate) async fn run(
        self,
        reader: &mpsc::Sender<Result<Bytes, Error>>,
    ) -> Result<(), Error> {
        let wanted = self.first.wanted.clone();
        let mut next = self.first.end;
        let mut ahead = VecDeque::new();
        let mut first = Some(self.first);
        loop {
            while ahead.len() < AT_ONCE
                && next < wanted.blob.size
                && let Ok(permit) = Arc::clone(&wanted.shared.ahead).try_acquire_owned()
            {
                let range = wanted.range_from(next);
                next = range.end;
                ahead.push_back(Ahead::start(wanted.clone(), range, permit));
            }
            let there = if let Some(first) = first.take() {
                first.run(Out::Reader(reader)).await?
            } else if let Some(front) = ahead.pop_front() {
                front.hand_over(reader).await?
            } else if next < wanted.blob.size {
                let range = wanted.range_from(next);
                next = range.end;
                Part::open(wanted.clone(), range).await?.run(Out::Reader(reader)).await?
            } else {
                return Ok(());
            };
            if !there {
                return Ok(());
            }
        }
    }
}

impl Wanted {
    fn range_from(&self, start: u64) -> Range<u64> {
        let size = self.shared.options.range_size.max(1);
        start..start.saturating_add(size).min(self.blob.size)
    }
}

/// A part of a blob that is read before its turn.
struct Ahead {
    chunks: mpsc::UnboundedReceiver<Bytes>,
    task: JoinHandle<Result<bool, Error>>,
    /// Given back when the bytes are handed over.
    _permit: OwnedSemaphorePermit,
}

impl Ahead {
    fn start(wanted: Wanted, range: Range<u64>, permit: OwnedSemaphorePermit) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        let task =
            tokio::spawn(
                async move { Part::open(wanted, range).await?.run(Out::Memory(sender)).await },
            );
        Self { chunks, task, _permit: permit }
    }

    async fn hand_over(
        mut self,
        reader: &mpsc::Sender<Result<Bytes, Error>>,
    ) -> Result<bool, Error> {
        while let Some(chunk) = self.chunks.recv().await {
            if reader.send(Ok(chunk)).await.is_err() {
                return Ok(false);
            }
        }
        (&mut self.task).await.map_err(|error| Error::Setup(error.into()))?
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A part of a blob, or all of it, from one request and those that take over when it breaks.
#[derive(Debug)]
struct Part {
    wanted: Wanted,
    response: Response,
    /// The next byte to hand over.
    position: u64,
    /// The byte after the last one.
    end: u64,
    /// Bytes of the answer that were handed over before.
    skip: u64,
}

impl Part {
    /// All of the blob, from an answer that has all of it.
    fn whole(wanted: Wanted, response: Response) -> Result<Self, Error> {
        if response.status() == StatusCode::PARTIAL_CONTENT {
            wanted.check_range(&response, 0)?;
        }
        if let Some(length) = response.content_length().filter(|got| *got != wanted.blob.size) {
            return Err(wanted.wrong_size(length));
        }
        let end = wanted.blob.size;
        Ok(Self { wanted, response, position: 0, end, skip: 0 })
    }

    /// The first range, or all of the blob where the server does not know ranges; `None` where it does not
    /// even take the question.
    async fn of_ranges(wanted: &Wanted, range: Range<u64>) -> Result<Option<Self>, Error> {
        let response = match wanted.ask(Some(range.clone()), true).await {
            Ok(response) => response,
            Err(Error::BadAnswer { status: Some(400 | 405 | 416 | 501), .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Self::whole(wanted.clone(), response).map(Some);
        }
        wanted.check_range(&response, 0)?;
        Ok(Some(Self { wanted: wanted.clone(), response, position: 0, end: range.end, skip: 0 }))
    }

    /// A range of a blob whose server knows ranges.
    async fn open(wanted: Wanted, range: Range<u64>) -> Result<Self, Error> {
        let (response, skip) = Self::ask(&wanted, range.clone()).await?;
        Ok(Self { wanted, response, position: range.start, end: range.end, skip })
    }

    /// An answer that has the bytes of `range`, and how many come before them.
    async fn ask(wanted: &Wanted, range: Range<u64>) -> Result<(Response, u64), Error> {
        let start = range.start;
        let response = wanted.ask(Some(range), false).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, start));
        }
        wanted.check_range(&response, start)?;
        Ok((response, 0))
    }

    /// Hands the bytes over, asking for the rest when the connection breaks. Whether there was somebody to
    /// take them.
    async fn run(mut self, out: Out<'_>) -> Result<bool, Error> {
        let (mut attempt, mut counted_from) = (0, self.position);
        let mut pace = Pace::new(self.wanted.shared.options.read_timeout);
        while self.position < self.end {
            let problem = match pace.next(&mut self.response).await {
                Ok(Some(chunk)) => {
                    let Some(chunk) = self.take(chunk)? else { continue };
                    let waited_from = Instant::now();
                    if !out.give(chunk).await {
                        return Ok(false);
                    }
                    pace.forgive(waited_from.elapsed());
                    continue;
                }
                Ok(None) => None,
                Err(problem) => Some(problem),
            };
            let error = self.error(problem)?;
            if self.position - counted_from >= PROGRESS {
                (attempt, counted_from) = (0, self.position);
            }
            let pause = self.wanted.shared.pause(&error, attempt);
            let Some(pause) = pause else { return Err(error) };
            attempt += 1;
            tokio::time::sleep(pause).await;
            (self.response, self.skip) = Self::ask(&self.wanted, self.position..self.end).await?;
            pace = Pace::new(self.wanted.shared.options.read_timeout);
        }
        // More than was asked for means that it is another blob.
        let is_whole = self.end == self.wanted.blob.size;
        if is_whole
            && let Ok(Some(more)) = pace.next(&mut self.response).await
            && !more.is_empty()
        {
            return Err(self.wanted.wrong_size("more"));
        }
        Ok(true)
    }

    /// What an answer that ended too early is: broken, if it may be better the next time.
    fn error(&self, problem: Option<BodyProblem>) -> Result<Error, Error> {
        let request = Request::new(Method::GET, self.response.url().clone());
        let host = &self.wanted.host.name;
        match problem {
            Some(problem) => Ok(problem.into_error(host, &request, &self.wanted.what, 0)),
            // A server may answer with less than the range that it was asked for.
            None if self.response.status() == StatusCode::PARTIAL_CONTENT => {
                Ok(too_slow(host, &request, "the answer ended before the range did".to_owned()))
            }
            None => Err(self.wanted.wrong_size(self.position)),
        }
    }

    /// The part of `chunk` that was not handed over before.
    fn take(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, Error> {
        let known = self.skip.min(chunk.len() as u64);
        self.skip -= known;
        let mut chunk = chunk.split_off(usize::try_from(known).unwrap_or(chunk.len()));
        let left = self.end - self.position;
        if chunk.len() as u64 > left {
            if self.end == self.wanted.blob.size {
                return Err(self.wanted.wrong_size("more"));
            }
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.position += chunk.len() as u64;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }
}

/// Sees to it that a body comes at a pace at which it may end.
struct Pace {
    timeout: Duration,
    due: Instant,
    /// Bytes since the last time that enough had come.
    got: u64,
}

impl Pace {
    fn new(timeout: Duration) -> Self {
        Self { timeout, due: Instant::now() + timeout, got: 0 }
    }

    async fn next(&mut self, response: &mut Response) -> Result<Option<Bytes>, BodyProblem> {
        let chunk = tokio::time::timeout_at(self.due, response.chunk()).await;
        let chunk = match chunk {
            Ok(chunk) => chunk.map_err(BodyProblem::Broken)?,
            Err(_) if self.got == 0 => return Err(BodyProblem::Silent(self.timeout)),
            Err(_) => return Err(BodyProblem::Slow { got: self.got, within: self.timeout }),
        };
        self.got += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.got >= LEAST {
            (self.due, self.got) = (Instant::now() + self.timeout, 0);
        }
        Ok(chunk)
    }

    /// Time that the reader took is not the server's.
    fn forgive(&mut self, waited: Duration) {
        self.due += waited;
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges_are_read_with_and_without_a_length() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        assert_eq!(content_range("lines 1-2/3"), None);
        assert_eq!(content_range("bytes 5-9"), None);
    }
}
