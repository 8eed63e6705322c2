//! Whole builds with the real executable: what comes out is checked by independent tools.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../registry/tests/support/process.rs"]
mod process;
mod support;

use std::io::{BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use process::Registry;
use support::{Place, can_run, has, run_image, tool};

const TWO_STAGES: &str = "\
FROM busybox AS build
WORKDIR /src
COPY main.txt ./
RUN --mount=type=cache,target=/cache tr a-z A-Z < main.txt > /out && echo x >> /cache/runs
FROM busybox
COPY --from=build /out /app/out
RUN mkdir /empty && ln -s out /app/link && chmod 4755 /app/out
USER 1000:1000
CMD [\"cat\", \"/app/out\"]
";

fn two_stages() -> Place {
    Place::new(&[("Dockerfile", TWO_STAGES), ("main.txt", "hello from a step\n")])
}

#[test]
fn second_build_runs_nothing() {
    if !can_run() {
        return;
    }
    let place = two_stages();
    let first = place.build(&["--progress=plain", "-t", "app:1"]).ok();
    assert!(
        first.stderr.contains("RUN --mount=type=cache") && !first.stderr.contains("CACHED"),
        "{}",
        first.stderr
    );
    let second = place.build(&["--progress=plain", "-t", "app:1"]).ok();
    assert_eq!(second.stderr.matches(" CACHED\n").count(), 5, "{}", second.stderr);
    let ids: Vec<String> =
        (0..2).map(|_| place.build(&["-q", "-t", "app:1"]).ok().stdout).collect();
    assert!(ids[0] == ids[1] && ids[0].starts_with("sha256:"), "{ids:?}");
}

#[test]
fn hashes_of_files_that_rested_are_kept_between_builds() {
    let large = "x".repeat(200 << 10);
    let place =
        Place::new(&[("Dockerfile", "FROM scratch\nCOPY data /data\n"), ("data/a", &large)]);
    let kept = || {
        let folder = fs_err::read_dir(place.path("state/contexts")).unwrap();
        let files = folder.map(|entry| entry.unwrap());
        let mut files: Vec<_> = files
            .map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap()))
            .collect();
        files.sort();
        files
    };
    // What was changed a moment ago is hashed each time.
    std::thread::sleep(Duration::from_millis(3100));
    place.build(&[]).ok();
    let first = kept();
    assert!(!first.is_empty());
    place.build(&[]).ok();
    assert_eq!(kept(), first, "nothing was hashed again");
}

#[test]
fn stages_run_at_the_same_time() {
    if !can_run() {
        return;
    }
    // Each stage waits for a sign of the other in a shared cache mount: one after the other would never end.
    let wait = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,id=meet,target=/m touch /m/{own}; \
             for i in $(seq 200); do [ -e /m/{other} ] && exit 0; usleep 50000; done; exit 9\n"
        )
    };
    let dockerfile = format!(
        "{}{}FROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
        wait("a", "b"),
        wait("b", "a")
    );
    Place::new(&[("Dockerfile", &dockerfile)]).build(&["--progress=plain"]).ok();
}

#[test]
fn every_exporter_writes_what_other_tools_accept() {
    if !can_run() || !has("skopeo") || !has("umoci") || !has("runc") {
        return;
    }
    let place = two_stages();
    place
        .build(&[
            "-t",
            "app:1",
            "-o",
            "type=oci,dest=app.oci",
            "-o",
            "type=docker,dest=app.docker",
            "-o",
            "type=tar,dest=app.tar",
            "-o",
            "type=local,dest=app.dir",
        ])
        .ok();
    for (kind, file) in [("oci-archive", "app.oci"), ("docker-archive", "app.docker")] {
        let from = format!("{kind}:{}", place.path(file).display());
        let shown = tool("skopeo", &["inspect", "--config", &from]);
        assert!(shown.contains("1000:1000"), "{shown}");
        let layout = format!("{}:1", place.path(&format!("{file}.layout")).display());
        tool("skopeo", &["copy", "-q", &from, &format!("oci:{layout}")]);
        assert_eq!(run_image(&place, &layout), "HELLO FROM A STEP\n", "{kind}");
    }
    let listed = tool("tar", &["tvf", place.path("app.tar").to_str().unwrap()]);
    assert!(listed.contains("-rwsr-xr-x 0/0") && listed.contains("app/link -> out"), "{listed}");
    assert_eq!(
        fs_err::read_to_string(place.path("app.dir/app/link")).unwrap(),
        "HELLO FROM A STEP\n"
    );
}

