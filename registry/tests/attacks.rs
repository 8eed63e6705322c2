//! Servers that want too much: memory, time, or what is meant for another.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Cursor, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use registry::{Client, ClientOptions, Error, Pushed};
use support::{
    Seen, Server, answer, chain, client, client_with_password, descriptor, manifest, options,
    read_blob,
};

/// Answers on and on, until the client has enough; counts what it took.
fn endless(stream: &mut TcpStream, status: &str, count: &AtomicUsize) {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes());
    let piece = vec![b' '; 64 << 10];
    while stream.write_all(&piece).is_ok() {
        count.fetch_add(piece.len(), Ordering::Relaxed);
    }
}

/// A server whose answer has no end where `is_endless` says so.
fn endless_server(
    status: &'static str,
    is_endless: impl Fn(&Seen) -> bool + Send + Sync + 'static,
) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = Server::with_stream(move |seen, host, stream| {
        if is_endless(seen) {
            return endless(stream, status, &counted);
        }
        let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\"");
        let _ = stream.write_all(&answer("401 Unauthorized", &[&challenge], b""));
    });
    (server, count)
}

/// More than all buffers of both sides together.
const LITTLE: usize = 64 << 20;

#[track_caller]
fn check_endless(status: &'static str, is_endless: fn(&Seen) -> bool, expect: &str) {
    let (server, count) = endless_server(status, is_endless);
    let client = Client::new(ClientOptions { retries: 0, ..options() });
    let begun = Instant::now();
    let error = client.resolve(&server.reference("a:1")).unwrap_err();
    assert!(chain(&error).contains(expect), "{}", chain(&error));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(count.load(Ordering::Relaxed) < LITTLE, "{count:?}");
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    check_endless("200 OK", |_| true, "larger than");
    check_endless("200 OK", |seen| seen.line.starts_with("GET /token"), "larger than");
    check_endless("500 Internal Server Error", |_| true, "answered 500");
    check_endless("403 Forbidden", |_| true, "access denied");
}

#[test]
fn a_document_that_nests_without_end_is_malformed() {
    for (start, end) in [("[", "]"), ("{\"a\":", "}"), ("{\"config\":", "}")] {
        let text = format!("{}1{}", start.repeat(50_000), end.repeat(50_000));
        let server = Server::start(move |seen, host| {
            let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\"");
            match (seen.line.starts_with("GET /token"), seen.line.contains("/private/")) {
                (false, true) => answer("401 Unauthorized", &[&challenge], b""),
                _ => answer("200 OK", &[], text.as_bytes()),
            }
        });
        for name in ["open/a:1", "private/a:1"] {
            let error = client().resolve(&server.reference(name)).unwrap_err();
            assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
        }
    }
}

#[test]
fn a_content_encoding_does_not_make_more_of_an_answer() {
    // 1 MiB of zeros as gzip, in 1 KiB.
    let mut small = tree::codec::Compressor::new(Vec::new(), tree::codec::Codec::GZIP).unwrap();
    small.write_all(&vec![0; 1 << 20]).unwrap();
    let small = small.finish().unwrap();
    let body = small.clone();
    let server = Server::start(move |_, _| answer("200 OK", &["content-encoding: gzip"], &body));
    // A blob is the bytes that its digest is of.
    assert!(read_blob(&client(), &server, &small).unwrap() == small);
    let error = client().resolve(&server.reference("a:1")).unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
}

#[test]
fn an_upload_that_leads_elsewhere_takes_no_password_with_it() {
    let other = Server::start(|_, _| answer("201 Created", &[], b""));
    let location = format!("location: http://{}/upload", other.host);
    let server = Server::start(move |seen, _| {
        let asked = ["www-authenticate: Basic realm=\"r\""];
        match (seen.header("authorization"), seen.method()) {
            ("", _) => answer("401 Unauthorized", &asked, b""),
            (_, "HEAD") => answer("404 Not Found", &[], b""),
            _ => answer("202 Accepted", &[&location], b""),
        }
    });
    let (client, _folder) = client_with_password(&server.host);
    let source = || Ok(Box::new(Cursor::new(b"bytes")) as Box<dyn Read + Send>);
    let pushed = client.push_blob(&server.reference("a"), &descriptor(b"bytes"), source, None);
    assert_eq!(pushed.unwrap(), Pushed::Uploaded);
    assert!(server.of("POST").iter().any(|seen| seen.header("authorization") == "Basic dTpw"));
    let put = other.of("PUT").pop().unwrap();
    assert_eq!((put.header("authorization"), &put.body[..]), ("", &b"bytes"[..]));
}

#[test]
fn a_token_server_that_leads_elsewhere_takes_no_password_with_it() {
    let other = Server::start(|_, _| answer("200 OK", &[], br#"{"token":"stolen"}"#));
    let location = format!("location: http://{}/token", other.host);
    let server = Server::start(move |seen, host| {
        let challenge = format!("www-authenticate: Bearer realm=\"http://{host}/token\"");
        match (seen.line.starts_with("GET /token"), seen.header("authorization")) {
            (true, _) => answer("307 Temporary Redirect", &[&location], b""),
            (false, "") => answer("401 Unauthorized", &[&challenge], b""),
            _ => answer("200 OK", &[], &manifest()),
        }
    });
    let (client, _folder) = client_with_password(&server.host);
    client.resolve(&server.reference("a:1")).unwrap();
    assert_eq!(other.of("GET").pop().unwrap().header("authorization"), "");
}

#[test]
fn an_upload_is_not_led_out_of_http() {
    for location in ["file:///etc/passwd", "ftp://h/x", "http://", "data:,x"] {
        let header = format!("location: {location}");
        let server = Server::start(move |seen, _| match seen.method() {
            "HEAD" => answer("404 Not Found", &[], b""),
            _ => answer("202 Accepted", &[&header], b""),
        });
        let source = || Ok(Box::new(Cursor::new(b"bytes")) as Box<dyn Read + Send>);
        let pushed =
            client().push_blob(&server.reference("a"), &descriptor(b"bytes"), source, None);
        let error = pushed.unwrap_err();
        assert!(matches!(error, Error::BadAnswer { .. }), "{location}: {error}");
    }
}
