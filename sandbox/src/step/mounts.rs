//! The tree of mounts of a step.
//!
//! All mounts are made in the mount namespace of the step, as descriptors, and attached by
//! descriptor: no path of the image or of a mount source is ever joined to one of the machine, and
//! what a link in them points to is looked up inside them. When the process is gone, so is every
//! mount.
//!
//! ```text
//! 1  everything private; a scratch file system in memory over `/`
//! 2  sources: overlays, files, folders, proc, dev, …, each a detached mount
//! 3  the root over the scratch file system
//! 4  each source attached to its target inside the root, in order
//! 5  masks; pivot into the root; the scratch file system and the machine's tree detached
//!
//! A process that is ready for an ordinary step has done 2 for what every step has: with masks, in the scratch file
//! system, from where it is moved.
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, makedev,
    mkdirat, open, openat, openat2, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};

use super::filesystem::{self, Context, HARMLESS, READ_ONLY};
use super::overlay::Overlay;
use super::{During, Outcome, Surroundings, devices};
use crate::names::{self, ResolverOverrides};
use crate::spec::{
    DEFAULT_HOSTNAME, DEFAULT_SHM_SIZE, Mount, MountKind, Root, Security, Spec, clean,
};
use crate::sys;
use crate::tier::Tier;

/// What a confined step must not see.
const MASKED: [&str; 11] = [
    "proc/acpi",
    "proc/asound",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
    "sys/devices/virtual/powercap",
];

/// What a confined step must not change.
const READ_ONLY_PATHS: [&str; 5] =
    ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A mount, detached or in the scratch file system, and where it goes.
struct Planned {
    target: PathBuf,
    mount: OwnedFd,
    /// Whether the target must be a directory of the root itself and is made there if missing.
    standard: bool,
}

/// What the files and the shared memory that every step has are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    shm_size: u64,
    hosts: Vec<u8>,
    resolv_conf: Vec<u8>,
}

impl Contents {
    /// Those of a step of which nothing in particular is asked; `None` when the machine's settings cannot be read.
    pub(super) fn usual() -> Option<Self> {
        let machine = names::machine_resolver(false).ok()?;
        Some(Self {
            shm_size: DEFAULT_SHM_SIZE,
            hosts: names::hosts_file(DEFAULT_HOSTNAME, &[]),
            resolv_conf: names::resolv_conf(&machine, false, &ResolverOverrides::default()),
        })
    }

    fn of(spec: &Spec) -> Self {
        let Spec { shm_size, hosts, resolv_conf, .. } = spec;
        Self { shm_size: *shm_size, hosts: hosts.clone(), resolv_conf: resolv_conf.clone() }
    }
}

/// What can be set up before anything is known of the step but that it is an [ordinary](Spec::is_ordinary) one.
pub(super) struct Ready<'a> {
    scratch: OwnedFd,
    /// `/proc`, `/dev` and `/sys` with all that is mounted in them, masks included.
    planned: Vec<Planned>,
    null: OwnedFd,
    /// What most steps have besides, and what it was made from.
    usual: Option<(&'a Contents, Vec<Planned>)>,
}

impl<'a> Ready<'a> {
    /// Sets it up, in the mount namespace of the step that is to come.
    pub(super) fn make(surroundings: &'a Surroundings) -> Outcome<Self> {
        make_private()?;
        let sources = Sources { scratch: scratch()?, security: Security::Sandbox, surroundings };
        let scratch = &sources.scratch;
        // Masks can only be attached to what is attached itself.
        let standard = sources.standard()?;
        for entry in &standard {
            put(scratch, entry)?;
        }
        mask_paths(scratch, sources.file_mask()?)?;
        protect_paths(scratch)?;
        let mut planned = Vec::new();
        for Planned { target, .. } in standard.into_iter().filter(|entry| entry.standard) {
            let top = standard_target(scratch, &target);
            let mount = top.during(|| format!("find `{}`", target.display()))?;
            planned.push(Planned { target, mount, standard: true });
        }
        let usual = match surroundings.usual_contents() {
            Some(contents) => Some((contents, sources.of_contents(contents)?)),
            None => None,
        };
        let null = sources.open_null()?;
        Ok(Self { scratch: sources.scratch, planned, null, usual })
    }
}

