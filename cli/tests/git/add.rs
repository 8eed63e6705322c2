//! `ADD` of git refs.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use fs_err as fs;

use super::server::{Rules, git};
use super::{Fixture, listing};

#[test]
fn branches_tags_commits_and_other_refs_are_found() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "--annotate", "--message=x", "heavy"]);
    repository.git(&["branch", "feature/x"]);
    let second = repository.commit(&[("a", "2")]);
    git(&repository.bare, &["update-ref", "refs/pull/7/head", &second]);
    git(&repository.bare, &["update-ref", "refs/pull/8/head", &first]);
    let check = |reference: &str, expect: &str| {
        let listing = fixture.built(&format!("ADD {{}}/r.git{reference} /s"));
        assert_eq!(listing, format!("s/ 755 0:0\ns/a 644 0:0 {expect:?}"), "{reference}");
    };
    check("", "2");
    check("#main", "2");
    check("#refs/heads/main", "2");
    check("?branch=feature/x", "1");
    check("#light", "1");
    check("#heavy", "1");
    check("?tag=heavy", "1");
    check(&format!("#{first}"), "1");
    check(&format!("#{}", &first[..9]), "1");
    check(&format!("?commit={}", &first[..9]), "1");
    check(&format!("?ref=main&commit={second}"), "2");
    check("#refs/pull/7/head", "2");
    check("#pull/8/head", "1");
    check(&format!("?ref=main&commit={first}&fetch-by-commit=1"), "1");
    let report = |reference: &str| {
        let ran = fixture.build(&format!("ADD {{}}/r.git{reference} /s"), &[]);
        ran.report().replace(&fixture.server.host(), "[host]")
    };
    assert_eq!(
        report("#none"),
        "exit 1\nDockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> ADD http://[host]/r.git#none /s\n   3 |     \n--------------------\nERROR: failed to solve: repository does not contain ref none: http://[host]/r.git\n  help: check the name of the branch, tag or commit behind `#`"
    );
    let missing = "0123456789012345678901234567890123456789";
    assert!(report(&format!("#{missing}")).contains(&format!("does not contain ref {missing}")));
    assert!(report("#0123456").contains("does not contain ref 0123456"));
}

#[test]
fn files_are_as_the_repository_has_them() {
    let fixture = Fixture::new();
    let repository =
        fixture.repository("r", &[("d/run", "#!/bin/sh\n"), ("d/sub/f", "f"), ("text", "a\nb\n")]);
    let executable = PermissionsExt::from_mode(0o770);
    fs::set_permissions(repository.tree.join("d/run"), executable).unwrap();
    symlink("../text", repository.tree.join("d/link")).unwrap();
    symlink("/etc/passwd", repository.tree.join("abs")).unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
    repository.commit(&[
        (".gitattributes", "*.bin filter=lfs\ntext text eol=crlf\n"),
        ("big.bin", pointer),
        (".gitignore", "x"),
    ]);
    let all = fixture.built("ADD {}/r.git /s");
    let expect = format!(
        "s/ 755 0:0
s/.gitattributes 644 0:0 \"*.bin filter=lfs\\ntext text eol=crlf\\n\"
s/.gitignore 644 0:0 \"x\"
s/abs -> /etc/passwd 0:0
s/big.bin 644 0:0 {pointer:?}
s/d/ 755 0:0
s/d/link -> ../text 0:0
s/d/run 755 0:0 \"#!/bin/sh\\n\"
s/d/sub/ 755 0:0
s/d/sub/f 644 0:0 \"f\"
s/text 644 0:0 \"a\\r\\nb\\r\\n\""
    );
    assert_eq!(all, expect);
    // The store takes them whatever the umask of the builder is.
    let odd = Fixture::new();
    odd.repository("r", &[("d/f", "x")]);
    odd.place.write("Dockerfile", &format!("FROM scratch\nADD {} /s\n", odd.server.url("r.git")));
    let build = odd.place.command(&["-o", "out", "ctx"]);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("umask 077; exec \"$@\"")
        .arg("sh")
        .arg(build.get_program())
        .args(build.get_args());
    shell.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = shell.current_dir(odd.place.folder.path()).output().unwrap();
    odd.place.ran(output).ok();
    assert_eq!(odd.out(), "s/ 755 0:0\ns/d/ 755 0:0\ns/d/f 644 0:0 \"x\"");
}

