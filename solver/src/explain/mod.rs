//! Why each step ran, and who made what was found (`--explain`).
//!
//! While a solve runs, [`Diary`] keeps what became of each vertex. When it is over, the steps that ran are noted in the
//! store with the parts of their keys; before that, if somebody wants to know, each is compared with its last run.
//!
//! The last run of a step is, the first of these that there is:
//! 1. the input of the last run of a step that uses it, if it says the same or stands at the same place: this leads from
//!    the target, whose use is noted even when nothing runs, down to what belonged to it;
//! 2. what said the same in the same scope; 3. what stood at the same place in it; 4. what said the same anywhere.
//!
//! Invariants:
//! - Nothing is read or written when nothing ran and nobody asked.
//! - Whatever fails here fails quietly: no build depends on it.

mod parts;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use cache::{BuildNote, Key, KeyBuilder, NewNote, Note, NoteOf, Store};
use llb::event::{Explanation, MadeBy};
use llb::{Edge, Event, Op};
use tree::View;
use tree::listing::{self, Listing};

use crate::cache_key::InputMap;
use crate::known::{VertexKeys, is_content};
use crate::op::source;
use crate::solve::Solve;
use crate::value::{Memory, Value};
use parts::{InputPart, Parts};

/// What a build is called in the notes of its steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildLabel {
    /// Its id, unlike that of any other build.
    pub id: String,
    /// What its user called the result, such as `-t app:1.0`.
    pub label: String,
    /// What its steps may be compared with: those of builds with the same scope, such as one context and Dockerfile.
    pub scope: String,
    /// Whether the user wants to know why steps ran.
    pub explain: bool,
}

/// What a job says of itself, and what it has explained.
#[derive(Debug, Default)]
pub(crate) struct Told {
    label: OnceLock<BuildLabel>,
    began: OnceLock<SystemTime>,
    explanations: Mutex<Vec<Explanation>>,
}

impl Told {
    pub(crate) fn set(&self, label: BuildLabel) {
        let _ = self.label.set(label);
        let _ = self.began.set(SystemTime::now());
    }

    pub(crate) fn explanations(&self) -> Vec<Explanation> {
        self.explanations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What became of the vertices of one solve.
pub(crate) struct Diary {
    outcomes: Vec<OnceLock<Outcome>>,
    /// What was read of trees whose content was hashed, by the key of that content.
    memories: Mutex<HashMap<Key, Arc<Memory>>>,
}

enum Outcome {
    /// It was found under this key, made at this time.
    Found(Key, SystemTime),
    /// It ran, with these keys.
    Ran { keys: Box<VertexKeys>, is_saved: bool },
}

impl Diary {
    pub(crate) fn new(vertices: usize) -> Self {
        let outcomes = (0..vertices).map(|_| OnceLock::new()).collect();
        Self { outcomes, memories: Mutex::default() }
    }

    pub(crate) fn found(&self, vertex: usize, key: Key, made: SystemTime) {
        let _ = self.outcomes[vertex].set(Outcome::Found(key, made));
    }

    pub(crate) fn ran(&self, vertex: usize, keys: &VertexKeys, is_saved: bool) {
        let _ = self.outcomes[vertex].set(Outcome::Ran { keys: Box::new(keys.clone()), is_saved });
    }

    pub(crate) fn remember(&self, content: Key, memory: Arc<Memory>) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.insert(content, memory);
    }

    fn memory(&self, content: &Key) -> Option<Arc<Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner).get(content).cloned()
    }

    fn outcome(&self, vertex: usize) -> Option<&Outcome> {
        self.outcomes[vertex].get()
    }

    fn any_has_run(&self) -> bool {
        (0..self.outcomes.len()).any(|vertex| self.has_run(vertex))
    }

    fn has_run(&self, vertex: usize) -> bool {
        matches!(self.outcome(vertex), Some(Outcome::Ran { .. }))
    }
}

/// Whether the user wants to know why steps ran.
pub(crate) fn is_asked(solve: &Solve<'_>) -> bool {
    solve.job.told_why.label.get().is_some_and(|label| label.explain)
}

