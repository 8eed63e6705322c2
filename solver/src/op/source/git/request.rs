//! What a git source op asks for.

use llb::GitUrl;
use llb::git_url::GitScheme;
use llb::op::SourceOp;

use super::error::GitError;

/// A source op, checked: it may come from anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Where the repository is.
    pub(super) url: GitUrl,
    /// Branch, tag, other ref or commit; empty means the default branch.
    pub(super) reference: String,
    /// Names of folders down to the one that is wanted.
    pub(super) subdir: Vec<String>,
    /// Beginning of the commit that it must be, in lower case.
    pub(super) checksum: Option<String>,
    /// Whether `.git` is kept. A part of a tree never has one.
    pub(super) keeps_git_dir: bool,
    /// Whether submodules are fetched.
    pub(super) has_submodules: bool,
    /// Whether files get the time of the commit.
    pub(super) has_commit_time: bool,
    /// Whether the checksum is the commit, whatever the ref is by now.
    pub(super) is_pinned: bool,
    /// Secrets with an `Authorization` header and with a token; empty when not wanted.
    pub(super) header_secret: String,
    pub(super) token_secret: String,
    /// The ssh agent to be used, for addresses of ssh.
    pub(super) agent: Option<String>,
}

impl Request {
    /// Reads a source op.
    ///
    /// # Errors
    /// When it makes no sense, or asks for what would not be safe.
    pub(super) fn new(source: &SourceOp) -> Result<Self, GitError> {
        let invalid = |what: &str| GitError::Source(format!("{what} of `{}`", source.identifier));
        let text = source.identifier.strip_prefix("git://").unwrap_or(&source.identifier);
        let (place, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let attr = |name: &str| source.attrs.get(&format!("git.{name}")).map(String::as_str);
        let is_on = |name: &str| attr(name) == Some("true");
        let address = match attr("fullurl") {
            Some(url) if url.contains("://") || url.contains('@') => url.to_owned(),
            Some(place) => format!("https://{place}"),
            None => format!("https://{place}"),
        };
        let url = GitUrl::parse(&address).map_err(|error| invalid(&error.to_string()))?;
        if !reference.is_empty() && !is_safe_name(reference) {
            return Err(invalid("the ref"));
        }
        let subdir = parts(subdir).ok_or_else(|| invalid("the subdir"))?;
        let checksum = attr("checksum").map(str::to_ascii_lowercase);
        if checksum.as_deref().is_some_and(|text| !is_hex(text)) {
            return Err(invalid("the checksum"));
        }
        let is_pinned = is_on("fetchbycommit");
        if is_pinned && !checksum.as_deref().is_some_and(is_commit) {
            return Err(invalid("the checksum"));
        }
        let agent = (url.scheme() == GitScheme::Ssh)
            .then(|| attr("mountsshsock").unwrap_or("default").to_owned());
        Ok(Self {
            url,
            reference: reference.to_owned(),
            keeps_git_dir: is_on("keepgitdir") && subdir.is_empty(),
            subdir,
            checksum,
            has_submodules: !is_on("skipsubmodules"),
            has_commit_time: attr("mtime") == Some("commit"),
            is_pinned,
            header_secret: attr("authheadersecret").unwrap_or_default().to_owned(),
            token_secret: attr("authtokensecret").unwrap_or_default().to_owned(),
            agent,
        })
    }
}

/// Whether a text is the whole id of an object, by either of git's hashes.
pub(super) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text)
}

/// Whether a text has digits of an id only.
pub(super) fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether the name of a ref can be given to git: it is no option, range or pattern.
fn is_safe_name(name: &str) -> bool {
    !name.starts_with('-')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
}

/// The names of a path; `None` when it leads out of its root or holds what no path can.
fn parts(path: &str) -> Option<Vec<String>> {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            _ if part.contains('\0') => return None,
            _ => parts.push(part.to_owned()),
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(identifier: &str, attrs: &[(&str, &str)]) -> Result<Request, String> {
        let attrs = attrs.iter().map(|(key, value)| (format!("git.{key}"), (*value).to_owned()));
        let source = SourceOp { identifier: identifier.to_owned(), attrs: attrs.collect() };
        Request::new(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn a_bare_identifier_is_enough() {
        let found = request("git://h/o/r.git#v1:a//b/../c", &[]).unwrap();
        assert_eq!(found.url.with_credentials(), "https://h/o/r.git");
        assert_eq!((found.reference.as_str(), found.subdir.join("/")), ("v1", "a/c".to_owned()));
        assert!(found.has_submodules && !found.keeps_git_dir && found.agent.is_none());
        let url = "git@h:o/r";
        let found = request("git://h/o/r", &[("fullurl", url), ("keepgitdir", "true")]).unwrap();
        assert_eq!(
            (found.url.with_credentials().as_str(), found.agent.as_deref()),
            (url, Some("default"))
        );
        assert!(found.keeps_git_dir);
        let found =
            request("git://h/r#:sub", &[("keepgitdir", "true"), ("fullurl", "h/r")]).unwrap();
        assert!(!found.keeps_git_dir && found.url.with_credentials() == "https://h/r");
    }

    #[test]
    fn what_is_not_safe_is_refused() {
        let check = |identifier: &str, attrs: &[(&str, &str)], expect: &str| {
            assert_eq!(request(identifier, attrs).unwrap_err(), expect);
        };
        check(
            "git://h/r#--upload-pack=x",
            &[],
            "invalid git source: the ref of `git://h/r#--upload-pack=x`",
        );
        check("git://h/r#a b", &[], "invalid git source: the ref of `git://h/r#a b`");
        check("git://h/r#:../x", &[], "invalid git source: the subdir of `git://h/r#:../x`");
        check(
            "git://h/r#:a/../../x",
            &[],
            "invalid git source: the subdir of `git://h/r#:a/../../x`",
        );
        check(
            "git://h/r",
            &[("checksum", "zz")],
            "invalid git source: the checksum of `git://h/r`",
        );
        check(
            "git://h/r",
            &[("fetchbycommit", "true")],
            "invalid git source: the checksum of `git://h/r`",
        );
        check(
            "git://h/r",
            &[("fullurl", "file:///etc")],
            "invalid git source: invalid protocol: file of `git://h/r`",
        );
        check("git://-h/r", &[], "invalid git source: invalid host in a git URL of `git://-h/r`");
    }
}
