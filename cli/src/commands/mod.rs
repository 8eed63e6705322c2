//! One file per command: arguments, then `run`.

pub(crate) mod build;
mod call;
mod context;
mod deletion;
mod diff;
pub(crate) mod dockerfile;
mod doctor;
mod du;
mod engines;
mod epoch;
mod export;
mod facts;
mod guess;
mod history;
mod images;
mod inspect;
mod limits;
mod listing;
mod load;
mod login;
pub(crate) mod machine;
mod options;
mod print_llb;
mod prune;
mod pull;
mod push;
mod rmi;
mod rows;
mod save;
mod tag;
mod tidy;
mod transfers;
mod verify;

use std::error::Error as StdError;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use cache::CacheError;
use sandbox::SandboxError;
use solver::{Engine, EngineOptions, OpError, SolveError};

use crate::mistakes::word_mark;
use crate::report::{Excerpt, Exit, Failure, chain};

/// Runs the command with this name; `words` are its arguments behind its full name.
pub(crate) fn run(name: &str, words: &[OsString]) -> Result<Exit, Failure> {
    match name {
        "images" => crate::parse(words).and_then(|args| images::run(&args)),
        "inspect" => crate::parse(words).and_then(|args| inspect::run(&args)),
        "history" => crate::parse(words).and_then(|args| history::run(&args)),
        "diff" => crate::parse(words).and_then(|args| diff::run(&args)),
        "tag" => crate::parse(words).and_then(|args| tag::run(&args)),
        "load" => crate::parse(words).and_then(|args| load::run(&args)),
        "pull" => crate::parse(words).and_then(|args| pull::run(&args)),
        "rmi" => crate::parse(words).and_then(|args| rmi::run(&args)),
        "du" => crate::parse(words).and_then(|args| du::run(&args)),
        "prune" => crate::parse(words).and_then(|args| prune::run(&args)),
        "login" => crate::parse(words).and_then(login::login),
        "logout" => crate::parse(words).and_then(|args| login::logout(&args)),
        "push" => crate::parse(words).and_then(|args| push::run(&args)),
        "doctor" => crate::parse(words).and_then(|args| doctor::run(&args)),
        "save" => crate::parse(words).and_then(|args| save::run(&args)),
        _ => Err(Failure::new(Exit::Usage, format!("there is no command `{name}`"))),
    }
}

/// The option that every command has.
#[derive(Debug, clap::Args)]
pub(crate) struct RootArg {
    /// Folder of the builder's state
    #[arg(long, value_name = "PATH", env = "BRICKLAYER_ROOT")]
    root: Option<PathBuf>,
    /// How RUN steps were isolated: auto, root, rootless, single-id or chroot
    #[arg(long, value_name = "TIER", env = "BRICKLAYER_ISOLATION")]
    isolation: Option<String>,
}

impl RootArg {
    /// Opens the engine on that folder.
    pub(crate) fn engine(&self) -> Result<Engine, Failure> {
        Engine::open(self.options()?).map_err(|error| op_failure(&error))
    }

    /// Settings of an engine on that folder. The process, which has one thread, moves to where its files are its own.
    pub(crate) fn options(&self) -> Result<EngineOptions, Failure> {
        engine_options(self.root.as_deref(), None, self.isolation.as_deref())
    }
}

/// Settings of the engine: where its store is, how much it may do at once, and how steps are isolated.
///
/// The process, which has one thread, moves to where it builds.
pub(crate) fn engine_options(
    root: Option<&Path>,
    jobs: Option<usize>,
    isolation: Option<&str>,
) -> Result<EngineOptions, Failure> {
    // Whose folders they are must be known before the user is root of a namespace.
    let mut registry = client_options();
    let root = root.map_or_else(|| machine::default_root(true), |root| Ok(root.to_owned()))?;
    transfers::limit(&mut registry)?;
    Ok(EngineOptions {
        root,
        isolation: crate::isolation::enter(isolation)?,
        jobs,
        registry,
        git: crate::git::options(),
        resources: sandbox::Resources::default(),
    })
}

