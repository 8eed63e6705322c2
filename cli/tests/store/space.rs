//! `du`, `prune`, the limits, and disks that are full.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::support::{Place, can_run};

const DOCKERFILE: &str = "\
FROM busybox AS one
RUN --mount=type=cache,target=/c head -c 2m /dev/zero > /c/kept; head -c 1m /dev/zero > /one
FROM busybox
COPY --from=one /one /one
COPY f /f
RUN cat /f > /g
";

/// What `du` of the system says, in bytes.
fn du(place: &Place) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(place.path("state")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

fn rows(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn du_explains_every_byte_and_prune_frees_what_it_calls_reclaimable() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", DOCKERFILE), ("f", "text")]);
    place.build(&["-t", "kept"]).ok();
    place.write("f", "other");
    place.build(&["-o", "out"]).ok();
    let entries = rows(&place.run(&["du", "--format", "json"]).ok().stdout);
    let size = |entry: &serde_json::Value| entry["Size"].as_u64().unwrap();
    let sum: u64 = entries.iter().map(size).sum();
    assert_eq!(sum, du(&place));
    let kinds = |kind: &str| entries.iter().filter(|entry| entry["Type"] == kind).count();
    assert_eq!((kinds("exec.cachemount"), kinds("internal")), (1, 3));
    assert!(kinds("regular") > 3);
    let shared: u64 = entries.iter().filter(|entry| entry["Shared"] == true).map(size).sum();
    assert!(shared > 1 << 20);

    let table = place.run(&["du"]).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    );
    for name in ["Shared:", "Private:", "Reclaimable:", "Total:"] {
        assert!(lines.iter().any(|line| line.starts_with(name)), "{table}");
    }
    // A cache mount is marked as changing, a layer of an image as shared.
    let is_mutable =
        |line: &str| line.split_whitespace().next().is_some_and(|id| id.ends_with('*'));
    assert!(lines.iter().filter(|line| is_mutable(line)).count() >= 4, "{table}");
    assert!(lines.iter().any(|line| line.contains("B* ")), "{table}");
    let mounts =
        place.run(&["du", "--filter", "type=exec.cachemount", "--format", "{{.Type}} {{.Size}}"]);
    assert!(mounts.ok().stdout.starts_with("exec.cachemount 2.1"));
    let all = place.run(&["du", "--verbose", "--filter", "type=exec.cachemount"]).ok().stdout;
    for line in ["Mutable:        true", "Reclaimable:    true", "Type:           exec.cachemount"]
    {
        assert!(all.contains(line), "{all}");
    }

    let reclaimable: u64 =
        entries.iter().filter(|entry| entry["Reclaimable"] == true).map(size).sum();
    let before = du(&place);
    let gone = rows(&place.run(&["prune", "--force", "--format", "json"]).ok().stdout);
    let freed: u64 = gone.iter().map(size).sum();
    assert_eq!(freed, reclaimable, "{gone:?}");
    assert!(before - du(&place) >= freed / 2, "{before} {}", du(&place));
    let left = rows(&place.run(&["du", "--format", "json"]).ok().stdout);
    assert!(left.iter().all(|entry| entry["Reclaimable"] == false), "{left:?}");
    assert_eq!(left.iter().map(size).sum::<u64>(), du(&place));
    place.run(&["save", "-o", "kept.tar", "kept"]).ok();
}

#[test]
fn prune_shows_what_it_took_by_filter_and_size() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", DOCKERFILE), ("f", "text")]);
    place.build(&[]).ok();
    let young = place.run(&["prune", "-f", "--filter", "until=24h"]).ok().stdout;
    assert_eq!(
        young,
        "Removed 0 results, 0 images without a name, 0 layers, 0 blobs, 0 cache mounts.\nTotal: 0B\n"
    );
    let mount = place.run(&["prune", "-f", "--filter", "type=exec.cachemount"]).ok().stdout;
    assert!(mount.starts_with("ID ") && mount.contains("1 cache mounts.\nTotal: 2.1"), "{mount}");
    let kept = place.run(&["prune", "-f", "--keep-storage", "100%"]).ok().stdout;
    assert!(kept.contains("Removed 0 results"), "{kept}");
    let verbose = place.run(&["prune", "-f", "-a", "--verbose"]).ok().stdout;
    assert!(verbose.contains("Type:           regular"), "{verbose}");
    assert!(fs::read_dir(place.path("state/layers")).unwrap().next().is_none());
}

