//! `--check` and `--call` with the real executable: text and JSON of each question, exit codes, what they leave.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::time::{Duration, Instant};

use support::{Place, Ran};

/// Exit code, standard output and standard error as one text.
fn shown(ran: &Ran) -> String {
    format!("exit {}\n{}--\n{}", ran.code.unwrap_or(-1), ran.stdout, ran.stderr)
}

#[track_caller]
fn check(dockerfile: &str, words: &[&str], expect: &str) {
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let ran = place.build(words);
    assert_eq!(shown(&ran), expect, "{words:?}\n{}", shown(&ran));
}

/// Undoes base64, to show what a JSON answer says of the source.
fn decoded(text: &str) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = |digit: u8| digits.iter().position(|known| *known == digit);
    let mut bytes = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let values: Vec<usize> = group.iter().filter_map(|&digit| bits(digit)).collect();
        let all = values.iter().fold(0, |all, value| all << 6 | value) << (6 * (4 - values.len()));
        bytes.extend((0..values.len() - 1).map(|at| (all >> (16 - 8 * at)) as u8));
    }
    String::from_utf8(bytes).unwrap()
}

/// The answer as JSON with its sources decoded.
#[track_caller]
fn json(dockerfile: &str, words: &[&str], code: i32) -> serde_json::Value {
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let ran = place.build(words);
    assert_eq!(ran.code, Some(code), "{}", shown(&ran));
    let mut value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    for source in value["sources"].as_array_mut().unwrap() {
        let data = if source.is_string() { &mut *source } else { &mut source["data"] };
        assert_eq!(decoded(data.as_str().unwrap()), dockerfile);
        *data = "(the Dockerfile)".into();
    }
    value
}

const DOUBTFUL: &str = "\
# the version
ARG VERSION=1
FROM busybox AS Tools
RUN echo one \\

  && echo two
FROM busybox as app
WORKDIR app
COPY $NMAE /x
CMD echo three
";

#[test]
fn warnings_are_shown_with_their_place() {
    check(
        DOUBTFUL,
        &["--check"],
        r#"exit 1
Check complete, 6 warnings have been found!

WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'Tools' should be lowercase
Dockerfile:3
--------------------
   1 |     # the version
   2 |     ARG VERSION=1
   3 | >>> FROM busybox AS Tools
   4 |     RUN echo one \
   5 |     
--------------------

WARNING: NoEmptyContinuation - https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/
Empty continuation line
Dockerfile:6
--------------------
   4 |     RUN echo one \
   5 |     
   6 | >>>   && echo two
   7 |     FROM busybox as app
   8 |     WORKDIR app
--------------------

WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/
'as' and 'FROM' keywords' casing do not match
Dockerfile:7
--------------------
   5 |     
   6 |       && echo two
   7 | >>> FROM busybox as app
   8 |     WORKDIR app
   9 |     COPY $NMAE /x
--------------------

WARNING: WorkdirRelativePath - https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/
Relative workdir "app" can have unexpected results if the base image changes
Dockerfile:8
--------------------
   6 |       && echo two
   7 |     FROM busybox as app
   8 | >>> WORKDIR app
   9 |     COPY $NMAE /x
  10 |     CMD echo three
--------------------

WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/
Usage of undefined variable '$NMAE'
Dockerfile:9
--------------------
   7 |     FROM busybox as app
   8 |     WORKDIR app
   9 | >>> COPY $NMAE /x
  10 |     CMD echo three
  11 |     
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:10
--------------------
   8 |     WORKDIR app
   9 |     COPY $NMAE /x
  10 | >>> CMD echo three
  11 |     
--------------------
--
"#,
    );
    check("FROM scratch\n", &["--check"], "exit 0\nCheck complete, no warnings found.\n--\n");
    check(
        "FROM scratch AS A\n",
        &["--call=lint,ignorestatus=true"],
        "exit 0
Check complete, 1 warning has been found!

WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'A' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM scratch AS A
   2 |     
--------------------
--
",
    );
}

