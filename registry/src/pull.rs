//! Reading: documents by name, blobs as verified streams.
//!
//! A blob comes through tasks of the runtime and a bounded channel; see [`download`](crate::download).

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use llb::image::Descriptor;
use llb::{Digest, Reference};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tree::codec::Sha256;

use crate::Error;
use crate::auth::Scopes;
use crate::client::Core;
use crate::manifest::{self, Document, LARGEST_DOCUMENT};
use crate::place::{Giver, Place};
use crate::progress::Meter;
use crate::session::{Ask, Host, Shared};
use crate::transport::{Request, bad_answer, broken, silent, too_slow};

/// Chunks that wait between the network and the reader. A chunk is what one read of the socket gave, at
/// most about 400 KiB.
const CHUNKS: usize = 8;

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Why a body could not be read whole.
#[derive(Debug)]
pub(crate) enum BodyProblem {
    TooLarge,
    Silent(Duration),
    /// Fewer bytes came than a download that will ever end has.
    Slow {
        got: u64,
        within: Duration,
    },
    Broken(reqwest::Error),
}

impl BodyProblem {
    pub(crate) fn into_error(
        self,
        host: &str,
        request: &Request,
        what: &str,
        limit: usize,
    ) -> Error {
        match self {
            Self::TooLarge => Error::TooLarge { what: what.to_owned(), limit: limit as u64 },
            Self::Silent(timeout) => silent(host, request, timeout),
            Self::Slow { got, within } => {
                let within = within.as_secs_f32();
                too_slow(
                    host,
                    request,
                    format!("only {got} bytes were received in {within} seconds"),
                )
            }
            Self::Broken(error) => broken(host, request, error),
        }
    }
}

