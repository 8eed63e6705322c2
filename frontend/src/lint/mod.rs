//! Build checks: rules about Dockerfiles that are valid but questionable.
//!
//! ```text
//! rule     names and texts          options  which of them are on
//! file     the text of the file     casing, names
//! run      commands of RUN          shell
//! secret   values of ARG and ENV    image    what the target has come to
//! ```
//!
//! Rules are evaluated where the fact they are about is known: those that need only the file here, the others
//! in `stage` and `convert`. This module collects what they find.

pub(crate) mod casing;
pub(crate) mod file;
pub(crate) mod image;
pub(crate) mod names;
pub(crate) mod options;
mod rule;
pub(crate) mod run;
pub(crate) mod secret;
mod shell;

use std::cell::RefCell;
use std::collections::BTreeSet;

use parser::Comment;

use crate::error::ErrorKind;
use crate::outcome::{LineRange, Warning};

pub(crate) use options::LintOptions;
pub use options::parse_bool;
pub use rule::Rule;

/// Collects what the rules find.
#[derive(Debug)]
pub(crate) struct Linter {
    options: LintOptions,
    /// Options of the instruction at hand when a `check=` comment above it adds to those of the file.
    local: RefCell<Option<LintOptions>>,
    found: RefCell<Vec<Warning>>,
}

impl Linter {
    /// A linter that has found nothing yet.
    pub(crate) fn new(options: LintOptions) -> Self {
        Self { local: RefCell::default(), options, found: RefCell::default() }
    }

    /// A linter that finds nothing.
    pub(crate) fn silent() -> Self {
        Self::new(LintOptions::none())
    }

    /// Turns to an instruction with these comments above it; a `check=` among them adds to the options.
    pub(crate) fn enter(&self, comments: &[Comment]) {
        let mut local: Option<LintOptions> = None;
        for options in comments.iter().filter_map(|it| LintOptions::of_comment(&it.text)) {
            local.get_or_insert_with(|| self.options.clone()).add(&options);
        }
        *self.local.borrow_mut() = local;
    }

    /// Whether findings of the rule count for the instruction at hand.
    pub(crate) fn is_on(&self, rule: Rule) -> bool {
        self.local.borrow().as_ref().unwrap_or(&self.options).is_on(rule)
    }

    /// Reports a finding unless the rule is off.
    pub(crate) fn report(&self, rule: Rule, lines: LineRange, message: impl FnOnce() -> String) {
        if self.is_on(rule) {
            self.found.borrow_mut().push(Warning { rule, message: message(), lines });
        }
    }

    /// Everything found, by line; the same finding counts once. Also the violation that it is, when findings
    /// are errors.
    pub(crate) fn finish(self) -> (Vec<Warning>, Option<(ErrorKind, LineRange)>) {
        let mut found = self.found.into_inner();
        let mut known = BTreeSet::new();
        found
            .retain(|warning| known.insert((warning.rule, warning.lines, warning.message.clone())));
        found.sort_by_key(|warning| warning.lines.start);
        let violation = found.first().filter(|_| self.options.error).map(|first| {
            let rules: BTreeSet<&str> = found.iter().map(|warning| warning.rule.name()).collect();
            let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
            (ErrorKind::LintViolation { rules }, first.lines)
        });
        (found, violation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comment(text: &str) -> [Comment; 1] {
        [Comment { text: text.to_owned(), span: parser::Span::default(), line: 1 }]
    }

    #[test]
    fn a_check_comment_counts_for_one_instruction() {
        let linter = Linter::new(LintOptions::default());
        let lines = LineRange { start: 1, end: 1 };
        linter.enter(&comment("check=skip=UndefinedVar"));
        linter.report(Rule::UndefinedVar, lines, String::new);
        linter.enter(&comment("check=experimental=InvalidDefinitionDescription"));
        linter.report(Rule::InvalidDefinitionDescription, lines, String::new);
        linter.enter(&[]);
        linter.report(Rule::InvalidDefinitionDescription, lines, String::new);
        linter.report(Rule::UndefinedVar, lines, || "x".to_owned());
        linter.report(Rule::UndefinedVar, lines, || "x".to_owned());
        let (found, violation) = linter.finish();
        let rules: Vec<Rule> = found.iter().map(|warning| warning.rule).collect();
        assert_eq!(rules, [Rule::InvalidDefinitionDescription, Rule::UndefinedVar]);
        assert!(violation.is_none());
    }

    #[test]
    fn nothing_is_reported_twice_and_lines_are_in_order() {
        let linter = Linter::new(LintOptions::parse("error=true").unwrap());
        for line in [3, 1, 3] {
            let lines = LineRange { start: line, end: line };
            linter.report(Rule::UndefinedVar, lines, || "x".to_owned());
        }
        linter.report(Rule::FromAsCasing, LineRange { start: 2, end: 2 }, String::new);
        let (found, violation) = linter.finish();
        let lines: Vec<usize> = found.iter().map(|warning| warning.lines.start).collect();
        assert_eq!(lines, [1, 2, 3]);
        let (violation, lines) = violation.unwrap();
        assert_eq!(
            violation.to_string(),
            "lint violation found for rules: FromAsCasing, UndefinedVar"
        );
        assert_eq!(lines.start, 1);
    }
}
