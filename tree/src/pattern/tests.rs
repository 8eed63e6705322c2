use std::path::Path;

use proptest::prelude::*;

use super::{PatternError, Patterns, glob_match};

#[track_caller]
fn check(patterns: &[&str], yes: &[&str], no: &[&str]) {
    let compiled = Patterns::new(patterns).unwrap();
    for path in yes {
        assert!(compiled.matches(Path::new(path)), "{patterns:?} should match {path}");
    }
    for path in no {
        assert!(!compiled.matches(Path::new(path)), "{patterns:?} should not match {path}");
    }
}

#[test]
fn a_pattern_is_anchored_and_covers_what_is_below() {
    check(&["a"], &["a", "a/b", "a/b/c"], &["b", "b/a", "ab"]);
    check(&["a/b"], &["a/b", "a/b/c"], &["a", "a/bc"]);
    check(&["./a/../b/"], &["b", "b/c"], &["a"]);
    check(&["."], &[], &["a", ".a"]);
}

#[test]
fn wildcards_stop_at_slashes_and_two_stars_do_not() {
    check(&["*"], &["a", "a/b"], &[]);
    check(&["*.md"], &["x.md", ".md"], &["a/x.md", "x.mdx"]);
    check(&["*/*.md"], &["a/x.md", "a/x.md/y"], &["x.md", "a/b/x.md"]);
    check(&["a?c"], &["abc", "aéc"], &["ac", "a/c"]);
    check(&["**"], &["a", "a/b"], &[]);
    check(&["**/x"], &["x", "a/x", "a/b/x", "a/x/y"], &["ax", "a/bx"]);
    check(&["**/*.go"], &["x.go", "a/x.go", "a/b/x.go"], &["x.goo"]);
    check(&["a/**"], &["a/b", "a/b/c"], &["a", "ab"]);
    check(&["a/**/b"], &["a/b", "a/x/b", "a/x/y/b"], &["a/xb", "ab"]);
    check(&["**/a/**"], &["a/b", "x/a/b"], &["a", "x/a"]);
    check(&["a**"], &["a", "ab", "ab/c", "a/b"], &["b"]);
}

#[test]
fn two_stars_before_plain_text_match_any_ending() {
    check(&["**.txt"], &["x.txt", "a/x.txt", ".txt"], &["x.txt2"]);
    check(&["**.t*"], &[".txt", "a/.txt"], &["x.txt"]);
}

#[test]
fn classes_and_escapes() {
    check(&["[a-c]x"], &["ax", "cx"], &["dx"]);
    check(&["[^a]x"], &["bx"], &["ax"]);
    check(&["a\\*b"], &["a*b"], &["axb"]);
    check(&["a.b"], &["a.b"], &["axb"]);
    check(&["a(b){c}|$+^"], &["a(b){c}|$+^"], &["a"]);
    check(&["a]"], &["a]"], &["a"]);
}

#[test]
fn the_last_match_decides() {
    check(&["dir", "!dir/keep"], &["dir", "dir/x"], &["dir/keep", "dir/keep/x"]);
    check(&["*", "!a"], &["b"], &["a", "a/b"]);
    check(&["!a", "a"], &["a"], &["b"]);
    check(&["a", "!a/b", "a/b/c"], &["a", "a/x", "a/b/c"], &["a/b", "a/b/d"]);
}

#[test]
fn a_walk_forgets_a_negation_that_had_nothing_to_take_back() {
    let patterns = Patterns::new(&["a/b", "!a"]).unwrap();
    assert!(patterns.matches(Path::new("a/b")));
    assert!(!patterns.matches_or_parent(Path::new("a/b")));
}

#[test]
fn malformed_patterns_are_errors() {
    for pattern in ["[", "[]", "[a", "a[", "[a-]", "[-a]", "\\", "a\\", "[^]", "[]a]"] {
        let error = Patterns::new(&[pattern]).unwrap_err();
        assert_eq!(error, PatternError::Syntax { pattern: pattern.to_owned() });
        assert!(glob_match(pattern, Path::new("zzz")).is_err(), "{pattern}");
    }
    assert_eq!(Patterns::new(&["!"]).unwrap_err().to_string(), "illegal exclusion pattern: \"!\"");
}

#[test]
fn ignore_files() {
    let text = b"\xef\xbb\xbf# comment\r\n\n  /abs/ \r\n ! keep/../kept \n #not a comment\n./x//y/.\n!/z\n/\n";
    assert_eq!(
        super::ignore_file::read(text),
        ["abs", "!kept", "#not a comment", "x/y", "!z", "/"].map(str::to_owned)
    );
    assert_eq!(Patterns::parse_ignore_file(b"a\n!\n").unwrap_err(), PatternError::LoneNegation);
    assert!(Patterns::parse_ignore_file(b"# a\n\n").unwrap().is_empty());
}

#[test]
fn glob_match_is_go_filepath_match() {
    #[track_caller]
    fn check(pattern: &str, path: &str, expect: bool) {
        assert_eq!(glob_match(pattern, Path::new(path)), Ok(expect), "{pattern} on {path}");
    }
    check("abc", "abc", true);
    check("*c", "abc", true);
    check("a*/b", "a/c/b", false);
    check("a*b*c*d*e*/f", "axbxcxdxe/f", true);
    check("a*b?c*x", "abxbbxdbxebxczzx", true);
    check("a*b?c*x", "abxbbxdbxebxczzy", false);
    check("ab[^e-g]", "abc", true);
    check("a[^a]b", "a☺b", true);
    check("a???b", "a☺b", false);
    check("[a-ζ]*", "α", true);
    check("a?b", "a/b", false);
    check("**", "a/b", false);
    check("**", "ab", true);
    check("*x", "xxx", true);
    check("", "", true);
    check("\\[x", "[x", true);
}

#[test]
fn pruning_never_hides_a_match() {
    let patterns = Patterns::new(&["src", "!src/a/*.rs", "!**/keep"]).unwrap();
    assert!(patterns.may_reinclude_below(Path::new("src")));
    assert!(patterns.may_reinclude_below(Path::new("other")));
    let patterns = Patterns::new(&["*", "!src/a/*.rs"]).unwrap();
    assert!(patterns.may_reinclude_below(Path::new("src/a")));
    assert!(!patterns.may_reinclude_below(Path::new("src/b")));
    assert!(!patterns.may_reinclude_below(Path::new("src/a/b")));
    assert!(patterns.may_match_below(Path::new("")));
    assert!(!patterns.may_match_below(Path::new("x")));
}

#[test]
fn a_hostile_pattern_is_not_slow() {
    let pattern = "*a".repeat(5000) + "**/x/".repeat(200).as_str() + "b";
    let patterns = Patterns::new(&[pattern]).unwrap();
    assert!(!patterns.matches(Path::new(&"a".repeat(500))));
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_an_error(text in ".{0,20}", path in ".{0,20}") {
        if let Ok(patterns) = Patterns::new(&[text]) {
            let _ = patterns.matches(Path::new(&path));
        }
    }
}
