//! What hostile archives, images, contexts and steps try, against the real executable: each must stay in its place.
//!
//! Archives are made here, byte by byte, as no well-behaved program would. Attacks on single parts are tested beside those
//! (`sandbox/tests/steps`, `tree/src/apply`, `registry/tests/hostile.rs`, `cli/tests/git/hostile.rs`).

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use llb::Digest;
use support::{Place, Ran, can_run};

/// One header of a tar and the bytes behind it.
fn member(name: &[u8], kind: u8, link: &[u8], data: &[u8]) -> Vec<u8> {
    sized(name, kind, link, data.len() as u64, data)
}

/// As [`member`], with a size that may be a lie.
fn sized(name: &[u8], kind: u8, link: &[u8], size: u64, data: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name[..name.len().min(100)]);
    put(100, b"0004755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &link[..link.len().min(100)]);
    put(257, b"ustar\x0000");
    // Numbers of a device: memory of the machine.
    put(329, b"0000001\0");
    put(337, b"0000001\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A record of a PAX header for the member behind it.
fn extended(key: &str, value: &str) -> Vec<u8> {
    let bare = format!(" {key}={value}\n");
    let mut length = bare.len() + 1;
    while format!("{length}{bare}").len() != length {
        length = format!("{length}{bare}").len();
    }
    member(b"pax", b'x', b"", format!("{length}{bare}").as_bytes())
}

fn ended(members: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = members.concat();
    tar.resize(tar.len() + 1024, 0);
    tar
}

const CANARY: &str = "what is outside\n";
const EVIL: &[u8] = b"evil\n";

/// A file of the corpus, with what stands for its words in braces.
fn attack(name: &str, words: &[(&str, &str)]) -> String {
    let path = support::repository().join("testdata/attacks").join(name);
    let text = fs_err::read_to_string(path).unwrap();
    words.iter().fold(text, |text, (word, is)| text.replace(&format!("{{{word}}}"), is))
}

/// The archives of the corpus.
fn archives(outside: &Path) -> Vec<(String, Vec<u8>)> {
    let outside = outside.to_str().unwrap();
    let target = format!("{outside}/canary");
    let up = "../".repeat(12) + target.trim_start_matches('/');
    let long = "n".repeat(5000);
    let words = [("outside", outside), ("target", &target), ("up", &up), ("long", &long)];
    let all: serde_json::Value = serde_json::from_str(&attack("archives.json", &words)).unwrap();
    let archive = |archive: &serde_json::Value| {
        let members: Vec<_> = archive["entries"].as_array().unwrap().iter().map(entry).collect();
        let tar = match archive["keep"].as_u64() {
            Some(keep) => members.concat()[..keep as usize].to_vec(),
            None => ended(&members),
        };
        (archive["name"].as_str().unwrap().to_owned(), tar)
    };
    let all: Vec<_> = all.as_array().unwrap().iter().map(archive).collect();
    assert!(all.len() > 20);
    all
}

/// One entry of an archive, with the header that extends it.
fn entry(entry: &serde_json::Value) -> Vec<u8> {
    let text = |key: &str| entry[key].as_str().unwrap_or_default();
    let (kind, data) = match text("kind") {
        "" => (b'0', EVIL),
        "hardlink" => (b'1', &b""[..]),
        "symlink" => (b'2', &b""[..]),
        "device" => (b'3', &b""[..]),
        "folder" => (b'5', &b""[..]),
        other => unreachable!("kind {other}"),
    };
    let mut bytes = match entry["extended"].as_array() {
        Some(pair) => extended(pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        None => Vec::new(),
    };
    let (path, to) = (text("path").as_bytes(), text("to").as_bytes());
    bytes.extend(match entry["size"].as_u64() {
        Some(size) => sized(path, kind, to, size, b""),
        None => member(path, kind, to, data),
    });
    bytes
}

/// A place with a folder outside that nothing may change.
fn guarded() -> (Place, PathBuf) {
    let place = Place::new(&[]);
    let outside = place.path("outside");
    fs_err::create_dir(&outside).unwrap();
    fs_err::write(outside.join("canary"), CANARY).unwrap();
    (place, outside)
}

#[track_caller]
fn check_outside(outside: &Path, name: &str, ran: &Ran) {
    // A crash has no code, or that of a panic.
    assert!(matches!(ran.code, Some(0..=4)), "{name}: {:?} {}", ran.code, ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{name}: {}", ran.stderr);
    let canary = outside.join("canary");
    assert_eq!(fs_err::read_to_string(&canary).unwrap(), CANARY, "{name}: {}", ran.stderr);
    let meta = fs_err::metadata(&canary).unwrap();
    assert_eq!((meta.nlink(), meta.mode() & 0o7777), (1, 0o644), "{name}: it was linked");
    assert_eq!(fs_err::read_dir(outside).unwrap().count(), 1, "{name}: something was made");
}

#[test]
fn archives_that_are_added_stay_in_the_root() {
    let (place, outside) = guarded();
    place.write("Dockerfile", "FROM scratch\nADD evil.tar /sub/\n");
    for (name, tar) in archives(&outside) {
        fs_err::write(place.path("ctx/evil.tar"), tar).unwrap();
        check_outside(&outside, &name, &place.build(&["-o", "type=local,dest=out"]));
        check_outside(&outside, &name, &place.build(&["-o", "type=oci,dest=out.tar"]));
        let _ = fs_err::remove_dir_all(place.path("out"));
    }
}

#[test]
fn archives_as_contexts_stay_in_their_place() {
    let (place, outside) = guarded();
    let text = b"FROM scratch\nCOPY . /sub/\n";
    for (name, tar) in archives(&outside) {
        let whole = [member(b"Dockerfile", b'0', b"", text), tar].concat();
        fs_err::write(place.path("context.tar"), whole).unwrap();
        let mut command = place.command(&["-o", "type=local,dest=out", "-"]);
        command.stdin(fs_err::File::open(place.path("context.tar")).unwrap().into_parts().0);
        check_outside(&outside, &name, &place.ran(command.output().unwrap()));
        let _ = fs_err::remove_dir_all(place.path("out"));
    }
}

/// An OCI layout with an image of one layer.
fn layout(folder: &Path, layer: &[u8]) {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).unwrap();
        let (digest, size) = (digest.to_string(), bytes.len());
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": size })
    };
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer).to_string()] },
    });
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let layers = [blob(layer, "layer.v1.tar")];
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config, "layers": layers,
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = serde_json::json!({ "org.opencontainers.image.ref.name": "1" });
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs_err::write(folder.join("index.json"), index.to_string()).unwrap();
    fs_err::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn layers_of_images_stay_in_the_root() {
    let (place, outside) = guarded();
    // What the image is copied from must be unpacked.
    place.write("Dockerfile", "FROM base AS b\nFROM scratch\nCOPY --from=b / /\n");
    for (name, tar) in archives(&outside) {
        let image = place.path("image");
        let _ = fs_err::remove_dir_all(&image);
        layout(&image, &tar);
        let base = format!("--build-context=base=oci-layout://{}:1", image.display());
        check_outside(&outside, &name, &place.build(&[&base, "-o", "type=local,dest=out"]));
        let _ = fs_err::remove_dir_all(place.path("out"));
    }
}