#[test]
fn flags_of_add_work_on_trees() {
    let fixture = Fixture::new();
    fixture.repository("r", &[("d/a.md", "a"), ("d/b", "b"), ("c.md", "c")]);
    let listed = fixture.built("ADD --chown=7:8 --chmod=750 --exclude=**/*.md {}/r.git /s");
    // A folder is put out by its caller, whose files they are; the image has the owners.
    assert_eq!(listed, "s/ 750 0:0\ns/d/ 750 0:0\ns/d/b 750 0:0 \"b\"");
    fixture.build("ADD --chown=7:8 {}/r.git#:d /s", &["-o", "type=tar,dest=out.tar"]).ok();
    let tar = fixture.place.path("out.tar");
    let names = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(tar).output().unwrap();
    let names = String::from_utf8_lossy(&names.stdout).into_owned();
    assert!(names.lines().all(|line| line.contains(" 7/8 ")), "{names}");
    let listed =
        fixture.built("COPY Dockerfile /s/c.md\nADD --link {}/r.git /s/\nADD {}/r.git#:d /s/d/e");
    let expect = "s/ 755 0:0
s/c.md 644 0:0 \"c\"
s/d/ 755 0:0
s/d/a.md 644 0:0 \"a\"
s/d/b 644 0:0 \"b\"
s/d/e/ 755 0:0
s/d/e/a.md 644 0:0 \"a\"
s/d/e/b 644 0:0 \"b\"";
    assert_eq!(listed, expect);
}

#[test]
fn a_part_of_a_tree_keeps_what_its_parents_say() {
    let fixture = Fixture::new();
    fixture.repository(
        "r",
        &[
            (".gitattributes", "*.txt text eol=crlf\n"),
            ("a/b/x.txt", "x\n"),
            ("a/y", "y"),
            ("-o/z", "z"),
        ],
    );
    assert_eq!(fixture.built("ADD {}/r.git#:a/b /s"), "s/ 755 0:0\ns/x.txt 644 0:0 \"x\\r\\n\"");
    assert_eq!(
        fixture.built("ADD {}/r.git?subdir=/a/./b/.. /s"),
        "s/ 755 0:0\ns/b/ 755 0:0\ns/b/x.txt 644 0:0 \"x\\r\\n\"\ns/y 644 0:0 \"y\""
    );
    assert_eq!(fixture.built("ADD {}/r.git#:-o /s"), "s/ 755 0:0\ns/z 644 0:0 \"z\"");
    for (subdir, reason) in [
        ("none", "`none` is not in the repository"),
        ("a/y", "`a/y` is not a folder"),
        ("a/b/x.txt/z", "`a/b/x.txt` is not a folder"),
    ] {
        let ran = fixture.build(&format!("ADD {{}}/r.git#:{subdir} /s"), &[]);
        let expect = format!("failed to open subdir {subdir}: {reason}");
        assert!(ran.code == Some(1) && ran.stderr.contains(&expect), "{}", ran.stderr);
    }
}

