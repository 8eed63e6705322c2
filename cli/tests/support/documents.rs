//! Checks image documents against what the OCI image specification asks of them, and blobs against their descriptors.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sha2_of::sha256;

/// What a layout has: number of images, and media types of all layers.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) images: usize,
    pub(crate) layer_types: BTreeSet<String>,
    pub(crate) attestations: usize,
}

mod sha2_of {
    use std::path::Path;
    use std::process::Command;

    /// Of a file, as another program computes it.
    pub(super) fn sha256(path: &Path) -> String {
        let output = Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
    }
}

/// Checks a whole layout folder.
#[track_caller]
pub(crate) fn check_layout(layout: &Path) -> Found {
    let marker = read(&layout.join("oci-layout"));
    assert_eq!(marker["imageLayoutVersion"], "1.0.0");
    let index = read(&layout.join("index.json"));
    let mut found = Found::default();
    check_index(layout, &index, &mut found);
    found
}

fn read(path: &Path) -> Value {
    let text = fs_err::read(path).unwrap();
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn only_keys(what: &str, value: &Value, known: &[&str], needed: &[&str]) {
    let object = value.as_object().unwrap_or_else(|| panic!("{what} is no object: {value}"));
    for key in object.keys() {
        assert!(known.contains(&key.as_str()), "{what} has unknown key {key}: {value}");
    }
    for key in needed {
        assert!(object.contains_key(*key), "{what} lacks {key}: {value}");
    }
}

/// `type/subtype` of RFC 6838.
fn is_media_type(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && part.len() <= 127
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    text.split_once('/').is_some_and(|(kind, name)| is_name(kind) && is_name(name))
}

fn check_annotations(value: &Value) {
    for (key, value) in value.as_object().into_iter().flatten() {
        assert!(!key.is_empty() && value.is_string(), "annotation {key}: {value}");
    }
}

/// Checks a descriptor and that its blob is there; returns its path.
#[track_caller]
fn check_descriptor(layout: &Path, descriptor: &Value) -> std::path::PathBuf {
    let known =
        ["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"];
    only_keys("descriptor", descriptor, &known, &["mediaType", "digest", "size"]);
    assert!(is_media_type(descriptor["mediaType"].as_str().unwrap()), "{descriptor}");
    check_annotations(&descriptor["annotations"]);
    if let Some(platform) = descriptor.get("platform") {
        let known = ["architecture", "os", "os.version", "os.features", "variant"];
        only_keys("platform", platform, &known, &["architecture", "os"]);
    }
    let digest = descriptor["digest"].as_str().unwrap();
    let hex = digest.strip_prefix("sha256:").unwrap();
    assert!(hex.len() == 64 && hex.chars().all(|c| "0123456789abcdef".contains(c)), "{digest}");
    let path = layout.join("blobs/sha256").join(hex);
    assert_eq!(fs_err::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
    assert_eq!(sha256(&path), hex);
    path
}

#[track_caller]
fn check_index(layout: &Path, index: &Value, found: &mut Found) {
    let known =
        ["schemaVersion", "mediaType", "artifactType", "subject", "manifests", "annotations"];
    only_keys("index", index, &known, &["schemaVersion", "manifests"]);
    assert_eq!(index["schemaVersion"], 2);
    check_annotations(&index["annotations"]);
    for descriptor in index["manifests"].as_array().unwrap() {
        let path = check_descriptor(layout, descriptor);
        let document = read(&path);
        assert_eq!(document["mediaType"], descriptor["mediaType"]);
        match descriptor["mediaType"].as_str().unwrap() {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                check_index(layout, &document, found);
            }
            _ => check_manifest(layout, &document, found),
        }
    }
}

#[track_caller]
fn check_manifest(layout: &Path, manifest: &Value, found: &mut Found) {
    let known = [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "subject",
        "annotations",
    ];
    only_keys("manifest", manifest, &known, &["schemaVersion", "mediaType", "config", "layers"]);
    assert_eq!(manifest["schemaVersion"], 2);
    check_annotations(&manifest["annotations"]);
    let config = check_descriptor(layout, &manifest["config"]);
    let layers = manifest["layers"].as_array().unwrap();
    for layer in layers {
        check_descriptor(layout, layer);
    }
    if manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json" {
        assert!(is_media_type(manifest["artifactType"].as_str().unwrap()));
        assert_eq!(fs_err::read(&config).unwrap(), b"{}");
        check_descriptor(layout, &manifest["subject"]);
        found.attestations += 1;
        return;
    }
    found.images += 1;
    found.layer_types.extend(layers.iter().map(|it| it["mediaType"].as_str().unwrap().to_owned()));
    check_config(&read(&config), layers.len());
}

#[track_caller]
fn check_config(config: &Value, layers: usize) {
    let known = [
        "created",
        "author",
        "architecture",
        "os",
        "os.version",
        "os.features",
        "variant",
        "config",
        "rootfs",
        "history",
    ];
    only_keys("config", config, &known, &["architecture", "os", "rootfs"]);
    let is_time = |time: &Value| {
        time.as_str().is_some_and(|time| {
            time.len() >= 20 && time.as_bytes()[10] == b'T' && time.ends_with('Z')
        })
    };
    assert!(config.get("created").is_none_or(is_time), "{config}");
    let known = [
        "User",
        "ExposedPorts",
        "Env",
        "Entrypoint",
        "Cmd",
        "Volumes",
        "WorkingDir",
        "Labels",
        "StopSignal",
        "ArgsEscaped",
        "Healthcheck",
        "OnBuild",
        "Shell",
    ];
    only_keys("config.config", &config["config"], &known, &[]);
    for entry in config["config"]["Env"].as_array().into_iter().flatten() {
        assert!(entry.as_str().unwrap().contains('='), "{entry}");
    }
    only_keys("rootfs", &config["rootfs"], &["type", "diff_ids"], &["type", "diff_ids"]);
    assert_eq!(config["rootfs"]["type"], "layers");
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert!(
        ids.len() == layers && ids.iter().all(|id| id.as_str().unwrap().starts_with("sha256:"))
    );
    let history = config["history"].as_array().unwrap();
    for entry in history {
        let known = ["created", "author", "created_by", "comment", "empty_layer"];
        only_keys("history", entry, &known, &[]);
        assert!(entry.get("created").is_none_or(is_time), "{entry}");
    }
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), layers);
}
