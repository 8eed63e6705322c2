//! What a user reads when a registry refuses: which one, what it answered, what to do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, SystemTime};

use registry::{Client, ClientOptions, Error};
use support::{Server, answer, chain, client, descriptor, manifest, options};

/// The error of asking a server that always answers this.
#[track_caller]
fn error(status: &'static str, headers: &[&str], body: &'static str) -> String {
    let headers: Vec<String> = headers.iter().map(|header| (*header).to_owned()).collect();
    let server = Server::start(move |_, _| {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        answer(status, &headers, body.as_bytes())
    });
    let error = client().resolve(&server.reference("team/app:1")).unwrap_err();
    chain(&error).replace(&server.host, "[host]")
}

/// A date in the form of HTTP.
fn date(time: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[test]
fn a_missing_login_is_told_with_the_registrys_words() {
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    let denied = "[host]/team/app:1: pull access denied, repository does not exist or may require authorization: \
                  server message: authentication required";
    assert_eq!(error("401 Unauthorized", &["www-authenticate: Basic realm=\"r\""], body), denied);
    assert_eq!(error("403 Forbidden", &[], body), denied);
}

#[test]
fn a_clock_that_is_wrong_is_told_with_a_refusal() {
    let late = date(SystemTime::now() + Duration::from_secs(7200 + 30));
    let text = error("401 Unauthorized", &[&format!("date: {late}")], "");
    let expect = "server message: (the clock of this machine is 120 minutes behind the registry's: set it, then try again)";
    assert!(text.ends_with(expect), "{text}");
    let early = date(SystemTime::now() - Duration::from_secs(7200 + 30));
    let text =
        error("403 Forbidden", &[&format!("date: {early}")], r#"{"errors":[{"code":"DENIED"}]}"#);
    assert!(text.ends_with("DENIED (the clock of this machine is 120 minutes ahead of the registry's: set it, then try again)"), "{text}");
    let now = date(SystemTime::now());
    assert!(!error("403 Forbidden", &[&format!("date: {now}")], "").contains("clock"));
}

#[test]
fn a_rate_limit_says_when_it_ends() {
    let text = error("429 Too Many Requests", &["retry-after: 3600"], "");
    let start = "registry `[host]` limits the rate of requests for 3600 more seconds, until 2";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with(" UTC: try again later, or log in for a higher limit"), "{text}");
    let until = date(SystemTime::now() + Duration::from_secs(1800));
    let text = error("429 Too Many Requests", &[&format!("retry-after: {until}")], "");
    assert!(
        text.contains("for 1799 more seconds") || text.contains("for 1800 more seconds"),
        "{text}"
    );
    let text = error("429 Too Many Requests", &[], "");
    assert_eq!(
        text,
        "registry `[host]` limits the rate of requests: try again later, or log in for a higher limit"
    );
}

#[test]
fn a_busy_registry_says_when_to_come_again() {
    let text = error(
        "503 Service Unavailable",
        &["retry-after: 600"],
        r#"{"errors":[{"code":"UNAVAILABLE","message":"read-only for maintenance"}]}"#,
    );
    let start = "registry `[host]`: GET http://[host]/v2/team/app/manifests/1: answered 503 Service Unavailable: \
                 read-only for maintenance for 600 more seconds, until 2";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with(" UTC: try again later"), "{text}");
}

#[test]
fn a_pause_that_is_asked_for_in_seconds_or_by_a_date_is_made() {
    for (status, by_date) in [
        ("429 Too Many Requests", false),
        ("503 Service Unavailable", false),
        ("429 Too Many Requests", true),
        ("503 Service Unavailable", true),
    ] {
        // Up to a second is lost to the form of a date.
        let soon = SystemTime::now() + Duration::from_millis(1500);
        let wanted = if by_date { date(soon) } else { "1".to_owned() };
        let first = std::sync::Mutex::new(true);
        let header = format!("retry-after: {wanted}");
        let server = Server::start(move |_, _| {
            match std::mem::replace(&mut *first.lock().unwrap(), false) {
                true => answer(status, &[&header], b""),
                false => answer("200 OK", &[], &manifest()),
            }
        });
        let options = ClientOptions { longest_wait: Duration::from_secs(3), ..options() };
        let begun = std::time::Instant::now();
        Client::new(options).resolve(&server.reference("a")).unwrap();
        assert!(begun.elapsed() > Duration::from_millis(300), "{wanted}: {:?}", begun.elapsed());
    }
}

#[test]
fn an_answer_that_is_no_success_is_told_with_request_and_status() {
    let text = error(
        "418 I'm a teapot",
        &[],
        r#"{"errors":[{"code":"TEAPOT","message":"short and stout"}]}"#,
    );
    assert_eq!(
        text,
        "registry `[host]`: GET http://[host]/v2/team/app/manifests/1: answered 418 I'm a teapot: short and stout"
    );
}