#[test]
fn a_prune_leaves_the_steps_of_an_image_cached_and_what_is_young() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n")]);
    place.build(&["-t", "kept"]).ok();
    for words in [&["prune", "-f"][..], &["prune", "-f", "--filter", "type=regular"]] {
        let pruned = place.run(words).ok().stdout;
        assert!(pruned.contains("Removed 0 results"), "{pruned}");
        let again = place.build(&["-t", "kept", "--progress=plain"]).ok();
        assert_eq!(again.stderr.matches(" CACHED").count(), 2, "{}", again.stderr);
    }
    place.run(&["prune", "-f", "--all"]).ok();
    let anew = place.build(&["--progress=plain"]).ok();
    assert!(!anew.stderr.contains(" CACHED"), "{}", anew.stderr);

    // The base of a step that failed belongs to no result.
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN exit 1\n")]);
    assert_eq!(place.build(&[]).code, Some(1));
    let young = place.run(&["prune", "-f", "--filter", "until=24h"]).ok().stdout;
    assert!(young.contains(" 0 layers, 0 blobs"), "{young}");
    let all = place.run(&["prune", "-f"]).ok().stdout;
    assert!(all.contains(" 1 layers"), "{all}");
}

#[test]
fn state_inside_of_the_context_is_no_part_of_it() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY . /all/\n"), ("f", "f")]);
    let state = place.path("ctx/st[a]te");
    for _ in 0..2 {
        let mut command = place.command(&["-o", "out", "--progress=plain", "ctx"]);
        let ran = place.ran(command.env("BRICKLAYER_ROOT", &state).output().unwrap()).ok();
        let names: Vec<_> = fs::read_dir(place.path("out/all")).unwrap().collect();
        assert_eq!(names.len(), 2, "{}", ran.stderr);
    }
    assert!(state.join("db.sqlite").is_file());
}

#[test]
fn what_is_asked_wrongly_is_told_with_what_is_known() {
    let place = Place::new(&[]);
    for (words, expect) in [
        (
            &["prune", "-f", "--filter", "color=red"][..],
            "ERROR: unknown filter `color`: want one of description, id, parents, type, until, immutable, inuse, mutable, private, shared\n",
        ),
        (
            &["du", "--filter", "type=layer"],
            "ERROR: unknown type `layer` in the filter `type=layer`: want one of exec.cachemount, frontend, internal, regular, source.git.checkout, source.local\n",
        ),
        (
            &["prune", "-f", "--filter", "until=soon"],
            "ERROR: invalid duration `soon`: want numbers with a unit ms, s, m, h, d or w, such as 24h or 1h30m\n",
        ),
        (
            &["prune", "-f", "--max-used-space", "10x"],
            "ERROR: invalid size `10x`: want a number with a unit b, k, m, g or t, or a part such as 20%\n",
        ),
        (
            &["du", "--format", "{{.Color}}"],
            "ERROR: invalid template `{{.Color}}`: `.Color` is not known\n  help: want table, pretty, json, or {{.FIELD}} with one of ID, Parents, CreatedAt, Mutable, Reclaimable, Shared, Size, Description, LastUsedAt, Type, InUse\n",
        ),
        (
            &["du", "--format", "json", "--verbose"],
            "ERROR: --format=json and --verbose cannot be used together\n",
        ),
        (
            &["prune"],
            "ERROR: cannot ask for confirmation: standard input is not a terminal\n  help: give --force to prune without asking\n",
        ),
    ] {
        let ran = place.run(words);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), expect), "{words:?}");
    }
    place.write("Dockerfile", "FROM scratch\n");
    let mut command = place.command(&["ctx"]);
    command.env("BRICKLAYER_MIN_FREE_SPACE", "120%");
    let ran = place.ran(command.output().unwrap());
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(2),
            "ERROR: $BRICKLAYER_MIN_FREE_SPACE: invalid size `120%`: want a number with a unit b, k, m, g or t, or a part such as 20%\n"
        )
    );
}

