//! Rules about the text of a Dockerfile, whatever is built from it.

use std::collections::BTreeSet;

use parser::{Dockerfile, FromInstruction, Instruction, InstructionKind, WarningKind};

use super::casing::{self, Casing};
use super::names::RESERVED_STAGES;
use super::{LintOptions, Linter, Rule};
use crate::outcome::LineRange;

/// Evaluates the rules for every instruction of the file, whether it is needed or not.
pub(crate) fn check(dockerfile: &Dockerfile, linter: &Linter) {
    // Global arguments belong to no stage and take no part in the majority.
    let is_stage = |instruction: &Instruction| matches!(instruction.kind, InstructionKind::From(_));
    let first_stage = dockerfile.instructions.iter().position(is_stage).unwrap_or(0);
    let in_stages = &dockerfile.instructions[first_stage..];
    let casing = casing::majority(in_stages.iter().map(|it| it.keyword.text.as_str()));
    let mut stages = BTreeSet::new();
    let mut warnings = dockerfile.warnings.iter().peekable();
    for (index, instruction) in dockerfile.instructions.iter().enumerate() {
        linter.enter(&instruction.comments);
        let lines = LineRange { start: instruction.lines.start, end: instruction.lines.end };
        while let Some(warning) = warnings.next_if(|warning| warning.line <= lines.end) {
            check_warning(warning, linter);
        }
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
        if index >= first_stage {
            check_casing(instruction, casing, lines, linter);
        }
    }
}

/// Reports what the parser found dubious.
fn check_warning(warning: &parser::Warning, linter: &Linter) {
    match warning.kind {
        WarningKind::EmptyContinuation => {
            let lines = LineRange { start: warning.line, end: warning.line };
            linter
                .report(Rule::NoEmptyContinuation, lines, || "Empty continuation line".to_owned());
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
    check_description("FROM", &[name], instruction, lines, linter);
    if RESERVED_STAGES.contains(&name) {
        linter.report(Rule::ReservedStageName, lines, || {
            format!("Stage name should not use the same name as reserved stage \"{name}\"")
        });
    }
    if !stages.insert(name) {
        linter.report(Rule::DuplicateStageName, lines, || {
            format!("Duplicate stage name \"{name}\", stage names should be unique")
        });
    }
}

/// Reports a comment that looks like a description of something else.
fn check_description(
    instruction_name: &str,
    names: &[&str],
    instruction: &Instruction,
    lines: LineRange,
    linter: &Linter,
) {
    let Some(comment) = instruction.comments.last() else { return };
    let described = comment.text.split(' ').next().unwrap_or_default();
    if LintOptions::of_comment(&comment.text).is_some() || names.contains(&described) {
        return;
    }
    linter.report(Rule::InvalidDefinitionDescription, lines, || {
        let example = if let [name] = names { name } else { "<arg_key>" };
        format!(
            "Comment for {instruction_name} should follow the format: `# {example} <description>`"
        )
    });
}

/// Doc comment of a stage or argument: the first comment above it that begins with its name.
pub(crate) fn description(instruction: &Instruction, name: &str) -> Option<String> {
    let texts = instruction.comments.iter().map(|comment| comment.text.as_str());
    let mut described = texts.filter_map(|text| text.strip_prefix(name)?.strip_prefix(' '));
    described.next().map(str::to_owned)
}
