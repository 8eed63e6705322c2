//! The body of an answer, asked for again where it broke off.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use llb::Digest;
use reqwest::header::{
    CONTENT_RANGE, DATE, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tree::codec::Sha256;

use super::Validators;
use super::date;
use super::error::FetchError;
use super::request::{Target, silent, trouble};
use crate::client::Core;

/// Pieces that wait between the network and the reader. One is what a read of the socket gave, at most about
/// 400 KiB.
const PIECES: usize = 8;

/// Bytes that must arrive before an interruption counts as the first one again.
const PROGRESS: u64 = 1 << 20;

/// Seconds that a file must be older than the answer for its time to be a name of its content.
const SETTLED: i64 = 60;

/// What goes through the channel.
#[derive(Debug)]
pub(super) enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// The bytes begin at the start of the file again.
    Again,
}

type Pieces = mpsc::Sender<Result<Piece, FetchError>>;

/// A file under way.
#[derive(Debug)]
pub(super) struct Transfer {
    target: Target,
    response: Response,
    /// What names exactly this content, for asking for its rest.
    name: Option<HeaderValue>,
    /// Bytes of the whole file, if the server told.
    expected: Option<u64>,
    /// Where in the file the next bytes belong.
    position: u64,
}

impl Transfer {
    pub(super) fn new(target: Target, response: Response) -> Self {
        let (name, expected) = (strong_name(response.headers()), response.content_length());
        Self { target, response, name, expected, position: 0 }
    }

    pub(super) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// Hands the body to the reader. Ends early when the reader is gone.
    pub(super) async fn run(mut self, pieces: &Pieces) -> Result<(), FetchError> {
        let (mut attempt, mut counted_from) = (0, 0);
        loop {
            let error = match self.next().await {
                Ok(Some(bytes)) => {
                    self.position += bytes.len() as u64;
                    if pieces.send(Ok(Piece::Bytes(bytes))).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Ok(None) if self.expected.is_none_or(|expected| expected <= self.position) => {
                    return Ok(());
                }
                Ok(None) => None,
                Err(error) => Some(error),
            };
            if self.position.saturating_sub(counted_from) >= PROGRESS {
                (attempt, counted_from) = (0, self.position);
            }
            let pause = match &error {
                Some(error) => self.target.pause(error, attempt, None),
                None => (attempt < self.target.shared.options.retries)
                    .then(|| self.target.shared.backoff(attempt)),
            };
            let Some(pause) = pause else { return Err(self.broken_off(error)) };
            attempt += 1;
            tokio::time::sleep(pause).await;
            if self.resume().await? && pieces.send(Ok(Piece::Again)).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        let timeout = self.target.shared.options.read_timeout;
        match tokio::time::timeout(timeout, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| trouble(self.response.url(), error)),
            Err(_) => Err(silent(self.response.url(), timeout)),
        }
    }

    fn broken_off(&self, error: Option<FetchError>) -> FetchError {
        let (received, expected) = (self.position, self.expected);
        FetchError::BrokenOff { received, expected, source: error.map(Arc::new) }
    }

    /// Asks for the rest; whether the server begins at the start again.
    async fn resume(&mut self) -> Result<bool, FetchError> {
        let mut headers = HeaderMap::new();
        if let Some(name) = self.name.clone().filter(|_| self.position > 0)
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={}-", self.position))
        {
            headers.insert(RANGE, range);
            headers.insert(IF_RANGE, name);
        }
        let asked_for_rest = !headers.is_empty();
        let response = self.target.send(&headers).await;
        let response = response.map_err(|error| self.broken_off(Some(error)))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if asked_for_rest => {
                let (start, total) = content_range(response.headers()).unwrap_or_default();
                if start != Some(self.position)
                    || (self.expected.is_some() && total.is_some() && total != self.expected)
                {
                    return Err(FetchError::Changed);
                }
                self.expected = self.expected.or(total);
                self.response = response;
                Ok(false)
            }
            status @ (StatusCode::PARTIAL_CONTENT
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::NOT_MODIFIED) => {
                let error = FetchError::Status { status: status.as_u16() };
                Err(self.broken_off(Some(error)))
            }
            _ => {
                let length = response.content_length();
                if self.expected.is_some() && length.is_some() && length != self.expected {
                    return Err(FetchError::Changed);
                }
                self.expected = self.expected.or(length);
                self.response = response;
                self.position = 0;
                Ok(true)
            }
        }
    }
}

