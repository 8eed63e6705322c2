//! Git repositories: refs as a Dockerfile and the command line write them.
//!
//! ```text
//! https://host/path.git#ref:subdir
//! https://host/path.git?branch=main&subdir=docs
//! user@host:path#ref:subdir
//! github.com/owner/name#ref:subdir        (build contexts only)
//! ```

use std::collections::BTreeMap;

use llb::git_url::{GitUrl, InvalidGitUrl, percent_decoded};
use llb::op::SourceOp;
use thiserror::Error;

use crate::go_text::quote;
use crate::lint::parse_bool;
use crate::options::Options;

/// Name of the secret that holds a token for git over HTTP.
const TOKEN_SECRET: &str = "GIT_AUTH_TOKEN";

/// Name of the secret that holds an `Authorization` header for git over HTTP.
const HEADER_SECRET: &str = "GIT_AUTH_HEADER";

/// Beginning of contexts that are repositories of GitHub, without a scheme.
const GITHUB: &str = "github.com/";

/// The source op of a source of `ADD`.
///
/// # Errors
/// When it is wrong, or the flags say something else.
pub(crate) fn added(
    text: &str,
    keep_git_dir: Option<bool>,
    checksum: Option<&str>,
) -> Result<SourceOp, InvalidGitRef> {
    Ok(GitRef::parse(text)?.with_flags(keep_git_dir, checksum)?.source())
}

/// The source op of a named context.
///
/// # Errors
/// When it is wrong.
pub(crate) fn named_context(text: &str) -> Result<SourceOp, InvalidGitRef> {
    Ok(GitRef::parse_context(text)?.source())
}

/// The source op of the build context. Files get the time of the commit when the build has a fixed time.
///
/// # Errors
/// When it is wrong.
pub(crate) fn main_context(text: &str, options: &Options) -> Result<SourceOp, InvalidGitRef> {
    let mut found = GitRef::parse_context(text)?;
    let arg = |name: &str| options.build_args.get(name).map(String::as_str);
    if arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(parse_bool) == Some(true) {
        found.keep_git_dir = Some(true);
    }
    if found.mtime.is_none() && arg("SOURCE_DATE_EPOCH").is_some_and(|epoch| !epoch.is_empty()) {
        found.mtime = Some(MTime::Commit);
    }
    Ok(found.source())
}

/// A revision of a repository, and what of it is wanted how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitRef {
    /// Where the repository is.
    pub(crate) url: GitUrl,
    /// Branch, tag, other ref or commit; empty means the default branch.
    pub(crate) reference: String,
    /// Folder of the tree; empty means all of it.
    pub(crate) subdir: String,
    /// Beginning of the commit that it must be.
    pub(crate) checksum: Option<String>,
    /// Whether `.git` is kept.
    pub(crate) keep_git_dir: Option<bool>,
    /// Whether submodules are fetched.
    pub(crate) submodules: Option<bool>,
    /// Which time files get.
    pub(crate) mtime: Option<MTime>,
    /// Whether the checksum is taken for the commit without asking what the ref is.
    pub(crate) fetch_by_commit: bool,
}

/// Times that files of a checkout can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MTime {
    /// When they were checked out.
    Checkout,
    /// When the commit was made.
    Commit,
}

/// What is wrong with a git ref. The wording is that of the reference builder where it has one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidGitRef {
    /// The address is none.
    #[error(transparent)]
    Url(#[from] InvalidGitUrl),
    /// A part that is not encoded as URLs are.
    #[error("invalid escape in {}", quote(.0))]
    Escape(String),
    /// A key of the query that is not known.
    #[error("unexpected query {}", quote(.0))]
    UnexpectedQuery(String),
    /// A key without the value that it needs.
    #[error("query {} has no value", quote(.0))]
    NoValue(String),
    /// A key that is given more than once.
    #[error("query {} has multiple values", quote(.0))]
    SeveralValues(String),
    /// A value that its key does not take.
    #[error("invalid {key} value: {}", quote(value))]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Two different values for one thing.
    #[error("{what} conflicts: {} vs {}", quote(one), quote(other))]
    Conflict {
        /// For which thing.
        what: &'static str,
        /// The first.
        one: String,
        /// The second.
        other: String,
    },
    /// Both a branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
    /// A ref that git does not take as one.
    #[error("invalid ref {}", quote(.0))]
    Ref(String),
    /// A checksum that is no commit id.
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    Checksum(String),
    /// `fetch-by-commit` without the commit.
    #[error("fetch-by-commit needs the full commit id as checksum")]
    NoCommit,
    /// A folder outside the repository.
    #[error("invalid subdir {}: it leads out of the repository", quote(.0))]
    Subdir(String),
    /// `--keep-git-dir` says something else than the query.
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    /// `--checksum` says something else than the query.
    #[error("checksum mismatch {} != {}", quote(flag), quote(query))]
    Checksums {
        /// The flag.
        flag: String,
        /// The query.
        query: String,
    },
}

