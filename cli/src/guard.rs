//! `--secret-guard`: values of secrets stay out of images and out of everything that is told.
//!
//! Layers are looked through by the solver; here are what goes into an image besides, and what is shown and written
//! of a build: progress, reports, traces, metadata, explanations. Output of steps comes from the solver without them.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use exporters::Annotations;
use frontend::{Options, Target};
use llb::event::VertexError;
use llb::{Event, SourceInfo, SourceRange};
use serde_json::Value;
use solver::{Guard, Reaction};
use tree::secret::Secrets;

use crate::report::{Excerpt, Exit, Failure};

/// The secrets of this process, once any were given.
static SECRETS: OnceLock<Arc<Secrets>> = OnceLock::new();

/// Most characters shown of an entry of a history.
const SHOWN: usize = 100;

/// What to do about a value in a layer.
const LAYER_HINT: &str = "give the value to the one command that needs it, with RUN --mount=type=secret, \
    and write it to no file of the image; for a file of the context, name it in .dockerignore. \
    --secret-guard=warn builds nevertheless";

/// What to do about a value in the config of an image.
const CONFIG_HINT: &str = "values of ARG, ENV and LABEL, and the texts of commands, are part of the image for \
    everyone to read: use RUN --mount=type=secret instead. --secret-guard=warn builds nevertheless";

/// Reads `--secret-guard`; `None` is for looking for nothing.
pub(crate) fn reaction(given: Option<&str>) -> Result<Option<Reaction>, Failure> {
    match given {
        None | Some("error") => Ok(Some(Reaction::Fail)),
        Some("warn") => Ok(Some(Reaction::Warn)),
        Some("off") => Ok(None),
        Some(other) => Err(Failure::new(
            Exit::Usage,
            format!("invalid --secret-guard `{other}`: want error, warn or off"),
        )),
    }
}

/// Has everything that is told from now on be without these values.
pub(crate) fn hide(secrets: &Arc<Secrets>) {
    // There is one build in a process.
    let _ = SECRETS.set(Arc::clone(secrets));
}

/// The text without values of secrets.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    match SECRETS.get() {
        Some(secrets) => secrets.redact(text),
        None => text.into(),
    }
}

/// The document without values of secrets in its texts.
pub(crate) fn redact_json(value: &mut Value) {
    if SECRETS.get().is_none() {
        return;
    }
    match value {
        Value::String(text) => redact_in_place(text),
        Value::Array(values) => values.iter_mut().for_each(redact_json),
        Value::Object(map) => {
            map.values_mut().for_each(redact_json);
            let given_away = |key: &&String| matches!(redact(key), Cow::Owned(_));
            let keys: Vec<String> = map.keys().filter(given_away).cloned().collect();
            for key in keys {
                if let Some(value) = map.remove(&key) {
                    map.insert(redact(&key).into_owned(), value);
                }
            }
        }
        _ => {}
    }
}

fn redact_in_place(text: &mut String) {
    if let Cow::Owned(redacted) = redact(text) {
        *text = redacted;
    }
}

/// The event without values of secrets, but for the output of a step, which comes without them.
pub(crate) fn redact_event(mut event: Event) -> Event {
    if SECRETS.get().is_none() {
        return event;
    }
    match &mut event {
        Event::VertexStarted { name, .. } => redact_in_place(name),
        Event::VertexCompleted { error: Some(VertexError::Failed(text)), .. } => {
            redact_in_place(text);
        }
        Event::Status { id, .. } => redact_in_place(id),
        Event::Warning { short, detail, range, .. } => {
            redact_in_place(short);
            detail.iter_mut().for_each(redact_in_place);
            for range in range {
                if let Cow::Owned(text) = redact(&range.info.text) {
                    range.info = Arc::new(SourceInfo { text, ..range.info.as_ref().clone() });
                }
            }
        }
        Event::Explained(explanation) => {
            redact_in_place(&mut explanation.name);
            redact_in_place(&mut explanation.text);
        }
        _ => {}
    }
    event
}

