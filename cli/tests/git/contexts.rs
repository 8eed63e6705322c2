//! Git refs as build context and as named contexts.

use std::os::unix::fs::{MetadataExt, symlink};

use fs_err as fs;

use super::Fixture;
use super::server::git;
use super::support::Ran;

/// Builds a context from the server into `out`; `{}` is its address.
fn build(fixture: &Fixture, words: &[&str], context: &str) -> Ran {
    let _ = fs::remove_dir_all(fixture.place.path("out"));
    let address = fixture.server.url("");
    let words = words.iter().map(|word| word.replace("{}", address.trim_end_matches('/')));
    let mut command = fixture.place.command(&["--progress=plain", "-o", "out"]);
    command.args(words).arg(context.replace("{}", address.trim_end_matches('/')));
    fixture.place.ran(command.output().unwrap())
}

fn read(fixture: &Fixture, path: &str) -> String {
    fs::read_to_string(fixture.place.path("out").join(path)).unwrap()
}

#[test]
fn the_dockerfile_and_the_files_come_from_the_commit() {
    let fixture = Fixture::new();
    let repository = fixture.repository(
        "r",
        &[
            ("Dockerfile", "FROM scratch\nCOPY . /s\n"),
            ("other/Build", "FROM scratch\nCOPY a /o\n"),
            (".dockerignore", "a\n"),
            ("a", "1"),
            ("sub/Dockerfile", "FROM scratch\nADD b /b\n"),
            ("sub/b", "b"),
            ("lower/dockerfile", "FROM scratch\nCOPY dockerfile /l\n"),
        ],
    );
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.commit(&[("a", "2")]);
    let ran = build(&fixture, &[], "{}/r.git").ok();
    assert!(ran.stderr.contains("[internal] load git source http://"), "{}", ran.stderr);
    // An ignore file does not count.
    assert_eq!(
        (read(&fixture, "s/a"), read(&fixture, "s/sub/b")),
        ("2".to_owned(), "b".to_owned())
    );
    assert!(!fixture.place.path("out/s/.git").exists());
    build(&fixture, &[], &format!("{{}}/r.git#{first}")).ok();
    assert_eq!(read(&fixture, "s/a"), "1");
    build(&fixture, &["-f", "other/Build"], "{}/r.git#main").ok();
    assert_eq!(read(&fixture, "o"), "2");
    build(&fixture, &[], "{}/r.git#:sub").ok();
    assert_eq!(read(&fixture, "b"), "b");
    build(&fixture, &[], "{}/r.git?subdir=lower").ok();
    assert!(read(&fixture, "l").starts_with("FROM scratch"));
    // A file of this machine, when its whole path is given.
    fixture.place.write("Mine", "FROM scratch\nCOPY a /mine\n");
    let mine = fixture.place.path("ctx/Mine");
    build(&fixture, &["-f", mine.to_str().unwrap()], "{}/r.git").ok();
    assert_eq!(read(&fixture, "mine"), "2");
    let again = build(&fixture, &["-f", mine.to_str().unwrap()], "{}/r.git").ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}

