//! From the name of a ref to a commit.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::{Arc, Mutex, PoisonError};

use llb::GitUrl;

use super::command::{Call, Git, last_words};
use super::error::{GitError, Trouble};
use super::repository::Repository;
use super::request::{is_commit, is_hex};
use crate::error::OpError;

/// Shortest beginning of a commit id that is taken for one.
const SHORTEST: usize = 4;

/// What a ref is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// What it names: a commit, or an annotated tag.
    pub(super) object: String,
    /// The commit.
    pub(super) commit: String,
    /// Full name of the ref, unless it is a commit itself.
    pub(super) name: Option<String>,
}

impl Resolved {
    /// A commit that is known by itself.
    pub(super) fn commit(id: &str) -> Self {
        Self { object: id.to_owned(), commit: id.to_owned(), name: None }
    }
}

/// The answer about one ref, kept for who asks while another does.
type Slot = Arc<Mutex<Option<Resolved>>>;

/// What a job has found out so far: each ref is asked for once.
#[derive(Default)]
pub(crate) struct Answers {
    /// By address and name of the ref.
    known: Mutex<HashMap<(String, String), Slot>>,
}

impl Answers {
    fn slot(&self, url: &GitUrl, reference: &str) -> Slot {
        let key = (url.with_credentials(), reference.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(key).or_default())
    }

    /// Whether a ref has been asked for.
    pub(super) fn has(&self, url: &GitUrl, reference: &str) -> bool {
        let slot = self.slot(url, reference);
        slot.try_lock().is_ok_and(|found| found.is_some())
    }
}

/// Finds the commit of a source, and makes sure that it is the one it must be.
///
/// # Errors
/// When the repository cannot be asked, has no such ref, or the commit is another.
pub(super) fn resolve(git: &Git<'_>) -> Result<Resolved, OpError> {
    let request = git.request;
    let pinned = request.checksum.as_ref().filter(|_| request.is_pinned);
    let found = if let Some(commit) = pinned {
        let name = canonical(&request.reference);
        Resolved { name, ..Resolved::commit(commit) }
    } else if is_commit(&request.reference) {
        Resolved::commit(&request.reference.to_ascii_lowercase())
    } else {
        let slot = git.job.git.slot(&request.url, &request.reference);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(known) => known.clone(),
            None => slot.insert(ask(git)?).clone(),
        }
    };
    check(request.checksum.as_deref(), &found)?;
    Ok(found)
}

/// Compares what was found with the beginning of the id that it must have.
fn check(checksum: Option<&str>, found: &Resolved) -> Result<(), GitError> {
    let Some(wanted) = checksum else { return Ok(()) };
    if found.object.starts_with(wanted) || found.commit.starts_with(wanted) {
        return Ok(());
    }
    let other =
        if found.commit == found.object { String::new() } else { format!(" or {}", found.commit) };
    Err(GitError::Checksum { wanted: wanted.to_owned(), found: format!("{}{other}", found.object) })
}

/// Full name of a ref that is not asked for: a branch, if it does not say what it is.
fn canonical(reference: &str) -> Option<String> {
    if reference.is_empty() || is_commit(reference) {
        return None;
    }
    let is_full = reference.starts_with("refs/");
    Some(if is_full { reference.to_owned() } else { format!("refs/heads/{reference}") })
}

/// Asks the repository.
fn ask(git: &Git<'_>) -> Result<Resolved, OpError> {
    let (url, reference) = (&git.request.url, git.request.reference.as_str());
    let address = url.without_credentials();
    let tag = format!("{reference}^{{}}");
    let words: Vec<&OsStr> = if reference.is_empty() {
        ["ls-remote", "--symref", "--", &address, "HEAD"].map(OsStr::new).into()
    } else {
        ["ls-remote", "--", &address, reference, &tag].map(OsStr::new).into()
    };
    let ran = git.run(&Call { words, remote: Some(url), ..Call::default() })?;
    if !ran.is_ok {
        return Err(remote_error(url, &ran.words).into());
    }
    let listing = String::from_utf8_lossy(&ran.output);
    let found = if reference.is_empty() { pick_head(&listing) } else { pick(&listing, reference) };
    let found = match found {
        Some(found) => found,
        None if is_hex(reference) && reference.len() >= SHORTEST => Resolved::commit(
            &Repository::open(git, url, "sha1")?.complete(&reference.to_ascii_lowercase())?,
        ),
        None => {
            let name = if reference.is_empty() { "HEAD" } else { reference }.to_owned();
            return Err(GitError::NoRef { url: url.to_string(), name }.into());
        }
    };
    if !is_commit(&found.object) || !is_commit(&found.commit) {
        return Err(GitError::NoRef { url: url.to_string(), name: reference.to_owned() }.into());
    }
    let name = found.name.as_deref().unwrap_or(&found.object);
    (git.log)(format!("{}\t{name}\n", found.commit).as_bytes());
    Ok(found)
}