#[test]
fn prune_asks_on_a_terminal() {
    let place = Place::new(&[]);
    if !crate::support::has("script") {
        return;
    }
    let line = format!("'{}' prune", env!("CARGO_BIN_EXE_bricklayer"));
    for (answer, expect) in [("n\n", false), ("y\n", true)] {
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("BRICKLAYER_ROOT", place.path("state"));
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), answer.as_bytes()).unwrap();
        let ran = place.ran(child.wait_with_output().unwrap());
        assert!(ran.stdout.contains("Are you sure? [y/N]"), "{}", ran.stdout);
        assert_eq!(ran.stdout.contains("Total: 0B"), expect, "{}", ran.stdout);
    }
}

/// A file system in memory for the state folder, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place, options: &str) -> Self {
        let state = place.path("state");
        fs::create_dir_all(&state).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&state);
        assert!(mount.status().unwrap().success());
        Self(state)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_and_the_store_goes_on() {
    if !can_run() {
        return;
    }
    let full = |size: &str| {
        format!(
            "  help: the disk that holds the builder's state is full (file system `[place]/state` of {size} MB): \
             free some space, for example with `build prune`, or choose another place with --root"
        )
    };
    // Sizes at which different parts of a build are what does not fit.
    for (size, megabytes) in [("3m", "4"), ("5m", "6"), ("9m", "10"), ("17m", "18"), ("25m", "27")]
    {
        let place = Place::new(&[("big", &"x".repeat(24 << 20))]);
        let _disk = Disk::mount(&place, &format!("size={size}"));
        place.write("Dockerfile", "FROM busybox\nCOPY big /big\nRUN cat /big > /bigger\n");
        let ran = place.build(&["--progress=plain"]);
        assert!(matches!(ran.code, Some(1 | 4)), "{size}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(&full(megabytes)), "{size}: {}", ran.stderr);
        place.run(&["prune", "-f"]).ok();
        place.write("Dockerfile", "FROM scratch\nCOPY small /\n");
        place.write("small", "small");
        place.build(&["-t", "small"]).ok();
        place.run(&["save", "-o", "small.tar", "small"]).ok();
    }
}

#[test]
fn a_full_disk_can_be_pruned_and_what_is_old_makes_room_for_what_is_new() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("old", &"x".repeat(19 << 20)), ("new", &"y".repeat(18 << 20))]);
    let disk = Disk::mount(&place, "size=32m");
    place.write("Dockerfile", "FROM scratch\nCOPY old /\n");
    place.build(&[]).ok();
    // Two of them do not fit.
    place.write("Dockerfile", "FROM scratch\nCOPY new /\n");
    place.build(&["--progress=plain"]).ok();
    place.write("Dockerfile", "FROM scratch\nCOPY old /\n");
    // Without limits, so that nobody tidies up while the disk fills.
    let free = [("BRICKLAYER_MIN_FREE_SPACE", "0"), ("BRICKLAYER_MAX_USED_SPACE", "0")];
    let again = place.build_with(&["--progress=plain"], &free).ok();
    assert!(!again.stderr.contains("CACHED"), "{}", again.stderr);
    // Somebody else takes the rest.
    let _ = fs::write(disk.0.join("stuff"), vec![1; 64 << 20]);
    let freed = place.run(&["prune", "-f"]).ok().stdout;
    assert!(freed.contains("Total: 19."), "{freed}");
    fs::remove_file(disk.0.join("stuff")).unwrap();
    place.build(&[]).ok();
}

