//! Why a git source could not be had.

use std::io;

use llb::GitUrl;
use llb::git_url::InvalidGitUrl;
use thiserror::Error;

use crate::error::OpError;

/// Why a git source could not be had.
#[derive(Debug, Error)]
pub enum GitError {
    /// git could not be started.
    #[error("cannot run git")]
    Program {
        /// How that failed.
        #[source]
        source: io::Error,
    },
    /// git is too old to be run in safety.
    #[error("git {found} is too old: {wanted} or later is needed")]
    Version {
        /// The version that was found.
        found: String,
        /// The oldest that will do.
        wanted: &'static str,
    },
    /// The source op says what no source can be.
    #[error("invalid git source: {0}")]
    Source(String),
    /// A repository could not be read from where it is.
    #[error("failed to fetch remote {url}: {message}")]
    Remote {
        /// Its address, without credentials.
        url: String,
        /// What kind of trouble it is.
        trouble: Trouble,
        /// What git said.
        message: String,
    },
    /// The repository has no such branch, tag or commit. The wording is the reference's.
    #[error("repository does not contain ref {name}: {url}")]
    NoRef {
        /// Its address, without credentials.
        url: String,
        /// What was asked for.
        name: String,
    },
    /// Several commits begin as the one that is asked for.
    #[error("commit {name} is ambiguous in {url}")]
    Ambiguous {
        /// The repository's address, without credentials.
        url: String,
        /// The beginning of a commit id.
        name: String,
    },
    /// It is another commit than it must be. The wording is the reference's.
    #[error("expected checksum to match {wanted}, got {found}")]
    Checksum {
        /// The beginning of the commit id that it must have.
        wanted: String,
        /// What was found.
        found: String,
    },
    /// A tree that git refuses to write, for where its files would be.
    #[error("cannot check out {url}: {message}")]
    Tree {
        /// The repository's address, without credentials.
        url: String,
        /// What git said.
        message: String,
    },
    /// A folder of the repository cannot be used.
    #[error("failed to open subdir {subdir}: {reason}")]
    Subdir {
        /// The folder as it was asked for.
        subdir: String,
        /// Why not.
        reason: String,
    },
    /// A submodule could not be had.
    #[error("failed to update submodule `{path}`")]
    Submodule {
        /// Where it belongs.
        path: String,
        /// Why not.
        #[source]
        source: Box<OpError>,
    },
    /// A submodule that nothing is known of.
    #[error("no url found for submodule path `{path}` in .gitmodules")]
    NoSubmoduleUrl {
        /// Where it belongs.
        path: String,
    },
    /// A submodule whose address is none that is taken.
    #[error("submodule `{path}` has the address `{url}`, which is not taken")]
    SubmoduleUrl {
        /// Where it belongs.
        path: String,
        /// The address, without credentials.
        url: String,
        /// Why not.
        #[source]
        source: InvalidGitUrl,
    },
    /// Submodules are nested without end.
    #[error("submodules are nested too deeply in {0}")]
    TooDeep(String),
    /// A secret cannot be used as what it is for.
    #[error("secret {id} cannot be used for git: {reason}")]
    Secret {
        /// Its id.
        id: String,
        /// Why not.
        reason: String,
    },
    /// git failed in the store.
    #[error("git could not {action}: {message}")]
    Local {
        /// What it was to do.
        action: &'static str,
        /// What it said.
        message: String,
    },
}

impl GitError {
    /// Whether git failed in the store, at whatever depth of submodules.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Local { .. } => true,
            Self::Submodule { source, .. } => {
                matches!(&**source, OpError::Git(error) if error.is_local())
            }
            _ => false,
        }
    }
}

/// Kinds of trouble with a repository elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers, or the connection broke.
    Unreachable,
    /// There is nothing there, or nothing for those who give no credentials.
    NotFound,
    /// Credentials are missing or were refused.
    Denied,
    /// The key of an ssh host is not known.
    HostKey,
    /// The server sends on to another address.
    Redirected,
    /// Another.
    Other,
}

