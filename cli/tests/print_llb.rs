//! `--print-llb`: the definition of a build, for people and for other engines; nothing is built.

mod support;

use serde_json::Value;
use support::Place;

const DOCKERFILE: &str = "FROM scratch AS files\nCOPY a /a\nFROM files\nWORKDIR /w\nCOPY b .\n";

fn place() -> Place {
    Place::new(&[("Dockerfile", DOCKERFILE), ("a", "x"), ("b", "y")])
}

#[test]
fn json_has_a_line_for_each_op_and_ends_in_the_result() {
    let place = place();
    let ran = place.build(&["--print-llb"]).ok();
    assert_eq!(ran.stderr, "");
    let lines: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = lines
        .iter()
        .map(|line| line["OpMetadata"]["description"]["llb.customname"].as_str().unwrap_or(""))
        .collect();
    assert_eq!(
        names,
        [
            "[internal] load build context",
            "[files 1/1] COPY a /a",
            "[stage-1 1/2] WORKDIR /w",
            "[stage-1 2/2] COPY b .",
            ""
        ]
    );
    let copy = &lines[1];
    let action = &copy["Op"]["Op"]["file"]["actions"][0]["Action"]["copy"];
    assert_eq!((&action["src"], &action["dest"]), (&Value::from("/a"), &Value::from("/a")));
    assert_eq!(
        copy["Source"],
        serde_json::json!([{"filename": "Dockerfile", "start": 2, "end": 2}])
    );
    let last = &lines[4];
    assert_eq!(last["Op"]["Op"], serde_json::json!({}));
    assert_eq!(last["Op"]["inputs"][0]["digest"], lines[3]["Digest"]);
    let images = place.run(&["images"]).ok().stdout;
    assert_eq!(images.lines().count(), 1, "nothing is built, so there is no image: {images}");
}

#[test]
fn binary_is_the_same_definition() {
    let place = place();
    let mut command = place.command(&["--print-llb=binary", "ctx"]);
    let output = command.output().unwrap();
    assert!(output.status.success());
    let definition = llb::pb::decode_definition(&output.stdout).unwrap();
    let json = place.build(&["--print-llb=json"]).ok().stdout;
    assert_eq!(llb::pb::definition_json(&definition).join("\n"), json.trim_end());
    let steps = definition.vertices().iter().filter(|vertex| !vertex.inputs.is_empty());
    assert_eq!(steps.count(), 3);
}

#[test]
fn an_empty_result_has_an_empty_definition() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\n")]);
    for form in ["--print-llb", "--print-llb=binary"] {
        assert_eq!(place.build(&[form]).ok().stdout, "");
    }
}

#[track_caller]
fn check_refused(words: &[&str], expect: &str) {
    let ran = place().build(words);
    assert_eq!((ran.code, ran.stderr.trim_end()), (Some(2), expect));
}

#[test]
fn what_cannot_be_printed_is_refused() {
    check_refused(
        &["--print-llb", "--platform=linux/amd64,linux/arm64"],
        "ERROR: --print-llb prints the definition of one platform\n  \
         help: give one --platform, and run the command once for each",
    );
    check_refused(
        &["--print-llb=jsn"],
        "ERROR: unknown form `jsn` for --print-llb: want json or binary\n  \
         help: did you mean `json`?",
    );
    check_refused(
        &["--print-llb", "--check"],
        "ERROR: --print-llb cannot be used with --check or --call",
    );
}

#[test]
fn a_binary_definition_is_not_written_to_a_terminal() {
    let Some(shown) = place().on_terminal(&["--print-llb=binary"], &[("NO_COLOR", "1")]) else {
        return;
    };
    assert_eq!(
        shown.replace("\r\n", "\n").trim_end(),
        "ERROR: a binary definition is not written to a terminal\n  \
         help: redirect the output, or use --print-llb=json"
    );
}