/// Sets the mounts of a step up and changes the root; returns the step's `/dev/null`, opened.
pub(super) fn set_up(
    spec: &Spec,
    surroundings: &Surroundings,
    ready: Option<Ready<'_>>,
) -> Outcome<OwnedFd> {
    let is_ready = ready.is_some();
    let security = spec.security;
    let (sources, mut planned, spare_null, usual) = match ready {
        Some(Ready { scratch, planned, null, usual }) => {
            (Sources { scratch, security, surroundings }, planned, null, usual)
        }
        None => {
            make_private()?;
            let sources = Sources { scratch: scratch()?, security, surroundings };
            let planned = sources.standard()?;
            let null = sources.open_null()?;
            (sources, planned, null, None)
        }
    };
    let root = sources.root(spec)?;
    let contents = Contents::of(spec);
    planned.extend(match usual {
        Some((usual, made)) if *usual == contents => made,
        _ => sources.of_contents(&contents)?,
    });
    let mask = if is_ready { None } else { Some(sources.file_mask()?) };
    place_user_mounts(&mut planned, sources.user(spec)?);
    drop(sources);

    filesystem::attach_over_root(&root).during(|| "attach the root file system")?;
    for entry in planned {
        put(&root, &entry)?;
    }
    let null = open_null(&root)?.unwrap_or(spare_null);
    if let (Some(mask), Security::Sandbox) = (mask, security) {
        mask_paths(&root, mask)?;
        protect_paths(&root)?;
    }
    enter(&root)?;
    Ok(null)
}

/// Whether root is root of a user namespace only.
fn in_user_namespace() -> bool {
    crate::tier::Probe::new().is_ok_and(|probe| !probe.is_initial_namespace())
}

/// Returns a detached copy of the machine's `/sys` with all that is mounted there, to read only.
fn machine_system() -> Outcome<OwnedFd> {
    let action = || "copy `/sys`";
    let system = open("/sys", PATH_ONLY | OFlags::DIRECTORY, Mode::empty()).during(action)?;
    let copy = filesystem::tree_of(system.as_fd()).during(action)?;
    sys::mount_setattr(copy.as_fd(), HARMLESS | READ_ONLY, 0, true).during(action)?;
    Ok(copy)
}

/// Keeps what is mounted from now on to this mount namespace.
pub(super) fn make_private() -> Outcome<()> {
    let machine = open("/", PATH_ONLY | OFlags::DIRECTORY, Mode::empty()).during(|| "open `/`")?;
    sys::mount_setattr(machine.as_fd(), MountAttrFlags::empty(), libc::MS_PRIVATE, true)
        .during(|| "make all mounts private")
}

/// Makes a file system in memory and attaches it over the machine's root.
///
/// Only attached mounts can be copied and used as layers, by most kernels.
pub(super) fn scratch() -> Outcome<OwnedFd> {
    let context = Context::new("tmpfs")?;
    context.set("mode", "0700")?;
    context.set_if_known("noswap");
    let scratch = context.mount(MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    filesystem::attach_over_root(&scratch).during(|| "attach the scratch file system")?;
    Ok(scratch)
}

/// Changes the root directory, and takes away the scratch file system and the machine's tree.
fn enter(root: &OwnedFd) -> Outcome<()> {
    let action = || "change the root directory";
    rustix::process::fchdir(root).during(action)?;
    rustix::process::pivot_root(".", ".").during(action)?;
    // The scratch file system, which was mounted over the machine's tree, and then that tree, which lies on the root.
    unmount(".", UnmountFlags::DETACH).during(action)?;
    unmount(".", UnmountFlags::DETACH).during(action)?;
    rustix::process::chdir("/").during(action)
}

/// Adds the mounts of the spec: in the place of a standard one with the same target, else after all
/// of them in the order of their targets.
fn place_user_mounts(planned: &mut Vec<Planned>, mut user: Vec<Planned>) {
    user.sort_by(|a, b| a.target.cmp(&b.target));
    for entry in user {
        match planned.iter_mut().find(|other| other.target == entry.target) {
            Some(other) => *other = entry,
            None => planned.push(entry),
        }
    }
}

/// Makes the detached mounts of a step.
struct Sources<'a> {
    scratch: OwnedFd,
    security: Security,
    surroundings: &'a Surroundings,
}

