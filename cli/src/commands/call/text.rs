//! Answers as text.

use std::fmt::Write as _;
use std::sync::Arc;

use frontend::{Outline, StageInfo, Warning};
use llb::SourceInfo;

use super::json::REQUESTS;
use crate::look::Look;
use crate::report::{Failure, SourceLines};

/// Findings of the checks.
pub(super) fn findings(warnings: &[Warning], info: &Arc<SourceInfo>) -> String {
    let mut out = match warnings.len() {
        0 => return "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        count => format!("Check complete, {count} warnings have been found!"),
    };
    let source = SourceLines::of(info);
    for warning in warnings {
        let (rule, lines) = (warning.rule, warning.lines);
        let _ = write!(out, "\n\nWARNING: {rule} - {}\n{}\n", rule.url(), warning.message);
        out.push_str(source.block(lines.start, lines.end).trim_end());
    }
    out
}

/// Findings at the end of a build.
pub(super) fn summary(warnings: &[Warning], debug: bool, info: &Arc<SourceInfo>) -> String {
    let noun = if warnings.len() == 1 { "warning" } else { "warnings" };
    let hint = if debug { "" } else { " (use --debug to expand)" };
    let mut out = format!(" {} {noun} found{hint}:\n", warnings.len());
    let source = SourceLines::of(info);
    for Warning { rule, message, lines } in warnings {
        let _ = writeln!(out, " - {rule}: {message} (line {})", lines.start);
        if debug {
            let (about, url) = (rule.description(), rule.url());
            let block = source.block(lines.start, lines.end);
            let _ = writeln!(out, "{about}\nMore info: {url}\n{block}");
        }
    }
    out
}

/// Why the Dockerfile cannot be built, each reason with its place below.
pub(super) fn failures(failures: &[Failure]) -> String {
    let mut out = String::new();
    for failure in failures {
        let _ = writeln!(out, "ERROR: {}", message(failure));
        failure.sources.iter().for_each(|source| out.push_str(&source.render(&Look::default())));
        if let Some(hint) = &failure.hint {
            let _ = writeln!(out, "  help: {hint}");
        }
    }
    out
}

/// Message of a failure; nothing is solved here.
pub(super) fn message(failure: &Failure) -> &str {
    failure.message.strip_prefix("failed to solve: ").unwrap_or(&failure.message)
}

/// Stages of the file; only those with a name can be asked for.
pub(super) fn targets(stages: &[StageInfo]) -> String {
    let rows = stages.iter().map(|stage| {
        let name = match (stage.name.as_deref(), stage.is_default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.unwrap_or_default().to_owned(),
        };
        vec![name, stage.description.clone().unwrap_or_default()]
    });
    table(&["TARGET", "DESCRIPTION"], 1, rows)
}

/// What a target asks for: tables with a blank line below each, those without rows left out.
pub(super) fn outline(outline: &Outline) -> String {
    let mut out = String::new();
    let name = outline.name.clone();
    if name.is_some() || outline.description.is_some() {
        let name = name.unwrap_or_else(|| "(default)".to_owned());
        let description = outline.description.clone();
        let rows = description.map(|description| vec!["DESCRIPTION:".to_owned(), description]);
        out = table(&["TARGET:", &name], 1, rows) + "\n";
    }
    if !outline.args.is_empty() {
        let rows = outline.args.iter().map(|arg| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            vec![arg.name.clone(), text(&arg.value), text(&arg.description)]
        });
        out += &(table(&["BUILD ARG", "VALUE", "DESCRIPTION"], 3, rows) + "\n");
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if mounts.is_empty() {
            continue;
        }
        let rows = mounts.iter().map(|mount| {
            vec![mount.name.clone(), if mount.required { "true" } else { "" }.to_owned()]
        });
        out += &(table(&[title, "REQUIRED"], 3, rows) + "\n");
    }
    out
}

/// Which questions there are.
pub(super) fn describe() -> String {
    let rows = REQUESTS
        .iter()
        .map(|request| [request.method, "1.0.0", request.description].map(str::to_owned).to_vec());
    table(&["NAME", "VERSION", "DESCRIPTION"], 1, rows)
}

/// A table whose columns are as wide as their longest cell and `padding`; the last one is as wide as it is.
fn table(head: &[&str], padding: usize, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let head = head.iter().map(|&cell| cell.to_owned()).collect();
    // A line break in a cell would be one of the table.
    let one_line = |row: Vec<String>| -> Vec<String> {
        row.into_iter().map(|cell| cell.replace(['\n', '\r', '\t'], " ")).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).map(one_line).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default() + padding
    };
    let widths: Vec<usize> = (0..rows[0].len() - 1).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "{cell:<width$}");
        }
        out += row.last().map_or("", String::as_str);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [("ä", "1", "x"), ("long name", "", ""), ("two\nlines", "2", "y z")];
        let rows = rows.map(|(a, b, c)| vec![a.to_owned(), b.to_owned(), c.to_owned()]);
        assert_eq!(
            table(&["A", "BC", "D"], 2, rows),
            "A          BC  D\nä          1   x\nlong name      \ntwo lines  2   y z\n"
        );
    }
}
