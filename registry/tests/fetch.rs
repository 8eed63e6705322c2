//! Files behind URLs, against a server that answers what it is told to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use llb::Digest;
use registry::{Cancel, Client, ClientOptions, FetchError, Validators};
use support::{Seen, answer, read_request};

/// A server on loopback; one connection, one answer.
struct Server {
    host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What is sent of an answer before the connection ends.
enum Then {
    Close,
    /// Nothing more is said, and the connection stays.
    Silence,
}

impl Server {
    /// `answer` gets the request and its number from 0.
    fn start(answer: impl Fn(&Seen, usize) -> (Vec<u8>, Then) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let Some((mut stream, request)) = stream.ok().and_then(read_request) else {
                    continue;
                };
                let number = log.lock().unwrap().len();
                let (bytes, then) = answer(&request, number);
                log.lock().unwrap().push(request);
                let _ = stream.write_all(&bytes);
                if let Then::Silence = then {
                    silent.push(stream);
                }
            }
        });
        Self { host, seen }
    }

    fn always(bytes: Vec<u8>) -> Self {
        Self::start(move |_, _| (bytes.clone(), Then::Close))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.host)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn client() -> Client {
    Client::new(ClientOptions {
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(50),
        read_timeout: Duration::from_millis(500),
        ..ClientOptions::default()
    })
}

/// The file behind a URL, or the text of the error with its causes.
fn fetch(url: &str) -> Result<Vec<u8>, String> {
    fetch_with(&client(), url)
}

fn fetch_with(client: &Client, url: &str) -> Result<Vec<u8>, String> {
    let reader = client.fetch(url, &Validators::default()).map_err(|error| text(&error))?;
    let mut reader = reader.ok_or("not modified")?;
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => {
            assert_eq!(reader.digest(), Digest::of(&bytes));
            Ok(bytes)
        }
        Err(error) => Err(text(error.get_ref().unwrap().downcast_ref::<FetchError>().unwrap())),
    }
}

fn text(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_file_comes_with_what_names_it() {
    let server = Server::always(answer(
        "200 OK",
        &["etag: \"x\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"],
        b"hello",
    ));
    let mut reader = client().fetch(&server.url("a?b#c"), &Validators::default()).unwrap().unwrap();
    assert_eq!(reader.size(), Some(5));
    assert_eq!(reader.validators().etag.as_deref(), Some("\"x\""));
    assert_eq!(reader.validators().modified(), Some(784_111_777));
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.as_slice(), reader.digest()), (&b"hello"[..], Digest::of(b"hello")));
    let seen = server.seen();
    assert_eq!(seen[0].line, "GET /a?b");
    assert_eq!(seen[0].header("accept-encoding"), "identity");
    assert!(!seen[0].headers.contains_key("if-none-match"), "{seen:?}");
}

#[test]
fn a_file_that_is_known_is_asked_for_conditionally() {
    let server = Server::always(answer("304 Not Modified", &["no-length: x"], b""));
    let (etag, date) = ("W/\"x\"".to_owned(), "Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    for (known, none_match, since) in [
        (Validators { etag: Some(etag.clone()), last_modified: None }, etag.as_str(), ""),
        (Validators { etag: None, last_modified: Some(date.clone()) }, "", date.as_str()),
        (
            Validators { etag: Some(etag.clone()), last_modified: Some(date.clone()) },
            etag.as_str(),
            date.as_str(),
        ),
    ] {
        let fetched = client().fetch(&server.url("x"), &known).unwrap();
        assert!(fetched.is_none(), "{known:?}");
        let seen = server.seen().pop().unwrap();
        assert_eq!(
            (seen.header("if-none-match"), seen.header("if-modified-since")),
            (none_match, since)
        );
    }
    let unasked = Validators { etag: None, last_modified: Some("yesterday".to_owned()) };
    let error = client().fetch(&server.url("x"), &unasked).unwrap_err();
    assert_eq!(error.to_string(), "invalid response status 304");
}

#[test]
fn bodies_of_every_framing_are_taken_as_they_are() {
    let chunked = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    for (headers, body, expect) in [
        (&["transfer-encoding: chunked"][..], &chunked[..], &b"abcde"[..]),
        (&["no-length: x"], b"until the end", b"until the end"),
        (&["content-encoding: gzip"], b"\x1f\x8b\x08 not undone", b"\x1f\x8b\x08 not undone"),
        (&["content-length: 3"], b"more than promised", b"mor"),
        (&[], b"", b""),
    ] {
        let server = Server::always(answer("200 OK", headers, body));
        assert_eq!(fetch(&server.url("x")).unwrap(), expect, "{headers:?}");
    }
}