#[test]
fn warnings_are_told_to_programs() {
    let value = json(
        "FROM scratch AS A\nRUN <<E\nx\nE\n# check=experimental=LatestImageTag\nCOPY --from=busybox /x \\\n  /y\n",
        &["--call=check,format=json"],
        1,
    );
    let expect = serde_json::json!({
        "warnings": [
            {
                "ruleName": "StageNameCasing",
                "description": "Stage names should be lowercase",
                "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
                "detail": "Stage name 'A' should be lowercase",
                "location": {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}
            }
        ],
        "sources": [{"filename": "Dockerfile", "data": "(the Dockerfile)", "language": "Dockerfile"}]
    });
    assert_eq!(value, expect);
    let value = json(
        "# check=skip=all;experimental=bricklayer\nFROM scratch\nRUN curl x \\\n  | sh\n",
        &["--print=check,format=json,ignorestatus=true"],
        0,
    );
    assert_eq!(value["warnings"][0]["ruleName"], "DownloadPipedToShell");
    assert_eq!(value["warnings"][0]["url"], "docs/checks.md#downloadpipedtoshell");
    assert_eq!(
        value["warnings"][0]["location"],
        serde_json::json!({"ranges": [{"start": {"line": 3}, "end": {"line": 3}}, {"start": {"line": 4}, "end": {"line": 4}}]})
    );
    let value = json("FROM scratch\n", &["--check", "--call=build,format=json"], 0);
    assert_eq!(value["warnings"], serde_json::json!([]));
}

#[test]
fn the_order_of_an_answer_is_that_of_the_reference() {
    let place = Place::new(&[("Dockerfile", "FROM scratch AS A\n")]);
    let ran = place.build(&["--call=check,format=json"]);
    assert_eq!(
        ran.stdout,
        r#"{
  "warnings": [
    {
      "ruleName": "StageNameCasing",
      "description": "Stage names should be lowercase",
      "url": "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
      "detail": "Stage name 'A' should be lowercase",
      "location": {
        "ranges": [
          {
            "start": {
              "line": 1
            },
            "end": {
              "line": 1
            }
          }
        ]
      }
    }
  ],
  "sources": [
    {
      "filename": "Dockerfile",
      "data": "RlJPTSBzY3JhdGNoIEFTIEEK",
      "language": "Dockerfile"
    }
  ]
}
"#
    );
}

