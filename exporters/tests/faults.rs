//! Pulls and pushes through a proxy that disturbs a good part of all requests, with a real registry behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "common/faults.rs"]
mod proxy;
#[path = "../../registry/tests/registries/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cache::{BlobProvider, Ref, Store, StoreOptions};
use common::{Bench, is_root, references, result, write};
use exporters::push::{make_and_push, push};
use exporters::{
    Content, ExportError, Image, ImageOptions, ImageResult, PushOptions, assemble,
    assemble_followed,
};
use fs_err as fs;
use llb::image::{Descriptor, ImageConfig};
use llb::{DiffId, Digest, Platform, Reference};
use proxy::{LONG, Proxy};
use registry::{Client, ClientOptions};
use server::{Setup, start};
use tree::layer::{Encoding, Whiteouts};

/// Of each kind of work, and how much of it at once: most of the time is spent waiting.
const EACH: usize = 200;
const WORKERS: usize = 32;

/// Percent of requests that are disturbed.
const DISTURBED: u64 = 30;

/// Longest time that one transfer may take, and the longest that one pull or push may then: it has a few transfers, and
/// shares the machine with whatever else runs there.
const TRANSFER: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(600);

fn impatient() -> ClientOptions {
    ClientOptions {
        retries: 6,
        backoff: Duration::from_millis(2),
        longest_wait: Duration::from_secs(1),
        read_timeout: LONG * 3 / 4,
        transfer_timeout: Some(TRANSFER),
        range_size: 20 << 10,
        ..ClientOptions::default()
    }
}

/// Does it all on many threads; how many ended right, and what the others said.
fn many(work: impl Fn(usize) -> Result<(), String> + Sync) -> (usize, Vec<String>) {
    let (next, right) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let run = || {
        let mut errors = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= EACH {
                return errors;
            }
            let begun = Instant::now();
            match work(number) {
                Ok(()) => drop(right.fetch_add(1, Ordering::Relaxed)),
                Err(error) => errors.push(error),
            }
            assert!(begun.elapsed() < DEADLINE, "number {number} took {:?}", begun.elapsed());
        }
    };
    let errors = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    (right.into_inner(), errors)
}

/// An error with its causes, each of which tells something.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        assert!(!message.is_empty(), "{text}");
        text += &format!(": {message}");
        cause = error.source();
    }
    text
}

/// Whether a message says of what is wrong what a user can make something of.
fn is_clear(text: &str, host: &str) -> bool {
    let known = [
        "cannot reach registry",
        "limits the rate of requests",
        "answered 5",
        "answered 4",
        "registry sent wrong bytes",
        "answered another range",
        "did not finish before its deadline",
        "not found",
    ];
    text.contains(host) && known.iter().any(|part| text.contains(part))
}

/// A file that cannot be compressed much, other for each seed.
fn content(seed: usize, length: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + ((state >> 33) % 90) as u8)
    };
    (0..length).map(|_| next()).collect()
}

fn layers(bench: &Bench, seed: usize) -> Ref {
    let small =
        bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "small", &content(seed, 500)));
    let base = Ref::scratch().push(small);
    let large =
        bench.layer(&base, 1000, |upper| write(upper, "large", &content(seed + 5000, 60_000)));
    base.push(large)
}

fn assembled(bench: &Bench, layers: Ref) -> Image {
    let result: ImageResult = result(layers, &[]);
    assemble(&bench.store, &result, &ImageOptions::default(), Content::Here).unwrap()
}

fn image(bench: &Bench, seed: usize) -> Image {
    assembled(bench, layers(bench, seed))
}

/// Fetches blobs as the builder does.
struct Provider(Client);

impl BlobProvider for Provider {
    fn open(
        &self,
        origin: &str,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Box::new(self.0.blob(&Reference::parse(origin)?, descriptor)?))
    }
}

/// Pulls an image into a new store, and checks what came.
fn pull(client: &Client, name: &Reference, seed: usize) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let whiteouts = if is_root() { Whiteouts::Trusted } else { Whiteouts::User };
    let options = StoreOptions {
        provider: Arc::new(Provider(client.clone())),
        encoding: Encoding { whiteouts, ..Encoding::default() },
        workspaces: cache::WorkspaceKind::default(),
    };
    let store = Store::open(folder.path(), options).unwrap();
    let outcome = pull_into(&store, client, name, seed);
    assert_eq!(files(&folder.path().join("ingest")), Vec::<PathBuf>::new(), "{outcome:?}");
    // What has a name in the store is what its name says.
    for blob in entries(&folder.path().join("blobs/sha256")) {
        let bytes = fs::read(folder.path().join("blobs/sha256").join(&blob)).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), blob);
    }
    outcome
}

fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = entries(folder).into_iter().map(|name| folder.join(name));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn pull_into(store: &Store, client: &Client, name: &Reference, seed: usize) -> Result<(), String> {
    let platform = Platform::parse("linux/amd64").unwrap();
    let found = client.resolve_image(name, &platform).map_err(|error| told(&error))?;
    let config =
        client.small_blob(name, &found.manifest.config, 1 << 20).map_err(|error| told(&error))?;
    let config: ImageConfig = serde_json::from_slice(&config).unwrap();
    let diff_ids: Vec<DiffId> = config.rootfs.diff_ids.unwrap();
    let mut layers = Ref::scratch();
    for (descriptor, diff_id) in found.manifest.layers.unwrap().iter().zip(diff_ids) {
        let layer = store.base_layer_over(&layers, diff_id, descriptor, name.to_string()).unwrap();
        layers = layers.push(layer);
    }
    let folders = layers.dirs().map_err(|error| told(&error))?;
    let read =
        |folder: usize, file: &str| fs::read_to_string(folders[folder].path().join(file)).unwrap();
    assert!(
        read(0, "small") == content(seed, 500) && read(1, "large") == content(seed + 5000, 60_000)
    );
    Ok(())
}

#[test]
fn disturbed_pulls_end_right_or_with_a_clear_error() {
    const IMAGES: usize = 20;
    let Some(server) = start(&Setup::default()) else { return };
    let bench = Bench::new();
    let direct = Client::new(ClientOptions::default());
    for seed in 0..IMAGES {
        let names = references(&[&format!("{}/base/{seed}:1", server.host)]);
        push(&direct, &bench.store, &image(&bench, seed), &names, PushOptions::default()).unwrap();
    }
    let proxy = Proxy::start(&server.host, DISTURBED);
    let (right, errors) = many(|number| {
        let seed = number % IMAGES;
        let name = Reference::parse(&format!("{}/base/{seed}:1", proxy.host)).unwrap();
        pull(&Client::new(impatient()), &name, seed)
    });
    check("pulls", right, &errors, &proxy);
}

#[test]
fn disturbed_pushes_end_right_or_with_a_clear_error() {
    let Some(server) = start(&Setup::default()) else { return };
    let bench = Bench::new();
    let images: Vec<Image> = (0..EACH).map(|seed| image(&bench, seed)).collect();
    let proxy = Proxy::start(&server.host, DISTURBED);
    let direct = Client::new(ClientOptions::default());
    let (right, errors) = many(|number| {
        // Some repositories are pushed to by several at once.
        let path = format!("app/{}:{number}", number % 50);
        let names = references(&[&format!("{}/{path}", proxy.host)]);
        let client = Client::new(impatient());
        match push(&client, &bench.store, &images[number], &names, PushOptions::default()) {
            Ok(_) => {
                let name = Reference::parse(&format!("{}/{path}", server.host)).unwrap();
                whole(&direct, &name, &images[number]);
                Ok(())
            }
            Err(error @ ExportError::Push { .. }) => Err(told(&error)),
            Err(error) => panic!("{error:?}"),
        }
    });
    check("pushes", right, &errors, &proxy);
    assert_eq!(files(&bench.path("store").join("ingest")), Vec::<PathBuf>::new());
}

/// Checks that the registry has all of the image under its name.
fn whole(client: &Client, name: &Reference, image: &Image) {
    assert!(client.resolve(name).unwrap().bytes == image.top().bytes);
    for platform in &image.manifests {
        let layers = platform.layers.iter().map(|layer| &layer.descriptor);
        for blob in layers.chain([&platform.config.descriptor]) {
            let mut bytes = Vec::new();
            client.blob(name, blob).unwrap().read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, blob.size);
        }
    }
}

#[track_caller]
fn check(what: &str, right: usize, errors: &[String], proxy: &Proxy) {
    let requests = proxy.log.requests.lock().unwrap().len();
    let faults: BTreeMap<_, _> = proxy.log.faults.lock().unwrap().clone();
    println!("{right} {what} of {EACH} ended right; {requests} requests, disturbed: {faults:?}");
    let unclear: Vec<&String> = errors.iter().filter(|text| !is_clear(text, &proxy.host)).collect();
    assert!(unclear.is_empty(), "{unclear:#?}");
    assert_eq!(right + errors.len(), EACH);
    // Each request has seven tries; only bytes that are wrong twice end a transfer. How many run out of time is a
    // matter of the machine.
    let late = |text: &&String| {
        ["deadline", "no answer", "connection broke", "rate of requests"]
            .iter()
            .any(|part| text.contains(part))
    };
    let wrong = errors.iter().filter(|text| !late(text)).count();
    assert!(right > 0 && wrong <= EACH / 4, "{wrong} failed: {errors:#?}");
    assert_eq!(faults.len(), 11, "every kind of fault must happen");
}

/// Requests that only tell, and those that move bytes.
#[track_caller]
fn check_requests(proxy: &Proxy, expect: &[(&[&str], usize)]) {
    for (words, count) in expect {
        let requests = proxy.log.requests.lock().unwrap().clone();
        assert_eq!(proxy.requests(words), *count, "{words:?} in {requests:#?}");
    }
    proxy.forget();
}

