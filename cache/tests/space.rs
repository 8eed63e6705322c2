//! What the store takes, what goes when there is too much of it, and a disk that is full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use cache::{
    CacheError, CacheMountRequest, FileSystem, Filter, GcLimits, Key, Kind, LayerMeta, NewResult,
    PruneOptions, Records, Ref, Sharing, Store,
};
use common::{layer, open};
use fs_err as fs;
use tree::codec::Codec;

const MB: usize = 1 << 20;

fn key(name: &str) -> Key {
    cache::KeyBuilder::new("test.v1").str(name).finish()
}

/// Makes a result with a layer of so many bytes.
fn result(store: &Store, name: &str, bytes: usize) -> Ref {
    let made = Ref::scratch().push(layer(store, &Ref::scratch(), name, &"x".repeat(bytes)));
    save(store, name, &made).unwrap();
    made
}

fn save(store: &Store, name: &str, reference: &Ref) -> Result<(), CacheError> {
    let created = SystemTime::now();
    let (key, reference, why) = (key(name), reference.clone(), Vec::new());
    store.save(&[], Some(&NewResult { key, reference, created, why }))
}

fn has(store: &Store, name: &str) -> bool {
    store.load(&key(name)).unwrap().is_some()
}

fn mount(store: &Store, identity: &str, owners: &str) -> cache::CacheMount {
    let (sharing, init, cancelled) = (Sharing::Shared, &|_: &Path| Ok(()), &|| false);
    store.cache_mount(&CacheMountRequest { identity, sharing, owners, init, cancelled }).unwrap()
}

