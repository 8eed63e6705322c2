//! Reads images from OCI image layouts (OCI image-spec 1.1, "Image Layout").
//!
//! Everything in a layout is foreign: documents are limited in size, checked against their digests, and
//! indexes may not nest without end.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use llb::image::{Descriptor, Index, Manifest};
use llb::{Digest, Platform};

use crate::error::OpError;

/// Largest document that is read.
const MAX_DOCUMENT: u64 = 4 << 20;

/// Deepest nesting of indexes.
const MAX_DEPTH: usize = 4;

/// Which image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutPick {
    /// By the tag in `org.opencontainers.image.ref.name`.
    Tag(String),
    /// By the digest of a manifest or index.
    Digest(Digest),
}

/// An image of a layout: its manifest and where its blobs are.
#[derive(Debug)]
pub(crate) struct LayoutImage {
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) config: Vec<u8>,
}

/// Digest and config of an image in the layout folder at `path`, found and checked as those of a named context are.
///
/// # Errors
/// When there is no such image for the platform, or the layout is damaged.
pub fn layout_config(
    path: &Path,
    pick: &LayoutPick,
    platform: &Platform,
) -> Result<(Digest, Vec<u8>), OpError> {
    let image = Layout { name: "layout", path }.image(pick, platform)?;
    Ok((image.digest, image.config))
}

/// A layout folder.
pub(crate) struct Layout<'a> {
    pub(crate) name: &'a str,
    pub(crate) path: &'a Path,
}

impl Layout<'_> {
    /// Finds the image that was picked, for a platform.
    pub(crate) fn image(
        &self,
        pick: &LayoutPick,
        platform: &Platform,
    ) -> Result<LayoutImage, OpError> {
        let index_path = self.path.join("index.json");
        let index: Index = self.parse(&self.read(&index_path)?, &index_path)?;
        let found = match pick {
            LayoutPick::Digest(digest) => {
                index
                    .manifests
                    .iter()
                    .find(|descriptor| descriptor.digest == *digest)
                    .cloned()
                    .or_else(|| {
                        // A digest may also name a manifest inside one of the indexes.
                        self.blob_path(digest).exists().then(|| Descriptor::new("", *digest, 0))
                    })
            }
            LayoutPick::Tag(tag) => {
                let is_tagged = |descriptor: &&Descriptor| {
                    let annotations = descriptor.annotations.as_ref();
                    annotations.and_then(|all| all.get("org.opencontainers.image.ref.name"))
                        == Some(tag)
                };
                let mut tagged = index.manifests.iter().filter(is_tagged);
                tagged.next().cloned().or_else(|| match &index.manifests[..] {
                    [only]
                        if only.annotations.as_ref().is_none_or(|all| {
                            !all.contains_key("org.opencontainers.image.ref.name")
                        }) =>
                    {
                        Some(only.clone())
                    }
                    _ => None,
                })
            }
        };
        let descriptor = found.ok_or_else(|| {
            let what = match pick {
                LayoutPick::Tag(tag) => format!("tag `{tag}`"),
                LayoutPick::Digest(digest) => digest.to_string(),
            };
            self.error(format!("no {what} in the OCI layout `{}`", self.path.display()))
        })?;
        self.follow(&descriptor, platform, 0)
    }

    fn follow(
        &self,
        descriptor: &Descriptor,
        platform: &Platform,
        depth: usize,
    ) -> Result<LayoutImage, OpError> {
        if depth > MAX_DEPTH {
            return Err(self.error("indexes are nested too deeply".to_owned()));
        }
        let bytes = self.document(&descriptor.digest)?;
        let path = self.blob_path(&descriptor.digest);
        let value: serde_json::Value = self.parse(&bytes, &path)?;
        if value.get("manifests").is_some() {
            let index: Index = self.parse(&bytes, &path)?;
            let best = choose(&index.manifests, platform).ok_or_else(|| {
                let offered = index.manifests.iter().filter_map(|entry| entry.platform.as_ref());
                let offered: Vec<String> =
                    offered.map(|offered| format!("`{}`", Platform::from(offered))).collect();
                OpError::OtherPlatform {
                    name: self.name.to_owned(),
                    platform: platform.to_string(),
                    offered: offered.join(", "),
                }
            })?;
            return self.follow(best, platform, depth + 1);
        }
        let manifest: Manifest = self.parse(&bytes, &path)?;
        let config = self.document(&manifest.config.digest)?;
        Ok(LayoutImage { digest: descriptor.digest, manifest, config })
    }

    fn document(&self, digest: &Digest) -> Result<Vec<u8>, OpError> {
        let path = self.blob_path(digest);
        let bytes = self.read(&path)?;
        if Digest::of(&bytes) != *digest {
            return Err(self.error(format!("`{}` does not match its digest", path.display())));
        }
        Ok(bytes)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path(self.path, digest)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, OpError> {
        let mut bytes = Vec::new();
        let file = open(path).map_err(|error| self.error(error.to_string()))?;
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.error(error.to_string()))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(
                self.error(format!("`{}` is larger than {MAX_DOCUMENT} bytes", path.display()))
            );
        }
        Ok(bytes)
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        bytes: &[u8],
        path: &Path,
    ) -> Result<T, OpError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.error(format!("`{}`: {error}", path.display())))
    }

    fn error(&self, message: String) -> OpError {
        OpError::Layout { name: self.name.to_owned(), message }
    }
}

/// Where a layout keeps a blob.
pub(crate) fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs").join("sha256").join(digest.hex())
}

/// Opens a regular file; whatever else stands there is not waited for.
pub(crate) fn open(path: &Path) -> io::Result<fs::File> {
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits();
    let mut options = fs::OpenOptions::new();
    let file = options.read(true).custom_flags(nonblock.cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::other(format!("`{}` is not a regular file", path.display())))
}

/// The entry of an index that suits a platform best; attestations never do.
fn choose<'a>(entries: &'a [Descriptor], platform: &Platform) -> Option<&'a Descriptor> {
    let rank = |entry: &&Descriptor| {
        let offered = entry.platform.as_ref()?;
        let offered = Platform {
            os: offered.os.clone(),
            architecture: offered.architecture.clone(),
            variant: offered.variant.clone(),
            os_version: offered.os_version.clone(),
            os_features: offered.os_features.clone().unwrap_or_default(),
        };
        platform.rank(&offered.normalized())
    };
    let only = |entries: &'a [Descriptor]| match entries {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    };
    let ranked = entries.iter().filter_map(|entry| Some((rank(&entry)?, entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).or_else(|| only(entries))
}

#[cfg(test)]
mod tests;
