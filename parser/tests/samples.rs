//! Sample Dockerfiles against recorded trees, warnings and errors.
//!
//! All samples are read here, those in `testdata/parser` for their syntax, those in `testdata/frontend` for their
//! meaning; the frontend's tests convert all of them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use parser::{Dockerfile, Instruction, ParseErrors, Span};
use proptest::prelude::*;

/// Renders a result; spans are shown as line and column.
fn dump(result: &Result<Dockerfile, ParseErrors>) -> String {
    match result {
        Ok(file) => dump_file(file),
        Err(errors) => dump_errors(errors),
    }
}

fn dump_file(file: &Dockerfile) -> String {
    let mut out = String::new();
    if file.directives != parser::Directives::default() {
        writeln!(out, "{:?}", file.directives).unwrap();
    }
    for instruction in &file.instructions {
        dump_instruction(&mut out, &file.text, instruction);
    }
    for warning in &file.warnings {
        writeln!(out, "warning, line {}: {:?}", warning.line, warning.kind).unwrap();
    }
    out
}

fn dump_instruction(out: &mut String, text: &str, it: &Instruction) {
    for comment in &it.comments {
        writeln!(out, "# {}", comment.text).unwrap();
    }
    writeln!(out, "{}-{} {} {:?}", it.lines.start, it.lines.end, it.keyword.text, it.text).unwrap();
    assert!(keyword_is_where_its_span_says(text, it));
    for line in format!("{:#?}", it.kind).lines().filter_map(compact) {
        writeln!(out, "  {line}").unwrap();
    }
}

/// A keyword that is broken by a continuation is longer in the file.
fn keyword_is_where_its_span_says(text: &str, it: &Instruction) -> bool {
    let written = &text[it.keyword.span.range()];
    written == it.keyword.text || written.contains('\n')
}

/// Drops lines of the debug output that say nothing.
fn compact(line: &str) -> Option<&str> {
    let is_noise = matches!(line.trim(), "}," | ")," | "]," | "}" | ")" | "]")
        || line.contains(": None,")
        || line.contains(": [],");
    (!is_noise).then(|| line.trim_end_matches([',', '{', '(', ' ']))
}

fn dump_errors(errors: &ParseErrors) -> String {
    let mut out = String::new();
    for error in &errors.errors {
        writeln!(out, "{}", error.message()).unwrap();
        let span = Span::new(error.at.offset(), error.at.offset() + error.at.len());
        let at = &errors.text[span.range()];
        let line = errors.text[..span.start].matches('\n').count() + 1;
        writeln!(out, "  at line {line}: {at:?} {}", error.label).unwrap();
        if let Some(lines) = error.lines {
            writeln!(out, "  lines {}-{}", lines.start, lines.end).unwrap();
        }
        if let Some(help) = &error.help {
            writeln!(out, "  help: {help}").unwrap();
        }
    }
    out
}

#[test]
fn every_sample_parses_as_recorded() {
    insta::glob!("../../testdata", "{parser,frontend}/*.Dockerfile", |path| {
        let bytes = fs_err::read(path).unwrap();
        insta::assert_snapshot!(dump(&parser::parse(&bytes)));
    });
}

/// The conformance kit next to this crate, with the Dockerfile of each case.
fn conformance_cases() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance/cases");
    let Ok(entries) = fs_err::read_dir(root) else { return Vec::new() };
    let mut cases: Vec<_> = entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.path().join("ctx/Dockerfile"))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_conformance_case_parses() {
    let mut failures = Vec::new();
    for (name, path) in conformance_cases() {
        let result = parser::parse(&fs_err::read(path).unwrap());
        if let Err(errors) = result {
            failures.push(format!("{name}: {}", errors.errors[0].message()));
        }
    }
    insta::assert_snapshot!(failures.join("\n"));
}

#[test]
fn a_trigger_is_one_instruction() {
    let read = |text: &str| match parser::parse_trigger(text) {
        Ok(instruction) => format!("{} {}", instruction.kind.name(), instruction.text),
        Err(errors) => format!("error: {errors}"),
    };
    assert_eq!(read("copy <<A /x\na\nA"), "COPY copy <<A /x");
    assert_eq!(
        read("FROM a"),
        "error: dockerfile parse error on line 1: FROM isn't allowed as an ONBUILD trigger"
    );
    assert_eq!(read(""), "error: file with no instructions");
    assert_eq!(read("RUN a\nRUN b"), "error: onbuild trigger should be a single expression");
    assert_eq!(
        read("FOO a"),
        "error: dockerfile parse error on line 1: unknown instruction: FOO (did you mean from?)"
            .replace("from", "FROM")
    );
    assert_eq!(read("ENV a"), "error: ENV must have two arguments");
}

#[test]
fn a_sole_heredoc_is_told_from_others() {
    let is_sole = |command: &str| {
        let file = parser::parse(format!("FROM a\nRUN {command}\nx\nA\n").as_bytes()).unwrap();
        let parser::InstructionKind::Run(run) = &file.instructions[1].kind else { panic!() };
        let parser::Command::Shell(command) = &run.command else { panic!() };
        command.sole_heredoc().map(|it| it.content().into_owned())
    };
    assert_eq!(is_sole("<<A").as_deref(), Some("x\n"));
    assert_eq!(is_sole("<<- 'A'").as_deref(), Some("x\n"));
    assert_eq!(is_sole("<<A cat"), None);
}

/// Pieces of which interesting files are made.
fn any_dockerfile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("FROM a\n".to_owned()),
        Just("RUN ".to_owned()),
        Just("COPY --from=x ".to_owned()),
        Just("ENV a=".to_owned()),
        Just("ONBUILD ".to_owned()),
        Just("HEALTHCHECK --interval=1s CMD ".to_owned()),
        Just("<<EOF ".to_owned()),
        Just("EOF\n".to_owned()),
        Just("# escape=`\n".to_owned()),
        Just("[\"a\", \"b\"]".to_owned()),
        "[\\\\`\"'$ \t\n#=<>-]{1,4}",
        "\\PC{0,6}",
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn all_spans_are_inside(result: &Result<Dockerfile, ParseErrors>) -> bool {
    match result {
        Ok(file) => file.instructions.iter().all(|it| {
            file.text.get(it.span.range()).is_some()
                && keyword_is_where_its_span_says(&file.text, it)
                && it.lines.start <= it.lines.end
        }),
        Err(errors) => {
            !errors.errors.is_empty()
                && errors.errors.iter().all(|error| {
                    let at = error.at.offset();
                    errors.text.get(at..at + error.at.len()).is_some()
                })
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_give_a_tree_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(all_spans_are_inside(&parser::parse(&bytes)));
    }

    #[test]
    fn any_mix_of_pieces_gives_a_tree_or_errors(text in any_dockerfile()) {
        prop_assert!(all_spans_are_inside(&parser::parse(text.as_bytes())));
        let _ = parser::parse_trigger(&text);
    }
}
