//! A registry that takes one blob.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use llb::Digest;

use crate::support::{Seen, Server, answer};

/// What a registry keeps of uploads.
#[derive(Default)]
pub(crate) struct Kept {
    /// Bytes of the upload that goes on.
    pub(crate) upload: Vec<u8>,
    pub(crate) uploads: usize,
    pub(crate) blob: Option<Vec<u8>>,
}

/// A registry for one blob, whose answers a test may replace: `twist` gets the request before and after it had
/// its effect.
pub(crate) fn registry(
    headers: &'static [&'static str],
    twist: impl Fn(&Seen, &mut Kept, bool) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Kept>>) {
    let kept = Arc::new(Mutex::new(Kept::default()));
    let state = Arc::clone(&kept);
    let server = Server::start(move |seen, _| {
        let mut kept = state.lock().unwrap();
        if let Some(answer) = twist(seen, &mut kept, false) {
            return answer;
        }
        let usual = usual(seen, &mut kept, headers);
        twist(seen, &mut kept, true).unwrap_or(usual)
    });
    (server, kept)
}

fn usual(seen: &Seen, kept: &mut Kept, headers: &[&str]) -> Vec<u8> {
    let range = |kept: &Kept| format!("range: 0-{}", kept.upload.len().saturating_sub(1));
    match seen.method() {
        "HEAD" => match &kept.blob {
            Some(_) => answer("200 OK", &[], b""),
            None => answer("404 Not Found", &[], b""),
        },
        "POST" => {
            kept.upload.clear();
            kept.uploads += 1;
            let location = format!("location: /upload/{}?part=0", kept.uploads);
            answer("202 Accepted", &[&[location.as_str()], headers].concat(), b"")
        }
        "DELETE" => {
            kept.upload.clear();
            answer("204 No Content", &[], b"")
        }
        "GET" => answer("204 No Content", &["location: /upload/1?part=x", &range(kept)], b""),
        "PATCH" => {
            let start: usize =
                seen.header("content-range").split('-').next().unwrap().parse().unwrap();
            if start != kept.upload.len() {
                return answer("416 Range Not Satisfiable", &[&range(kept)], b"");
            }
            kept.upload.extend_from_slice(&seen.body);
            let location = format!("location: /upload/{}?part={}", kept.uploads, kept.upload.len());
            answer("202 Accepted", &[&location, &range(kept)], b"")
        }
        _ => {
            kept.upload.extend_from_slice(&seen.body);
            let digest = seen.line.split("digest=").nth(1).unwrap().replace("%3A", ":");
            if Digest::of(&kept.upload).to_string() != digest {
                return answer(
                    "400 Bad Request",
                    &[],
                    br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#,
                );
            }
            kept.blob = Some(std::mem::take(&mut kept.upload));
            answer("201 Created", &[], b"")
        }
    }
}
