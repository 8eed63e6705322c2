//! Forms of layers: each made once, lost ones made again or reported as gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use fs_err as fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cache::{CacheError, Key, KeyBuilder, Link, NewResult, Records, Ref, Store, StoredResult};
use common::{Remote, is_root, layer, open, open_with, options};
use llb::{DiffId, Digest};
use tree::View;
use tree::codec::Codec;

const EMPTY_LAYER: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn key(name: &str) -> Key {
    KeyBuilder::new("test.v1").str(name).finish()
}

fn save(store: &Store, name: &str, reference: &Ref) {
    let created = std::time::SystemTime::now();
    let result = NewResult {
        key: key(name),
        reference: reference.clone(),
        created,
        why: name.as_bytes().to_vec(),
    };
    store.save(&[], Some(&result)).unwrap();
}

fn load(store: &Store, name: &str) -> Option<StoredResult> {
    store.load(&key(name)).unwrap()
}

fn read(reference: &Ref, path: &str) -> String {
    let mut text = String::new();
    reference.stack().unwrap().open(Path::new(path)).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn an_empty_workspace_is_the_empty_layer() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let empty = store
        .workspace(&Ref::scratch())
        .unwrap()
        .commit(&cache::LayerMeta::now("nothing"))
        .unwrap();
    assert_eq!(empty.diff_id().unwrap().to_string(), EMPTY_LAYER);
    assert_eq!(empty.blob(Codec::Plain).unwrap().digest.to_string(), EMPTY_LAYER);
}

#[test]
fn folders_made_ahead_are_those_of_the_next_workspace_and_go_with_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let ingest = || fs::read_dir(folder.path().join("ingest")).unwrap().next().unwrap().unwrap();
    store.make_workspace_ahead().unwrap();
    let made = |place: &Path| fs::read_dir(place).unwrap().count();
    assert_eq!(made(&ingest().path()), 2, "a layer and what overlayfs needs");
    let mut workspace = store.workspace(&Ref::scratch()).unwrap();
    workspace.work().unwrap();
    assert_eq!(made(&ingest().path()), 2);
    fs::write(workspace.upper().path().join("file"), "made").unwrap();
    let layer = workspace.commit(&cache::LayerMeta::now("test")).unwrap();
    assert_eq!(read(&Ref::scratch().push(layer), "file"), "made");
    store.make_workspace_ahead().unwrap();
    drop(store);
    assert_eq!(made(&folder.path().join("ingest")), 0);
}

#[test]
fn a_long_log_of_the_database_is_merged_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let reference = Ref::scratch().push(layer(&store, &Ref::scratch(), "file", "content"));
    let mut saved = 0;
    while !store.has_long_log() {
        assert!(saved < 10_000, "the log does not grow");
        save(&store, &format!("step {saved}"), &reference);
        saved += 1;
    }
    store.merge_log().unwrap();
    assert!(!store.has_long_log());
    drop(store);
    let store = open(folder.path());
    assert!((0..saved).all(|number| load(&store, &format!("step {number}")).is_some()));
}

#[test]
fn a_saved_result_is_found_by_a_later_store_with_its_layers_and_reason() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        let one = Ref::scratch().push(layer(&store, &Ref::scratch(), "a", "1"));
        let two = one.push(layer(&store, &one, "b", "2"));
        save(&store, "two", &two);
    }
    let store = open(root.path());
    let found = load(&store, "two").unwrap();
    assert_eq!(found.why, b"two");
    assert_eq!(found.reference.layers().len(), 2);
    assert_eq!(
        (read(&found.reference, "a").as_str(), read(&found.reference, "b").as_str()),
        ("1", "2")
    );
    assert!(load(&store, "three").is_none());
}

#[test]
fn the_newest_result_of_a_key_is_preferred() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    for content in ["old", "new"] {
        save(&store, "x", &Ref::scratch().push(layer(&store, &Ref::scratch(), "f", content)));
    }
    assert_eq!(read(&load(&store, "x").unwrap().reference, "f"), "new");
}

#[test]
fn a_result_with_a_lost_folder_is_not_there() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        save(&store, "x", &Ref::scratch().push(layer(&store, &Ref::scratch(), "f", "1")));
    }
    fs::remove_dir_all(root.path().join("layers")).unwrap();
    fs::create_dir(root.path().join("layers")).unwrap();
    assert!(load(&open(root.path()), "x").is_none());
}