#[test]
fn redirects_are_followed_as_far_as_they_are_safe() {
    let target = Server::always(answer("200 OK", &[], b"there"));
    let to = target.url("there");
    let redirect = |location: &str| {
        Server::always(answer("302 Found", &[&format!("location: {location}")], b""))
    };
    assert_eq!(fetch(&redirect(&to).url("x")).unwrap(), b"there");
    for (location, expect) in [
        ("/again", "the server redirects more than 10 times"),
        ("file:///etc/passwd", "the server redirected to a `file:` address"),
        ("ftp://h/x", "the server redirected to a `ftp:` address"),
        ("http://", "the server named a malformed location"),
    ] {
        let server = redirect(location);
        assert_eq!(fetch(&server.url("x")).unwrap_err(), expect);
        assert!(server.seen().len() <= 11);
    }
    let server = Server::always(answer("301 Moved", &[], b""));
    assert_eq!(
        fetch(&server.url("x")).unwrap_err(),
        "the server redirects without a usable location"
    );
}

#[test]
fn credentials_of_a_url_are_told_to_its_host_only() {
    let other = Server::always(answer("200 OK", &[], b"other"));
    let to = other.url("x");
    let server = Server::start(move |seen, _| match seen.line.as_str() {
        "GET /own" => (answer("307 Temporary", &["location: /more"], b""), Then::Close),
        _ => (answer("307 Temporary", &[&format!("location: {to}")], b""), Then::Close),
    });
    let url = format!("http://us%40er:pass@{}/own", server.host);
    assert_eq!(fetch(&url).unwrap(), b"other");
    let basic = "Basic dXNAZXI6cGFzcw==";
    assert_eq!(
        server.seen().iter().map(|seen| seen.header("authorization")).collect::<Vec<_>>(),
        [basic, basic]
    );
    assert_eq!(other.seen()[0].header("authorization"), "");
    let gone = format!("http://user:hunter2@{}/x", unused_port());
    let error = fetch(&gone).unwrap_err();
    assert!(!error.contains("hunter2") && error.contains("connection refused"), "{error}");
}

fn unused_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn an_interrupted_file_is_resumed_where_it_broke_off() {
    let whole = b"0123456789";
    for (name, value, expect) in [
        ("etag", "\"strong\"", Some("\"strong\"")),
        ("etag", "W/\"weak\"", None),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
        // Perhaps still changing when it was sent.
        ("last-modified", "Sun, 06 Nov 1994 09:49:30 GMT", None),
        ("x-nothing", "", None),
    ] {
        let headers =
            [format!("{name}: {value}"), "date: Sun, 06 Nov 1994 09:49:37 GMT".to_owned()];
        let server = Server::start(move |seen, number| {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let broken = [&headers[..], &["content-length: 10"]].concat();
            match (number, seen.header("range")) {
                (0, _) => (answer("200 OK", &broken, &whole[..4]), Then::Close),
                (1, "bytes=4-") => (
                    answer(
                        "206 Partial Content",
                        &["content-range: bytes 4-9/10", "content-length: 6"],
                        &whole[4..6],
                    ),
                    Then::Close,
                ),
                (2, "bytes=6-") => {
                    let range = ["content-range: bytes 6-9/10"];
                    (answer("206 Partial Content", &range, &whole[6..]), Then::Close)
                }
                // It may break once more, before what was received already has come again.
                (1, _) => (answer("200 OK", &broken, &whole[..3]), Then::Close),
                _ => (answer("200 OK", &headers, whole), Then::Close),
            }
        });
        assert_eq!(fetch(&server.url("x")).unwrap(), whole, "{name}: {value}");
        let seen = server.seen();
        assert_eq!(seen.len(), 3, "{name}: {value}");
        assert_eq!(seen[1].headers.get("if-range").map(String::as_str), expect);
    }
}

