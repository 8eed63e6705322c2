//! Rights that a user grants to a build.

use std::collections::BTreeSet;
use std::fmt;

/// A right beyond the confined default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Entitlement {
    /// `RUN --network=host`.
    NetworkHost,
    /// `RUN --security=insecure`.
    SecurityInsecure,
    /// `RUN --device`: all devices, or one.
    Device(Option<DeviceGrant>),
}

/// A CDI device that a build may use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceGrant {
    /// Qualified name of a device, such as `vendor.com/gpu=0`, or of a class of devices.
    pub name: String,
    /// Another name by which Dockerfiles may ask for it.
    pub alias: Option<String>,
}

/// A text that names no right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntitlement {
    /// No right has this name.
    #[error("unknown entitlement {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A device without a name, or with an attribute that there is not.
    #[error("invalid entitlement {text}: want device, device=NAME or device=NAME,alias=NAME")]
    Device {
        /// As given.
        text: String,
    },
}

/// Names of the rights.
pub const NAMES: [&str; 3] = ["network.host", "security.insecure", "device"];

impl Entitlement {
    /// Reads a right as a user grants it: `network.host`, `security.insecure`, `device[=NAME[,alias=NAME]]`.
    ///
    /// # Errors
    /// When there is no such right, or a device has no name.
    pub fn parse(text: &str) -> Result<Self, InvalidEntitlement> {
        match text {
            "network.host" => return Ok(Self::NetworkHost),
            "security.insecure" => return Ok(Self::SecurityInsecure),
            "device" => return Ok(Self::Device(None)),
            _ => {}
        }
        let Some(device) = text.strip_prefix("device=") else {
            return Err(InvalidEntitlement::Unknown { name: text.to_owned() });
        };
        let mut fields = device.split(',');
        let name = fields.next().unwrap_or_default().to_owned();
        let mut grant = DeviceGrant { name, alias: None };
        let mut is_valid = !grant.name.is_empty();
        for field in fields {
            match field.split_once('=') {
                Some(("alias", alias)) if !alias.is_empty() && grant.alias.is_none() => {
                    grant.alias = Some(alias.to_owned());
                }
                _ => is_valid = false,
            }
        }
        let invalid = || InvalidEntitlement::Device { text: text.to_owned() };
        if is_valid { Ok(Self::Device(Some(grant))) } else { Err(invalid()) }
    }
}

/// Whether one of the rights lets a build use the device of this name.
pub fn allows_device(granted: &BTreeSet<Entitlement>, device: &str) -> bool {
    granted.iter().any(|right| match right {
        Entitlement::Device(None) => true,
        Entitlement::Device(Some(grant)) => {
            let class = device.split_once('=').map_or(device, |(class, _)| class);
            grant.name == device || grant.name == class || grant.alias.as_deref() == Some(device)
        }
        Entitlement::NetworkHost | Entitlement::SecurityInsecure => false,
    })
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
            Self::Device(None) => "device",
            Self::Device(Some(grant)) => {
                write!(f, "device={}", grant.name)?;
                return grant.alias.iter().try_for_each(|alias| write!(f, ",alias={alias}"));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_and_printed_alike() {
        for text in
            ["network.host", "security.insecure", "device", "device=v/c=0", "device=v/c,alias=gpu"]
        {
            assert_eq!(
                Entitlement::parse(text).map(|right| right.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let error = |text| Entitlement::parse(text).unwrap_err().to_string();
        assert_eq!(error("network.hots"), "unknown entitlement network.hots");
        assert_eq!(error(""), "unknown entitlement ");
        for text in [
            "device=",
            "device=,alias=x",
            "device=a,alias=",
            "device=a,b=c",
            "device=a,alias=b,alias=c",
        ] {
            let want = "want device, device=NAME or device=NAME,alias=NAME";
            assert_eq!(error(text), format!("invalid entitlement {text}: {want}"));
        }
    }

    #[test]
    fn a_device_is_allowed_by_name_class_or_alias() {
        let allows = |right: &str, device| {
            allows_device(&[Entitlement::parse(right).unwrap()].into(), device)
        };
        assert!(allows("device", "v/c=0"));
        assert!(allows("device=v/c=0", "v/c=0"));
        assert!(allows("device=v/c", "v/c=0"));
        assert!(allows("device=v/c=0,alias=gpu", "gpu"));
        assert!(!allows("device=v/c=0", "v/c=1"));
        assert!(!allows("security.insecure", "v/c=0"));
    }
}
