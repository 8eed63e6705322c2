//! Answers the system calls with which a step of one id would change owners, and records what they asked for.
//!
//! ```text
//! step ── chown, setuid, mknod, getuid, … ──▶ kernel ── notification ──▶ recorder
//!                                                ◀───────── answer ─────────╯ ╰▶ records of `tree::owner`
//! ```
//!
//! In a user namespace with one id every process and every file is root's. A step is told otherwise: its filter hands
//! the calls concerned to this process, one for each step and outside of it, which does what can be done (a change
//! of owner to root, an empty file for a device), records the rest beside the file, and answers as the kernel
//! would have answered root of the machine.
//!
//! Invariants:
//! - Files are looked up as the caller would: from its root, in its mount namespace, by its working directory. Nothing is
//!   reached here that the step could not reach itself.
//! - Whatever goes wrong is an error of the one call; a call that is not understood is left to the kernel.
//! - The process ends with the last one of the step.

mod files;
mod identity;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::seccomp;
use crate::spec::{Credentials, Root, Spec};
use crate::supervisor::{receive_all, send};
use crate::sys::{self, Answer, Notification};

use files::Files;
use identity::Identities;

/// What the call is answered with: a value, or that the kernel is to do it.
type Outcome = Result<Reply, Errno>;

/// An answer that is no error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    /// This value.
    Value(i64),
    /// What the kernel makes of it.
    Kernel,
}

const DONE: Outcome = Ok(Reply::Value(0));

/// Tells the recorder what it is about, and hands it the notifications; in the process of the step.
pub(crate) fn introduce(socket: &OwnedFd, listener: &OwnedFd, spec: &Spec) -> io::Result<()> {
    let Credentials { uid, gid, groups } = &spec.user;
    let mut text = Vec::new();
    for number in [uid, gid].into_iter().chain(groups) {
        text.extend_from_slice(number.to_string().as_bytes());
        text.push(b' ');
    }
    text.push(0);
    let (Root::Overlay { upper, .. } | Root::Dir(upper)) = &spec.root;
    text.extend_from_slice(upper.as_os_str().as_bytes());
    Ok(send(socket.as_fd(), &text, &[listener.as_fd()])?)
}

/// Serves one step, whose process introduces itself on `socket`; returns when it is over.
pub(crate) fn serve(socket: OwnedFd) -> io::Result<()> {
    let (text, mut fds) = receive_all(socket.as_fd())?;
    drop(socket);
    // A step that does not begin has nothing to say.
    let Some(listener) = fds.pop() else { return Ok(()) };
    let (user, upper) = understood(&text).ok_or(Errno::BADMSG)?;
    let mut recorder = Recorder { identities: Identities::new(&user), files: Files::new(&upper)? };
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let events = fds[0].revents();
        if events.contains(PollFlags::IN) {
            match sys::receive_notification(listener.as_fd()) {
                Ok(call) => recorder.answer(&listener, &call),
                // Whoever asked is gone.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(());
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR))
}

fn understood(text: &[u8]) -> Option<(Credentials, PathBuf)> {
    let end = text.iter().position(|byte| *byte == 0)?;
    let numbers = std::str::from_utf8(&text[..end]).ok()?;
    let mut numbers = numbers.split_whitespace().map(str::parse);
    let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let groups = numbers.collect::<Result<_, _>>().ok()?;
    let upper = OsString::from_vec(text[end + 1..].to_vec());
    Some((Credentials { uid, gid, groups }, PathBuf::from(upper)))
}

struct Recorder {
    identities: Identities,
    files: Files,
}

impl Recorder {
    fn answer(&mut self, listener: &OwnedFd, call: &Notification) {
        let outcome = match seccomp::recorded_call(call.architecture, call.number) {
            Some(name) => self.perform(name, call),
            None => Ok(Reply::Kernel),
        };
        let answer = match outcome {
            Ok(Reply::Value(value)) => Answer::Value(value),
            Ok(Reply::Kernel) => Answer::Continue,
            Err(errno) => Answer::Error(errno.raw_os_error()),
        };
        // It fails when the caller was killed meanwhile.
        let _ = sys::answer_notification(listener.as_fd(), call.id, answer);
    }