#[test]
fn a_registry_that_limits_requests_is_quoted() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
    let text = error("429 Too Many Requests", &["retry-after: 7200"], body);
    let end = " UTC: server message: You have reached your pull rate limit.: try again later, or log in for a higher limit";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn a_web_page_in_place_of_a_manifest_is_told() {
    let text = error("200 OK", &["content-type: text/html"], "\n<!doctype html><html>Log in");
    let expect = "registry `[host]`: GET http://[host]/v2/team/app/manifests/1: answered a web page, not a manifest: \
                  it is no registry, or a proxy or login page answers in its place";
    assert_eq!(text, expect);
}

#[test]
fn a_repository_that_is_not_there_is_told_from_a_tag() {
    for (code, expect) in [("NAME_UNKNOWN", true), ("MANIFEST_UNKNOWN", false)] {
        let body = format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
        let server = Server::start(move |_, _| answer("404 Not Found", &[], body.as_bytes()));
        let error = client().resolve(&server.reference("team/app")).unwrap_err();
        let Error::NotFound { lacks_repository, .. } = error else { panic!("{error}") };
        assert_eq!(lacks_repository, expect, "{code}");
    }
}

#[test]
fn the_login_that_was_refused_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let body = r#"{"errors":[{"code":"DENIED","message":"no longer with us"}]}"#;
    let server = Server::start(move |seen, host| {
        if seen.line.starts_with("GET /token?") {
            return answer("403 Forbidden", &[], body.as_bytes());
        }
        let bearer =
            format!("www-authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"");
        let basic = "www-authenticate: Basic realm=\"r\"".to_owned();
        let asked = if seen.line.contains("/tokens/") { bearer } else { basic };
        answer("401 Unauthorized", &[&asked], b"")
    });
    let path = folder.path().join("auth.json");
    fs_err::write(&path, format!(r#"{{"auths":{{"{}":{{"auth":"Y2k6cHc="}}}}}}"#, server.host))
        .unwrap();
    let client = Client::new(ClientOptions { auth_files: vec![path.clone()], ..options() });
    for repository in ["passwords/app", "tokens/app"] {
        let error = client.resolve(&server.reference(repository)).unwrap_err();
        let Error::Unauthorized { host, login, message, .. } = error else { panic!("{error}") };
        assert_eq!(host, server.host);
        assert_eq!(login, Some(format!("`ci` from `{}`", path.display())));
        let is_quoted = message.ends_with(" answered 403 Forbidden: no longer with us");
        assert!(is_quoted || repository.starts_with('p'), "{message}");
    }
}

#[test]
fn a_credential_helper_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(|_, _| {
        answer("401 Unauthorized", &["www-authenticate: Basic realm=\"r\""], b"")
    });
    let path = folder.path().join("config.json");
    let error = |helper: &str| {
        let config = format!(r#"{{"credHelpers":{{"{}":"{helper}"}}}}"#, server.host);
        fs_err::write(&path, config).unwrap();
        let client = Client::new(ClientOptions { auth_files: vec![path.clone()], ..options() });
        client.resolve(&server.reference("app")).unwrap_err().to_string()
    };
    let host = &server.host;
    let expect = format!(
        "cannot read the credentials for registry `{host}`: cannot run `docker-credential-is-not-there`, which `{}` names: install it, or take it out of the file",
        path.display()
    );
    assert_eq!(error("is-not-there"), expect);
}

#[test]
fn what_is_not_there_is_told_by_its_name() {
    assert_eq!(error("404 Not Found", &[], ""), "[host]/team/app:1: not found");
    let server = Server::start(|_, _| answer("404 Not Found", &[], b""));
    let blob = descriptor(b"blob");
    let error = client().blob(&server.reference("team/app"), &blob).unwrap_err();
    assert_eq!(error.to_string(), format!("{}/team/app@{}: not found", server.host, blob.digest));
}

#[test]
fn a_manifest_that_is_too_large_is_told_with_the_limit() {
    let text = error("200 OK", &["content-length: 4194305"], "");
    assert_eq!(text, "[host]/team/app:1: larger than the limit of 4194304 bytes");
}

#[test]
fn a_token_server_on_another_host_without_tls_is_refused() {
    let header = "www-authenticate: Bearer realm=\"http://auth.example/token\",service=\"s\"";
    assert_eq!(
        error("401 Unauthorized", &[header], ""),
        "registry `[host]`: GET http://auth.example:80/token: is a token server on another host without TLS: it is not asked"
    );
}
