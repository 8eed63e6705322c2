//! What a step may do.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use sandbox::{Credentials, Mount, MountKind, Network, Security};

use crate::fixture::Step;

/// The first argument by which this binary, inside a step, tries system calls.
pub(crate) const PROBE: &str = "probe-calls";

/// The first argument by which this binary, inside a step, looks whether it could be changed.
pub(crate) const OWN_MOUNT: &str = "own-mount";

const DEFAULT: u64 = 0xa804_25fb;

fn sets(step: &Step) -> Vec<(String, u64)> {
    let out = step.run().ok();
    let mut sets = Vec::new();
    for line in out.lines() {
        let (name, value) = line.split_once(":\t").unwrap();
        sets.push((name.to_owned(), u64::from_str_radix(value, 16).unwrap()));
    }
    sets
}

const SHOW: &str = "grep ^Cap /proc/self/status";

#[track_caller]
fn check(step: &Step, expect: [u64; 5]) {
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(str::to_owned);
    assert_eq!(sets(step), names.into_iter().zip(expect).collect::<Vec<_>>());
}

fn nobody() -> Credentials {
    Credentials { uid: 1000, gid: 1000, groups: vec![1000] }
}

pub(crate) fn capabilities() {
    check(&Step::script(SHOW), [0, DEFAULT, DEFAULT, DEFAULT, 0]);
}

pub(crate) fn user_has_none_effective() {
    let step = Step::script(SHOW).with(|spec| spec.user = nobody());
    check(&step, [0, 0, 0, DEFAULT, 0]);
}

pub(crate) fn masked_paths() {
    let script = "for path in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug \
                  /proc/latency_stats; do test ! -e $path || wc -c < $path; done; \
                  for path in /proc/acpi /proc/scsi /sys/firmware /proc/asound \
                  /sys/devices/virtual/powercap; do test ! -e $path || ls $path; done";
    let out = Step::script(script).run().ok();
    assert!(out.lines().all(|line| line == "0"), "{out}");
    let write = Step::script("echo x > /proc/kcore; echo x > /sys/firmware/x").run();
    assert!(!write.stderr.contains("not permitted") || write.stderr.contains("Read-only"));
}

pub(crate) fn proc_sys_is_read_only() {
    let script = "echo 1 > /proc/sys/kernel/panic; \
                  mkdir /sys/kernel/x; echo 1 > /proc/irq/default_smp_affinity";
    let outcome = Step::script(script).run();
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 3, "{outcome:?}");
}

pub(crate) fn forbidden_calls() {
    let refused = |script: &str| {
        let outcome = Step::script(script).run();
        assert!(
            outcome.stderr.contains("not permitted") || outcome.stderr.contains("denied"),
            "{script}: {outcome:?}"
        );
    };
    refused("mount -t tmpfs x /mnt");
    refused("mount -o remount,rw /sys");
    refused("umount /proc");
    refused("unshare -U true");
    refused("unshare -m true");
    refused("hostname other");
    let out = probe("native", |_| {}).ok();
    for line in out.lines() {
        let (name, errno) = line.rsplit_once(' ').unwrap();
        let expect = match name {
            "clone3" => libc::ENOSYS,
            "socket-inet" | "personality-0" => 0,
            // Of their own numbers with the marker, x32 allows getpid only.
            "x32-getpid" => {
                assert!(["0", "38"].contains(&errno), "{line}");
                continue;
            }
            _ => libc::EPERM,
        };
        assert_eq!(errno, expect.to_string(), "{name}");
    }
    assert!(out.lines().count() > 12, "{out}");
}

pub(crate) fn chroot_works() {
    assert_eq!(Step::script("chroot / /bin/echo inside").run().ok(), "inside\n");
}

/// Root may change its root directory, and so has none above it: the way out by a directory that stays open leads
/// nowhere.
pub(crate) fn a_kept_directory_is_no_way_out() {
    let out = probe("escape", |_| {}).ok();
    let tops: Vec<&str> = out.lines().collect();
    assert!(tops.len() == 2 && tops[0] == tops[1], "{out}");
}

