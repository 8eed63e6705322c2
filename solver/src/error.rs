//! Why a definition could not be solved.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::path::PathBuf;

use llb::SourceRange;
use sandbox::Tier;
use thiserror::Error;

use crate::op::missing::MissingPart;
use crate::op::source::git::GitError;

/// A vertex that failed, with everything a user needs to find it.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct SolveError {
    /// Name of the vertex as shown in the progress.
    pub vertex: String,
    /// Where it comes from.
    pub sources: Vec<SourceRange>,
    /// Last lines that the step wrote.
    pub log: Vec<String>,
    /// What went wrong.
    #[source]
    pub error: OpError,
}

/// What went wrong in one vertex.
#[derive(Debug, Error)]
pub enum OpError {
    /// The step's process ended badly.
    #[error("process {command} did not complete successfully: {reason}")]
    Process {
        /// Arguments, quoted as one string.
        command: String,
        /// Exit code or start failure.
        reason: String,
        /// Exit code, when there was one.
        code: Option<i32>,
        /// What to do about it.
        hint: Option<String>,
    },
    /// A path that a COPY, ADD or bind mount names is not there.
    #[error(
        "failed to compute cache key: failed to calculate checksum of ref {reference}: {message}"
    )]
    Checksum {
        /// What was looked into: the name of a context or a vertex.
        reference: String,
        /// Path and reason.
        message: String,
        /// The path, absolute in what was looked into.
        path: PathBuf,
        /// What to do about it.
        hint: Option<String>,
        /// Where the path ends, for telling what may be meant.
        missing: Option<Box<MissingPart>>,
    },
    /// A file action failed.
    #[error(transparent)]
    File(#[from] tree::TreeError),
    /// An owner could not be looked up.
    #[error(transparent)]
    Passwd(tree::passwd::PasswdError),
    /// Something of the definition that this builder cannot do.
    #[error("{0} is not supported yet")]
    NotSupported(String),
    /// A vertex that no builder could run, such as a file action that uses a later one.
    #[error("invalid definition: {0}")]
    Invalid(String),
    /// A source that nobody gave.
    #[error("{kind} `{name}` was not given to this build")]
    Missing {
        /// Kind of thing, such as `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A path of an image or stage that a mount names is not there.
    #[error("open {}: no such file or directory", path.display())]
    MountSource {
        /// The path.
        path: PathBuf,
    },
    /// A required secret that nobody gave.
    #[error("secret {id}: not found")]
    SecretNotFound {
        /// Its id.
        id: String,
    },
    /// The value of a secret is in the layer that a vertex has made.
    #[error("the layer of this step gives a secret away: {found}")]
    SecretLeak {
        /// Where which secret is, without its value.
        found: String,
    },
    /// A required ssh agent that nobody gave.
    #[error("unset ssh forward key {id}")]
    SshNotFound {
        /// Its id.
        id: String,
    },
    /// A CDI device that a step cannot do without.
    #[error("CDI device {name} is required, and CDI devices are not supported")]
    Device {
        /// Its qualified name.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] cache::CacheError),
    /// The disk is full, and nothing in the store could be removed to make enough room.
    #[error("{source}")]
    DiskFull {
        /// The disk of the store.
        disk: cache::FileSystem,
        /// What could not be done.
        #[source]
        source: Box<OpError>,
    },
    /// The machine gives nothing that a step could be isolated with.
    #[error("RUN is not possible here: {reason}")]
    NoIsolation {
        /// What is missing.
        reason: String,
        /// What would lift it.
        lift: Option<String>,
    },
    /// The limits of a step are not ones that the kernel takes.
    #[error("cannot limit what the step uses: {}", chain(.0))]
    Cgroup(sandbox::CgroupError),
    /// The way in which steps are isolated cannot do what one asks for.
    #[error("isolation `{tier}` {what}")]
    Isolation {
        /// The tier.
        tier: Tier,
        /// What it does not do: `has no network of its own for a step`.
        what: String,
        /// What to do about it.
        hint: String,
    },
    /// The sandbox failed.
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    /// The registry failed.
    #[error("failed to resolve source metadata for {reference}: {source}")]
    Registry {
        /// What was asked for.
        reference: String,
        /// What it answered.
        #[source]
        source: Box<registry::Error>,
    },
    /// A file behind a URL could not be had.
    #[error("failed to fetch {url}: {source}")]
    Fetch {
        /// The URL, without credentials.
        url: String,
        /// Why not.
        #[source]
        source: Box<registry::FetchError>,
    },
    /// A file behind a URL is not the one that was asked for. The wording is the reference's.
    #[error("digest mismatch for {url}: {got} (expected: {want})")]
    WrongChecksum {
        /// The URL, without credentials.
        url: String,
        /// Digest of the file.
        got: llb::Digest,
        /// The digest that was asked for.
        want: llb::Digest,
    },
    /// A git repository could not be had.
    #[error(transparent)]
    Git(Box<GitError>),
    /// An OCI layout could not be read.
    #[error("failed to resolve source metadata for {name}: {message}")]
    Layout {
        /// Named context or path.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// An OCI layout has the image for other platforms only.
    #[error(
        "failed to resolve source metadata for {name}: no image for platform `{platform}`, there are {offered}"
    )]
    OtherPlatform {
        /// Named context or path.
        name: String,
        /// The platform that was asked for.
        platform: String,
        /// Those that there are.
        offered: String,
    },
    /// The file system failed.
    #[error("{action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: std::io::Error,
    },
    /// The build was stopped.
    #[error("canceled")]
    Canceled,
}

impl OpError {
    /// Whether an image is there, but not for the platform that was asked for.
    pub fn is_other_platform(&self) -> bool {
        match self {
            Self::OtherPlatform { .. } => true,
            Self::Registry { source, .. } => {
                matches!(**source, registry::Error::NoMatchingPlatform { .. })
            }
            _ => false,
        }
    }

    /// Whether the vertex was stopped rather than failed by itself.
    pub fn is_canceled(&self) -> bool {
        let is_stopped_fetch = matches!(self, Self::Fetch { source, .. }
            if matches!(**source, registry::FetchError::Cancelled));
        matches!(self, Self::Canceled | Self::Sandbox(sandbox::SandboxError::Cancelled))
            || is_stopped_fetch
            || is_stopped_transfer(self)
    }
}

/// Whether a request to a registry was stopped somewhere below.
fn is_stopped_transfer(error: &(dyn StdError + 'static)) -> bool {
    if let Some(OpError::Registry { source, .. }) = error.downcast_ref() {
        return matches!(**source, registry::Error::Cancelled);
    }
    if let Some(error) = error.downcast_ref::<registry::Error>() {
        return matches!(error, registry::Error::Cancelled);
    }
    // An I/O error that wraps another error leaves it out of the causes.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let cause = wrapped.map(|error| error as &(dyn StdError + 'static)).or_else(|| error.source());
    cause.is_some_and(is_stopped_transfer)
}

/// An error and its causes in one line, without saying anything twice.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}
