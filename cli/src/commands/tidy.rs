//! Limits of the store, and who sees to it that they are kept.
//!
//! A build that did anything asks, when all is done, whether the store is due; if so, a process of its own tidies up,
//! so that nobody waits. Where that would be ended together with the build, as in a container, it is done on the spot.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use cache::{FileSystem, GcLimits};
use solver::Engine;

use crate::commands::options::size;
use crate::report::{Exit, Failure, tell};

/// Variables that set the limits: the most the store may take, the least that is left free, and what the store may
/// take in any case.
const VARIABLES: [&str; 3] =
    ["BRICKLAYER_MAX_USED_SPACE", "BRICKLAYER_MIN_FREE_SPACE", "BRICKLAYER_RESERVED_SPACE"];

/// What the environment says of the limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Limits([Option<Space>; 3]);

/// A size, or a part of the file system.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Space {
    Bytes(u64),
    Percent(f64),
}

impl Space {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || {
            Failure::new(
                Exit::Usage,
                format!(
                    "invalid size `{text}`: want a number with a unit b, k, m, g or t, or a part such as 20%"
                ),
            )
        };
        if let Some(number) = text.trim().strip_suffix('%') {
            let number: f64 = number.trim().parse().map_err(|_| bad())?;
            return if (0.0..=100.0).contains(&number) {
                Ok(Self::Percent(number))
            } else {
                Err(bad())
            };
        }
        let bytes = size(text).map_err(|_| bad())?;
        u64::try_from(bytes).map(Self::Bytes).map_err(|_| bad())
    }

    fn of(self, disk: &FileSystem) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(part) => (disk.size() as f64 / 100.0 * part) as u64,
        }
    }
}

/// A size given as an option, of a store at `root`.
pub(crate) fn space(text: Option<&str>, root: &Path) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let space = Space::parse(text)?;
    let disk = FileSystem::of(root)
        .map_err(|error| super::store_failure(&error, crate::report::chain(&error)))?;
    Ok(Some(space.of(&disk)))
}

impl Limits {
    /// Reads the environment.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let mut limits = Self::default();
        for (slot, name) in limits.0.iter_mut().zip(VARIABLES) {
            let value = std::env::var_os(name).unwrap_or_default();
            let text = value.to_string_lossy();
            if !text.is_empty() {
                let parsed = Space::parse(&text).map_err(|failure| {
                    Failure::new(Exit::Usage, format!("${name}: {}", failure.message))
                });
                *slot = Some(parsed?);
            }
        }
        Ok(limits)
    }

    /// The limits of a store on a disk. A most of nothing is no limit.
    pub(crate) fn on(&self, disk: &FileSystem) -> GcLimits {
        let usual = GcLimits::of(disk);
        let [max_used, min_free, reserved] = self.0.map(|space| space.map(|space| space.of(disk)));
        let max_used = max_used.unwrap_or(usual.max_used);
        GcLimits {
            max_used: if max_used == 0 { u64::MAX } else { max_used },
            min_free: min_free.unwrap_or(usual.min_free),
            // What was asked for is not undone by what is usual.
            reserved: reserved.unwrap_or(usual.reserved.min(max_used)),
        }
    }
}

/// Sees to it that the store is tidied up after a build, if it is due.
pub(crate) fn after_build(engine: &Engine, limits: &Limits) {
    if engine.store().has_lost_database() {
        tell(format_args!(
            "WARNING: the database of the builder's state was damaged: its images and cache are lost, this build began anew"
        ));
    }
    let store = engine.store();
    let is_due = engine.has_worked() && is_due(engine, limits);
    if is_due || store.has_long_log() {
        in_background(engine, limits);
    }
}

/// Sees to it that the store is tidied up, if it is due.
pub(crate) fn if_due(engine: &Engine, limits: &Limits) {
    if is_due(engine, limits) {
        in_background(engine, limits);
    }
}

fn is_due(engine: &Engine, limits: &Limits) -> bool {
    // Limits that cannot be kept now are looked at again by the next build.
    FileSystem::of(engine.store().root())
        .is_ok_and(|disk| engine.store().is_due(&limits.on(&disk)).unwrap_or(false))
}

/// Tidies up, where nobody waits for it if that is possible.
fn in_background(engine: &Engine, limits: &Limits) {
    let is_alone = rustix::process::getpid().is_init();
    if is_alone || start(engine.store().root()).is_err() {
        let _ = tidy(engine, limits);
    }
}

fn tidy(engine: &Engine, limits: &Limits) -> Result<(), cache::CacheError> {
    let store = engine.store();
    let disk = FileSystem::of(store.root())?;
    store.tidy(&limits.on(&disk))?;
    if store.has_long_log() { store.merge_log() } else { Ok(()) }
}

/// Starts a process that tidies up; nobody waits for it.
fn start(root: &Path) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    let words = ["prune", "--automatic", "--root"].map(OsStr::new);
    Command::new("/proc/self/exe")
        .arg0("build")
        .args(words)
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map(drop)
}

/// What that process does: quietly, as it has nobody to tell.
pub(crate) fn run(engine: &Engine) -> Result<Exit, Failure> {
    // It is in nobody's way.
    let _ = rustix::process::nice(19);
    tidy(engine, &Limits::from_environment()?)
        .map_err(|error| super::store_failure(&error, crate::report::chain(&error)))?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_parts() {
        assert_eq!(Space::parse("10g").unwrap(), Space::Bytes(10 << 30));
        assert_eq!(Space::parse("0").unwrap(), Space::Bytes(0));
        assert_eq!(Space::parse("12.5%").unwrap(), Space::Percent(12.5));
        for text in ["-1", "101%", "-3%", "x", "", "10gbb", "nan%"] {
            let message = Space::parse(text).unwrap_err().message;
            assert_eq!(
                message,
                format!(
                    "invalid size `{text}`: want a number with a unit b, k, m, g or t, or a part such as 20%"
                )
            );
        }
    }
}
