//! The zygote: a small process with one thread that makes the processes of steps.
//!
//! ```text
//! builder ── control socket ──▶ zygote ── clone3 ──▶ step (PID 1 of its own namespace)
//! ```
//!
//! While the program of a step runs, the process of the next one is made and prepared as far as it can be: not before,
//! when both would wait for the same locks of the kernel.
//!
//! It is the running executable, started again with a private first argument and the control
//! socket as its standard input. It copies nothing of the builder's memory, so making a child of it
//! is cheap, and having one thread it may allocate after the clone.
//!
//! Invariants:
//! - It ends when the builder does: the socket comes to its end, or the death signal comes. Before
//!   it ends it kills every step; if it is killed itself, the steps get their own death signal.
//! - A step whose supervising side has closed its reply socket is killed.
//! - It waits for every child it makes, and tells the end to whoever asked for the step.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid,
    pidfd_open, pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal, waitid,
};

use crate::chroot;
use crate::supervisor::{receive_all, refuse, send, seqpacket_pair, tell};
use crate::sys::{self, Cloned};
use crate::wire::{self, Reply};
use crate::{recorder, step};

/// The first argument that makes the executable a zygote.
pub(crate) const ARG0: &str = "bricklayer-zygote";

/// The second argument of what was started from a read-only mount, or needs none.
pub(crate) const PROTECTED: &str = "protected";

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What fails when the kernel makes no process for a step.
pub(crate) const NEW_PROCESS: &str = "make a process in new namespaces";

/// The signal by which the kernel tells that the builder is gone.
const DEATH_SIGNAL: libc::c_int = libc::SIGTERM;

/// Becomes the zygote and never returns, if the process was started as one; else does nothing.
///
/// Every program that uses [`Sandbox`](crate::Sandbox) calls this first thing in `main`, before it
/// starts a thread or opens a file.
pub fn maybe_run_zygote() {
    let is_zygote = std::env::args_os().next().is_some_and(|arg| arg.as_bytes() == ARG0.as_bytes());
    if is_zygote {
        if std::env::args_os().len() == 1 {
            protect_executable();
        }
        // There is nobody left to tell if this fails: the builder sees the socket close.
        let code = i32::from(run().is_err());
        sys::exit_now(code);
    }
}

/// The executable as a read-only mount; `None` where the process may not make one.
///
/// A step begins as this executable, and an image can arrange that its program is what
/// `/proc/self/exe` names. Then not even root may open the file for writing.
pub(crate) fn protected_executable() -> Option<OwnedFd> {
    let file = rustix::fs::open("/proc/self/exe", PATH_ONLY, Mode::empty()).ok()?;
    step::read_only_copy(&file).ok()
}

/// Starts the executable once more from a read-only mount of it; returns if that cannot be.
fn protect_executable() {
    let Some(copy) = protected_executable() else { return };
    let (Ok(path), Ok(arg), Ok(told)) = (
        CString::new(format!("/proc/self/fd/{}", copy.as_raw_fd())),
        CString::new(ARG0),
        CString::new(PROTECTED),
    ) else {
        return;
    };
    sys::execve(&path, &[arg, told], &[]);
}

/// A step's process.
struct Child {
    process: OwnedFd,
    reply: OwnedFd,
    /// Closed by the other side when the process becomes its program.
    begun: Option<OwnedFd>,
    /// Keeps its mounts, so that taking them away does not hold up the news of its end. They are gone before the next
    /// request is looked at.
    _mounts: Option<OwnedFd>,
    /// Its number, if it is a keeper, which ends by a signal that it can act upon.
    keeper: Option<Pid>,
}

impl Child {
    /// A step with namespaces of its own.
    fn new(process: OwnedFd, reply: OwnedFd, begun: Option<OwnedFd>) -> Self {
        let mounts = sys::mount_namespace(process.as_fd());
        Self { process, reply, begun, _mounts: mounts, keeper: None }
    }

    fn end(&self) {
        let signal = if self.keeper.is_some() { chroot::END } else { Signal::KILL };
        // What is gone already needs no signal.
        let _ = pidfd_send_signal(&self.process, signal);
    }
}

fn run() -> io::Result<()> {
    let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::redirect_standard(null.as_fd(), 0)?;
    drop(null);
    keep_only(&control)?;
    sys::reset_signals(&[DEATH_SIGNAL])?;
    let death = sys::signal_fd(&[DEATH_SIGNAL])?;
    set_parent_process_death_signal(Some(Signal::TERM))?;
    rustix::process::chdir("/")?;
    // A session of its own: no controlling terminal, and no signals from the keyboard.
    rustix::process::setsid()?;
    // This fails for no reason but a bad pointer.
    let _ = rustix::thread::set_name(c"sandbox-zygote");
    let itself = pidfd_open(getpid(), PidfdFlags::empty())?;
    let surroundings = step::Surroundings::probe(itself)?;
    send(control.as_fd(), &[wire::READY], &[])?;

    let mut children: Vec<Child> = Vec::new();
    let mut spare = None;
    let result = serve(&control, &death, &surroundings, &mut children, &mut spare);
    children.iter().for_each(Child::end);
    if let Some(spare) = &spare {
        let _ = pidfd_send_signal(&spare.process, Signal::KILL);
    }
    result
}

