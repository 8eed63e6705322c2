//! Steps without namespaces and mounts: what is refused, what is said, and what outlives a kill.

mod support;

use std::time::{Duration, Instant};

use support::{Place, Ran, can_run};

fn build(place: &Place, words: &[&str]) -> Ran {
    let mut all = vec!["--progress=plain", "--isolation=chroot"];
    all.extend_from_slice(words);
    place.build(&all)
}

/// The report of a build that fails.
#[track_caller]
fn report(dockerfile: &str, words: &[&str]) -> String {
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let ran = build(&place, words);
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    ran.report()
}

#[track_caller]
fn expect(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "{part}\nis not in\n{report}");
    }
}

#[test]
fn what_cannot_be_given_is_refused_at_its_line() {
    if !can_run() {
        return;
    }
    expect(
        &report("FROM busybox\nRUN --network=none true\n", &[]),
        &[
            "exit 4",
            "2 | >>> RUN --network=none true",
            "isolation `chroot` cannot keep a step from the network (`--network=none`)",
            "help: leave the network to the step, or build with namespaces",
        ],
    );
    let insecure = report(
        "# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN --security=insecure true\n",
        &["--allow=security.insecure"],
    );
    expect(&insecure, &["exit 4", "cannot give a step all rights (`--security=insecure`)"]);
    let twice = "FROM busybox\nRUN --mount=type=cache,id=c,target=/a --mount=type=cache,id=c,target=/b true\n";
    expect(
        &report(twice, &[]),
        &["exit 4", "has a cache mount in one place only, not also at `/b`", "help: mount it once"],
    );
    let at_proc = report("FROM busybox\nRUN --mount=type=bind,target=/proc true\n", &[]);
    expect(&at_proc, &["exit 4", "cannot mount anything at `/proc`"]);
}

#[test]
fn a_failure_for_want_of_something_is_explained() {
    if !can_run() {
        return;
    }
    for (command, hint) in [
        ("cat /proc/self/status", "a step finds nothing in /proc"),
        ("sudo true", "set-uid programs such as sudo and file capabilities give no rights"),
        ("chroot / true", "a step cannot change its root directory again"),
    ] {
        let report = report(&format!("FROM busybox\nRUN {command}\n"), &[]);
        expect(&report, &["exit 1", &format!("help: isolation `chroot`: {hint}")]);
    }
    let other = report("FROM busybox\nRUN exit 3\n", &[]);
    assert!(!other.contains("isolation"), "{other}");
}

#[test]
fn a_cache_mount_outlives_a_kill_of_the_builder() {
    if !can_run() {
        return;
    }
    let mount = "--mount=type=cache,target=/cache";
    let first = format!(
        "FROM busybox\nRUN {mount} echo one > /cache/one\nRUN {mount} echo two > /cache/two; sleep 1000\n"
    );
    let place = Place::new(&[("Dockerfile", &first)]);
    let images = support::repository().join("testdata/conformance/images");
    let mut builder = place
        .command(&["--progress=plain", "--isolation=chroot"])
        .arg(format!("--build-context=busybox=oci-layout://{}/busybox:latest", images.display()))
        .arg("ctx")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    let is_away = || {
        let notes = fs_err::read_dir(place.path("state/lent")).into_iter().flatten().flatten();
        notes.into_iter().any(|note| note.path().join("two").exists())
    };
    while !is_away() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the second step does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    builder.kill().unwrap();
    builder.wait().unwrap();
    place.write("Dockerfile", &format!("FROM busybox\nRUN {mount} cat /cache/one /cache/two\n"));
    let ran = build(&place, &[]).ok();
    expect(&ran.stderr, &[" one\n", " two\n"]);
    assert_eq!(fs_err::read_dir(place.path("state/lent")).unwrap().count(), 0);
}

#[test]
fn shared_cache_mounts_of_steps_at_once_take_turns() {
    if !can_run() {
        return;
    }
    let step = "--mount=type=cache,target=/cache test ! -e /cache/busy && touch /cache/busy && \
                echo x >> /cache/all && sleep 0.2 && rm /cache/busy";
    let place = Place::new(&[(
        "Dockerfile",
        &format!(
            "FROM busybox AS a\nRUN {step} && touch /a\nFROM busybox AS b\nRUN {step} && touch /b\n\
             FROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n\
             RUN --mount=type=cache,target=/cache wc -l < /cache/all | sed 's/^/lines: /'\n"
        ),
    )]);
    expect(&build(&place, &[]).ok().stderr, &["lines: 2"]);
}
