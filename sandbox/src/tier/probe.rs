//! What the machine gives, each thing looked up when it is first asked for.

use std::cell::OnceCell;
use std::io;
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;

use super::namespace::{self, MapError, Namespace};
use super::{IdRange, Lack, ids};
use crate::step;

/// Number of the first user namespace of a machine, a constant of the kernel.
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Where programs that map ids may be besides `PATH`, which is short for some users.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];

/// Settings of the kernel that turn user namespaces off: the file, the value that does, what that means, and what
/// changes it.
const SETTINGS: [(&str, &str, &str, &str); 4] = [
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "user namespaces are turned off (`user.max_user_namespaces` is 0)",
        "as root, set `sysctl -w user.max_user_namespaces=15000`",
    ),
    (
        "/proc/sys/user/max_mnt_namespaces",
        "0",
        "mount namespaces are turned off (`user.max_mnt_namespaces` is 0)",
        "as root, set `sysctl -w user.max_mnt_namespaces=15000`",
    ),
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "user namespaces are for root only (`kernel.unprivileged_userns_clone` is 0)",
        "as root, set `sysctl -w kernel.unprivileged_userns_clone=1`",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor restricts user namespaces (`kernel.apparmor_restrict_unprivileged_userns` is 1)",
        "as root, set `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give this program an \
         AppArmor profile that allows `userns`",
    ),
];

/// Kinds of namespaces that a step has, by the names of their limits.
const KINDS: [&str; 6] = ["mnt", "pid", "ipc", "uts", "cgroup", "net"];

/// Which limit keeps the kernel from making another namespace for a step.
pub(crate) fn namespace_limit() -> Lack {
    let used_up = |kind: &&&str| {
        let path = format!("/proc/sys/user/max_{kind}_namespaces");
        fs_err::read_to_string(path).is_ok_and(|limit| limit.trim() == "0")
    };
    match KINDS.iter().find(used_up) {
        Some(kind) => Lack::new(
            format!("there may be none of a kind (`user.max_{kind}_namespaces` is 0)"),
            format!("as root, set `sysctl -w user.max_{kind}_namespaces=15000`"),
        ),
        None => Lack::new(
            "this user, or one around it, has as many of a kind as there may be",
            "as root, look at `sysctl user` and raise the one of `user.max_*_namespaces` that is low; a container has \
             those of its machine",
        ),
    }
}

/// Who runs this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub id: u32,
    /// Name, if the machine's `/etc/passwd` has one.
    pub name: Option<String>,
}

impl User {
    /// The name, else the number.
    #[must_use]
    pub fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}

/// The programs that map ids on behalf of users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// `newuidmap`.
    pub users: PathBuf,
    /// `newgidmap`.
    pub groups: PathBuf,
}

/// What the machine gives to this process.
///
/// Making one reads the capabilities; everything else is looked up when it is first asked for, and tried for real
/// where settings do not tell.
#[derive(Debug)]
pub struct Probe {
    capabilities: CapabilitySet,
    is_initial: OnceCell<bool>,
    user: OnceCell<User>,
    ranges: OnceCell<Result<[Vec<IdRange>; 2], Lack>>,
    programs: OnceCell<Result<IdMap, Lack>>,
    namespaces: OnceCell<Result<(), Lack>>,
    proc_mounts: OnceCell<Result<(), Lack>>,
    overlays: OnceCell<Result<(), Lack>>,
}

