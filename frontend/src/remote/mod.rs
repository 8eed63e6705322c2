//! Remote sources, for `ADD` and as build contexts: git repositories and URLs.

pub(crate) mod git;
pub(crate) mod http;

use crate::error::ErrorKind;
use crate::options::{MainContext, NamedContext};

/// Kinds of remote source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A git repository.
    Git,
    /// A file behind a URL.
    Http,
}

impl Kind {
    /// Why `COPY` does not take it.
    pub(crate) fn refused_by_copy(self) -> ErrorKind {
        match self {
            Self::Git => ErrorKind::GitForCopy,
            Self::Http => ErrorKind::UrlForCopy,
        }
    }
}

/// Kind of a source, or `None` for a path.
pub(crate) fn kind(source: &str) -> Option<Kind> {
    if git::is_git(source) {
        return Some(Kind::Git);
    }
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    is_url.then_some(Kind::Http)
}

impl MainContext {
    /// The build context that is not a folder but comes from where `text` says; `None` for a path.
    ///
    /// A URL is taken for that of a file: only its content tells whether it is an archive.
    #[must_use]
    pub fn remote(text: &str) -> Option<Self> {
        let url = text.to_owned();
        if text.starts_with("github.com/") {
            return Some(Self::Git { url });
        }
        Some(match kind(text)? {
            Kind::Git => Self::Git { url },
            Kind::Http => Self::HttpFile { url },
        })
    }
}

impl NamedContext {
    /// The named context that comes from where `text` says; `None` for a path and for images.
    #[must_use]
    pub fn remote(text: &str) -> Option<Self> {
        let url = text.to_owned();
        if text.starts_with("github.com/") {
            return Some(Self::Git { url });
        }
        Some(match kind(text)? {
            Kind::Git => Self::Git { url },
            Kind::Http => Self::Http { url },
        })
    }
}

/// Path of a URL, without query and fragment; empty when there is none.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    rest.find('/').map_or("", |start| &rest[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        for (source, expect) in [
            ("https://h/x.tar", Some(Kind::Http)),
            ("https://h/x.git", Some(Kind::Git)),
            ("https://h/x.git#main:sub", Some(Kind::Git)),
            ("git://h/x", Some(Kind::Git)),
            ("git@github.com:a/b.git", Some(Kind::Git)),
            ("github.com/a/b", None),
            ("a@b/c:d", None),
            ("x:y", None),
        ] {
            assert_eq!(kind(source), expect, "{source}");
        }
    }

    #[test]
    fn contexts_are_told_from_paths() {
        let (git, http) = (
            |url: &str| Some(MainContext::Git { url: url.to_owned() }),
            |url: &str| Some(MainContext::HttpFile { url: url.to_owned() }),
        );
        for (text, expect) in [
            ("https://h/x.tar", http("https://h/x.tar")),
            ("https://h/x.git#main:sub", git("https://h/x.git#main:sub")),
            ("github.com/a/b", git("github.com/a/b")),
            ("git@h:a/b", git("git@h:a/b")),
            (".", None),
            ("github.community/a", None),
        ] {
            assert_eq!(MainContext::remote(text), expect, "{text}");
        }
        let url = "https://h/x".to_owned();
        assert_eq!(NamedContext::remote(&url), Some(NamedContext::Http { url }));
    }
}
