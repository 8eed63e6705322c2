//! The bytes of a blob on their way to a registry.
//!
//! ```text
//! POST ─▶ location ─▶ PUT with all bytes ───────────────────────────▶ done
//!            │            │ too large for the registry
//!            │            ▼
//!            ╰───────▶ PATCH chunk ─▶ PATCH chunk ─▶ … ─▶ empty PUT ─▶ done
//!                         │ ▲
//!                 broke ──▼ │ GET location: how far it is
//! ```
//!
//! A blob goes in one request where the registry takes it. What a registry has of an upload that broke is asked
//! for, and only the rest is sent; where it cannot tell, a new upload begins.
//!
//! Invariants:
//! - A chunk is never smaller than the registry wants (`OCI-Chunk-Min-Length`), but for the last one.
//! - The source is read once from front to end, unless something breaks.
//! - Memory is bounded by [`PIECES`] pieces, whatever the size of a chunk.
//!
//! Format: OCI distribution specification 1.1, "Pushing blobs".

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use llb::Reference;
use llb::image::Descriptor;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, RANGE,
};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use crate::Error;
use crate::auth::Scopes;
use crate::progress::Meter;
use crate::pull::blob_name;
use crate::push::{Source, same_digest};
use crate::session::{Ask, Host, Shared, check_status, message};
use crate::transport::{Request, bad_answer, broken, follow, silent};

/// Bytes per piece of an upload, and pieces that wait between the reader and the network.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// Chunks are not made smaller than this, whatever the registry says of their size.
const SMALLEST_CHUNK: u64 = 64 << 10;

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// An upload that the registry has begun.
#[derive(Debug)]
struct Place {
    /// Where to send what comes next.
    url: Url,
    /// Bytes that the registry has.
    sent: u64,
    /// Least bytes that it wants in a chunk.
    least: u64,
}

