//! Git repositories.

use llb::op::SourceOp;

use crate::error::ErrorKind;

/// The source op of the repository behind `url`; `what` says what it is for.
///
/// # Errors
/// Always: git repositories can not be fetched yet.
pub(crate) fn source(url: &str, what: &'static str) -> Result<SourceOp, ErrorKind> {
    Err(ErrorKind::Unsupported { what, url: llb::url::redacted(url).into_owned() })
}