/// What `du` of the system says, in bytes.
fn du(folder: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(folder).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// A small disk in memory, unmounted when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Option<Self> {
        if !common::is_root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(status.success());
        Some(Self(folder))
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Takes all the space there is, bytes and inodes.
    fn fill(&self) {
        let _ = fs::write(self.0.path().join("stuff"), vec![1; 256 * MB]);
        for number in 0.. {
            if fs::write(self.0.path().join(format!("stuff{number}")), "x").is_err() {
                break;
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    fn clear(&self) {
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn entries_add_up_to_what_the_disk_says_and_tell_what_each_byte_is() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        let made = result(&store, "one", 3 * MB);
        made.layers()[0].blob(Codec::Plain).unwrap();
        store.put_blob(&vec![7; MB]).unwrap();
        fs::write(mount(&store, "npm", "").path.join("f"), vec![1; 2 * MB]).unwrap();
        fs::write(mount(&store, "git sha1 https://host/x", "git").path.join("f"), "x").unwrap();
        fs::create_dir(root.path().join("contexts")).unwrap();
        fs::write(root.path().join("contexts/abc"), "hashes").unwrap();
        fs::create_dir_all(root.path().join("layers/stray/fs")).unwrap();
        fs::write(root.path().join("mounts/stray"), vec![1; 9000]).unwrap();
        fs::hard_link(root.path().join("mounts/stray"), root.path().join("mounts/stray2")).unwrap();
        fs::remove_file(root.path().join("mounts/stray2")).unwrap();
        fs::write(root.path().join("unknown"), "?").unwrap();
    }
    let store = open(root.path());
    let entries = store.entries().unwrap();
    let sum: u64 = entries.iter().map(|entry| entry.bytes).sum();
    assert_eq!(sum, du(root.path()));
    assert_eq!(store.usage().unwrap().total(), sum);
    let of = |kind: Kind| -> Vec<(&str, bool)> {
        let its = entries.iter().filter(|entry| entry.kind == kind);
        let mut all: Vec<_> =
            its.map(|entry| (entry.description.as_str(), entry.reclaimable)).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(of(Kind::Regular), [("blob of no layer", true), ("write one", true)]);
    assert_eq!(of(Kind::CacheMount), [("npm", true)]);
    assert_eq!(of(Kind::Git), [("git sha1 https://host/x", true)]);
    assert_eq!(of(Kind::Local), [("hashes of the files of a context", true)]);
    assert_eq!(
        of(Kind::Internal),
        [
            ("cache mount that nothing leads to", true),
            ("folders, locks, and what is set aside for a full disk", false),
            ("layer that nothing leads to", true),
            ("records of the store", false),
            ("what is being written", false),
        ]
    );
    // The layer counts with its blob.
    let layer = entries.iter().find(|entry| entry.description == "write one").unwrap();
    assert!(layer.bytes > 6 * MB as u64, "{layer:?}");
    // After a prune only the store itself is there.
    drop(store);
    let before = du(root.path());
    let freed = open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert!(before - du(root.path()) >= 9 * MB as u64);
    assert!(freed.bytes >= 9 * MB as u64, "{freed:?}");
    let left = open(root.path()).entries().unwrap();
    assert!(left.iter().all(|entry| entry.kind == Kind::Internal), "{left:?}");
    assert_eq!(left.iter().map(|entry| entry.bytes).sum::<u64>(), du(root.path()));
}

#[test]
fn what_is_used_is_told_and_stays() {
    let root = tempfile::tempdir().unwrap();
    let user = open(root.path());
    result(&user, "used", MB);
    let held = mount(&user, "held", "");
    let store = open(root.path());
    let entries = store.entries().unwrap();
    let used: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.in_use)
        .map(|entry| entry.description.as_str())
        .collect();
    assert_eq!(used, ["write used", "held"]);
    assert!(entries.iter().all(|entry| !(entry.in_use && entry.reclaimable)));
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().entries, []);
    assert_eq!(store.relieve(u64::MAX).unwrap(), 0);
    assert!(held.path.is_dir() && has(&store, "used"));
}

#[test]
fn a_layer_that_is_about_to_be_noted_is_not_taken_for_a_stray() {
    let root = tempfile::tempdir().unwrap();
    let builder = open(root.path());
    let workspace = builder.workspace(&Ref::scratch()).unwrap();
    fs::write(workspace.upper().path().join("file"), "x").unwrap();
    let layer = workspace.commit_later(&LayerMeta::now("write file")).unwrap();
    let file = root.path().join("layers").join(layer.id().to_string()).join("fs/file");
    assert!(file.is_file(), "what is built upon it may begin");
    open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert!(file.is_file(), "its row may be written at any moment");
    builder.settle().unwrap();
    open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert!(file.is_file(), "it is in use");
    drop((layer, builder));
    open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert!(!file.exists());
}

#[test]
fn filters_choose_what_goes() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        result(&store, "one", MB);
        result(&store, "two", MB);
        drop(mount(&store, "npm", ""));
        drop(mount(&store, "git sha1 https://host/x", "git"));
    }
    let prune = |filter: &str| {
        let filter = Filter::parse(&[filter]).unwrap();
        let options = PruneOptions { filter, ..PruneOptions::default() };
        let freed = open(root.path()).prune(&options).unwrap();
        let mut names: Vec<String> =
            freed.entries.into_iter().map(|entry| entry.description).collect();
        names.sort();
        names
    };
    let id = |description: &str| {
        let entries = open(root.path()).entries().unwrap();
        entries.into_iter().find(|entry| entry.description == description).unwrap().id
    };
    assert_eq!(prune("type=source.local"), [""; 0]);
    assert_eq!(prune("type=exec.cachemount"), ["npm"]);
    assert_eq!(prune(&format!("id={}", &id("write two")[..12])), ["write two"]);
    assert!(!has(&open(root.path()), "two") && has(&open(root.path()), "one"));
    assert_eq!(prune("until=24h"), [""; 0]);
    assert_eq!(prune("description~=one,until=0s"), ["write one"]);
    assert_eq!(prune("type!=regular"), ["git sha1 https://host/x"]);
}

