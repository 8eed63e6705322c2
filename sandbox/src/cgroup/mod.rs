//! Control groups of steps: limits of memory, processors and processes.
//!
//! ```text
//! <the builder's own group, or --cgroup-parent>/buildkit/<name>     one per step that has limits
//! ```
//!
//! Both kinds are spoken to: one tree for everything (v2), a tree per controller (v1), and machines that have some of each. The
//! step's process enters its group itself, before it becomes the program.
//!
//! Invariants:
//! - A group is locked for as long as its builder lives, by a lock that ends with the process. Whoever makes the next group beside it removes
//!   those that nobody has locked.
//! - Nothing but the group of the step is limited: groups above only get what is needed to have it.

mod find;
mod values;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

pub use values::Resources;

use find::Hierarchy;
use values::{Controller, Version};

/// Folder of the groups of steps.
const FOLDER: &str = "buildkit";

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a step has no group of its own.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// The machine has no such controller where this process could use it.
    #[error("there is no control group for `{controller}` on this machine")]
    NoController {
        /// Its name.
        controller: &'static str,
    },
    /// The group cannot be made or used by this process.
    #[error("cannot {action} `{}`", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel takes no such limit.
    #[error("the kernel refuses `{value}` for `{}`", path.display())]
    Value {
        /// What was to be set.
        value: String,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The name of a parent that is no path of groups.
    #[error(
        "invalid cgroup parent `{0}`: want an absolute path below the root of the control groups"
    )]
    Parent(String),
}

impl CgroupError {
    /// Whether the machine does not let this process have groups, rather than what was asked for being wrong.
    pub fn is_of_machine(&self) -> bool {
        matches!(self, Self::NoController { .. } | Self::Refused { .. })
    }
}

/// What this machine has of control groups.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

/// The group of one step; its processes are killed and it is removed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    folders: Vec<Folder>,
    /// File that counts processes killed for want of memory.
    events: Option<PathBuf>,
}

/// The group of a step in one hierarchy.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Locked.
    _lock: OwnedFd,
}

impl Cgroups {
    /// Looks at what the machine has.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn look() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        Ok(Self { hierarchies: find::hierarchies(&mounts, &own) })
    }

    /// Makes a group with limits. `parent` is a path from the root of the hierarchies; without one the group is below that of this
    /// process.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn create(&self, parent: Option<&str>, limits: &Resources) -> Result<Cgroup, CgroupError> {
        let parent = parent.map(clean_parent).transpose()?;
        let mut wanted = limits.controllers();
        if wanted.is_empty() {
            // The parent has limits of its own, of whatever kind.
            wanted = Controller::ALL
                .into_iter()
                .filter(|controller| self.with(*controller).is_some())
                .collect();
        }
        let mut chosen: Vec<(&Hierarchy, Vec<Controller>)> = Vec::new();
        for controller in wanted {
            let hierarchy = self.with(controller);
            let hierarchy =
                hierarchy.ok_or(CgroupError::NoController { controller: controller.name() })?;
            match chosen.iter_mut().find(|(other, _)| std::ptr::eq(*other, hierarchy)) {
                Some((_, controllers)) => controllers.push(controller),
                None => chosen.push((hierarchy, vec![controller])),
            }
        }
        let mut group = Cgroup { folders: Vec::new(), events: None };
        for (hierarchy, controllers) in chosen {
            let base = match &parent {
                Some(parent) => hierarchy.mount.join(parent),
                None => hierarchy.own.clone(),
            };
            let above = base.join(FOLDER);
            make_all(hierarchy, &above, &controllers)?;
            sweep(&above);
            let folder = make_one(hierarchy, &above, &controllers)?;
            let path = folder.path.clone();
            // Noted before anything else can fail, so that it is removed.
            group.folders.push(folder);
            for controller in &controllers {
                for (file, value) in limits.files(*controller, hierarchy.version) {
                    set(&path.join(file), &value)?;
                }
            }
            if controllers.contains(&Controller::Memory) {
                group.events = Some(path.join(hierarchy.version.memory_events()));
            }
        }
        Ok(group)
    }

    /// Version of the control groups, 1 or 2, that have a controller such as `memory`; `None` where there are none.
    #[must_use]
    pub fn version(&self, controller: &str) -> Option<u32> {
        let hierarchy = self.with(Controller::from_name(controller)?)?;
        Some(if hierarchy.version == Version::One { 1 } else { 2 })
    }

    /// The hierarchy that has a controller.
    fn with(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }
}

impl Cgroup {
    /// Files by which a process enters the group.
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.path.join("cgroup.procs")).collect()
    }

    /// Whether the kernel has killed a process of the group for want of memory.
    pub fn was_out_of_memory(&self) -> bool {
        let events = self.events.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let counts = events.as_deref().unwrap_or_default().lines();
        let mut counts = counts.filter_map(|line| line.strip_prefix("oom_kill "));
        counts.any(|count| count.trim() != "0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            // What is left is swept by the next builder.
            let _ = remove(&folder.path);
        }
    }
}

