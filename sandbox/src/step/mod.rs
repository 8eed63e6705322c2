//! The process of a step, between its making and its program.
//!
//! Everything here runs in the child of the zygote, which is PID 1 of a new pid namespace. It sets
//! its surroundings up, gives up its rights, and becomes the program. Only the reply socket is still
//! open when the program is executed, and closes with that; before, it carries the one message that
//! says why there will be no program.
//!
//! Order matters: mounts need the machine's tree, so they come before the change of root; limits and
//! names need rights, so they come before the change of user; the filter needs `CAP_SYS_ADMIN`, so
//! it comes before the last capability is dropped, and nothing after it but the program.

mod devices;
mod filesystem;
mod mounts;
mod overlay;
mod privileges;
mod program;

pub(crate) use devices::{LINKS, NODES};
pub(crate) use privileges::{restrict, settle};
pub(crate) use program::Program;

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, openat2};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::CapabilitySet;

use crate::landlock::{Landlock, Rules};
use crate::spec::{DEFAULT_CAPABILITIES, Network, Security, Spec};
use crate::sys::{self, NamespaceFlags};
use crate::tier::Tier;
use crate::wire::{self, Failure, FailureKind};
use crate::{recorder, seccomp};

pub(crate) type Outcome<T> = Result<T, Failure>;

/// Says what was tried when something failed.
pub(crate) trait During<T> {
    fn during<S: Into<String>>(self, action: impl FnOnce() -> S) -> Outcome<T>;
}

impl<T> During<T> for rustix::io::Result<T> {
    fn during<S: Into<String>>(self, action: impl FnOnce() -> S) -> Outcome<T> {
        self.map_err(|errno| Failure {
            kind: FailureKind::Setup,
            text: action().into(),
            errno: errno.raw_os_error(),
        })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during<S: Into<String>>(self, action: impl FnOnce() -> S) -> Outcome<T> {
        self.map_err(|error| Failure {
            kind: FailureKind::Setup,
            text: action().into(),
            errno: error.raw_os_error().unwrap_or(0),
        })
    }
}

/// What is the same for all steps, found out once by the zygote.
pub(crate) struct Surroundings {
    /// The zygote, by which a step sees that its parent is gone.
    zygote: OwnedFd,
    /// Capabilities of the builder.
    held: CapabilitySet,
    /// The filter of a confined step.
    filter: Vec<libc::sock_filter>,
    /// Keeps signals and abstract sockets of a confined step in it, where the kernel can.
    scopes: Option<Rules>,
    /// What confines a step without namespaces, once one was asked for.
    chroot: OnceCell<Chroot>,
    /// Whether control groups are in one tree (v2) at their usual place.
    unified_cgroups: bool,
    /// What most steps have in their files, once a process was to be ready for one.
    usual: OnceCell<Option<mounts::Contents>>,
}

/// What confines a step without namespaces.
pub(crate) struct Chroot {
    /// Where the kernel has it.
    pub(crate) landlock: Option<Landlock>,
    /// The filter.
    pub(crate) filter: Vec<libc::sock_filter>,
}

impl Surroundings {
    /// Looks at what the machine gives.
    pub(crate) fn probe(zygote: OwnedFd) -> io::Result<Self> {
        const CGROUP2_MAGIC: u64 = 0x6367_7270;
        let unified_cgroups = rustix::fs::statfs("/sys/fs/cgroup")
            .is_ok_and(|stat| stat.f_type.cast_unsigned() == CGROUP2_MAGIC);
        Ok(Self {
            zygote,
            held: rustix::thread::capabilities(None)?.permitted,
            filter: seccomp::program(DEFAULT_CAPABILITIES),
            scopes: Rules::scopes(),
            chroot: OnceCell::new(),
            unified_cgroups,
            usual: OnceCell::new(),
        })
    }

    /// What most steps have in their files; `None` when that cannot be told.
    fn usual_contents(&self) -> Option<&mounts::Contents> {
        self.usual.get_or_init(mounts::Contents::usual).as_ref()
    }

    /// Finds out once what the processes that are made later would each find out.
    pub(crate) fn expect_steps(&self) {
        let _ = self.usual_contents();
    }

    /// Capabilities of the builder.
    pub(crate) fn held(&self) -> CapabilitySet {
        self.held
    }

