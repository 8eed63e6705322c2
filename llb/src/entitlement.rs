//! Rights that a user grants to a build.

use std::fmt;

/// A right beyond the confined default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        })
    }
}
