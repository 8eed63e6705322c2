//! Archives that are damaged or made to do harm are refused, and leave nothing.

use fs_err as fs;
use llb::Digest;
use tree::tar::{Entry, EntryKind, Writer};

use crate::support::Place;
use crate::{count, run_elsewhere};

/// A tar of files and links.
struct Archive(Writer<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn file(mut self, path: &str, bytes: &[u8]) -> Self {
        let size = bytes.len() as u64;
        let entry = Entry { mode: 0o644, size, ..Entry::new(EntryKind::File, path.into()) };
        self.0.append_file(&entry, &mut &*bytes).unwrap();
        self
    }

    fn link(mut self, kind: EntryKind, path: &str, target: &str) -> Self {
        let entry = Entry { link: target.into(), ..Entry::new(kind, path.into()) };
        self.0.append(&entry).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// A layer with one file.
fn layer() -> Vec<u8> {
    Archive::new().file("f", b"content").bytes()
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

fn manifest_json(config: &str, layers: &[&str]) -> Vec<u8> {
    manifest_naming("bad:1", config, layers)
}

fn manifest_naming(name: &str, config: &str, layers: &[&str]) -> Vec<u8> {
    let text = serde_json::json!([{ "Config": config, "RepoTags": [name], "Layers": layers }]);
    text.to_string().into_bytes()
}

/// A Docker archive whose layer is at `layer.tar`, and goes by the diff id of what is given.
fn docker(diff_id: Digest) -> Archive {
    Archive::new()
        .file("config.json", &config(&[diff_id]))
        .file("manifest.json", &manifest_json("config.json", &["layer.tar"]))
}

/// Loads the bytes, expects this failure, and that nothing is left.
#[track_caller]
fn refused(bytes: &[u8], message: &str) {
    let place = Place::new(&[]);
    fs::write(place.path("bad.tar"), bytes).unwrap();
    let outside = place.path("outside");
    fs::write(&outside, "untouched").unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "bad.tar"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let first = ran.stderr.lines().next().unwrap();
    assert_eq!(first, format!("ERROR: {message}"));
    assert_eq!(run_elsewhere(&place, &["images", "-q"]).ok().stdout, "");
    for folder in ["blobs/sha256", "layers"] {
        assert_eq!(count(&place.path("elsewhere").join(folder)), 0, "{folder} is not empty");
    }
    let half_written = fs::read_dir(place.path("elsewhere/ingest")).unwrap();
    let half_written: usize = half_written
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| count(&path))
        .sum();
    assert_eq!(half_written, 0, "something is half written");
    assert_eq!(fs::read(outside).unwrap(), b"untouched");
}

#[test]
fn a_good_archive_made_by_hand_is_loaded() {
    let place = Place::new(&[]);
    let layer = layer();
    let bytes = docker(Digest::of(&layer)).file("x/layer.tar", &layer);
    let bytes = bytes.link(EntryKind::Symlink, "layer.tar", "./x/layer.tar").bytes();
    fs::write(place.path("good.tar"), bytes).unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "good.tar"]).ok();
    assert_eq!(ran.stdout, "Loaded image: bad:1\n");
}

#[test]
fn entries_that_lead_out_are_refused() {
    let layer = layer();
    let good = || docker(Digest::of(&layer)).file("layer.tar", &layer);
    for (archive, entry) in [
        (good().file("../outside", b"x"), "../outside"),
        (good().file("/etc/passwd", b"x"), "/etc/passwd"),
        (good().file("a/../../b", b"x"), "a/../../b"),
        (good().link(EntryKind::Symlink, "s", "/etc/passwd"), "s -> /etc/passwd"),
        (good().link(EntryKind::Symlink, "a/s", "../../x"), "a/s -> ../../x"),
        (good().link(EntryKind::HardLink, "h", "../outside"), "h -> ../outside"),
    ] {
        refused(
            &archive.bytes(),
            &format!("the archive has the entry `{entry}`, which leads out of it"),
        );
    }
}

#[test]
fn what_is_not_what_its_name_says_is_refused() {
    let (layer, lie) = (layer(), Digest::of(b"something else"));
    let actual = Digest::of(&layer);
    refused(
        &docker(lie).file("layer.tar", &layer).bytes(),
        &format!("the layer in `layer.tar` has digest {actual} but should have {lie}"),
    );
    let text = config(&[actual]);
    let name = format!("{}.json", lie.hex());
    let config_lies = Archive::new()
        .file(&name, &text)
        .file("layer.tar", &layer)
        .file("manifest.json", &manifest_json(&name, &["layer.tar"]));
    refused(
        &config_lies.bytes(),
        &format!("`{name}` of the archive has digest {} but should have {lie}", Digest::of(&text)),
    );
}

#[test]
fn archives_that_are_not_whole_are_refused() {
    let layer = layer();
    let diff_id = Digest::of(&layer);
    refused(&docker(diff_id).bytes(), "the archive lacks `layer.tar`, which `manifest.json` names");
    let around = docker(diff_id).link(EntryKind::Symlink, "layer.tar", "other").link(
        EntryKind::Symlink,
        "other",
        "layer.tar",
    );
    refused(&around.bytes(), "the archive lacks `layer.tar`, which `manifest.json` names");
    let none = Archive::new().file("manifest.json", &manifest_json("absent.json", &[]));
    refused(&none.bytes(), "the archive lacks `absent.json`, which `manifest.json` names");
    let fewer = Archive::new()
        .file("config.json", &config(&[diff_id, diff_id]))
        .file("layer.tar", &layer)
        .file("manifest.json", &manifest_json("config.json", &["layer.tar"]));
    refused(&fewer.bytes(), "the image of `config.json` has 1 layers, but its config names 2");
    let mut whole = docker(diff_id).file("layer.tar", &layer).bytes();
    whole.truncate(4096);
    let place = Place::new(&[]);
    fs::write(place.path("cut.tar"), whole).unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "cut.tar"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("ERROR: cannot read `cut.tar`: "), "{}", ran.stderr);
}

