//! `docker-registry` on loopback, with the folder that it keeps its blobs in.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "not every test needs all of it, and it fails by panicking"
)]

#[path = "../support/process.rs"]
mod process;

use std::path::{Path, PathBuf};

use llb::Digest;
use process::Settings;
use tempfile::TempDir;

/// A registry with the folder that it keeps its blobs in.
pub(crate) struct Server {
    process: process::Registry,
    pub(crate) host: String,
    pub(crate) folder: TempDir,
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
    let clients = setup
        .clients
        .map_or_else(String::new, |path| format!(", clientcas: ['{}']", path.display()));
    let http = setup.tls.map_or_else(String::new, |path| {
        let path = path.display();
        format!(", tls: {{certificate: '{path}/server.pem', key: '{path}/server.key'{clients}}}")
    });
    let settings = Settings { password: setup.password, http, ..Settings::default() };
    let process = process::Registry::start(folder.path(), &settings)?;
    Some(Server { host: process.host.clone(), process, folder })
}

impl Server {
    /// The file that the registry keeps a blob in.
    pub(crate) fn blob_file(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        let path = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        self.folder.path().join(path)
    }
}
