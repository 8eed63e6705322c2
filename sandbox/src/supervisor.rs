//! The supervising side: starts the zygote, hands steps to it and waits for their ends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{DumpableBehavior, Signal, pidfd_send_signal, set_dumpable_behavior};
use zeroize::Zeroizing;

use crate::chroot::{self, Places};
use crate::error::{ExecReason, SandboxError};
use crate::limits::restore_descriptors;
use crate::spec::{MountKind, Network, Root, Security, Spec};
use crate::tier::Tier;
use crate::wire::{self, Failure, FailureKind, Reply};
use crate::{Cancel, zygote};

/// Most lower layers of one overlay mount, a constant of the kernel.
const MAX_LAYERS: usize = 500;

/// How a step ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 and the number of the signal when one ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// A running zygote, able to run any number of steps at the same time.
///
/// When it is dropped, whatever still runs is killed.
#[derive(Debug)]
pub struct Sandbox {
    control: OwnedFd,
    zygote: u32,
}

impl Sandbox {
    /// Starts the zygote: the running executable once more, small and with one thread.
    ///
    /// The program must call [`maybe_run_zygote`](crate::maybe_run_zygote) first thing in `main`.
    ///
    /// # Errors
    ///
    /// [`SandboxError::Start`] when it does not come up.
    pub fn start() -> Result<Self, SandboxError> {
        Self::start_for(Tier::Root)
    }

    /// As [`start`](Self::start), for steps of a tier.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_for(tier: Tier) -> Result<Self, SandboxError> {
        let (control, theirs) =
            seqpacket_pair().map_err(|errno| SandboxError::Start(errno.into()))?;
        let (sender, receiver) = mpsc::channel();
        // The zygote gets a signal when the *thread* that made it ends, so that thread is one that
        // lives as long as the zygote does; it also reaps it.
        thread::Builder::new()
            .name("sandbox-zygote".to_owned())
            .spawn(move || {
                // From a read-only mount at once, where this process may make one.
                // Without mounts it cannot be named by a step in any case.
                let protected = tier.has_namespaces().then(zygote::protected_executable).flatten();
                let mut command = Command::new(match &protected {
                    Some(copy) => format!("/proc/self/fd/{}", copy.as_raw_fd()),
                    None => "/proc/self/exe".to_owned(),
                });
                if protected.is_some() || !tier.has_namespaces() {
                    command.arg(zygote::PROTECTED);
                }
                let spawned = command
                    .arg0(zygote::ARG0)
                    .env_clear()
                    .stdin(theirs)
                    .stdout(Stdio::null())
                    .spawn();
                match spawned {
                    Ok(mut child) => {
                        // Whether anyone still waits for the answer does not matter here.
                        let _ = sender.send(Ok(child.id()));
                        let _ = child.wait();
                    }
                    Err(error) => drop(sender.send(Err(error))),
                }
            })
            .map_err(SandboxError::Start)?;
        let zygote =
            receiver.recv().map_err(|_| SandboxError::HelperLost)?.map_err(SandboxError::Start)?;
        match receive(control.as_fd()) {
            Ok(Some((bytes, _))) if bytes == [wire::READY] => {
                restore_descriptors(zygote);
                if tier.has_namespaces() {
                    send(control.as_fd(), &[wire::PREPARE], &[])
                        .map_err(|errno| SandboxError::Start(errno.into()))?;
                } else {
                    // No step may look into the builder.
                    set_dumpable_behavior(DumpableBehavior::NotDumpable)
                        .map_err(|errno| SandboxError::Start(errno.into()))?;
                }
                Ok(Self { control, zygote })
            }
            Ok(_) => Err(SandboxError::Start(io::Error::other(
                "the program started as the helper did not act as one",
            ))),
            Err(errno) => Err(SandboxError::Start(errno.into())),
        }
    }

    /// Returns the process id of the zygote.
    pub fn helper_id(&self) -> u32 {
        self.zygote
    }

    /// Runs one step to its end and returns how it ended.
    ///
    /// Both descriptors are closed on this side at once, so that whoever reads the other ends sees
    /// their end when the step and all its children have ended. Any number of threads may run steps
    /// at the same time.
    ///
    /// # Errors
    ///
    /// Everything of [`SandboxError`]; whatever it is, nothing of the step runs any more.
    pub fn run(
        &self,
        spec: &Spec,
        stdout: OwnedFd,
        stderr: OwnedFd,
        cancel: &Cancel,
    ) -> Result<Exit, SandboxError> {
        self.run_and(spec, stdout, stderr, cancel, || ())
    }

    /// As [`run`](Self::run); once the step is on its way, this thread does something else first: it should not take
    /// longer than a step does.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn run_and(
        &self,
        spec: &Spec,
        stdout: OwnedFd,
        stderr: OwnedFd,
        cancel: &Cancel,
        meanwhile: impl FnOnce(),
    ) -> Result<Exit, SandboxError> {
        check(spec)?;
        if cancel.is_cancelled() {
            return Err(SandboxError::Cancelled);
        }
        if spec.tier.has_namespaces() {
            return self.run_process(spec, 0, [stdout, stderr], cancel, meanwhile);
        }
        let warnings = stderr
            .try_clone()
            .map_err(|source| SandboxError::Supervise { action: "keep its output", source })?;
        let places = Places::put(spec)?;
        let nodes = if places.devices_are_confined() { 0 } else { wire::NO_NODES };
        let flags = wire::CHROOT | nodes;
        let end = self.run_process(spec, flags, [stdout, stderr], cancel, meanwhile);
        for remark in places.take_back()? {
            // Whoever read the output may be gone.
            let _ = rustix::io::write(&warnings, format!("WARNING: {remark}\n").as_bytes());
        }
        end
    }

    /// Runs the process of a step whose tree is ready, or is made ready by the process itself.
    fn run_process(
        &self,
        spec: &Spec,
        tier_flags: u8,
        [stdout, stderr]: [OwnedFd; 2],
        cancel: &Cancel,
        meanwhile: impl FnOnce(),
    ) -> Result<Exit, SandboxError> {
        let description = Zeroizing::new(wire::encode_spec(spec));
        let sealed = sealed(&description).map_err(supervise("pass the description"))?;
        let (reply, theirs) = seqpacket_pair().map_err(supervise("make a socket"))?;
        {
            let flag = |flag: u8, is_set: bool| if is_set { flag } else { 0 };
            let flags = flag(wire::OWN_NETWORK, spec.network == Network::None)
                | flag(wire::ORDINARY, spec.is_ordinary())
                | tier_flags
                | flag(wire::ANOTHER, spec.another)
                | flag(wire::RECORDED, spec.tier == Tier::SingleId);
            let fds = [sealed.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()];
            send(self.control.as_fd(), &[wire::RUN, flags], &fds).map_err(|errno| match errno {
                Errno::PIPE | Errno::CONNRESET => SandboxError::HelperLost,
                errno => supervise("reach the helper process")(errno),
            })?;
        }
        drop((sealed, stdout, stderr, theirs));
        meanwhile();
        let mut watch = Watch { reply, step: None, failure: None, spec };
        let end = watch.until_end(cancel);
        if end.is_err() {
            watch.make_sure_it_ended();
        }
        end
    }
}

