//! The keeper: the parent of a step and of everything that the step leaves behind.
//!
//! Invariants:
//! - It tells the end of a step only when no process of the step is left, and there is none left when it ends.
//! - It ends when it gets [`END`](super::END), which the kernel sends when the zygote is gone.
//! - It holds none of the step's outputs: who reads them sees their end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process,
    set_child_subreaper, set_dumpable_behavior, set_parent_process_death_signal, wait,
};

use super::{END, step};
use crate::step::Surroundings;
use crate::supervisor::{refuse, tell};
use crate::sys::{self, Cloned};
use crate::wire::Reply;

/// Signals that wake the keeper.
const WAKING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGCHLD];

/// Becomes the keeper of one step; the descriptors are its description, its outputs, and where to reply.
pub(crate) fn keep(
    surroundings: &Surroundings,
    may_make_nodes: bool,
    [spec, stdout, stderr, reply]: [OwnedFd; 4],
) -> ! {
    let ended = match begin(surroundings, may_make_nodes, [spec, stdout, stderr], &reply) {
        Ok((main, wake)) => watch(main, &wake),
        Err(error) => {
            refuse(&reply, "make the process of the step", &error);
            None
        }
    };
    end_children();
    if let Some(status) = ended {
        tell(&reply, &reply_of(status), None);
    }
    // If it was ended, or nothing began, the zygote tells the end of this process, if it lives.
    sys::exit_now(i32::from(ended.is_none()))
}

fn begin(
    surroundings: &Surroundings,
    may_make_nodes: bool,
    [spec, stdout, stderr]: [OwnedFd; 3],
    reply: &OwnedFd,
) -> io::Result<(Pid, OwnedFd)> {
    sys::set_blocked_signals(&WAKING)?;
    let wake = sys::signal_fd(&WAKING)?;
    set_parent_process_death_signal(Some(END))?;
    surroundings.end_without_zygote()?;
    rustix::process::setsid()?;
    set_child_subreaper(Some(getpid()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // This fails for no reason but a bad pointer.
    let _ = rustix::thread::set_name(c"sandbox-keeper");
    let keeper = getpid();
    match sys::fork()? {
        (Cloned::Child, _) => {
            drop(wake);
            let failure = step::run(&spec, surroundings, may_make_nodes, keeper, [stdout, stderr]);
            tell(reply, &Reply::Failed(failure), None);
            sys::exit_now(1)
        }
        (Cloned::Parent(process), main) => {
            drop((process, spec, stdout, stderr));
            close_all_but([reply, &wake])?;
            Ok((main, wake))
        }
    }
}

/// Closes what the zygote has open, above all its ways to the builder and to other steps.
fn close_all_but(kept: [&OwnedFd; 2]) -> io::Result<()> {
    let mut numbers = kept.map(|fd| fd.as_raw_fd().cast_unsigned());
    numbers.sort_unstable();
    let mut from = 3;
    for number in numbers {
        if number > from {
            sys::close_range(from, number - 1)?;
        }
        from = from.max(number + 1);
    }
    sys::close_range(from, u32::MAX)
}

/// Waits until the step has ended or is to end; returns how it ended.
fn watch(main: Pid, wake: &OwnedFd) -> Option<WaitStatus> {
    loop {
        let mut fds = [PollFd::new(wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return None,
        }
        let signals = sys::read_signals(wake.as_fd());
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((ended, status))) if ended == main => return Some(status),
                // Something that the step has left, or nobody that has ended.
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        if signals.contains(&libc::SIGTERM) {
            return None;
        }
    }
}

/// Kills everything below this process, and waits until it is gone.
///
/// A process whose parent is killed becomes a child of this one, and is killed in the next round.
fn end_children() {
    while kill_children(&[]) {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
}

/// Kills what became a child of the zygote because its keeper was killed, and waits until it is gone; `keepers` are
/// those that live.
pub(crate) fn kill_strangers(keepers: &[Pid]) {
    while kill_children(keepers) {
        let strangers = children().into_iter().filter(|child| !keepers.contains(child));
        for stranger in strangers {
            let _ = rustix::process::waitpid(Some(stranger), WaitOptions::empty());
        }
    }
}

/// Kills all children but some; whether there were any.
fn kill_children(spared: &[Pid]) -> bool {
    let mut any = false;
    for child in children().into_iter().filter(|child| !spared.contains(child)) {
        any = true;
        // It cannot be another process of this number: it is there until it is waited for.
        let _ = kill_process(child, Signal::KILL);
    }
    any
}

/// The children of this process, which has one thread.
fn children() -> Vec<Pid> {
    let numbers = |text: &str| -> Vec<Pid> {
        text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
    };
    let own = getpid().as_raw_nonzero();
    match fs_err::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => numbers(&text),
        Err(_) => children_by_parent(own.get()),
    }
}

/// As [`children`], for kernels that do not list them.
fn children_by_parent(parent: i32) -> Vec<Pid> {
    let Ok(entries) = fs_err::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &i32| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold blanks and brackets; after its last bracket stand the state and the parent.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(&*parent.to_string())
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.filter(is_child).filter_map(Pid::from_raw).collect()
}

fn reply_of(status: WaitStatus) -> Reply {
    Reply::Ended {
        code: status.exit_status().unwrap_or(0),
        signal: status.terminating_signal().unwrap_or(0),
    }
}
