//! Writing: blobs, then the manifests that name them.
//!
//! A blob is mounted from another repository of the registry or sent in one PUT, streamed. Whether a PUT
//! that broke has had its effect is not guessed but asked for: HEAD of the digest.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use llb::image::Descriptor;
use llb::{Digest, Reference};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tree::codec::Sha256;

use crate::Error;
use crate::auth::Scopes;
use crate::manifest;
use crate::pull::{blob_exists, blob_name, claimed_digest, version};
use crate::session::{Ask, Host, Shared, check_status};
use crate::transport::{Request, bad_answer, broken, follow, silent};

/// Bytes per piece of an upload, and pieces that wait between the reader and the network.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// Gives the bytes of a blob from the start, once per try.
pub(crate) type Source<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was there before.
    Existed,
    /// The registry took it from another repository.
    Mounted,
    /// Its bytes were sent.
    Uploaded,
}

/// What the registry made of the request to begin an upload.
enum Begun {
    Mounted,
    /// Where to send the bytes.
    At(Url),
}

/// Puts a blob into `repository`, in the cheapest way there is.
pub(crate) async fn push_blob(
    shared: &Shared,
    repository: &Reference,
    blob: &Descriptor,
    source: &Source<'_>,
    mount_from: Option<&Reference>,
) -> Result<Pushed, Error> {
    let scopes = Scopes::push(repository, None);
    if blob_exists(shared, repository, blob.digest, &scopes).await? {
        return Ok(Pushed::Existed);
    }
    let other = |from: &&Reference| {
        from.host() == repository.host() && from.repository() != repository.repository()
    };
    let mut begun = None;
    if let Some(from) = mount_from.filter(other) {
        // Without leave to read there, the registry may refuse: then the bytes are sent.
        let scopes = Scopes::push(repository, Some(from));
        begun = begin(shared, repository, blob.digest, &scopes, Some(from)).await.ok();
    }
    let (mut attempt, mut restarted) = (0, false);
    loop {
        let error = match upload(shared, repository, blob, source, &scopes, begun.take()).await {
            Ok(pushed) => return Ok(pushed),
            Err(error @ Error::Source { .. }) => return Err(error),
            Err(error) => error,
        };
        if blob_exists(shared, repository, blob.digest, &scopes).await.unwrap_or(false) {
            return Ok(Pushed::Uploaded);
        }
        // The upload may have outlived its token or its session; a new one has new ones.
        let lost =
            matches!(error, Error::Unauthorized { .. } | Error::NotFound { .. }) && !restarted;
        let pause = shared.pause(&error, attempt).or_else(|| lost.then(|| shared.backoff(0)));
        let Some(pause) = pause else { return Err(error) };
        restarted |= lost;
        attempt += 1;
        tokio::time::sleep(pause).await;
    }
}

async fn upload(
    shared: &Shared,
    repository: &Reference,
    blob: &Descriptor,
    source: &Source<'_>,
    scopes: &Scopes,
    begun: Option<Begun>,
) -> Result<Pushed, Error> {
    let begun = match begun {
        Some(begun) => begun,
        None => begin(shared, repository, blob.digest, scopes, None).await?,
    };
    match begun {
        Begun::Mounted => Ok(Pushed::Mounted),
        Begun::At(url) => {
            put(shared, repository, blob, source, scopes, url).await.map(|()| Pushed::Uploaded)
        }
    }
}

async fn begin(
    shared: &Shared,
    repository: &Reference,
    digest: Digest,
    scopes: &Scopes,
    mount_from: Option<&Reference>,
) -> Result<Begun, Error> {
    let (host, what) = (shared.push_host(repository)?, blob_name(repository, digest));
    let mut path = format!("{}/blobs/uploads/", repository.repository());
    if let Some(from) = mount_from {
        path.push_str(&format!("?mount={digest}&from={}", from.repository()));
    }
    let ask = Ask::new(Method::POST, path, scopes, &what);
    let response = shared.send(&host, &ask).await?;
    let request = Request::new(Method::POST, response.url().clone());
    match response.status() {
        StatusCode::CREATED if mount_from.is_some() => return Ok(Begun::Mounted),
        StatusCode::NOT_FOUND => return Err(Error::NotFound { what }),
        _ => {}
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| "began an upload without saying where".to_owned());
    let url = location.and_then(|location| follow(response.url(), location));
    let mut url = url.map_err(|problem| bad_answer(&host.name, &request, problem))?;
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    Ok(Begun::At(url))
}