impl Trouble {
    /// What the words of git about an address mean.
    pub(super) fn of(words: &str, url: &GitUrl) -> Self {
        // What the address is called says nothing.
        let address = url.without_credentials();
        let text = words.replace(address.trim_end_matches('/'), "ADDRESS").to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["host key verification failed"]) {
            Self::HostKey
        } else if says(&[
            "could not read username",
            "could not read password",
            "authentication failed",
            "returned error: 401",
            "returned error: 403",
            "permission denied",
            "invalid credentials",
            "access denied",
        ]) {
            Self::Denied
        } else if says(&["returned error: 30", "update url base from redirection"]) {
            Self::Redirected
        } else if says(&[
            "repository not found",
            "returned error: 404",
            "returned error: 410",
            "does not appear to be a git repository",
            "not valid: is this a git repository",
            "not exported",
        ]) || (says(&["repository 'address"]) && says(&["not found"]))
        {
            Self::NotFound
        } else if says(&[
            "could not resolve",
            "couldn't resolve",
            "unable to look up",
            "failed to connect",
            "couldn't connect",
            "unable to connect",
            "connection refused",
            "connection timed out",
            "connection reset",
            "connection closed",
            "network is unreachable",
            "no route to host",
            "timed out",
            "too slow",
            "ssl",
            "certificate",
            "tls",
            "rpc failed",
            "early eof",
            "hung up unexpectedly",
            "empty reply",
            "returned error: 5",
            "returned error: 429",
            "proxy",
            "unexpected disconnect",
        ]) {
            Self::Unreachable
        } else {
            Self::Other
        }
    }
}

/// Whether a server refuses this way of asking, but may give the same in another way.
pub(super) fn is_refused(stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    [
        "not our ref",
        "unadvertised object",
        "shallow",
        "--depth",
        "dumb http",
        "couldn't find remote ref",
        "could not find remote ref",
        "no such remote ref",
        "bad object",
        "unable to update local ref",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Whether git found its own files damaged, as they can be after a power cut.
pub(super) fn is_damage(words: &str) -> bool {
    let text = words.to_ascii_lowercase();
    ["corrupt", "is empty", "unable to read", "bad pack", "bad signature", "unable to parse"]
        .iter()
        .any(|words| text.contains(words))
}

impl From<GitError> for OpError {
    fn from(error: GitError) -> Self {
        Self::Git(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_git_are_understood() {
        let url = GitUrl::parse("http://h/x.git").unwrap();
        for (text, expect) in [
            (
                "fatal: unable to access 'http://h/': Could not resolve host: h",
                Trouble::Unreachable,
            ),
            (
                "fatal: unable to access 'http://h/': Failed to connect to h port 80",
                Trouble::Unreachable,
            ),
            ("fatal: repository 'http://h/x.git/' not found", Trouble::NotFound),
            (
                "fatal: could not read Username for 'http://h': terminal prompts disabled",
                Trouble::Denied,
            ),
            ("fatal: Authentication failed for 'http://h/x.git/'", Trouble::Denied),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.",
                Trouble::Denied,
            ),
            (
                "Host key verification failed.\nfatal: Could not read from remote repository.",
                Trouble::HostKey,
            ),
            (
                "fatal: unable to access 'http://h/': The requested URL returned error: 502",
                Trouble::Unreachable,
            ),
            (
                "fatal: unable to access 'http://h/': The requested URL returned error: 301",
                Trouble::Redirected,
            ),
            ("fatal: 'x' does not appear to be a git repository", Trouble::NotFound),
            ("fatal: something else", Trouble::Other),
        ] {
            assert_eq!(Trouble::of(text, &url), expect, "{text}");
        }
        assert!(is_refused("fatal: dumb http transport does not support shallow capabilities"));
        assert!(!is_refused("fatal: unable to access"));
    }
}
