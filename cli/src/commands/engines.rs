//! Which container engine `--load` is for.
//!
//! ```text
//! context= of the output, $DOCKER_CONTEXT       a Docker context
//! $DOCKER_HOST, $CONTAINER_HOST                 an address
//! $CONTAINERD_ADDRESS, $CONTAINERD_NAMESPACE    a containerd
//! the context in use in Docker's config.json
//! sockets of Docker, then of Podman, of the system and of the user; then containerd's
//! ```
//!
//! What is named must be there; only where nothing is named is one looked for.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use exporters::engine::{Address, Containerd, Engine};
use serde_json::Value;

use crate::report::{Exit, Failure, chain};

/// What else can be done.
pub(crate) const OTHER_WAY: &str =
    "an archive can be loaded too: `build -o type=docker,dest=- ... | docker load`";

/// Where containerd listens.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// The namespace of a containerd that its own programs take.
const NAMESPACE: &str = "default";

/// Finds the engine to load into, that it is fit for what it shall get, and that it listens.
pub(crate) fn find(
    context: Option<&str>,
    fits: impl Fn(&Engine) -> Result<(), Failure>,
) -> Result<Engine, Failure> {
    let variable = |name: &str| std::env::var_os(name);
    match named(context, &variable)? {
        Some((engine, whence)) => {
            fits(&engine)?;
            engine.try_connect().map_err(|error| silent(&engine, &whence, &error))?;
            Ok(engine)
        }
        None => {
            let engine = search(places(&variable), containerd(CONTAINERD.into(), &variable))?;
            fits(&engine).map(|()| engine)
        }
    }
}

/// Tries the places where engines listen, and containerd last: it may be there for Docker only.
fn search(places: Vec<PathBuf>, containerd: Containerd) -> Result<Engine, Failure> {
    let mut looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    looked.push(containerd.socket.display().to_string());
    let engines = places.into_iter().map(|place| Engine::Docker(Address::Unix(place)));
    for (engine, place) in engines.chain([Engine::Containerd(containerd)]).zip(&looked) {
        match engine.try_connect() {
            Ok(()) => return Ok(engine),
            Err(error) if is_nobody(&error) => {}
            Err(error) => return Err(silent(&engine, place, &error)),
        }
    }
    Err(Failure::new(Exit::Machine, "there is no Docker, Podman or containerd to load the image into")
        .hint(format!(
            "neither DOCKER_HOST, CONTAINER_HOST, CONTAINERD_ADDRESS nor a Docker context names one, and nobody listens \
             at {}; start one (`podman system service`), or load an archive: \
             `build -o type=docker,dest=- ... | docker load`",
            looked.join(", ")
        )))
}

/// Whether an error of connecting says that nobody listens.
fn is_nobody(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(error.kind(), ConnectionRefused | NotADirectory | NotFound)
}

/// Wording of an engine that cannot be reached.
fn silent(engine: &Engine, whence: &str, error: &io::Error) -> Failure {
    let message = format!("cannot reach the container engine at {whence}: {}", chain(error));
    let failure = Failure::new(Exit::Machine, message);
    match (error.kind(), engine) {
        (ErrorKind::PermissionDenied, _) => failure
            .hint("its socket is not open to this user: run as root, or join the group that it belongs to"),
        (_, Engine::Docker(_)) => failure.hint(format!("is it running? {OTHER_WAY}")),
        (_, Engine::Containerd(_)) if is_nobody(error) => {
            failure.hint("is it running? CONTAINERD_ADDRESS is the path of its socket")
        }
        (_, Engine::Containerd(_)) => failure.hint(
            "images get there by its program `ctr`; another can be given an archive: `build -o type=oci,dest=- ...`",
        ),
    }
}

/// The engine that something names, and what that is.
fn named(
    context: Option<&str>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(Engine, String)>, Failure> {
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
            return Ok(Some((Engine::Docker(address), format!("{name}={value}"))));
        }
    }
    if let Some(value) = text("CONTAINERD_ADDRESS") {
        let socket = value.strip_prefix("unix://").unwrap_or(&value);
        let engine = Engine::Containerd(containerd(socket.into(), variable));
        return Ok(Some((engine, format!("CONTAINERD_ADDRESS={value}"))));
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
) -> Result<Option<(Engine, String)>, Failure> {
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
    let address = parse(host, &whence, false)?;
    Ok(Some((Engine::Docker(address), format!("{host} ({whence})"))))
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

/// The containerd that listens there, with the namespace in use.
fn containerd(socket: PathBuf, variable: &dyn Fn(&str) -> Option<OsString>) -> Containerd {
    let namespace = variable("CONTAINERD_NAMESPACE").and_then(|name| name.into_string().ok());
    let namespace = namespace.filter(|name| !name.is_empty());
    Containerd { socket, namespace: namespace.unwrap_or_else(|| NAMESPACE.to_owned()) }
}

/// Where Docker and Podman listen by default.
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

    fn message(result: Result<Option<(Engine, String)>, Failure>) -> String {
        match result {
            Ok(found) => found.map_or("none".to_owned(), |(engine, _)| match engine {
                Engine::Docker(address) => format!("{address:?}"),
                Engine::Containerd(Containerd { socket, namespace }) => {
                    format!("{} in {}", namespace, socket.display())
                }
            }),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn addresses_are_taken_from_what_names_them() {
        let with = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| OsString::from(value))
        };
        for (name, value, expect) in [
            ("DOCKER_HOST", "unix:///a/b", r#"Unix("/a/b")"#),
            ("DOCKER_HOST", "tcp://host:2375/", r#"Tcp("host:2375")"#),
            ("CONTAINER_HOST", "unix:///p", r#"Unix("/p")"#),
            ("DOCKER_HOST", "", "none"),
            ("DOCKER_CONTEXT", "default", "none"),
            ("CONTAINERD_ADDRESS", "/c/d", "default in /c/d"),
            ("CONTAINERD_ADDRESS", "unix:///c/d", "default in /c/d"),
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
        assert_eq!(message(named(Some("far"), &variable)), r#"Unix("/far.sock")"#);
        fs_err::write(folder.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        assert_eq!(message(named(None, &variable)), r#"Unix("/far.sock")"#);
    }
}