/// How the store keeps a layer does not show in what is exported.
#[test]
fn layers_have_the_compression_that_was_asked_for() {
    if !has("skopeo") {
        return;
    }
    let place = Place::new(&[
        ("Dockerfile", "FROM scratch\nCOPY a /a\nCOPY b /b\n"),
        ("a", "1"),
        ("b", "2"),
    ]);
    for (attributes, expect) in [
        ("", "tar+gzip"),
        (",compression=uncompressed,force-compression=true", "tar"),
        ("", "tar+gzip"),
        (",compression=zstd,force-compression=true", "tar+zstd"),
        // New layers need no force.
        (",compression=uncompressed", "tar"),
    ] {
        place.build(&["-o", &format!("type=oci,dest=app.oci{attributes}")]).ok();
        let archive = format!("oci-archive:{}", place.path("app.oci").display());
        let manifest: serde_json::Value =
            serde_json::from_str(&tool("skopeo", &["inspect", "--raw", &archive])).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 2);
        for layer in layers {
            let expect = format!("application/vnd.oci.image.layer.v1.{expect}");
            assert_eq!(layer["mediaType"], serde_json::Value::String(expect), "{attributes}");
        }
    }
}

#[test]
fn the_same_result_exported_twice_is_the_same_file() {
    if !can_run() {
        return;
    }
    let place = two_stages();
    for kind in ["oci", "docker", "tar"] {
        for compression in ["gzip", "zstd", "uncompressed"] {
            let attribute = if kind == "tar" {
                String::new()
            } else {
                format!(",compression={compression},force-compression=true")
            };
            let read = |file: &str| {
                place
                    .build(&["-t", "app:1", "-o", &format!("type={kind},dest={file}{attribute}")])
                    .ok();
                fs_err::read(place.path(file)).unwrap()
            };
            assert!(read("one") == read("two"), "{kind} {compression}");
        }
    }
}

#[test]
fn a_pushed_image_comes_back_identical_and_serves_as_base() {
    if !can_run() || !has("skopeo") {
        return;
    }
    let place = two_stages();
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let name = format!("{}/team/app:1", registry.host);
    place
        .build(&[
            "-t",
            &name,
            "--push",
            "--metadata-file",
            "meta.json",
            "-o",
            "type=oci,dest=app.oci",
        ])
        .ok();
    let meta: serde_json::Value =
        serde_json::from_slice(&fs_err::read(place.path("meta.json")).unwrap()).unwrap();
    let pushed = tool(
        "skopeo",
        &["inspect", "--tls-verify=false", "--format={{.Digest}}", &format!("docker://{name}")],
    );
    assert_eq!(meta["containerimage.digest"], pushed.trim());
    let archived = tool(
        "skopeo",
        &[
            "inspect",
            "--format={{.Digest}}",
            &format!("oci-archive:{}", place.path("app.oci").display()),
        ],
    );
    assert_eq!(archived, pushed);
    let layout = format!("{}:1", place.path("pulled").display());
    let from = format!("docker://{name}");
    tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &from, &format!("oci:{layout}")]);
    let pulled = tool("skopeo", &["inspect", "--format={{.Digest}}", &format!("oci:{layout}")]);
    assert_eq!(pulled, pushed);
    if has("umoci") && has("runc") {
        assert_eq!(run_image(&place, &layout), "HELLO FROM A STEP\n");
    }
    // Another machine builds upon it.
    let other = Place::new(&[(
        "Dockerfile",
        &format!("FROM {name}\nRUN test \"$(cat /app/out)\" = \"HELLO FROM A STEP\"\n"),
    )]);
    other.build(&["--progress=plain"]).ok();
    drop(registry);
    let down =
        Place::new(&[("Dockerfile", &format!("FROM {name}\n"))]).build(&["--progress=plain"]);
    assert_eq!(down.code, Some(3), "{}", down.stderr);
}