/// A process that is ready for the next step, and waits for it.
struct Spare {
    process: OwnedFd,
    /// Takes the descriptors of [`Request`].
    socket: OwnedFd,
}

impl Spare {
    /// Makes one; `None` if that cannot be: then the step's own process finds out why.
    fn start(surroundings: &step::Surroundings, others: &mut Vec<Child>) -> Option<Self> {
        let (socket, theirs) = seqpacket_pair().ok()?;
        match sys::clone3(surroundings.namespaces(false)).ok()? {
            Cloned::Parent(process) => Some(Self { process, socket }),
            Cloned::Child => {
                // What another step has must not last until this one begins.
                others.clear();
                drop(socket);
                let ready = step::make_ready(surroundings);
                let Ok((_, mut fds)) = receive_all(theirs.as_fd()) else { sys::exit_now(1) };
                let recorder = if fds.len() > REQUEST { fds.pop() } else { None };
                let Ok([spec, stdout, stderr, reply]) = Request::try_from(fds) else {
                    sys::exit_now(1)
                };
                // `theirs` stays open until the program begins, which is how the zygote sees that.
                let failure = match ready {
                    Ok(ready) => {
                        step::run(&spec, surroundings, stdout, stderr, recorder, Some(ready))
                    }
                    Err(failure) => failure,
                };
                tell(&reply, &Reply::Failed(failure), None);
                sys::exit_now(1)
            }
        }
    }
}

/// The descriptors of a step: its description, its outputs, and where to reply.
type Request = [OwnedFd; REQUEST];

/// How many those are.
const REQUEST: usize = 4;

/// Closes all descriptors that the builder's own parent leaked to it, but not `control`.
fn keep_only(control: &OwnedFd) -> io::Result<()> {
    let number = control.as_raw_fd().cast_unsigned();
    if number > 3 {
        sys::close_range(3, number - 1)?;
    }
    sys::close_range(number + 1, u32::MAX)
}

/// Answers requests and reaps children until the builder is gone.
fn serve(
    control: &OwnedFd,
    death: &OwnedFd,
    surroundings: &step::Surroundings,
    children: &mut Vec<Child>,
    spare: &mut Option<Spare>,
) -> io::Result<()> {
    // They end by themselves, with their steps.
    let mut recorders = Vec::new();
    let mut wants_spare = false;
    loop {
        let mut fds = vec![PollFd::new(control, PollFlags::IN), PollFd::new(death, PollFlags::IN)];
        fds.extend(children.iter().map(|child| PollFd::new(&child.process, PollFlags::IN)));
        // Nothing is ever sent here from the other side; what can be seen is that it is closed.
        fds.extend(children.iter().map(|child| PollFd::new(&child.reply, PollFlags::empty())));
        let begun = children.iter().filter_map(|child| child.begun.as_ref());
        fds.extend(begun.map(|begun| PollFd::new(begun, PollFlags::empty())));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready[1] {
            return Ok(());
        }
        let (ended, others) = ready[2..].split_at(children.len());
        let (given_up, begun) = others.split_at(children.len());
        let setting_up = children.iter_mut().filter(|child| child.begun.is_some());
        for (child, _) in setting_up.zip(begun).filter(|(_, begun)| **begun) {
            child.begun = None;
        }
        for (child, _) in children.iter().zip(given_up).filter(|(_, given_up)| **given_up) {
            // Nobody waits for this step any more.
            child.end();
        }
        // From the back, so that the indices before stay what they are.
        for at in (0..children.len()).rev().filter(|at| ended[*at]) {
            let child = children.swap_remove(at);
            if reap(&child).is_none() && child.keeper.is_some() {
                let keepers: Vec<_> = children.iter().filter_map(|child| child.keeper).collect();
                chroot::kill_strangers(&keepers);
            }
        }
        if ready[0] {
            let (bytes, fds) = receive_all(control.as_fd())?;
            if bytes.is_empty() {
                return Ok(());
            }
            if bytes == [wire::PREPARE] {
                surroundings.expect_steps();
                wants_spare = true;
            }
            if let (Ok(fds), &[wire::RUN, flags]) = (Request::try_from(fds), &bytes[..]) {
                if flags & wire::CHROOT != 0 {
                    start_keeper(fds, flags & wire::NO_NODES == 0, surroundings, children);
                    continue;
                }
                let recorder = match flags & wire::RECORDED {
                    0 => None,
                    _ => match start_recorder(&mut recorders) {
                        Ok(socket) => Some(socket),
                        Err(error) => {
                            refuse(&fds[3], "start the recorder of owners", &error);
                            continue;
                        }
                    },
                };
                let taken = if flags & wire::ORDINARY != 0 { spare.take() } else { None };
                match taken {
                    Some(ready) => hand_over(ready, fds, recorder, surroundings, children),
                    None => {
                        let own_network = flags & wire::OWN_NETWORK != 0;
                        start(fds, recorder, own_network, surroundings, children);
                    }
                }
                wants_spare |= flags & wire::ANOTHER != 0;
            }
        }
        if wants_spare && children.iter().all(|child| child.begun.is_none()) {
            wants_spare = false;
            if spare.is_none() {
                *spare = Spare::start(surroundings, children);
            }
        }
    }
}