#[test]
fn what_a_step_made_of_a_full_disk_is_not_kept() {
    if !can_run() {
        return;
    }
    let free = [("BRICKLAYER_MIN_FREE_SPACE", "0"), ("BRICKLAYER_MAX_USED_SPACE", "0")];
    // With the disk still full at the end, and with room again by then.
    for (tier, script) in [
        ("root", "head -c 64m /dev/zero > /big; rm -f /none"),
        ("root", "sleep 0.3; head -c 64m /dev/zero > /big; sleep 0.5; rm /big"),
        ("chroot", "sleep 0.3; head -c 64m /dev/zero > /big; sleep 0.5; rm /big"),
    ] {
        let place = Place::new(&[]);
        let _disk = Disk::mount(&place, "size=32m");
        place.write("Dockerfile", &format!("FROM busybox\nRUN {script}\nRUN true\n"));
        let words = [&format!("--isolation={tier}"), "--progress=plain", "-o", "type=cacheonly"];
        let first = place.build_with(&words, &free);
        let told = "WARNING: the disk that holds the builder's state was full while this step ran (file system \
                    `[place]/state` of 34 MB): what it could not write may be missing, so that its result is not kept";
        assert!(first.stderr.contains(told), "{script}: {}", first.stderr);
        place.write("Dockerfile", &format!("FROM busybox\nRUN {script}\n"));
        let again = place.build_with(&words, &free);
        assert!(!again.stderr.contains("CACHED"), "{script}: {}", again.stderr);
        assert!(again.stderr.contains("was full while"), "{script}: {}", again.stderr);
    }
}

#[test]
fn a_full_output_is_named() {
    let place =
        Place::new(&[("Dockerfile", "FROM scratch\nCOPY big /\n"), ("big", &"x".repeat(8 << 20))]);
    if !can_run() {
        return;
    }
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&out);
    assert!(mount.status().unwrap().success());
    let _disk = Disk(out.clone());
    for old in ["i.tar", "t.tar"] {
        fs::write(out.join(old), "old").unwrap();
    }
    for output in [
        "out",
        "type=oci,compression=uncompressed,dest=out/i.tar",
        "type=oci,compression=uncompressed,dest=out/layout,tar=false",
        "type=tar,dest=out/t.tar",
    ] {
        let ran = place.build(&["-o", output]);
        assert_eq!(ran.code, Some(4), "{output}: {}", ran.stderr);
        for part in
            ["help: the disk that the output is written to is full", ": free some space there, or"]
        {
            assert!(ran.stderr.contains(part), "{output}: {}", ran.stderr);
        }
    }
    // What was there is as it was, and nothing half written is beside it.
    for old in ["i.tar", "t.tar"] {
        assert_eq!(fs::read_to_string(out.join(old)).unwrap(), "old");
    }
    let mut left = Vec::new();
    let mut open = vec![out];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { left.push(path) }
        }
    }
    left.retain(|path| !path.ends_with("i.tar") && !path.ends_with("t.tar"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_store_above_its_limit_is_tidied_after_a_build_and_nobody_waits() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    let build = |number: usize| {
        place.write("f", &number.to_string().repeat(3 << 20));
        place.write("Dockerfile", "FROM scratch\nCOPY f /\n");
        let mut command = place.command(&["ctx"]);
        command.env("BRICKLAYER_MAX_USED_SPACE", "8mb").env("BRICKLAYER_MIN_FREE_SPACE", "0");
        place.ran(command.output().unwrap()).ok();
    };
    (0..5).for_each(&build);
    let deadline = Instant::now() + Duration::from_secs(60);
    while du(&place) > 9 << 20 {
        assert!(Instant::now() < deadline, "{} bytes are left", du(&place));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The newest is still there.
    let again = place.run(&["--progress=plain", "ctx"]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}
