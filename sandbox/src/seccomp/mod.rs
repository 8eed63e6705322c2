//! The seccomp filter of a step: which system calls it may make.
//!
//! [`profile`] says what is allowed by name, [`numbers`] what the names are on each architecture,
//! and this module turns both into a classic BPF program. For each architecture that the kernel
//! may report the program holds a binary decision tree over ranges of call numbers; an unknown
//! architecture is refused like any call that is not named: with `EPERM`, never by a signal.
//!
//! Arguments are compared by their low 32 bits, which is all that the kernel reads of those the
//! profile looks at; comparing 64 bits would let a value through that the kernel then truncates.

mod numbers;
mod profile;

use std::collections::BTreeMap;

use rustix::thread::CapabilitySet;

const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARG0: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// What marks a call of the x32 ABI.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// A filter architecture: `AUDIT_ARCH_*` and the columns of [`numbers::ROWS`] with what is added
/// to their numbers.
struct Arch {
    audit: u32,
    columns: &'static [(usize, u32)],
}

#[cfg(target_arch = "x86_64")]
const ARCHES: &[Arch] = &[
    Arch { audit: 0xc000_003e, columns: &[(0, 0), (2, X32)] },
    Arch { audit: 0x4000_0003, columns: &[(1, 0)] },
];
#[cfg(target_arch = "aarch64")]
const ARCHES: &[Arch] = &[
    Arch { audit: 0xc000_00b7, columns: &[(3, 0)] },
    Arch { audit: 0x4000_0028, columns: &[(4, 0)] },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp filter has no system call numbers for this architecture");

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Errno(u16),
    /// `clone` without namespace flags.
    Clone,
    Personality,
    Socket,
    /// Another process answers.
    Record,
}

/// Calls by which one process looks into another or changes it.
pub(crate) const TRACING: &[&str] = &["ptrace", "process_vm_readv", "process_vm_writev"];

/// Returns the filter for a step that holds `held`.
pub(crate) fn program(held: CapabilitySet) -> Vec<libc::sock_filter> {
    program_without(held, &[])
}

/// As [`program`], with some calls refused that it allows.
pub(crate) fn program_without(held: CapabilitySet, refused: &[&str]) -> Vec<libc::sock_filter> {
    let mut actions = actions(held);
    actions.retain(|name, _| !refused.contains(name));
    program_of(&actions, Action::Errno(EPERM))
}

/// Returns the same filter for a step of whose calls another process answers those that ask for owners.
pub(crate) fn recorded_program(held: CapabilitySet) -> Vec<libc::sock_filter> {
    let mut actions = actions(held);
    let recorded = profile::RECORDED.split_whitespace();
    actions.extend(recorded.map(|name| (name, Action::Record)));
    program_of(&actions, Action::Errno(EPERM))
}

/// Returns a filter that only hands over the calls that ask for owners, for a step that may do everything else.
pub(crate) fn unconfined_recorded_program() -> Vec<libc::sock_filter> {
    let recorded = profile::RECORDED.split_whitespace().map(|name| (name, Action::Record));
    program_of(&recorded.collect(), Action::Allow)
}

/// Returns the name of a call that is handed over, without what tells the kinds of ids apart; `None` for others, and
/// for those with ids of 16 bits.
pub(crate) fn recorded_call(architecture: u32, number: u32) -> Option<&'static str> {
    let arch = ARCHES.iter().find(|arch| arch.audit == architecture)?;
    let is_first = std::ptr::eq(arch, &raw const ARCHES[0]);
    let names = profile::RECORDED.split_whitespace();
    let mut known = names.filter_map(|name| {
        let at = numbers::ROWS.binary_search_by(|row| row.0.cmp(name)).ok()?;
        let mut columns = arch.columns.iter();
        columns.any(|(column, base)| numbers::ROWS[at].1[*column] | base == number).then_some(name)
    });
    let name = known.next()?;
    let short = name.strip_suffix("32");
    let is_wide = is_first || short.is_some() || matches!(name, "fchownat" | "mknod" | "mknodat");
    is_wide.then_some(short.unwrap_or(name))
}

/// Returns the program that does with each call what is said, and with those that are not named what `otherwise` says.
fn program_of(
    actions: &BTreeMap<&'static str, Action>,
    otherwise: Action,
) -> Vec<libc::sock_filter> {
    let mut out = vec![load(OFFSET_ARCH)];
    for arch in ARCHES {
        let tree = tree(&ranges(arch, actions, otherwise));
        let mut body = vec![load(OFFSET_NUMBER)];
        body.extend(tree);
        // Conditional jumps reach 255 instructions; an unconditional one steps over the body.
        out.push(jump(libc::BPF_JEQ, arch.audit, 1, 0));
        out.push(always(body.len()));
        out.extend(body);
    }
    out.push(give(Action::Errno(EPERM)));
    out
}

/// Returns the action of each call that does not simply fail, by name.
fn actions(held: CapabilitySet) -> BTreeMap<&'static str, Action> {
    let mut actions = BTreeMap::new();
    actions.insert("clone", Action::Clone);
    actions.insert("clone3", Action::Errno(ENOSYS));
    actions.insert("personality", Action::Personality);
    actions.insert("socket", Action::Socket);
    let held_lists = profile::BY_CAPABILITY.iter().filter(|(cap, _)| held.contains(*cap));
    let lists = [profile::ALWAYS, profile::SINCE_KERNEL_4_8, profile::NATIVE];
    for list in lists.into_iter().chain(held_lists.map(|(_, list)| *list)) {
        actions.extend(list.split_whitespace().map(|name| (name, Action::Allow)));
    }
    actions
}