/// Inside a step: changes the root directory to one below, and goes up from a directory outside of that.
fn escape() {
    fs_err::create_dir("/below").unwrap();
    let kept = fs_err::File::open("/").unwrap();
    rustix::process::chroot("/below").unwrap();
    rustix::process::fchdir(&kept).unwrap();
    for _ in 0..64 {
        rustix::process::chdir("..").unwrap();
    }
    rustix::process::chroot(".").unwrap();
}

fn show_top() {
    let top = fs_err::metadata("/").unwrap();
    println!("{} {}", top.dev(), top.ino());
}

/// The same number means another call there: 21 is `mount`, which is `access` on x86-64.
pub(crate) fn calls_of_i386() {
    let outcome = probe("i386", |_| {});
    if outcome.result.as_ref().is_ok_and(|exit| exit.signal.is_some()) {
        println!("SKIP: the kernel has no i386 calls");
        return;
    }
    assert_eq!(outcome.ok(), "getpid 1\nmount -1\nunshare -1\nclone3 -38\nkeyctl -1\n");
}

pub(crate) fn no_new_privs_is_off() {
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
    assert_eq!(Step::script(script).run().ok(), "NoNewPrivs:\t0\nSeccomp:\t2\n");
    // A set-uid program raises.
    let step = Step::exec(&["/su-id", PROBE, "user"]).with(|spec| spec.user = nobody());
    let program = step.upper().join("su-id");
    fs_err::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs_err::set_permissions(&program, mode).unwrap();
    assert_eq!(step.run().ok(), "1000 0\n");
}

pub(crate) fn insecure_step() {
    let insecure = |script: &str, user: Credentials| {
        Step::script(script).with(|spec| {
            spec.security = Security::Insecure;
            spec.user = user;
        })
    };
    let held = rustix::thread::capabilities(None).unwrap().permitted.bits();
    check(&insecure(SHOW, Credentials::default()), [held; 5]);
    check(&insecure(SHOW, nobody()), [held; 5]);
    let script = "grep ^Seccomp: /proc/self/status; mkdir /m; mount -t tmpfs x /m && echo mounted; \
                  ls /dev/loop0; grep -c ' /sys sysfs rw' /proc/self/mounts; \
                  test -e /proc/timer_list && wc -c < /proc/timer_list | grep -qv '^0' && echo seen";
    let out = insecure(script, Credentials::default()).run();
    assert!(out.stdout.starts_with("Seccomp:\t0\nmounted\n/dev/loop0\n1\n"), "{out:?}");
}

pub(crate) fn network_none_has_loopback_only() {
    let script = "ls /sys/class/net; cat /sys/class/net/lo/operstate; ping -c 1 -W 1 127.0.0.1";
    let outcome = Step::script(script).with(|spec| spec.network = Network::None).run();
    assert!(outcome.stdout.starts_with("lo\n"), "{outcome:?}");
    assert!(outcome.stdout.contains("1 packets received"), "{outcome:?}");
    let host = Step::script("readlink /proc/self/ns/net").run().ok();
    let own = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(PathBuf::from(host.trim()), own);
}

/// Making nodes is allowed, opening a device of the machine through one is not.
pub(crate) fn devices_of_the_machine_do_not_open() {
    let at = crate::fixture::folder();
    let source = at.path().to_owned();
    let script = "for dir in / /dev /dev/shm /bound /memory; do \
                  mknod $dir/node c 1 9 && head -c 1 $dir/node | wc -c; done; \
                  head -c 1 /dev/urandom | wc -c";
    let step = Step::script(script).with(|spec| {
        let kind = MountKind::Bind { source, sub: PathBuf::new() };
        spec.mounts = vec![
            Mount { target: "/bound".into(), readonly: false, kind },
            Mount { target: "/memory".into(), readonly: false, kind: MountKind::Tmpfs { size: 0 } },
        ];
    });
    let outcome = step.run();
    assert_eq!(outcome.stdout, "0\n0\n0\n0\n0\n1\n", "{outcome:?}");
}

