//! The client against a server that answers what it is told to.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use llb::image::media_type;
use llb::{Digest, Platform, Reference};
use registry::{Cancel, Client, ClientOptions, Error, Pushed};
use support::{
    Server, answer, client, client_with_password, descriptor, manifest, options, read_blob,
    read_request,
};

#[test]
fn blob_with_wrong_bytes_is_an_error_at_its_end() {
    let server = Server::numbered(|_, _, _| answer("200 OK", &[], b"evil"));
    let mut reader = client().blob(&server.reference("a"), &descriptor(b"good")).unwrap();
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).unwrap();
    let error = reader.read(&mut bytes).unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    assert!(matches!(inner, Some(Error::BadDigest { .. })), "{error}");
    assert!(reader.read(&mut bytes).is_err(), "the end must never be reached");
}

#[test]
fn blob_of_the_wrong_size_is_an_error() {
    let server = Server::numbered(|_, _, _| answer("200 OK", &[], b"longer than wanted"));
    let error = read_blob(&client(), &server, b"short").unwrap_err();
    assert!(error.contains("expected 5 bytes, got 18"), "{error}");
    let endless = Server::numbered(|_, _, _| {
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nlonger than wanted".to_vec()
    });
    let error = read_blob(&client(), &endless, b"short").unwrap_err();
    assert!(error.contains("expected 5 bytes, got more"), "{error}");
}

#[test]
fn broken_blob_is_resumed_where_it_ended() {
    const TEXT: &[u8] = b"0123456789";
    let server =
        Server::numbered(|request, number, _| match (number, request.headers.get("range")) {
            (0, None) => answer("200 OK", &["content-length: 10"], &TEXT[..4]),
            (_, Some(range)) => {
                let start: usize =
                    range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
                let end = (start + 3).min(TEXT.len());
                let range = format!("content-range: bytes {start}-9/10");
                answer(
                    "206 Partial Content",
                    &[&range, &format!("content-length: {}", 10 - start)],
                    &TEXT[start..end],
                )
            }
            _ => answer("400 Bad Request", &[], b""),
        });
    assert_eq!(read_blob(&client(), &server, TEXT).as_deref(), Ok(TEXT));
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn server_without_ranges_is_resumed_too() {
    const TEXT: &[u8] = b"0123456789";
    let server = Server::numbered(|_, number, _| {
        let sent = if number == 0 { &TEXT[..4] } else { TEXT };
        answer("200 OK", &["content-length: 10"], sent)
    });
    assert_eq!(read_blob(&client(), &server, TEXT).as_deref(), Ok(TEXT));
}

#[test]
fn blob_that_never_ends_well_is_given_up() {
    let server = Server::numbered(|_, _, _| answer("200 OK", &["content-length: 10"], b"0123"));
    let error = read_blob(&client(), &server, b"0123456789").unwrap_err();
    assert!(error.contains("connection broke"), "{error}");
    let other_range = Server::numbered(|_, _, _| {
        answer(
            "206 Partial Content",
            &["content-range: bytes 0-3/10", "content-length: 10"],
            b"0123",
        )
    });
    assert!(
        read_blob(&client(), &other_range, b"0123456789").unwrap_err().contains("another range")
    );
}

#[test]
fn oversize_manifest_is_refused() {
    let told = Server::numbered(|_, _, _| answer("200 OK", &["content-length: 99999999"], b""));
    assert!(matches!(client().resolve(&told.reference("a")), Err(Error::TooLarge { .. })));
    let untold = Server::numbered(|_, _, _| {
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec(), vec![b' '; (4 << 20) + 1]]
            .concat()
    });
    assert!(matches!(client().resolve(&untold.reference("a")), Err(Error::TooLarge { .. })));
}

#[test]
fn manifest_with_another_digest_is_refused() {
    let server = Server::numbered(|_, _, _| answer("200 OK", &[], &manifest()));
    let wanted = server.reference("a").with_digest(Digest::of(b"other"));
    assert!(matches!(client().resolve(&wanted), Err(Error::BadDigest { .. })));
    let claimed = format!("docker-content-digest: {}", Digest::of(b"other"));
    let server = Server::numbered(move |_, _, _| answer("200 OK", &[&claimed], &manifest()));
    assert!(matches!(client().resolve(&server.reference("a")), Err(Error::BadDigest { .. })));
}