#[test]
fn an_image_that_the_registry_does_not_have_is_named() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    place.write("Dockerfile", &format!("FROM {}/team/absent:7\n", registry.host));
    let ran = place.build(&["--progress=plain"]);
    let marked = "^".repeat(registry.host.len() + "/team/absent:7".len());
    let report = ran.report().replace(&registry.host, "[registry]").replace(&marked, "[carets]");
    assert_eq!(
        report.trim_end(),
        r#"
exit 3
Dockerfile:1
--------------------
   1 | >>> FROM [registry]/team/absent:7
     |          [carets] this image
   2 |     
--------------------
ERROR: failed to solve: failed to resolve source metadata for [registry]/team/absent:7: [registry]/team/absent:7: not found
  help: check the name and tag; a registry's host comes first, as in `registry.example.com/team/app:1.0`
"#
        .trim()
    );
}

#[test]
fn store_commands_list_show_save_push_and_free() {
    if !can_run() || !has("skopeo") {
        return;
    }
    let place = two_stages();
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let remote = format!("{}/team/app:2", registry.host);
    place.build(&["-t", "app:1", "-t", &remote, "--iidfile", "iid"]).ok();
    let id = fs_err::read_to_string(place.path("iid")).unwrap();
    let listed = place.run(&["images"]).ok().stdout;
    assert!(listed.contains("app") && listed.contains(&id["sha256:".len()..][..12]), "{listed}");
    let shown: serde_json::Value =
        serde_json::from_str(&place.run(&["inspect", "app:1"]).ok().stdout).unwrap();
    assert!(shown.to_string().contains(&id), "{shown}");
    place.run(&["save", "-o", "saved.tar", "app:1"]).ok();
    tool("skopeo", &["inspect", &format!("docker-archive:{}", place.path("saved.tar").display())]);
    place.run(&["push", &remote]).ok();
    tool("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{remote}")]);
    place.run(&["rmi", "app:1", &remote]).ok();
    let gone = place.run(&["inspect", "app:1"]);
    assert_eq!(
        (gone.code, gone.stderr.as_str()),
        (Some(1), "ERROR: no such image: `app:1`\n  help: `build images` lists what is there\n")
    );
    let pruned = place.run(&["prune", "--all", "--force"]).ok().stdout;
    assert!(pruned.contains("Total:"), "{pruned}");
    let layers = fs_err::read_dir(place.path("state/layers")).map(Iterator::count).unwrap_or(0);
    assert_eq!(layers, 0, "layers are left");
}

/// Starts a build whose step writes `started` and then sleeps.
fn sleeping_build(place: &Place) -> (Child, u32) {
    let images = support::repository().join("testdata/conformance/images/busybox");
    let mut child = place
        .command(&[
            "--progress=plain",
            &format!("--build-context=busybox=oci-layout://{}:latest", images.display()),
            "ctx",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("started")), "the step did not start");
    // Keep the pipe open, so that the progress can be written.
    std::thread::spawn(move || lines.for_each(drop));
    let id = child.id();
    (child, id)
}

fn traces(place: &Place) -> Vec<String> {
    let state = place.path("state");
    let state = state.to_str().unwrap();
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found: Vec<String> =
        mounts.lines().filter(|line| line.contains(state)).map(str::to_owned).collect();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let environ = fs_err::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environ).contains(state) {
            found.push(format!("process {}", entry.file_name().display()));
        }
        let line = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.starts_with(b"sleep\x0098765") {
            found.push(format!("step process {}", entry.file_name().display()));
        }
    }
    found
}

