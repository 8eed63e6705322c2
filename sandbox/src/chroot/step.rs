//! The process of a step, between its making and its program.
//!
//! Order matters: descriptors of the machine's tree are opened before the change of root and closed with it; limits need
//! rights, so they come before the change of user; rules and filter need `no_new_privs` and nothing else, and come last.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open, openat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, set_no_new_privs};

use crate::spec::{DEFAULT_CAPABILITIES, Root};
use crate::step::{
    During, Outcome, Program, Surroundings, enter_working_directory, join_cgroups, read_spec,
    redirect, restrict, set_limits, settle,
};
use crate::sys;
use crate::wire::Failure;

/// What a step may hold: with the right to change the root directory, root gets out of it.
const CAPABILITIES: CapabilitySet = DEFAULT_CAPABILITIES.difference(CapabilitySet::SYS_CHROOT);

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Becomes the program of the step; returns only when that fails.
pub(super) fn run(
    spec: &OwnedFd,
    surroundings: &Surroundings,
    may_make_nodes: bool,
    keeper: Pid,
    [stdout, stderr]: [OwnedFd; 2],
) -> Failure {
    match prepare(spec, surroundings, may_make_nodes, keeper, [stdout, stderr]) {
        Ok(program) => program.execute(),
        Err(failure) => failure,
    }
}

fn prepare(
    spec: &OwnedFd,
    surroundings: &Surroundings,
    may_make_nodes: bool,
    keeper: Pid,
    [stdout, stderr]: [OwnedFd; 2],
) -> Outcome<Program> {
    end_with(keeper)?;
    rustix::process::setsid().during(|| "begin a session")?;
    let spec = read_spec(spec)?;
    let Root::Dir(tree) = &spec.root else {
        return Err(Errno::INVAL).during(|| "change the root directory to layers");
    };
    let flags = PATH_ONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let root = open(tree, flags, Mode::empty())
        .during(|| format!("open the tree `{}`", tree.display()))?;
    let chroot = surroundings.chroot();
    let rules = chroot
        .landlock
        .map(|landlock| landlock.confine(root.as_fd()).during(|| "make Landlock rules"));
    let rules = rules.transpose()?;
    join_cgroups(&spec)?;
    set_limits(&spec)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter(&root)?;
    drop(root);
    let null = open_null()?;
    redirect(&spec, &null, &stdout, &stderr)?;
    drop((null, stdout, stderr));
    sys::close_on_exec_from(3).during(|| "close descriptors")?;
    enter_working_directory(&spec)?;
    let program = Program::new(&spec)?;
    let mut capabilities = CAPABILITIES & surroundings.held();
    if !may_make_nodes {
        capabilities -= CapabilitySet::MKNOD;
    }
    restrict(&spec, capabilities, surroundings.held())?;
    // A change of ids takes the death signal back.
    end_with(keeper)?;
    set_no_new_privs(true).during(|| "keep rights from growing")?;
    if let Some(rules) = rules {
        rules.enter().during(|| "enforce Landlock rules")?;
    }
    sys::set_blocked_signals(&[]).during(|| "unblock signals")?;
    sys::load_filter(&chroot.filter).during(|| "load the seccomp filter")?;
    settle(&spec, capabilities)?;
    Ok(program)
}

/// Has the kernel kill this process when the keeper ends, and makes sure it has not ended already.
fn end_with(keeper: Pid) -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).during(|| "set the death signal")?;
    match getppid() {
        Some(parent) if parent == keeper => Ok(()),
        // Nobody is there to be told.
        _ => sys::exit_now(1),
    }
}

fn enter(root: &OwnedFd) -> Outcome<()> {
    let action = || "change the root directory";
    rustix::process::fchdir(root).during(action)?;
    rustix::process::chroot(".").during(action)?;
    rustix::process::chdir("/").during(action)
}

/// Opens the null device that has been put into the tree.
fn open_null() -> Outcome<OwnedFd> {
    let action = || "open `/dev/null` (device nodes in the builder's state folder do nothing)";
    let dev = open("/dev", PATH_ONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
        .during(action)?;
    let null =
        openat(&dev, "null", OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .during(action)?;
    let stat = fstat(&null).during(action)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3);
    if is_null { Ok(null) } else { Err(Errno::NODEV).during(action) }
}
