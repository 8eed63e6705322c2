//! What can go wrong in the store.
//!
//! A damaged or missing cache entry is no error: the record is dropped and the caller told that
//! nothing is there. Errors are what stops a build: a full disk, a missing permission, a provider that
//! cannot deliver a layer.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use llb::Digest;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The disk or quota is full.
    #[error("no space left for `{}`", path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The builder may not read or write there.
    #[error("no permission for `{}`", path.display())]
    Permission {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The metadata store failed.
    #[error("cannot use the database `{}`", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The database proved damaged and was set aside.
    #[error("the database `{}` is damaged and was set aside: what it knew of is lost", path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
    },
    /// The root was made by another builder, or for another kind of machine.
    #[error("cannot use the store `{}`: {reason}", root.display())]
    Format {
        /// The store.
        root: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Bytes do not hash to their name.
    #[error("{what} has digest {actual} but should have {expected}")]
    DigestMismatch {
        /// What was hashed.
        what: String,
        /// What it should hash to.
        expected: Digest,
        /// What it hashes to.
        actual: Digest,
    },
    /// The files of a layer are not those that were written: it has been dropped, with every result that has it.
    #[error("layer {id} was damaged on the disk and has been dropped, with what was built upon it")]
    DamagedLayer {
        /// The layer.
        id: String,
    },
    /// A blob in the store is not what was written: it has been dropped.
    #[error("blob {digest} was damaged on the disk and has been dropped")]
    DamagedBlob {
        /// Its name.
        digest: Digest,
    },
    /// A blob could not be fetched from where it is kept.
    #[error("cannot fetch layer {digest} from `{origin}`")]
    Fetch {
        /// The blob.
        digest: Digest,
        /// Where it should be.
        origin: String,
        /// What the provider said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A layer came whole from where it is kept, but is no layer, or not the one that its image names.
    #[error("layer {digest} from `{origin}` is broken")]
    BrokenLayer {
        /// The blob.
        digest: Digest,
        /// Where it is kept.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A layer's tar could not be written or unpacked.
    #[error("cannot {action} layer {layer}")]
    Layer {
        /// What was being done.
        action: &'static str,
        /// Which layer.
        layer: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A layer lost its files, and there is nowhere to get them from: its records have been dropped.
    #[error("layer {0} is no longer in the store")]
    LayerGone(String),
    /// An id prefix fits several images.
    #[error("image id `{prefix}` is ambiguous: it fits {count} images")]
    AmbiguousImage {
        /// What the user gave.
        prefix: String,
        /// How many it fits.
        count: usize,
    },
    /// An image given by its id has several names.
    #[error("image {id} has several names: {}", names.join(", "))]
    ImageInUse {
        /// The image.
        id: Digest,
        /// Its names.
        names: Vec<String>,
    },
    /// There is no such image.
    #[error("no image `{0}`")]
    UnknownImage(String),
    /// The caller gave up waiting.
    #[error("cancelled while waiting for `{0}`")]
    Cancelled(String),
}

impl CacheError {
    /// Whether writing failed only because the reader of a pipe had ended.
    pub fn is_unheard(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                return error.kind() == io::ErrorKind::BrokenPipe;
            }
            cause = error.source();
        }
        false
    }

    /// Sorts a failure of the file system by what the user can do about it.
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// Sorts a failure of the database the same way.
    pub(crate) fn database(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let path = path.to_owned();
        let extended = source.sqlite_error().map(|error| error.extended_code);
        match source.sqlite_error_code() {
            // The file that processes share could not be made larger.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => {
                Self::NoSpace { path, source: io::Error::other(source) }
            }
            Some(Code::DiskFull) => Self::NoSpace { path, source: io::Error::other(source) },
            Some(Code::ReadOnly | Code::PermissionDenied | Code::CannotOpen) => {
                Self::Permission { path, source: io::Error::other(source) }
            }
            _ => Self::Database { path, source },
        }
    }

    /// Failure while making a form of a layer; a full disk and a missing permission keep their kind.
    pub(crate) fn layer(action: &'static str, layer: &str, path: &Path, source: io::Error) -> Self {
        match Self::io(path, source) {
            Self::Io { source, .. } => Self::Layer { action, layer: layer.to_owned(), source },
            sorted => sorted,
        }
    }

    /// Whether the database file itself is at fault.
    pub(crate) fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode as Code;
        let Self::Database { source, .. } = self else { return false };
        let code = source.sqlite_error_code();
        // A database without the tables that its version has.
        let without = code == Some(Code::Unknown) && source.to_string().contains("no such table");
        without || matches!(code, Some(Code::DatabaseCorrupt | Code::NotADatabase))
    }
}

/// Adds the path to a failed call.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, CacheError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::io(path, source))
    }
}

impl<T> At<T> for Result<T, rustix::io::Errno> {
    fn at(self, path: &Path) -> Result<T, CacheError> {
        self.map_err(|errno| CacheError::io(path, errno.into()))
    }
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::database(path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: rustix::io::Errno, is_expected: fn(&CacheError) -> bool) {
        let path = Path::new("/store/file");
        let plain = io::Error::from(errno);
        let wrapped = io::Error::new(plain.kind(), format!("in `{}`: {plain}", path.display()));
        for source in [plain, wrapped] {
            let error = CacheError::layer("unpack", "1", path, source);
            assert!(is_expected(&error), "{error:?}");
        }
    }

    #[test]
    fn a_full_disk_and_a_missing_permission_keep_their_kind() {
        use rustix::io::Errno;
        check(Errno::NOSPC, |error| matches!(error, CacheError::NoSpace { .. }));
        check(Errno::DQUOT, |error| matches!(error, CacheError::NoSpace { .. }));
        check(Errno::ACCESS, |error| matches!(error, CacheError::Permission { .. }));
        check(Errno::PERM, |error| matches!(error, CacheError::Permission { .. }));
        check(Errno::ROFS, |error| matches!(error, CacheError::Permission { .. }));
        check(Errno::IO, |error| matches!(error, CacheError::Layer { .. }));
    }
}