#[test]
fn an_unmoved_branch_is_cached_and_a_moved_one_is_not() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let lines = "ADD {}/r.git#main /s";
    let first = fixture.build(lines, &[]).ok();
    assert!(!first.stderr.contains("CACHED"), "{}", first.stderr);
    fixture.server.requests();
    let second = fixture.build(lines, &[]).ok();
    assert_eq!(second.stderr.matches(" CACHED\n").count(), 2, "{}", second.stderr);
    let asked = fixture.server.requests();
    assert!(asked.iter().all(|line| !line.contains("POST") || asked.len() == 2), "{asked:?}");
    let commit = repository.commit(&[("a", "2")]);
    let third = fixture.build(lines, &[]).ok();
    assert!(!third.stderr.contains("CACHED"), "{}", third.stderr);
    assert_eq!(fixture.out(), "s/ 755 0:0\ns/a 644 0:0 \"2\"");
    assert!(third.stderr.contains(&format!("{commit}\trefs/heads/main")), "{}", third.stderr);
    // Another name for what is there, at another address, is the same.
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.publish();
    let copy = fixture.place.path("repos/copy.git");
    git(&repository.tree, &["clone", "--quiet", "--bare", ".", copy.to_str().unwrap()]);
    let same = fixture.build("ADD {}/copy.git#v1 /s", &[]).ok();
    assert_eq!(same.stderr.matches(" CACHED\n").count(), 2, "{}", same.stderr);
    // A branch that was thrown away and made anew is what it is now.
    repository.git(&["checkout", "--quiet", "--orphan", "other"]);
    repository.git(&["commit", "--quiet", "--message=other"]);
    repository.git(&["branch", "--force", "main", "other"]);
    repository.publish();
    fixture.build(lines, &[]).ok();
    assert_eq!(fixture.out(), "s/ 755 0:0\ns/a 644 0:0 \"2\"");
}

#[test]
fn a_pinned_commit_that_is_stored_needs_no_network_and_no_git() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let commit = repository.git(&["rev-parse", "HEAD"]);
    let lines = format!("ADD --checksum={} {{}}/r.git#{commit} /s", &commit[..12]);
    fixture.build(&lines, &[]).ok();
    fixture.server.requests();
    let lines = lines.replace("{}", fixture.server.url("").trim_end_matches('/'));
    fixture.place.write("Dockerfile", &format!("FROM scratch\n{lines}\nADD Dockerfile /d\n"));
    let mut build = fixture.place.command(&["--progress=plain", "-o", "out", "ctx"]);
    let ran = fixture.place.ran(build.env("PATH", "/nonexistent").output().unwrap()).ok();
    assert_eq!(ran.stderr.matches(" CACHED\n").count(), 2, "{}", ran.stderr);
    assert_eq!(fixture.server.requests(), Vec::<String>::new());
}

