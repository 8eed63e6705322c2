//! Credentials from the files of Docker and of Podman.
//!
//! The key of a registry is its host and port as in a reference; Docker Hub's is
//! `https://index.docker.io/v1/`. Podman also has keys for a part of a registry,
//! `host/folder`, of which the longest counts.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;

use crate::Error;
use crate::login::{HUB, HUB_KEY};
use crate::session::clean;

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

/// A credential, and the file that it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) credential: Credential,
    pub(crate) from: Option<PathBuf>,
}

impl Login {
    /// As users may be told of it.
    pub(crate) fn shown(&self) -> String {
        let who = match &self.credential {
            Credential::Password(user, _) => format!("`{}`", clean(user)),
            Credential::Identity(_) | Credential::Registry(_) => "a token".to_owned(),
        };
        match &self.from {
            Some(file) => format!("{who} from `{}`", file.display()),
            None => who,
        }
    }
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

/// Where credentials are looked for, in this order: `$REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json`, Podman's
/// files in `$XDG_RUNTIME_DIR` and `$XDG_CONFIG_HOME`, `~/.docker/config.json`. `variable` looks up an environment
/// variable.
pub fn auth_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let settings = || set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let all = [
        set("REGISTRY_AUTH_FILE"),
        set("DOCKER_CONFIG").map(|folder| folder.join("config.json")),
        set("XDG_RUNTIME_DIR").map(podman),
        settings().map(podman),
        set("HOME").map(|home| home.join(".docker/config.json")),
    ];
    let mut files: Vec<PathBuf> = Vec::new();
    for file in all.into_iter().flatten() {
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

/// Where a login is kept: `$REGISTRY_AUTH_FILE`, else the file of Docker's client. `variable` looks up an environment
/// variable.
pub fn login_file(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = variable("REGISTRY_AUTH_FILE").filter(|path| !path.is_empty());
    set.map(PathBuf::from).or_else(|| docker_config_path(variable))
}

/// Looks up the credential for a repository of `host` in `files`, the first of which that has one counts; a file that
/// does not exist has none.
pub(crate) async fn find(
    files: &[PathBuf],
    host: &str,
    repository: &str,
) -> Result<Option<Login>, Error> {
    if files.is_empty() {
        return Ok(None);
    }
    let (files, name, path) = (files.to_owned(), host.to_owned(), repository.to_owned());
    // Reading blocks, and a helper may ask the user.
    let lookup = tokio::task::spawn_blocking(move || {
        for file in files {
            if let Some(credential) = read(&file, &name, &path)? {
                return Ok(Some(Login { credential, from: Some(file) }));
            }
        }
        Ok(None)
    });
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

/// What `docker_credential` does not tell: the names in the file, and one member that it does not read.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    registrytoken: Option<String>,
}

impl Config {
    /// Keys by which a repository may be known here, the best first.
    fn keys(&self, host: &str, repository: &str) -> Vec<String> {
        let is_known =
            |key: &String| self.auths.contains_key(key) || self.helpers.contains_key(key);
        let mut keys = Vec::new();
        let mut path = repository;
        while !path.is_empty() {
            keys.push(format!("{host}/{path}"));
            path = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        }
        // A helper for all is asked for whole registries only.
        keys.retain(is_known);
        let main = if host == HUB { HUB_KEY } else { host };
        let others = [host.to_owned(), format!("https://{host}"), format!("https://{host}/")];
        keys.extend(others.into_iter().filter(|key| key != main && is_known(key)));
        let at = keys.iter().position(|key| key.starts_with("https://")).unwrap_or(keys.len());
        keys.insert(at, main.to_owned());
        keys
    }
}

fn read(file: &Path, host: &str, repository: &str) -> Result<Option<Credential>, Error> {
    let text = match fs_err::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(host, error.to_string())),
    };
    in_text(file, &text, host, repository)
}

/// Looks up a credential in the text of a file.
pub(crate) fn in_text(
    file: &Path,
    text: &[u8],
    host: &str,
    repository: &str,
) -> Result<Option<Credential>, Error> {
    // The parser's message could quote the file, which holds secrets: only the place is told.
    let parsed: Config = serde_json::from_slice(text).map_err(|error| {
        failed(
            host,
            format!(
                "`{}` is malformed at line {} column {}",
                file.display(),
                error.line(),
                error.column()
            ),
        )
    })?;
    for key in parsed.keys(host, repository) {
        let token = parsed.auths.get(&key).and_then(|auth| auth.registrytoken.clone());
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::Registry(token)));
        }
        if let Some(found) = read_key(file, text, &key).map_err(|reason| failed(host, reason))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The helper that a file names for `key`.
fn helper_of(text: &[u8], key: &str) -> Option<String> {
    let config: Config = serde_json::from_slice(text).ok()?;
    config.helpers.get(key).cloned().or(config.store).map(|name| clean(&name))
}

