//! Files about registries: `registries.conf`, `hosts.toml`, and files with credentials.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| registry::fuzzing::file(text));
