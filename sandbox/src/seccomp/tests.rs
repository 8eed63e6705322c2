//! The filter is run by a small BPF interpreter and compared with the profile.

use super::*;

/// Runs `program` on one call and returns what it decides.
fn decide(program: &[libc::sock_filter], arch: u32, number: u32, arg0: u64) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_ne_bytes());
    data[4..8].copy_from_slice(&arch.to_ne_bytes());
    data[16..24].copy_from_slice(&arg0.to_ne_bytes());
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let now = program[at];
        let code = u32::from(now.code);
        at += 1;
        match code & 0x07 {
            libc::BPF_LD => {
                let from = now.k as usize;
                accumulator = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
            }
            libc::BPF_RET => return now.k,
            libc::BPF_JMP => {
                let holds = match code & 0xf0 {
                    libc::BPF_JA => {
                        at += now.k as usize;
                        continue;
                    }
                    libc::BPF_JEQ => accumulator == now.k,
                    libc::BPF_JGE => accumulator >= now.k,
                    libc::BPF_JSET => accumulator & now.k != 0,
                    other => panic!("jump {other:#x}"),
                };
                at += usize::from(if holds { now.jt } else { now.jf });
            }
            other => panic!("class {other:#x}"),
        }
    }
}

fn default_program() -> Vec<libc::sock_filter> {
    program(crate::spec::DEFAULT_CAPABILITIES)
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[test]
fn every_number_gets_the_action_of_its_name() {
    let program = default_program();
    // Each step pays for the length.
    assert!(program.len() < 400, "{}", program.len());
    let actions = actions(crate::spec::DEFAULT_CAPABILITIES);
    for arch in ARCHES {
        let mut expected = BTreeMap::new();
        for &(column, base) in arch.columns {
            for (name, numbers) in numbers::ROWS {
                let action = match actions.get(name) {
                    None => REFUSE,
                    Some(Action::Errno(errno)) => libc::SECCOMP_RET_ERRNO | u32::from(*errno),
                    // Argument 0 is 0 below, which all three let through.
                    Some(_) => ALLOW,
                };
                if numbers[column] != u32::MAX {
                    expected.insert(numbers[column] | base, action);
                }
            }
            for number in (0..700).chain([0xf_0000, 0x10_0000]) {
                let number = number | base;
                let expect = expected.get(&number).copied().unwrap_or(REFUSE);
                assert_eq!(decide(&program, arch.audit, number, 0), expect, "{number:#x}");
            }
        }
        assert_eq!(decide(&program, arch.audit, u32::MAX, 0), REFUSE);
    }
}

#[test]
fn calls_about_owners_are_handed_over() {
    const HAND_OVER: u32 = libc::SECCOMP_RET_USER_NOTIF;
    let confined = recorded_program(crate::spec::DEFAULT_CAPABILITIES);
    assert!(confined.len() < 500, "{}", confined.len());
    let unconfined = unconfined_recorded_program();
    for name in profile::RECORDED.split_whitespace() {
        let row = numbers::ROWS.iter().find(|row| row.0 == name).unwrap();
        for arch in ARCHES {
            for &(column, base) in arch.columns {
                if row.1[column] == u32::MAX {
                    continue;
                }
                let number = row.1[column] | base;
                for program in [&confined, &unconfined] {
                    assert_eq!(decide(program, arch.audit, number, 0), HAND_OVER, "{name}");
                }
                let known = recorded_call(arch.audit, number);
                let is_short = arch.audit != ARCHES[0].audit
                    && !name.ends_with("32")
                    && !["fchownat", "mknod", "mknodat"].contains(&name);
                let expect = name.strip_suffix("32").unwrap_or(name);
                assert_eq!(known, (!is_short).then_some(expect), "{name} {number}");
            }
        }
    }
    let (native, mount) = (ARCHES[0].audit, 165);
    assert_eq!(recorded_call(native, mount), None);
    assert_eq!(decide(&confined, native, mount, 0), REFUSE);
    assert_eq!(decide(&unconfined, native, mount, 0), ALLOW);
}

#[test]
fn an_unknown_architecture_is_refused() {
    // SPARC.
    assert_eq!(decide(&default_program(), 2, 0, 0), REFUSE);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn arguments_decide_where_the_profile_says_so() {
    let program = default_program();
    let native = |number, arg0| decide(&program, ARCHES[0].audit, number, arg0);
    let (clone, clone3, socket, personality) = (56, 435, 41, 135);
    assert_eq!(native(clone, 17), ALLOW);
    for flag in [0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0200_0000] {
        assert_eq!(native(clone, flag | 17), REFUSE);
    }
    assert_eq!(native(clone3, 0), UNKNOWN);
    assert_eq!(native(socket, 2), ALLOW);
    assert_eq!(native(socket, 0x27), ALLOW);
    for family in [0x26, 0x28, 0x1_0000_0028] {
        assert_eq!(native(socket, family), REFUSE, "{family:#x}");
    }
    for (value, expect) in [(0, ALLOW), (8, ALLOW), (0xffff_ffff, ALLOW), (0x4_0000, REFUSE)] {
        assert_eq!(native(personality, value), expect, "{value:#x}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn companions_are_filtered_by_their_own_numbers() {
    let program = default_program();
    let i386 = |number| decide(&program, ARCHES[1].audit, number, 0);
    // `mount` is 21 there, which is `access` on x86-64; `access` is 33.
    assert_eq!(i386(21), REFUSE);
    assert_eq!(i386(33), ALLOW);
    let native = |number| decide(&program, ARCHES[0].audit, number, 0);
    assert_eq!(native(21), ALLOW);
    assert_eq!(native(165), REFUSE);
    // x32: `execve` has a number of its own, the one of x86-64 with the marker is not a call.
    assert_eq!(native(X32 | 520), ALLOW);
    assert_eq!(native(X32 | 59), REFUSE);
    assert_eq!(native(X32 | 165), REFUSE);
}

#[test]
fn a_capability_opens_its_calls() {
    let all = program(CapabilitySet::all());
    let (column, base) = ARCHES[0].columns[0];
    for name in ["mount", "clone3", "bpf", "reboot", "settimeofday"] {
        let row = numbers::ROWS.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(decide(&all, ARCHES[0].audit, row.1[column] | base, 0), ALLOW, "{name}");
    }
}

#[test]
fn every_name_of_the_profile_has_a_number() {
    // `riscv_hwprobe` belongs to an architecture that is not built for.
    let named = actions(CapabilitySet::all());
    let missing: Vec<_> = named
        .keys()
        .filter(|name| numbers::ROWS.binary_search_by_key(*name, |row| row.0).is_err())
        .collect();
    assert_eq!(missing, [&"riscv_hwprobe"]);
}
