//! Pulls and pushes of whole builds: what is moved, what is shown of it, and when it ends.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../registry/tests/support/process.rs"]
mod process;
#[path = "../../exporters/tests/common/faults.rs"]
#[allow(dead_code, reason = "only undisturbed requests are counted here")]
mod proxy;
mod support;

use std::net::TcpListener;
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
