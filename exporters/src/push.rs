//! Pushes an image to a registry.
//!
//! Blobs first, then the manifests by digest, then the top document under each tag: whoever sees a tag
//! finds all of it there.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use cache::{Follow, Store};
use llb::Reference;
use registry::Client;
use tree::trace;

use crate::attest::AttestationManifest;
use crate::blobs::{LayerBlob, in_parallel, is_nondistributable};
use crate::image::Document;
use crate::{ExportError, Exported, Image, PushOptions};

/// Pushes the image under each of the names.
///
/// Whether a registry may be spoken to in the clear is a setting of `client`.
///
/// # Errors
/// When there is no name, a name does not suit the options, or a registry refuses something.
pub fn push(
    client: &Client,
    store: &Store,
    image: &Image,
    names: &[Reference],
    options: PushOptions,
) -> Result<Exported, ExportError> {
    check(names, options)?;
    // What is pushed is in the store by now, so the disk may be busy with it while the network is.
    while_syncing(store, || send(client, store, image, names, options))?;
    Ok(Exported::new(image, image.descriptor(), names))
}

/// Does something while what is in the store goes to the disk.
fn while_syncing<T>(
    store: &Store,
    body: impl FnOnce() -> Result<T, ExportError>,
) -> Result<T, ExportError> {
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| store.sync());
        let done = body()?;
        match sync.join() {
            Ok(synced) => synced.map(|()| done).map_err(ExportError::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Puts an image together with `make` and pushes it. The blobs that `make` tells of are sent while they are made;
/// what does not come to a good end so is met again by the push itself, and told there.
///
/// # Errors
/// Those of `make`, and as [`push`].
pub fn make_and_push(
    client: &Client,
    store: &Store,
    names: &[Reference],
    options: PushOptions,
    make: impl FnOnce(&Follow<'_>) -> Result<Image, ExportError>,
) -> Result<(Image, Exported), ExportError> {
    check(names, options)?;
    // Others take it from there.
    let repository = names.iter().map(Reference::without_version).min_by_key(Reference::name);
    // The files of the steps are what there is most of: they need not wait for the blobs that are made of them.
    while_syncing(store, || {
        let image = early(client, repository.as_ref(), make)?;
        send(client, store, &image, names, options)?;
        let exported = Exported::new(&image, image.descriptor(), names);
        Ok((image, exported))
    })
}

/// Runs `make`, and sends the blobs that it tells of to `repository` until all are there or have failed.
fn early(
    client: &Client,
    repository: Option<&Reference>,
    make: impl FnOnce(&Follow<'_>) -> Result<Image, ExportError>,
) -> Result<Image, ExportError> {
    std::thread::scope(|scope| {
        let follow = |blob: cache::Growing| {
            let Some(repository) = repository else { return };
            scope.spawn(move || {
                let _span = trace::span("push", || "blob while it is made".to_owned());
                client.push_growing(repository, Arc::new(Made(blob)))
            });
        };
        make(&follow)
    })
}

/// A blob of the store, as the client of registries takes it.
struct Made(cache::Growing);

impl registry::Growing for Made {
    fn wait(&self, least: u64) -> Option<registry::Grown> {
        let cache::Grown { size, end } = self.0.wait(least);
        let digest = match end {
            Some(cache::End::GivenUp) => return None,
            Some(cache::End::Whole(digest)) => Some(digest),
            None => None,
        };
        Some(registry::Grown { size, digest })
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// Refuses names that do not suit.
fn check(names: &[Reference], options: PushOptions) -> Result<(), ExportError> {
    if names.is_empty() {
        return Err(ExportError::NoName);
    }
    match names.iter().find(|name| options.by_digest && name.tag().is_some()) {
        Some(tagged) => Err(ExportError::TaggedByDigest(tagged.to_string())),
        None => Ok(()),
    }
}

/// Sends what the repositories of the names do not have.
fn send(
    client: &Client,
    store: &Store,
    image: &Image,
    names: &[Reference],
    options: PushOptions,
) -> Result<(), ExportError> {
    let mut repositories: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
    for name in names {
        repositories.entry(name.name()).or_default().push(name);
    }
    let mut done: Vec<Reference> = Vec::new();
    for names in repositories.values() {
        let repository = names[0].without_version();
        // What one repository of a registry has, another can take from it.
        let sibling = done.iter().find(|other| other.host() == repository.host());
        let push = Push { client, store, image, repository, sibling };
        push.blobs().map_err(|source| ExportError::Push { name: names[0].to_string(), source })?;
        for name in names {
            push.documents(name, options)
                .map_err(|source| ExportError::Push { name: name.to_string(), source })?;
        }
        done.push(push.repository);
    }
    Ok(())
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One repository that the image is pushed to.
struct Push<'a> {
    client: &'a Client,
    store: &'a Store,
    image: &'a Image,
    repository: Reference,
    /// A repository of the same registry that has the image.
    sibling: Option<&'a Reference>,
}

impl Push<'_> {
    fn blobs(&self) -> Result<(), Cause> {
        let mut layers: Vec<&LayerBlob> = self.image.layers().into_values().collect();
        // They are still called so only if they are to stay where they are.
        layers.retain(|layer| !is_nondistributable(&layer.descriptor));
        in_parallel(&layers, |layer| {
            let origin = layer.origin.as_deref().map(|origin| {
                // As a source of a definition, or by its name alone.
                origin.strip_prefix("docker-image://").unwrap_or(origin)
            });
            let origin = origin.and_then(|origin| Reference::parse_as_is(origin).ok());
            let origin = origin.filter(|origin| {
                origin.host() == self.repository.host()
                    && origin.repository() != self.repository.repository()
            });
            let content = || -> io::Result<Box<dyn io::Read + Send>> {
                let blob = layer.content(self.store).map_err(io::Error::other)?;
                Ok(Box::new(blob.open().map_err(io::Error::other)?))
            };
            let mount_from = self.sibling.or(origin.as_ref());
            let _span = trace::span("push", || format!("blob {}", layer.descriptor.digest));
            self.client
                .push_blob(&self.repository, &layer.descriptor, content, mount_from)
                .map(drop)
        })?;
        let configs = self.image.manifests.iter().map(|image| &image.config);
        let said = self.image.attestations.iter().flat_map(AttestationManifest::blobs);
        for document in configs.chain(said) {
            let content = || -> io::Result<Box<dyn io::Read + Send>> {
                Ok(Box::new(io::Cursor::new(document.bytes.clone())))
            };
            self.client.push_blob(&self.repository, &document.descriptor, content, self.sibling)?;
        }
        Ok(())
    }

    fn documents(&self, name: &Reference, options: PushOptions) -> Result<(), Cause> {
        if self.image.index.is_some() {
            for image in &self.image.manifests {
                self.document(&self.repository, &image.manifest)?;
            }
            for attestation in &self.image.attestations {
                self.document(&self.repository, &attestation.manifest)?;
            }
        }
        let place = if options.by_digest { &self.repository } else { name };
        self.document(place, self.image.top())
    }

    fn document(&self, place: &Reference, document: &Document) -> Result<(), Cause> {
        let _span = trace::span("push", || format!("manifest {place}"));
        self.client.push_manifest(place, &document.descriptor.media_type, &document.bytes)?;
        Ok(())
    }
}
