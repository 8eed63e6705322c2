//! Image documents as they are written: config, manifest, index, descriptor.
//!
//! These are the wire structs: field order is the order in the JSON text, and maps are sorted, because
//! the bytes are hashed. The text is that of Go's `encoding/json`, which escapes `<`, `>`, `&` and the
//! line separators U+2028 and U+2029. Reading is lenient: unknown members are dropped, `null` stands
//! for empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{DiffId, Digest};

/// Image config. Serialize with [`to_json`](Self::to_json), which sorts the keys as the reference does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Architecture by its Go name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// `MAINTAINER`.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub author: String,
    /// What a container started from the image gets.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// When, RFC 3339; absent in an image without any dated history.
    #[serde(default)]
    pub created: Option<String>,
    /// One entry per instruction.
    #[serde(default)]
    pub history: Option<Vec<History>>,
    /// Operating system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// Required features of the operating system.
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Version of the operating system.
    #[serde(
        default,
        rename = "os.version",
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub os_version: String,
    /// Layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// Variant of the architecture.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub variant: String,
}

/// What a container started from an image gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `USER`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub user: String,
    /// `EXPOSE`: `80/tcp` to an empty object.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`: `NAME=value`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// `CMD`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// `VOLUME`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// `LABEL`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// `STOPSIGNAL`.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Always set by `CMD`.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub args_escaped: bool,
    /// `HEALTHCHECK`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// `ONBUILD`: trigger texts.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// `SHELL`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub shell: Vec<String>,
}

/// An empty JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Empty {}

/// `HEALTHCHECK`; durations in nanoseconds, 0 means inherited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, `CMD …` or `CMD-SHELL …`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub timeout: i64,
    /// After the start, in which failures do not count.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_period: i64,
    /// Between two checks in the start period.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub start_interval: i64,
    /// Failures in a row that make the container unhealthy.
    #[serde(skip_serializing_if = "is_zero", deserialize_with = "null_is_default")]
    pub retries: i64,
}

/// One step of the image's making.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub created_by: String,
    /// Who.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub author: String,
    /// By what.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_default")]
    pub comment: String,
    /// Whether it made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not", deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

/// Layers of an image by their uncompressed digests, lowest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Lowest first; written as `null` when there are none.
    #[serde(default)]
    pub diff_ids: Option<Vec<DiffId>>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: None }
    }
}

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    #[serde(default)]
    pub media_type: String,
    /// Which blob.
    pub digest: Digest,
    /// Bytes.
    #[serde(default)]
    pub size: u64,
    /// Where else to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// The blob itself, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// For what the blob is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Descriptor of these bytes, with nothing optional.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: None,
            annotations: None,
            data: None,
            platform: None,
            artifact_type: None,
        }
    }
}

/// Platform in a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// Architecture by its Go name.
    #[serde(default)]
    pub architecture: String,
    /// Operating system.
    #[serde(default)]
    pub os: String,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Required features.
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// Variant.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// Image manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Kind of artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// Lowest first; written as `null` when there are none.
    #[serde(default)]
    pub layers: Option<Vec<Descriptor>>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Image index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Manifests or further indexes.
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
    /// Notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// A text that is no image document of the wanted kind.
#[derive(Debug, thiserror::Error)]
#[error("invalid {kind}")]
pub struct InvalidDocument {
    /// What was wanted, such as `image config`.
    pub kind: &'static str,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

impl ImageConfig {
    /// The bytes of the config: compact, top-level keys in alphabetical order, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads a config.
    ///
    /// # Errors
    /// When `text` is no JSON or a member has the wrong type.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidDocument> {
        from_json(text, "image config")
    }
}

impl Manifest {
    /// The bytes of the manifest: indented by two spaces, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        to_json_indented(self)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// When `text` is no JSON, lacks the config, or a member has the wrong type.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidDocument> {
        from_json(text, "image manifest")
    }
}

impl Index {
    /// The bytes of the index: indented by two spaces, no newline at the end.
    pub fn to_json(&self) -> Vec<u8> {
        to_json_indented(self)
    }

    /// The bytes of `index.json` in an OCI layout: compact, no newline at the end.
    pub fn to_json_compact(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Reads an index.
    ///
    /// # Errors
    /// When `text` is no JSON or a member has the wrong type.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidDocument> {
        from_json(text, "image index")
    }
}

/// Compact JSON as Go's `json.Marshal` writes it.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    escape_like_go(serde_json::to_string(value).expect("strings and numbers always serialize"))
}

/// JSON as Go's `json.MarshalIndent` writes it with two spaces.
pub fn to_json_indented<T: Serialize>(value: &T) -> Vec<u8> {
    escape_like_go(
        serde_json::to_string_pretty(value).expect("strings and numbers always serialize"),
    )
}

/// Escapes what Go escapes and serde does not. These characters occur within JSON strings only.
fn escape_like_go(json: String) -> Vec<u8> {
    if !json.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return json.into_bytes();
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str("\\u");
                let code = u32::from(c);
                escaped.extend(
                    [12, 8, 4, 0]
                        .map(|shift| char::from_digit(code >> shift & 15, 16).unwrap_or('0')),
                );
            }
            c => escaped.push(c),
        }
    }
    escaped.into_bytes()
}

