//! `build diff`.

use std::path::Path;

use cache::{Image, Store};
use llb::image::{History, ImageConfig};
use serde_json::{Value, json};
use tree::compare::{Aspect, Change, CompareOptions, Difference, compare};
use tree::{Kind, Metadata, Timestamp, TreeError};

use crate::commands::facts::{config, variant};
use crate::commands::rows::failure;
use crate::commands::{RootArg, image_failure};
use crate::look::harmless;
use crate::report::{Exit, Failure, chain, print};
use crate::template::Template;

/// Show how two images differ: files, config, history
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build diff app:1.0 app:1.1

A file that only the second image has begins with A, one that only the first has with D, one that is not the same with C \
and what of it is not. Exit code: 0 when nothing differs, 1 when something does, 2 or more when that could not be found out.")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    root: RootArg,
    /// text, json, or a template with .Files, .Config, .History and .Same
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Compare only these: files, config, history
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = PARTS)]
    only: Vec<String>,
    /// Compare times too
    #[arg(long)]
    times: bool,
    /// Print nothing: the exit code tells
    #[arg(short, long)]
    quiet: bool,
    /// Platform to compare, such as linux/arm64 [default: that of this machine]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Name, id or prefix of an id
    #[arg(value_name = "IMAGE")]
    before: String,
    /// Image to compare it with
    #[arg(value_name = "OTHER")]
    after: String,
}

const PARTS: [&str; 3] = ["files", "config", "history"];

/// Fields of the whole, for templates.
const FIELDS: [&str; 4] = ["Files", "Config", "History", "Same"];

/// How two images differ.
#[derive(Debug, Default)]
struct Found {
    files: Vec<Difference>,
    config: Vec<FieldChange>,
    history: Vec<StepChange>,
}

/// A part of the config that differs; what is not there is `None`.
#[derive(Debug, PartialEq, Eq)]
struct FieldChange {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

/// A step that only one of the images has.
#[derive(Debug, PartialEq, Eq)]
struct StepChange {
    is_new: bool,
    step: String,
}

/// Prints what differs, and says by the exit code whether anything does.
pub(crate) fn run(args: &DiffArgs) -> Result<Exit, Failure> {
    let text = args.format.as_deref().filter(|text| !matches!(*text, "text" | ""));
    let template = match text {
        None | Some("json") => None,
        Some(text) => {
            let template = Template::parse(text)
                .and_then(|template| template.check(&FIELDS).map(|()| template));
            Some(template.map_err(|error| failure(text, error))?)
        }
    };
    let engine = args.root.engine()?;
    let found = differences(engine.store(), args).map_err(|failure| match failure.exit {
        // What one of these means stands for something else here.
        Exit::Build => Failure { exit: Exit::Usage, ..failure },
        _ => failure,
    })?;
    let same = found.files.is_empty() && found.config.is_empty() && found.history.is_empty();
    if !args.quiet {
        match (&template, text) {
            (Some(template), Some(text)) => {
                let line = template.render(&found.json(same));
                print(format_args!("{}", line.map_err(|error| failure(text, error))?))?;
            }
            (None, Some(_)) => {
                let text = serde_json::to_string_pretty(&found.json(same)).unwrap_or_default();
                print(format_args!("{text}"))?;
            }
            _ => found.print()?,
        }
    }
    Ok(if same { Exit::Done } else { Exit::Build })
}

fn differences(store: &Store, args: &DiffArgs) -> Result<Found, Failure> {
    let get = |name: &String| store.images().get(name).map_err(|error| image_failure(&error, name));
    let (before, after) = (get(&args.before)?, get(&args.after)?);
    let is_wanted = |part: &str| args.only.is_empty() || args.only.iter().any(|one| one == part);
    let side = |image: &Image, name: &str| {
        let variant = variant(image, name, args.platform.as_deref())?;
        let (text, config) = config(store, variant, name)?;
        let layers =
            store.images().reference(variant).map_err(|error| image_failure(&error, name))?;
        Ok::<_, Failure>((layers, text, config))
    };
    let (old_layers, old_text, old_config) = side(&before, &args.before)?;
    let (new_layers, new_text, new_config) = side(&after, &args.after)?;
    let mut found = Found::default();
    if is_wanted("files") && old_layers != new_layers {
        let tree = |layers: &cache::Ref, name: &str| {
            layers.stack().map_err(|error| image_failure(&error, name))
        };
        let (old, new) = (tree(&old_layers, &args.before)?, tree(&new_layers, &args.after)?);
        let options = CompareOptions { times: args.times };
        let unreadable = |error: TreeError| {
            Failure::new(Exit::Machine, format!("cannot compare: {}", chain(&error)))
        };
        found.files = compare(&old, &new, options).map_err(unreadable)?;
    }
    if is_wanted("config") {
        found.config = config_changes(&flat(&old_text, args.times), &flat(&new_text, args.times));
    }
    if is_wanted("history") {
        let old = steps(&old_config, args.times);
        found.history = step_changes(&old, &steps(&new_config, args.times));
    }
    Ok(found)
}

/// The members of a config but for layers and history, each with its value; lists have one for each item.
fn flat(text: &[u8], times: bool) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Ok(Value::Object(fields)) = serde_json::from_slice(text) {
        for (name, value) in fields {
            let is_left_away = ["rootfs", "history"].contains(&name.as_str());
            if !is_left_away && (times || name != "created") {
                let name = if name == "config" { String::new() } else { name };
                flatten(&name, &value, &mut found);
            }
        }
    }
    found
}

