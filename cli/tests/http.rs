//! `ADD` of URLs with the real executable, against a server on loopback.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/server.rs"]
mod server;
mod support;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use llb::Digest;
use server::{Answer, DATE, Server, file};
use support::{Place, Ran, can_run};
use tree::codec::{Codec, Compressor};

/// `name mode uid:gid mtime content` of every path of a tar, in order.
#[track_caller]
fn tar(path: &Path) -> Vec<String> {
    let mut tar = tree::tar::Reader::new(fs_err::File::open(path).unwrap());
    let mut lines = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        let mut text = String::new();
        let content = if entry.size < 100 {
            tar.read_to_string(&mut text).unwrap();
            text.as_str()
        } else {
            "…"
        };
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let is_file = entry.kind == tree::tar::EntryKind::File;
        lines.push(if is_file {
            format!(
                "{name} {:o} {}:{} {} {content}",
                entry.mode, entry.uid, entry.gid, entry.mtime.seconds
            )
        } else {
            format!("{name}/ {:o} {}:{}", entry.mode, entry.uid, entry.gid)
        });
    }
    lines
}

/// Builds a Dockerfile into a tar.
fn build(place: &Place, dockerfile: &str, words: &[&str]) -> Ran {
    place.write("Dockerfile", dockerfile);
    place.build(&[&["--progress=plain", "-o", "type=tar,dest=out.tar"], words].concat())
}

/// As [`build`]; what is in the tar.
#[track_caller]
fn built(place: &Place, dockerfile: &str, words: &[&str]) -> Vec<String> {
    build(place, dockerfile, words).ok();
    tar(&place.path("out.tar"))
}

fn place() -> Place {
    Place::new(&[])
}

/// Files of that name in the layers of the store.
fn stored(place: &Place, name: &str) -> Vec<PathBuf> {
    let layers = fs_err::read_dir(place.path("state/layers")).unwrap();
    let files = layers.map(|layer| layer.unwrap().path().join("fs").join(name));
    files.filter(|file| file.exists()).collect()
}

#[test]
fn a_download_has_mode_owner_and_time_of_the_reference() {
    let server = Server::start(|request, _| match request.target.as_str() {
        "/dir/a.bin?x=/y" => Answer::ok("a").header(format!("Last-Modified: {DATE}")),
        "/chunked" => Answer::ok("no length and no time").chunked(),
        "/" => Answer::ok("unnamed").header("last-modified: not a date"),
        "/a%20b" => Answer::ok("spaced"),
        "/gz" => Answer::ok("\x1f kept as it is").header("content-encoding: gzip"),
        _ => Answer::status("404 Not Found"),
    });
    let url = |path: &str| server.url(path);
    let dockerfile = format!(
        "FROM scratch\nWORKDIR /w\nADD {} /dl/\nADD {} rel\nADD {} ./\nADD --chmod=640 --chown=3:4 {} /\nADD {} /\n",
        url("/dir/a.bin?x=/y#frag"),
        url("/chunked"),
        url("/"),
        url("/gz"),
        url("/a%20b"),
    );
    assert_eq!(
        built(&place(), &dockerfile, &[]),
        [
            "a b 600 0:0 0 spaced",
            "dl/ 755 0:0",
            "dl/a.bin 600 0:0 784111777 a",
            "gz 640 3:4 0 \u{1f} kept as it is",
            "w/ 755 0:0",
            "w/__unnamed__ 600 0:0 0 unnamed",
            "w/rel 600 0:0 0 no length and no time",
        ]
    );
}

#[test]
fn a_second_build_asks_once_and_moves_nothing() {
    let server = Server::of_files(&[("/a", b"content")]);
    let (place, dockerfile) = (place(), format!("FROM scratch\nADD {} /a\n", server.url("/a")));
    let first = built(&place, &dockerfile, &[]);
    assert_eq!(server.taken().len(), 1);
    let second = build(&place, &dockerfile, &[]).ok();
    assert_eq!(tar(&place.path("out.tar")), first);
    let seen = server.taken();
    assert_eq!(seen.len(), 1);
    let etag = format!("\"{}\"", Digest::of(b"content"));
    assert_eq!(seen[0].header("if-none-match"), Some(etag.as_str()));
    assert_eq!(seen[0].header("if-modified-since"), Some(DATE));
    assert!(second.stderr.contains("CACHED"), "{}", second.stderr);
    // Another place for the same file is the same input.
    let other = Server::of_files(&[("/other/a", b"content")]);
    let moved = dockerfile.replace(&server.url("/a"), &other.url("/other/a"));
    let third = build(&place, &moved, &[]).ok();
    assert!(third.stderr.contains("CACHED"), "{}", third.stderr);
}

