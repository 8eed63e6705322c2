//! Which container engine `--load` is for.
//!
//! ```text
//! context= of the output, $DOCKER_CONTEXT       a Docker context
//! $DOCKER_HOST, $CONTAINER_HOST                 an address
//! the context in use in Docker's config.json
//! sockets of Docker, then of Podman, of the system and of the user
//! ```
//!
//! What is named must be there; only where nothing is named is one looked for.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use exporters::engine::Address;
use serde_json::Value;

use crate::report::{Exit, Failure};

/// What else can be done.
pub(crate) const OTHER_WAY: &str =
    "an archive can be loaded too: `build -o type=docker,dest=- ... | docker load`";

/// Where containerd listens.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// What can be done where nothing but containerd runs.
const CONTAINERD_WAY: &str = "; containerd runs, which is not supported: `build -o type=oci,dest=app.tar ...`, then \
                              `ctr image import app.tar`";

/// Finds the engine to load into, and that it listens.
pub(crate) fn find(context: Option<&str>) -> Result<Address, Failure> {
    let variable = |name: &str| std::env::var_os(name);
    match named(context, &variable)? {
        Some((address, whence)) => {
            let listens = address.try_connect();
            listens.map(|()| address).map_err(|error| silent(&whence, &error))
        }
        None => search(&places(&variable)),
    }
}

/// Tries the places where engines listen.
fn search(places: &[PathBuf]) -> Result<Address, Failure> {
    for place in places {
        let address = Address::Unix(place.clone());
        match address.try_connect() {
            Ok(()) => return Ok(address),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(silent(&place.display().to_string(), &error));
            }
            Err(_) => {}
        }
    }
    let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    let containerd = if Path::new(CONTAINERD).exists() { CONTAINERD_WAY } else { "" };
    Err(Failure::new(Exit::Machine, "there is no Docker or Podman to load the image into")
        .hint(format!(
            "neither DOCKER_HOST, CONTAINER_HOST nor a Docker context names one, and nobody listens at {}; start one \
             (`podman system service`), or load an archive: `build -o type=docker,dest=- ... | docker load`{containerd}",
            looked.join(", ")
        )))
}

/// Wording of an engine that cannot be reached.
fn silent(whence: &str, error: &std::io::Error) -> Failure {
    let failure = Failure::new(
        Exit::Machine,
        format!("cannot reach the container engine at {whence}: {error}"),
    );
    match error.kind() {
        ErrorKind::PermissionDenied => failure
            .hint("its socket is not open to this user: run as root, or join the group that it belongs to"),
        _ => failure.hint(format!("is it running? {OTHER_WAY}")),
    }
}

/// The engine that something names, and what that is.
fn named(
    context: Option<&str>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(Address, String)>, Failure> {
    let text = |name: &str| {
        let value = variable(name)?.into_string().ok()?;
        Some(value).filter(|value| !value.is_empty())
    };
    if let Some(name) = context {
        return of_context(name, variable);
    }
    for name in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(value) = text(name) {
            let address = parse(&value, name, text("DOCKER_TLS_VERIFY").is_some())?;
            return Ok(Some((address, format!("{name}={value}"))));
        }
    }
    if let Some(name) = text("DOCKER_CONTEXT") {
        return of_context(&name, variable);
    }
    let config = registry::docker_config_path(variable);
    let config = config.and_then(|path| fs_err::read(path).ok()).unwrap_or_default();
    let config: Value = serde_json::from_slice(&config).unwrap_or_default();
    match config.get("currentContext").and_then(Value::as_str) {
        Some(name) => of_context(name, variable),
        None => Ok(None),
    }
}

