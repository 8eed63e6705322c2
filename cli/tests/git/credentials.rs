//! Who gets credentials, and where they must not show.

use std::os::unix::fs::PermissionsExt;

use fs_err as fs;

use super::Fixture;
use super::server::{Rules, Server, git};

const TOKEN: &str = "s3cr3t-t0k3n";

/// `x-access-token:s3cr3t-t0k3n`
const HEADER: &str = "Basic eC1hY2Nlc3MtdG9rZW46czNjcjN0LXQwazNu";

/// `user:s3cr3t-t0k3n`
const USER_HEADER: &str = "Basic dXNlcjpzM2NyM3QtdDBrM24=";

fn private(header: &str) -> Fixture {
    let rules = Rules { header: Some(header.to_owned()), ..Rules::default() };
    let fixture = Fixture::with(rules);
    fs::write(fixture.place.path("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(fixture.place.path("header"), HEADER).unwrap();
    fixture.repository("r", &[("a", "1")]);
    fixture
}

/// Fails if a part of the credentials is anywhere in the store, the outputs or what was shown.
#[track_caller]
fn assert_hidden(fixture: &Fixture, shown: &str) {
    let parts = [TOKEN, &HEADER["Basic ".len()..], &USER_HEADER["Basic ".len()..]];
    let mut all = fixture.everything();
    all.push(("what is shown".to_owned(), shown.as_bytes().to_vec()));
    for (name, bytes) in all {
        for part in parts {
            let found = bytes.windows(part.len()).any(|window| window == part.as_bytes());
            assert!(!found, "{part} is in {name}");
        }
    }
}

#[test]
fn secrets_open_private_repositories() {
    let fixture = private(HEADER);
    let host = fixture.server.host();
    let lines = "ADD --keep-git-dir {}/r.git /s";
    for secret in [
        "id=GIT_AUTH_TOKEN,src=token".to_owned(),
        "id=GIT_AUTH_HEADER,src=header".to_owned(),
        format!("id=GIT_AUTH_TOKEN.{host},src=token"),
        format!("id=GIT_AUTH_HEADER.{host},src=header"),
    ] {
        let _ = fs::remove_dir_all(fixture.place.path("state"));
        let ran = fixture.build(lines, &["--secret", &secret]).ok();
        assert_eq!(fs::read_to_string(fixture.place.path("out/s/a")).unwrap(), "1");
        assert_hidden(&fixture, &format!("{}{}", ran.stdout, ran.stderr));
        let config = fs::read_to_string(fixture.place.path("out/s/.git/config")).unwrap();
        assert!(
            config.contains("[remote \"origin\"]") && !config.contains("extraHeader"),
            "{config}"
        );
    }
    // What was fetched with a token is built from the cache without one only if nobody must be asked.
    let ran = fixture.build(lines, &[]);
    assert!(ran.report().starts_with("exit 3\n"), "{}", ran.stderr);
}

#[test]
fn who_may_not_is_told_how_to() {
    let fixture = private(HEADER);
    fs::write(fixture.place.path("token"), "wrong").unwrap();
    let report = |words: &[&str]| {
        let report = fixture.build("ADD {}/r.git /s", words).report();
        let report = report.replace(&fixture.server.host(), "[host]");
        let lines: Vec<&str> = report.lines().collect();
        format!("{}\n{}", lines[0], lines[lines.len() - 2..].join("\n"))
    };
    let hint = "  help: check the address; for a private repository give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE or src=PATH";
    let failed = "exit 3\nERROR: failed to solve: failed to fetch remote http://[host]/r.git:";
    assert_eq!(
        report(&[]),
        format!(
            "{failed} could not read Username for 'http://[host]': terminal prompts disabled\n{hint}"
        )
    );
    let wrong = report(&["--secret", "id=GIT_AUTH_TOKEN,src=token"]);
    assert!(wrong.starts_with(failed) && wrong.ends_with(hint), "{wrong}");
    fs::write(fixture.place.path("token"), "one\ntwo").unwrap();
    let ran = fixture.build("ADD {}/r.git /s", &["--secret", "id=GIT_AUTH_TOKEN,src=token"]);
    assert!(
        ran.stderr
            .contains("secret GIT_AUTH_TOKEN cannot be used for git: it has more than one line"),
        "{}",
        ran.stderr
    );
}

#[test]
fn credentials_of_an_address_are_used_and_hidden() {
    let fixture = private(USER_HEADER);
    let real = std::env::var("PATH").unwrap();
    let bin = fixture.place.path("bin");
    fs::create_dir(&bin).unwrap();
    let log = fixture.place.path("arguments");
    let script =
        format!("#!/bin/sh\necho \"$@\" >> {}\nPATH='{real}' exec git \"$@\"\n", log.display());
    fs::write(bin.join("git"), script).unwrap();
    fs::set_permissions(bin.join("git"), PermissionsExt::from_mode(0o755)).unwrap();
    let url = fixture.server.url("r.git").replace("http://", &format!("http://user:{TOKEN}@"));
    fixture.place.write("Dockerfile", &format!("FROM scratch\nADD --keep-git-dir {url} /s\n"));
    let mut build = fixture.place.command(&[
        "--progress=plain",
        "-o",
        "out",
        "-o",
        "type=oci,dest=out.oci",
        "ctx",
    ]);
    let path = format!("{}:{real}", bin.display());
    let ran = fixture.place.ran(build.env("PATH", path).output().unwrap()).ok();
    assert_hidden(&fixture, &format!("{}{}", ran.stdout, ran.stderr));
    let arguments = fs::read_to_string(log).unwrap();
    assert!(arguments.contains("ls-remote") && arguments.contains("fetch"), "{arguments}");
    assert!(!arguments.contains(TOKEN) && !arguments.contains("user"), "{arguments}");
    let archive = fs::read(fixture.place.path("out.oci")).unwrap();
    let archive = String::from_utf8_lossy(&archive).into_owned();
    assert!(
        !archive.contains(TOKEN) && archive.contains("xxxxx:xxxxx@"),
        "the history masks credentials"
    );
    // A failure shows neither.
    let ran =
        fixture.build(&format!("ARG P={TOKEN}\nADD http://user:$P@127.0.0.1:1/r.git /s"), &[]);
    let error = ran.stderr.lines().find(|line| line.starts_with("ERROR")).unwrap();
    assert!(!error.contains(TOKEN) && !error.contains("user"), "{error}");
}

#[test]
fn nobody_else_gets_credentials() {
    let fixture = private(HEADER);
    let others = fixture.place.path("others");
    fs::create_dir(&others).unwrap();
    let public = super::Repository::new(&others, "lib", &[("lib", "l")]);
    let other = Server::start(&others, Rules::default());
    let top = fixture.repository("top", &[("t", "t")]);
    for (name, url) in [("far", other.url("lib.git")), ("near", "../r.git".to_owned())] {
        let from = if name == "far" { &public.bare } else { &fixture.place.path("repos/r.git") };
        top.git(&["submodule", "--quiet", "add", from.to_str().unwrap(), name]);
        top.git(&["config", "--file=.gitmodules", &format!("submodule.{name}.url"), &url]);
    }
    top.commit(&[]);
    let secret = ["--secret", "id=GIT_AUTH_TOKEN,src=token"];
    fixture.build("ADD {}/top.git /s", &secret).ok();
    assert_eq!(fs::read_to_string(fixture.place.path("out/s/far/lib")).unwrap(), "l");
    assert_eq!(fs::read_to_string(fixture.place.path("out/s/near/a")).unwrap(), "1");
    let asked = other.requests();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.ends_with(" -")), "{asked:?}");
    // A secret for a host is for no other, whatever the source.
    let own = format!("id=GIT_AUTH_TOKEN.{},src=token", fixture.server.host());
    fs::remove_dir_all(fixture.place.path("state")).unwrap();
    let lines = format!("ADD {{}}/top.git /s\nADD {} /t", other.url("lib.git"));
    fixture.build(&lines, &["--secret", &own]).ok();
    let asked = other.requests();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.ends_with(" -")), "{asked:?}");
}

