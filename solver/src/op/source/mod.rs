//! Sources: where the trees of a definition come from. Each kind is a module of its own, found by the scheme of
//! the source's identifier.

mod archive;
pub(crate) mod git;
mod http;
pub(crate) mod image;
pub(crate) mod local;

use cache::Key;
use llb::Platform;
use llb::op::SourceOp;
use llb::url::redacted;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;

pub(crate) use archive::{Archive, keep as keep_archive};
pub(crate) use http::{Downloads, Progress};
pub(crate) use local::{is_local, materialise};

/// Kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// A folder of the user's, read in place.
    Local,
    /// An image that the job has resolved.
    Image,
    /// A commit of a git repository.
    Git,
    /// A file behind a URL.
    Http,
    /// An archive that the caller handed over.
    Archive,
}

fn scheme(source: &SourceOp) -> Result<Scheme, OpError> {
    match source.identifier.split("://").next() {
        Some("local") => Ok(Scheme::Local),
        Some("docker-image" | "oci-layout") => Ok(Scheme::Image),
        Some("git") => Ok(Scheme::Git),
        Some("http" | "https") => Ok(Scheme::Http),
        Some("archive") => Ok(Scheme::Archive),
        _ => Err(OpError::NotSupported(format!("the source `{}`", source.identifier))),
    }
}

/// Whether a source is brought from elsewhere while the job runs, so that the user waits for it.
pub(crate) fn is_remote(source: &SourceOp) -> bool {
    matches!(scheme(source), Ok(Scheme::Git | Scheme::Http))
}

/// Whether a source is an image.
pub(crate) fn is_image(source: &SourceOp) -> bool {
    matches!(scheme(source), Ok(Scheme::Image))
}

/// Whether a source is a step like any other: looked up by its keys, made when it is needed, and kept.
pub(crate) fn is_fetched(source: &SourceOp) -> bool {
    matches!(scheme(source), Ok(Scheme::Git))
}

/// Finds out what is needed for the keys of a remote source, unless that takes the whole transfer. `begin` is called
/// before anything is asked.
pub(crate) fn prepare(
    job: &JobInner,
    source: &SourceOp,
    progress: &Progress<'_>,
    begin: &dyn Fn(),
) -> Result<(), OpError> {
    match scheme(source)? {
        Scheme::Local | Scheme::Image | Scheme::Archive => Ok(()),
        Scheme::Git => git::prepare(job, source, progress, begin),
        Scheme::Http => http::prepare(job, source, begin),
    }
}

/// The tree that a source stands for. Of a folder or an image nothing is fetched or read yet.
pub(crate) fn value(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
    progress: &Progress<'_>,
) -> Result<Value, OpError> {
    let _span = is_remote(source)
        .then(|| tree::trace::span("fetch", || redacted(&source.identifier).into_owned()));
    match scheme(source)? {
        Scheme::Local => local::value(job, source),
        Scheme::Image => {
            job.engine.providers.tell(&source.identifier, &job.events, progress.vertex);
            image::value(job, source, platform)
        }
        Scheme::Git => git::checkout(job, source, progress).map(Value::Tree),
        Scheme::Http => http::value(job, source, progress),
        Scheme::Archive => archive::value(job, source),
    }
}

/// The time of what a source brings, in seconds since the epoch; `None` when it has none of its own.
pub(crate) fn time(job: &JobInner, source: &SourceOp) -> Result<Option<i64>, OpError> {
    match scheme(source)? {
        Scheme::Local | Scheme::Image => Ok(None),
        Scheme::Git => git::time(job, source).map(Some),
        Scheme::Http => http::time(job, source),
        Scheme::Archive => archive::time(job, source),
    }
}

/// What a source brought, as far as that is known: the kind of hash, and the hash in hexadecimal digits. Of an image it is
/// part of its name, and a folder has none.
pub(crate) fn hash(
    job: &JobInner,
    source: &SourceOp,
) -> Result<Option<(&'static str, String)>, OpError> {
    match scheme(source)? {
        Scheme::Local | Scheme::Image | Scheme::Archive => Ok(None),
        Scheme::Git => git::commit(job, source).map(|commit| Some(("sha1", commit))),
        Scheme::Http => Ok(http::digest(job, source)?.map(|digest| ("sha256", digest.hex()))),
    }
}

/// Keys of a source, as far as they are known. A folder has none, only its content counts; a file that has not been
/// transferred yet may have none so far.
pub(crate) fn keys(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Vec<Key>, OpError> {
    match scheme(source)? {
        Scheme::Local => Ok(Vec::new()),
        Scheme::Image => image::keys(job, source, platform),
        Scheme::Git => Ok(vec![git::key(job, source)?]),
        Scheme::Http => http::keys(job, source),
        Scheme::Archive => archive::keys(source),
    }
}