#[test]
fn mistakes_are_shown_behind_the_warnings() {
    let text = "FROM busybox AS A\nCOPY --chmod=x a b\nCMD c\n";
    check(
        text,
        &["--check"],
        "exit 1
Check complete, 2 warnings have been found!

WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'A' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM busybox AS A
   2 |     COPY --chmod=x a b
   3 |     CMD c
--------------------

WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/
JSON arguments recommended for CMD to prevent unintended behavior related to OS signals
Dockerfile:3
--------------------
   1 |     FROM busybox AS A
   2 |     COPY --chmod=x a b
   3 | >>> CMD c
   4 |     
--------------------

--
ERROR: invalid chmod parameter: 'x'. it should be octal string and between 0 and 07777
Dockerfile:2
--------------------
   1 |     FROM busybox AS A
   2 | >>> COPY --chmod=x a b
     |                  ^ not a mode
   3 |     CMD c
   4 |     
--------------------
  help: write octal digits such as 0755, or a change such as u+x
",
    );
    let value = json(text, &["--call=check,format=json"], 1);
    assert_eq!(value["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(
        value["buildError"],
        serde_json::json!({
            "message": "invalid chmod parameter: 'x'. it should be octal string and between 0 and 07777",
            "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}
        })
    );
    // A text that cannot be parsed has no warnings.
    let text = "FROM busybox\nRUNN x\n";
    check(
        text,
        &["--check"],
        "exit 1
--
ERROR: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)
Dockerfile:2
--------------------
   1 |     FROM busybox
   2 | >>> RUNN x
     |     ^^^^ not an instruction
   3 |     
--------------------
",
    );
    let value = json(text, &["--call=check,format=json"], 1);
    assert_eq!(value["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    let place = Place::new(&[("Dockerfile", text)]);
    assert_eq!(place.build(&["--call=check,ignorestatus=true"]).code, Some(0));
    for call in ["--call=targets", "--call=outline", "--call=targets,format=json"] {
        let ran = place.build(&[call]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
        assert!(ran.stderr.contains("unknown instruction: RUNN"), "{}", ran.stderr);
    }
}

#[test]
fn violations_fail_the_build_and_the_check() {
    let place = Place::new(&[("Dockerfile", "# check=error=true\nFROM scratch AS A\nENV A=1\n")]);
    let ran = place.build(&["-o", "out"]);
    assert_eq!(
        ran.report(),
        "exit 1
Dockerfile:2
--------------------
   1 |     # check=error=true
   2 | >>> FROM scratch AS A
   3 |     ENV A=1
   4 |     
--------------------
ERROR: failed to solve: lint violation found for rules: StageNameCasing
  help: `--check` shows what was found"
    );
    let ran = place.build(&["--check"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.starts_with("Check complete, 1 warning has been found!"), "{}", ran.stdout);
    assert!(
        ran.stderr.starts_with("ERROR: lint violation found for rules: StageNameCasing\n"),
        "{}",
        ran.stderr
    );
    let skip = "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing;error=true";
    place.build(&[skip, "-o", "out"]).ok();
    let ran = place.build(&["--build-arg=BUILDKIT_DOCKERFILE_CHECK=nonsense", "--check"]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("failed to parse check options: invalid check option \"nonsense\"")
    );
}

#[test]
fn a_build_shows_its_warnings_at_the_end() {
    let place = Place::new(&[(
        "Dockerfile",
        "FROM scratch AS unused\nWORKDIR x\nFROM scratch AS A\nWORKDIR a\nENV B c\n",
    )]);
    let ran = place.build(&["--progress=plain", "-o", "out"]).ok();
    let end = ran.stderr.split_once("\n\n ").map(|(_, end)| end);
    assert_eq!(
        end,
        Some(
            "3 warnings found (use --debug to expand):
 - StageNameCasing: Stage name 'A' should be lowercase (line 3)
 - WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes (line 4)
 - LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 5)
"
        ),
        "{}",
        ran.stderr
    );
    let skip = "--build-arg=BUILDKIT_DOCKERFILE_CHECK=skip=StageNameCasing,WorkdirRelativePath";
    let ran = place.build(&[skip, "--debug", "--progress=plain", "-o", "out"]).ok();
    let end = ran.stderr.split_once("\n\n ").map(|(_, end)| end);
    assert_eq!(
        end,
        Some(
            "1 warning found:
 - LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 5)
Legacy key/value format with whitespace separator should not be used
More info: https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
Dockerfile:5
--------------------
   3 |     FROM scratch AS A
   4 |     WORKDIR a
   5 | >>> ENV B c
   6 |     
--------------------
"
        ),
        "{}",
        ran.stderr
    );
    assert!(!place.build(&["-q", "-o", "out"]).ok().stderr.contains("warning"));
}

#[test]
fn ignored_files_and_wide_copies_are_found_by_the_ignore_file() {
    let place = Place::new(&[
        (
            "Dockerfile",
            "# check=experimental=bricklayer;skip=LatestImageTag\nFROM scratch\nCOPY a.log /\nCOPY . /\n",
        ),
        (".dockerignore", "# logs\n*.log\n"),
    ]);
    let rules = |place: &Place| {
        let ran = place.build(&["--call=check,format=json"]);
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let warnings = value["warnings"].as_array().unwrap().clone();
        warnings
            .iter()
            .map(|warning| warning["ruleName"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(rules(&place), ["CopyIgnoredFile"]);
    place.write(".dockerignore", "# nothing\n\n");
    assert_eq!(rules(&place), ["WideCopyWithoutIgnoreFile"]);
}

const RICH: &str = "\
# TAG of the base
ARG TAG=latest
ARG MODE=fast
FROM busybox:$TAG AS tools
RUN --mount=type=secret,id=netrc,required --mount=type=ssh true
# app is what runs
FROM scratch AS app
# MODE of the app
ARG MODE=slow
ARG EMPTY LONG_NAME_OF_AN_ARGUMENT=x
COPY --from=tools /a /b
RUN --mount=type=secret,id=token --mount=type=ssh,id=deploy,required=true true
FROM --platform=linux/amd64 scratch
";

#[test]
fn an_outline_is_shown_in_tables() {
    check(
        RICH,
        &["--call=outline", "--target=app", "--build-arg=EMPTY=no"],
        "exit 0
TARGET:      app
DESCRIPTION: is what runs

BUILD ARG                  VALUE    DESCRIPTION
TAG                        latest   of the base
MODE                       slow     of the app
EMPTY                      no       
LONG_NAME_OF_AN_ARGUMENT   x        

SECRET   REQUIRED
netrc    true
token    

SSH       REQUIRED
default   
deploy    true

--
",
    );
    check(RICH, &["--call=outline"], "exit 0\n\n--\n");
    let value = json(RICH, &["--call=outline,format=json", "--target=app"], 0);
    let line = |line: usize| serde_json::json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!(
        value,
        serde_json::json!({
            "name": "app",
            "description": "is what runs",
            "args": [
                {"name": "TAG", "description": "of the base", "value": "latest", "location": line(2)},
                {"name": "MODE", "description": "of the app", "value": "slow", "location": line(9)},
                {"name": "EMPTY", "location": line(10)},
                {"name": "LONG_NAME_OF_AN_ARGUMENT", "value": "x", "location": line(10)},
            ],
            "secrets": [
                {"name": "netrc", "required": true, "location": line(5)},
                {"name": "token", "location": line(12)},
            ],
            "ssh": [
                {"name": "default", "location": line(5)},
                {"name": "deploy", "required": true, "location": line(12)},
            ],
            "sources": ["(the Dockerfile)"],
        })
    );
    let place = Place::new(&[("Dockerfile", RICH)]);
    let ran = place.build(&["--call=outline", "--target=ap"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("target stage \"ap\" could not be found"), "{}", ran.stderr);
}

#[test]
fn targets_are_listed() {
    check(
        RICH,
        &["--call=targets"],
        "exit 0
TARGET    DESCRIPTION
tools     
app       is what runs
(default) 
--
",
    );
    check(
        "FROM scratch AS A\n",
        &["--call=targets"],
        "exit 0\nTARGET      DESCRIPTION\na (default) \n--\n",
    );
    let value = json(RICH, &["--call=targets,format=json"], 0);
    let line = |line: usize| serde_json::json!({"ranges": [{"start": {"line": line}, "end": {"line": line}}]});
    assert_eq!(
        value,
        serde_json::json!({
            "targets": [
                {"name": "tools", "base": "busybox:$TAG", "location": line(4)},
                {"name": "app", "description": "is what runs", "base": "scratch", "location": line(7)},
                {"default": true, "base": "scratch", "platform": "linux/amd64", "location": line(13)},
            ],
            "sources": ["(the Dockerfile)"],
        })
    );
}

#[test]
fn questions_are_described() {
    let place = Place::new(&[]);
    let ran = place.run(&["--call=subrequests.describe", "ctx"]);
    assert_eq!(
        shown(&ran),
        "exit 0
NAME                 VERSION DESCRIPTION
outline              1.0.0   List all parameters current build target supports
targets              1.0.0   List all targets current build supports
subrequests.describe 1.0.0   List available subrequest types
--
"
    );
    let ran = place.run(&["--call=subrequests.describe,format=json", "ctx"]).ok();
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let metadata = serde_json::json!([{"name": "result.json", "description": ""}, {"name": "result.txt", "description": ""}]);
    assert_eq!(
        value[0],
        serde_json::json!({
            "name": "frontend.outline",
            "version": "1.0.0",
            "type": "rpc",
            "description": "List all parameters current build target supports",
            "opts": [{"name": "target", "description": "Target build stage"}],
            "inputs": null,
            "metadata": metadata,
            "refs": null,
        })
    );
    assert_eq!(
        (&value[1]["opts"], &value[2]["opts"]),
        (&serde_json::json!([]), &serde_json::Value::Null)
    );
    assert_eq!(value.as_array().unwrap().len(), 3);
}

/// A port on loopback that nothing listens on.
fn closed_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn what_needs_no_image_is_answered_without_one() {
    let host = format!("127.0.0.1:{}", closed_port());
    let text = format!(
        "FROM {host}/a:1 AS A\nWORKDIR x\nCOPY $NOPE /y\nFROM {host}/b:1\nARG Z=1\nCMD z\n"
    );
    let place = Place::new(&[("Dockerfile", &text)]);
    let ran = place.build(&["--check"]);
    assert_eq!(ran.code, Some(1), "{}", shown(&ran));
    for rule in ["StageNameCasing", "WorkdirRelativePath", "JSONArgsRecommended"] {
        assert!(ran.stdout.contains(&format!("WARNING: {rule} - ")), "{}", ran.stdout);
    }
    assert!(ran.stdout.starts_with("Check complete, 3 warnings"), "{}", ran.stdout);
    assert!(ran.stderr.starts_with("ERROR: "), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("cannot reach registry") && ran.stderr.contains("\nDockerfile:1\n"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.matches("ERROR").count(), 1, "a registry is asked once: {}", ran.stderr);
    let ran = place.build(&["--call=outline"]).ok();
    assert_eq!(ran.stdout, "BUILD ARG   VALUE   DESCRIPTION\nZ           1       \n\n");
    assert!(
        ran.stderr.starts_with("WARNING: ") && ran.stderr.contains("cannot reach registry"),
        "{}",
        ran.stderr
    );
    // Nothing to warn of, and yet not all was looked at.
    place.write("Dockerfile", &format!("FROM {host}/a:1\n"));
    let ran = place.build(&["--check"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{}", shown(&ran));
    assert_eq!(place.build(&["--call=check,ignorestatus=true"]).code, Some(0));
    let ran = place.build(&["--call=check,format=json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(value["buildError"]["message"].as_str().unwrap().contains("cannot reach registry"));
}

#[test]
fn questions_leave_nothing_behind() {
    let place = Place::new(&[(
        "Dockerfile",
        "FROM scratch\nADD http://127.0.0.1:1/x /x\nCOPY absent /y\nRUN false\n",
    )]);
    for call in ["check", "outline", "targets", "subrequests.describe"] {
        place.build(&[&format!("--call={call}"), "-o", "out"]).ok();
    }
    assert!(!place.path("state").exists(), "the state folder is made");
    assert!(!place.path("out").exists(), "something is exported");
}

#[test]
fn a_long_file_is_checked_in_time() {
    let body: String = (0..10_000)
        .map(|n| match n % 5 {
            0 => format!("RUN echo {n} && make target{n}\n"),
            1 => format!("COPY src/{n} /dst/{n}\n"),
            2 => format!("ENV NAME{n}=value{n}\n"),
            3 => "# a comment\n".to_owned(),
            _ => format!("LABEL key{n}=value{n}\n"),
        })
        .collect();
    let place = Place::new(&[("Dockerfile", &format!("FROM busybox\n{body}"))]);
    let start = Instant::now();
    place.build(&["--check"]).ok();
    let took = start.elapsed();
    println!("10,000 lines: {took:?}");
    assert!(took < Duration::from_secs(5), "took {took:?}");
}
