//! What became of each step, as a trace shows it: looked up, waiting, run. Costs nothing without a trace.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use llb::Definition;
use tree::trace::{self, Track};

use crate::scheduler::Action;

/// A pause that is too short to be called waiting.
const NOTHING: Duration = Duration::from_micros(200);

/// Rows of one solve, made when a step is first worked on.
pub(crate) struct Timeline<'a> {
    definition: &'a Definition,
    rows: Option<Vec<Mutex<Option<Row>>>>,
}

#[derive(Clone, Copy)]
struct Row {
    track: Track,
    /// When the last action ended.
    since: Instant,
}

impl<'a> Timeline<'a> {
    pub(crate) fn new(definition: &'a Definition) -> Self {
        let rows = || definition.vertices().iter().map(|_| Mutex::default()).collect();
        Self { definition, rows: trace::is_on().then(rows) }
    }

    /// Begins an action; it ends when what is returned is dropped.
    pub(crate) fn begin(&self, action: Action) -> Option<Turn<'_>> {
        let rows = self.rows.as_ref()?;
        let (kind, vertex) = match action {
            Action::Lookup(vertex) => ("look up", vertex),
            Action::LookupWithInputs(vertex) => ("look up with inputs", vertex),
            Action::Execute(vertex) => ("run", vertex),
            Action::Stop => return None,
        };
        let start = Instant::now();
        let slot = rows.get(vertex)?;
        let track = {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let name = || self.name(vertex).to_owned();
            let row = match *slot {
                Some(row) => row,
                None => Row { track: trace::track(name)?, since: start },
            };
            if start.saturating_duration_since(row.since) > NOTHING {
                trace::add(row.track, "wait", self.awaited(action), row.since, start);
            }
            *slot = Some(row);
            row.track
        };
        let span = trace::span(kind, || self.name(vertex).to_owned());
        Some(Turn { slot, track, kind, start, _span: span })
    }

    fn name(&self, vertex: usize) -> &str {
        &self.definition.vertex(vertex).metadata.name
    }

    /// What a step has waited for that now goes on.
    fn awaited(&self, action: Action) -> String {
        match action {
            Action::LookupWithInputs(vertex) => {
                let inputs = &self.definition.vertex(vertex).inputs;
                let names: Vec<&str> = inputs.iter().map(|edge| self.name(edge.vertex)).collect();
                format!("for {}", names.join(", "))
            }
            _ => "for its turn".to_owned(),
        }
    }
}

/// An action that is under way.
pub(crate) struct Turn<'t> {
    slot: &'t Mutex<Option<Row>>,
    track: Track,
    kind: &'static str,
    start: Instant,
    _span: trace::Span,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let since = Instant::now();
        trace::add(self.track, self.kind, String::new(), self.start, since);
        let row = Row { track: self.track, since };
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(row);
    }
}
