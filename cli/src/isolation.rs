//! How steps are isolated: what is asked for, what the machine gives, and what is said about it.
//!
//! A process that is not root moves into a user namespace before it has a second thread, and from then on sees
//! itself as root. Whatever depends on who the user is has been asked before.

use sandbox::IsolationError;
use sandbox::tier::{Choice, Isolation, Probe, choose};
use solver::IsolationOptions;

use crate::commands::machine;
use crate::report::{Exit, Failure, chain};

/// Names that other builders have for kinds of isolation; they mean nothing here.
const FOREIGN: [&str; 3] = ["default", "process", "hyperv"];

/// Whether a name of `--isolation` is accepted without effect.
pub(crate) fn is_foreign(name: &str) -> bool {
    FOREIGN.contains(&name)
}

/// Chooses a tier and moves the process to where that builds.
pub(crate) fn enter(asked: Option<&str>) -> Result<IsolationOptions, Failure> {
    let isolation = parse(asked)?;
    let probe = Probe::new().map_err(|error| failure(&IsolationError::Capabilities(error)))?;
    let mut choice = choose(isolation, &probe).map_err(|error| failure(&error))?;
    choice.enter().map_err(|error| failure(&error))?;
    let lift = lift(&choice);
    Ok(IsolationOptions { tier: choice.tier, reason: choice.reason, lift })
}

fn parse(asked: Option<&str>) -> Result<Isolation, Failure> {
    let name = asked.filter(|name| !name.is_empty() && !is_foreign(name)).unwrap_or("auto");
    Isolation::parse(name).ok_or_else(|| {
        let message =
            format!("invalid isolation `{name}`: want auto, root, rootless, single-id or chroot");
        Failure::new(Exit::Usage, message)
    })
}

/// What would lift the limits, where steps cannot run at all.
fn lift(choice: &Choice) -> Option<String> {
    let lifts = || choice.lacks.iter().map(|lack| &*lack.lift).collect::<Vec<_>>();
    (choice.tier.is_none() && !choice.lacks.is_empty())
        .then(|| format!("one of these lifts it: {}", lifts().join("; ")))
}

pub(crate) fn failure(error: &IsolationError) -> Failure {
    let message = chain(error);
    let hint = match error {
        IsolationError::Missing { lack, .. } | IsolationError::Unknown { lack } => {
            machine::exhausted(&message, true).unwrap_or_else(|| lack.lift.clone())
        }
        _ => return Failure::new(Exit::Machine, message),
    };
    Failure::new(Exit::Machine, message).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_builders_mean_the_best() {
        for name in [None, Some(""), Some("auto"), Some("default"), Some("process")] {
            assert_eq!(parse(name).unwrap(), Isolation::Auto);
        }
        let message = parse(Some("vm")).unwrap_err().message;
        assert_eq!(
            message,
            "invalid isolation `vm`: want auto, root, rootless, single-id or chroot"
        );
    }
}
