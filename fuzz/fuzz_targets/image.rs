//! Image documents: what is read is written as something that reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llb::image::{ImageConfig, Index, Manifest};

fuzz_target!(|text: &[u8]| {
    if let Ok(config) = ImageConfig::from_json(text) {
        assert_eq!(ImageConfig::from_json(&config.to_json()).ok(), Some(config));
    }
    if let Ok(manifest) = Manifest::from_json(text) {
        assert_eq!(Manifest::from_json(&manifest.to_json()).ok(), Some(manifest));
    }
    if let Ok(index) = Index::from_json(text) {
        assert_eq!(Index::from_json(&index.to_json()).ok(), Some(index));
    }
});