#[test]
fn names_that_would_be_believed_are_refused() {
    let layer = layer();
    let named = |name: &str| {
        Archive::new()
            .file("config.json", &config(&[Digest::of(&layer)]))
            .file("layer.tar", &layer)
            .file("manifest.json", &manifest_naming(name, "config.json", &["layer.tar"]))
            .bytes()
    };
    let pinned = format!("debian@{}", Digest::of(b"something else"));
    refused(
        &named(&pinned),
        &format!("the archive names an image `{pinned}`, but it does not have that digest"),
    );
    refused(
        &named("sha256:1234"),
        "the archive names an image `sha256:1234`, which looks like the id of one",
    );
}

#[test]
fn more_layers_than_can_be_are_refused() {
    let layer = layer();
    let (digests, files) = (vec![Digest::of(&layer); 1001], vec!["layer.tar"; 1001]);
    let many = Archive::new()
        .file("config.json", &config(&digests))
        .file("layer.tar", &layer)
        .file("manifest.json", &manifest_json("config.json", &files));
    refused(&many.bytes(), "the image of `config.json` has 1001 layers, more than 1000");
}

/// A layout with one image of `layer`; `tell` changes the descriptor of the layer, and `name` is the image's.
fn layout(layer: &[u8], tell: impl Fn(&mut serde_json::Value), name: &str) -> Vec<u8> {
    let config = config(&[Digest::of(layer)]);
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() });
    let mut described = descriptor("application/vnd.oci.image.layer.v1.tar", layer);
    tell(&mut described);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    let name = name.replace("DIGEST", &Digest::of(&manifest).to_string());
    entry["annotations"] = serde_json::json!({ "io.containerd.image.name": name });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    Archive::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.to_string().as_bytes())
        .file(&path(&manifest), &manifest)
        .file(&path(&config), &config)
        .file(&path(layer), layer)
        .bytes()
}

#[test]
fn descriptors_that_lie_about_sizes_are_refused() {
    let layer = layer();
    let path = format!("blobs/sha256/{}", Digest::of(&layer).hex());
    for size in [0_u64, 1, u64::MAX] {
        refused(
            &layout(&layer, |described| described["size"] = size.into(), "a:1"),
            &format!("`{path}` of the archive has {} bytes but should have {size}", layer.len()),
        );
    }
}

#[test]
fn a_layout_may_name_an_image_by_its_own_digest_only() {
    let (layer, place) = (layer(), Place::new(&[]));
    fs::write(place.path("own.tar"), layout(&layer, |_| (), "docker.io/library/a@DIGEST")).unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "own.tar"]).ok();
    assert!(ran.stdout.starts_with("Loaded image: a@sha256:"), "{}", ran.stdout);
    let other = Digest::of(b"something else");
    refused(
        &layout(&layer, |_| (), &format!("docker.io/library/a@{other}")),
        &format!("the archive names an image `a@{other}`, but it does not have that digest"),
    );
}

#[test]
fn layouts_are_checked_blob_by_blob() {
    let layer = layer();
    let config = config(&[Digest::of(&layer)]);
    let descriptor = |kind: &str, bytes: &[u8]| serde_json::json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
    });
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let top = || {
        Archive::new()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", index.to_string().as_bytes())
    };
    let missing =
        |bytes: &[u8], by: &str| format!("the archive lacks `{}`, which {by} names", path(bytes));
    refused(&top().bytes(), &missing(&manifest, "`index.json`"));
    let with_manifest = || top().file(&path(&manifest), &manifest);
    refused(&with_manifest().bytes(), &missing(&config, &format!("`{}`", path(&manifest))));
    let with_config = || with_manifest().file(&path(&config), &config);
    refused(&with_config().bytes(), &missing(&layer, "the image manifest"));
    refused(
        &with_config().file(&path(&layer), b"other bytes").bytes(),
        &format!(
            "`{}` of the archive has digest {} but should have {}",
            path(&layer),
            Digest::of(b"other bytes"),
            Digest::of(&layer)
        ),
    );
    refused(
        &top().file(&path(&manifest), b"{}").bytes(),
        &format!(
            "`{}` of the archive has digest {} but should have {}",
            path(&manifest),
            Digest::of(b"{}"),
            Digest::of(&manifest)
        ),
    );
    let place = Place::new(&[]);
    fs::write(place.path("good.tar"), with_config().file(&path(&layer), &layer).bytes()).unwrap();
    run_elsewhere(&place, &["load", "-i", "good.tar"]).ok();
}

#[test]
fn what_is_no_image_archive_says_so() {
    refused(
        &Archive::new().file("a", b"x").bytes(),
        "`bad.tar` is no image archive: it has neither `manifest.json` nor `index.json`",
    );
    refused(
        &Archive::new().file("repositories", b"{}").bytes(),
        "`bad.tar` is an archive of a Docker before 1.10, which is not supported",
    );
    let place = Place::new(&[]);
    let ran = run_elsewhere(&place, &["load", "-i", "absent.tar"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.starts_with("ERROR: cannot read `absent.tar`"), "{}", ran.stderr);
    fs::create_dir(place.path("folder")).unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "folder"]);
    assert!(ran.stderr.starts_with("ERROR: `folder` is no image archive"), "{}", ran.stderr);
    fs::write(place.path("text"), "no tar at all\n".repeat(100)).unwrap();
    let ran = run_elsewhere(&place, &["load", "-i", "text"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("ERROR: cannot read `text`: "), "{}", ran.stderr);
}