/// The error of a repository that cannot be asked.
pub(super) fn remote_error(url: &GitUrl, words: &str) -> GitError {
    let (trouble, message) = (Trouble::of(words, url), last_words(words));
    GitError::Remote { url: url.to_string(), trouble, message }
}

/// Ids and names of a listing of refs.
fn lines(listing: &str) -> impl Iterator<Item = (&str, &str)> {
    listing.lines().filter_map(|line| line.split_once('\t'))
}

/// The default branch.
fn pick_head(listing: &str) -> Option<Resolved> {
    let branch = lines(listing).find_map(|(target, name)| {
        target.strip_prefix("ref: ").filter(|_| name == "HEAD").map(str::to_owned)
    });
    let (id, _) = lines(listing).find(|(id, name)| *name == "HEAD" && !id.starts_with("ref: "))?;
    Some(Resolved { name: branch, ..Resolved::commit(id) })
}

/// What a name stands for, as the reference builder has it: the ref of just this name below `refs/`, else
/// the branch, else the tag. The listing also has refs that only end in the name.
fn pick(listing: &str, reference: &str) -> Option<Resolved> {
    let id = |name: &str| {
        lines(listing).find(|(_, listed)| *listed == name).map(|(id, _)| id.to_owned())
    };
    let below =
        |folder: &str| format!("{folder}{}", reference.strip_prefix(folder).unwrap_or(reference));
    for folder in ["refs/", "refs/heads/", "refs/tags/"] {
        let name = below(folder);
        if let Some(object) = id(&name) {
            // An annotated tag is listed twice: itself, and what it tags.
            let commit = id(&format!("{name}^{{}}")).filter(|_| name.starts_with("refs/tags/"));
            let commit = commit.unwrap_or_else(|| object.clone());
            return Some(Resolved { object, commit, name: Some(name) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "1111\trefs/heads/main\n2222\trefs/heads/x/main\n3333\trefs/tags/v1\n4444\trefs/tags/v1^{}\n5555\trefs/tags/both\n6666\trefs/heads/both\n7777\trefs/pull/1/head\n";

    #[track_caller]
    fn check_pick(reference: &str, expect: &str) {
        let found = pick(LISTING, reference);
        let actual = found.map_or("none".to_owned(), |found| {
            format!("{} {} {}", found.object, found.commit, found.name.unwrap_or_default())
        });
        assert_eq!(actual, expect, "{reference}");
    }

    #[test]
    fn names_are_looked_up_as_by_the_reference() {
        check_pick("main", "1111 1111 refs/heads/main");
        check_pick("refs/heads/main", "1111 1111 refs/heads/main");
        check_pick("heads/main", "1111 1111 refs/heads/main");
        check_pick("v1", "3333 4444 refs/tags/v1");
        check_pick("refs/tags/v1", "3333 4444 refs/tags/v1");
        check_pick("both", "6666 6666 refs/heads/both");
        check_pick("tags/both", "5555 5555 refs/tags/both");
        check_pick("pull/1/head", "7777 7777 refs/pull/1/head");
        check_pick("refs/pull/1/head", "7777 7777 refs/pull/1/head");
        check_pick("ain", "none");
        check_pick("head", "none");
    }

    #[test]
    fn the_default_branch_is_what_head_says() {
        let found = pick_head("ref: refs/heads/dev\tHEAD\n9999\tHEAD\n").unwrap();
        assert_eq!(
            (found.object.as_str(), found.name.as_deref()),
            ("9999", Some("refs/heads/dev"))
        );
        assert_eq!(pick_head("9999\tHEAD\n").unwrap().name, None);
        assert_eq!(pick_head(""), None);
    }

    #[test]
    fn checksums_may_be_of_the_tag_or_the_commit() {
        let tag = pick(LISTING, "v1").unwrap();
        assert!(check(Some("33"), &tag).is_ok() && check(Some("44"), &tag).is_ok());
        assert_eq!(
            check(Some("11"), &tag).unwrap_err().to_string(),
            "expected checksum to match 11, got 3333 or 4444"
        );
        let branch = pick(LISTING, "main").unwrap();
        assert_eq!(
            check(Some("22"), &branch).unwrap_err().to_string(),
            "expected checksum to match 22, got 1111"
        );
    }
}
