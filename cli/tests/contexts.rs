//! Contexts and Dockerfiles that are not in a folder: standard input, archives, URLs, other stages.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/server.rs"]
mod server;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use server::{Answer, Server, file};
use support::{Place, Ran, can_run, has};
use tree::tar::{Entry, EntryKind, Writer};

/// A file of an archive: path, owner, content.
type Member<'a> = (&'a str, u32, &'a str);

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (path, owner, content) in members {
        let mut entry = Entry::new(EntryKind::File, path.as_bytes().to_vec());
        (entry.mode, entry.uid, entry.gid) = (0o640, *owner, *owner);
        (entry.size, entry.mtime.seconds) = (content.len() as u64, 1_000_000_000);
        writer.append_file(&entry, &mut content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

/// Compresses with the usual program.
fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(["-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Runs `build words…` with these bytes on standard input.
fn build(place: &Place, stdin: &[u8], words: &[&str]) -> Ran {
    let out = ["--progress=plain", "-o", "type=tar,dest=out.tar"];
    let mut child = place
        .command(&[&out[..], words].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // The command may end without reading all of it.
    let writer = std::thread::spawn(move || drop(pipe.write_all(&bytes)));
    let ran = place.ran(child.wait_with_output().unwrap());
    writer.join().unwrap();
    place.expect_nothing_half_written(&ran.stderr);
    ran
}

/// `path owner content` of every file of the result.
fn result(place: &Place) -> Vec<String> {
    let mut tar = tree::tar::Reader::new(fs_err::File::open(place.path("out.tar")).unwrap());
    let mut lines = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        let mut content = String::new();
        tar.read_to_string(&mut content).unwrap();
        if entry.kind == EntryKind::File {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            lines.push(format!("{path} {} {}", entry.uid, content.trim_end()));
        }
    }
    lines
}

const COPY_ALL: &str = "FROM scratch\nCOPY a sub /in/\n";

fn project() -> Vec<u8> {
    archive(&[
        ("./Dockerfile", 0, COPY_ALL),
        ("a", 7, "one"),
        ("sub/b", 8, "two"),
        (".dockerignore", 0, "a\nsub\n"),
        ("other/File", 0, "FROM scratch\nCOPY sub/b /\n"),
    ])
}

#[test]
fn an_archive_on_standard_input_is_the_context_in_every_compression() {
    let plain = project();
    let mut archives = vec![("plain", plain.clone())];
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        if !has(program) {
            return;
        }
        archives.push((program, compressed(program, &plain)));
    }
    for (name, bytes) in archives {
        let place = Place::new(&[]);
        // The ignore file of an archive is not read, and its owners are kept.
        build(&place, &bytes, &["-"]).ok();
        assert_eq!(result(&place), ["in/a 7 one", "in/b 8 two"], "{name}");
        let second = build(&place, &bytes, &["-"]).ok();
        assert!(second.stderr.contains("CACHED"), "{name}: {}", second.stderr);
        assert_eq!(second.stderr.matches(" unpack build context\n").count(), 1);
        // Nothing is left of the bytes that came.
        let blob = format!("state/blobs/sha256/{}", llb::Digest::of(&bytes).hex());
        assert!(!place.path(&blob).exists());
    }
}

#[test]
fn the_dockerfile_of_an_archive_is_named_by_its_path_inside() {
    let (place, bytes) = (Place::new(&[("File", "FROM nothing")]), project());
    for name in ["other/File", "/other/../other/File", "./other/File"] {
        build(&place, &bytes, &["-f", name, "-"]).ok();
        assert_eq!(result(&place), ["b 8 two"], "{name}");
    }
    let ran = build(&place, &bytes, &["-f", "ctx/File", "-"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.report(),
        "exit 1\n\
         ERROR: failed to read dockerfile: open ctx/File: no such file or directory\n  \
         help: the build context has no such file; paths are relative to its root: name another one with -f"
    );
    let lower = archive(&[("dockerfile", 0, "FROM scratch\nCOPY dockerfile /d\n")]);
    build(&place, &lower, &["-"]).ok();
    let broken = archive(&[("Dockerfile", 0, "FROM scratch\nCOPPY a b\n")]);
    let report = build(&place, &broken, &["-"]).report();
    assert!(report.contains("Dockerfile:2\n"), "{report}");
    let missing = archive(&[("Dockerfile", 0, "FROM scratch\nCOPY gone /\n")]);
    let report = build(&place, &missing, &["-"]).report();
    assert!(
        report.contains("\"/gone\": not found")
            && report.contains("help: there is no `/gone` in the build context"),
        "{report}"
    );
}

#[test]
fn other_data_on_standard_input_is_the_dockerfile_without_a_context() {
    let place = Place::new(&[("a", "x")]);
    build(&place, b"FROM scratch\nCOPY <<x /x\nhello\nx\n", &["-"]).ok();
    assert_eq!(result(&place), ["x 0 hello"]);
    let ran = build(&place, b"FROM scratch\nCOPY a /\n", &["-"]);
    let report = ran.report();
    assert_eq!(ran.code, Some(1));
    assert!(report.contains("\"/a\": not found"), "{report}");
    assert!(
        report.contains("help: what is read is empty: a Dockerfile from standard input"),
        "{report}"
    );
    build(&place, b"FROM scratch\nCOPY a /b\n", &["-f", "-", "ctx"]).ok();
    assert_eq!(result(&place), ["b 0 x"]);
    let ran = build(&place, b"", &["-"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("ERROR: "), "{}", ran.stderr);
}

#[test]
fn two_meanings_of_standard_input_are_refused() {
    let place = Place::new(&[("Dockerfile", "FROM scratch")]);
    for (words, expect) in [
        (
            &["-f", "-", "-"],
            "invalid argument: can't use stdin for both build context and dockerfile",
        ),
        (
            &["-f", "ctx/Dockerfile", "-"],
            "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
        ),
    ] {
        let ran = build(&place, b"FROM scratch\n", words);
        assert_eq!(ran.code, Some(2));
        assert!(ran.report().contains(&format!("ERROR: {expect}\n  help: ")), "{}", ran.stderr);
    }
}

#[test]
fn damaged_and_hostile_archives_are_refused_and_leave_nothing_outside() {
    let whole = project();
    let evil_link = {
        let mut writer = Writer::new(Vec::new());
        let mut link = Entry::new(EntryKind::Symlink, b"out".to_vec());
        link.link = b"/../../../../../../tmp".to_vec();
        writer.append(&link).unwrap();
        let mut inside = Entry::new(EntryKind::File, b"out/bricklayer-escaped".to_vec());
        (inside.size, inside.mode) = (1, 0o644);
        writer.append_file(&inside, &mut &b"x"[..]).unwrap();
        let mut dotted = Entry::new(EntryKind::File, b"../../bricklayer-escaped".to_vec());
        (dotted.size, dotted.mode) = (1, 0o644);
        writer.append_file(&dotted, &mut &b"x"[..]).unwrap();
        let mut dockerfile = Entry::new(EntryKind::File, b"Dockerfile".to_vec());
        let text = b"FROM scratch\nCOPY . /all\n";
        (dockerfile.size, dockerfile.mode) = (text.len() as u64, 0o644);
        writer.append_file(&dockerfile, &mut &text[..]).unwrap();
        writer.finish().unwrap()
    };
    let place = Place::new(&[]);
    build(&place, &evil_link, &["-"]).ok();
    assert!(!Path::new("/tmp/bricklayer-escaped").exists());
    assert!(result(&place).contains(&"all/bricklayer-escaped 0 x".to_owned()));
    for (bytes, expect) in [
        (&whole[..1300], "failed to solve: cannot read the archive: the tar archive is truncated"),
        (
            &[b"\x1f\x8b\x08".as_slice(), &[0; 600]].concat(),
            "unable to prepare context from standard input: cannot read the archive: corrupt gzip stream",
        ),
        (
            &[0; 10240],
            "unable to prepare context from standard input: cannot read the archive: it has no entries",
        ),
        (
            &archive(&[("a", 0, "x")]),
            "failed to read dockerfile: open Dockerfile: no such file or directory",
        ),
    ] {
        let ran = build(&Place::new(&[]), bytes, &["-"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.report().contains(&format!("ERROR: {expect}")), "{expect}: {}", ran.stderr);
    }
}

#[test]
fn an_archive_of_any_size_takes_little_memory() {
    let place = Place::new(&[]);
    let large = "x".repeat(200 << 20);
    let bytes =
        archive(&[("Dockerfile", 0, "FROM scratch\nCOPY large /l\n"), ("large", 0, &large)]);
    let mut child = place
        .command(&["-o", "out", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes).unwrap();
    // Before the end of its input the command cannot end.
    let status = format!("/proc/{}/status", child.id());
    let peak = fs_err::read_to_string(&status).unwrap();
    let peak: u64 = peak
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap();
    drop(pipe);
    assert!(child.wait().unwrap().success());
    assert!(peak < 100 << 10, "{peak} KiB");
    assert_eq!(fs_err::metadata(place.path("out/l")).unwrap().len(), 200 << 20);
}

#[test]
fn an_archive_behind_a_url_is_the_context() {
    for program in ["cat", "gzip", "zstd"] {
        if program != "cat" && !has(program) {
            return;
        }
        let plain = project();
        let bytes = if program == "cat" { plain } else { compressed(program, &plain) };
        let server = Server::of_files(&[("/src", &bytes)]);
        let (place, url) = (Place::new(&[]), server.url("/src"));
        build(&place, b"", &[&url]).ok();
        assert_eq!(result(&place), ["in/a 7 one", "in/b 8 two"], "{program}");
        assert_eq!(server.taken().len(), 1);
        let second = build(&place, b"", &[&url]).ok();
        assert!(second.stderr.contains("CACHED"), "{}", second.stderr);
        let seen = server.taken();
        assert!(seen.len() == 1 && seen[0].header("if-none-match").is_some());
        build(&place, b"", &["-f", "other/File", &url]).ok();
        assert_eq!(result(&place), ["b 8 two"]);
        build(&place, b"FROM scratch\nCOPY a /c\n", &["-f", "-", &url]).ok();
        assert_eq!(result(&place), ["c 7 one"]);
    }
    let server = Server::start(|request, _| match request.target.as_str() {
        "/half" => Answer::ok(&project()[..700]),
        "/bad" => Answer::ok("\x1f\x01 no").body([b"BZh9".as_slice(), &[9; 600]].concat()),
        _ => Answer::status("404 Not Found"),
    });
    for (path, code, expect) in [
        ("/half", 1, "failed to solve: cannot read the archive: the tar archive is truncated"),
        ("/bad", 1, "unable to prepare context: cannot read the archive: corrupt bzip2 stream"),
        ("/gone", 3, "failed to solve: failed to fetch http"),
    ] {
        let ran = build(&Place::new(&[]), b"", &[&server.url(path)]);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.report().contains(&format!("ERROR: {expect}")), "{expect}: {}", ran.stderr);
    }
}

#[test]
fn a_dockerfile_behind_a_url_is_alone_in_its_context() {
    let text = "FROM scratch\nCOPY context /me\n";
    let server = Server::start(move |request, _| file(request, text.as_bytes()));
    let (place, url) = (Place::new(&[("File", "FROM scratch\nCOPY File /f\n")]), server.url("/D"));
    build(&place, b"", &[&url]).ok();
    assert_eq!(result(&place), [format!("me 0 {}", text.trim_end())]);
    assert_eq!(server.taken().len(), 1);
    let ran = build(&place, b"", &["-f", "x/File", &url]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.report().contains("there can be no `x/File` in it"), "{}", ran.stderr);
    // The Dockerfile may come from elsewhere all the same.
    build(&place, b"FROM scratch\nCOPY context /c\n", &["-f", "-", &url]).ok();
    assert_eq!(result(&place), [format!("c 0 {}", text.trim_end())]);
}

#[test]
fn a_dockerfile_may_be_behind_a_url_of_its_own() {
    let server = Server::start(|request, _| match request.target.as_str() {
        "/File?raw=1" => file(request, b"FROM scratch\nCOPY a /x\n"),
        "/broken" => file(request, b"FROM scratch\nRUNN\n"),
        _ => Answer::status("404 Not Found"),
    });
    let place = Place::new(&[("a", "local"), ("Dockerfile", "FROM gone")]);
    for context in ["ctx", "-"] {
        build(&place, &project(), &["-f", &server.url("/File?raw=1"), context]).ok();
        let expect = if context == "-" { "x 7 one" } else { "x 0 local" };
        assert_eq!(result(&place), [expect]);
    }
    let ran = build(&place, b"", &["-f", &server.url("/broken"), "ctx"]);
    assert!(ran.code == Some(1) && ran.report().contains("Dockerfile:2\n"), "{}", ran.stderr);
    let ran = build(&place, b"", &["-f", &server.url("/gone"), "ctx"]);
    assert_eq!(ran.code, Some(3));
    assert!(ran.report().contains("invalid response status 404"), "{}", ran.stderr);
    let ran = build(&place, b"", &["--check", "-f", &server.url("/File?raw=1"), "ctx"]).ok();
    assert!(ran.stdout.contains("no warnings found"), "{}", ran.stdout);
}

#[test]
fn paths_that_are_no_context_are_told() {
    let place = Place::new(&[("Dockerfile", "FROM scratch")]);
    for (context, expect) in [
        ("gone", "unable to prepare context: path \"gone\" not found"),
        ("ctx/Dockerfile", "unable to prepare context: path \"ctx/Dockerfile\" is not a folder"),
        ("ftp://h/x", "unable to prepare context: path \"ftp://h/x\" not found"),
    ] {
        let ran = build(&place, b"", &[context]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.report().contains(&format!("ERROR: {expect}")), "{}", ran.stderr);
    }
    for (value, expect) in [
        ("x=gone", "failed to get build context x: `gone` is not a folder"),
        ("x=input:y", "the build context `input:y` is not supported"),
    ] {
        let ran = build(&place, b"", &["--build-context", value, "ctx"]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.report().contains(&format!("ERROR: {expect}")), "{}", ran.stderr);
    }
}

#[test]
fn a_named_context_may_be_a_url_or_another_stage() {
    let server = Server::start(|request, _| file(request, b"page"));
    let place = Place::new(&[(
        "Dockerfile",
        "FROM base\nCOPY --from=page /context /page\nENV X=1\n\
         FROM page AS only\n\
         FROM scratch AS made\nCOPY Dockerfile /made\nLABEL made=yes\nUSER 7\n",
    )]);
    let page = format!("page={}", server.url("/p"));
    let contexts = ["--build-context", &page, "--build-context", "base=target:made"];
    let words = [&contexts[..], &["--target", "only", "ctx"]].concat();
    build(&place, b"", &words).ok();
    assert_eq!(result(&place), ["context 0 page"]);
    place.write(
        "Dockerfile",
        &(fs_err::read_to_string(place.path("ctx/Dockerfile")).unwrap()
            + "FROM base\nCOPY --from=page /context /page\n"),
    );
    build(&place, b"", &[&contexts[..], &["ctx"]].concat()).ok();
    assert_eq!(result(&place).iter().map(|line| &line[..4]).collect::<Vec<_>>(), ["made", "page"]);
    let tagged = [&contexts[..], &["-t", "app:1", "ctx"]].concat();
    place.run(&tagged).ok();
    let config = place.run(&["inspect", "app:1"]).ok().stdout;
    assert!(config.contains("\"made\": \"yes\"") && config.contains("\"User\": \"7\""), "{config}");
    let ran = place.run(&["--build-context=scratchy=target:gone", "ctx"]);
    assert_ne!(ran.code, Some(101));
    place.write("Dockerfile", "FROM base AS one\nFROM two AS two\n");
    let ran =
        place.run(&["--build-context=base=target:two", "--build-context=two=target:one", "ctx"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.report().contains("circular dependency detected on stage"), "{}", ran.stderr);
}

#[test]
fn the_time_of_a_build_may_come_from_its_sources() {
    let server = Server::start(|request, _| file(request, b"FROM scratch\nCOPY context /\n"));
    let created = |place: &Place| {
        let config = place.run(&["inspect", "app:1"]).ok().stdout;
        let line = config.lines().find(|line| line.contains("\"created\"")).unwrap_or_default();
        line.trim().trim_end_matches(',').to_owned()
    };
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=context", "-t", "app:1"];
    // A URL has the time of the server's file.
    let place = Place::new(&[]);
    place.run(&[&epoch[..], &[&server.url("/x")]].concat()).ok();
    assert_eq!(created(&place), "\"created\": \"1994-11-06T08:49:37Z\"");
    // An archive has that of its newest file.
    let place = Place::new(&[]);
    let mut child = place.command(&[&epoch[..], &["-"]].concat());
    let mut child = child.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&project()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(created(&place), "\"created\": \"2001-09-09T01:46:40Z\"");
    // So may a stage that only downloads.
    let place = Place::new(&[]);
    place.write(
        "Dockerfile",
        &format!(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {} /\nFROM scratch\nCOPY --from=src / /\n",
            server.url("/f")
        ),
    );
    server.taken();
    place.run(&["-t", "app:1", "ctx"]).ok();
    assert_eq!(created(&place), "\"created\": \"1994-11-06T08:49:37Z\"");
    assert_eq!(server.taken().len(), 1);
    // A folder has none, and other names are refused.
    let ran = place.run(&["--build-arg=SOURCE_DATE_EPOCH=context", "-t", "app:1", "ctx"]).ok();
    assert!(!created(&place).contains("1994"), "{}", ran.stderr);
    let ran = place.run(&["--build-arg=SOURCE_DATE_EPOCH=noon", "ctx"]);
    assert_eq!(ran.code, Some(1));
    let report = ran.report();
    assert!(
        report.contains("invalid SOURCE_DATE_EPOCH: `noon`") && report.contains("help: "),
        "{report}"
    );
}

/// What was made of files that are no more as they were when they were hashed is nobody else's.
#[test]
fn what_changes_before_it_is_read_is_not_kept() {
    if !can_run() {
        return;
    }
    let readers = [
        "COPY f /out",
        "COPY f /out\nRUN true",
        "COPY d /d\nRUN cp /d/f /out",
        "COPY d /d\nRUN readlink /d/l > /out",
        "RUN --mount=type=bind,target=/m cp /m/f /out",
        "RUN --mount=type=bind,source=d,target=/m cat /m/f > /out",
    ];
    for reader in readers {
        let place = Place::new(&[]);
        let fill = |folder: &str, text: &str| {
            place.write(&format!("{folder}/f"), text);
            place.write(&format!("{folder}/d/f"), text);
            let link = place.path("ctx").join(folder).join("d/l");
            let _ = fs_err::remove_file(&link);
            fs_err::os::unix::fs::symlink(text.trim(), link).unwrap();
        };
        for folder in ["one", "two"] {
            fill(folder, "old\n");
            let slow = format!("FROM busybox\nRUN echo started; sleep 1\n{reader}\n");
            place.write(&format!("{folder}/Dockerfile"), &slow);
        }
        let images = support::repository().join("testdata/conformance/images/busybox");
        let base = format!("--build-context=busybox=oci-layout://{}:latest", images.display());
        let words = ["--progress=plain", &base, "-o", "type=tar,dest=out.tar"];
        let mut first = place.command(&[&words[..], &["ctx/one"]].concat());
        let mut first = first.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(first.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" started")), "{reader}");
        fill("one", "new\n");
        let told = lines.filter(|line| line.contains("files of the context have changed")).count();
        assert!(first.wait().unwrap().success(), "{reader}");
        assert!(told > 0, "{reader}");
        place.run(&[&words[..], &["ctx/two"]].concat()).ok();
        let mut out = Command::new("tar");
        out.args(["-xOf", "out.tar", "out"]).current_dir(place.path(""));
        assert_eq!(place.ran(out.output().unwrap()).stdout, "old\n", "{reader}");
    }
}

#[test]
fn steps_see_the_proxies_of_docker_and_are_cached_without_them() {
    if !can_run() {
        return;
    }
    let place =
        Place::new(&[("Dockerfile", "FROM busybox\nRUN echo \"p=$http_proxy$HTTPS_PROXY\"\n")]);
    fs_err::create_dir(place.path("docker")).unwrap();
    let config = |text: &str| fs_err::write(place.path("docker/config.json"), text).unwrap();
    config(r#"{"proxies": {"default": {"httpProxy": "http://one", "httpsProxy": "http://two"}}}"#);
    let first = place.build(&["--progress=plain", "-t", "app:1"]).ok();
    assert!(first.stderr.contains("p=http://onehttp://two"), "{}", first.stderr);
    config("{}");
    let second = place.build(&["--progress=plain", "-t", "app:1"]).ok();
    assert!(second.stderr.contains("CACHED"), "{}", second.stderr);
}
