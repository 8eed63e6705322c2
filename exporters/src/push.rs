//! Pushes an image to a registry.
//!
//! Blobs first, then the manifests by digest, then the top document under each tag: whoever sees a tag
//! finds all of it there.

use std::collections::BTreeMap;
use std::io;

use cache::Store;
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
    if names.is_empty() {
        return Err(ExportError::NoName);
    }
    if options.by_digest
        && let Some(tagged) = names.iter().find(|name| name.tag().is_some())
    {
        return Err(ExportError::TaggedByDigest(tagged.to_string()));
    }
    // What is pushed is in the store by now, so the disk may be busy with it while the network is.
    std::thread::scope(|scope| {
        let sync = scope.spawn(|| store.sync());
        send(client, store, image, names, options)?;
        match sync.join() {
            Ok(synced) => synced.map_err(ExportError::from),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(Exported::new(image, image.descriptor(), names))
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
