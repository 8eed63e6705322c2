//! `--trace`: the file is what viewers read, whatever becomes of the build.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Place, can_run};

/// A span of a trace.
#[derive(Debug, Clone)]
struct Span {
    row: (u64, u64),
    name: String,
    start: f64,
    end: f64,
    unfinished: bool,
}

/// Reads a trace and checks what holds for each: its form, and that the spans of a row nest.
#[track_caller]
fn read(text: &str) -> Vec<Span> {
    let document: Value = serde_json::from_str(text).unwrap();
    let events = document["traceEvents"].as_array().unwrap();
    let mut rows = BTreeMap::new();
    let mut spans = Vec::new();
    for event in events {
        let number = |field: &str| event[field].as_f64().unwrap_or_else(|| panic!("{event}"));
        match event["ph"].as_str().unwrap() {
            "M" if event["name"] == "thread_name" => {
                let row = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
                let name = event["args"]["name"].as_str().unwrap().to_owned();
                assert!(rows.insert(row, name).is_none(), "{event}");
            }
            "M" => assert_eq!(event["name"], "process_name"),
            "X" => {
                assert!(event["cat"].is_string() && event["args"].is_object(), "{event}");
                spans.push(Span {
                    row: (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap()),
                    name: event["name"].as_str().unwrap().to_owned(),
                    start: number("ts"),
                    end: number("ts") + number("dur"),
                    unfinished: event["args"].get("unfinished").is_some(),
                });
            }
            other => panic!("`{other}` is no kind of event written here"),
        }
    }
    assert_eq!(rows[&(1, 1)], "build");
    for row in rows.keys() {
        let mut own: Vec<&Span> = spans.iter().filter(|span| span.row == *row).collect();
        // What begins at the same time is longest first: the outer one.
        own.sort_by(|a, b| a.start.total_cmp(&b.start).then(b.end.total_cmp(&a.end)));
        let mut open: Vec<&Span> = Vec::new();
        for span in own {
            while open.last().is_some_and(|outer| outer.end <= span.start + 0.01) {
                open.pop();
            }
            if let Some(outer) = open.last() {
                assert!(span.end <= outer.end + 0.01, "{span:?} leaves {outer:?}");
            }
            open.push(span);
        }
    }
    assert!(spans.iter().all(|span| rows.contains_key(&span.row)));
    spans
}

/// Time covered by at least one of some spans, in microseconds.
fn covered<'s>(spans: impl Iterator<Item = &'s Span>) -> f64 {
    let mut parts: Vec<(f64, f64)> = spans.map(|span| (span.start, span.end)).collect();
    parts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut reached) = (0.0, 0.0_f64);
    for (start, end) in parts {
        sum += (end - start.max(reached)).max(0.0);
        reached = reached.max(end);
    }
    sum
}

const DOCKERFILE: &str = "\
FROM busybox AS build
COPY a.txt /src/
RUN --mount=type=secret,id=pass sleep 0.3; tr a-z A-Z < /src/a.txt > /out
FROM busybox
COPY --from=build /out /app/
FROM busybox AS last
COPY --from=build /out /app/
";

#[test]
fn a_trace_shows_where_the_time_of_a_build_goes() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", DOCKERFILE), ("a.txt", "hello")]);
    fs_err::write(place.path("pass"), "correct horse battery").unwrap();
    let words = ["--trace=build.json", "--secret=id=pass,src=pass", "-o", "type=oci,dest=a.tar"];
    let began = Instant::now();
    place.build(&words).ok();
    let wall = began.elapsed().as_secs_f64() * 1e6;
    let text = fs_err::read_to_string(place.path("build.json")).unwrap();
    assert!(!text.contains("correct horse"), "a secret is in the trace");
    let spans = read(&text);
    let has = |pid: u64, part: &str| {
        let found = spans.iter().any(|span| span.row.0 == pid && span.name.contains(part));
        let names = || spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>().join("\n");
        assert!(found, "no `{part}` in\n{}", names());
    };
    for part in [
        "start",
        "build",
        "parse: Dockerfile",
        "resolve: busybox",
        "convert: Dockerfile",
        "solve",
        "look up: ",
        "look up with inputs: ",
        "run: ",
        "hash: files of ",
        "process: ",
        "export: exporting to oci image format",
        "compress: gzip",
        "write layer: ",
        "keep layer: ",
        "unpack",
        "fetch: blob sha256:",
        "records: write",
        "write: archive",
    ] {
        has(1, part);
    }
    for part in ["run", "look up", "wait: for [build 1/3] COPY a.txt /src/"] {
        has(2, part);
    }
    assert!(spans.iter().all(|span| !span.unfinished));
    let step = spans.iter().find(|span| span.name.starts_with("process: ")).unwrap();
    assert!(step.end - step.start > 0.3e6, "{step:?}");

    // The parts of the build, not only the whole, account for the time of the process.
    let main = spans.iter().filter(|span| span.row == (1, 1) && span.name != "build");
    let whole = spans.iter().find(|span| span.name == "build").unwrap().end;
    let share = covered(main) / whole;
    assert!(share > 0.9, "{share} of {whole} microseconds is covered");
    // What is not in the trace is the start and end of the process.
    assert!(whole <= wall && whole > 0.3e6, "{whole} of {wall} microseconds");
}