#[test]
fn signals_stop_everything_within_a_second() {
    if !can_run() {
        return;
    }
    for signal in ["INT", "TERM"] {
        let place = Place::new(&[(
            "Dockerfile",
            "FROM busybox\nRUN echo started; touch /half; sleep 98765\n",
        )]);
        let (mut child, id) = sleeping_build(&place);
        let began = Instant::now();
        tool("kill", &[&format!("-{signal}"), &id.to_string()]);
        let status = child.wait().unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        assert_eq!(status.code(), Some(130));
        assert_eq!(traces(&place), Vec::<String>::new());
        place.expect_nothing_half_written("");
    }
}

#[test]
fn a_signal_ends_a_build_that_waits_for_a_registry() {
    let place = Place::new(&[]);
    // Takes connections and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    place.write("Dockerfile", &format!("FROM {address}/team/app:1\n"));
    let mut command = place.command(&["--progress=plain", "ctx"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let _connection = mute.accept().unwrap();
    interrupt(&place, child);
}

/// Sends SIGINT and sees to it that the build ends soon and in order.
#[track_caller]
fn interrupt(place: &Place, child: Child) {
    let began = Instant::now();
    tool("kill", &["-INT", &child.id().to_string()]);
    let ran = place.ran(child.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.ends_with("ERROR: canceled\n"), "{}", ran.stderr);
    place.expect_nothing_half_written("");
}

#[test]
fn a_signal_ends_a_download_and_leaves_nothing_of_it() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stalled, is_stalled) = std::sync::mpsc::channel();
    // Serves the manifest and the config of an image, and a part of its layer.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stalled = stalled.clone();
            std::thread::spawn(move || serve_in_part(stream.unwrap(), &stalled));
        }
    });
    place.write("Dockerfile", &format!("FROM {address}/team/app:1\nRUN true\n"));
    let mut command = place.command(&["--progress=plain", "ctx"]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    is_stalled.recv_timeout(Duration::from_secs(20)).unwrap();
    interrupt(&place, child);
}

/// Answers requests of one connection with the busybox image; of the layer only the first half.
fn serve_in_part(stream: TcpStream, stalled: &std::sync::mpsc::Sender<()>) {
    let image = support::repository().join("testdata/conformance/images/busybox");
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(image.join("index.json")).unwrap()).unwrap();
    let manifest = &index["manifests"][0];
    let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = request.split(' ').nth(1).unwrap();
        let (digest, kind) = match path.split_once("/blobs/") {
            Some((_, digest)) => (digest, "application/octet-stream"),
            None => (manifest["digest"].as_str().unwrap(), manifest["mediaType"].as_str().unwrap()),
        };
        let blob = image.join("blobs").join(digest.replace(':', "/"));
        let body = if path == "/v2/" { Vec::new() } else { fs_err::read(blob).unwrap() };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let part = if body.len() > 100_000 { body.len() / 2 } else { body.len() };
        (&stream).write_all(head.as_bytes()).unwrap();
        if !request.starts_with("HEAD") {
            (&stream).write_all(&body[..part]).unwrap();
        }
        if part < body.len() && !request.starts_with("HEAD") {
            stalled.send(()).unwrap();
            // Until the other side has gone.
            let _ = lines.next();
            return;
        }
    }
}

#[test]
fn a_killed_build_leaves_a_store_that_works() {
    if !can_run() {
        return;
    }
    let place =
        Place::new(&[("Dockerfile", "FROM busybox\nRUN echo started; touch /half; sleep 98765\n")]);
    let (mut child, _) = sleeping_build(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while !traces(&place).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", traces(&place));
        std::thread::yield_now();
    }
    place.write("Dockerfile", "FROM busybox\nRUN test ! -e /half && echo fine > /fine\n");
    place.build(&["--progress=plain", "-t", "after"]).ok();
    assert!(is_empty(&place.path("state/ingest")), "what was half written is swept");
}

