//! How lists of images and of their parts are shown: as a table, as JSON, or as a template says.

use serde_json::Value;

use crate::report::{Exit, Failure, print};
use crate::template::{BadTemplate, Template};

/// A field that a template may have, and its title.
pub(crate) type Field = (&'static str, &'static str);

/// Spaces between two columns.
const GAP: usize = 3;

/// A line of a list.
#[derive(Debug)]
pub(crate) struct Row {
    /// For people and templates.
    pub(crate) shown: Value,
    /// For programs.
    pub(crate) json: Value,
}

/// What is printed of each row.
#[derive(Debug)]
pub(crate) struct Format {
    kind: Kind,
    fields: &'static [Field],
}

#[derive(Debug)]
enum Kind {
    /// Columns, with tabs between them in the template.
    Table(Template),
    /// An object for each.
    Json,
    /// What a template says.
    Lines(Template),
}

impl Format {
    /// Reads `--format`; `table` is the template of the table that is shown without one.
    pub(crate) fn parse(
        format: Option<&str>,
        table: &str,
        fields: &'static [Field],
    ) -> Result<Self, Failure> {
        let read = |text: &str| {
            let template = Template::parse(text)?;
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            template.check(&names)?;
            Ok(template)
        };
        let kind = match format.unwrap_or("table") {
            "table" | "" => Ok(Kind::Table(Template::parse(table).map_err(|e| failure(table, e))?)),
            "json" => Ok(Kind::Json),
            text => match text.strip_prefix("table ") {
                Some(columns) => read(columns).map(Kind::Table),
                None if text.contains("{{") => read(text).map(Kind::Lines),
                None => Err(BadTemplate {
                    message: "it has no field".to_owned(),
                    near: llb::suggest::nearest(text, ["table", "json"]).map(str::to_owned),
                }),
            }
            .map_err(|error| failure(text, error)),
        };
        Ok(Self { kind: kind?, fields })
    }

    /// Prints the rows.
    pub(crate) fn print(&self, rows: &[Row]) -> Result<(), Failure> {
        let render = |template: &Template, row: &Row| {
            template.render(&row.shown).map_err(|error| failure("", error))
        };
        match &self.kind {
            Kind::Json => rows.iter().try_for_each(|row| print(format_args!("{}", row.json))),
            Kind::Lines(template) => {
                rows.iter().try_for_each(|row| print(format_args!("{}", render(template, row)?)))
            }
            Kind::Table(template) => {
                let mut lines = vec![template.titles(self.fields)];
                for row in rows {
                    lines.push(render(template, row)?);
                }
                aligned(&lines).iter().try_for_each(|line| print(format_args!("{line}")))
            }
        }
    }
}

/// Wording of what is wrong with a template.
pub(crate) fn failure(template: &str, error: BadTemplate) -> Failure {
    let what = if template.is_empty() {
        "invalid template".to_owned()
    } else {
        format!("invalid template `{template}`")
    };
    let failure = Failure::new(Exit::Usage, format!("{what}: {}", error.message));
    match error.near {
        Some(near) if near.starts_with("one of ") => failure.hint(format!("want {near}")),
        near => failure.did_you_mean(near.as_deref()),
    }
}

/// Lines whose parts between tabs begin below each other.
fn aligned(lines: &[String]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        for (at, cell) in line.split('\t').enumerate() {
            let width = unicode_width::UnicodeWidthStr::width(cell);
            match widths.get_mut(at) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let fill = |line: &String| {
        let cells = line.split('\t').zip(&widths).map(|(cell, width)| {
            let missing = width - unicode_width::UnicodeWidthStr::width(cell) + GAP;
            format!("{cell}{}", " ".repeat(missing))
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    lines.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_below_each_other() {
        let lines = ["A\tB\tC", "long\tx\t", "é\tyy\tz"].map(str::to_owned);
        assert_eq!(aligned(&lines), ["A      B    C", "long   x", "é      yy   z"]);
    }

    #[test]
    fn a_format_that_is_none_says_what_is_meant() {
        const FIELDS: &[Field] = &[("ID", "ID"), ("Size", "SIZE")];
        let hint = |text| {
            let failure = Format::parse(Some(text), "{{.ID}}", FIELDS).unwrap_err();
            (failure.message, failure.hint.unwrap_or_default())
        };
        let (message, help) = hint("jsno");
        assert_eq!(message, "invalid template `jsno`: it has no field");
        assert_eq!(help, "did you mean `json`?");
        assert_eq!(hint("{{.Sice}}").1, "did you mean `.Size`?");
        assert_eq!(hint("{{.Whatever}}").1, "want one of .ID, .Size");
        assert!(Format::parse(Some("table {{.ID}}\\t{{.Size}}"), "{{.ID}}", FIELDS).is_ok());
    }
}
