//! Addresses of git repositories: `https://`, `http://`, `ssh://` and `git://` URLs, and `user@host:path`.
//!
//! An address holds nothing but where a repository is: which revision is meant is said elsewhere. It is
//! parsed strictly, because it ends up as an argument of git and ssh: nothing in it can be taken for an
//! option, another transport or a path of this machine.
//!
//! Invariants:
//! - What is printed, by `Display` and `Debug`, has no credentials. [`GitUrl::with_credentials`] is for
//!   definitions only.

use std::fmt;

/// Ways to reach a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GitScheme {
    /// `https://`
    Https,
    /// `http://`
    Http,
    /// `ssh://`, or `user@host:path`
    Ssh,
    /// `git://`
    Git,
}

impl GitScheme {
    /// The scheme as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Git => "git",
        }
    }

    /// Whether it is HTTP, with or without encryption.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Https | Self::Http)
    }
}

/// Where a repository is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GitUrl {
    scheme: GitScheme,
    /// What stands before the `@`, as written.
    user: Option<String>,
    /// Host and port, as written.
    host: String,
    /// Path, as written: with its first `/` in a URL, whatever it is behind `host:`.
    path: String,
    /// Whether it is written `user@host:path`.
    is_short: bool,
}

/// A text that is no address of a repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGitUrl {
    /// It has neither a scheme nor the form `user@host:path`.
    #[error("unknown protocol")]
    Unknown,
    /// Its scheme is none of those that are taken.
    #[error("invalid protocol: {scheme}")]
    Scheme {
        /// The scheme, lower-case.
        scheme: String,
    },
    /// A part of it is not as it must be.
    #[error("invalid {part} in a git URL")]
    Part {
        /// Which part.
        part: &'static str,
    },
}

impl GitUrl {
    /// Parses an address.
    ///
    /// # Errors
    /// When it is none that is taken, see [`InvalidGitUrl`].
    pub fn parse(text: &str) -> Result<Self, InvalidGitUrl> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(part("character"));
        }
        let Some((scheme, rest)) = split_scheme(text) else { return Self::parse_short(text) };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => GitScheme::Https,
            "http" => GitScheme::Http,
            "ssh" => GitScheme::Ssh,
            "git" => GitScheme::Git,
            other => return Err(InvalidGitUrl::Scheme { scheme: other.to_owned() }),
        };
        if rest.contains(['?', '#']) {
            return Err(part("query or fragment"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        check_host(host)?;
        if user.is_some_and(|user| user.starts_with('-')) {
            return Err(part("user"));
        }
        Ok(Self {
            scheme,
            user: user.map(str::to_owned),
            host: host.to_owned(),
            path: path.to_owned(),
            is_short: false,
        })
    }

    fn parse_short(text: &str) -> Result<Self, InvalidGitUrl> {
        let (place, path) = text.split_once(':').ok_or(InvalidGitUrl::Unknown)?;
        let (user, host) = place.split_once('@').ok_or(InvalidGitUrl::Unknown)?;
        let is_name = |name: &str, more: &[char]| {
            !name.is_empty()
                && !name.starts_with('-')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        if !is_name(user, &['-', '_', '.']) || !is_name(host, &['-', '.']) {
            return Err(InvalidGitUrl::Unknown);
        }
        if path.is_empty() || path.starts_with('-') {
            return Err(part("path"));
        }
        Ok(Self {
            scheme: GitScheme::Ssh,
            user: Some(user.to_owned()),
            host: host.to_owned(),
            path: path.to_owned(),
            is_short: true,
        })
    }

    /// How the repository is reached.
    pub fn scheme(&self) -> GitScheme {
        self.scheme
    }

    /// Host, with its port if that is given.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path on the host, as written.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Scheme and host, as `https://example.com:8443/`.
    pub fn origin(&self) -> String {
        format!("{}://{}/", self.scheme.as_str(), self.host)
    }

    /// The address as it was given, with credentials if it has any. To be shown to nobody.
    pub fn with_credentials(&self) -> String {
        self.written(self.user.as_deref())
    }

    /// The address without credentials. The user of an ssh address is none: without it, it is another one.
    pub fn without_credentials(&self) -> String {
        let user = self.user.as_deref().filter(|_| self.scheme == GitScheme::Ssh);
        self.written(user.map(|user| user.split(':').next().unwrap_or_default()))
    }

    /// User name and password of an HTTP address, decoded.
    pub fn credentials(&self) -> Option<(String, String)> {
        let user = self.user.as_deref().filter(|user| self.scheme.is_http() && !user.is_empty())?;
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        Some((decode_lossy(name), decode_lossy(password)))
    }

    /// The repository that a submodule of this one names: by an address of its own, or relative to this
    /// one when it begins with `./` or `../`.
    ///
    /// # Errors
    /// When that is no address, or leads out of the host.
    pub fn join(&self, text: &str) -> Result<Self, InvalidGitUrl> {
        if !text.starts_with("./") && !text.starts_with("../") {
            return Self::parse(text);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '?' || c == '#') {
            return Err(part("character"));
        }
        let is_rooted = self.path.starts_with('/');
        let mut parts: Vec<&str> = self.path.split('/').filter(|part| !part.is_empty()).collect();
        for piece in text.split('/') {
            match piece {
                "" | "." => {}
                ".." => drop(parts.pop().ok_or_else(|| part("relative path"))?),
                name => parts.push(name),
            }
        }
        let path = parts.join("/");
        if path.is_empty() || path.starts_with('-') {
            return Err(part("relative path"));
        }
        let path = if is_rooted { format!("/{path}") } else { path };
        Ok(Self { path, ..self.clone() })
    }

    fn written(&self, user: Option<&str>) -> String {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        if self.is_short {
            return format!("{user}{}:{}", self.host, self.path);
        }
        format!("{}://{user}{}{}", self.scheme.as_str(), self.host, self.path)
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_credentials())
    }
}

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitUrl({self})")
    }
}

