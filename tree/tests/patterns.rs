//! The matcher of patterns against the rules, read slowly.

mod reference;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use reference::Rule;
use tree::pattern::{Inherited, PatternError, Patterns, glob_match};

/// Few letters, so that much matches; one that is wide, one that means something in patterns.
fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => "[ab]", 1 => "[abé*]{1,3}"];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

/// A part of a pattern, mostly well-formed.
fn any_piece() -> impl Strategy<Value = String> {
    let simple = vec!["a", "b", "a", "b", "*", "?", "[a]", "[^a]"];
    let other = vec![
        "é",
        "ab",
        "[a-é]",
        "[^b-z*]",
        "[\\*a]",
        "[a-b*-é]",
        "\\*",
        "\\a",
        "]",
        "-",
        "**",
        ".",
        "[^/]",
        "\\\\",
    ];
    let malformed = vec!["[a", "[]", "[a-]", "\\"];
    let pieces = prop_oneof![40 => select(simple), 20 => select(other), 1 => select(malformed)];
    prop_oneof![
        2 => pieces.clone().prop_map(str::to_owned),
        1 => prop::collection::vec(pieces, 1..4).prop_map(|pieces| pieces.concat()),
    ]
}

fn any_pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        12 => any_piece(),
        2 => Just("**".to_owned()),
        1 => select(vec![".", "..", "", "\t"]).prop_map(str::to_owned),
    ];
    let parts = prop::collection::vec(part, 1..4);
    (select(vec!["", "", "", "/", "./"]), parts, select(vec!["", "", "", "/"]))
        .prop_map(|(start, parts, end)| format!("{start}{}{end}", parts.join("/")))
}

fn any_ignore_file() -> impl Strategy<Value = String> {
    let line = (
        select(vec!["", "", "", "!", " ! ", "  ", "#"]),
        any_pattern(),
        select(vec!["", "\r", " \t"]),
    )
        .prop_map(|(start, pattern, end)| format!("{start}{pattern}{end}"));
    let line =
        prop_oneof![9 => line, 1 => select(vec!["", " ", "# a", "!", "/"]).prop_map(str::to_owned)];
    (select(vec!["", "", "\u{feff}"]), prop::collection::vec(line, 0..5))
        .prop_map(|(start, lines)| format!("{start}{}", lines.join("\n")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn ignore_files_say_what_the_rules_say(text in any_ignore_file(), path in any_path()) {
        let rules = reference::read(&text);
        let patterns = Patterns::parse_ignore_file(text.as_bytes()).ok();
        prop_assert_eq!(rules.is_some(), patterns.is_some());
        if let (Some(rules), Some(patterns)) = (rules, patterns) {
            let place = Path::new(&path);
            prop_assert_eq!(Some(patterns.matches_or_parent(place)), reference::is_ignored(&rules, &path));
            prop_assert_eq!(Some(patterns.matches(place)), reference::is_ignored_on_a_walk(&rules, &path));
        }
    }

    /// A walk that carries its state along, part by part, and what it may leave out.
    #[test]
    fn a_walk_sees_what_the_rules_say(text in any_ignore_file(), path in any_path()) {
        let Some(rules) = reference::read(&text) else { return Ok(()) };
        let patterns = Patterns::parse_ignore_file(text.as_bytes()).unwrap();
        let mut inherited = Inherited::default();
        for at in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            let here = &path[..at];
            let (matched, next) = patterns.step(Path::new(here), &inherited);
            prop_assert_eq!(Some(matched), reference::is_ignored_on_a_walk(&rules, here), "{}", here);
            inherited = next;
        }
        let matches = |rule: &Rule, negated| {
            rule.negated == negated && reference::ignore_pattern(&rule.pattern, &path) == Some(true)
        };
        for dir in path.match_indices('/').map(|(at, _)| Path::new(&path[..at])) {
            prop_assert!(patterns.may_match_below(dir) || !rules.iter().any(|rule| matches(rule, false)));
            prop_assert!(patterns.may_reinclude_below(dir) || !rules.iter().any(|rule| matches(rule, true)));
        }
    }

    #[test]
    fn globs_are_those_of_go(pattern in any_pattern(), path in any_path()) {
        let actual = match glob_match(&pattern, Path::new(&path)) {
            Ok(matched) => Some(matched),
            Err(PatternError::Syntax { pattern: named }) => {
                prop_assert_eq!(&named, &pattern);
                None
            }
            Err(other) => panic!("{other}"),
        };
        prop_assert_eq!(actual, reference::glob(&pattern, &path));
    }
}

/// The generators would prove nothing if hardly anything matched.
#[test]
fn the_generators_make_matches_and_mismatches() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let (mut ignored, mut kept, mut differ, mut malformed, mut globbed) = (0, 0, 0, 0, 0);
    for _ in 0..5000 {
        let (text, path, glob) =
            (any_ignore_file(), any_path(), any_pattern()).new_tree(&mut runner).unwrap().current();
        globbed += u32::from(reference::glob(&glob, &path) == Some(true));
        let Some(rules) = reference::read(&text) else {
            malformed += 1;
            continue;
        };
        let plain = reference::is_ignored(&rules, &path).unwrap();
        ignored += u32::from(plain);
        kept += u32::from(!plain && !rules.is_empty());
        differ += u32::from(reference::is_ignored_on_a_walk(&rules, &path) != Some(plain));
    }
    let counts = [ignored, kept, differ, malformed, globbed];
    assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
}
