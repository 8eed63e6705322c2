//! The places that may give something: mirrors, then the registry itself, asked one after the other.
//!
//! Whatever goes wrong at one place, the next is asked; the last one's error is what a caller sees, together with what
//! went wrong before. A host that cannot be reached is not asked again as long as there is another one, nor is one for a
//! blob that came damaged from there.

use std::sync::{Arc, PoisonError};

use llb::{Digest, Reference};

use crate::Error;
use crate::config::{Config, Endpoint};
use crate::session::{Host, Shared};

/// One place to ask.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Whom to ask.
    pub(crate) host: Arc<Host>,
    /// What to ask for there.
    pub(crate) reference: Reference,
    /// Whether there is no other place after it.
    pub(crate) is_last: bool,
}

/// What is wanted of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What its name stands for.
    Named,
    /// A manifest that belongs to it.
    Manifest(Digest),
    /// A blob that belongs to it.
    Blob,
}

impl Shared {
    /// What the files say, read at the first call.
    pub(crate) fn config(&self) -> Result<&Config, Error> {
        if let Some(config) = self.config.get() {
            return Ok(config);
        }
        let config = Config::read(&self.options.config)?;
        Ok(self.config.get_or_init(|| config))
    }

    /// The places to ask for something of `reference`, in order; at least one.
    pub(crate) fn places(
        &self,
        reference: &Reference,
        wanted: Wanted,
    ) -> Result<Vec<Place>, Error> {
        let serves = |endpoint: &Endpoint| match (reference.digest(), wanted) {
            (Some(_), _) => endpoint.serves.pinned,
            (None, Wanted::Named) => endpoint.serves.tags,
            (None, Wanted::Manifest(_) | Wanted::Blob) => endpoint.serves.digests,
        };
        let mut places = Vec::new();
        for endpoint in self.config()?.endpoints(reference)?.into_iter().filter(serves) {
            let host = self.host_by(endpoint.reference.host(), endpoint.way)?;
            let reference = match wanted {
                Wanted::Manifest(digest) => endpoint.reference.with_digest(digest),
                Wanted::Named | Wanted::Blob => endpoint.reference,
            };
            places.push(Place { host, reference, is_last: false });
        }
        match places.last_mut() {
            Some(last) => last.is_last = true,
            None => return Err(nowhere(reference, "`pull` and `resolve`")),
        }
        Ok(places)
    }

    /// Whom to send uploads for `reference` to.
    pub(crate) fn push_host(&self, reference: &Reference) -> Result<Arc<Host>, Error> {
        let endpoints = self.config()?.endpoints(reference)?;
        let endpoint = endpoints.into_iter().find(|endpoint| endpoint.serves.pushes);
        let endpoint = endpoint.ok_or_else(|| nowhere(reference, "`push`"))?;
        self.host_by(endpoint.reference.host(), endpoint.way)
    }

    /// Asks the places in order, until one gives a result.
    pub(crate) async fn first<T>(
        &self,
        reference: &Reference,
        wanted: Wanted,
        ask: impl AsyncFn(&Place) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.first_with(reference, wanted, None, ask).await.map(|(found, _)| found)
    }

    /// As [`first`](Self::first), for a blob, with what is to be done when its bytes prove wrong.
    pub(crate) async fn first_blob<T>(
        &self,
        reference: &Reference,
        digest: Digest,
        ask: impl AsyncFn(&Place) -> Result<T, Error>,
    ) -> Result<(T, Giver), Error> {
        self.first_with(reference, Wanted::Blob, Some(digest), ask).await
    }

    async fn first_with<T>(
        &self,
        reference: &Reference,
        wanted: Wanted,
        blob: Option<Digest>,
        ask: impl AsyncFn(&Place) -> Result<T, Error>,
    ) -> Result<(T, Giver), Error> {
        let (mut tried, mut failed) = (Vec::new(), Vec::new());
        for place in self.places(reference, wanted)? {
            if let Some(before) = place.avoid(blob) {
                tried.push(before);
                continue;
            }
            let result = ask(&place).await;
            let giver = Giver { place, blob, what: reference.to_string(), tried };
            match result {
                Ok(found) => {
                    self.tell_of(failed, &giver);
                    return Ok((found, giver));
                }
                Err(error) if giver.place.is_last || !is_of_a_place(&error) => {
                    return Err(giver.at_last(error));
                }
                Err(error) => {
                    let text = error.with_causes();
                    failed.push((giver.place.host.name.clone(), text.clone()));
                    if matches!(error, Error::Unreachable { .. } | Error::Tls { .. }) {
                        let _ = giver.place.host.down.set(text.clone());
                    }
                    tried = giver.tried;
                    tried.push(text);
                }
            }
        }
        // The last place is never avoided.
        Err(nowhere(reference, "`pull` and `resolve`"))
    }

    /// Keeps which mirrors failed, and why, where another place gave what they did not.
    fn tell_of(&self, failed: Vec<(String, String)>, giver: &Giver) {
        for (mirror, why) in failed {
            let (what, other) = (&giver.what, &giver.place.host.name);
            let text = || format!("mirror `{mirror}` did not give {what}, `{other}` did: {why}");
            self.notices.add(format!("mirror {mirror}"), text);
        }
    }
}

impl Place {
    /// Why it is not asked again, if it should not be.
    fn avoid(&self, blob: Option<Digest>) -> Option<String> {
        if self.is_last {
            return None;
        }
        let spoilt = self.host.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
        self.host.down.get().or_else(|| spoilt.get(&blob?)).cloned()
    }
}

/// The place that gave something, and what went wrong before.
#[derive(Debug)]
pub(crate) struct Giver {
    place: Place,
    blob: Option<Digest>,
    what: String,
    tried: Vec<String>,
}

impl Giver {
    /// The repository there.
    pub(crate) fn repository(&self) -> &Reference {
        &self.place.reference
    }

    /// What a stream from here that ended in `error` means: that another place is to be asked, or that there is none.
    pub(crate) fn judge(&self, error: Error) -> Error {
        if !is_of_a_place(&error) {
            return error;
        }
        if self.place.is_last {
            return self.at_last(error);
        }
        if let Some(blob) = self.blob {
            let mut spoilt = self.place.host.spoilt.lock().unwrap_or_else(PoisonError::into_inner);
            spoilt.insert(blob, error.with_causes());
        }
        Error::Elsewhere(Box::new(error))
    }

    fn at_last(&self, error: Error) -> Error {
        if self.tried.is_empty() || !is_of_a_place(&error) {
            return error;
        }
        let mut tried = self.tried.clone();
        tried.push(error.with_causes());
        Error::Everywhere { what: self.what.clone(), tried, last: Box::new(error) }
    }
}

/// Whether another place may do better.
fn is_of_a_place(error: &Error) -> bool {
    !matches!(
        error,
        Error::Cancelled
            | Error::DeadlineExceeded
            | Error::Setup(_)
            | Error::Config { .. }
            | Error::Blocked { .. }
            | Error::Elsewhere(_)
    )
}

fn nowhere(reference: &Reference, capability: &str) -> Error {
    let problem = format!(
        "the hosts.toml for `{}` has no host that is capable of {capability}",
        reference.host()
    );
    Error::Unusable { what: reference.to_string(), problem }
}