#[test]
fn submodules_are_fetched_with_theirs() {
    let fixture = Fixture::new();
    let deep = fixture.repository("group/deep", &[("deep", "d")]);
    let lib = fixture.repository("group/lib", &[("lib", "l")]);
    let add = |to: &super::Repository, url: &str, path: &str| {
        to.git(&["submodule", "--quiet", "add", "--force", url, path]);
    };
    add(&lib, deep.bare.to_str().unwrap(), "below/deep");
    lib.git(&["config", "--file=.gitmodules", "submodule.below/deep.url", "./../deep.git"]);
    lib.commit(&[]);
    let top = fixture.repository("group/top", &[("top", "t"), ("dir/x", "x")]);
    add(&top, lib.bare.to_str().unwrap(), "dir/lib");
    top.git(&["config", "--file=.gitmodules", "submodule.dir/lib.url", "../lib.git"]);
    add(&top, deep.bare.to_str().unwrap(), "off");
    top.git(&["config", "--file=.gitmodules", "submodule.off.update", "none"]);
    top.commit(&[]);
    // Later commits of a submodule are not meant.
    lib.commit(&[("lib", "later")]);
    let modules = |listing: String| {
        let lines = listing.lines().filter(|line| !line.contains(".gitmodules"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let listed = modules(fixture.built("ADD {}/group/top.git /s"));
    let lib_lines = "s/dir/lib/ 755 0:0
s/dir/lib/below/ 755 0:0
s/dir/lib/below/deep/ 755 0:0
s/dir/lib/below/deep/deep 644 0:0 \"d\"
s/dir/lib/lib 644 0:0 \"l\"";
    let top_lines = "s/ 755 0:0\ns/dir/ 755 0:0";
    let end = "s/dir/x 644 0:0 \"x\"\ns/off/ 755 0:0\ns/top 644 0:0 \"t\"";
    assert_eq!(listed, format!("{top_lines}\n{lib_lines}\n{end}"));
    let listed = modules(fixture.built("ADD {}/group/top.git?submodules=false /s"));
    assert_eq!(listed, format!("{top_lines}\ns/dir/lib/ 755 0:0\n{end}"));
    // Only those below the part that is wanted; and a part may be in one.
    fixture.server.requests();
    let listed = modules(fixture.built("ADD {}/group/top.git#:dir /s"));
    assert!(listed.contains("s/lib/below/deep/deep 644"), "{listed}");
    let listed = modules(fixture.built("ADD {}/group/top.git#:dir/lib/below /s"));
    assert_eq!(listed, "s/ 755 0:0\ns/deep/ 755 0:0\ns/deep/deep 644 0:0 \"d\"");
    let ran = fixture.build("ADD {}/group/top.git?submodules=0&subdir=dir/lib /s", &[]);
    assert!(ran.stderr.contains("failed to open subdir dir/lib: `dir/lib` is a submodule, and submodules are not fetched"), "{}", ran.stderr);
}

#[test]
fn a_kept_repository_is_one() {
    let fixture = Fixture::new();
    let lib = fixture.repository("lib", &[("l", "l")]);
    let repository = fixture.repository("r", &[("a", "1"), ("d/b", "2")]);
    repository.commit(&[("a", "2")]);
    repository.git(&["submodule", "--quiet", "add", lib.bare.to_str().unwrap(), "sub/lib"]);
    repository.git(&["config", "--file=.gitmodules", "submodule.sub/lib.url", "../lib.git"]);
    let commit = repository.commit(&[]);
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.publish();
    let url = fixture.server.url("r.git").replace("http://", "http://user:hidden@");
    fixture.build(&format!("ADD --keep-git-dir=true {url}#v1 /s"), &[]).ok();
    let tree = fixture.place.path("out/s");
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]), commit);
    assert_eq!(git(&tree, &["describe", "--tags"]), "v1");
    assert_eq!(git(&tree, &["cat-file", "-t", "refs/tags/v1"]), "tag");
    assert_eq!(git(&tree, &["rev-list", "--count", "HEAD"]), "1");
    assert_eq!(git(&tree, &["status", "--porcelain"]), "");
    assert_eq!(git(&tree, &["remote", "get-url", "origin"]), fixture.server.url("r.git"));
    assert!(!tree.join(".git/hooks").exists());
    let lib_commit = lib.git(&["rev-parse", "HEAD"]);
    assert_eq!(git(&tree.join("sub/lib"), &["rev-parse", "HEAD"]), lib_commit);
    assert_eq!(git(&tree.join("sub/lib"), &["status", "--porcelain"]), "");
    assert!(tree.join(".git/modules/sub/lib/HEAD").exists());
    fixture.build("ADD --keep-git-dir {}/r.git /s", &[]).ok();
    assert_eq!(git(&tree, &["rev-parse", "refs/heads/main"]), commit);
    fixture.build(&format!("ADD {{}}/r.git?keep-git-dir=1&ref={commit} /s"), &[]).ok();
    assert_eq!(git(&tree, &["for-each-ref"]), "");
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]), commit);
    // A part of a tree is no repository.
    assert_eq!(fixture.built("ADD --keep-git-dir {}/r.git#:d /s"), "s/ 755 0:0\ns/b 644 0:0 \"2\"");
}