impl Probe {
    /// Reads the capabilities of the process.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            capabilities: rustix::thread::capabilities(None)?.effective,
            is_initial: OnceCell::new(),
            user: OnceCell::new(),
            ranges: OnceCell::new(),
            programs: OnceCell::new(),
            namespaces: OnceCell::new(),
            proc_mounts: OnceCell::new(),
            overlays: OnceCell::new(),
        })
    }

    /// Effective capabilities.
    #[must_use]
    pub fn capabilities(&self) -> CapabilitySet {
        self.capabilities
    }

    /// Whether all of these capabilities are held.
    #[must_use]
    pub fn has(&self, capabilities: CapabilitySet) -> bool {
        self.capabilities.contains(capabilities)
    }

    /// Whether the process is in the machine's own user namespace, where root is root.
    #[must_use]
    pub fn is_initial_namespace(&self) -> bool {
        *self.is_initial.get_or_init(|| {
            // Kernels without user namespaces have no such file.
            rustix::fs::stat("/proc/self/ns/user")
                .map_or(true, |stat| stat.st_ino == INITIAL_USER_NAMESPACE)
        })
    }

    /// Ids of the parent namespace that this one has.
    #[must_use]
    pub fn current_ids(&self) -> Vec<IdRange> {
        ids::of_map(&fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default())
    }

    /// Who runs this process.
    pub fn user(&self) -> &User {
        self.user.get_or_init(|| {
            let id = rustix::process::geteuid().as_raw();
            let passwd = fs_err::read("/etc/passwd").unwrap_or_default();
            let name = String::from_utf8_lossy(&passwd).lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
            });
            User { id, name }
        })
    }

    /// Why the process does not have the rights of root, in a few words.
    #[must_use]
    pub fn why_not_root(&self) -> &'static str {
        match (self.user().id, self.has(CapabilitySet::SYS_ADMIN)) {
            (_, true) => "root of a user namespace",
            (0, false) => "root without the right to mount",
            _ => "not root",
        }
    }

    /// Ranges of user and of group ids that the user may map, enough of each.
    ///
    /// # Errors
    /// Which file has no or too short a range.
    pub fn ranges(&self) -> Result<&[Vec<IdRange>; 2], Lack> {
        self.ranges.get_or_init(|| self.find_ranges()).as_ref().map_err(Lack::clone)
    }

    fn find_ranges(&self) -> Result<[Vec<IdRange>; 2], Lack> {
        let user = self.user();
        let read = |path: &str| {
            let text = fs_err::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            (ids::of_user(&text, user.id, user.name.as_deref()), text)
        };
        let files = ["/etc/subuid", "/etc/subgid"];
        let [users, groups] = files.map(read);
        let short: Vec<_> = files
            .iter()
            .zip([&users, &groups])
            .filter(|(_, (ranges, _))| ids::total(ranges) < ids::LEAST)
            .collect();
        if short.is_empty() {
            return Ok([users.0, groups.0]);
        }
        let names: Vec<_> = short.iter().map(|(path, _)| **path).collect();
        let what = format!(
            "no range of {} ids for the user `{}` in {}",
            ids::LEAST,
            user.shown(),
            names.join(" and ")
        );
        let lines: Vec<_> = short
            .iter()
            .map(|(path, (_, text))| format!("`{}` to {path}", ids::free_line(text, &user.shown())))
            .collect();
        Err(Lack::new(what, format!("as root, add the line {}", lines.join(" and the line "))))
    }

    /// The programs that map ids.
    ///
    /// # Errors
    /// When one is missing.
    pub fn map_programs(&self) -> Result<&IdMap, Lack> {
        let find = || {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders: Vec<PathBuf> = std::env::split_paths(&path)
                .filter(|folder| folder.is_absolute())
                .chain(PROGRAM_FOLDERS.map(PathBuf::from))
                .collect();
            let program = |name: &str| {
                let found = folders
                    .iter()
                    .map(|folder| folder.join(name))
                    .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok());
                found.ok_or_else(|| {
                    Lack::new(
                        format!("the program `{name}` is missing"),
                        "install the package `uidmap` (Debian, Ubuntu), `shadow-utils` (Fedora) or `shadow-subids` (Alpine)",
                    )
                })
            };
            Ok(IdMap { users: program("newuidmap")?, groups: program("newgidmap")? })
        };
        self.programs.get_or_init(find).as_ref().map_err(Lack::clone)
    }

    /// Whether the process may make user namespaces whose root has rights; tried by making one.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn user_namespaces(&self) -> Result<(), Lack> {
        match self.namespaces.get() {
            Some(known) => known.clone(),
            // Whoever makes one notes how that went.
            None => self.new_namespace().map(drop),
        }
    }

    /// Whether the root of a user namespace may mount `/proc`: not where parts of the machine's own are hidden.
    ///
    /// # Errors
    /// Which part is hidden.
    pub fn proc_mounts(&self) -> Result<(), Lack> {
        let look = || match fs_err::read_to_string("/proc/self/mountinfo") {
            Ok(mounts) => find_masks(&mounts),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Lack::new(
                "no /proc is mounted",
                "mount one: as root, `mount -t proc proc /proc`",
            )),
            Err(error) => Err(Lack::found_by(
                &error,
                format!("cannot tell whether parts of /proc are hidden ({error})"),
                "see that /proc can be read",
            )),
        };
        self.proc_mounts.get_or_init(look).clone()
    }

    /// Whether the root of a user namespace may make overlays; tried by making one, in memory. Without them steps
    /// work on copies of their root.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn overlays(&self) -> Result<(), Lack> {
        let attempt = || {
            self.user_namespaces()?;
            let work =
                || step::try_overlay().map_or_else(|failure| failure.errno.clamp(1, 255), |()| 0);
            let error = match namespace::attempt(work) {
                Ok(0) => return Ok(()),
                Ok(errno) => io::Error::from_raw_os_error(errno),
                Err(error) => error,
            };
            Err(Lack::new(
                format!("the kernel makes no overlays in user namespaces ({error})"),
                "use Linux 5.11 or later, with the module `overlay` loaded (as root, `modprobe overlay`)",
            ))
        };
        self.overlays.get_or_init(attempt).clone()
    }

    fn new_namespace(&self) -> Result<Namespace, Lack> {
        match Namespace::new() {
            Ok(namespace) => {
                let _ = self.namespaces.set(Ok(()));
                Ok(namespace)
            }
            Err(error) => {
                let lack =
                    refused(&error, &|path| fs_err::read_to_string(path).unwrap_or_default());
                let _ = self.namespaces.set(Err(lack.clone()));
                Err(lack)
            }
        }
    }

    /// A user namespace with the ranges of the user.
    pub(super) fn rootless_namespace(&self) -> Result<(Namespace, Vec<IdRange>), Lack> {
        let ranges = self.ranges()?;
        let programs = self.map_programs()?;
        self.proc_mounts()?;
        let namespace = self.new_namespace()?;
        match namespace.map_ranges(programs, [&ranges[0], &ranges[1]]) {
            Ok(()) => Ok((namespace, ranges[0].clone())),
            Err(MapError::Program { name, message }) => Err(Lack::new(
                format!("{name} could not map the ids ({message})"),
                format!(
                    "see that `{}` is set-uid root (or has the file capability), that the file system it is on is \
                     not mounted `nosuid`, and that the process may gain rights (`no_new_privs` is off)",
                    programs.users.with_file_name(name).display()
                ),
            )),
            Err(MapError::Kernel(error)) => Err(Lack::found_by(
                &error,
                format!("the ids could not be mapped ({error})"),
                "see that newuidmap and newgidmap can be run by this user",
            )),
        }
    }

    /// A user namespace with one id.
    pub(super) fn single_id_namespace(&self) -> Result<Namespace, Lack> {
        self.proc_mounts()?;
        let namespace = self.new_namespace()?;
        namespace.map_own().map_err(|error| {
            Lack::found_by(
                &error,
                format!("the id of this user could not be mapped ({error})"),
                "see that /proc is mounted and may be written",
            )
        })?;
        Ok(namespace)
    }
}

