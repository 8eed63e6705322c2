//! The wish to stop what is under way.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Asked again and again while bytes go by; says when to give up. By default never.
#[derive(Clone, Default)]
pub struct Stop(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Stop {
    /// Stops as soon as `wish` says so.
    #[must_use]
    pub fn when(wish: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(wish)))
    }

    /// Fails once it is time to stop.
    ///
    /// # Errors
    /// Then.
    pub fn check(&self) -> io::Result<()> {
        match &self.0 {
            Some(wish) if wish() => Err(io::Error::other("canceled")),
            _ => Ok(()),
        }
    }

    /// A stream that fails once it is time to stop.
    pub fn guard<T>(&self, stream: T) -> Guarded<T> {
        Guarded { stream, stop: self.clone() }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

/// When to stop is no part of what is done.
impl PartialEq for Stop {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Stop {}

/// See [`Stop::guard`].
#[derive(Debug)]
pub struct Guarded<T> {
    stream: T,
    stop: Stop,
}

impl<T: Write> Write for Guarded<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<T: Read> Read for Guarded<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stop.check()?;
        self.stream.read(buffer)
    }
}
