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
exit 1
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN --mount true
     |         ^^^^^^^ no value
   3 |     COPY a
   4 |     
--------------------
ERROR: failed to solve: dockerfile parse error on line 2: missing a value on flag: --mount
  help: write `--flag=value`, without blanks
Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     RUN --mount true
   3 | >>> COPY a
     |          ^ no destination
   4 |     
--------------------
ERROR: failed to solve: dockerfile parse error on line 3: COPY requires at least two arguments, but only one was provided. Destination could not be determined
  help: add where to copy to
"#,
    );
}

#[test]
fn unknown_instruction_suggests_one() {
    check(
        "FROM busybox\n\nRUNN true\n",
        &[],
        r#"
exit 1
Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     
   3 | >>> RUNN true
     |     ^^^^ not an instruction
   4 |     
--------------------
ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)
"#,
    );
}

#[test]
fn missing_copy_source_is_named() {
    check(
        "FROM busybox\nCOPY absent.txt /\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> COPY absent.txt /
     |          ^^^^^^^^^^ not found
   3 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref build context `context`: "/absent.txt": not found
  help: there is no `/absent.txt` in the build context; paths are relative to its root
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
exit 1
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> COPY a.log /
     |          ^^^^^ not found
   3 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref build context `context`: "/a.log": not found
  help: `/a.log` is in the build context, but its .dockerignore file excludes it
"#,
    );
}

#[test]
fn failing_run_shows_its_output_and_line() {
    if !can_run() {
        return;
    }
    check(
        "FROM busybox\nRUN (echo first; echo second) >&2; exit 3\n",
        &[],
        r#"
exit 1
------
 > [1/2] RUN (echo first; echo second) >&2; exit 3:
first
second
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN (echo first; echo second) >&2; exit 3
   3 |     
--------------------
ERROR: failed to solve: process "/bin/sh -c (echo first; echo second) >&2; exit 3" did not complete successfully: exit code: 3
"#,
    );
}

#[test]
fn a_flag_in_the_wrong_place_is_told_from_a_file() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY a --chmod=600 /\n"), ("a", "")]);
    let told = place.build(&[]).stderr;
    let hint = "`--chmod=600` is taken for a file: flags come right after the instruction, before all paths";
    assert!(told.contains(hint), "{told}");
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
exit 1
------
 > [1/2] RUN ["no-such-tool", "x"]:
unable to start container process: exec: "no-such-tool": executable file not found in $PATH
------
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN ["no-such-tool", "x"]
   3 |     
--------------------
ERROR: failed to solve: process "no-such-tool x" did not complete successfully: exit code: 1: exec: "no-such-tool": executable file not found in $PATH
  help: is the program installed in this stage?
"#,
    );
}

#[test]
fn unknown_target_stage_is_named() {
    check(
        "FROM busybox AS base\nFROM base AS final\n",
        &["--target=bsae"],
        r#"
exit 1
Dockerfile:1
--------------------
   1 | >>> FROM busybox AS base
   2 |     FROM base AS final
   3 |     
--------------------
ERROR: failed to solve: target stage "bsae" could not be found
  help: did you mean `base`?
"#,
    );
}

#[test]
fn copy_from_an_unknown_stage_suggests_one() {
    check(
        "FROM busybox AS base\nFROM scratch\nCOPY --from=bsae /x /\n",
        &["--build-context=bsae=docker-image://127.0.0.1:9/bsae"],
        r#"
exit 3
Dockerfile:3
--------------------
   1 |     FROM busybox AS base
   2 |     FROM scratch
   3 | >>> COPY --from=bsae /x /
     |                 ^^^^ this image
   4 |     
--------------------
ERROR: failed to solve: failed to resolve source metadata for 127.0.0.1:9/bsae:latest: GET http://127.0.0.1:9/v2/bsae/manifests/latest: cannot reach registry `127.0.0.1:9` at 127.0.0.1:9: connection refused (did you mean base?)
  help: a name that is no earlier stage or build context is taken for an image
"#,
    );
}

#[test]
fn missing_file_of_a_stage_is_named_with_one_that_is_there() {
    check(
        "FROM busybox AS base\nFROM scratch\nCOPY --from=base /etc/paswd /\n",
        &[],
        r#"
exit 1
Dockerfile:3
--------------------
   1 |     FROM busybox AS base
   2 |     FROM scratch
   3 | >>> COPY --from=base /etc/paswd /
     |                       ^^^^^^^^^ not found
   4 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref `[context busybox] busybox@sha256:72c04d23c08a76e30e5c8bdd5a6313585ac0d5d5f4f6d8c12e56268374adc003`: "/etc/paswd": not found
  help: there is no `/etc/paswd` in the stage or image that is read; did you mean `/etc/passwd`?
"#,
    );
}

