//! Files that are either there in full or not at all.
//!
//! ```text
//! (no name)                                   while it is written
//! out/.image.tar.<process>-<number>.partial   for a moment; all the time where files cannot be without a name
//! out/image.tar                               when it is done
//! ```
//!
//! A file without a name leaves nothing behind, however the process ends.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use std::os::fd::AsRawFd;

use fs_err::{self as fs, File, OpenOptions};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use tree::codec::Background;

use crate::{ExportError, Stop};

/// Where an archive goes.
pub enum Destination {
    /// A file, replaced when the archive is complete.
    File(PathBuf),
    /// A stream, such as standard output.
    Stream(Box<dyn Write + Send>),
}

impl Destination {
    /// Lets `write` write the archive.
    ///
    /// # Errors
    /// When `write` fails or the file cannot be written; nothing is left of it then.
    pub(crate) fn write(
        self,
        stop: &Stop,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        match self {
            Self::Stream(stream) => {
                let mut out = Background::new(stop.guard(stream));
                write(&mut out)?;
                let finished = out.finish().and_then(|mut stream| stream.flush());
                finished.map_err(|source| ExportError::Write { path: "-".into(), source })
            }
            Self::File(path) => {
                let file = PartialFile::create(&path)?;
                let failed = |source| ExportError::Write { path: path.clone(), source };
                // What is read is hashed too, so that writing is a thread's work of its own.
                let mut out = Background::new(stop.guard(file.file.try_clone().map_err(failed)?));
                write(&mut out)?;
                let finished = out.finish();
                stop.check().map_err(ExportError::Archive)?;
                finished.map_err(failed)?;
                file.commit()
            }
        }
    }
}

/// A file that is being written; dropped before [`commit`](Self::commit), it leaves nothing behind.
pub(crate) struct PartialFile {
    file: File,
    /// Whether `partial` does not name it yet.
    nameless: bool,
    partial: Option<PathBuf>,
    path: PathBuf,
}

impl PartialFile {
    /// Starts a file that will be at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, ExportError> {
        let failed = |source| ExportError::Write { path: path.to_owned(), source };
        let existing = fs::metadata(path).ok();
        if existing.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        if existing.is_some_and(|metadata| !metadata.is_file()) {
            // A device or pipe cannot be exchanged for a file, and a link such as `/dev/stdout` leads to no path.
            let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
            return Ok(Self { file, nameless: false, partial: None, path: path.to_owned() });
        }
        // A link is written through, as by any other program.
        let path = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => behind(path).map_err(failed)?,
            _ => path.to_owned(),
        };
        let failed = |source| ExportError::Write { path: path.clone(), source };
        let partial =
            partial_name(&path).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let (file, nameless) = match nameless(&path) {
            Some(file) => (file, true),
            None => (named(&partial).map_err(failed)?, false),
        };
        Ok(Self { file, nameless, partial: Some(partial), path })
    }

    /// The file, to be written.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the file in its place.
    pub(crate) fn commit(mut self) -> Result<(), ExportError> {
        let Some(partial) = self.partial.take() else { return Ok(()) };
        let failed = |source| ExportError::Write { path: self.path.clone(), source };
        if self.nameless {
            rustix::fs::linkat(CWD, link(&self.file), CWD, &partial, AtFlags::SYMLINK_FOLLOW)
                .map_err(|errno| failed(errno.into()))?;
        }
        fs::rename(&partial, &self.path).map_err(|source| {
            let _ = fs::remove_file(partial);
            failed(source)
        })
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.as_ref().filter(|_| !self.nameless) {
            let _ = fs::remove_file(partial);
        }
    }
}

/// Writes a file that is there in full or not at all, as an archive is.
///
/// # Errors
/// When it cannot be written; what was there before is there still.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    let mut file = PartialFile::create(path)?;
    let written = file.file().write_all(bytes);
    written.map_err(|source| ExportError::Write { path: path.to_owned(), source })?;
    file.commit()
}