#[test]
fn checksums_are_compared_with_tag_and_commit() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.publish();
    let commit = repository.git(&["rev-parse", "HEAD"]);
    let tag = repository.git(&["rev-parse", "refs/tags/v1"]);
    for (reference, checksum) in [
        ("main", &commit[..]),
        ("main", &commit[..7]),
        ("v1", &commit),
        ("v1", &tag[..20]),
        (&commit, &commit),
    ] {
        fixture.build(&format!("ADD --checksum={checksum} {{}}/r.git#{reference} /s"), &[]).ok();
    }
    let wrong = |reference: &str| {
        let ran = fixture.build(&format!("ADD --checksum=0000 {{}}/r.git#{reference} /s"), &[]);
        let lines: Vec<String> = ran.report().lines().map(str::to_owned).collect();
        assert!(lines.contains(&"Dockerfile:2".to_owned()) && lines[0] == "exit 1", "{lines:?}");
        lines.into_iter().find(|line| line.starts_with("ERROR")).unwrap()
    };
    let told = "ERROR: failed to solve: expected checksum to match 0000, got";
    assert_eq!(wrong("main"), format!("{told} {commit}"));
    assert_eq!(wrong("v1"), format!("{told} {tag} or {commit}"));
    assert_eq!(wrong(&commit), format!("{told} {commit}"));
}

#[test]
fn files_can_have_the_time_of_the_commit() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("d/a", "1")]);
    symlink("a", repository.tree.join("d/l")).unwrap();
    repository.commit(&[]);
    let times = || {
        let paths = ["s", "s/d", "s/d/a", "s/d/l"].map(|path| fixture.place.path("out").join(path));
        paths.map(|path| fs::symlink_metadata(path).unwrap().mtime())
    };
    fixture.build("ADD {}/r.git?mtime=commit /s", &[]).ok();
    assert_eq!(times(), [1_000_000_000; 4]);
    // Times do not count for the copy, so a cached one would do.
    fs::remove_dir_all(fixture.place.path("state")).unwrap();
    fixture.build("ADD {}/r.git?mtime=checkout /s", &[]).ok();
    assert!(times().iter().all(|time| *time > 1_600_000_000), "{:?}", times());
}

#[test]
fn servers_of_all_kinds_are_read() {
    for rules in
        [Rules { is_dumb: true, ..Rules::default() }, Rules { is_old: true, ..Rules::default() }]
    {
        let fixture = Fixture::with(rules.clone());
        let repository = fixture.repository("r", &[("a", "1")]);
        let first = repository.git(&["rev-parse", "HEAD"]);
        repository.git(&["tag", "--annotate", "--message=x", "v1"]);
        repository.commit(&[("a", "2")]);
        git(&repository.bare, &["update-server-info"]);
        for (reference, expect) in
            [("", "2"), ("#main", "2"), ("#v1", "1"), (&format!("#{first}"), "1")]
        {
            let listed = fixture.built(&format!("ADD {{}}/r.git{reference} /s"));
            assert_eq!(
                listed,
                format!("s/ 755 0:0\ns/a 644 0:0 {expect:?}"),
                "{rules:?} {reference}"
            );
        }
    }
}

/// A process and those that it started, which end with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

