//! Mirrors, other places and blocked registries, as `registries.conf` and `hosts.toml` have them, with real registries.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod registries;

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use llb::image::media_type;
use llb::{Digest, Platform};
use registries::{
    CONFIG, Fake, Server, Setup, descriptor, nobody, push_image, reference, start, text,
};
use registry::{Client, ClientOptions, ConfigPaths};
use tempfile::TempDir;

fn options(config: ConfigPaths) -> ClientOptions {
    ClientOptions { backoff: Duration::from_millis(1), config, ..ClientOptions::default() }
}

/// A client that goes by the text of a `registries.conf`, in a folder of its own.
fn by_registries(text: &str) -> (Client, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registries.conf");
    fs_err::write(&file, text).unwrap();
    let config = ConfigPaths { registries: Some(file), ..ConfigPaths::default() };
    (Client::new(options(config)), folder)
}

/// A client that goes by the text of the `hosts.toml` for `host`.
fn by_hosts(host: &str, text: &str) -> (Client, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join(host);
    fs_err::create_dir_all(&own).unwrap();
    fs_err::write(own.join("hosts.toml"), text).unwrap();
    let config = ConfigPaths { hosts: vec![folder.path().to_owned()], ..ConfigPaths::default() };
    (Client::new(options(config)), folder)
}

/// A client without any configuration.
fn direct() -> Client {
    Client::new(options(ConfigPaths::default()))
}

fn two() -> Option<(Server, Server)> {
    Some((start(&Setup::default())?, start(&Setup::default())?))
}

/// `[[registry]]` for `images.example`, which is at `origin`, with mirrors.
fn table(origin: &Server, mirrors: &[(&str, &str)]) -> String {
    let mirror = |(host, more): &(&str, &str)| {
        format!("[[registry.mirror]]\nlocation = \"{host}/copy\"\n{more}\n")
    };
    let mirrors: String = mirrors.iter().map(mirror).collect();
    let host = &origin.host;
    format!("[[registry]]\nprefix = \"images.example\"\nlocation = \"{host}/real\"\n{mirrors}")
}

fn read_all(client: &Client, name: &str, layer: &[u8]) -> Vec<u8> {
    let blob = descriptor(media_type::OCI_LAYER, layer);
    for _ in 0..5 {
        let mut bytes = Vec::new();
        match client.blob(&reference(name), &blob).unwrap().read_to_end(&mut bytes) {
            Ok(_) => return bytes,
            Err(error) => {
                let inner = error.get_ref().unwrap().downcast_ref::<registry::Error>().unwrap();
                assert!(inner.is_elsewhere(), "{inner}");
            }
        }
    }
    panic!("a blob is elsewhere for ever");
}

#[test]
fn mirrors_are_asked_in_their_order_and_then_the_registry() {
    let Some((origin, mirror)) = two() else { return };
    let down = nobody();
    let real = push_image(&direct(), &reference(&format!("{}/real/app:1", origin.host)), b"real");
    let only = push_image(&direct(), &reference(&format!("{}/real/new:1", origin.host)), b"new");
    let copy = push_image(&direct(), &reference(&format!("{}/copy/app:1", mirror.host)), b"copy");
    let (real, only, copy) = (real.unwrap(), only.unwrap(), copy.unwrap());
    let (client, _folder) = by_registries(&table(&origin, &[(&down, ""), (&mirror.host, "")]));
    assert_eq!(client.head(&reference("images.example/app:1")).unwrap(), copy);
    assert_eq!(client.resolve(&reference("images.example/app:1")).unwrap().descriptor, copy);
    // What a mirror does not have is at the registry.
    let new = reference("images.example/new:1");
    let image = client.resolve_image(&new, &Platform::parse("linux/amd64").unwrap()).unwrap();
    assert_eq!(image.top.descriptor, only);
    assert_eq!(client.small_blob(&new, &image.manifest.config, 4096).unwrap(), CONFIG);
    assert_eq!(read_all(&client, "images.example/new:1", b"new"), b"new");
    // What the registry has under the name of the mirror's image can be had by its digest.
    let pinned = reference(&format!("images.example/app@{}", real.digest));
    assert_eq!(client.resolve(&pinned).unwrap().descriptor, real);
}