impl Sources<'_> {
    fn root(&self, spec: &Spec) -> Outcome<OwnedFd> {
        let root = match &spec.root {
            Root::Overlay { lowers, upper, work } => {
                let writable = Some((&**upper, &**work));
                Overlay { lowers, writable, tier: spec.tier }.mount(&self.scratch)?
            }
            Root::Dir(path) => copy_of_path(path)?,
        };
        filesystem::restrict(&root, self.no_devices()).during(|| "forbid devices in the root")?;
        Ok(root)
    }

    /// What keeps a confined step from the machine's devices, whose nodes it may make.
    fn no_devices(&self) -> MountAttrFlags {
        match self.security {
            Security::Sandbox => MountAttrFlags::MOUNT_ATTR_NODEV,
            Security::Insecure => MountAttrFlags::empty(),
        }
    }

    /// The mounts that every step has, in their order.
    fn standard(&self) -> Outcome<Vec<Planned>> {
        let insecure = self.security == Security::Insecure;
        let kernel = if insecure { HARMLESS } else { HARMLESS | READ_ONLY };
        let mut planned = Vec::new();
        let mut add = |target: &str, mount: OwnedFd, standard: bool| {
            planned.push(Planned { target: target.into(), mount, standard });
        };
        add("/proc", filesystem::make("proc", &[], HARMLESS)?, true);
        let devices = devices::make(insecure, &self.scratch)?;
        add("/dev", devices.mount, true);
        for (target, node) in devices.nodes {
            add(&target, node, false);
        }
        let no_suid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let terminals = [("gid", "5"), ("ptmxmode", "0666"), ("mode", "0620")];
        let made = match filesystem::make("devpts", &terminals, no_suid) {
            // Not every user namespace has this group.
            Err(failure) if failure.errno == libc::EINVAL => {
                filesystem::make("devpts", &terminals[1..], no_suid)
            }
            made => made,
        };
        add("/dev/pts", made?, false);
        // Not every kernel is built with message queues.
        if let Ok(queues) = filesystem::make("mqueue", &[], HARMLESS) {
            add("/dev/mqueue", queues, false);
        }
        let system = match filesystem::make("sysfs", &[], kernel) {
            // Root of a user namespace makes none in a network that is not its own: it gets the machine's, to read.
            Err(failure) if failure.errno == libc::EPERM && in_user_namespace() => {
                machine_system()?
            }
            made => made?,
        };
        add("/sys", system, true);
        if self.surroundings.unified_cgroups {
            add("/sys/fs/cgroup", filesystem::make("cgroup2", &[], kernel)?, false);
        }
        Ok(planned)
    }

    /// The mounts that every step has, but with contents of its own.
    fn of_contents(&self, contents: &Contents) -> Outcome<Vec<Planned>> {
        let planned = |target: &str, mount: OwnedFd| Planned {
            target: target.into(),
            mount,
            standard: false,
        };
        let size = contents.shm_size.to_string();
        let shared = [("mode", "1777"), ("size", &*size)];
        let mut all = vec![planned("/dev/shm", filesystem::make("tmpfs", &shared, HARMLESS)?)];
        for (target, name, text) in [
            ("/etc/resolv.conf", "resolv", &contents.resolv_conf),
            ("/etc/hosts", "hosts", &contents.hosts),
        ] {
            let file = self.file(name, text, 0o644, (0, 0), HARMLESS | READ_ONLY)?;
            all.push(planned(target, file));
        }
        Ok(all)
    }

    /// The mounts of the spec.
    fn user(&self, spec: &Spec) -> Outcome<Vec<Planned>> {
        let mounts = spec.mounts.iter().enumerate();
        mounts
            .map(|(number, mount)| {
                let target = clean_target(&mount.target)?;
                let mount = self.source(number, mount, spec.tier)?;
                Ok(Planned { target, mount, standard: false })
            })
            .collect()
    }

    fn source(&self, number: usize, mount: &Mount, tier: Tier) -> Outcome<OwnedFd> {
        let source = match &mount.kind {
            MountKind::Bind { source, sub } if sub.as_os_str().is_empty() => copy_of_path(source)?,
            MountKind::Bind { source, sub } => {
                let root = open(source, PATH_ONLY, Mode::empty())
                    .during(|| format!("open the mount source `{}`", source.display()))?;
                copy_below(&root, sub)?
            }
            MountKind::Overlay { lowers, sub, writable } => {
                let writable = writable.as_ref().map(|(upper, work)| (&**upper, &**work));
                let merged = Overlay { lowers, writable, tier }.mount(&self.scratch)?;
                if sub.as_os_str().is_empty() { merged } else { detached_below(merged, sub)? }
            }
            MountKind::Moved { source, .. } => {
                return Err(Errno::INVAL)
                    .during(|| format!("move `{}` to where it can be mounted", source.display()));
            }
            MountKind::Tmpfs { size } => {
                let size = size.to_string();
                let options = [("mode", "1777"), ("size", &*size)];
                filesystem::make("tmpfs", &options, MountAttrFlags::MOUNT_ATTR_NOSUID)?
            }
            MountKind::File { contents, mode, uid, gid } => {
                let mut attributes = HARMLESS | READ_ONLY;
                if mode & 0o111 != 0 {
                    attributes -= MountAttrFlags::MOUNT_ATTR_NOEXEC;
                }
                self.file(&number.to_string(), contents, *mode, (*uid, *gid), attributes)?
            }
        };
        let mut attributes = self.no_devices();
        if mount.readonly {
            attributes |= READ_ONLY;
        }
        filesystem::restrict(&source, attributes)
            .during(|| format!("restrict the mount `{}`", mount.target.display()))?;
        Ok(source)
    }

    /// Makes a file in memory and returns a detached mount of it.
    fn file(
        &self,
        name: &str,
        contents: &[u8],
        mode: u32,
        (uid, gid): (u32, u32),
        attributes: MountAttrFlags,
    ) -> Outcome<OwnedFd> {
        let action = || "make a file in memory";
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let create = || openat(&self.scratch, name, flags, Mode::RUSR);
        let file = match create() {
            // Made before anything was known of the step, with other contents.
            Err(Errno::EXIST) => {
                unlinkat(&self.scratch, name, AtFlags::empty()).and_then(|()| create())
            }
            other => other,
        };
        let file = file.during(action)?;
        let mut rest = contents;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest).during(action)?..];
        }
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match fchown(&file, owner.0, owner.1) {
            // A user namespace without that id: the file stays root's.
            Err(Errno::INVAL) => {}
            other => other.during(action)?,
        }
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).during(action)?;
        let mount = filesystem::copy_of(file.as_fd()).during(action)?;
        filesystem::restrict(&mount, attributes).during(action)?;
        Ok(mount)
    }

    /// Returns a detached mount of a null device, to cover files with.
    fn file_mask(&self) -> Outcome<OwnedFd> {
        let null = self.open_null()?;
        filesystem::copy_of(null.as_fd()).during(|| "copy the null device")
    }

    /// Opens a null device: the one that [`devices::make`] has left in the scratch file system, or
    /// that of the machine.
    fn open_null(&self) -> Outcome<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let made = openat(&self.scratch, "null", flags, Mode::empty());
        made.or_else(|_| open("/dev/null", flags, Mode::empty())).during(|| "open the null device")
    }
}

