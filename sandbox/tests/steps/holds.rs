//! What holds a step besides its rights: control groups and Landlock; and what its filter says of each call.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

use sandbox::{Cgroup, Cgroups, Mount, MountKind, Resources, Security};

use crate::fixture::{Outcome, Step};

/// The first argument by which this binary, inside a step, connects to an abstract socket.
pub(crate) const CONNECT: &str = "connect-abstract";

/// The first argument by which this binary, inside a step, makes the calls of [`CALLS`].
pub(crate) const CALL: &str = "call-by-call";

/// What the filter is to say of a call.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The kernel does it, or finds something else to say.
    Allowed,
    /// `EPERM`.
    Refused,
    /// `ENOSYS`.
    Unknown,
}

use Decision::{Allowed, Refused, Unknown};

const BAD: i64 = -1;

/// Calls with arguments that harm nothing, whose own answer is neither `EPERM` nor `ENOSYS`, and what the profile of the
/// reference says of them for a step with its usual capabilities.
const CALLS: &[(&str, i64, [i64; 3], Decision)] = &[
    ("getpid", libc::SYS_getpid, [0, 0, 0], Allowed),
    ("close", libc::SYS_close, [BAD, 0, 0], Allowed),
    ("openat2", libc::SYS_openat2, [BAD, 0, 0], Allowed),
    ("statx", libc::SYS_statx, [BAD, 0, 0], Allowed),
    ("memfd_create", libc::SYS_memfd_create, [0, 0, 0], Allowed),
    ("mknodat", libc::SYS_mknodat, [BAD, 0, 0], Allowed),
    ("chroot", libc::SYS_chroot, [0, 0, 0], Allowed),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as i64, 0, 0], Allowed),
    ("process_vm_readv", libc::SYS_process_vm_readv, [0, 0, 0], Allowed),
    ("seccomp", libc::SYS_seccomp, [99, 0, 0], Allowed),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, [BAD, 0, 0], Allowed),
    ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, [0, 0, 1], Allowed),
    ("pidfd_open", libc::SYS_pidfd_open, [BAD, 0, 0], Allowed),
    ("io_setup", libc::SYS_io_setup, [0, 0, 0], Allowed),
    ("socket-netlink", libc::SYS_socket, [libc::AF_NETLINK as i64, 99, 0], Allowed),
    ("clone", libc::SYS_clone, [libc::CLONE_SIGHAND as i64, 0, 0], Allowed),
    ("personality-uname26", libc::SYS_personality, [0x20000, 0, 0], Allowed),
    ("socket-alg", libc::SYS_socket, [libc::AF_ALG as i64, 5, 0], Refused),
    ("socket-vsock", libc::SYS_socket, [libc::AF_VSOCK as i64, 1, 0], Refused),
    ("personality-other", libc::SYS_personality, [0x0400_0000, 0, 0], Refused),
    ("mount", libc::SYS_mount, [0, 0, 0], Refused),
    ("umount2", libc::SYS_umount2, [0, 0, 0], Refused),
    ("pivot_root", libc::SYS_pivot_root, [0, 0, 0], Refused),
    ("move_mount", libc::SYS_move_mount, [BAD, 0, BAD], Refused),
    ("fsopen", libc::SYS_fsopen, [0, 0, 0], Refused),
    ("open_tree", libc::SYS_open_tree, [BAD, 0, 0], Refused),
    ("mount_setattr", libc::SYS_mount_setattr, [BAD, 0, 0], Refused),
    ("unshare", libc::SYS_unshare, [0, 0, 0], Refused),
    ("setns", libc::SYS_setns, [BAD, 0, 0], Refused),
    ("clone-newnet", libc::SYS_clone, [libc::CLONE_NEWNET as i64, 0, 0], Refused),
    ("clone3", libc::SYS_clone3, [0, 0, 0], Unknown),
    ("bpf", libc::SYS_bpf, [BAD, 0, 0], Refused),
    ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0], Refused),
    ("kexec_load", libc::SYS_kexec_load, [0, 0, 0], Refused),
    ("reboot", libc::SYS_reboot, [0, 0, 0], Refused),
    ("init_module", libc::SYS_init_module, [0, 0, 0], Refused),
    ("keyctl", libc::SYS_keyctl, [BAD, 0, 0], Refused),
    ("add_key", libc::SYS_add_key, [0, 0, 0], Refused),
    ("request_key", libc::SYS_request_key, [0, 0, 0], Refused),
    ("swapon", libc::SYS_swapon, [0, 0, 0], Refused),
    ("settimeofday", libc::SYS_settimeofday, [0, 0, 0], Refused),
    ("clock_settime", libc::SYS_clock_settime, [BAD, 0, 0], Refused),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0, 0, 0], Refused),
    ("userfaultfd", libc::SYS_userfaultfd, [BAD, 0, 0], Refused),
    ("quotactl", libc::SYS_quotactl, [BAD, 0, 0], Refused),
    ("acct", libc::SYS_acct, [1, 0, 0], Refused),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, [BAD, 0, 0], Refused),
    ("syslog", libc::SYS_syslog, [99, 0, 0], Refused),
    ("sethostname", libc::SYS_sethostname, [0, 0, 0], Refused),
    ("iopl", libc::SYS_iopl, [99, 0, 0], Refused),
    ("mbind", libc::SYS_mbind, [0, 0, 0], Refused),
    ("kcmp", libc::SYS_kcmp, [BAD, 0, 0], Refused),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, [BAD, 0, 0], Refused),
    ("vhangup", libc::SYS_vhangup, [0, 0, 0], Refused),
];

