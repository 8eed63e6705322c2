//! Build checks: rules that find doubtful, but valid, Dockerfiles (`spec/instructions.md` §15).
//!
//! Rules are evaluated where the fact they are about is known; this module holds their names and
//! texts, decides which of them are on, and collects what they find.

pub(crate) mod casing;
pub(crate) mod file;
pub(crate) mod names;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use crate::error::ErrorKind;
use crate::outcome::{LineRange, Warning};

/// Declares the rules with their name in a URL and what they are about.
macro_rules! rules {
    ($($name:ident, $slug:literal, $about:literal;)*) => {
        /// A build check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $about] $name,)*
        }

        impl Rule {
            /// Name by which `check=skip=…` knows the rule.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What the rule asks for, in one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $about,)* }
            }

            /// Where the rule is explained.
            pub fn url(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("https://docs.docker.com/go/dockerfile/rule/", $slug, "/"),)*
                }
            }
        }
    };
}

rules! {
    StageNameCasing, "stage-name-casing", "Stage names should be lowercase";
    FromAsCasing, "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    NoEmptyContinuation, "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    ConsistentInstructionCasing, "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DuplicateStageName, "duplicate-stage-name", "Stage names should be unique";
    ReservedStageName, "reserved-stage-name", "Reserved words should not be used as stage names";
    JSONArgsRecommended, "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MaintainerDeprecated, "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UndefinedArgInFrom, "undefined-arg-in-from", "FROM command must use declared ARGs";
    UndefinedVar, "undefined-var", "Variables should be defined before their use";
    WorkdirRelativePath, "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage";
    LegacyKeyValueFormat, "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used";
    InvalidBaseImagePlatform, "invalid-base-image-platform",
        "Base image platform does not match expected target platform";
    RedundantTargetPlatform, "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands";
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name";
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value";
    CopyIgnoredFile, "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    ExposeProtoCasing, "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    ExposeInvalidFormat, "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
    InvalidDefinitionDescription, "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
}

impl Rule {
    /// Whether the rule is off until it is asked for.
    fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Some rules, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rules {
    /// All rules.
    All,
    /// These, by lower-case name; unknown names do no harm.
    Named(BTreeSet<String>),
}

impl Rules {
    fn none() -> Self {
        Self::Named(BTreeSet::new())
    }

    fn parse(text: &str) -> Self {
        let names: BTreeSet<String> =
            text.split(',').map(|name| name.trim().to_lowercase()).collect();
        if names.contains("all") { Self::All } else { Self::Named(names) }
    }

    fn has(&self, rule: Rule) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(&rule.name().to_lowercase()),
        }
    }

    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => Self::Named(a.union(b).cloned().collect()),
            _ => Self::All,
        }
    }
}

/// Which rules are on (`# check=…`, `BUILDKIT_DOCKERFILE_CHECK`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LintOptions {
    skip: Rules,
    experimental: Rules,
    /// Whether a finding fails the conversion.
    pub(crate) error: bool,
}

impl LintOptions {
    /// Every rule that is no experiment.
    pub(crate) fn new() -> Self {
        Self { skip: Rules::none(), experimental: Rules::none(), error: false }
    }

    /// Reads `skip=…;experimental=…;error=…`, of which each part may be absent.
    ///
    /// # Errors
    /// When a part is no `key=value` or its key is unknown.
    pub(crate) fn parse(text: &str) -> Result<Self, ErrorKind> {
        let mut options = Self::new();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.split(';') {
            let part = part.trim();
            let invalid = || ErrorKind::InvalidCheckOption { option: part.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            match key.trim() {
                "skip" => options.skip = Rules::parse(value),
                "experimental" => options.experimental = Rules::parse(value),
                "error" => options.error = parse_bool(value.trim()).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        Ok(options)
    }

    /// These options with what `other` skips and asks for added.
    fn merged(&self, other: &Self) -> Self {
        Self {
            skip: self.skip.and(&other.skip),
            experimental: self.experimental.and(&other.experimental),
            error: self.error,
        }
    }

    fn is_on(&self, rule: Rule) -> bool {
        !self.skip.has(rule) && (!rule.is_experimental() || self.experimental.has(rule))
    }
}

/// Reads a boolean as Go does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// Collects what the rules find.
#[derive(Debug)]
pub(crate) struct Linter {
    options: LintOptions,
    /// Options of the instruction at hand: those of the file and of a `check=` comment above it.
    current: RefCell<LintOptions>,
    found: RefCell<Vec<Warning>>,
}

impl Linter {
    /// A linter that has found nothing yet.
    pub(crate) fn new(options: LintOptions) -> Self {
        Self { current: RefCell::new(options.clone()), options, found: RefCell::default() }
    }

    /// Turns to an instruction with these comments above it; a `check=` among them adds to the options.
    pub(crate) fn enter<'c>(&self, comments: impl IntoIterator<Item = &'c str>) {
        let mut current = self.options.clone();
        for comment in comments {
            let local = comment.trim().strip_prefix("check=").map(LintOptions::parse);
            if let Some(Ok(local)) = local {
                current = current.merged(&local);
            }
        }
        *self.current.borrow_mut() = current;
    }

    /// Reports a finding unless the rule is off.
    pub(crate) fn report(&self, rule: Rule, lines: LineRange, message: impl FnOnce() -> String) {
        if !self.current.borrow().is_on(rule) {
            return;
        }
        self.found.borrow_mut().push(Warning { rule, message: message(), lines });
    }

    /// Everything found, by line; the same finding counts once.
    ///
    /// # Errors
    /// When something was found and findings are errors.
    pub(crate) fn finish(self) -> Result<Vec<Warning>, (ErrorKind, LineRange)> {
        let mut found = self.found.into_inner();
        let mut known = BTreeSet::new();
        found
            .retain(|warning| known.insert((warning.rule, warning.lines, warning.message.clone())));
        found.sort_by_key(|warning| warning.lines.start);
        if !self.options.error || found.is_empty() {
            return Ok(found);
        }
        let rules: BTreeSet<&str> = found.iter().map(|warning| warning.rule.name()).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        Err((ErrorKind::LintViolation { rules }, found[0].lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_options_are_read_and_bad_ones_are_refused() {
        let options = LintOptions::parse("skip=StageNameCasing, fromascasing;error=true").unwrap();
        assert!(options.error);
        assert!(!options.is_on(Rule::StageNameCasing) && !options.is_on(Rule::FromAsCasing));
        assert!(
            options.is_on(Rule::UndefinedVar) && !options.is_on(Rule::InvalidDefinitionDescription)
        );
        assert!(
            LintOptions::parse("experimental=all")
                .unwrap()
                .is_on(Rule::InvalidDefinitionDescription)
        );
        for bad in ["skip", "skip=A;", "colour=red", "error=maybe"] {
            assert!(LintOptions::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_check_comment_skips_a_rule_for_one_instruction() {
        let linter = Linter::new(LintOptions::new());
        let lines = LineRange { start: 1, end: 1 };
        linter.enter(["check=skip=UndefinedVar"]);
        linter.report(Rule::UndefinedVar, lines, String::new);
        linter.enter([]);
        linter.report(Rule::UndefinedVar, lines, || "x".to_owned());
        linter.report(Rule::UndefinedVar, lines, || "x".to_owned());
        assert_eq!(linter.finish().unwrap().len(), 1);
    }
}
