//! OCI layouts and Docker archives, looked at byte by byte and by skopeo and umoci.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use cache::Ref;
use common::{Bench, entries, is_root, platform_result, references, result, run, write};
use exporters::layout::{Flavor, write_folder, write_tar};
use exporters::{
    Annotations, Content, Destination, ExportError, Image, ImageOptions, ImageResult, Output,
    assemble,
};
use fs_err as fs;
use llb::image::{Index, Manifest};
use serde_json::Value;

fn image(bench: &Bench, result: &ImageResult, options: &str) -> Result<Image, ExportError> {
    let options = Output::parse(&format!("type=oci{options}")).unwrap().image;
    assemble(&bench.store, result, &options, Content::Here)
}

fn tar(bench: &Bench, image: &Image, names: &[&str], flavor: Flavor) -> Vec<u8> {
    let path = bench.path("image.tar");
    write_tar(&bench.store, image, &references(names), flavor, Destination::File(path.clone()))
        .unwrap();
    fs::read(path).unwrap()
}

fn two_layers(bench: &Bench) -> Ref {
    let first =
        Ref::scratch().push(bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "a", "one")));
    let second = bench.layer(&first, 2000, |upper| {
        fs::create_dir(upper.join("dir")).unwrap();
        write(&upper.join("dir"), "b", "two");
    });
    first.push(second)
}

fn json(tar: &[u8], path: &str) -> Value {
    let found = entries(tar).into_iter().find(|(name, _)| name == path);
    serde_json::from_slice(&found.unwrap_or_else(|| panic!("no {path}")).1).unwrap()
}

fn blob(tar: &[u8], descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    json(tar, &digest.replacen("sha256:", "blobs/sha256/", 1))
}