/// Reads a short body. A server that drips bytes is given four read timeouts in all.
pub(crate) async fn read_body(
    response: &mut Response,
    limit: usize,
    timeout: Duration,
) -> Result<Vec<u8>, BodyProblem> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(BodyProblem::TooLarge);
    }
    let mut body = Vec::new();
    let all = async {
        while let Some(chunk) = next_chunk(response, timeout).await? {
            if body.len() + chunk.len() > limit {
                return Err(BodyProblem::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let whole = timeout.saturating_mul(4);
    tokio::time::timeout(whole, all).await.map_err(|_| BodyProblem::Silent(whole))??;
    Ok(body)
}

async fn next_chunk(
    response: &mut Response,
    timeout: Duration,
) -> Result<Option<Bytes>, BodyProblem> {
    let chunk = tokio::time::timeout(timeout, response.chunk()).await;
    chunk.map_err(|_| BodyProblem::Silent(timeout))?.map_err(BodyProblem::Broken)
}

/// What `reference` is asked for by under `manifests/`.
pub(crate) fn version(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// The digest that an answer claims for its document.
pub(crate) fn claimed_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}

fn manifest_ask<'a>(
    method: Method,
    reference: &Reference,
    scopes: &'a Scopes,
    what: &'a str,
) -> Ask<'a> {
    let path = format!("{}/manifests/{}", reference.repository(), version(reference));
    let mut ask = Ask::new(method, path, scopes, what);
    ask.headers.insert(ACCEPT, HeaderValue::from_static(manifest::ACCEPT));
    ask
}

/// The descriptor of what `reference` names, by HEAD; `None` when the registry does not tell enough.
pub(crate) async fn head(shared: &Shared, place: &Place) -> Result<Option<Descriptor>, Error> {
    let Place { host, reference, is_last } = place;
    let (scopes, what) = (Scopes::pull(reference), reference.to_string());
    let mut ask = manifest_ask(Method::HEAD, reference, &scopes, &what);
    ask.retry = *is_last;
    let response = match shared.send(host, &ask).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            return Err(Error::NotFound { what, lacks_repository: false });
        }
        Ok(response) => response,
        // Some registries do not know HEAD here.
        Err(Error::BadAnswer { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let text =
        |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let size = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let media_type =
        text(CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let (Some(digest), Some(size), Some(media_type)) =
        (claimed_digest(response.headers()), size, media_type)
    else {
        return Ok(None);
    };
    if size > LARGEST_DOCUMENT {
        return Err(Error::TooLarge { what, limit: LARGEST_DOCUMENT });
    }
    if reference.digest().is_some_and(|wanted| wanted != digest) {
        return Ok(None);
    }
    Ok(Some(manifest::descriptor(media_type.to_owned(), digest, size)))
}

/// The manifest or index that the reference names, verified if it names a digest.
pub(crate) async fn document(shared: &Shared, place: &Place) -> Result<Document, Error> {
    let Place { host, reference, is_last } = place;
    let (scopes, what) = (Scopes::pull(reference), reference.to_string());
    let mut ask = manifest_ask(Method::GET, reference, &scopes, &what);
    ask.retry = *is_last;
    let request = shared.request(host, &ask).await?;
    let wanted = |headers: &HeaderMap| reference.digest().or_else(|| claimed_digest(headers));
    let (bytes, headers) =
        short_body(shared, host, &ask, &request, LARGEST_DOCUMENT as usize, wanted).await?;
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Document::new(bytes, content_type).map_err(|answer| bad_answer(&host.name, &request, answer))
}

/// A whole blob of at most `limit` bytes, verified.
pub(crate) async fn small_blob(
    shared: &Shared,
    place: &Place,
    blob: &Descriptor,
    limit: u64,
) -> Result<Vec<u8>, Error> {
    let Place { host, reference: repository, is_last } = place;
    let (scopes, what) = (Scopes::pull(repository), blob_name(repository, blob.digest));
    if blob.size > limit {
        return Err(Error::TooLarge { what, limit });
    }
    let mut ask = Ask::new(Method::GET, blob_path(repository, blob.digest), &scopes, &what);
    ask.retry = *is_last;
    let request = shared.request(host, &ask).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (bytes, _) = short_body(shared, host, &ask, &request, limit, |_| Some(blob.digest)).await?;
    Ok(bytes)
}

/// Body and headers of the answer to `ask`; a body that breaks off, or that has not the digest `wanted`, is asked
/// for again.
async fn short_body(
    shared: &Shared,
    host: &Host,
    ask: &Ask<'_>,
    request: &Request,
    limit: usize,
    wanted: impl Fn(&HeaderMap) -> Option<Digest>,
) -> Result<(Vec<u8>, HeaderMap), Error> {
    let mut attempt = 0;
    loop {
        let mut response = shared.send(host, ask).await?;
        if response.status() == StatusCode::NOT_FOUND {
            let said = crate::session::said(response).await;
            let lacks_repository = said.is_some_and(|said| said.code == "NAME_UNKNOWN");
            return Err(Error::NotFound { what: ask.what.to_owned(), lacks_repository });
        }
        let problem = match read_body(&mut response, limit, shared.options.read_timeout).await {
            Ok(body) => {
                let digest = Digest::from_bytes(Sha256::digest(&body));
                match wanted(response.headers()).filter(|wanted| *wanted != digest) {
                    None => return Ok((body, response.headers().clone())),
                    Some(wanted) => wrong_digest(ask.what.to_owned(), wanted, digest),
                }
            }
            Err(problem) => problem.into_error(&host.name, request, ask.what, limit),
        };
        let Some(pause) = shared.pause(&problem, attempt).filter(|_| ask.retry) else {
            return Err(problem);
        };
        attempt += 1;
        tokio::time::sleep(pause).await;
    }
}

/// Whether the repository has the blob.
pub(crate) async fn blob_exists(
    shared: &Shared,
    repository: &Reference,
    digest: Digest,
    scopes: &Scopes,
) -> Result<bool, Error> {
    let (host, what) = (shared.push_host(repository)?, blob_name(repository, digest));
    let ask = Ask::new(Method::HEAD, blob_path(repository, digest), scopes, &what);
    Ok(shared.send(&host, &ask).await?.status().is_success())
}

/// For messages: `repository@digest`.
pub(crate) fn blob_name(repository: &Reference, digest: Digest) -> String {
    format!("{}@{digest}", repository.name())
}

pub(crate) fn blob_path(repository: &Reference, digest: Digest) -> String {
    format!("{}/blobs/{digest}", repository.repository())
}

fn wrong_digest(what: String, wanted: Digest, got: Digest) -> Error {
    Error::BadDigest { what, problem: format!("expected {wanted}, got {got}") }
}

/// A blob as a stream of bytes. Reading to the end means that size and digest are right.
///
/// Wrong bytes are an error in place of the end, so nothing that was read may be kept before that. The
/// error inside is an [`Error`]. May be read on any thread that is not part of an asynchronous runtime.
#[derive(Debug)]
pub struct BlobReader {
    chunks: mpsc::Receiver<Result<Bytes, Error>>,
    current: Bytes,
    hash: Hash,
    wanted: Digest,
    what: String,
    giver: Arc<Giver>,
    meter: Meter,
    /// Keeps the runtime, on which the sender runs.
    _core: Arc<Core>,
}

enum Hash {
    Running(Sha256),
    Verified,
    Failed,
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running(_) => "Running",
            Self::Verified => "Verified",
            Self::Failed => "Failed",
        })
    }
}

impl BlobReader {
    pub(crate) fn new(
        core: Arc<Core>,
        blob: &Descriptor,
        giver: Arc<Giver>,
        meter: Meter,
    ) -> (Self, mpsc::Sender<Result<Bytes, Error>>) {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let what = blob_name(giver.repository(), blob.digest);
        let hash = Hash::Running(Sha256::new());
        (
            Self {
                chunks,
                current: Bytes::new(),
                hash,
                wanted: blob.digest,
                what,
                giver,
                meter,
                _core: core,
            },
            sender,
        )
    }

    fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.hash, Hash::Failed) {
            Hash::Running(hash) => {
                let digest = Digest::from_bytes(hash.finish());
                if digest != self.wanted {
                    let error = wrong_digest(self.what.clone(), self.wanted, digest);
                    return Err(self.giver.judge(error).into_io());
                }
                self.hash = Hash::Verified;
                self.meter.end();
                Ok(())
            }
            Hash::Verified => {
                self.hash = Hash::Verified;
                Ok(())
            }
            Hash::Failed => {
                Err(io::Error::other(format!("{}: the download has failed before", self.what)))
            }
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return self.finish().map(|()| 0),
                Some(Err(error)) => {
                    self.hash = Hash::Failed;
                    return Err(error.into_io());
                }
                Some(Ok(chunk)) => {
                    if let Hash::Running(hash) = &mut self.hash {
                        hash.update(&chunk);
                    }
                    self.meter.add(chunk.len() as u64);
                    self.current = chunk;
                }
            }
        }
        let length = buffer.len().min(self.current.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}
