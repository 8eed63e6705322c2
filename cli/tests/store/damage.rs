//! Damaged entries and power cuts: the next build gives what it would have given anyway.

use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;

use crate::support::{Place, Ran, can_run, has};
use crate::{Listing, listing};

const DOCKERFILE: &str = "\
FROM busybox AS one
RUN echo one > /one; mkdir /d; echo two > /d/two
FROM scratch AS files
COPY f g /files/
FROM busybox
COPY --from=one /one /d /from/
COPY --from=files / /
RUN --mount=type=cache,target=/c echo kept >> /c/log; cat /files/* > /all
COPY f /last
";

const LOST: &str = "WARNING: the database of the builder's state was damaged: its images and cache are lost, this build began anew";

fn place() -> Place {
    Place::new(&[("Dockerfile", DOCKERFILE), ("f", "f"), ("g", "g")])
}

/// Builds, and gives what the image holds.
fn built(place: &Place) -> (Ran, Listing) {
    let out = place.path("out");
    if out.exists() {
        fs::remove_dir_all(&out).unwrap();
    }
    let ran = place.build(&["--progress=plain", "-o", "type=image,name=app", "-o", "out"]).ok();
    let found = listing(&out);
    (ran, found)
}

/// Files and folders of the state folder that a build may depend on: blobs, layers, their parts, mounts, records.
fn parts(state: &Path) -> Vec<PathBuf> {
    let names = |folder: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(state.join(folder)).into_iter().flatten();
        let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    };
    let mut all = Vec::new();
    for layer in names("layers") {
        all.extend([layer.join("fs"), layer.join("index")].into_iter().filter(|it| it.exists()));
        all.push(layer);
    }
    all.extend(names("blobs/sha256"));
    all.extend(names("mounts"));
    all.extend(names("contexts"));
    for name in [
        "db.sqlite",
        "db.sqlite-wal",
        "db.sqlite-shm",
        "format",
        "reserve",
        "contexts",
        "points/etc",
        "points",
    ] {
        all.push(state.join(name));
    }
    all
}

fn remove(path: &Path) {
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[test]
fn whatever_is_damaged_is_dropped_and_made_again() {
    if !can_run() {
        return;
    }
    let place = place();
    let (_, expect) = built(&place);
    let state = place.path("state");
    let cut = |path: &Path| {
        let length = fs::metadata(path).unwrap().len();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    };
    let garbage = |path: &Path| {
        let length = fs::metadata(path).unwrap().len();
        fs::write(path, "?".repeat(length as usize + 7)).unwrap();
    };
    type Way<'a> = (&'a str, &'a dyn Fn(&Path));
    let ways: [Way<'_>; 3] = [("removed", &remove), ("cut", &cut), ("garbage", &garbage)];
    let count = parts(&state).len();
    assert!(count > 12, "{:?}", parts(&state));
    let mut seen = 0;
    for number in 0..count {
        // What there is has other names after each build.
        let Some(path) = parts(&state).get(number).cloned() else { continue };
        if !path.exists() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (way, damage) = match name.as_str() {
            _ if path.is_dir() => ways[0],
            // What says something else of the store is another builder's affair.
            "format" => ways[1],
            _ => ways[number % 3],
        };
        damage(&path);
        seen += 1;
        let (ran, found) = built(&place);
        assert!(found == expect, "{way} {}:\n{}", path.display(), ran.stderr);
        let lost = ran.stderr.contains(LOST);
        assert!(!lost || name.starts_with("db.sqlite"), "{way} {name}: {}", ran.stderr);
        if number % 4 == 0 {
            let again = built(&place).0.stderr;
            assert!(again.matches(" CACHED").count() > 3, "{way} {}:\n{again}", path.display());
        }
    }
    assert!(seen > 20, "{seen} damages");
    garbage(&state.join("db.sqlite"));
    remove(&state.join("db.sqlite-wal"));
    let (ran, found) = built(&place);
    assert!(found == expect && ran.stderr.contains(LOST), "{}", ran.stderr);
    place.run(&["prune", "-f"]).ok();
    assert_eq!(built(&place).1, expect);
}

#[test]
fn damage_that_shows_when_an_image_is_written_is_dropped_and_made_again() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo good > /made\n")]);
    place.build(&["-t", "app"]).ok();
    let layers = fs::read_dir(place.path("state/layers")).unwrap();
    let made = layers.map(|entry| entry.unwrap().path().join("fs/made"));
    let made = made.into_iter().find(|path| path.exists()).unwrap();
    fs::write(&made, "bad!\n").unwrap();
    let save = ["save", "-o", "app.tar", "app"];
    let failed = place.run(&save);
    assert_eq!(failed.code, Some(4), "{}", failed.stderr);
    assert!(
        failed.stderr.contains(
            "was damaged on the disk and has been dropped, with what was built upon it\n  \
             help: build again: what is lost is made once more\n"
        ),
        "{}",
        failed.stderr
    );
    assert!(!made.exists());
    place.build(&["-t", "app"]).ok();
    place.run(&save).ok();

    // A blob can be made again at once.
    place.build(&["-o", "type=oci,dest=one.tar"]).ok();
    let blobs = fs::read_dir(place.path("state/blobs/sha256")).unwrap();
    for blob in blobs.map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&blob).unwrap();
        // That of the base has come from elsewhere, and is there again by itself.
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&blob, bytes).unwrap();
        }
    }
    place.build(&["-o", "type=oci,dest=two.tar"]).ok();
    let read = |name: &str| fs::read(place.path(name)).unwrap();
    assert!(read("one.tar") == read("two.tar"));
}

#[test]
fn folders_of_the_store_that_are_gone_are_made_again() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f")]);
    place.build(&["-o", "out"]).ok();
    for name in ["ingest", "locks", "layers", "blobs", "mounts"] {
        fs::remove_dir_all(place.path("state").join(name)).unwrap();
        place.build(&["-o", "out"]).ok();
        place.run(&["du"]).ok();
    }
}

#[test]
fn what_is_lost_is_not_called_pruned() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /1\n")]);
    place.build(&[]).ok();
    for layer in fs::read_dir(place.path("state/layers")).unwrap() {
        fs::remove_dir_all(layer.unwrap().path()).unwrap();
    }
    let ran = place.build(&["--explain", "-o", "out"]).ok();
    assert!(ran.stderr.contains("not there any more"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("pruned"), "{}", ran.stderr);
}

/// Makes the state folder look as if the machine had been started since.
fn reboot(place: &Place) {
    let script = "\
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE meta SET boot = \"earlier\"')
for table in ('blob', 'layer', 'result', 'image', 'mount'):
    db.execute('UPDATE ' + table + ' SET boot = \"earlier\"')
db.commit()
";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(place.path("state/db.sqlite"));
    assert!(python.status().unwrap().success());
}

/// Does to every file of a folder what a power cut does to those that were not on the disk yet.
fn lose(folder: &Path, zeros: bool) {
    // Hashes of contexts are kept only of files that have rested for a while.
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            lose(&path, zeros);
        } else if metadata.is_file() {
            let length = if zeros { metadata.len() as usize } else { 0 };
            fs::write(&path, vec![0; length]).unwrap();
        }
    }
}

#[test]
fn a_power_cut_leaves_nothing_that_is_trusted() {
    if !can_run() || !has("python3") {
        return;
    }
    for zeros in [false, true] {
        let place = place();
        let (_, expect) = built(&place);
        reboot(&place);
        for folder in ["layers", "blobs", "mounts", "contexts"] {
            lose(&place.path("state").join(folder), zeros);
        }
        fs::write(place.path("state/format"), vec![0; if zeros { 50 } else { 0 }]).unwrap();
        assert_eq!(place.run(&["images", "-q"]).ok().stdout, "");
        let (ran, found) = built(&place);
        assert!(!ran.stderr.contains("CACHED"), "{}", ran.stderr);
        assert!(found == expect, "{}", ran.stderr);
        let log = fs::read_dir(place.path("state/mounts"))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path().join("log")).unwrap())
            .filter(|log| log == "kept\n")
            .count();
        assert_eq!(log, 1, "the cache mount begins anew");
        place.run(&["prune", "-f"]).ok();
        assert_eq!(place.run(&["images", "-q"]).ok().stdout.lines().count(), 1);
    }
}

/// What was loaded cannot be made again from here: it may have come from another machine.
#[test]
fn what_was_loaded_survives_a_power_cut() {
    if !has("python3") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /f\n")]);
    place.build(&["-t", "app:1"]).ok();
    place.run(&["save", "-o", "app.tar", "app:1"]).ok();
    fs::remove_dir_all(place.path("state")).unwrap();
    place.run(&["load", "-i", "app.tar"]).ok();
    reboot(&place);
    assert_eq!(place.run(&["images", "-q"]).ok().stdout.lines().count(), 1);
    place.run(&["save", "-o", "again.tar", "app:1"]).ok();
    assert!(fs::read(place.path("app.tar")).unwrap() == fs::read(place.path("again.tar")).unwrap());
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    if !can_run() || !has("python3") {
        return;
    }
    let place = place();
    let (_, expect) = built(&place);
    // Takes nothing, and syncs.
    place.run(&["prune", "-f", "--filter", "until=24h"]).ok();
    reboot(&place);
    let (ran, found) = built(&place);
    assert!(found == expect && ran.stderr.matches("CACHED").count() > 4, "{}", ran.stderr);
    // After the next build without a sync, only that is doubtful.
    place.write("f", "other");
    built(&place);
    reboot(&place);
    place.write("f", "f");
    let (ran, found) = built(&place);
    assert!(found == expect && ran.stderr.contains("CACHED"), "{}", ran.stderr);
}

#[test]
fn a_synced_store_that_was_archived_is_used_on_another_machine() {
    if !can_run() || !has("python3") {
        return;
    }
    let place = place();
    let (_, expect) = built(&place);
    // As docs/ci.md says.
    place.run(&["prune", "--force", "--max-used-space", "5gb"]).ok();
    let archive = place.path("state.tar").display().to_string();
    let tar = |words: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--xattrs-include=*", "-C"]).arg(place.folder.path()).args(words);
        assert!(tar.status().unwrap().success());
    };
    tar(&["-cf", &archive, "state"]);
    fs::remove_dir_all(place.path("state")).unwrap();
    tar(&["-xf", &archive]);
    reboot(&place);
    let (ran, found) = built(&place);
    let steps = ran.stderr.lines().filter(|line| line.contains("] RUN ")).count();
    assert!(steps > 0 && ran.stderr.matches("CACHED").count() >= steps, "{}", ran.stderr);
    assert!(found == expect, "{}", ran.stderr);
}