/// Sends one blob, with as many tries as it takes.
pub(crate) struct Upload<'a> {
    shared: &'a Shared,
    host: Arc<Host>,
    repository: &'a Reference,
    blob: &'a Descriptor,
    source: &'a Source<'a>,
    scopes: Scopes,
    what: String,
    place: Option<Place>,
    /// Size of chunks; `None` as long as the blob is sent whole.
    chunk: Option<u64>,
    meter: Arc<Meter>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        repository: &'a Reference,
        blob: &'a Descriptor,
        source: &'a Source<'a>,
        meter: Meter,
    ) -> Result<Self, Error> {
        Ok(Self {
            shared,
            host: shared.push_host(repository)?,
            repository,
            blob,
            source,
            scopes: Scopes::push(repository, None),
            what: blob_name(repository, blob.digest),
            place: None,
            chunk: None,
            meter: Arc::new(meter),
        })
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Begins an upload, or has the registry take the blob from another repository; whether it did.
    pub(crate) async fn begin(&mut self, mount_from: Option<&Reference>) -> Result<bool, Error> {
        let mut path = format!("{}/blobs/uploads/", self.repository.repository());
        if let Some(from) = mount_from {
            path.push_str(&format!("?mount={}&from={}", self.blob.digest, from.repository()));
        }
        let scopes = Scopes::push(self.repository, mount_from);
        let mut ask = Ask::new(Method::POST, path, &scopes, &self.what);
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.shared.send(&self.host, &ask).await?;
        match response.status() {
            StatusCode::CREATED if mount_from.is_some() => return Ok(true),
            StatusCode::NOT_FOUND => {
                return Err(Error::UnknownRepository {
                    host: self.host.name.clone(),
                    what: self.repository.name(),
                    message: message(response).await,
                });
            }
            _ => {}
        }
        let least =
            header(response.headers(), &CHUNK_MIN_LENGTH).and_then(|text| text.parse().ok());
        let url = self.location(&response)?.ok_or_else(|| {
            let request = Request::new(Method::POST, response.url().clone());
            bad_answer(&self.host.name, &request, "began an upload without saying where".to_owned())
        })?;
        self.place = Some(Place { url, sent: 0, least: least.unwrap_or(0) });
        Ok(false)
    }

    /// Where an answer says that the upload goes on.
    fn location(&self, response: &Response) -> Result<Option<Url>, Error> {
        let Some(location) = header(response.headers(), &LOCATION) else { return Ok(None) };
        let request = Request::new(Method::POST, response.url().clone());
        let url = follow(response.url(), location);
        url.map(Some).map_err(|problem| bad_answer(&self.host.name, &request, problem))
    }

    /// Sends what the registry does not have yet. After an error the upload goes on where
    /// [`ask_how_far`](Self::ask_how_far) finds it.
    pub(crate) async fn send(&mut self) -> Result<(), Error> {
        if self.place.is_none() {
            self.begin(None).await?;
        }
        let sent = self.place.as_ref().map_or(0, |place| place.sent);
        self.meter.at(sent);
        let mut feed = Feed::start(self.source, self.blob, sent, &self.meter)?;
        if self.chunk.is_none() && sent == 0 {
            return self.finish(&feed, self.blob.size).await;
        }
        loop {
            let Some(place) = &self.place else { return Err(self.lost()) };
            let (sent, left) = (place.sent, self.blob.size.saturating_sub(place.sent));
            if left == 0 {
                return self.finish(&feed, 0).await;
            }
            let chunk = self.chunk.unwrap_or(left).max(place.least).min(left);
            let stored = self.patch(&feed, sent, chunk).await?;
            if stored != sent + chunk {
                // It has less than it was sent, or more than it should: go on from there.
                self.meter.at(stored);
                feed = Feed::start(self.source, self.blob, stored, &self.meter)?;
            }
        }
    }

    /// Ends the upload with the last `size` bytes.
    async fn finish(&mut self, feed: &Feed, size: u64) -> Result<(), Error> {
        let Some(place) = &self.place else { return Err(self.lost()) };
        let mut url = place.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let response = self.exchange(Method::PUT, url, feed, size, HeaderMap::new()).await?;
        same_digest(&response, self.blob.digest, &self.what)
    }

    /// Sends one chunk; how many bytes the registry has then.
    async fn patch(&mut self, feed: &Feed, sent: u64, size: u64) -> Result<u64, Error> {
        let Some(place) = &self.place else { return Err(self.lost()) };
        let mut headers = HeaderMap::new();
        let range = format!("{sent}-{}", sent + size - 1);
        headers.extend(HeaderValue::from_str(&range).ok().map(|value| (CONTENT_RANGE, value)));
        let url = place.url.clone();
        let response = self.exchange(Method::PATCH, url, feed, size, headers).await?;
        // Nothing after a chunk means that the registry counts otherwise.
        let stored = stored(response.headers()).filter(|stored| *stored > 0);
        let next = self.location(&response)?;
        let stored = stored.unwrap_or(sent + size);
        if stored > self.blob.size || stored <= sent {
            let request = Request::new(Method::PATCH, response.url().clone());
            let answer = format!("took {size} bytes at {sent}, and has {stored} now");
            return Err(bad_answer(&self.host.name, &request, answer));
        }
        if let Some(place) = &mut self.place {
            place.url = next.unwrap_or_else(|| place.url.clone());
            place.sent = stored;
        }
        Ok(stored)
    }

    /// Sends `size` bytes of `feed`, and reads the answer.
    async fn exchange(
        &self,
        method: Method,
        url: Url,
        feed: &Feed,
        size: u64,
        headers: HeaderMap,
    ) -> Result<Response, Error> {
        let mut ask = Ask::new(method, url.to_string(), &self.scopes, &self.what);
        ask.headers = headers;
        ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let mut request = self.shared.request(&self.host, &ask).await?;
        if self.shared.is_own(&self.host, &request.url) {
            let header = self.shared.authorization(&self.host, &self.scopes).await?;
            request.headers.extend(header.map(|value| (AUTHORIZATION, value)));
        }
        let sent = send_body(self.shared, &self.host, &request, feed, size).await;
        if let Some(source) = feed.failure() {
            return Err(Error::Source { digest: self.blob.digest, source });
        }
        let response = check_status(&self.host, &request, sent?, &ask).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Err(self.lost()),
            _ => Ok(response),
        }
    }

    fn lost(&self) -> Error {
        Error::NotFound { what: format!("upload of {}", self.what) }
    }

    /// Whether the blob, or its chunks, shall be sent in smaller requests after this refusal.
    pub(crate) fn takes_smaller(&mut self, error: &Error) -> bool {
        let Error::BadAnswer { status: Some(status), .. } = error else { return false };
        let least = self.place.as_ref().map_or(0, |place| place.least).max(SMALLEST_CHUNK);
        let chunk = match self.chunk {
            // These say that the request is not one that the registry takes, whatever its bytes are.
            None if [405, 411, 413, 415, 501].contains(status) => {
                self.shared.options.chunk_size.max(least)
            }
            Some(chunk) if *status == 413 && chunk > least => (chunk / 2).max(least),
            _ => return false,
        };
        self.chunk = Some(chunk);
        true
    }

    /// Tells the registry that the upload will not go on. Whether it hears that does not matter: it forgets
    /// uploads in time.
    pub(crate) async fn cancel(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut ask = Ask::new(Method::DELETE, place.url.to_string(), &self.scopes, &self.what);
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        ask.retry = false;
        let _ = self.shared.send(&self.host, &ask).await;
    }

    /// Finds out how much of the upload the registry has after something broke; where it does not know, a new
    /// one will begin.
    pub(crate) async fn ask_how_far(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        let ask = Ask::new(Method::GET, place.url.to_string(), &self.scopes, &self.what);
        let Ok(response) = self.shared.send(&self.host, &ask).await else { return };
        let is_known = [StatusCode::NO_CONTENT, StatusCode::ACCEPTED].contains(&response.status());
        let Some(sent) =
            stored(response.headers()).filter(|sent| is_known && *sent <= self.blob.size)
        else {
            return;
        };
        if let Ok(next) = self.location(&response) {
            place.url = next.unwrap_or(place.url);
            // An upload of nothing may be refused bytes that come whole: it has seen some.
            place.sent = sent;
            self.place = Some(place).filter(|_| sent > 0);
        }
    }
}

