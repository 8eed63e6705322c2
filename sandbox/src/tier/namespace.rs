//! A user namespace that is ready to be entered.
//!
//! A child process makes it and keeps it open; the ids are mapped from outside, by this process or by the programs
//! that the administrator has given the right to. The child waits until it is let go, and ends with this process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::ids::IdRange;
use crate::sys;

/// A user namespace of a child process, with its ids mapped.
#[derive(Debug)]
pub struct Namespace {
    child: Child,
}

/// The process that keeps a namespace open.
#[derive(Debug)]
struct Child {
    process: OwnedFd,
    id: u32,
    /// Closed to let the child end.
    hold: Option<OwnedFd>,
}

impl Child {
    /// Starts it; once it is let go it does `last`, whose value is its exit code.
    fn start(last: impl FnOnce() -> i32) -> io::Result<Self> {
        let (read, hold) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // A mount namespace takes the rights of root in the user namespace, which not every system gives.
        match sys::clone3_with_id(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)? {
            None => {
                drop(hold);
                // Readable at its end.
                let _ = poll(&mut [PollFd::new(&read, PollFlags::IN)], None);
                sys::exit_now(last())
            }
            Some((process, id)) => Ok(Self { process, id, hold: Some(hold) }),
        }
    }

    /// Lets it go and waits for its end.
    fn end(&mut self) -> Option<i32> {
        drop(self.hold.take()?);
        let status = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
        status.ok()??.exit_status()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It has little to do but to end.
        let _ = self.end();
    }
}

/// Runs `work` as root of a user namespace with one id, in a process of its own; its value is at most 255.
///
/// # Errors
/// When there can be no such process.
pub(super) fn attempt(work: impl FnOnce() -> i32) -> io::Result<i32> {
    let mut child = Child::start(work)?;
    map_own(child.id)?;
    child.end().ok_or_else(|| io::Error::other("the process of the attempt was killed"))
}

fn map_own(process: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let folder = format!("/proc/{process}");
    fs_err::write(format!("{folder}/setgroups"), "deny")?;
    fs_err::write(format!("{folder}/uid_map"), format!("0 {uid} 1\n"))?;
    fs_err::write(format!("{folder}/gid_map"), format!("0 {gid} 1\n"))
}

/// Why ids could not be mapped.
pub(super) enum MapError {
    /// One of the programs said so.
    Program { name: &'static str, message: String },
    /// The kernel did.
    Kernel(io::Error),
}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> Self {
        Self::Kernel(error)
    }
}

impl Namespace {
    /// Makes one without ids, and makes sure that its root may make mounts.
    ///
    /// # Errors
    /// Those of clone(2).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { child: Child::start(|| 0)? })
    }

    /// Maps 0 to this user and the ids from 1 on to ranges of the machine, by the programs that may do so.
    pub(super) fn map_ranges(
        &self,
        programs: &super::IdMap,
        [users, groups]: [&[IdRange]; 2],
    ) -> Result<(), MapError> {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        // Both at the same time: most of what they take is their start.
        let users = self.start(&programs.users, uid, users)?;
        let groups = self.start(&programs.groups, gid, groups)?;
        for (name, started) in [("newuidmap", users), ("newgidmap", groups)] {
            let output = started.wait_with_output()?;
            if !output.status.success() {
                let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(MapError::Program { name, message });
            }
        }
        Ok(())
    }

    fn start(
        &self,
        program: &Path,
        own: u32,
        ranges: &[IdRange],
    ) -> io::Result<std::process::Child> {
        let mut command = Command::new(program);
        command.arg(self.child.id.to_string()).args(["0", &own.to_string(), "1"]);
        let mut inside = 1;
        for range in ranges {
            command.args([inside, range.start, range.count].map(|number| number.to_string()));
            inside += range.count;
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    }

    /// Maps 0 to this user, which everybody may.
    pub(super) fn map_own(&self) -> io::Result<()> {
        map_own(self.child.id)
    }

    /// Moves this process, which has one thread, into it, and into the mount namespace that belongs to it.
    pub(super) fn enter(self) -> io::Result<()> {
        // The change takes the working directory to the root; one that is gone cannot be found again.
        let here = std::env::current_dir();
        sys::enter_namespaces(self.child.process.as_fd())?;
        match here {
            Ok(here) => Ok(rustix::process::chdir(here)?),
            Err(_) => Ok(()),
        }
    }
}
