//! Ignore files and patterns: any text is read or refused, a match is one by the letter of the rules, a walk that
//! carries its state along sees what a look at the whole path sees, and what a walk leaves out would not show.

#![no_main]

#[path = "../../tree/tests/reference/mod.rs"]
mod reference;

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tree::pattern::{Inherited, Patterns, glob_match};

const PATHS: &[&str] =
    &["a", "a/b", "a/b/c.txt", ".git/config", "src/a*b", "node_modules/x/y", "\u{e9}/[x]"];

/// Wildcards in a pattern and letters in a path from which on the letter of the rules takes too long.
const MANY: usize = 6;
const LONG: usize = 24;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let patterns = Patterns::parse_ignore_file(text.as_bytes());
    let rules = reference::read(&text);
    assert_eq!(patterns.is_ok(), rules.is_some());
    for line in text.lines() {
        let matched = glob_match(line, Path::new("a/b.txt")).ok();
        if is_cheap(line) {
            assert_eq!(matched, reference::glob(line, "a/b.txt"), "{line:?}");
        }
    }
    let (Ok(patterns), Some(rules)) = (patterns, rules) else { return };
    let is_cheap = rules.iter().all(|rule| is_cheap(&rule.pattern));
    let own = text.lines().next().unwrap_or_default().trim_start_matches(['!', '/']).to_owned();
    for path in PATHS.iter().copied().chain([own.as_str()]) {
        let path: &Path = &Path::new(path).components().collect::<PathBuf>();
        if path.as_os_str().is_empty()
            || path.components().any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            continue;
        }
        let (mut at, mut ignored, mut state) = (PathBuf::new(), false, Inherited::default());
        let mut is_left_out = false;
        for name in path {
            // A walk does not enter a folder below which nothing can show.
            is_left_out |= ignored && !patterns.may_reinclude_below(&at);
            at.push(name);
            (ignored, state) = patterns.step(&at, &state);
            assert!(ignored || !is_left_out, "{at:?} shows below a folder that is left out");
        }
        assert_eq!(ignored, patterns.matches(path), "{path:?}");
        let plain = patterns.matches_or_parent(path);
        let shown = path.to_string_lossy();
        if is_cheap && shown.len() <= LONG {
            assert_eq!(Some(ignored), reference::is_ignored_on_a_walk(&rules, &shown), "{path:?}");
            assert_eq!(Some(plain), reference::is_ignored(&rules, &shown), "{path:?}");
        }
    }
});

fn is_cheap(pattern: &str) -> bool {
    pattern.matches('*').count() <= MANY
}
