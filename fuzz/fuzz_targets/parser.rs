//! Any bytes are a Dockerfile or give errors, and every span is one of the text.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parser::parse(bytes) {
        Ok(file) => {
            for instruction in &file.instructions {
                assert!(file.text.get(instruction.span.range()).is_some());
                assert!(file.text.get(instruction.keyword.span.range()).is_some());
                assert!(instruction.lines.start <= instruction.lines.end);
                let _ = parser::parse_trigger(&instruction.text);
            }
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty());
            for error in &errors.errors {
                let at = error.at.offset();
                assert!(errors.text.get(at..at + error.at.len()).is_some());
            }
        }
    }
});
