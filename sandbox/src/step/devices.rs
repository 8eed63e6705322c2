//! The `/dev` of a step.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Dev, FileType, Mode, OFlags, makedev, mkdirat, mknodat, open, openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{During, Outcome, filesystem};

/// Nodes of every step: name, major and minor number of a character device.
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Nodes that an unconfined step gets too, if the machine has them.
const MORE_NODES: [&str; 6] = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"];

/// How many loop devices more than the machine has an unconfined step gets nodes for.
const SPARE_LOOPS: u32 = 8;

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// The `/dev` of a step.
pub(super) struct Devices {
    /// Detached mount of it.
    pub(super) mount: OwnedFd,
    /// Nodes of the machine that are to be bound into it because they could not be made.
    pub(super) bound: Vec<(String, OwnedFd)>,
    /// Its null device, opened.
    pub(super) null: OwnedFd,
}

/// Makes `/dev`.
pub(super) fn make(insecure: bool) -> Outcome<Devices> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = filesystem::make("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?;
    for directory in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, directory, Mode::from_raw_mode(0o755))
            .during(|| format!("make `/dev/{directory}`"))?;
    }
    for (target, link) in LINKS {
        symlinkat(target, &dev, link).during(|| format!("make `/dev/{link}`"))?;
    }
    let mut bound = Vec::new();
    for (name, major, minor) in NODES {
        let device = (FileType::CharacterDevice, makedev(major, minor));
        if !make_node(&dev, name, device, 0o666)? {
            bound.push((format!("/dev/{name}"), bind_node(&dev, name)?));
        }
    }
    if insecure {
        add_more_nodes(&dev)?;
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let null = if bound.is_empty() {
        openat(&dev, "null", flags, Mode::empty())
    } else {
        open("/dev/null", flags, Mode::empty())
    };
    Ok(Devices { mount: dev, bound, null: null.during(|| "open the null device")? })
}

/// Makes a node; `false` when that is not allowed here.
pub(super) fn make_node(
    directory: &OwnedFd,
    name: &str,
    (kind, device): (FileType, Dev),
    mode: u32,
) -> Outcome<bool> {
    match mknodat(directory, name, kind, Mode::from_raw_mode(mode), device) {
        Ok(()) => Ok(true),
        Err(Errno::PERM) => Ok(false),
        Err(errno) => Err(errno).during(|| format!("make the device `{name}`")),
    }
}

/// Makes an empty file for a node and returns a copy of the machine's node to put over it.
fn bind_node(dev: &OwnedFd, name: &str) -> Outcome<OwnedFd> {
    let action = || format!("bind the device `/dev/{name}`");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(openat(dev, name, flags, Mode::from_raw_mode(0o666)).during(action)?);
    let node = open(Path::new("/dev").join(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .during(action)?;
    filesystem::copy_of(node.as_fd()).during(action)
}

fn add_more_nodes(dev: &OwnedFd) -> Outcome<()> {
    mkdirat(dev, "net", Mode::from_raw_mode(0o755)).during(|| "make `/dev/net`")?;
    for name in MORE_NODES {
        let machine = rustix::fs::statat(CWD, format!("/dev/{name}"), rustix::fs::AtFlags::empty());
        if let Ok(stat) = machine {
            let device = (FileType::from_raw_mode(stat.st_mode), stat.st_rdev);
            make_node(dev, name, device, stat.st_mode & 0o777)?;
        }
    }
    let mut count = 0;
    while rustix::fs::stat(format!("/dev/loop{count}")).is_ok() {
        count += 1;
    }
    for number in 0..count + SPARE_LOOPS {
        let device = (FileType::BlockDevice, makedev(7, number));
        make_node(dev, &format!("loop{number}"), device, 0o660)?;
    }
    Ok(())
}