    /// What confines a step without namespaces.
    pub(crate) fn chroot(&self) -> &Chroot {
        self.chroot.get_or_init(|| {
            let landlock = Landlock::probe();
            let held = DEFAULT_CAPABILITIES.difference(CapabilitySet::SYS_CHROOT);
            // Without Landlock nothing else keeps a step from tracing processes outside.
            let refused = if landlock.is_some() { &[][..] } else { seccomp::TRACING };
            Chroot { landlock, filter: seccomp::program_without(held, refused) }
        })
    }

    /// Ends the process if the zygote has ended.
    pub(crate) fn end_without_zygote(&self) -> rustix::io::Result<()> {
        let mut fds = [PollFd::new(&self.zygote, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
            0 => Ok(()),
            // Nobody is there to be told.
            _ => sys::exit_now(1),
        }
    }

    /// Returns the namespaces of a step.
    pub(crate) fn namespaces(&self, own_network: bool) -> NamespaceFlags {
        let mut flags =
            libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        if own_network {
            flags |= libc::CLONE_NEWNET;
        }
        if self.unified_cgroups {
            flags |= libc::CLONE_NEWCGROUP;
        }
        flags
    }
}

/// Returns a detached read-only mount of a file.
///
/// # Errors
///
/// When the process may not make mounts.
pub(crate) fn read_only_copy(file: &OwnedFd) -> io::Result<OwnedFd> {
    let copy = filesystem::copy_of(file.as_fd())?;
    filesystem::restrict(&copy, filesystem::READ_ONLY)?;
    Ok(copy)
}

/// Makes an overlay as steps in a user namespace have it, to see whether that can be; changes the mounts of the process.
pub(crate) fn try_overlay() -> Result<(), Failure> {
    mounts::make_private()?;
    let scratch = mounts::scratch()?;
    // Without layers it has two empty ones.
    overlay::Overlay { lowers: &[], writable: None, tier: Tier::Rootless }.mount(&scratch).map(drop)
}

/// A process that is ready to become the program of an ordinary step.
pub(crate) struct Ready<'a>(mounts::Ready<'a>);

/// Prepares what can be before the step is known.
pub(crate) fn make_ready(surroundings: &Surroundings) -> Result<Ready<'_>, Failure> {
    begin(surroundings)?;
    mounts::Ready::make(surroundings).map(Ready)
}

/// Becomes the program of the step; returns only when that fails.
pub(crate) fn run(
    spec: &OwnedFd,
    surroundings: &Surroundings,
    stdout: OwnedFd,
    stderr: OwnedFd,
    recorder: Option<OwnedFd>,
    ready: Option<Ready<'_>>,
) -> Failure {
    match prepare(spec, surroundings, [stdout, stderr], recorder, ready) {
        Ok(program) => program.execute(),
        Err(failure) => failure,
    }
}

fn begin(surroundings: &Surroundings) -> Outcome<()> {
    end_with_parent(surroundings)?;
    rustix::process::setsid().during(|| "begin a session")?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

fn prepare(
    spec: &OwnedFd,
    surroundings: &Surroundings,
    [stdout, stderr]: [OwnedFd; 2],
    recorder: Option<OwnedFd>,
    ready: Option<Ready<'_>>,
) -> Outcome<Program> {
    if ready.is_none() {
        begin(surroundings)?;
    }
    let spec = read_spec(spec)?;
    enter_cgroups(&spec, surroundings)?;
    let null = mounts::set_up(&spec, surroundings, ready.map(|Ready(mounts)| mounts))?;
    name_machine(&spec)?;
    if spec.network == Network::None {
        sys::loopback_up().during(|| "bring the loopback interface up")?;
    }
    set_limits(&spec)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    redirect(&spec, &null, &stdout, &stderr)?;
    drop((null, stdout, stderr));
    sys::close_on_exec_from(3).during(|| "close descriptors")?;
    enter_working_directory(&spec)?;
    let program = Program::new(&spec)?;
    let capabilities = match spec.security {
        Security::Sandbox => DEFAULT_CAPABILITIES & surroundings.held,
        Security::Insecure => surroundings.held,
    };
    restrict(&spec, capabilities, surroundings.held)?;
    // A change of ids takes the death signal back.
    end_with_parent(surroundings)?;
    sys::set_blocked_signals(&[]).during(|| "unblock signals")?;
    if let (Security::Sandbox, Some(scopes)) = (spec.security, &surroundings.scopes) {
        scopes.enter().during(|| "keep signals and abstract sockets in the step")?;
    }
    match recorder {
        Some(recorder) => record(&spec, &recorder)?,
        None if spec.security == Security::Sandbox => {
            sys::load_filter(&surroundings.filter).during(|| "load the seccomp filter")?;
        }
        None => {}
    }
    settle(&spec, capabilities)?;
    Ok(program)
}

/// Loads a filter that hands calls about owners to the recorder.
fn record(spec: &Spec, recorder: &OwnedFd) -> Outcome<()> {
    let filter = match spec.security {
        Security::Sandbox => seccomp::recorded_program(DEFAULT_CAPABILITIES),
        Security::Insecure => seccomp::unconfined_recorded_program(),
    };
    let listener = sys::load_filter_with_listener(&filter).during(|| "load the seccomp filter")?;
    recorder::introduce(recorder, &listener, spec).during(|| "reach the recorder of owners")
}

/// Has the kernel kill this process when the zygote ends, and makes sure it has not ended already.
fn end_with_parent(surroundings: &Surroundings) -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).during(|| "set the death signal")?;
    surroundings.end_without_zygote().during(|| "look for the helper process")
}

