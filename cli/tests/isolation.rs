//! Builds by users without rights: the same images, and what is said where something is missing.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::users::{UserPlace, WITH_RANGE, WITHOUT_RANGE, can_be_user, id_of};
use support::{Place, can_run, has};

/// Owners, modes, kinds and deletions of all sorts.
const DOCKERFILE: &str = "FROM kit
USER root
COPY --chown=1234:567 a.txt /owned/
ADD nodes.tar /nodes/
RUN chown 70000:80000 /owned && ln -s a.txt /owned/link && chown -h 5:6 /owned/link && \\
    ln -s b /owned/other && chown -h 9:9 /owned/other && mv /owned/other /moved && \\
    mkfifo /owned/pipe && chown 7:8 /owned/pipe && chmod 4755 /owned/a.txt
RUN rm /srv/readme.txt && mkdir /srv/readme.txt && touch /srv/readme.txt/x && touch /owned/pipe
USER 1000:1000
WORKDIR /work
USER root
RUN chown 1000:1000 /work
USER 1000:1000
RUN mkdir d && touch d/f && ln -s f d/l && chmod 2755 d && id > who
USER root
COPY --from=links / /links/
RUN rm /nodes/disk
";

/// A tar with a device, a program with capabilities and a file of an unusual owner.
fn write_nodes(place: &Place) {
    let script = r#"
import struct, sys, tarfile
tar = tarfile.open(sys.argv[1], "w", format=tarfile.PAX_FORMAT)
def add(name, kind=tarfile.REGTYPE, **fields):
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, 0o640, 1000000000
    for key, value in fields.items():
        setattr(entry, key, value)
    tar.addfile(entry)
add("disk", tarfile.BLKTYPE, devmajor=259, devminor=7, uid=3, gid=4)
add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
add("far", uid=1000000, gid=2000000)
add("way", tarfile.SYMTYPE, linkname="far", uid=1000000, gid=3)
value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("ascii")
add("ping", pax_headers={"SCHILY.xattr.security.capability": value})
tar.close()
"#;
    let done =
        Command::new("python3").args(["-c", script]).arg(place.path("ctx/nodes.tar")).status();
    assert!(done.unwrap().success());
}

