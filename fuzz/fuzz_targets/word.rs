//! Any text is processed as shell words, or refused, with either escape: as one word and as several the answer is
//! the same, and a text without variables does not grow. Mount options are read the same before and after expansion.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::mount::{self, MountError};
use parser::word::{Budget, MAX_SIZE, Mode, expand, expand_heredoc, expand_words};

/// A few variables with troublesome values.
fn lookup(name: &str) -> Option<String> {
    match name {
        "a" => Some("a b*?\\/'\"".to_owned()),
        "b" => Some(String::new()),
        "c" => Some("x".repeat(100)),
        "d" => Some("é\n".repeat(3)),
        _ => None,
    }
}

fn budget() -> Budget {
    Budget::new(1 << 25, MAX_SIZE)
}

fuzz_target!(|text: &str| {
    let raw = Mode { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Mode::default() };
    for escape in ['\\', '`'] {
        for mode in [Mode::default(), raw] {
            check_words(text, escape, mode);
        }
        check_quoting(text, escape);
        if let Ok(expanded) = expand(text, escape, &|_| None, Mode::default(), &budget()) {
            assert!(expanded.text.len() <= text.len(), "it grows: {:?}", expanded.text);
            assert!(expanded.used.is_empty());
        }
    }
    if let Ok(expanded) = expand_heredoc(text, &lookup, &budget()) {
        assert!(expanded.text.len() <= MAX_SIZE);
        if !text.contains(['$', '\\']) {
            assert_eq!(expanded.text, text);
        }
    }
    check_mount(text);
});

/// Words are parts of the text, in order, and blanks are all that is between them.
fn check_words(text: &str, escape: char, mode: Mode) {
    let (whole, words) = match (
        expand(text, escape, &lookup, mode, &budget()),
        expand_words(text, escape, &lookup, mode, &budget()),
    ) {
        (Ok(whole), Ok(words)) => (whole, words),
        (whole, words) => {
            assert_eq!(whole.err().map(|it| it.cause), words.err().map(|it| it.cause));
            return;
        }
    };
    assert!(whole.text.len() <= MAX_SIZE);
    assert_eq!((&whole.used, &whole.unset), (&words.used, &words.unset));
    assert!(whole.used.iter().chain(&whole.unset).all(|name| text.contains(name.as_str())));
    let mut rest = whole.text.as_str();
    for word in &words.words {
        assert!(!word.is_empty());
        let (between, after) = rest.split_once(word.as_str()).expect("a word of the text");
        assert!(between.trim().is_empty(), "{between:?} is no word");
        rest = after;
    }
    assert!(rest.trim().is_empty(), "{rest:?} is no word");
}

/// What is quoted or escaped as a whole is what it was.
fn check_quoting(text: &str, escape: char) {
    let read =
        |text: &str| expand(text, escape, &lookup, Mode::default(), &budget()).map(|it| it.text);
    let escaped: String = text.chars().flat_map(|c| [escape, c]).collect();
    assert_eq!(read(&escaped).as_deref(), Ok(text));
    if !text.contains('\'') {
        assert_eq!(read(&format!("'{text}'")).as_deref(), Ok(text));
    }
    if !text.contains(['$', '"', '\'', '<', escape]) {
        assert_eq!(read(text).as_deref(), Ok(text));
    }
}

fn check_mount(text: &str) {
    let from = mount::from(text);
    let parsed = mount::parse(text, &mut |value| Ok::<_, MountError>(value.to_owned()));
    if let (Ok(from), Ok(parsed)) = (&from, &parsed) {
        assert_eq!(from, &parsed.from);
    }
    let is_no_record = |error: &MountError| matches!(error, MountError::Csv(_));
    assert_eq!(from.err().filter(is_no_record), parsed.err().filter(is_no_record));
}