#[test]
fn misspelt_copy_source_is_told_from_one_that_is_not_there() {
    check(
        "FROM scratch\nCOPY Present /\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     FROM scratch
   2 | >>> COPY Present /
     |          ^^^^^^^ not found
   3 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref build context `context`: "/Present": not found
  help: there is no `/Present` in the build context; paths are relative to its root; did you mean `/present`?
"#,
    );
}

#[test]
fn link_to_nothing_is_told_from_a_file_that_the_ignore_file_hides() {
    let place = Place::new(&[
        ("Dockerfile", "FROM scratch\nCOPY lost /\n"),
        ("hidden", "x"),
        (".dockerignore", "hidden\n"),
    ]);
    let report = |target: &str| {
        let link = place.path("ctx/lost");
        let _ = fs_err::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let text = place.build(&["--progress=plain"]).report();
        text.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(
        report("nowhere"),
        "  help: `/lost` leads through a link to `/nowhere`, and there is no such file in the build context"
    );
    assert_eq!(
        report("hidden"),
        "  help: `/lost` leads through a link to `/hidden`, which is in the build context, but its .dockerignore file excludes it"
    );
    place.write("real/f", "x");
    place.write("Dockerfile", "FROM scratch\nCOPY --parents lost/f /\n");
    assert_eq!(
        report("real"),
        "  help: `/lost/f` leads through a link to `/real/f`, and this copy follows no links on the way: name that itself"
    );
    place.write("Dockerfile", "FROM scratch AS a\nCOPY . /\nFROM scratch\nCOPY --from=a /lost /\n");
    assert_eq!(
        report("nowhere"),
        "  help: `/lost` leads through a link to `/nowhere`, and there is no such file in the stage or image that is read"
    );
}

#[test]
fn mistakes_of_all_kinds_are_shown_in_one_run() {
    check(
        "FROM scratch AS base\nEXPOSE\nFROM scratch\nEXPOSE 80 x y\nCOPY --from=7 a b\nSTOPSIGNAL no\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     FROM scratch AS base
   2 | >>> EXPOSE
     |     ^^^^^^ no argument
   3 |     FROM scratch
   4 |     EXPOSE 80 x y
--------------------
ERROR: failed to solve: dockerfile parse error on line 2: EXPOSE requires at least one argument
  help: write `EXPOSE 8080` or `EXPOSE 53/udp`
Dockerfile:4
--------------------
   2 |     EXPOSE
   3 |     FROM scratch
   4 | >>> EXPOSE 80 x y
     |               ^ not a port
   5 |     COPY --from=7 a b
   6 |     STOPSIGNAL no
--------------------
ERROR: failed to solve: invalid containerPort: x
  help: write port, port/tcp, port/udp, port/sctp or first-last
Dockerfile:4
--------------------
   2 |     EXPOSE
   3 |     FROM scratch
   4 | >>> EXPOSE 80 x y
     |                 ^ not a port
   5 |     COPY --from=7 a b
   6 |     STOPSIGNAL no
--------------------
ERROR: failed to solve: invalid containerPort: y
  help: write port, port/tcp, port/udp, port/sctp or first-last
Dockerfile:5
--------------------
   3 |     FROM scratch
   4 |     EXPOSE 80 x y
   5 | >>> COPY --from=7 a b
     |                 ^ no stage has this number
   6 |     STOPSIGNAL no
   7 |     
--------------------
ERROR: failed to solve: invalid stage index 7
  help: stages are numbered from 0 in the order of their FROM; a name says more
Dockerfile:6
--------------------
   4 |     EXPOSE 80 x y
   5 |     COPY --from=7 a b
   6 | >>> STOPSIGNAL no
     |                ^^ not a signal
   7 |     
--------------------
ERROR: failed to solve: Invalid signal: no
  help: use a name such as SIGTERM, or a number
"#,
    );
}

#[test]
fn a_trigger_that_fails_names_its_base_and_shows_its_text() {
    check(
        "FROM scratch AS base\nONBUILD COPY absent /\nFROM base\n",
        &[],
        r#"
exit 1
ONBUILD trigger of stage `base`:1
--------------------
   1 | >>> COPY absent /
     |          ^^^^^^ not found
--------------------
Dockerfile:3
--------------------
   1 |     FROM scratch AS base
   2 |     ONBUILD COPY absent /
   3 | >>> FROM base
   4 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref build context `context`: "/absent": not found
  help: there is no `/absent` in the build context; paths are relative to its root
"#,
    );
    // The image's triggers copy a file that this context lacks.
    check(
        "FROM onbuild\n",
        &[],
        r#"
exit 1
ONBUILD trigger of image `onbuild`:1
--------------------
   1 | >>> COPY trigger.txt /opt/trigger/
     |          ^^^^^^^^^^^ not found
--------------------
Dockerfile:1
--------------------
   1 | >>> FROM onbuild
   2 |     
--------------------
ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref build context `context`: "/trigger.txt": not found
  help: there is no `/trigger.txt` in the build context; paths are relative to its root
"#,
    );
}

#[test]
fn an_image_that_a_trigger_reads_is_named_with_the_trigger() {
    check(
        "FROM scratch AS base\nONBUILD COPY --from=127.0.0.1:9/x:1 / /\nFROM base\n",
        &[],
        r#"
exit 3
ONBUILD trigger of stage `base`:1
--------------------
   1 | >>> COPY --from=127.0.0.1:9/x:1 / /
--------------------
Dockerfile:3
--------------------
   1 |     FROM scratch AS base
   2 |     ONBUILD COPY --from=127.0.0.1:9/x:1 / /
   3 | >>> FROM base
     |     ^^^^^^^^^ sets off the trigger
   4 |     
--------------------
ERROR: failed to solve: failed to resolve source metadata for 127.0.0.1:9/x:1: GET http://127.0.0.1:9/v2/x/manifests/1: cannot reach registry `127.0.0.1:9` at 127.0.0.1:9: connection refused
  help: check that the registry is running
"#,
    );
}

#[test]
fn undeclared_argument_of_from_suggests_a_declared_one() {
    check(
        "ARG TAG=1\nFROM busybox:$TGA\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     ARG TAG=1
   2 | >>> FROM busybox:$TGA
     |          ^^^^^^^^^^^^ neither a stage nor a valid image name
   3 |     
--------------------
ERROR: failed to solve: failed to parse stage name "busybox:": invalid reference format
  help: `$TGA` has no value: did you mean `$TAG`?
"#,
    );
}

#[test]
fn image_without_a_shell_says_how_to_do_without() {
    if !can_run() {
        return;
    }
    check(
        "FROM scratch\nRUN make\n",
        &[],
        r#"
exit 1
------
 > [1/1] RUN make:
unable to start container process: exec: "/bin/sh": stat /bin/sh: no such file or directory
------
Dockerfile:2
--------------------
   1 |     FROM scratch
   2 | >>> RUN make
   3 |     
--------------------
ERROR: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 1: exec: "/bin/sh": stat /bin/sh: no such file or directory
  help: the image has no shell, which a command without brackets needs: give the program and its arguments as a list, `RUN ["program", "argument"]`, or begin from an image with a shell
"#,
    );
}

#[test]
fn every_mistake_is_shown_in_one_run() {
    check(
        "FROM scratch AS a\nEXPOSE\nCPY a b\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     FROM scratch AS a
   2 | >>> EXPOSE
     |     ^^^^^^ no argument
   3 |     CPY a b
   4 |     
--------------------
ERROR: failed to solve: dockerfile parse error on line 2: EXPOSE requires at least one argument
  help: write `EXPOSE 8080` or `EXPOSE 53/udp`
Dockerfile:3
--------------------
   1 |     FROM scratch AS a
   2 |     EXPOSE
   3 | >>> CPY a b
     |     ^^^ not an instruction
   4 |     
--------------------
ERROR: failed to solve: dockerfile parse error on line 3: unknown instruction: CPY (did you mean COPY?)
"#,
    );
}

#[test]
fn registry_that_is_down_is_named_soon() {
    let began = std::time::Instant::now();
    check(
        "FROM 127.0.0.1:9/library/base:1\n",
        &[],
        r#"
exit 3
Dockerfile:1
--------------------
   1 | >>> FROM 127.0.0.1:9/library/base:1
     |          ^^^^^^^^^^^^^^^^^^^^^^^^^^ this image
   2 |     
--------------------
ERROR: failed to solve: failed to resolve source metadata for 127.0.0.1:9/library/base:1: GET http://127.0.0.1:9/v2/library/base/manifests/1: cannot reach registry `127.0.0.1:9` at 127.0.0.1:9: connection refused
  help: check that the registry is running
"#,
    );
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

#[test]
fn required_secret_says_how_to_give_it() {
    check(
        "FROM busybox\nRUN --mount=type=secret,id=tok,required=true true\n",
        &[],
        r#"
exit 1
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUN --mount=type=secret,id=tok,required=true true
   3 |     
--------------------
ERROR: failed to solve: secret tok: not found
  help: give it with --secret id=tok,src=PATH or --secret id=tok,env=VARIABLE
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
    support::copy_program(&tool);
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
exit 4
ERROR: failed to solve: no permission for `state/blobs`: failed to create directory `state/blobs`: Permission denied (os error 13)
  help: choose a folder that you may write with --root or BRICKLAYER_ROOT, or run as root
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
        full.code == Some(1)
            && full.stderr.contains("\n > [1/2] RUN head")
            && full.stderr.contains("  help: the disk that holds the builder's state is full"),
        "{}",
        full.stderr
    );
    small.ok();
    assert_eq!(copy.code, Some(4), "{}", copy.stderr);
    assert!(
        copy.stderr.contains("the disk that holds the builder's state is full (file system `"),
        "{}",
        copy.stderr
    );
}

#[test]
fn flags_to_come_are_refused_by_name() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\n")]);
    for words in ["--cache-from=type=local,src=x", "--cache-to=type=inline", "--policy=x"] {
        let ran = place.run(&[words, "ctx"]);
        let flag = words.split('=').next().unwrap();
        assert_eq!(
            (ran.code, ran.stderr),
            (Some(2), format!("ERROR: {flag} is not supported yet\n"))
        );
    }
    assert!(!place.path("state").exists(), "refused before anything is made");
    place.run(&["--provenance=false", "--sbom=false", "--rm", "--compress", "-q", "ctx"]).ok();
    for (words, part) in [
        (&["--call=shell", "ctx"][..], "unknown method `shell` for --call"),
        (
            &["-o", "type=local,dest=.,mode=delete", "ctx"],
            "`mode=delete` would delete files in `.`, which is not below the current folder",
        ),
        (&["--allow=buildx.local.delte", "ctx"], "buildx.local.delte"),
        (&["--source-date-epoch=soon", "ctx"], "invalid --source-date-epoch `soon`"),
        (&["--source-date-epoch=git", "-"], "neither a folder nor a git repository"),
        (&["--add-host=a:host-gateway", "ctx"], "host-gateway is not supported yet"),
        (&["-o", "type=nydus,dest=x", "ctx"], "nydus"),
        (&["-t", "A", "ctx"], "invalid tag \"A\""),
        (&["absent"], "path \"absent\" not found"),
        (&[], "requires exactly one argument"),
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, Some(2), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{words:?}: {}", ran.stderr);
    }
    let ran = place.run(&["bake"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("the command `build bake` is not supported yet"), "{}", ran.stderr);
    let ran = place.run(&["--no-such-flag", "ctx"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--no-such-flag"), "{}", ran.stderr);
    let ran = place.run(&["--buld-arg=a=b", "ctx"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("'--build-arg'"), "{}", ran.stderr);
}

#[test]
fn output_that_cannot_be_written_is_no_crash() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nENV a=b\n")]);
    place.build(&["-t", "x"]).ok();
    let full = || fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_file();
    for words in [&["images"][..], &["inspect", "x"], &["-q", "ctx"], &["--check", "ctx"]] {
        let output = place.command(words).stdout(full()).output().unwrap();
        let ran = place.ran(output);
        assert_eq!(ran.code, Some(4), "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.starts_with("ERROR: cannot write to standard output"), "{}", ran.stderr);
        // A reader that has seen enough is no failure.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command(words).stdout(writer).output().unwrap();
        place.ran(output).ok();
        let output = place.command(words).stderr(full()).output().unwrap();
        place.ran(output).ok();
    }
}

#[test]
fn no_steps_at_the_same_time_are_too_few() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\n")]);
    let ran = place.build(&["--jobs=0"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (Some(2), "ERROR: invalid --jobs 0: want 1 or more\n")
    );
}
