//! Outputs of the real executable, read by other programs.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod attributes;
#[path = "../support/documents.rs"]
mod documents;
mod provenance;
mod reproducible;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::path::{Path, PathBuf};

use serde_json::Value;

use support::{Place, tool};

/// Two layers over a base, with what other programs may get wrong.
const DOCKERFILE: &str = "\
FROM busybox
COPY data /data
RUN ln /data/a /data/same && ln -s a /data/link && chmod 4755 /data/b && rm /data/gone && mkdir -m 700 /empty
CMD [\"cat\", \"/data/a\"]
";

fn sample() -> Place {
    let large = "0123456789abcdef".repeat(150_000);
    Place::new(&[
        ("Dockerfile", DOCKERFILE),
        ("data/a", "text of a\n"),
        ("data/b", ""),
        ("data/gone", "x"),
        ("data/large", &large),
    ])
}

/// Unpacks an archive into a folder of this name.
#[track_caller]
fn unpacked(place: &Place, archive: &str, folder: &str) -> PathBuf {
    let folder = place.path(folder);
    fs_err::create_dir_all(&folder).unwrap();
    let archive = place.path(archive);
    tool("tar", &["-xf", archive.to_str().unwrap(), "-C", folder.to_str().unwrap()]);
    folder
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

/// The blob that a descriptor names.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
}

/// The only manifest of a layout.
fn manifest(layout: &Path) -> Value {
    let index = json(&layout.join("index.json"));
    json(&blob(layout, &index["manifests"][0]))
}
