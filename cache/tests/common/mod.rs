//! A store in a temporary folder, layers to put into it, and a provider that counts.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part")]

use fs_err as fs;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cache::{BlobProvider, Layer, LayerMeta, Ref, Store, StoreOptions};
use llb::image::{Descriptor, media_type};
use llb::{DiffId, Digest};
use tree::codec::{Codec, Compressor};
use tree::layer::{Encoding, Whiteouts};

/// Serves blobs from memory.
#[derive(Default)]
pub struct Remote {
    pub blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    pub fetches: AtomicUsize,
}

impl BlobProvider for Remote {
    fn open(
        &self,
        _origin: &str,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let blob =
            self.blobs.lock().unwrap().get(&descriptor.digest).cloned().ok_or("no such blob")?;
        Ok(Box::new(std::io::Cursor::new(blob)))
    }
}

impl Remote {
    /// Puts up a layer with one file, and returns its diff id and descriptor.
    pub fn layer(&self, name: &str, content: &str) -> (DiffId, Descriptor) {
        let mut builder = tar_of(name, content);
        let diff_id = DiffId(Digest::of(&builder));
        let mut gzip = Compressor::new(Vec::new(), Codec::GZIP).unwrap();
        std::io::Write::write_all(&mut gzip, &builder).unwrap();
        builder = gzip.finish().unwrap();
        let size = builder.len() as u64;
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(&builder), size);
        self.blobs.lock().unwrap().insert(descriptor.digest, builder);
        (diff_id, descriptor)
    }
}

/// A tar with one file, written by hand: the layout is the format's, not the crate's.
fn tar_of(name: &str, content: &str) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend(content.as_bytes());
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    tar
}

pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: unpacking layers sets owners, which needs root");
    }
    root
}

pub fn options(provider: Arc<Remote>) -> StoreOptions {
    let whiteouts =
        if rustix::process::geteuid().is_root() { Whiteouts::Trusted } else { Whiteouts::User };
    let encoding = Encoding { whiteouts, ..Encoding::default() };
    StoreOptions { provider, encoding, workspaces: cache::WorkspaceKind::default() }
}

pub fn open(root: &Path) -> Store {
    Store::open(root, options(Arc::default())).unwrap()
}

pub fn open_with(root: &Path, remote: &Arc<Remote>) -> Store {
    Store::open(root, options(Arc::clone(remote))).unwrap()
}

/// Makes a layer with one file over `parent`.
pub fn layer(store: &Store, parent: &Ref, name: &str, content: &str) -> Layer {
    let workspace = store.workspace(parent).unwrap();
    fs::write(workspace.upper().path().join(name), content).unwrap();
    workspace.commit(&LayerMeta::now(format!("write {name}"))).unwrap()
}

/// Every file below a folder, without that of its locks.
pub fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.retain(|path| path != "locks/names");
    found.sort();
    found
}
