//! Image references: `[host[:port]/]path[:tag][@digest]`.
//!
//! Follows the grammar and the defaults of the distribution project: a name without a host is on
//! `docker.io`, one without a folder there is in `library`.

use std::fmt;
use std::str::FromStr;

use crate::Digest;

/// Host of names that have none.
pub const DEFAULT_HOST: &str = "docker.io";
/// Tag of names that have neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

const LEGACY_HOST: &str = "index.docker.io";
const OFFICIAL_FOLDER: &str = "library/";
const MAX_PATH: usize = 255;
const MAX_TAG: usize = 128;

/// A full image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A string that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// The path has upper-case letters.
    #[error("repository name must be lowercase")]
    Uppercase {
        /// The path, with `library/` where that is implied.
        repository: String,
    },
    /// The path is too long.
    #[error("repository name must not be more than {MAX_PATH} characters")]
    TooLong,
    /// It is the id of an image, not its name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    ImageId(String),
    /// The digest is by another hash than sha256.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

impl Reference {
    /// Parses a name as users write it; the tag `latest` is added when there is neither tag nor digest.
    ///
    /// # Errors
    /// When `text` is no reference.
    pub fn parse(text: &str) -> Result<Self, InvalidReference> {
        let mut reference = Self::parse_as_is(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// Parses a name as users write it, without adding a tag.
    ///
    /// # Errors
    /// When `text` is no reference.
    pub fn parse_as_is(text: &str) -> Result<Self, InvalidReference> {
        if Digest::from_hex(text).is_ok() {
            return Err(InvalidReference::ImageId(text.to_owned()));
        }
        let (host, rest) = split_host(text);
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => (rest, Some(digest)),
        };
        let (path, tag) = match rest.split_once(':') {
            None => (rest, None),
            Some((path, tag)) => (path, Some(tag)),
        };
        let official = host == DEFAULT_HOST && !path.contains('/');
        let repository =
            if official { format!("{OFFICIAL_FOLDER}{path}") } else { path.to_owned() };
        if repository.chars().any(char::is_uppercase) {
            return Err(InvalidReference::Uppercase { repository });
        }
        if !is_host(host) || !repository.split('/').all(is_component) || !tag.is_none_or(is_tag) {
            return Err(InvalidReference::Format);
        }
        if repository.len() > MAX_PATH {
            return Err(InvalidReference::TooLong);
        }
        let digest = digest.map(parse_digest).transpose()?;
        Ok(Self { host: host.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }

    /// Registry host with its port, such as `docker.io` or `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path without the host, such as `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Host and path, such as `docker.io/library/alpine`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Whether it looks like the id of an image, as `sha256:1234` does.
    pub fn looks_like_id(&self) -> bool {
        self.host == DEFAULT_HOST && self.repository == "library/sha256"
    }

    /// Host and path the way users write them, such as `alpine`.
    pub fn familiar_name(&self) -> String {
        if self.host != DEFAULT_HOST {
            return self.name();
        }
        let short = match self.repository.strip_prefix(OFFICIAL_FOLDER) {
            Some(short) if !short.contains('/') => short,
            _ => &self.repository,
        };
        // A folder such as `localhost` would be taken for a host when it is read again.
        if split_host(short) == (DEFAULT_HOST, short) { short.to_owned() } else { self.name() }
    }

    /// The whole reference the way users write it, such as `alpine:3.20`.
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_name(), Suffix(self))
    }

    /// The same name with another tag and no digest.
    ///
    /// # Errors
    /// When `tag` is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, InvalidReference> {
        if !is_tag(tag) {
            return Err(InvalidReference::Format);
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name and tag, pinned to `digest`.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The same tag and digest in another repository. On the default host a name without a folder is in `library`.
    ///
    /// # Errors
    /// When `host` or `repository` does not follow the grammar.
    pub fn with_name(&self, host: &str, repository: &str) -> Result<Self, InvalidReference> {
        let official = host == DEFAULT_HOST && !repository.contains('/');
        let folder = if official { OFFICIAL_FOLDER } else { "" };
        let repository = format!("{folder}{repository}");
        if !is_host(host) || !repository.split('/').all(is_component) {
            return Err(InvalidReference::Format);
        }
        if repository.len() > MAX_PATH {
            return Err(InvalidReference::TooLong);
        }
        Ok(Self { host: host.to_owned(), repository, ..self.clone() })
    }

    /// The name alone, without tag and digest.
    #[must_use]
    pub fn without_version(&self) -> Self {
        Self { tag: None, digest: None, ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        Self::parse(text)
    }
}

/// The canonical full name, such as `docker.io/library/alpine:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.host, self.repository, Suffix(self))
    }
}

/// `[:tag][@digest]`
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Splits off the host: the first part is one if it could not be a folder on the default host.
fn split_host(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_HOST, rest)) => (DEFAULT_HOST, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_HOST, text),
    }
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let named = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ipv6) => !ipv6.is_empty() && ipv6.bytes().all(|c| c.is_ascii_hexdigit() || c == b':'),
        None => name.split('.').all(label),
    };
    named && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// `[a-z0-9]+` parts joined by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(word) || !text.ends_with(word) {
        return false;
    }
    let separators = text.split(word).filter(|separator| !separator.is_empty());
    separators
        .into_iter()
        .all(|text| matches!(text, "." | "_" | "__") || text.bytes().all(|c| c == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= MAX_TAG
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

fn parse_digest(text: &str) -> Result<Digest, InvalidReference> {
    let (algorithm, hex) = text.split_once(':').ok_or(InvalidReference::Format)?;
    match algorithm {
        "sha256" => Digest::from_hex(hex).map_err(|_| InvalidReference::Format),
        "sha384" | "sha512" if hex.bytes().all(|c| c.is_ascii_hexdigit()) => {
            Err(InvalidReference::DigestAlgorithm)
        }
        _ => Err(InvalidReference::Format),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[track_caller]
    fn check(text: &str, expect: &str, familiar: &str) {
        let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!(reference.to_string(), expect, "input: {text:?}");
        assert_eq!(reference.familiar(), familiar, "input: {text:?}");
    }

    #[track_caller]
    fn check_error(text: &str, expect: &str) {
        let error = Reference::parse(text).expect_err(text);
        assert_eq!(error.to_string(), expect, "input: {text:?}");
    }

    #[test]
    fn a_version_is_found_in_another_repository() {
        let from = Reference::parse(&format!("a.example/b:1@{DIGEST}")).unwrap();
        let check = |host: &str, repository: &str, expect: &str| {
            let moved = from.with_name(host, repository).map(|moved| moved.to_string());
            assert_eq!(moved.unwrap_or_else(|error| error.to_string()), expect);
        };
        check("m:5000", "x/b", &format!("m:5000/x/b:1@{DIGEST}"));
        check("mirror", "b", &format!("mirror/b:1@{DIGEST}"));
        check("docker.io", "b", &format!("docker.io/library/b:1@{DIGEST}"));
        check("m:5000", "", "invalid reference format");
        check("m/x", "b", "invalid reference format");
        check("m", &"a".repeat(256), "repository name must not be more than 255 characters");
    }

    #[test]
    fn what_looks_like_an_id_is_told_from_names() {
        for (text, expect) in [
            ("sha256:1234", true),
            ("sha256", true),
            ("docker.io/library/sha256:1", true),
            ("team/sha256:1", false),
            ("localhost/library/sha256:1", false),
            ("sha512:1", false),
        ] {
            assert_eq!(Reference::parse(text).unwrap().looks_like_id(), expect, "{text}");
        }
    }

    #[test]
    fn familiar_names_are_completed() {
        check("alpine", "docker.io/library/alpine:latest", "alpine:latest");
        check("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20");
        check("user/app", "docker.io/user/app:latest", "user/app:latest");
        check("index.docker.io/library/app", "docker.io/library/app:latest", "app:latest");
        check("docker.io/app", "docker.io/library/app:latest", "app:latest");
        check("localhost/app", "localhost/app:latest", "localhost/app:latest");
        check("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1");
        check("ghcr.io/o/r", "ghcr.io/o/r:latest", "ghcr.io/o/r:latest");
        check("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app:latest");
        check(
            "docker.io/docker.io/a",
            "docker.io/docker.io/a:latest",
            "docker.io/docker.io/a:latest",
        );
        check(
            "docker.io/localhost/a",
            "docker.io/localhost/a:latest",
            "docker.io/localhost/a:latest",
        );
        check("Host/app", "Host/app:latest", "Host/app:latest");
        check("a__b/c--d.e_f:V_1.x-y", "docker.io/a__b/c--d.e_f:V_1.x-y", "a__b/c--d.e_f:V_1.x-y");
    }

    #[test]
    fn digests_are_kept_and_stop_the_default_tag() {
        check(
            &format!("a@{DIGEST}"),
            &format!("docker.io/library/a@{DIGEST}"),
            &format!("a@{DIGEST}"),
        );
        check(
            &format!("a:1@{DIGEST}"),
            &format!("docker.io/library/a:1@{DIGEST}"),
            &format!("a:1@{DIGEST}"),
        );
    }

    #[test]
    fn malformed_names_are_refused() {
        for text in [
            "",
            ":",
            "/a",
            "a/",
            "a//b",
            "a:",
            "a:b:c",
            "-a",
            "a.",
            "a___b",
            "a..b",
            "a b",
            "ä",
            "a@",
            "a@sha256:00",
            "h:x/a",
        ] {
            check_error(text, "invalid reference format");
        }
        check_error("X", "repository name must be lowercase");
        check_error(&format!("a@sha512:{}", "0".repeat(128)), "unsupported digest algorithm");
        check_error(
            &format!("a/{}", "b".repeat(254)),
            "repository name must not be more than 255 characters",
        );
        check_error(&format!("a:{}", "b".repeat(129)), "invalid reference format");
        let id = &DIGEST["sha256:".len()..];
        check_error(
            id,
            &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"),
        );
    }

    #[test]
    fn uppercase_error_tells_the_repository() {
        let expect = InvalidReference::Uppercase { repository: "library/Base".to_owned() };
        assert_eq!(Reference::parse("Base"), Err(expect));
    }

    #[test]
    fn parts_can_be_replaced() {
        let app = Reference::parse_as_is("app").unwrap();
        assert_eq!((app.tag(), app.to_string().as_str()), (None, "docker.io/library/app"));
        let tagged = app.with_tag("1").unwrap();
        let digest = Digest::of(b"");
        assert_eq!(
            tagged.with_digest(digest).to_string(),
            format!("docker.io/library/app:1@{digest}")
        );
        assert_eq!(
            tagged.with_digest(digest).with_tag("2").unwrap().to_string(),
            "docker.io/library/app:2"
        );
        assert_eq!(tagged.without_version(), app);
        assert!(app.with_tag("a/b").is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_prints_to_itself(text in "([a-zA-Z0-9.:_-]{0,6}/)?([a-z0-9._-]{0,4}/)?[a-z0-9._-]{0,6}(:[a-zA-Z0-9._-]{0,4})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }

        #[test]
        fn any_text_is_accepted_or_refused(text in ".{0,40}") {
            let _ = Reference::parse(&text);
        }
    }
}