impl GitRef {
    /// Parses a context, which may also be `github.com/owner/name`.
    fn parse_context(text: &str) -> Result<Self, InvalidGitRef> {
        if text.starts_with(GITHUB) {
            return Self::parse(&format!("https://{text}"));
        }
        Self::parse(text)
    }

    /// Parses a text that [is one](is_git).
    fn parse(text: &str) -> Result<Self, InvalidGitRef> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (address, query) = text.split_once('?').unwrap_or((text, ""));
        let fragment = decoded(fragment)?;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        let mut parsed = Self {
            url: GitUrl::parse(address)?,
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            checksum: None,
            keep_git_dir: None,
            submodules: None,
            mtime: None,
            fetch_by_commit: false,
        };
        parsed.take_query(query)?;
        parsed.check()?;
        Ok(parsed)
    }

    fn take_query(&mut self, query: &str) -> Result<(), InvalidGitRef> {
        let (mut tag, mut branch) = (None, None);
        for (key, value) in query_values(query)? {
            let value = value.as_str();
            match key.as_str() {
                "submodules" => self.submodules = Some(switch("submodules", value)?),
                "keep-git-dir" => self.keep_git_dir = Some(switch("keep-git-dir", value)?),
                "fetch-by-commit" => self.fetch_by_commit = switch("fetch-by-commit", value)?,
                "ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime"
                    if value.is_empty() =>
                {
                    return Err(InvalidGitRef::NoValue(key));
                }
                "ref" => set("ref", &mut self.reference, value)?,
                "subdir" => set("subdir", &mut self.subdir, value)?,
                "tag" => tag = Some(value.to_owned()),
                "branch" => branch = Some(value.to_owned()),
                "checksum" | "commit" => match &self.checksum {
                    Some(one) if one != value => {
                        let (one, other) = (one.clone(), value.to_owned());
                        return Err(InvalidGitRef::Conflict { what: "checksum", one, other });
                    }
                    _ => self.checksum = Some(value.to_owned()),
                },
                "mtime" => self.mtime = Some(MTime::parse(value)?),
                _ => return Err(InvalidGitRef::UnexpectedQuery(key)),
            }
        }
        let full = |folder: &str, name: String| match name.starts_with(folder) {
            true => name,
            false => format!("{folder}{name}"),
        };
        match (tag, branch) {
            (Some(_), Some(_)) => return Err(InvalidGitRef::BranchAndTag),
            (Some(tag), None) => set("ref", &mut self.reference, &full("refs/tags/", tag))?,
            (None, Some(name)) => set("ref", &mut self.reference, &full("refs/heads/", name))?,
            (None, None) => {}
        }
        if let Some(checksum) = self.checksum.as_ref().filter(|_| self.reference.is_empty()) {
            self.reference.clone_from(checksum);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), InvalidGitRef> {
        if !self.reference.is_empty() && !is_ref_name(&self.reference) {
            return Err(InvalidGitRef::Ref(self.reference.clone()));
        }
        let mut depth = 0usize;
        for part in self.subdir.split('/') {
            match part {
                "" | "." => {}
                ".." if depth == 0 => return Err(InvalidGitRef::Subdir(self.subdir.clone())),
                ".." => depth -= 1,
                _ => depth += 1,
            }
        }
        let is_hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
        if let Some(checksum) = self.checksum.as_ref().filter(|text| !is_hex(text)) {
            return Err(InvalidGitRef::Checksum(checksum.clone()));
        }
        let is_full = self.checksum.as_ref().is_some_and(|text| matches!(text.len(), 40 | 64));
        if self.fetch_by_commit && !is_full {
            return Err(InvalidGitRef::NoCommit);
        }
        Ok(())
    }

    /// This ref with what the flags of `ADD` say.
    ///
    /// # Errors
    /// When they say something else than the ref itself.
    pub(crate) fn with_flags(
        mut self,
        keep_git_dir: Option<bool>,
        checksum: Option<&str>,
    ) -> Result<Self, InvalidGitRef> {
        match (keep_git_dir, self.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => return Err(InvalidGitRef::KeepGitDir),
            (flag, query) => self.keep_git_dir = query.or(flag),
        }
        match (checksum, &self.checksum) {
            (Some(flag), Some(query)) if flag != query => {
                let (flag, query) = (flag.to_owned(), query.clone());
                return Err(InvalidGitRef::Checksums { flag, query });
            }
            (Some(flag), None) => self.checksum = Some(flag.to_owned()),
            (Some(_) | None, _) => {}
        }
        self.check()?;
        Ok(self)
    }

    /// The source of this ref, as BuildKit's.
    ///
    /// Its identifier leaves the transport out: one repository has one name however it is reached.
    pub(crate) fn source(&self) -> SourceOp {
        let path = crate::paths::clean(self.url.path());
        let mut identifier = format!("git://{}{}", self.url.host(), path.trim_end_matches('/'));
        if !self.reference.is_empty() || !self.subdir.is_empty() {
            identifier = identifier + "#" + &self.reference;
        }
        if !self.subdir.is_empty() {
            identifier = identifier + ":" + &self.subdir;
        }
        let mut attrs = BTreeMap::new();
        let mut set = |key: &str, value: &str| attrs.insert(key.to_owned(), value.to_owned());
        set("git.fullurl", &self.url.with_credentials());
        set("git.authtokensecret", TOKEN_SECRET);
        set("git.authheadersecret", HEADER_SECRET);
        if self.keep_git_dir == Some(true) {
            set("git.keepgitdir", "true");
        }
        if let Some(checksum) = &self.checksum {
            set("git.checksum", checksum);
        }
        if self.submodules == Some(false) {
            set("git.skipsubmodules", "true");
        }
        if let Some(mtime) = self.mtime {
            set("git.mtime", mtime.as_str());
        }
        if self.fetch_by_commit {
            set("git.fetchbycommit", "true");
        }
        if self.url.scheme() == llb::git_url::GitScheme::Ssh {
            set("git.mountsshsock", "default");
        }
        SourceOp { identifier, attrs }
    }
}