fn is_empty(folder: &Path) -> bool {
    fs_err::read_dir(folder).map_or(true, |mut entries| entries.next().is_none())
}

#[test]
fn secrets_reach_the_step_and_nothing_else() {
    if !can_run() {
        return;
    }
    // The steps know the secret by its hash only.
    let dockerfile = "FROM busybox\n\
        RUN --mount=type=secret,id=tok md5sum < /run/secrets/tok | grep -q ^a063684a58f0aa68b919631c220eaa54\n\
        RUN --mount=type=secret,id=tok,env=TOK printf %s \"$TOK\" | md5sum | grep -q ^a063684a && ! ls /run/secrets\n";
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    fs_err::write(place.path("token"), "canary-4711").unwrap();
    place
        .build(&[
            "--progress=plain",
            "--secret=id=tok,src=token",
            "-t",
            "x",
            "-o",
            "type=oci,dest=x.tar,compression=uncompressed",
        ])
        .ok();
    let found = Command::new("grep")
        .args(["-rl", "canary-4711"])
        .arg(place.path("state"))
        .arg(place.path("x.tar"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn many_builds_share_one_store() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=cache,target=/c echo run >> /c/log; sleep 0.3\nRUN --mount=type=cache,target=/c wc -l < /c/log > /count\n",
    )]);
    let images = support::repository().join("testdata/conformance/images/busybox");
    let context = format!("--build-context=busybox=oci-layout://{}:latest", images.display());
    let children: Vec<Child> = (0..6)
        .map(|number| {
            let output = format!("type=local,dest=out{number}");
            place
                .command(&["--progress=plain", "-o", &output, &context, "ctx"])
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        place.ran(child.wait_with_output().unwrap()).ok();
    }
    for number in 0..6 {
        let count = fs_err::read_to_string(place.path(&format!("out{number}/count"))).unwrap();
        assert_eq!(count.trim(), "1", "the shared step ran once");
    }
}

/// The config of an image of an OCI archive.
fn config_of(place: &Place, archive: &str) -> serde_json::Value {
    let from = format!("oci-archive:{}", place.path(archive).display());
    serde_json::from_str(&tool("skopeo", &["inspect", "--config", &from])).unwrap()
}

#[test]
fn triggers_of_a_base_run_in_the_build_upon_it() {
    if !can_run() || !has("skopeo") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM onbuild\n"), ("trigger.txt", "from below\n")]);
    let ran = place.build(&[
        "--progress=plain",
        "--build-arg=TRIG_ARG=given",
        "-o",
        "type=oci,dest=x.oci",
        "-o",
        "type=local,dest=out",
    ]);
    ran.ok();
    assert_eq!(
        fs_err::read_to_string(place.path("out/opt/trigger/ran")).unwrap(),
        "yes given\nfrom below\n"
    );
    let config = &config_of(&place, "x.oci")["config"];
    assert_eq!(config["Labels"]["trigger.label"], "set");
    assert_eq!(config["WorkingDir"], "/opt/trigger");
    assert!(config["OnBuild"].is_null(), "{config}");
}