/// A step that was handed over.
struct Watch<'a> {
    reply: OwnedFd,
    step: Option<OwnedFd>,
    failure: Option<Failure>,
    spec: &'a Spec,
}

impl Watch<'_> {
    fn until_end(&mut self, cancel: &Cancel) -> Result<Exit, SandboxError> {
        loop {
            let cancelled = cancel.is_cancelled();
            if cancelled {
                self.kill();
            }
            self.wait((!cancelled).then_some(cancel)).map_err(supervise("wait for the end"))?;
            match self.next().map_err(supervise("hear from the helper process"))? {
                Next::Nothing | Next::Reply(Reply::Started) => {}
                Next::Lost => return Err(SandboxError::HelperLost),
                Next::Reply(Reply::Failed(failure)) => {
                    // Without a process there is no end to wait for.
                    if self.step.is_none() {
                        return Err(describe(failure, self.spec));
                    }
                    self.failure = Some(failure);
                }
                Next::Reply(Reply::Ended { code, signal }) => {
                    self.step = None;
                    return match self.failure.take() {
                        _ if cancelled => Err(SandboxError::Cancelled),
                        Some(failure) => Err(describe(failure, self.spec)),
                        None if signal == 0 => Ok(Exit { code, signal: None }),
                        None => Ok(Exit { code: 128 + signal, signal: Some(signal) }),
                    };
                }
            }
        }
    }

    /// Waits for a reply, or for the cancellation if that has not come yet.
    fn wait(&self, cancel: Option<&Cancel>) -> rustix::io::Result<()> {
        let mut fds = vec![PollFd::new(&self.reply, PollFlags::IN)];
        fds.extend(cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn next(&mut self) -> rustix::io::Result<Next> {
        let mut fds = [PollFd::new(&self.reply, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Next::Nothing),
            Ok(_) => {}
            Err(errno) => return Err(errno),
        }
        let (bytes, fd) = match receive(self.reply.as_fd()) {
            Ok(Some(message)) => message,
            Ok(None) | Err(Errno::CONNRESET) => return Ok(Next::Lost),
            Err(errno) => return Err(errno),
        };
        let Ok(reply) = Reply::decode(&bytes) else { return Ok(Next::Lost) };
        if reply == Reply::Started {
            // A descriptor goes missing when the process can have no more. The error closes the
            // socket, by which the zygote knows that the step is given up.
            self.step = Some(fd.ok_or(Errno::MFILE)?);
        }
        Ok(Next::Reply(reply))
    }

    /// Kills the step if it has begun.
    fn kill(&mut self) {
        if let Some(step) = &self.step {
            if self.spec.tier.has_namespaces() {
                // The only failure is that it is gone already, which its end will tell.
                let _ = pidfd_send_signal(step, Signal::KILL);
            } else {
                let _ = pidfd_send_signal(step, chroot::END);
                // A step that may signal it could have stopped it.
                let _ = pidfd_send_signal(step, Signal::CONT);
            }
        }
    }

    /// Kills a step whose end nobody told, and waits until it is dead.
    fn make_sure_it_ended(&mut self) {
        self.kill();
        if let Some(step) = &self.step {
            let mut fds = [PollFd::new(step, PollFlags::IN)];
            while matches!(poll(&mut fds, None), Err(Errno::INTR)) {}
        }
    }
}

enum Next {
    Nothing,
    Lost,
    Reply(Reply),
}

/// Finds what no step can be run with.
fn check(spec: &Spec) -> Result<(), SandboxError> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(SandboxError::Unusable { what: "the empty command" });
    }
    if spec.args.iter().any(|arg| arg.contains('\0')) {
        return Err(SandboxError::Unusable { what: "a NUL byte in the command" });
    }
    if spec.env.iter().any(|entry| entry.as_encoded_bytes().contains(&0)) {
        return Err(SandboxError::Unusable { what: "a NUL byte in the environment" });
    }
    let root = match &spec.root {
        Root::Overlay { lowers, .. } => lowers.len(),
        Root::Dir(_) => 0,
    };
    let mounted = spec.mounts.iter().map(|mount| match &mount.kind {
        MountKind::Overlay { lowers, .. } => lowers.len(),
        _ => 0,
    });
    if !spec.tier.has_namespaces() {
        // The caller, who knows what it is of the build, says it better.
        if spec.network == Network::None {
            return Err(SandboxError::Unusable { what: "a network of its own" });
        }
        if spec.security == Security::Insecure {
            return Err(SandboxError::Unusable { what: "a process with all rights" });
        }
    }
    match mounted.chain([root]).max() {
        Some(count) if count > MAX_LAYERS => {
            Err(SandboxError::TooManyLayers { count, max: MAX_LAYERS })
        }
        _ => Ok(()),
    }
}

