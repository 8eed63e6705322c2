//! Definitions in BuildKit's wire form: what is decoded is encoded as something that decodes the same, and can
//! be shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llb::pb::{decode_definition, definition_json, encode_definition};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = decode_definition(bytes) {
        let again = encode_definition(&decoded);
        let ops = definition_json(&decoded).len();
        assert_eq!(ops == 0, decoded.result.is_none());
        assert_eq!(decode_definition(&again).ok(), Some(decoded));
    }
});