#[test]
fn a_file_that_changed_is_added_anew() {
    let server =
        Server::start(|request, earlier| file(request, if earlier < 2 { b"old" } else { b"new!" }));
    let (place, dockerfile) = (place(), format!("FROM scratch\nADD {} /a\n", server.url("/a")));
    for expect in ["old", "old", "new!", "new!"] {
        assert_eq!(built(&place, &dockerfile, &[]), [format!("a 600 0:0 784111777 {expect}")]);
    }
}

#[test]
fn a_server_without_validators_sends_the_file_again_and_the_step_stays_cached() {
    let server = Server::start(|_, _| Answer::ok("x"));
    let (place, dockerfile) = (place(), format!("FROM scratch\nADD {} /a\n", server.url("/a")));
    build(&place, &dockerfile, &[]).ok();
    let before = stored(&place, "a");
    let second = build(&place, &dockerfile, &[]).ok();
    assert!(second.stderr.contains("CACHED"), "{}", second.stderr);
    assert_eq!(server.seen().len(), 2);
    assert_eq!(stored(&place, "a"), before, "the same file is kept once");
}

#[test]
fn a_pinned_file_that_is_in_the_store_needs_no_request() {
    let server = Server::of_files(&[("/a", b"pinned"), ("/elsewhere/a", b"pinned")]);
    let place = place();
    let dockerfile = |path: &str, dest: &str| {
        let sum = Digest::of(b"pinned");
        format!("FROM scratch\nADD --checksum={sum} {} {dest}\n", server.url(path))
    };
    let expect = |name: &str| [format!("{name} 600 0:0 784111777 pinned")];
    assert_eq!(built(&place, &dockerfile("/a", "/a"), &[]), expect("a"));
    assert_eq!(server.taken().len(), 1);
    for (path, dest, words) in [
        ("/a", "/a", &[][..]),
        ("/a", "/b", &[]),
        ("/elsewhere/a", "/c", &[]),
        ("/a", "/a", &["--no-cache"]),
    ] {
        assert_eq!(built(&place, &dockerfile(path, dest), words), expect(&dest[1..]));
        assert!(server.seen().is_empty(), "{path} {dest}");
    }
}

#[test]
fn a_wrong_checksum_is_told_with_both() {
    let server = Server::of_files(&[("/a", b"other")]);
    let want = Digest::of(b"wanted");
    let place = place();
    let dockerfile = format!("FROM scratch\n\nADD --checksum={want} {} /a\n", server.url("/a"));
    let ran = build(&place, &dockerfile, &[]);
    let url = server.url("/a");
    let got = Digest::of(b"other");
    assert_eq!(ran.code, Some(1));
    let report = ran.report();
    assert!(
        report.contains(&format!(
            "ERROR: failed to solve: digest mismatch for {url}: {got} (expected: {want})"
        )),
        "{report}"
    );
    assert!(report.contains("Dockerfile:3\n") && report.contains("  help: "), "{report}");
    // It still fails, and the right one still works.
    assert_eq!(build(&place, &dockerfile, &[]).code, Some(1));
    let right = dockerfile.replace(&want.to_string(), &got.to_string());
    assert_eq!(built(&place, &right, &[]), ["a 600 0:0 784111777 other"]);
}

