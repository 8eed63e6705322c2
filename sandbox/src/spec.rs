//! What a step is: its root, its mounts, its process and its limits.
//!
//! A [`Spec`] is complete: the sandbox looks nothing up. Users are ids, the environment is final,
//! and what must exist in the root (mount targets, the working directory) has been made by the
//! caller, who also knows how to take it away again.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use rustix::thread::CapabilitySet;
use zeroize::Zeroizing;

use crate::tier::Tier;

/// The host name of a step unless the build sets another.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// Size of `/dev/shm` unless the step sets another, in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Capabilities of a confined step that runs as root.
pub(crate) const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What the machine allows.
    pub tier: Tier,
    /// The root file system.
    pub root: Root,
    /// Mounts besides the standard ones; one with the target of a standard mount replaces it.
    pub mounts: Vec<Mount>,
    /// Argument vector; a first argument without `/` is looked up in the step's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value`; of several with one name the last counts.
    pub env: Vec<OsString>,
    /// Working directory, absolute, resolved inside the root.
    pub cwd: PathBuf,
    /// Who the process runs as.
    pub user: Credentials,
    /// Host name inside.
    pub hostname: String,
    /// Network inside.
    pub network: Network,
    /// Confinement.
    pub security: Security,
    /// Limits that are set; all others are the builder's own.
    pub rlimits: Vec<Rlimit>,
    /// Files by which the process enters its control group, see [`Cgroup::entrances`](crate::Cgroup::entrances).
    pub cgroups: Vec<PathBuf>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Content of `/etc/hosts`.
    pub hosts: Vec<u8>,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Whether another step is to come, so that it is worth while to prepare for it.
    pub another: bool,
}

impl Spec {
    /// Whether the step differs from others only in what can be set up last: it is confined, has the machine's
    /// network, and no mount of it is near those that every step has.
    pub(crate) fn is_ordinary(&self) -> bool {
        let is_apart = |mount: &Mount| {
            let target = clean(&mount.target);
            !["/proc", "/dev", "/sys"].iter().any(|top| target.starts_with(top))
        };
        self.security == Security::Sandbox
            && self.network == Network::Host
            && self.cgroups.is_empty()
            && self.mounts.iter().all(is_apart)
    }

    /// Returns a step that runs `args` as root in `root`, with defaults everywhere else.
    pub fn new(root: Root, args: Vec<String>) -> Self {
        Self {
            tier: Tier::Root,
            root,
            mounts: Vec::new(),
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: Credentials::default(),
            hostname: DEFAULT_HOSTNAME.to_owned(),
            network: Network::Host,
            security: Security::Sandbox,
            rlimits: Vec::new(),
            cgroups: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            hosts: Vec::new(),
            resolv_conf: Vec::new(),
            another: false,
        }
    }
}

/// Takes `.`, `..` and empty parts out of an absolute path, as it is written.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// The root file system of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// Layer folders under a writable one.
    Overlay {
        /// Layer folders, lowest first; may be empty.
        lowers: Vec<PathBuf>,
        /// Folder that receives what the step changes.
        upper: PathBuf,
        /// Empty folder on the file system of `upper`; of no use afterwards.
        work: PathBuf,
    },
    /// A folder that is changed in place. A folder `aside` next to it is the sandbox's own in [`Tier::Chroot`].
    Dir(PathBuf),
}

/// A mount besides the standard ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears: absolute, resolved inside the root.
    pub target: PathBuf,
    /// Whether the step may not write it.
    pub readonly: bool,
    /// What appears there.
    pub kind: MountKind,
}

/// What appears at the target of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A folder, file or socket of the machine.
    Bind {
        /// Where it is, outside.
        source: PathBuf,
        /// Path below it that is mounted, resolved inside it; empty for all of it.
        sub: PathBuf,
    },
    /// Layer folders, merged.
    Overlay {
        /// Layer folders, lowest first.
        lowers: Vec<PathBuf>,
        /// Path below the merged tree that is mounted, resolved inside it; empty for all of it.
        sub: PathBuf,
        /// Upper and work folder of a writable view.
        writable: Option<(PathBuf, PathBuf)>,
    },
    /// A folder or file of the builder's own, which is moved to the target while the step runs and back afterwards: the
    /// one way in which [`Tier::Chroot`] shows any. It is on the file system of the root.
    Moved {
        /// Where it is before and after.
        source: PathBuf,
        /// A symlink to be made while it is away, which says where it is: for what must be found again should the
        /// builder be killed meanwhile.
        note: Option<PathBuf>,
    },
    /// A fresh file system in memory.
    Tmpfs {
        /// Limit in bytes; 0 means none.
        size: u64,
    },
    /// A file in memory: a secret. Its content never touches a disk.
    File {
        /// Its content.
        contents: Zeroizing<Vec<u8>>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Ids of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, all of them.
    pub groups: Vec<u32>,
}

/// Network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The builder's own.
    Host,
    /// A namespace with a loopback interface only.
    None,
}

/// Confinement of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Default capabilities, seccomp filter, masked paths.
    Sandbox,
    /// All capabilities of the builder, no filter, no masked paths.
    Insecure,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// Soft limit; `None` means unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` means unlimited.
    pub hard: Option<u64>,
}

/// Resources that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of setrlimit(2)")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// Names as `--ulimit` has them.
const RESOURCES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

impl Resource {
    /// Returns the resource with the name that `--ulimit` gives it (`nofile`).
    pub fn from_name(name: &str) -> Option<Self> {
        RESOURCES.iter().find(|row| row.0 == name).map(|row| row.1)
    }

    /// Returns the name that `--ulimit` gives it.
    pub fn name(self) -> &'static str {
        RESOURCES.iter().find(|row| row.1 == self).map_or("", |row| row.0)
    }

    /// Returns its number in the kernel.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Core => libc::RLIMIT_CORE,
            Self::Cpu => libc::RLIMIT_CPU,
            Self::Data => libc::RLIMIT_DATA,
            Self::Fsize => libc::RLIMIT_FSIZE,
            Self::Locks => libc::RLIMIT_LOCKS,
            Self::Memlock => libc::RLIMIT_MEMLOCK,
            Self::Msgqueue => libc::RLIMIT_MSGQUEUE,
            Self::Nice => libc::RLIMIT_NICE,
            Self::Nofile => libc::RLIMIT_NOFILE,
            Self::Nproc => libc::RLIMIT_NPROC,
            Self::Rss => libc::RLIMIT_RSS,
            Self::Rtprio => libc::RLIMIT_RTPRIO,
            Self::Rttime => libc::RLIMIT_RTTIME,
            Self::Sigpending => libc::RLIMIT_SIGPENDING,
            Self::Stack => libc::RLIMIT_STACK,
        }
    }

    /// Returns its number on the wire.
    pub(crate) fn index(self) -> u8 {
        self as u8
    }

    /// Returns the resource with a number from the wire.
    pub(crate) fn from_index(index: u8) -> Option<Self> {
        RESOURCES.get(usize::from(index)).map(|row| row.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_name_and_by_number() {
        for (name, resource) in RESOURCES {
            assert_eq!(Resource::from_name(name), Some(resource));
            assert_eq!(Resource::from_index(resource.index()), Some(resource));
            assert_eq!(resource.name(), name);
        }
        assert_eq!(Resource::from_name("as"), None);
    }
}