#[test]
fn an_error_names_every_place() {
    let Some((origin, mirror)) = two() else { return };
    let down = nobody();
    let (client, _folder) = by_registries(&table(&origin, &[(&down, ""), (&mirror.host, "")]));
    let error = client.resolve(&reference("images.example/app:1")).unwrap_err();
    let expect = format!(
        "images.example/app:1: none of 3 places gave it: (1) GET http://{down}/v2/copy/app/manifests/1: cannot reach registry `{down}` at {down}: connection refused; (2) {}/copy/app:1: not found; (3) {}/real/app:1: not found",
        mirror.host, origin.host
    );
    assert_eq!(text(&error), expect);
    assert!(matches!(error.decisive(), registry::Error::NotFound { .. }), "{error:?}");
    // The one that cannot be reached is not asked again, but still named.
    let error = client.resolve(&reference("images.example/app:2")).unwrap_err();
    assert!(text(&error).contains(&format!("(1) GET http://{down}/v2/copy/app/manifests/1: ")));
    let error =
        client.blob(&reference("images.example/app"), &descriptor("", b"none")).unwrap_err();
    let digest = Digest::of(b"none");
    let last = format!("(3) {}/real/app@{digest}: not found", origin.host);
    assert!(text(&error).ends_with(&last), "{error}");
}

#[test]
fn a_mirror_that_lacks_a_blob_or_has_wrong_bytes_does_no_harm() {
    let Some((origin, mirror)) = two() else { return };
    let layer: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    for name in [format!("{}/real/app:1", origin.host), format!("{}/copy/app:1", mirror.host)] {
        push_image(&direct(), &reference(&name), &layer).unwrap();
    }
    let conf = table(&origin, &[(&mirror.host, "")]);
    let config = descriptor(media_type::OCI_CONFIG, CONFIG);
    let app = reference("images.example/app:1");
    // As long as the right ones, and a byte longer.
    for wrong in [vec![7; layer.len()], vec![7; layer.len() + 1]] {
        fs_err::write(mirror.blob_file(Digest::of(&layer)), wrong).unwrap();
        fs_err::write(mirror.blob_file(config.digest), vec![b' '; CONFIG.len()]).unwrap();
        let (client, _folder) = by_registries(&conf);
        assert!(read_all(&client, "images.example/app:1", &layer) == layer);
        assert_eq!(client.small_blob(&app, &config, 4096).unwrap(), CONFIG);
    }
    fs_err::remove_file(mirror.blob_file(Digest::of(&layer))).unwrap();
    fs_err::remove_file(mirror.blob_file(config.digest)).unwrap();
    let (client, _folder) = by_registries(&conf);
    assert!(read_all(&client, "images.example/app:1", &layer) == layer);
    assert_eq!(client.small_blob(&app, &config, 4096).unwrap(), CONFIG);
    // When nobody has the right ones, both are told.
    fs_err::write(mirror.blob_file(Digest::of(&layer)), vec![7; layer.len()]).unwrap();
    fs_err::write(origin.blob_file(Digest::of(&layer)), vec![8; layer.len()]).unwrap();
    let (client, _folder) = by_registries(&conf);
    let read = || {
        let mut bytes = Vec::new();
        let blob = descriptor(media_type::OCI_LAYER, &layer);
        client.blob(&app, &blob).unwrap().read_to_end(&mut bytes).unwrap_err().to_string()
    };
    assert!(read().ends_with("another place is to be asked"));
    let error = read();
    for (number, server, place) in [(1, &mirror, "copy"), (2, &origin, "real")] {
        let digest = Digest::of(&layer);
        let part = format!(
            "({number}) {}/{place}/app@{digest}: registry sent wrong bytes: expected {digest}, got ",
            server.host
        );
        assert!(error.contains(&part), "{error}");
    }
}