#[test]
fn what_is_built_upon_is_as_young_as_what_is_built_upon_it() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        let below = result(&store, "below", MB);
        result(&store, "old", 4 * MB);
        let above = below.push(layer(&store, &below, "above", "above"));
        save(&store, "above", &above).unwrap();
    }
    // A build that finds its result does not look for what is below.
    assert!(has(&open(root.path()), "above"));
    let store = open(root.path());
    let keep = store.usage().unwrap().total() - MB as u64;
    let options = PruneOptions { max_used_space: Some(keep), ..PruneOptions::default() };
    let freed = store.prune(&options).unwrap();
    assert_eq!(freed.entries.len(), 1, "{freed:?}");
    assert_eq!(freed.entries[0].description, "write old");
    assert!(has(&store, "below") && has(&store, "above") && !has(&store, "old"));
}

#[test]
fn a_store_above_its_limits_is_due_and_brought_within_them() {
    let Some(disk) = Disk::new("size=64m") else { return };
    let file_system = FileSystem::of(&disk.root()).unwrap();
    assert_eq!(file_system.size(), 64 * MB as u64);
    assert_eq!(file_system.mount_point(), disk.0.path().canonicalize().unwrap());
    let usual = GcLimits::of(&file_system);
    assert_eq!((usual.max_used >> 20, usual.min_free >> 20, usual.reserved >> 20), (51, 12, 6));
    let limits = GcLimits { max_used: 20 * MB as u64, min_free: 0, reserved: 0 };
    let write = |names: &[&str]| {
        let store = open(&disk.root());
        names.iter().for_each(|name| drop(result(&store, name, 5 * MB)));
        store.is_due(&limits).unwrap()
    };
    assert!(!write(&["a"]), "the first look only measures");
    assert!(!write(&["b", "c"]));
    assert!(write(&["d", "e", "f"]));
    let store = open(&disk.root());
    let freed = store.tidy(&limits).unwrap().unwrap();
    assert!(freed.results >= 2, "{freed:?}");
    assert!(store.usage().unwrap().total() <= 20 * MB as u64);
    assert!(!has(&store, "a") && !has(&store, "b") && has(&store, "f"), "the oldest go");
    assert!(!store.is_due(&limits).unwrap());
    // Leaving space free is the same rule.
    let free = GcLimits { max_used: u64::MAX, min_free: 60 * MB as u64, reserved: 7 * MB as u64 };
    assert!(open(&disk.root()).is_due(&free).unwrap());
    drop(store);
    open(&disk.root()).tidy(&free).unwrap().unwrap();
    let store = open(&disk.root());
    assert!(has(&store, "f") && !has(&store, "e"), "what is reserved stays");
}

#[test]
fn of_many_that_tidy_up_unasked_one_waits_for_its_turn_at_most() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let limits = GcLimits { max_used: u64::MAX, min_free: 0, reserved: 0 };
    std::thread::scope(|scope| {
        let all = (0..4).map(|_| scope.spawn(|| open(root.path()).tidy(&limits).unwrap()));
        let done: Vec<bool> =
            all.collect::<Vec<_>>().into_iter().map(|one| one.join().unwrap().is_some()).collect();
        assert!(done.contains(&true));
    });
    assert!(store.tidy(&limits).unwrap().is_some());
}

#[test]
fn a_prune_works_on_a_disk_without_a_byte_or_inode_left() {
    for options in ["size=24m", "size=24m,nr_inodes=120"] {
        let Some(disk) = Disk::new(options) else { return };
        {
            let store = open(&disk.root());
            result(&store, "one", 4 * MB);
            store.put_blob(&vec![1; MB]).unwrap();
            drop(mount(&store, "npm", ""));
        }
        disk.fill();
        let store = open(&disk.root());
        // Even with the shared file of the database gone, as after a restart of the machine.
        let _ = fs::remove_file(disk.root().join("db.sqlite-shm"));
        let before = du(&disk.root());
        let freed = store.prune(&PruneOptions::default()).unwrap();
        assert_eq!((freed.results, freed.layers, freed.mounts), (1, 1, 1), "{options}");
        let less = before - du(&disk.root());
        assert!(freed.bytes >= 5 * MB as u64 && less >= 4 * MB as u64, "{freed:?}, {less}");
        drop(store);
        disk.clear();
        let store = open(&disk.root());
        assert!(!has(&store, "one"));
        result(&store, "one", MB);
        assert!(has(&open(&disk.root()), "one"));
    }
}

