//! Printing a tree and parsing the text gives the tree back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parser::{Command, Dockerfile, Healthcheck, Heredoc, InstructionKind};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Checks the law for one text; returns whether it has a tree.
fn check(bytes: &[u8]) -> bool {
    let Ok(tree) = parser::parse(bytes) else { return false };
    let printed = parser::print(&tree);
    let again = parser::parse(printed.as_bytes())
        .unwrap_or_else(|errors| panic!("{printed}\n{:?}", errors.errors));
    assert_eq!(parser::print(&again), printed);
    assert_eq!(again.without_layout(), tree.without_layout(), "{printed}");
    true
}

#[track_caller]
fn check_text(text: &str, expect: &str) {
    assert!(check(text.as_bytes()), "{text}: {:?}", parser::parse(text.as_bytes()));
    assert_eq!(parser::print(&parser::parse(text.as_bytes()).unwrap()), expect);
}

#[test]
fn what_is_printed_has_one_layout() {
    check_text(
        "#syntax=a\n# c\n  from  a  \\\n  as B\n\nrun --network=none \\\n # x\n  echo   hi\n",
        "# syntax=a\n\n# c\nfrom a as B\nrun --network=none echo   hi\n",
    );
    check_text(
        "# escape=`\nFROM a\nCOPY [\"a b\", \"c\"]\nCOPY [\"a\",\"c:\\\\\"]\nUSER a`\u{b}\n",
        "# escape=`\n\nFROM a\nCOPY [\"a b\", \"c\"]\nCOPY a c:\\\nUSER a`\u{b}\n",
    );
    check_text(
        "FROM a\nCOPY --chown='a b' <<X b <<-\"Y\" /d\nx\nX\n\ty\n\tY\n",
        "FROM a\nCOPY --chown='a b' b <<X <<-'Y' /d\nx\nX\n\ty\nY\n",
    );
    check_text(
        "FROM a\nHEALTHCHECK --retries=2 --interval=90s --timeout=1.5s CMD -- x\n",
        "FROM a\nHEALTHCHECK --interval=90s --timeout=1500ms --retries=2 CMD -- x\n",
    );
    check_text("FROM a\nCOPY <<-X <<X /d\nX\n\tX\nX\n", "FROM a\nCOPY <<-X <<X /d\nX\n\tX\nX\n");
    check_text("FROM a\nARG a\\  \\\u{b}\n", "FROM a\nARG a\\ \\\u{b}\n");
    check_text("FROM a\nENV a=\"b  \\\u{b}\n", "FROM a\nENV a=\"b  \\\u{b}\n");
    check_text("FROM a\nONBUILD RUN <<A\nx\nA\n", "FROM a\nONBUILD RUN <<A\nx\nA\n");
    check_text("FROM a\nVOLUME [\"a\\n\", \"[\"]\n", "FROM a\nVOLUME [\"a\\u000a\", \"[\"]\n");
    check_text("FROM a\nRUN -- --x\n", "FROM a\nRUN -- --x\n");
    check_text("\n# escape=`\nFROM a\n", "\n# escape=`\nFROM a\n");
}

#[test]
fn a_flag_that_hides_a_heredoc_still_does() {
    // In the first two, the shell words end in a mistake, so that no heredoc is looked for.
    check_text(
        "FROM a\nRUN --mount=id=${x <<E\nRUN x\n",
        "FROM a\nRUN --mount=id=${x <<E\nRUN x\n",
    );
    check_text(
        "FROM a\nRUN --mount=id='\\'' <<E\nRUN x\n",
        "FROM a\nRUN --mount=id='\\'' <<E\nRUN x\n",
    );
    check_text(
        "FROM a\nRUN --mount='id=${x' <<E\nx\nE\n",
        "FROM a\nRUN --mount='id=${x' <<E\nx\nE\n",
    );
    check_text(
        "FROM a\nRUN --mount='a\\' <<X b' echo '\nx\nX\n",
        "FROM a\nRUN --mount='a\\' <<X b' echo '\nx\nX\n",
    );
}

#[test]
fn long_lines_are_broken() {
    let long = "x".repeat(60_000);
    let escapes = "\\".repeat(60_000);
    let blanks = " ".repeat(60_000);
    for text in [
        format!("FROM a\nRUN {long}\\\n{long}\\\n{long}\n"),
        format!("FROM a\nRUN {long}\\\n {escapes}x\\\n{blanks}#\n"),
        format!("FROM a\nENV a={long} \\\n b={long} \\\n c=#{long}\n"),
        format!("FROM a\nCMD [\"{long}\", \\\n\"{long}\"]\n"),
        format!("FROM a\nRUN --mount=id={long}\\\n{long} \\\n <<E {long}\nx\nE\n"),
        format!("FROM a\nONBUILD COPY {long} \\\n{long} <<E x\nE\n"),
        format!("FROM a\nUSER {}\n", "é".repeat(30_000) + "\\\n" + &"é".repeat(30_000)),
        format!("#{}\nFROM a\n", "c".repeat(65_534)),
        format!("#syntax={}\nFROM a\n", "c".repeat(65_527)),
    ] {
        assert!(check(text.as_bytes()), "{:?}", parser::parse(text.as_bytes()).unwrap_err().errors);
    }
}

