//! An upload that a registry has begun, and its requests.
//!
//! Format: OCI distribution specification 1.1, "Pushing blobs".

use std::io;
use std::sync::Arc;
use std::time::Duration;

use llb::{Digest, Reference};
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::feed::Feed;
use crate::Error;
use crate::auth::Scopes;
use crate::push::same_digest;
use crate::session::{Ask, Host, Shared, check_status, message};
use crate::transport::{Request, bad_answer, broken, follow, silent};

const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Whoever gives up waits no longer than this for the registry to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Time for a registry to notice that a request has ended in its middle. What it does with the bytes of that would undo
/// a cancellation that it hears of before.
const NOTICE: Duration = Duration::from_millis(100);

/// Where the registry wants the bytes.
#[derive(Debug, Clone)]
struct Place {
    /// Where to send what comes next.
    url: Url,
    /// Bytes that the registry has.
    sent: u64,
    /// Least bytes that it wants in a chunk.
    least: u64,
}

/// One upload, begun or not.
pub(super) struct Opened<'a> {
    shared: &'a Shared,
    host: Arc<Host>,
    repository: &'a Reference,
    scopes: Scopes,
    /// For messages.
    what: String,
    place: Option<Place>,
    /// Whether a request with bytes has begun, and not come to its end.
    is_sending: bool,
    /// Whether requests without bytes are tried again.
    retry: bool,
}

impl<'a> Opened<'a> {
    /// One that is not begun yet.
    pub(super) fn new(
        shared: &'a Shared,
        repository: &'a Reference,
        what: String,
    ) -> Result<Self, Error> {
        let (host, scopes) = (shared.push_host(repository)?, Scopes::push(repository, None));
        let (place, is_sending, retry) = (None, false, true);
        Ok(Self { shared, host, repository, scopes, what, place, is_sending, retry })
    }

    /// The same, which gives up what is not answered at once.
    pub(super) fn without_retries(self) -> Self {
        Self { retry: false, ..self }
    }

    /// Whether the registry has begun it.
    pub(super) fn is_begun(&self) -> bool {
        self.place.is_some()
    }

    /// Bytes that the registry has.
    pub(super) fn sent(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.sent)
    }

    /// Least bytes that the registry wants in a chunk.
    pub(super) fn least(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.least)
    }

    /// Begins the upload, or has the registry take a blob from another repository; whether it did.
    pub(super) async fn begin(
        &mut self,
        mount: Option<(Digest, &Reference)>,
    ) -> Result<bool, Error> {
        let mut path = format!("{}/blobs/uploads/", self.repository.repository());
        if let Some((digest, from)) = mount {
            path.push_str(&format!("?mount={digest}&from={}", from.repository()));
        }
        let scopes = Scopes::push(self.repository, mount.map(|(_, from)| from));
        let mut ask = Ask::new(Method::POST, path, &scopes, &self.what);
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        ask.retry = self.retry;
        let response = self.shared.send(&self.host, &ask).await?;
        match response.status() {
            StatusCode::CREATED if mount.is_some() => return Ok(true),
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

    /// Ends the upload with the last `size` bytes of the blob `digest`.
    pub(super) async fn finish(
        &mut self,
        feed: &Feed,
        size: u64,
        digest: Digest,
    ) -> Result<(), Error> {
        let Some(place) = &self.place else { return Err(self.lost()) };
        let mut url = place.url.clone();
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let response = self.exchange(Method::PUT, url, feed, size, HeaderMap::new()).await?;
        self.place = None;
        same_digest(&response, digest, &self.what)
    }

    /// Sends a chunk of `size` bytes of those that the registry does not have; how many it has then, of which it cannot
    /// have more than `most`.
    pub(super) async fn patch(&mut self, feed: &Feed, size: u64, most: u64) -> Result<u64, Error> {
        let Some(place) = &self.place else { return Err(self.lost()) };
        let sent = place.sent;
        let mut headers = HeaderMap::new();
        let range = format!("{sent}-{}", sent + size - 1);
        headers.extend(HeaderValue::from_str(&range).ok().map(|value| (CONTENT_RANGE, value)));
        let url = place.url.clone();
        let response = self.exchange(Method::PATCH, url, feed, size, headers).await?;
        // Nothing after a chunk means that the registry counts otherwise.
        let stored = stored(response.headers()).filter(|stored| *stored > 0);
        let next = self.location(&response)?;
        let stored = stored.unwrap_or(sent + size);
        if stored > most || stored <= sent {
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
        &mut self,
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
        self.is_sending = true;
        let sent = send_body(self.shared, &self.host, &request, feed, size).await;
        self.is_sending = sent.is_err();
        if let Some(error) = feed.failure() {
            return Err(self.unreadable(error));
        }
        let response = check_status(&self.host, &request, sent?, &ask).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Err(self.lost()),
            _ => Ok(response),
        }
    }

    /// That the bytes to send cannot be read.
    pub(super) fn unreadable(&self, source: io::Error) -> Error {
        Error::Source { what: self.what.clone(), source }
    }

    /// That the registry knows nothing of the upload.
    pub(super) fn lost(&self) -> Error {
        Error::NotFound { what: format!("upload of {}", self.what), lacks_repository: false }
    }

    /// Tells the registry that the upload will not go on. Whether it hears that does not matter: it forgets
    /// uploads in time.
    pub(super) async fn cancel(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut ask = Ask::new(Method::DELETE, place.url.to_string(), &self.scopes, &self.what);
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        ask.retry = false;
        if self.is_sending {
            tokio::time::sleep(NOTICE).await;
        }
        let _ = tokio::time::timeout(FAREWELL, self.shared.send(&self.host, &ask)).await;
    }

    /// Finds out how much of the upload the registry has, at most `most` bytes, after something broke; where it does
    /// not know, a new one will begin.
    pub(super) async fn ask_how_far(&mut self, most: u64) {
        let Some(place) = &self.place else { return };
        let ask = Ask::new(Method::GET, place.url.to_string(), &self.scopes, &self.what);
        let answer = self.shared.send(&self.host, &ask).await;
        let Some(mut place) = self.place.take() else { return };
        let Ok(response) = answer else { return };
        let is_known = [StatusCode::NO_CONTENT, StatusCode::ACCEPTED].contains(&response.status());
        let Some(sent) = stored(response.headers()).filter(|sent| is_known && *sent <= most) else {
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
pub(crate) fn stored(headers: &HeaderMap) -> Option<u64> {
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
                let answer = answer.map_err(|error| host.advise(broken(&host.name, request, error)))?;
                shared.hear(host, &answer);
                return Ok(answer);
            }
            () = tokio::time::sleep(shared.options.read_timeout) => {
                let now = feed.taken();
                if now == seen {
                    return Err(silent(&host.name, request, shared.options.read_timeout));
                }
                seen = now;
            }
        }
    }
}
