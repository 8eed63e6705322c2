//! The options of `RUN --mount`.
//!
//! A value is one CSV record of `key=value` fields. Each field's value is expanded on its own, so
//! the text of a variable can hold commas.

use thiserror::Error;

/// A mount, with defaults filled in as far as they do not depend on the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Kind of mount.
    pub kind: MountKind,
    /// Target path, cleaned; empty if not given. May be relative to the working directory.
    pub target: String,
    /// `source`, or empty. For secrets it is merged into `id`.
    pub source: String,
    /// `from`: stage, context or image.
    pub from: Option<String>,
    /// Whether the step may not write.
    pub readonly: bool,
    /// `id` of a cache, secret or ssh mount as given.
    pub id: Option<String>,
    /// `sharing` of a cache mount.
    pub sharing: Sharing,
    /// `size` of a tmpfs in bytes.
    pub size: Option<u64>,
    /// `required` of a secret or ssh mount.
    pub required: bool,
    /// `env` of a secret mount.
    pub env: Option<String>,
    /// `mode`, from octal.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// `bind`, the default.
    #[default]
    Bind,
    /// `cache`
    Cache,
    /// `tmpfs`
    Tmpfs,
    /// `secret`
    Secret,
    /// `ssh`
    Ssh,
}

/// How several steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each step has its own.
    Private,
    /// One after another.
    Locked,
}

/// Why the value of a `--mount` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MountError {
    /// No value for this type.
    #[error("unsupported mount type \"{0}\"{1}")]
    UnsupportedType(String, String),
}

/// Parses the raw value of a `--mount`, passing each field's value through `expand`.
///
/// # Errors
/// The first wrong option, or the first error of `expand`.
pub fn parse<E: From<MountError>>(
    raw: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, E>,
) -> Result<Mount, E> {
    let _ = (raw, expand);
    Err(MountError::UnsupportedType(String::new(), String::new()).into())
}
