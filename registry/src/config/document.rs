//! TOML texts, and where a mistake in one stands.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::unusable;
use crate::Error;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// Reads a file; `None` when it does not exist.
///
/// # Errors
/// [`Error::Config`].
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    let text = match fs_err::metadata(path) {
        Ok(metadata) if metadata.len() > LARGEST => {
            let problem = format!("larger than the limit of {LARGEST} bytes");
            return Err(unusable(path, None, problem));
        }
        Ok(_) => fs_err::read(path),
        Err(error) => Err(error),
    };
    match text {
        Ok(text) => match String::from_utf8(text) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
                Err(unusable(path, Some(line), "not UTF-8"))
            }
        },
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(unusable(path, None, reason(&error))),
    }
}

/// What is in a folder, in order; `None` when it does not exist.
///
/// # Errors
/// [`Error::Config`].
pub(super) fn list(folder: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let listed = fs_err::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    match listed {
        Ok(mut files) => {
            files.sort();
            Ok(Some(files))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(unusable(folder, None, reason(&error))),
    }
}

/// Whether a path leads to nothing; one with a file in the place of a folder does too.
fn is_absent(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

/// What the system said, without the path, which the message has already.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::IsADirectory => "is a folder".to_owned(),
        _ => {
            std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
        }
    }
}

/// Parses the text of `path`.
///
/// # Errors
/// [`Error::Config`] with the line.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        unusable(path, line, error.message().trim().replace('\n', ", "))
    })
}

/// The line, from 1, of a byte of the text.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}
