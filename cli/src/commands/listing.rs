//! How entries of the store are shown by `du` and `prune`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use cache::Entry;

use crate::progress::bytes;
use crate::report::{Exit, Failure, print};

/// Fields that a template may have, and their titles.
const FIELDS: [(&str, &str); 11] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
    ("InUse", "IN USE"),
];

/// What is printed of each entry.
#[derive(Debug)]
pub(crate) enum Format {
    /// Columns.
    Table,
    /// A paragraph.
    Pretty,
    /// An object.
    Json,
    /// What a template says, with a line of titles if asked for.
    Template { parts: Vec<Part>, titles: bool },
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Text as it is.
    Text(String),
    /// A field, by its place in [`FIELDS`].
    Field(usize),
    /// All of it, as JSON.
    Json,
}

impl Format {
    /// Reads `--format` and `--verbose`.
    pub(crate) fn parse(format: Option<&str>, verbose: bool) -> Result<Self, Failure> {
        match (format, verbose) {
            (Some(format), true) if format != "pretty" => Err(Failure::new(
                Exit::Usage,
                format!("--format={format} and --verbose cannot be used together"),
            )),
            (None | Some(_), true) | (Some("pretty"), false) => Ok(Self::Pretty),
            (None | Some("table" | ""), false) => Ok(Self::Table),
            (Some("json"), false) => Ok(Self::Json),
            (Some(template), false) => {
                let (template, titles) = match template.strip_prefix("table ") {
                    Some(rest) => (rest, true),
                    None => (template, false),
                };
                Ok(Self::Template { parts: parts(template)?, titles })
            }
        }
    }

    /// Prints the entries.
    pub(crate) fn print(&self, entries: &[Entry]) -> Result<(), Failure> {
        match self {
            Self::Table => print_table(entries),
            Self::Pretty => {
                entries.iter().try_for_each(|entry| print(format_args!("{}", pretty(entry))))
            }
            Self::Json => {
                entries.iter().try_for_each(|entry| print(format_args!("{}", json(entry))))
            }
            Self::Template { parts, titles } => {
                if *titles {
                    let title = |part: &Part| match part {
                        Part::Text(text) => text.clone(),
                        Part::Field(place) => FIELDS[*place].1.to_owned(),
                        Part::Json => String::new(),
                    };
                    print(format_args!("{}", parts.iter().map(title).collect::<String>()))?;
                }
                entries.iter().try_for_each(|entry| {
                    let text: String = parts.iter().map(|part| part.of(entry)).collect();
                    print(format_args!("{text}"))
                })
            }
        }
    }

    /// Prints what the entries add up to, where that is for people.
    pub(crate) fn print_sums(&self, entries: &[Entry]) -> Result<(), Failure> {
        if !matches!(self, Self::Table | Self::Pretty) {
            return Ok(());
        }
        let sum = |counts: &dyn Fn(&Entry) -> bool| -> u64 {
            entries.iter().filter(|entry| counts(entry)).map(|entry| entry.bytes).sum()
        };
        let line = |name: &str, size: u64| print(format_args!("{name:<16}{}", bytes(size)));
        if entries.iter().any(|entry| entry.shared) {
            line("Shared:", sum(&|entry| entry.shared))?;
            line("Private:", sum(&|entry| !entry.shared))?;
        }
        line("Reclaimable:", sum(&|entry| entry.reclaimable))?;
        line("Total:", sum(&|_| true))
    }
}

fn print_table(entries: &[Entry]) -> Result<(), Failure> {
    print(format_args!("{:<34} {:<11} {:<10} LAST ACCESSED", "ID", "RECLAIMABLE", "SIZE"))?;
    for entry in entries {
        let (mutable, shared) = (mark(entry.kind.is_mutable()), mark(entry.shared));
        // Digests of blobs are longer than anybody reads.
        let id = format!("{}{mutable}", entry.id.get(..32).unwrap_or(&entry.id));
        let size = format!("{}{shared}", bytes(entry.bytes));
        let used = entry.used.map(ago).unwrap_or_default();
        let line = format!("{id:<34} {:<11} {size:<10} {used}", entry.reclaimable);
        print(format_args!("{}", line.trim_end()))?;
    }
    Ok(())
}

fn mark(is_marked: bool) -> &'static str {
    if is_marked { "*" } else { "" }
}