/// Where a link leads, which need not be there.
fn behind(link: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let target = fs::read_link(link)?;
            Ok(link.parent().map_or_else(|| target.clone(), |folder| folder.join(&target)))
        }
        other => other,
    }
}

/// A new file under the name that it has while it is written; errors do not tell that name.
fn named(partial: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::open(partial, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => Ok(File::from_parts(file.into(), partial)),
        Err(Errno::NOENT) => {
            let folder = partial.parent().unwrap_or(Path::new("."));
            let reason = format!("there is no folder `{}`", folder.display());
            Err(io::Error::new(io::ErrorKind::NotFound, reason))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// A file beside `path` that has no name; `None` where there is no such thing, or it could not be named later.
fn nameless(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let folder = folder.unwrap_or(Path::new("."));
    let file = rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok()?;
    let file = File::from_parts(file.into(), path);
    fs::symlink_metadata(link(&file)).is_ok().then_some(file)
}

/// The link that leads to an open file.
fn link(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn partial_name(path: &Path) -> Option<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name()?);
    name.push(format!(
        ".{}-{}.partial",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_not_finished_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        fs::write(&path, "old").unwrap();
        let mut file = PartialFile::create(&path).unwrap();
        file.file().write_all(b"new").unwrap();
        assert_eq!(names(folder.path()), ["image.tar"]);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(names(folder.path()), ["image.tar"]);
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_failed_export_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tar");
        fs::write(&path, "old").unwrap();
        let result = Destination::File(path.clone()).write(&Stop::default(), |file| {
            file.write_all(b"new").unwrap();
            Err(ExportError::NoName)
        });
        assert!(matches!(result, Err(ExportError::NoName)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["out.tar"]);
    }

    #[test]
    fn a_link_is_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "old").unwrap();
        fs::os::unix::fs::symlink(&target, &link).unwrap();
        Destination::File(link)
            .write(&Stop::default(), |file| {
                file.write_all(b"new").unwrap();
                Ok(())
            })
            .unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(names(folder.path()), ["link", "target"]);
    }

    #[test]
    fn a_link_to_what_is_not_there_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        fs::os::unix::fs::symlink("target", &link).unwrap();
        write_file(&link, b"new").unwrap();
        assert_eq!(names(folder.path()), ["link", "target"]);
        assert_eq!(fs::read(folder.path().join("target")).unwrap(), b"new");
    }

    #[test]
    fn devices_and_pipes_stay_what_they_are() {
        use std::os::unix::fs::FileTypeExt;
        let folder = tempfile::tempdir().unwrap();
        let (pipe, link) = (folder.path().join("pipe"), folder.path().join("link"));
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        fs::os::unix::fs::symlink(&pipe, &link).unwrap();
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || (fs::read(&pipe).unwrap(), fs::read(&pipe).unwrap()))
        };
        write_file(&pipe, b"one").unwrap();
        // The reader has seen the end of the first before it opens the pipe again.
        std::thread::sleep(std::time::Duration::from_millis(50));
        write_file(&link, b"two").unwrap();
        assert_eq!(reader.join().unwrap(), (b"one".to_vec(), b"two".to_vec()));
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        write_file(Path::new("/dev/null"), b"nothing").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[test]
    fn a_missing_folder_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = write_file(&missing.join("file"), b"").unwrap_err();
        let ExportError::Write { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.to_string(), format!("there is no folder `{}`", missing.display()));
    }

    #[test]
    fn a_folder_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Destination::File(folder.path().to_owned())
            .write(&Stop::default(), |_| Ok(()))
            .unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write `{}`", folder.path().display()));
    }

    #[test]
    fn a_stopped_archive_leaves_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        fs::write(&path, "old").unwrap();
        let stop = Stop::when(|| true);
        let result = Destination::File(path.clone())
            .write(&stop, |file| file.write_all(b"new").map_err(ExportError::Archive));
        assert!(matches!(result, Err(ExportError::Archive(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["image.tar"]);
    }
}
