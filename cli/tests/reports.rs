//! What a user sees of every broken sample: the whole report of the real command, and its exit code.
//!
//! A last line `#: ARGS` in a sample is its command line. `--print-llb` goes as far as all mistakes that need no
//! build, and runs nothing.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;

use support::Place;

#[test]
fn broken_samples_are_reported_as_recorded() {
    let mut count = 0;
    insta::glob!("../../testdata", "*/{broken,error}-*.Dockerfile", |path| {
        let report = report(path);
        assert!(!report.starts_with("exit 0"), "{}: {report}", path.display());
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("report", report);
        });
        count += 1;
    });
    assert!(count >= 60, "only {count} samples are broken");
}

/// The exit code and the report for a sample.
fn report(path: &Path) -> String {
    let text = fs_err::read(path).unwrap();
    let place = Place::new(&[("other", "x")]);
    fs_err::write(place.path("ctx/Dockerfile"), &text).unwrap();
    let shown = String::from_utf8_lossy(&text);
    let args = shown.lines().filter_map(|line| line.strip_prefix("#: "));
    let args = args.flat_map(|line| line.split(' ')).map(|arg| arg.replace("{ctx}", "ctx"));
    let mut words = vec!["--print-llb".to_owned()];
    // Options of the frontend's own tests, which are files or variables for a user.
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--ignore" => place.write(".dockerignore", &args.next().unwrap()),
            "--epoch" => {
                words.push(format!("--build-arg=SOURCE_DATE_EPOCH={}", args.next().unwrap()))
            }
            _ => words.push(arg),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = place.build(&words);
    format!("exit {}\n{}{}", ran.code.unwrap_or(-1), ran.stdout, ran.stderr)
}

#[test]
fn on_a_terminal_the_marks_are_coloured_unless_that_is_not_wanted() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPYY a b\n")]);
    let Some(coloured) = place.on_terminal(&[], &[]) else { return };
    let plain = place.on_terminal(&[], &[("NO_COLOR", "1")]).unwrap();
    let dumb = place.on_terminal(&[], &[("TERM", "dumb")]).unwrap();
    assert!(coloured.contains("\x1b[1;31m^^^^^ not an instruction\x1b[0m"), "{coloured}");
    assert!(coloured.contains("\x1b[1;31mERROR:\x1b[0m failed to solve"), "{coloured}");
    for text in [plain, dumb] {
        assert!(text.contains("     |     ^^^^^ not an instruction\r\n"), "{text}");
        assert!(text.contains("\nERROR: failed to solve"), "{text}");
    }
}