/// What stands behind one key of a file, or of the helpers that it names; what is wrong with them otherwise.
fn read_key(file: &Path, text: &[u8], key: &str) -> Result<Option<Credential>, String> {
    match docker_credential::get_credential_from_reader(text, key) {
        Ok(DockerCredential::IdentityToken(token)) if token.is_empty() => Ok(None),
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Credential::Identity(token))),
        Ok(DockerCredential::UsernamePassword(user, password))
            if user.is_empty() && password.is_empty() =>
        {
            Ok(None)
        }
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(Credential::Password(user, password)))
        }
        Err(
            CredentialRetrievalError::NoCredentialConfigured
            | CredentialRetrievalError::ConfigNotFound,
        ) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(None)
        }
        // A helper says what is wrong where it would say the password.
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            let said = [stdout, stderr].map(|text| clean(text.trim()));
            let said = said.into_iter().find(|text| !text.is_empty());
            let said = said.map_or_else(String::new, |text| format!(": {text}"));
            Err(format!("`{helper} get` failed{said}"))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => Err(format!(
            "cannot run `docker-credential-{}`, which `{}` names: install it, or take it out of the file",
            helper_of(text, key).unwrap_or_default(),
            file.display()
        )),
        Err(error) => Err(format!("`{}`: {}", file.display(), error.to_string().to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: &str, host: &str, repository: &str, expect: Option<Credential>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, config).unwrap();
        assert!(read(&path, host, repository).unwrap() == expect, "{host}/{repository}");
    }

    #[test]
    fn credentials_are_found_by_exact_host() {
        let config = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "a.example:5000": {"auth": "dTpwOnE="},
            "b.example": {"identitytoken": "id"},
            "c.example": {"registrytoken": "rt"},
            "d.example": {},
            "https://e.example": {"auth": "ZTpl"}
        }}"#;
        let password = |user: &str, password: &str| {
            Some(Credential::Password(user.to_owned(), password.to_owned()))
        };
        check(config, "docker.io", "library/a", password("hub", "pw"));
        check(config, "a.example:5000", "a", password("u", "p:q"));
        check(config, "b.example", "a/b", Some(Credential::Identity("id".into())));
        check(config, "c.example", "a", Some(Credential::Registry("rt".into())));
        check(config, "e.example", "a", password("e", "e"));
        for host in ["a.example", "a.example:5001", "d.example", "xa.example:5000", "example"] {
            check(config, host, "a", None);
        }
    }

    #[test]
    fn the_longest_key_of_a_part_of_a_registry_counts() {
        let config = r#"{"auths": {
            "h.example": {"auth": "YTph"},
            "h.example/team": {"auth": "Yjpi"},
            "h.example/team/app": {"auth": "Yzpj"},
            "docker.io/mine": {"auth": "ZDpk"}
        }}"#;
        let user = |name: &str| Some(Credential::Password(name.into(), name.into()));
        check(config, "h.example", "other", user("a"));
        check(config, "h.example", "teams/app", user("a"));
        check(config, "h.example", "team/x", user("b"));
        check(config, "h.example", "team/app", user("c"));
        check(config, "h.example", "team/app/more", user("c"));
        check(config, "docker.io", "mine/app", user("d"));
        check(config, "docker.io", "library/app", None);
    }

    #[test]
    fn malformed_file_is_an_error_that_quotes_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        fs_err::write(&path, r#"{"auths": {"a": "hunter2"}}"#).unwrap();
        let text = read(&path, "a", "x").unwrap_err().to_string();
        assert!(text.contains("malformed at line 1") && !text.contains("hunter2"), "{text}");
        assert_eq!(read(&folder.path().join("none"), "a", "x").unwrap(), None);
    }

    #[test]
    fn places_of_the_files_follow_the_environment() {
        let environment = [
            ("HOME", "/h"),
            ("DOCKER_CONFIG", "/c"),
            ("REGISTRY_AUTH_FILE", "/r.json"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
            ("XDG_CONFIG_HOME", "/x"),
        ];
        let with = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            move |asked: &str| {
                let mut known =
                    environment.iter().filter(|(name, _)| names.iter().any(|n| n == name));
                known.find(|(name, _)| *name == asked).map(|(_, value)| OsString::from(*value))
            }
        };
        let shown = |files: Vec<PathBuf>| {
            files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(auth_files(with(&["HOME"]))),
            "/h/.config/containers/auth.json /h/.docker/config.json"
        );
        assert_eq!(
            shown(auth_files(with(&environment.map(|(name, _)| name)))),
            "/r.json /c/config.json /run/user/1/containers/auth.json /x/containers/auth.json /h/.docker/config.json"
        );
        assert_eq!(
            docker_config_path(with(&["HOME"])),
            Some(PathBuf::from("/h/.docker/config.json"))
        );
        assert_eq!(
            docker_config_path(with(&["HOME", "DOCKER_CONFIG"])),
            Some(PathBuf::from("/c/config.json"))
        );
        assert_eq!(docker_config_path(with(&[])), None);
    }
}
