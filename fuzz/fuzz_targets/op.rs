//! Ops in BuildKit's wire form: what is decoded is encoded as something that decodes the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llb::pb::{decode_op, encode_op};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = decode_op(bytes) {
        let again = encode_op(&decoded.op, &decoded.inputs, decoded.platform.as_ref());
        assert_eq!(decode_op(&again).ok(), Some(decoded));
    }
});
