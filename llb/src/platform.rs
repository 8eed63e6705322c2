//! Platforms: operating system, architecture, variant.

use std::fmt;
use std::str::FromStr;

use crate::image::{DescriptorPlatform, ImageConfig};

/// For what a result is built. [`parse`](Platform::parse) gives the normal form: `amd64`, not
/// `x86_64`; `arm64` without `v8`; `arm` with its variant.
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

const KNOWN_OS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Parses `os[(version)]/arch[/variant]`, an operating system alone or an architecture alone; what
    /// is not given is the host's. The result is in normal form.
    ///
    /// # Errors
    /// When a part has a character that does not belong there, or a lone part is nothing known.
    pub fn parse(text: &str) -> Result<Self, InvalidPlatform> {
        let bad = |reason| InvalidPlatform { text: text.to_owned(), reason };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, os_version) =
            split_version(parts[0]).ok_or_else(|| bad("bad character in the operating system"))?;
        if parts[1..].iter().any(|part| !is_word(part, "")) {
            return Err(bad("bad character in the architecture or variant"));
        }
        let platform = match *parts.as_slice() {
            [_] => {
                let host = Self::host();
                let known_os = normal_os(os);
                if KNOWN_OS.contains(&known_os.as_str()) {
                    Self { os: known_os, os_version: os_version.to_owned(), ..host }
                } else {
                    let (architecture, variant) = normal_architecture(os, "");
                    if !KNOWN_ARCHITECTURES.contains(&architecture.as_str())
                        || !os_version.is_empty()
                    {
                        return Err(bad("unknown operating system or architecture"));
                    }
                    Self { architecture, variant, ..host }
                }
            }
            [_, architecture] => Self::of(os, os_version, architecture, ""),
            [_, architecture, variant] => Self::of(os, os_version, architecture, variant),
            _ => return Err(bad("want os/arch or os/arch/variant")),
        };
        Ok(platform)
    }

    fn of(os: &str, os_version: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normal_architecture(architecture, variant);
        Self {
            os: normal_os(os),
            architecture,
            variant,
            os_version: os_version.to_owned(),
            os_features: Vec::new(),
        }
    }

    /// The platform this program was made for.
    pub fn host() -> Self {
        let (architecture, variant) = normal_architecture(std::env::consts::ARCH, "");
        Self { os: normal_os(std::env::consts::OS), architecture, variant, ..Self::default() }
    }

    /// The normal form: aliases replaced, default variants dropped or (for `arm`) filled in.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let normal = Self::of(&self.os, &self.os_version, &self.architecture, &self.variant);
        Self { os_features: self.os_features.clone(), ..normal }
    }

    /// Whether what is made for `offered` runs on this platform, as itself or as an older kind of it.
    pub fn matches(&self, offered: &Self) -> bool {
        self.rank(offered).is_some()
    }

    /// How well `offered` suits this platform: 0 is an exact match, more is worse, `None` does not run.
    ///
    /// `amd64/v3` also runs `v2`, `amd64` and `386`; `arm/v7` also runs `v6` and `v5`; `arm64` also
    /// runs `arm`.
    pub fn rank(&self, offered: &Self) -> Option<usize> {
        let (wanted, offered) = (self.normalized(), offered.normalized());
        if wanted.os != offered.os || !same_release(&wanted.os_version, &offered.os_version) {
            return None;
        }
        wanted.runs().iter().position(|(architecture, variant)| {
            *architecture == offered.architecture && *variant == offered.variant
        })
    }

    /// Architectures and variants that run here, best first. `self` is in normal form.
    fn runs(&self) -> Vec<(String, String)> {
        let mut runs = vec![(self.architecture.clone(), self.variant.clone())];
        let mut add = |architecture: &str, variants: &[&str]| {
            runs.extend(
                variants.iter().map(|variant| (architecture.to_owned(), (*variant).to_owned())),
            );
        };
        match (self.architecture.as_str(), self.variant.as_str()) {
            ("amd64", variant) => {
                match variant {
                    "v4" => add("amd64", &["v3", "v2", ""]),
                    "v3" => add("amd64", &["v2", ""]),
                    "v2" => add("amd64", &[""]),
                    _ => {}
                }
                add("386", &[""]);
            }
            ("arm", "v8") => add("arm", &["v7", "v6", "v5"]),
            ("arm", "v7") => add("arm", &["v6", "v5"]),
            ("arm", "v6") => add("arm", &["v5"]),
            ("arm64", variant) => {
                if !variant.is_empty() {
                    add("arm64", &[""]);
                }
                add("arm", &["v8", "v7", "v6", "v5"]);
            }
            _ => {}
        }
        runs
    }

    /// Name for a directory: `linux_arm_v7`.
    pub fn directory_name(&self) -> String {
        self.to_string().replace('/', "_")
    }
}