/// Opens the step's own `/dev/null`, unless a mount of the step has put something else there.
fn open_null(root: &OwnedFd) -> Outcome<Option<OwnedFd>> {
    let open = |flags| openat2(root, "dev/null", flags | OFlags::CLOEXEC, Mode::empty(), INSIDE);
    let Ok(found) = open(OFlags::PATH) else { return Ok(None) };
    let stat = fstat(&found).during(|| "look at `/dev/null`")?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != makedev(1, 3) {
        return Ok(None);
    }
    // A mount of the step may forbid devices.
    Ok(open(OFlags::RDONLY).ok())
}

/// Returns a detached copy of a folder or file of the machine.
fn copy_of_path(path: &Path) -> Outcome<OwnedFd> {
    let action = || format!("open the mount source `{}`", path.display());
    let source = open(path, PATH_ONLY, Mode::empty()).during(action)?;
    filesystem::copy_of(source.as_fd()).during(action)
}

/// Returns a detached copy of a path inside a folder; no link in it leads out.
fn copy_below(root: &OwnedFd, sub: &Path) -> Outcome<OwnedFd> {
    let action = || format!("find the mount source `{}`", sub.display());
    let source = openat2(root, sub, PATH_ONLY, Mode::empty(), INSIDE).during(action)?;
    filesystem::copy_of(source.as_fd()).during(action)
}

/// Returns a detached copy of a path inside a detached mount.
fn detached_below(mount: OwnedFd, sub: &Path) -> Outcome<OwnedFd> {
    let action = || format!("find the mount source `{}`", sub.display());
    filesystem::attach_over_root(&mount).during(action)?;
    let found = copy_below(&mount, sub)?;
    filesystem::detach(&mount).during(action)?;
    Ok(found)
}