pub(crate) fn read_spec(file: &OwnedFd) -> Outcome<Spec> {
    let length = fstat(file).during(|| "read the description")?.st_size;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pread(file, &mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).during(|| "read the description"),
        }
    }
    wire::decode_spec(&bytes).map_err(|_| Errno::BADMSG).during(|| "read the description")
}

/// Enters the control groups of the step.
pub(crate) fn join_cgroups(spec: &Spec) -> Outcome<()> {
    for entrance in &spec.cgroups {
        let action = || format!("enter the control group `{}`", entrance.display());
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(entrance, flags, Mode::empty()).during(action)?;
        // Who writes 0 means itself.
        rustix::io::write(&file, b"0").during(action)?;
    }
    Ok(())
}

/// Enters the control groups of the step, which its namespace for them then begins at.
fn enter_cgroups(spec: &Spec, surroundings: &Surroundings) -> Outcome<()> {
    join_cgroups(spec)?;
    if !spec.cgroups.is_empty() && surroundings.unified_cgroups {
        sys::unshare(libc::CLONE_NEWCGROUP).during(|| "make a namespace for control groups")?;
    }
    Ok(())
}

fn name_machine(spec: &Spec) -> Outcome<()> {
    rustix::system::sethostname(spec.hostname.as_bytes())
        .during(|| format!("set the host name `{}`", spec.hostname))?;
    rustix::system::setdomainname(b"").during(|| "empty the domain name")
}

pub(crate) fn set_limits(spec: &Spec) -> Outcome<()> {
    for limit in &spec.rlimits {
        sys::set_limit(limit.resource.number(), limit.soft, limit.hard)
            .during(|| format!("set the limit `{}`", limit.resource.name()))?;
    }
    Ok(())
}

/// Puts the standard descriptors in place, and lets the user of the step open them again by name.
pub(crate) fn redirect(
    spec: &Spec,
    null: &OwnedFd,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
) -> Outcome<()> {
    for (number, fd) in [null, stdout, stderr].into_iter().enumerate() {
        sys::redirect_standard(fd.as_fd(), number)
            .during(|| "redirect the standard descriptors")?;
    }
    if spec.user.uid != 0 && spec.tier != Tier::SingleId {
        for output in [stdout, stderr] {
            hand_over(output.as_fd(), spec.user.uid).during(|| "hand the outputs to the user")?;
        }
    }
    Ok(())
}

/// Changes the owner of a pipe; files and devices of the machine are not the step's.
fn hand_over(output: BorrowedFd<'_>, uid: u32) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(fstat(output)?.st_mode) {
        FileType::Fifo => fchown(output, Some(Uid::from_raw(uid)), None),
        _ => Ok(()),
    }
}

/// Enters the working directory without following the links of `/proc` out of the root.
pub(crate) fn enter_working_directory(spec: &Spec) -> Outcome<()> {
    let root = rustix::fs::CWD;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let entered = openat2(root, &spec.cwd, flags, Mode::empty(), resolve)
        .and_then(|directory| rustix::process::fchdir(&directory));
    entered.map_err(|errno| Failure {
        kind: FailureKind::WorkingDirectory,
        text: String::from_utf8_lossy(spec.cwd.as_os_str().as_bytes()).into_owned(),
        errno: errno.raw_os_error(),
    })
}
