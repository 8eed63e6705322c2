//! A proxy that disturbs what goes through it, before a real registry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What may happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The connection ends before anything is read.
    Reset,
    /// The registry gets half of the request, and the client no answer.
    HalfRequest,
    /// Nothing is said for longer than the client waits.
    Stall,
    /// 429, with a pause in seconds or until a date.
    TooMany,
    /// 500, 502 or 503.
    ServerError,
    /// The request has its effect, and the client no answer.
    LostAnswer,
    /// The answer breaks off.
    HalfAnswer,
    /// The answer is shorter than it should be, and says so.
    ShortAnswer,
    /// A byte of the answer is another one.
    Corrupt,
    /// The answer claims another digest.
    WrongDigest,
    /// The answer comes byte by byte.
    Drip,
}

/// Kinds that end at once happen more often than those that take their time.
const QUICK: [Fault; 9] = [
    Fault::Reset,
    Fault::HalfRequest,
    Fault::TooMany,
    Fault::ServerError,
    Fault::LostAnswer,
    Fault::HalfAnswer,
    Fault::ShortAnswer,
    Fault::Corrupt,
    Fault::WrongDigest,
];
const SLOW: [Fault; 2] = [Fault::Stall, Fault::Drip];

/// Longer than clients of these tests wait for a byte.
pub(crate) const LONG: Duration = Duration::from_millis(4000);

/// What went through.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Method and target of each request.
    pub(crate) requests: Mutex<Vec<String>>,
    /// How often each fault happened.
    pub(crate) faults: Mutex<BTreeMap<Fault, usize>>,
}

/// A proxy on loopback.
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) log: Arc<Log>,
}

impl Proxy {
    /// One before `registry` that disturbs this part of requests, in percent.
    pub(crate) fn start(registry: &str, percent: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Log::default());
        let (registry, shared) = (registry.to_owned(), Arc::clone(&log));
        let count = Arc::new(AtomicU64::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (registry, log) = (registry.clone(), Arc::clone(&shared));
                let number = count.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    let dice = Dice(number);
                    // A client that is gone is its own affair.
                    let _ = Exchange { client: stream, registry, log, dice, percent }.run();
                });
            }
        });
        Self { host, log }
    }

    /// Requests so far whose line has all of these words.
    pub(crate) fn requests(&self, words: &[&str]) -> usize {
        let requests = self.log.requests.lock().unwrap();
        requests.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    pub(crate) fn forget(&self) {
        self.log.requests.lock().unwrap().clear();
    }
}

/// Numbers that look random, the same in every run for the same request number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

struct Exchange {
    client: TcpStream,
    registry: String,
    log: Arc<Log>,
    dice: Dice,
    percent: u64,
}

impl Exchange {
    fn run(mut self) -> std::io::Result<()> {
        let fault = (self.dice.roll(100) < self.percent).then(|| match self.dice.roll(30) {
            slow @ 0..2 => SLOW[slow as usize],
            quick => QUICK[quick as usize % QUICK.len()],
        });
        if let Some(fault) = fault {
            *self.log.faults.lock().unwrap().entry(fault).or_default() += 1;
        }
        if fault == Some(Fault::Reset) {
            return self.client.shutdown(Shutdown::Both);
        }
        let mut reader = BufReader::new(self.client.try_clone()?);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim_end().is_empty() {
                break;
            }
            if head.is_empty() {
                self.log.requests.lock().unwrap().push(line.trim_end().to_owned());
            }
            let name = line.to_ascii_lowercase();
            if let Some(value) = name.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if !name.starts_with("connection:") {
                head += &line;
            }
        }
        head += "connection: close\r\n\r\n";
        match fault {
            Some(Fault::Stall) => {
                std::thread::sleep(LONG);
                return Ok(());
            }
            Some(Fault::TooMany) => {
                let pause = ["0", "Sun, 06 Nov 1994 08:49:37 GMT"][self.dice.roll(2) as usize];
                return self.refuse("429 Too Many Requests", &format!("retry-after: {pause}\r\n"));
            }
            Some(Fault::ServerError) => {
                let status =
                    ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable"];
                let which = self.dice.roll(3) as usize;
                return self.refuse(status[which], "");
            }
            _ => {}
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut upstream = TcpStream::connect(&self.registry)?;
        upstream.write_all(head.as_bytes())?;
        if fault == Some(Fault::HalfRequest) {
            upstream.write_all(&body[..length / 2])?;
            return Ok(());
        }
        upstream.write_all(&body)?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer)?;
        self.answer(fault, answer)
    }

    /// Refuses a request whose body nobody reads.
    fn refuse(&mut self, status: &str, headers: &str) -> std::io::Result<()> {
        let head =
            format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n");
        self.client.write_all(head.as_bytes())
    }

    fn answer(&mut self, fault: Option<Fault>, mut answer: Vec<u8>) -> std::io::Result<()> {
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(());
        };
        let body = end + 4;
        let half = body + (answer.len() - body) / 2;
        match fault {
            Some(Fault::LostAnswer) => return Ok(()),
            Some(Fault::HalfAnswer) => answer.truncate(half),
            Some(Fault::ShortAnswer) if answer.len() > body => {
                let head = String::from_utf8_lossy(&answer[..end]).into_owned();
                let lines = head
                    .split("\r\n")
                    .filter(|line| !line.to_ascii_lowercase().starts_with("content-length:"));
                let head: Vec<&str> = lines.collect();
                let head =
                    format!("{}\r\ncontent-length: {}\r\n\r\n", head.join("\r\n"), half - body);
                answer = [head.as_bytes(), &answer[body..half]].concat();
            }
            Some(Fault::Corrupt) if answer.len() > body => answer[half] ^= 0x20,
            Some(Fault::WrongDigest) => {
                let text = b"Docker-Content-Digest: sha256:";
                if let Some(at) = answer.windows(text.len()).position(|bytes| bytes == text) {
                    let digit = &mut answer[at + text.len()];
                    *digit = if *digit == b'0' { b'1' } else { b'0' };
                }
            }
            Some(Fault::Drip) => {
                for byte in answer.iter().take(800) {
                    self.client.write_all(std::slice::from_ref(byte))?;
                    std::thread::sleep(Duration::from_millis(5));
                }
                return Ok(());
            }
            _ => {}
        }
        self.client.write_all(&answer)
    }
}
