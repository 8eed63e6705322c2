//! `cargo xtask dist`: makes the one executable and puts it where users look for it.
//!
//! ```text
//! target/release/build   by default
//! target/ci/build        with `--profile ci`: quicker to make, slower to run
//! ```
//!
//! The file is written aside and renamed, so that a builder that runs at the time goes on with the old one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::line;

/// How the executable is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What users get.
    Release,
    /// As the tests are.
    Ci,
}

impl Profile {
    /// Reads the arguments of `dist`.
    pub(crate) fn from_arguments(arguments: &[String]) -> Result<Self, String> {
        let words: Vec<&str> =
            arguments.iter().flat_map(|argument| argument.splitn(2, '=')).collect();
        match words.as_slice() {
            [] | ["--profile", "release"] => Ok(Self::Release),
            ["--profile", "ci"] => Ok(Self::Ci),
            _ => Err("usage: cargo xtask dist [--profile release|ci]".to_owned()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Ci => "ci",
        }
    }
}

/// Compiles the executable and returns where it was put.
pub(crate) fn dist(top: &Path, profile: Profile) -> Result<PathBuf, String> {
    let made = compile(top, profile)?;
    let folder = top.join("target").join(profile.name());
    let place = folder.join("build");
    if place.is_dir() {
        return Err(format!("`{}` is a folder of an older cargo: remove it", place.display()));
    }
    let aside = folder.join(format!(".build.{}", std::process::id()));
    let failed = |error: std::io::Error| format!("cannot write `{}`: {error}", place.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    // Copies the permission bits too, and so the executable bit.
    fs::copy(&made, &aside).and_then(|_| fs::rename(&aside, &place)).map_err(|error| {
        let _ = fs::remove_file(&aside);
        failed(error)
    })?;
    Ok(place)
}

/// Runs cargo and returns the executable it says it made.
fn compile(top: &Path, profile: Profile) -> Result<PathBuf, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(top).args([
        "build",
        "--profile",
        profile.name(),
        "--package",
        "cli",
        "--bin",
        "bricklayer",
    ]);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("{}: {error}", line(&command)))?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", line(&command), output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages).ok_or_else(|| format!("{} made no executable", line(&command)))
}

/// The last executable named in cargo's messages, one JSON object per line.
fn executable(messages: &str) -> Option<PathBuf> {
    let made = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(PathBuf::from(message.get("executable")?.as_str()?))
    };
    messages.lines().rev().find_map(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_release_unless_told() {
        let parse = |arguments: &[&str]| {
            Profile::from_arguments(
                &arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(parse(&[]), Ok(Profile::Release));
        assert_eq!(parse(&["--profile", "ci"]), Ok(Profile::Ci));
        assert_eq!(parse(&["--profile=release"]), Ok(Profile::Release));
        assert!(parse(&["--profile"]).is_err() && parse(&["x"]).is_err());
    }

    #[test]
    fn executable_is_found_among_the_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\nnoise\n{\"executable\":\"/t/b\"}\n{}\n";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/b")));
        assert_eq!(executable(""), None);
    }
}
