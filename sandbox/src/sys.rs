//! The few system calls that `rustix` does not have, each behind a safe function.
//!
//! All of the crate's `unsafe` is here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

/// Which namespaces a child gets of its own.
pub(crate) type NamespaceFlags = i32;

/// What [`clone3`] returns.
pub(crate) enum Cloned {
    /// In the parent: the child.
    Parent(OwnedFd),
    /// In the child.
    Child,
}

/// Makes a child process in new namespaces, like `fork`.
///
/// The caller is the only thread of its process, so that the child has a consistent copy of the
/// allocator and of every lock; this is checked.
///
/// # Errors
///
/// Those of clone3(2), and `EDEADLK` when the process has other threads.
pub(crate) fn clone3(namespaces: NamespaceFlags) -> io::Result<Cloned> {
    Ok(clone3_with_id(namespaces)?.map_or(Cloned::Child, |(process, _)| Cloned::Parent(process)))
}

/// As [`clone3`]; returns the child and its process id, and nothing in the child.
///
/// # Errors
///
/// As [`clone3`].
pub(crate) fn clone3_with_id(namespaces: NamespaceFlags) -> io::Result<Option<(OwnedFd, u32)>> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: an all-zero `clone_args` is valid: no flags, no stack, no TLS.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD | namespaces) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: `args` is valid for its size, and `pidfd` outlives the call. Without CLONE_VM and
    // with no stack given this is a fork: the child goes on here with a copy of the only thread.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match result {
        -1 => match io::Error::last_os_error() {
            // Filters of containers refuse the call whose flags they cannot see, so that the older one is made.
            error if error.raw_os_error() == Some(libc::ENOSYS) => clone_with_id(namespaces),
            error => Err(error),
        },
        0 => Ok(None),
        id => {
            // SAFETY: the kernel stored a new descriptor, which nothing else owns.
            let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some((process, u32::try_from(id).unwrap_or(0))))
        }
    }
}

/// Makes a child process in the same namespaces, like `fork`; also where a filter knows no clone3(2).
///
/// # Errors
///
/// Those of clone(2), and `EDEADLK` when the process has other threads.
pub(crate) fn fork() -> io::Result<(Cloned, Pid)> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let own = rustix::process::getpid();
    Ok(match clone_with_id(0)? {
        None => (Cloned::Child, own),
        Some((process, id)) => {
            let id = i32::try_from(id).ok().and_then(Pid::from_raw);
            (Cloned::Parent(process), id.unwrap_or(own))
        }
    })
}

/// As [`clone3_with_id`], with clone(2), for a process that is known to have one thread.
fn clone_with_id(namespaces: NamespaceFlags) -> io::Result<Option<(OwnedFd, u32)>> {
    let mut pidfd: RawFd = -1;
    // The lowest byte, which is none of the flags of namespaces, is the signal at the end.
    let flags = libc::CLONE_PIDFD | namespaces | libc::SIGCHLD;
    // SAFETY: `pidfd`, which the kernel writes to, outlives the call. Without CLONE_VM and with no stack given this is a
    // fork: the child goes on here with a copy of the only thread. The other arguments are not looked at.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        id => {
            // SAFETY: the kernel stored a new descriptor, which nothing else owns.
            let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some((process, u32::try_from(id).unwrap_or(0))))
        }
    }
}

/// Moves the process into the user and mount namespaces of another one. It must have one thread.
///
/// # Errors
///
/// Those of setns(2).
pub(crate) fn enter_namespaces(process: BorrowedFd<'_>) -> io::Result<()> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    // SAFETY: the call changes no memory of the process.
    check(unsafe { libc::setns(process.as_raw_fd(), namespaces) }.into())
}

/// Returns whether the process has one thread, by the link count of its list of threads.
fn is_single_threaded() -> io::Result<bool> {
    let tasks = rustix::fs::stat("/proc/self/task")?;
    Ok(tasks.st_nlink == 3)
}

/// Ends the process at once, without running anything that was registered for its end.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code, and ends the process.
    unsafe { libc::_exit(code) }
}

/// Sets attributes of a mount, and of all below it if `recursive`.
///
/// # Errors
///
/// Those of mount_setattr(2).
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes =
        libc::mount_attr { attr_set: set.bits().into(), attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and `attributes` is valid for the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    check(result)
}

/// Returns the mount namespace of a process; `None` where the kernel does not give it, as before 6.11.
pub(crate) fn mount_namespace(process: BorrowedFd<'_>) -> Option<OwnedFd> {
    /// `PIDFD_GET_MNT_NAMESPACE`, `_IO(0xff, 3)`.
    const GET_MOUNT_NAMESPACE: libc::Ioctl = 0xff03;
    // SAFETY: the request takes no argument and returns a new descriptor.
    let result = unsafe { libc::ioctl(process.as_raw_fd(), GET_MOUNT_NAMESPACE, 0) };
    // SAFETY: the kernel has just made this descriptor, which nothing else owns.
    (result >= 0).then(|| unsafe { OwnedFd::from_raw_fd(result) })
}

