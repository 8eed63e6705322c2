//! Large blobs: several ranges at once, and what servers make of that.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use registry::{Client, ClientOptions, Transfer, Watch};
use support::{Server, answer, descriptor, noise, options, ranged, read_blob};

/// Bytes per range in these tests.
const RANGE: u64 = 1000;

fn client() -> Client {
    Client::new(ClientOptions { range_size: RANGE, ..options() })
}

/// How many are somewhere at once; holds each until others have come, or for a moment.
#[derive(Default)]
struct Crowd(Mutex<(usize, usize)>, Condvar);

impl Crowd {
    fn pass(&self, enough: usize) {
        let mut state = self.0.lock().unwrap();
        state.0 += 1;
        state.1 = state.1.max(state.0);
        self.1.notify_all();
        let waited =
            self.1.wait_timeout_while(state, Duration::from_millis(500), |state| state.1 < enough);
        waited.unwrap().0.0 -= 1;
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[test]
fn a_large_blob_comes_in_ranges_several_at_once() {
    let bytes = noise(10_500);
    let (content, crowd) = (bytes.clone(), Arc::new(Crowd::default()));
    let inside = Arc::clone(&crowd);
    let server = Server::start(move |seen, _| {
        // The first range is asked for alone: it shows whether there are ranges.
        if seen.range(content.len()).unwrap().0 > 0 {
            inside.pass(3);
        }
        ranged(seen, &content)
    });
    assert!(read_blob(&client(), &server, &bytes).unwrap() == bytes);
    assert!(crowd.most() >= 3, "only {} at once", crowd.most());
    let mut ranges: Vec<_> = server.seen().iter().map(|seen| seen.range(10_500).unwrap()).collect();
    ranges.sort_unstable();
    let expect: Vec<_> = (0..11).map(|n| (n * 1000, (n * 1000 + 999).min(10_499))).collect();
    assert_eq!(ranges, expect);
}

#[test]
fn a_small_blob_is_asked_for_whole() {
    let bytes = noise(1999);
    let content = bytes.clone();
    let server = Server::start(move |seen, _| ranged(seen, &content));
    assert!(read_blob(&client(), &server, &bytes).unwrap() == bytes);
    assert_eq!(server.seen().len(), 1);
    assert_eq!(server.seen()[0].header("range"), "");
}

#[test]
fn a_server_that_ignores_ranges_is_asked_once() {
    let bytes = noise(10_500);
    let content = bytes.clone();
    let server = Server::start(move |_, _| answer("200 OK", &[], &content));
    assert!(read_blob(&client(), &server, &bytes).unwrap() == bytes);
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn a_server_that_refuses_ranges_is_asked_for_all() {
    for status in ["416 Range Not Satisfiable", "400 Bad Request", "501 Not Implemented"] {
        let bytes = noise(10_500);
        let content = bytes.clone();
        let server = Server::start(move |seen, _| match seen.header("range") {
            "" => answer("200 OK", &[], &content),
            _ => answer(status, &[], b""),
        });
        let client = Client::new(ClientOptions { range_size: RANGE, retries: 0, ..options() });
        assert!(read_blob(&client, &server, &bytes).unwrap() == bytes, "{status}");
        assert_eq!(server.seen().len(), 2);
    }
}

#[test]
fn a_range_that_breaks_goes_on_where_it_broke() {
    let bytes = noise(5000);
    let (content, asked) = (bytes.clone(), AtomicUsize::new(0));
    let server = Server::start(move |seen, _| {
        let mut bytes = ranged(seen, &content);
        // Every other answer loses its last 300 bytes.
        if asked.fetch_add(1, Ordering::Relaxed) % 2 == 0 && bytes.len() > 400 {
            bytes.truncate(bytes.len() - 300);
        }
        bytes
    });
    assert!(read_blob(&client(), &server, &bytes).unwrap() == bytes);
    let starts: Vec<_> = server.seen().iter().map(|seen| seen.range(5000).unwrap().0).collect();
    assert!(starts.contains(&700), "{starts:?}");
}

#[test]
fn a_server_may_answer_with_less_than_a_range() {
    let bytes = noise(4000);
    let content = bytes.clone();
    let server = Server::start(move |seen, _| {
        let (start, end) = seen.range(content.len()).unwrap();
        let end = end.min(start + 599);
        let range = format!("content-range: bytes {start}-{end}/4000");
        answer("206 Partial Content", &[&range], &content[start..=end])
    });
    assert!(read_blob(&client(), &server, &bytes).unwrap() == bytes);
}

#[test]
fn another_range_or_length_than_asked_for_is_refused() {
    let bytes = noise(5000);
    for (range, expect) in [
        ("content-range: bytes 0-999/4999", "expected 5000 bytes, got 4999"),
        ("content-range: bytes 1-1000/5000", "another range"),
        ("x: y", "another range"),
    ] {
        let server = Server::start(move |_, _| answer("206 Partial Content", &[range], &[7; 1000]));
        let error = read_blob(&client(), &server, &bytes).unwrap_err();
        assert!(error.contains(expect), "{range}: {error}");
    }
}

#[test]
fn ranges_of_wrong_bytes_are_never_the_end_of_a_blob() {
    let bytes = noise(5000);
    let mut content = bytes.clone();
    content[3456] ^= 1;
    let server = Server::start(move |seen, _| ranged(seen, &content));
    let error = read_blob(&client(), &server, &bytes).unwrap_err();
    assert!(error.contains("registry sent wrong bytes: expected sha256:"), "{error}");
}

#[test]
fn what_is_read_ahead_is_bounded_and_blobs_do_not_wait_for_each_other() {
    let bytes = noise(100_000);
    let content = bytes.clone();
    let server = Server::start(move |seen, _| ranged(seen, &content));
    let client = client();
    let open = || client.blob(&server.reference("a"), &descriptor(&bytes)).unwrap();
    // Readers that nobody reads take what may be read ahead, and no more.
    let idle: Vec<_> = (0..4).map(|_| open()).collect();
    let mut read = Vec::new();
    open().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    // The pipe to each idle reader holds eight, one more waits; eight are ahead in all, and one was read.
    let asked = server.seen().len();
    assert!(asked <= 4 * 10 + 8 + 100, "{asked} requests");
    drop(idle);
}

#[test]
fn a_server_that_drips_is_given_up_within_the_read_timeout() {
    let server = Server::with_stream(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let options =
        ClientOptions { read_timeout: Duration::from_millis(100), retries: 1, ..options() };
    let begun = Instant::now();
    let error = read_blob(&Client::new(options), &server, &[0; 100_000]).unwrap_err();
    assert!(
        error.contains("connection broke") && error.contains("bytes were received in 0.1 seconds"),
        "{error}"
    );
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_transfer_ends_by_its_own_deadline() {
    let server = Server::with_stream(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        while stream.write_all(&[0; 20_000]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let options = ClientOptions { transfer_timeout: Some(Duration::from_millis(100)), ..options() };
    let wanted = descriptor(&vec![1; 100_000_000]);
    let mut reader = Client::new(options).blob(&server.reference("a"), &wanted).unwrap();
    let error = std::io::copy(&mut reader, &mut std::io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "the transfer did not finish before its deadline");
}

#[test]
fn progress_is_told_in_bytes_up_to_the_end() {
    let bytes = noise(10_500);
    let content = bytes.clone();
    let server = Server::start(move |seen, _| ranged(seen, &content));
    let told = Arc::new(Mutex::new(Vec::<Transfer>::new()));
    let log = Arc::clone(&told);
    let client =
        client().with_watch(Watch::new(move |transfer| log.lock().unwrap().push(transfer)));
    read_blob(&client, &server, &bytes).unwrap();
    let told = told.lock().unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.digest, last.done, last.total), (descriptor(&bytes).digest, 10_500, 10_500));
    assert!(last.ended.is_some());
    assert_eq!(told.iter().filter(|transfer| transfer.ended.is_some()).count(), 1);
}
