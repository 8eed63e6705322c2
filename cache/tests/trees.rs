//! Plain trees: the steps of a chain go on in one, and make the layers that an overlay would.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache::{LayerMeta, Ref, Store, StoreOptions, Workspace, WorkspaceKind, WorkspaceRoot};
use common::{is_root, layer, options};
use fs_err as fs;
use tree::View;

fn open(root: &Path) -> Store {
    let options = options(Arc::default());
    Store::open(root, StoreOptions { workspaces: WorkspaceKind::PlainTree, ..options }).unwrap()
}

fn root_of(workspace: &mut Workspace) -> PathBuf {
    match workspace.root().unwrap() {
        WorkspaceRoot::Dir(path) => path,
        WorkspaceRoot::Overlay { .. } => panic!("the store merges nothing"),
    }
}

/// Runs a step that does something with its root; returns the chain and which inode the root was.
fn step(store: &Store, parent: &Ref, goes_on: bool, body: impl FnOnce(&Path)) -> (Ref, u64) {
    let mut workspace = store.workspace(parent).unwrap().going_on(goes_on);
    let root = root_of(&mut workspace);
    let inode = fs::metadata(&root).unwrap().ino();
    body(&root);
    (parent.push(workspace.commit(&LayerMeta::now("step")).unwrap()), inode)
}

fn names(reference: &Ref) -> Vec<String> {
    let entries = reference.stack().unwrap().read_dir(Path::new("")).unwrap();
    entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

fn layer_names(reference: &Ref) -> Vec<String> {
    let dir = reference.layers().last().unwrap().dir().unwrap();
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_next_step_of_a_chain_goes_on_in_the_same_tree() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let base = Ref::scratch().push(layer(&store, &Ref::scratch(), "base", "1"));
    let (one, first) = step(&store, &base, true, |root| {
        fs::write(root.join("one"), "1").unwrap();
        fs::remove_file(root.join("base")).unwrap();
    });
    assert_eq!(names(&one), ["one"]);
    // A layer that another op makes lies between the two.
    let copied = one.push(layer(&store, &one, "copied", "2"));
    let (two, second) = step(&store, &copied, true, |root| {
        assert_eq!(fs::read_to_string(root.join("copied")).unwrap(), "2");
        // In place: the layer of the first step has its own.
        fs::write(root.join("one"), "changed").unwrap();
    });
    assert_eq!(second, first);
    assert_eq!(layer_names(&two), ["one"]);
    let mut text = String::new();
    let mut file = one.stack().unwrap().open(Path::new("one")).unwrap();
    std::io::Read::read_to_string(&mut file, &mut text).unwrap();
    assert_eq!(text, "1");
    let (three, third) = step(&store, &two, false, |_| {});
    assert_eq!(third, first);
    assert_eq!(layer_names(&three), [""; 0]);
    assert_eq!(store.drop_waiting_trees(), 0);
}

#[test]
fn of_two_that_could_go_on_one_gets_a_copy() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (base, tree) = step(&store, &Ref::scratch(), true, |root| {
        fs::write(root.join("base"), "1").unwrap();
    });
    let mut left = store.workspace(&base).unwrap();
    let mut right = store.workspace(&base).unwrap();
    let (one, other) = (root_of(&mut left), root_of(&mut right));
    assert_eq!(fs::metadata(&one).unwrap().ino(), tree);
    assert_ne!(fs::metadata(&other).unwrap().ino(), tree);
    fs::write(one.join("left"), "").unwrap();
    fs::write(other.join("right"), "").unwrap();
    let meta = LayerMeta::now("step");
    let (left, right) = (left.commit(&meta).unwrap(), right.commit(&meta).unwrap());
    assert_eq!(names(&base.push(left)), ["base", "left"]);
    assert_eq!(names(&base.push(right)), ["base", "right"]);
}

#[test]
fn the_tree_of_a_failed_step_is_of_no_use() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (base, _) = step(&store, &Ref::scratch(), true, |root| {
        fs::write(root.join("base"), "1").unwrap();
    });
    let mut failed = store.workspace(&base).unwrap();
    let root = root_of(&mut failed);
    fs::write(root.join("half"), "").unwrap();
    drop(failed);
    let (again, _) = step(&store, &base, false, |_| {});
    assert_eq!(names(&again), ["base"]);
    drop(store);
    assert!(!root.exists());
}

#[test]
fn a_tree_that_waits_in_vain_goes_with_its_store() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    step(&store, &Ref::scratch(), true, |root| fs::write(root.join("base"), "1").unwrap());
    let under_way = || fs::read_dir(folder.path().join("ingest")).unwrap().count();
    assert_eq!(under_way(), 1);
    drop(store);
    assert_eq!(under_way(), 0);
}