/// Attaches a mount to its target inside the root.
fn put(root: &OwnedFd, entry: &Planned) -> Outcome<()> {
    let action = || format!("mount `{}`", entry.target.display());
    let target = if entry.standard {
        standard_target(root, &entry.target).during(action)?
    } else {
        let kind = FileType::from_raw_mode(fstat(&entry.mount).during(action)?.st_mode);
        target(root, &entry.target, kind == FileType::Directory).during(action)?
    };
    filesystem::attach(&entry.mount, target.as_fd()).during(action)
}

/// Opens a directory at the top of the root, which must not be a link; makes it if it is missing.
fn standard_target(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let name = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let open = || openat2(root, name, PATH_ONLY | OFlags::DIRECTORY, Mode::empty(), resolve);
    match open() {
        Err(Errno::NOENT) => {
            mkdirat(root, name, Mode::from_raw_mode(0o755))?;
            open()
        }
        other => other,
    }
}

/// Opens the target of a mount inside the root.
///
/// The caller of the sandbox has made targets that are in the root itself; what is missing here lies
/// in another mount and is made.
fn target(root: &OwnedFd, path: &Path, directory: bool) -> rustix::io::Result<OwnedFd> {
    match openat2(root, path, PATH_ONLY, Mode::empty(), INSIDE) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut at = root.try_clone().map_err(|_| Errno::MFILE)?;
    let mut so_far = PathBuf::from("/");
    let parents = if directory { path } else { path.parent().unwrap_or(path) };
    for part in parents.components().filter(|part| matches!(part, Component::Normal(_))) {
        so_far.push(part);
        let open = || openat2(root, &so_far, PATH_ONLY | OFlags::DIRECTORY, Mode::empty(), INSIDE);
        at = match open() {
            Err(Errno::NOENT) => {
                mkdirat(&at, part.as_os_str(), Mode::from_raw_mode(0o755))?;
                open()?
            }
            other => other?,
        };
    }
    if directory {
        return Ok(at);
    }
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
    drop(openat2(root, path, flags, Mode::from_raw_mode(0o644), INSIDE)?);
    openat2(root, path, PATH_ONLY, Mode::empty(), INSIDE)
}

/// Returns the target of a mount, as it is written, which cannot be the root itself.
fn clean_target(path: &Path) -> Outcome<PathBuf> {
    let clean = clean(path);
    if clean.parent().is_none() {
        return Err(Errno::INVAL).during(|| format!("mount over `{}`", path.display()));
    }
    Ok(clean)
}

/// Opens a path of the kernel's file systems; `None` if this kernel does not have it.
fn kernel_path(root: &OwnedFd, path: &str) -> Outcome<Option<OwnedFd>> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    match openat2(root, path, PATH_ONLY, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).during(|| format!("cover `/{path}`")),
    }
}

/// Covers files with the null device and directories with an empty one.
fn mask_paths(root: &OwnedFd, null: OwnedFd) -> Outcome<()> {
    let (mut null, mut empty) = (Mask::Detached(null), Mask::Missing);
    for path in MASKED {
        let Some(target) = kernel_path(root, path)? else { continue };
        let action = || format!("cover `/{path}`");
        let stat = fstat(&target).during(action)?;
        let mask = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => &mut empty,
            _ => &mut null,
        };
        mask.put(target.as_fd(), action)?;
    }
    Ok(())
}

/// A mount that covers several places: the first one is attached, the others are copies of it.
enum Mask {
    Missing,
    Detached(OwnedFd),
    Attached(OwnedFd),
}

impl Mask {
    fn put(&mut self, target: BorrowedFd<'_>, action: impl Fn() -> String) -> Outcome<()> {
        let mount = match std::mem::replace(self, Self::Missing) {
            Self::Missing => filesystem::make("tmpfs", &[], HARMLESS | READ_ONLY)?,
            Self::Detached(mount) => mount,
            Self::Attached(mount) => filesystem::copy_of(mount.as_fd()).during(&action)?,
        };
        filesystem::attach(&mount, target).during(&action)?;
        *self = Self::Attached(mount);
        Ok(())
    }
}

/// Puts a read-only copy of paths over themselves.
fn protect_paths(root: &OwnedFd) -> Outcome<()> {
    for path in READ_ONLY_PATHS {
        let Some(target) = kernel_path(root, path)? else { continue };
        let action = || format!("make `/{path}` read-only");
        let copy = filesystem::copy_of(target.as_fd()).during(action)?;
        filesystem::restrict(&copy, READ_ONLY).during(action)?;
        filesystem::attach(&copy, target.as_fd()).during(action)?;
    }
    Ok(())
}