fn pretty(entry: &Entry) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<16}{value}");
    };
    line("ID:", &entry.id);
    if !entry.parents.is_empty() {
        line("Parents:", "");
        entry.parents.iter().for_each(|parent| line(&format!(" - {parent}"), ""));
    }
    if let Some(created) = entry.created {
        line("Created at:", &timestamp(created));
    }
    line("Mutable:", &entry.kind.is_mutable().to_string());
    line("Reclaimable:", &entry.reclaimable.to_string());
    line("Shared:", &entry.shared.to_string());
    line("In use:", &entry.in_use.to_string());
    line("Size:", &bytes(entry.bytes));
    if !entry.description.is_empty() {
        line("Description:", &entry.description);
    }
    if let Some(used) = entry.used {
        line("Last used:", &ago(used));
    }
    line("Type:", entry.kind.name());
    text.lines().fold(String::new(), |all, line| all + line.trim_end() + "\n")
}

fn json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "ID": entry.id,
        "Parents": entry.parents,
        "CreatedAt": entry.created.map(timestamp),
        "Mutable": entry.kind.is_mutable(),
        "Reclaimable": entry.reclaimable,
        "Shared": entry.shared,
        "InUse": entry.in_use,
        "Size": entry.bytes,
        "Description": entry.description,
        "LastUsedAt": entry.used.map(timestamp),
        "Type": entry.kind.name(),
    })
}

impl Part {
    fn of(&self, entry: &Entry) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Json => json(entry).to_string(),
            Self::Field(place) => match FIELDS[*place].0 {
                "Size" => bytes(entry.bytes),
                "LastUsedAt" => entry.used.map(ago).unwrap_or_default(),
                "Parents" => entry.parents.join(","),
                name => match &json(entry)[name] {
                    serde_json::Value::String(text) => text.clone(),
                    serde_json::Value::Null => String::new(),
                    other => other.to_string(),
                },
            },
        }
    }
}

/// Reads a template of fields and text.
fn parts(template: &str) -> Result<Vec<Part>, Failure> {
    let bad = |action: &str| {
        let names: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
        Failure::new(Exit::Usage, format!("invalid template `{template}`: `{action}` is not known"))
            .hint(format!(
                "want table, pretty, json, or {{{{.FIELD}}}} with one of {}",
                names.join(", ")
            ))
    };
    let text = template.replace("\\t", "\t").replace("\\n", "\n");
    if !text.contains("{{") {
        return Err(bad(&text));
    }
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("{{") {
        if at > 0 {
            parts.push(Part::Text(rest[..at].to_owned()));
        }
        let end = rest[at..].find("}}").ok_or_else(|| bad(&rest[at..]))?;
        let action = rest[at + 2..at + end].trim();
        rest = &rest[at + end + 2..];
        if action == "json ." {
            parts.push(Part::Json);
            continue;
        }
        let place = FIELDS.iter().position(|(name, _)| action.strip_prefix('.') == Some(name));
        parts.push(Part::Field(place.ok_or_else(|| bad(action))?));
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// How long ago, as people say it.
pub(crate) fn ago(time: SystemTime) -> String {
    let age = SystemTime::now().duration_since(time).unwrap_or(Duration::ZERO).as_secs();
    let (number, unit) = match age {
        0..60 => (age, "second"),
        60..3600 => (age / 60, "minute"),
        3600..172_800 => (age / 3600, "hour"),
        172_800..1_209_600 => (age / 86_400, "day"),
        1_209_600..5_184_000 => (age / 604_800, "week"),
        5_184_000..63_072_000 => (age / 2_592_000, "month"),
        _ => (age / 31_536_000, "year"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_known_fields_only() {
        assert_eq!(
            parts("{{.ID}}\\t{{ .Size }}!{{json .}}").unwrap(),
            [
                Part::Field(0),
                Part::Text("\t".to_owned()),
                Part::Field(6),
                Part::Text("!".to_owned()),
                Part::Json
            ]
        );
        for (template, action) in [("{{.Nope}}", ".Nope"), ("yaml", "yaml"), ("{{.ID", "{{.ID")] {
            let message = parts(template).unwrap_err().message;
            assert_eq!(message, format!("invalid template `{template}`: `{action}` is not known"));
        }
    }

    #[test]
    fn ages_are_rounded_down_to_one_unit() {
        for (seconds, expect) in [
            (1, "1 second ago"),
            (150, "2 minutes ago"),
            (7200, "2 hours ago"),
            (200_000, "2 days ago"),
            (1_300_000, "2 weeks ago"),
            (8_000_000, "3 months ago"),
            (90_000_000, "2 years ago"),
        ] {
            assert_eq!(ago(SystemTime::now() - Duration::from_secs(seconds)), expect);
        }
    }
}