#[test]
fn an_image_can_be_removed_from_a_full_disk() {
    let Some(disk) = Disk::new("size=24m") else { return };
    {
        let store = open(&disk.root());
        let reference = result(&store, "one", 4 * MB);
        let (platform, config, manifest) = (llb::Platform::host(), b"{}".to_vec(), None);
        let variants = vec![cache::NewVariant { platform, config, reference, manifest }];
        let image = cache::NewImage { variants, created: SystemTime::now(), index: None };
        let name = llb::Reference::parse("app:1").unwrap();
        store.images().put(&image, &[name]).unwrap();
    }
    disk.fill();
    let store = open(&disk.root());
    assert!(store.images().remove("app:1", false).unwrap().deleted.is_some());
    assert!(store.entries().unwrap().len() > 2);
    assert!(store.prune(&PruneOptions::default()).unwrap().bytes >= 4 * MB as u64);
}

/// Writes at random sizes of disk until nothing fits, and looks at what is there: whole or not at all.
#[test]
fn a_disk_that_fills_up_at_any_point_loses_nothing_that_was_there() {
    for size in [2, 3, 5, 7, 9, 12].map(|size| size * MB + 4096 * 7 * size) {
        let Some(disk) = Disk::new(&format!("size={size}")) else { return };
        let mut saved = Vec::new();
        let error = {
            let store = match Store::open(&disk.root(), common::options(Default::default())) {
                Ok(store) => store,
                Err(error) => panic!("{size}: {error}"),
            };
            loop {
                let name = format!("r{}", saved.len());
                let one = || -> Result<(), CacheError> {
                    let workspace = store.workspace(&Ref::scratch())?;
                    let path = workspace.upper().path().join("f");
                    std::io::Write::write_all(
                        &mut fs::File::create(&path).unwrap(),
                        &vec![1; 300_000],
                    )
                    .map_err(|source| CacheError::NoSpace { path, source })?;
                    let made = workspace.commit(&LayerMeta::now(name.as_str()))?;
                    made.blob(Codec::Plain)?;
                    save(&store, &name, &Ref::scratch().push(made))
                };
                match one() {
                    Ok(()) => saved.push(name),
                    Err(error) => break error,
                }
            }
        };
        assert!(matches!(error, CacheError::NoSpace { .. }), "{size}: {error:?}");
        open(&disk.root()).relieve(1 << 20).unwrap();
        let store = open(&disk.root());
        let mut found = Vec::new();
        for name in &saved {
            if let Some(result) = store.load(&key(name)).unwrap() {
                result.reference.diff_ids().unwrap();
                found.push(name);
            }
        }
        // The oldest had to go, and nothing else.
        let lost = saved.len() - found.len();
        assert!(
            lost <= 3 && found[..] == saved.iter().collect::<Vec<_>>()[lost..],
            "{size}: {found:?}"
        );
        result(&store, "more", 200_000);
    }
}

#[test]
fn the_disk_is_looked_after_while_a_build_runs() {
    let Some(disk) = Disk::new("size=40m") else { return };
    {
        let store = open(&disk.root());
        (0..6).for_each(|number| drop(result(&store, &format!("old{number}"), 4 * MB)));
    }
    let store = open(&disk.root());
    let _watch = store.watch_space();
    let workspace = store.workspace(&Ref::scratch()).unwrap();
    let mut file = fs::File::create(workspace.upper().path().join("f")).unwrap();
    // A step that writes half of the disk, a bit at a time.
    for _ in 0..40 {
        std::io::Write::write_all(&mut file, &vec![1; MB / 2]).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    let left: Vec<usize> = (0..6).filter(|number| has(&store, &format!("old{number}"))).collect();
    assert!(!left.contains(&0) && left.contains(&5), "{left:?}");
}
