//! Locks between processes: ranges of one byte in one file, `locks/names`, which is always empty.
//!
//! Where the byte of a name lies is a hash of it, so that taking a lock makes no file and leaves none. The locks are
//! those of open file descriptions (`F_OFD_SETLK`): two threads exclude each other as two processes do, and the kernel
//! releases a lock when its holder dies.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fs_err as fs;
use fs_err::os::unix::fs::OpenOptionsExt;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tree::trace;

use crate::error::{At, CacheError};
use crate::key::KeyBuilder;

/// How long a cancellable wait sleeps between two tries.
const POLL: Duration = Duration::from_millis(20);

/// The same of a wait that is not told yet, at most.
const SHORT_POLL: Duration = Duration::from_millis(5);

/// Who waits for another process for so long is told.
const SOON: Duration = Duration::from_secs(1);

/// Who tells of long waits.
static TELL: OnceLock<fn(&str)> = OnceLock::new();

/// Has `tell` say what is waited for when another process keeps this one waiting for more than a second; without it
/// such waits are silent. What is waited for with a way to give up is told by whoever waits.
pub fn tell_long_waits(tell: fn(&str)) {
    let _ = TELL.set(tell);
}

/// Tells of a wait for others that have the store open.
fn tell_of(root: &Path) {
    let Some(tell) = TELL.get() else { return };
    tell(&format!("waiting for another process that uses the state folder `{}`", root.display()));
    crate::process::stopped(root).iter().for_each(|stopped| tell(stopped));
}

/// Tells of a wait for the database once `waited` has come to more than it may be silent.
pub(crate) fn tell_of_database(waited: Duration, step: Duration) {
    if waited >= SOON
        && waited < SOON + step
        && let Some(tell) = TELL.get()
    {
        tell("waiting for another process that writes to the database of the state folder");
    }
}

/// Whether others may hold the lock at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// Where the lock of a name is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    file: PathBuf,
    byte: i64,
    /// What a trace calls it; empty without one.
    shown: String,
}

impl Place {
    /// The lock of a name, apart from those of other kinds.
    pub(crate) fn new(root: &Path, kind: &str, name: &str) -> Self {
        let hash = KeyBuilder::new("lock.v2").str(kind).str(name).finish();
        let start = hash.0.first_chunk().copied().unwrap_or_default();
        // The byte after it must have a number too.
        let byte = (u64::from_le_bytes(start) >> 2).cast_signed();
        let shown = if trace::is_on() { format!("{kind} {name}") } else { String::new() };
        Self { file: root.join("locks/names"), byte, shown }
    }
}

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Lock {
    /// Waits for the lock of a name.
    pub(crate) fn wait(place: &Place, mode: Mode) -> Result<Self, CacheError> {
        if let Some(lock) = Self::attempt(place, mode)? {
            return Ok(lock);
        }
        let _waiting = waiting_for(place);
        let (since, mut pause) = (Instant::now(), Duration::from_micros(100));
        while since.elapsed() < SOON {
            std::thread::sleep(pause);
            if let Some(lock) = Self::attempt(place, mode)? {
                return Ok(lock);
            }
            pause = SHORT_POLL.min(pause * 2);
        }
        if let Some(root) = place.file.ancestors().nth(2) {
            tell_of(root);
        }
        let file = open(&place.file)?;
        let range = range(place, mode);
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&range)) {
                Ok(_) => return Ok(Self { file }),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(std::io::Error::from(errno)).at(&place.file),
            }
        }
    }

    /// Waits for the lock, asking `cancelled` again and again whether to give up.
    pub(crate) fn wait_unless(
        place: &Place,
        mode: Mode,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Self, CacheError> {
        let mut waiting = None;
        loop {
            if let Some(lock) = Self::attempt(place, mode)? {
                return Ok(lock);
            }
            waiting.get_or_insert_with(|| waiting_for(place));
            if cancelled() {
                return Err(CacheError::Cancelled(place.file.display().to_string()));
            }
            std::thread::sleep(POLL);
        }
    }

    /// A file that holds the lock too, as long as it is open anywhere.
    pub(crate) fn share(&self) -> Result<std::fs::File, CacheError> {
        self.file.file().try_clone().at(self.file.path())
    }

    /// Takes the lock if it is free.
    pub(crate) fn attempt(place: &Place, mode: Mode) -> Result<Option<Self>, CacheError> {
        let file = open(&place.file)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&range(place, mode))) {
            Ok(_) => Ok(Some(Self { file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(std::io::Error::from(errno)).at(&place.file),
        }
    }
}

/// Time spent on waiting for whoever holds a lock.
fn waiting_for(place: &Place) -> trace::Span {
    trace::span("wait", || format!("for the lock {}", place.shown))
}

fn range(place: &Place, mode: Mode) -> libc::flock {
    let kind = match mode {
        Mode::Shared => libc::F_RDLCK,
        Mode::Exclusive => libc::F_WRLCK,
    };
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place.byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn open(path: &Path) -> Result<fs::File, CacheError> {
    let mut options = fs::OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_until_it_is_dropped_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("locks")).unwrap();
        let place = Place::new(folder.path(), "test", "x");
        let other = Place::new(folder.path(), "test", "y");
        let held = Lock::wait(&place, Mode::Exclusive).unwrap();
        assert!(Lock::attempt(&place, Mode::Shared).unwrap().is_none());
        assert!(Lock::attempt(&other, Mode::Exclusive).unwrap().is_some());
        assert!(matches!(
            Lock::wait_unless(&place, Mode::Shared, &|| true),
            Err(CacheError::Cancelled(_))
        ));
        let shared = held.share().unwrap();
        drop(held);
        assert!(Lock::attempt(&place, Mode::Shared).unwrap().is_none());
        drop(shared);
        let one = Lock::attempt(&place, Mode::Shared).unwrap().unwrap();
        let two = Lock::attempt(&place, Mode::Shared).unwrap().unwrap();
        assert!(Lock::attempt(&place, Mode::Exclusive).unwrap().is_none());
        drop((one, two));
        assert!(Lock::attempt(&place, Mode::Exclusive).unwrap().is_some());
        let files = fs::read_dir(folder.path().join("locks")).unwrap().count();
        assert_eq!(files, 1);
    }
}
