use std::collections::BTreeMap;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// An OCI layout that is written document by document.
struct Written {
    folder: TempDir,
    index: Vec<Value>,
}

impl Written {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        Self { folder, index: Vec::new() }
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        fs::write(blob_path(self.folder.path(), &digest), bytes).unwrap();
        digest
    }

    fn descriptor(&self, document: &Value) -> Value {
        let bytes = serde_json::to_vec(document).unwrap();
        let kind = document["mediaType"].clone();
        json!({"mediaType": kind, "digest": self.blob(&bytes).to_string(), "size": bytes.len()})
    }

    /// An image whose config is told apart by `name`.
    fn image(&self, name: &str) -> Value {
        let config = self.blob(name.as_bytes());
        let media = "application/vnd.oci.image.config.v1+json";
        self.descriptor(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": media, "digest": config.to_string(), "size": name.len()},
            "layers": [],
        }))
    }

    fn nested(&self, manifests: &[Value]) -> Value {
        self.descriptor(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests,
        }))
    }

    fn finish(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.index});
        fs::write(self.folder.path().join("index.json"), index.to_string()).unwrap();
    }

    fn pick(&self, pick: &LayoutPick) -> Result<String, String> {
        self.pick_for(pick, "linux/amd64")
    }

    fn pick_for(&self, pick: &LayoutPick, platform: &str) -> Result<String, String> {
        let platform = Platform::parse(platform).unwrap();
        let layout = Layout { name: "ctx", path: self.folder.path() };
        let image = layout.image(pick, &platform).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(image.config).unwrap())
    }
}

fn tag(name: &str) -> LayoutPick {
    LayoutPick::Tag(name.to_owned())
}

fn tagged(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    descriptor
}

fn of_platform(mut descriptor: Value, os: &str, architecture: &str) -> Value {
    descriptor["platform"] = json!({"os": os, "architecture": architecture});
    descriptor
}

fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

#[track_caller]
fn check_error(result: Result<String, String>, part: &str) {
    let error = result.expect_err("an error");
    assert!(error.contains(part), "{error}");
}

#[test]
fn an_image_is_picked_by_tag_or_digest() {
    let mut layout = Written::new();
    let (one, two) = (layout.image("one"), layout.image("two"));
    layout.index = vec![tagged(one.clone(), "1"), tagged(two.clone(), "2")];
    layout.finish();
    assert_eq!(layout.pick(&tag("2")).as_deref(), Ok("two"));
    assert_eq!(layout.pick(&LayoutPick::Digest(digest_of(&one))).as_deref(), Ok("one"));
    check_error(layout.pick(&tag("3")), "no tag `3` in the OCI layout");
    let absent = Digest::of(b"absent");
    check_error(layout.pick(&LayoutPick::Digest(absent)), &format!("no {absent} in"));
}

#[test]
fn the_only_image_needs_no_tag_unless_it_has_another() {
    let mut layout = Written::new();
    let only = layout.image("only");
    layout.index = vec![only.clone()];
    layout.finish();
    assert_eq!(layout.pick(&tag("latest")).as_deref(), Ok("only"));
    layout.index = vec![tagged(only, "1")];
    layout.finish();
    check_error(layout.pick(&tag("latest")), "no tag `latest`");
}

#[test]
fn the_platform_chooses_inside_an_index_and_attestations_never_match() {
    let mut layout = Written::new();
    let entries = [
        of_platform(layout.image("attestation"), "unknown", "unknown"),
        of_platform(layout.image("arm"), "linux", "arm64"),
        of_platform(layout.image("intel"), "linux", "amd64"),
    ];
    layout.index = vec![tagged(layout.nested(&entries), "1")];
    layout.finish();
    assert_eq!(layout.pick_for(&tag("1"), "linux/amd64").as_deref(), Ok("intel"));
    assert_eq!(layout.pick_for(&tag("1"), "linux/arm64").as_deref(), Ok("arm"));
    check_error(layout.pick_for(&tag("1"), "linux/s390x"), "no image for platform `linux/s390x`");
    let inside = LayoutPick::Digest(digest_of(&entries[1]));
    assert_eq!(layout.pick(&inside).as_deref(), Ok("arm"), "a digest names what it names");
}

#[test]
fn indexes_nest_a_little_but_not_without_end() {
    let nested = |depth: usize| {
        let mut layout = Written::new();
        let mut entry = layout.image("deep");
        for _ in 0..depth {
            entry = layout.nested(&[entry]);
        }
        layout.index = vec![tagged(entry, "1")];
        layout.finish();
        layout.pick(&tag("1"))
    };
    assert_eq!(nested(MAX_DEPTH).as_deref(), Ok("deep"));
    check_error(nested(MAX_DEPTH + 1), "nested too deeply");
}

#[test]
fn a_document_that_is_not_what_it_is_called_is_refused() {
    let mut layout = Written::new();
    let image = layout.image("one");
    let path = blob_path(layout.folder.path(), &digest_of(&image));
    layout.index = vec![tagged(image, "1")];
    layout.finish();
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(b' ');
    fs::write(&path, bytes).unwrap();
    check_error(layout.pick(&tag("1")), "does not match its digest");
    fs::remove_file(&path).unwrap();
    check_error(layout.pick(&tag("1")), "failed to open file");
}

#[test]
fn bad_documents_are_errors_that_name_their_file() {
    let layout = Written::new();
    let index = layout.folder.path().join("index.json");
    check_error(layout.pick(&tag("1")), "index.json");
    for text in ["", "not JSON", "[]", "{}", r#"{"manifests": 1}"#, r#"{"manifests": [{}]}"#] {
        fs::write(&index, text).unwrap();
        let error = layout.pick(&tag("1")).expect_err(text);
        assert!(error.contains("index.json") || error.contains("no tag"), "{text}: {error}");
    }
    fs::write(&index, vec![b' '; MAX_DOCUMENT as usize + 1]).unwrap();
    check_error(layout.pick(&tag("1")), "is larger than");
}

#[test]
fn only_regular_files_are_documents() {
    let layout = Written::new();
    let index = layout.folder.path().join("index.json");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, &index, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    check_error(layout.pick(&tag("1")), "is not a regular file");
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    check_error(layout.pick(&tag("1")), "is not a regular file");
}

#[test]
fn the_best_of_several_is_chosen() {
    let entry = |variant: Option<&str>, name: &str| {
        let mut descriptor = Descriptor::new("", Digest::of(name.as_bytes()), 0);
        let platform = json!({"os": "linux", "architecture": "arm", "variant": variant});
        descriptor.platform = serde_json::from_value(platform).unwrap();
        descriptor.annotations = Some(BTreeMap::from([("name".to_owned(), name.to_owned())]));
        descriptor
    };
    let entries = [entry(Some("v6"), "v6"), entry(Some("v7"), "v7")];
    let name = |platform: &str| {
        let found = choose(&entries, &Platform::parse(platform).unwrap())?;
        found.annotations.as_ref()?.get("name").cloned()
    };
    assert_eq!(name("linux/arm/v7").as_deref(), Some("v7"));
    assert_eq!(name("linux/arm/v6").as_deref(), Some("v6"));
    assert_eq!(name("linux/amd64"), None);
}
