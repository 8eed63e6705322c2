//! Uploads to registries that want chunks, lose what they were sent, or do not say what they did.

#[path = "support/keeper.rs"]
mod keeper;
mod support;

use std::io::Read;
use std::sync::{Arc, Mutex};

use keeper::registry;
use llb::Digest;
use llb::image::media_type;
use registry::{Client, ClientOptions, Error, Pushed, Transfer, Watch};
use support::{Server, answer, chain, descriptor, manifest, noise, options};

fn push(client: &Client, server: &Server, bytes: &[u8]) -> Result<Pushed, Error> {
    let owned = bytes.to_vec();
    let source = move || Ok(Box::new(std::io::Cursor::new(owned.clone())) as Box<dyn Read + Send>);
    client.push_blob(&server.reference("team/a"), &descriptor(bytes), source, None)
}

fn client() -> Client {
    Client::new(ClientOptions { chunk_size: 100_000, ..options() })
}

fn ranges(server: &Server) -> Vec<String> {
    server.of("PATCH").iter().map(|seen| seen.header("content-range").to_owned()).collect()
}

const TOO_LARGE: &str = "413 Payload Too Large";

#[test]
fn a_blob_that_is_too_large_for_one_request_goes_in_chunks() {
    let bytes = noise(250_000);
    let (server, kept) = registry(&[], |seen, _, after| {
        (!after && seen.method() == "PUT" && !seen.body.is_empty())
            .then(|| answer(TOO_LARGE, &[], b""))
    });
    assert_eq!(push(&client(), &server, &bytes).unwrap(), Pushed::Uploaded);
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
    assert_eq!(ranges(&server), ["0-99999", "100000-199999", "200000-249999"]);
    for (number, patch) in server.of("PATCH").iter().enumerate() {
        // Each goes where the answer before it said.
        assert_eq!(patch.line, format!("PATCH /upload/2?part={}", number * 100_000));
        assert_eq!(patch.header("content-type"), "application/octet-stream");
        assert_eq!(patch.header("content-length"), patch.body.len().to_string());
    }
    let last = server.of("PUT").pop().unwrap();
    assert!(last.line.starts_with("PUT /upload/2?part=250000&digest=sha256%3A"), "{}", last.line);
    assert_eq!(last.header("content-length"), "0");
    for post in server.of("POST") {
        assert_eq!(post.header("content-length"), "0");
    }
    // The upload whose bytes were refused is not left to the registry.
    let ended: Vec<String> = server.of("DELETE").into_iter().map(|seen| seen.line).collect();
    assert_eq!(ended, ["DELETE /upload/1?part=0"]);
}

#[test]
fn an_upload_that_is_given_up_is_cancelled() {
    let (server, _) = registry(&[], |seen, _, after| {
        (!after && seen.method() == "PUT").then(|| answer("403 Forbidden", &[], b""))
    });
    let error = push(&client(), &server, b"bytes").unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(server.of("DELETE").last().unwrap().line, "DELETE /upload/2?part=0");
    let (server, _) = registry(&[], |_, _, _| None);
    let unreadable = || Ok(Box::new(&b"short"[..]) as Box<dyn Read + Send>);
    let wanted = descriptor(b"longer than that");
    let error = client().push_blob(&server.reference("a"), &wanted, unreadable, None).unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error}");
    assert_eq!(server.of("DELETE").len(), 1);
}

#[test]
fn every_refusal_of_a_whole_blob_leads_to_chunks() {
    for status in ["405 Method Not Allowed", "411 Length Required", "501 Not Implemented"] {
        let (server, _) = registry(&[], move |seen, _, after| {
            (!after && seen.method() == "PUT" && !seen.body.is_empty())
                .then(|| answer(status, &[], b""))
        });
        push(&client(), &server, b"bytes").unwrap();
        assert_eq!(ranges(&server), ["0-4"], "{status}");
    }
}

#[test]
fn chunks_are_as_large_as_the_registry_wants() {
    let bytes = noise(400_000);
    let (server, _) = registry(&["oci-chunk-min-length: 150000"], |seen, _, after| {
        (!after && seen.method() == "PUT" && !seen.body.is_empty())
            .then(|| answer(TOO_LARGE, &[], b""))
    });
    push(&client(), &server, &bytes).unwrap();
    assert_eq!(ranges(&server), ["0-149999", "150000-299999", "300000-399999"]);
}

