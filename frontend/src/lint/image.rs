//! Rules about what the target has come to: its user and its health check.

use llb::image::ImageConfig;

use super::{Linter, Rule};
use crate::stage::Stage;

/// What the rules need to know of the target.
pub(crate) struct Final<'a> {
    /// The stage.
    pub(crate) stage: &'a Stage<'a>,
    /// Its config.
    pub(crate) config: &'a ImageConfig,
    /// The last `USER` of its chain.
    pub(crate) user: Option<UserInstruction>,
    /// Whether its base image is not known, so that what the Dockerfile does not say may be said there.
    pub(crate) base_is_unknown: bool,
}

/// A `USER` instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserInstruction {
    /// Its lines.
    pub(crate) lines: crate::outcome::LineRange,
    /// Whether the rule about root was on there.
    pub(crate) is_checked: bool,
}

/// Evaluates the rules for the target.
///
/// An image that runs nothing, such as one that only carries files, needs neither user nor health check.
pub(crate) fn check(target: &Final<'_>, linter: &Linter) {
    let config = &target.config.config;
    let runs = !config.cmd.is_empty() || !config.entrypoint.is_empty() || target.base_is_unknown;
    if !runs || target.config.os == "windows" {
        return;
    }
    linter.enter(target.stage.comments);
    check_user(target, linter);
    if config.healthcheck.is_none() {
        linter.report(Rule::HealthcheckMissing, target.stage.place.lines, || {
            if target.base_is_unknown {
                "Final stage has no HEALTHCHECK, and its base image is not known here".to_owned()
            } else {
                "Final stage has no HEALTHCHECK: nothing notices when its container hangs"
                    .to_owned()
            }
        });
    }
}

fn check_user(target: &Final<'_>, linter: &Linter) {
    let user = &target.config.config.user;
    if !is_root(user) {
        return;
    }
    match target.user {
        Some(instruction) if instruction.is_checked => {
            linter.report(Rule::FinalStageRunsAsRoot, instruction.lines, || {
                format!("Final stage runs as root: its last USER is {user:?}")
            });
        }
        Some(_) => {}
        None => linter.report(Rule::FinalStageRunsAsRoot, target.stage.place.lines, || {
            if target.base_is_unknown {
                "Final stage has no USER, and its base image is not known here".to_owned()
            } else {
                "Final stage runs as root: no USER names another user".to_owned()
            }
        }),
    }
}

/// Whether `USER user[:group]` is root.
fn is_root(user: &str) -> bool {
    let name = user.split(':').next().unwrap_or_default().trim();
    name.is_empty() || name == "root" || name.parse() == Ok(0_u32)
}

#[cfg(test)]
mod tests {
    use super::is_root;

    #[test]
    fn root_has_several_names() {
        for user in ["", "root", "0", "root:root", "0:0", ":5", "00", "0:app"] {
            assert!(is_root(user), "{user}");
        }
        for user in ["app", "1000", "1000:0", "rooty", "-0x", "app:root"] {
            assert!(!is_root(user), "{user}");
        }
    }
}