#[test]
fn malformed_answers_are_errors() {
    let bodies: [&[u8]; 6] = [b"", b"<html>", b"[]", b"{}", b"{\"schemaVersion\":1}", &[0xff; 64]];
    for body in bodies {
        let server = Server::numbered(move |_, _, _| answer("200 OK", &[], body));
        let result = client().resolve(&server.reference("a"));
        assert!(matches!(result, Err(Error::BadAnswer { .. })), "{body:?}: {result:?}");
    }
    let noise = Server::numbered(|_, _, _| vec![0; 100]);
    assert!(matches!(client().resolve(&noise.reference("a")), Err(Error::Unreachable { .. })));
    let silence = Server::numbered(|_, _, _| Vec::new());
    assert!(matches!(client().resolve(&silence.reference("a")), Err(Error::Unreachable { .. })));
}

#[test]
fn endlessly_nested_indexes_are_given_up() {
    // Each index names the next one; the digests must be right, so they are made from the inside out.
    let mut documents = vec![manifest()];
    for _ in 0..8 {
        let mut entry = descriptor(documents.last().unwrap());
        let index = documents.len() > 1;
        entry.media_type =
            if index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST }.into();
        let entry = serde_json::to_string(&entry).unwrap();
        documents.push(format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#).into_bytes());
    }
    let shallow = documents[2].clone();
    let server = Server::numbered(move |request, _, _| {
        let of = |bytes: &&Vec<u8>| request.line.ends_with(&Digest::of(bytes).to_string());
        let start =
            if request.line.contains("/deep/") { documents.last() } else { Some(&documents[2]) };
        answer("200 OK", &[], documents.iter().find(of).or(start).unwrap())
    });
    let platform = Platform::parse("linux/amd64").unwrap();
    let image = client().resolve_image(&server.reference("shallow"), &platform).unwrap();
    assert_eq!((image.top.bytes, image.document.bytes), (shallow, manifest()));
    let error = client().resolve_image(&server.reference("deep"), &platform).unwrap_err();
    assert!(error.to_string().contains("nested"), "{error}");
}

#[test]
fn rate_limit_is_waited_for_or_told() {
    let soon = Server::numbered(|_, number, _| match number {
        0 => answer("429 Too Many Requests", &["retry-after: 0"], b""),
        _ => answer("200 OK", &[], &manifest()),
    });
    client().resolve(&soon.reference("a")).unwrap();
    assert_eq!(soon.lines().len(), 2);
    let late =
        Server::numbered(|_, _, _| answer("429 Too Many Requests", &["retry-after: 3600"], b""));
    let error = client().resolve(&late.reference("a")).unwrap_err();
    assert!(matches!(error, Error::RateLimited { until: Some(_), .. }), "{error}");
    assert_eq!(late.lines().len(), 1);
}

#[test]
fn server_errors_are_tried_again_and_then_told() {
    let recovers = Server::numbered(|_, number, _| match number {
        0 => answer("500 Internal Server Error", &[], b""),
        1 => Vec::new(),
        2 => answer("503 Service Unavailable", &[], b""),
        _ => answer("200 OK", &[], &manifest()),
    });
    client().resolve(&recovers.reference("a")).unwrap();
    let body = br#"{"errors":[{"code":"UNKNOWN","message":"disk \u001b[31mfull"}]}"#;
    let broken = Server::numbered(move |_, _, _| answer("502 Bad Gateway", &[], body));
    let error = client().resolve(&broken.reference("a")).unwrap_err().to_string();
    assert!(error.ends_with("answered 502 Bad Gateway: disk [31mfull"), "{error}");
    assert_eq!(broken.lines().len(), 5);
}

#[test]
fn redirects_are_followed_but_not_for_ever_and_not_out_of_http() {
    let to_blob = Server::numbered(|request, _, _| match request.line.as_str() {
        "GET /elsewhere" => answer("200 OK", &[], b"bytes"),
        _ => answer("307 Temporary Redirect", &["location: /elsewhere"], b""),
    });
    assert_eq!(read_blob(&client(), &to_blob, b"bytes").as_deref(), Ok(&b"bytes"[..]));
    let endless = Server::numbered(|_, _, _| answer("302 Found", &["location: /again"], b""));
    assert!(
        read_blob(&client(), &endless, b"x").unwrap_err().contains("redirected more than 10 times")
    );
    for (location, expect) in
        [("file:///etc/passwd", "`file:`"), ("ftp://x/", "`ftp:`"), ("http://", "malformed")]
    {
        let header = format!("location: {location}");
        let server =
            Server::numbered(move |_, _, _| answer("307 Temporary Redirect", &[&header], b""));
        let error = read_blob(&client(), &server, b"x").unwrap_err();
        assert!(error.contains(expect), "{error}");
    }
}

