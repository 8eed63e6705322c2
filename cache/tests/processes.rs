//! Many processes on one root: the test binary starts itself again as a child that plays a part.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache::{
    CacheError, CacheMount, CacheMountRequest, Key, NewResult, PruneOptions, Records, Ref, Sharing,
    Store,
};
use common::{Remote, files, layer, open, open_with, options};
use tree::View;
use tree::codec::Codec;
use tree::layer::{Encoding, Whiteouts};

const ROOT: &str = "CACHE_TEST_ROOT";
const PART: &str = "CACHE_TEST_PART";

/// Runs `part` in a process of its own.
fn child(root: &Path, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["the_part_of_a_child", "--exact", "--nocapture"])
        .env(ROOT, root)
        .env(PART, part)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the child says that it is ready.
fn wait_for_ready(child: &mut Child) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(
        lines.map_while(Result::ok).any(|line| line.ends_with("ready")),
        "the child ended early"
    );
}

/// Says that all is ready, and waits until the parent goes on or kills.
fn ready() {
    println!("\nready");
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn key(number: usize) -> Key {
    cache::KeyBuilder::new("test.v1").u64(number as u64).finish()
}

fn save(store: &Store, number: usize, reference: Ref) {
    let result = NewResult {
        key: key(number),
        reference,
        created: std::time::SystemTime::now(),
        why: Vec::new(),
    };
    store.save(&[], Some(&result)).unwrap();
}

#[test]
fn the_part_of_a_child() {
    let (Ok(root), Ok(part)) = (std::env::var(ROOT), std::env::var(PART)) else { return };
    let store = open(Path::new(&root));
    match part.as_str() {
        "half written" => {
            let mut blob = store.ingest().unwrap();
            blob.write_all(b"half").unwrap();
            let workspace = store.workspace(&Ref::scratch()).unwrap();
            fs_err::write(workspace.upper().path().join("f"), "half").unwrap();
            ready();
        }
        "uses result 0" => {
            assert!(store.load(&key(0)).unwrap().is_some());
            ready();
        }
        "holds" => {
            let _lock = store.lock("step", &|| false).unwrap();
            let _mount = mount(&store, Sharing::Locked, &|| false).unwrap();
            ready();
        }
        "writes" => {
            for number in 0..25 {
                let one = layer(&store, &Ref::scratch(), "f", &number.to_string());
                one.blob(Codec::Plain).unwrap();
                save(&store, number, Ref::scratch().push(one));
                store.put_blob(&number.to_le_bytes()).unwrap();
            }
        }
        "writes on and on" => {
            println!("\nready");
            for number in 0.. {
                let one = layer(&store, &Ref::scratch(), "f", &number.to_string());
                one.blob(Codec::Plain).unwrap();
                save(&store, number % 8, Ref::scratch().push(one));
            }
        }
        other => panic!("no part {other}"),
    }
}

fn mount(
    store: &Store,
    sharing: Sharing,
    cancelled: &dyn Fn() -> bool,
) -> Result<CacheMount, CacheError> {
    store.cache_mount(&CacheMountRequest {
        identity: "m",
        sharing,
        owners: "",
        init: &|_| Ok(()),
        cancelled,
    })
}

#[test]
fn what_a_killed_process_was_writing_is_swept_and_the_store_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let mut dying = child(root.path(), "half written");
    wait_for_ready(&mut dying);
    let ingest = root.path().join("ingest");
    // As long as the process lives, others leave its files alone.
    drop(open(root.path()));
    assert!(files(&ingest).len() > 2, "{:?}", files(&ingest));
    dying.kill().unwrap();
    dying.wait().unwrap();
    let store = open(root.path());
    assert_eq!(files(&ingest), Vec::<String>::new());
    assert_eq!(files(&root.path().join("layers")), Vec::<String>::new());
    layer(&store, &Ref::scratch(), "f", "1").diff_id().unwrap();
}

#[test]
fn a_process_killed_at_any_instant_leaves_only_whole_results() {
    let root = tempfile::tempdir().unwrap();
    for round in 0..6 {
        let mut dying = child(root.path(), "writes on and on");
        wait_for_ready(&mut dying);
        // The first round waits for a result, the others stop wherever the child happens to be.
        while round == 0 && open(root.path()).load(&key(3)).unwrap().is_none() {}
        dying.kill().unwrap();
        dying.wait().unwrap();
        let store = open(root.path());
        let found: Vec<_> = (0..8).filter_map(|number| store.load(&key(number)).unwrap()).collect();
        assert!(found.len() > 3);
        for result in &found {
            result.reference.diff_ids().unwrap();
            result.reference.stack().unwrap().metadata(Path::new("f")).unwrap().unwrap();
        }
        assert_eq!(files(&root.path().join("ingest")).len(), 1, "only our own folder");
        drop((found, store));
    }
    open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert_eq!(files(&root.path().join("layers")), Vec::<String>::new());
}

#[test]
fn several_processes_write_at_once_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let mut children: Vec<Child> = (0..3).map(|_| child(root.path(), "writes")).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let store = open(root.path());
    for number in 0..25 {
        assert!(store.load(&key(number)).unwrap().is_some(), "result {number}");
    }
    assert_eq!(fs_err::read_dir(root.path().join("layers")).unwrap().count(), 75);
}

