//! Who the processes of a step believe to be.
//!
//! A process keeps the number of its identity in a place that the kernel hands on just as it hands on ids: over
//! `fork` and `execve`, and to nobody else. That place is the soft limit on file locks, which no kernel has looked
//! at since 2.4.25; its hard limit stays as it was.

use rustix::io::Errno;

use super::{Outcome, Reply, errno_of};
use crate::spec::Credentials;
use crate::sys::{self, Notification};

/// Marks a limit that is the number of an identity.
const MARK: u64 = 0x6272_6963_0000_0000;

/// "No change" in most calls.
const SAME: u32 = u32::MAX;

/// Most identities of a step; one that wants more is told that there is no memory.
const MOST: usize = 100_000;

/// Ids as a process has them: real, effective, saved, and for files.
type Ids = [u32; 4];

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    users: Ids,
    groups: Ids,
    supplementary: Vec<u32>,
}

impl Identity {
    /// Effective user.
    pub(super) fn effective(&self) -> u32 {
        self.users[1]
    }

    /// Owner of the files that it makes.
    pub(super) fn owner(&self) -> (u32, u32) {
        (self.users[3], self.groups[3])
    }

    /// Whether it is in a group.
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.groups[3] == group || self.supplementary.contains(&group)
    }
}

/// All identities that processes of a step have had; the first is that of the step itself.
pub(super) struct Identities(Vec<Identity>);

impl Identities {
    pub(super) fn new(user: &Credentials) -> Self {
        let supplementary = user.groups.clone();
        Self(vec![Identity { users: [user.uid; 4], groups: [user.gid; 4], supplementary }])
    }

    /// Who a process is.
    pub(super) fn of(&self, pid: u32) -> Result<&Identity, Errno> {
        let (soft, _) = sys::limits_of(pid, libc::RLIMIT_LOCKS).map_err(errno_of)?;
        let number = usize::try_from(soft ^ MARK).unwrap_or(0);
        Ok(self.0.get(number).unwrap_or(&self.0[0]))
    }

    /// Makes a process somebody else.
    fn become_of(&mut self, pid: u32, identity: Identity) -> Result<(), Errno> {
        let number = match self.0.iter().position(|known| *known == identity) {
            Some(number) => number,
            None if self.0.len() >= MOST => return Err(Errno::NOMEM),
            None => {
                self.0.push(identity);
                self.0.len() - 1
            }
        };
        let (_, hard) = sys::limits_of(pid, libc::RLIMIT_LOCKS).map_err(errno_of)?;
        let limits = (MARK | number as u64, hard);
        sys::set_limits_of(pid, libc::RLIMIT_LOCKS, limits).map_err(errno_of)
    }

    /// Answers a call about ids.
    pub(super) fn perform(&mut self, name: &str, call: &Notification) -> Outcome {
        let (pid, args) = (call.pid, &call.args);
        let who = self.of(pid)?.clone();
        let id = |at: usize| args[at] as u32;
        let value = |id: u32| Ok(Reply::Value(i64::from(id)));
        match name {
            "getuid" => return value(who.users[0]),
            "geteuid" => return value(who.users[1]),
            "getgid" => return value(who.groups[0]),
            "getegid" => return value(who.groups[1]),
            "getresuid" => return write_ids(pid, &args[..3], who.users),
            "getresgid" => return write_ids(pid, &args[..3], who.groups),
            "getgroups" => return write_groups(pid, args[0] as i32, args[1], &who.supplementary),
            _ => {}
        }
        let is_root = who.effective() == 0;
        let mut next = who.clone();
        let mut answer = Reply::Value(0);
        match name {
            "setuid" => next.users = set_one(who.users, id(0), is_root)?,
            "setgid" => next.groups = set_one(who.groups, id(0), is_root)?,
            "setreuid" => next.users = set_two(who.users, id(0), id(1), is_root)?,
            "setregid" => next.groups = set_two(who.groups, id(0), id(1), is_root)?,
            "setresuid" => next.users = set_three(who.users, [id(0), id(1), id(2)], is_root)?,
            "setresgid" => next.groups = set_three(who.groups, [id(0), id(1), id(2)], is_root)?,
            "setfsuid" => {
                answer = Reply::Value(i64::from(who.users[3]));
                if is_root || who.users.contains(&id(0)) {
                    next.users[3] = id(0);
                }
            }
            "setfsgid" => {
                answer = Reply::Value(i64::from(who.groups[3]));
                if is_root || who.groups.contains(&id(0)) {
                    next.groups[3] = id(0);
                }
            }
            "setgroups" if !is_root => return Err(Errno::PERM),
            "setgroups" => next.supplementary = read_groups(pid, args[0] as i32, args[1])?,
            _ => return Ok(Reply::Kernel),
        }
        if next != who {
            self.become_of(pid, next)?;
        }
        Ok(answer)
    }
}