/// What to do about an [error](solver::OpError::SecretLeak) of a layer.
pub(crate) fn layer_failure(message: String) -> Failure {
    Failure::new(Exit::Build, message).hint(LAYER_HINT)
}

/// Looks through what the image has besides its layers: config, history, annotations and names. Returns what to warn of.
pub(crate) fn check_images<'t>(
    guard: &Guard,
    targets: impl Iterator<Item = &'t Target>,
    (annotations, names): (&Annotations, &[String]),
    options: &Options,
    info: &Arc<SourceInfo>,
) -> Result<Option<String>, Failure> {
    let secrets = &guard.secrets;
    let mut found = targets.into_iter().find_map(|target| config_leak(secrets, target));
    if found.is_none() {
        let texts = annotations.0.iter().flat_map(|it| [&it.key, &it.value]);
        let texts = texts.map(|text| ("an annotation of the image", text));
        let mut all = texts.chain(names.iter().map(|name| ("a name of the image", name)));
        found =
            all.find_map(|(place, text)| Some((place.to_owned(), secrets.find(text.as_bytes())?)));
    }
    let Some((place, id)) = found else { return Ok(None) };
    let message = format!("{place} has the value of secret `{id}`");
    if guard.reaction == Reaction::Warn {
        return Ok(Some(message));
    }
    let mut failure =
        Failure::new(Exit::Build, format!("failed to solve: {message}")).hint(CONFIG_HINT);
    if let Some(line) = line_of(secrets, options, info) {
        let range = SourceRange { info: Arc::clone(info), start: line, end: line };
        failure.sources.push(Excerpt::from(range));
    }
    Err(failure)
}

/// Where the config of a target has a value, and of which secret. What comes from the base image is not its doing.
fn config_leak(secrets: &Secrets, target: &Target) -> Option<(String, String)> {
    let mut config = target.config.clone();
    if let Some(history) = &mut config.history {
        for entry in history.iter().skip(target.base_history_len) {
            let text = serde_json::to_value(entry).ok()?;
            if let Some((_, id)) = leak_in(secrets, &text, String::new()) {
                let command = secrets.redact(&entry.created_by);
                let command: String = command.chars().take(SHOWN).collect();
                return Some((format!("the entry `{command}` of the history of the image"), id));
            }
        }
        history.clear();
    }
    let (place, id) = leak_in(secrets, &serde_json::to_value(&config).ok()?, String::new())?;
    Some((format!("`{}` of the config of the image", place.trim_start_matches('.')), id))
}

fn leak_in(secrets: &Secrets, value: &Value, place: String) -> Option<(String, String)> {
    match value {
        Value::String(text) => secrets.find(text.as_bytes()).map(|id| (place, id)),
        Value::Array(values) => values
            .iter()
            .enumerate()
            .find_map(|(number, value)| leak_in(secrets, value, format!("{place}[{number}]"))),
        Value::Object(map) => map.iter().find_map(|(key, value)| {
            let below = format!("{place}.{}", secrets.redact(key));
            match secrets.find(key.as_bytes()) {
                Some(id) => Some((below, id)),
                None => leak_in(secrets, value, below),
            }
        }),
        _ => None,
    }
}

/// The line of the Dockerfile that has the value, or the build argument that was given it.
fn line_of(secrets: &Secrets, options: &Options, info: &SourceInfo) -> Option<usize> {
    let args = options.build_args.iter();
    let args = args.filter(|(_, value)| secrets.find(value.as_bytes()).is_some());
    let args: Vec<&str> = args.map(|(name, _)| name.as_str()).collect();
    let declares = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.eq_ignore_ascii_case("ARG"))
            && words.any(|word| args.contains(&word.split('=').next().unwrap_or_default()))
    };
    let mut lines = info.text.lines();
    let place = lines.position(|line| secrets.find(line.as_bytes()).is_some() || declares(line));
    place.map(|index| index + 1)
}