pub(crate) fn calls_are_decided_as_the_profile_says() {
    let out = inside(&[CALL], |_| {}).ok();
    let mut wrong = Vec::new();
    assert_eq!(out.lines().count(), CALLS.len(), "{out}");
    for (line, (name, _, _, expect)) in out.lines().zip(CALLS) {
        let errno = line.strip_prefix(&format!("{name} ")).unwrap();
        let decision = match errno.parse::<i32>().unwrap() {
            libc::EPERM => Refused,
            libc::ENOSYS => Unknown,
            _ => Allowed,
        };
        if decision != *expect {
            wrong.push(format!("{name}: {decision:?} ({errno}), not {expect:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Inside a step: makes the calls and prints what the kernel says.
pub(crate) fn make_calls() -> ExitCode {
    for (name, number, [first, second, third], _) in CALLS {
        // SAFETY: the arguments are null, bad descriptors or plain numbers: none of the calls touches memory or
        // changes anything. The one that could make a process is refused for its flags.
        let result = unsafe { libc::syscall(*number, *first, *second, *third, 0, 0, 0) };
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name} {}", if result >= 0 { 0 } else { error });
    }
    ExitCode::SUCCESS
}

/// Runs this binary in a step.
fn inside(words: &[&str], change: impl FnOnce(&mut sandbox::Spec)) -> Outcome {
    let step = Step::exec(&[&["/probe"][..], words].concat()).with(|spec| {
        let source = std::env::current_exe().unwrap();
        let kind = MountKind::Bind { source, sub: PathBuf::new() };
        spec.mounts = vec![Mount { target: "/probe".into(), readonly: true, kind }];
        change(spec);
    });
    step.run()
}

/// Abstract sockets belong to the network, which a step has in common with the machine.
pub(crate) fn abstract_sockets_of_the_machine_are_out_of_reach() {
    if sandbox::landlock_version() < 6 {
        println!("SKIP: this kernel has no scopes of Landlock");
        return;
    }
    let name = format!("bricklayer-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let datagrams = SocketAddr::from_abstract_name(format!("{name}-d")).unwrap();
    let _datagrams = UnixDatagram::bind_addr(&datagrams).unwrap();
    let out = inside(&[CONNECT, &name], |_| {}).ok();
    assert_eq!(out, format!("stream {0}\ndatagram {0}\nown 0\n", libc::EPERM));
    let out = inside(&[CONNECT, &name], |spec| spec.security = Security::Insecure).ok();
    assert_eq!(out, "stream 0\ndatagram 0\nown 0\n");
}

/// Inside a step: connects to sockets of the machine and to one of its own, and prints what the kernel says.
pub(crate) fn connect(name: &str) -> ExitCode {
    let at = |name: &str| SocketAddr::from_abstract_name(name).unwrap();
    let errno = |result: std::io::Result<()>| {
        result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
    };
    println!("stream {}", errno(UnixStream::connect_addr(&at(name)).map(drop)));
    let socket = UnixDatagram::unbound().unwrap();
    let sent = socket.send_to_addr(b"x", &at(&format!("{name}-d"))).map(drop);
    println!("datagram {}", errno(sent));
    let own = at(&format!("{name}-own"));
    let _listener = UnixListener::bind_addr(&own).unwrap();
    println!("own {}", errno(UnixStream::connect_addr(&own).map(drop)));
    ExitCode::SUCCESS
}

/// Makes a group of the machine; `None`, with the reason, when it cannot be.
fn group(limits: &Resources) -> Option<Cgroup> {
    match Cgroups::look().unwrap().create(None, limits) {
        Ok(group) => Some(group),
        Err(error) if error.is_of_machine() => {
            println!("SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn limited(script: &str, group: &Cgroup) -> Outcome {
    Step::script(script).with(|spec| spec.cgroups = group.entrances()).run()
}

fn folder(group: &Cgroup) -> PathBuf {
    group.entrances()[0].parent().unwrap().to_owned()
}

pub(crate) fn memory_of_a_step_is_limited() {
    let limits = Resources { memory: Some(24 << 20), ..Resources::default() };
    let Some(group) = group(&limits) else { return };
    assert_eq!(
        limited("head -c 4000000 /dev/zero | tail -c 3000000 | wc -c", &group).ok(),
        "3000000\n"
    );
    assert!(!group.was_out_of_memory());
    // `tail` keeps in memory what it may have to show.
    let outcome = limited("exec tail -c 200000000 < /dev/zero", &group);
    assert_eq!(outcome.result.unwrap().code, 137);
    assert!(group.was_out_of_memory());
    let folder = folder(&group);
    drop(group);
    assert!(!folder.exists());
}

pub(crate) fn processes_of_a_step_are_limited() {
    let limits = Resources { pids: Some(6), ..Resources::default() };
    let Some(group) = group(&limits) else { return };
    let script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 10 & done; echo $(jobs | wc -l)";
    let outcome = limited(script, &group);
    assert!(outcome.stderr.contains("can't fork"), "{outcome:?}");
    assert_eq!(limited("sleep 0 & wait; echo fine", &group).ok(), "fine\n");
}

pub(crate) fn processors_of_a_step_are_limited() {
    let limits = Resources {
        cpu_shares: Some(512),
        cpu_period: Some(100_000),
        cpu_quota: Some(20_000),
        cpuset_cpus: Some("0".to_owned()),
        ..Resources::default()
    };
    let Some(group) = group(&limits) else { return };
    let show = "grep Cpus_allowed_list: /proc/self/status";
    assert_eq!(limited(show, &group).ok(), "Cpus_allowed_list:\t0\n");
    let step =
        Step::script("n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done; cat /proc/self/cgroup")
            .with(|spec| spec.cgroups = group.entrances());
    let out = step.run().ok();
    assert!(out.contains("cpu") && out.contains("buildkit/") || out.contains("0::/\n"), "{out}");
    // What it was made to wait is counted.
    let statistics: String = group
        .entrances()
        .iter()
        .filter_map(|path| fs_err::read_to_string(path.with_file_name("cpu.stat")).ok())
        .collect();
    let throttled = statistics.lines().find_map(|line| line.strip_prefix("nr_throttled "));
    assert!(throttled.is_some_and(|count| count != "0"), "{statistics}");
    let bad = Resources { cpuset_cpus: Some("4095".to_owned()), ..Resources::default() };
    let error = Cgroups::look().unwrap().create(None, &bad).unwrap_err();
    assert!(!error.is_of_machine() && error.to_string().contains("refuses `4095`"), "{error}");
}

pub(crate) fn groups_of_dead_builders_are_removed() {
    let limits = Resources { pids: Some(50), ..Resources::default() };
    let Some(group) = group(&limits) else { return };
    // One that nobody has locked, with a process in it.
    let left = folder(&group).with_file_name("left-0");
    fs_err::create_dir(&left).unwrap();
    let mut sleeping = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    fs_err::write(left.join("cgroup.procs"), sleeping.id().to_string()).unwrap();
    let other = Cgroups::look().unwrap().create(None, &limits).unwrap();
    assert!(!left.exists() && folder(&group).exists() && folder(&other).exists());
    assert!(!sleeping.wait().unwrap().success());
    let above = folder(&group).parent().unwrap().to_owned();
    drop((group, other));
    let rest = fs_err::read_dir(above).unwrap().flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(rest.count(), 0);
}
