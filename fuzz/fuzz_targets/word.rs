//! Any text is processed as shell words, or refused, with either escape.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::word::{Mode, expand, expand_heredoc, expand_words};

/// A few variables with troublesome values.
fn lookup(name: &str) -> Option<String> {
    match name {
        "a" => Some("a b*?\\/'\"".to_owned()),
        "b" => Some(String::new()),
        "c" => Some("x".repeat(100)),
        _ => None,
    }
}

fuzz_target!(|text: &str| {
    let raw = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Mode::default() };
    for escape in ['\\', '`'] {
        for mode in [Mode::default(), raw] {
            let _ = expand(text, escape, &lookup, mode);
            let _ = expand_words(text, escape, &lookup, mode);
        }
    }
    let _ = expand_heredoc(text, &lookup);
    let _ =
        parser::mount::parse(text, &mut |value| Ok::<_, parser::mount::MountError>(value.into()));
});