/// Settings of a registry client for the user: where credentials, mirrors and certificates are looked for.
pub(crate) fn client_options() -> registry::ClientOptions {
    let variable = |name: &str| std::env::var_os(name);
    registry::ClientOptions {
        auth_files: registry::auth_files(variable),
        config: registry::config_paths(variable),
        ..registry::ClientOptions::default()
    }
}

/// What to do about an image that is not there for the platform.
const OTHER_PLATFORM: &str =
    "choose one of these with --platform, or with FROM --platform=... for one stage";

/// What to do about a file that says how registries are reached.
const CONFIG: &str = "correct the file, or move it away; docs/registries.md says which files are read, and what may be in them";

/// Wording and exit code of an error of the engine.
pub(crate) fn op_failure(error: &OpError) -> Failure {
    let message = format!("failed to solve: {}", chain(error));
    if let Some(hint) = machine::exhausted(&message, matches!(error, OpError::Sandbox(_))) {
        return Failure::new(Exit::Machine, message).hint(hint);
    }
    match error {
        OpError::DiskFull { disk, .. } => state_is_full(message, disk),
        OpError::Store(error) => store_failure(error, message),
        OpError::Registry { source, .. } => registry_failure(source, message),
        OpError::Fetch { source, .. } => fetch_failure(source, message),
        OpError::WrongChecksum { .. } => Failure::new(Exit::Build, message).hint(
            "the file is not the one that --checksum names: check where it comes from, then correct the checksum",
        ),
        OpError::Git(error) => crate::git::failure(error, message),
        OpError::NoIsolation { lift, .. } => {
            Failure { hint: lift.clone(), ..Failure::new(Exit::Machine, message) }
        }
        OpError::Sandbox(SandboxError::WorkingDirectory { .. }) => Failure::new(Exit::Build, message)
            .hint("WORKDIR must be a folder of the image, without links of /proc on the way"),
        OpError::Isolation { hint, .. } => Failure::new(Exit::Machine, message).hint(hint),
        OpError::Sandbox(error) => {
            Failure::new(Exit::Machine, message).hint(machine::sandbox_hint(error))
        }
        OpError::Checksum { hint, missing, .. } => {
            let meant = missing.as_deref().and_then(meant);
            Failure { hint: joined(hint.clone(), meant), ..Failure::new(Exit::Build, message) }
        }
        OpError::Process { hint, .. } => {
            Failure { hint: hint.clone(), ..Failure::new(Exit::Build, message) }
        }
        OpError::MountSource { path } => Failure::new(Exit::Build, message).hint(format!(
            "there is no `{}` in the stage or image that is mounted",
            path.display()
        )),
        OpError::Canceled => Failure::new(Exit::Interrupted, "canceled"),
        OpError::File(_) | OpError::Io { .. } | OpError::Passwd(_) => file_failure(error, message),
        OpError::OtherPlatform { .. } => Failure::new(Exit::Build, message).hint(OTHER_PLATFORM),
        OpError::Device { .. } => Failure::new(Exit::Build, message)
            .hint("a device that is not required is left out: is the step of use without it?"),
        OpError::SshNotFound { id } => Failure::new(Exit::Build, message)
            .hint(format!("give it with `--ssh {id}`, or `--ssh {id}=SOCKET` for another agent than yours")),
        OpError::Cgroup(_) => Failure::new(Exit::Usage, message)
            .hint("check --resource and --cgroup-parent against what the machine has"),
        OpError::SecretLeak { .. } => crate::guard::layer_failure(message),
        OpError::SecretNotFound { id } => Failure::new(Exit::Build, message).hint(format!(
            "give it with --secret id={id},src=PATH or --secret id={id},env=VARIABLE"
        )),
        _ => Failure::new(Exit::Build, message),
    }
}

