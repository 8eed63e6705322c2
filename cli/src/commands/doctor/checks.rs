//! What is looked at.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use cache::FileSystem;
use fs_err as fs;
use rustix::fs::{Mode, OFlags};
use rustix::thread::CapabilitySet;
use sandbox::tier::{Lack, Probe};
use sandbox::{Cgroups, Resources};

use super::Finding;
use crate::progress::bytes;
use crate::report::chain;

/// Kernels from this one on have all that the builder uses of them.
const KERNEL: (u32, u32) = (6, 7);

/// Less space than this is soon used up.
const LITTLE_SPACE: u64 = 5 << 30;

/// Fewer files than these are soon used up.
const FEW_FILES: u64 = 100_000;

/// What the process has, before it moves anywhere.
pub(super) fn of_process(probe: &Probe) -> Vec<Finding> {
    let is_root = probe.has(CapabilitySet::SYS_ADMIN) && probe.is_initial_namespace();
    let lacking = |name, lack: Lack, means: &str| match is_root {
        true => Finding::ok(name, format!("not needed by root ({})", lack.what)),
        false => Finding::limited(name, lack.what, means).lift(lack.lift),
    };
    let namespaces = match probe.user_namespaces() {
        Ok(()) => Finding::ok("user namespaces", "can be made by this user"),
        Err(lack) => lacking("user namespaces", lack, "steps need root, or have no namespaces"),
    };
    let ranges = match probe.ranges() {
        Ok([users, _]) => {
            let count: u64 = users.iter().map(|range| u64::from(range.count)).sum();
            Finding::ok("sub ids", format!("{count} for {}", probe.user().shown()))
        }
        Err(lack) => {
            lacking("sub ids", lack, "files have one owner on the disk, others are recorded")
        }
    };
    let programs = match probe.map_programs() {
        Ok(programs) => Finding::ok(
            "newuidmap",
            format!("{} and {}", programs.users.display(), programs.groups.display()),
        ),
        Err(lack) => lacking("newuidmap", lack, "ranges of sub ids cannot be used"),
    };
    let proc = match probe.proc_mounts() {
        Ok(()) => Finding::ok("/proc", "nothing of it is hidden"),
        Err(lack) if !has_proc() => {
            Finding::missing("/proc", lack.what, "builds that write files fail").lift(lack.lift)
        }
        Err(lack) => lacking("/proc", lack, "user namespaces are of no use for steps"),
    };
    vec![kernel(), capabilities(probe), namespaces, ranges, programs, proc]
}

