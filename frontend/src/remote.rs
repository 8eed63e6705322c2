//! Sources of `ADD` that are not files (`spec/instructions.md` §8).

use crate::error::ErrorKind;

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
    if source.starts_with("git://") || source.starts_with("ssh://") {
        return Some(Kind::Git);
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        return Some(if path_of(source).ends_with(".git") { Kind::Git } else { Kind::Http });
    }
    let (user, host) = source.split_once(':')?.0.split_once('@')?;
    let is_name = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
    };
    (is_name(user) && is_name(host)).then_some(Kind::Git)
}

/// Name of the file behind a URL: the last part of its path.
pub(crate) fn file_name(url: &str) -> String {
    let path = path_of(url).trim_end_matches('/');
    match path.rsplit('/').next() {
        Some(name) if !["", ".", ".."].contains(&name) => name.to_owned(),
        _ => "__unnamed__".to_owned(),
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
    fn files_are_named_after_the_path_of_their_url() {
        for (url, expect) in [
            ("http://h/a/b.tgz?x=/y", "b.tgz"),
            ("http://h/a/", "a"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), expect, "{url}");
        }
    }
}
