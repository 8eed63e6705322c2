//! Which rules are on (`# check=…`, `BUILDKIT_DOCKERFILE_CHECK`).

use std::collections::BTreeSet;

use super::rule::{GROUP, Rule};
use crate::error::ErrorKind;

/// Some rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    /// All that the reference builder has.
    all: bool,
    /// These, by lower-case name; unknown names do no harm.
    names: BTreeSet<String>,
}

impl Rules {
    fn parse(text: &str) -> Self {
        match text.trim() {
            "all" => Self { all: true, names: BTreeSet::new() },
            text => {
                let names = text.split(',').map(|name| name.trim().to_lowercase()).collect();
                Self { all: false, names }
            }
        }
    }

    /// Whether the rule is named, or its group is.
    fn names(&self, rule: Rule) -> bool {
        !self.names.is_empty()
            && (self.names.contains(&rule.name().to_lowercase())
                || (rule.is_own() && self.names.contains(GROUP)))
    }

    fn add(&mut self, other: &Self) {
        self.all |= other.all;
        self.names.extend(other.names.iter().cloned());
    }
}

/// Which rules are on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LintOptions {
    skip: Rules,
    experimental: Rules,
    /// Whether a finding fails the conversion.
    pub(crate) error: bool,
}

impl LintOptions {
    /// No rule is on.
    pub(crate) fn none() -> Self {
        Self { skip: Rules { all: true, ..Rules::default() }, ..Self::default() }
    }

    /// Reads `skip=…;experimental=…;error=…`, of which each part may be absent.
    ///
    /// # Errors
    /// When a part is no `key=value`, its key is unknown or its value is no boolean.
    pub(crate) fn parse(text: &str) -> Result<Self, ErrorKind> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.splitn(3, ';') {
            let part = part.trim();
            let invalid =
                |option: &str| ErrorKind::InvalidCheckOption { option: option.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(|| invalid(part))?;
            match key.trim() {
                "skip" => options.skip = Rules::parse(value),
                "experimental" => options.experimental = Rules::parse(value),
                "error" => options.error = parse_bool(value.trim()).ok_or_else(|| invalid(part))?,
                key => return Err(invalid(key)),
            }
        }
        Ok(options)
    }

    /// Reads a comment above an instruction; `None` when it is no `check=…`.
    ///
    /// As in the directive, what is behind a blank does not count, and `error` has no effect.
    pub(crate) fn of_comment(comment: &str) -> Option<Self> {
        let (name, options) = comment.split_once('=')?;
        if !name.trim_end().eq_ignore_ascii_case("check") {
            return None;
        }
        let first = options.trim_start().split(' ').next().unwrap_or_default();
        Self::parse(first).ok()
    }

    /// Adds what `other` skips and asks for.
    pub(crate) fn add(&mut self, other: &Self) {
        self.skip.add(&other.skip);
        self.experimental.add(&other.experimental);
    }

    /// Whether findings of the rule count.
    ///
    /// `skip=all` is about the rules that are on by themselves, `experimental=all` about those experiments
    /// that the reference builder has too.
    pub(crate) fn is_on(&self, rule: Rule) -> bool {
        if self.skip.names(rule) {
            return false;
        }
        if rule.is_experimental() {
            return self.experimental.names(rule) || (self.experimental.all && !rule.is_own());
        }
        !self.skip.all
    }
}

/// Reads a boolean as Go does.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(text: &str) -> Vec<Rule> {
        let options = LintOptions::parse(text).unwrap();
        Rule::ALL.iter().copied().filter(|rule| options.is_on(*rule)).collect()
    }

    fn standard() -> Vec<Rule> {
        Rule::ALL.iter().copied().filter(|rule| !rule.is_experimental()).collect()
    }

    #[test]
    fn what_is_on_follows_from_the_options() {
        assert_eq!(on(""), standard());
        assert_eq!(on("skip=all"), []);
        let few = on("skip=StageNameCasing, fromascasing;error=true");
        assert_eq!(few.len(), standard().len() - 2);
        assert!(!few.contains(&Rule::StageNameCasing) && !few.contains(&Rule::FromAsCasing));
        let experiment = Rule::InvalidDefinitionDescription;
        assert_eq!(on("skip=all;experimental=InvalidDefinitionDescription"), [experiment]);
        assert_eq!(on("skip=InvalidDefinitionDescription;experimental=all"), standard());
    }

    #[test]
    fn own_rules_come_by_name_or_by_their_group_and_not_with_all_experiments() {
        let own: Vec<Rule> = Rule::ALL.iter().copied().filter(|rule| rule.is_own()).collect();
        assert!(on("experimental=all").iter().all(|rule| !rule.is_own()));
        assert_eq!(on("skip=all;experimental=bricklayer"), own);
        assert_eq!(on("skip=all;experimental=LatestImageTag"), [Rule::LatestImageTag]);
        assert_eq!(
            on("skip=latestimagetag;experimental=Bricklayer").len(),
            standard().len() + own.len() - 1
        );
        assert_eq!(on("skip=bricklayer;experimental=bricklayer"), standard());
    }

    #[test]
    fn bad_options_are_refused() {
        for (bad, option) in [
            ("skip", "skip"),
            ("skip=A;", ""),
            ("colour=red", "colour"),
            ("error=maybe", "error=maybe"),
            ("skip=A;experimental=B;error=true;x=y", "error=true;x=y"),
        ] {
            let error = LintOptions::parse(bad).unwrap_err().to_string();
            let expect =
                format!("failed to parse check options: invalid check option \"{option}\"");
            assert_eq!(error, expect, "{bad}");
        }
    }

    #[test]
    fn a_comment_is_read_up_to_the_first_blank() {
        for comment in [
            "check=skip=UndefinedVar",
            "check = skip=UndefinedVar because",
            "CHECK=skip=undefinedvar;error=1",
        ] {
            let options = LintOptions::of_comment(comment).unwrap();
            assert!(
                !options.is_on(Rule::UndefinedVar) && options.is_on(Rule::FromAsCasing),
                "{comment}"
            );
        }
        for comment in [
            "",
            "check",
            "checks=skip=all",
            "check=nonsense",
            "é",
            "chéck=skip=all",
            "a check=skip=all",
        ] {
            assert_eq!(LintOptions::of_comment(comment), None, "{comment}");
        }
    }
}
