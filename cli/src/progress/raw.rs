//! Progress for programs: one JSON object per line, with the fields of the reference.
//!
//! ```text
//! {"vertexes":[{"digest":"sha256:…","name":"[1/2] RUN make","started":"2026-01-02T03:04:05.6Z"}]}
//! {"logs":[{"vertex":"sha256:…","stream":1,"data":"aGVsbG8K","timestamp":"2026-01-02T03:04:05.7Z"}]}
//! ```
//!
//! A vertex is told whole each time: when it starts and when it is done. Bytes, and texts that the reference keeps
//! as bytes, are in base64, times in RFC 3339.
//!
//! Format: spec `solver-and-cache.md` §10, `cli-and-outputs.md` §6.

use std::collections::HashMap;
use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use llb::event::VertexError;
use llb::{Digest, Event, SourceRange, base64};
use serde::Serialize;

/// What the reference says of a vertex that was stopped.
const CANCELED: &str = "context canceled";

/// Writes events until the senders are gone.
pub(super) fn show(receiver: Receiver<Event>, out: &mut dyn Write) {
    let mut vertexes = HashMap::new();
    for event in receiver {
        // A reader that went away is no reason to stop a build.
        let _ = write(out, &mut vertexes, event);
    }
    let _ = out.flush();
}

/// One line.
#[derive(Serialize, Default)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[&'a Vertex; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[Status; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[Log; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[Warning; 1]>,
    /// Not of the reference: what `--explain` tells of a vertex.
    #[serde(rename = "bricklayer.explain", skip_serializing_if = "Option::is_none")]
    explanations: Option<[crate::explain::Entry; 1]>,
}

#[derive(Serialize)]
struct Vertex {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Status {
    id: String,
    vertex: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct Log {
    vertex: String,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct Warning {
    vertex: String,
    level: u8,
    short: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    source_info: Option<SourceInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    range: Vec<Range>,
}

#[derive(Serialize)]
struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn write(
    out: &mut dyn Write,
    vertexes: &mut HashMap<Digest, Vertex>,
    event: Event,
) -> std::io::Result<()> {
    let line = match event {
        Event::VertexStarted { vertex, inputs, name, at } => {
            let shown = Vertex {
                digest: vertex.to_string(),
                inputs: inputs.iter().map(Digest::to_string).collect(),
                name,
                started: Some(time(at)),
                completed: None,
                cached: false,
                error: None,
            };
            let shown = vertexes.entry(vertex).insert_entry(shown).into_mut();
            Line { vertexes: Some([shown]), ..Line::default() }
        }
        Event::VertexCompleted { vertex, cached, error, at } => {
            let Some(shown) = vertexes.get_mut(&vertex) else { return Ok(()) };
            shown.completed = Some(time(at));
            shown.cached = cached;
            shown.error = error.map(|error| match error {
                VertexError::Canceled => CANCELED.to_owned(),
                VertexError::Failed(message) => message,
            });
            Line { vertexes: Some([shown]), ..Line::default() }
        }
        Event::Log { vertex, stream, data, at } => {
            let (vertex, data) = (vertex.to_string(), base64::encode(&data));
            let log = Log { vertex, stream, data, timestamp: time(at) };
            Line { logs: Some([log]), ..Line::default() }
        }
        Event::Status { vertex, id, current, total, started, completed } => {
            let status = Status {
                name: id.clone(),
                id,
                vertex: vertex.to_string(),
                total,
                current,
                timestamp: time(completed.unwrap_or_else(SystemTime::now)),
                started: Some(time(started)),
                completed: completed.map(time),
            };
            Line { statuses: Some([status]), ..Line::default() }
        }
        Event::Explained(explanation) => Line {
            explanations: Some([crate::explain::Entry::of(&explanation)]),
            ..Line::default()
        },
        Event::Warning { vertex, short, detail, url, range } => {
            let warning = warning(vertex, &short, &detail, url, &range);
            Line { warnings: Some([warning]), ..Line::default() }
        }
    };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// A warning that belongs to no vertex, as a line without its end.
pub(crate) fn warning_line(text: &str) -> String {
    let vertex = Digest::of(b"[internal] command line");
    let warning = warning(vertex, text, &[], String::new(), &[]);
    let line = Line { warnings: Some([warning]), ..Line::default() };
    serde_json::to_string(&line).unwrap_or_default()
}

fn warning(
    vertex: Digest,
    short: &str,
    detail: &[String],
    url: String,
    ranges: &[SourceRange],
) -> Warning {
    let base64_of = |text: &str| base64::encode(text.as_bytes());
    let source_info = ranges.first().map(|range| SourceInfo {
        filename: range.info.filename.clone(),
        data: base64_of(&range.info.text),
        language: "Dockerfile",
    });
    let range = |range: &SourceRange| Range {
        start: Position { line: range.start },
        end: Position { line: range.end },
    };
    Warning {
        vertex: vertex.to_string(),
        level: 1,
        short: base64_of(short),
        detail: detail.iter().map(|line| base64_of(line)).collect(),
        url,
        source_info,
        range: ranges.iter().map(range).collect(),
    }
}

fn time(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