#[test]
fn credentials_are_dropped_when_a_redirect_leaves_the_host() {
    let other = Server::numbered(|_, _, _| answer("200 OK", &[], b"bytes"));
    let location = format!("location: http://{}/blob", other.host);
    let server =
        Server::numbered(move |request, _, _| match request.headers.get("authorization") {
            Some(_) => answer("307 Temporary Redirect", &[&location], b""),
            None => answer("401 Unauthorized", &["www-authenticate: Basic realm=\"r\""], b""),
        });
    let (client, _folder) = client_with_password(&server.host);
    assert_eq!(read_blob(&client, &server, b"bytes").as_deref(), Ok(&b"bytes"[..]));
    assert_eq!(server.seen()[1].headers["authorization"], "Basic dTpw");
    assert!(!other.seen()[0].headers.contains_key("authorization"));
}

/// Answers `/token` with a numbered token and wants the newest one for all else.
fn token_server(lifetime: &'static str) -> Server {
    let newest = Mutex::new(0);
    Server::numbered(move |request, _, host| {
        let mut newest = newest.lock().unwrap();
        if request.line.starts_with("GET /token") {
            *newest += 1;
            let text = format!(r#"{{"token":"t{newest}"{lifetime}}}"#);
            return answer("200 OK", &[], text.as_bytes());
        }
        if request.headers.get("authorization") != Some(&format!("Bearer t{newest}")) {
            let challenge = format!(
                r#"www-authenticate: Bearer realm="http://{host}/token",service="s",scope="repository:a:pull""#
            );
            return answer("401 Unauthorized", &[&challenge], b"");
        }
        answer("200 OK", &[], &manifest())
    })
}

#[test]
fn token_is_fetched_once_per_scope_and_shows_the_password_only_there() {
    let server = token_server("");
    let (client, _folder) = client_with_password(&server.host);
    client.resolve(&server.reference("a")).unwrap();
    client.resolve(&server.reference("a")).unwrap();
    client.resolve(&server.reference("b")).unwrap();
    let tokens: Vec<_> =
        server.lines().into_iter().filter(|line| line.starts_with("GET /token")).collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(tokens[0].contains("service=s&scope=repository%3Aa%3Apull&client_id="), "{tokens:?}");
    assert!(tokens[1].contains("scope=repository%3Ab%3Apull"), "{tokens:?}");
    for seen in server.seen() {
        let authorization = seen.headers.get("authorization").map_or("", String::as_str);
        assert_eq!(authorization == "Basic dTpw", seen.line.starts_with("GET /token"), "{seen:?}");
    }
}

#[test]
fn refused_token_is_renewed() {
    let server = token_server(r#","expires_in":3600"#);
    let (first, second) = (client(), client());
    first.resolve(&server.reference("a")).unwrap();
    // The second client's token makes the first one's stale.
    second.resolve(&server.reference("a")).unwrap();
    first.resolve(&server.reference("a")).unwrap();
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("GET /token")).count(), 3);
}

#[test]
fn hostile_challenges_end_in_unauthorized_or_bad_answer() {
    let realms = ["file:///etc/passwd", "nonsense", "ftp://h/", ""];
    for realm in realms {
        let server = Server::numbered(move |_, _, _| {
            answer(
                "401 Unauthorized",
                &[&format!("www-authenticate: Bearer realm=\"{realm}\"")],
                b"",
            )
        });
        let error = client().resolve(&server.reference("a")).unwrap_err();
        assert!(
            matches!(error, Error::BadAnswer { .. } | Error::Unauthorized { .. }),
            "{realm}: {error}"
        );
    }
    for token in [
        r#"{"token":""}"#,
        r#"{"token":"a\nb"}"#,
        "[]",
        "",
        r#"{"token":"t","expires_in":18446744073709551615}"#,
    ] {
        let server = Server::numbered(move |request, _, host| {
            match request.line.starts_with("GET /token") {
                true => answer("200 OK", &[], token.as_bytes()),
                false => answer(
                    "401 Unauthorized",
                    &[&format!("www-authenticate: Bearer realm=\"http://{host}/token\"")],
                    b"",
                ),
            }
        });
        let error = client().resolve(&server.reference("a")).unwrap_err();
        assert!(
            matches!(error, Error::BadAnswer { .. } | Error::Unauthorized { .. }),
            "{token}: {error}"
        );
    }
}

#[test]
fn closed_port_is_told_with_its_address_and_a_hint() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let reference = Reference::parse(&format!("{address}/a")).unwrap();
    let error = client().resolve(&reference).unwrap_err();
    let expect = format!("cannot reach registry `{address}` at {address}: connection refused");
    assert!(error.to_string().ends_with(&expect), "{error}");
    let Error::Unreachable { hint, .. } = error else { panic!("{error:?}") };
    assert_eq!(hint, "check that the registry is running");
}