/// `setuid` and `setgid`.
fn set_one(ids: Ids, id: u32, is_root: bool) -> Result<Ids, Errno> {
    if id == SAME {
        return Err(Errno::INVAL);
    }
    let [real, _, saved, _] = ids;
    if is_root {
        Ok([id; 4])
    } else if id == real || id == saved {
        Ok([real, id, saved, id])
    } else {
        Err(Errno::PERM)
    }
}

/// `setreuid` and `setregid`.
fn set_two(ids: Ids, real: u32, effective: u32, is_root: bool) -> Result<Ids, Errno> {
    let [old_real, old_effective, saved, _] = ids;
    let may_be_real = real == SAME || real == old_real || real == old_effective;
    let may_be_effective = effective == SAME || ids[..3].contains(&effective);
    let may = is_root || (may_be_real && may_be_effective);
    if !may {
        return Err(Errno::PERM);
    }
    let new_real = if real == SAME { old_real } else { real };
    let new_effective = if effective == SAME { old_effective } else { effective };
    let follows = real != SAME || (effective != SAME && effective != old_real);
    let saved = if follows { new_effective } else { saved };
    Ok([new_real, new_effective, saved, new_effective])
}

/// `setresuid` and `setresgid`.
fn set_three(ids: Ids, wanted: [u32; 3], is_root: bool) -> Result<Ids, Errno> {
    let allowed = |id: &u32| *id == SAME || ids[..3].contains(id);
    if !is_root && !wanted.iter().all(allowed) {
        return Err(Errno::PERM);
    }
    let pick = |at: usize| if wanted[at] == SAME { ids[at] } else { wanted[at] };
    Ok([pick(0), pick(1), pick(2), pick(1)])
}

fn write_ids(pid: u32, places: &[u64], ids: Ids) -> Outcome {
    for (place, id) in places.iter().zip(ids) {
        write(pid, *place, &id.to_ne_bytes())?;
    }
    Ok(Reply::Value(0))
}

fn write_groups(pid: u32, room: i32, place: u64, groups: &[u32]) -> Outcome {
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    if room > 0 {
        if room < groups.len() {
            return Err(Errno::INVAL);
        }
        let bytes: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
        if !bytes.is_empty() {
            write(pid, place, &bytes)?;
        }
    }
    Ok(Reply::Value(i64::try_from(groups.len()).unwrap_or(0)))
}

fn read_groups(pid: u32, count: i32, place: u64) -> Result<Vec<u32>, Errno> {
    const MOST_GROUPS: usize = 65_536;
    let count = usize::try_from(count).ok().filter(|count| *count <= MOST_GROUPS);
    let mut bytes = vec![0; count.ok_or(Errno::INVAL)? * 4];
    if !bytes.is_empty() && sys::read_memory(pid, place, &mut bytes).ok() != Some(bytes.len()) {
        return Err(Errno::FAULT);
    }
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|number| u32::from_ne_bytes(*number)).collect())
}

fn write(pid: u32, place: u64, bytes: &[u8]) -> Result<(), Errno> {
    match sys::write_memory(pid, place, bytes) {
        Ok(written) if written == bytes.len() => Ok(()),
        _ => Err(Errno::FAULT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Ids = [0; 4];
    const USER: Ids = [1000, 1000, 1000, 1000];

    #[test]
    fn ids_change_as_the_kernel_changes_them() {
        assert_eq!(set_one(ROOT, 5, true), Ok([5; 4]));
        assert_eq!(set_one(USER, 0, false), Err(Errno::PERM));
        assert_eq!(set_one([1000, 5, 1000, 5], 1000, false), Ok(USER));
        // Root that has given up its rights for a while takes them again.
        let away = set_three(ROOT, [SAME, 33, SAME], true).unwrap();
        assert_eq!(away, [0, 33, 0, 33]);
        assert_eq!(set_three(away, [SAME, 0, SAME], false), Ok(ROOT));
        assert_eq!(set_three(USER, [SAME, 0, SAME], false), Err(Errno::PERM));
        assert_eq!(set_two(ROOT, 7, 8, true), Ok([7, 8, 8, 8]));
        assert_eq!(set_two([7, 8, 9, 8], 8, 7, false), Ok([8, 7, 7, 7]));
        assert_eq!(set_two(USER, SAME, 0, false), Err(Errno::PERM));
    }
}