#[test]
fn a_lost_folder_is_unpacked_again_from_a_blob_of_the_layer() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        let one = layer(&store, &Ref::scratch(), "f", "1");
        one.blob(Codec::GZIP).unwrap();
        save(&store, "x", &Ref::scratch().push(one));
    }
    fs::remove_dir_all(root.path().join("layers")).unwrap();
    fs::create_dir(root.path().join("layers")).unwrap();
    let found = load(&open(root.path()), "x").unwrap();
    assert_eq!(read(&found.reference, "f"), "1");
}

#[test]
fn all_compressions_of_a_layer_have_one_diff_id() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let one = layer(&store, &Ref::scratch(), "f", "1");
    let plain = one.blob(Codec::Plain).unwrap();
    let gzip = one.blob(Codec::GZIP).unwrap();
    let zstd = one.blob(Codec::Zstd(3)).unwrap();
    let diff_id = one.diff_id().unwrap();
    assert_eq!(DiffId(plain.digest), diff_id);
    for descriptor in [plain, gzip, zstd] {
        let blob = store.blob(&descriptor.digest).unwrap().unwrap();
        let mut tar = Vec::new();
        tree::codec::decompress(Box::new(blob.open().unwrap()))
            .unwrap()
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(DiffId(Digest::of(&tar)), diff_id, "{}", descriptor.media_type);
    }
}

#[test]
fn a_base_layer_is_fetched_once_by_many_waiters_and_only_when_its_files_are_asked_for() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let store = open_with(root.path(), &remote);
    let (diff_id, descriptor) = remote.layer("etc/name", "base");
    let base = store.base_layer(diff_id, &descriptor, "there".to_owned()).unwrap();
    assert_eq!(
        (base.diff_id().unwrap(), base.origin().unwrap().as_deref()),
        (diff_id, Some("there"))
    );
    assert_eq!(remote.fetches.load(Ordering::SeqCst), 0);
    // A second handle stands for a second process: it shares nothing but the root.
    let other = open_with(root.path(), &remote);
    let again = other.base_layer(diff_id, &descriptor, "there".to_owned()).unwrap();
    assert_eq!(again.id(), base.id());
    std::thread::scope(|scope| {
        for layer in [&base, &base, &again, &again] {
            scope.spawn(|| layer.dir().unwrap());
        }
    });
    assert_eq!(remote.fetches.load(Ordering::SeqCst), 1);
    assert_eq!(read(&Ref::scratch().push(base.clone()), "etc/name"), "base");
    // The blob as it arrived serves the export.
    assert_eq!(base.blob_any(Codec::Zstd(3)).unwrap(), descriptor);
    assert_eq!(remote.fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn layers_of_a_chain_are_unpacked_together() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let store = open_with(root.path(), &remote);
    let mut chain = Ref::scratch();
    for number in 0..9 {
        let (diff_id, descriptor) = remote.layer(&format!("dir/{number}"), "x");
        chain =
            chain.push(store.base_layer_over(&chain, diff_id, &descriptor, String::new()).unwrap());
    }
    assert_eq!(chain.stack().unwrap().read_dir(Path::new("dir")).unwrap().len(), 9);
    assert_eq!(remote.fetches.load(Ordering::SeqCst), 9);
}

#[test]
fn a_blob_that_is_not_what_its_digest_says_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let store = open_with(root.path(), &remote);
    let (diff_id, descriptor) = remote.layer("f", "1");
    remote.blobs.lock().unwrap().insert(descriptor.digest, vec![0; descriptor.size as usize]);
    let base = store.base_layer(diff_id, &descriptor, String::new()).unwrap();
    assert!(matches!(base.dir(), Err(CacheError::DigestMismatch { .. })));
    assert!(!base.has_dir());
}

#[test]
fn a_layer_whose_tar_has_another_diff_id_is_refused() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let store = open_with(root.path(), &remote);
    let (_, descriptor) = remote.layer("f", "1");
    let lie = DiffId(Digest::of(b"lie"));
    let base = store.base_layer(lie, &descriptor, "docker-image://r/app".to_owned()).unwrap();
    let error = base.dir().unwrap_err();
    let expect = format!("layer {} from `docker-image://r/app` is broken", descriptor.digest);
    assert_eq!(error.to_string(), expect);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("uncompressed it has digest sha256:"), "{cause}");
    assert!(!root.path().join("layers").join(base.id().to_string()).exists());
}

