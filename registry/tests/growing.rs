//! Blobs that are sent while they are made.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/keeper.rs"]
mod keeper;
mod support;

use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use keeper::registry;
use llb::Digest;
use registry::{Cancel, Client, Error, Growing, Grown, Pushed};
use support::{Seen, Server, answer, client, descriptor, noise};

/// Bytes of which some are made.
struct Making {
    bytes: Vec<u8>,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Grown(usize),
    Whole,
    GivenUp,
}

impl Making {
    fn new(size: usize) -> Arc<Self> {
        let state = Mutex::new(State::Grown(0));
        Arc::new(Self { bytes: noise(size), state, change: Condvar::new() })
    }

    fn to(&self, state: State) {
        *self.state.lock().unwrap() = state;
        self.change.notify_all();
    }
}

impl Growing for Making {
    fn wait(&self, least: u64) -> Option<Grown> {
        let mut state = self.state.lock().unwrap();
        loop {
            match *state {
                State::GivenUp => return None,
                State::Whole => {
                    let digest = Some(Digest::of(&self.bytes));
                    return Some(Grown { size: self.bytes.len() as u64, digest });
                }
                State::Grown(size) if size as u64 >= least => {
                    return Some(Grown { size: size as u64, digest: None });
                }
                State::Grown(_) => state = self.change.wait(state).unwrap(),
            }
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut rest = &self.bytes[offset as usize..];
        io::Read::read(&mut rest, buffer)
    }
}

/// Waits until the server has seen so many requests of a method.
fn wait_for(server: &Server, method: &str, count: usize) {
    while server.of(method).len() < count {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn push(client: &Client, server: &Server, blob: &Arc<Making>) -> Result<bool, Error> {
    client.push_growing(&server.reference("team/a"), Arc::<Making>::clone(blob))
}

const MIB: usize = 1 << 20;

#[test]
fn what_there_is_of_a_blob_is_sent_before_the_rest_is_made() {
    let (server, kept) = registry(&[], |_, _, _| None);
    let blob = Making::new(11 * MIB + 5);
    std::thread::scope(|scope| {
        let pushed = scope.spawn(|| push(&client(), &server, &blob));
        blob.to(State::Grown(5 * MIB));
        wait_for(&server, "PATCH", 1);
        blob.to(State::Grown(9 * MIB));
        // Less than a chunk is waited with.
        blob.to(State::Grown(10 * MIB));
        wait_for(&server, "PATCH", 2);
        blob.to(State::Whole);
        assert!(pushed.join().unwrap().unwrap());
    });
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&blob.bytes));
    let patches = server.of("PATCH");
    assert_eq!(patches[0].header("content-range"), format!("0-{}", 5 * MIB - 1));
    assert_eq!(patches[0].header("content-length"), (5 * MIB).to_string());
    let put = server.of("PUT").pop().unwrap();
    assert!(put.line.contains("digest=sha256%3A"), "{}", put.line);
    assert_eq!(server.of("POST").len(), 1);
    // Who comes later finds it.
    let again = client().push_blob(
        &server.reference("team/a"),
        &descriptor(&blob.bytes),
        || Err(io::Error::other("nobody needs the bytes")),
        None,
    );
    assert_eq!(again.unwrap(), Pushed::Existed);
}

#[test]
fn a_short_blob_is_left_to_who_sends_it_whole() {
    let (server, _) = registry(&[], |_, _, _| None);
    let blob = Making::new(MIB);
    blob.to(State::Whole);
    assert!(!push(&client(), &server, &blob).unwrap());
    assert_eq!(server.lines(), [""; 0]);
}

#[test]
fn an_upload_of_a_blob_that_comes_to_nothing_is_cancelled() {
    let (server, kept) = registry(&[], |_, _, _| None);
    let blob = Making::new(9 * MIB);
    std::thread::scope(|scope| {
        let pushed = scope.spawn(|| push(&client(), &server, &blob));
        blob.to(State::Grown(5 * MIB));
        wait_for(&server, "PATCH", 1);
        blob.to(State::GivenUp);
        assert!(!pushed.join().unwrap().unwrap());
    });
    assert!(kept.lock().unwrap().blob.is_none());
    assert_eq!(server.of("DELETE").len(), 1);
    assert_eq!(server.of("PUT").len(), 0);
}

#[test]
fn a_chunk_that_broke_is_asked_for_and_the_rest_goes_on() {
    let broken = Mutex::new(false);
    let (server, kept) = registry(&[], move |seen: &Seen, kept, after| {
        let is_second =
            !after && seen.method() == "PATCH" && !seen.header("content-range").starts_with("0-");
        (is_second && !std::mem::replace(&mut *broken.lock().unwrap(), true)).then(|| {
            kept.upload.extend_from_slice(&seen.body[..MIB]);
            Vec::new()
        })
    });
    let blob = Making::new(14 * MIB);
    std::thread::scope(|scope| {
        let pushed = scope.spawn(|| push(&client(), &server, &blob));
        blob.to(State::Grown(5 * MIB));
        wait_for(&server, "PATCH", 1);
        blob.to(State::Grown(10 * MIB));
        wait_for(&server, "GET", 1);
        blob.to(State::Whole);
        assert!(pushed.join().unwrap().unwrap());
    });
    assert!(kept.lock().unwrap().blob.as_ref() == Some(&blob.bytes));
    assert_eq!(kept.lock().unwrap().uploads, 1);
}

#[test]
fn a_registry_that_takes_no_chunks_is_left_to_who_sends_it_whole() {
    let (server, _) = registry(&[], |seen, _, after| {
        (!after && seen.method() == "PATCH").then(|| answer("405 Method Not Allowed", &[], b""))
    });
    let blob = Making::new(9 * MIB);
    blob.to(State::Grown(5 * MIB));
    let error = push(&client(), &server, &blob).unwrap_err();
    assert!(error.to_string().ends_with("answered 405 Method Not Allowed"), "{error}");
    assert_eq!((server.of("PATCH").len(), server.of("DELETE").len()), (1, 1));
}

#[test]
fn who_interrupts_a_push_takes_the_upload_back() {
    let (server, kept) = registry(&[], |_, _, _| None);
    let (blob, cancel) = (Making::new(9 * MIB), Cancel::new());
    std::thread::scope(|scope| {
        let client = client().with_cancel(cancel.clone());
        let (server, blob) = (&server, &blob);
        let pushed = scope.spawn(move || push(&client, server, blob));
        blob.to(State::Grown(5 * MIB));
        wait_for(server, "PATCH", 1);
        cancel.cancel();
        assert!(matches!(pushed.join().unwrap().unwrap_err(), Error::Cancelled));
        blob.to(State::GivenUp);
    });
    assert_eq!(server.of("DELETE").len(), 1);
    assert!(kept.lock().unwrap().blob.is_none());
}
