//! The client against a real registry on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod registries;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use llb::image::{DescriptorPlatform, Index, media_type};
use llb::{Platform, Reference};
use registries::{Certificates, Server, Setup, descriptor, push_image, start};
use registry::{Cancel, Client, ClientOptions, Error, Growing, Grown, HostOptions, Pushed};

const PLAIN: Setup<'_> = Setup { password: false, tls: None, clients: None };
const PASSWORD: Setup<'_> = Setup { password: true, ..PLAIN };

fn reference(server: &Server, name: &str) -> Reference {
    Reference::parse(&format!("{}/{name}", server.host)).unwrap()
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

fn round_trip(server: &Server, client: &Client) {
    let app = reference(server, "team/app:1.0");
    // Larger than all buffers on the way together.
    let layer: Vec<u8> =
        (0..9_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let pushed = push_image(client, &app, &layer).unwrap();

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
    let Some(server) = start(&PLAIN) else { return };
    round_trip(&server, &Client::new(ClientOptions::default()));
}

#[test]
fn basic_auth_push_and_pull_round_trip() {
    let Some(server) = start(&PASSWORD) else { return };
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
    let Some(server) = start(&PASSWORD) else { return };
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
    let Some(server) = start(&PLAIN) else { return };
    let client = Client::new(ClientOptions::default());
    let app = reference(&server, "multi");
    let mut entries = Vec::new();
    for (architecture, variant) in [("amd64", ""), ("arm", "v7"), ("arm", "v6")] {
        let untagged = app.without_version();
        let mut entry =
            push_image(&client, &untagged, format!("{architecture}{variant}").as_bytes()).unwrap();
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
    let Some(server) = start(&PLAIN) else { return };
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
    let Some(server) = start(&PLAIN) else { return };
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

/// A blob of which there is one chunk; sets the flag when more is wanted.
struct Interrupted(Cancel);

impl Growing for Interrupted {
    fn wait(&self, least: u64) -> Option<Grown> {
        let there = Grown { size: 5 << 20, digest: None };
        if least <= there.size {
            return Some(there);
        }
        self.0.cancel();
        None
    }

    fn read_at(&self, buffer: &mut [u8], _offset: u64) -> std::io::Result<usize> {
        buffer.fill(7);
        Ok(buffer.len())
    }
}

#[test]
fn an_interrupted_push_leaves_no_upload_in_the_registry() {
    let Some(server) = start(&PLAIN) else { return };
    let cancel = Cancel::new();
    let client = Client::new(ClientOptions::default()).with_cancel(cancel.clone());
    let repository = reference(&server, "interrupted");
    let pushed = client.push_growing(&repository, Arc::new(Interrupted(cancel)));
    // Whichever is noticed first: the flag, or that there is no blob.
    assert!(matches!(pushed, Ok(false) | Err(Error::Cancelled)), "{pushed:?}");
    let uploads = server.folder.path().join("data/docker/registry/v2/repositories/interrupted");
    let mut uploads = fs_err::read_dir(uploads.join("_uploads")).unwrap();
    // It may keep a note of one that has ended, but no bytes.
    assert!(uploads.all(|upload| !upload.unwrap().path().join("data").exists()));
}

#[test]
fn certificate_must_be_trusted() {
    let Some(certificates) = Certificates::make() else { return };
    let Some(server) = start(&Setup { tls: Some(certificates.path()), ..PLAIN }) else { return };
    let mut options = ClientOptions::default();
    // A loopback host is asked by plain HTTP first; this one answers that it wants TLS.
    options.hosts.insert(server.host.clone(), HostOptions { insecure: Some(false) });
    let app = reference(&server, "app");
    let error = Client::new(options.clone()).resolve(&app).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    options.certificate_authorities.push(fs_err::read(certificates.path().join("ca.pem")).unwrap());
    let client = Client::new(options);
    let pushed = push_image(&client, &app, &[7; 3_000_000]).unwrap();
    assert_eq!(client.resolve(&app).unwrap().descriptor, pushed);
}
