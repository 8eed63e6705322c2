//! The local image store, and a real registry on loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "../../registry/tests/registries/server.rs"]
mod server;

use std::net::TcpListener;

use cache::Ref;
use common::{Bench, platform_result, references, result, run, write};
use exporters::push::push;
use exporters::{
    Content, ExportError, ImageOptions, ImageResult, PushOptions, assemble, assemble_stored, store,
};
use llb::Reference;
use registry::{Client, ClientOptions};
use server::{Setup, start};

fn two_platforms(bench: &Bench) -> ImageResult {
    let layer =
        |content: &str| bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "f", content));
    let platforms = ["linux/amd64", "linux/arm64"]
        .map(|name| platform_result(Ref::scratch().push(layer(name)), name))
        .to_vec();
    ImageResult { platforms, ..ImageResult::default() }
}

#[test]
fn a_pushed_image_can_be_pulled_under_each_name() {
    let bench = Bench::new();
    let Some(server) = start(&Setup::default()) else { return };
    let client = Client::new(ClientOptions::default());
    let image = assemble(
        &bench.store,
        &two_platforms(&bench),
        &ImageOptions::default(),
        Content::Elsewhere,
    )
    .unwrap();
    let names = ["a:1", "a:2", "b:1"].map(|name| format!("{}/{name}", server.host));
    let names = references(&names.each_ref().map(String::as_str));
    // The second time everything is there.
    for _ in 0..2 {
        let exported = push(&client, &bench.store, &image, &names, PushOptions::default()).unwrap();
        assert_eq!(exported.descriptor.unwrap().digest, image.top().descriptor.digest);
    }
    for name in &names {
        assert_eq!(client.resolve(name).unwrap().bytes, image.top().bytes);
        let source = format!("docker://{name}");
        let target =
            format!("dir:{}", bench.path(&name.familiar().replace([':', '/'], "-")).display());
        run(
            "skopeo",
            &[
                "--insecure-policy",
                "copy",
                "--quiet",
                "--all",
                "--src-tls-verify=false",
                &source,
                &target,
            ],
        );
    }
}

#[test]
fn a_push_by_digest_makes_no_tag() {
    let bench = Bench::new();
    let Some(server) = start(&Setup::default()) else { return };
    let client = Client::new(ClientOptions::default());
    let layer = bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "f", "x"));
    let result = result(Ref::scratch().push(layer), &[]);
    let image =
        assemble(&bench.store, &result, &ImageOptions::default(), Content::Elsewhere).unwrap();
    let options = PushOptions { enabled: true, by_digest: true, insecure: false };
    let name = Reference::parse_as_is(&format!("{}/a", server.host)).unwrap();
    push(&client, &bench.store, &image, std::slice::from_ref(&name), options).unwrap();
    let digest = image.top().descriptor.digest;
    assert_eq!(client.resolve(&name.with_digest(digest)).unwrap().bytes, image.top().bytes);
    let tagged = name.with_tag("latest").unwrap();
    assert!(client.resolve(&tagged).is_err());
    let error = push(&client, &bench.store, &image, &[tagged], options).unwrap_err();
    assert_eq!(error.to_string(), format!("can't push tagged ref {name}:latest by digest"));
}

#[test]
fn a_failed_push_names_the_image() {
    let bench = Bench::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let options = ClientOptions { retries: 0, ..ClientOptions::default() };
    let image = assemble(
        &bench.store,
        &result(Ref::scratch(), &[]),
        &ImageOptions::default(),
        Content::Here,
    )
    .unwrap();
    let name = format!("127.0.0.1:{port}/a:1");
    let names = references(&[name.as_str()]);
    let client = Client::new(options);
    let error = push(&client, &bench.store, &image, &names, PushOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("failed to push {name}"));
    let error = push(&client, &bench.store, &image, &[], PushOptions::default()).unwrap_err();
    assert!(matches!(error, ExportError::NoName));
}

#[test]
fn storing_an_image_makes_no_blob_of_its_layers() {
    let bench = Bench::new();
    let layer = bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "f", "x"));
    let result = result(Ref::scratch().push(layer.clone()), &[]);
    let options = ImageOptions::default();
    let stored =
        store::put(&bench.store, &result, &options, &references(&["app:1"]), None).unwrap();
    assert!(layer.known_blobs().unwrap().is_empty());
    let found = bench.store.images().get("app:1").unwrap();
    assert_eq!((found.id, Some(found.id)), (stored.id, stored.config));
    // The config is the one that an archive of the image has.
    let image = assemble(&bench.store, &result, &options, Content::Here).unwrap();
    assert_eq!(image.config().unwrap().descriptor.digest, stored.id);
}

#[test]
fn an_image_stored_with_what_was_pushed_keeps_those_documents() {
    let bench = Bench::new();
    let result = two_platforms(&bench);
    let options = ImageOptions::default();
    let image = assemble(&bench.store, &result, &options, Content::Here).unwrap();
    let stored =
        store::put(&bench.store, &result, &options, &references(&["app"]), Some(&image)).unwrap();
    assert_eq!(stored.descriptor.unwrap().digest, image.top().descriptor.digest);
    let found = bench.store.images().get("app").unwrap();
    assert_eq!(found.index.as_deref(), Some(image.top().bytes.as_slice()));
    assert_eq!(
        found.variants[1].manifest.as_deref(),
        Some(image.manifests[1].manifest.bytes.as_slice())
    );
}

#[test]
fn a_stored_image_comes_out_as_it_went_in() {
    let bench = Bench::new();
    let mut result = two_platforms(&bench);
    // What the base image says is kept, even where a new image would say something else.
    let entry = &mut result.platforms[0].config.history.as_mut().unwrap()[0];
    entry.created = Some("2030-01-01T00:00:00Z".to_owned());
    result.platforms[0].base_history = 1;
    let epoch = ImageOptions { source_date_epoch: Some(60), ..ImageOptions::default() };
    let docker = ImageOptions { oci_types: false, ..epoch.clone() };
    for options in [epoch, docker] {
        let image = assemble(&bench.store, &result, &options, Content::Here).unwrap();
        store::put(&bench.store, &result, &options, &references(&["app"]), Some(&image)).unwrap();
        let stored = bench.store.images().get("app").unwrap();
        let again = assemble_stored(&bench.store, &stored, &ImageOptions::default(), Content::Here)
            .unwrap();
        let texts = |image: &exporters::Image| -> Vec<Vec<u8>> {
            image.documents().map(|document| document.bytes.clone()).collect()
        };
        assert!(texts(&again) == texts(&image));
        assert_eq!(again.top().descriptor, image.top().descriptor);
        assert_eq!(again.created, image.created);
    }
    // With other blobs the manifests cannot be the same, but the image is.
    let zstd = exporters::Output::parse("type=image,compression=zstd,force-compression=true")
        .unwrap()
        .image;
    let stored = bench.store.images().get("app").unwrap();
    let other = assemble_stored(&bench.store, &stored, &zstd, Content::Here).unwrap();
    assert_eq!(other.manifests[1].config.descriptor.digest, stored.variants[1].config);
    assert_ne!(Some(&other.manifests[1].manifest.bytes), stored.variants[1].manifest.as_ref());
}