/// Whether two versions of an operating system are of one release; an empty one fits all.
fn same_release(wanted: &str, offered: &str) -> bool {
    let release = |version: &str| version.split('.').take(3).map(str::to_owned).collect::<Vec<_>>();
    wanted.is_empty() || offered.is_empty() || release(wanted) == release(offered)
}

fn is_word(text: &str, more: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || more.contains(c))
}

/// Splits `windows(10.0.17763)`.
fn split_version(text: &str) -> Option<(&str, &str)> {
    let (os, version) = match text.split_once('(') {
        None => (text, ""),
        Some((os, rest)) => (os, rest.strip_suffix(')')?),
    };
    (is_word(os, "") && (version.is_empty() || is_word(version, "."))).then_some((os, version))
}

fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase() {
        os if os == "macos" => "darwin".to_owned(),
        os => os,
    }
}

fn normal_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "386" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        ("powerpc64", variant) => ("ppc64", variant),
        ("loongarch64", variant) => ("loong64", variant),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        Self::parse(text)
    }
}

/// `os[(osversion)]/arch[/variant]`
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl From<&DescriptorPlatform> for Platform {
    fn from(platform: &DescriptorPlatform) -> Self {
        Self {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone().unwrap_or_default(),
        }
    }
}

impl From<&Platform> for DescriptorPlatform {
    fn from(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            os_features: Some(platform.os_features.clone()).filter(|features| !features.is_empty()),
            variant: platform.variant.clone(),
        }
    }
}

impl From<&ImageConfig> for Platform {
    fn from(config: &ImageConfig) -> Self {
        Self {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: config.os_version.clone(),
            os_features: config.os_features.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let actual = Platform::parse(text)
            .map_or_else(|error| error.to_string(), |platform| platform.to_string());
        assert_eq!(actual, expect, "input: {text:?}");
    }

    #[test]
    fn names_are_normalized() {
        check("linux/x86_64", "linux/amd64");
        check("linux/amd64/v1", "linux/amd64");
        check("Linux/AMD64/v3", "linux/amd64/v3");
        check("linux/aarch64", "linux/arm64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm64/9", "linux/arm64/v9");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/6", "linux/arm/v6");
        check("linux/armel", "linux/arm/v6");
        check("linux/i386", "linux/386");
        check("macos/arm64", "darwin/arm64");
        check("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64");
    }

    #[test]
    fn one_part_is_completed_from_the_host() {
        let host = Platform::host();
        check("linux", &format!("linux/{}", host.architecture));
        check("arm64", "linux/arm64");
        check("arm", "linux/arm/v7");
        check("s390x", "linux/s390x");
    }

    #[test]
    fn bad_names_are_refused() {
        check("", "invalid platform ``: bad character in the operating system");
        check("foo", "invalid platform `foo`: unknown operating system or architecture");
        check("linux/", "invalid platform `linux/`: bad character in the architecture or variant");
        check(
            "linux/*",
            "invalid platform `linux/*`: bad character in the architecture or variant",
        );
        check("a/b/c/d", "invalid platform `a/b/c/d`: want os/arch or os/arch/variant");
        check(
            "windows(10/amd64",
            "invalid platform `windows(10/amd64`: bad character in the operating system",
        );
    }

    #[test]
    fn the_nearest_kind_ranks_first() {
        let rank = |wanted: &str, offered: &str| {
            Platform::parse(wanted).unwrap().rank(&Platform::parse(offered).unwrap())
        };
        assert_eq!(rank("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(rank("linux/amd64", "linux/386"), Some(1));
        assert_eq!(rank("linux/amd64", "linux/amd64/v2"), None);
        assert_eq!(rank("linux/arm/v7", "linux/arm/v6"), Some(1));
        assert_eq!(rank("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(rank("linux/arm64", "linux/arm/v7"), Some(2));
        assert_eq!(rank("linux/arm64", "windows/arm64"), None);
        assert_eq!(rank("windows(10.0.17763.1)/amd64", "windows(10.0.17763.9)/amd64"), Some(0));
        assert_eq!(rank("windows(10.0.17763.1)/amd64", "windows(10.0.20348.9)/amd64"), None);
    }

    proptest! {
        #[test]
        fn normal_form_is_a_fixed_point_and_prints_as_itself(text in "[a-z0-9_()./-]{0,20}|(linux|windows)/(arm|arm64|amd64|x86_64|armhf)(/(v?[5-9]|v8))?") {
            if let Ok(platform) = Platform::parse(&text) {
                prop_assert_eq!(&platform.normalized(), &platform);
                prop_assert_eq!(&Platform::parse(&platform.to_string()).unwrap(), &platform);
                prop_assert_eq!(platform.rank(&platform), Some(0));
            }
        }
    }
}
