//! Manifests and indexes: reading, and the choice of a platform.

use llb::image::{Descriptor, Index, Manifest, media_type};
use llb::{Digest, Platform};
use serde::Deserialize;

use crate::Error;

/// Largest manifest or index that is read, in bytes.
pub const LARGEST_DOCUMENT: u64 = 4 << 20;

/// How many indexes may stand between a name and its manifest.
pub(crate) const DEEPEST_INDEX: usize = 4;

/// What may be asked for under `manifests/`.
pub(crate) const ACCEPT: &str = concat!(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, ",
    "application/vnd.docker.distribution.manifest.list.v2+json, ",
    "application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1"
);

/// A manifest or index as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Media type, digest and size of `bytes`.
    pub descriptor: Descriptor,
    /// The JSON text; hashes to the descriptor's digest.
    pub bytes: Vec<u8>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// What the name stands for: an index, or the manifest itself.
    pub top: Document,
    /// The manifest for the platform.
    pub document: Document,
    /// `document`, parsed.
    pub manifest: Manifest,
}

/// What a document holds.
#[derive(Debug)]
pub(crate) enum Parsed {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// Members that tell the kinds of document apart.
#[derive(Deserialize)]
struct Shape {
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
}

fn is_index(media_type: &str) -> bool {
    [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST_LIST].contains(&media_type)
}

fn is_manifest(media_type: &str) -> bool {
    [media_type::OCI_MANIFEST, media_type::DOCKER_MANIFEST].contains(&media_type)
}

/// The media type of `bytes`: what the document says of itself, else its shape. The `Content-Type` of the
/// answer counts only when neither tells.
///
/// # Errors
/// What is wrong, when the document is nothing known or could be read as two things.
pub(crate) fn media_type_of(bytes: &[u8], content_type: &str) -> Result<String, String> {
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| {
        if bytes.trim_ascii_start().starts_with(b"<") {
            "answered a web page, not a manifest: it is no registry, or a proxy or login page answers in its place"
                .to_owned()
        } else {
            format!("answered malformed JSON: {error}")
        }
    })?;
    if shape.schema_version == 1 {
        return Err("answered an image of manifest schema 1, which is no longer supported: push the image anew".into());
    }
    if shape.schema_version != 2 {
        return Err("answered a document that is no manifest".into());
    }
    let (index, image) =
        (shape.manifests.is_some(), shape.layers.is_some() || shape.config.is_some());
    if index && image {
        return Err("answered a document that is both a manifest and an index".into());
    }
    let said = shape.media_type.filter(|said| !said.is_empty());
    let said = said
        .unwrap_or_else(|| content_type.split(';').next().unwrap_or_default().trim().to_owned());
    match (index, image) {
        (true, false) if is_index(&said) => Ok(said),
        (false, true) if is_manifest(&said) => Ok(said),
        (true, false) if !is_manifest(&said) => Ok(media_type::OCI_INDEX.to_owned()),
        (false, true) if !is_index(&said) => Ok(media_type::OCI_MANIFEST.to_owned()),
        _ => Err("answered a document whose content is not what its media type says".into()),
    }
}

impl Document {
    /// Checks that `bytes` are a document, and names it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(bytes: Vec<u8>, content_type: &str) -> Result<Self, String> {
        let media_type = media_type_of(&bytes, content_type)?;
        let digest = Digest::from_bytes(tree::codec::Sha256::digest(&bytes));
        Ok(Self { descriptor: descriptor(media_type, digest, bytes.len() as u64), bytes })
    }

    /// What was kept of an earlier answer, if it is still what has this digest.
    pub(crate) fn known(bytes: Vec<u8>, digest: Digest) -> Option<Self> {
        let document = Self::new(bytes, "").ok()?;
        (document.descriptor.digest == digest).then_some(document)
    }

    /// Parses the text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(&self) -> Result<Parsed, String> {
        let malformed =
            |error: serde_json::Error| format!("answered a malformed manifest: {error}");
        Ok(if is_index(&self.descriptor.media_type) {
            Parsed::Index(serde_json::from_slice(&self.bytes).map_err(malformed)?)
        } else {
            Parsed::Manifest(Box::new(serde_json::from_slice(&self.bytes).map_err(malformed)?))
        })
    }
}