#[test]
fn what_a_running_process_uses_is_not_pruned_until_it_is_dead() {
    let root = tempfile::tempdir().unwrap();
    {
        let store = open(root.path());
        for number in 0..2 {
            save(
                &store,
                number,
                Ref::scratch().push(layer(&store, &Ref::scratch(), "f", &number.to_string())),
            );
        }
    }
    let mut user = child(root.path(), "uses result 0");
    wait_for_ready(&mut user);
    let freed = open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert_eq!((freed.results, freed.layers), (1, 1));
    user.kill().unwrap();
    user.wait().unwrap();
    let freed = open(root.path()).prune(&PruneOptions::default()).unwrap();
    assert_eq!((freed.results, freed.layers), (1, 1));
}

#[test]
fn locks_and_locked_mounts_of_another_process_are_waited_for_and_the_wait_can_be_cancelled() {
    let root = tempfile::tempdir().unwrap();
    let mut holder = child(root.path(), "holds");
    wait_for_ready(&mut holder);
    let store = open(root.path());
    assert!(store.try_lock("step").unwrap().is_none());
    assert!(matches!(store.lock("step", &|| true), Err(CacheError::Cancelled(_))));
    assert!(matches!(mount(&store, Sharing::Locked, &|| true), Err(CacheError::Cancelled(_))));
    // The kernel releases what a killed process held, also to one who waits already.
    let asked = AtomicBool::new(false);
    let asks = || {
        asked.store(true, Ordering::SeqCst);
        false
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| mount(&store, Sharing::Locked, &asks));
        while !asked.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert!(store.try_lock("step").unwrap().is_some());
    assert_eq!(fs_err::read_dir(root.path().join("mounts")).unwrap().count(), 1);
}

#[test]
fn who_waits_for_the_database_says_so_after_a_second() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    cache::tell_long_waits(|text| TOLD.lock().unwrap().push(text.to_owned()));
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    save(&store, 1, Ref::scratch());
    let writer = rusqlite::Connection::open(root.path().join("db.sqlite")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| save(&store, 2, Ref::scratch()));
        let began = Instant::now();
        while TOLD.lock().unwrap().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(30), "nothing is told");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(began.elapsed() > Duration::from_millis(900), "a short wait is nobody's business");
        writer.execute_batch("ROLLBACK").unwrap();
        waiting.join().unwrap();
    });
    let told = TOLD.lock().unwrap();
    assert_eq!(
        *told,
        ["waiting for another process that writes to the database of the state folder"]
    );
}

#[test]
fn mounts_are_shared_as_their_mode_says_and_emptied_on_reset() {
    let root = tempfile::tempdir().unwrap();
    let (store, other) = (open(root.path()), open(root.path()));
    // A process that another test is just starting has the locks of this one for a moment.
    let end = Instant::now() + Duration::from_secs(20);
    let take = |store: &Store, sharing| mount(store, sharing, &|| Instant::now() > end).unwrap();
    let (one, two) = (take(&store, Sharing::Shared), take(&other, Sharing::Shared));
    assert_eq!(one.path, two.path);
    let private = take(&store, Sharing::Private);
    assert_ne!(private.path, one.path);
    fs_err::write(one.path.join("f"), "kept").unwrap();
    let path = one.path.clone();
    drop((one, two, private));
    let again = take(&store, Sharing::Locked);
    assert_eq!((again.path.clone(), again.path.join("f").exists()), (path, true));
    store.reset_cache_mounts("m").unwrap();
    // Whoever has it goes on, whoever comes gets an empty one.
    assert!(again.path.join("f").exists());
    let fresh = take(&other, Sharing::Shared);
    assert!(!fresh.path.join("f").exists());
    drop((again, fresh));
    let freed = other.prune(&PruneOptions::default()).unwrap();
    assert_eq!(freed.mounts, 1);
    assert_eq!(files(&root.path().join("mounts")), Vec::<String>::new());
}

#[test]
fn a_store_of_another_encoding_or_version_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let remote = Arc::new(Remote::default());
    drop(open_with(root.path(), &remote));
    let ours = options(Arc::clone(&remote));
    let whiteouts = match ours.encoding.whiteouts {
        Whiteouts::Trusted => Whiteouts::User,
        Whiteouts::User => Whiteouts::Trusted,
    };
    let error = Store::open(
        root.path(),
        cache::StoreOptions { encoding: Encoding { whiteouts, ..ours.encoding }, ..ours },
    )
    .unwrap_err();
    assert!(matches!(error, CacheError::Format { .. }), "{error:?}");
    assert!(error.to_string().contains("whiteouts"), "{error}");
    fs_err::write(root.path().join("format"), "bricklayer store 9\n").unwrap();
    let error = Store::open(root.path(), options(remote)).unwrap_err();
    assert!(error.to_string().contains("another version"), "{error}");
}

#[test]
fn opening_a_warm_store_makes_no_file_and_opens_no_database() {
    let root = tempfile::tempdir().unwrap();
    drop(open(root.path()));
    let before = files(root.path());
    let store = open(root.path());
    assert_eq!(files(root.path()), before);
    assert!(!before.contains(&"db.sqlite".to_owned()));
    drop(store);
}