#[test]
fn only_what_a_registry_does_not_have_is_sent() {
    let Some(server) = start(&Setup::default()) else { return };
    let bench = Bench::new();
    let proxy = Proxy::start(&server.host, 0);
    let client = Client::new(ClientOptions::default());
    let push_to = |names: &[&str], image: &Image| {
        let names: Vec<String> =
            names.iter().map(|name| format!("{}/{name}", proxy.host)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        push(&client, &bench.store, image, &references(&names), PushOptions::default()).unwrap();
    };
    let first_layers = layers(&bench, 1);
    let first = assembled(&bench, first_layers.clone());
    push_to(&["team/app:1", "team/app:2", "team/app:3"], &first);
    // Two layers and a config; one document for each tag.
    check_requests(
        &proxy,
        &[
            (&["HEAD", "/blobs/"], 3),
            (&["POST"], 3),
            (&["PUT", "/blobs/uploads/"], 3),
            (&["PUT", "/manifests/"], 3),
            (&["GET"], 0),
        ],
    );
    push_to(&["team/app:1"], &first);
    check_requests(&proxy, &[(&["HEAD", "/blobs/"], 3), (&["POST"], 0), (&["PUT", "/blobs/"], 0)]);
    // Another name on the same registry takes all from its neighbour.
    push_to(&["team/app:1", "team/other:1"], &first);
    check_requests(&proxy, &[(&["POST", "mount="], 3), (&["PUT", "/blobs/"], 0)]);

    // One layer is another; its neighbour stays.
    let base = Ref::new([first_layers.layers()[0].clone()]);
    let changed = bench.layer(&base, 1000, |upper| write(upper, "large", "changed"));
    let second = assembled(&bench, base.push(changed));
    push_to(&["team/app:4"], &second);
    // The layer, and the config that names it.
    check_requests(&proxy, &[(&["POST"], 2), (&["PUT", "/blobs/uploads/"], 2)]);
}

#[test]
fn a_new_layer_is_sent_while_it_is_compressed() {
    let Some(server) = start(&Setup::default()) else { return };
    let bench = Bench::new();
    let proxy = Proxy::start(&server.host, 0);
    let client = Client::new(ClientOptions::default());
    let layer =
        bench.layer(&Ref::scratch(), 1000, |upper| write(upper, "f", &content(1, 24 << 20)));
    let result: ImageResult = result(Ref::scratch().push(layer), &[]);
    let push_to = |name: &str| {
        let names = references(&[&format!("{}/{name}", proxy.host)]);
        let options = ImageOptions::default();
        let make = |follow: &cache::Follow<'_>| {
            assemble_followed(&bench.store, &result, &options, Content::Elsewhere, Some(follow))
        };
        make_and_push(&client, &bench.store, &names, PushOptions::default(), make).unwrap().0
    };
    let image = push_to("team/app:1");
    assert!(proxy.requests(&["PATCH", "/blobs/uploads/"]) > 0);
    // The layer and the config, each once.
    check_requests(&proxy, &[(&["POST"], 2), (&["PUT", "/blobs/uploads/"], 2)]);
    let name = Reference::parse(&format!("{}/team/app:1", server.host)).unwrap();
    whole(&Client::new(ClientOptions::default()), &name, &image);
    push_to("team/app:2");
    check_requests(&proxy, &[(&["POST"], 0), (&["PATCH"], 0), (&["PUT", "/blobs/"], 0)]);
}

#[test]
fn a_base_that_the_registry_has_is_neither_fetched_nor_sent() {
    let Some(server) = start(&Setup::default()) else { return };
    let bench = Bench::new();
    let direct = Client::new(ClientOptions::default());
    let base = image(&bench, 1);
    let names = references(&[&format!("{}/library/base:1", server.host)]);
    push(&direct, &bench.store, &base, &names, PushOptions::default()).unwrap();

    // Another machine, which knows the base by its manifest only.
    let proxy = Proxy::start(&server.host, 0);
    let client = Client::new(ClientOptions::default());
    let name = Reference::parse(&format!("{}/library/base:1", proxy.host)).unwrap();
    let other = Bench::new();
    let found = client.resolve_image(&name, &Platform::parse("linux/amd64").unwrap()).unwrap();
    let mut layers = Ref::scratch();
    for (descriptor, layer) in found.manifest.layers.unwrap().iter().zip(&base.manifests[0].layers)
    {
        let layer = other
            .store
            .base_layer_over(&layers, layer.diff_id, descriptor, format!("docker-image://{name}"))
            .unwrap();
        layers = layers.push(layer);
    }
    let derived = result(layers, &[]);
    let derived =
        assemble(&other.store, &derived, &ImageOptions::default(), Content::Elsewhere).unwrap();
    proxy.forget();
    let names = references(&[&format!("{}/team/app:1", proxy.host)]);
    push(&client, &other.store, &derived, &names, PushOptions::default()).unwrap();
    // Only the config is new.
    check_requests(
        &proxy,
        &[
            (&["GET"], 0),
            (&["POST", "mount=", "from=library/base"], 2),
            (&["PUT", "/blobs/uploads/"], 1),
        ],
    );
}
