//! How much the machine gives to isolate a step with, and which of it a build takes.
//!
//! ```text
//! Probe ── what is there, looked up when asked ──▶ choose ──▶ Choice ── enter ──▶ the builder, as it builds
//! ```
//!
//! [`choose`] takes the best [`Tier`] that the machine allows, or the one that was asked for. Where that is a user
//! namespace, the choice holds one that is ready, and [`Choice::enter`] moves the whole process into it: from
//! then on it is root there, and so is everything that it starts.
//!
//! Invariants:
//! - A process with the rights of root learns it from its capabilities and one look at its user namespace.
//! - What is said to be there was tried, not guessed from settings; settings are only read to say what to change.
//! - A choice that is not entered leaves nothing behind: the namespace goes with the value.
//! - What a tier could not get for want of processes or descriptors makes no build take a lesser one.

mod ids;
mod namespace;
mod probe;

use std::{fmt, io};

use rustix::thread::CapabilitySet;

pub use ids::IdRange;
pub use namespace::Namespace;
pub(crate) use probe::namespace_limit;
pub use probe::{IdMap, Probe, User};

use crate::error::IsolationError;

/// How a step is isolated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tier {
    /// Root with `CAP_SYS_ADMIN`: all namespaces, native overlay attributes, device nodes.
    #[default]
    Root,
    /// Root of a user namespace with a range of ids.
    Rootless,
    /// Root of a user namespace with one id: other owners are recorded.
    SingleId,
    /// No namespaces and no mounts, as in a plain container: a changed root directory.
    Chroot,
}

