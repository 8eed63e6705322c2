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

/// A containerd with its state in the place, which ends with the test.
struct Containerd {
    process: Child,
    socket: String,
}

impl Containerd {
    fn start(place: &Place) -> Self {
        let path = |name: &str| place.path(&format!("containerd-{name}")).display().to_string();
        // Nothing for Kubernetes, which would ask for a network.
        fs_err::write(
            path("config"),
            "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n",
        )
        .unwrap();
        let mut command = Command::new("containerd");
        command.args([
            "--config",
            &path("config"),
            "--root",
            &path("root"),
            "--state",
            &path("state"),
        ]);
        command.args(["--address", &path("socket")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let itself = Self { process: command.spawn().unwrap(), socket: path("socket") };
        let deadline = Instant::now() + Duration::from_secs(60);
        while itself.ctr(&["version"]).1.is_none() {
            assert!(Instant::now() < deadline, "containerd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        itself
    }

    /// What `ctr` says, and what it prints if it succeeds.
    fn ctr(&self, words: &[&str]) -> (String, Option<String>) {
        let mut command = Command::new("ctr");
        command.args(["--address", &self.socket, "--namespace=other"]).args(words);
        let output = command.env("CONTAINERD_SNAPSHOTTER", "native").output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (errors, output.status.success().then_some(printed))
    }

    /// What a step of an image prints.
    #[track_caller]
    fn run(&self, name: &str, words: &[&str]) -> String {
        let id = format!("bricklayer-{}", std::process::id());
        let all = [&["run", "--rm", "--snapshotter=native", name, &id], words].concat();
        let (errors, printed) = self.ctr(&all);
        printed.unwrap_or_else(|| panic!("{name}: {errors}"))
    }

    fn load(&self, place: &Place, words: &[&str]) -> crate::support::Ran {
        let words = [&["--progress=plain"], words].concat();
        place.build_with(
            &words,
            &[
                ("CONTAINERD_ADDRESS", &self.socket),
                ("CONTAINERD_NAMESPACE", "other"),
                ("CONTAINERD_SNAPSHOTTER", "native"),
            ],
        )
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(id) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.process.wait();
    }
}

#[test]
fn containerd_gets_only_the_layers_that_it_lacks() {
    if !can_run() || !has("containerd") || !has("ctr") {
        return;
    }
    let place = two_images();
    let engine = Containerd::start(&place);
    let first = engine.load(&place, &["--load", "-t", "loaded:1", "--metadata-file=m"]).ok();
    assert!(first.stderr.contains("sent 3 of 3 layers to containerd\n"), "{}", first.stderr);
    let name = "docker.io/library/loaded:1";
    assert_eq!(engine.run(name, &["cat", "/own"]), "two, and longer\n");
    let list = engine.ctr(&["images", "ls"]).1.unwrap();
    let metadata = fs_err::read_to_string(place.path("m")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    assert!(list.lines().any(|line| line.starts_with(name) && line.contains(digest)), "{list}");

    let names = ["--load", "-t", "loaded:1", "-t", "reg.example.com:5000/team/loaded:2"];
    let again = engine.load(&place, &names).ok();
    assert!(again.stderr.contains("already: no layer was sent\n"), "{}", again.stderr);
    let list = engine.ctr(&["images", "ls"]).1.unwrap();
    assert!(list.contains("\nreg.example.com:5000/team/loaded:2 "), "{list}");

    place.write("own", "changed\n");
    for (output, sent) in [("", 1), (",compression=zstd", 2), (",compression=estargz", 2)] {
        let output = format!("type=docker{output}");
        let changed = engine.load(&place, &["-o", &output, "-t", "loaded:1"]).ok();
        let expect = format!("sent {sent} of 3 layers to containerd\n");
        assert!(changed.stderr.contains(&expect), "{output}: {}", changed.stderr);
        assert_eq!(engine.run(name, &["cat", "/own"]), "changed\n", "{output}");
    }
    // Nor need it be for this machine, or one image only.
    let both = ["--load", "-t", "both", "--provenance", "--platform=linux/arm64,linux/amd64"];
    engine.load(&place, &both).ok();
    assert_eq!(engine.run("docker.io/library/both:latest", &["cat", "/own"]), "changed\n");
    engine.load(&place, &["--load", "-t", "arm", "--platform=linux/arm64"]).ok();
    assert!(engine.ctr(&["images", "ls"]).1.unwrap().contains("docker.io/library/arm:latest "));

    let nameless = engine.load(&place, &["--load"]);
    assert_eq!(nameless.code, Some(2), "{}", nameless.stderr);
    assert!(nameless.stderr.contains("containerd keeps no image that has no name"));
}

#[test]
fn without_ctr_or_a_containerd_the_message_says_so() {
    if !can_run() || !has("containerd") || !has("ctr") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let run = |socket: &str| {
        let mut command = place.command(&["--load", "-t", "app", "ctx"]);
        command.env("PATH", place.path("ctx")).env("CONTAINERD_ADDRESS", socket);
        let ran = place.ran(command.output().unwrap());
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        ran.stderr
    };
    let nobody = run("/nowhere/c.sock");
    let expect = "ERROR: cannot reach the container engine at CONTAINERD_ADDRESS=/nowhere/c.sock: ";
    assert!(nobody.starts_with(expect), "{nobody}");
    assert!(nobody.contains("help: is it running? CONTAINERD_ADDRESS is the path of its socket"));
    let engine = Containerd::start(&place);
    let without = run(&engine.socket);
    assert!(without.contains("`ctr`, the program of containerd, is not installed"), "{without}");
    assert!(!place.path("state").exists(), "refused before anything is made");
    // A program that fails is quoted.
    let program = place.path("ctx/ctr");
    fs_err::write(&program, "#!/bin/sh\necho first >&2; echo 'ctr: no such thing' >&2; exit 1\n")
        .unwrap();
    Command::new("chmod").arg("755").arg(&program).status().unwrap();
    let failing = run(&engine.socket);
    assert!(failing.contains("the engine refused to say its version: no such thing"), "{failing}");
}

#[test]
fn times_and_compression_of_an_output_are_those_that_are_loaded() {
    if !can_run() || !has("podman") {
        return;
    }
    let place = two_images();
    let engine = Engine::start(&place, "podman");
    let diff_ids = |words: &[&str]| {
        engine.load(&place, &[words, &["-t", "loaded:1"]].concat()).ok();
        engine.ask("/images/loaded:1/json")["RootFS"]["Layers"].clone()
    };
    let plain = diff_ids(&["--load"]);
    // The layers are sent as plain tars whatever they would be compressed with.
    assert_eq!(plain, diff_ids(&["-o", "type=docker,compression=zstd"]));
    let dated = diff_ids(&["-o", "type=docker,rewrite-timestamp=true,source-date-epoch=7"]);
    assert_eq!(plain[0], dated[0], "the base stays what it is");
    assert!(plain[1] != dated[1] && plain[2] != dated[2], "{dated}");
    let table = diff_ids(&["-o", "type=docker,compression=estargz"]);
    assert!(table[0] == plain[0] && table[1] != plain[1] && table[1] != dated[1], "{table}");
}

#[test]
fn without_an_engine_the_message_says_what_to_do() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let run = |words: &[&str], name: &str, value: &str| {
        let mut command = place.command(words);
        for name in ["DOCKER_HOST", "CONTAINER_HOST", "DOCKER_CONTEXT", "CONTAINERD_ADDRESS"] {
            command.env_remove(name);
        }
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
    assert_eq!(several.code, Some(2), "{}", several.stderr);
    assert!(several.stderr.contains("use the oci exporter instead"), "{}", several.stderr);
    let context = run(&["-o", "type=docker,context=absent", "ctx"], "DOCKER_HOST", "");
    assert!(
        context.stderr.contains("cannot use the Docker context `absent`"),
        "{}",
        context.stderr
    );
}