fn flatten(name: &str, value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                let inner = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
                flatten(&inner, value, found);
            }
        }
        // The order of variables does not matter, and each is known by its name.
        Value::Array(items) if name == "Env" => {
            for item in items.iter().filter_map(Value::as_str) {
                let (variable, value) = item.split_once('=').unwrap_or((item, ""));
                found.push((format!("Env.{variable}"), value.to_owned()));
            }
        }
        Value::String(text) => found.push((name.to_owned(), text.clone())),
        other => found.push((name.to_owned(), other.to_string())),
    }
}

fn config_changes(old: &[(String, String)], new: &[(String, String)]) -> Vec<FieldChange> {
    let value = |all: &[(String, String)], field: &str| {
        all.iter().rfind(|(name, _)| name == field).map(|(_, value)| value.clone())
    };
    let mut fields: Vec<&String> = old.iter().chain(new).map(|(name, _)| name).collect();
    fields.sort();
    fields.dedup();
    let changes = fields.into_iter().map(|field| FieldChange {
        field: field.clone(),
        before: value(old, field),
        after: value(new, field),
    });
    changes.filter(|change| change.before != change.after).collect()
}

/// The steps of an image, first one first.
fn steps(config: &ImageConfig, times: bool) -> Vec<String> {
    let line = |entry: &History| {
        let step = entry.created_by.trim();
        match &entry.created {
            Some(created) if times => format!("{created} {step}"),
            _ => step.to_owned(),
        }
    };
    config.history.iter().flatten().map(line).collect()
}

/// Most steps that are compared in their order; more than any image has.
const MOST_STEPS: usize = 2000;

/// Steps that only one has, by the longest row of steps that both have.
fn step_changes(old: &[String], new: &[String]) -> Vec<StepChange> {
    let change = |is_new, step: &String| StepChange { is_new, step: step.clone() };
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[same..], &new[same..]);
    if old.len() > MOST_STEPS || new.len() > MOST_STEPS {
        let gone = old.iter().map(|step| change(false, step));
        return gone.chain(new.iter().map(|step| change(true, step))).collect();
    }
    // How many steps behind each pair of places both have.
    let mut common = vec![vec![0u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            found.push(change(false, &old[i]));
            i += 1;
        } else {
            found.push(change(true, &new[j]));
            j += 1;
        }
    }
    found
}

impl Found {
    fn print(&self) -> Result<(), Failure> {
        for file in &self.files {
            let path = path_text(&file.path);
            match &file.change {
                Change::Added(metadata) => print(format_args!("A {path}{}", end(metadata)))?,
                Change::Removed(metadata) => print(format_args!("D {path}{}", end(metadata)))?,
                Change::Changed(aspects) => {
                    let all: Vec<String> = aspects.iter().map(aspect_text).collect();
                    print(format_args!("C {path} ({})", all.join(", ")))?;
                }
            }
        }
        for change in &self.config {
            let what = match (&change.before, &change.after) {
                (Some(old), Some(new)) => format!("{old} → {new}"),
                (Some(old), None) => format!("removed, was {old}"),
                (None, Some(new)) => format!("added, {new}"),
                (None, None) => continue,
            };
            print(format_args!("config {}", harmless(&format!("{}: {what}", change.field))))?;
        }
        for change in &self.history {
            let sign = if change.is_new { '+' } else { '-' };
            print(format_args!("history {sign} {}", harmless(&change.step)))?;
        }
        Ok(())
    }