#[test]
fn a_layout_has_sorted_entries_and_the_same_bytes_twice() {
    let bench = Bench::new();
    let result = result(two_layers(&bench), &[]);
    let first = tar(&bench, &image(&bench, &result, "").unwrap(), &["app:1"], Flavor::Oci);
    let second = tar(&bench, &image(&bench, &result, "").unwrap(), &["app:1"], Flavor::Oci);
    assert!(first == second);
    let names: Vec<String> = entries(&first).into_iter().map(|(name, _)| name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(
        (&names[..2], names.len()),
        (&["blobs/".to_owned(), "blobs/sha256/".to_owned()][..], 8)
    );
    let index = json(&first, "index.json");
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/app:1");
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "1");
    assert_eq!(annotations["org.opencontainers.image.created"], "1970-01-01T00:33:20Z");
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "amd64");
    let manifest = blob(&first, &index["manifests"][0]);
    let config = blob(&first, &manifest["config"]);
    assert_eq!(config["created"], "1970-01-01T00:33:20Z");
    assert_eq!(config["history"][0]["created"], "1970-01-01T00:16:40Z");
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(manifest["layers"][1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
}

/// The reader of another project finds in the documents what was written.
#[test]
fn documents_are_read_by_another_implementation() {
    let bench = Bench::new();
    let tar = tar(
        &bench,
        &image(&bench, &result(two_layers(&bench), &[]), "").unwrap(),
        &["app:1"],
        Flavor::Oci,
    );
    let bytes = |path: &str| entries(&tar).into_iter().find(|(name, _)| name == path).unwrap().1;
    let blob = |digest: &str| bytes(&digest.replacen("sha256:", "blobs/sha256/", 1));
    let index = oci_spec::image::ImageIndex::from_reader(&bytes("index.json")[..]).unwrap();
    let manifest = blob(index.manifests()[0].digest().as_ref());
    let manifest = oci_spec::image::ImageManifest::from_reader(&manifest[..]).unwrap();
    assert_eq!(manifest.layers().len(), 2);
    let config = blob(manifest.config().digest().as_ref());
    let config = oci_spec::image::ImageConfiguration::from_reader(&config[..]).unwrap();
    assert_eq!(config.rootfs().diff_ids().len(), 2);
    assert_eq!(config.architecture().to_string(), "amd64");
}

#[test]
fn an_empty_image_has_nulls_where_the_reference_has() {
    let bench = Bench::new();
    let tar =
        tar(&bench, &image(&bench, &result(Ref::scratch(), &[]), "").unwrap(), &[], Flavor::Oci);
    let index = json(&tar, "index.json");
    assert_eq!(index["manifests"][0]["annotations"].as_object().unwrap().len(), 1);
    let manifest = blob(&tar, &index["manifests"][0]);
    let config = blob(&tar, &manifest["config"]);
    assert_eq!(manifest["layers"], Value::Null);
    for value in [&config["created"], &config["history"], &config["rootfs"]["diff_ids"]] {
        assert_eq!(value, &Value::Null);
    }
}

#[test]
fn skopeo_and_umoci_read_what_was_written() {
    let bench = Bench::new();
    let parent = two_layers(&bench);
    let removed = bench.layer(&parent, 3000, |upper| {
        write(upper, "c", "three");
        if is_root() {
            tree::layer::make_whiteout(fs::File::open(upper).unwrap().file().as_fd(), "a".as_ref())
                .unwrap();
        }
    });
    use std::os::fd::AsFd;
    let result = result(parent.push(removed), &[]);
    let path = bench.path("image.tar");
    let shown = path.display();
    for (flavor, transport) in [(Flavor::Oci, "oci-archive"), (Flavor::Docker, "docker-archive")] {
        for compression in ["uncompressed", "gzip", "zstd"] {
            let options = format!(",compression={compression},force-compression=true");
            tar(&bench, &image(&bench, &result, &options).unwrap(), &["app:1"], flavor);
            let Some(text) = run("skopeo", &["inspect", &format!("{transport}:{shown}")]) else {
                return;
            };
            let layers: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(layers["Layers"].as_array().unwrap().len(), 3, "{transport} {compression}");
            let copy = bench.path(&format!("{transport}-{compression}"));
            let target = format!("dir:{}", copy.display());
            run(
                "skopeo",
                &["--insecure-policy", "copy", "--quiet", &format!("{transport}:{shown}"), &target],
            );
        }
    }
    let folder = bench.path("layout");
    let image = image(&bench, &result, "").unwrap();
    write_folder(&bench.store, &image, &references(&["app:1"]), Flavor::Oci, &folder).unwrap();
    if !is_root() {
        println!("SKIP: umoci unpack sets owners, which needs root");
        return;
    }
    let bundle = bench.path("bundle");
    let source = format!("{}:1", folder.display());
    if run("umoci", &["unpack", "--image", &source, bundle.to_str().unwrap()]).is_some() {
        let root = bundle.join("rootfs");
        assert!(!root.join("a").exists());
        assert_eq!(fs::read_to_string(root.join("dir/b")).unwrap(), "two");
        assert_eq!(fs::read_to_string(root.join("c")).unwrap(), "three");
    }
}

#[test]
fn a_docker_archive_lists_familiar_names() {
    let bench = Bench::new();
    let image = image(&bench, &result(two_layers(&bench), &[]), ",oci-mediatypes=false").unwrap();
    let archive = tar(&bench, &image, &["app:1", "localhost:5000/b"], Flavor::Docker);
    let manifest = &json(&archive, "manifest.json")[0];
    assert_eq!(manifest["RepoTags"], serde_json::json!(["app:1", "localhost:5000/b:latest"]));
    let layers = manifest["Layers"].as_array().unwrap();
    let config = json(&archive, manifest["Config"].as_str().unwrap());
    assert_eq!((layers.len(), config["os"].as_str()), (2, Some("linux")));
    let kind = &json(&archive, "index.json")["manifests"][0]["mediaType"];
    assert_eq!(kind, "application/vnd.docker.distribution.manifest.v2+json");
    let unnamed = tar(&bench, &image, &[], Flavor::Docker);
    assert_eq!(json(&unnamed, "manifest.json")[0]["RepoTags"], Value::Null);
}

#[test]
fn several_platforms_make_an_index_that_docker_cannot_have() {
    let bench = Bench::new();
    let reference = two_layers(&bench);
    let platforms = ["linux/arm64", "linux/amd64"]
        .map(|name| platform_result(reference.clone(), name))
        .to_vec();
    let annotations = Annotations::parse_flag("index,manifest[linux/arm64]:key=value").unwrap();
    let result = ImageResult { platforms, annotations, ..ImageResult::default() };
    let image = image(&bench, &result, "").unwrap();
    let archive = tar(&bench, &image, &["app"], Flavor::Oci);
    let top = &json(&archive, "index.json")["manifests"][0];
    assert_eq!(top["platform"], Value::Null);
    let index = blob(&archive, top);
    assert_eq!(index["manifests"][0]["platform"]["architecture"], "arm64");
    assert_eq!(index["annotations"]["key"], "value");
    assert_eq!(blob(&archive, &index["manifests"][0])["annotations"]["key"], "value");
    assert_eq!(blob(&archive, &index["manifests"][1])["annotations"], Value::Null);
    let path = bench.path("docker.tar");
    let error =
        write_tar(&bench.store, &image, &[], Flavor::Docker, Destination::File(path.clone()))
            .unwrap_err();
    assert!(matches!(error, ExportError::SeveralPlatforms));
    assert!(!path.exists());
}

#[test]
fn index_annotations_need_an_index() {
    let bench = Bench::new();
    let result = result(Ref::scratch(), &[]);
    let error = image(&bench, &result, ",annotation-index.a=b").unwrap_err();
    assert_eq!(error.to_string(), "index annotations not supported for single platform export");
    let error = image(&bench, &result, ",annotation-manifest-descriptor.a=b,oci-mediatypes=false")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "index and descriptor annotations conflict with `oci-mediatypes=false`"
    );
}

