//! What the store keeps of a download beside the file: a result under a key of the URL says by what the server can be
//! asked about it.

use cache::{Key, KeyBuilder, NewResult, Records, Ref, Store};
use llb::Digest;
use registry::Validators;
use serde::{Deserialize, Serialize};

use crate::error::OpError;

/// Version of [`Stored`].
const VERSION: u32 = 1;

/// A file that was downloaded.
#[derive(Debug, Clone)]
pub(super) struct Download {
    /// Digest of the file.
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
    /// Name that it has in `tree`.
    pub(super) file: String,
    /// What the server said of it.
    pub(super) validators: Validators,
    /// The file, readable by its owner alone, of root.
    pub(super) tree: Ref,
}

/// A record as it is on the disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    digest: String,
    size: u64,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

impl Download {
    /// What the store knows of `url`.
    pub(super) fn load(store: &Store, url: &str) -> Result<Option<Self>, OpError> {
        let Some(result) = store.load(&url_key(url))? else { return Ok(None) };
        // A record that cannot be read is one that is not there.
        Ok(Self::decode(&result.why, result.reference))
    }

    /// Keeps it as the last that was had from `url`.
    pub(super) fn save(&self, store: &Store, url: &str) -> Result<(), OpError> {
        save(store, url_key(url), &self.tree, self.encode())
    }

    fn decode(bytes: &[u8], tree: Ref) -> Option<Self> {
        let stored: Stored = serde_json::from_slice(bytes).ok()?;
        let validators = Validators { etag: stored.etag, last_modified: stored.last_modified };
        (stored.version == VERSION).then_some(())?;
        let digest = stored.digest.parse().ok()?;
        Some(Self { digest, size: stored.size, file: stored.file, validators, tree })
    }

    fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            version: VERSION,
            digest: self.digest.to_string(),
            size: self.size,
            file: self.file.clone(),
            etag: self.validators.etag.clone(),
            last_modified: self.validators.last_modified.clone(),
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }
}

/// Keeps a tree under a key.
pub(super) fn save(store: &Store, key: Key, tree: &Ref, why: Vec<u8>) -> Result<(), OpError> {
    let created = std::time::SystemTime::now();
    let result = NewResult { key, reference: tree.clone(), created, why };
    Ok(store.save(&[], Some(&result))?)
}

/// URLs may hold credentials, so that only their hashes are kept.
fn url_key(url: &str) -> Key {
    KeyBuilder::new("http-url.v1").str(url).finish()
}

/// Name of the lock that keeps two processes from downloading the same.
pub(super) fn lock_name(url: &str) -> String {
    format!("download {}", url_key(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let download = Download {
            digest: Digest::of(b"x"),
            size: 1,
            file: "a \"b\"".to_owned(),
            validators: Validators {
                etag: Some("W/\"é\"".to_owned()),
                last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
            },
            tree: Ref::scratch(),
        };
        let back = Download::decode(&download.encode(), Ref::scratch()).unwrap();
        assert_eq!(
            (back.digest, back.size, back.file, back.validators),
            (download.digest, download.size, download.file.clone(), download.validators.clone())
        );
        let newer =
            String::from_utf8(download.encode()).unwrap().replace("\"version\":1", "\"version\":2");
        for damaged in ["", "{}", "x", newer.as_str()] {
            assert!(Download::decode(damaged.as_bytes(), Ref::scratch()).is_none(), "{damaged}");
        }
    }
}
