//! Certificates for single hosts, with real registries that have TLS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod registries;

use std::path::Path;
use std::time::Duration;

use registries::{Certificates, Server, Setup, nobody, push_image, reference, start, text};
use registry::{Client, ClientOptions, ConfigPaths, Error};
use tempfile::TempDir;

fn client(config: ConfigPaths) -> Client {
    Client::new(ClientOptions {
        backoff: Duration::from_millis(1),
        config,
        ..ClientOptions::default()
    })
}

/// A client with these folders of certificates.
fn with_folders(folders: &[&Path]) -> Client {
    let certificates = folders.iter().map(|folder| folder.to_path_buf()).collect();
    client(ConfigPaths { certificates, ..ConfigPaths::default() })
}

struct Scene {
    made: Certificates,
    server: Server,
    folder: TempDir,
}

impl Scene {
    fn new(wants_certificate: bool) -> Option<Self> {
        let made = Certificates::make()?;
        let authority = made.path().join("ca.pem");
        let clients = wants_certificate.then_some(authority.as_path());
        let server = start(&Setup { tls: Some(made.path()), clients, ..Setup::default() })?;
        Some(Self { made, server, folder: tempfile::tempdir().unwrap() })
    }

    /// Puts a file of the authority's into the folder for the server.
    fn put(&self, name: &str, to: &str) {
        self.made.copy(name, &self.own().join(to));
    }

    fn own(&self) -> std::path::PathBuf {
        self.folder.path().join(&self.server.host)
    }

    fn push(&self, client: &Client) -> Result<(), Error> {
        let name = reference(&format!("{}/app:1", self.server.host));
        let pushed = push_image(client, &name, &vec![7; 1_000_000])?;
        assert_eq!(client.resolve(&name)?.descriptor, pushed);
        Ok(())
    }

    fn refusal(&self) -> String {
        text(&self.push(&with_folders(&[self.folder.path()])).unwrap_err())
    }
}

#[test]
fn an_authority_in_the_folder_of_its_host_is_trusted_there() {
    let Some(scene) = Scene::new(false) else { return };
    let other = tempfile::tempdir().unwrap();
    scene.made.copy("client.pem", &scene.own().join("other.crt"));
    let error = scene.refusal();
    let expect = format!(
        "no trusted TLS connection to registry `{host}` at {host}: add its certificate authority to the system or as `{}/{host}/ca.crt`, or mark the registry insecure if it is: ",
        scene.folder.path().display(),
        host = scene.server.host
    );
    assert!(error.starts_with(&expect), "{error}");
    assert!(error.contains("UnknownIssuer"), "{error}");
    scene.put("ca.pem", "ca.crt");
    scene.push(&with_folders(&[scene.folder.path()])).unwrap();
    // The first folder that there is for a host counts alone.
    scene.push(&with_folders(&[other.path(), scene.folder.path()])).unwrap();
    fs_err::create_dir(other.path().join(&scene.server.host)).unwrap();
    assert!(scene.push(&with_folders(&[other.path(), scene.folder.path()])).is_err());
}

#[test]
fn a_registry_that_wants_a_certificate_gets_that_of_its_folder() {
    let Some(scene) = Scene::new(true) else { return };
    scene.put("ca.pem", "ca.crt");
    let (host, own) = (&scene.server.host, scene.own().display().to_string());
    let error = scene.refusal();
    let expect = format!(
        "registry `{host}` at {host} wants a certificate: put `client.cert` and `client.key` into `{own}`: "
    );
    assert!(error.starts_with(&expect), "{error}");
    assert!(error.contains("received fatal alert: "), "{error}");
    scene.put("client.pem", "client.cert");
    scene.put("client.key", "client.key");
    scene.push(&with_folders(&[scene.folder.path()])).unwrap();
    // One of another authority.
    let stranger = Certificates::make().unwrap();
    stranger.copy("client.pem", &scene.own().join("client.cert"));
    stranger.copy("client.key", &scene.own().join("client.key"));
    let error = scene.refusal();
    let expect =
        format!("registry `{host}` at {host} refused the certificate `{own}/client.cert`: ");
    assert!(error.starts_with(&expect), "{error}");
}