fn layer_types(image: &Image) -> Vec<String> {
    let manifest = Manifest::from_json(&image.manifests[0].manifest.bytes).unwrap();
    let short = |kind: &str| kind.rsplit(['.', '+']).next().unwrap_or_default().to_owned();
    manifest.layers.unwrap().iter().map(|layer| short(&layer.media_type)).collect()
}

#[test]
fn a_base_keeps_its_blob_and_a_new_layer_gets_what_is_asked_for() {
    let bench = Bench::new();
    let base = Ref::scratch().push(bench.base("base", "content"));
    let top = bench.layer(&base, 1000, |upper| write(upper, "new", "content"));
    let result = result(base.push(top), &[]);
    let types = |options: &str| layer_types(&image(&bench, &result, options).unwrap());
    assert_eq!(types(",compression=zstd"), ["gzip", "zstd"]);
    assert_eq!(types(""), ["gzip", "gzip"]);
    assert_eq!(types(",compression=zstd,force-compression=true"), ["zstd", "zstd"]);
    assert_eq!(types(",compression=uncompressed,force-compression=true"), ["tar", "tar"]);
    // What there is by now does not count.
    assert_eq!(types(""), ["gzip", "gzip"]);
    assert_eq!(types(",compression=zstd"), ["gzip", "zstd"]);
}

#[test]
fn blobs_of_a_base_image_may_stay_where_they_are() {
    let bench = Bench::new();
    let layer = bench.base("base", "content");
    let result = result(Ref::scratch().push(layer), &[]);
    let options = ImageOptions::default();
    let elsewhere = assemble(&bench.store, &result, &options, Content::Elsewhere).unwrap();
    let blob = &elsewhere.manifests[0].layers[0];
    assert_eq!(blob.origin.as_deref(), Some("registry.test/base"));
    assert!(bench.store.blob(&blob.descriptor.digest).unwrap().is_none());
    let here = assemble(&bench.store, &result, &options, Content::Here).unwrap();
    assert_eq!(here.top().bytes, elsewhere.top().bytes);
    assert!(bench.store.blob(&blob.descriptor.digest).unwrap().is_some());
}

fn names(folder: &Path) -> BTreeMap<String, String> {
    let index = Index::from_json(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let entry = |descriptor: llb::image::Descriptor| {
        let annotations = descriptor.annotations.unwrap();
        (annotations["org.opencontainers.image.ref.name"].clone(), descriptor.digest.to_string())
    };
    index.manifests.into_iter().map(entry).collect()
}

#[test]
fn a_folder_keeps_other_images_and_replaces_its_own() {
    let bench = Bench::new();
    let folder = bench.path("layout");
    let put = |created, names: &[&str]| {
        let layer =
            bench.layer(&Ref::scratch(), created, |upper| write(upper, "f", &created.to_string()));
        let image = image(&bench, &result(Ref::scratch().push(layer), &[]), "").unwrap();
        write_folder(&bench.store, &image, &references(names), Flavor::Oci, &folder).unwrap();
        image.top().descriptor.digest.to_string()
    };
    let (one, two) = (put(1, &["app:1"]), put(2, &["app:2"]));
    assert_eq!(
        names(&folder),
        BTreeMap::from([("1".to_owned(), one.clone()), ("2".to_owned(), two)])
    );
    let (three, four) = (put(3, &["app:2"]), put(4, &[]));
    let expect = [("1", one), ("2", three), ("latest", four)]
        .map(|(name, digest)| (name.to_owned(), digest));
    assert_eq!(names(&folder), BTreeMap::from(expect));
    run("skopeo", &["inspect", &format!("oci:{}:2", folder.display())]);

    fs::write(folder.join("index.json"), "{").unwrap();
    let image = image(&bench, &result(Ref::scratch(), &[]), "").unwrap();
    let error = write_folder(&bench.store, &image, &[], Flavor::Oci, &folder).unwrap_err();
    assert!(error.to_string().ends_with("index.json` is no OCI image index"), "{error}");
}

#[test]
fn the_epoch_of_an_output_overrides_that_of_the_build() {
    let bench = Bench::new();
    let mut result = result(two_layers(&bench), &[]);
    result.platforms[0].source_date_epoch = Some(500);
    let created = |options: &str| image(&bench, &result, options).unwrap().created;
    assert_eq!(created(""), "1970-01-01T00:08:20Z");
    assert_eq!(created(",source-date-epoch=60"), "1970-01-01T00:01:00Z");
}
