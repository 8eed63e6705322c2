//! The client against a real registry on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use llb::image::{Descriptor, DescriptorPlatform, Index, Manifest, media_type};
use llb::{Digest, Platform, Reference};
use registry::{Client, ClientOptions, Error, HostOptions, Pushed};
use tempfile::TempDir;

/// `user` with the password `secret`.
const HTPASSWD: &str = r"user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a
";

struct Server {
    child: Child,
    host: String,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts `docker-registry`; `None`, with a word on it, where it is not installed.
fn start(password: bool) -> Option<Server> {
    start_with(tempfile::tempdir().unwrap(), password, false)
}

/// As [`start`]; with `tls`, there are a `cert.pem` and its `key.pem` in `folder`.
fn start_with(folder: TempDir, password: bool, tls: bool) -> Option<Server> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let tls = if tls {
        format!(", tls: {{certificate: '{}', key: '{}'}}", at("cert.pem"), at("key.pem"))
    } else {
        String::new()
    };
    let mut config = format!(
        "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'{tls}}}\nstorage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n",
        at("data")
    );
    if password {
        fs_err::write(at("htpasswd"), HTPASSWD).unwrap();
        config += &format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", at("htpasswd"));
    }
    fs_err::write(at("config.yml"), config).unwrap();
    let started = Command::new("docker-registry")
        .args(["serve", &at("config.yml")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        println!("SKIP: docker-registry is not installed");
        return None;
    };
    let server = Server { child, host, folder };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&server.host).is_err() {
        assert!(Instant::now() < deadline, "docker-registry does not listen");
        std::thread::yield_now();
    }
    Some(server)
}

fn reference(server: &Server, name: &str) -> Reference {
    Reference::parse(&format!("{}/{name}", server.host)).unwrap()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: None,
        annotations: None,
        data: None,
        platform: None,
        artifact_type: None,
    }
}

fn push_bytes(
    client: &Client,
    repository: &Reference,
    bytes: &[u8],
    from: Option<&Reference>,
) -> Pushed {
    let owned = bytes.to_vec();
    let source = move || Ok(Box::new(std::io::Cursor::new(owned.clone())) as Box<dyn Read + Send>);
    client.push_blob(repository, &descriptor(media_type::OCI_LAYER, bytes), source, from).unwrap()
}

fn push_image(client: &Client, reference: &Reference, layer: &[u8]) -> Descriptor {
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    push_bytes(client, reference, layer, None);
    push_bytes(client, reference, config, None);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.into(),
        artifact_type: None,
        config: descriptor(media_type::OCI_CONFIG, config),
        layers: Some(vec![descriptor(media_type::OCI_LAYER, layer)]),
        subject: None,
        annotations: None,
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    client.push_manifest(reference, media_type::OCI_MANIFEST, &bytes).unwrap()
}

