//! As much of HTTP/1.1 as the interface of a container engine needs: one request for each connection.
//!
//! The library that the client of registries stands on could speak to a socket too, but only from a runtime, which is
//! that crate's own affair: an archive is written by blocking code, whose errors are to come through as they are.
//!
//! Invariants:
//! - Nothing that an engine answers takes more memory than the limits here.
//! - A silent engine is given up after a time, but for an archive, which it may take long to unpack.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of this machine.
    Unix(PathBuf),
    /// `host:port`, without encryption.
    Tcp(String),
}

/// Longest answer that is read whole, in bytes.
const LARGEST: u64 = 32 << 20;

/// Longest line of a head.
const LONGEST_LINE: u64 = 16 << 10;

/// Most lines of a head.
const MOST_LINES: usize = 100;

/// How long a short question may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an engine may work on an archive without a word.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);

/// Both ways of a connection.
trait Stream: Read + Write + Send {}

impl Stream for UnixStream {}
impl Stream for TcpStream {}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Whether the engine is Podman.
    pub(super) is_podman: bool,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the engine says is wrong.
    pub(super) fn message(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match value.get("message").and_then(serde_json::Value::as_str) {
            Some(message) => message.trim().to_owned(),
            None => {
                let text = String::from_utf8_lossy(&self.body);
                let line = text.lines().next().unwrap_or_default().trim().to_owned();
                if line.is_empty() { format!("status {}", self.status) } else { line }
            }
        }
    }
}

impl Address {
    /// Whether somebody listens.
    ///
    /// # Errors
    /// When nobody does.
    pub fn try_connect(&self) -> io::Result<()> {
        self.connect(PATIENCE).map(drop)
    }

    fn connect(&self, patience: Duration) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Box::new(stream))
            }
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                Ok(Box::new(stream))
            }
        }
    }

    /// Asks without a body.
    pub(super) fn ask(&self, method: &str, path: &str) -> io::Result<Answer> {
        let mut stream = self.connect(PATIENCE)?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )?;
        stream.flush()?;
        answer(stream)
    }

    /// Sends a body of unknown length.
    pub(super) fn send<E: From<io::Error>>(
        &self,
        path: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Answer, E> {
        let mut stream = self.connect(LONG_PATIENCE)?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n"
        )?;
        let mut chunks =
            Chunks { stream: io::BufWriter::with_capacity(128 << 10, stream), broke: false };
        let written = write(&mut chunks).and_then(|()| Ok(chunks.finish()?));
        let broke = chunks.broke;
        let (stream, _) = chunks.stream.into_parts();
        match written {
            // An engine that goes away in the middle may have said why.
            Err(error) if broke => match answer(stream) {
                Ok(answer) if !answer.is_success() => Ok(answer),
                _ => Err(error),
            },
            Err(error) => Err(error),
            Ok(()) => Ok(answer(stream)?),
        }
    }
}

/// Writes a body in chunks.
struct Chunks {
    stream: io::BufWriter<Box<dyn Stream>>,
    /// Whether the engine takes no more.
    broke: bool,
}

impl Chunks {
    fn finish(&mut self) -> io::Result<()> {
        let done = self.stream.write_all(b"0\r\n\r\n").and_then(|()| self.stream.flush());
        self.broke = done.is_err();
        done
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let all = write!(self.stream, "{:x}\r\n", bytes.len())
            .and_then(|()| self.stream.write_all(bytes))
            .and_then(|()| self.stream.write_all(b"\r\n"));
        self.broke = all.is_err();
        all.map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the engine's answer has {what}"))
}

/// Reads an answer.
fn answer(stream: impl Read) -> io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    loop {
        let first = line(&mut stream)?;
        let status = first
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.split(' ').nth(1))
            .and_then(|code| code.parse::<u16>().ok())
            .ok_or_else(|| malformed("no status"))?;
        let (mut length, mut is_chunked, mut is_podman) = (None, false, false);
        for number in 0.. {
            let header = line(&mut stream)?;
            if header.is_empty() {
                break;
            }
            if number >= MOST_LINES {
                return Err(malformed("too many headers"));
            }
            let Some((name, value)) = header.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => {
                    let number = value.parse().map_err(|_| malformed("no valid length"))?;
                    length = Some(number);
                }
                "transfer-encoding" => is_chunked = value.eq_ignore_ascii_case("chunked"),
                "libpod-api-version" => is_podman = true,
                "server" if value.starts_with("Libpod") => is_podman = true,
                _ => {}
            }
        }
        if status < 200 {
            // Go on; that was not the answer yet.
            continue;
        }
        let mut body = Vec::new();
        if is_chunked {
            read_chunks(&mut stream, &mut body)?;
        } else {
            let length = length.unwrap_or(u64::MAX);
            (&mut stream).take(length.min(LARGEST + 1)).read_to_end(&mut body)?;
            if length != u64::MAX && length <= LARGEST && (body.len() as u64) < length {
                return Err(malformed("ended too early"));
            }
        }
        if body.len() as u64 > LARGEST {
            return Err(malformed("too many bytes"));
        }
        return Ok(Answer { status, is_podman, body });
    }
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let size = line(stream)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| malformed("no valid chunk"))?;
        if size == 0 {
            return Ok(());
        }
        if size > LARGEST || body.len() as u64 + size > LARGEST {
            return Err(malformed("too many bytes"));
        }
        let before = body.len() as u64;
        stream.take(size).read_to_end(body)?;
        if body.len() as u64 - before < size || !line(stream)?.is_empty() {
            return Err(malformed("ended too early"));
        }
    }
}

/// A line without its end.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    stream.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(malformed("ended too early"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<(u16, &str), &str>) {
        let found = answer(text.as_bytes());
        let found =
            found.map(|answer| (answer.status, String::from_utf8_lossy(&answer.body).into_owned()));
        let expect = expect.map(|(status, body)| (status, body.to_owned()));
        assert_eq!(found.map_err(|error| error.to_string()), expect.map_err(str::to_owned));
    }

    #[test]
    fn answers_of_all_shapes_are_read() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", Ok((200, "ab")));
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\n\r\nrest", Ok((404, "rest")));
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
            Ok((200, "abc")),
        );
    }

    #[test]
    fn answers_that_are_none_are_errors() {
        let early = Err("the engine's answer has ended too early");
        check("", early);
        check("SSH-2.0-OpenSSH\r\n", Err("the engine's answer has no status"));
        check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", early);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}zz\r\n"), Err("the engine's answer has no valid chunk"));
        check(&format!("{chunked}ffffffffff\r\n"), Err("the engine's answer has too many bytes"));
        check(&format!("{chunked}5\r\nab"), early);
        check(
            &format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(200)),
            Err("the engine's answer has too many headers"),
        );
    }
}