/// Why user namespaces are refused, by the settings that do so.
fn refused(error: &io::Error, value: &dyn Fn(&str) -> String) -> Lack {
    let setting = SETTINGS.iter().find(|(path, off, ..)| value(path).trim() == *off);
    match setting {
        Some((_, _, what, lift)) => Lack::new(*what, *lift),
        None => Lack::found_by(
            error,
            format!("the kernel refuses user namespaces to this process ({error})"),
            "in a container, allow them: a seccomp profile without the restriction of `unshare` and `clone` \
             (`--security-opt seccomp=unconfined`); else see `user.max_user_namespaces`",
        ),
    }
}

/// Looks in a list of mounts for those that hide parts of `/proc`.
fn find_masks(mounts: &str) -> Result<(), Lack> {
    let hidden = mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|place| {
        Path::new(place).starts_with("/proc")
            && *place != "/proc"
            // A place of its own, that hides nothing.
            && *place != "/proc/sys/fs/binfmt_misc"
    });
    match hidden {
        None => Ok(()),
        Some(place) => Err(Lack::new(
            format!("no /proc can be mounted, as parts of this one are hidden (`{place}`)"),
            "run the container with `--security-opt systempaths=unconfined` (Docker, Podman) or \
             `procMount: Unmasked` (Kubernetes)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(file: &str, value: &str, what: &str, lift: &str) {
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let read = |path: &str| if path == file { value.to_owned() } else { "15000\n".to_owned() };
        assert_eq!(refused(&error, &read), Lack::new(what, lift));
    }

    #[test]
    fn the_setting_that_refuses_user_namespaces_is_named() {
        check_refused(
            "/proc/sys/user/max_user_namespaces",
            "0\n",
            "user namespaces are turned off (`user.max_user_namespaces` is 0)",
            "as root, set `sysctl -w user.max_user_namespaces=15000`",
        );
        check_refused(
            "/proc/sys/kernel/unprivileged_userns_clone",
            "0\n",
            "user namespaces are for root only (`kernel.unprivileged_userns_clone` is 0)",
            "as root, set `sysctl -w kernel.unprivileged_userns_clone=1`",
        );
        check_refused(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1\n",
            "AppArmor restricts user namespaces (`kernel.apparmor_restrict_unprivileged_userns` is 1)",
            "as root, set `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give this program an \
             AppArmor profile that allows `userns`",
        );
        check_refused(
            "",
            "",
            "the kernel refuses user namespaces to this process (Operation not permitted (os error 1))",
            "in a container, allow them: a seccomp profile without the restriction of `unshare` and `clone` \
             (`--security-opt seccomp=unconfined`); else see `user.max_user_namespaces`",
        );
    }

    #[test]
    fn what_hides_parts_of_proc_is_found() {
        let line = |place: &str| format!("36 25 0:32 / {place} rw,relatime - proc proc rw\n");
        let plain = [line("/"), line("/proc"), line("/proc/sys/fs/binfmt_misc"), line("/process")];
        assert_eq!(find_masks(&plain.concat()), Ok(()));
        let masked = find_masks(&[line("/proc"), line("/proc/kcore")].concat()).unwrap_err();
        assert_eq!(
            masked.what,
            "no /proc can be mounted, as parts of this one are hidden (`/proc/kcore`)"
        );
        assert!(masked.lift.contains("systempaths=unconfined"), "{}", masked.lift);
    }
}
