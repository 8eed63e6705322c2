//! Bodies of the answers of registries: manifests, indexes, tokens, errors.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry::fuzzing::body(bytes));
