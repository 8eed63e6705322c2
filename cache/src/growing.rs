//! A blob that is read while it is written.
//!
//! Readers see the bytes that are in the file, and are woken when there are more. Whether they are those of a blob is
//! known at the end: it has a digest then, or was given up.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use llb::Digest;

/// Is given blobs whose writing begins.
pub type Follow<'a> = dyn Fn(Growing) + Sync + 'a;

/// A blob on its way into the store. Clones read the same one.
#[derive(Debug, Clone)]
pub struct Growing {
    file: Arc<File>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    grown: Mutex<Grown>,
    more: Condvar,
}

/// How much of a blob there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grown {
    /// Bytes that can be read.
    pub size: u64,
    /// Whether there will be more.
    pub end: Option<End>,
}

/// How the writing of a blob ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All bytes are there; they have this digest.
    Whole(Digest),
    /// There will be no such blob.
    GivenUp,
}

impl Growing {
    /// Waits until there are `least` bytes, or no more to come.
    pub fn wait(&self, least: u64) -> Grown {
        let mut grown = self.state.grown.lock().unwrap_or_else(PoisonError::into_inner);
        while grown.end.is_none() && grown.size < least {
            grown = self.state.more.wait(grown).unwrap_or_else(PoisonError::into_inner);
        }
        *grown
    }

    /// Reads bytes that are there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

/// The side that writes; dropped without [`end`](Self::end), the blob is given up.
#[derive(Debug)]
pub(crate) struct Grower(Arc<State>);

impl Grower {
    /// Begins with what `file`, which is opened for reading, has.
    pub(crate) fn start(file: File, size: u64) -> (Self, Growing) {
        let state = Arc::new(State::default());
        let grower = Self(Arc::clone(&state));
        grower.change(|grown| grown.size = size);
        (grower, Growing { file: Arc::new(file), state })
    }

    /// Tells that there are `size` bytes now.
    pub(crate) fn grow(&self, size: u64) {
        self.change(|grown| grown.size = size);
    }

    /// Tells that there are all.
    pub(crate) fn end(&self, digest: Digest) {
        self.change(|grown| grown.end = Some(End::Whole(digest)));
    }

    fn change(&self, change: impl FnOnce(&mut Grown)) {
        change(&mut self.0.grown.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.more.notify_all();
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.change(|grown| grown.end = grown.end.or(Some(End::GivenUp)));
    }
}