/// Wording and exit code of a file that cannot be read or made.
fn file_failure(error: &OpError, message: String) -> Failure {
    if is_disk_full(error) {
        return disk_full(message);
    }
    let denied = cause::<std::io::Error>(error)
        .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    match denied {
        false => Failure::new(Exit::Build, message),
        true if rustix::process::geteuid().is_root() => Failure::new(Exit::Machine, message),
        true => Failure::new(Exit::Machine, message).hint(
            "reading every file and keeping owners needs rights that this user lacks: run this \
             command as root or with sudo",
        ),
    }
}

/// The path that is there and whose name is near to one that is not.
fn meant(missing: &solver::MissingPart) -> Option<String> {
    let others = || missing.others.iter().map(String::as_str);
    let near = others()
        .find(|other| other.eq_ignore_ascii_case(&missing.name))
        .or_else(|| llb::suggest::nearest(&missing.name, others()))?;
    Some(format!("did you mean `{}`?", missing.folder.join(near).display()))
}

fn joined(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) => Some(format!("{first}; {second}")),
        (first, second) => first.or(second),
    }
}

fn is_disk_full(error: &(dyn StdError + 'static)) -> bool {
    cause::<std::io::Error>(error).is_some_and(|error| {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(error.kind(), StorageFull | QuotaExceeded)
    })
}

/// The innermost error of a type among an error and its causes.
fn cause<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        found = error.downcast_ref::<E>().or(found);
        // An I/O error that wraps another error leaves it out of the causes.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    found
}

/// The disk of something that is not the builder's state is full, or nobody knows which.
fn disk_full(message: String) -> Failure {
    Failure::new(Exit::Machine, message)
        .hint("the disk is full: free some space, for example with `build prune`, or choose another place with --root")
}

/// The disk that an output is written to is full.
fn output_is_full(message: String, path: Option<&Path>) -> Failure {
    let disk = path.and_then(|path| cache::FileSystem::of(path).ok());
    let disk = disk.map(|disk| format!(" ({disk})")).unwrap_or_default();
    Failure::new(Exit::Machine, message).hint(format!(
        "the disk that the output is written to is full{disk}: free some space there, or write elsewhere"
    ))
}

/// The disk of the builder's state is full.
fn state_is_full(message: String, disk: &cache::FileSystem) -> Failure {
    // The database calls it a full disk too when a file may not grow.
    if let Some(hint) = machine::small_files(disk.free()) {
        return Failure::new(Exit::Machine, message).hint(hint);
    }
    Failure::new(Exit::Machine, message).hint(format!(
        "the disk that holds the builder's state is full ({disk}): free some space, for example with \
         `build prune`, or choose another place with --root"
    ))
}

/// Wording and exit code of an error of the store.
pub(crate) fn store_failure(error: &CacheError, message: String) -> Failure {
    if let CacheError::NoSpace { path, .. } = error
        && let Ok(disk) = cache::FileSystem::of(path)
    {
        return state_is_full(message, &disk);
    }
    if is_disk_full(error) {
        return disk_full(message);
    }
    if let Some(error) = cause::<registry::Error>(error) {
        return registry_failure(error, message);
    }
    match error {
        CacheError::Permission { .. } => Failure::new(Exit::Machine, message).hint(
            "choose a folder that you may write with --root or BRICKLAYER_ROOT, or run as root",
        ),
        CacheError::NoSpace { .. } => disk_full(message),
        CacheError::BrokenLayer { origin, .. } => {
            let is_remote = origin.starts_with("docker-image://");
            Failure::new(if is_remote { Exit::Network } else { Exit::Build }, message)
                .hint("the image is broken there, and will be for everybody: push it anew, or use another")
        }
        CacheError::DamagedLayer { .. } | CacheError::LayerGone(_) => {
            Failure::new(Exit::Machine, message).hint("build again: what is lost is made once more")
        }
        CacheError::Damaged { .. } => Failure::new(Exit::Machine, message)
            .hint("run the command again: it starts with an empty database, and builds what is needed again"),
        CacheError::Format { root, .. } => {
            let hint = "choose another folder with --root or BRICKLAYER_ROOT";
            let hint = match machine::maker(root) {
                Some(tier) => format!(
                    "{hint}; owners and deletions are kept in another way by each kind of isolation, and this store \
                     was made with --isolation={tier}"
                ),
                None => hint.to_owned(),
            };
            Failure::new(Exit::Machine, message).hint(hint)
        }
        CacheError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory => {
            Failure::new(Exit::Machine, message).hint(
                "the builder's state needs a folder: choose one with --root or BRICKLAYER_ROOT",
            )
        }
        _ => Failure::new(Exit::Machine, message),
    }
}