#[test]
fn whoever_is_sent_on_goes_without_credentials() {
    let fixture = private(HEADER);
    let others = fixture.place.path("others");
    fs::create_dir(&others).unwrap();
    super::Repository::new(&others, "r", &[("a", "elsewhere")]);
    let other = Server::start(&others, Rules::default());
    let to = other.url("");
    let rules = |to: &str| Rules {
        redirect: Some(to.trim_end_matches('/').to_owned()),
        ..Rules::default()
    };
    fixture.server.set(rules(&to));
    let secret = ["--secret", "id=GIT_AUTH_TOKEN,src=token"];
    fixture.build("ADD {}/r.git /s", &secret).ok();
    assert_eq!(fs::read_to_string(fixture.place.path("out/s/a")).unwrap(), "elsewhere");
    let asked = other.requests();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.ends_with(" -")), "{asked:?}");
    other.set(Rules { header: Some(HEADER.to_owned()), ..Rules::default() });
    let ran = fixture.build("ADD {}/r.git#other /s", &secret);
    assert!(ran.report().starts_with("exit 3\n"), "{}", ran.stderr);
    let asked = other.requests();
    assert!(asked.iter().all(|line| line.ends_with(" -")), "{asked:?}");
}

#[test]
fn ssh_is_run_with_the_users_settings_and_asks_nothing() {
    let fixture = Fixture::new();
    let repository = fixture.repository("r", &[("a", "1")]);
    let bin = fixture.place.path("bin");
    fs::create_dir(&bin).unwrap();
    let log = fixture.place.path("log");
    // Stands for the other side of the connection: what is run there is run here.
    let script = format!(
        "#!/bin/sh\necho \"$@ agent=$SSH_AUTH_SOCK\" >> {}\nfor word; do last=$word; done\nexec sh -c \"$last\"\n",
        log.display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let bare = repository.bare.display().to_string();
    for url in [format!("git@example.org:{bare}"), format!("ssh://me@example.org:2222{bare}")] {
        let text = format!("FROM scratch\nADD {url}#main /s\nADD --keep-git-dir {url} /t\n");
        fixture.place.write("Dockerfile", &text);
        // The address is no part of the key.
        let _ = fs::remove_dir_all(fixture.place.path("state"));
        let mut build = fixture.place.command(&["--progress=plain", "-o", "out", "ctx"]);
        build.env("PATH", &path).env("SSH_AUTH_SOCK", "/the/agent");
        fixture.place.ran(build.output().unwrap()).ok();
        let tree = fixture.place.path("out/t");
        assert_eq!(git(&tree, &["remote", "get-url", "origin"]), url);
    }
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.len() >= 4, "{log}");
    for line in lines {
        let end = format!("git-upload-pack '{bare}' agent=/the/agent");
        assert!(
            line.starts_with("-o BatchMode=yes -o ControlMaster=no ") && line.ends_with(&end),
            "{line}"
        );
    }
    assert!(log.contains(" git@example.org ") && log.contains(" -p 2222 me@example.org "), "{log}");
}