impl MTime {
    fn parse(text: &str) -> Result<Self, InvalidGitRef> {
        match text {
            "checkout" => Ok(Self::Checkout),
            "commit" => Ok(Self::Commit),
            _ => Err(InvalidGitRef::Value { key: "mtime", value: text.to_owned() }),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Commit => "commit",
        }
    }
}

/// Whether a text has the form of a git ref. An HTTP URL is one only if its path ends in `.git`.
pub(crate) fn is_git(text: &str) -> bool {
    let address = &text[..text.find(['?', '#']).unwrap_or(text.len())];
    let Some((scheme, rest)) = address.split_once("://") else {
        return matches!(GitUrl::parse(address), Ok(_) | Err(InvalidGitUrl::Part { part: "path" }));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "git" | "ssh" => true,
        "http" | "https" => rest.find('/').is_some_and(|at| rest[at..].ends_with(".git")),
        _ => false,
    }
}

/// Sets a value that may have been given elsewhere.
fn set(what: &'static str, slot: &mut String, value: &str) -> Result<(), InvalidGitRef> {
    if !slot.is_empty() && slot != value {
        let (one, other) = (slot.clone(), value.to_owned());
        return Err(InvalidGitRef::Conflict { what, one, other });
    }
    value.clone_into(slot);
    Ok(())
}

