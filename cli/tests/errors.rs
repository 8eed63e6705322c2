//! The text of every error that a user meets first: what failed, where, and what to do.

mod support;

use support::{Place, can_run, has};

#[track_caller]
fn check(dockerfile: &str, words: &[&str], expect: &str) {
    let place = Place::new(&[("Dockerfile", dockerfile), ("present", "x")]);
    check_in(&place, words, expect);
}

#[track_caller]
fn check_in(place: &Place, words: &[&str], expect: &str) {
    let mut all = vec!["--progress=plain"];
    all.extend_from_slice(words);
    let ran = place.build(&all);
    assert_eq!(ran.report().trim_end(), expect.trim(), "whole output:\n{}", ran.stderr);
}

#[test]
fn syntax_error_shows_the_line_and_marks_it() {
    check(
        "FROM busybox\nRUN --mount true\nCOPY a\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn unknown_instruction_suggests_one() {
    check(
        "FROM busybox\n\nRUNN true\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn missing_copy_source_is_named() {
    check(
        "FROM busybox\nCOPY absent.txt /\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn source_hidden_by_the_ignore_file_says_so() {
    let place = Place::new(&[
        ("Dockerfile", "FROM busybox\nCOPY a.log /\n"),
        ("a.log", "x"),
        (".dockerignore", "*.log\n"),
    ]);
    check_in(
        &place,
        &[],
        r#"
"#,
    );
}

#[test]
fn failing_run_shows_its_output_and_line() {
    if !can_run() {
        return;
    }
    check(
        "FROM busybox\nRUN echo first; echo second >&2; exit 3\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn missing_program_is_named() {
    if !can_run() {
        return;
    }
    check(
        "FROM busybox\nRUN [\"no-such-tool\", \"x\"]\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn unknown_target_stage_is_named() {
    check(
        "FROM busybox AS base\nFROM base AS final\n",
        &["--target=bsae"],
        r#"
"#,
    );
}

#[test]
fn copy_from_an_unknown_stage_suggests_one() {
    check(
        "FROM busybox AS base\nFROM scratch\nCOPY --from=127.0.0.1:9/bsae /x /\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn registry_that_is_down_is_named() {
    check(
        "FROM 127.0.0.1:9/library/base:1\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn required_secret_says_how_to_give_it() {
    check(
        "FROM busybox\nRUN --mount=type=secret,id=tok,required=true true\n",
        &[],
        r#"
"#,
    );
}

#[test]
fn folder_that_cannot_be_written_says_what_to_do() {
    if !can_run() || !has("runuser") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY present /\n"), ("present", "x")]);
    let state = place.path("state");
    fs_err::create_dir(&state).unwrap();
    fs_err::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::set_permissions(
        place.folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    // The executable may be in a folder that others cannot enter.
    let tool = place.path("tool");
    fs_err::copy(env!("CARGO_BIN_EXE_bricklayer"), &tool).unwrap();
    let output = std::process::Command::new("runuser")
        .args([
            "-u",
            "nobody",
            "--",
            "env",
            "BRICKLAYER_ROOT=state",
            "./tool",
            "--progress=plain",
            "ctx",
        ])
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    let ran = place.ran(output);
    assert_eq!(
        ran.report().trim_end(),
        r#"
"#
        .trim()
    );
}

#[test]
fn full_disk_is_reported_and_the_store_survives() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN head -c 64m /dev/zero > /big\n")]);
    let state = place.path("state");
    fs_err::create_dir(&state).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "none"])
        .arg(&state)
        .status()
        .unwrap();
    assert!(mount.success());
    let full = place.build(&["--progress=plain"]);
    place.write("Dockerfile", "FROM busybox\nRUN echo small > /small\n");
    let small = place.build(&["--progress=plain", "-t", "small"]);
    place.write("Dockerfile", "FROM busybox\nCOPY big /\n");
    place.write("big", &"x".repeat(32 << 20));
    let copy = place.build(&["--progress=plain"]);
    std::process::Command::new("umount").arg("-l").arg(&state).status().unwrap();
    assert!(
        full.code == Some(1) && full.stderr.contains("No space left on device"),
        "{}",
        full.stderr
    );
    small.ok();
    assert_eq!(copy.code, Some(4), "{}", copy.stderr);
    assert!(copy.stderr.contains("the disk is full: free some space"), "{}", copy.stderr);
}

#[test]
fn flags_to_come_are_refused_by_name() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\n")]);
    for (words, flag) in [
        (&["--ssh=default", "ctx"][..], "--ssh"),
        (&["--cache-from=type=local,src=x", "ctx"], "--cache-from"),
        (&["--load", "ctx"], "--load"),
        (&["--provenance=mode=max", "ctx"], "--provenance"),
    ] {
        let ran = place.run(words);
        assert_eq!(
            (ran.code, ran.stderr),
            (Some(2), format!("ERROR: {flag} is not supported yet\n"))
        );
    }
    let ran = place.run(&["bake"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("the command `build bake` is not supported yet"), "{}", ran.stderr);
    let ran = place.run(&["--no-such-flag", "ctx"]);
    assert_eq!(ran.code, Some(2));
}
