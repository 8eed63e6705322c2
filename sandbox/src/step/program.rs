//! Finds the program of a step inside its root and executes it.

use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::{During, Outcome};
use crate::spec::Spec;
use crate::sys;
use crate::wire::{Failure, FailureKind};

/// A command line in the form that the kernel takes.
pub(crate) struct Program {
    name: String,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Prepares the command line of a step.
    pub(crate) fn new(spec: &Spec) -> Outcome<Self> {
        let args = spec.args.iter().map(|arg| c_string(arg.as_bytes())).collect::<Outcome<_>>()?;
        let env = last_of_each_name(spec.env.iter().map(|entry| entry.as_bytes()))
            .into_iter()
            .map(c_string)
            .collect::<Outcome<_>>()?;
        Ok(Self { name: spec.args.first().cloned().unwrap_or_default(), args, env })
    }

    /// Becomes the program; returns only when that fails.
    pub(crate) fn execute(&self) -> Failure {
        let path = match self.find() {
            Ok(path) => path,
            Err(failure) => return failure,
        };
        let errno = sys::execve(&path, &self.args, &self.env).raw_os_error().unwrap_or(0);
        // The file was found, so it is something that it names that was not.
        let kind =
            if errno == libc::ENOENT { FailureKind::NoInterpreter } else { FailureKind::Exec };
        Failure { kind, text: self.name.clone(), errno }
    }

    /// Returns the path of the executable that the name stands for.
    fn find(&self) -> Outcome<CString> {
        let failure = |kind, errno: Errno| Failure {
            kind,
            text: self.name.clone(),
            errno: errno.raw_os_error(),
        };
        if self.name.contains('/') {
            executable(self.name.as_bytes()).map_err(|errno| failure(FailureKind::Exec, errno))?;
            return c_string(self.name.as_bytes());
        }
        let path = self.env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
        for directory in path.unwrap_or_default().split(|byte| *byte == b':') {
            // A relative directory would make the program depend on the working directory.
            if directory.first() != Some(&b'/') {
                continue;
            }
            let candidate = [directory, b"/", self.name.as_bytes()].concat();
            if executable(&candidate).is_ok() {
                return c_string(&candidate);
            }
        }
        Err(failure(FailureKind::NotInPath, Errno::NOENT))
    }
}

/// Checks that a path is a file which the process may execute.
fn executable(path: &[u8]) -> rustix::io::Result<()> {
    let path = OsStr::from_bytes(path);
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Keeps the last entry of each name.
fn last_of_each_name<'a>(entries: impl DoubleEndedIterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut seen = HashSet::new();
    let name = |entry: &'a [u8]| entry.split(|byte| *byte == b'=').next().unwrap_or_default();
    let mut kept: Vec<_> = entries.rev().filter(|entry| seen.insert(name(entry))).collect();
    kept.reverse();
    kept
}

fn c_string(bytes: &[u8]) -> Outcome<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL).during(|| "pass a text with a NUL byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entry_of_a_name_counts() {
        let entries: [&[u8]; 4] = [b"A=1", b"B=2", b"A=3=4", b"C"];
        let expect: [&[u8]; 3] = [b"B=2", b"A=3=4", b"C"];
        assert_eq!(last_of_each_name(entries.into_iter()), expect);
    }
}
