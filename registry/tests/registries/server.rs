//! `docker-registry` on loopback.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test needs all of it, and it fails by panicking"
)]

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use llb::Digest;
use tempfile::TempDir;

/// `user` with the password `secret`.
const HTPASSWD: &str = r"user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a
";

pub(crate) struct Server {
    child: Child,
    pub(crate) host: String,
    pub(crate) folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a registry is started.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) password: bool,
    /// Has `server.pem` and `server.key`.
    pub(crate) tls: Option<&'a Path>,
    /// The authority of certificates that it wants to see.
    pub(crate) clients: Option<&'a Path>,
}

/// Starts `docker-registry`; `None`, with a word on it, where it is not installed.
pub(crate) fn start(setup: &Setup<'_>) -> Option<Server> {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let clients = setup
        .clients
        .map_or_else(String::new, |path| format!(", clientcas: ['{}']", path.display()));
    let tls = setup.tls.map_or_else(String::new, |path| {
        let path = path.display();
        format!(", tls: {{certificate: '{path}/server.pem', key: '{path}/server.key'{clients}}}")
    });
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'{tls}}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n",
        at("data")
    );
    if setup.password {
        fs_err::write(at("htpasswd"), HTPASSWD).unwrap();
        config += &format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", at("htpasswd"));
    }
    fs_err::write(at("config.yml"), config).unwrap();
    let started = Command::new("docker-registry")
        .args(["serve", &at("config.yml")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        println!("SKIP: docker-registry is not installed");
        return None;
    };
    let server = Server { child, host, folder };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&server.host).is_err() {
        assert!(Instant::now() < deadline, "docker-registry does not listen");
        std::thread::yield_now();
    }
    Some(server)
}

impl Server {
    /// The file that the registry keeps a blob in.
    pub(crate) fn blob_file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let path = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.folder.path().join(path)
    }
}