#[test]
fn a_mirror_may_be_for_digests_or_for_tags_only() {
    let Some((origin, mirror)) = two() else { return };
    let real = push_image(&direct(), &reference(&format!("{}/real/app:1", origin.host)), b"real");
    let copy = push_image(&direct(), &reference(&format!("{}/copy/app:1", mirror.host)), b"copy");
    let (real, copy) = (real.unwrap().digest, copy.unwrap().digest);
    let by_digest = "pull-from-mirror = \"digest-only\"";
    let by_tag = "pull-from-mirror = \"tag-only\"";
    let all = "pull-from-mirror = \"all\"";
    let of_table = table(&origin, &[(&mirror.host, "")]).replacen(
        "[[registry.mirror]]",
        "mirror-by-digest-only = true\n[[registry.mirror]]",
        1,
    );
    for (conf, tagged, pinned) in [
        (table(&origin, &[(&mirror.host, by_digest)]), real, true),
        (of_table.clone(), real, true),
        (table(&origin, &[(&mirror.host, by_tag)]), copy, false),
        (table(&origin, &[(&mirror.host, all)]), copy, true),
    ] {
        let (client, _folder) = by_registries(&conf);
        let found = client.resolve(&reference("images.example/app:1")).unwrap().descriptor.digest;
        assert_eq!(found, tagged, "{conf}");
        // Only the mirror has it.
        let by_digest = client.resolve(&reference(&format!("images.example/app@{copy}")));
        assert_eq!(by_digest.is_ok(), pinned, "{conf}");
    }
    // What a tag stands for is not asked of a mirror for digests, even when its digest is known by then.
    for conf in [table(&origin, &[(&mirror.host, by_digest)]), of_table] {
        let (client, _folder) = by_registries(&conf);
        let name = reference("images.example/app:1");
        let blob = descriptor("", b"copy");
        assert!(client.blob(&name, &blob).is_err(), "{conf}");
        assert!(client.blob(&name.with_digest(copy), &blob).is_ok(), "{conf}");
    }
}

#[test]
fn names_are_sent_elsewhere_by_their_longest_prefix() {
    let Some(server) = start(&Setup::default()) else { return };
    let host = &server.host;
    let mut digests = Vec::new();
    for place in ["a/app", "b/app", "c/x/app", "library/tool"] {
        let name = reference(&format!("{host}/{place}:1"));
        digests.push(push_image(&direct(), &name, place.as_bytes()).unwrap().digest);
    }
    let (client, _folder) = by_registries(&format!(
        r#"
        [[registry]]
        prefix = "one.example"
        location = "{host}/a"
        [[registry]]
        prefix = "one.example/team"
        location = "{host}/b"
        [[registry]]
        prefix = "*.wild.example"
        location = "{host}/c"
        [[registry]]
        prefix = "docker.io"
        location = "{host}"
        [[registry]]
        prefix = "*.wild.example/closed"
        blocked = true
        "#
    ));
    for (name, expect) in [
        ("one.example/app:1", 0),
        ("one.example/team/app:1", 1),
        ("deep.down.wild.example/x/app:1", 2),
        ("r.wild.example:5000/x/app:1", 2),
        ("tool:1", 3),
    ] {
        assert_eq!(client.resolve(&reference(name)).unwrap().descriptor.digest, digests[expect]);
    }
    let error = client.resolve(&reference("r.wild.example/closed/app")).unwrap_err().to_string();
    assert!(error.starts_with("r.wild.example/closed/app:latest: blocked by `/"), "{error}");
    assert!(error.ends_with("registries.conf`, line 14"), "{error}");
    // Neither a longer word nor a port continues a prefix, and a domain is not below itself.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.conf");
    let blocked = ["h.example/team", "h.example:1", "*.w.example"];
    let blocked =
        blocked.map(|prefix| format!("[[registry]]\nprefix = '{prefix}'\nblocked = true\n"));
    fs_err::write(&file, blocked.concat()).unwrap();
    let config = ConfigPaths { registries: Some(file), ..ConfigPaths::default() };
    let client = Client::new(ClientOptions { retries: 0, ..options(config) });
    for (name, is_blocked) in [
        ("h.example/team/app", true),
        ("h.example/team:1", true),
        ("h.example/teams/app", false),
        ("h.example:1/app", true),
        ("h.example:12/app", false),
        ("h.example/app", false),
        ("w.example/app", false),
        ("a.w.example/app", true),
        ("aw.example/app", false),
    ] {
        let error = client.resolve(&reference(name)).unwrap_err();
        assert_eq!(matches!(error, registry::Error::Blocked { .. }), is_blocked, "{name}: {error}");
    }
}

