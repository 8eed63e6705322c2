//! Keeps values of secrets out of layers.
//!
//! What a step has made is looked through before it becomes a layer. Nothing is remembered of it: a layer that comes from the cache
//! was looked through when it was made, for the secrets that were given then.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

use cache::CacheError;
use llb::Event;
use tree::secret::{Leak, Place, Redactor, Secrets};
use tree::stack::{Layer, Stack};

use crate::error::OpError;
use crate::solve::Solve;

/// Leaks that are told of one layer.
const TOLD: usize = 5;

/// What to do about the value of a secret in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Fail, and keep nothing of the layer.
    Fail,
    /// Tell of it in the output of the step.
    Warn,
}

/// The secrets of a job that must not get into what it makes.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Their values.
    pub secrets: Arc<Secrets>,
    /// What to do if they do.
    pub reaction: Reaction,
}

/// Looks through the layer that a vertex has made, which is asked for only if there is something to look for.
pub(crate) fn check(
    solve: &Solve<'_>,
    vertex: usize,
    made: impl FnOnce() -> Result<Layer, CacheError>,
) -> Result<(), OpError> {
    let Some(guard) = solve.job.session.guard().filter(|guard| !guard.secrets.is_empty()) else {
        return Ok(());
    };
    let name = || solve.definition.vertex(vertex).metadata.name.clone();
    let _span = tree::trace::span("look for secrets", name);
    let made = Stack::new(vec![made()?]);
    let leaks = guard.secrets.leaks(&made, &solve.job.stop_reading()).map_err(|source| {
        if solve.job.cancel.is_cancelled() {
            return OpError::Canceled;
        }
        OpError::Io { action: "look for secrets in the layer of", path: name().into(), source }
    })?;
    if leaks.is_empty() {
        return Ok(());
    }
    let found = described(&leaks);
    match guard.reaction {
        Reaction::Fail => Err(OpError::SecretLeak { found }),
        Reaction::Warn => {
            let text = format!("WARNING: the layer of this step gives secrets away: {found}\n");
            let (vertex, at) = (solve.shown(vertex), SystemTime::now());
            solve.job.events.send(Event::Log { vertex, stream: 2, data: text.into_bytes(), at });
            Ok(())
        }
    }
}

/// What takes values of secrets out of an output of a step; `None` when there are none.
pub(crate) fn redactor(solve: &Solve<'_>) -> Option<Redactor> {
    let guard = solve.job.session.guard()?;
    Some(Redactor::new(guard.secrets))
}

fn described(leaks: &[Leak]) -> String {
    let mut text = String::new();
    for leak in &leaks[..leaks.len().min(TOLD)] {
        let separator = if text.is_empty() { "" } else { "; " };
        let path = leak.path.display();
        let _ = match &leak.place {
            Place::Content => write!(text, "{separator}the file `{path}` has"),
            Place::Name => write!(text, "{separator}the name of `{path}` has"),
            Place::Target => write!(text, "{separator}the target of the symlink `{path}` has"),
            Place::Attribute(name) => {
                write!(text, "{separator}the extended attribute `{name}` of `{path}` has")
            }
        };
        let _ = write!(text, " the value of secret `{}`", leak.id);
    }
    if leaks.len() > TOLD {
        let _ = write!(text, "; and there is more");
    }
    text
}
