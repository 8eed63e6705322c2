//! The bytes of a blob on their way to a registry.
//!
//! ```text
//! POST ─▶ location ─▶ PUT with all bytes ───────────────────────────▶ done
//!            │            │ too large for the registry
//!            │            ▼
//!            ╰───────▶ PATCH chunk ─▶ PATCH chunk ─▶ … ─▶ empty PUT ─▶ done
//!                         │ ▲
//!                 broke ──▼ │ GET location: how far it is
//! ```
//!
//! A blob goes in one request where the registry takes it. What a registry has of an upload that broke is asked
//! for, and only the rest is sent; where it cannot tell, a new upload begins. A blob that is still being made goes in
//! chunks of what there is; see [`growing`].
//!
//! Invariants:
//! - A chunk is never smaller than the registry wants (`OCI-Chunk-Min-Length`), but for the last one.
//! - The source is read once from front to end, unless something breaks.
//! - An upload that ends without its blob is cancelled, as far as the registry can be reached.
//!
//! Format: OCI distribution specification 1.1, "Pushing blobs".

mod feed;
pub(crate) mod growing;
pub(crate) mod opened;

use std::sync::Arc;

use llb::Reference;
use llb::image::Descriptor;

use crate::Error;
use crate::progress::Meter;
use crate::pull::blob_name;
use crate::push::Source;
use crate::session::Shared;
use feed::Feed;
use opened::Opened;

/// Chunks are not made smaller than this, whatever the registry says of their size.
const SMALLEST_CHUNK: u64 = 64 << 10;

/// Sends one blob, with as many tries as it takes.
pub(crate) struct Upload<'a> {
    shared: &'a Shared,
    blob: &'a Descriptor,
    source: &'a Source<'a>,
    opened: Opened<'a>,
    /// Size of chunks; `None` as long as the blob is sent whole.
    chunk: Option<u64>,
    meter: Arc<Meter>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        repository: &'a Reference,
        blob: &'a Descriptor,
        source: &'a Source<'a>,
        meter: Meter,
    ) -> Result<Self, Error> {
        let opened = Opened::new(shared, repository, blob_name(repository, blob.digest))?;
        Ok(Self { shared, blob, source, opened, chunk: None, meter: Arc::new(meter) })
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Has the registry take the blob from another repository, or begins an upload; whether it took it.
    pub(crate) async fn mount(&mut self, from: &Reference) -> Result<bool, Error> {
        self.opened.begin(Some((self.blob.digest, from))).await
    }

    /// Sends what the registry does not have yet. After an error the upload goes on where
    /// [`ask_how_far`](Self::ask_how_far) finds it.
    pub(crate) async fn send(&mut self) -> Result<(), Error> {
        if !self.opened.is_begun() {
            self.opened.begin(None).await?;
        }
        let (size, digest) = (self.blob.size, self.blob.digest);
        let mut feed = self.feed()?;
        if self.chunk.is_none() && self.opened.sent() == 0 {
            return self.opened.finish(&feed, size, digest).await;
        }
        loop {
            let (sent, least) = (self.opened.sent(), self.opened.least());
            let left = size.saturating_sub(sent);
            if left == 0 {
                return self.opened.finish(&feed, 0, digest).await;
            }
            let chunk = self.chunk.unwrap_or(left).max(least).min(left);
            let stored = self.opened.patch(&feed, chunk, size).await?;
            if stored != sent + chunk {
                // It has less than it was sent, or more than it should: go on from there.
                feed = self.feed()?;
            }
        }
    }

    /// What the registry does not have.
    fn feed(&self) -> Result<Feed, Error> {
        let sent = self.opened.sent();
        self.meter.at(sent);
        let reader = (self.source)().map_err(|error| self.opened.unreadable(error))?;
        Ok(Feed::start(reader, sent, self.blob.size, &self.meter))
    }

    /// Whether the blob, or its chunks, shall be sent in smaller requests after this refusal.
    pub(crate) fn takes_smaller(&mut self, error: &Error) -> bool {
        let Error::BadAnswer { status: Some(status), .. } = error else { return false };
        let least = self.opened.least().max(SMALLEST_CHUNK);
        let chunk = match self.chunk {
            // These say that the request is not one that the registry takes, whatever its bytes are.
            None if [405, 411, 413, 415, 501].contains(status) => {
                self.shared.options.chunk_size.max(least)
            }
            Some(chunk) if *status == 413 && chunk > least => (chunk / 2).max(least),
            _ => return false,
        };
        self.chunk = Some(chunk);
        true
    }

    /// Gives the upload up.
    pub(crate) async fn cancel(&mut self) {
        self.opened.cancel().await;
    }

    /// Finds out how much of the upload the registry has after something broke.
    pub(crate) async fn ask_how_far(&mut self) {
        self.opened.ask_how_far(self.blob.size).await;
    }
}