#[test]
fn chunks_that_are_too_large_get_smaller_down_to_a_limit() {
    let bytes = noise(200_000);
    let (server, kept) = registry(&[], |seen, _, after| {
        (!after && seen.body.len() > 70_000).then(|| answer(TOO_LARGE, &[], b""))
    });
    push(&client(), &server, &bytes).unwrap();
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
    let (server, _) = registry(&[], |seen, _, after| {
        (!after && !seen.body.is_empty()).then(|| answer(TOO_LARGE, &[], b""))
    });
    let error = push(&client(), &server, &bytes).unwrap_err().to_string();
    assert!(error.ends_with("answered 413 Payload Too Large"), "{error}");
    assert!(server.of("PATCH").len() < 10);
}

#[test]
fn a_chunk_that_broke_is_asked_for_and_only_the_rest_is_sent() {
    // The second chunk is lost whole, in part, or only its answer is.
    for stored in [0, 40_000, 100_000] {
        let bytes = noise(250_000);
        let broken = Mutex::new(false);
        let (server, kept) = registry(&[], move |seen, kept, after| {
            if !after && seen.method() == "PUT" && !seen.body.is_empty() {
                return Some(answer(TOO_LARGE, &[], b""));
            }
            let is_second = !after && seen.header("content-range") == "100000-199999";
            (is_second && !std::mem::replace(&mut *broken.lock().unwrap(), true)).then(|| {
                kept.upload.extend_from_slice(&seen.body[..stored]);
                Vec::new()
            })
        });
        push(&client(), &server, &bytes).unwrap();
        assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
        assert_eq!(kept.lock().unwrap().uploads, 2, "began again");
        assert_eq!(server.of("GET").len(), 1);
        let resumed = &ranges(&server)[2];
        assert!(resumed.starts_with(&format!("{}-", 100_000 + stored)), "{resumed}");
    }
}

#[test]
fn a_registry_that_stands_elsewhere_is_followed() {
    let bytes = noise(250_000);
    let forgot = Mutex::new(false);
    let (server, kept) = registry(&[], move |seen, kept, after| {
        if !after && seen.method() == "PUT" && !seen.body.is_empty() {
            return Some(answer(TOO_LARGE, &[], b""));
        }
        // It has lost half of the first chunk by the time of the second: 416.
        if !after
            && seen.header("content-range").starts_with("100000-")
            && !std::mem::replace(&mut *forgot.lock().unwrap(), true)
        {
            kept.upload.truncate(50_000);
        }
        None
    });
    push(&client(), &server, &bytes).unwrap();
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
    assert_eq!(ranges(&server)[2], "50000-149999");
}

#[test]
fn a_whole_blob_that_broke_goes_on_where_the_registry_has_it() {
    let bytes = noise(250_000);
    let (server, kept) = registry(&[], |seen, kept, after| {
        (!after && seen.method() == "PUT" && !seen.body.is_empty()).then(|| {
            kept.upload.extend_from_slice(&seen.body[..120_000]);
            Vec::new()
        })
    });
    push(&client(), &server, &bytes).unwrap();
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
    assert_eq!(ranges(&server), ["120000-249999"]);
    assert_eq!(kept.lock().unwrap().uploads, 1);
}

#[test]
fn an_upload_that_the_registry_has_forgotten_begins_again() {
    let bytes = noise(250_000);
    let broken = Mutex::new(false);
    let (server, kept) = registry(&[], move |seen, _, after| {
        if !after && seen.method() == "GET" {
            return Some(answer(
                "404 Not Found",
                &[],
                br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#,
            ));
        }
        let is_first = !after && seen.method() == "PUT";
        (is_first && !std::mem::replace(&mut *broken.lock().unwrap(), true)).then(Vec::new)
    });
    push(&client(), &server, &bytes).unwrap();
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&bytes));
    assert_eq!(kept.lock().unwrap().uploads, 2);
}

#[test]
fn a_commit_that_failed_after_its_effect_is_settled_by_head() {
    for lost in ["", "500 Internal Server Error", "416 Range Not Satisfiable"] {
        let (server, kept) = registry(&[], move |seen, _, after| {
            let bytes = if lost.is_empty() { Vec::new() } else { answer(lost, &[], b"") };
            (after && seen.method() == "PUT").then_some(bytes)
        });
        assert_eq!(push(&client(), &server, b"bytes").unwrap(), Pushed::Uploaded);
        assert_eq!((server.of("PUT").len(), kept.lock().unwrap().uploads), (1, 1), "{lost}");
    }
}