/// Whether there is anything to explain or to note.
pub(crate) fn is_due(solve: &Solve<'_>) -> bool {
    solve.job.told_why.label.get().is_some_and(|label| label.explain || solve.diary.any_has_run())
}

/// Explains what happened in a solve that is over, if that was asked for, and notes what ran.
pub(crate) fn conclude(solve: &Solve<'_>) {
    let Some(label) = solve.job.told_why.label.get() else { return };
    if !is_due(solve) {
        return;
    }
    let count = solve.definition.vertices().len();
    let ran: Vec<usize> = (0..count).filter(|&vertex| solve.diary.has_run(vertex)).collect();
    let _span = tree::trace::span("explain", String::new);
    let scope = KeyBuilder::new("scope.v1").str(&label.scope).finish();
    let mut search = Search { solve, scope, listings: HashMap::new() };
    let parts: HashMap<usize, Parts> =
        ran.iter().filter_map(|&vertex| Some((vertex, search.parts(vertex)?))).collect();
    if label.explain {
        let explanations = search.explain_all(&parts);
        for explanation in &explanations {
            solve.job.events.send(Event::Explained(explanation.clone()));
        }
        let told = &solve.job.told_why.explanations;
        told.lock().unwrap_or_else(PoisonError::into_inner).extend(explanations);
    }
    let at = solve.job.told_why.began.get().copied().unwrap_or_else(SystemTime::now);
    let build = BuildNote { id: label.id.clone(), at, label: label.label.clone() };
    search.save(&build, &parts);
}

/// Whether a vertex is told of: sources are, only when they are made like steps.
fn is_step(op: &Op) -> bool {
    match op {
        Op::Source(source) => source::is_fetched(source),
        _ => true,
    }
}

struct Search<'s> {
    solve: &'s Solve<'s>,
    scope: Key,
    /// Listings that have been made, or could not be, by their keys.
    listings: HashMap<Key, Option<Arc<Listing>>>,
}

