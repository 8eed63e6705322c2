//! Checks image documents with the schemas that the OCI image specification publishes, and what these do not say: that
//! no key is misspelt, that blobs are what their descriptors tell, and that documents fit each other.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::support::{has, repository};

/// What a layout has: number of images, and media types of all layers.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) images: usize,
    pub(crate) layer_types: BTreeSet<String>,
    pub(crate) attestations: usize,
    /// Documents, each with the name of the schema that it must fit.
    documents: BTreeSet<(&'static str, PathBuf)>,
}

/// Checks a whole layout folder.
#[track_caller]
pub(crate) fn check_layout(layout: &Path) -> Found {
    let mut found = Found::default();
    let top = layout.join("index.json");
    found.documents.insert(("image-layout-schema", layout.join("oci-layout")));
    found.documents.insert(("image-index-schema", top.clone()));
    check_index(layout, &read(&top), &mut found);
    assert_eq!(refused(&found.documents), "");
    found
}

/// What the published schemas refuse of documents, one complaint a line; nothing where they are not installed.
#[track_caller]
pub(crate) fn refused<'a>(
    documents: impl IntoIterator<Item = &'a (&'static str, PathBuf)>,
) -> String {
    // The program is of the same package as the library.
    if !has("/usr/share/gocode/src/github.com/opencontainers/image-spec/schema/config-schema.json")
        || !has("/usr/bin/jsonschema")
    {
        return String::new();
    }
    let words = documents.into_iter().map(|(schema, path)| {
        let mut word = OsString::from(format!("{schema}="));
        word.push(path);
        word
    });
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-B").arg(repository().join("cli/tests/support/schemas.py")).args(words);
    let output = command.output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty() && output.status.success() == printed.is_empty(), "{errors}");
    printed
}

/// Of a file, as another program computes it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

fn read(path: &Path) -> Value {
    let text = fs_err::read(path).unwrap();
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn only_keys(what: &str, value: &Value, known: &[&str]) {
    for key in value.as_object().into_iter().flat_map(|object| object.keys()) {
        assert!(known.contains(&key.as_str()), "{what} has unknown key {key}: {value}");
    }
}

/// Checks a descriptor and that its blob is there; returns its path.
#[track_caller]
fn check_descriptor(layout: &Path, descriptor: &Value) -> PathBuf {
    let known =
        ["mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"];
    only_keys("descriptor", descriptor, &known);
    let known = ["architecture", "os", "os.version", "os.features", "variant"];
    only_keys("platform", &descriptor["platform"], &known);
    let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let path = layout.join("blobs/sha256").join(hex);
    assert_eq!(fs_err::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
    assert_eq!(sha256(&path), hex);
    path
}

#[track_caller]
fn check_index(layout: &Path, index: &Value, found: &mut Found) {
    let known =
        ["schemaVersion", "mediaType", "artifactType", "subject", "manifests", "annotations"];
    only_keys("index", index, &known);
    for descriptor in index["manifests"].as_array().unwrap() {
        let path = check_descriptor(layout, descriptor);
        let document = read(&path);
        assert_eq!(document["mediaType"], descriptor["mediaType"]);
        match descriptor["mediaType"].as_str().unwrap() {
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                found.documents.insert(("image-index-schema", path));
                check_index(layout, &document, found);
            }
            _ => {
                found.documents.insert(("image-manifest-schema", path));
                check_manifest(layout, &document, found);
            }
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
    only_keys("manifest", manifest, &known);
    let config = check_descriptor(layout, &manifest["config"]);
    let layers = manifest["layers"].as_array().unwrap();
    for layer in layers {
        check_descriptor(layout, layer);
    }
    if manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json" {
        // The packaged schemas are older than artifacts.
        assert!(manifest["artifactType"].as_str().unwrap().starts_with("application/"));
        assert_eq!(fs_err::read(&config).unwrap(), b"{}");
        check_descriptor(layout, &manifest["subject"]);
        found.attestations += 1;
        return;
    }
    found.images += 1;
    found.layer_types.extend(layers.iter().map(|it| it["mediaType"].as_str().unwrap().to_owned()));
    check_config(&read(&config), layers.len());
    found.documents.insert(("config-schema", config));
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
    only_keys("config", config, &known);
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
    only_keys("config.config", &config["config"], &known);
    for entry in config["config"]["Env"].as_array().into_iter().flatten() {
        assert!(entry.as_str().unwrap().contains('='), "{entry}");
    }
    only_keys("rootfs", &config["rootfs"], &["type", "diff_ids"]);
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    assert!(
        ids.len() == layers && ids.iter().all(|id| id.as_str().unwrap().starts_with("sha256:"))
    );
    let history = config["history"].as_array().unwrap();
    for entry in history {
        let known = ["created", "author", "created_by", "comment", "empty_layer"];
        only_keys("history", entry, &known);
    }
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), layers);
}
