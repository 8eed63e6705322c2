//! The image store, and what pruning leaves of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, SystemTime};

use cache::{
    CacheError, Images, KeyBuilder, NewImage, NewResult, NewVariant, PruneOptions, Records, Ref,
    Store,
};
use common::{files, layer, open};
use llb::{Digest, Platform, Reference};
use tree::codec::Codec;

fn name(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn variant(reference: &Ref, config: &str, platform: &str) -> NewVariant {
    NewVariant {
        platform: Platform::parse(platform).unwrap(),
        config: config.as_bytes().to_vec(),
        reference: reference.clone(),
        manifest: None,
    }
}

fn put(images: &Images, reference: &Ref, config: &str, names: &[&str]) -> Digest {
    let variants = vec![variant(reference, config, "linux/amd64")];
    let names: Vec<Reference> = names.iter().map(|text| name(text)).collect();
    images.put(&NewImage { variants, created: SystemTime::now(), index: None }, &names).unwrap()
}

fn save(store: &Store, number: u64, reference: &Ref) {
    let key = KeyBuilder::new("test.v1").u64(number).finish();
    let result = NewResult {
        key,
        reference: reference.clone(),
        created: SystemTime::now(),
        why: Vec::new(),
    };
    store.save(&[], Some(&result)).unwrap();
}

fn single(store: &Store, content: &str) -> Ref {
    Ref::scratch().push(layer(store, &Ref::scratch(), "f", content))
}

#[test]
fn an_image_is_found_by_familiar_name_full_name_id_and_prefix() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let images = store.images();
    let id = put(&images, &single(&store, "1"), "{}", &["app:1"]);
    assert_eq!(id, Digest::of(b"{}"));
    for given in ["app:1", "docker.io/library/app:1", &id.to_string(), &id.hex(), &id.hex()[..7]] {
        assert_eq!(images.get(given).unwrap().id, id, "{given}");
    }
    let image = images.get("app:1").unwrap();
    assert_eq!(image.names, ["docker.io/library/app:1"]);
    assert_eq!(images.config(&image.variants[0]).unwrap(), b"{}");
    assert_eq!(images.reference(&image.variants[0]).unwrap().layers().len(), 1);
    for unknown in ["app:2", "ffffffff", "*", "", "sha256:"] {
        assert!(matches!(images.get(unknown), Err(CacheError::UnknownImage(_))), "{unknown}");
    }
}

#[test]
fn a_prefix_that_fits_two_images_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let reference = single(&store, "1");
    // Seventeen ids share a first digit somewhere.
    let ids: Vec<Digest> =
        (0..17).map(|number| put(&store.images(), &reference, &number.to_string(), &[])).collect();
    let digit = |id: &Digest| id.hex()[..1].to_owned();
    let shared = ids
        .iter()
        .find(|id| ids.iter().filter(|other| digit(other) == digit(id)).count() > 1)
        .unwrap();
    assert!(matches!(store.images().get(&digit(shared)), Err(CacheError::AmbiguousImage { .. })));
}

#[test]
fn a_name_that_moves_leaves_the_old_image_dangling() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let images = store.images();
    let old = put(&images, &single(&store, "1"), "old", &["app"]);
    let new = put(&images, &single(&store, "2"), "new", &["app"]);
    assert_eq!(images.by_name(&name("app:latest")).unwrap().unwrap().id, new);
    assert_eq!(images.get(&old.hex()).unwrap().names, Vec::<String>::new());
    assert_eq!(images.list().unwrap().len(), 2);
}

#[test]
fn removing_takes_the_name_and_with_the_last_name_the_image() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let images = store.images();
    let id = put(&images, &single(&store, "1"), "x", &["one", "two"]);
    assert!(matches!(images.remove(&id.hex(), false), Err(CacheError::ImageInUse { .. })));
    assert_eq!(images.remove("one", false).unwrap().deleted, None);
    images.tag(&id.hex(), &name("three")).unwrap();
    let removed = images.remove(&id.hex(), true).unwrap();
    assert_eq!((removed.untagged.len(), removed.deleted), (2, Some(id)));
    assert!(images.list().unwrap().is_empty());
}

