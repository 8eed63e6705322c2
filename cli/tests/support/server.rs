//! An HTTP server on loopback that answers as it is told, each connection on a thread of its own.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Path and query, or, to a proxy, the whole URL.
    pub(crate) target: String,
    /// By lower-case name.
    headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: &'static str,
    headers: Vec<String>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection is closed.
    cut: Option<usize>,
    /// Whether the connection then stays open, in silence.
    silent: bool,
    chunked: bool,
    pause: Duration,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status("200 OK").body(body)
    }

    pub(crate) fn status(status: &'static str) -> Self {
        let (headers, body) = (Vec::new(), Vec::new());
        let pause = Duration::ZERO;
        Self { status, headers, body, cut: None, silent: false, chunked: false, pause }
    }

    pub(crate) fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    pub(crate) fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    /// Closes the connection after so many bytes of the body.
    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }

    /// Says nothing more after so many bytes of the body, and keeps the connection.
    pub(crate) fn silent(self, after: usize) -> Self {
        Self { cut: Some(after), silent: true, ..self }
    }

    pub(crate) fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// Waits before it answers.
    pub(crate) fn late(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        std::thread::sleep(self.pause);
        let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", self.status);
        let framing = if self.chunked {
            "transfer-encoding: chunked".to_owned()
        } else {
            format!("content-length: {}", self.body.len())
        };
        for header in self.headers.iter().chain([&framing]) {
            head += &format!("{header}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let body = &self.body[..self.cut.unwrap_or(self.body.len()).min(self.body.len())];
        if !self.chunked {
            return stream.write_all(body);
        }
        for chunk in body.chunks(7) {
            write!(stream, "{:x}\r\n", chunk.len())?;
            stream.write_all(chunk)?;
            stream.write_all(b"\r\n")?;
        }
        if self.cut.is_none() { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }
}

/// The server; it lives as long as the test.
pub(crate) struct Server {
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
    /// Most requests that were under way at the same time.
    most: Arc<AtomicUsize>,
}

impl Server {
    /// `answer` gets the request, and how many for the same target came before it.
    pub(crate) fn start(
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (log, top, answer) = (Arc::clone(&seen), Arc::clone(&most), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let (now, top) = (Arc::clone(&now), Arc::clone(&top));
                std::thread::spawn(move || {
                    let Some((mut stream, request)) = stream.ok().and_then(read) else { return };
                    let earlier = {
                        let mut log = log.lock().unwrap();
                        let same = |other: &&Request| other.target == request.target;
                        let earlier = log.iter().filter(same).count();
                        log.push(request.clone());
                        earlier
                    };
                    top.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let reply = answer(&request, earlier);
                    let _ = reply.send(&mut stream);
                    now.fetch_sub(1, Ordering::SeqCst);
                    if reply.silent {
                        std::thread::sleep(Duration::from_secs(120));
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                });
            }
        });
        Self { host, seen, most }
    }

    /// A server of files that do not change: each has an entity tag, and ranges are answered.
    pub(crate) fn of_files(files: &[(&'static str, &[u8])]) -> Self {
        let files: HashMap<String, Vec<u8>> =
            files.iter().map(|(path, body)| ((*path).to_owned(), body.to_vec())).collect();
        Self::start(move |request, _| match files.get(&request.target) {
            None => Answer::status("404 Not Found").body("nothing here"),
            Some(body) => file(request, body),
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests since the last call.
    pub(crate) fn taken(&self) -> Vec<Request> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    pub(crate) fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Time of the files of a server: 784111777 seconds.
pub(crate) const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// The answer of a server that knows validators and ranges.
pub(crate) fn file(request: &Request, body: &[u8]) -> Answer {
    let etag = format!("\"{}\"", llb::Digest::of(body));
    let with = |answer: Answer| {
        answer.header(format!("etag: {etag}")).header(format!("last-modified: {DATE}"))
    };
    if request.header("if-none-match") == Some(etag.as_str()) {
        return with(Answer::status("304 Not Modified"));
    }
    let range = request
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match range.filter(|_| request.header("if-range") == Some(etag.as_str())) {
        Some(from) => {
            let range = format!("content-range: bytes {from}-{}/{}", body.len() - 1, body.len());
            with(Answer::status("206 Partial Content").body(&body[from..]).header(range))
        }
        None => with(Answer::ok(body)),
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Request)> {
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
    let target = lines.first()?.split(' ').nth(1)?.to_owned();
    let header = |line: &String| {
        line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))
    };
    let headers = lines[1..].iter().filter_map(header).collect();
    Some((reader.into_inner(), Request { target, headers }))
}