    fn json(&self, same: bool) -> Value {
        let files = self.files.iter().map(|file| {
            let path = format!("/{}", file.path.display());
            match &file.change {
                Change::Added(metadata) => {
                    json!({ "Path": path, "Change": "added", "Kind": kind_text(metadata.kind) })
                }
                Change::Removed(metadata) => {
                    json!({ "Path": path, "Change": "removed", "Kind": kind_text(metadata.kind) })
                }
                Change::Changed(aspects) => {
                    let what: Vec<Value> = aspects.iter().map(aspect_json).collect();
                    json!({ "Path": path, "Change": "changed", "What": what })
                }
            }
        });
        let config = self.config.iter().map(|change| {
            json!({ "Field": change.field, "Before": change.before, "After": change.after })
        });
        let history = self.history.iter().map(|change| {
            let kind = if change.is_new { "added" } else { "removed" };
            json!({ "Change": kind, "Step": change.step })
        });
        json!({
            "Same": same,
            "Files": files.collect::<Vec<_>>(),
            "Config": config.collect::<Vec<_>>(),
            "History": history.collect::<Vec<_>>(),
        })
    }
}

fn path_text(path: &Path) -> String {
    harmless(&format!("/{}", path.display()))
}

/// What shows that a path is a folder.
fn end(metadata: &Metadata) -> &'static str {
    if metadata.kind == Kind::Dir { "/" } else { "" }
}

fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "folder",
        Kind::Symlink => "symlink",
        Kind::CharDevice => "character device",
        Kind::BlockDevice => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
    }
}

/// Name of an aspect, and its values before and after where it has any.
fn aspect_parts(aspect: &Aspect) -> (&'static str, Option<(String, String)>) {
    let mode = |mode: u32| format!("{mode:04o}");
    let pair = |(one, two): (u32, u32)| format!("{one}:{two}");
    let time = |time: Timestamp| {
        jiff::Timestamp::from_second(time.seconds).map(|time| time.to_string()).unwrap_or_default()
    };
    let target = |path: &Path| path.display().to_string();
    match aspect {
        Aspect::Kind(old, new) => {
            ("kind", Some((kind_text(*old).to_owned(), kind_text(*new).to_owned())))
        }
        Aspect::Mode(old, new) => ("mode", Some((mode(*old), mode(*new)))),
        Aspect::Owner(old, new) => ("owner", Some((pair(*old), pair(*new)))),
        Aspect::Size(old, new) => ("size", Some((old.to_string(), new.to_string()))),
        Aspect::Content => ("content", None),
        Aspect::Target(old, new) => ("target", Some((target(old), target(new)))),
        Aspect::Device(old, new) => ("device", Some((pair(*old), pair(*new)))),
        Aspect::Attributes(_) => ("extended attributes", None),
        Aspect::Time(old, new) => ("time", Some((time(*old), time(*new)))),
    }
}

fn aspect_text(aspect: &Aspect) -> String {
    let text = match (aspect, aspect_parts(aspect)) {
        (Aspect::Attributes(names), (name, _)) => {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            format!("{name} {}", names.join(" "))
        }
        (_, (name, Some((old, new)))) => format!("{name} {old} → {new}"),
        (_, (name, None)) => name.to_owned(),
    };
    harmless(&text)
}

fn aspect_json(aspect: &Aspect) -> Value {
    match (aspect, aspect_parts(aspect)) {
        (Aspect::Attributes(names), (name, _)) => {
            let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
            json!({ "Aspect": name, "Names": names })
        }
        (_, (name, Some((old, new)))) => json!({ "Aspect": name, "Before": old, "After": new }),
        (_, (name, None)) => json!({ "Aspect": name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &[&str], new: &[&str], expect: &str) {
        let own = |steps: &[&str]| steps.iter().map(|step| (*step).to_owned()).collect::<Vec<_>>();
        let changes = step_changes(&own(old), &own(new));
        let shown = changes.iter().map(|change| {
            let sign = if change.is_new { "+" } else { "-" };
            format!("{sign}{}", change.step)
        });
        assert_eq!(shown.collect::<Vec<_>>().join(" "), expect);
    }

    #[test]
    fn steps_are_compared_in_their_order() {
        check(&["a", "b", "c"], &["a", "b", "c"], "");
        check(&["a", "b", "c"], &["a", "x", "c"], "-b +x");
        check(&["a"], &["a", "b", "c"], "+b +c");
        check(&["a", "b"], &["b", "a"], "-a +a");
        check(&["a", "b", "c", "d"], &["b", "d"], "-a -c");
    }

    #[test]
    fn members_of_a_config_have_names() {
        let old = br#"{"created":"x","config":{"Env":["A=1","B=2"],"Labels":{"l":"1"},"Cmd":["a","b"]},"os":"linux"}"#;
        let new = br#"{"created":"y","config":{"Env":["B=2","A=3"],"User":"u","Cmd":["a"]},"os":"linux"}"#;
        let names = |times| {
            let changes = config_changes(&flat(old, times), &flat(new, times));
            changes.into_iter().map(|change| change.field).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["Cmd", "Env.A", "Labels.l", "User"]);
        assert_eq!(names(true), ["Cmd", "Env.A", "Labels.l", "User", "created"]);
    }
}
