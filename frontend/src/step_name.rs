//! Names of steps as progress output shows them: `[stage 2/4] RUN make`.

use llb::Platform;
use parser::InstructionKind;

use crate::context::Context;
use crate::scope::Variables;
use crate::stage::{Base, Plan, StageId};

/// Makes the names `[platform stage i/n] …` of one stage.
#[derive(Debug, Clone)]
pub(crate) struct StepNames {
    /// Platform of the stage, when it is shown.
    platform: Option<Platform>,
    /// Name of the stage; empty when it is left out.
    stage: String,
    index: usize,
    total: usize,
}

impl StepNames {
    /// Counts the steps of stage `id`, which is built for `platform`.
    pub(crate) fn new(cx: &Context<'_>, plan: &Plan<'_>, id: StageId, platform: &Platform) -> Self {
        let stage = &plan.stages[id];
        let is_step = |kind: &InstructionKind| {
            matches!(
                kind,
                InstructionKind::Run(_)
                    | InstructionKind::Copy(_)
                    | InstructionKind::Add(_)
                    | InstructionKind::Workdir(_)
            )
        };
        let steps = stage.steps.iter().filter(|step| is_step(&step.instruction.kind)).count();
        Self {
            platform: cx.shows_platform().then(|| platform.clone()),
            stage: if plan.is_single || stage.is_hidden {
                String::new()
            } else {
                stage.shown.clone()
            },
            index: 0,
            total: if stage.is_hidden {
                0
            } else {
                steps + usize::from(matches!(stage.base, Base::Named(_)))
            },
        }
    }

    /// The name of the next step; `scope` tells whether it builds for another platform than its own.
    pub(crate) fn next(
        &mut self,
        text: &str,
        is_trigger: bool,
        scope: Option<&Variables>,
    ) -> String {
        let text = upper_first_word(text);
        if self.total == 0 {
            return text;
        }
        let mut prefix = String::new();
        if let Some(platform) = &self.platform {
            let target = scope.map_or_else(String::new, |scope| target_suffix(platform, scope));
            prefix = format!("{platform}{target} ");
        }
        if !self.stage.is_empty() {
            prefix += &self.stage;
            prefix.push(' ');
        }
        self.index += 1;
        let width = self.total.to_string().len();
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        format!("[{prefix}{:>width$}/{}] {trigger}{text}", self.index, self.total)
    }
}

/// `->arch` when the `TARGET…` variables name another platform than `own`.
fn target_suffix(own: &Platform, scope: &Variables) -> String {
    let mut target = own.clone();
    if let Some(Ok(platform)) = scope.get("TARGETPLATFORM").map(Platform::parse) {
        target = platform;
    }
    let parts = [
        ("TARGETOS", &mut target.os),
        ("TARGETARCH", &mut target.architecture),
        ("TARGETVARIANT", &mut target.variant),
    ];
    for (name, part) in parts {
        if let Some(value) = scope.get(name).filter(|value| !value.is_empty()) {
            value.clone_into(part);
        }
    }
    let variant =
        if target.variant.is_empty() { String::new() } else { format!("/{}", target.variant) };
    if target.os != own.os {
        format!("->{target}")
    } else if target.architecture != own.architecture {
        format!("->{}{variant}", target.architecture)
    } else {
        String::new()
    }
}

/// The text with its first word in capital letters.
fn upper_first_word(text: &str) -> String {
    let (word, rest) = text.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
    word.to_uppercase() + rest
}
