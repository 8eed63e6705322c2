//! The `/dev` of a step.
//!
//! A confined step may make device nodes, and images may hold some, but none of them opens a device
//! of the machine: every mount of such a step is `nodev`, `/dev` included. The few nodes that it may
//! use are mounts of their own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    CWD, Dev, FileType, Mode, OFlags, makedev, mkdirat, mknodat, open, openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::{During, Outcome, filesystem};

/// Nodes of every step: name, major and minor number of a character device.
pub(crate) const NODES: [(&str, u32, u32); 6] = [
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

/// Links of every step: where they lead, and their names.
pub(crate) const LINKS: [(&str, &str); 6] = [
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
    /// Nodes to mount into it: path and detached mount.
    pub(super) nodes: Vec<(String, OwnedFd)>,
}

/// Makes `/dev`; the nodes are in `scratch`, an attached file system in memory.
pub(super) fn make(insecure: bool, scratch: &OwnedFd) -> Outcome<Devices> {
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if !insecure {
        attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let dev = filesystem::make("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes)?;
    for directory in ["pts", "shm", "mqueue"] {
        mkdirat(&dev, directory, Mode::from_raw_mode(0o755))
            .during(|| format!("make `/dev/{directory}`"))?;
    }
    for (target, link) in LINKS {
        symlinkat(target, &dev, link).during(|| format!("make `/dev/{link}`"))?;
    }
    let mut nodes = Vec::new();
    for (name, major, minor) in NODES {
        let device = (FileType::CharacterDevice, makedev(major, minor));
        let action = || format!("make the device `/dev/{name}`");
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&dev, name, flags, Mode::from_raw_mode(0o666)).during(action)?);
        // Where no node can be made, that of the machine serves.
        let path_only = OFlags::PATH | OFlags::CLOEXEC;
        let node = if make_node(scratch, name, device, 0o666)? {
            openat(scratch, name, path_only, Mode::empty())
        } else {
            open(Path::new("/dev").join(name), path_only, Mode::empty())
        };
        let node = node.and_then(|node| filesystem::copy_of(node.as_fd())).during(action)?;
        let harmless = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        filesystem::restrict(&node, harmless).during(action)?;
        nodes.push((format!("/dev/{name}"), node));
    }
    if insecure {
        add_more_nodes(&dev)?;
    }
    Ok(Devices { mount: dev, nodes })
}

/// Makes a node; `false` when that is not allowed here.
fn make_node(
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