#[test]
fn a_file_that_changes_while_it_comes_is_refused() {
    let begin = |body: &[u8]| answer("200 OK", &["content-length: 6", "etag: \"a\""], body);
    for second in [
        // Another content, another length, another range, another whole.
        answer("200 OK", &[], b"abXdef"),
        answer("200 OK", &[], b"abcdefg"),
        answer("206 Partial Content", &["content-range: bytes 0-5/6"], b"abcdef"),
        answer("206 Partial Content", &["content-range: bytes 3-8/9"], b"defghi"),
        // Less than was there.
        answer("200 OK", &["no-length: x"], b"ab"),
    ] {
        let first = begin(b"abc");
        let server = Server::start(move |_, number| {
            (if number == 0 { first.clone() } else { second.clone() }, Then::Close)
        });
        let error = fetch(&server.url("x")).unwrap_err();
        assert!(
            error == "the file changed while it was downloaded" || error.contains("broke off"),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_never_comes_whole_is_an_error() {
    let server = Server::start(|seen, _| {
        if seen.headers.contains_key("range") {
            return (answer("416 Range Not Satisfiable", &[], b""), Then::Close);
        }
        (answer("200 OK", &["content-length: 9", "etag: \"x\""], b"only"), Then::Close)
    });
    let error = fetch(&server.url("x")).unwrap_err();
    assert_eq!(error, "the download broke off after 4 of 9 bytes: invalid response status 416");
    let server = Server::always(answer("200 OK", &["content-length: 9"], b"only"));
    let error = fetch(&server.url("x")).unwrap_err();
    assert!(
        error.starts_with("the download broke off after 4 of 9 bytes: cannot reach"),
        "{error}"
    );
    assert_eq!(server.seen().len(), 5);
    let server = Server::always(answer("200 OK", &["transfer-encoding: chunked"], b"3\r\nabc\r\n"));
    let error = fetch(&server.url("x")).unwrap_err();
    assert!(error.starts_with("the download broke off after 3 bytes: cannot reach"), "{error}");
}

#[test]
fn a_silent_server_is_waited_for_only_so_long() {
    for bytes in [Vec::new(), answer("200 OK", &["content-length: 9"], b"abc")] {
        let server = Server::start(move |_, _| (bytes.clone(), Then::Silence));
        let begun = Instant::now();
        let error = fetch(&server.url("x")).unwrap_err();
        assert!(error.ends_with("no answer: nothing was received for 0.5 seconds"), "{error}");
        assert_eq!(server.seen().len(), 2, "a silent server is asked once more");
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    }
}

#[test]
fn passing_errors_are_tried_again_and_others_are_not() {
    let server = Server::start(|_, number| match number {
        0 => (answer("503 Unavailable", &["retry-after: 0"], b"wait"), Then::Close),
        1 => (Vec::new(), Then::Close),
        _ => (answer("200 OK", &[], b"at last"), Then::Close),
    });
    assert_eq!(fetch(&server.url("x")).unwrap(), b"at last");
    for (status, requests) in [
        ("404 Not Found", 1),
        ("403 Forbidden", 1),
        ("401 Unauthorized", 1),
        ("500 Broken", 5),
        ("206 Partial", 1),
        ("300 Choices", 1),
    ] {
        let server = Server::always(answer(status, &[], b"<html>"));
        let error = fetch(&server.url("x")).unwrap_err();
        assert_eq!(error, format!("invalid response status {}", &status[..3]));
        assert_eq!(server.seen().len(), requests, "{status}");
    }
    // More patience than there is.
    let server = Server::always(answer("429 Too Many", &["retry-after: 3600"], b""));
    assert_eq!(fetch(&server.url("x")).unwrap_err(), "invalid response status 429");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn what_is_no_url_of_a_file_is_refused() {
    for (url, expect) in [
        ("ftp://h/x", "the URL is malformed: want http://HOST/… or https://HOST/…"),
        ("file:///etc/passwd", "the URL is malformed: want http://HOST/… or https://HOST/…"),
        ("http://", "the URL is malformed: empty host"),
        ("x", "the URL is malformed: relative URL without a base"),
        ("http://h:port/x", "the URL is malformed: invalid port number"),
    ] {
        assert_eq!(fetch(url).unwrap_err(), expect, "{url}");
    }
}

#[test]
fn a_download_ends_soon_after_it_is_cancelled() {
    let slow = answer("200 OK", &["content-length: 9"], b"abc");
    for bytes in [Vec::new(), slow] {
        let server = Server::start(move |_, _| (bytes.clone(), Then::Silence));
        let cancel = Cancel::new();
        let options = ClientOptions { read_timeout: Duration::from_secs(60), ..Default::default() };
        let client = Client::new(options).with_cancel(cancel.clone());
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.cancel();
            Instant::now()
        });
        assert_eq!(fetch_with(&client, &server.url("x")).unwrap_err(), "canceled");
        let late = stopper.join().unwrap().elapsed();
        assert!(late < Duration::from_millis(100), "{late:?}");
    }
}
