//! A blob that is sent while it is made.
//!
//! ```text
//! made  ████████████████████████▒▒▒▒▒▒▒ … all: the digest is known
//! sent  PATCH ───▶│ PATCH ─────▶│         PUT with the rest and the digest
//! ```
//!
//! A chunk is what there is when the one before is sent: a fast link has many small ones, a slow one few large ones.
//! Nothing is begun before there is a chunk, so a short blob is left to who sends it whole.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::SystemTime;

use llb::image::{Descriptor, media_type};
use llb::{Digest, Reference};

use super::feed::Feed;
use super::opened::Opened;
use crate::Error;
use crate::progress::{Meter, Watch};
use crate::session::Shared;

/// Least bytes that are sent before the blob is whole.
const CHUNK: u64 = 4 << 20;

/// A blob that is still being made. It can be read where it has grown already.
pub trait Growing: Send + Sync {
    /// Waits until there are `least` bytes, or all. `None` when there will be no blob.
    fn wait(&self, least: u64) -> Option<Grown>;

    /// Reads bytes that are there.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// How much of a blob there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// Bytes that can be read.
    pub size: u64,
    /// The digest, once there are all.
    pub digest: Option<Digest>,
}

/// Bytes of a blob from a place on.
struct Part {
    blob: Arc<dyn Growing>,
    at: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.blob.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

/// Sends one blob while it is made.
pub(crate) struct GrowingUpload<'a> {
    shared: &'a Shared,
    blob: Arc<dyn Growing>,
    opened: Opened<'a>,
    meter: Arc<Meter>,
    watch: Option<Watch>,
}

impl<'a> GrowingUpload<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        repository: &'a Reference,
        blob: Arc<dyn Growing>,
        watch: Option<Watch>,
    ) -> Result<Self, Error> {
        let what = format!("{} (still being made)", repository.name());
        let opened = Opened::new(shared, repository, what)?.without_retries();
        let meter = Arc::new(Meter::new(None, &descriptor(Digest::of(b""), 0)));
        Ok(Self { shared, blob, opened, meter, watch })
    }

    /// Sends the blob as it comes; whether it is in the registry then. It is not when it is short, or comes to nothing.
    pub(crate) async fn send(&mut self) -> Result<bool, Error> {
        let (started, mut attempt, mut furthest) = (SystemTime::now(), 0, 0);
        loop {
            let error = match self.attempt().await {
                Ok(Some(blob)) => {
                    Meter::since(started, self.watch.clone(), &blob).end();
                    return Ok(true);
                }
                Ok(None) => return Ok(false),
                Err(error) => error,
            };
            if self.opened.sent() > furthest {
                (furthest, attempt) = (self.opened.sent(), 0);
            }
            // Where nothing has come of it yet, whoever sends the blob whole may try again, and tell what is wrong.
            let pause = self.shared.pause(&error, attempt).filter(|_| furthest > 0);
            let Some(pause) = pause else { return Err(error) };
            attempt += 1;
            tokio::time::sleep(pause).await;
            self.opened.ask_how_far(u64::MAX).await;
        }
    }

    /// Sends what the registry does not have, to the end; `None` where nothing is to be sent.
    async fn attempt(&mut self) -> Result<Option<Descriptor>, Error> {
        loop {
            let sent = self.opened.sent();
            let Some(grown) = self.wait(sent + CHUNK.max(self.opened.least())).await else {
                return Ok(None);
            };
            if !self.opened.is_begun() {
                if grown.digest.is_some() && grown.size < CHUNK {
                    return Ok(None);
                }
                self.opened.begin(None).await?;
                continue;
            }
            let size = grown.size.saturating_sub(sent);
            let part = Part { blob: Arc::clone(&self.blob), at: sent };
            let feed = Feed::start(Box::new(part.take(size)), 0, size, &self.meter);
            if let Some(digest) = grown.digest {
                self.opened.finish(&feed, size, digest).await?;
                return Ok(Some(descriptor(digest, grown.size)));
            }
            self.opened.patch(&feed, size, grown.size).await?;
        }
    }

    /// Waits for bytes, while other requests go on.
    async fn wait(&self, least: u64) -> Option<Grown> {
        let blob = Arc::clone(&self.blob);
        tokio::task::spawn_blocking(move || blob.wait(least)).await.ok().flatten()
    }

    /// Gives the upload up.
    pub(crate) async fn cancel(&mut self) {
        self.opened.cancel().await;
    }
}

fn descriptor(digest: Digest, size: u64) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, digest, size)
}
