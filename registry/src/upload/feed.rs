//! The bytes of a blob as bodies of requests.
//!
//! Memory is bounded by [`PIECES`] pieces, whatever the size of a request.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use reqwest::Body;
use tokio::sync::mpsc;

use crate::progress::Meter;

/// Bytes per piece of an upload, and pieces that wait between the reader and the network.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;

/// A blocking reader whose bytes become the bodies of requests, one after the other.
pub(super) struct Feed {
    supply: Arc<Mutex<Supply>>,
    /// How often the network has asked for bytes.
    taken: Arc<AtomicU64>,
    /// Why reading failed.
    failed: Arc<Mutex<Option<io::Error>>>,
    meter: Arc<Meter>,
}

/// Pieces that no request has taken yet.
struct Supply {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Feed {
    /// Begins to read `reader`, which has `size` bytes, of which the first `skip` are left out.
    pub(super) fn start(
        mut reader: Box<dyn Read + Send>,
        skip: u64,
        size: u64,
        meter: &Arc<Meter>,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let failed = Arc::new(Mutex::new(None));
        let failure = Arc::clone(&failed);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = feed(&mut *reader, skip, size, &sender) {
                let copy = io::Error::new(error.kind(), error.to_string());
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // An error in the body ends the request; nobody may be left to see it.
                let _ = sender.blocking_send(Err(copy));
            }
        });
        let supply = Arc::new(Mutex::new(Supply { pieces, rest: Bytes::new() }));
        Self { supply, taken: Arc::default(), failed, meter: Arc::clone(meter) }
    }

    /// The next `size` bytes.
    pub(super) fn body(&self, size: u64) -> Body {
        if size == 0 {
            return Body::from(Vec::new());
        }
        let (supply, taken) = (Arc::clone(&self.supply), Arc::clone(&self.taken));
        Body::wrap_stream(Pieces { supply, taken, left: size, meter: Arc::clone(&self.meter) })
    }

    /// How often the network has asked for bytes.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the bytes could not be read, if so; told once.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads `size` bytes, all that there must be, and gives those after `skip` to the channel; stops early when
/// its other end is gone.
fn feed(
    reader: &mut dyn Read,
    skip: u64,
    size: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let short = |length: u64| {
        let text = format!("it has {length} bytes instead of {size}");
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    };
    let skipped = io::copy(&mut reader.take(skip), &mut io::sink())?;
    if skipped < skip {
        return Err(short(skipped));
    }
    let mut left = size - skip;
    loop {
        let mut piece = Vec::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
        let read = reader.take(left.min(PIECE as u64)).read_to_end(&mut piece)?;
        if read == 0 && left > 0 {
            return Err(short(size - left));
        }
        left -= read as u64;
        // The last piece is held back until it is known to be the last, so that no blob is completed that
        // has more.
        if left == 0 && reader.read(&mut [0])? != 0 {
            let text = format!("it has more than {size} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if piece.is_empty() || sender.blocking_send(Ok(piece.into())).is_err() || left == 0 {
            return Ok(());
        }
    }
}

/// The body of one request.
struct Pieces {
    supply: Arc<Mutex<Supply>>,
    taken: Arc<AtomicU64>,
    left: u64,
    meter: Arc<Meter>,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let supply = Arc::clone(&self.supply);
        let mut supply = supply.lock().unwrap_or_else(PoisonError::into_inner);
        if supply.rest.is_empty() {
            match supply.pieces.poll_recv(context) {
                Poll::Ready(Some(Ok(piece))) => supply.rest = piece,
                other => return other,
            }
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(supply.rest.len());
        let piece = supply.rest.split_to(length);
        self.left -= length as u64;
        self.meter.add(length as u64);
        Poll::Ready(Some(Ok(piece)))
    }
}
