//! `build login` and `build logout` against a registry that wants a password.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../../registry/tests/support/process.rs"]
mod process;
mod support;

use std::io::Write;
use std::process::Stdio;

use process::{Registry, Settings};
use support::{Place, Ran};

/// A registry that wants a password.
fn registry(place: &Place) -> Option<Registry> {
    Registry::start(&place.path("registry"), &Settings { password: true, ..Settings::default() })
}

fn with_input(place: &Place, words: &[&str], input: &str) -> Ran {
    let mut command = place.command(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_password_is_checked_kept_used_and_removed() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "f")]);
    let Some(registry) = registry(&place) else { return };
    let host = &registry.host;
    let name = format!("{host}/app:1");
    place.run(&["-t", &name, place.path("ctx").to_str().unwrap()]).ok();
    let refused = place.run(&["push", &name]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);

    let words = ["login", "-u", "user", "--password-stdin", host];
    let wrong = with_input(&place, &words, "wrong\n");
    assert_eq!(wrong.code, Some(3));
    assert_eq!(
        wrong.stderr,
        format!(
            "ERROR: registry `{host}` does not accept this user name and password: authentication required\n  \
             help: check both; some registries want an access token in place of the password\n"
        )
    );
    let file = place.path("docker/config.json");
    assert!(!file.exists());

    let right = with_input(&place, &words, "secret\n");
    assert_eq!(
        (right.code, right.stdout.as_str()),
        (Some(0), "Login Succeeded\n"),
        "{}",
        right.stderr
    );
    assert!(!fs_err::read_to_string(&file).unwrap().contains("secret"));
    place.run(&["push", &name]).ok();

    let out = place.run(&["logout", host]).ok();
    assert_eq!(out.stdout, format!("Removed the login of {host}\n"));
    assert_eq!(place.run(&["push", &name]).code, Some(3));
    let again = place.run(&["logout", host]).ok();
    assert_eq!(again.stdout, format!("Not logged in to {host} by `[place]/docker/config.json`\n"));
}

#[test]
fn a_helper_that_the_file_names_keeps_the_password() {
    let place = Place::new(&[]);
    let Some(registry) = registry(&place) else { return };
    let helper = place.path("bin/docker-credential-test");
    let kept = place.path("kept");
    fs_err::create_dir_all(helper.parent().unwrap()).unwrap();
    let script = format!("#!/bin/sh\necho $1 >> {0}\ncat >> {0}\necho >> {0}\n", kept.display());
    fs_err::write(&helper, script).unwrap();
    fs_err::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs_err::create_dir_all(place.path("docker")).unwrap();
    fs_err::write(place.path("docker/config.json"), r#"{"credsStore": "test"}"#).unwrap();
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let host = &registry.host;
    let mut command = place.command(&["login", "-u", "user", "-p", "secret", host]);
    let output = command.env("PATH", &path).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("is seen by others: use --password-stdin"), "{stderr}");
    let expect = format!(
        "store\n{{\"Secret\":\"secret\",\"ServerURL\":\"{host}\",\"Username\":\"user\"}}\n"
    );
    assert_eq!(fs_err::read_to_string(&kept).unwrap(), expect);
    let file = fs_err::read_to_string(place.path("docker/config.json")).unwrap();
    assert!(!file.contains("secret") && !file.contains("\"auth\""), "{file}");

    let missing = place.run(&["login", "-u", "user", "-p", "secret", host]);
    assert_eq!(missing.code, Some(4));
    assert!(
        missing.stderr.contains("the credential helper `docker-credential-test`, which `"),
        "{}",
        missing.stderr
    );
    assert!(missing.stderr.contains("help: install the helper"), "{}", missing.stderr);
}

#[test]
fn who_cannot_be_asked_is_told_what_to_give() {
    let place = Place::new(&[]);
    let ran = with_input(&place, &["login", "r.example"], "");
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr,
        "ERROR: cannot ask for the user name and password: standard input is not a terminal\n  help: give --username and --password-stdin\n"
    );
    let ran = with_input(&place, &["login", "-u", "me", "--password-stdin", "r.example"], "\n");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), "ERROR: the password is empty\n"));
}
