//! Image archives and layouts: any are loaded or refused. What is refused leaves no image, what is loaded can be written
//! as an archive again, which loads as the same.
//!
//! An input whose first byte is `T` is a tar as it is. Any other is the files of a layout, separated by bytes of 0xFF:
//! first `index.json`, then `manifest.json`, then blobs. In all of them `@0` to `@9` stand for the digests of blobs,
//! without `sha256:`, and `#0` to `#9` for their sizes; a blob may name those before it. So an input need not guess
//! digests.

#![no_main]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use cache::{BlobProvider, Store, StoreOptions, WorkspaceKind};
use exporters::import::{Input, load};
use exporters::layout::{Flavor, write_tar_of};
use exporters::{Content, Destination, ImageOptions, assemble_stored};
use libfuzzer_sys::fuzz_target;
use llb::image::Descriptor;
use llb::{Digest, Platform};
use solver::{LayoutPick, layout_config};
use tree::layer::Encoding;

fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir().expect("a temporary folder");
    let store = open(&place.path().join("store"));
    let input = match bytes.split_first() {
        Some((b'T', tar)) => Input::Stream(Box::new(std::io::Cursor::new(tar.to_vec()))),
        _ => {
            let layout = place.path().join("layout");
            write_layout(&layout, bytes);
            let platform = Platform::parse("linux/amd64").expect("a platform");
            let _ = layout_config(&layout, &LayoutPick::Tag("latest".to_owned()), &platform);
            Input::Path(layout)
        }
    };
    let loaded = load(&store, input, &[]);
    let images = store.images().list().expect("a list of images");
    match loaded {
        Err(_) => assert!(images.is_empty(), "something is left of what was refused"),
        Ok(loaded) => {
            assert!(!loaded.is_empty(), "nothing was loaded");
            for image in loaded {
                again(&store, &place.path().join("saved.tar"), &image.id);
            }
        }
    }
});

/// A store of its own.
fn open(root: &Path) -> Store {
    let options = StoreOptions {
        provider: Arc::new(Nowhere),
        encoding: Encoding::default(),
        workspaces: WorkspaceKind::default(),
    };
    Store::open(root, options).expect("a store")
}

/// There is no registry.
struct Nowhere;

impl BlobProvider for Nowhere {
    fn open(
        &self,
        _: &str,
        _: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        Err("there is no registry".into())
    }
}

/// Saves an image and loads it into another store.
fn again(store: &Store, file: &Path, id: &Digest) {
    let stored = store.images().get(&id.to_string()).expect("an image that was loaded");
    let image = match assemble_stored(store, &stored, &ImageOptions::default(), Content::Here) {
        Ok(image) => image,
        // Its documents may say what no image here can have, such as a time that is none.
        Err(_) => return,
    };
    let destination = Destination::File(file.to_owned());
    write_tar_of(store, &[(&image, &[])], Flavor::Oci, destination).expect("an archive");
    let other = file.with_extension("store");
    let _ = fs::remove_dir_all(&other);
    let other = open(&other);
    let loaded = load(&other, Input::Path(file.to_owned()), &[]).expect("what was saved is loaded");
    assert_eq!(loaded.first().map(|image| image.id), Some(*id));
}

/// Writes the files of an input.
fn write_layout(folder: &Path, bytes: &[u8]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("folders of a layout");
    let mut parts = bytes.split(|byte| *byte == 0xff);
    let (index, manifest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut known: Vec<(String, usize)> = Vec::new();
    for blob in parts.take(10) {
        let blob = filled(blob, &known);
        let hex = Digest::of(&blob).hex();
        fs::write(blobs.join(&hex), &blob).expect("a blob");
        known.push((hex, blob.len()));
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
    if !index.is_empty() {
        fs::write(folder.join("index.json"), filled(index, &known)).expect("an index");
    }
    if !manifest.is_empty() {
        fs::write(folder.join("manifest.json"), filled(manifest, &known)).expect("a list");
    }
}

/// Puts digests and sizes in.
fn filled(text: &[u8], known: &[(String, usize)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let number = after.first().filter(|byte| byte.is_ascii_digit());
        let blob = number.and_then(|digit| known.get(usize::from(digit - b'0')));
        match (first, blob) {
            (b'@', Some((hex, _))) => out.extend_from_slice(hex.as_bytes()),
            (b'#', Some((_, size))) => out.extend_from_slice(size.to_string().as_bytes()),
            _ => {
                out.push(*first);
                rest = after;
                continue;
            }
        }
        rest = &after[1..];
    }
    out
}
