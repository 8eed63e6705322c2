//! What a client gives to a job: contexts, secrets, the way to be stopped.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tree::context::Context;
use zeroize::Zeroizing;

use crate::guard::Guard;

/// Answers a job's questions to the user's side. Paths, environment and globals stay there.
pub trait Session: Send + Sync {
    /// The local folder with this name (`context` is the main one); `None` when there is none.
    fn context(&self, name: &str) -> Option<Arc<Context>>;

    /// Whether the ignore file of that context hides a path, for a hint when it is not found.
    fn is_ignored(&self, name: &str, path: &str) -> bool;

    /// The value of a secret; `None` when it was not given.
    ///
    /// # Errors
    /// When it was given and cannot be read.
    fn secret(&self, id: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>>;

    /// The secrets that must not get into what the job makes, nor into outputs of steps; `None` when nothing is to be
    /// looked for.
    fn guard(&self) -> Option<Guard>;

    /// The socket of an ssh agent that steps may use; `None` when it was not given.
    fn forwarded_agent(&self, id: &str) -> Option<PathBuf>;

    /// The socket of an ssh agent for git (`default` is the user's own); `None` when there is none.
    fn ssh_agent(&self, id: &str) -> Option<PathBuf>;
}