/// Everything about the files of an image but their times.
fn listing(tar: &std::path::Path) -> Vec<String> {
    let script = r#"
import sys, tarfile
for e in tarfile.open(sys.argv[1]):
    xattrs = sorted((k, v.encode("utf-8", "surrogateescape").hex()) for k, v in e.pax_headers.items() if "xattr" in k)
    size = e.size if e.isreg() else 0
    print(e.name, e.type.decode(), oct(e.mode), e.uid, e.gid, size, e.linkname, e.devmajor, e.devminor, xattrs)
"#;
    let output = Command::new("python3").args(["-c", script]).arg(tar).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<String> =
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Fails with what only one of two lists has.
#[track_caller]
fn assert_same(got: &[String], expect: &[String]) {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    assert_eq!(only(got, expect), only(expect, got));
}

/// Has a user build the same as root, and compares.
#[track_caller]
fn check_same_image(user: &'static str, told: &str) {
    if !can_be_user() || !has("python3") {
        return;
    }
    let files = [("Dockerfile", DOCKERFILE), ("a.txt", "a\n")];
    let root = UserPlace::new(user, &files);
    write_nodes(&root.place);
    let mut command = root.place.command(&["-o", "type=tar,dest=root.tar"]);
    command.args(root.contexts()).arg("ctx").env("BRICKLAYER_ROOT", root.path("root-state"));
    root.place.ran(command.output().unwrap()).ok();

    let place = UserPlace::new(user, &files);
    write_nodes(&place.place);
    let ran = place.build(&["--progress=plain", "-o", "type=tar,dest=out.tar"]).ok();
    assert!(ran.stderr.contains(told), "{}", ran.stderr);
    let begins = ran.stderr.find(told) < ran.stderr.find("RUN chown");
    assert!(begins, "told before the first step:\n{}", ran.stderr);
    assert_same(&listing(&place.path("out.tar")), &listing(&root.path("root.tar")));
    assert_eq!(fs_err::metadata(place.path("out.tar")).unwrap().uid(), id_of(user).unwrap().0);

    // What is cached need not be told.
    let ran = place.build(&["--progress=plain", "-o", "type=tar,dest=again.tar"]).ok();
    assert!(!ran.stderr.contains("isolation:"), "{}", ran.stderr);
    assert_same(&listing(&place.path("again.tar")), &listing(&place.path("out.tar")));

    // Layers with files of other ids are removed again.
    place.run(&["prune", "--all", "--force"]).ok();
    assert_eq!(fs_err::read_dir(place.path("state/layers")).unwrap().count(), 0);
    place.run(&["du"]).ok();
}

#[test]
fn a_range_of_ids_builds_the_same_image() {
    check_same_image(WITH_RANGE, "isolation: rootless (not root; user namespace with ids ");
}

#[test]
fn one_id_builds_the_same_image() {
    check_same_image(
        WITHOUT_RANGE,
        "isolation: single-id (not root; no range of 65536 ids for the user `bricklayer-single` in \
         /etc/subuid and /etc/subgid; user namespace with one id)",
    );
}

#[test]
fn calls_about_owners_are_answered_as_root_would_be() {
    if !can_be_user() {
        return;
    }
    let dockerfile = "FROM kit
USER root
RUN id > /a; su -s /bin/sh nobody -c 'id -u; touch /tmp/x; chown 0 /tmp/x || echo refused' > /b; id -u > /c; \
    mknod /dev0 b 8 1 && ls /dev0 > /d && rm /dev0
USER 1000:1000
RUN id -u > /tmp/e; id -g >> /tmp/e; mknod /tmp/no c 1 3 2>/dev/null || echo refused >> /tmp/e; \
    (su root -c true) 2>/dev/null || true
";
    let place = UserPlace::new(WITHOUT_RANGE, &[("Dockerfile", dockerfile)]);
    place.build(&["-o", "type=local,dest=out"]).ok();
    let read = |name: &str| fs_err::read_to_string(place.path("out").join(name)).unwrap();
    assert!(read("a").starts_with("uid=0(root) gid=0(root)"), "{}", read("a"));
    assert!(read("b").ends_with("refused\n") && !read("b").starts_with("0\n"), "{}", read("b"));
    assert_eq!(read("c"), "0\n");
    assert_eq!(read("d"), "/dev0\n");
    assert_eq!(read("tmp/e"), "1000\n1000\nrefused\n");
}

#[test]
fn files_that_are_written_are_the_users() {
    if !can_be_user() {
        return;
    }
    let dockerfile = "FROM busybox\nRUN touch /new && chown 5:5 /new\n";
    let place = UserPlace::new(WITH_RANGE, &[("Dockerfile", dockerfile)]);
    let words = ["-o", "type=local,dest=out", "--metadata-file=meta"];
    place.build(&words).ok();
    let (uid, gid) = id_of(WITH_RANGE).unwrap();
    for name in ["out", "out/new", "out/bin", "meta", "state"] {
        let found = fs_err::metadata(place.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (uid, gid), "{name}");
    }
    // Standard output, standard input and the folder of the user are what they were.
    let mut command = place.command(&["-o", "-", "-f-"]);
    command.args(place.contexts()).arg("ctx").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"FROM busybox\nRUN touch /from-stdin\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let found = output.stdout.windows(10).any(|bytes| bytes == b"from-stdin");
    assert!(found, "a tar on standard output");
}

/// Processes of a user.
fn processes_of(user: &str) -> String {
    let output = Command::new("ps").args(["-u", user, "-o", "pid=,args="]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_interrupted_build_leaves_no_process() {
    if !can_be_user() || !has("ps") {
        return;
    }
    for user in [WITH_RANGE, WITHOUT_RANGE] {
        let marker = format!("sleep 3{}", std::process::id());
        let dockerfile = format!("FROM busybox\nRUN echo begun; {marker}\n");
        let place = UserPlace::new(user, &[("Dockerfile", &dockerfile)]);
        let mut command = place.command(&["--progress=plain"]);
        command.args(place.contexts()).arg("ctx").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let begin = Instant::now();
        while !processes_of(user).contains(&format!("{marker}\n")) {
            assert!(begin.elapsed() < Duration::from_secs(30), "the step does not begin");
            std::thread::sleep(Duration::from_millis(10));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{user}");
        let end = Instant::now();
        let own = place.path("build").display().to_string();
        loop {
            let left = processes_of(user);
            if !left.contains(&marker) && !left.contains(&own) {
                break;
            }
            assert!(end.elapsed() < Duration::from_secs(5), "left over:\n{left}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_is_missing_is_named_with_the_setting_that_gives_it() {
    if !can_be_user() {
        return;
    }
    let place = UserPlace::new(WITHOUT_RANGE, &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let refused = |words: &[&str]| {
        let ran = place.build(words);
        (ran.code.unwrap_or(-1), ran.stderr)
    };
    let (code, text) = refused(&["--isolation=rootless"]);
    assert_eq!(code, 4, "{text}");
    let expect = "ERROR: isolation `rootless` is not possible here: no range of 65536 ids for the user \
                  `bricklayer-single` in /etc/subuid and /etc/subgid\n  help: as root, add the line \
                  `bricklayer-single:";
    assert!(text.starts_with(expect), "{text}");
    assert!(text.contains(":65536` to /etc/subuid and the line `bricklayer-single:"), "{text}");
    assert_eq!(
        refused(&["--isolation=root"]),
        (
            4,
            "ERROR: isolation `root` is not possible here: not root (CAP_SYS_ADMIN)\n  help: run the command as \
             root or with sudo\n"
                .to_owned()
        )
    );
    assert_eq!(
        refused(&["--isolation=vm"]),
        (
            2,
            "ERROR: invalid isolation `vm`: want auto, root, rootless, single-id or chroot\n"
                .to_owned()
        )
    );
    let mut command = place.command(&["du"]);
    command.env("BRICKLAYER_ISOLATION", "rootless");
    assert_eq!(command.output().unwrap().status.code(), Some(4));
}

#[test]
fn a_store_of_another_kind_is_refused() {
    if !can_be_user() {
        return;
    }
    let place = UserPlace::new(WITH_RANGE, &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    place.build(&[]).ok();
    let ran = place.build(&["--isolation=single-id"]);
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (
            Some(4),
            "ERROR: failed to solve: cannot use the store `[place]/state`: it keeps layers with owners ranged, \
             whiteouts user, this builder with owners recorded, whiteouts user\n  help: choose another folder with \
             --root or BRICKLAYER_ROOT; owners and deletions are kept in another way by each kind of isolation, and \
             this store was made with --isolation=rootless\n"
        )
    );
    place.build(&["--isolation=rootless"]).ok();
}

/// Runs `build` where no user namespace can be made and root has no rights.
fn without_namespaces(place: &Place, words: &str) -> support::Ran {
    let program = env!("CARGO_BIN_EXE_bricklayer");
    let images = support::repository().join("testdata/conformance/images");
    let script = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \
         '{program}' {words} --build-context=busybox=oci-layout://{}/busybox:latest ctx",
        images.display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "sh", "-c", &script])
        .env("BRICKLAYER_ROOT", place.path("state"))
        .env_remove("BRICKLAYER_ISOLATION")
        .current_dir(place.folder.path());
    place.ran(command.output().unwrap())
}

#[test]
fn without_any_isolation_all_but_run_works() {
    if !can_run() || !has("setpriv") {
        return;
    }
    let dockerfile = "FROM busybox AS all\nCOPY --chown=5:6 a.txt /\nWORKDIR /w\n\
        FROM busybox\nCOPY --from=all / /all/\nCOPY --from=all --chmod=0 /a.txt /b.txt\nCOPY <<E /c\nc\nE\n";
    let place = Place::new(&[("Dockerfile", dockerfile), ("a.txt", "a\n")]);
    without_namespaces(&place, "-o type=oci,dest=out.tar").ok();

    place.write("Dockerfile", "FROM busybox\nRUN true\n");
    let ran = without_namespaces(&place, "--progress=quiet");
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    let expect = [
        "ERROR: failed to solve: RUN is not possible here: root without the right to mount (CAP_SYS_ADMIN); ",
        "no right to change the root directory (CAP_SYS_CHROOT)",
        "help: one of these lifts it: ",
    ];
    for part in expect {
        assert!(ran.stderr.contains(part), "{part} in:\n{}", ran.stderr);
    }
    let ran = without_namespaces(&place, "--isolation=single-id");
    let expect = "ERROR: isolation `single-id` is not possible here: user namespaces are turned off \
                  (`user.max_user_namespaces` is 0)\n  help: as root, set `sysctl -w user.max_user_namespaces=15000`\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(4), expect));
}

#[test]
fn root_is_named_too() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN true\n")]);
    for (words, reason) in [
        (&["--progress=plain"][..], "root of the machine"),
        (&["--progress=plain", "--isolation=root", "--no-cache"], "asked for"),
    ] {
        let shown = place.build(words).ok().stderr;
        assert!(shown.contains(&format!("[internal] isolation: root ({reason})\n")), "{shown}");
    }
    // No step runs, and nothing is said.
    let shown = place.build(&["--progress=plain"]).ok().stderr;
    assert!(!shown.contains("isolation"), "{shown}");
}
