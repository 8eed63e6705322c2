//! Where time goes: spans of work and of waiting, kept in memory for whoever asked for a trace.
//!
//! ```text
//! let _span = trace::span("hash", || format!("files of {name}"));   // ends when dropped
//! ```
//!
//! It lives here because every crate may use this one. Nobody writes anything: the program that called [`start`]
//! takes the [`Record`] and gives it a form.
//!
//! Invariants:
//! - As long as nobody has called [`start`], a span costs one atomic load: its name is not even made.
//! - Spans of one [`Track`] lie in each other or beside each other. A thread has a track to itself as long as it
//!   lives; the next thread that begins takes over the track of one that has ended.
//! - What is recorded is bounded; what comes later is counted and not kept.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Spans that are kept at most.
const MOST: usize = 500_000;

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// A row of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Track(usize);

impl Track {
    /// Its place among all tracks.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What the spans of a track have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackKind {
    /// What one thread did, or several one after the other.
    Thread,
    /// What became of one thing, whichever threads worked on it.
    Thing,
}

/// Something that took time.
#[derive(Debug, Clone)]
pub struct SpanRecord {
    /// Where it belongs.
    pub track: Track,
    /// What kind of work or waiting.
    pub kind: &'static str,
    /// What in particular.
    pub name: String,
    /// When it began, in nanoseconds since the trace did.
    pub start: u64,
    /// When it ended; `None` when it had not when the record was taken.
    pub end: Option<u64>,
}

/// All that was recorded.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Tracks: their names and kinds, by [`Track::index`].
    pub tracks: Vec<(String, TrackKind)>,
    /// Spans in the order in which they began, those of one track in any case.
    pub spans: Vec<SpanRecord>,
    /// Spans that were not kept.
    pub dropped: u64,
    /// How long the trace is, in nanoseconds.
    pub length: u64,
}

struct Recorder {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tracks: Vec<(String, TrackKind)>,
    /// Tracks of threads that have ended.
    free: Vec<Track>,
    spans: Vec<SpanRecord>,
    dropped: u64,
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn since(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Begins a span and gives its place.
    fn open(&self, track: Track, kind: &'static str, name: String) -> Option<usize> {
        let mut state = self.state();
        // Under the lock, so that the spans of all tracks are in order.
        let start = self.since(Instant::now());
        state.push(SpanRecord { track, kind, name, start, end: None })
    }
}

impl State {
    fn push(&mut self, span: SpanRecord) -> Option<usize> {
        if self.spans.len() == MOST {
            self.dropped += 1;
            return None;
        }
        self.spans.push(span);
        Some(self.spans.len() - 1)
    }

    fn track(&mut self, name: String, kind: TrackKind) -> Track {
        self.tracks.push((name, kind));
        Track(self.tracks.len() - 1)
    }
}

/// Begins to record, as if since `origin`: what has passed since then is the first span, in the calling thread's
/// track. A second call does nothing.
pub fn start(origin: Instant) {
    let mut is_new = false;
    RECORDER.get_or_init(|| {
        is_new = true;
        Recorder { origin, state: Mutex::default() }
    });
    if is_new && let Some(track) = own_track() {
        add(track, "start", String::new(), origin, Instant::now());
    }
}

/// Whether anybody wants a trace.
#[inline]
pub fn is_on() -> bool {
    RECORDER.get().is_some()
}

/// What has been recorded so far; `None` when nobody wants a trace.
pub fn record() -> Option<Record> {
    let recorder = RECORDER.get()?;
    let state = recorder.state();
    Some(Record {
        tracks: state.tracks.clone(),
        spans: state.spans.clone(),
        dropped: state.dropped,
        length: recorder.since(Instant::now()),
    })
}

/// Begins a span of the calling thread, which ends when what is returned is dropped. `name` is asked for only
/// when somebody wants a trace; it must hold nothing that is secret.
#[inline]
pub fn span(kind: &'static str, name: impl FnOnce() -> String) -> Span {
    let place = match RECORDER.get() {
        None => None,
        Some(recorder) => own_track().and_then(|track| recorder.open(track, kind, name())),
    };
    Span { place, thread: PhantomData }
}

/// A span that has begun; it ends where it is dropped, which is in its own thread.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    place: Option<usize>,
    thread: PhantomData<*const ()>,
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(place), Some(recorder)) = (self.place, RECORDER.get()) else { return };
        let mut state = recorder.state();
        let end = recorder.since(Instant::now());
        if let Some(span) = state.spans.get_mut(place) {
            span.end = Some(end);
        }
    }
}