/// Bytes that an answer says the registry has: `Range: 0-N`, the last byte included. Nothing yet is also told
/// as `0-0`.
fn stored(headers: &HeaderMap) -> Option<u64> {
    let text = header(headers, &RANGE)?;
    let last: u64 = text.trim_start_matches("bytes=").strip_prefix("0-")?.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.checked_add(1)? })
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Sends `request` with `size` bytes of `feed` as its body. Ends it when nothing moves for the read timeout: a
/// limit on the whole would end every long upload.
async fn send_body(
    shared: &Shared,
    host: &Host,
    request: &Request,
    feed: &Feed,
    size: u64,
) -> Result<Response, Error> {
    let client = shared.transport.client(request, &shared.options)?;
    let answer = client.request(request.method.clone(), request.url.clone());
    let answer = answer.headers(request.all_headers()).body(feed.body(size)).send();
    tokio::pin!(answer);
    let mut seen = 0;
    loop {
        tokio::select! {
            answer = &mut answer => {
                return answer.map_err(|error| host.advise(broken(&host.name, request, error)));
            }
            () = tokio::time::sleep(shared.options.read_timeout) => {
                let now = feed.taken.load(Ordering::Relaxed);
                if now == seen {
                    return Err(silent(&host.name, request, shared.options.read_timeout));
                }
                seen = now;
            }
        }
    }
}

/// A blocking reader whose bytes become the bodies of requests, one after the other.
struct Feed {
    supply: Arc<Mutex<Supply>>,
    /// How often the network has asked for bytes.
    taken: Arc<AtomicU64>,
    /// Why reading failed.
    failed: Arc<Mutex<Option<io::Error>>>,
    meter: Arc<Meter>,
}

/// Pieces that no request has taken yet.
struct Supply {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Feed {
    /// Opens the source, whose first `skip` bytes are left out.
    fn start(
        source: &Source<'_>,
        blob: &Descriptor,
        skip: u64,
        meter: &Arc<Meter>,
    ) -> Result<Self, Error> {
        let unreadable = |error| Error::Source { digest: blob.digest, source: error };
        let mut reader = source().map_err(unreadable)?;
        let (sender, pieces) = mpsc::channel(PIECES);
        let failed = Arc::new(Mutex::new(None));
        let (size, failure) = (blob.size, Arc::clone(&failed));
        tokio::task::spawn_blocking(move || {
            if let Err(error) = feed(&mut *reader, skip, size, &sender) {
                let copy = io::Error::new(error.kind(), error.to_string());
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // An error in the body ends the request; nobody may be left to see it.
                let _ = sender.blocking_send(Err(copy));
            }
        });
        let supply = Arc::new(Mutex::new(Supply { pieces, rest: Bytes::new() }));
        Ok(Self { supply, taken: Arc::default(), failed, meter: Arc::clone(meter) })
    }

    /// The next `size` bytes.
    fn body(&self, size: u64) -> Body {
        if size == 0 {
            return Body::from(Vec::new());
        }
        let (supply, taken) = (Arc::clone(&self.supply), Arc::clone(&self.taken));
        Body::wrap_stream(Pieces { supply, taken, left: size, meter: Arc::clone(&self.meter) })
    }

    fn failure(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads `size` bytes, all that there must be, and gives those after `skip` to the channel; stops early when
/// its other end is gone.
fn feed(
    reader: &mut dyn Read,
    skip: u64,
    size: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let short = |length: u64| {
        let text = format!("it has {length} bytes instead of {size}");
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    };
    let skipped = io::copy(&mut reader.take(skip), &mut io::sink())?;
    if skipped < skip {
        return Err(short(skipped));
    }
    let mut left = size - skip;
    loop {
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        let read = reader.take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
        if read == 0 && left > 0 {
            return Err(short(size - left));
        }
        left -= read as u64;
        // The last piece is held back until it is known to be the last, so that no blob is completed that
        // has more.
        if left == 0 && reader.read(&mut [0])? != 0 {
            let text = format!("it has more than {size} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if piece.is_empty() || sender.blocking_send(Ok(piece.into())).is_err() || left == 0 {
            return Ok(());
        }
    }
}

/// The body of one request.
struct Pieces {
    supply: Arc<Mutex<Supply>>,
    taken: Arc<AtomicU64>,
    left: u64,
    meter: Arc<Meter>,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let supply = Arc::clone(&self.supply);
        let mut supply = supply.lock().unwrap_or_else(PoisonError::into_inner);
        if supply.rest.is_empty() {
            match supply.pieces.poll_recv(context) {
                Poll::Ready(Some(Ok(piece))) => supply.rest = piece,
                other => return other,
            }
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(supply.rest.len());
        let piece = supply.rest.split_to(length);
        self.left -= length as u64;
        self.meter.add(length as u64);
        Poll::Ready(Some(Ok(piece)))
    }
}
