//! Steps without namespaces and mounts: what they cannot have, and what they may have failed for.

use llb::op::{ExecOp, MountKind, NetworkMode, SecurityMode};
use sandbox::Tier;

use crate::error::OpError;

/// What to do where a step needs more than a changed root directory.
const MORE: &str = "see `docs/isolation-chroot.md` for what else the machine would have to give";

/// Refuses what cannot be given honestly.
pub(crate) fn refuse(tier: Tier, exec: &ExecOp) -> Result<(), OpError> {
    if tier.has_namespaces() {
        return Ok(());
    }
    let refused =
        |what: &str, hint: String| Err(OpError::Isolation { tier, what: what.to_owned(), hint });
    if exec.network == NetworkMode::None {
        return refused(
            "cannot keep a step from the network (`--network=none`)",
            format!("leave the network to the step, or build with namespaces: {MORE}"),
        );
    }
    if exec.security == SecurityMode::Insecure {
        return refused(
            "cannot give a step all rights (`--security=insecure`)",
            format!("build with namespaces: {MORE}"),
        );
    }
    let kernels = |mount: &&llb::op::Mount| {
        ["/proc", "/sys", "/dev"].iter().any(|top| mount.dest == *top)
            && !matches!(mount.kind, MountKind::Tmpfs { .. })
    };
    if let Some(mount) = exec.mounts.iter().find(kernels) {
        return refused(
            &format!("cannot mount anything at `{}`", mount.dest),
            "choose another target".to_owned(),
        );
    }
    Ok(())
}

/// What a failed step may have missed, by what it ran and wrote.
pub(crate) fn hint(tier: Tier, exec: &ExecOp, log: &[String]) -> Option<String> {
    if tier.has_namespaces() {
        return None;
    }
    let said = |words: &[&str]| {
        log.iter().any(|line| {
            let line = line.to_ascii_lowercase();
            words.iter().any(|word| line.contains(word))
        })
    };
    let runs = |words: &[&str]| {
        let parts = exec.meta.args.iter().flat_map(|arg| arg.split(|c: char| !c.is_alphanumeric()));
        parts.into_iter().any(|part| words.contains(&part))
    };
    let names = |path: &str| exec.meta.args.iter().any(|arg| arg.contains(path));
    if said(&["no new privileges", "no_new_privs", "must be setuid", "effective uid is not 0"])
        || runs(&["sudo", "doas"])
    {
        return Some(format!(
            "isolation `{tier}`: set-uid programs such as sudo and file capabilities give no rights: leave \
             out sudo where the step is root already, or use USER; {MORE}"
        ));
    }
    if runs(&["chroot"]) || said(&["chroot: "]) {
        return Some(format!(
            "isolation `{tier}`: a step cannot change its root directory again; {MORE}"
        ));
    }
    if said(&["/proc/", "/proc:", "/dev/fd", "/dev/std", "/proc "]) || names("/proc/") {
        return Some(format!("isolation `{tier}`: a step finds nothing in /proc; {MORE}"));
    }
    None
}
