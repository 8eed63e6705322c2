//! The zygote: a small process with one thread that makes the processes of steps.
//!
//! ```text
//! builder ── control socket ──▶ zygote ── clone3 ──▶ step (PID 1 of its own namespace)
//! ```
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
    PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

use crate::step;
use crate::supervisor::{receive_all, send};
use crate::sys::{self, Cloned};
use crate::wire::{self, Failure, FailureKind, Reply};

/// The first argument that makes the executable a zygote.
pub(crate) const ARG0: &str = "bricklayer-zygote";

/// The second argument of what was started from a read-only mount.
pub(crate) const PROTECTED: &str = "protected";

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

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
    // A session of its own: no controlling terminal, and no signals from the keyboard.
    rustix::process::setsid()?;
    // This fails for no reason but a bad pointer.
    let _ = rustix::thread::set_name(c"sandbox-zygote");
    let itself = pidfd_open(getpid(), PidfdFlags::empty())?;
    let surroundings = step::Surroundings::probe(itself)?;
    send(control.as_fd(), &[wire::READY], &[])?;

    let mut children: Vec<Child> = Vec::new();
    let result = serve(&control, &death, &surroundings, &mut children);
    for child in &children {
        // A child that is gone already needs no signal.
        let _ = pidfd_send_signal(&child.process, Signal::KILL);
    }
    result
}

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
) -> io::Result<()> {
    loop {
        let mut fds = vec![PollFd::new(control, PollFlags::IN), PollFd::new(death, PollFlags::IN)];
        fds.extend(children.iter().map(|child| PollFd::new(&child.process, PollFlags::IN)));
        // Nothing is ever sent here from the other side; what can be seen is that it is closed.
        fds.extend(children.iter().map(|child| PollFd::new(&child.reply, PollFlags::empty())));
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
        let (ended, given_up) = ready[2..].split_at(children.len());
        for (child, _) in children.iter().zip(given_up).filter(|(_, given_up)| **given_up) {
            // Nobody waits for this step any more.
            let _ = pidfd_send_signal(&child.process, Signal::KILL);
        }
        // From the back, so that the indices before stay what they are.
        for at in (0..children.len()).rev().filter(|at| ended[*at]) {
            reap(&children.swap_remove(at));
        }
        if ready[0] {
            let (bytes, fds) = receive_all(control.as_fd())?;
            if bytes.is_empty() {
                return Ok(());
            }
            if let (Ok(fds), &[wire::RUN, own_network]) =
                (<[OwnedFd; 4]>::try_from(fds), &bytes[..])
            {
                start(fds, own_network != 0, surroundings, children);
            }
        }
    }
}

/// Makes the process of one step, and tells who asked for it.
fn start(
    [spec, stdout, stderr, reply]: [OwnedFd; 4],
    own_network: bool,
    surroundings: &step::Surroundings,
    children: &mut Vec<Child>,
) {
    match sys::clone3(surroundings.namespaces(own_network)) {
        Ok(Cloned::Child) => {
            let failure = step::run(&spec, surroundings, stdout, stderr);
            tell(&reply, &Reply::Failed(failure), None);
            sys::exit_now(1)
        }
        Ok(Cloned::Parent(process)) => {
            tell(&reply, &Reply::Started, Some(&process));
            children.push(Child { process, reply });
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            let text = "make a process in new namespaces".to_owned();
            let failure = Failure { kind: FailureKind::Setup, text, errno };
            tell(&reply, &Reply::Failed(failure), None);
        }
    }
}

/// Takes the status of a child that has ended.
fn reap(child: &Child) {
    let status = loop {
        match waitid(WaitId::PidFd(child.process.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let Ok(Some(status)) = status else { return };
    let code = status.exit_status().unwrap_or(0);
    let signal = status.terminating_signal().unwrap_or(0);
    tell(&child.reply, &Reply::Ended { code, signal }, None);
}

/// Sends a reply. Whoever waited for it may be gone, which is then no matter.
fn tell(reply: &OwnedFd, message: &Reply, process: Option<&OwnedFd>) {
    let fds: Vec<_> = process.map(AsFd::as_fd).into_iter().collect();
    let _ = send(reply.as_fd(), &message.encode(), &fds);
}
