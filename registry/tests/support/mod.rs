//! A server on loopback that answers what it is told to, and what tests ask of it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llb::image::{Descriptor, media_type};
use llb::{Digest, Reference};
use registry::{Client, ClientOptions};

/// What the server saw of a request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and target: `GET /v2/a?b`.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap()
    }

    /// First and last byte of a range that is asked for.
    pub(crate) fn range(&self, size: usize) -> Option<(usize, usize)> {
        let (start, end) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((start.parse().unwrap(), end.parse().unwrap_or(size - 1)))
    }
}

/// A server on loopback; one connection, one answer, each on a thread of its own.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// `answer` gets the request and the host; it gives the raw bytes to send before the connection is closed.
    pub(crate) fn start(answer: impl Fn(&Seen, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::with_stream(move |seen, host, stream| {
            let _ = stream.write_all(&answer(seen, host));
        })
    }

    /// As [`start`](Self::start); `answer` gets the number of the request too, from 0.
    pub(crate) fn numbered(
        answer: impl Fn(&Seen, usize, &str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let count = AtomicUsize::new(0);
        Self::start(move |seen, host| answer(seen, count.fetch_add(1, Ordering::Relaxed), host))
    }

    /// As [`start`](Self::start), for answers that take their time.
    pub(crate) fn with_stream(
        answer: impl Fn(&Seen, &str, &mut TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, own, answer) = (Arc::clone(&seen), host.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (log, own, answer) = (Arc::clone(&log), own.clone(), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let Some((mut stream, request)) = read_request(stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    answer(&request, &own, &mut stream);
                });
            }
        });
        Self { host, seen }
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("{}/{name}", self.host)).unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }

    /// Requests of one method.
    pub(crate) fn of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }
}

/// Reads one request whole; `None` when the other side is gone before its end.
pub(crate) fn read_request(stream: TcpStream) -> Option<(TcpStream, Seen)> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let line = lines.first()?.rsplit_once(' ')?.0.to_owned();
    let header = |line: &String| {
        line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
    };
    let headers: HashMap<_, _> = lines[1..].iter().filter_map(header).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((reader.into_inner(), Seen { line, headers, body }))
}

/// An answer, with its length unless a header tells of that.
pub(crate) fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    let own_length = ["content-length", "transfer-encoding", "no-length"];
    if !headers.iter().any(|header| own_length.iter().any(|own| header.starts_with(own))) {
        head += &format!("content-length: {}\r\n", body.len());
    }
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The range of `bytes` that was asked for, or all of them.
pub(crate) fn ranged(seen: &Seen, bytes: &[u8]) -> Vec<u8> {
    let Some((start, end)) = seen.range(bytes.len()) else { return answer("200 OK", &[], bytes) };
    let range = format!("content-range: bytes {start}-{end}/{}", bytes.len());
    answer("206 Partial Content", &[&range], &bytes[start..=end])
}

/// Bytes that differ from place to place.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

pub(crate) fn options() -> ClientOptions {
    ClientOptions {
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(50),
        read_timeout: Duration::from_secs(5),
        ..ClientOptions::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(options())
}

pub(crate) fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, Digest::of(bytes), bytes.len() as u64)
}

pub(crate) fn manifest() -> Vec<u8> {
    let config = serde_json::to_string(&descriptor(b"{}")).unwrap();
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#).into_bytes()
}

pub(crate) fn read_blob(
    client: &Client,
    server: &Server,
    wanted: &[u8],
) -> Result<Vec<u8>, String> {
    let mut reader = client
        .blob(&server.reference("a"), &descriptor(wanted))
        .map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(|error| chain(&error))?;
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    Ok(bytes)
}

/// An error with its causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    // An I/O error that wraps another one passes over it.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let mut next = inner.and_then(|inner| inner.source()).or_else(|| error.source());
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// A client with the password `p` of user `u` for `host`, and the folder that keeps it.
pub(crate) fn client_with_password(host: &str) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    fs_err::write(&path, format!(r#"{{"auths": {{"{host}": {{"auth": "dTpw"}}}}}}"#)).unwrap();
    (Client::new(ClientOptions { auth_files: vec![path], ..options() }), folder)
}
