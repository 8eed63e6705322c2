//! Errors of the sandbox.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::tier::{Lack, Tier};

/// Why the builder cannot work in the way that was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IsolationError {
    /// The machine does not give what a tier needs.
    #[error("isolation `{tier}` is not possible here: {}", lack.what)]
    Missing {
        /// The tier that was asked for.
        tier: Tier,
        /// What it lacks, and what to do about it.
        lack: Lack,
    },
    /// Too little of something was left to find out what the machine gives.
    #[error("cannot find out how steps can be isolated: {}", lack.what)]
    Unknown {
        /// What could not be tried, and what to do about it.
        lack: Lack,
    },
    /// The namespace is there but cannot be entered.
    #[error("cannot enter the user namespace")]
    Enter(#[source] io::Error),
    /// The kernel does not tell the rights of the process.
    #[error("cannot read the capabilities of the process")]
    Capabilities(#[source] io::Error),
}

/// Why a step could not be run to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The helper process that starts steps did not come up.
    #[error("cannot start the sandbox helper process")]
    Start(#[source] io::Error),
    /// The helper process ended while the step was running or about to.
    #[error("the sandbox helper process ended unexpectedly")]
    HelperLost,
    /// A descriptor, pipe or socket of the supervising side could not be had.
    #[error("cannot {action} for a step")]
    Supervise {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The step was cancelled; nothing of it runs any more.
    #[error("the step was cancelled")]
    Cancelled,
    /// A text that goes to the kernel holds a NUL byte, or the argument vector is empty.
    #[error("{what} of the step cannot be handed to a process")]
    Unusable {
        /// Which part of the spec.
        what: &'static str,
    },
    /// The kernel stacks no more layers.
    #[error("{count} layers are too many for one file system: the kernel stacks at most {max}")]
    TooManyLayers {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The kernel makes no overlay of the folders of the step, which may do as a plain folder.
    #[error("cannot {action}")]
    OverlayRefused {
        /// What was tried, with the path concerned.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The kernel makes no more namespaces of a kind.
    #[error("cannot make the namespaces of a step: {}", lack.what)]
    NoNamespaces {
        /// Which limit it is, and what to do about it.
        lack: Lack,
    },
    /// The surroundings of the step could not be set up.
    #[error("cannot {action}")]
    Setup {
        /// What was tried, with the path concerned.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("cannot enter the working directory `{path}`")]
    WorkingDirectory {
        /// The directory, as the step sees it.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The program of the step cannot be run.
    #[error("exec: \"{program}\": {reason}")]
    Exec {
        /// The first argument.
        program: String,
        /// What is wrong with it.
        reason: ExecReason,
    },
}

/// What is wrong with a program.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecReason {
    /// No directory of `PATH` has it.
    #[error("executable file not found in $PATH")]
    NotInPath,
    /// There is no such file, or its interpreter is missing.
    #[error("stat {path}: no such file or directory")]
    Missing {
        /// What was looked for.
        path: String,
    },
    /// It is there, but the interpreter that it names is not.
    #[error("no such file or directory (is its interpreter missing?)")]
    NoInterpreter,
    /// It is a directory.
    #[error("is a directory")]
    Directory,
    /// It may not be executed.
    #[error("permission denied")]
    Denied,
    /// It is not a program that this machine runs.
    #[error("exec format error")]
    Format,
    /// The kernel refused it for another reason.
    #[error("{}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// Number of the error.
        errno: i32,
    },
}
