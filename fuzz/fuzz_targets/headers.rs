//! Headers of the answers of registries: challenges, locations, ranges, pauses, warnings.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| registry::fuzzing::header(text));
