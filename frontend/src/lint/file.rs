//! Rules about the text of a Dockerfile, whatever is built from it.

use std::collections::BTreeSet;

use parser::{Dockerfile, FromInstruction, Instruction, InstructionKind, WarningKind};

use super::casing::{self, Casing};
use super::names::RESERVED_STAGES;
use super::{Linter, Rule};
use crate::outcome::LineRange;

/// Evaluates the rules for every instruction of the file, whether it is needed or not.
pub(crate) fn check(dockerfile: &Dockerfile, linter: &Linter) {
    let casing = casing::majority(
        dockerfile.instructions.iter().map(|instruction| instruction.keyword.text.as_str()),
    );
    let mut stages = BTreeSet::new();
    for instruction in &dockerfile.instructions {
        linter.enter(instruction.comments.iter().map(|comment| comment.text.as_str()));
        let lines = LineRange { start: instruction.lines.start, end: instruction.lines.end };
        check_casing(instruction, casing, lines, linter);
        match &instruction.kind {
            InstructionKind::From(from) => {
                check_from(instruction, from, &mut stages, lines, linter)
            }
            InstructionKind::Arg(arg) => {
                let names: Vec<&str> =
                    arg.args.iter().map(|item| item.name.text.as_str()).collect();
                check_description("ARG", &names, instruction, lines, linter);
            }
            InstructionKind::Maintainer(_) => {
                linter.report(Rule::MaintainerDeprecated, lines, || {
                    "Maintainer instruction is deprecated in favor of using label".to_owned()
                })
            }
            _ => {}
        }
        for warning in
            dockerfile.warnings.iter().filter(|w| (lines.start..=lines.end).contains(&w.line))
        {
            match warning.kind {
                WarningKind::EmptyContinuation => {
                    let lines = LineRange { start: warning.line, end: warning.line };
                    linter.report(Rule::NoEmptyContinuation, lines, || {
                        "Empty continuation line".to_owned()
                    });
                }
            }
        }
    }
}

fn check_casing(instruction: &Instruction, majority: Casing, lines: LineRange, linter: &Linter) {
    let keyword = &instruction.keyword.text;
    if casing::of(keyword) != majority {
        linter.report(Rule::ConsistentInstructionCasing, lines, || {
            format!(
                "Command '{keyword}' should match the case of the command majority ({})",
                majority.name()
            )
        });
    }
}

fn check_from<'d>(
    instruction: &'d Instruction,
    from: &'d FromInstruction,
    stages: &mut BTreeSet<&'d str>,
    lines: LineRange,
    linter: &Linter,
) {
    let Some(stage) = &from.stage else { return };
    let (keyword, written, name) =
        (&instruction.keyword.text, &stage.written.text, stage.name.as_str());
    if *written != name {
        linter.report(Rule::StageNameCasing, lines, || {
            format!("Stage name '{written}' should be lowercase")
        });
    }
    let from_casing = casing::of(keyword);
    if from_casing != Casing::Mixed && casing::of(&stage.keyword.text) != from_casing {
        linter.report(Rule::FromAsCasing, lines, || {
            format!("'{}' and '{keyword}' keywords' casing do not match", stage.keyword.text)
        });
    }
    if !stages.insert(name) {
        linter.report(Rule::DuplicateStageName, lines, || {
            format!("Duplicate stage name \"{name}\", stage names should be unique")
        });
    }
    if RESERVED_STAGES.contains(&name) {
        linter.report(Rule::ReservedStageName, lines, || {
            format!("Stage name should not use the same name as reserved stage \"{name}\"")
        });
    }
    check_description("build stage", &[written], instruction, lines, linter);
}

/// Reports a comment that looks like a description of something else.
fn check_description(
    what: &str,
    names: &[&str],
    instruction: &Instruction,
    lines: LineRange,
    linter: &Linter,
) {
    let Some(comment) = instruction.comments.last() else { return };
    let described = comment.text.split(' ').next().unwrap_or_default();
    if comment.text.starts_with("check=") || names.contains(&described) {
        return;
    }
    linter.report(Rule::InvalidDefinitionDescription, lines, || {
        let example = if let [name] = names { name } else { "<arg_key>" };
        format!("Comment for {what} should follow the format: `# {example} <description>`")
    });
}

/// Doc comment of a stage or argument: the first comment above it that begins with its name.
pub(crate) fn description(instruction: &Instruction, name: &str) -> Option<String> {
    let texts = instruction.comments.iter().map(|comment| comment.text.as_str());
    let mut described = texts.filter_map(|text| text.strip_prefix(name)?.strip_prefix(' '));
    described.next().map(|text| text.trim().to_owned())
}
