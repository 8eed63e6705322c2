//! Git repositories.
//!
//! ```text
//! request     what the source op asks for           submodule  what .gitmodules says
//! resolve     from a ref to a commit                command    git itself, on a short leash
//! repository  bare repositories, kept in the store  checkout   from a commit to a layer
//! ```
//!
//! A source is known by its commit and by how it is checked out, never by its address: a commit that was
//! checked out before is not fetched again, wherever it was fetched from.

mod checkout;
mod command;
mod error;
mod repository;
mod request;
mod resolve;
mod submodule;

use cache::{Key, KeyBuilder, Ref};
use llb::op::SourceOp;

use crate::engine::JobInner;
use crate::error::OpError;
use crate::op::source::Progress;
use command::{Git, Log};
use request::Request;
use resolve::Resolved;

pub use command::GitOptions;
pub use error::{GitError, Trouble};
pub(crate) use resolve::Answers;

/// Finds the commit of a source, unless it is one; `begin` is called before anybody is asked.
///
/// # Errors
/// When the repository cannot be asked, has no such ref, or the commit is another.
pub(super) fn prepare(
    job: &JobInner,
    source: &SourceOp,
    progress: &Progress<'_>,
    begin: &dyn Fn(),
) -> Result<(), OpError> {
    let request = Request::new(source)?;
    let is_known = request.is_pinned || request::is_commit(&request.reference);
    if !is_known && !job.git.has(&request.url, &request.reference) {
        begin();
    }
    with_resolved(job, source, &|words| progress.log(words), |_, _| Ok(()))
}

/// The key of a source: its commit and how it is checked out.
///
/// # Errors
/// As [`prepare`].
pub(super) fn key(job: &JobInner, source: &SourceOp) -> Result<Key, OpError> {
    with_resolved(job, source, &|_| {}, |git, resolved| Ok(key_of(git.request, resolved)))
}

/// The files of a source, as a layer.
///
/// # Errors
/// When they cannot be fetched or written.
pub(super) fn checkout(
    job: &JobInner,
    source: &SourceOp,
    progress: &Progress<'_>,
) -> Result<Ref, OpError> {
    let log = |words: &[u8]| progress.log(words);
    with_resolved(job, source, &log, |git, resolved| match checkout::checkout(git, resolved) {
        // A repository of the store that turned out damaged has been made anew by the second time.
        Err(OpError::Git(error)) if error.is_local() => checkout::checkout(git, resolved),
        other => other,
    })
}

/// When the commit of a source was made, in seconds since the epoch.
///
/// # Errors
/// When it cannot be fetched.
pub(super) fn time(job: &JobInner, source: &SourceOp) -> Result<i64, OpError> {
    with_resolved(job, source, &|_| {}, checkout::commit_time)
}

/// The commit of a source.
///
/// # Errors
/// As [`prepare`].
pub(super) fn commit(job: &JobInner, source: &SourceOp) -> Result<String, OpError> {
    with_resolved(job, source, &|_| {}, |_, resolved| Ok(resolved.commit.clone()))
}

fn with_resolved<T>(
    job: &JobInner,
    source: &SourceOp,
    log: &Log<'_>,
    body: impl FnOnce(&Git<'_>, &Resolved) -> Result<T, OpError>,
) -> Result<T, OpError> {
    let request = Request::new(source)?;
    let git = Git { job, request: &request, log };
    let resolved = resolve::resolve(&git)?;
    body(&git, &resolved)
}

/// Everything that changes a checkout. An annotated tag and its commit have the same files, but not the
/// same repository.
fn key_of(request: &Request, resolved: &Resolved) -> Key {
    let key = KeyBuilder::new("git.v1").str(&request.subdir.join("/"));
    let key = key.bool(request.has_submodules).bool(request.has_commit_time);
    if !request.keeps_git_dir {
        return key.bool(false).str(&resolved.commit).finish();
    }
    let name = resolved.name.as_deref().unwrap_or(&resolved.object);
    key.bool(true).str(&resolved.object).str(name).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_the_commit_and_of_how_it_is_checked_out() {
        let key = |identifier: &str, attrs: &[&str], object: &str, commit: &str, name: &str| {
            let attrs = attrs.iter().map(|attr| {
                let (key, value) = attr.split_once('=').unwrap();
                (format!("git.{key}"), value.to_owned())
            });
            let source = SourceOp { identifier: identifier.to_owned(), attrs: attrs.collect() };
            let (object, commit) = (object.to_owned(), commit.to_owned());
            let resolved = Resolved { object, commit, name: Some(name.to_owned()) };
            key_of(&Request::new(&source).unwrap(), &resolved)
        };
        let plain = key("git://h/r#v1", &[], "tag", "commit", "refs/tags/v1");
        let same = [
            key(
                "git://other/r#main",
                &["fullurl=ssh://git@other/r"],
                "commit",
                "commit",
                "refs/heads/main",
            ),
            key(
                "git://h/r#v1:/./",
                &["checksum=c0", "mtime=checkout"],
                "tag",
                "commit",
                "refs/tags/v1",
            ),
        ];
        assert!(same.iter().all(|key| *key == plain));
        let kept = &["keepgitdir=true"];
        let others = [
            key("git://h/r#v1", &[], "tag", "commit2", "refs/tags/v1"),
            key("git://h/r#v1:sub", &[], "tag", "commit", "refs/tags/v1"),
            key("git://h/r#v1", &["skipsubmodules=true"], "tag", "commit", "refs/tags/v1"),
            key("git://h/r#v1", &["mtime=commit"], "tag", "commit", "refs/tags/v1"),
            key("git://h/r#v1", kept, "tag", "commit", "refs/tags/v1"),
            key("git://h/r#v1", kept, "commit", "commit", "refs/tags/v1"),
            key("git://h/r#v1", kept, "tag", "commit", "refs/tags/v2"),
        ];
        for (index, one) in others.iter().enumerate() {
            assert!(*one != plain && !others[..index].contains(one), "{index}");
        }
        assert_eq!(key("git://h/r#v1:sub", kept, "tag", "commit", "x"), others[1]);
    }
}