/// The files that say where images are asked for.
pub(super) fn registries(paths: &registry::ConfigPaths) -> Finding {
    match paths.in_force() {
        Ok(files) if files.is_empty() => Finding::ok("registries", "no registries.conf"),
        Ok(files) => {
            let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
            Finding::ok("registries", files.join(", "))
        }
        Err(error) => Finding::limited("registries", chain(&error), "images cannot be pulled")
            .lift("correct the file, or move it away"),
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let found = format!("Linux {release}");
    match version(&release) {
        Some(version) if version < KERNEL => {
            let means = "steps may fail, or lack a part of what holds them";
            let (major, minor) = KERNEL;
            Finding::limited("kernel", found, means)
                .lift(format!("use Linux {major}.{minor} or later"))
        }
        _ => Finding::ok("kernel", found),
    }
}

/// The first two numbers of a release such as `6.12.3-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities(probe: &Probe) -> Finding {
    let wanted = [
        ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
        ("CAP_CHOWN", CapabilitySet::CHOWN),
        ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
        ("CAP_FOWNER", CapabilitySet::FOWNER),
        ("CAP_MKNOD", CapabilitySet::MKNOD),
        ("CAP_SETUID", CapabilitySet::SETUID),
        ("CAP_SETGID", CapabilitySet::SETGID),
        ("CAP_SETFCAP", CapabilitySet::SETFCAP),
        ("CAP_SETPCAP", CapabilitySet::SETPCAP),
        ("CAP_SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ];
    let missing = wanted.iter().filter(|(_, capability)| !probe.has(*capability));
    let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
    match missing.len() {
        0 => Finding::ok("capabilities", "all that builds use"),
        count if count == wanted.len() => {
            let found = format!("none, as of the user `{}`", probe.user().shown());
            Finding::limited(
                "capabilities",
                found,
                "steps run in a user namespace, if there are any",
            )
            .lift("run as root")
        }
        _ => {
            let found = format!("without {}", missing.join(", "));
            let means = "steps are isolated by less, and files may lack owners and devices";
            Finding::limited("capabilities", found, means).lift(format!(
                "run as root of the machine; a container with `--cap-add`, for {}",
                missing.join(", ")
            ))
        }
    }
}

/// What the kernel has, for a process that has moved to where it builds.
pub(super) fn of_machine() -> Vec<Finding> {
    let mut all = vec![seccomp(), landlock()];
    all.extend(cgroups());
    all.push(emulators());
    all
}

fn seccomp() -> Finding {
    let actions = "/proc/sys/kernel/seccomp/actions_avail";
    match fs::read_to_string(actions) {
        Ok(text) if text.split_whitespace().any(|action| action == "user_notif") => {
            Finding::ok("seccomp", "filters, and calls that are answered by the builder")
        }
        Ok(_) => Finding::limited(
            "seccomp",
            "filters",
            "with one id, changes of owners cannot be recorded",
        )
        .lift("use Linux 5.0 or later"),
        Err(_) if !has_proc() => {
            Finding::missing("seccomp", "not known without /proc", "steps may not be confined")
        }
        Err(_) => Finding::missing("seccomp", "no filters", "no step can be confined")
            .lift("use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn has_proc() -> bool {
    Path::new("/proc/self").exists()
}

fn landlock() -> Finding {
    match sandbox::landlock_version() {
        version @ 6.. => Finding::ok("landlock", format!("version {version}")),
        version => {
            let found = match version {
                0 => "none".to_owned(),
                version => format!("version {version}"),
            };
            let means = "steps with the machine's network reach abstract sockets of the machine";
            let lift = match version {
                0 => {
                    "boot Linux 6.12 or later with `landlock` among the `lsm=` of its command line"
                }
                _ => "use Linux 6.12 or later",
            };
            Finding::limited("landlock", found, means).lift(lift)
        }
    }
}

/// Makes a group for each kind of limit.
fn cgroups() -> Vec<Finding> {
    const MEANS: &str = "--resource has no effect for it";
    let limits = [
        ("cgroup memory", Resources { memory: Some(1 << 30), ..Resources::default() }),
        ("cgroup cpu", Resources { cpu_shares: Some(1024), ..Resources::default() }),
        ("cgroup cpuset", Resources { cpuset_cpus: Some(String::new()), ..Resources::default() }),
        ("cgroup pids", Resources { pids: Some(10_000), ..Resources::default() }),
    ];
    let machine = match Cgroups::look() {
        Ok(machine) => machine,
        Err(error) => {
            return vec![Finding::missing("cgroup", chain(&error), "--resource has no effect")];
        }
    };
    let check = |(name, limits): (&'static str, Resources)| match machine.create(None, &limits) {
        Ok(_) => {
            let version = machine.version(name.trim_start_matches("cgroup ")).unwrap_or_default();
            Finding::ok(name, format!("limits (v{version})"))
        }
        // The kernel has taken the group, but not a limit that only this made up.
        Err(error) if !error.is_of_machine() => Finding::ok(name, "limits"),
        Err(error @ sandbox::CgroupError::NoController { .. }) => {
            Finding::missing(name, chain(&error), MEANS)
                .lift("use a kernel that has it, and mount it")
        }
        Err(error) => {
            let found = chain(&error);
            let lift = match machine.version(name.trim_start_matches("cgroup ")) {
                _ if found.contains("Read-only file system") => {
                    "run the container with `--privileged`, or with its control groups mounted so that it may write them"
                }
                Some(2) => {
                    "run the builder in a group that this user may write, for example with \
                     `systemd-run --user --scope -p Delegate=yes`, or name one with --cgroup-parent"
                }
                _ => {
                    "as root, make a group that this user may write, and name it with --cgroup-parent"
                }
            };
            Finding::limited(name, found, MEANS).lift(lift)
        }
    };
    limits.into_iter().map(check).collect()
}

fn emulators() -> Finding {
    let architectures = sandbox::architectures_that_run();
    let native = llb::Platform::host().architecture;
    // What the processor runs by itself needs no emulator.
    let is_own = |name: &str| name == native || (name, native.as_str()) == ("386", "amd64");
    match architectures.iter().any(|name| !is_own(name)) {
        true => Finding::ok("emulators", format!("programs run for {}", architectures.join(", "))),
        false => Finding::limited(
            "emulators",
            format!("programs run for {native} only"),
            "RUN steps for other platforms are not possible",
        )
        .lift("install Debian's `qemu-user-static` and `binfmt-support`, or what your distribution has of `binfmt_misc`"),
    }
}

/// The folder of the state, or where it would be made.
pub(super) fn place_of(root: &Path) -> PathBuf {
    let there = root.ancestors().find(|path| path.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

pub(super) const OTHER_FOLDER: &str =
    "choose a folder that you may write with --root or BRICKLAYER_ROOT";

/// Whether something can be made in a folder.
pub(super) fn is_open(place: &Path) -> bool {
    access(place).is_ok()
}

fn access(place: &Path) -> rustix::io::Result<()> {
    rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
}

/// What the state folder has.
pub(super) fn of_store(root: &Path) -> Vec<Finding> {
    let place = place_of(root);
    let at = root.display();
    let access = access(&place);
    let state = match access {
        Ok(()) if place == root => Finding::ok("state folder", format!("`{at}`")),
        Ok(()) => Finding::ok("state folder", format!("`{at}`, to be made")),
        Err(errno) => Finding::missing("state folder", format!("`{at}`: {errno}"), "no builds")
            .lift(OTHER_FOLDER),
    };
    let mut all = vec![state];
    all.extend(space(&place));
    if access.is_ok() {
        all.push(reflinks(&place));
    }
    all
}

fn space(place: &Path) -> Vec<Finding> {
    let Ok(disk) = FileSystem::of(place) else { return Vec::new() };
    let found = format!("{} of {} free", bytes(disk.free()), bytes(disk.size()));
    let lift = "free some with `build prune`, or choose another place with --root";
    let space = match disk.free() < LITTLE_SPACE {
        true => Finding::limited("space", found, "large images may not fit").lift(lift),
        false => Finding::ok("space", found),
    };
    let mut all = vec![space];
    if let Ok(stat) = rustix::fs::statvfs(place)
        && stat.f_files > 0
    {
        let found = format!("{} of {} inodes free", stat.f_favail, stat.f_files);
        all.push(match stat.f_favail < FEW_FILES {
            true => Finding::limited("files", found, "images of many files may not fit").lift(lift),
            false => Finding::ok("files", found),
        });
    }
    all
}

/// Shares the bytes of a file with another one, neither of which has a name.
fn reflinks(place: &Path) -> Finding {
    let nameless = || {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        rustix::fs::open(place, flags, Mode::RUSR | Mode::WUSR)
    };
    let shared = nameless().and_then(|from| {
        rustix::io::write(&from, &[b'x'; 4096])?;
        rustix::fs::ioctl_ficlone(nameless()?.as_fd(), from.as_fd())
    });
    match shared {
        Ok(()) => Finding::ok("reflinks", "files share bytes"),
        Err(errno) => Finding::limited(
            "reflinks",
            format!("none on this file system ({errno})"),
            "COPY --from and steps without overlays copy bytes instead of sharing them",
        )
        .lift("put the state folder on Btrfs, or on XFS with `reflink=1`, with --root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(version("6.12.3-generic"), Some((6, 12)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert_eq!(version("x"), None);
        assert!(version("6.10").unwrap() > KERNEL && version("6.6.99").unwrap() < KERNEL);
    }
}
