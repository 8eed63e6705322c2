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
use support::users::{UserPlace, can_build_in};
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
    // Numbers of a device that everybody may open: `/dev/urandom`.
    put(329, b"0000001\0");
    put(337, b"0000011\0");
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

/// An archive of the corpus.
struct Archive {
    name: String,
    tar: Vec<u8>,
    /// One archive for each entry.
    apart: Vec<Vec<u8>>,
    /// What is said of it, whichever way it comes.
    refused: Option<String>,
    /// What is said of it as a layer.
    refused_layer: Option<String>,
}

/// The archives of the corpus.
fn archives(outside: &Path) -> Vec<Archive> {
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
        let text = |key: &str| archive[key].as_str().map(str::to_owned);
        Archive {
            name: text("name").unwrap(),
            tar,
            apart: members.iter().map(|member| ended(std::slice::from_ref(member))).collect(),
            refused: text("refused"),
            refused_layer: text("refused as a layer").or_else(|| text("refused")),
        }
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
        "sparse" => (b'S', EVIL),
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

/// What is to be refused is, and says why.
#[track_caller]
fn check_refused(expect: Option<&String>, name: &str, ran: &Ran) {
    if let Some(expect) = expect {
        assert!(matches!(ran.code, Some(1 | 4)), "{name}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(expect), "{name}: {expect}: {}", ran.stderr);
    }
}

#[test]
fn archives_that_are_added_stay_in_the_root() {
    let (place, outside) = guarded();
    place.write("Dockerfile", "FROM scratch\nADD evil.tar /sub/\n");
    for Archive { name, tar, .. } in archives(&outside) {
        fs_err::write(place.path("ctx/evil.tar"), tar).unwrap();
        // What has no readable beginning is copied as any other file.
        for words in [["-o", "type=local,dest=out"], ["-o", "type=oci,dest=out.tar"]] {
            check_outside(&outside, &name, &place.build(&words));
        }
        let _ = fs_err::remove_dir_all(place.path("out"));
    }
}

#[test]
fn archives_as_contexts_stay_in_their_place() {
    let (place, outside) = guarded();
    let text = b"FROM scratch\nCOPY . /sub/\n";
    for Archive { name, tar, refused, .. } in archives(&outside) {
        let whole = [member(b"Dockerfile", b'0', b"", text), tar].concat();
        fs_err::write(place.path("context.tar"), whole).unwrap();
        let mut command = place.command(&["-o", "type=local,dest=out", "-"]);
        command.stdin(fs_err::File::open(place.path("context.tar")).unwrap().into_parts().0);
        let ran = place.ran(command.output().unwrap());
        check_outside(&outside, &name, &ran);
        check_refused(refused.as_ref(), &name, &ran);
        let _ = fs_err::remove_dir_all(place.path("out"));
    }
}

/// An OCI layout with an image of these layers.
fn layout(folder: &Path, layers: &[Vec<u8>]) {
    let blobs = folder.join("blobs/sha256");
    fs_err::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs_err::write(blobs.join(digest.hex()), bytes).unwrap();
        let (digest, size) = (digest.to_string(), bytes.len());
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({ "mediaType": kind, "digest": digest, "size": size })
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = blob(config.to_string().as_bytes(), "config.v1+json");
    let layers: Vec<_> = layers.iter().map(|layer| blob(layer, "layer.v1.tar")).collect();
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
    let image = place.path("image");
    let build = |layers: &[Vec<u8>]| {
        let _ = fs_err::remove_dir_all(&image);
        layout(&image, layers);
        let base = format!("--build-context=base=oci-layout://{}:1", image.display());
        let ran = place.build(&[&base, "-o", "type=local,dest=out"]);
        let _ = fs_err::remove_dir_all(place.path("out"));
        ran
    };
    for Archive { name, tar, apart, refused_layer, .. } in archives(&outside) {
        let ran = build(&[tar]);
        check_outside(&outside, &name, &ran);
        check_refused(refused_layer.as_ref(), &name, &ran);
        if apart.len() > 1 {
            // What one layer makes the next ones may lead over.
            check_outside(&outside, &format!("{name}, layer by layer"), &build(&apart));
        }
    }
}

#[test]
fn a_layer_that_grows_without_end_takes_little_memory() {
    let (place, outside) = guarded();
    // 400 MB of zeros in 2 MB.
    let dockerfile = member(b"Dockerfile", b'0', b"", b"FROM scratch\nCOPY zeros /\n");
    let head = [dockerfile, sized(b"zeros", b'0', b"", 400 << 20, b"")].concat();
    fs_err::write(place.path("head"), head).unwrap();
    place.write("Dockerfile", "FROM scratch\nADD bomb.tar.gz /\n");
    let pack = "(cat head; head -c 419430400 /dev/zero; head -c 1024 /dev/zero) | gzip -1";
    for (to, words) in [("ctx/bomb.tar.gz", "ctx"), ("bomb.tar.gz", "- < bomb.tar.gz")] {
        // The limit counts what can be written, not what is only reserved.
        let line = format!(
            "{pack} > {to}; ulimit -d 150000; exec '{}' -o type=cacheonly {words}",
            env!("CARGO_BIN_EXE_bricklayer")
        );
        let mut command = Command::new("sh");
        command.args(["-c", &line]).env("BRICKLAYER_ROOT", place.path("state"));
        command.stdin(Stdio::null()).current_dir(place.folder.path());
        let ran = place.ran(command.output().unwrap()).ok();
        check_outside(&outside, "bomb", &ran);
    }
}

/// Builds while a folder of the context turns into a link to the outside and back.
fn check_race(dockerfile: &str, words: &[&str]) {
    let (place, outside) = guarded();
    // In memory, where names change fastest.
    let memory = tempfile::tempdir_in("/dev/shm").ok();
    if let Some(memory) = &memory {
        fs_err::remove_dir(place.path("ctx")).unwrap();
        symlink(memory.path(), place.path("ctx")).unwrap();
    }
    let folder = place.path("ctx/d");
    fs_err::create_dir(&folder).unwrap();
    fs_err::write(folder.join("canary"), "inside\n").unwrap();
    symlink(&outside, place.path("ctx/other")).unwrap();
    place.write("Dockerfile", dockerfile);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, other) = (place.path("ctx/d"), place.path("ctx/other"));
            let (cwd, exchange) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(cwd, &here, cwd, &other, exchange).unwrap();
            }
        });
        let mut found = 0;
        for _ in 0..80 {
            let ran = place.build(&[words, &["--no-cache", "-o", "type=local,dest=out"]].concat());
            let copied = fs_err::read_to_string(place.path("out/d/canary"));
            // Losing the race may fail; it may not find anything else.
            found += usize::from(copied.is_ok());
            if copied.is_ok_and(|text| text != "inside\n") {
                stop.store(true, Ordering::Relaxed);
                panic!("it got out: {}", ran.stderr);
            }
            let _ = fs_err::remove_dir_all(place.path("out"));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(found > 0, "the race was never won");
    });
}

