//! Hashes of what is in directories that have not changed since they were hashed.
//!
//! One flat file per context, beside that of the [stat cache](super::stat_cache), read whole and searched in
//! place:
//!
//! ```text
//! magic (8) · record… · BLAKE3 of all before (32)
//! record = fingerprint (32) · hash (32) · age (u8)
//! ```
//!
//! The fingerprint covers the path of the directory and what shows a change of any of its files: names, kinds,
//! modes, sizes, times and inodes. With it an unchanged directory costs one `stat` per file and one lookup.
//!
//! Invariants:
//! - Records are sorted by fingerprint.
//! - A record was made when all files had rested (see the stat cache), and their own hashes were kept too.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::stat_cache::write;

const MAGIC: &[u8; 8] = b"BLdirs\x00\x01";

/// Bytes of a record.
const RECORD: usize = 32 + 32 + 1;

/// Times a record may be written again without having been asked for.
const MAX_AGE: u8 = 16;

#[derive(Debug, Default)]
pub(super) struct FolderCache {
    file: Option<PathBuf>,
    known: OnceLock<Known>,
    fresh: Mutex<BTreeMap<[u8; 32], [u8; 32]>>,
}

#[derive(Debug, Default)]
struct Known {
    records: Vec<[u8; RECORD]>,
    used: Vec<AtomicBool>,
}

impl FolderCache {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// The hash that goes with a fingerprint.
    pub(super) fn find(&self, fingerprint: &[u8; 32]) -> Option<[u8; 32]> {
        let known = self.known();
        if let Ok(found) = known.records.binary_search_by(|record| record[..32].cmp(fingerprint)) {
            known.used[found].store(true, Ordering::Relaxed);
            return known.records[found][32..].first_chunk().copied();
        }
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.get(fingerprint).copied()
    }

    pub(super) fn add(&self, fingerprint: [u8; 32], hash: [u8; 32]) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint, hash);
    }

    pub(super) fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_empty() {
            return Ok(());
        }
        let mut all = BTreeMap::new();
        let known = self.known();
        for (record, used) in known.records.iter().zip(&known.used) {
            let mut record = *record;
            let age = &mut record[RECORD - 1];
            *age = if used.load(Ordering::Relaxed) { 0 } else { age.saturating_add(1) };
            if *age <= MAX_AGE {
                all.insert(record[..32].to_vec(), record);
            }
        }
        for (fingerprint, hash) in fresh.iter() {
            let mut record = [0; RECORD];
            record[..32].copy_from_slice(fingerprint);
            record[32..64].copy_from_slice(hash);
            all.insert(fingerprint.to_vec(), record);
        }
        let mut bytes = MAGIC.to_vec();
        all.values().for_each(|record| bytes.extend_from_slice(record));
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        write(file, &bytes)
    }

    fn known(&self) -> &Known {
        self.known.get_or_init(|| {
            let bytes = self.file.as_ref().and_then(|file| fs_err::read(file).ok());
            let records = bytes.and_then(|bytes| decode(&bytes)).unwrap_or_default();
            let used = records.iter().map(|_| AtomicBool::new(false)).collect();
            Known { records, used }
        })
    }
}

/// Reads a file; `None` when anything is wrong with it.
fn decode(bytes: &[u8]) -> Option<Vec<[u8; RECORD]>> {
    let (body, sum) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let (records, rest) = body.strip_prefix(MAGIC)?.as_chunks::<RECORD>();
    (rest.is_empty() && records.is_sorted_by(|a, b| a[..32] < b[..32])).then(|| records.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_found_and_a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("folders");
        let cache = FolderCache::new(Some(file.clone()));
        cache.add([2; 32], [7; 32]);
        cache.add([1; 32], [8; 32]);
        assert_eq!(cache.find(&[2; 32]), Some([7; 32]));
        cache.save().unwrap();
        let cache = FolderCache::new(Some(file.clone()));
        assert_eq!(cache.find(&[1; 32]), Some([8; 32]));
        assert_eq!(cache.find(&[3; 32]), None);
        let bytes = fs_err::read(&file).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], b""] {
            assert!(decode(damaged).is_none());
        }
    }
}
