//! Base images: found in the image store, a registry or an OCI layout; their layers stay descriptors
//! until a step needs their files.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cache::{BlobProvider, Key, KeyBuilder, Ref};
use llb::image::{Descriptor, ImageConfig, MOST_LAYERS, Manifest};
use llb::{ChainId, DiffId, Digest, Event, EventSink, Platform, Reference};

use crate::engine::Job;
use crate::error::OpError;
use crate::layout::{self, Layout, LayoutPick, blob_path};

/// Where an image is.
#[derive(Debug, Clone)]
pub enum ImageLocation {
    /// In the image store or a registry, by name.
    Registry(Reference),
    /// In an OCI layout.
    Layout {
        /// Name of the context that it was given as.
        name: String,
        /// The folder.
        path: PathBuf,
        /// Which image.
        pick: LayoutPick,
    },
}

/// An image that was asked for by name.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Digest that pins it.
    pub digest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// What is known of an image that a definition may use.
#[derive(Debug)]
pub(crate) struct ImageFacts {
    pub(crate) layers: Ref,
    /// By its manifest, and by its chain of layers: a copy elsewhere with equal layers is the same.
    pub(crate) keys: Vec<Key>,
}

/// Fetches blobs of base images when a layer is first needed.
pub(crate) struct Providers {
    pub(crate) registry: Arc<registry::Client>,
    /// Who is told of what is fetched from an origin, and as whose progress.
    told: Mutex<HashMap<String, Told>>,
}

/// Who is told, and the vertex whose progress it is.
type Told = (Weak<dyn EventSink>, Digest);

impl Providers {
    pub(crate) fn new(registry: Arc<registry::Client>) -> Self {
        Self { registry, told: Mutex::default() }
    }

    /// Has `events` told of what is fetched for the image source with this identifier.
    pub(crate) fn tell(&self, identifier: &str, events: &Arc<dyn EventSink>, vertex: Digest) {
        if let Some((origin, _)) = identifier.rsplit_once('@') {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.insert(origin.to_owned(), (Arc::downgrade(events), vertex));
        }
    }

    /// The client for an origin, which tells of what it fetches.
    fn client(&self, origin: &str) -> registry::Client {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((events, vertex)) = told.get(origin).cloned() else {
            return (*self.registry).clone();
        };
        self.registry.with_watch(registry::Watch::new(move |transfer| {
            let Some(events) = events.upgrade() else { return };
            events.send(Event::Status {
                vertex,
                id: transfer.digest.to_string(),
                current: transfer.done,
                total: transfer.total,
                started: transfer.started,
                completed: transfer.ended,
            });
        }))
    }
}

const LAYOUT: &str = "oci-layout://";
const IMAGE: &str = "docker-image://";

impl BlobProvider for Providers {
    fn open(
        &self,
        origin: &str,
        descriptor: &Descriptor,
    ) -> Result<Box<dyn Read + Send>, Box<dyn std::error::Error + Send + Sync>> {
        if let Some(path) = origin.strip_prefix(LAYOUT) {
            return Ok(Box::new(layout::open(&blob_path(Path::new(path), &descriptor.digest))?));
        }
        let name = origin.strip_prefix(IMAGE).unwrap_or(origin);
        let reference = Reference::parse(name)?;
        Ok(Box::new(self.client(origin).blob(&reference, descriptor)?))
    }

    fn is_elsewhere(&self, error: &std::io::Error) -> bool {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<registry::Error>());
        inner.is_some_and(registry::Error::is_elsewhere)
    }
}

impl Job {
    /// Finds an image and its config. With `pull`, the image store is not asked.
    ///
    /// With `any_platform`, an image that is not for `platform` will do if it is for another one whose programs
    /// this machine runs.
    ///
    /// # Errors
    /// When there is no such image, or the registry or layout cannot be read.
    pub fn resolve_image(
        &self,
        location: &ImageLocation,
        platform: &Platform,
        any_platform: bool,
        pull: bool,
    ) -> Result<ResolvedImage, OpError> {
        let error = match self.resolve_for(location, platform, pull) {
            Err(error) if any_platform && error.is_other_platform() => error,
            other => return other,
        };
        for architecture in sandbox::architectures_that_run() {
            let other = Platform { os: "linux".to_owned(), ..Platform::default() };
            let other = Platform { architecture: architecture.to_owned(), ..other }.normalized();
            match self.resolve_for(location, &other, pull) {
                Err(error) if error.is_other_platform() => {}
                found => return found,
            }
        }
        Err(error)
    }

    fn resolve_for(
        &self,
        location: &ImageLocation,
        platform: &Platform,
        pull: bool,
    ) -> Result<ResolvedImage, OpError> {
        match location {
            ImageLocation::Layout { name, path, pick } => {
                self.resolve_layout(name, path, pick, platform)
            }
            ImageLocation::Registry(reference) => {
                if !pull && let Some(image) = self.resolve_stored(reference, platform)? {
                    return Ok(image);
                }
                self.resolve_registry(reference, platform)
            }
        }
    }