#[test]
fn the_protocol_of_git_itself_is_spoken() {
    let fixture = Fixture::new();
    fixture.repository("r", &[("a", "1")]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut daemon = Command::new("git");
    daemon.args(["daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
    daemon.arg(format!("--port={port}"));
    daemon.arg(format!("--base-path={}", fixture.place.path("repos").display()));
    // `git` only starts the daemon proper, which would outlive it, and with it all that waits for its output.
    let daemon = Group(daemon.process_group(0).spawn().unwrap());
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < Duration::from_secs(60), "the daemon does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let url = format!("git://127.0.0.1:{port}");
    let found = fixture.build(&format!("ADD {url}/r.git#main /s"), &[]);
    let missing = fixture.build(&format!("ADD {url}/none /s"), &[]);
    drop(daemon);
    found.ok();
    let told = "access denied or repository not exported: /none";
    assert!(missing.code == Some(3) && missing.stderr.contains(told), "{}", missing.stderr);
}

#[test]
fn repositories_of_the_other_hash_are_read() {
    let fixture = Fixture::new();
    let tree = fixture.place.path("tree");
    let bare = fixture.place.path("repos/r.git");
    fs::create_dir(&tree).unwrap();
    git(&tree, &["init", "--quiet", "--object-format=sha256", "--initial-branch=main"]);
    fs::write(tree.join("a"), "1").unwrap();
    git(&tree, &["add", "a"]);
    git(&tree, &["commit", "--quiet", "--message=x"]);
    git(&tree, &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let commit = git(&tree, &["rev-parse", "HEAD"]);
    assert_eq!(fixture.built("ADD {}/r.git#main /s"), "s/ 755 0:0\ns/a 644 0:0 \"1\"");
    fixture.build(&format!("ADD --keep-git-dir {{}}/r.git#{commit} /s"), &[]).ok();
    assert_eq!(git(&fixture.place.path("out/s"), &["rev-parse", "HEAD"]), commit);
}

#[test]
fn empty_repositories_and_trees() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[]);
    assert_eq!(fixture.built("ADD {}/r.git /s"), "s/ 755 0:0");
    git(
        &repository.tree,
        &["init", "--quiet", "--bare", fixture.place.path("repos/none.git").to_str().unwrap()],
    );
    let ran = fixture.build("ADD {}/none.git /s", &[]);
    assert!(
        ran.code == Some(1) && ran.stderr.contains("repository does not contain ref HEAD"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_wrong_with_a_server_is_told() {
    let fixture = Fixture::new();
    fixture.repository("r", &[("a", "1")]);
    let report = |lines: &str| {
        let ran = fixture.build(lines, &[]);
        let report = ran.report().replace(&fixture.server.host(), "[host]");
        let lines: Vec<&str> = report.lines().collect();
        assert!(report.contains("\n   2 | >>> ADD"), "{report}");
        format!("{}\n{}", lines[0], lines[lines.len() - 2..].join("\n"))
    };
    assert_eq!(
        report("ADD {}/none.git /s"),
        "exit 3\nERROR: failed to solve: failed to fetch remote http://[host]/none.git: repository 'http://[host]/none.git/' not found\n  help: check the address; for a private repository give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE or src=PATH"
    );
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let told = report(&format!("ADD http://{closed}/r.git /s"));
    assert!(told.starts_with("exit 3\n") && told.contains("HTTPS_PROXY"), "{told}");
    let told = report(&format!("ADD git://{closed}/r.git /s"));
    assert!(told.starts_with("exit 3\n") && told.contains("HTTPS_PROXY"), "{told}");
    fixture
        .place
        .write("Dockerfile", &format!("FROM scratch\nADD {} /s\n", fixture.server.url("r.git")));
    let mut build = fixture.place.command(&["-o", "out", "ctx"]);
    let ran = fixture.place.ran(build.env("PATH", "/nonexistent").output().unwrap());
    let report = ran.report();
    assert!(
        report.starts_with("exit 4\n")
            && report.contains("ERROR: failed to solve: cannot run git: "),
        "{report}"
    );
    assert!(report.contains("apt-get install git"), "{report}");
}

#[test]
fn a_stopped_build_stops_git_at_once_and_the_next_one_works() {
    let fixture = Fixture::with(Rules { is_silent: true, ..Rules::default() });
    fixture.repository("r", &[("a", "1")]);
    fixture
        .place
        .write("Dockerfile", &format!("FROM scratch\nADD {} /s\n", fixture.server.url("r.git")));
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
        let mut build = fixture.place.command(&["-o", "out", "ctx"]).spawn().unwrap();
        let start = Instant::now();
        while fixture.server.requests().is_empty() {
            assert!(start.elapsed() < Duration::from_secs(60), "git never asks");
            std::thread::sleep(Duration::from_millis(5));
        }
        let start = Instant::now();
        let pid = rustix::process::Pid::from_child(&build);
        rustix::process::kill_process(pid, signal).unwrap();
        let status = build.wait().unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(signal == rustix::process::Signal::KILL || status.code() == Some(130), "{status}");
    }
    fixture.server.set(Rules::default());
    assert_eq!(fixture.built("ADD {}/r.git /s"), "s/ 755 0:0\ns/a 644 0:0 \"1\"");
}

#[test]
fn a_repository_that_was_left_half_done_is_made_anew() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    fixture.build("ADD {}/r.git /s", &[]).ok();
    let kept = || {
        let mounts = fs::read_dir(fixture.place.path("state/mounts")).unwrap();
        mounts.map(|entry| entry.unwrap().path()).next().unwrap()
    };
    let mount = kept();
    fs::write(mount.join("unfinished"), "").unwrap();
    fs::write(mount.join("repository/shallow.lock"), "").unwrap();
    repository.commit(&[("a", "2")]);
    assert_eq!(fixture.built("ADD {}/r.git /s"), "s/ 755 0:0\ns/a 644 0:0 \"2\"");
    assert!(!mount.join("unfinished").exists());
    // Damage that left no mark shows when git reads it.
    let packs = mount.join("repository/objects/pack");
    for entry in fs::read_dir(&packs).unwrap() {
        let path = entry.unwrap().path();
        let length = fs::metadata(&path).unwrap().len();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
    }
    repository.commit(&[("a", "3")]);
    assert_eq!(fixture.built("ADD {}/r.git /s"), "s/ 755 0:0\ns/a 644 0:0 \"3\"");
    // Pruning takes it like a cache mount.
    fixture.place.run(&["prune", "-a", "-f"]).ok();
    assert!(!mount.exists());
    assert_eq!(listing(&fixture.place.path("state/mounts")), "");
}

#[test]
fn builds_at_the_same_time_share_a_repository() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    for number in 0..4 {
        repository.commit(&[("a", &format!("{number}"))]);
        repository.git(&["tag", &format!("v{number}")]);
    }
    repository.publish();
    let url = fixture.server.url("r.git");
    let mut builds = Vec::new();
    for number in 0..4 {
        let context = fixture.place.path(&format!("ctx{number}"));
        fs::create_dir(&context).unwrap();
        let text = format!("FROM scratch\nADD {url}#v{number} /a\nADD {url} /b\n");
        fs::write(context.join("Dockerfile"), text).unwrap();
        let (out, context) = (format!("out{number}"), format!("ctx{number}"));
        builds.push(fixture.place.command(&["-q", "-o", &out, &context]).spawn().unwrap());
    }
    for (number, mut build) in builds.into_iter().enumerate() {
        assert!(build.wait().unwrap().success());
        let out = fixture.place.path(&format!("out{number}"));
        assert_eq!(fs::read_to_string(out.join("a/a")).unwrap(), number.to_string());
        assert_eq!(fs::read_to_string(out.join("b/a")).unwrap(), "3");
    }
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    if !super::support::can_run() {
        return;
    }
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let mut noise = vec![0; 12 << 20];
    let mut state = 1u64;
    for byte in &mut noise {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
    fs::write(repository.tree.join("big"), noise).unwrap();
    repository.commit(&[]);
    let folder = fixture.place.path("state");
    fs::create_dir(&folder).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(&folder);
    assert!(mount.status().unwrap().success());
    let full = fixture.build("ADD {}/r.git /s", &[]);
    repository.git(&["rm", "--quiet", "big"]);
    repository.commit(&[]);
    let small = fixture.build("ADD {}/r.git /s", &[]);
    Command::new("umount").arg("-l").arg(&folder).status().unwrap();
    assert!(
        full.code == Some(4)
            && full.stderr.contains("the disk that holds the builder's state is full"),
        "{}",
        full.stderr
    );
    small.ok();
}
