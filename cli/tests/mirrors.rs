//! Mirrors, certificates and proxies with the real executable and real registries.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../../registry/tests/support/process.rs"]
mod process;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use process::{Registry, Settings, tls};
use support::{Place, Ran, has};

fn write(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    fs_err::write(&path, text).unwrap();
    path.display().to_string()
}

/// Pushes an image with one file to each of the names.
fn push(place: &Place, names: &[String]) {
    place.write("Dockerfile", "FROM scratch\nCOPY base /base\n");
    place.write("base", &"of the base ".repeat(20_000));
    for name in names {
        place.build(&["-t", name, "--push"]).ok();
    }
    place.write("Dockerfile", "FROM images.example/base:1\nCOPY base /copy\n");
}

/// Builds into a tar, with a state folder of this name, these variables and no other proxies.
fn build(place: &Place, state: &str, env: &[(&str, &str)]) -> Ran {
    let words = ["--progress=plain", "-o", "type=tar,dest=out.tar", "ctx"];
    let mut command = place.command(&words);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command.env("BRICKLAYER_ROOT", place.path(state)).env("XDG_CONFIG_HOME", place.path("own"));
    place.ran(command.envs(env.iter().copied()).output().unwrap())
}

#[test]
fn a_build_does_not_depend_on_the_mirror_that_it_used() {
    let place = Place::new(&[]);
    let Some(origin) = Registry::start_in(&place.path("r1")) else { return };
    let Some(mirror) = Registry::start_in(&place.path("r2")) else { return };
    push(&place, &[format!("{}/base:1", origin.host), format!("{}/copy/base:1", mirror.host)]);
    let table = format!("[[registry]]\nprefix = 'images.example'\nlocation = '{}'\n", origin.host);
    let alone = write(&place, "alone.conf", &table);
    let both = table + &format!("[[registry.mirror]]\nlocation = '{}/copy'\n", mirror.host);
    let both = write(&place, "both.conf", &both);
    let conf = |file: &str| [("CONTAINERS_REGISTRIES_CONF", file.to_owned())];
    let with = |state: &str, file: &str| {
        let [(name, value)] = &conf(file);
        let ran = build(&place, state, &[(name, value)]).ok();
        (ran, fs_err::read(place.path("out.tar")).unwrap())
    };
    let (_, by_mirror) = with("one", &both);
    // The same state knows the step, wherever its base would come from now.
    let (again, by_origin) = with("one", &alone);
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert!(by_mirror == by_origin);
    // A mirror whose blobs are damaged gives nothing of them to a build.
    let blobs = place.path("r2/data/docker/registry/v2/blobs/sha256");
    let mut damaged = 0;
    for short in fs_err::read_dir(blobs).unwrap() {
        for blob in fs_err::read_dir(short.unwrap().path()).unwrap() {
            let file = blob.unwrap().path().join("data");
            let bytes = fs_err::read(&file).unwrap();
            if !bytes.starts_with(b"{") {
                fs_err::write(&file, vec![7; bytes.len()]).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0);
    let (_, by_damaged) = with("two", &both);
    assert!(by_damaged == by_origin);
    drop(origin);
    let [(name, value)] = &conf(&both);
    let ran = build(&place, "three", &[(name, value)]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let wrong = format!("(1) {}/copy/base@sha256:", mirror.host);
    assert!(ran.stderr.contains(&wrong), "{}", ran.stderr);
    assert!(ran.stderr.contains("registry sent wrong bytes: expected "), "{}", ran.stderr);
    assert!(ran.stderr.contains("; (2) GET http://127.0.0.1:"), "{}", ran.stderr);
}

#[test]
fn a_mistake_in_a_file_is_told_with_its_place() {
    let place = Place::new(&[("Dockerfile", "FROM images.example/base:1\n")]);
    let file = write(&place, "own/containers/registries.conf", "\n[[registry]]\nmirrors = []\n");
    let ran = build(&place, "state", &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let report = ran.report();
    let expect =
        "cannot use `[place]/own/containers/registries.conf`, line 3: unknown field `mirrors`";
    assert!(report.contains(expect), "{report}");
    assert!(
        report.contains("help: correct the file, or move it away; docs/registries.md"),
        "{report}"
    );
    fs_err::write(file, "[[registry]]\nprefix = 'images.example'\nblocked = true\n").unwrap();
    let ran = build(&place, "state", &[]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let expect = "images.example/base:1: blocked by `[place]/own/containers/registries.conf`, line 1\n  help: use an image of another registry";
    assert!(ran.report().contains(expect), "{}", ran.report());
}

#[test]
fn doctor_names_the_files_about_registries() {
    let place = Place::new(&[]);
    let own = place.path("own");
    let doctor = |env: &[(&str, &Path)]| {
        let mut command = place.command(&["doctor"]);
        command.env("XDG_CONFIG_HOME", &own).envs(env.iter().copied());
        place.ran(command.output().unwrap()).stdout
    };
    write(&place, "own/containers/registries.conf", "");
    write(&place, "own/containers/registries.conf.d/a.conf", "");
    let told = doctor(&[]);
    let files = "registries.conf, [place]/own/containers/registries.conf.d/a.conf";
    assert!(told.contains(files), "{told}");
    let bad = write(&place, "bad.conf", "x = 1");
    let told = doctor(&[("CONTAINERS_REGISTRIES_CONF", Path::new(&bad))]);
    assert!(told.contains("cannot use `[place]/bad.conf`, line 1: unknown field `x`"), "{told}");
}

/// A proxy on loopback that brings every host to one server, and notes what it was asked for first on each connection.
struct Proxy {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, server) = (Arc::clone(&asked), server.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, server) = (Arc::clone(&log), server.clone());
                std::thread::spawn(move || serve(stream, &server, &log));
            }
        });
        Self { host, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// Brings one connection to the server. What is asked for by its whole address is understood there too.
fn serve(client: TcpStream, server: &str, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut upstream = TcpStream::connect(server).ok()?;
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    log.lock().unwrap().push(line.trim_end().to_owned());
    if line.starts_with("CONNECT ") {
        let mut rest = String::new();
        while reader.read_line(&mut rest).ok()? > 2 {
            rest.clear();
        }
        (&client).write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    } else {
        upstream.write_all(line.as_bytes()).ok()?;
    }
    let (mut back, mut to) = (upstream.try_clone().ok()?, client);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut reader, &mut upstream);
    let _ = upstream.shutdown(Shutdown::Write);
    Some(())
}

/// What a build told, and what the proxy was asked for meanwhile.
fn by_proxy(place: &Place, state: &str, proxy: &Proxy, env: &[(&str, &str)]) -> (Ran, Vec<String>) {
    let ran = build(place, state, env);
    (ran, proxy.asked())
}

#[test]
fn registries_are_asked_through_the_proxies_of_the_environment() {
    let place = Place::new(&[]);
    let Some(origin) = Registry::start_in(&place.path("r")) else { return };
    push(&place, &[format!("{}/base:1", origin.host)]);
    write(
        &place,
        "own/containerd/certs.d/images.example/hosts.toml",
        "server = 'http://images.example:8080'\n",
    );
    let proxy = Proxy::start(&origin.host);
    let url = format!("http://{}", proxy.host);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let (ran, asked) = by_proxy(&place, name, &proxy, &[(name, &url)]);
        ran.ok();
        assert_eq!(
            asked[0],
            "GET http://images.example:8080/v2/base/manifests/1?ns=images.example HTTP/1.1",
            "{name}"
        );
    }
    for (name, hosts) in [("NO_PROXY", "images.example"), ("no_proxy", "x.example,.example")] {
        let (ran, asked) = by_proxy(&place, "no", &proxy, &[("HTTP_PROXY", &url), (name, hosts)]);
        assert_eq!((ran.code, asked), (Some(3), vec![]), "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains("images.example:8080: no such host"), "{}", ran.stderr);
    }
    // This machine is no other one to a proxy.
    place.write("Dockerfile", &format!("FROM {}/base:1\n", origin.host));
    let (ran, asked) = by_proxy(&place, "local", &proxy, &[("ALL_PROXY", &url)]);
    ran.ok();
    assert!(asked.is_empty(), "{asked:?}");
}

#[test]
fn tls_goes_through_a_proxy_to_a_registry_with_an_authority_of_its_own() {
    if !has("openssl") {
        return;
    }
    let place = Place::new(&[]);
    let folder = place.path("r");
    let Some(plain) = Registry::start_in(&folder) else { return };
    push(&place, &[format!("{}/base:1", plain.host)]);
    drop(plain);
    let made = Command::new("openssl")
        .current_dir(&folder)
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
                .split(' '),
        )
        .args("-keyout key.pem -out cert.pem -addext subjectAltName=DNS:images.example".split(' '))
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .output();
    assert!(made.unwrap().status.success());
    let http = tls(&folder.join("cert.pem"), &folder.join("key.pem"));
    let settings = Settings { http, ..Settings::default() };
    let Some(origin) = Registry::start(&folder, &settings) else { return };
    let proxy = Proxy::start(&origin.host);
    let url = format!("http://{}", proxy.host);
    let (ran, _) = by_proxy(&place, "s", &proxy, &[("HTTPS_PROXY", &url)]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let expect = format!(
        "no trusted TLS connection to registry `images.example` at images.example:443 through the proxy `{url}`: add its certificate authority to the system or as `/etc/docker/certs.d/images.example/ca.crt`, or mark the registry insecure if it is: "
    );
    assert!(ran.stderr.contains(&expect), "{}", ran.stderr);
    let authority = place.path("docker/certs.d/images.example/ca.crt");
    fs_err::create_dir_all(authority.parent().unwrap()).unwrap();
    fs_err::copy(folder.join("cert.pem"), authority).unwrap();
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let (ran, asked) = by_proxy(&place, name, &proxy, &[(name, &url)]);
        ran.ok();
        assert_eq!(asked[0], "CONNECT images.example:443 HTTP/1.1", "{name}");
    }
}