#[test]
fn a_context_whose_folders_turn_into_links_shows_nothing_else() {
    check_race("FROM scratch\nCOPY d/ /d/\n", &[]);
}

#[test]
fn a_source_of_copy_from_whose_folders_turn_into_links_shows_nothing_else() {
    check_race("FROM scratch\nCOPY --from=live d/ /d/\n", &["--build-context=live=ctx"]);
    check_race("FROM scratch\nCOPY --from=live /x/../d/. /d/\n", &["--build-context=live=ctx"]);
}

#[test]
fn copy_from_a_stage_stays_in_its_root() {
    if !can_run() {
        return;
    }
    let (place, outside) = guarded();
    let at = outside.display().to_string();
    let up = "../".repeat(12);
    for source in [
        "/src/canary".to_owned(),
        "/dir/up/canary".to_owned(),
        format!("/dir/{up}{at}/canary"),
        format!("{up}{at}/canary"),
    ] {
        let words = [("outside", at.as_str()), ("source", &source)];
        place.write("Dockerfile", &attack("copy-from.Dockerfile", &words));
        let ran = place.build(&["-o", "type=local,dest=out"]);
        assert_eq!(ran.code, Some(1), "{source}: {}", ran.stderr);
        assert!(ran.stderr.contains("not found"), "{source}: {}", ran.stderr);
        check_outside(&outside, &source, &ran);
    }
    // A link itself, and one that is followed into the stage.
    let words = [("outside", at.as_str()), ("source", "/dir /own")];
    place.write("Dockerfile", &attack("copy-from.Dockerfile", &words));
    let ran = place.build(&["-o", "type=local,dest=out"]).ok();
    check_outside(&outside, "links", &ran);
    assert_eq!(fs_err::read_to_string(place.path("out/got/own")).unwrap(), "of the stage\n");
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

/// Has a builder of one tier run the steps of `builder.Dockerfile`. Its parent has left descriptors of the machine open, and
/// put secrets into its environment.
#[track_caller]
fn check_builder_is_hidden(tier: &str) {
    if !can_build_in(tier) {
        return;
    }
    let (place, outside) = guarded();
    place.write("Dockerfile", &attack("builder.Dockerfile", &[]));
    let place = UserPlace::of_tier(tier, place);
    let command = place.command(&[
        "--progress=plain",
        &format!("--isolation={tier}"),
        "--secret=id=tok,env=TOKEN",
        "--output=type=cacheonly",
    ]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let line = format!(
        "exec 7< '{}' 8>> '{}' 9< /; exec {} {} ctx",
        outside.display(),
        outside.join("canary").display(),
        words.join(" "),
        place.contexts().join(" ")
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).current_dir(place.path("")).stdin(Stdio::null());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("BUILDER_CANARY", "1").env("TOKEN", "SECRET-OF-OTHERS");
    let ran = place.place.ran(shell.output().unwrap()).ok();
    let lines = marked(&ran);
    let is_number = |line: &&str| line.parse::<u32>().is_ok();
    // The shell has its own for the list and the pipe.
    let numbers: Vec<&str> = lines.iter().map(String::as_str).filter(is_number).collect();
    assert!(numbers.iter().all(|number| !["7", "8", "9"].contains(number)), "{lines:?}");
    // Without /proc the pattern stands for itself.
    let is_told = |line: &&str| !is_number(line) && *line != "*";
    let rest: Vec<&str> = lines.iter().map(String::as_str).filter(is_told).collect();
    assert_eq!(rest[..2], ["no descriptor", "cwd /"], "{lines:?}");
    let processes: u32 = rest[2].strip_prefix("processes ").unwrap().parse().unwrap();
    assert!(processes <= 4, "{lines:?}");
    // Without namespaces there is no /proc to be asked, and the kernel says that a signal to all was sent when none was.
    let expect = if tier == "chroot" { ["others", "end"] } else { ["root", "end"] };
    assert_eq!(rest[3..], expect, "{lines:?}");
    check_outside(&outside, "descriptors", &ran);
}

#[test]
fn a_step_sees_nothing_of_the_builder() {
    check_builder_is_hidden("root");
}

#[test]
fn a_rootless_step_sees_nothing_of_the_builder() {
    check_builder_is_hidden("rootless");
}

#[test]
fn a_step_with_one_id_sees_nothing_of_the_builder() {
    check_builder_is_hidden("single-id");
}

#[test]
fn a_step_without_namespaces_sees_nothing_of_the_builder() {
    check_builder_is_hidden("chroot");
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
        ("ln -sf /proc/self/environ /etc/passwd", "nobody", "unable to find user nobody"),
        ("rm /etc/passwd && mkfifo /etc/passwd", "nobody", "`/etc/passwd` is not a regular file"),
        (
            "rm /etc/passwd && truncate -s 20G /etc/passwd",
            "nobody",
            "\"/etc/passwd\" exceeds 10485760 bytes",
        ),
        ("ln -sf /dev/zero /etc/group", "root:wheel", "unable to find group wheel"),
    ];
    for (change, user, told) in users {
        let words = [("change", change), ("user", user)];
        place.write("Dockerfile", &attack("user.Dockerfile", &words));
        let began = std::time::Instant::now();
        let ran = place.build(&["--progress=plain", "-o", "type=cacheonly"]);
        assert_eq!(ran.code, Some(1), "{change}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{change}: {told}: {}", ran.stderr);
        assert!(began.elapsed().as_secs() < 60, "{change}: it took long");
        check_outside(&outside, change, &ran);
    }
}

/// How many bytes steps read from the devices of `devices.Dockerfile`.
#[track_caller]
fn check_devices(words: &[&str], expect: &[&str]) {
    if !can_run() {
        return;
    }
    let (place, outside) = guarded();
    place.write("Dockerfile", &attack("devices.Dockerfile", &[]));
    let node = ended(&[member(b"node", b'3', b"", b"")]);
    fs_err::write(place.path("ctx/node.tar"), node).unwrap();
    let ran = place.build(&[words, &["--progress=plain", "-o", "type=cacheonly"]].concat()).ok();
    assert_eq!(marked(&ran), expect, "{}", ran.stderr);
    check_outside(&outside, "devices", &ran);
}

#[test]
fn devices_of_images_do_not_open() {
    let nothing = ["image 0", "copied 0", "made 0", "cache 0", "bound 0", "memory 0", "dev 1"];
    check_devices(&["--isolation=root"], &nothing);
}

#[test]
fn devices_are_not_made_without_mounts_that_close_them() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN mknod /node c 1 9\n")]);
    let ran = place.build(&["--isolation=chroot", "--progress=plain"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("mknod: /node: Operation not permitted"), "{}", ran.stderr);
}

#[test]
fn steps_change_nothing_that_others_have() {
    if !can_run() {
        return;
    }
    let (place, _) = guarded();
    let all = attack("layers.Dockerfile", &[]);
    let first = all.split_inclusive('\n').take(5).collect::<String>();
    place.write("Dockerfile", &first);
    place.build(&["-o", "before"]).ok();
    // Begins with the same steps.
    place.write("Dockerfile", &all);
    place.build(&["-o", "type=cacheonly"]).ok();
    place.write("Dockerfile", &first);
    let again = place.build(&["-o", "after", "--progress=plain"]).ok();
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
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

/// Two builds of one tier at a time, each with its own folder of a private cache mount.
#[track_caller]
fn check_private_cache(tier: &str) {
    if !can_build_in(tier) {
        return;
    }
    let mount = "--mount=type=cache,id=own,sharing=private,target=/c";
    let (place, _) = guarded();
    place.write(
        "Dockerfile",
        &format!("FROM busybox\nRUN {mount} echo mine > /c/mine; sleep 1000\n"),
    );
    place.write("second", &format!("FROM busybox\nRUN {mount} test ! -e /c/mine\n"));
    let place = UserPlace::of_tier(tier, place);
    let isolation = format!("--isolation={tier}");
    let mut first = place.command(&["--progress=plain", &isolation, "--output=type=cacheonly"]);
    let mut first = first.args(place.contexts()).arg("ctx").stderr(Stdio::null()).spawn().unwrap();
    let is_there = || {
        let find = Command::new("find").arg(place.path("state")).args(["-name", "mine"]).output();
        !find.unwrap().stdout.is_empty()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_there() {
        assert!(std::time::Instant::now() < end, "the first step did not begin");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ran = place.build(&[&isolation, "--output=type=cacheonly", "-f", "ctx/second"]);
    first.kill().unwrap();
    first.wait().unwrap();
    ran.ok();
}

#[test]
fn a_private_cache_mount_is_not_another_builds() {
    check_private_cache("root");
}

#[test]
fn a_private_cache_mount_of_a_user_is_not_another_builds() {
    check_private_cache("rootless");
    check_private_cache("single-id");
}

#[test]
fn a_private_cache_mount_without_namespaces_is_not_another_builds() {
    check_private_cache("chroot");
}
