//! `build doctor`: what this machine allows builds to do, and how to lift its limits.
//!
//! Everything is tried as far as it can be: a namespace is made, a file shared, a control group made, a step set up.
//! Nothing is left behind.

mod checks;
mod trial;

use std::path::PathBuf;

use sandbox::tier::{Choice, Isolation, Probe, choose};
use serde::Serialize;

use crate::report::{Exit, Failure, chain, print};

/// Show what this machine allows builds to do, and how to lift its limits
///
/// Succeeds if RUN steps are possible.
#[derive(Debug, clap::Parser)]
#[command(after_help = "Example: build doctor --format=json")]
pub(crate) struct DoctorArgs {
    /// Folder of the builder's state
    #[arg(long, value_name = "PATH", env = "BRICKLAYER_ROOT")]
    root: Option<PathBuf>,
    /// How RUN steps are to be isolated: auto, root, rootless, single-id or chroot
    #[arg(long, value_name = "TIER", env = "BRICKLAYER_ISOLATION")]
    isolation: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,
}

/// How far something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// All that builds can use.
    Ok,
    /// Builds work, with less.
    Limited,
    /// It is not there.
    Missing,
}

/// What was found of one thing.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked for.
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What that means for a build; empty where there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    means: String,
    /// The setting that changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lift: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), means: String::new(), lift: None }
    }

    fn limited(name: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self { state: State::Limited, means: means.into(), ..Self::ok(name, found) }
    }

    fn missing(name: &'static str, found: impl Into<String>, means: impl Into<String>) -> Self {
        Self { state: State::Missing, means: means.into(), ..Self::ok(name, found) }
    }

    fn lift(self, lift: impl Into<String>) -> Self {
        Self { lift: Some(lift.into()), ..self }
    }
}

/// How steps are isolated, and why.
#[derive(Debug, Serialize)]
struct Chosen {
    /// Name of the tier.
    tier: Option<&'static str>,
    reason: String,
    /// What better tiers lack.
    lacks: Vec<Lacking>,
}

#[derive(Debug, Serialize)]
struct Lacking {
    what: String,
    lift: String,
}

impl Chosen {
    fn of(choice: &Choice) -> Self {
        let lacks = choice.lacks.iter();
        let lacks = lacks.map(|it| Lacking { what: it.what.clone(), lift: it.lift.clone() });
        let tier = choice.tier.map(|tier| tier.name());
        Self { tier, reason: choice.reason.clone(), lacks: lacks.collect() }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// Whether `RUN` is possible.
    steps: bool,
    isolation: Chosen,
    findings: Vec<Finding>,
}

/// Looks at everything and prints what it found.
pub(crate) fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let is_json = match args.format.as_str() {
        "text" => false,
        "json" => true,
        other => {
            let message = format!("invalid format `{other}`: want text or json");
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    let machine = |error: &dyn std::error::Error| Failure::new(Exit::Machine, chain(error));
    let asked = match args.isolation.as_deref().filter(|name| !name.is_empty()) {
        None => Isolation::Auto,
        Some(name) => Isolation::parse(name).ok_or_else(|| {
            let message = format!(
                "invalid isolation `{name}`: want auto, root, rootless, single-id or chroot"
            );
            Failure::new(Exit::Usage, message)
        })?,
    };
    // Whose folder it is must be known before the user is root of a namespace.
    let root = args.root.clone().map_or_else(|| super::machine::default_root(false), Ok)?;
    let probe = Probe::new().map_err(|error| machine(&error))?;
    let registries = checks::registries(&super::client_options().config);
    let mut findings = checks::of_process(&probe);
    let (chosen, tier) = match choose(asked, &probe) {
        Ok(mut choice) => {
            choice.enter().map_err(|error| machine(&error))?;
            (Chosen::of(&choice), choice.tier)
        }
        Err(error) => {
            let lift = crate::isolation::failure(&error).hint.unwrap_or_default();
            let lacks = vec![Lacking { what: chain(&error), lift }];
            let reason = match error {
                sandbox::IsolationError::Missing { .. } => "not what was asked for",
                _ => "not known",
            };
            (Chosen { tier: None, reason: reason.to_owned(), lacks }, None)
        }
    };
    findings.extend(checks::of_machine());
    findings.extend(checks::of_store(&root));
    findings.push(registries);
    let (trial, steps) = trial::step(tier, &root);
    findings.push(trial);
    let report = Report { steps, isolation: chosen, findings };
    if is_json {
        print(format_args!("{}", serde_json::to_string_pretty(&report).unwrap_or_default()))?;
    } else {
        print(format_args!("{}", text(&report).trim_end()))?;
    }
    Ok(if steps { Exit::Done } else { Exit::Machine })
}

fn text(report: &Report) -> String {
    let Report { steps, isolation, findings } = report;
    let mut text = match (isolation.tier, isolation.reason.as_str()) {
        (Some(tier), reason) => format!("Steps are isolated as `{tier}`: {reason}.\n"),
        (None, reason) => format!("Steps cannot be isolated: {reason}.\n"),
    };
    if isolation.tier.is_some() && !steps {
        text.push_str("But setting one up failed, see below.\n");
    }
    for Lacking { what, lift } in &isolation.lacks {
        text.push_str(&format!("  for more: {what}\n            {lift}\n"));
    }
    text.push('\n');
    for Finding { name, state, found, means, lift } in findings {
        let state = match state {
            State::Ok => "ok",
            State::Limited => "limited",
            State::Missing => "missing",
        };
        text.push_str(&format!("{state:<8} {name:<16} {found}\n"));
        if !means.is_empty() {
            text.push_str(&format!("{:25} means: {means}\n", ""));
        }
        if let Some(lift) = lift {
            text.push_str(&format!("{:25} to lift: {lift}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_is_limited_and_how_to_lift_it() {
        let lacks = vec![Lacking { what: "not root".to_owned(), lift: "run as root".to_owned() }];
        let isolation = Chosen { tier: Some("single-id"), reason: "one id".to_owned(), lacks };
        let findings = vec![
            Finding::ok("kernel", "Linux 6.12"),
            Finding::limited("reflinks", "none", "files are copied").lift("use Btrfs"),
        ];
        let report = Report { steps: true, isolation, findings };
        let expect = "\
Steps are isolated as `single-id`: one id.
  for more: not root
            run as root

ok       kernel           Linux 6.12
limited  reflinks         none
                          means: files are copied
                          to lift: use Btrfs
";
        assert_eq!(text(&report), expect);
    }
}