fn from_json<'de, T: Deserialize<'de>>(
    text: &'de [u8],
    kind: &'static str,
) -> Result<T, InvalidDocument> {
    serde_json::from_slice(text).map_err(|source| InvalidDocument { kind, source })
}

/// Media types.
pub mod media_type {
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, plain tar.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_MANIFEST_LIST: &str =
        "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, plain tar.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, zstd.
    pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
}

/// Keys of annotations.
pub mod annotation {
    /// The whole name of an image of a layout.
    pub const IMAGE_NAME: &str = "io.containerd.image.name";
    /// Its tag.
    pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
    /// When it was made.
    pub const CREATED: &str = "org.opencontainers.image.created";
    /// The diff id of a layer, as builders and stores note it for themselves.
    pub const DIFF_ID: &str = "containerd.io/uncompressed";
    /// The digest of a layer's table of contents, which makes of it eStargz.
    pub const TABLE: &str = "containerd.io/snapshot/stargz/toc.digest";
}

/// Layers that an image from elsewhere may have. Twice as many as the kernel can put over one another.
pub const MOST_LAYERS: usize = 1000;

/// Where an image layout keeps a blob.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// How a layer blob is compressed, as its media type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Compression {
    /// Plain tar.
    Uncompressed,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// Media type of such a layer in an OCI or (`docker`) a Docker manifest.
    pub fn layer_type(self, docker: bool) -> &'static str {
        match (self, docker) {
            (Self::Uncompressed, false) => media_type::OCI_LAYER,
            (Self::Gzip, false) => media_type::OCI_LAYER_GZIP,
            (Self::Zstd, false) => media_type::OCI_LAYER_ZSTD,
            (Self::Uncompressed, true) => media_type::DOCKER_LAYER,
            (Self::Gzip, true) => media_type::DOCKER_LAYER_GZIP,
            (Self::Zstd, true) => media_type::DOCKER_LAYER_ZSTD,
        }
    }

    /// What the media type of a layer says; `None` for anything else than a layer.
    pub fn of_layer(media_type: &str) -> Option<Self> {
        Some(match media_type {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => Self::Uncompressed,
            "application/vnd.oci.image.layer.nondistributable.v1.tar" => Self::Uncompressed,
            media_type::OCI_LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Self::Gzip,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Self::Gzip,
            media_type::OCI_LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => Self::Zstd,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: &ImageConfig, expect: &str) {
        let json = config.to_json();
        assert_eq!(String::from_utf8_lossy(&json), expect);
        assert_eq!(&ImageConfig::from_json(&json).unwrap(), config);
    }

    #[test]
    fn empty_image_writes_nulls() {
        let config = ImageConfig {
            architecture: "amd64".into(),
            os: "linux".into(),
            ..ImageConfig::default()
        };
        check(
            &config,
            r#"{"architecture":"amd64","config":{},"created":null,"history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null}}"#,
        );
    }

    #[test]
    fn full_config_keeps_the_key_order_of_the_reference() {
        let text = r#"{"architecture":"arm","author":"me","config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=\u003cb\u003e \u0026"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"a":"1","b":"\u2028"},"StopSignal":"SIGTERM","ArgsEscaped":true,"Healthcheck":{"Test":["NONE"],"Interval":1,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5},"OnBuild":["RUN x"],"Shell":["/bin/sh","-c"]},"created":"2024-01-01T00:00:00Z","history":[{"created":"2024-01-01T00:00:00Z","created_by":"x","author":"a","comment":"c","empty_layer":true}],"os":"linux","os.features":["f"],"os.version":"1","rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},"variant":"v7"}"#;
        let config = ImageConfig::from_json(text.as_bytes()).unwrap();
        assert_eq!(config.config.env, ["A=<b> &"]);
        assert_eq!(config.config.labels["b"], "\u{2028}");
        check(&config, text);
    }

    #[test]
    fn nulls_and_unknown_members_are_read() {
        let text = r#"{"architecture":null,"author":null,"config":{"User":null,"Env":null,"Labels":null,"Healthcheck":{"Test":null,"Interval":null},"Hostname":"x"},"container":"y","history":null,"os":"linux","rootfs":null}"#;
        let config = ImageConfig::from_json(text.as_bytes()).unwrap();
        let healthcheck = Some(Healthcheck::default());
        let expect = ContainerConfig { healthcheck, ..ContainerConfig::default() };
        assert_eq!(
            (config.os.as_str(), &config.config, config.rootfs.diff_ids),
            ("linux", &expect, None)
        );
    }

    #[test]
    fn manifest_is_indented_and_round_trips() {
        let digest = Digest::of(b"");
        let descriptor = Descriptor::new(media_type::OCI_CONFIG, digest, 2);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.into(),
            artifact_type: None,
            config: descriptor,
            layers: None,
            subject: None,
            annotations: Some([("k".to_owned(), "<v>".to_owned())].into()),
        };
        let json = manifest.to_json();
        let expect = format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {{
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "{digest}",
    "size": 2
  }},
  "layers": null,
  "annotations": {{
    "k": "\u003cv\u003e"
  }}
}}"#
        );
        assert_eq!(String::from_utf8_lossy(&json), expect);
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
    }

    #[test]
    fn layer_types_of_both_families_are_told_apart() {
        for docker in [false, true] {
            for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
                assert_eq!(
                    Compression::of_layer(compression.layer_type(docker)),
                    Some(compression)
                );
            }
        }
        assert_eq!(Compression::of_layer("text/plain"), None);
    }
}
