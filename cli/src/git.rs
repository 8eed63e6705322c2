//! git, as the user's side knows it: its surroundings, and what to do when it fails.

use std::path::PathBuf;

use solver::{GitError, GitOptions, Trouble};

use crate::commands::op_failure;
use crate::report::{Exit, Failure};

/// Variables that git and ssh get.
const VARIABLES: [&str; 15] = [
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "CURL_CA_BUNDLE",
];

/// How git is run.
pub(crate) fn options() -> GitOptions {
    let variable = |name: &str| Some((name.into(), std::env::var_os(name)?));
    GitOptions { environment: VARIABLES.iter().filter_map(|name| variable(name)).collect() }
}

/// The socket of the user's ssh agent, which is the one called `default`.
pub(crate) fn ssh_agent(id: &str) -> Option<PathBuf> {
    let socket = std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty())?;
    (id == "default").then(|| socket.into())
}

/// Wording and exit code of an error of git.
pub(crate) fn failure(error: &GitError, message: String) -> Failure {
    let with = |exit, hint: &str| Failure::new(exit, message.clone()).hint(hint);
    match error {
        GitError::Program { .. } => with(
            Exit::Machine,
            "git repositories need git: install it, for example with `apt-get install git` or `apk add git`",
        ),
        GitError::Version { .. } => with(Exit::Machine, "install a later version of git"),
        GitError::Remote { url, trouble, .. } => remote_failure(url, *trouble, message),
        GitError::NoRef { .. } | GitError::Ambiguous { .. } => {
            with(Exit::Build, "check the name of the branch, tag or commit behind `#`")
        }
        GitError::Checksum { .. } => with(
            Exit::Build,
            "the ref has been moved, or the checksum is that of another commit; do not build what you did not expect",
        ),
        GitError::Submodule { source, .. } => {
            // What helps is what helps with the submodule itself.
            Failure { message, ..op_failure(source) }
        }
        GitError::NoSubmoduleUrl { .. } | GitError::SubmoduleUrl { .. } => with(
            Exit::Build,
            "`?submodules=false` behind the address of the repository leaves submodules out",
        ),
        GitError::Local { .. } => Failure::new(Exit::Machine, message),
        GitError::Source(_)
        | GitError::Tree { .. }
        | GitError::Subdir { .. }
        | GitError::TooDeep(_)
        | GitError::Secret { .. } => Failure::new(Exit::Build, message),
    }
}

fn remote_failure(url: &str, trouble: Trouble, message: String) -> Failure {
    let failure = Failure::new(Exit::Network, message);
    let is_http = url.starts_with("http");
    match trouble {
        Trouble::Unreachable => failure.hint(
            "check the address and the network; proxies are taken from HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
        ),
        Trouble::Denied | Trouble::NotFound if is_http => failure.hint(
            "check the address; for a private repository give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE or src=PATH",
        ),
        Trouble::Denied => failure.hint(
            "ssh could not log in: add your key to the ssh agent that SSH_AUTH_SOCK names, or set it up in ~/.ssh/config",
        ),
        Trouble::NotFound => failure.hint("check the address"),
        Trouble::HostKey => failure.hint(
            "ssh does not know this host: check its key, and add it with `ssh-keyscan HOST >> ~/.ssh/known_hosts`",
        ),
        Trouble::Redirected => failure.hint(
            "give the address that the server sends on to: credentials are for one host only",
        ),
        Trouble::Other => failure,
    }
}