/// Wording and exit code of an error of the registry.
pub(crate) fn registry_failure(error: &registry::Error, message: String) -> Failure {
    let failure = Failure::new(Exit::Network, message);
    match error.decisive() {
        registry::Error::Config { .. } => Failure { exit: Exit::Usage, ..failure }.hint(CONFIG),
        registry::Error::Blocked { .. } => Failure { exit: Exit::Usage, ..failure }
            .hint("use an image of another registry, or take `blocked` out of the table in that file"),
        registry::Error::NotFound { lacks_repository: true, .. } => failure.hint("the registry has no repository of this name, whatever the tag: check the name; some registries also say so without a login"),
        registry::Error::NotFound { .. } => failure.hint("check the name and tag; a registry's host comes first, as in `registry.example.com/team/app:1.0`"),
        registry::Error::Unauthorized { host, login: Some(login), .. } => failure.hint(format!(
            "the login as {login} was refused, or may not do this: log in again with `build login {host}`, or ask for the right"
        )),
        registry::Error::Unauthorized { host, .. } => {
            failure.hint(format!("check the name, and log in with `build login {host}`"))
        }
        registry::Error::Unreachable { hint, .. } => failure.hint(*hint),
        registry::Error::UnknownRepository { .. } => {
            failure.hint("check the name; some registries need a repository to be created before the first push")
        }
        registry::Error::DeadlineExceeded => failure.hint(format!(
            "give transfers more time with ${}, such as 3h, or 0 for no limit",
            transfers::TIMEOUT
        )),
        registry::Error::NoMatchingPlatform { offered, .. } if offered.is_empty() => failure,
        registry::Error::NoMatchingPlatform { .. } => failure.hint(OTHER_PLATFORM),
        _ => failure,
    }
}

/// Wording and exit code of a file behind a URL that could not be had.
fn fetch_failure(error: &registry::FetchError, message: String) -> Failure {
    let exit = match error {
        registry::FetchError::Url { .. } => Exit::Build,
        _ => Exit::Network,
    };
    Failure { hint: error.hint().map(str::to_owned), ..Failure::new(exit, message) }
}

/// Wording and exit code of an error about an image of the store.
pub(crate) fn image_failure(error: &CacheError, name: &str) -> Failure {
    match error {
        CacheError::UnknownImage(_) => {
            Failure::new(Exit::Build, format!("no such image: `{name}`"))
                .hint("`build images` lists what is there")
        }
        CacheError::AmbiguousImage { .. } => {
            Failure::new(Exit::Build, chain(error)).hint("give more digits of the id")
        }
        _ => store_failure(error, chain(error)),
    }
}

/// Wording and exit code of a vertex that failed.
fn solve_failure(error: &SolveError) -> Failure {
    let mut failure = op_failure(&error.error);
    if !error.log.is_empty() {
        failure.log = Some(Box::new((error.vertex.clone(), error.log.clone())));
    }
    failure.sources = error.sources.iter().cloned().map(Excerpt::from).collect();
    if let Some(innermost) = failure.sources.first_mut() {
        innermost.mark = match &error.error {
            OpError::Checksum { path, .. } => {
                word_mark(&innermost.range, &path.to_string_lossy(), "not found")
            }
            OpError::Device { name } => word_mark(&innermost.range, name, "not supported"),
            _ => None,
        };
    }
    failure
}
