//! Operating system and architecture (`spec/cli-and-outputs.md` §12).

use std::fmt;

/// For what a result is built. Always in normal form: `amd64`, not `x86_64`; `arm64` without `v8`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture by its Go name, such as `amd64`.
    pub architecture: String,
    /// Variant, such as `v7`; empty when there is none.
    pub variant: String,
    /// Version of the operating system; empty when not given.
    pub os_version: String,
    /// Required features of the operating system.
    pub os_features: Vec<String>,
}

/// A string that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform `{text}`: {reason}")]
pub struct InvalidPlatform {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}