/// Value of a key that needs none: alone it means yes.
fn switch(key: &'static str, value: &str) -> Result<bool, InvalidGitRef> {
    match value {
        "" => Ok(true),
        _ => parse_bool(value).ok_or_else(|| InvalidGitRef::Value { key, value: value.to_owned() }),
    }
}

/// Keys and values of a query, decoded, each key once.
fn query_values(query: &str) -> Result<Vec<(String, String)>, InvalidGitRef> {
    let mut values: Vec<(String, String)> = Vec::new();
    for field in query.split('&').filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let (key, value) = (decoded(&key.replace('+', " "))?, decoded(&value.replace('+', " "))?);
        if values.iter().any(|(known, _)| *known == key) {
            return Err(InvalidGitRef::SeveralValues(key));
        }
        values.push((key, value));
    }
    Ok(values)
}

fn decoded(text: &str) -> Result<String, InvalidGitRef> {
    percent_decoded(text).ok_or_else(|| InvalidGitRef::Escape(text.to_owned()))
}

/// Whether git takes a text as the name of a ref, or as a commit id.
fn is_ref_name(name: &str) -> bool {
    let has_bad_character = name.chars().any(|c| c.is_ascii_control() || " ~^:?*[\\".contains(c));
    let has_bad_part = name
        .split('/')
        .any(|part| part.is_empty() || part.starts_with('.') || part.ends_with(".lock"));
    !has_bad_character
        && !has_bad_part
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let actual = match GitRef::parse_context(text) {
            Err(error) => error.to_string(),
            Ok(parsed) => {
                let SourceOp { identifier, mut attrs } = parsed.source();
                let secrets = ["git.authtokensecret", "git.authheadersecret"];
                assert!(secrets.iter().all(|key| attrs.remove(*key).is_some()));
                let shown = attrs
                    .iter()
                    .map(|(key, value)| format!(" {}={value}", key.trim_start_matches("git.")));
                identifier + &shown.collect::<String>()
            }
        };
        assert_eq!(actual, expect, "{text}");
    }

    #[test]
    fn sources_have_the_form_of_the_reference() {
        check("https://h/o/r.git", "git://h/o/r.git fullurl=https://h/o/r.git");
        check("https://h/r.git#main", "git://h/r.git#main fullurl=https://h/r.git");
        check("https://h/r.git#:a/b", "git://h/r.git#:a/b fullurl=https://h/r.git");
        check("https://h/r.git#v%2F1:a b", "git://h/r.git#v/1:a b fullurl=https://h/r.git");
        check("http://h:8080//o//r.git#", "git://h:8080/o/r.git fullurl=http://h:8080//o//r.git");
        check("git://h/r", "git://h/r fullurl=git://h/r");
        check("ssh://git@h:22/r", "git://h:22/r fullurl=ssh://git@h:22/r mountsshsock=default");
        check("git@h:o/r.git#x", "git://h/o/r.git#x fullurl=git@h:o/r.git mountsshsock=default");
        check("github.com/o/r#x:y", "git://github.com/o/r#x:y fullurl=https://github.com/o/r");
    }

    #[test]
    fn git_refs_are_told_from_paths_and_files() {
        for text in [
            "https://h/r.git",
            "http://h/r.git?x",
            "git://h/r",
            "ssh://h/r",
            "git@h:r",
            "git@h:-r",
            "https://h:1/r.git#b:d",
        ] {
            assert!(is_git(text), "{text}");
        }
        for text in [
            "https://h/r",
            "https://h/r.git/x",
            "https://r.git",
            "x:y",
            "a@b/c:d",
            "../r.git",
            "file:///r.git",
            "github.com/o/r",
        ] {
            assert!(!is_git(text), "{text}");
        }
    }

    #[test]
    fn the_query_says_what_is_wanted() {
        let all =
            "https://h/r.git?tag=v1&subdir=d&commit=ab12&keep-git-dir&submodules=0&mtime=commit";
        check(
            all,
            "git://h/r.git#refs/tags/v1:d checksum=ab12 fullurl=https://h/r.git keepgitdir=true mtime=commit skipsubmodules=true",
        );
        check("https://h/r.git?ref=a+b", "invalid ref \"a b\"");
        check(
            "https://h/r.git?branch=b#refs/heads/b",
            "git://h/r.git#refs/heads/b fullurl=https://h/r.git",
        );
        check(
            "git@h:r?branch=refs/heads/b",
            "git://h/r#refs/heads/b fullurl=git@h:r mountsshsock=default",
        );
        check(
            "https://h/r.git?commit=ab12",
            "git://h/r.git#ab12 checksum=ab12 fullurl=https://h/r.git",
        );
        check(
            "https://h/r.git?keep-git-dir=false&submodules",
            "git://h/r.git fullurl=https://h/r.git",
        );
        let commit = "0123456789012345678901234567890123456789";
        check(
            &format!("https://h/r.git?ref=main&checksum={commit}&fetch-by-commit=1"),
            &format!(
                "git://h/r.git#main checksum={commit} fetchbycommit=true fullurl=https://h/r.git"
            ),
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        check("https://h/r.git?x=1", "unexpected query \"x\"");
        check("https://h/r.git?ref=", "query \"ref\" has no value");
        check("https://h/r.git?ref", "query \"ref\" has no value");
        check("https://h/r.git?ref=a&ref=b", "query \"ref\" has multiple values");
        check("https://h/r.git?ref=a#b", "ref conflicts: \"b\" vs \"a\"");
        check("https://h/r.git?tag=a#b", "ref conflicts: \"b\" vs \"refs/tags/a\"");
        check("https://h/r.git?branch=a&tag=b", "branch conflicts with tag");
        check("https://h/r.git?subdir=a#:b", "subdir conflicts: \"b\" vs \"a\"");
        check("https://h/r.git?commit=a&checksum=b", "checksum conflicts: \"a\" vs \"b\"");
        check("https://h/r.git?submodules=x", "invalid submodules value: \"x\"");
        check("https://h/r.git?keep-git-dir=x", "invalid keep-git-dir value: \"x\"");
        check("https://h/r.git?mtime=x", "invalid mtime value: \"x\"");
        check(
            "https://h/r.git?fetch-by-commit",
            "fetch-by-commit needs the full commit id as checksum",
        );
        check(
            "https://h/r.git?commit=xyz",
            "invalid checksum xyz for Git URL, expected hex commit hash",
        );
        check("https://h/r.git#%zz", "invalid escape in \"%zz\"");
        check("https://h/r.git#--upload-pack=x", "invalid ref \"--upload-pack=x\"");
        check("https://h/r.git#a..b", "invalid ref \"a..b\"");
        check("https://h/r.git#main~1", "invalid ref \"main~1\"");
        check("https://h/r.git#:../x", "invalid subdir \"../x\": it leads out of the repository");
        check(
            "https://h/r.git#:a/../../x",
            "invalid subdir \"a/../../x\": it leads out of the repository",
        );
        check("ssh://-oProxyCommand=x/r", "invalid host in a git URL");
        check("git@h:-x", "invalid path in a git URL");
    }

    #[test]
    fn flags_and_query_must_agree() {
        let with = |text: &str, keep, checksum| {
            let parsed = GitRef::parse(text).unwrap().with_flags(keep, checksum);
            parsed.map(|parsed| (parsed.keep_git_dir, parsed.checksum)).map_err(|e| e.to_string())
        };
        let text = "https://h/r.git?keep-git-dir&commit=ab";
        assert_eq!(with(text, Some(true), Some("ab")), Ok((Some(true), Some("ab".to_owned()))));
        assert_eq!(with(text, None, None), Ok((Some(true), Some("ab".to_owned()))));
        assert_eq!(
            with("https://h/r.git", Some(false), Some("AB")),
            Ok((Some(false), Some("AB".to_owned())))
        );
        assert_eq!(
            with(text, Some(false), None).unwrap_err(),
            "inconsistent keep-git-dir configuration"
        );
        assert_eq!(
            with(text, None, Some("abc")).unwrap_err(),
            "checksum mismatch \"abc\" != \"ab\""
        );
        assert_eq!(
            with("https://h/r.git", None, Some("sha256:ab")).unwrap_err(),
            "invalid checksum sha256:ab for Git URL, expected hex commit hash"
        );
    }
}