/// Gives a step to the process that is ready, and tells who asked for it.
fn hand_over(
    Spare { process, socket }: Spare,
    fds: Request,
    recorder: Option<OwnedFd>,
    surroundings: &step::Surroundings,
    children: &mut Vec<Child>,
) {
    let borrowed: Vec<_> = fds.iter().chain(&recorder).map(AsFd::as_fd).collect();
    if send(socket.as_fd(), &[wire::RUN], &borrowed).is_err() {
        // It has died.
        wait_for(&process);
        return start(fds, recorder, false, surroundings, children);
    }
    let [_, _, _, reply] = fds;
    tell(&reply, &Reply::Started, Some(&process));
    children.push(Child::new(process, reply, Some(socket)));
}

/// Makes the process of one step, and tells who asked for it.
fn start(
    [spec, stdout, stderr, reply]: Request,
    recorder: Option<OwnedFd>,
    own_network: bool,
    surroundings: &step::Surroundings,
    children: &mut Vec<Child>,
) {
    match sys::clone3(surroundings.namespaces(own_network)) {
        Ok(Cloned::Child) => {
            children.clear();
            let failure = step::run(&spec, surroundings, stdout, stderr, recorder, None);
            tell(&reply, &Reply::Failed(failure), None);
            sys::exit_now(1)
        }
        Ok(Cloned::Parent(process)) => {
            tell(&reply, &Reply::Started, Some(&process));
            children.push(Child::new(process, reply, None));
        }
        Err(error) => refuse(&reply, NEW_PROCESS, &error),
    }
}

/// Starts the process that answers a step's calls about owners; returns the socket for the step.
fn start_recorder(recorders: &mut Vec<OwnedFd>) -> io::Result<OwnedFd> {
    let (ours, theirs) = seqpacket_pair()?;
    match sys::clone3(0)? {
        Cloned::Parent(process) => {
            recorders.retain(|recorder| !has_ended(recorder));
            recorders.push(process);
            Ok(theirs)
        }
        Cloned::Child => {
            drop(theirs);
            // Nothing of the zygote is its own, above all not the outputs of the step.
            let code = i32::from(keep_only(&ours).and_then(|()| recorder::serve(ours)).is_err());
            sys::exit_now(code)
        }
    }
}

/// Makes the keeper of one step without namespaces, and tells who asked for it.
fn start_keeper(
    [spec, stdout, stderr, reply]: Request,
    may_make_nodes: bool,
    surroundings: &step::Surroundings,
    children: &mut Vec<Child>,
) {
    // What a keeper leaves when it is killed comes to this process.
    let _ = rustix::process::set_child_subreaper(Some(getpid()));
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    surroundings.chroot();
    match sys::fork() {
        Ok((Cloned::Child, _)) => {
            chroot::keep(surroundings, may_make_nodes, [spec, stdout, stderr, reply])
        }
        Ok((Cloned::Parent(process), keeper)) => {
            tell(&reply, &Reply::Started, Some(&process));
            let keeper = Some(keeper);
            children.push(Child { process, reply, begun: None, _mounts: None, keeper });
        }
        Err(error) => refuse(&reply, "make a process", &error),
    }
}

/// Tells the status of a child that has ended, and takes it; returns its exit code, if it was not killed.
fn reap(child: &Child) -> Option<i32> {
    let status = status_of(&child.process, WaitIdOptions::NOWAIT)?;
    let code = status.exit_status().unwrap_or(0);
    let signal = status.terminating_signal().unwrap_or(0);
    tell(&child.reply, &Reply::Ended { code, signal }, None);
    // What the kernel does then has a cost too, for which nobody has to wait.
    wait_for(&child.process);
    status.exit_status()
}

/// Whether a child has ended; its status is then taken.
fn has_ended(process: &OwnedFd) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    matches!(waitid(WaitId::PidFd(process.as_fd()), options), Ok(Some(_)))
}

/// Waits for the end of a child, and takes its status.
fn wait_for(process: &OwnedFd) {
    let _ = status_of(process, WaitIdOptions::empty());
}

fn status_of(process: &OwnedFd, options: WaitIdOptions) -> Option<WaitIdStatus> {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), options | WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => return other.ok().flatten(),
        }
    }
}