#[test]
fn of_several_certificates_that_of_a_wanted_authority_is_shown() {
    let Some(scene) = Scene::new(true) else { return };
    let stranger = Certificates::make().unwrap();
    let clients = |order: [&Certificates; 2]| {
        for (made, name) in order.into_iter().zip(["a", "b"]) {
            made.copy("client.pem", &scene.own().join(format!("{name}.cert")));
            made.copy("client.key", &scene.own().join(format!("{name}.key")));
        }
    };
    scene.put("ca.pem", "ca.crt");
    stranger.rename();
    for order in [[&stranger, &scene.made], [&scene.made, &stranger]] {
        clients(order);
        scene.push(&with_folders(&[scene.folder.path()])).unwrap();
    }
    clients([&stranger, &stranger]);
    let error = scene.refusal();
    let expect = format!("refused the certificate `{}/a.cert`: ", scene.own().display());
    assert!(error.contains(&expect), "{error}");
    // So it is where `hosts.toml` names them.
    let hosts = scene.folder.path().join("h.example");
    for (made, prefix) in [(&stranger, "other"), (&scene.made, "own")] {
        made.copy("client.pem", &hosts.join(format!("{prefix}.pem")));
        made.copy("client.key", &hosts.join(format!("{prefix}.key")));
    }
    scene.made.copy("ca.pem", &hosts.join("ca.pem"));
    let text = format!(
        "server='https://{}'\nca='ca.pem'\nclient=[['other.pem','other.key'],['own.pem','own.key']]",
        scene.server.host
    );
    fs_err::write(hosts.join("hosts.toml"), text).unwrap();
    let folders = vec![scene.folder.path().to_owned()];
    let client = client(ConfigPaths { hosts: folders, ..ConfigPaths::default() });
    push_image(&client, &reference("h.example/app:1"), b"layer").unwrap();
}

#[test]
fn a_certificate_of_version_1_is_shown_too() {
    let Some(scene) = Scene::new(true) else { return };
    scene.put("ca.pem", "ca.crt");
    scene.made.old_client();
    scene.put("old.pem", "client.cert");
    scene.put("client.key", "client.key");
    let pushed = scene.push(&with_folders(&[scene.folder.path()]));
    // It is for the server to say whether it will do.
    if let Err(error) = pushed {
        assert!(text(&error).contains("refused the certificate"), "{}", text(&error));
    }
}

#[test]
fn a_certificate_that_a_server_made_for_itself_is_trusted_from_its_folder() {
    let Some(made) = Certificates::make() else { return };
    for is_good in [true, false] {
        made.self_signed(is_good);
        let Some(server) = start(&Setup { tls: Some(made.path()), ..Setup::default() }) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join(&server.host);
        let name = reference(&format!("{}/app:1", server.host));
        let push = || push_image(&with_folders(&[folder.path()]), &name, b"layer");
        fs_err::create_dir(&own).unwrap();
        let error = text(&push().unwrap_err());
        let expect = format!(
            "answered 400 Bad Request: servers with TLS answer so to plain HTTP: if it is one, put its certificate authority into `{}/ca.crt`",
            own.display()
        );
        assert!(error.ends_with(&expect), "{error}");
        made.copy("server.pem", &own.join("ca.crt"));
        let pushed = push();
        if is_good {
            pushed.unwrap();
            // For another name it is no good.
            let other = reference(&name.to_string().replace("127.0.0.1", "localhost"));
            fs_err::rename(&own, folder.path().join(other.host())).unwrap();
            let error =
                text(&push_image(&with_folders(&[folder.path()]), &other, b"l").unwrap_err());
            assert!(error.contains("a name that its certificate is for"), "{error}");
        } else {
            let error = text(&pushed.unwrap_err());
            assert!(error.contains("check the clock of this machine"), "{error}");
            assert!(error.contains(": the certificate expired 2"), "{error}");
        }
    }
}