#[test]
fn dockerfile_comes_from_standard_input() {
    let place = Place::new(&[
        ("Dockerfile", "FROM nothing-of-this-name\n"),
        ("kept", "x"),
        ("hidden", "x"),
        (".dockerignore", "hidden\n"),
    ]);
    let mut child = place
        .command(&["-f", "-", "-o", "out", "ctx"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"FROM scratch\nCOPY . /\n").unwrap();
    place.ran(child.wait_with_output().unwrap()).ok();
    let mut names: Vec<_> = fs_err::read_dir(place.path("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".dockerignore", "Dockerfile", "kept"]);
}

#[test]
fn folders_are_further_contexts() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[(
        "Dockerfile",
        "FROM busybox AS read\nRUN --mount=from=data,target=/m cat /m/deep/file > /read\n\
         FROM data\nCOPY --from=data deep/file /copied\nCOPY --from=read /read /read\n",
    )]);
    let data = place.path("data");
    fs_err::create_dir_all(data.join("deep")).unwrap();
    fs_err::write(data.join("deep/file"), "of data\n").unwrap();
    fs_err::write(data.join("secret.key"), "x").unwrap();
    fs_err::write(data.join(".dockerignore"), "*.key\n").unwrap();
    place.build(&["--build-context=data=data", "-o", "out"]).ok();
    for name in ["copied", "read", "deep/file"] {
        let text = fs_err::read_to_string(place.path("out").join(name)).unwrap();
        assert_eq!(text, "of data\n", "{name}");
    }
    assert!(!place.path("out/secret.key").exists(), "its own ignore file counts");
    let ran = place.build(&["--build-context=data=absent"]);
    let expect = "ERROR: failed to get build context data: `absent` is not a folder\n  help: ";
    assert!(ran.code == Some(2) && ran.stderr.starts_with(expect), "{}", ran.stderr);
}

#[test]
fn images_for_other_platforms_are_put_together_here() {
    if !can_run() || !has("skopeo") {
        return;
    }
    let place = Place::new(&[(
        "Dockerfile",
        "FROM --platform=$BUILDPLATFORM busybox AS build\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
         FROM scratch\nCOPY --from=build /arch /\nENV A=b\nENTRYPOINT [\"/app\"]\n",
    )]);
    place.build(&["--platform=linux/arm64", "-o", "type=oci,dest=arm.oci", "-o", "arm"]).ok();
    let config = config_of(&place, "arm.oci");
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["config"]["Entrypoint"][0], "/app");
    assert_eq!(fs_err::read_to_string(place.path("arm/arch")).unwrap(), "arm64\n");
    place.build(&["--platform=linux/amd64,linux/arm64", "-o", "type=oci,dest=both.oci"]).ok();
    let from = format!("oci-archive:{}", place.path("both.oci").display());
    let index: serde_json::Value =
        serde_json::from_str(&tool("skopeo", &["inspect", "--raw", &from])).unwrap();
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|manifest| manifest["platform"]["architecture"].clone())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
}

#[test]
fn quiet_prints_the_id_that_the_id_file_has() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY a /\n"), ("a", "x")]);
    let ran = place.build(&["-q", "--iidfile=iid"]).ok();
    assert_eq!(ran.stderr, "");
    let id = fs_err::read_to_string(place.path("iid")).unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(ran.stdout, format!("{id}\n"));
    // Files alone have no id.
    assert_eq!(place.build(&["-q", "-o", "out"]).ok().stdout, "\n");
    let archive = place.command(&["-q", "-o", "type=tar,dest=-", "ctx"]).output().unwrap().stdout;
    assert!(archive.len().is_multiple_of(512) && archive.ends_with(&[0; 512]), "{}", archive.len());
    let refused = place.build(&["--iidfile=iid", "-o", "out"]);
    assert_eq!(
        (refused.code, refused.stderr.as_str()),
        (Some(2), "ERROR: local and tar exporters are incompatible with image ID file\n")
    );
    assert_eq!(place.build(&["-q", "--progress=plain"]).code, Some(2));
    // A build that fails leaves no id of an earlier one, and still tells why.
    place.write("Dockerfile", "FROM scratch\nCOPY b /\n");
    let failed = place.build(&["-q", "--iidfile=iid"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(failed.stderr.starts_with("Dockerfile:2\n"), "{}", failed.stderr);
    assert!(!place.path("iid").exists());
}

#[test]
fn a_variable_that_is_empty_is_as_good_as_none() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let state = place.path("data");
    let mut command = place.command(&["-q", "ctx"]);
    command.arg("--root").arg(&state);
    for name in
        ["BRICKLAYER_ROOT", "BRICKLAYER_ISOLATION", "BUILDKIT_PROGRESS", "DOCKER_DEFAULT_PLATFORM"]
    {
        command.env(name, "");
    }
    place.ran(command.output().unwrap()).ok();
    assert!(state.is_dir());
}
