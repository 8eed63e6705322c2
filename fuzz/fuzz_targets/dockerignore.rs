//! Ignore files and patterns: any text is read or refused, a walk that carries its state along sees what a look
//! at the whole path sees, and what a walk leaves out would not show.

#![no_main]

use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use tree::pattern::{Inherited, Patterns, glob_match};

const PATHS: &[&str] =
    &["a", "a/b", "a/b/c.txt", ".git/config", "src/a*b", "node_modules/x/y", "\u{e9}/[x]"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(patterns) = Patterns::parse_ignore_file(bytes) else { return };
    let text = String::from_utf8_lossy(bytes);
    let own = text.lines().next().unwrap_or_default().trim_start_matches(['!', '/']).to_owned();
    for path in PATHS.iter().copied().chain([own.as_str()]) {
        let path: &Path = &Path::new(path).components().collect::<PathBuf>();
        if path.as_os_str().is_empty()
            || path.components().any(|part| !matches!(part, std::path::Component::Normal(_)))
        {
            continue;
        }
        let _ = patterns.matches_or_parent(path);
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
    }
    for line in text.lines() {
        let _ = glob_match(line, Path::new("a/b.txt"));
    }
});
