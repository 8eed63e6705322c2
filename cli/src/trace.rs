//! `--trace FILE`: where the time of a build went, as the viewers of Chrome and Perfetto read it.
//!
//! ```text
//! {"displayTimeUnit":"ms","traceEvents":[
//! {"ph":"M","name":"process_name","pid":1,"args":{"name":"threads"}},
//! {"ph":"X","name":"files of [context]","cat":"hash","pid":1,"tid":3,"ts":1042.5,"dur":310.2,"args":{}}
//! ]}
//! ```
//!
//! Process 1 of the trace has a row per thread of the builder, process 2 one per step: what it did and what it waited
//! for. Times are microseconds since the program began.
//!
//! Invariants:
//! - The file is opened before anything is built, and the trace written whatever becomes of the build.
//! - It is written once, whole: no reader sees half of it, unless writing itself fails.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fs_err::File;
use llb::url::redacted;
use serde_json::{Value, json};
use tree::trace::{self, Record, SpanRecord, TrackKind};

use crate::report::{Exit, Failure, chain};

/// The trace of one build; cheap to clone.
#[derive(Clone)]
pub(crate) struct Trace(Option<Arc<Open>>);

struct Open {
    /// Taken by the one who writes.
    out: Mutex<Option<Out>>,
}

enum Out {
    File(File, PathBuf),
    Stdout,
}

impl Trace {
    /// Opens the file, `-` being standard output, and begins to record.
    pub(crate) fn begin(path: Option<&Path>, began: Instant) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(None)) };
        let out = if path == Path::new("-") {
            Out::Stdout
        } else {
            let file = File::create(path).map_err(|error| {
                Failure::new(Exit::Machine, format!("cannot write the trace: {}", chain(&error)))
            })?;
            Out::File(file, path.to_owned())
        };
        trace::start(began);
        Ok(Self(Some(Arc::new(Open { out: Mutex::new(Some(out)) }))))
    }

    /// Whether it is written to standard output.
    pub(crate) fn is_stdout(path: Option<&Path>) -> bool {
        path == Some(Path::new("-"))
    }

    /// Writes what has been recorded; who comes second finds it done.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        let Some(open) = &self.0 else { return Ok(()) };
        // Held to the end: who may end the program waits for it.
        let mut out = open.out.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(out), Some(record)) = (out.take(), trace::record()) else { return Ok(()) };
        let text = text(&record);
        let (written, name) = match out {
            Out::File(mut file, path) => (file.write_all(&text), path.display().to_string()),
            Out::Stdout => {
                let mut out = io::stdout().lock();
                let written = out.write_all(&text).and_then(|()| out.flush());
                (written, "standard output".to_owned())
            }
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
                Exit::Machine,
                format!("cannot write the trace to `{name}`: {error}"),
            )),
            _ => Ok(()),
        }
    }
}

/// The whole document.
fn text(record: &Record) -> Vec<u8> {
    let mut out = b"{\"displayTimeUnit\":\"ms\",\"otherData\":".to_vec();
    let other = json!({
        "generator": concat!("bricklayer ", env!("CARGO_PKG_VERSION")),
        "dropped": record.dropped.to_string(),
    });
    out.extend_from_slice(other.to_string().as_bytes());
    out.extend_from_slice(b",\"traceEvents\":[");
    let mut separator = "\n";
    for event in events(record) {
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(event.to_string().as_bytes());
        separator = ",\n";
    }
    out.extend_from_slice(b"\n]}\n");
    out
}

fn events(record: &Record) -> impl Iterator<Item = Value> {
    let name = |what: &str, pid: u8, tid: Option<usize>, name: &str| {
        let mut event = json!({"ph": "M", "name": what, "pid": pid, "args": {"name": name}});
        if let Some(tid) = tid {
            event["tid"] = tid.into();
        }
        event
    };
    let tracks = record.tracks.iter().enumerate();
    let rows = tracks.map(move |(index, (text, kind))| {
        name("thread_name", pid(*kind), Some(tid(index)), &shown(text))
    });
    let processes =
        [name("process_name", 1, None, "threads"), name("process_name", 2, None, "steps")];
    let spans = record.spans.iter().map(|span| complete(record, span));
    processes.into_iter().chain(rows).chain(spans)
}

/// A name without credentials and values of secrets.
fn shown(name: &str) -> String {
    redacted(&crate::guard::redact(name)).into_owned()
}

/// One span. One that has not ended yet ends where the trace does.
fn complete(record: &Record, span: &SpanRecord) -> Value {
    let end = span.end.unwrap_or(record.length).max(span.start);
    let kind = record.tracks[span.track.index()].1;
    let title = match span.name.as_str() {
        "" => span.kind.to_owned(),
        name => format!("{}: {}", span.kind, shown(name)),
    };
    let mut args = json!({});
    if span.end.is_none() {
        args["unfinished"] = true.into();
    }
    json!({
        "ph": "X", "name": title, "cat": span.kind, "pid": pid(kind), "tid": tid(span.track.index()),
        "ts": microseconds(span.start), "dur": microseconds(end - span.start), "args": args,
    })
}

fn pid(kind: TrackKind) -> u8 {
    match kind {
        TrackKind::Thread => 1,
        TrackKind::Thing => 2,
    }
}

/// Number of a row; viewers take 0 for something else.
fn tid(index: usize) -> usize {
    index + 1
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_left_out_and_open_spans_end_with_the_trace() {
        let tracks = vec![("build".to_owned(), TrackKind::Thread)];
        let track = {
            trace::start(Instant::now());
            trace::record().unwrap().spans[0].track
        };
        let span = SpanRecord {
            track,
            kind: "fetch",
            name: "https://me:hunter2@example.com/x".to_owned(),
            start: 1500,
            end: None,
        };
        let record = Record { tracks, spans: vec![span], dropped: 0, length: 4000 };
        let document: Value = serde_json::from_slice(&text(&record)).unwrap();
        assert_eq!(
            document["traceEvents"].as_array().unwrap().last().unwrap(),
            &json!({
                "ph": "X", "name": "fetch: https://xxxxx:xxxxx@example.com/x", "cat": "fetch",
                "pid": 1, "tid": 1, "ts": 1.5, "dur": 2.5, "args": {"unfinished": true},
            })
        );
    }
}
