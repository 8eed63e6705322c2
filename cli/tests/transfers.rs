//! Pulls and pushes of whole builds: what is moved, what is shown of it, and when it ends.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../registry/tests/support/process.rs"]
mod process;
#[path = "../../exporters/tests/common/faults.rs"]
#[allow(dead_code, reason = "only undisturbed requests are counted here")]
mod proxy;
mod support;

use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use process::Registry;
use proxy::Proxy;
use support::{Place, can_run};

#[test]
fn only_what_is_new_is_moved_and_its_bytes_are_told() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "content")]);
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let proxy = Proxy::start(&registry.host, 0);
    let base = format!("{}/library/base:1", proxy.host);
    let pushed = place.build(&["-t", &base, "--push", "--progress=plain"]).ok();
    assert!(pushed.stderr.contains(" pushing sha256:"), "{}", pushed.stderr);

    // Another machine adds metadata: nothing of the base is fetched or sent.
    let text = format!("FROM {base}\nLABEL a=b\n");
    let other = Place::new(&[("Dockerfile", &text)]);
    let app = format!("{}/team/app:1", proxy.host);
    proxy.forget();
    other.build(&["-t", &app, "--push"]).ok();
    let moved = |words: &[&str]| proxy.requests(words);
    let requests = || proxy.log.requests.lock().unwrap().join("\n");
    // The config of the base is read, and that of the image is new.
    assert_eq!(moved(&["GET", "/blobs/"]), 1, "{}", requests());
    assert_eq!(moved(&["POST", "mount=", "from=library/base"]), 1, "{}", requests());
    assert_eq!(moved(&["PUT", "/blobs/uploads/"]), 1, "{}", requests());

    // A step that reads a file needs the layer, and tells how much came.
    other.write("Dockerfile", &format!("FROM {base}\nFROM scratch\nCOPY --from=0 /f /g\n"));
    let pulled = other.build(&["--progress=plain"]).ok();
    let lines: Vec<&str> = pulled.stderr.lines().collect();
    let is_told =
        |line: &&&str| line.contains(" sha256:") && line.contains(" / ") && line.ends_with(" done");
    assert_eq!(lines.iter().filter(is_told).count(), 1, "{}", pulled.stderr);
}

#[test]
fn a_warm_build_asks_for_a_tag_once_and_for_a_digest_never() {
    let base = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /f\n")]);
    let Some(registry) = Registry::start_in(&base.path("registry")) else { return };
    let proxy = Proxy::start(&registry.host, 0);
    let name = format!("{}/base", proxy.host);
    let platforms = "--platform=linux/amd64,linux/arm64";
    let metadata = base.path("metadata.json").display().to_string();
    let tag = format!("{name}:1");
    base.build(&[platforms, "--metadata-file", &metadata, "-t", &tag, "--push"]).ok();
    let metadata: serde_json::Value =
        serde_json::from_slice(&fs_err::read(metadata).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();

    // The name is used three times.
    let text = |name: &str| {
        format!(
            "FROM {name} AS a\nFROM {name} AS b\nFROM {name}\nCOPY --from=a /f /a\nCOPY --from=b /f /b\n"
        )
    };
    let other = Place::new(&[("Dockerfile", &text(&tag))]);
    other.build(&["-o", "type=cacheonly"]).ok();
    proxy.forget();
    other.build(&["-o", "type=cacheonly"]).ok();
    let requests = || proxy.log.requests.lock().unwrap().join("\n");
    assert_eq!(proxy.requests(&["/"]), 1, "{}", requests());

    proxy.forget();
    for pinned in [format!("{name}@{digest}"), format!("{name}:other@{digest}")] {
        other.write("Dockerfile", &text(&pinned));
        other.build(&["-o", "type=cacheonly"]).ok();
        assert_eq!(proxy.requests(&["/"]), 0, "{}", requests());
    }
    // What was pulled as an image counts just as well.
    let third = Place::new(&[("Dockerfile", &text(&format!("{name}@{digest}")))]);
    third.run(&["pull", &tag]).ok();
    drop(registry);
    third.build(&["-o", "type=cacheonly"]).ok();
}

/// Runs the command to its end; how it ended, and the most memory that its process had, in MB.
fn measured(command: &mut Command) -> (std::process::Output, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let text = fs_err::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
                most = most.max(now.unwrap_or(0) / 1024);
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let output = child.wait_with_output().unwrap();
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        (output, watch.join().unwrap())
    })
}

