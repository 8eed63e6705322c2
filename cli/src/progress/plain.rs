//! Plain progress: one block of lines per vertex, numbered in order of first display.
//!
//! ```text
//! #5 [build 2/3] RUN make
//! #5 0.312 cc -o app app.c
//! #5 DONE 0.4s
//! ```
//!
//! Output that goes on in another vertex is announced by `#5 ...`, an empty line and the other's header.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use llb::event::VertexError;
use llb::{Digest, Event};

/// Shows events until the senders are gone.
pub(super) fn show(receiver: Receiver<Event>, out: &mut dyn Write) {
    let mut plain = Plain { out, vertices: HashMap::new(), current: None, numbers: 0 };
    for event in receiver {
        plain.take(event);
    }
    let _ = plain.out.flush();
}

struct Plain<'a> {
    out: &'a mut dyn Write,
    vertices: HashMap<Digest, Shown>,
    current: Option<Digest>,
    numbers: usize,
}

struct Shown {
    number: usize,
    name: String,
    started: SystemTime,
    /// Bytes of an unfinished line, one buffer per stream.
    partial: [Vec<u8>; 2],
    completed: bool,
}

impl Plain<'_> {
    fn take(&mut self, event: Event) {
        match event {
            Event::VertexStarted { vertex, name, at, .. } => self.start(vertex, name, at),
            Event::VertexCompleted { vertex, cached, error, at } => {
                self.complete(vertex, cached, error, at)
            }
            Event::Log { vertex, stream, data, at } => {
                self.log(vertex, usize::from(stream == 2), &data, at)
            }
            Event::Status { vertex, id, current, total, started, completed } => {
                if let Some(end) = completed {
                    let amount = if total > 0 {
                        format!("{} / {}", bytes(current), bytes(total))
                    } else {
                        bytes(current)
                    };
                    self.line(
                        vertex,
                        &format!("{id} {amount} {} done", seconds(since(started, end))),
                    );
                }
            }
            Event::Warning { .. } | Event::Explained(_) => {}
        }
    }

    fn start(&mut self, vertex: Digest, name: String, at: SystemTime) {
        if let Some(shown) = self.vertices.get_mut(&vertex) {
            shown.started = at;
            shown.completed = false;
            return;
        }
        self.numbers += 1;
        let shown = Shown {
            number: self.numbers,
            name,
            started: at,
            partial: [Vec::new(), Vec::new()],
            completed: false,
        };
        self.vertices.insert(vertex, shown);
        self.focus(vertex);
    }

    /// Makes the block of `vertex` the current one and returns its number.
    fn focus(&mut self, vertex: Digest) -> Option<usize> {
        let number = self.vertices.get(&vertex)?.number;
        if self.current != Some(vertex) {
            if let Some(before) = self.current.and_then(|before| self.vertices.get(&before)) {
                if !before.completed {
                    let _ = writeln!(self.out, "#{} ...", before.number);
                }
                let _ = writeln!(self.out);
            }
            self.current = Some(vertex);
            let name = &self.vertices[&vertex].name;
            let _ = writeln!(self.out, "#{number} {name}");
        }
        Some(number)
    }

    fn line(&mut self, vertex: Digest, text: &str) {
        if let Some(number) = self.focus(vertex) {
            let _ = writeln!(self.out, "#{number} {text}");
        }
    }

    fn complete(
        &mut self,
        vertex: Digest,
        cached: bool,
        error: Option<VertexError>,
        at: SystemTime,
    ) {
        for stream in 0..2 {
            let rest = self
                .vertices
                .get_mut(&vertex)
                .map(|shown| std::mem::take(&mut shown.partial[stream]));
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                self.log_line(vertex, &rest, at);
            }
        }
        let Some(shown) = self.vertices.get_mut(&vertex) else { return };
        shown.completed = true;
        let took = since(shown.started, at);
        let text = match error {
            Some(VertexError::Canceled) => "CANCELED".to_owned(),
            Some(VertexError::Failed(message)) => format!("ERROR: {message}"),
            None if cached => "CACHED".to_owned(),
            None => format!("DONE {}", seconds(took)),
        };
        self.line(vertex, &text);
        let _ = self.out.flush();
    }

    fn log(&mut self, vertex: Digest, stream: usize, data: &[u8], at: SystemTime) {
        let Some(shown) = self.vertices.get_mut(&vertex) else { return };
        let mut buffer = std::mem::take(&mut shown.partial[stream]);
        buffer.extend_from_slice(data);
        let mut rest = &buffer[..];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            self.log_line(vertex, &rest[..end], at);
            rest = &rest[end + 1..];
        }
        let rest = rest.to_vec();
        if let Some(shown) = self.vertices.get_mut(&vertex) {
            shown.partial[stream] = rest;
        }
    }

    fn log_line(&mut self, vertex: Digest, line: &[u8], at: SystemTime) {
        let Some(shown) = self.vertices.get(&vertex) else { return };
        let after = since(shown.started, at).as_secs_f64();
        let stamp = match after {
            _ if after < 10.0 => format!("{after:.3}"),
            _ if after < 100.0 => format!("{after:.2}"),
            _ => format!("{after:.1}"),
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.line(vertex, &format!("{stamp} {}", String::from_utf8_lossy(line)));
    }
}

fn since(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

fn seconds(took: Duration) -> String {
    format!("{:.1}s", took.as_secs_f64())
}

/// A size as people read it, in powers of 1000.
pub(crate) fn bytes(size: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size}B");
    }
    let (mut value, mut unit) = (size as f64 / 1000.0, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(events: Vec<Event>, expect: &str) {
        let (sender, receiver) = std::sync::mpsc::channel();
        events.into_iter().for_each(|event| sender.send(event).unwrap());
        drop(sender);
        let mut out = Vec::new();
        show(receiver, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn start(name: &str) -> Event {
        let vertex = Digest::of(name.as_bytes());
        Event::VertexStarted { vertex, inputs: Vec::new(), name: name.to_owned(), at: at(0) }
    }

    fn log(name: &str, text: &str, millis: u64) -> Event {
        Event::Log {
            vertex: Digest::of(name.as_bytes()),
            stream: 1,
            data: text.into(),
            at: at(millis),
        }
    }

    fn end(name: &str, cached: bool, error: Option<VertexError>) -> Event {
        Event::VertexCompleted { vertex: Digest::of(name.as_bytes()), cached, error, at: at(1500) }
    }

    #[test]
    fn blocks_switch_and_lines_are_joined() {
        check(
            vec![
                start("a"),
                log("a", "one\ntw", 12),
                start("b"),
                log("b", "x\n", 20),
                log("a", "o\nrest", 30),
                end("a", false, None),
                end("b", true, None),
            ],
            "#1 a\n#1 0.012 one\n#1 ...\n\n#2 b\n#2 0.020 x\n#2 ...\n\n#1 a\n#1 0.030 two\n#1 1.500 rest\n#1 DONE 1.5s\n\n#2 b\n#2 CACHED\n",
        );
    }

    #[test]
    fn failures_are_told_apart_from_cancels() {
        check(
            vec![
                start("a"),
                end("a", false, Some(VertexError::Failed("exit code: 3".into()))),
                start("b"),
                end("b", false, Some(VertexError::Canceled)),
            ],
            "#1 a\n#1 ERROR: exit code: 3\n\n#2 b\n#2 CANCELED\n",
        );
    }

    #[test]
    fn sizes_are_read_in_thousands() {
        assert_eq!(
            (bytes(999), bytes(1050), bytes(3_100_000)),
            ("999B".into(), "1.05kB".into(), "3.10MB".into())
        );
    }
}