#[test]
fn uploads_go_where_the_name_says() {
    let Some((origin, other)) = two() else { return };
    let (host, other) = (&origin.host, &other.host);
    let (client, _folder) = by_registries(&format!(
        "[[registry]]\nprefix = '{host}'\nlocation = '{other}'\n[[registry.mirror]]\nlocation = '{other}/m'\n"
    ));
    let name = reference(&format!("{host}/app:1"));
    let pushed = push_image(&client, &name, b"layer").unwrap();
    assert_eq!(direct().head(&name).unwrap(), pushed);
    assert!(client.head(&name).is_err(), "reading is sent elsewhere");
    let (client, _folder) =
        by_registries(&format!("[[registry]]\nprefix = '{host}'\nblocked = true\n"));
    let error = push_image(&client, &name, b"layer").unwrap_err();
    assert!(error.to_string().contains("blocked by"), "{error}");
}

#[test]
fn credentials_are_those_of_the_host_that_is_asked() {
    let Some(origin) = start(&Setup { password: true, ..Setup::default() }) else { return };
    let mirror = Fake::always("401 Unauthorized\r\nwww-authenticate: Basic realm=\"m\"");
    let folder = tempfile::tempdir().unwrap();
    let (auth, conf) = (folder.path().join("auth.json"), folder.path().join("r.conf"));
    let host = &origin.host;
    // `user:secret`, for the registry and for the name that stands for it.
    let keys = [host.as_str(), "images.example"]
        .map(|key| format!(r#""{key}": {{"auth": "dXNlcjpzZWNyZXQ="}}"#));
    fs_err::write(&auth, format!(r#"{{"auths": {{{}}}}}"#, keys.join(","))).unwrap();
    fs_err::write(&conf, table(&origin, &[(&mirror.host, "")])).unwrap();
    let config = ConfigPaths { registries: Some(conf), ..ConfigPaths::default() };
    let with = ClientOptions { auth_files: vec![auth.clone()], ..options(config) };
    let client = Client::new(with.clone());
    let pushed = push_image(&client, &reference(&format!("{host}/real/app:1")), b"layer").unwrap();
    assert_eq!(client.head(&reference("images.example/app:1")).unwrap(), pushed);
    assert_eq!(read_all(&client, "images.example/app:1", b"layer"), b"layer");
    assert!(!mirror.seen().is_empty());
    for seen in mirror.seen() {
        assert!(!seen.headers.contains_key("authorization"), "{seen:?}");
    }
    // One that has a login of its own is shown that.
    let more = format!(r#""{}": {{"auth": "bTpt"}}"#, mirror.host);
    fs_err::write(&auth, format!(r#"{{"auths": {{{},{more}}}}}"#, keys.join(","))).unwrap();
    let client = Client::new(with);
    assert_eq!(client.head(&reference("images.example/app:1")).unwrap(), pushed);
    assert_eq!(mirror.seen().pop().unwrap().headers["authorization"], "Basic bTpt");
}

#[test]
fn hosts_toml_says_what_each_host_may_be_asked_for() {
    let Some((origin, mirror)) = two() else { return };
    let host = &origin.host;
    let real = push_image(&direct(), &reference(&format!("{host}/app:1")), b"real").unwrap();
    let copy = push_image(&direct(), &reference(&format!("{}/app:1", mirror.host)), b"copy");
    let copy = copy.unwrap();
    let fake = Fake::always("404 Not Found");
    for (capabilities, tagged, pinned) in [
        (r#"["pull", "resolve"]"#, &copy, true),
        (r#"["pull"]"#, &real, true),
        (r#"["resolve"]"#, &copy, false),
        ("[]", &copy, true),
    ] {
        let (client, _folder) = by_hosts(
            "h.example",
            &format!(
                "server = 'http://{host}'\n[host.'http://{}']\n[host.'http://{}']\ncapabilities = {capabilities}\n",
                fake.host, mirror.host
            ),
        );
        let tag = client.head(&reference("h.example/app:1")).unwrap();
        assert_eq!(&tag, tagged, "{capabilities}");
        let by_digest = client.resolve(&reference(&format!("h.example/app@{}", copy.digest)));
        assert_eq!(by_digest.is_ok(), pinned, "{capabilities}");
    }
    let first = &fake.lines()[0];
    assert_eq!(first, "HEAD /v2/app/manifests/1?ns=h.example", "{first}");
    // Uploads go to the first host that takes them.
    let (client, _folder) = by_hosts(
        "h.example",
        &format!(
            "server = 'http://{}'\n[host.'http://{}']\ncapabilities = ['pull']\n[host.'http://{host}']\ncapabilities = ['push']\n",
            nobody(),
            fake.host
        ),
    );
    let pushed = push_image(&client, &reference("h.example/pushed:1"), b"layer").unwrap();
    assert_eq!(direct().head(&reference(&format!("{host}/pushed:1"))).unwrap(), pushed);
    let (client, _folder) =
        by_hosts("h.example", &format!("server = 'http://{host}'\ncapabilities = ['pull']\n"));
    let error = push_image(&client, &reference("h.example/app:1"), b"layer").unwrap_err();
    assert_eq!(
        error.to_string(),
        "h.example/app:1: the hosts.toml for `h.example` has no host that is capable of `push`"
    );
}

#[test]
fn hosts_toml_says_how_a_host_is_reached() {
    let (own, other) = (Fake::always("404 Not Found"), Fake::always("404 Not Found"));
    let to = format!("307 Temporary Redirect\r\nlocation: http://{}/there", other.host);
    let leads = Fake::always(Box::leak(to.into_boxed_str()));
    let (client, _folder) = by_hosts(
        "_default",
        &format!(
            r#"
            [host."http://{}/proxy/v2/hub"]
            override_path = true
            [host."http://{}/plain/"]
            [host."http://{}".header]
            x-token = "hunter2"
            x-many = ["a", "b"]
            "#,
            own.host, own.host, leads.host
        ),
    );
    let nobody = nobody();
    let error = client.resolve(&reference(&format!("{nobody}/team/app:1"))).unwrap_err();
    assert!(text(&error).contains("none of 4 places gave it"), "{}", text(&error));
    let port = nobody.replace(':', "%3A");
    assert_eq!(
        own.lines(),
        [
            format!("GET /proxy/v2/hub/team/app/manifests/1?ns={port}"),
            format!("GET /plain/v2/team/app/manifests/1?ns={port}")
        ]
    );
    let seen = leads.seen().remove(0);
    assert_eq!(
        (seen.headers["x-token"].as_str(), seen.headers["x-many"].as_str()),
        ("hunter2", "b")
    );
    let seen = other.seen().remove(0);
    assert_eq!(seen.line, "GET /there");
    assert!(!seen.headers.contains_key("x-token"), "{seen:?}");
}

#[test]
fn a_folder_of_the_host_counts_more_than_the_one_for_all_and_registries_conf_most() {
    let [default, own, listed] = [(); 3].map(|()| Fake::always("404 Not Found"));
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: String| {
        let path = folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    write("hosts/_default/hosts.toml", format!("server = 'http://{}'", default.host));
    write("hosts/a.example_5000_/hosts.toml", format!("server = 'http://{}'", own.host));
    write("hosts/b.example:5000/hosts.toml", format!("server = 'http://{}'", own.host));
    write(
        "user/registries.conf.d/z.conf",
        format!("[[registry]]\nprefix = 'c.example'\nlocation = '{}'\n", listed.host),
    );
    write("hosts/c.example/hosts.toml", format!("server = 'http://{}'", own.host));
    // Of two tables for a prefix the later file's counts.
    write("system/registries.conf", "[[registry]]\nprefix = 'c.example'\nblocked = true\n".into());
    let at = |name: &str| folder.path().join(name);
    let config = ConfigPaths {
        containers: vec![at("user"), at("system")],
        hosts: vec![at("none"), at("hosts")],
        ..ConfigPaths::default()
    };
    let shown: Vec<PathBuf> = config.in_force().unwrap();
    assert_eq!(shown, [at("system/registries.conf"), at("user/registries.conf.d/z.conf")]);
    let client = Client::new(options(config.clone()));
    for (name, server) in [
        ("a.example:5000/x", &own),
        ("b.example:5000/x", &own),
        ("c.example/x", &listed),
        ("d.example/x", &default),
    ] {
        let before = server.lines().len();
        assert!(client.resolve(&reference(name)).is_err());
        assert_eq!(server.lines().len(), before + 1, "{name}");
    }
    // With a main file of their own, users have nothing of the system's.
    write("user/registries.conf", String::new());
    write("system/registries.conf.d/a.conf", "[[registry]]\n".into());
    assert_eq!(
        config.in_force().unwrap(),
        [at("user/registries.conf"), at("user/registries.conf.d/z.conf")]
    );
    assert!(client.resolve(&reference("c.example/x")).is_err());
}

#[test]
fn mistakes_in_files_are_told_with_their_place() {
    let tables = |text: &str| {
        let (client, folder) = by_registries(text);
        let error = client.resolve(&reference("a.example/b/app")).unwrap_err();
        assert!(matches!(error, registry::Error::Config { .. }), "{error}");
        let text = registries::text(&error).replace(&folder.path().display().to_string(), "");
        text.strip_prefix("cannot use `/registries.conf`").unwrap().to_owned()
    };
    for (text, expect) in [
        ("\n[[registry]\n", ", line 2: unclosed array table"),
        ("[[registry]]\nprefix = 1\n", ", line 2: invalid type: integer `1`, expected a string"),
        (
            "[[registry]]\nprefix='a'\nmirrors = []\n",
            ", line 3: unknown field `mirrors`, expected one of `prefix`, `location`",
        ),
        ("short = 1\n", ", line 1: unknown field `short`, expected one of "),
        ("[[registry]]\n", ", line 1: a `[[registry]]` without `prefix` and `location`"),
        (
            "[[registry]]\nlocation='https://a'\n",
            ", line 1: `location` is `https://a`: want HOST[:PORT][/FOLDER] without `https://`",
        ),
        (
            "[[registry]]\nprefix='a.b/C'\n",
            ", line 1: `prefix` is `a.b/C`, which is no HOST[:PORT][/FOLDER]",
        ),
        (
            "[[registry]]\nprefix='a.b/c:1'\n",
            ", line 1: `prefix` is `a.b/c:1`: a tag or digest is not supported there",
        ),
        ("[[registry]]\nprefix='a.b'\n[[registry.mirror]]\n", ", line 3: `location` is empty"),
        (
            "[[registry]]\nprefix='a.b'\n[[registry.mirror]]\nlocation='m'\npull-from-mirror='never'\n",
            ", line 3: `pull-from-mirror` is `never`: want `all`, `digest-only` or `tag-only`",
        ),
        (
            "[[registry]]\nprefix='a.b'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='m'\npull-from-mirror='all'\n",
            ", line 4: `pull-from-mirror` and `mirror-by-digest-only` contradict each other: take one of them out",
        ),
        (
            "[[registry]]\nprefix='a.b'\n[[registry]]\nlocation='a.b/'\n",
            ", line 3: there is a table for this prefix at line 1 already",
        ),
        (
            "[registries.search]\nregistries=['a']\n",
            ", line 1: version 1 of the format, `[registries.…]`, is not supported: write `[[registry]]` tables",
        ),
        (
            "credential-helpers=['containers-auth.json','pass']\n",
            ", line 1: the credential helper `pass` for all registries is not supported here: name it in an auth.json or config.json",
        ),
        (
            "additional-layer-store-auth-helper='x'\n",
            ", line 1: `additional-layer-store-auth-helper` is not supported",
        ),
        (
            "[[registry]]\nprefix='a.example/b/app'\nlocation='other.example'\n",
            ", line 1: makes `other.example` of `a.example/b/app`, which is no image name",
        ),
    ] {
        let actual = tables(text);
        assert!(actual.starts_with(expect), "{text}: {actual}");
    }
    let hosts = |text: &str| {
        let (client, folder) = by_hosts("a.example", text);
        let error = client.resolve(&reference("a.example/b/app")).unwrap_err();
        assert!(matches!(error, registry::Error::Config { .. }), "{error}");
        let text = registries::text(&error).replace(&folder.path().display().to_string(), "");
        text.strip_prefix("cannot use `/a.example/hosts.toml`").unwrap().to_owned()
    };
    for (text, expect) in [
        ("server = 'https://a b'", ", line 1: `https://a b` is no address of a registry"),
        (
            "\nserver = 'https://u:p@a'",
            ", line 2: an address with a user or a password is not supported: log in to the host instead",
        ),
        (
            "[host.'m.example']\ncapabilities = ['pull', 'delete']",
            ", line 1: the capability `delete` is not supported: want `pull`, `resolve` or `push`",
        ),
        ("[host.'m.example']\nca = 1", ", line 2: a string or a list of strings"),
        (
            "[host.'m.example']\nrewrite = 1",
            ", line 2: unknown field `rewrite`, expected one of `capabilities`, `ca`",
        ),
        (
            "[host.'ftp://m.example']\nca = 'x'",
            ", line 1: `ftp://m.example` is no address of a registry",
        ),
        (
            "\nserver = 'https:/m.example'",
            ", line 2: `https:/m.example` is no address of a registry",
        ),
        (
            "dial_timeout = '1 day'",
            ": `dial_timeout` is `1 day`: want a time such as `2s` or `500ms`",
        ),
        ("dial_timeout = ''", ": `dial_timeout` is ``: want a time such as `2s` or `500ms`"),
        ("[header]\n'x y' = 'z'", ": `x y` is no name of a header"),
        ("[header]\nx = \"hunter2\\n\"", ": the value of the header `x` is malformed"),
    ] {
        let actual = hosts(text);
        assert!(actual.starts_with(expect), "{text}: {actual}");
        assert!(!actual.contains("hunter2"), "{actual}");
    }
    let missing = PathBuf::from("/nowhere/r.conf");
    let config = ConfigPaths { registries: Some(missing), ..ConfigPaths::default() };
    let error = Client::new(options(config)).resolve(&reference("a.example/b")).unwrap_err();
    assert_eq!(error.to_string(), "cannot use `/nowhere/r.conf`: no such file");
}

#[test]
fn what_is_about_short_names_changes_nothing() {
    let Some(server) = start(&Setup::default()) else { return };
    let host = &server.host;
    let pushed =
        push_image(&direct(), &reference(&format!("{host}/library/tool:1")), b"x").unwrap();
    let (client, _folder) = by_registries(&format!(
        "unqualified-search-registries = ['other.example']\nshort-name-mode = 'enforcing'\ncredential-helpers = ['containers-auth.json']\n[[registry]]\nlocation = '{host}'\nprefix = 'docker.io'\n[aliases]\ntool = 'other.example/tool'\n"
    ));
    assert_eq!(client.head(&reference("tool:1")).unwrap(), pushed);
}
