//! `--load` into container engines that run.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, can_run, has};
use crate::two_images;

/// An engine with its state in the place, which ends with the test.
struct Engine {
    process: Child,
    host: String,
}

impl Engine {
    fn start(place: &Place, program: &str) -> Self {
        let path = |name: &str| place.path(&format!("{program}-{name}")).display().to_string();
        let host = format!("unix://{}", path("socket"));
        let (root, run, socket) =
            (path("root"), path("run"), place.path(&format!("{program}-socket")));
        let mut command = Command::new(program);
        match program {
            "podman" => command
                .args(["--root", &root, "--runroot", &run, "--tmpdir", &path("tmp")])
                .args(["--storage-driver=vfs", "system", "service", "--time=0", &host]),
            _ => command
                .args(["--data-root", &root, "--exec-root", &run, "--pidfile", &path("pid")])
                .args(["--storage-driver=vfs", "--iptables=false", "--bridge=none", "-H", &host]),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "{program} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, host }
    }

    /// What the engine says at a path.
    fn ask(&self, path: &str) -> serde_json::Value {
        use std::io::{Read, Write};
        let socket = self.host.strip_prefix("unix://").unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Builds the place's context and loads it.
    fn load(&self, place: &Place, words: &[&str]) -> crate::support::Ran {
        let words = [&["--progress=plain"], words].concat();
        place.build_with(&words, &[("DOCKER_HOST", &self.host)])
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // An engine that is asked to end takes its helpers with it.
        if let Some(id) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

/// Loads into an engine: first, unchanged, with a new name, and changed; `rest` is how many layers that sends.
fn load_and_load_again(program: &str, title: &str, rest: usize) {
    if !can_run() || !has(program) {
        return;
    }
    let place = two_images();
    let engine = Engine::start(&place, program);
    let first = engine.load(&place, &["--load", "-t", "loaded:1", "--iidfile=iid"]).ok();
    assert!(first.stderr.contains(&format!("sent 3 of 3 layers to {title}\n")), "{}", first.stderr);
    let id = fs_err::read_to_string(place.path("iid")).unwrap();
    let hex = id.strip_prefix("sha256:").unwrap();
    let shown = engine.ask("/images/loaded:1/json");
    assert_eq!(shown["Id"].as_str().unwrap().trim_start_matches("sha256:"), hex);
    assert_eq!(shown["RootFS"]["Layers"].as_array().unwrap().len(), 3);

    let names = ["--load", "-t", "loaded:1", "-t", "reg.example.com:5000/team/loaded:2"];
    let again = engine.load(&place, &names).ok();
    let expect = format!("{title} has image {id} already: no layer was sent\n");
    assert!(again.stderr.contains(&expect), "{}", again.stderr);
    let shown = engine.ask("/images/reg.example.com:5000/team/loaded:2/json");
    assert_eq!(shown["Id"].as_str().unwrap().trim_start_matches("sha256:"), hex);

    place.write("own", "changed\n");
    let changed =
        engine.load(&place, &["-o", "type=docker", "-t", "loaded:1", "--iidfile=iid"]).ok();
    let expect = format!("sent {rest} of 3 layers to {title}\n");
    assert!(changed.stderr.contains(&expect), "{}", changed.stderr);
    let new = fs_err::read_to_string(place.path("iid")).unwrap();
    let shown = engine.ask("/images/loaded:1/json");
    assert_eq!(
        shown["Id"].as_str().unwrap().trim_start_matches("sha256:"),
        &new["sha256:".len()..]
    );
    // What is loaded is not kept here besides.
    assert!(!place.run(&["images"]).ok().stdout.contains("loaded"));
}

#[test]
fn podman_gets_an_image_and_no_layer_twice() {
    load_and_load_again("podman", "Podman", 3);
}

#[test]
fn docker_gets_only_the_layers_that_it_lacks() {
    load_and_load_again("dockerd", "Docker", 1);
}

#[test]
fn without_an_engine_the_message_says_what_to_do() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let run = |words: &[&str], name: &str, value: &str| {
        let mut command = place.command(words);
        command.env_remove("DOCKER_HOST").env_remove("CONTAINER_HOST").env_remove("DOCKER_CONTEXT");
        place.ran(command.env(name, value).output().unwrap())
    };
    let other_way = "an archive can be loaded too: `build -o type=docker,dest=- ... | docker load`";
    for (name, value, code, message) in [
        (
            "DOCKER_HOST",
            "unix:///nowhere/docker.sock",
            4,
            "ERROR: cannot reach the container engine at DOCKER_HOST=unix:///nowhere/docker.sock: ",
        ),
        (
            "CONTAINER_HOST",
            "ssh://me@host/run/podman.sock",
            2,
            "ERROR: loading by ssh:// is not supported: CONTAINER_HOST is `ssh://me@host/run/podman.sock`\n",
        ),
        ("DOCKER_CONTEXT", "absent", 2, "ERROR: cannot use the Docker context `absent`: "),
    ] {
        let ran = run(&["--load", "ctx"], name, value);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
        assert!(ran.stderr.contains(other_way) || name == "DOCKER_CONTEXT", "{}", ran.stderr);
    }
    assert!(!place.path("state").exists(), "refused before anything is made");
    let several = run(
        &["--load", "--platform=linux/amd64,linux/arm64", "ctx"],
        "DOCKER_HOST",
        "unix:///nowhere",
    );
    assert_eq!(several.code, Some(1), "{}", several.stderr);
    assert!(several.stderr.contains("use the oci exporter instead"), "{}", several.stderr);
    let context = run(&["-o", "type=docker,context=absent", "ctx"], "DOCKER_HOST", "");
    assert!(
        context.stderr.contains("cannot use the Docker context `absent`"),
        "{}",
        context.stderr
    );
}
