//! What went well and is told nevertheless.

mod support;

use llb::Reference;
use registry::{Client, ClientOptions, ConfigPaths};
use support::{Server, answer, client, manifest, options};

const WARNING: &str = r#"warning: 299 - "tag 1 goes \"away\" on Monday""#;

#[test]
fn a_warning_of_a_registry_is_told_once() {
    let server = Server::start(|_, _| answer("200 OK", &[WARNING], &manifest()));
    let client = client();
    for _ in 0..3 {
        client.resolve(&server.reference("a:1")).unwrap();
    }
    let expect = format!("registry `{}` says: tag 1 goes \"away\" on Monday", server.host);
    assert_eq!(client.take_notices(), [expect]);
    client.resolve(&server.reference("a:1")).unwrap();
    assert_eq!(client.take_notices(), [""; 0]);
}

#[test]
fn nobody_but_the_registry_warns_in_its_name() {
    let other = Server::start(|_, _| answer("200 OK", &[WARNING], &manifest()));
    let target = format!("location: http://{}/x", other.host);
    let server = Server::start(move |_, _| answer("307 Temporary Redirect", &[&target], b""));
    let client = client();
    client.resolve(&server.reference("a:1")).unwrap();
    assert_eq!(client.take_notices(), [""; 0]);
}

#[test]
fn a_mirror_that_does_not_help_is_told_once_with_the_reason() {
    let mirror = Server::start(|_, _| answer("403 Forbidden", &[], b""));
    let origin = Server::start(|_, _| answer("200 OK", &[], &manifest()));
    let folder = tempfile::tempdir().unwrap();
    fs_err::create_dir(folder.path().join("images.example")).unwrap();
    let text = format!(
        "server = 'http://{}'\n[host.'http://{}']\ncapabilities = ['pull', 'resolve']\n",
        origin.host, mirror.host
    );
    fs_err::write(folder.path().join("images.example/hosts.toml"), text).unwrap();
    let config = ConfigPaths { hosts: vec![folder.path().to_owned()], ..ConfigPaths::default() };
    let client = Client::new(ClientOptions { config, ..options() });
    for tag in ["1", "2"] {
        let name = Reference::parse(&format!("images.example/app:{tag}")).unwrap();
        client.resolve(&name).unwrap();
    }
    let [told] = &client.take_notices()[..] else { panic!("one notice") };
    let expect = format!(
        "mirror `{}` did not give images.example/app:1, `{}` did: {}/app:1: ",
        mirror.host, origin.host, mirror.host
    );
    assert!(told.starts_with(&expect), "{told}");
}
