//! How far transfers of blobs are.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use llb::Digest;
use llb::image::Descriptor;

/// How often a transfer is told of.
const EVERY: Duration = Duration::from_millis(100);

/// How far the transfer of a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which blob.
    pub digest: Digest,
    /// Bytes that have gone through.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// When it began.
    pub started: SystemTime,
    /// When it ended, if it has.
    pub ended: Option<SystemTime>,
}

/// Is told of transfers while they run; called from several threads.
#[derive(Clone)]
pub struct Watch(Arc<dyn Fn(Transfer) + Send + Sync>);

impl Watch {
    /// Tells `told`.
    pub fn new(told: impl Fn(Transfer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Counts the bytes of one transfer.
#[derive(Debug)]
pub(crate) struct Meter {
    watch: Option<Watch>,
    digest: Digest,
    total: u64,
    started: SystemTime,
    done: AtomicU64,
    told: Mutex<Instant>,
}

impl Meter {
    pub(crate) fn new(watch: Option<Watch>, blob: &Descriptor) -> Self {
        Self::since(SystemTime::now(), watch, blob)
    }

    /// For a transfer that began before its blob was known.
    pub(crate) fn since(started: SystemTime, watch: Option<Watch>, blob: &Descriptor) -> Self {
        Self {
            watch,
            digest: blob.digest,
            total: blob.size,
            started,
            done: AtomicU64::new(0),
            told: Mutex::new(Instant::now()),
        }
    }

    /// Goes on from a place in the blob.
    pub(crate) fn at(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Notes that more bytes have gone through.
    pub(crate) fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        if self.watch.is_none() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= EVERY {
            *told = Instant::now();
            drop(told);
            self.tell(None);
        }
    }

    /// Tells that all is done.
    pub(crate) fn end(&self) {
        self.at(self.total);
        self.tell(Some(SystemTime::now()));
    }

    fn tell(&self, ended: Option<SystemTime>) {
        if let Some(Watch(told)) = &self.watch {
            let done = self.done.load(Ordering::Relaxed).min(self.total);
            let (digest, total, started) = (self.digest, self.total, self.started);
            told(Transfer { digest, done, total, started, ended });
        }
    }
}