/// The engine of a Docker context; that of the name `default` is looked for as without a context.
fn of_context(
    name: &str,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(Address, String)>, Failure> {
    if name == "default" {
        return Ok(None);
    }
    let bad = |reason: String| {
        Failure::new(Exit::Usage, format!("cannot use the Docker context `{name}`: {reason}"))
            .hint("`docker context ls` lists what there is")
    };
    let folder = registry::docker_config_path(variable)
        .and_then(|path| Some(path.parent()?.join("contexts/meta")))
        .ok_or_else(|| bad("there is no home folder".to_owned()))?;
    let path = folder.join(llb::Digest::of(name.as_bytes()).hex()).join("meta.json");
    let text = fs_err::read(&path).map_err(|error| bad(error.to_string()))?;
    let meta: Value = serde_json::from_slice(&text)
        .map_err(|error| bad(format!("`{}`: {error}", path.display())))?;
    let host = meta.pointer("/Endpoints/docker/Host").and_then(Value::as_str);
    let host = host.ok_or_else(|| bad("it names no address".to_owned()))?;
    let whence = format!("the Docker context `{name}`");
    Ok(Some((parse(host, &whence, false)?, format!("{host} ({whence})"))))
}

/// Reads an address.
fn parse(text: &str, whence: &str, tls: bool) -> Result<Address, Failure> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(Address::Unix(path.into()));
    }
    let unsupported = |what: &str| {
        Failure::new(
            Exit::Usage,
            format!("loading by {what} is not supported: {whence} is `{text}`"),
        )
        .hint(OTHER_WAY)
    };
    match text.split_once("://") {
        Some(("tcp" | "http", _)) if tls => Err(unsupported("TLS")),
        Some(("tcp" | "http", host)) => Ok(Address::Tcp(host.trim_end_matches('/').to_owned())),
        Some((scheme, _)) => Err(unsupported(&format!("{scheme}://"))),
        None => Err(Failure::new(Exit::Usage, format!("invalid address `{text}` in {whence}"))
            .hint("want unix:///PATH or tcp://HOST:PORT")),
    }
}

/// Where engines listen by default.
fn places(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let own = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let sockets = |folder: &Path, names: [&str; 2]| names.map(|name| folder.join(name));
    let [docker, podman] = sockets(Path::new("/run"), ["docker.sock", "podman/podman.sock"]);
    let mut places = vec![PathBuf::from("/var/run/docker.sock"), docker];
    let own = own.map(|folder| sockets(&folder, ["docker.sock", "podman/podman.sock"]));
    match own {
        Some([own_docker, own_podman]) => places.extend([own_docker, own_podman, podman]),
        None => places.push(podman),
    }
    let is_same = |one: &Path, other: &Path| {
        fs_err::canonicalize(one)
            .is_ok_and(|one| fs_err::canonicalize(other).is_ok_and(|it| it == one))
    };
    if is_same(&places[0], &places[1]) || is_same(Path::new("/var/run"), Path::new("/run")) {
        places.remove(1);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<Option<(Address, String)>, Failure>) -> String {
        match result {
            Ok(found) => format!("{:?}", found.map(|(address, _)| address)),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn addresses_are_taken_from_what_names_them() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| OsString::from(value))
        };
        for (name, value, expect) in [
            ("DOCKER_HOST", "unix:///a/b", r#"Some(Unix("/a/b"))"#),
            ("DOCKER_HOST", "tcp://host:2375/", r#"Some(Tcp("host:2375"))"#),
            ("CONTAINER_HOST", "unix:///p", r#"Some(Unix("/p"))"#),
            ("DOCKER_HOST", "", "None"),
            ("DOCKER_CONTEXT", "default", "None"),
            (
                "DOCKER_HOST",
                "ssh://me@host",
                "loading by ssh:// is not supported: DOCKER_HOST is `ssh://me@host`",
            ),
            ("DOCKER_HOST", "/a/b", "invalid address `/a/b` in DOCKER_HOST"),
        ] {
            assert_eq!(message(named(None, &with(name, value))), expect, "{name}={value}");
        }
    }

    #[test]
    fn a_context_is_read_from_where_docker_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let variable = move |name: &str| (name == "DOCKER_CONFIG").then(|| path.clone().into());
        assert!(
            message(named(Some("far"), &variable))
                .starts_with("cannot use the Docker context `far`")
        );
        let meta = folder.path().join("contexts/meta").join(llb::Digest::of(b"far").hex());
        fs_err::create_dir_all(&meta).unwrap();
        let text = r#"{"Name":"far","Endpoints":{"docker":{"Host":"unix:///far.sock"}}}"#;
        fs_err::write(meta.join("meta.json"), text).unwrap();
        assert_eq!(message(named(Some("far"), &variable)), r#"Some(Unix("/far.sock"))"#);
        fs_err::write(folder.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(message(named(None, &variable)), r#"Some(Unix("/far.sock"))"#);
    }
}
