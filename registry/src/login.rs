//! Logging in and out: checks a password at its registry, and keeps it where Docker's client would.
//!
//! A file that names a helper for the registry, or one for all, has it kept there; else it stands in the file itself,
//! which nobody but its owner may read.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use crate::auth::basic_authorization;
use crate::credential::Credential;
use crate::{Client, ClientOptions, Error};

/// Docker Hub, as in a reference.
pub(crate) const HUB: &str = "docker.io";
/// Where Docker Hub's registry is.
pub(crate) const HUB_AUTHORITY: &str = "registry-1.docker.io";
/// Docker Hub, as in files with credentials.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// Other names of Docker Hub.
const HUB_NAMES: [&str; 4] = ["", "index.docker.io", HUB_AUTHORITY, "hub.docker.com"];

/// Why credentials could not be kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read or written.
    #[error("cannot {action} `{}`", .path.display())]
    File {
        /// In the infinitive.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is something else.
    #[error("`{}` is no file of credentials: {problem}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without anything that is in it.
        problem: String,
    },
    /// The helper that the file names failed.
    #[error("the credential helper `{helper}`, which `{}` names, failed: {message}", .path.display())]
    Helper {
        /// Its program.
        helper: String,
        /// The file.
        path: PathBuf,
        /// What it said.
        message: String,
    },
}

/// Returns the host of a registry, as in a reference, of what a user writes for it: perhaps an address.
pub fn registry_of(text: &str) -> &str {
    let text = text.trim();
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.unwrap_or(text).split('/').next().unwrap_or_default();
    if HUB_NAMES.contains(&host) { HUB } else { host }
}

impl Client {
    /// Checks a user name and password at a registry.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] when they are wrong, and the errors of every request.
    pub fn check_login(
        options: ClientOptions,
        host: &str,
        user: &str,
        password: &str,
    ) -> Result<(), Error> {
        let given = Credential::Password(user.to_owned(), password.to_owned());
        Self::with_credential(options, given).ping(host)
    }
}

/// Keeps a user name and password for a registry.
///
/// # Errors
/// When the file cannot be written or its helper fails. An earlier entry is still there then.
pub fn save_login(file: &Path, host: &str, user: &str, password: &str) -> Result<(), LoginError> {
    let mut config = read(file)?;
    let key = key(host);
    if let Some(helper) = helper(&config, key) {
        let entry = json!({ "ServerURL": key, "Username": user, "Secret": password });
        run(file, &helper, "store", &entry.to_string())?;
        // Docker's client marks with an empty entry that there is something with the helper.
        auths(file, &mut config)?.insert(key.to_owned(), json!({}));
    } else {
        let auth = basic_authorization(user, password);
        let auth = auth.strip_prefix("Basic ").unwrap_or(&auth);
        auths(file, &mut config)?.insert(key.to_owned(), json!({ "auth": auth }));
    }
    write(file, &config)
}

/// Removes what is kept for a registry; false when there was nothing.
///
/// # Errors
/// As [`save_login`].
pub fn remove_login(file: &Path, host: &str) -> Result<bool, LoginError> {
    let mut config = read(file)?;
    let key = key(host);
    if let Some(helper) = helper(&config, key) {
        match run(file, &helper, "erase", key) {
            Err(LoginError::Helper { message, .. }) if message.contains("not found") => {}
            other => other?,
        }
    }
    if !config.contains_key("auths") {
        return Ok(false);
    }
    let removed = auths(file, &mut config)?.remove(key).is_some();
    if removed {
        write(file, &config)?;
    }
    Ok(removed)
}

fn key(host: &str) -> &str {
    if host == HUB { HUB_KEY } else { host }
}

fn read(file: &Path) -> Result<Map<String, Value>, LoginError> {
    let text = match fs_err::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(source) => return Err(LoginError::File { action: "read", path: file.into(), source }),
    };
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&text).map_err(|error| {
        let problem = format!("no JSON object at line {} column {}", error.line(), error.column());
        LoginError::Malformed { path: file.to_owned(), problem }
    })
}