#[test]
fn a_disturbed_pull_of_large_layers_needs_little_memory() {
    // More than the limit in all, so that memory which grew with layers would show.
    const LAYERS: usize = 8;
    const SIZE: usize = 24 << 20;
    const LIMIT: u64 = 150;
    let copies: String = (0..LAYERS).map(|number| format!("COPY f{number} /\n")).collect();
    let place = Place::new(&[("Dockerfile", &format!("FROM scratch\n{copies}"))]);
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let mut random = fs_err::File::open("/dev/urandom").unwrap();
    for number in 0..LAYERS {
        let mut bytes = vec![0; SIZE];
        random.read_exact(&mut bytes).unwrap();
        fs_err::write(place.path(&format!("ctx/f{number}")), bytes).unwrap();
    }
    let name = |host: &str| format!("{host}/large:1");
    place.build(&["-t", &name(&registry.host), "--push"]).ok();

    let proxy = Proxy::start(&registry.host, 30);
    let other = Place::new(&[]);
    let mut most = 0;
    let mut said = String::new();
    // Two damaged copies of a layer in a row are an error. What did arrive stays.
    let pulled = (0..20).any(|_| {
        let (output, memory) = measured(&mut other.command(&["pull", &name(&proxy.host)]));
        most = most.max(memory);
        said = String::from_utf8(output.stderr).unwrap();
        assert!([Some(0), Some(3)].contains(&output.status.code()), "{said}");
        output.status.success()
    });
    assert!(pulled, "{said}");
    let faults = proxy.log.faults.lock().unwrap();
    assert!(faults.values().sum::<usize>() > 10, "{faults:?}");
    println!("at most {most} MB of memory, with {faults:?}");
    assert!((1..LIMIT).contains(&most), "{most} MB");
}

#[test]
fn an_image_that_is_broken_where_it_is_kept_is_told_as_that() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /f\n")]);
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let name = format!("{}/app:1", registry.host);
    place.build(&["-t", &name, "--push"]).ok();
    // The config of another image names other layers.
    let layout = place.path("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    place.build(&["-o", &output]).ok();
    let client = registry::Client::new(registry::ClientOptions::default());
    let reference = llb::Reference::parse(&name).unwrap();
    let platform = llb::Platform::parse("linux/amd64").unwrap();
    let mut manifest = client.resolve_image(&reference, &platform).unwrap().manifest;
    let config = client.small_blob(&reference, &manifest.config, 1 << 20).unwrap();
    let config = String::from_utf8(config).unwrap();
    let at = config.find("\"diff_ids\":[\"sha256:").unwrap() + "\"diff_ids\":[\"sha256:".len();
    let broken = format!("{}{}{}", &config[..at], "0".repeat(64), &config[at + 64..]).into_bytes();
    manifest.config.digest = llb::Digest::of(&broken);
    let opened = broken.clone();
    let source = move || Ok(Box::new(std::io::Cursor::new(opened.clone())) as Box<dyn Read + Send>);
    client.push_blob(&reference, &manifest.config, source, None).unwrap();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    client.push_manifest(&reference, &manifest.media_type, &bytes).unwrap();

    let other = Place::new(&[("Dockerfile", &format!("FROM {name}\n"))]);
    let layer = manifest.layers.as_ref().unwrap()[0].digest;
    let told = format!(
        "layer {layer} from `docker-image://{name}` is broken: uncompressed it has digest sha256:"
    );
    for ran in [other.run(&["pull", &name]), other.build(&["-o", "out"])] {
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stderr.contains(&told), "{}", ran.stderr);
        let help = "help: the image is broken there, and will be for everybody: push it anew, or use another";
        assert!(ran.stderr.contains(help), "{}", ran.stderr);
    }

    // What is no image at all.
    manifest.config.media_type = "application/vnd.cncf.helm.config.v1+json".to_owned();
    manifest.config.digest = llb::Digest::of(b"{}");
    manifest.config.size = 2;
    let source = || Ok(Box::new(&b"{}"[..]) as Box<dyn Read + Send>);
    client.push_blob(&reference, &manifest.config, source, None).unwrap();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    client.push_manifest(&reference, &manifest.media_type, &bytes).unwrap();
    let ran = other.run(&["pull", &name]);
    let told = format!(
        "ERROR: `{name}` is no image: its config, of the type `application/vnd.cncf.helm.config.v1+json`, is not that of one\n"
    );
    assert_eq!((ran.code, ran.stderr), (Some(1), told));
}

#[test]
fn a_transfer_ends_when_its_time_is_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let place = Place::new(&[("Dockerfile", &format!("FROM {host}/app:1\n"))]);
    let context = place.path("ctx").display().to_string();
    let run = |time: &str| {
        let mut command = place.command(&["--progress=plain", &context]);
        let output = command.env("BRICKLAYER_TRANSFER_TIMEOUT", time).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let begun = Instant::now();
    let (code, text) = run("1s");
    assert_eq!(code, Some(3), "{text}");
    let expect = format!(
        "ERROR: failed to solve: failed to resolve source metadata for {host}/app:1: the transfer did not finish before its deadline\n  \
         help: give transfers more time with $BRICKLAYER_TRANSFER_TIMEOUT, such as 3h, or 0 for no limit\n"
    );
    assert!(text.ends_with(&expect), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let (code, text) = run("soon");
    assert_eq!(code, Some(2));
    assert!(
        text.contains("$BRICKLAYER_TRANSFER_TIMEOUT: invalid time `soon`: want a number with a unit s, m or h, or 0 for no limit"),
        "{text}"
    );
}