/// Sends the bytes in one request.
async fn put(
    shared: &Shared,
    repository: &Reference,
    blob: &Descriptor,
    source: &Source<'_>,
    scopes: &Scopes,
    url: Url,
) -> Result<(), Error> {
    let (host, what) = (shared.push_host(repository)?, blob_name(repository, blob.digest));
    let mut ask = Ask::new(Method::PUT, url.to_string(), scopes, &what);
    ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    ask.headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
    let mut request = shared.request(&host, &ask).await?;
    if shared.is_own(&host, &request.url) {
        let header = shared.authorization(&host, scopes).await?;
        request.headers.extend(header.map(|value| (AUTHORIZATION, value)));
    }
    let unreadable = |error| Error::Source { digest: blob.digest, source: error };
    let feed = Feed::start(source().map_err(unreadable)?, blob.size);
    let sent = send_body(shared, &host, &request, feed.body, &feed.progress).await;
    let failure = feed.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(failure) = failure {
        return Err(unreadable(failure));
    }
    let response = check_status(&host, &request, sent?, &ask).await?;
    match response.status() {
        StatusCode::NOT_FOUND => Err(Error::NotFound { what }),
        _ => same_digest(&response, blob.digest, what),
    }
}

/// The registry may say what it has stored; that must be what was sent.
fn same_digest(response: &Response, sent: Digest, what: String) -> Result<(), Error> {
    match claimed_digest(response.headers()) {
        Some(stored) if stored != sent => {
            Err(Error::BadDigest { what, problem: format!("sent {sent}, but it stored {stored}") })
        }
        _ => Ok(()),
    }
}

/// Sends `request` with a streamed body. Ends it when nothing moves for the read timeout: a limit on the
/// whole would end every long upload.
async fn send_body(
    shared: &Shared,
    host: &Host,
    request: &Request,
    body: Body,
    progress: &AtomicU64,
) -> Result<Response, Error> {
    let client = shared.transport.client(request, &shared.options)?;
    let answer = client.request(request.method.clone(), request.url.clone());
    let answer = answer.headers(request.all_headers()).body(body).send();
    tokio::pin!(answer);
    let mut seen = 0;
    loop {
        tokio::select! {
            answer = &mut answer => {
                return answer.map_err(|error| host.advise(broken(&host.name, request, error)));
            }
            () = tokio::time::sleep(shared.options.read_timeout) => {
                let now = progress.load(Ordering::Relaxed);
                if now == seen {
                    return Err(silent(&host.name, request, shared.options.read_timeout));
                }
                seen = now;
            }
        }
    }
}

/// A blocking reader turned into a body.
struct Feed {
    body: Body,
    /// Pieces that the network has taken.
    progress: Arc<AtomicU64>,
    /// Why reading failed.
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Feed {
    fn start(mut reader: Box<dyn Read + Send>, size: u64) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let (progress, failure) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let failed = Arc::clone(&failure);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = feed(&mut *reader, size, &sender) {
                let copy = io::Error::new(error.kind(), error.to_string());
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // An error in the body ends the request; nobody may be left to see it.
                let _ = sender.blocking_send(Err(copy));
            }
        });
        let body = Body::wrap_stream(Pieces { pieces, progress: Arc::clone(&progress) });
        Self { body, progress, failure }
    }
}

/// Reads exactly `size` bytes into the channel; stops early when its other end is gone.
fn feed(
    reader: &mut dyn Read,
    size: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut left = size;
    while left > 0 {
        let mut piece = Vec::with_capacity(PIECE);
        let read = reader.take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
        if read == 0 {
            let text = format!("it has {} bytes instead of {size}", size - left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        left -= read as u64;
        if sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    if reader.read(&mut [0])? != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has more than {size} bytes"),
        ));
    }
    Ok(())
}

struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    progress: Arc<AtomicU64>,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.progress.fetch_add(1, Ordering::Relaxed);
        self.pieces.poll_recv(context)
    }
}

/// Puts a manifest or index under the tag of `reference`, or under its digest when it has no tag.
pub(crate) async fn push_manifest(
    shared: &Shared,
    reference: &Reference,
    media_type: &str,
    bytes: &[u8],
) -> Result<Descriptor, Error> {
    let (host, scopes, what) =
        (shared.push_host(reference)?, Scopes::push(reference, None), reference.to_string());
    let unusable = |problem: String| Error::Unusable { what: what.clone(), problem };
    let digest = Digest::from_bytes(Sha256::digest(bytes));
    if let Some(named) = reference.digest().filter(|named| *named != digest) {
        return Err(unusable(format!(
            "the manifest to push under {named} has the digest {digest}"
        )));
    }
    let content_type = HeaderValue::from_str(media_type)
        .map_err(|_| unusable("malformed media type".to_owned()))?;
    let name = match reference.tag() {
        Some(tag) => tag.to_owned(),
        None => version(&reference.with_digest(digest)),
    };
    let mut ask = Ask::new(
        Method::PUT,
        format!("{}/manifests/{name}", reference.repository()),
        &scopes,
        &what,
    );
    ask.headers.insert(CONTENT_TYPE, content_type);
    ask.body = Some(bytes.to_vec());
    let response = shared.send(&host, &ask).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(Error::NotFound { what });
    }
    same_digest(&response, digest, what)?;
    Ok(manifest::descriptor(media_type.to_owned(), digest, bytes.len() as u64))
}