impl Tier {
    /// Returns the name that `--isolation` gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Rootless => "rootless",
            Self::SingleId => "single-id",
            Self::Chroot => "chroot",
        }
    }

    /// Whether steps have namespaces and mounts of their own.
    #[must_use]
    pub fn has_namespaces(self) -> bool {
        self != Self::Chroot
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is asked for with `--isolation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The best that there is.
    #[default]
    Auto,
    /// This one or an error.
    Only(Tier),
}

impl Isolation {
    /// Reads a name: `auto` or that of a tier.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let tiers = [Tier::Root, Tier::Rootless, Tier::SingleId, Tier::Chroot];
        match name {
            "auto" => Some(Self::Auto),
            _ => tiers.into_iter().find(|tier| tier.name() == name).map(Self::Only),
        }
    }
}

/// Something that the machine does not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing: `user namespaces are turned off`.
    pub what: String,
    /// The setting that changes it: `` set `sysctl -w user.max_user_namespaces=15000` ``.
    pub lift: String,
    /// Whether it says nothing of the machine: this process had too little of something to find out.
    pub is_passing: bool,
}

impl Lack {
    fn new(what: impl Into<String>, lift: impl Into<String>) -> Self {
        Self { what: what.into(), lift: lift.into(), is_passing: false }
    }

    /// One that was found by an error.
    fn found_by(error: &io::Error, what: impl Into<String>, lift: impl Into<String>) -> Self {
        use libc::{EAGAIN, EMFILE, ENFILE, ENOENT, ENOMEM};
        let is_passing =
            matches!(error.raw_os_error(), Some(EAGAIN | EMFILE | ENFILE | ENOENT | ENOMEM));
        Self { is_passing, ..Self::new(what, lift) }
    }
}

/// What a build takes of what the machine gives.
#[derive(Debug)]
pub struct Choice {
    /// How steps are isolated; `None` where no step can run.
    pub tier: Option<Tier>,
    /// Why it is this one, in a few words: `not root; user namespace with ids 100000-165535`.
    pub reason: String,
    /// What the better tiers lack, with what to do about it; empty where nobody asked.
    pub lacks: Vec<Lack>,
    /// The user namespace that is to be entered.
    namespace: Option<Namespace>,
}

impl Choice {
    fn new(tier: Tier, reason: impl Into<String>) -> Self {
        Self { tier: Some(tier), reason: reason.into(), lacks: Vec::new(), namespace: None }
    }

    /// Moves the process, which has one thread, to where it builds; does nothing where it is there already.
    ///
    /// # Errors
    /// [`IsolationError::Enter`] when the kernel refuses, which it does to a process with more than one thread.
    pub fn enter(&mut self) -> Result<(), IsolationError> {
        match self.namespace.take() {
            Some(namespace) => namespace.enter().map_err(IsolationError::Enter),
            None => Ok(()),
        }
    }
}

/// Takes the best tier that the machine gives, or the one that is asked for.
///
/// # Errors
/// [`IsolationError::Missing`] when the one that is asked for cannot be given, [`IsolationError::Unknown`] when the
/// process has too little of something to find out which one can.
pub fn choose(isolation: Isolation, probe: &Probe) -> Result<Choice, IsolationError> {
    match isolation {
        Isolation::Auto => {
            let mut choice = best(probe);
            match choice.lacks.iter().position(|lack| lack.is_passing) {
                Some(at) => Err(IsolationError::Unknown { lack: choice.lacks.swap_remove(at) }),
                None => Ok(choice),
            }
        }
        Isolation::Only(tier) => {
            only(tier, probe).map_err(|lack| IsolationError::Missing { tier, lack })
        }
    }
}

fn only(tier: Tier, probe: &Probe) -> Result<Choice, Lack> {
    match tier {
        Tier::Root => root(probe, "asked for"),
        Tier::Rootless => rootless(probe, "asked for"),
        Tier::SingleId => single_id(probe, "asked for"),
        Tier::Chroot => chroot(probe, "asked for"),
    }
}

fn best(probe: &Probe) -> Choice {
    let mut lacks = match root(probe, "root of the machine") {
        Ok(choice) => return choice,
        Err(lack) => vec![lack],
    };
    let why = probe.why_not_root();
    let chosen = rootless(probe, why)
        .or_else(|lack| {
            lacks.push(lack);
            let why = lacks.last().map_or(String::new(), |lack| format!("{why}; {}", lack.what));
            single_id(probe, &why)
        })
        .or_else(|lack| {
            // The same reason stands in the way of both kinds of user namespaces.
            if !lacks.contains(&lack) {
                lacks.push(lack);
            }
            let why = lacks.last().map_or(String::new(), |lack| format!("{why}; {}", lack.what));
            // What was found first may not be all that stands in the way.
            lacks.extend(probe.user_namespaces().err().filter(|lack| !lacks.contains(lack)));
            chroot(probe, &why)
        });
    match chosen {
        Ok(choice) => Choice { lacks, ..choice },
        Err(lack) => {
            lacks.push(lack);
            let reason = lacks.iter().map(|lack| &*lack.what).collect::<Vec<_>>().join("; ");
            Choice { tier: None, reason, lacks, namespace: None }
        }
    }
}

fn root(probe: &Probe, why: &str) -> Result<Choice, Lack> {
    if !probe.has(CapabilitySet::SYS_ADMIN) {
        let what = format!("{} (CAP_SYS_ADMIN)", probe.why_not_root());
        let lift = if probe.user().id == 0 {
            "run the container with `--privileged`, or with `--cap-add SYS_ADMIN` and without a seccomp profile"
        } else {
            "run the command as root or with sudo"
        };
        return Err(Lack::new(what, lift));
    }
    if !probe.is_initial_namespace() {
        return Err(Lack::new(
            "this process is root of a user namespace, not of the machine",
            "run the command outside of that namespace",
        ));
    }
    Ok(Choice::new(Tier::Root, why))
}

/// Whether the process is root of a user namespace already.
fn is_inside(probe: &Probe) -> bool {
    probe.has(CapabilitySet::SYS_ADMIN) && !probe.is_initial_namespace()
}

fn rootless(probe: &Probe, why: &str) -> Result<Choice, Lack> {
    if is_inside(probe) {
        let ranges = probe.current_ids();
        return match ids::total(&ranges) {
            ids::LEAST.. => {
                let reason = format!("root of a user namespace with ids {}", ids::shown(&ranges));
                Ok(Choice::new(Tier::Rootless, reason))
            }
            few => Err(Lack::new(
                format!("this user namespace has {few} of the {} ids", ids::LEAST),
                "run the command outside of it, or give the namespace more ids",
            )),
        };
    }
    let (namespace, ranges) = probe.rootless_namespace()?;
    let reason = format!("{why}; user namespace with ids {}", ids::shown(&ranges));
    Ok(Choice { namespace: Some(namespace), ..Choice::new(Tier::Rootless, reason) })
}

fn single_id(probe: &Probe, why: &str) -> Result<Choice, Lack> {
    if is_inside(probe) && ids::total(&probe.current_ids()) == 1 {
        return Ok(Choice::new(Tier::SingleId, "root of a user namespace with one id"));
    }
    let namespace = probe.single_id_namespace()?;
    let choice = Choice::new(Tier::SingleId, format!("{why}; user namespace with one id"));
    Ok(Choice { namespace: Some(namespace), ..choice })
}

fn chroot(probe: &Probe, why: &str) -> Result<Choice, Lack> {
    if !probe.has(CapabilitySet::SYS_CHROOT) {
        return Err(Lack::new(
            "no right to change the root directory (CAP_SYS_CHROOT)",
            "run the command as root, in a container with `--cap-add SYS_CHROOT`",
        ));
    }
    let missing: Vec<_> =
        CHROOT_NEEDS.iter().filter(|(_, _, capability)| !probe.has(*capability)).collect();
    if missing.is_empty() {
        return Ok(Choice::new(Tier::Chroot, why));
    }
    let list = |each: &dyn Fn(&str, &str) -> String, between: &str| {
        let each = missing.iter().map(|(name, use_of_it, _)| each(name, use_of_it));
        each.collect::<Vec<_>>().join(between)
    };
    Err(Lack::new(
        format!(
            "no right to {}",
            list(&|name, use_of_it| format!("{use_of_it} (CAP_{name})"), ", to ")
        ),
        format!(
            "run the container with {}",
            list(&|name, _| format!("`--cap-add {name}`"), " and ")
        ),
    ))
}

/// What the builder needs besides `CAP_SYS_CHROOT` to run a step without namespaces; all of it is among what Docker
/// gives.
const CHROOT_NEEDS: [(&str, &str, CapabilitySet); 3] = [
    ("DAC_OVERRIDE", "write to all files of a step", CapabilitySet::DAC_OVERRIDE),
    ("MKNOD", "make `/dev/null`", CapabilitySet::MKNOD),
    ("SETPCAP", "take rights from a step", CapabilitySet::SETPCAP),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tier_has_a_name_that_is_read_again() {
        for tier in [Tier::Root, Tier::Rootless, Tier::SingleId, Tier::Chroot] {
            assert_eq!(Isolation::parse(tier.name()), Some(Isolation::Only(tier)));
        }
        assert_eq!(Isolation::parse("auto"), Some(Isolation::Auto));
        assert_eq!(Isolation::parse("Root"), None);
        assert_eq!(Isolation::parse(""), None);
    }
}