/// Makes a track for a thing; `None` when nobody wants a trace.
pub fn track(name: impl FnOnce() -> String) -> Option<Track> {
    let recorder = RECORDER.get()?;
    Some(recorder.state().track(name(), TrackKind::Thing))
}

/// Adds what has happened to a thing.
pub fn add(track: Track, kind: &'static str, name: String, start: Instant, end: Instant) {
    let Some(recorder) = RECORDER.get() else { return };
    let (start, end) = (recorder.since(start), Some(recorder.since(end)));
    recorder.state().push(SpanRecord { track, kind, name, start, end });
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// The track of a thread, given back when the thread ends.
struct Own(Track);

impl Drop for Own {
    fn drop(&mut self) {
        ENDED.set(true);
        if let Some(recorder) = RECORDER.get() {
            recorder.state().free.push(self.0);
        }
    }
}

/// The track of the calling thread; `None` when the thread is about to end.
fn own_track() -> Option<Track> {
    let recorder = RECORDER.get()?;
    if ENDED.get() {
        return None;
    }
    let own = OWN.try_with(|own| {
        let mut own = own.borrow_mut();
        own.get_or_insert_with(|| {
            let mut state = recorder.state();
            let track = state.free.pop().unwrap_or_else(|| {
                let name = match state.tracks.iter().filter(|it| it.1 == TrackKind::Thread).count()
                {
                    0 => "build".to_owned(),
                    number => format!("worker {number}"),
                };
                state.track(name, TrackKind::Thread)
            });
            Own(track)
        })
        .0
    });
    own.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All in one test, as there is one recorder for the process.
    #[test]
    fn spans_are_kept_only_when_asked_for_and_nest_in_their_track() {
        let quiet = span("test", || panic!("nobody asked for a name"));
        drop(quiet);
        assert!(!is_on() && record().is_none() && track(String::new).is_none());

        let began = Instant::now();
        start(began);
        start(began);
        let outer = span("test", || "outer".to_owned());
        for number in 0..3 {
            std::thread::spawn(move || {
                let _one = span("test", || format!("thread {number}"));
                drop(span("test", || "inner".to_owned()));
            })
            .join()
            .unwrap();
        }
        let thing = track(|| "thing".to_owned()).unwrap();
        add(thing, "test", "past".to_owned(), began, Instant::now());
        drop(outer);
        let _open = span("test", || "open".to_owned());

        let record = record().unwrap();
        let of_test: Vec<&SpanRecord> =
            record.spans.iter().filter(|span| span.kind == "test").collect();
        let find = |name: &str| of_test.iter().find(|span| span.name == name).unwrap();
        assert_eq!(find("open").end, None);
        assert_eq!(record.tracks[find("past").track.index()], ("thing".into(), TrackKind::Thing));
        let threads: Vec<Track> =
            (0..3).map(|number| find(&format!("thread {number}")).track).collect();
        assert!(threads.windows(2).all(|pair| pair[0] == pair[1]), "a track is taken over");
        assert_ne!(threads[0], find("outer").track);
        let (outer, inner) = (find("thread 0"), find("inner"));
        assert!(outer.start <= inner.start && inner.end <= outer.end);
        assert!(record.length >= find("past").end.unwrap() && record.dropped == 0);
    }
}
