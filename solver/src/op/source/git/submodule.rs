//! Submodules of a commit: where they belong, and which commit of which repository they are.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;

use llb::GitUrl;
use llb::url::redacted;

use super::command::Call;
use super::error::GitError;
use super::repository::Repository;
use super::request::is_commit;
use crate::error::OpError;

/// What begins an entry of a tree that is a commit of another repository.
const LINK: &str = "160000 ";

/// A submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Submodule {
    /// Where it belongs in the tree.
    pub(super) path: String,
    /// Its name, which is a path without `.` and `..`.
    pub(super) name: String,
    /// Where its repository is.
    pub(super) url: GitUrl,
    /// Its commit.
    pub(super) commit: String,
}

/// What `.gitmodules` says of one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Entry {
    name: String,
    url: Option<String>,
    is_off: bool,
}

/// What `.gitmodules` says, by path.
type Entries = HashMap<String, Entry>;

/// The submodules at or below `part` of a commit's tree; empty is all of it.
///
/// # Errors
/// When `.gitmodules` cannot be read, or says of one nothing, or nothing that is taken.
pub(super) fn submodules(
    repository: &Repository<'_>,
    parent: &GitUrl,
    commit: &str,
    part: &str,
) -> Result<Vec<Submodule>, OpError> {
    let mut words = vec!["ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit];
    words.extend(Some(part).filter(|part| !part.is_empty()));
    let words: Vec<&OsStr> = words.into_iter().map(OsStr::new).collect();
    let call = Call { records: Some(LINK), ..repository.call(&words) };
    let links = links(&repository.run("list a tree", &call)?.output);
    if links.is_empty() {
        return Ok(Vec::new());
    }
    let words = ["ls-tree", "-z", "--full-tree", "--end-of-options", commit, ".gitmodules"];
    let file = repository.read("list a tree", &words)?.line();
    // A symlink of this name says nothing.
    let listed = match file.strip_prefix("100").and_then(|file| file.split(['\t', ' ']).nth(2)) {
        None => Entries::new(),
        Some(blob) => {
            let blob = format!("--blob={blob}");
            let words = ["config", "--no-includes", &blob, "--null", "--list"];
            entries(&repository.read("read .gitmodules", &words)?.output)
        }
    };
    let mut found = Vec::new();
    for (path, commit) in links {
        found.extend(submodule(parent, listed.get(&path), path, commit)?);
    }
    Ok(found)
}

/// Puts together what is known of a submodule; `None` for one that is not to be fetched.
fn submodule(
    parent: &GitUrl,
    entry: Option<&Entry>,
    path: String,
    commit: String,
) -> Result<Option<Submodule>, GitError> {
    let unknown = || GitError::NoSubmoduleUrl { path: redacted(&path).into_owned() };
    let entry = entry.filter(|entry| is_plain(&entry.name) && is_plain(&path));
    let entry = entry.ok_or_else(unknown)?;
    if entry.is_off {
        return Ok(None);
    }
    let url = entry.url.as_ref().ok_or_else(unknown)?;
    let url = parent.join(url).map_err(|source| GitError::SubmoduleUrl {
        path: redacted(&path).into_owned(),
        url: redacted(url).into_owned(),
        source,
    })?;
    Ok(Some(Submodule { path, name: entry.name.clone(), url, commit }))
}

/// Whether a path has nothing in it that leads elsewhere.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && !path.starts_with('-')
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git"))
}

/// Paths and commits of the links in a listing of a tree.
fn links(listing: &[u8]) -> Vec<(String, String)> {
    let mut links = Vec::new();
    for line in listing.split(|&byte| byte == 0) {
        if !line.starts_with(LINK.as_bytes()) {
            continue;
        }
        let line = String::from_utf8_lossy(line);
        let Some((about, path)) = line.split_once('\t') else { continue };
        let commit = about.rsplit(' ').next().unwrap_or_default();
        if is_commit(commit) {
            links.push((path.to_owned(), commit.to_owned()));
        }
    }
    links
}

/// Entries of a `.gitmodules` file as git lists them: `submodule.NAME.KEY`, a line break, the value.
fn entries(listing: &[u8]) -> Entries {
    let mut by_name: BTreeMap<String, (Option<String>, Entry)> = BTreeMap::new();
    for line in listing.split(|&byte| byte == 0) {
        let line = String::from_utf8_lossy(line);
        let (key, value) = line.split_once('\n').unwrap_or((&line, ""));
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.'))
        else {
            continue;
        };
        let (path, entry) = by_name.entry(name.to_owned()).or_default();
        match key {
            "path" => *path = Some(value.trim_end_matches('/').to_owned()),
            "url" => entry.url = Some(value.to_owned()),
            "update" => entry.is_off = value == "none",
            _ => {}
        }
    }
    let of_path = |(name, (path, entry)): (String, (Option<String>, Entry))| {
        Some((path?, Entry { name, ..entry }))
    };
    by_name.into_iter().filter_map(of_path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listing: &str, path: &str, expect: &str) {
        let parent = GitUrl::parse("https://h/o/r.git").unwrap();
        let listed = entries(listing.replace('|', "\0").as_bytes());
        let found = submodule(&parent, listed.get(path), path.to_owned(), "c".repeat(40));
        let actual = match found {
            Ok(Some(found)) => format!("{} {}", found.name, found.url),
            Ok(None) => "off".to_owned(),
            Err(error) => format!(
                "{error}{}",
                std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default()
            ),
        };
        assert_eq!(actual, expect);
    }

    #[test]
    fn submodules_are_found_by_their_path() {
        let list = "core.x\ny|submodule.a.b.path\nlib/a|submodule.a.b.url\n../a.git|submodule.o.path\no|submodule.o.url\nhttps://x/o|submodule.o.update\nnone|";
        check(list, "lib/a", "a.b https://h/o/a.git");
        check(list, "o", "off");
        check(list, "lib", "no url found for submodule path `lib` in .gitmodules");
        check("submodule.s.path\ns|", "s", "no url found for submodule path `s` in .gitmodules");
        let tree =
            format!("160000 commit {}\ts\0100644 blob {}\tf\0", "a".repeat(40), "b".repeat(40));
        assert_eq!(links(tree.as_bytes()), [("s".to_owned(), "a".repeat(40))]);
    }

    #[test]
    fn nothing_that_leads_elsewhere_is_taken() {
        let with = |name: &str, path: &str, url: &str| {
            format!("submodule.{name}.path\n{path}|submodule.{name}.url\n{url}|")
        };
        let none = |path: &str| format!("no url found for submodule path `{path}` in .gitmodules");
        check(&with("../../x", "s", "../s"), "s", &none("s"));
        check(&with("x/.git/hooks", "s", "../s"), "s", &none("s"));
        check(&with("s", "../s", "../s"), "../s", &none("../s"));
        check(&with("s", "-s", "../s"), "-s", &none("-s"));
        check(&with("s", "a/.GIT/b", "../s"), "a/.GIT/b", &none("a/.GIT/b"));
        for (url, why) in [
            ("file:///etc", "invalid protocol: file"),
            ("/srv/other", "unknown protocol"),
            ("ext::sh", "unknown protocol"),
            ("-u./payload", "unknown protocol"),
            ("../../../x", "invalid relative path in a git URL"),
            ("ssh://-oProxyCommand=x/y", "invalid host in a git URL"),
        ] {
            check(
                &with("s", "s", url),
                "s",
                &format!("submodule `s` has the address `{url}`, which is not taken: {why}"),
            );
        }
    }
}