#[test]
fn server_without_tls_that_refuses_plain_http_is_an_error() {
    let server = Server::numbered(|_, _, _| answer("400 Bad Request", &[], b""));
    // Plain HTTP answers 400 as a TLS server would, so HTTPS is tried.
    let mut options = options();
    options.hosts.insert(server.host.clone(), registry::HostOptions { insecure: Some(false) });
    let stalled = std::thread::scope(|scope| {
        scope
            .spawn(|| Client::new(options).resolve(&server.reference("a")).unwrap_err())
            .join()
            .unwrap()
    });
    assert!(matches!(stalled, Error::Tls { .. } | Error::Unreachable { .. }), "{stalled:?}");
}

/// Accepts connections and never answers.
fn mute() -> (TcpListener, Reference) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = Reference::parse(&format!("{}/a", listener.local_addr().unwrap())).unwrap();
    (listener, reference)
}

#[test]
fn silence_ends_by_read_timeout_deadline_or_cancel() {
    let (_listener, reference) = mute();
    let impatient =
        ClientOptions { read_timeout: Duration::from_millis(20), retries: 1, ..options() };
    assert!(matches!(Client::new(impatient).resolve(&reference), Err(Error::Unreachable { .. })));
    let soon = Instant::now() + Duration::from_millis(20);
    assert!(matches!(
        client().with_deadline(soon).resolve(&reference),
        Err(Error::DeadlineExceeded)
    ));
    let cancel = Cancel::new();
    let client = client().with_cancel(cancel.clone());
    let waiting = std::thread::spawn(move || client.resolve(&reference));
    cancel.cancel();
    assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
}

#[test]
fn cancel_ends_a_stream() {
    let (listener, reference) = mute();
    let server = std::thread::spawn(move || {
        let (stream, _) = read_request(listener.accept().unwrap().0).unwrap();
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01").unwrap();
        stream
    });
    let cancel = Cancel::new();
    let mut reader =
        client().with_cancel(cancel.clone()).blob(&reference, &descriptor(b"0123456789")).unwrap();
    let _open = server.join().unwrap();
    reader.read_exact(&mut [0; 2]).unwrap();
    cancel.cancel();
    assert_eq!(reader.read(&mut [0]).unwrap_err().to_string(), "cancelled");
}

#[test]
fn doubtful_upload_is_asked_for_instead_of_sent_again() {
    let stored = Mutex::new(false);
    let server = Server::numbered(move |request, _, _| {
        let mut stored = stored.lock().unwrap();
        match request.line.split(' ').next() {
            Some("HEAD") if *stored => answer("200 OK", &[], b""),
            Some("HEAD") => answer("404 Not Found", &[], b""),
            Some("POST") => answer("202 Accepted", &["location: /upload/1?state=x"], b""),
            _ => {
                // Takes the bytes, and breaks before it can say so.
                *stored = true;
                Vec::new()
            }
        }
    });
    let source = || Ok(Box::new(&b"bytes"[..]) as Box<dyn Read + Send>);
    let pushed =
        client().push_blob(&server.reference("a"), &descriptor(b"bytes"), source, None).unwrap();
    assert_eq!(pushed, Pushed::Uploaded);
    let seen = server.seen();
    let put: Vec<_> = seen.iter().filter(|seen| seen.line.starts_with("PUT")).collect();
    let digest = Digest::of(b"bytes").to_string().replace(':', "%3A");
    assert_eq!(
        (put.len(), put[0].line.as_str()),
        (1, format!("PUT /upload/1?state=x&digest={digest}").as_str())
    );
    assert_eq!(put[0].body, b"bytes");
}

#[test]
fn broken_upload_is_sent_again_from_the_start() {
    let puts = Mutex::new(0);
    let server = Server::numbered(move |request, _, _| match request.line.split(' ').next() {
        Some("HEAD") => answer("404 Not Found", &[], b""),
        Some("POST") => answer("202 Accepted", &["location: /upload/1"], b""),
        _ => {
            let mut puts = puts.lock().unwrap();
            *puts += 1;
            let status = if *puts < 3 { "503 Service Unavailable" } else { "201 Created" };
            answer(status, &[], b"")
        }
    });
    let source = || Ok(Box::new(&b"bytes"[..]) as Box<dyn Read + Send>);
    client().push_blob(&server.reference("a"), &descriptor(b"bytes"), source, None).unwrap();
    let seen = server.seen();
    assert!(
        seen.iter().filter(|seen| seen.line.starts_with("PUT")).all(|seen| seen.body == b"bytes")
    );
}
