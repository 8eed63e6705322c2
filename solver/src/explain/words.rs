//! Reasons in words.

use std::time::SystemTime;

use llb::event::MadeBy;
use tree::listing::{Change, ChangeKind};

use super::parts::{FieldChange, is_hidden, shown};

/// Longest name of a step that is repeated within a reason, in characters.
const LONGEST: usize = 80;

/// A name, shortened.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// When and as what a build was made.
pub(super) fn build(build: &MadeBy) -> String {
    let when = time(build.at);
    if build.label.is_empty() { when } else { format!("{when} ({})", build.label) }
}

/// A time to the minute, in UTC.
pub(super) fn time(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// What of the op is not as it was. `dockerfile` tells arguments from other variables.
pub(super) fn field(change: &FieldChange, dockerfile: &str) -> String {
    let label = match change.label.strip_prefix("variable ") {
        Some(name) => format!("{} {name}", declared_as(dockerfile, name)),
        None => change.label.clone(),
    };
    match (&change.before, &change.now) {
        (None, None) => format!("{label} changed"),
        (None, Some(now)) => match shown(now) {
            Some(now) if now != "\"\"" => format!("{label} is new: {now}"),
            _ => format!("{label} is new"),
        },
        (Some(_), None) => format!("{label} is not there any more"),
        (Some(before), Some(now)) if is_hidden(before) || is_hidden(now) => {
            format!("{label} changed (its value is not shown)")
        }
        (Some(before), Some(now)) => match (shown(before), shown(now)) {
            (Some(before), Some(now)) => format!("{label} changed: {before} → {now}"),
            _ => format!("{label} changed"),
        },
    }
}

/// By which instruction of a Dockerfile a variable is set.
fn declared_as(dockerfile: &str, name: &str) -> &'static str {
    let names = |line: &str, keyword: &str| {
        let rest =
            line.trim_start().get(..keyword.len()).filter(|it| it.eq_ignore_ascii_case(keyword));
        rest.is_some()
            && line.trim_start()[keyword.len()..].split_whitespace().any(|word| {
                word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
    };
    let is_set_by = |keyword: &str| dockerfile.lines().any(|line| names(line, keyword));
    match (is_set_by("ENV "), is_set_by("ARG ")) {
        (true, _) => "ENV",
        (false, true) => "ARG",
        (false, false) => "variable",
    }
}

/// How a source from elsewhere has changed.
pub(super) fn source(before: &str, now: &str) -> String {
    let image = |text: &str| {
        let text = text.strip_prefix("docker-image://").or(text.strip_prefix("oci-layout://"));
        text.map(str::to_owned)
    };
    let (Some(before), Some(now)) = (image(before), image(now)) else {
        return format!("the source changed: {before} → {now}");
    };
    let short = |text: &str| match text.split_once("@sha256:") {
        Some((name, digest)) => {
            (name.to_owned(), format!("sha256:{}…", digest.get(..12).unwrap_or(digest)))
        }
        None => (text.to_owned(), String::new()),
    };
    let ((name, old), (other, new)) = (short(&before), short(&now));
    if name == other {
        format!("the base image changed: {name}@{old} → {new}")
    } else {
        format!("the base image changed: {name} → {other}")
    }
}

/// How files have changed: the first, and how many more.
pub(super) fn change(first: &Change, more: usize) -> String {
    let Change { path, what } = first;
    let text = match what {
        ChangeKind::New(true) => format!("new folder {path}"),
        ChangeKind::New(false) => format!("new file {path}"),
        ChangeKind::Removed => format!("{path} was removed"),
        ChangeKind::Kind => format!("{path} became another kind of file"),
        ChangeKind::Content => format!("{path} changed (content)"),
        ChangeKind::Within => format!("files in {path} changed"),
        ChangeKind::Mode(before, now) => {
            format!("mode of {path} changed: {before:04o} → {now:04o}")
        }
        ChangeKind::Owner(before, now) => {
            format!("owner of {path} changed: {}:{} → {}:{}", before.0, before.1, now.0, now.1)
        }
    };
    match more {
        0 => text,
        1 => format!("{text}, and 1 more"),
        more => format!("{text}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_told_apart_by_who_sets_them() {
        let dockerfile = "FROM a\narg VERSION=1 OTHER\n  ENV PORT=80\nRUN ARGX=1\n";
        for (name, expect) in [
            ("VERSION", "ARG"),
            ("OTHER", "ARG"),
            ("PORT", "ENV"),
            ("PATH", "variable"),
            ("VER", "variable"),
        ] {
            assert_eq!(declared_as(dockerfile, name), expect, "{name}");
        }
    }

    #[test]
    fn sources_are_told_by_what_differs() {
        let image =
            |name: &str, digit: &str| format!("docker-image://{name}@sha256:{}", digit.repeat(64));
        assert_eq!(
            source(
                &image("docker.io/library/debian:12", "a"),
                &image("docker.io/library/debian:12", "b")
            ),
            "the base image changed: docker.io/library/debian:12@sha256:aaaaaaaaaaaa… → sha256:bbbbbbbbbbbb…"
        );
        assert_eq!(
            source(&image("debian", "a"), &image("ubuntu", "b")),
            "the base image changed: debian → ubuntu"
        );
        assert_eq!(
            source("https://a/x", "https://a/y"),
            "the source changed: https://a/x → https://a/y"
        );
    }
}