    fn perform(&mut self, name: &str, call: &Notification) -> Outcome {
        let args = &call.args;
        let id = |at: usize| args[at] as u32;
        let (pid, here) = (call.pid, i64::from(libc::AT_FDCWD));
        let follow = |flags: u64| flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        match name {
            "chown" => self.chown(pid, here, args[0], (id(1), id(2)), true, false),
            "lchown" => self.chown(pid, here, args[0], (id(1), id(2)), false, false),
            "fchownat" => {
                let (owner, flags) = ((id(2), id(3)), args[4]);
                let is_empty = flags & libc::AT_EMPTY_PATH as u64 != 0;
                self.chown(pid, directory(args[0]), args[1], owner, follow(flags), is_empty)
            }
            "fchown" => {
                let who = self.identities.of(pid)?;
                self.files.chown_descriptor(pid, args[0] as i32, (id(1), id(2)), who)?;
                DONE
            }
            "mknod" => self.mknod(pid, here, args[0], id(1), args[2]),
            "mknodat" => self.mknod(pid, directory(args[0]), args[1], id(2), args[3]),
            _ => self.identities.perform(name, call),
        }
    }

    fn chown(
        &mut self,
        pid: u32,
        dir: i64,
        path: u64,
        owner: (u32, u32),
        follow: bool,
        may_be_empty: bool,
    ) -> Outcome {
        let path = text_at(pid, path)?;
        let who = self.identities.of(pid)?;
        if path.is_empty() {
            if !may_be_empty {
                return Err(Errno::NOENT);
            }
            if dir != i64::from(libc::AT_FDCWD) {
                self.files.chown_descriptor(pid, dir as i32, owner, who)?;
                return DONE;
            }
        }
        let path = if path.is_empty() { OsString::from(".") } else { path };
        self.files.chown(pid, dir, Path::new(&path), owner, follow, who)?;
        DONE
    }

    fn mknod(&mut self, pid: u32, dir: i64, path: u64, mode: u32, device: u64) -> Outcome {
        let kind = mode & libc::S_IFMT;
        if kind != libc::S_IFCHR && kind != libc::S_IFBLK {
            return Ok(Reply::Kernel);
        }
        let who = self.identities.of(pid)?;
        if who.effective() != 0 {
            return Err(Errno::PERM);
        }
        let path = text_at(pid, path)?;
        // The kernel's own form of a device number is 32 bits wide here.
        let numbers = (rustix::fs::major(device), rustix::fs::minor(device));
        if numbers == (0, 0) {
            return Ok(Reply::Kernel);
        }
        self.files.make_device(pid, dir, Path::new(&path), mode, numbers, who)?;
        DONE
    }
}

/// The descriptor of a call that takes one, as the kernel reads it.
fn directory(arg: u64) -> i64 {
    i64::from(arg as i32)
}

/// Reads a path from the memory of a process.
fn text_at(pid: u32, address: u64) -> Result<OsString, Errno> {
    const MOST: usize = libc::PATH_MAX as usize;
    let mut text = Vec::new();
    // A page at a time: what is behind the text may not be there.
    while text.len() < MOST {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let mut piece = vec![0; 4096 - (at % 4096) as usize];
        let read = sys::read_memory(pid, at, &mut piece).map_err(errno_of)?;
        if read == 0 {
            return Err(Errno::FAULT);
        }
        let piece = &piece[..read];
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&piece[..end]);
            return if text.len() < MOST {
                Ok(OsString::from_vec(text))
            } else {
                Err(Errno::NAMETOOLONG)
            };
        }
        text.extend_from_slice(piece);
    }
    Err(Errno::NAMETOOLONG)
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_is_understood() {
        let (user, upper) = understood(b"1000 50 50 7 \0/a b/\xff").unwrap();
        assert_eq!(user, Credentials { uid: 1000, gid: 50, groups: vec![50, 7] });
        assert_eq!(upper.as_os_str().as_bytes(), b"/a b/\xff");
        assert!(understood(b"1000 \0/x").is_none() && understood(b"1 2").is_none());
    }
}
