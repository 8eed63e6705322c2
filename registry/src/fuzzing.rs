//! What the fuzz targets call: everything here that reads the bytes of registries, and files that users write.
//!
//! Each function checks what must hold whatever the input is, and panics where it does not.

use std::path::Path;

use llb::{Digest, Platform, Reference};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderValue, RANGE, RETRY_AFTER};

use crate::auth;
use crate::challenge::{self, Challenge};
use crate::config::endpoints_in;
use crate::credential;
use crate::manifest::{self, Document, Parsed};
use crate::options::is_private_to_machine;
use crate::session::{clean, parse_said, retry_after};
use crate::{download, notice, transport, upload};

/// The body of an answer: a manifest or index, a token, or an error.
pub fn body(bytes: &[u8]) {
    let _ = auth::token_in(bytes);
    if let Some(said) = parse_said(bytes) {
        shown(&clean(&said.code));
    }
    let Ok(document) = Document::new(bytes.to_vec(), "") else { return };
    let digest = document.descriptor.digest;
    assert_eq!(Digest::of(bytes), digest);
    assert_eq!(document.descriptor.size, bytes.len() as u64);
    assert!(Document::known(bytes.to_vec(), digest).is_some());
    let other = Digest::of(b"other");
    assert!(digest == other || Document::known(bytes.to_vec(), other).is_none());
    let Ok(Parsed::Index(index)) = document.parse() else { return };
    for platform in ["linux/amd64", "linux/arm/v6", "windows/amd64"] {
        let Ok(platform) = Platform::parse(platform) else { continue };
        match manifest::choose(&index, &platform, "app") {
            Ok(chosen) => assert!(index.manifests.contains(chosen)),
            Err(error) => assert!(error.to_string().len() < 30 * 1000),
        }
    }
}

/// The value of a header, whichever it is.
pub fn header(text: &str) {
    for offer in challenge::parse(text) {
        if let Challenge::Bearer { realm, .. } = offer {
            assert!(!realm.is_empty());
        }
    }
    let _ = download::content_range(text);
    if let Some(warning) = notice::warning(text) {
        shown(&warning);
    }
    shown(&clean(text));
    if let Ok(value) = HeaderValue::from_str(text) {
        let headers: HeaderMap =
            [(RETRY_AFTER, value.clone()), (RANGE, value)].into_iter().collect();
        let _ = retry_after(&headers);
        let _ = upload::opened::stored(&headers);
    }
    for base in ["https://r.example/v2/", "http://r.example:5000/v2/", "http://127.0.0.1:5000/v2/"]
    {
        let Ok(base) = base.parse::<Url>() else { continue };
        let Ok(target) = transport::follow(&base, text) else { continue };
        assert!(["http", "https"].contains(&target.scheme()), "{target}");
        assert!(base.scheme() == "http" || target.scheme() == "https", "{target}");
        let is_private = |url: &Url| url.host_str().is_some_and(is_private_to_machine);
        assert!(is_private(&base) || !is_private(&target), "{target}");
    }
}

/// A `registries.conf`, a `hosts.toml`, and a file with credentials.
pub fn file(text: &str) {
    for name in ["docker.io/library/debian:1", "r.example:5000/team/app", "a.r.example/app"] {
        let Ok(reference) = Reference::parse(name) else { continue };
        for moved in endpoints_in(text, &reference) {
            // A host without dot and port is one in a file, and none in a name.
            let is_bare = !moved.host().contains(['.', ':']);
            let again = Reference::parse(&moved.to_string());
            assert!(is_bare || again.as_ref() == Ok(&moved), "{moved} is no name");
            assert_eq!((moved.tag(), moved.digest()), (reference.tag(), reference.digest()));
        }
        // No helper is run: none can be named in what is no configuration of helpers.
        if !text.contains("cred") {
            let _ = credential::in_text(
                Path::new("auth.json"),
                text.as_bytes(),
                reference.host(),
                "app",
            );
        }
    }
}

/// What is shown on a terminal moves no cursor.
fn shown(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
