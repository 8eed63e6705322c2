//! Whatever is damaged in a store is forgotten, and made again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use cache::{CacheError, CacheMountRequest, Key, NewResult, Records, Ref, Sharing, Store};
use common::{layer, open, options};
use fs_err as fs;

fn key(name: &str) -> Key {
    cache::KeyBuilder::new("test.v1").str(name).finish()
}

/// What a build does: takes a result, or makes it.
fn build(root: &Path, name: &str) -> Result<bool, CacheError> {
    let store = Store::open(root, options(Arc::default()))?;
    if let Some(found) = store.load(&key(name))? {
        assert_eq!(read(&found.reference), "content");
        return Ok(true);
    }
    let workspace = store.workspace(&Ref::scratch())?;
    fs::write(workspace.upper().path().join("f"), "content").unwrap();
    let made = workspace.commit(&cache::LayerMeta::now(name))?;
    let (reference, created) = (Ref::scratch().push(made), SystemTime::now());
    let result = NewResult { key: key(name), reference, created, why: Vec::new() };
    store.save(&[], Some(&result))?;
    Ok(false)
}

fn read(reference: &Ref) -> String {
    use tree::View;
    let stack = reference.stack().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stack.open(Path::new("f")).unwrap(), &mut text).unwrap();
    text
}

/// Damages the file `name` in each way there is, and builds.
fn check(name: &str, damage: &dyn Fn(&Path)) {
    let root = tempfile::tempdir().unwrap();
    assert!(!build(root.path(), "x").unwrap());
    assert!(build(root.path(), "x").unwrap());
    damage(&root.path().join(name));
    build(root.path(), "x").unwrap();
    assert!(build(root.path(), "x").unwrap(), "{name}");
}

#[test]
fn a_damaged_database_is_set_aside_and_begun_anew() {
    let garbage = |path: &Path| fs::write(path, "x".repeat(20_000)).unwrap();
    let zeros = |path: &Path| fs::write(path, vec![0; 8192]).unwrap();
    let empty = |path: &Path| fs::write(path, "").unwrap();
    let cut = |path: &Path| {
        let _ = fs::remove_file(path.with_extension("sqlite-wal"));
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(5000).unwrap();
    };
    let other = |path: &Path| {
        // A database without the tables that its version has.
        let _ = fs::remove_file(path.with_extension("sqlite-wal"));
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(4096);
        bytes[60..64].copy_from_slice(&2u32.to_be_bytes());
        fs::write(path, bytes).unwrap();
    };
    for damage in [&garbage as &dyn Fn(&Path), &zeros, &empty, &cut, &other] {
        check("db.sqlite", damage);
    }
    check("db.sqlite-wal", &garbage);
    check("db.sqlite-shm", &garbage);
    check("db.sqlite", &|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_store_that_lost_its_database_says_so_and_is_due_to_be_tidied() {
    let root = tempfile::tempdir().unwrap();
    build(root.path(), "x").unwrap();
    fs::write(root.path().join("db.sqlite"), "no database").unwrap();
    // What is only in the log would otherwise bring all of it back.
    fs::remove_file(root.path().join("db.sqlite-wal")).unwrap();
    let store = open(root.path());
    assert!(store.load(&key("x")).unwrap().is_none());
    assert!(store.has_lost_database());
    let limits = cache::GcLimits { max_used: u64::MAX, min_free: 0, reserved: 0 };
    assert!(store.is_due(&limits).unwrap());
    store.tidy(&limits).unwrap();
    let left = fs::read_dir(root.path().join("layers")).unwrap().count();
    assert_eq!(left, 0, "layers that nothing leads to are removed");
    assert!(!root.path().join("db.sqlite.damaged").exists());
    assert!(!open(root.path()).has_lost_database());
}

#[test]
fn a_database_that_proves_damaged_in_the_middle_is_told_once() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        for number in 0..400 {
            let made = Ref::scratch().push(layer(&store, &Ref::scratch(), "f", "content"));
            let (key, created) = (key(&number.to_string()), SystemTime::now());
            let why = vec![0; 500];
            store.save(&[], Some(&NewResult { key, reference: made, created, why })).unwrap();
        }
        // Everything is in the file itself afterwards.
        store.prune(&cache::PruneOptions::until(std::time::Duration::from_secs(9999))).unwrap();
    }
    let path = root.path().join("db.sqlite");
    let mut bytes = fs::read(&path).unwrap();
    // All pages but those that are read when the file is opened.
    for page in bytes.chunks_mut(4096).skip(4) {
        page.fill(0x55);
    }
    fs::write(&path, bytes).unwrap();
    let _ = fs::remove_file(root.path().join("db.sqlite-wal"));
    let told = (0..400).find_map(|number| build(root.path(), &number.to_string()).err());
    if let Some(error) = told {
        assert!(matches!(error, CacheError::Damaged { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "the database `{}` is damaged and was set aside: what it knew of is lost",
                root.path().canonicalize().unwrap().join("db.sqlite").display()
            )
        );
    }
    for number in 0..3 {
        build(root.path(), &number.to_string()).unwrap();
        assert!(build(root.path(), &number.to_string()).unwrap());
    }
}

#[test]
fn a_format_that_a_power_cut_has_emptied_is_written_again() {
    check("format", &|path| fs::write(path, "").unwrap());
    check("format", &|path| fs::write(path, [0; 60]).unwrap());
}

#[test]
fn lost_folders_are_made_again() {
    check("layers", &|path| {
        for entry in fs::read_dir(path).unwrap() {
            fs::remove_dir_all(entry.unwrap().path().join("fs")).unwrap();
        }
    });
    check("reserve", &|path| fs::remove_dir_all(path).unwrap());
    check("ingest", &|path| fs::create_dir(path.join("dead")).unwrap());
}

#[test]
fn cache_mounts_of_an_earlier_boot_are_trusted_only_when_they_were_synced() {
    let root = tempfile::tempdir().unwrap();
    let boot = |name: &str| {
        let boot = Some(name.to_owned());
        Store::open_in_boot(root.path(), options(Arc::default()), boot).unwrap()
    };
    let take = |store: &Store, identity: &str| {
        let (sharing, init, cancelled) = (Sharing::Locked, &|_: &Path| Ok(()), &|| false);
        store
            .cache_mount(&CacheMountRequest { identity, sharing, owners: "", init, cancelled })
            .unwrap()
    };
    {
        let store = boot("first");
        for identity in ["synced", "unsynced", "in use"] {
            fs::write(take(&store, identity).path.join("f"), "kept").unwrap();
        }
        let used = take(&store, "in use");
        store.sync().unwrap();
        drop(used);
        drop(take(&store, "unsynced"));
    }
    let store = boot("second");
    let kept = |identity: &str| take(&store, identity).path.join("f").exists();
    assert!(kept("synced"));
    assert!(!kept("unsynced") && !kept("in use"));
}

#[test]
fn folders_that_others_could_look_into_are_closed() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let layers = root.path().join("layers");
    let mode = || fs_err::metadata(&layers).unwrap().permissions().mode() & 0o777;
    fs_err::set_permissions(&layers, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(root.path()));
    assert_eq!(mode(), 0o700);
}