fn auths<'a>(
    file: &Path,
    config: &'a mut Map<String, Value>,
) -> Result<&'a mut Map<String, Value>, LoginError> {
    let auths = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    auths.as_object_mut().ok_or_else(|| LoginError::Malformed {
        path: file.to_owned(),
        problem: "`auths` is no object".to_owned(),
    })
}

/// The program that keeps the credentials of a registry, if not the file does.
fn helper(config: &Map<String, Value>, key: &str) -> Option<String> {
    let own = config.get("credHelpers").and_then(|helpers| helpers.get(key));
    let name = own.or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty()).then(|| format!("docker-credential-{name}"))
}

fn run(file: &Path, helper: &str, action: &str, input: &str) -> Result<(), LoginError> {
    let failed = |message: String| LoginError::Helper {
        helper: helper.to_owned(),
        path: file.to_owned(),
        message,
    };
    let started = Command::new(helper)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read says why when it ends.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    // Helpers tell their errors on their standard output.
    Err(failed(crate::session::clean(String::from_utf8_lossy(&output.stdout).trim())))
}

/// Replaces the file, readable for its owner only. A link to it stays one.
fn write(file: &Path, config: &Map<String, Value>) -> Result<(), LoginError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let place = fs_err::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let failed = |source| LoginError::File { action: "write", path: place.clone(), source };
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut aside = place.clone().into_os_string();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    let mut text = serde_json::to_vec_pretty(config).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut out| out.write_all(&text).and_then(|()| out.sync_all()))
        .and_then(|()| fs_err::rename(&aside, &place));
    written.map_err(|error| {
        let _ = fs_err::remove_file(&aside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn registries_are_known_by_address_and_name() {
        for hub in
            ["", "docker.io", "index.docker.io", "https://index.docker.io/v1/", " docker.io "]
        {
            assert_eq!(registry_of(hub), "docker.io", "{hub}");
        }
        assert_eq!(registry_of("https://r.example:5000/v2/"), "r.example:5000");
        assert_eq!(registry_of("http://r.example"), "r.example");
        assert_eq!(registry_of("r.example/team"), "r.example");
    }

    #[test]
    fn what_else_is_in_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/config.json");
        save_login(&file, "a.example", "u", "p:q").unwrap();
        let read = |file: &Path| -> Value {
            serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap()
        };
        assert_eq!(read(&file), json!({ "auths": { "a.example": { "auth": "dTpwOnE=" } } }));
        assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let more =
            json!({ "proxies": { "default": {} }, "auths": { "b.example": { "auth": "eA==" } } });
        fs_err::write(&file, more.to_string()).unwrap();
        save_login(&file, "docker.io", "h", "p").unwrap();
        let expect = json!({ "proxies": { "default": {} }, "auths": {
            "b.example": { "auth": "eA==" }, "https://index.docker.io/v1/": { "auth": "aDpw" } } });
        assert_eq!(read(&file), expect);
        assert!(remove_login(&file, "docker.io").unwrap());
        assert!(!remove_login(&file, "docker.io").unwrap());
        assert_eq!(read(&file), more);
        assert_eq!(fs_err::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_something_else_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        for (text, problem) in [
            ("secret: 1", "no JSON object at line 1 column 1"),
            ("[1]", "no JSON object at line 1 column 0"),
            (r#"{"auths": 1}"#, "`auths` is no object"),
        ] {
            fs_err::write(&file, text).unwrap();
            let error = save_login(&file, "a.example", "u", "p").unwrap_err().to_string();
            let expect = format!("`{}` is no file of credentials: {problem}", file.display());
            assert_eq!(error, expect);
            assert_eq!(fs_err::read_to_string(&file).unwrap(), text);
        }
    }
}