fn round_trip(server: &Server, client: &Client) {
    let app = reference(server, "team/app:1.0");
    // Larger than all buffers on the way together.
    let layer: Vec<u8> =
        (0..9_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let pushed = push_image(client, &app, &layer);

    assert_eq!(client.head(&app).unwrap(), pushed);
    let image = client.resolve_image(&app, &Platform::parse("linux/amd64").unwrap()).unwrap();
    assert_eq!((&image.top, &image.document.descriptor), (&image.document, &pushed));
    let blob = &image.manifest.layers.as_ref().unwrap()[0];
    let mut read = Vec::new();
    client.blob(&app, blob).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == layer);
    assert_eq!(
        client.small_blob(&app, &image.manifest.config, 4096).unwrap().len() as u64,
        image.manifest.config.size
    );

    assert_eq!(push_bytes(client, &app, &layer, None), Pushed::Existed);
    let other = reference(server, "other");
    assert!(!client.blob_exists(&other, blob.digest).unwrap());
    assert_eq!(push_bytes(client, &other, &layer, Some(&app)), Pushed::Mounted);
    assert!(client.blob_exists(&other, blob.digest).unwrap());
    // What the other repository does not have is sent.
    assert_eq!(push_bytes(client, &other, b"new", Some(&app)), Pushed::Uploaded);
    assert_eq!(push_bytes(client, &other, b"", None), Pushed::Uploaded);

    let missing = reference(server, "team/app:none");
    let error = client.resolve(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("{missing}: not found"));
    assert!(matches!(client.head(&missing), Err(Error::NotFound { .. })));
    // Names are resolved without the C library; this one also without any server.
    let (_, port) = server.host.split_once(':').unwrap();
    let named = Reference::parse(&format!("localhost:{port}/team/app:1.0")).unwrap();
    assert!(!matches!(client.head(&named), Err(Error::Unreachable { .. })));
    assert!(matches!(
        client.blob(&app, &descriptor("", b"never pushed")),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn anonymous_push_and_pull_round_trip() {
    let Some(server) = start(false) else { return };
    round_trip(&server, &Client::new(ClientOptions::default()));
}

#[test]
fn basic_auth_push_and_pull_round_trip() {
    let Some(server) = start(true) else { return };
    let config = server.folder.path().join("config.json");
    write_config(&config, &server.host, "dXNlcjpzZWNyZXQ=");
    round_trip(
        &server,
        &Client::new(ClientOptions { auth_files: vec![config], ..ClientOptions::default() }),
    );
}

fn write_config(path: &Path, host: &str, auth: &str) {
    let mut file = fs_err::File::create(path).unwrap();
    write!(file, r#"{{"auths": {{"{host}": {{"auth": "{auth}"}}}}}}"#).unwrap();
}

#[test]
fn missing_and_wrong_credentials_are_told_apart_from_absence() {
    let Some(server) = start(true) else { return };
    let config = server.folder.path().join("config.json");
    let options = ClientOptions { auth_files: vec![config.clone()], ..ClientOptions::default() };
    let app = reference(&server, "app");
    let expect = format!(
        "{app}: pull access denied, repository does not exist or may require authorization"
    );
    let anonymous = Client::new(options.clone()).resolve(&app).unwrap_err();
    assert!(anonymous.to_string().starts_with(&expect), "{anonymous}");
    write_config(&config, &server.host, "dXNlcjp3cm9uZw==");
    let wrong = Client::new(options).resolve(&app).unwrap_err();
    assert!(matches!(wrong, Error::Unauthorized { .. }), "{wrong}");
}

#[test]
fn index_gives_the_manifest_of_the_platform() {
    let Some(server) = start(false) else { return };
    let client = Client::new(ClientOptions::default());
    let app = reference(&server, "multi");
    let mut entries = Vec::new();
    for (architecture, variant) in [("amd64", ""), ("arm", "v7"), ("arm", "v6")] {
        let untagged = app.without_version();
        let mut entry =
            push_image(&client, &untagged, format!("{architecture}{variant}").as_bytes());
        entry.platform = Some(DescriptorPlatform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
            ..DescriptorPlatform::default()
        });
        entries.push(entry);
    }
    let index = Index {
        schema_version: 2,
        media_type: media_type::OCI_INDEX.into(),
        manifests: entries.clone(),
        annotations: None,
    };
    let bytes = serde_json::to_vec(&index).unwrap();
    let top = client.push_manifest(&app, media_type::OCI_INDEX, &bytes).unwrap();
    for (platform, entry) in [("linux/amd64", 0), ("linux/arm/v7", 1), ("linux/arm/v6", 2)] {
        let image = client.resolve_image(&app, &Platform::parse(platform).unwrap()).unwrap();
        assert_eq!(
            (image.top.descriptor, image.document.descriptor.digest),
            (top.clone(), entries[entry].digest)
        );
    }
    let none = client.resolve_image(&app, &Platform::parse("linux/s390x").unwrap()).unwrap_err();
    assert_eq!(
        none.to_string(),
        format!(
            "{app}: no match for platform `linux/s390x` in manifest: it has linux/amd64, linux/arm/v7, linux/arm/v6"
        )
    );
    assert_eq!(client.manifest_by_digest(&app, top.digest).unwrap().bytes, bytes);
}

#[test]
fn many_threads_share_a_client() {
    let Some(server) = start(false) else { return };
    let client = Client::new(ClientOptions::default());
    let repository = reference(&server, "threads");
    std::thread::scope(|scope| {
        for number in 0..8_u8 {
            let (client, repository) = (client.clone(), &repository);
            scope.spawn(move || {
                let bytes = vec![number; 300_000];
                push_bytes(&client, repository, &bytes, None);
                let mut read = Vec::new();
                client
                    .blob(repository, &descriptor("", &bytes))
                    .unwrap()
                    .read_to_end(&mut read)
                    .unwrap();
                assert!(read == bytes);
            });
        }
    });
}

#[test]
fn source_of_the_wrong_length_is_an_error_and_leaves_no_blob() {
    let Some(server) = start(false) else { return };
    let client = Client::new(ClientOptions::default());
    let repository = reference(&server, "short");
    let wanted = descriptor("", b"twelve bytes");
    for given in ["short", "far too many bytes"] {
        let source = || Ok(Box::new(given.as_bytes()) as Box<dyn Read + Send>);
        let error = client.push_blob(&repository, &wanted, source, None).unwrap_err();
        assert!(matches!(error, Error::Source { .. }), "{error}");
    }
    assert!(!client.blob_exists(&repository, wanted.digest).unwrap());
}

#[test]
fn certificate_must_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("openssl")
        .current_dir(folder.path())
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIP: openssl is not installed");
        return;
    }
    let Some(server) = start_with(folder, false, true) else { return };
    let mut options = ClientOptions::default();
    // A loopback host is asked by plain HTTP first; this one answers that it wants TLS.
    options.hosts.insert(server.host.clone(), HostOptions { insecure: Some(false) });
    let app = reference(&server, "app");
    let error = Client::new(options.clone()).resolve(&app).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    options
        .certificate_authorities
        .push(fs_err::read(server.folder.path().join("cert.pem")).unwrap());
    let client = Client::new(options);
    let pushed = push_image(&client, &app, &[7; 3_000_000]);
    assert_eq!(client.resolve(&app).unwrap().descriptor, pushed);
}