fn part(part: &'static str) -> InvalidGitUrl {
    InvalidGitUrl::Part { part }
}

/// Scheme and rest of a URL; `None` for a text without `letters://`.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    is_scheme.then_some((scheme, rest))
}

fn check_host(host: &str) -> Result<(), InvalidGitUrl> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-._:[]%~".contains(c);
    if host.is_empty() || host.starts_with(['-', ':']) || !host.chars().all(is_known) {
        return Err(part("host"));
    }
    Ok(())
}

/// Replaces `%xx` by what it stands for; `None` when that is no text, or a `%` stands for nothing.
pub fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn decode_lossy(text: &str) -> String {
    percent_decoded(text).unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is taken prints as it was, and its parts are no options.
        #[test]
        fn what_is_taken_is_an_address(text in "(https?|git|ssh|file|ext)?(://|:|@)?[-a-z@:/%.?#\\[\\] ]{0,20}", more in "[-./a-z:@]{0,12}") {
            if let Ok(url) = GitUrl::parse(&text) {
                prop_assert_eq!(url.with_credentials(), text);
                for url in [Some(url.clone()), url.join(&more).ok()].into_iter().flatten() {
                    let shown = url.without_credentials();
                    let again = GitUrl::parse(&shown).map(|url| url.without_credentials());
                    prop_assert_eq!(again, Ok(shown.clone()));
                    prop_assert!(!shown.starts_with('-') && !url.host().starts_with('-'));
                }
            }
        }
    }

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let actual = match GitUrl::parse(text) {
            Ok(url) => {
                assert_eq!(url.with_credentials(), text, "an address prints as it was written");
                let user = url.credentials();
                format!("{} {} {} {user:?}", url.scheme.as_str(), url.host, url.path)
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(actual, expect, "{text}");
    }

    #[test]
    fn addresses_of_all_forms() {
        check("https://h/a/b.git", "https h /a/b.git None");
        check("http://h:8080/x.git", "http h:8080 /x.git None");
        check("https://u:p%40@h/x", r#"https h /x Some(("u", "p@"))"#);
        check("https://token@h/x", r#"https h /x Some(("token", ""))"#);
        check("ssh://git@h:22/x", "ssh h:22 /x None");
        check("git://h/x", "git h /x None");
        check("git@h.example:a/b.git", "ssh h.example a/b.git None");
        check("git@h:/abs", "ssh h /abs None");
        check("https://[::1]:80/x", "https [::1]:80 /x None");
    }

    #[test]
    fn nothing_else_is_taken() {
        check("file:///etc", "invalid protocol: file");
        check("ext::sh -c x", "invalid character in a git URL");
        check("ext::sh", "unknown protocol");
        check("/srv/repo", "unknown protocol");
        check("./repo", "unknown protocol");
        check("host:path", "unknown protocol");
        check("-u@h:x", "unknown protocol");
        check("git@-oProxyCommand=x:y", "unknown protocol");
        check("git@h:-x", "invalid path in a git URL");
        check("ssh://-oProxyCommand=x/y", "invalid host in a git URL");
        check("ssh://-u@h/y", "invalid user in a git URL");
        check("https:///x", "invalid host in a git URL");
        check("https://h/x?y", "invalid query or fragment in a git URL");
        check("https://h\n/x", "invalid character in a git URL");
        check("--upload-pack=x", "unknown protocol");
    }

    #[test]
    fn credentials_are_not_shown() {
        let url = GitUrl::parse("https://user:secret@h/x.git").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://h/x.git GitUrl(https://h/x.git)");
        let url = GitUrl::parse("ssh://git:secret@h/x.git").unwrap();
        assert_eq!(url.to_string(), "ssh://git@h/x.git");
        assert_eq!(GitUrl::parse("git@h:x").unwrap().to_string(), "git@h:x");
    }

    #[test]
    fn submodules_are_found_beside_their_parent() {
        let check = |parent: &str, text: &str, expect: &str| {
            let joined = GitUrl::parse(parent).unwrap().join(text);
            let actual =
                joined.map_or_else(|error| error.to_string(), |url| url.with_credentials());
            assert_eq!(actual, expect, "{parent} {text}");
        };
        check("https://u:p@h/a/b.git", "../c.git", "https://u:p@h/a/c.git");
        check("https://h/a/b.git/", "./c", "https://h/a/b.git/c");
        check("git@h:a/b.git", "../../c.git", "git@h:c.git");
        check("git@h:/a/b.git", "../c.git", "git@h:/a/c.git");
        check("https://h/a", "../../etc", "invalid relative path in a git URL");
        check("https://h/a", "..", "unknown protocol");
        check("https://h/a", "../", "invalid relative path in a git URL");
        check("git@h:a", "../-x", "invalid relative path in a git URL");
        check("https://h/a", "https://other/x", "https://other/x");
        check("https://h/a", "file:///etc", "invalid protocol: file");
        check("https://h/a", "/etc", "unknown protocol");
        check("https://h/a", "-u./payload", "unknown protocol");
    }
}