#[test]
fn a_discarded_layer_takes_its_results_with_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let [one, two] =
        ["one", "two"].map(|name| Ref::new([layer(&store, &Ref::scratch(), name, name)]));
    save(&store, "one", &one);
    save(&store, "two", &two);
    store.discard_layer(&one.layers()[0]).unwrap();
    assert!(load(&store, "one").is_none() && load(&store, "two").is_some());
    assert_eq!(fs::read_dir(root.path().join("layers")).unwrap().count(), 1);
}

#[test]
fn held_bytes_are_there_as_long_as_they_are_held() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut ingest = store.ingest().unwrap();
    std::io::Write::write_all(&mut ingest, b"held").unwrap();
    let spool = ingest.hold().unwrap();
    assert_eq!((*spool.digest(), spool.size()), (Digest::of(b"held"), 4));
    let path = spool.path().to_owned();
    assert_eq!(fs::read(&path).unwrap(), b"held");
    drop(spool);
    assert!(!path.exists() && store.blob(&Digest::of(b"held")).unwrap().is_none());
}

#[test]
fn a_damaged_blob_is_dropped_when_it_is_read_and_fetched_again() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let store = open_with(root.path(), &remote);
    let (diff_id, descriptor) = remote.layer("f", "1");
    let base = store.base_layer(diff_id, &descriptor, String::new()).unwrap();
    base.blob_any(Codec::GZIP).unwrap();
    let blob = store.blob(&descriptor.digest).unwrap().unwrap();
    let mut bytes = fs::read(blob.path()).unwrap();
    bytes[20] ^= 1;
    fs::write(blob.path(), bytes).unwrap();
    assert!(blob.read().is_err());
    assert!(store.blob(&descriptor.digest).unwrap().is_none());
    // Damaged again, but found out only while unpacking.
    base.blob_any(Codec::GZIP).unwrap();
    fs::write(blob.path(), vec![7; descriptor.size as usize]).unwrap();
    assert_eq!(read(&Ref::scratch().push(base), "f"), "1");
    assert_eq!(remote.fetches.load(Ordering::SeqCst), 3);
}

#[test]
fn a_blob_of_another_size_is_not_there() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let digest = store.put_blob(b"config").unwrap();
    fs::write(store.blob(&digest).unwrap().unwrap().path(), b"conf").unwrap();
    assert!(store.blob(&digest).unwrap().is_none());
}

#[test]
fn concat_puts_the_later_chain_on_top() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let one = Ref::scratch().push(layer(&store, &Ref::scratch(), "f", "1"));
    let two = Ref::scratch().push(layer(&store, &Ref::scratch(), "f", "2"));
    assert_eq!(read(&Ref::concat(&[one.clone(), two.clone()]), "f"), "2");
    assert_eq!(read(&Ref::concat(&[two, one]), "f"), "1");
}

#[test]
fn both_ways_of_knowing_an_input_lead_to_one_key_and_no_link_closes_a_cycle() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let link = |parent: &str, to: &str| Link {
        op: key("op"),
        output: 0,
        input: 1,
        parent: key(parent),
        selector: key("all"),
        key: key(to),
    };
    let query = |parents: &[&str]| {
        let of = |name: &&str| (key(name), key("all"));
        let second: Vec<(Key, Key)> = parents.iter().map(of).collect();
        store.query(&key("op"), 0, &[vec![(key("base"), key("all"))], second]).unwrap()
    };
    let first = |to: &str| Link { input: 0, ..link("base", to) };
    store
        .save(&[link("definition", "out"), link("content", "out"), link("out", "next")], None)
        .unwrap();
    store.save(&["out", "next", "definition"].map(first), None).unwrap();
    assert_eq!(query(&["definition", "content"]), [key("out")]);
    assert_eq!(query(&["other"]), []);
    let unknown = [vec![(key("content"), key("all"))], vec![(key("out"), key("all"))]];
    assert_eq!(store.query(&key("op"), 0, &unknown).unwrap(), []);
    store.save(&[link("next", "definition"), link("out", "out")], None).unwrap();
    assert_eq!(query(&["next"]), []);
    assert_eq!(query(&["out"]), [key("next")]);
}

