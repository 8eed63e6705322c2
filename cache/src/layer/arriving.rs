//! A blob on its way from its origin into the store, which can be read meanwhile.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use llb::image::Descriptor;

use super::KnownBlob;
use crate::blob::Ingest;
use crate::error::{At, CacheError};
use crate::store::Store;

/// Bytes per read of what nobody else reads.
const BUFFER: usize = 128 << 10;

/// A blob that is fetched. Whoever reads a clone of it gets the bytes as they come; they are those of the blob
/// only if [`finish`](Self::finish) says so.
#[derive(Clone)]
pub(super) struct Arriving(Arc<Mutex<State>>);

struct State {
    store: Store,
    descriptor: Descriptor,
    origin: String,
    reader: Box<dyn Read + Send>,
    /// Gone once the blob is in the store, or cannot get there.
    ingest: Option<Ingest>,
    /// Why it cannot.
    failure: Option<CacheError>,
}

impl Arriving {
    /// Asks the provider for a blob that the store does not have.
    pub(super) fn open(store: &Store, blob: &KnownBlob) -> Result<Self, CacheError> {
        let (descriptor, origin) =
            (blob.descriptor.clone(), blob.origin.clone().unwrap_or_default());
        let opened = store.0.provider.open(&origin, &descriptor);
        let reader = opened.map_err(|source| CacheError::Fetch {
            digest: descriptor.digest,
            origin: origin.clone(),
            source,
        })?;
        let (store, ingest) = (store.clone(), Some(store.ingest()?));
        let state = State { store, descriptor, origin, reader, ingest, failure: None };
        Ok(Self(Arc::new(Mutex::new(state))))
    }

    /// Reads what nobody has read, and puts the blob into the store.
    ///
    /// # Errors
    /// When it did not come whole, or is another one.
    pub(super) fn finish(self) -> Result<(), CacheError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; BUFFER];
        while state.failure.is_none() {
            match state.pull(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => state.failure = Some(error),
            }
        }
        let (failure, ingest) = (state.failure.take(), state.ingest.take());
        match (failure, ingest) {
            (None, Some(ingest)) => ingest.commit(Some(state.descriptor.digest)).map(drop),
            (Some(failure), _) => Err(failure),
            (None, None) => Ok(()),
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.failure.is_some() {
            return Err(io::Error::other("the blob could not be fetched"));
        }
        state.pull(buffer).map_err(|error| {
            let text = error.to_string();
            state.failure = Some(error);
            io::Error::other(text)
        })
    }
}

impl State {
    /// Reads some bytes and keeps them. Reading is the provider's failure, writing the disk's.
    fn pull(&mut self, buffer: &mut [u8]) -> Result<usize, CacheError> {
        let length = loop {
            match self.reader.read(buffer) {
                Ok(length) => break length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error.into())),
            }
        };
        let Some(ingest) = &mut self.ingest else { return Ok(length) };
        if ingest.size() + length as u64 > self.descriptor.size {
            let problem = format!("more than {} bytes", self.descriptor.size);
            return Err(self.failed(problem.into()));
        }
        let path = self.store.0.blob_path(&self.descriptor.digest);
        ingest.write_all(&buffer[..length]).at(&path)?;
        Ok(length)
    }

    fn failed(&self, source: Box<dyn std::error::Error + Send + Sync>) -> CacheError {
        CacheError::Fetch { digest: self.descriptor.digest, origin: self.origin.clone(), source }
    }
}

/// Does it again as long as the provider has another place to ask, and once more when other bytes came than those of
/// the blob: something on the way may have damaged them.
pub(super) fn or_again<T>(
    store: &Store,
    mut attempt: impl FnMut() -> Result<T, CacheError>,
) -> Result<T, CacheError> {
    let mut was_wrong = false;
    loop {
        let error = match attempt() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let CacheError::Fetch { source, .. } = &error else { return Err(error) };
        let Some(cause) = source.downcast_ref::<io::Error>() else { return Err(error) };
        if store.0.provider.is_elsewhere(cause) {
            continue;
        }
        if was_wrong || cause.kind() != io::ErrorKind::InvalidData {
            return Err(error);
        }
        was_wrong = true;
    }
}