#[test]
fn an_image_of_several_platforms_keeps_their_order() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let (one, two) = (single(&store, "1"), single(&store, "2"));
    let variants = vec![variant(&one, "a", "linux/arm64"), variant(&two, "b", "linux/amd64")];
    let image = NewImage { variants, created: SystemTime::now(), index: Some(b"index".to_vec()) };
    let id = store.images().put(&image, &[name("multi")]).unwrap();
    let found = store.images().get("multi").unwrap();
    let platforms: Vec<&str> =
        found.variants.iter().map(|variant| variant.platform.as_str()).collect();
    assert_eq!((found.id, platforms), (id, vec!["linux/arm64", "linux/amd64"]));
    let manifests = [(Digest::of(b"b"), &b"manifest"[..])];
    store.images().set_documents(&id, Some(b"index"), manifests.into_iter()).unwrap();
    assert_eq!(
        store.images().get("multi").unwrap().variants[1].manifest.as_deref(),
        Some(&b"manifest"[..])
    );
}

#[test]
fn prune_keeps_what_images_use_and_frees_the_rest_in_real_blocks() {
    let root = tempfile::tempdir().unwrap();
    let big = "x".repeat(1 << 20);
    {
        let store = open(root.path());
        let kept = single(&store, "kept");
        let kept = kept.push(layer(&store, &kept, "g", "kept"));
        kept.layers()[1].blob(Codec::Plain).unwrap();
        put(&store.images(), &kept, "config", &["app"]);
        let dropped = single(&store, &big);
        dropped.layers()[0].blob(Codec::Plain).unwrap();
        save(&store, 1, &dropped);
        save(&store, 2, &kept);
    }
    let store = open(root.path());
    let usage = store.usage().unwrap();
    assert!(usage.layers > 1 << 20 && usage.blobs > 1 << 20, "{usage:?}");
    let freed = store.prune(&PruneOptions::default()).unwrap();
    // The result of what the image has stays with it.
    assert_eq!((freed.results, freed.layers, freed.blobs), (1, 1, 1));
    assert!(freed.bytes > 2 << 20, "{freed:?}");
    let image = store.images().get("app").unwrap();
    assert!(store.images().reference(&image.variants[0]).unwrap().stack().is_ok());
    assert_eq!(store.images().config(&image.variants[0]).unwrap(), b"config");
    assert_eq!(files(&root.path().join("blobs/sha256")).len(), 2);
    drop((image, store));
    let store = open(root.path());
    store.images().remove("app", false).unwrap();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().layers, 2);
    assert_eq!(files(&root.path().join("layers")), Vec::<String>::new());
    assert_eq!(files(&root.path().join("blobs")), ["sha256"]);
}

#[test]
fn a_limit_takes_the_least_recently_used_first_and_until_spares_the_young() {
    let root = tempfile::tempdir().unwrap();
    let content = "x".repeat(1 << 20);
    {
        let store = open(root.path());
        (0..4).for_each(|number| save(&store, number, &single(&store, &content)));
    }
    let load = |store: &Store, number: u64| {
        store.load(&KeyBuilder::new("test.v1").u64(number).finish()).unwrap().is_some()
    };
    // A use makes the oldest the youngest.
    assert!(load(&open(root.path()), 0));
    let store = open(root.path());
    let hour = PruneOptions::until(Duration::from_secs(3600));
    assert_eq!(store.prune(&hour).unwrap().results, 0);
    let keep = store.usage().unwrap().total() - (1 << 20) - (1 << 19);
    let limit = PruneOptions { max_used_space: Some(keep), ..PruneOptions::default() };
    assert_eq!(store.prune(&limit).unwrap().results, 2);
    assert_eq!(
        (0..4).map(|number| load(&store, number)).collect::<Vec<_>>(),
        [true, false, false, true]
    );
    // What this store has just used is leased.
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().results, 0);
}

#[test]
fn prune_removes_what_no_row_leads_to() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    fs_err::create_dir_all(root.path().join("layers/stray/fs")).unwrap();
    fs_err::write(root.path().join("blobs/sha256/stray"), "stray").unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(files(&root.path().join("layers")), Vec::<String>::new());
    assert_eq!(files(&root.path().join("blobs")), ["sha256"]);
}