/// A validator that stands for exactly these bytes: a strong entity tag, or the time of a file that was
/// settled when it was sent.
fn strong_name(headers: &HeaderMap) -> Option<HeaderValue> {
    let Validators { etag, last_modified } = Validators::of(headers);
    if let Some(etag) = etag {
        return (!etag.starts_with("W/")).then(|| HeaderValue::from_str(&etag).ok()).flatten();
    }
    let sent = date::parse(headers.get(DATE)?.to_str().ok()?)?;
    let modified = date::parse(&last_modified?)?;
    (sent.saturating_sub(modified) >= SETTLED)
        .then(|| headers.get(LAST_MODIFIED).cloned())
        .flatten()
}

/// First byte and size of the whole file, of `bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(Option<u64>, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    let (range, total) = text.split_once('/')?;
    Some((range.split('-').next()?.trim().parse().ok(), total.trim().parse().ok()))
}

/// A file behind a URL as a stream of bytes.
///
/// Its end means that the file is whole, as far as the server tells; an error takes the place of the end, so
/// nothing that was read may be kept before that. The error inside is a [`FetchError`]. May be read on any
/// thread that is not part of an asynchronous runtime.
#[derive(Debug)]
pub struct FileReader {
    pieces: mpsc::Receiver<Result<Piece, FetchError>>,
    validators: Validators,
    expected: Option<u64>,
    current: Bytes,
    position: u64,
    hash: Sha256,
    /// What has come again of a file that is sent from its start once more.
    again: Option<(Sha256, u64)>,
    /// Keeps the runtime, on which the sender runs.
    _core: Arc<Core>,
}

impl FileReader {
    pub(super) fn new(
        core: Arc<Core>,
        validators: Validators,
        expected: Option<u64>,
    ) -> (Self, Pieces) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let reader = Self {
            pieces,
            validators,
            expected,
            current: Bytes::new(),
            position: 0,
            hash: Sha256::new(),
            again: None,
            _core: core,
        };
        (reader, sender)
    }

    /// By which the server can be asked for the file again.
    pub fn validators(&self) -> &Validators {
        &self.validators
    }

    /// Bytes of the whole file, if the server told.
    pub fn size(&self) -> Option<u64> {
        self.expected
    }

    /// Digest of what was read.
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.hash.clone().finish())
    }

    /// Takes what came through the channel; the bytes that are new.
    fn take(&mut self, piece: Piece) -> Result<Bytes, FetchError> {
        let mut bytes = match piece {
            Piece::Again => {
                self.again = Some((Sha256::new(), 0));
                Bytes::new()
            }
            Piece::Bytes(bytes) => bytes,
        };
        if let Some((hash, seen)) = &mut self.again {
            let left = usize::try_from(self.position - *seen).unwrap_or(usize::MAX);
            let known = bytes.split_to(bytes.len().min(left));
            hash.update(&known);
            *seen += known.len() as u64;
            if *seen == self.position {
                let same = hash.clone().finish() == self.hash.clone().finish();
                self.again = None;
                if !same {
                    return Err(FetchError::Changed);
                }
            }
        }
        self.hash.update(&bytes);
        self.position += bytes.len() as u64;
        Ok(bytes)
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !buffer.is_empty() {
            let taken = match self.pieces.blocking_recv() {
                None if self.again.is_some() => Err(FetchError::Changed),
                None => return Ok(0),
                Some(piece) => piece.and_then(|piece| self.take(piece)),
            };
            self.current = taken.map_err(io::Error::other)?;
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}