/// Returns `(first number, action)` of each range, in order; a range ends where the next begins.
fn ranges(
    arch: &Arch,
    actions: &BTreeMap<&'static str, Action>,
    otherwise: Action,
) -> Vec<(u32, Action)> {
    let mut by_number = BTreeMap::new();
    for &(column, base) in arch.columns {
        for (name, numbers) in numbers::ROWS {
            let known = Some(numbers[column]).filter(|number| *number != u32::MAX);
            if let (Some(number), Some(action)) = (known, actions.get(name)) {
                by_number.insert(number | base, *action);
            }
        }
    }
    let mut ranges: Vec<(u32, Action)> = vec![(0, otherwise)];
    for (number, action) in by_number {
        start_range(&mut ranges, number, action);
        start_range(&mut ranges, number + 1, otherwise);
    }
    ranges
}

/// Begins a range at `number`, and drops or joins the one before where nothing is left of it.
fn start_range(ranges: &mut Vec<(u32, Action)>, number: u32, action: Action) {
    if ranges.last().is_some_and(|last| last.0 == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.1 != action) {
        ranges.push((number, action));
    }
}

/// Returns instructions that find the range of the loaded number and end with its action.
fn tree(ranges: &[(u32, Action)]) -> Vec<libc::sock_filter> {
    if let Some(small) = small_tree(ranges) {
        return small;
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let first_high = high[0].0;
    let (low, high) = (tree(low), tree(high));
    let mut out = match u8::try_from(low.len()) {
        Ok(distance) => vec![jump(libc::BPF_JGE, first_high, distance, 0)],
        Err(_) => vec![jump(libc::BPF_JGE, first_high, 0, 1), always(low.len())],
    };
    out.extend(low);
    out.extend(high);
    out
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Next {
    /// To another one.
    Test(usize),
    Action(Action),
}

/// A [`tree`] in which each action stands once, behind all comparisons; `None` when some would be out of reach. The
/// kernel translates the filter anew for each step, so that its length counts.
fn small_tree(ranges: &[(u32, Action)]) -> Option<Vec<libc::sock_filter>> {
    if ranges.len() > 250 {
        return None;
    }
    let mut tests = Vec::new();
    let first = add_tests(ranges, &mut tests);
    if let Next::Action(action) = first {
        return Some(leaf(action));
    }
    let (mut ends, mut tail) = (Vec::<(Action, usize)>::new(), Vec::new());
    let leaves = tests.iter().flat_map(|(_, high, low)| [*high, *low]);
    for next in leaves {
        if let Next::Action(action) = next
            && !ends.iter().any(|(known, _)| *known == action)
        {
            ends.push((action, tests.len() + tail.len()));
            tail.extend(leaf(action));
        }
    }
    let distance = |from: usize, next: Next| {
        let target = match next {
            Next::Test(index) => index,
            Next::Action(action) => ends.iter().find(|(known, _)| *known == action)?.1,
        };
        u8::try_from(target - from - 1).ok()
    };
    let mut out = Vec::with_capacity(tests.len() + tail.len());
    for (at, (number, high, low)) in tests.iter().enumerate() {
        out.push(jump(libc::BPF_JGE, *number, distance(at, *high)?, distance(at, *low)?));
    }
    out.extend(tail);
    Some(out)
}

/// Adds the comparisons that find a range, each before those that it leads to: the first number of the upper half, and
/// where the upper and the lower half are looked at.
fn add_tests(ranges: &[(u32, Action)], tests: &mut Vec<(u32, Next, Next)>) -> Next {
    if let [(_, action)] = ranges {
        return Next::Action(*action);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let at = tests.len();
    tests.push((high[0].0, Next::Test(at), Next::Test(at)));
    let (low, high) = (add_tests(low, tests), add_tests(high, tests));
    (tests[at].1, tests[at].2) = (high, low);
    Next::Test(at)
}

/// Returns instructions that carry out one action.
fn leaf(action: Action) -> Vec<libc::sock_filter> {
    let (allow, refuse) = (give(Action::Allow), give(Action::Errno(EPERM)));
    let mut out = vec![load(OFFSET_ARG0)];
    match action {
        Action::Allow | Action::Errno(_) | Action::Record => return vec![give(action)],
        Action::Clone => {
            out.extend([jump(libc::BPF_JSET, profile::CLONE_NAMESPACES, 1, 0), allow, refuse]);
        }
        Action::Personality => {
            for value in profile::PERSONALITIES {
                out.extend([jump(libc::BPF_JEQ, value, 0, 1), allow]);
            }
            out.push(refuse);
        }
        Action::Socket => {
            for family in profile::REFUSED_FAMILIES {
                out.extend([jump(libc::BPF_JEQ, family, 0, 1), refuse]);
            }
            out.push(allow);
        }
    }
    out
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, if_true, if_false, value)
}

/// Jumps over `distance` instructions. Programs are far shorter than 2^32 instructions.
fn always(distance: usize) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance as u32)
}

/// Ends the program with a plain action.
fn give(action: Action) -> libc::sock_filter {
    let value = match action {
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
        Action::Record => libc::SECCOMP_RET_USER_NOTIF,
        _ => libc::SECCOMP_RET_ALLOW,
    };
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests;