    fn resolve_layout(
        &self,
        name: &str,
        path: &Path,
        pick: &LayoutPick,
        platform: &Platform,
    ) -> Result<ResolvedImage, OpError> {
        let image = Layout { name, path }.image(pick, platform)?;
        let origin = format!("{LAYOUT}{}", path.display());
        let config = parse_config(name, &image.config)?;
        self.remember(
            format!("{LAYOUT}{name}@{}", image.digest),
            platform,
            image.digest,
            &image.manifest,
            &config,
            origin,
        )?;
        Ok(ResolvedImage { digest: image.digest, config })
    }

    fn resolve_stored(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<ResolvedImage>, OpError> {
        let images = self.inner.engine.store.images();
        let Some(image) = images.by_name(reference)? else { return Ok(None) };
        let wanted = platform.to_string();
        let Some(variant) = image.variants.iter().find(|variant| variant.platform == wanted) else {
            return Ok(None);
        };
        let config = parse_config(&reference.to_string(), &images.config(variant)?)?;
        let layers = images.reference(variant)?;
        self.insert(
            format!("{IMAGE}{reference}@{}", image.id),
            platform,
            facts(image.id, layers, &diff_ids(&config)),
        );
        Ok(Some(ResolvedImage { digest: image.id, config }))
    }

    fn resolve_registry(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, OpError> {
        let registry_error = |source: registry::Error| OpError::Registry {
            reference: reference.to_string(),
            source: Box::new(source),
        };
        let engine = &self.inner.engine;
        // What has a digest is the same for ever. A store that fails to give it is no reason to fail.
        let known = |digest: Digest| {
            let small = |blob: &cache::BlobFile| blob.size() <= registry::LARGEST_DOCUMENT;
            match engine.store.blob(&digest).ok()?.filter(small) {
                Some(blob) => blob.read().ok(),
                None => engine.store.images().document(&digest).ok()?,
            }
        };
        let image = engine
            .registry
            .resolve_image_knowing(reference, platform, &known)
            .map_err(registry_error)?;
        let config = match engine.store.blob(&image.manifest.config.digest)? {
            Some(blob) => blob.read()?,
            None => {
                let config = &image.manifest.config;
                let bytes = engine
                    .registry
                    .small_blob(reference, config, MAX_CONFIG)
                    .map_err(registry_error)?;
                engine.store.put_blob(&bytes)?;
                bytes
            }
        };
        let digest = image.top.descriptor.digest;
        let config = parse_config(&reference.to_string(), &config)?;
        for document in [&image.top, &image.document] {
            engine.store.put_blob(&document.bytes)?;
        }
        let origin = format!("{IMAGE}{reference}");
        let pinned = format!("{IMAGE}{reference}@{digest}");
        self.remember(
            pinned,
            platform,
            image.document.descriptor.digest,
            &image.manifest,
            &config,
            origin,
        )?;
        Ok(ResolvedImage { digest, config })
    }

    /// Makes layers of a manifest's descriptors; nothing is fetched.
    fn remember(
        &self,
        identifier: String,
        platform: &Platform,
        digest: Digest,
        manifest: &Manifest,
        config: &ImageConfig,
        origin: String,
    ) -> Result<(), OpError> {
        let descriptors = manifest.layers.clone().unwrap_or_default();
        let diff_ids = diff_ids(config);
        if descriptors.len() != diff_ids.len() {
            return Err(OpError::Layout {
                name: identifier,
                message: format!(
                    "the manifest has {} layers, the config {}",
                    descriptors.len(),
                    diff_ids.len()
                ),
            });
        }
        if diff_ids.len() > MOST_LAYERS {
            let message = format!("it has {} layers, more than {MOST_LAYERS}", diff_ids.len());
            return Err(OpError::Layout { name: identifier, message });
        }
        let layers = diff_ids.iter().copied().zip(&descriptors);
        let layers = self.inner.engine.store.base_layers(layers, &origin)?;
        self.insert(identifier, platform, facts(digest, layers, &diff_ids));
        Ok(())
    }

    fn insert(&self, identifier: String, platform: &Platform, facts: ImageFacts) {
        let mut images = self.inner.engine.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.insert((identifier, Some(platform.clone())), Arc::new(facts));
    }
}

/// Largest image config that is read.
const MAX_CONFIG: u64 = 4 << 20;

fn facts(digest: Digest, layers: Ref, diff_ids: &[DiffId]) -> ImageFacts {
    let chain = match ChainId::of(diff_ids) {
        Some(chain) => KeyBuilder::new("chain.v1").str(&chain.to_string()).finish(),
        None => KeyBuilder::new("chain.v1").str("").finish(),
    };
    ImageFacts {
        layers,
        keys: vec![chain, KeyBuilder::new("image.v1").str(&digest.to_string()).finish()],
    }
}

fn diff_ids(config: &ImageConfig) -> Vec<DiffId> {
    config.rootfs.diff_ids.clone().unwrap_or_default()
}

fn parse_config(name: &str, bytes: &[u8]) -> Result<ImageConfig, OpError> {
    serde_json::from_slice(bytes).map_err(|error| OpError::Layout {
        name: name.to_owned(),
        message: format!("bad image config: {error}"),
    })
}
