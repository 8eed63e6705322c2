//! `--progress=rawjson`: every line is one object with the fields of the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Place, Ran, can_run};

/// The lines before the report of a failure, each parsed.
#[track_caller]
fn lines(ran: &Ran) -> Vec<Value> {
    let json = ran.stderr.lines().take_while(|line| line.starts_with('{'));
    let lines: Vec<Value> = json.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!lines.is_empty(), "{}", ran.stderr);
    lines
}

/// All objects of one kind, each checked to have no other fields than these.
#[track_caller]
fn all<'l>(lines: &'l [Value], kind: &str, fields: &[&str]) -> Vec<&'l Value> {
    let objects = lines.iter().filter_map(|line| line.get(kind)?.as_array()).flatten();
    let known: BTreeSet<&str> = fields.iter().copied().collect();
    let objects: Vec<&Value> = objects.collect();
    for object in &objects {
        let names = object.as_object().unwrap().keys().map(String::as_str);
        let other: Vec<&str> = names.filter(|name| !known.contains(name)).collect();
        assert!(other.is_empty(), "{kind} has {other:?}: {object}");
    }
    objects
}

const VERTEX: &[&str] =
    &["digest", "inputs", "name", "started", "completed", "cached", "error", "progressGroup"];
const STATUS: &[&str] =
    &["id", "vertex", "name", "total", "current", "timestamp", "started", "completed"];
const LOG: &[&str] = &["vertex", "stream", "data", "timestamp"];
const WARNING: &[&str] = &["vertex", "level", "short", "detail", "url", "sourceInfo", "range"];

fn is_time(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text.ends_with('Z')
}

/// The last word on each vertex, by name.
fn vertexes(lines: &[Value]) -> BTreeMap<&str, &Value> {
    let vertexes = all(lines, "vertexes", VERTEX).into_iter();
    vertexes.map(|vertex| (vertex["name"].as_str().unwrap(), vertex)).collect()
}

#[test]
fn every_line_is_an_object_with_the_fields_of_the_reference() {
    if !can_run() {
        return;
    }
    let dockerfile = "FROM busybox as base\nCOPY a.txt /\nRUN echo hello\n";
    let place = Place::new(&[("Dockerfile", dockerfile), ("a.txt", "a")]);
    let ran = place.build(&["--progress=rawjson", "-t", "app:1"]).ok();
    let lines = lines(&ran);
    assert_eq!(lines.len(), ran.stderr.lines().count(), "nothing else is told: {}", ran.stderr);
    for line in &lines {
        let kinds: Vec<&String> = line.as_object().unwrap().keys().collect();
        let known = ["vertexes", "statuses", "logs", "warnings"];
        assert!(kinds.iter().all(|kind| known.contains(&kind.as_str())), "{kinds:?}");
    }
    let found = vertexes(&lines);
    let (copy, run) = (found["[1/3] COPY a.txt /"], found["[2/3] RUN echo hello"]);
    assert!(found.contains_key("exporting to image store"), "{:?}", found.keys());
    assert_eq!(run["inputs"], serde_json::json!([copy["digest"]]));
    for vertex in found.values() {
        assert!(vertex["digest"].as_str().unwrap().starts_with("sha256:"), "{vertex}");
        assert!(is_time(&vertex["started"]) && is_time(&vertex["completed"]), "{vertex}");
        assert!(vertex["started"].as_str() <= vertex["completed"].as_str(), "{vertex}");
        assert!(vertex.get("cached").is_none() && vertex.get("error").is_none(), "{vertex}");
    }
    // A vertex is told when it starts, then whole when it is done.
    let run_lines: Vec<&Value> = all(&lines, "vertexes", VERTEX)
        .into_iter()
        .filter(|vertex| vertex["digest"] == run["digest"])
        .collect();
    assert_eq!(run_lines.len(), 2);
    assert!(run_lines[0].get("completed").is_none());

    let logs = all(&lines, "logs", LOG);
    let [log] = logs[..] else { panic!("{logs:?}") };
    assert_eq!((&log["vertex"], &log["stream"]), (&run["digest"], &1.into()));
    assert!(log["data"] == "aGVsbG8K" && is_time(&log["timestamp"]), "{log}");

    let statuses = all(&lines, "statuses", STATUS);
    assert!(!statuses.is_empty());
    for status in statuses {
        assert!(status["id"].is_string() && status["vertex"].is_string(), "{status}");
        assert!(status["current"].is_u64() && is_time(&status["timestamp"]), "{status}");
    }

    let warnings = all(&lines, "warnings", WARNING);
    let [warning] = warnings[..] else { panic!("{warnings:?}") };
    let base64 = |text: &str| Value::from(llb::base64::encode(text.as_bytes()));
    let short = "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)";
    assert_eq!((&warning["level"], &warning["short"]), (&1.into(), &base64(short)));
    assert_eq!(warning["detail"].as_array().unwrap().len(), 1);
    assert!(warning["url"].as_str().unwrap().starts_with("https://"), "{warning}");
    assert_eq!(
        warning["sourceInfo"],
        serde_json::json!({
            "filename": "Dockerfile", "data": base64(dockerfile), "language": "Dockerfile"
        })
    );
    assert_eq!(warning["range"], serde_json::json!([{"start": {"line": 1}, "end": {"line": 1}}]));
    assert!(found.values().any(|vertex| vertex["digest"] == warning["vertex"]));

    let again = place.build(&["--progress=rawjson", "-t", "app:1"]).ok();
    let lines = self::lines(&again);
    assert_eq!(vertexes(&lines)["[2/3] RUN echo hello"]["cached"], true);
}

#[test]
fn failures_and_warnings_of_the_command_line_are_told() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo no >&2; exit 3\n")]);
    let ran = place.build(&["--progress=rawjson", "--squash"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let lines = lines(&ran);
    let warnings = all(&lines, "warnings", WARNING);
    let short = llb::base64::encode(b"--squash has no effect");
    assert!(warnings.iter().any(|warning| warning["short"] == short.as_str()), "{warnings:?}");
    let run = vertexes(&lines)["[1/2] RUN echo no >&2; exit 3"];
    let error = run["error"].as_str().unwrap();
    assert!(error.contains("exit code: 3") && is_time(&run["completed"]), "{run}");
    let logs = all(&lines, "logs", LOG);
    assert!(logs.iter().any(|log| log["stream"] == 2 && log["data"] == "bm8K"), "{logs:?}");
    assert!(ran.stderr.contains("\nERROR: failed to solve"), "{}", ran.stderr);
}

#[test]
fn a_warning_while_the_build_is_shown_stops_nothing() {
    let dockerfile = "# syntax=example.com/other/frontend:1\nFROM scratch\nCOPY Dockerfile /\n";
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let archive = Command::new("tar").arg("-C").arg(place.path("ctx")).args(["-c", "."]).output();
    fs_err::write(place.path("context.tar"), archive.unwrap().stdout).unwrap();
    for mode in ["plain", "rawjson"] {
        let archive = fs_err::File::open(place.path("context.tar")).unwrap().into_file();
        let mut command = place.command(&[&format!("--progress={mode}"), "-"]);
        command.stdin(archive).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let (sender, receiver) = channel();
        let waiter = std::thread::spawn(move || sender.send(child.wait_with_output()));
        let ended = receiver.recv_timeout(Duration::from_secs(60));
        if ended.is_err() {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        waiter.join().unwrap().unwrap();
        let ran = place.ran(ended.expect("the build ends").unwrap()).ok();
        assert!(!ran.stderr.is_empty(), "{mode}");
    }
}
