//! Answers as JSON: names, nesting and order of the reference's results.

use std::sync::Arc;

use frontend::{LineRange, Outline, OutlineMount, StageInfo, Warning};
use llb::{SourceInfo, base64, image};
use serde::Serialize;

use super::text;
use crate::report::Failure;

/// Most lines of a place that are listed one by one; of a longer one only first and last are named.
const MOST_LINES: usize = 200;

/// A question, as the answer to `subrequests.describe` has it.
pub(super) struct Request {
    /// Name behind `--call=`.
    pub(super) method: &'static str,
    /// What it is about.
    pub(super) description: &'static str,
    options: Option<&'static [(&'static str, &'static str)]>,
}

/// The questions that the reference's frontend describes.
pub(super) const REQUESTS: [Request; 3] = [
    Request {
        method: "outline",
        description: "List all parameters current build target supports",
        options: Some(&[("target", "Target build stage")]),
    },
    Request {
        method: "targets",
        description: "List all targets current build supports",
        options: Some(&[]),
    },
    Request {
        method: "subrequests.describe",
        description: "List available subrequest types",
        options: None,
    },
];

#[derive(Serialize)]
struct Position {
    line: usize,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize, Default)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

impl Location {
    /// One range for each line.
    fn of(lines: LineRange) -> Self {
        let range = |start: usize, end: usize| Range {
            start: Position { line: start },
            end: Position { line: end },
        };
        let (start, end) = (lines.start, lines.end.max(lines.start));
        if end - start >= MOST_LINES {
            return Self { ranges: vec![range(start, end)] };
        }
        Self { ranges: (start..=end).map(|line| range(line, line)).collect() }
    }
}

#[derive(Serialize)]
struct FindingsJson<'a> {
    warnings: Vec<WarningJson<'a>>,
    sources: [SourceJson<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildErrorJson<'a>>,
}

#[derive(Serialize)]
struct WarningJson<'a> {
    #[serde(rename = "ruleName")]
    rule_name: &'a str,
    description: &'a str,
    url: &'a str,
    detail: &'a str,
    location: Location,
}

impl<'a> WarningJson<'a> {
    fn of(Warning { rule, message, lines }: &'a Warning) -> Self {
        Self {
            rule_name: rule.name(),
            description: rule.description(),
            url: rule.url(),
            detail: message,
            location: Location::of(*lines),
        }
    }
}

#[derive(Serialize)]
struct SourceJson<'a> {
    filename: &'a str,
    data: String,
    language: &'static str,
}

#[derive(Serialize)]
struct BuildErrorJson<'a> {
    message: &'a str,
    location: Location,
}

/// Findings of the checks; of several reasons why the Dockerfile cannot be built the first one.
pub(super) fn findings(
    warnings: &[Warning],
    failures: &[Failure],
    info: &Arc<SourceInfo>,
) -> String {
    let build_error = failures.first().map(|failure| BuildErrorJson {
        message: text::message(failure),
        // What is in a trigger is told by its `FROM`: the trigger is no source of the answer.
        location: failure.sources.last().map_or_else(Location::default, |source| {
            Location::of(LineRange { start: source.range.start, end: source.range.end })
        }),
    });
    let source = SourceJson {
        filename: &info.filename,
        data: base64::encode(info.text.as_bytes()),
        language: "Dockerfile",
    };
    write(&FindingsJson {
        warnings: warnings.iter().map(WarningJson::of).collect(),
        sources: [source],
        build_error,
    })
}

#[derive(Serialize)]
struct OutlineJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<MountJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<MountJson<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct ArgJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct MountJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

impl<'a> MountJson<'a> {
    fn of(OutlineMount { name, required, lines }: &'a OutlineMount) -> Self {
        Self { name, required: *required, location: Location::of(*lines) }
    }
}

/// What a target asks for.
pub(super) fn outline(outline: &Outline, info: &Arc<SourceInfo>) -> String {
    let args = outline.args.iter().map(|arg| ArgJson {
        name: &arg.name,
        description: filled(arg.description.as_deref()),
        value: filled(arg.value.as_deref()),
        location: Location::of(arg.lines),
    });
    write(&OutlineJson {
        name: outline.name.as_deref(),
        description: filled(outline.description.as_deref()),
        args: args.collect(),
        secrets: outline.secrets.iter().map(MountJson::of).collect(),
        ssh: outline.ssh.iter().map(MountJson::of).collect(),
        sources: [base64::encode(info.text.as_bytes())],
    })
}

#[derive(Serialize)]
struct TargetsJson<'a> {
    targets: Vec<TargetJson<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct TargetJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

/// Stages of the file.
pub(super) fn targets(stages: &[StageInfo], info: &Arc<SourceInfo>) -> String {
    let targets = stages.iter().map(|stage| TargetJson {
        name: stage.name.as_deref(),
        default: stage.is_default,
        description: filled(stage.description.as_deref()),
        base: &stage.base,
        platform: filled(stage.platform.as_deref()),
        location: Location::of(stage.lines),
    });
    write(&TargetsJson {
        targets: targets.collect(),
        sources: [base64::encode(info.text.as_bytes())],
    })
}

#[derive(Serialize)]
struct RequestJson {
    name: String,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<NamedJson>>,
    inputs: Option<Vec<NamedJson>>,
    metadata: Vec<NamedJson>,
    refs: Option<Vec<NamedJson>>,
}

#[derive(Serialize)]
struct NamedJson {
    name: &'static str,
    description: &'static str,
}

/// Which questions there are.
pub(super) fn describe() -> String {
    let named = |&(name, description)| NamedJson { name, description };
    let requests = REQUESTS.iter().map(|request| RequestJson {
        name: format!("frontend.{}", request.method),
        version: "1.0.0",
        r#type: "rpc",
        description: request.description,
        opts: request.options.map(|options| options.iter().map(named).collect()),
        inputs: None,
        metadata: [("result.json", ""), ("result.txt", "")].iter().map(named).collect(),
        refs: None,
    });
    write(&requests.collect::<Vec<_>>())
}

/// An empty text is left out, as one that is not there.
fn filled(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn write<T: Serialize>(value: &T) -> String {
    String::from_utf8_lossy(&image::to_json_indented(value)).into_owned()
}