#[test]
fn after_a_reboot_only_what_was_synced_is_there() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    let boot = |name: &str| {
        Store::open_in_boot(root.path(), options(Arc::clone(&remote)), Some(name.to_owned()))
            .unwrap()
    };
    let (diff_id, descriptor) = remote.layer("base", "0");
    {
        let store = boot("first");
        let base = store.base_layer(diff_id, &descriptor, String::new()).unwrap();
        let chain = Ref::scratch().push(base);
        save(&store, "kept", &chain.push(layer(&store, &chain, "f", "1")));
        store.sync().unwrap();
        save(&store, "lost", &Ref::scratch().push(layer(&store, &Ref::scratch(), "g", "2")));
        // Unpacked after the sync: the folder is doubtful, the layer is not.
        chain.stack().unwrap();
    }
    let store = boot("second");
    assert!(load(&store, "lost").is_none());
    let kept = load(&store, "kept").unwrap().reference;
    assert!(!kept.layers()[0].has_dir());
    assert_eq!((read(&kept, "base").as_str(), read(&kept, "f").as_str()), ("0", "1"));
    drop((kept, store));
    assert!(load(&boot("second"), "kept").is_some());
}

#[test]
fn what_all_inputs_lead_to_is_found_however_much_each_leads_to() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let link = |input: u32, parent: &str, to: u32| Link {
        op: key("op"),
        output: 0,
        input,
        parent: key(parent),
        selector: key("all"),
        key: key(&format!("out {to}")),
    };
    let both = |to: u32| [link(0, "base", to), link(1, &format!("content {to}"), to)];
    let links: Vec<Link> = (0..40).flat_map(both).collect();
    store.save(&links, None).unwrap();
    // And what has many of its own, of which some are shared.
    let links: Vec<Link> = (20..80).map(|to| link(1, "wide", to)).collect();
    store.save(&links, None).unwrap();
    let query = |parents: &[&str]| {
        let named = |name: &&str| (key(name), key("all"));
        let inputs = [vec![named(&"base")], parents.iter().map(named).collect()];
        store.query(&key("op"), 0, &inputs).unwrap()
    };
    assert_eq!(query(&["content 7"]), [key("out 7")]);
    assert_eq!(query(&["content 7", "content 8"]).len(), 2);
    assert_eq!(query(&["content 77"]), []);
    assert_eq!(query(&["wide"]).len(), 20);
    assert_eq!(query(&["wide", "content 25", "content 3"]).len(), 21);
}

#[test]
fn chains_come_back_from_the_database_as_they_were() {
    let root = tempfile::tempdir().unwrap();
    let chains: Vec<Ref> = {
        let store = open(root.path());
        let mut long = Ref::scratch();
        for number in 0..50 {
            let made = layer(&store, &long, "f", &number.to_string());
            long = long.push(made);
        }
        let other = Ref::scratch().push(layer(&store, &Ref::scratch(), "g", "1"));
        let merged = Ref::concat(&[other.clone(), long.clone()]);
        let upon = merged.push(layer(&store, &merged, "h", "2"));
        let chains = vec![Ref::scratch(), other, long, merged, upon];
        for (number, chain) in chains.iter().enumerate() {
            save(&store, &format!("chain {number}"), chain);
        }
        chains
    };
    let ids = |chain: &Ref| chain.layers().iter().map(cache::Layer::id).collect::<Vec<_>>();
    let expected: Vec<_> = chains.iter().map(ids).collect();
    drop(chains);
    // The longest first, and in one store all together.
    let store = open(root.path());
    for number in (0..expected.len()).rev() {
        let found = load(&store, &format!("chain {number}")).unwrap();
        assert_eq!(ids(&found.reference), expected[number], "chain {number}");
    }
    // What stands upon a layer that is lost is lost.
    let lost = root.path().join("layers").join(expected[2][20].to_string());
    fs::remove_dir_all(lost).unwrap();
    let store = open(root.path());
    for (number, is_there) in [(4, false), (2, false), (1, true)] {
        let found = load(&store, &format!("chain {number}"));
        assert_eq!(found.is_some(), is_there, "chain {number}");
    }
}
