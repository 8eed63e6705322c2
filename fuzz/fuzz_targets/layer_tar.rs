//! Layer tars: any bytes are unpacked or refused, and nothing beside the layer's folder changes.
//!
//! Before the bytes of the input come links that lead out of the layer: `up` to the folder above, `abs` to one
//! beside, `file` to a file beside. Checksums of headers are set right, so that the input need not guess them.

#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tree::apply::apply_layer;
use tree::layer::{Encoding, LayerDir};

const BLOCK: usize = 512;

fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir().expect("a temporary folder");
    let (layer, beside) = (place.path().join("layer"), place.path().join("beside"));
    fs::create_dir(&layer).expect("a folder for the layer");
    fs::create_dir(&beside).expect("a folder beside it");
    fs::write(beside.join("canary"), "alive").expect("a file beside it");
    fs::write(place.path().join("canary"), "alive").expect("a file above it");
    let before = state(place.path(), &layer);

    let mut tar = Vec::new();
    tar.extend(symlink("up", ".."));
    tar.extend(symlink("abs", &beside.to_string_lossy()));
    tar.extend(symlink("file", "../canary"));
    let start = tar.len();
    tar.extend_from_slice(bytes);
    set_checksums(&mut tar[start..]);
    let _ = apply_layer(&mut Cursor::new(tar), &LayerDir::new(&layer), Encoding::default());

    assert_eq!(state(place.path(), &layer), before);
});

/// What a folder holds, but for the layer: content, mode, owner, links and times of each path.
fn state(folder: &Path, layer: &Path) -> BTreeMap<PathBuf, (Vec<u8>, [i64; 5])> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("a folder that can be read") {
            let path = entry.expect("an entry").path();
            if path == layer {
                continue;
            }
            let its = fs::symlink_metadata(&path).expect("metadata");
            let content = if its.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
            let numbers = [
                its.mode().into(),
                its.uid().into(),
                its.gid().into(),
                its.nlink() as i64,
                its.mtime(),
            ];
            if its.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, (content, numbers));
        }
    }
    found
}

fn symlink(name: &str, target: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000777");
    block[124..135].copy_from_slice(b"00000000000");
    block[156] = b'2';
    let length = target.len().min(100);
    block[157..157 + length].copy_from_slice(&target.as_bytes()[..length]);
    block[257..265].copy_from_slice(b"ustar\x0000");
    set_checksums(&mut block);
    block
}

/// Sets the checksum of every header, stepping over contents as their sizes say.
fn set_checksums(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + BLOCK) {
        if header.iter().any(|&byte| byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[124..136].iter().take_while(|byte| (b'0'..=b'7').contains(byte));
        let size = digits.fold(0u64, |size, digit| size * 8 + u64::from(digit - b'0'));
        let blocks = usize::try_from(size).unwrap_or(usize::MAX).div_ceil(BLOCK);
        at = at.saturating_add(BLOCK).saturating_add(blocks.saturating_mul(BLOCK)).min(tar.len());
    }
}