#[test]
fn a_registry_without_tls_is_told_from_one_without_trust() {
    let Some(plain) = start(&Setup::default()) else { return };
    let there = plain.host.replace("127.0.0.1", "0.0.0.0");
    let error = push_image(&with_folders(&[]), &reference(&format!("{there}/app:1")), b"layer");
    let expect = format!(
        "no trusted TLS connection to registry `{there}` at {there}: what answers does not speak TLS: mark the registry insecure if it is: "
    );
    assert!(text(&error.unwrap_err()).starts_with(&expect));
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let Some(scene) = Scene::new(false) else { return };
    let own = scene.own().display().to_string();
    let put = |name: &str, bytes: &[u8]| fs_err::write(scene.own().join(name), bytes).unwrap();
    let check = |expect: &str| {
        assert_eq!(scene.refusal(), format!("cannot use `{own}/{}", expect.replace("OWN", &own)));
        fs_err::remove_dir_all(scene.own()).unwrap();
        fs_err::create_dir(scene.own()).unwrap();
    };
    scene.put("ca.pem", "a.crt");
    put("b.crt", b"");
    check("b.crt`: holds no certificate in PEM form");
    put("c.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check("c.crt`: holds no certificate in PEM form");
    scene.put("client.key", "d.crt");
    check("d.crt`: holds no certificate in PEM form");
    scene.put("client.pem", "e.cert");
    check("e.cert`: its key `OWN/e.key` is missing");
    scene.put("client.key", "e.key");
    check(
        "e.key`: a key without its certificate `OWN/e.cert`; certificate authorities end in `.crt`",
    );
    scene.put("client.pem", "f.cert");
    put("f.key", b"hunter2");
    check("f.cert`: holds no certificate, or `OWN/f.key` no key, in PEM form");
    scene.put("client.pem", "g.cert");
    scene.put("server.key", "g.key");
    check("g.cert`: is not the certificate of the key in `OWN/g.key`");
    scene.put("client.pem", "h.cert");
    scene.made.encrypt("client.key", &scene.own().join("h.key"));
    check("h.cert`: the key in `OWN/h.key` is encrypted, which is not supported");
    fs_err::create_dir(scene.own().join("j.crt")).unwrap();
    check("j.crt`: is a folder");
}

#[test]
fn hosts_toml_names_certificates_from_its_own_folder() {
    let Some(scene) = Scene::new(true) else { return };
    let host = &scene.server.host;
    let hosts = scene.folder.path().join("h.example");
    for name in ["ca.pem", "client.pem", "client.key"] {
        scene.made.copy(name, &hosts.join(name));
    }
    let both = [fs_err::read(hosts.join("client.pem")), fs_err::read(hosts.join("client.key"))];
    fs_err::write(hosts.join("both.pem"), both.map(Result::unwrap).concat()).unwrap();
    let with = |text: &str| {
        fs_err::write(hosts.join("hosts.toml"), text).unwrap();
        let folders = vec![scene.folder.path().to_owned()];
        let client = client(ConfigPaths { hosts: folders, ..ConfigPaths::default() });
        push_image(&client, &reference("h.example/app:1"), b"layer")
    };
    with(&format!("server='https://{host}'\nca='ca.pem'\nclient=[['client.pem','client.key']]"))
        .unwrap();
    with(&format!("server='https://{host}'\nca=['ca.pem']\nclient='both.pem'\ndial_timeout='10s'"))
        .unwrap();
    with(&format!("[host.'https://{host}']\nskip_verify=true\nclient=['both.pem']")).unwrap();
    // Settings for TLS mean that it is tried first.
    with(&format!("[host.'http://{host}']\nskip_verify=true\nclient='both.pem'")).unwrap();
    let error = with(&format!("server='https://{host}'\nclient='both.pem'")).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let error = with(&format!("server='https://{host}'\nca='none.pem'")).unwrap_err();
    let expect = format!("cannot use `{}/none.pem`: no such file", hosts.display());
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_folder_of_containerd_without_hosts_toml_holds_certificates_too() {
    let Some(scene) = Scene::new(false) else { return };
    let paths =
        || ConfigPaths { hosts: vec![scene.folder.path().to_owned()], ..ConfigPaths::default() };
    scene.put("ca.pem", "ca.crt");
    scene.push(&client(paths())).unwrap();
    let name = scene.server.host.replacen(':', "_", 1) + "_";
    fs_err::rename(scene.own(), scene.folder.path().join(name)).unwrap();
    scene.push(&client(paths())).unwrap();
}

#[test]
fn a_registry_that_is_marked_insecure_needs_no_authority() {
    let Some(scene) = Scene::new(false) else { return };
    let Some(plain) = start(&Setup::default()) else { return };
    let conf = scene.folder.path().join("r.conf");
    let client = |text: String| {
        fs_err::write(&conf, text).unwrap();
        client(ConfigPaths { registries: Some(conf.clone()), ..ConfigPaths::default() })
    };
    // Only of another machine less than TLS would have to be allowed.
    let place = |host: &str| host.replace("127.0.0.1", "0.0.0.0");
    for server in [&scene.server, &plain] {
        let there = place(&server.host);
        let name = reference(&format!("{there}/app:1"));
        let error = push_image(&client(String::new()), &name, b"layer").unwrap_err();
        assert!(matches!(error, Error::Tls { .. } | Error::Unreachable { .. }), "{error:?}");
        let marked = client(format!("[[registry]]\nlocation = '{there}'\ninsecure = true\n"));
        push_image(&marked, &name, b"layer").unwrap();
        // So may a mirror be, and the registry itself need not.
        let mirror = client(format!(
            "[[registry]]\nprefix = '{down}'\n[[registry.mirror]]\nlocation = '{there}'\ninsecure = true\n",
            down = nobody()
        ));
        let down = fs_err::read_to_string(&conf).unwrap();
        let down = down.split('\'').nth(1).unwrap();
        mirror.resolve(&reference(&format!("{down}/app:1"))).unwrap();
    }
}