/// An image whose program is the sandbox's own executable cannot change that.
pub(crate) fn own_executable_is_read_only() {
    let step = Step::exec(&["/script"]);
    let script = step.upper().join("script");
    // The last argument of this line and the name of the script are arguments of the executable.
    fs_err::write(&script, format!("#!/proc/self/exe {OWN_MOUNT}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(&script, mode).unwrap();
    assert_eq!(step.run().ok(), "true\n");
}

/// Inside a step: prints whether the running executable is on a read-only mount.
///
/// Opening it for writing would not do: while it runs that fails for another reason too.
pub(crate) fn show_own_mount() -> ExitCode {
    let mount = rustix::fs::statvfs("/proc/self/exe").unwrap();
    println!("{}", mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    ExitCode::SUCCESS
}

/// Runs this binary in a step.
fn probe(which: &str, change: impl FnOnce(&mut sandbox::Spec)) -> crate::fixture::Outcome {
    let step = Step::exec(&["/probe", PROBE, which]).with(|spec| {
        let source = std::env::current_exe().unwrap();
        let kind = MountKind::Bind { source, sub: PathBuf::new() };
        spec.mounts = vec![Mount { target: "/probe".into(), readonly: true, kind }];
        change(spec);
    });
    step.run()
}

/// Inside a step: tries calls and prints what the kernel says.
pub(crate) fn try_calls(which: &str) -> ExitCode {
    match which {
        "native" => try_native_calls(),
        "i386" => try_i386_calls(),
        "escape" => {
            show_top();
            escape();
            show_top();
        }
        "user" => println!(
            "{} {}",
            rustix::process::getuid().as_raw(),
            rustix::process::geteuid().as_raw()
        ),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn try_native_calls() {
    let calls = [
        ("socket-inet", libc::SYS_socket, [libc::AF_INET as i64, libc::SOCK_DGRAM as i64]),
        ("socket-alg", libc::SYS_socket, [libc::AF_ALG as i64, libc::SOCK_SEQPACKET as i64]),
        ("socket-vsock", libc::SYS_socket, [libc::AF_VSOCK as i64, libc::SOCK_STREAM as i64]),
        ("socket-vsock-cut", libc::SYS_socket, [0x1_0000_0028, libc::SOCK_STREAM as i64]),
        ("personality-0", libc::SYS_personality, [0, 0]),
        ("personality-x", libc::SYS_personality, [0x0040_0000, 0]),
        ("clone3", libc::SYS_clone3, [0, 0]),
        ("clone-newuser", libc::SYS_clone, [i64::from(libc::CLONE_NEWUSER), 0]),
        ("keyctl", libc::SYS_keyctl, [0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0]),
        ("fsopen", libc::SYS_fsopen, [0, 0]),
        ("open_tree", libc::SYS_open_tree, [0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [0, 0]),
        ("setns", libc::SYS_setns, [0, 0]),
        ("no-such-call", 4000, [0, 0]),
        ("x32-mount", 0x4000_0000 | 165, [0, 0]),
        ("x32-getpid", 0x4000_0000 | 39, [0, 0]),
    ];
    for (name, number, [first, second]) in calls {
        // SAFETY: the arguments are null or plain numbers, so none of the calls touches memory.
        let result = unsafe { libc::syscall(number, first, second, 0, 0, 0, 0) };
        let errno = if result >= 0 { 0 } else { errno() };
        println!("{name} {errno}");
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
fn try_i386_calls() {
    for (name, number) in
        [("getpid", 20), ("mount", 21), ("unshare", 310), ("clone3", 435), ("keyctl", 288)]
    {
        let result: i32;
        // SAFETY: all arguments are 0, so none of the calls touches memory; the kernel keeps the
        // registers other than the first and those of the call's own entry.
        unsafe {
            std::arch::asm!(
                "push rbx",
                "xor ebx, ebx",
                "int 0x80",
                "pop rbx",
                inlateout("eax") number => result,
                inlateout("ecx") 0 => _,
                inlateout("edx") 0 => _,
                inlateout("esi") 0 => _,
                inlateout("edi") 0 => _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        println!("{name} {result}");
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn try_i386_calls() {}