/// Turns what a step found out about itself into an error.
fn describe(failure: Failure, spec: &Spec) -> SandboxError {
    let Failure { kind, text, errno } = failure;
    let source = io::Error::from_raw_os_error(errno);
    match kind {
        FailureKind::Setup if text == zygote::NEW_PROCESS && errno == libc::ENOSPC => {
            SandboxError::NoNamespaces { lack: crate::tier::namespace_limit() }
        }
        FailureKind::Setup => SandboxError::Setup { action: text, source },
        FailureKind::Overlay => SandboxError::OverlayRefused { action: text, source },
        FailureKind::WorkingDirectory => {
            SandboxError::WorkingDirectory { path: spec.cwd.clone(), source }
        }
        FailureKind::NotInPath => {
            SandboxError::Exec { program: text, reason: ExecReason::NotInPath }
        }
        FailureKind::NoInterpreter => {
            SandboxError::Exec { program: text, reason: ExecReason::NoInterpreter }
        }
        FailureKind::Exec => {
            let reason = match errno {
                libc::ENOENT | libc::ENOTDIR => ExecReason::Missing { path: text.clone() },
                libc::EISDIR => ExecReason::Directory,
                libc::EACCES | libc::EPERM => ExecReason::Denied,
                libc::ENOEXEC => ExecReason::Format,
                errno => ExecReason::Other { errno },
            };
            SandboxError::Exec { program: text, reason }
        }
    }
}

fn supervise(action: &'static str) -> impl Fn(Errno) -> SandboxError {
    move |errno| SandboxError::Supervise { action, source: errno.into() }
}

/// Returns a memfd with `bytes` that nobody can change any more.
fn sealed(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let file = memfd_create("step", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    fcntl_add_seals(&file, seals)?;
    Ok(file)
}

pub(crate) fn seqpacket_pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Sends one message with descriptors; at most five.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a reply, with the process that it is about. Whoever waited for it may be gone, which is then no matter.
pub(crate) fn tell(reply: &OwnedFd, message: &Reply, process: Option<&OwnedFd>) {
    let fds: Vec<_> = process.map(AsFd::as_fd).into_iter().collect();
    let _ = send(reply.as_fd(), &message.encode(), &fds);
}

/// Tells who asked for a step that there will be none.
pub(crate) fn refuse(reply: &OwnedFd, action: &str, error: &io::Error) {
    let errno = error.raw_os_error().unwrap_or(0);
    let failure = Failure { kind: FailureKind::Setup, text: action.to_owned(), errno };
    tell(reply, &Reply::Failed(failure), None);
}

/// Receives one message and the first descriptor that came with it; `None` at the end.
fn receive(socket: BorrowedFd<'_>) -> rustix::io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let (bytes, mut fds) = receive_all(socket)?;
    let first = if fds.is_empty() { None } else { Some(fds.swap_remove(0)) };
    Ok(if bytes.is_empty() { None } else { Some((bytes, first)) })
}

/// Receives one message, empty at the end, and the descriptors that came with it.
pub(crate) fn receive_all(socket: BorrowedFd<'_>) -> rustix::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; wire::MAX_REPLY];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => break message.bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    bytes.truncate(length);
    let fds = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((bytes, fds))
}
