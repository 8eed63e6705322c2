//! Writing: blobs, then the manifests that name them.
//!
//! A blob is mounted from another repository of the registry or uploaded; see [`upload`](crate::upload). Whether
//! a request that broke has had its effect is not guessed but asked for.

use std::io::{self, Read};

use llb::image::Descriptor;
use llb::{Digest, Reference};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tree::codec::Sha256;

use crate::Error;
use crate::auth::Scopes;
use crate::manifest;
use crate::place::Place;
use crate::pull::{self, blob_exists, claimed_digest, version};
use crate::session::{Ask, Shared, message};
use crate::upload::Upload;

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

/// Puts a blob into `repository`, in the cheapest way there is. When it fails, the upload is to be cancelled.
pub(crate) async fn push_blob(
    shared: &Shared,
    repository: &Reference,
    blob: &Descriptor,
    upload: &mut Upload<'_>,
    mount_from: Option<&Reference>,
) -> Result<Pushed, Error> {
    let scopes = Scopes::push(repository, None);
    if blob_exists(shared, repository, blob.digest, &scopes).await? {
        return Ok(Pushed::Existed);
    }
    let other = |from: &&Reference| {
        from.host() == repository.host() && from.repository() != repository.repository()
    };
    if let Some(from) = mount_from.filter(other) {
        // Without leave to read there, the registry may refuse: then the bytes are sent.
        if upload.mount(from).await.unwrap_or(false) {
            return Ok(Pushed::Mounted);
        }
    }
    let (mut attempt, mut restarted) = (0, false);
    loop {
        let error = match upload.send().await {
            Ok(()) => {
                upload.meter().end();
                return Ok(Pushed::Uploaded);
            }
            Err(error @ (Error::Source { .. } | Error::UnknownRepository { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        if blob_exists(shared, repository, blob.digest, &scopes).await.unwrap_or(false) {
            upload.meter().end();
            return Ok(Pushed::Uploaded);
        }
        if upload.takes_smaller(&error) {
            // What the registry made of the bytes that it refused is not known.
            upload.cancel().await;
            continue;
        }
        // The upload may have outlived its token or its session, or the registry has other bytes of it than
        // it seemed; a new one has new ones.
        let lost = !restarted
            && matches!(
                error,
                Error::Unauthorized { .. }
                    | Error::NotFound { .. }
                    | Error::BadAnswer { status: Some(400 | 416), .. }
            );
        let pause = shared.pause(&error, attempt).or_else(|| lost.then(|| shared.backoff(0)));
        let Some(pause) = pause else { return Err(error) };
        restarted |= lost;
        attempt += 1;
        tokio::time::sleep(pause).await;
        upload.ask_how_far().await;
    }
}

/// The registry may say what it has stored; that must be what was sent.
pub(crate) fn same_digest(response: &Response, sent: Digest, what: &str) -> Result<(), Error> {
    match claimed_digest(response.headers()) {
        Some(stored) if stored != sent => {
            let problem = format!("sent {sent}, but it stored {stored}");
            Err(Error::BadDigest { what: what.to_owned(), problem })
        }
        _ => Ok(()),
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
    let pushed = manifest::descriptor(media_type.to_owned(), digest, bytes.len() as u64);
    let outcome = match shared.send(&host, &ask).await {
        Ok(response) if response.status() == StatusCode::NOT_FOUND => {
            Err(Error::UnknownRepository {
                host: host.name.clone(),
                what: reference.name(),
                message: message(response).await,
            })
        }
        Ok(response) => same_digest(&response, digest, &what),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Ok(pushed),
        // It may have been stored although the answer was lost, or before by somebody else under a tag that
        // the registry does not let anybody move.
        Err(error) if is_there(shared, reference, &pushed).await => {
            drop(error);
            Ok(pushed)
        }
        Err(error) => Err(error),
    }
}

/// Whether the registry has this very document under this name.
async fn is_there(shared: &Shared, reference: &Reference, pushed: &Descriptor) -> bool {
    let named = match reference.tag() {
        Some(_) => reference.clone(),
        None => reference.with_digest(pushed.digest),
    };
    let Ok(host) = shared.push_host(reference) else { return false };
    let place = Place { host, reference: named, is_last: true };
    let found = pull::head(shared, &place).await;
    found.is_ok_and(|found| found.is_some_and(|found| found.digest == pushed.digest))
}