/// Closes every descriptor from `first` to `last`.
///
/// The caller owns none of them.
///
/// # Errors
///
/// Those of close_range(2).
pub(crate) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closing a descriptor breaks no memory, and nothing in the process owns these.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Puts a copy of a descriptor in the place of the standard one with `number` (0, 1 or 2).
///
/// # Errors
///
/// Those of dup2(2), and `EINVAL` for another number.
pub(crate) fn redirect_standard(from: BorrowedFd<'_>, number: usize) -> io::Result<()> {
    let number = match number {
        0 => libc::STDIN_FILENO,
        1 => libc::STDOUT_FILENO,
        2 => libc::STDERR_FILENO,
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    };
    // SAFETY: the standard descriptors have no owner in this process that would close them, so
    // another file may take their places.
    check(unsafe { libc::dup2(from.as_raw_fd(), number) }.into())
}

/// Has every descriptor from `first` on closed by the next `execve`.
///
/// # Errors
///
/// Those of close_range(2).
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: the call only sets a flag of descriptors.
    check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
    })
}

/// Loads a seccomp filter without setting `no_new_privs`: `CAP_SYS_ADMIN` must be effective.
///
/// # Errors
///
/// Those of seccomp(2).
pub(crate) fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` names `length` valid instructions, which the kernel only copies.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        )
    };
    check(result)
}

/// As [`load_filter`], for a filter that hands calls over; returns where they come out.
///
/// # Errors
///
/// Those of seccomp(2).
pub(crate) fn load_filter_with_listener(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    let length = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A call that was handed over is not begun anew for every signal; kernels before 5.19 do not know how.
    for flags in [flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, flags] {
        // SAFETY: `program` names `length` valid instructions, which the kernel only copies.
        let result = unsafe {
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
        };
        if let Ok(fd @ 0..) = RawFd::try_from(result) {
            // SAFETY: the descriptor is new, and nothing else owns it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// A system call that waits for an answer.
pub(crate) struct Notification {
    /// Names it in the answer.
    pub(crate) id: u64,
    /// The thread that made it.
    pub(crate) pid: u32,
    /// `AUDIT_ARCH_*`.
    pub(crate) architecture: u32,
    /// Number of the call.
    pub(crate) number: u32,
    /// Its arguments.
    pub(crate) args: [u64; 6],
}

/// Waits for the next call.
///
/// # Errors
///
/// `ENOENT` when the caller has gone, and those of seccomp_unotify(2).
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: an all-zero notification is valid, and what the kernel asks for.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let fd = listener.as_raw_fd();
    // SAFETY: the kernel writes no more than the structure, whose size is in the request's number.
    check(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) }.into())?;
    Ok(Notification {
        id: call.id,
        pid: call.pid,
        architecture: call.data.arch,
        number: call.data.nr.cast_unsigned(),
        args: call.data.args,
    })
}

/// What becomes of a call.
pub(crate) enum Answer {
    /// It returns this.
    Value(i64),
    /// It fails with this error.
    Error(i32),
    /// The kernel carries it out.
    Continue,
}

/// Answers a call.
///
/// # Errors
///
/// `ENOENT` when the caller has gone.
pub(crate) fn answer_notification(
    listener: BorrowedFd<'_>,
    id: u64,
    answer: Answer,
) -> io::Result<()> {
    let (val, error, flags) = match answer {
        Answer::Value(value) => (value, 0, 0),
        Answer::Error(errno) => (0, -errno, 0),
        Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
    };
    let response = libc::seccomp_notif_resp { id, val, error, flags };
    let fd = listener.as_raw_fd();
    // SAFETY: the kernel reads no more than the structure, whose size is in the request's number.
    check(unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const response) }.into())
}

/// Reads memory of another process; returns how much was there.
///
/// # Errors
///
/// Those of process_vm_readv(2).
pub(crate) fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: into.len() };
    // SAFETY: the kernel writes at most the length of `into`; the other address is the other process's matter.
    let read = unsafe {
        libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes memory of another process; returns how much was written.
///
/// # Errors
///
/// Those of process_vm_writev(2).
pub(crate) fn write_memory(pid: u32, address: u64, bytes: &[u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes.len() };
    // SAFETY: the kernel only reads `bytes`; the other address is the other process's matter.
    let written = unsafe {
        libc::process_vm_writev(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Returns the soft and hard limit of a process on a resource, by its kernel number.
///
/// # Errors
///
/// Those of prlimit(2).
pub(crate) fn limits_of(pid: u32, resource: u32) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = ptr::null::<libc::rlimit64>();
    // SAFETY: no new limit is given, and the old one is as long as the kernel's.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, none, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and hard limit of a process on a resource, by its kernel number.
///
/// # Errors
///
/// Those of prlimit(2).
pub(crate) fn set_limits_of(pid: u32, resource: u32, (soft, hard): (u64, u64)) -> io::Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the new limit is valid, the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, none) })
}

/// Leaves namespaces of the parent for new ones.
///
/// # Errors
///
/// Those of unshare(2).
pub(crate) fn unshare(namespaces: NamespaceFlags) -> io::Result<()> {
    // SAFETY: the flags say which namespaces; no memory is shared or given up.
    check(unsafe { libc::unshare(namespaces) }.into())
}

/// Returns the version of Landlock that the kernel has; 0 for none.
pub(crate) fn landlock_version() -> u32 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the call takes no attributes, and only returns a number.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<libc::c_void>(), 0, VERSION)
    };
    u32::try_from(result).unwrap_or(0)
}

/// Puts this thread under a ruleset for good: `no_new_privs` must be on, or `CAP_SYS_ADMIN` effective.
///
/// # Errors
///
/// Those of landlock_restrict_self(2).
pub(crate) fn landlock_restrict(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes a descriptor and no memory.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })
}

/// Replaces the program of the process; returns only when that fails.
pub(crate) fn execve(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|entry| entry.as_ptr()).chain([ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all strings outlive the call, and both lists end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Has a signal do nothing to this process and to those that it starts.
pub(crate) fn ignore_signal(signal: libc::c_int) {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sets every signal to its default action and blocks only `blocked`.
///
/// # Errors
///
/// Those of sigprocmask(2).
pub(crate) fn reset_signals(blocked: &[libc::c_int]) -> io::Result<()> {
    // A kernel `sigaction` of zeros: the default action, no flags, no mask. The C library would
    // refuse the two signals that it keeps for itself.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of ours, and the structure is as long as the
        // kernel's. The two signals whose action cannot be set are refused, which is fine.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    set_blocked_signals(blocked)
}

/// Blocks `blocked` and no other signal.
///
/// # Errors
///
/// Those of sigprocmask(2).
pub(crate) fn set_blocked_signals(blocked: &[libc::c_int]) -> io::Result<()> {
    let set = signal_set(blocked);
    // SAFETY: `set` is initialised; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) }.into())
}

/// Returns a descriptor that is readable while one of `signals`, all blocked, is pending.
///
/// # Errors
///
/// Those of signalfd(2).
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = signal_set(signals);
    // SAFETY: `set` is initialised, and -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    check(fd.into())?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the signals that are pending from a descriptor of [`signal_fd`], waiting for one if there is none.
pub(crate) fn read_signals(fd: BorrowedFd<'_>) -> Vec<libc::c_int> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut bytes = [0; 8 * SIZE];
    let count = rustix::io::read(fd, &mut bytes[..]).unwrap_or(0);
    // The number of the signal is the first field.
    let number = |info: &[u8]| Some(i32::from_ne_bytes(info.get(..4)?.try_into().ok()?));
    bytes[..count].chunks_exact(SIZE).filter_map(number).collect()
}

fn signal_set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid one, and `sigemptyset` and `sigaddset` only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        set
    }
}

/// Brings the loopback interface of the network namespace up.
///
/// # Errors
///
/// Those of the socket and of its ioctls.
pub(crate) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an all-zero request is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the request names an interface and is valid for both calls; the first one fills the
    // flags in, so that reading them from the union is sound.
    unsafe {
        check(libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request).into())?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request).into())
    }
}

/// Sets a resource limit of the process by its kernel number.
///
/// # Errors
///
/// Those of setrlimit(2).
pub(crate) fn set_limit(resource: u32, soft: Option<u64>, hard: Option<u64>) -> io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft.unwrap_or(libc::RLIM64_INFINITY),
        rlim_max: hard.unwrap_or(libc::RLIM64_INFINITY),
    };
    // SAFETY: the new limit is valid, the old one is not asked for.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null_mut::<libc::rlimit64>(),
        )
    })
}

/// Makes Landlock rules that forbid all of `rights` over files, and what `scopes` close; `None` for a kernel without any.
///
/// # Errors
///
/// Those of landlock_create_ruleset(2); `E2BIG` or `EINVAL` when the kernel has no scopes and some are given.
pub(crate) fn landlock_ruleset(rights: u64, scopes: Option<u64>) -> io::Result<OwnedFd> {
    // `struct landlock_ruleset_attr`: rights over files, over the network, and scopes. Kernels know the first one, two
    // or three fields.
    let attributes = [rights, 0, scopes.unwrap_or(0)];
    let size = if scopes.is_some() { size_of_val(&attributes) } else { size_of::<u64>() };
    // SAFETY: `attributes` is valid for `size` bytes, which the kernel only reads.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0_u32)
    };
    check(result)?;
    let fd = RawFd::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the descriptor is new, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Allows `rights` below a directory.
///
/// # Errors
///
/// Those of landlock_add_rule(2).
pub(crate) fn landlock_allow(
    rules: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    rights: u64,
) -> io::Result<()> {
    /// `LANDLOCK_RULE_PATH_BENEATH`
    const PATH_BENEATH: u32 = 1;
    // `struct landlock_path_beneath_attr` is packed: the rights and a descriptor.
    let mut rule = [0; 12];
    rule[..8].copy_from_slice(&rights.to_ne_bytes());
    rule[8..].copy_from_slice(&directory.as_raw_fd().to_ne_bytes());
    // SAFETY: `rule` is as long as the structure, which the kernel only reads.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            PATH_BENEATH,
            rule.as_ptr(),
            0_u32,
        )
    })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
