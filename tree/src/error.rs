//! What goes wrong with file trees.

use std::io;
use std::path::{Path, PathBuf};

use crate::passwd::PasswdError;
use crate::path::absolute;
use crate::pattern::PatternError;

/// Why a tree could not be read or made as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A path that must exist does not. The wording is the reference's.
    #[error("\"{}\": not found", path.display())]
    NotFound {
        /// Cleaned, with a leading `/`.
        path: PathBuf,
    },
    /// A file is to be where a directory is.
    #[error("cannot replace to directory {} with file", path.display())]
    ReplaceDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A directory is to be where something else is.
    #[error("cannot copy to non-directory: {}", path.display())]
    NotDirectory {
        /// What is there.
        path: PathBuf,
    },
    /// Something exists that must not.
    #[error("`{}` exists already", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// Directories are nested deeper than any real tree.
    #[error("directories below `{}` are nested too deeply", path.display())]
    TooDeep {
        /// Where it became too deep.
        path: PathBuf,
    },
    /// A mode that is neither octal nor symbolic. The wording is the reference's.
    #[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
    Mode {
        /// The text.
        text: String,
    },
    /// A malformed pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A user or group cannot be found out.
    #[error(transparent)]
    Passwd(#[from] PasswdError),
    /// The file system failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, as an infinitive.
        action: &'static str,
        /// The path in the tree, with a leading `/`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive is damaged or holds what no image can.
    #[error("cannot read the archive")]
    Archive {
        /// Why.
        source: io::Error,
    },
}

impl TreeError {
    pub(crate) fn not_found(path: &Path) -> Self {
        Self::NotFound { path: absolute(path) }
    }

    /// Makes the converter of an I/O error at a path of a tree.
    pub fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action, path: absolute(path), source: source.into() }
    }
}
