//! Credentials from the Docker configuration.
//!
//! The key of a registry is its host and port as in a reference; Docker Hub's is
//! `https://index.docker.io/v1/` (`spec/cli-and-outputs.md` §11).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;

use crate::Error;

/// A helper that has not answered in this time never will.
const HELPER_TIMEOUT: Duration = Duration::from_secs(120);

/// Who to be at a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    /// User name and password.
    Password(String, String),
    /// A refresh token for the token server.
    Identity(String),
    /// A token to show to the registry as it is.
    Registry(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(hidden)")
    }
}

/// Where Docker's client keeps its configuration: `$DOCKER_CONFIG/config.json`, else
/// `~/.docker/config.json`. `variable` looks up an environment variable.
pub fn docker_config_path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// Looks up the credential for `host` in the file `config`; a file that does not exist has none.
pub(crate) async fn find(config: Option<&Path>, host: &str) -> Result<Option<Credential>, Error> {
    let Some(config) = config.map(Path::to_owned) else { return Ok(None) };
    let owned = host.to_owned();
    // Reading blocks, and a helper may ask the user.
    let lookup = tokio::task::spawn_blocking(move || read(&config, &owned));
    match tokio::time::timeout(HELPER_TIMEOUT, lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Err(failed(host, error.to_string())),
        Err(_) => Err(failed(
            host,
            format!("the helper did not answer in {} seconds", HELPER_TIMEOUT.as_secs()),
        )),
    }
}

fn failed(host: &str, reason: String) -> Error {
    Error::Credentials { host: host.to_owned(), reason }
}

/// The one member that `docker_credential` does not read.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: std::collections::HashMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    registrytoken: Option<String>,
}

fn read(config: &Path, host: &str) -> Result<Option<Credential>, Error> {
    let text = match fs_err::read(config) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(host, error.to_string())),
    };
    let key = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    // The parser's message could quote the file, which holds secrets: only the place is told.
    let parsed: Config = serde_json::from_slice(&text).map_err(|error| {
        failed(
            host,
            format!(
                "`{}` is malformed at line {} column {}",
                config.display(),
                error.line(),
                error.column()
            ),
        )
    })?;
    if let Some(token) =
        parsed.auths.get(key).and_then(|auth| auth.registrytoken.clone()).filter(|t| !t.is_empty())
    {
        return Ok(Some(Credential::Registry(token)));
    }
    let reason = match docker_credential::get_credential_from_reader(text.as_slice(), key) {
        Ok(DockerCredential::IdentityToken(token)) if token.is_empty() => return Ok(None),
        Ok(DockerCredential::IdentityToken(token)) => return Ok(Some(Credential::Identity(token))),
        Ok(DockerCredential::UsernamePassword(user, password))
            if user.is_empty() && password.is_empty() =>
        {
            return Ok(None);
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            return Ok(Some(Credential::Password(user, password)));
        }
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => {
            return Ok(None);
        }
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            return Ok(None);
        }
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => {
            format!("`{helper} get` failed")
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            format!("cannot run the credential helper named in `{}`", config.display())
        }
        Err(error) => format!("`{}`: {}", config.display(), error.to_string().to_lowercase()),
    };
    Err(failed(host, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: &str, host: &str, expect: Option<Credential>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, config).unwrap();
        assert!(read(&path, host).unwrap() == expect, "host: {host}");
    }

    #[test]
    fn credentials_are_found_by_exact_host() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "a.example:5000": {"auth": "dTpwOnE="},
            "b.example": {"identitytoken": "id"},
            "c.example": {"registrytoken": "rt"},
            "d.example": {}
        }}"#;
        check(config, "docker.io", Some(Credential::Password("hub".into(), "pw".into())));
        check(config, "a.example:5000", Some(Credential::Password("u".into(), "p:q".into())));
        check(config, "b.example", Some(Credential::Identity("id".into())));
        check(config, "c.example", Some(Credential::Registry("rt".into())));
        for host in ["a.example", "a.example:5001", "d.example", "xa.example:5000", "example"] {
            check(config, host, None);
        }
    }

    #[test]
    fn malformed_file_is_an_error_that_quotes_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, r#"{"auths": {"a": "hunter2"}}"#).unwrap();
        let text = read(&path, "a").unwrap_err().to_string();
        assert!(text.contains("malformed at line 1") && !text.contains("hunter2"), "{text}");
        assert_eq!(read(&folder.path().join("none"), "a").unwrap(), None);
    }

    #[test]
    fn folder_of_the_configuration_follows_the_environment() {
        let with = |name: &'static str, value: &'static str| {
            docker_config_path(move |asked| (asked == name).then(|| OsString::from(value)))
        };
        assert_eq!(with("DOCKER_CONFIG", "/c"), Some(PathBuf::from("/c/config.json")));
        assert_eq!(with("HOME", "/h"), Some(PathBuf::from("/h/.docker/config.json")));
        assert_eq!(with("OTHER", "/h"), None);
    }
}