#[test]
fn archives_are_unpacked_only_when_asked() {
    let mut writer = tree::tar::Writer::new(Vec::new());
    let mut entry = tree::tar::Entry::new(tree::tar::EntryKind::File, b"in/side".to_vec());
    (entry.size, entry.mode, entry.uid, entry.gid) = (2, 0o640, 7, 8);
    writer.append_file(&entry, &mut &b"hi"[..]).unwrap();
    let bytes = writer.finish().unwrap();
    let server = Server::of_files(&[("/x.tar", &bytes)]);
    let url = server.url("/x.tar");
    let place = place();
    let unpacked = format!("FROM scratch\nADD --unpack=true {url} /out\n");
    assert_eq!(
        built(&place, &unpacked, &[]),
        ["out/ 755 0:0", "out/in/ 755 0:0", "out/in/side 640 7:8 0 hi"]
    );
    let kept = format!("FROM scratch\nADD {url} /out\nADD --link {url} /linked/\n");
    assert_eq!(
        built(&place, &kept, &[]),
        ["linked/ 755 0:0", "linked/x.tar 600 0:0 784111777 …", "out 600 0:0 784111777 …"]
    );
    assert_eq!(server.seen().len(), 2, "one request for each build");
}

#[test]
fn failures_of_the_network_are_told_at_their_line() {
    let server = Server::start(|request, _| match request.target.as_str() {
        "/half" => Answer::ok("only a half").cut(4),
        "/loop" => Answer::status("302 Found").header("location: /loop"),
        "/file" => Answer::status("302 Found").header("location: file:///etc/passwd"),
        "/500" => Answer::status("500 Internal Server Error"),
        _ => Answer::status("404 Not Found").body("<html>"),
    });
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, expect) in [
        (server.url("/missing"), "invalid response status 404"),
        (server.url("/500"), "invalid response status 500"),
        (server.url("/loop"), "the server redirects more than 10 times"),
        (server.url("/file"), "the server redirected to a `file:` address"),
        (server.url("/half"), "the download broke off after 4 of 11 bytes"),
        (format!("http://{gone}/x"), "connection refused"),
    ] {
        let place = place();
        let ran = build(&place, &format!("FROM scratch\n# x\nADD {url} /a\n"), &[]);
        let report = ran.report();
        assert_eq!(ran.code, Some(3), "{report}");
        assert!(report.contains("   3 | >>> ADD http://"), "{report}");
        let error = format!("ERROR: failed to solve: failed to fetch {url}: ");
        assert!(report.contains(&error) && report.contains(expect), "{expect}: {report}");
        assert!(stored(&place, "a").is_empty());
    }
}

#[test]
fn an_interrupted_download_goes_on_where_it_broke_off() {
    let body: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    let copy = body.clone();
    let server = Server::start(move |request, earlier| {
        let answer = file(request, &copy);
        if earlier == 0 { answer.cut(5_000_000) } else { answer }
    });
    let place = place();
    let dockerfile = format!("FROM scratch\nADD {} /a\n", server.url("/a"));
    place.write("Dockerfile", &dockerfile);
    place.build(&["-o", "out"]).ok();
    assert!(fs_err::read(place.path("out/a")).unwrap() == body);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    let range = seen[1].header("range").unwrap();
    let from: usize =
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from > 4_000_000 && from <= 5_000_000, "{range}");
}

#[test]
fn urls_are_asked_at_once_and_each_only_once() {
    let server = Server::start(|request, _| {
        file(request, request.target.as_bytes()).late(Duration::from_millis(500))
    });
    let mut dockerfile = "FROM scratch\n".to_owned();
    for number in 0..6 {
        dockerfile += &format!("ADD {} /{number}\n", server.url(&format!("/{}", number % 5)));
    }
    // The same URL under another name.
    dockerfile += "COPY --from=page /context /page\n";
    let context = format!("--build-context=page={}", server.url("/0"));
    let place = place();
    for round in 0..2 {
        build(&place, &dockerfile, &[&context]).ok();
        assert_eq!(server.taken().len(), 5, "round {round}");
        assert!(server.most_at_once() >= 4, "{} at once", server.most_at_once());
    }
}

