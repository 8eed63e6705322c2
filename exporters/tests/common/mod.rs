//! A store in a temporary folder, results made in it, and independent tools to look at what is exported.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cache::{BlobProvider, Layer, LayerMeta, Ref, Store, StoreOptions};
use exporters::{ImageResult, PlatformResult};
use fs_err as fs;
use llb::image::{Descriptor, History, ImageConfig, media_type};
use llb::{DiffId, Digest, Platform, Reference};
use tree::codec::{Codec, Compressor};
use tree::layer::{Encoding, Whiteouts};
use tree::tar::{Entry, EntryKind, Writer};

/// Serves blobs from memory, as a registry would.
#[derive(Default)]
pub struct Remote(Mutex<HashMap<Digest, Vec<u8>>>);

impl BlobProvider for Remote {
    fn open(
        &self,
        _origin: &str,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        let blob = self.0.lock().unwrap().get(&descriptor.digest).cloned().ok_or("no such blob")?;
        Ok(Box::new(std::io::Cursor::new(blob)))
    }
}

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub store: Store,
    remote: Arc<Remote>,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let whiteouts = if is_root() { Whiteouts::Trusted } else { Whiteouts::User };
        let remote = Arc::new(Remote::default());
        let provider = Arc::clone(&remote) as Arc<dyn BlobProvider>;
        let options = StoreOptions {
            provider,
            encoding: Encoding { whiteouts, ..Encoding::default() },
            workspaces: cache::WorkspaceKind::default(),
        };
        let store = Store::open(&folder.path().join("store"), options).unwrap();
        Self { folder, store, remote }
    }

    /// A place for an output.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a layer over `parent`, at a time in whole seconds.
    pub fn layer(&self, parent: &Ref, created: u64, fill: impl FnOnce(&Path)) -> Layer {
        let workspace = self.store.workspace(parent).unwrap();
        fill(workspace.upper().path());
        let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created);
        workspace.commit(&LayerMeta { created, description: "test".to_owned() }).unwrap()
    }

    /// A layer of a base image with one file, which only the registry has.
    pub fn base(&self, name: &str, content: &str) -> Layer {
        let mut tar = Writer::new(Vec::new());
        let size = content.len() as u64;
        // Owned by the caller, so that it can be unpacked without root.
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let file = Entry::new(EntryKind::File, name.into());
        let entry = Entry { mode: 0o644, uid, gid, size, ..file };
        tar.append_file(&entry, &mut content.as_bytes()).unwrap();
        let tar = tar.finish().unwrap();
        let mut gzip = Compressor::new(Vec::new(), Codec::GZIP).unwrap();
        gzip.write_all(&tar).unwrap();
        let blob = gzip.finish().unwrap();
        // A layer as Docker's registry gives it out.
        let descriptor =
            Descriptor::new(media_type::DOCKER_LAYER_GZIP, Digest::of(&blob), blob.len() as u64);
        self.remote.0.lock().unwrap().insert(descriptor.digest, blob);
        let diff_id = DiffId(Digest::of(&tar));
        self.store.base_layer(diff_id, &descriptor, "registry.test/base".to_owned()).unwrap()
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A result over these layers, for linux/amd64, with one `RUN` in its history for each.
pub fn result(reference: Ref, names: &[&str]) -> ImageResult {
    let platforms = vec![platform_result(reference, "linux/amd64")];
    ImageResult { platforms, names: references(names), ..ImageResult::default() }
}

pub fn platform_result(reference: Ref, platform: &str) -> PlatformResult {
    let platform = Platform::parse(platform).unwrap();
    let entry = |_: &Layer| History { created_by: "RUN x".to_owned(), ..History::default() };
    let history: Vec<History> = reference.layers().iter().map(entry).collect();
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        history: Some(history),
        ..ImageConfig::default()
    };
    PlatformResult { platform, reference, config, base_history: 0, source_date_epoch: None }
}

pub fn references(names: &[&str]) -> Vec<Reference> {
    names.iter().map(|name| Reference::parse(name).unwrap()).collect()
}

/// Runs a tool; `None`, with a word on it, when it is not installed.
pub fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(_) => {
            println!("SKIP: {program} is not installed");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(text)
}

/// Every entry of a tar: path as written and its bytes.
pub fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut rest = tar;
    while let Some(header) = rest.get(..512).filter(|header| header[0] != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = header[range].split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(field).into_owned()
        };
        let size = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        entries.push((text(0..100), rest[512..512 + size].to_vec()));
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    entries
}

pub fn write(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join(name), content).unwrap();
}