#[test]
fn a_layer_that_grows_without_end_is_given_up_or_done_with_little_memory() {
    let (place, outside) = guarded();
    // 200 MB of zeros in 200 KB.
    let zeros = vec![0; 200 << 20];
    let tar = ended(&[member(b"zeros", b'0', b"", &zeros)]);
    fs_err::write(place.path("ctx/bomb.tar"), &tar).unwrap();
    let done = Command::new("gzip").arg("-1").arg(place.path("ctx/bomb.tar")).status().unwrap();
    assert!(done.success());
    place.write("Dockerfile", "FROM scratch\nADD bomb.tar.gz /\n");
    let limit = format!(
        "ulimit -v 4000000; exec '{}' -o type=cacheonly ctx",
        env!("CARGO_BIN_EXE_bricklayer")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &limit]).env("BRICKLAYER_ROOT", place.path("state"));
    command.stdin(Stdio::null()).current_dir(place.folder.path());
    let ran = place.ran(command.output().unwrap()).ok();
    check_outside(&outside, "bomb", &ran);
}

#[test]
fn a_context_whose_folders_turn_into_links_shows_nothing_else() {
    let (place, outside) = guarded();
    let folder = place.path("ctx/d");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("canary"), "inside\n").unwrap();
    symlink(&outside, place.path("ctx/other")).unwrap();
    place.write("Dockerfile", "FROM scratch\nCOPY d/ /d/\n");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, other) = (place.path("ctx/d"), place.path("ctx/other"));
            let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(cwd, &here, cwd, &other, exchange).unwrap();
            }
        });
        for _ in 0..40 {
            let ran = place.build(&["--no-cache", "-o", "type=local,dest=out"]);
            let copied = fs_err::read_to_string(place.path("out/d/canary"));
            // Losing the race may fail; it may not find anything else.
            assert!(
                copied.is_err() || copied.is_ok_and(|text| text == "inside\n"),
                "{}",
                ran.stderr
            );
            let _ = fs_err::remove_dir_all(place.path("out"));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn mount_targets_and_their_clean_up_stay_in_the_root() {
    if !can_run() {
        return;
    }
    let (place, outside) = guarded();
    let at = outside.display().to_string();
    fs_err::create_dir_all(place.path("empty/b/c")).unwrap();
    let empty = place.path("empty");
    let words = [("outside", at.as_str()), ("empty", empty.to_str().unwrap())];
    place.write("Dockerfile", &attack("mount-targets.Dockerfile", &words));
    let ran = place.build(&["--progress=plain", "-o", "type=cacheonly"]);
    check_outside(&outside, "targets", &ran);
    // What was made for a mount is taken away in the root, never where a link leads.
    assert!(place.path("empty/b/c").is_dir(), "{}", ran.stderr);
    for mount in ["source=/src", "source=/dir/up"] {
        let words = [("outside", at.as_str()), ("source", mount)];
        let text = attack("mount-sources.Dockerfile", &words);
        place.write("Dockerfile", &text);
        let ran = place.build(&["--progress=plain", "-o", "type=cacheonly"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        check_outside(&outside, mount, &ran);
    }
}

/// Lines that a step marked with `out: `.
fn marked(ran: &Ran) -> Vec<String> {
    let lines = ran.stderr.lines().filter_map(|line| line.split_once(" out: "));
    let lines = lines.filter(|(before, _)| before.split(' ').count() == 2);
    lines.map(|(_, line)| line.to_owned()).collect()
}

#[test]
fn a_step_sees_nothing_of_the_builder() {
    if !can_run() {
        return;
    }
    let (place, outside) = guarded();
    place.write("Dockerfile", &attack("builder.Dockerfile", &[]));
    let images = support::repository().join("testdata/conformance/images/busybox:latest");
    // A builder whose parent has left descriptors of the machine open, and put secrets into its environment.
    let line = format!(
        "exec 7< '{}' 8>> '{}' 9< /; exec '{}' --progress=plain --secret id=tok,env=TOKEN -o type=cacheonly \
         --build-context=busybox=oci-layout://{} ctx",
        outside.display(),
        outside.join("canary").display(),
        env!("CARGO_BIN_EXE_bricklayer"),
        images.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("BRICKLAYER_ROOT", place.path("state"));
    command.env("BUILDER_CANARY", "1").env("TOKEN", "SECRET-OF-OTHERS");
    command.stdin(Stdio::null()).current_dir(place.folder.path());
    let ran = place.ran(command.output().unwrap()).ok();
    let lines = marked(&ran);
    let numbers: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.parse::<u32>().is_ok()).collect();
    // The shell has its own for the list and the pipe.
    assert!(numbers.iter().all(|number| !["7", "8", "9"].contains(number)), "{lines:?}");
    let rest: Vec<&str> =
        lines.iter().map(String::as_str).filter(|line| line.parse::<u32>().is_err()).collect();
    assert_eq!(rest[0], "cwd /", "{lines:?}");
    let processes: u32 = rest[1].strip_prefix("processes ").unwrap().parse().unwrap();
    assert!(processes <= 4, "{lines:?}");
    assert_eq!(rest[2..], ["root", "end"], "{lines:?}");
    check_outside(&outside, "descriptors", &ran);
}

#[test]
fn a_working_directory_or_user_of_the_kernels_leads_nowhere() {
    if !can_run() {
        return;
    }
    let (place, outside) = guarded();
    for fd in ["3", "7", "9", "12"] {
        let words = [("fd", fd)];
        place.write("Dockerfile", &attack("working-directory.Dockerfile", &words));
        let ran = place.build(&["--progress=plain", "-o", "type=cacheonly"]);
        assert_ne!(ran.code, Some(0), "{}", ran.stderr);
        assert!(!ran.stderr.contains(CANARY), "{}", ran.stderr);
        check_outside(&outside, "working directory", &ran);
    }
    let users = [
        ("ln -sf /proc/self/environ /etc/passwd", "nobody"),
        ("rm /etc/passwd && mkfifo /etc/passwd", "nobody"),
        ("rm /etc/passwd && truncate -s 20G /etc/passwd", "nobody"),
        ("ln -sf /dev/zero /etc/group", "root:wheel"),
    ];
    for (change, user) in users {
        let words = [("change", change), ("user", user)];
        place.write("Dockerfile", &attack("user.Dockerfile", &words));
        let began = std::time::Instant::now();
        let ran = place.build(&["--progress=plain", "-o", "type=cacheonly"]);
        assert_eq!(ran.code, Some(1), "{change}: {}", ran.stderr);
        assert!(began.elapsed().as_secs() < 60, "{change}: it took long");
        check_outside(&outside, change, &ran);
    }
}

#[test]
fn steps_change_nothing_that_others_have() {
    if !can_run() {
        return;
    }
    let (place, _) = guarded();
    let first = "FROM busybox AS a\nRUN echo one > /f && ln /f /g && chmod 600 /f\n";
    place.write("Dockerfile", &format!("{first}FROM scratch\nCOPY --from=a /f /g /\n"));
    place.build(&["-o", "before"]).ok();
    // Begins with the same steps.
    place.write("Dockerfile", &attack("layers.Dockerfile", &[]));
    place.build(&["-o", "type=cacheonly"]).ok();
    place.write("Dockerfile", &format!("{first}FROM scratch\nCOPY --from=a /f /g /\n"));
    place.build(&["-o", "after"]).ok();
    for name in ["f", "g"] {
        assert_eq!(fs_err::read_to_string(place.path("after").join(name)).unwrap(), "one\n");
        let mode = fs_err::metadata(place.path("after").join(name)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn other_users_of_the_machine_reach_no_program_of_an_image() {
    if !can_run() {
        return;
    }
    let (place, _) = guarded();
    // The place itself is closed to others by default.
    fs_err::set_permissions(place.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    place.write(
        "Dockerfile",
        "FROM busybox\nRUN cp /bin/busybox /su-id && chmod 4755 /su-id\nCOPY Dockerfile /d\n",
    );
    place.build(&["-o", "type=cacheonly"]).ok();
    // With a folder that somebody else made it is the same.
    fs_err::create_dir(place.path("made")).unwrap();
    fs_err::set_permissions(place.path("made"), PermissionsExt::from_mode(0o755)).unwrap();
    let root = format!("--root={}", place.path("made").display());
    place.build(&[&root, "-o", "type=cacheonly"]).ok();
    for state in ["state", "made"] {
        let find = |user: u32| {
            let mut find = Command::new("find");
            find.arg(place.path(state)).args(["-name", "su-id", "-perm", "-4000"]);
            let output = find.uid(user).gid(user).current_dir("/").output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert!(find(0).ends_with("/su-id\n"), "{state}: it is not in the store");
        assert_eq!(find(54_321), "", "{state}");
    }
}

#[test]
fn a_private_cache_mount_is_not_another_builds() {
    if !can_run() {
        return;
    }
    let (place, _) = guarded();
    let images = support::repository().join("testdata/conformance/images/busybox:latest");
    let base = format!("--build-context=busybox=oci-layout://{}", images.display());
    let mount = "--mount=type=cache,id=own,sharing=private,target=/c";
    place.write(
        "Dockerfile",
        &format!("FROM busybox\nRUN {mount} echo mine > /c/mine; sleep 1000\n"),
    );
    let mut first = place.command(&["--progress=plain", &base, "-o", "type=cacheonly", "ctx"]);
    let mut first = first.stderr(Stdio::null()).spawn().unwrap();
    let is_there = || {
        let find =
            Command::new("find").arg(place.path("state/mounts")).args(["-name", "mine"]).output();
        !find.unwrap().stdout.is_empty()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_there() {
        assert!(std::time::Instant::now() < end, "the first step did not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    place.write("Dockerfile", &format!("FROM busybox\nRUN {mount} test ! -e /c/mine\n"));
    let mut second = place.command(&["--progress=plain", &base, "-o", "type=cacheonly", "ctx"]);
    let ran = place.ran(second.output().unwrap());
    first.kill().unwrap();
    first.wait().unwrap();
    ran.ok();
}