/// The parent as a path below the root of a hierarchy.
///
/// A slice of systemd with a colon is that slice's folder: `a-b.slice:x` is `a.slice/a-b.slice/x`.
fn clean_parent(parent: &str) -> Result<PathBuf, CgroupError> {
    let invalid = || CgroupError::Parent(parent.to_owned());
    if let Some((slice, rest)) = parent.split_once(".slice:") {
        let mut path = PathBuf::new();
        let mut so_far = String::new();
        for part in slice.split('-') {
            if part.is_empty() || part.contains(['/', ':']) || part.starts_with('.') {
                return Err(invalid());
            }
            so_far = if so_far.is_empty() { part.to_owned() } else { format!("{so_far}-{part}") };
            path.push(format!("{so_far}.slice"));
        }
        let rest = rest.trim_matches(':').replace(':', "-");
        if rest.contains('/') || rest.starts_with('.') {
            return Err(invalid());
        }
        return Ok(if rest.is_empty() { path } else { path.join(rest) });
    }
    let path = Path::new(parent.trim_start_matches('/'));
    let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if parent.contains('\0') || !is_plain {
        return Err(invalid());
    }
    Ok(path.to_owned())
}

fn refused(action: &'static str, path: &Path, source: io::Error) -> CgroupError {
    CgroupError::Refused { action, path: path.to_owned(), source }
}

/// Makes a folder of groups and those above it, and has them pass controllers on.
fn make_all(
    hierarchy: &Hierarchy,
    folder: &Path,
    controllers: &[Controller],
) -> Result<(), CgroupError> {
    let below = folder.strip_prefix(&hierarchy.mount).unwrap_or(Path::new(""));
    let mut at = hierarchy.mount.clone();
    pass_on(hierarchy, &at, controllers)?;
    for name in below {
        at.push(name);
        match fs::create_dir(&at) {
            Ok(()) => inherit(hierarchy, &at, controllers)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(refused("make the control group", &at, error)),
        }
        pass_on(hierarchy, &at, controllers)?;
    }
    Ok(())
}

/// Makes the group of a step and locks it.
fn make_one(
    hierarchy: &Hierarchy,
    above: &Path,
    controllers: &[Controller],
) -> Result<Folder, CgroupError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut tries = 0;
    loop {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = above.join(format!("{}-{number}", std::process::id()));
        let made = fs::create_dir(&path).and_then(|()| Ok(lock(&path)?));
        match made {
            Ok(lock) if path.is_dir() => {
                inherit(hierarchy, &path, controllers)?;
                return Ok(Folder { path, _lock: lock });
            }
            // The number is that of a builder in another container, or somebody has swept it away.
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AlreadyExists
                        | io::ErrorKind::NotFound
                        | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(refused("make the control group", &path, error)),
        }
        tries += 1;
        if tries == 1000 {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(refused("make the control group", &path, error));
        }
    }
}

fn lock(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
    Ok(folder)
}

/// Has a group of v2 give controllers to those below it.
fn pass_on(
    hierarchy: &Hierarchy,
    group: &Path,
    controllers: &[Controller],
) -> Result<(), CgroupError> {
    if hierarchy.version == Version::One {
        return Ok(());
    }
    let path = group.join("cgroup.subtree_control");
    let text = fs::read_to_string(&path)
        .map_err(|error| refused("read the controllers of", group, error))?;
    let passed: HashSet<&str> = text.split_whitespace().collect();
    let missing = controllers.iter().filter(|controller| !passed.contains(controller.name()));
    for controller in missing {
        write(&path, &format!("+{}", controller.name()))
            .map_err(|error| refused("give controllers to the groups below", group, error))?;
    }
    Ok(())
}

/// Gives a new group of v1 the processors and memory nodes of the one above, without which no process can enter it.
fn inherit(
    hierarchy: &Hierarchy,
    group: &Path,
    controllers: &[Controller],
) -> Result<(), CgroupError> {
    if hierarchy.version == Version::Two || !controllers.contains(&Controller::Cpuset) {
        return Ok(());
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let action = "pass the processors on to";
        let above = group.parent().unwrap_or(group).join(file);
        let value = fs::read_to_string(&above).map_err(|error| refused(action, group, error))?;
        write(&group.join(file), value.trim()).map_err(|error| refused(action, group, error))?;
    }
    Ok(())
}

fn set(path: &Path, value: &str) -> Result<(), CgroupError> {
    // A kernel that has no such file does not let one be made.
    let is_there = path.exists();
    write(path, value).map_err(|source| match is_there && !is_read_only(&source) {
        true => CgroupError::Value { value: value.to_owned(), path: path.to_owned(), source },
        false => refused("set the limit", path, source),
    })
}

fn is_read_only(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ReadOnlyFilesystem
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value)
}

/// Removes groups whose builder is gone.
fn sweep(above: &Path) {
    let Ok(entries) = fs::read_dir(above) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        if let Ok(_lock) = lock(&entry.path()) {
            let _ = remove(&entry.path());
        }
    }
}

/// Kills what is in a group and removes it.
fn remove(group: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::rmdir(group) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) if Instant::now() < end => {}
            Err(errno) => return Err(errno.into()),
        }
        kill_all(group);
        // An unconfined step may have made groups of its own.
        let entries = fs::read_dir(group).into_iter().flatten().flatten();
        for below in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let _ = remove(&below.path());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill_all(group: &Path) {
    let kill = group.join("cgroup.kill");
    if kill.exists() && fs::write(&kill, "1").is_ok() {
        return;
    }
    let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 stands for a process that cannot be seen from here.
    let ids = processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    for id in ids {
        let _ = kill_process(id, Signal::KILL);
    }
}

#[cfg(test)]
mod tests;