#[test]
fn a_trace_is_written_when_the_build_fails_or_is_stopped() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN exit 3\n")]);
    let ran = place.build(&["--trace=failed.json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let spans = read(&fs_err::read_to_string(place.path("failed.json")).unwrap());
    assert!(spans.iter().any(|span| span.name == "process: [1/2] RUN exit 3"), "{spans:?}");

    place.write("Dockerfile", "FRM busybox\n");
    assert_eq!(place.build(&["--trace=parsed.json"]).code, Some(1));
    let spans = read(&fs_err::read_to_string(place.path("parsed.json")).unwrap());
    assert!(spans.iter().any(|span| span.name == "parse: Dockerfile"), "{spans:?}");

    place.write("Dockerfile", "FROM busybox\nRUN echo up; sleep 60\n");
    let images = crate::support::repository().join("testdata/conformance/images");
    let context = format!("--build-context=busybox=oci-layout://{}/busybox", images.display());
    let mut command = place.command(&["--trace=stopped.json", "--progress=plain", &context, "ctx"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut told = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" up\n") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut told, &mut line).unwrap(), 0);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    std::io::Read::read_to_string(&mut told, &mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    let spans = read(&fs_err::read_to_string(place.path("stopped.json")).unwrap());
    assert!(spans.iter().any(|span| span.name.starts_with("process: [1/2] RUN echo up")));
}

#[test]
fn waiting_for_another_build_shows() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN sleep 0.7\n")]);
    let ends: Vec<Vec<Span>> = std::thread::scope(|scope| {
        let build = |name: &'static str| {
            let place = &place;
            scope.spawn(move || {
                let flag = format!("--trace={name}");
                let images = crate::support::repository().join("testdata/conformance/images");
                let context =
                    format!("--build-context=busybox=oci-layout://{}/busybox", images.display());
                let ran = place.run(&[&flag, &context, "ctx"]).ok();
                drop(ran);
                read(&fs_err::read_to_string(place.path(name)).unwrap())
            })
        };
        let both = [build("a.json"), build("b.json")];
        both.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let waits = |spans: &Vec<Span>| {
        let lock = |span: &&Span| span.name.starts_with("wait: for the lock name step");
        spans.iter().find(lock).map_or(0.0, |span| span.end - span.start)
    };
    let longest = ends.iter().map(waits).fold(0.0, f64::max);
    assert!(longest > 0.2e6, "{longest}");
}

#[test]
fn a_trace_that_cannot_be_written_is_told_before_anything_is_built() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nENV a=b\n")]);
    let ran = place.run(&["--trace=absent/x.json", "ctx"]);
    assert_eq!(ran.code, Some(4));
    assert_eq!(
        ran.stderr,
        "ERROR: cannot write the trace: failed to create file `absent/x.json`: No such file or directory (os error 2)\n"
    );
    assert!(!place.path("state").exists(), "told before anything is made");

    let ran = place.run(&["--trace=-", "-q", "ctx"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cannot both be written to standard output"), "{}", ran.stderr);
    read(&place.run(&["--trace=-", "ctx"]).ok().stdout);

    let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_file();
    let output = place.command(&["--trace=-", "ctx"]).stdout(full).output().unwrap();
    let ran = place.ran(output);
    assert_eq!(ran.code, Some(4));
    assert!(
        ran.stderr.contains("cannot write the trace to `standard output`: No space left"),
        "{}",
        ran.stderr
    );
}

#[test]
fn without_a_trace_nothing_is_written() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nENV a=b\n")]);
    place.build(&["-t", "x"]).ok();
    let files: Vec<_> = fs_err::read_dir(place.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "ctx" && name != "state")
        .collect();
    assert!(files.is_empty(), "{files:?}");
}

#[test]
fn layers_are_compressed_and_hashed_while_other_steps_run() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[
        (
            "Dockerfile",
            "FROM busybox\nCOPY f /f\nRUN sleep 0.4; echo $(wc -c < /f) > /n\nCOPY f /g\n",
        ),
        ("f", &"some text\n".repeat(300_000)),
    ]);
    for (output, made) in
        [("type=oci,dest=out.tar", "compress: gzip"), ("type=image,name=a", "hash: tar")]
    {
        place.build(&["-o", output, "--trace", "t.json", "--no-cache"]).ok();
        let spans = read(&fs_err::read_to_string(place.path("t.json")).unwrap());
        let step = spans.iter().find(|span| span.name.starts_with("process: ")).unwrap();
        let early = |span: &&Span| span.name.starts_with(made) && span.start < step.end;
        let early: Vec<&Span> = spans.iter().filter(early).collect();
        assert_eq!(early.len(), 1, "{output}: {spans:?}");
    }
}

#[test]
fn what_is_made_beforehand_does_not_hold_up_a_failure() {
    if !can_run() {
        return;
    }
    let dockerfile = "FROM busybox AS bad\nRUN sleep 0.3; exit 3\nFROM busybox\nCOPY f /f\nRUN cat /f > /dev/null\nCOPY --from=bad / /\n";
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    // More than can be compressed in the time.
    let mut number = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (number >> 58) as u8
    })
    .take(150 << 20)
    .collect();
    fs_err::write(place.path("ctx/f"), noise).unwrap();
    let ran =
        place.build(&["-o", "type=oci,dest=out.tar,compression-level=9", "--trace", "t.json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let spans = read(&fs_err::read_to_string(place.path("t.json")).unwrap());
    let step = spans.iter().filter(|span| span.name.starts_with("process: "));
    let failed = step.map(|span| span.end).fold(0.0, f64::max);
    let made = spans.iter().filter(|span| span.name.starts_with("compress"));
    let last = made.map(|span| span.end).fold(0.0, f64::max);
    assert!(last < failed + 300_000.0, "{last} after {failed}: {spans:?}");
}
