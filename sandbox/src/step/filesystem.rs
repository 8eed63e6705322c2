//! Mounts as descriptors: made detached, given attributes, then attached to a place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree, unmount,
};

use super::{During, Outcome};
use crate::sys;
use crate::wire::Failure;

/// Attributes of most of what is not the root.
pub(super) const HARMLESS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

pub(super) const READ_ONLY: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_RDONLY;

/// A file system that is being configured.
pub(super) struct Context {
    name: &'static str,
    fd: OwnedFd,
}

impl Context {
    /// Begins a file system of a type.
    pub(super) fn new(name: &'static str) -> Outcome<Self> {
        let fd = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)
            .during(|| format!("make a file system `{name}`"))?;
        Ok(Self { name, fd })
    }

    /// Sets an option to a value.
    pub(super) fn set(&self, key: &str, value: &str) -> Outcome<()> {
        fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.failure(errno, &format!("set `{key}={value}` of")))
    }

    /// Sets an option to a value without looking for the kernel's own words when it fails.
    pub(super) fn try_set(&self, key: &str, value: &str) -> rustix::io::Result<()> {
        fsconfig_set_string(&self.fd, key, value)
    }

    /// Sets a flag.
    pub(super) fn set_flag(&self, flag: &str) -> Outcome<()> {
        fsconfig_set_flag(&self.fd, flag)
            .map_err(|errno| self.failure(errno, &format!("set `{flag}` of")))
    }

    /// Sets a flag if the kernel knows it.
    pub(super) fn set_if_known(&self, flag: &str) {
        // An unknown flag leaves the configuration as it was.
        let _ = fsconfig_set_flag(&self.fd, flag);
    }

    /// Makes the file system and returns a detached mount of it.
    pub(super) fn mount(self, attributes: MountAttrFlags) -> Outcome<OwnedFd> {
        fsconfig_create(&self.fd).map_err(|errno| self.failure(errno, "make"))?;
        fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.failure(errno, "mount"))
    }

    /// Returns a failure with what the kernel said about it.
    fn failure(&self, errno: Errno, action: &str) -> Failure {
        let mut text = format!("{action} a file system `{}`", self.name);
        let mut line = [0; 512];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut line) {
            let line = String::from_utf8_lossy(&line[..length]);
            text.push_str(&format!(" ({})", line.trim_start_matches("e ").trim_end()));
        }
        Failure { kind: crate::wire::FailureKind::Setup, text, errno: errno.raw_os_error() }
    }
}

/// Makes a file system with options and returns a detached mount of it.
pub(super) fn make(
    name: &'static str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Outcome<OwnedFd> {
    let context = Context::new(name)?;
    for (key, value) in options {
        context.set(key, value)?;
    }
    context.mount(attributes)
}

/// Returns a detached copy of the mount that `at` is in, with `at` as its root.
///
/// What is mounted below it is not copied.
pub(super) fn copy_of(at: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(at, "", flags)
}

/// Returns a detached copy of the mount that `at` is in, with what is mounted below it.
pub(super) fn tree_of(at: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(at, "", flags)
}

/// Adds attributes to a mount; those it has, locked ones included, stay.
pub(super) fn restrict(mount: &OwnedFd, attributes: MountAttrFlags) -> std::io::Result<()> {
    sys::mount_setattr(mount.as_fd(), attributes, 0, false)
}

/// Attaches a detached mount to the place that a descriptor stands for.
pub(super) fn attach(mount: &OwnedFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Attaches a detached mount over the machine's root directory, in this mount namespace only.
///
/// Absolute paths still lead below it.
pub(super) fn attach_over_root(mount: &OwnedFd) -> rustix::io::Result<()> {
    move_mount(mount, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Takes an attached mount out of the tree again; it lives on while descriptors are in it.
///
/// Changes the working directory to it.
pub(super) fn detach(mount: &OwnedFd) -> rustix::io::Result<()> {
    rustix::process::fchdir(mount)?;
    unmount(".", UnmountFlags::DETACH)
}