#[test]
fn a_damaged_download_is_fetched_again() {
    let server = Server::of_files(&[("/f", b"precious")]);
    let (place, sum) = (place(), Digest::of(b"precious"));
    for flag in [String::new(), format!("--checksum={sum} ")] {
        let dockerfile = format!("FROM scratch\nADD {flag}{} /g\n", server.url("/f"));
        build(&place, &dockerfile, &[]).ok();
        for damage in [&b"precioux"[..], b"short", b""] {
            let files = stored(&place, "f");
            assert!(!files.is_empty());
            for file in files {
                if damage.is_empty() {
                    fs_err::remove_file(file).unwrap();
                } else {
                    fs_err::write(file, damage).unwrap();
                }
            }
            server.taken();
            assert_eq!(
                built(&place, &dockerfile, &["--no-cache"]),
                ["g 600 0:0 784111777 precious"]
            );
            assert!(server.taken().iter().any(|request| request.header("if-none-match").is_none()));
        }
    }
}

#[test]
fn a_build_that_is_killed_leaves_nothing_that_is_trusted() {
    let server = Server::start(|request, earlier| {
        let body = vec![b'x'; 1 << 20];
        if earlier == 0 { file(request, &body).silent(1 << 19) } else { file(request, &body) }
    });
    let place = place();
    place.write("Dockerfile", &format!("FROM scratch\nADD {} /a\n", server.url("/a")));
    let words = ["-o", "out", "ctx"];
    let mut killed = place.command(&words).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| {
        let half = files_below(&place.path("state/ingest"));
        half.iter()
            .any(|path| path.ends_with("fs/a") && path.metadata().is_ok_and(|it| it.len() > 0))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    place.run(&words).ok();
    assert_eq!(fs_err::read(place.path("out/a")).unwrap(), vec![b'x'; 1 << 20]);
    let seen = server.seen();
    assert_eq!((seen.len(), seen[1].header("range")), (2, None));
}

#[track_caller]
fn wait_for(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ctrl_c_ends_a_download_at_once() {
    for before in [None, Some(100)] {
        let server = Server::start(move |_, _| match before {
            None => Answer::ok("").late(Duration::from_secs(60)),
            Some(bytes) => Answer::ok(vec![0; 1000]).silent(bytes),
        });
        let place = place();
        place.write("Dockerfile", &format!("FROM scratch\nADD {} /a\n", server.url("/a")));
        let child = place.command(&["-o", "out", "ctx"]).stderr(Stdio::piped()).spawn().unwrap();
        wait_for(|| server.seen().len() == 1);
        std::thread::sleep(Duration::from_millis(200));
        let begun = Instant::now();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        let took = begun.elapsed();
        assert_eq!(output.status.code(), Some(130));
        assert!(took < Duration::from_millis(400), "{took:?}");
        assert_eq!(fs_err::read_dir(place.path("state/ingest")).unwrap().count(), 0);
    }
}

#[test]
fn ctrl_c_ends_the_unpacking_of_an_archive_at_once() {
    let place = place();
    place.write("Dockerfile", "FROM scratch\nADD zeros.tar.zst /\n");
    let file = fs_err::File::create(place.path("ctx/zeros.tar.zst")).unwrap();
    let zstd = Compressor::new(file, Codec::ZSTD).unwrap();
    let mut writer = tree::tar::Writer::new(zstd);
    let mut entry = tree::tar::Entry::new(tree::tar::EntryKind::File, b"zeros".to_vec());
    (entry.size, entry.mode) = (4 << 30, 0o644);
    writer.append_file(&entry, &mut std::io::repeat(0)).unwrap();
    writer.finish().unwrap().finish().unwrap();
    let child = place.command(&["-o", "out", "ctx"]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(|| {
        let half = files_below(&place.path("state/ingest"));
        half.iter().any(|path| path.ends_with("zeros"))
    });
    let begun = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let took = begun.elapsed();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_millis(600), "{took:?}");
    assert_eq!(files_below(&place.path("state/ingest")), Vec::<PathBuf>::new());
}

#[test]
fn a_failed_url_ends_the_downloads_beside_it() {
    let server = Server::start(|request, _| match request.target.as_str() {
        "/slow" => Answer::ok(vec![0; 1000]).silent(10),
        _ => Answer::status("404 Not Found").late(Duration::from_millis(300)),
    });
    let dockerfile =
        format!("FROM scratch\nADD {} {} /\n", server.url("/slow"), server.url("/missing"));
    let begun = Instant::now();
    let ran = build(&place(), &dockerfile, &[]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ran.code, Some(3));
    assert!(ran.report().contains("invalid response status 404"), "{}", ran.stderr);
}

#[test]
fn credentials_of_a_url_are_shown_and_kept_nowhere() {
    let server = Server::start(|request, _| match request.header("authorization") {
        Some("Basic dXNlcjpodW50ZXIy") if request.target == "/a" => file(request, b"secret file"),
        Some("Basic dXNlcjpodW50ZXIy") => Answer::status("404 Not Found"),
        _ => Answer::status("401 Unauthorized"),
    });
    let (place, host) = (place(), &server.host);
    let url = format!("http://user:hunter2@{host}/a");
    place.write("Dockerfile", "FROM scratch\nARG URL\nADD $URL /a\n");
    let words = ["--progress=plain", "-t", "app:1", "--build-arg"];
    let mut shown = String::new();
    for path in ["", "missing"] {
        let arg = format!("URL={url}{path}");
        let ran = place.build(&[&words[..], &[arg.as_str()]].concat());
        assert_eq!(ran.code == Some(0), path.is_empty(), "{}", ran.stderr);
        shown += &ran.stderr;
    }
    assert!(shown.contains(&format!("ADD http://xxxxx:xxxxx@{host}/a /a")), "{shown}");
    assert!(shown.contains("failed to fetch http://xxxxx:xxxxx@"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(
        server.seen().iter().filter(|seen| seen.header("authorization").is_none()).count(),
        0
    );
    // The value of an ARG is in the history by itself.
    let inspected = place.run(&["inspect", "app:1"]).ok().stdout;
    let added = inspected.lines().find(|line| line.contains("ADD ")).unwrap();
    assert!(!added.contains("hunter2"), "{added}");
    place.write("Dockerfile", &format!("FROM scratch\nADD {url} /b\n"));
    let state = place.path("state");
    fs_err::remove_dir_all(&state).unwrap();
    place.build(&["-t", "app:2"]).ok();
    for path in files_below(&state) {
        let bytes = fs_err::read(&path).unwrap();
        let found = bytes.windows(7).any(|window| window == b"hunter2");
        assert!(!found, "{}", path.display());
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

#[test]
fn proxies_of_the_environment_are_used_but_not_for_loopback() {
    let proxy = Server::start(|_, _| Answer::ok("by proxy"));
    let server = Server::start(|_, _| Answer::ok("direct"));
    let place = place();
    let dockerfile =
        format!("FROM scratch\nADD http://files.invalid/a /a\nADD {} /b\n", server.url("/b"));
    place.write("Dockerfile", &dockerfile);
    let mut command = place.command(&["-o", "out", "ctx"]);
    let output = command.env("http_proxy", proxy.url("")).env_remove("no_proxy").output().unwrap();
    place.ran(output).ok();
    let read = |name: &str| fs_err::read_to_string(place.path("out").join(name)).unwrap();
    assert_eq!((read("a"), read("b")), ("by proxy".to_owned(), "direct".to_owned()));
    let targets: Vec<String> = proxy.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["http://files.invalid/a"]);
}

#[test]
fn a_step_that_uses_a_download_is_cached_with_it() {
    if !can_run() {
        return;
    }
    let server = Server::of_files(&[("/tool", b"#!/bin/sh\necho made > /made\n")]);
    let place = place();
    let dockerfile = format!(
        "FROM busybox\nADD --chmod=755 {} /bin/tool\nRUN tool\nRUN --mount=from=ctx,target=/c cat /c/context > /copy\n",
        server.url("/tool")
    );
    let context = format!("--build-context=ctx={}", server.url("/tool"));
    let first = build(&place, &dockerfile, &[&context]).ok();
    assert!(!first.stderr.contains("CACHED"), "{}", first.stderr);
    assert_eq!(server.taken().len(), 1);
    let second = build(&place, &dockerfile, &[&context]).ok();
    assert_eq!(second.stderr.matches(" CACHED\n").count(), 3, "{}", second.stderr);
    assert_eq!(server.taken().len(), 1);
    let entries = tar(&place.path("out.tar"));
    for expect in ["made 644 0:0", "copy 644 0:0", "bin/tool 755 0:0 784111777"] {
        assert!(entries.iter().any(|entry| entry.starts_with(expect)), "{expect}: {entries:?}");
    }
}