impl Search<'_> {
    fn store(&self) -> &Store {
        &self.solve.job.engine.store
    }

    fn note(&self, of: NoteOf<'_>) -> Option<Note> {
        self.store().note(of).ok().flatten()
    }

    fn name(&self, vertex: usize) -> &str {
        &self.solve.definition.vertex(vertex).metadata.name
    }

    /// Where a step stands: its stage and number, without how many there are.
    fn place(&self, vertex: usize) -> Key {
        let (head, _) = split_name(self.name(vertex));
        let place = head.rsplit_once('/').map_or(head, |(place, _)| place);
        KeyBuilder::new("place.v1").str(place).finish()
    }

    /// What a step says.
    fn text(&self, vertex: usize) -> Key {
        let its = self.solve.definition.vertex(vertex);
        let platform = its.platform.as_ref().map(ToString::to_string);
        let (_, text) = split_name(self.name(vertex));
        KeyBuilder::new("text.v1").str(text).str(&platform.unwrap_or_default()).finish()
    }

    /// The key under which a step that ran is saved.
    fn key(&self, vertex: usize) -> Option<Key> {
        match self.solve.diary.outcome(vertex) {
            Some(Outcome::Ran { keys, .. }) => keys.outputs.first()?.save,
            _ => None,
        }
    }

    /// The parts of the key of a step that ran.
    fn parts(&self, vertex: usize) -> Option<Parts> {
        let Some(Outcome::Ran { keys, .. }) = self.solve.diary.outcome(vertex) else { return None };
        let its = self.solve.definition.vertex(vertex);
        let inputs = its.inputs.iter().zip(&keys.parents).map(|(edge, parents)| {
            let input = self.solve.definition.vertex(edge.vertex);
            let content = parents.iter().find(|(_, selector)| is_content(selector));
            let others = parents.iter().filter(|(_, selector)| !is_content(selector));
            let source = match &input.op {
                Op::Source(source) if !source::is_local(source) => {
                    // The name of an image holds no credentials, but an `@`.
                    let is_image = source::is_image(source);
                    let shown = llb::url::redacted(&source.identifier).into_owned();
                    Some(if is_image { source.identifier.clone() } else { shown })
                }
                _ => None,
            };
            InputPart {
                name: llb::url::redacted(&input.metadata.name).into_owned(),
                content: content.map(|(key, _)| key.to_string()),
                keys: others.map(|(key, _)| key.to_string()).collect(),
                source,
            }
        });
        Some(Parts::of(its, inputs.collect()))
    }

    /// What is known of every step that somebody needed, in order.
    fn explain_all(&mut self, parts: &HashMap<usize, Parts>) -> Vec<Explanation> {
        let count = self.solve.definition.vertices().len();
        // What the last runs of its users say of a vertex, and whether it was found with one of them.
        let mut before: Vec<Option<Note>> = (0..count).map(|_| None).collect();
        let mut below = vec![false; count];
        let mut explanations = Vec::new();
        for vertex in (0..count).rev() {
            let its = self.solve.definition.vertex(vertex);
            let note = match self.solve.diary.outcome(vertex) {
                Some(Outcome::Ran { .. }) => {
                    let last = self.last_run(vertex, before[vertex].take());
                    if let Some(parts) = parts.get(&vertex) {
                        explanations.push(self.explain(vertex, parts, last.as_ref()));
                    }
                    last
                }
                None if !below[vertex] => continue,
                outcome => {
                    let (keys, made) = match outcome {
                        Some(Outcome::Found(key, made)) => (vec![*key], Some(*made)),
                        _ => (self.solve.keys_of(vertex), None),
                    };
                    let note = keys.iter().find_map(|key| self.note(NoteOf::Key(key)));
                    if is_step(&its.op) {
                        explanations.push(self.found(vertex, note.as_ref(), made));
                    }
                    its.inputs.iter().for_each(|edge| below[edge.vertex] = true);
                    note
                }
            };
            let Some(last) = note.and_then(|note| Parts::decode(&note.parts)) else { continue };
            // An input that counts by its content need not be what it was when the user ran.
            let by_definition = its.inputs.iter().zip(&last.inputs);
            for (edge, input) in by_definition.filter(|(_, input)| input.content.is_none()) {
                let key = input.keys.first().and_then(|key| parse_key(key));
                if let Some(note) = key.and_then(|key| self.note(NoteOf::Key(&key))) {
                    before[edge.vertex].get_or_insert(note);
                }
            }
        }
        explanations.reverse();
        explanations
    }

    fn last_run(&self, vertex: usize, of_user: Option<Note>) -> Option<Note> {
        let (place, text) = (self.place(vertex), self.text(vertex));
        let fits = |note: &Note| {
            let name = Parts::decode(&note.parts).map(|parts| parts.name).unwrap_or_default();
            let (own, other) = (split_name(self.name(vertex)), split_name(&name));
            own.1 == other.1 || own.0 == other.0
        };
        of_user
            .filter(fits)
            .or_else(|| self.note(NoteOf::Text(&self.scope, &text)))
            .or_else(|| self.note(NoteOf::Place(&self.scope, &place)))
            .or_else(|| self.note(NoteOf::AnyText(&text)))
    }

    fn explanation(
        &self,
        vertex: usize,
        reason: &'static str,
        text: String,
        build: Option<MadeBy>,
    ) -> Explanation {
        Explanation {
            vertex: self.solve.shown(vertex),
            name: self.name(vertex).to_owned(),
            cached: !self.solve.diary.has_run(vertex),
            reason,
            text,
            build,
        }
    }

    /// Tells of a step that was found.
    fn found(&self, vertex: usize, note: Option<&Note>, made: Option<SystemTime>) -> Explanation {
        let build = note
            .map(made_by)
            .or_else(|| made.map(|at| MadeBy { id: String::new(), at, label: String::new() }));
        let text = match &build {
            Some(build) => format!("made by the build of {}", words::build(build)),
            None => "made by an earlier build".to_owned(),
        };
        self.explanation(vertex, "cached", text, build)
    }

    /// Tells why a step ran.
    fn explain(&mut self, vertex: usize, parts: &Parts, last: Option<&Note>) -> Explanation {
        let build = last.map(made_by);
        let (reason, text) = self.reason(vertex, parts, last);
        self.explanation(vertex, reason, text, build)
    }

    fn reason(
        &mut self,
        vertex: usize,
        parts: &Parts,
        last: Option<&Note>,
    ) -> (&'static str, String) {
        let its = self.solve.definition.vertex(vertex);
        if its.metadata.ignore_cache {
            return ("no-cache", "the cache was not to be used (--no-cache)".to_owned());
        }
        let Some((note, before)) = last.and_then(|note| Some((note, Parts::decode(&note.parts)?)))
        else {
            return ("new", "never built before on this store".to_owned());
        };
        if let Some(change) = parts.first_change(&before) {
            let dockerfile = its.metadata.sources.first().map(|range| range.info.text.as_str());
            return ("changed", words::field(&change, dockerfile.unwrap_or_default()));
        }
        if parts.inputs.len() != before.inputs.len() {
            return ("changed", "it has other inputs".to_owned());
        }
        for (input, (now, was)) in parts.inputs.iter().zip(&before.inputs).enumerate() {
            if let Some(reason) = self.input_reason(vertex, input, now, was) {
                return reason;
            }
        }
        if self.key(vertex) != Some(note.key) {
            return match &its.op {
                Op::Source(_) => ("base", "the source brings something else now".to_owned()),
                _ => ("input", "its inputs are not those of the last run".to_owned()),
            };
        }
        // The same key: it was built, and what it made is not there any more, or not yet.
        let when = words::time(note.at);
        match note.gone {
            Some(gone) => (
                "pruned",
                format!("built on {when}, but its result was pruned on {}", words::time(gone)),
            ),
            None => ("lost", format!("built on {when}, but its result is not there any more")),
        }
    }

    fn input_reason(
        &mut self,
        vertex: usize,
        input: usize,
        now: &InputPart,
        was: &InputPart,
    ) -> Option<(&'static str, String)> {
        if let (Some(new), Some(old)) = (&now.content, &was.content) {
            return (new != old).then(|| {
                let changes = self.changes(vertex, input, new, old);
                let text = match changes.as_deref() {
                    Some([first, rest @ ..]) => words::change(first, rest.len()),
                    _ => format!("files of {} changed", words::quoted(&now.name)),
                };
                ("files", text)
            });
        }
        let edge = self.solve.definition.vertex(vertex).inputs.get(input)?;
        let has_run = self.solve.diary.has_run(edge.vertex);
        if now.keys.iter().any(|key| was.keys.contains(key)) && !has_run {
            return None;
        }
        match (&now.source, &was.source) {
            (Some(new), Some(old)) if new != old => return Some(("base", words::source(old, new))),
            (Some(new), None) => return Some(("input", format!("its input is now {new}"))),
            _ => {}
        }
        let name = words::quoted(&now.name);
        if has_run {
            return Some(("input", format!("its input {name} ran")));
        }
        Some(("input", format!("its input {name} is not that of the last run")))
    }

    /// Which of the files that an input is known by have changed.
    fn changes(
        &mut self,
        vertex: usize,
        input: usize,
        new: &str,
        old: &str,
    ) -> Option<Vec<listing::Change>> {
        let (new, old) = (parse_key(new)?, parse_key(old)?);
        let map = self.solve.input_map(vertex, input)?;
        let kept = |content: &Key| {
            Listing::decode(&self.store().listing(&listing_key(content, map)).ok()??)
        };
        let old = kept(&old)?;
        match kept(&new) {
            Some(new) => Some(new.changes_since(&old)),
            None => Some(self.listing(vertex, input, &new)?.changes_since(&old)),
        }
    }

    /// The listing of the content that an input of a step is known by.
    fn listing(&mut self, vertex: usize, input: usize, content: &Key) -> Option<Arc<Listing>> {
        let map = self.solve.input_map(vertex, input)?;
        let key = listing_key(content, map);
        if let Some(known) = self.listings.get(&key) {
            return known.clone();
        }
        let edge = *self.solve.definition.vertex(vertex).inputs.get(input)?;
        let listing = self.make_listing(edge, map, content).map(Arc::new);
        self.listings.insert(key, listing.clone());
        listing
    }

    fn make_listing(&self, edge: Edge, map: &InputMap, content: &Key) -> Option<Listing> {
        let map = if map.content.is_empty() { &InputMap::whole() } else { map };
        let view: Arc<dyn View> = match self.solve.value(edge).ok()? {
            // One that has changed since is not what the key stands for.
            Value::Context(_, context) => {
                (!context.has_changed()).then(|| Arc::clone(context) as Arc<dyn View>)?
            }
            Value::Archive(archive) => Arc::clone(archive) as Arc<dyn View>,
            // Files are not read once more for this.
            Value::Tree(_) => self.solve.diary.memory(content)?.view()?,
        };
        listing::list(view.as_ref(), &map.content).ok().flatten()
    }

    /// Keeps the parts of what ran, and the listings that are not kept yet.
    fn save(&mut self, build: &BuildNote, parts: &HashMap<usize, Parts>) {
        let (mut notes, mut contents) = (Vec::new(), Vec::new());
        let mut vertices: Vec<&usize> = parts.keys().collect();
        vertices.sort_unstable();
        for &vertex in vertices {
            let Some(Outcome::Ran { keys, is_saved: true }) = self.solve.diary.outcome(vertex)
            else {
                continue;
            };
            let Some(key) = self.key(vertex) else { continue };
            for (input, parents) in keys.parents.iter().enumerate() {
                let by_content = parents.iter().filter(|(_, selector)| is_content(selector));
                contents.extend(by_content.map(|(content, _)| (vertex, input, *content)));
            }
            notes.push(NewNote {
                key,
                scope: self.scope,
                place: self.place(vertex),
                text: self.text(vertex),
                parts: parts[&vertex].encode(),
            });
        }
        if notes.is_empty() {
            return;
        }
        let mut listings = BTreeMap::new();
        for (vertex, input, content) in contents {
            let Some(map) = self.solve.input_map(vertex, input) else { continue };
            let key = listing_key(&content, map);
            if !listings.contains_key(&key)
                && matches!(self.store().listing(&key), Ok(None))
                && let Some(listing) = self.listing(vertex, input, &content)
            {
                listings.insert(key, listing.encode());
            }
        }
        let listings: Vec<_> = listings.into_iter().collect();
        // Without a note a later build explains less, and that is all.
        let _ = self.store().save_notes(build, &notes, &listings);
    }
}

/// Under which the listing of some content is kept: equal content may have other names elsewhere.
fn listing_key(content: &Key, map: &InputMap) -> Key {
    map.add_selection(KeyBuilder::new("listing.v1").key(content)).finish()
}

fn made_by(note: &Note) -> MadeBy {
    match &note.build {
        Some(build) => MadeBy { id: build.id.clone(), at: build.at, label: build.label.clone() },
        None => MadeBy { id: String::new(), at: note.at, label: String::new() },
    }
}

/// The parts of a name such as `[build 2/5] RUN make`: what stands in the brackets, and what it says.
fn split_name(name: &str) -> (&str, &str) {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((head, text)) => (head, text),
        None => ("", name),
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let mut key = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_into_place_and_text() {
        assert_eq!(split_name("[build 2/5] RUN [ -f x ] && y"), ("build 2/5", "RUN [ -f x ] && y"));
        assert_eq!(split_name("merge"), ("", "merge"));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = KeyBuilder::new("x").finish();
        assert_eq!(parse_key(&key.to_string()), Some(key));
        assert_eq!(parse_key("00"), None);
        assert_eq!(parse_key(&"é".repeat(32)), None);
    }
}
