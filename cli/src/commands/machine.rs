//! What the machine keeps back from a process: limits, a home folder, file systems without devices.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::io::Errno;
use rustix::process::Resource;
use sandbox::SandboxError;
use tree::layer::LayerDir;
use tree::stack::Stack;

use crate::report::{Exit, Failure};

/// `/var/lib/bricklayer` for root, else below the user's data folder: that of the environment, or that of the user's
/// entry in `/etc/passwd`. A user who has neither gets a folder that is its own in `/var/tmp`, made if `make`.
pub(crate) fn default_root(make: bool) -> Result<PathBuf, Failure> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return Ok(PathBuf::from("/var/lib/bricklayer"));
    }
    let variable =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || match variable("HOME") {
        Some(home) => is_home(&home, user.as_raw()).then_some(home),
        None => home_of(user.as_raw()),
    };
    match variable("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local/share"))) {
        Some(data) => Ok(data.join("bricklayer")),
        None => own_folder(&Path::new("/var/tmp").join(format!("bricklayer-{user}")), make),
    }
}

/// Whether a folder is a user's own, or one where the user may keep something. Containers give users without a name
/// `/` for a home.
fn is_home(home: &Path, user: u32) -> bool {
    let is_own = |path: &Path| fs::metadata(path).is_ok_and(|found| found.uid() == user);
    let data = home.join(".local/share/bricklayer");
    let there = data.ancestors().find(|path| path.exists()).unwrap_or(home);
    is_own(home) || rustix::fs::access(there, rustix::fs::Access::WRITE_OK).is_ok()
}

/// The kind of isolation that a store was made with, by how it keeps owners and deletions.
pub(crate) fn maker(root: &Path) -> Option<sandbox::Tier> {
    use sandbox::Tier;
    let format = fs::read_to_string(root.join("format")).ok()?;
    let is = |line: &str| format.lines().any(|found| found == line);
    let is_native = is("owners native");
    [
        (is_native && is("whiteouts trusted"), Tier::Root),
        (is_native, Tier::Chroot),
        (is("owners ranged"), Tier::Rootless),
        (is("owners recorded"), Tier::SingleId),
    ]
    .into_iter()
    .find_map(|(is, tier)| is.then_some(tier))
}

/// The home folder of a user, if there is such a folder.
fn home_of(user: u32) -> Option<PathBuf> {
    let machine = Stack::new(vec![LayerDir::new("/")]);
    let home = tree::passwd::step_user(&machine, &format!("{user}:0")).ok()?.home;
    (home.is_absolute() && home != Path::new("/") && home.is_dir()).then_some(home)
}

/// A folder where everybody may make one: it must be this user's, since whoever made it decides what is in images.
fn own_folder(path: &Path, make: bool) -> Result<PathBuf, Failure> {
    if make {
        // One that is there is looked at like one that was made.
        let _ = rustix::fs::mkdir(path, rustix::fs::Mode::RWXU);
    }
    let is_own = match fs::symlink_metadata(path) {
        Ok(found) => {
            let user = rustix::process::geteuid().as_raw();
            found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0
        }
        Err(_) => !make,
    };
    if is_own {
        return Ok(path.to_owned());
    }
    let message = format!(
        "cannot keep the builder's state in `{}`: it is not a folder of this user alone",
        path.display()
    );
    Err(Failure::new(Exit::Machine, message)
        .hint("this user has no home folder: choose one with HOME, --root or BRICKLAYER_ROOT"))
}

/// What to do when a process may not have as much as it needs; `None` when that is not what failed.
///
/// The text tells, wherever it comes from: not every error on the way keeps the number.
pub(crate) fn exhausted(message: &str, is_of_step: bool) -> Option<String> {
    let is = |errno: Errno| message.contains(&format!("(os error {})", errno.raw_os_error()));
    if is(Errno::NOENT)
        && let Some(lift) = bare()
    {
        return Some(lift);
    }
    if is(Errno::FBIG)
        && let Some(hint) = small_files(u64::MAX)
    {
        return Some(hint);
    }
    if is(Errno::MFILE) {
        return Some(format!(
            "this process may have {} files open: allow it more, with `ulimit -n 1024` or --ulimit of the container",
            limit(Resource::Nofile)
        ));
    }
    (is_of_step && is(Errno::AGAIN)).then(processes)
}

/// What to do where a process may not write files as large as the disk would take.
pub(crate) fn small_files(free: u64) -> Option<String> {
    let limit =
        rustix::process::getrlimit(Resource::Fsize).current.filter(|limit| *limit < free)?;
    Some(format!(
        "this process may write files of {limit} bytes: allow it more, with `ulimit -f unlimited`"
    ))
}

/// What to do where something is missing that every machine has.
fn bare() -> Option<String> {
    let missing = [
        (
            "/proc/self",
            "no /proc is mounted, and nothing works without: as root, `mount -t proc proc /proc`",
        ),
        (
            "/dev/null",
            "there is no `/dev/null`: make one as root, with `mknod -m 666 /dev/null c 1 3`",
        ),
    ];
    let (_, lift) = missing.into_iter().find(|(path, _)| !Path::new(path).exists())?;
    Some(lift.to_owned())
}

/// That the main thread has no room to work in.
pub(crate) fn missing_stack() -> Option<Failure> {
    let size = sandbox::missing_stack()?;
    Some(
        Failure::new(Exit::Machine, format!("the stack of this process may have {size} bytes"))
            .hint("allow it more, with `ulimit -s 8192`"),
    )
}

fn processes() -> String {
    format!(
        "this user may have {} processes and threads, and a container as many as its `pids` limit says: allow more \
         (`ulimit -u`), or build less at once with --jobs",
        limit(Resource::Nproc)
    )
}

fn limit(resource: Resource) -> String {
    let limit = rustix::process::getrlimit(resource).current;
    limit.map_or_else(|| "any number of".to_owned(), |limit| limit.to_string())
}

/// Has a process that may have no more threads say so, and end like one that the machine gives nothing else.
pub(crate) fn report_missing_threads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        let is_about_threads = text.contains("spawn") && text.contains("thread")
            || text.contains("thread pool has not been initialized");
        if !is_about_threads {
            return usual(panic);
        }
        let failure = Failure::new(Exit::Machine, "cannot start a thread").hint(processes());
        crate::report::fail(&failure);
        std::process::exit(Exit::Machine as i32)
    }));
}

/// What may be behind a step that cannot be set up.
pub(crate) fn sandbox_hint(error: &SandboxError) -> String {
    let hint = match error {
        SandboxError::NoNamespaces { lack } => &lack.lift,
        SandboxError::TooManyLayers { .. } => {
            "put several commands into one RUN, or begin from an image with fewer layers: each RUN, COPY and ADD makes one"
        }
        SandboxError::Setup { action, .. } if action.starts_with("set the limit `") => {
            "a step may have what the builder may have, and more only where that is root of the machine: ask for less \
             with --ulimit, or raise the limit of the builder"
        }
        SandboxError::Setup { action, .. } if action.contains("state folder do nothing") => {
            "the folder is on a file system that takes no devices (`nodev`): choose another with --root or BRICKLAYER_ROOT"
        }
        _ => {
            "RUN needs mounts, namespaces and seccomp: the container or machine this runs in must allow them; \
             `build doctor` tells what it gives"
        }
    };
    hint.to_owned()
}