/// A descriptor with the members every descriptor has.
pub(crate) fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type,
        digest,
        size,
        urls: None,
        annotations: None,
        data: None,
        platform: None,
        artifact_type: None,
    }
}

/// The entry of `index` that suits `platform` best; among equals the first.
///
/// An entry without a platform is taken when no other suits: a nested index often has none.
///
/// # Errors
/// [`Error::NoMatchingPlatform`], which lists what there is.
pub(crate) fn choose<'a>(
    index: &'a Index,
    platform: &Platform,
    what: &str,
) -> Result<&'a Descriptor, Error> {
    let stated = |entry: &'a Descriptor| {
        entry.platform.as_ref().map(|stated| (entry, Platform::from(stated)))
    };
    let best = index
        .manifests
        .iter()
        .filter_map(stated)
        .filter_map(|(entry, offered)| Some((platform.rank(&offered)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    let unstated = |entry: &&Descriptor| {
        entry.platform.is_none() && (is_index(&entry.media_type) || is_manifest(&entry.media_type))
    };
    index.manifests.iter().find(unstated).ok_or_else(|| {
        let mut offered: Vec<String> = Vec::new();
        let stated = index.manifests.iter().filter_map(stated);
        for (_, platform) in stated.filter(|(_, platform)| platform.os != "unknown") {
            let shown = crate::session::clean(&platform.to_string());
            if offered.len() < 30 && !offered.contains(&shown) {
                offered.push(shown);
            }
        }
        let (what, platform) = (what.to_owned(), platform.to_string());
        Error::NoMatchingPlatform { what, platform, offered }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[&str]) -> Index {
        let entry = |text: &&str| {
            let mut entry =
                descriptor(media_type::OCI_MANIFEST.into(), Digest::of(text.as_bytes()), 1);
            if !text.is_empty() {
                entry.platform = Some((&Platform::parse(text).unwrap()).into());
            }
            entry
        };
        Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.into(),
            manifests: platforms.iter().map(entry).collect(),
            annotations: None,
        }
    }

    #[track_caller]
    fn check(platforms: &[&str], wanted: &str, expect: Option<&str>) {
        let index = index(platforms);
        let chosen =
            choose(&index, &Platform::parse(wanted).unwrap(), "a").ok().map(|entry| entry.digest);
        assert_eq!(
            chosen,
            expect.map(|text| Digest::of(text.as_bytes())),
            "{wanted} of {platforms:?}"
        );
    }

    #[test]
    fn best_variant_is_chosen() {
        let all = ["linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/arm64", "linux/386"];
        check(&all, "linux/amd64", Some("linux/amd64"));
        check(&all, "linux/arm/v7", Some("linux/arm/v7"));
        check(&all, "linux/arm/v6", Some("linux/arm/v6"));
        check(&all, "linux/amd64/v3", Some("linux/amd64"));
        check(&["linux/386"], "linux/amd64", Some("linux/386"));
        check(&all, "linux/s390x", None);
        check(&["linux/arm64", ""], "linux/amd64", Some(""));
    }

    #[track_caller]
    fn check_type(text: &str, content_type: &str, expect: &str) {
        let actual = media_type_of(text.as_bytes(), content_type).unwrap_or_else(|error| error);
        assert_eq!(actual, expect, "input: {text}");
    }

    #[test]
    fn kind_of_document_is_told_by_its_content() {
        check_type(r#"{"schemaVersion":2,"manifests":[]}"#, "", media_type::OCI_INDEX);
        let list = media_type::DOCKER_MANIFEST_LIST;
        check_type(r#"{"schemaVersion":2,"manifests":[]}"#, list, list);
        check_type(
            r#"{"schemaVersion":2,"config":{},"layers":[]}"#,
            "text/plain; x",
            media_type::OCI_MANIFEST,
        );
        let mixed = "answered a document whose content is not what its media type says";
        check_type(r#"{"schemaVersion":2,"config":{}}"#, list, mixed);
        let both = "answered a document that is both a manifest and an index";
        check_type(r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "", both);
        check_type(r#"{"schemaVersion":3}"#, "", "answered a document that is no manifest");
        assert!(media_type_of(b"[[[", "").unwrap_err().starts_with("answered malformed JSON"));
    }
}