#[test]
fn a_registry_that_stores_other_bytes_than_were_sent_is_an_error() {
    let (server, _) = registry(&[], |seen, _, after| {
        let header = format!("docker-content-digest: {}", Digest::of(b"other"));
        (!after && seen.method() == "PUT").then(|| answer("201 Created", &[&header], b""))
    });
    let error = push(&client(), &server, b"bytes").unwrap_err();
    let expect = format!(
        "{}/team/a@{}: registry sent wrong bytes: sent {}, but it stored {}",
        server.host,
        Digest::of(b"bytes"),
        Digest::of(b"bytes"),
        Digest::of(b"other")
    );
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_repository_that_the_registry_does_not_know_is_named() {
    let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    let (server, _) = registry(&[], move |seen, _, _| {
        (seen.method() != "HEAD").then(|| answer("404 Not Found", &[], body))
    });
    let expect = format!(
        "{0}/team/a: registry `{0}` does not know this repository: server message: repository name not known to registry",
        server.host
    );
    assert_eq!(push(&client(), &server, b"bytes").unwrap_err().to_string(), expect);
    assert_eq!(server.of("POST").len(), 1);
    let name = server.reference("team/a:1");
    let error = client().push_manifest(&name, media_type::OCI_MANIFEST, &manifest()).unwrap_err();
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_manifest_is_pushed_as_what_it_says_it_is() {
    let server = Server::start(|_, _| answer("201 Created", &[], b""));
    let text = String::from_utf8(manifest()).unwrap();
    let text = text.replacen('{', &format!(r#"{{"mediaType":"{}","#, media_type::OCI_MANIFEST), 1);
    let pushed =
        client().push_manifest(&server.reference("a:1"), media_type::OCI_MANIFEST, text.as_bytes());
    assert_eq!(pushed.unwrap().digest, Digest::of(text.as_bytes()));
    let put = server.of("PUT").pop().unwrap();
    assert_eq!(put.line, "PUT /v2/a/manifests/1");
    assert_eq!(put.header("content-type"), media_type::OCI_MANIFEST);
    assert!(put.body == text.as_bytes());
}

/// Pushes a manifest to a registry that refuses it with `status`, and has it or not.
fn push_manifest(status: &'static str, has: bool) -> Result<(), String> {
    let server = Server::start(move |seen, _| match seen.method() {
        "HEAD" if has => {
            let digest = format!("docker-content-digest: {}", Digest::of(&manifest()));
            let kind = format!("content-type: {}", media_type::OCI_MANIFEST);
            answer("200 OK", &[&digest, &kind, "content-length: 9"], b"")
        }
        "HEAD" => answer("404 Not Found", &[], b""),
        _ if status.is_empty() => Vec::new(),
        _ => answer(status, &[], br#"{"errors":[{"code":"DENIED","message":"tag is immutable"}]}"#),
    });
    let name = server.reference("team/a:1");
    let pushed = client().push_manifest(&name, media_type::OCI_MANIFEST, &manifest());
    pushed.map(drop).map_err(|error| chain(&error).replace(&server.host, "[host]"))
}

#[test]
fn a_manifest_that_is_there_in_spite_of_the_answer_is_pushed() {
    for status in ["", "500 Internal Server Error", "400 Bad Request", "403 Forbidden"] {
        assert_eq!(push_manifest(status, true), Ok(()), "{status}");
        push_manifest(status, false).unwrap_err();
    }
    assert_eq!(
        push_manifest("400 Bad Request", false).unwrap_err(),
        "registry `[host]`: PUT http://[host]/v2/team/a/manifests/1: answered 400 Bad Request: tag is immutable"
    );
}

#[test]
fn progress_is_told_of_what_is_sent_only() {
    let told = Arc::new(Mutex::new(Vec::<Transfer>::new()));
    let log = Arc::clone(&told);
    let client =
        client().with_watch(Watch::new(move |transfer| log.lock().unwrap().push(transfer)));
    let (server, _) = registry(&[], |_, _, _| None);
    let bytes = noise(250_000);
    push(&client, &server, &bytes).unwrap();
    let count = told.lock().unwrap().len();
    let last = told.lock().unwrap().last().unwrap().clone();
    assert_eq!((last.digest, last.done, last.total), (Digest::of(&bytes), 250_000, 250_000));
    assert!(last.ended.is_some());
    assert_eq!(push(&client, &server, &bytes).unwrap(), Pushed::Existed);
    assert_eq!(told.lock().unwrap().len(), count);
}