#[test]
fn a_context_may_keep_its_repository_and_its_times() {
    let fixture = Fixture::new();
    let repository =
        fixture.repository("r", &[("Dockerfile", "FROM scratch\nCOPY . /s\n"), ("d/a", "1")]);
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"];
    build(&fixture, &keep, "{}/r.git").ok();
    let commit = repository.git(&["rev-parse", "HEAD"]);
    assert_eq!(git(&fixture.place.path("out/s"), &["rev-parse", "HEAD"]), commit);
    let time =
        |path: &str| fs::symlink_metadata(fixture.place.path("out").join(path)).unwrap().mtime();
    fs::remove_dir_all(fixture.place.path("state")).unwrap();
    build(&fixture, &[], "{}/r.git").ok();
    assert!(time("s/d/a") > 1_600_000_000);
    fs::remove_dir_all(fixture.place.path("state")).unwrap();
    // The time of the build is that of the commit; files keep theirs, which is the same.
    let layout =
        ["-o", "type=oci,dest=out.oci,tar=false", "--build-arg", "SOURCE_DATE_EPOCH=context"];
    build(&fixture, &layout, "{}/r.git").ok();
    assert_eq!((time("s/d/a"), time("s/d")), (1_000_000_000, 1_000_000_000));
    let blobs = fs::read_dir(fixture.place.path("out.oci/blobs/sha256")).unwrap();
    let texts: Vec<String> = blobs
        .filter_map(|blob| fs::read_to_string(blob.unwrap().path()).ok())
        .filter(|text| text.contains("\"history\""))
        .collect();
    assert!(
        texts.len() == 1 && texts[0].contains("\"created\":\"2001-09-09T01:46:40Z\""),
        "{texts:?}"
    );
}

#[test]
fn named_contexts_may_be_repositories() {
    let fixture = Fixture::new();
    fixture.repository("r", &[("a", "1"), ("sub/b", "b")]);
    let text = "FROM tree AS one\nFROM scratch\nCOPY --from=one a /a\nCOPY --from=tree sub/b /b\n";
    fixture.place.write("Dockerfile", text);
    build(&fixture, &["--build-context", "tree={}/r.git#main"], "ctx").ok();
    assert_eq!((read(&fixture, "a"), read(&fixture, "b")), ("1".to_owned(), "b".to_owned()));
    let ran = build(&fixture, &["--build-context", "tree={}/r.git#none"], "ctx");
    assert!(
        ran.code == Some(1) && ran.stderr.contains("repository does not contain ref none"),
        "{}",
        ran.stderr
    );
    let ran = build(&fixture, &["--build-context", "tree={}/r.git?x=1"], "ctx");
    assert!(ran.code == Some(1) && ran.stderr.contains("unexpected query \"x\""), "{}", ran.stderr);
}

#[test]
fn a_context_that_cannot_be_had_is_told() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let secret = fixture.place.path("outside");
    fs::write(&secret, "FROM not-for-anyone\n").unwrap();
    for (name, target) in [
        ("Out", secret.to_str().unwrap()),
        ("Up", "../../../../../../etc/passwd"),
        ("Loop", "Loop"),
    ] {
        symlink(target, repository.tree.join(name)).unwrap();
    }
    repository.commit(&[]);
    let check = |words: &[&str], context: &str, code: i32, told: &str| {
        let ran = build(&fixture, words, context);
        assert!(
            ran.code == Some(code) && ran.stderr.contains(told),
            "{:?} {}",
            ran.code,
            ran.stderr
        );
        assert!(
            !ran.stderr.contains("not-for-anyone") && !ran.stderr.contains("root:x:"),
            "{}",
            ran.stderr
        );
    };
    check(
        &[],
        "{}/r.git",
        1,
        "failed to read dockerfile: open Dockerfile: no such file or directory",
    );
    check(&["-f", "Out"], "{}/r.git", 1, "failed to read dockerfile");
    check(&["-f", "Up"], "{}/r.git", 1, "failed to read dockerfile");
    check(&["-f", "Loop"], "{}/r.git", 1, "failed to read dockerfile");
    check(&["-f", "../../outside"], "{}/r.git", 1, "failed to read dockerfile");
    check(&[], "{}/r.git#none", 1, "repository does not contain ref none");
    check(&[], "{}/none.git", 3, "failed to fetch remote");
    check(&[], "{}/r.git?ref=a#b", 2, "unable to prepare context: ref conflicts: \"b\" vs \"a\"");
    check(
        &[],
        "ssh://-oProxyCommand=x/r.git",
        2,
        "unable to prepare context: invalid host in a git URL",
    );
    check(&[], "file:///etc", 2, "unable to prepare context: path \"file:///etc\" not found");
}
