//! Sources: where the trees of a definition come from. Each kind is a module of its own, found by the scheme of
//! the source's identifier.

pub(crate) mod image;
pub(crate) mod local;

use cache::Key;
use llb::Platform;
use llb::op::SourceOp;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::value::Value;

pub(crate) use local::{is_local, materialise};

/// Kinds of source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// A folder of the user's, read in place.
    Local,
    /// An image that the job has resolved.
    Image,
}

fn scheme(source: &SourceOp) -> Result<Scheme, OpError> {
    match source.identifier.split("://").next() {
        Some("local") => Ok(Scheme::Local),
        Some("docker-image" | "oci-layout") => Ok(Scheme::Image),
        _ => Err(OpError::NotSupported(format!("the source `{}`", source.identifier))),
    }
}

/// The tree that a source stands for. Of a folder or an image nothing is fetched or read yet.
pub(crate) fn value(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Value, OpError> {
    match scheme(source)? {
        Scheme::Local => local::value(job, source),
        Scheme::Image => image::value(job, source, platform),
    }
}

/// Keys of a source; a folder has none, only its content counts.
pub(crate) fn keys(
    job: &JobInner,
    source: &SourceOp,
    platform: Option<&Platform>,
) -> Result<Vec<Key>, OpError> {
    match scheme(source)? {
        Scheme::Local => Ok(Vec::new()),
        Scheme::Image => image::keys(job, source, platform),
    }
}
