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
    let home = || variable("HOME").or_else(|| home_of(user.as_raw()));
    match variable("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local/share"))) {
        Some(data) => Ok(data.join("bricklayer")),
        None => own_folder(&Path::new("/var/tmp").join(format!("bricklayer-{user}")), make),
    }
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
    if is(Errno::MFILE) {
        return Some(format!(
            "this process may have {} files open: allow it more, with `ulimit -n 1024` or --ulimit of the container",
            limit(Resource::Nofile)
        ));
    }
    (is_of_step && is(Errno::AGAIN)).then(processes)
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
pub(crate) fn sandbox_hint(error: &SandboxError) -> &'static str {
    match error {
        SandboxError::Setup { action, .. } if action.contains("state folder do nothing") => {
            "the folder is on a file system that takes no devices (`nodev`): choose another with --root or BRICKLAYER_ROOT"
        }
        _ => {
            "RUN needs mounts, namespaces and seccomp: the container or machine this runs in must allow them; \
             `build doctor` tells what it gives"
        }
    }
}
