//! The store under the real executable: what it takes, a full disk, damage, power cuts, many builds at once.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod damage;
mod model;
mod space;
mod stop;
mod stopped;
mod stress;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fs_err as fs;

/// What a folder holds: of each path its mode and content.
type Listing = BTreeMap<String, (u32, Vec<u8>)>;

fn listing(top: &Path) -> Listing {
    let mut found = Listing::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else if metadata.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            if metadata.is_dir() {
                open.push(path.clone());
            }
            let name = path.strip_prefix(top).unwrap().to_str().unwrap().to_owned();
            found.insert(name, (metadata.permissions().mode(), content));
        }
    }
    found
}

/// Numbers that are the same in every run, unless a seed is given.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(1u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}
