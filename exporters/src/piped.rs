//! A layer's tar to read from, written by a thread of its own.

use std::io::{self, BufWriter, Read, Write};
use std::thread::{self, JoinHandle};

use cache::{CacheError, Layer};

/// A layer's tar; [`end`](Self::end) must be called for what it was read for.
pub(crate) struct Piped {
    pipe: io::PipeReader,
    thread: JoinHandle<Result<(), CacheError>>,
}

impl Piped {
    pub(crate) fn start(layer: &Layer) -> io::Result<Self> {
        let (pipe, writer) = io::pipe()?;
        let layer = layer.clone();
        let work = move || {
            let mut writer = BufWriter::with_capacity(128 << 10, writer);
            layer.write_plain(&mut writer)?;
            // Who takes no more misses nothing: what was written is the layer.
            let _ = writer.flush();
            Ok(())
        };
        Ok(Self { pipe, thread: thread::Builder::new().spawn(work)? })
    }

    /// Makes sure that it was read whole, and is what it should be. What failed while it was written is the cause of
    /// what then failed in `outcome`, for which it was read.
    ///
    /// # Errors
    /// When the layer cannot be read or is not what it should be; `outcome` is the inner result.
    pub(crate) fn end<T>(mut self, outcome: io::Result<T>) -> Result<io::Result<T>, CacheError> {
        let outcome = outcome.and_then(|value| match self.pipe.read(&mut [0])? {
            0 => Ok(value),
            _ => Err(io::Error::other("a layer became longer while it was read")),
        });
        drop(self.pipe);
        let written = match self.thread.join() {
            Ok(written) => written,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (outcome, written) {
            (Err(error), Err(cause)) if cause.is_unheard() => Ok(Err(error)),
            (_, Err(cause)) => Err(cause),
            (outcome, Ok(())) => Ok(outcome),
        }
    }
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pipe.read(buffer)
    }
}
