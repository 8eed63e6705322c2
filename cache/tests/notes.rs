//! Notes of why results were made: found by what stood where, outliving results, bounded in number.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, SystemTime};

use cache::{BuildNote, Key, KeyBuilder, NewNote, NewResult, NoteOf, PruneOptions, Records, Store};
use common::{layer, open};

fn key(name: &str) -> Key {
    KeyBuilder::new("test.v1").str(name).finish()
}

fn build(id: &str) -> BuildNote {
    // The store keeps nanoseconds.
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    BuildNote { id: id.to_owned(), at, label: format!("-t {id}") }
}

/// Notes a step that has run, with a result.
fn ran(store: &Store, id: &str, name: &str, place: &str, text: &str) {
    let reference = cache::Ref::scratch().push(layer(store, &cache::Ref::scratch(), "f", name));
    let result =
        NewResult { key: key(name), reference, created: SystemTime::now(), why: Vec::new() };
    store.save(&[], Some(&result)).unwrap();
    let note = NewNote {
        key: key(name),
        scope: key("scope"),
        place: key(place),
        text: key(text),
        parts: name.as_bytes().to_vec(),
    };
    store.save_notes(&build(id), &[note], &[]).unwrap();
}

fn parts(store: &Store, of: NoteOf<'_>) -> Option<String> {
    store.note(of).unwrap().map(|note| String::from_utf8(note.parts).unwrap())
}

#[test]
fn notes_are_found_by_key_place_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert_eq!(parts(&store, NoteOf::Key(&key("one"))), None);
    ran(&store, "1", "one", "2", "COPY");
    ran(&store, "2", "two", "2", "RUN");
    let note = store.note(NoteOf::Key(&key("one"))).unwrap().unwrap();
    assert_eq!((note.build, note.gone), (Some(build("1")), None));
    let (scope, other) = (key("scope"), key("other"));
    assert_eq!(parts(&store, NoteOf::Place(&scope, &key("2"))).as_deref(), Some("two"));
    assert_eq!(parts(&store, NoteOf::Text(&scope, &key("COPY"))).as_deref(), Some("one"));
    assert_eq!(parts(&store, NoteOf::AnyText(&key("COPY"))).as_deref(), Some("one"));
    assert_eq!(parts(&store, NoteOf::Place(&other, &key("2"))), None);
    assert_eq!(parts(&store, NoteOf::Text(&other, &key("COPY"))), None);

    // A result that is found again is that of the last run, in another process too.
    drop(store);
    let store = open(folder.path());
    assert!(store.load(&key("one")).unwrap().is_some());
    assert_eq!(parts(&store, NoteOf::Place(&scope, &key("2"))).as_deref(), Some("one"));
}

#[test]
fn notes_outlive_results_and_say_when_they_were_pruned() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    ran(&store, "1", "one", "2", "COPY");
    drop(store);
    let store = open(folder.path());
    let before = SystemTime::now();
    assert_eq!(store.prune(&PruneOptions::default()).unwrap().results, 1);
    let note = store.note(NoteOf::Key(&key("one"))).unwrap().unwrap();
    assert!(note.gone.unwrap() >= before - Duration::from_secs(1), "{note:?}");
    // A store without any notes is pruned as before.
    let other = tempfile::tempdir().unwrap();
    open(other.path()).prune(&PruneOptions::default()).unwrap();
}

#[test]
fn only_the_newest_notes_and_listings_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    for number in 0..40 {
        let name = number.to_string();
        let note = NewNote {
            key: key(&name),
            scope: key("scope"),
            place: key("place"),
            text: key(&name),
            parts: Vec::new(),
        };
        let listings: Vec<_> =
            (0..4).map(|part| (key(&format!("{name} {part}")), vec![number])).collect();
        store.save_notes(&build(&name), &[note], &listings).unwrap();
    }
    let has = |name: &str| store.note(NoteOf::Key(&key(name))).unwrap().is_some();
    assert!(!has("0") && !has("7") && has("8") && has("39"));
    assert_eq!(store.listing(&key("0 0")).unwrap(), None);
    assert_eq!(store.listing(&key("39 3")).unwrap(), Some(vec![39]));
}