/// All files below a folder whose names say that they are Dockerfiles.
fn dockerfiles(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            dockerfiles(&path, found);
        } else if path.file_name().unwrap().to_string_lossy().contains("Dockerfile") {
            found.push(path);
        }
    }
}

#[test]
fn every_sample_and_conformance_case_is_printed() {
    let mut files = Vec::new();
    dockerfiles(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata"), &mut files);
    let printed = files.iter().filter(|path| check(&fs_err::read(path).unwrap())).count();
    assert!(printed > 250, "only {printed} of {}", files.len());
}

proptest! {
    #[test]
    fn any_dockerfile_is_printed(text in support::any_dockerfile()) {
        check(text.as_bytes());
    }

    /// Cut anywhere, most texts are still valid, in unusual ways.
    #[test]
    fn any_damaged_dockerfile_is_printed(text in support::any_dockerfile(), at in any::<prop::sample::Index>()) {
        let cut = text.floor_char_boundary(at.index(text.len() + 1));
        check(&text.as_bytes()[..cut]);
        check(format!("FROM a\n{}", &text[cut..]).as_bytes());
    }
}

/// Names what of the syntax a tree has.
fn features(tree: &Dockerfile) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut note = |name: &str| {
        found.insert(name.to_owned());
    };
    if tree.directives.escape == parser::Escape::Backtick {
        note("backtick");
    }
    if tree.directives.syntax.is_some() && tree.directives.check.is_some() {
        note("directives");
    }
    for warning in &tree.warnings {
        note(&format!("{:?}", warning.kind));
    }
    for it in &tree.instructions {
        note(it.kind.name());
        let shown = format!("{:?}", it.kind);
        let heredoc = |note: &mut dyn FnMut(&str), heredoc: &Heredoc| {
            note(if heredoc.chomp { "chomped" } else { "not chomped" });
            note(if heredoc.expand { "expanded" } else { "not expanded" });
            note(if heredoc.fd.is_some() { "descriptor" } else { "no descriptor" });
        };
        if !it.comments.is_empty() {
            note("comments");
        }
        if it.keyword.text != it.kind.name() {
            note("keyword case");
        }
        if it.lines.start != it.lines.end && !it.text.contains("<<") {
            note("continuation");
        }
        if !shown.is_ascii() {
            note("unicode");
        }
        match &it.kind {
            InstructionKind::Run(run) => {
                note(if run.mounts.is_empty() { "no mount" } else { "mount" });
                match &run.command {
                    Command::Exec(_) => note("exec form"),
                    Command::Shell(shell) => {
                        note(if shell.sole_heredoc().is_some() {
                            "sole heredoc"
                        } else {
                            "shell form"
                        });
                        note(&format!("{} heredocs", shell.heredocs.len()));
                        shell.heredocs.iter().for_each(|it| heredoc(&mut note, it));
                    }
                }
            }
            InstructionKind::Copy(copy) => {
                note(if copy.sources.files.is_empty() { "paths only" } else { "inline files" });
                note(if copy.sources.paths.is_empty() { "inline files only" } else { "paths" });
                copy.sources.files.iter().for_each(|it| heredoc(&mut note, &it.heredoc));
                if it.text.contains(" [")
                    && copy.sources.paths.iter().any(|path| path.text.contains(' '))
                {
                    note("paths with blanks");
                }
            }
            InstructionKind::Cmd(Command::Shell(shell)) if shell.text.starts_with('[') => {
                note("JSON that falls back to shell");
            }
            InstructionKind::Env(pairs) => note(if pairs.legacy { "legacy" } else { "modern" }),
            InstructionKind::Onbuild(onbuild) if onbuild.trigger.contains('\n') => {
                note("trigger with heredoc")
            }
            InstructionKind::Healthcheck(Healthcheck::None) => note("no health check"),
            _ => {}
        }
    }
    found
}

/// A generator that makes nothing but errors, or leaves something out, would prove nothing.
#[test]
fn the_generator_covers_the_syntax() {
    let mut runner = TestRunner::deterministic();
    let strategy = support::any_dockerfile();
    let (mut seen, mut valid) = (BTreeSet::new(), 0);
    for _ in 0..2000 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        if let Ok(tree) = parser::parse(text.as_bytes()) {
            seen.extend(features(&tree));
            valid += 1;
        }
    }
    assert!(valid > 1200, "only {valid} are valid");
    insta::assert_debug_snapshot!(seen);
}
