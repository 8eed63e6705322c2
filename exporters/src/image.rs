//! Puts an image together: configs, manifests, index.
//!
//! ```text
//! PlatformResult ─▶ layer blobs + diff ids ─▶ config ─▶ manifest ─┐
//! PlatformResult ─▶ …                                            ─┴─▶ index
//! ```
//!
//! Invariant: the same result and options give the same bytes, whenever and wherever.

use std::collections::BTreeMap;

use jiff::Timestamp;
use llb::image::{
    Descriptor, DescriptorPlatform, ImageConfig, Index, Manifest, annotation, media_type,
};
use llb::{DiffId, Digest, Platform, Reference};

use crate::annotations::{AnnotationTarget, Annotations};
use crate::attest::{self, Attestation, AttestationManifest};
use crate::blobs::{self, Choice, Content, LayerBlob, Wanted};
use crate::options::ImageOptions;
use crate::{ExportError, Stop, history};

/// A finished build: what every exporter takes.
#[derive(Debug, Clone, Default)]
pub struct ImageResult {
    /// One for each platform, in the order they were asked for.
    pub platforms: Vec<PlatformResult>,
    /// Names of the image.
    pub names: Vec<Reference>,
    /// Notes for the image; those of an output are added to them.
    pub annotations: Annotations,
    /// Make an index even for a single platform.
    pub index: bool,
    /// What is said about the images.
    pub attestations: Vec<Attestation>,
}

/// The result for one platform.
#[derive(Debug, Clone)]
pub struct PlatformResult {
    /// Which.
    pub platform: Platform,
    /// The files.
    pub reference: cache::Ref,
    /// Config with its history, but without layers and times.
    pub config: ImageConfig,
    /// How many entries of the history came with the base image.
    pub base_history: usize,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub source_date_epoch: Option<i64>,
}

/// A JSON document with its name.
#[derive(Debug, Clone)]
pub struct Document {
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// The text.
    pub bytes: Vec<u8>,
}

impl Document {
    pub(crate) fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        Self { descriptor, bytes }
    }
}

/// An image, ready to be written or pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// One for each platform.
    pub manifests: Vec<PlatformImage>,
    /// What is said about them.
    pub attestations: Vec<AttestationManifest>,
    /// The index, if there is one.
    pub index: Option<Document>,
    /// When it was made, as RFC 3339 in whole seconds.
    pub created: String,
    /// Notes for the descriptor of the top document.
    pub(crate) top_annotations: BTreeMap<String, String>,
    /// When to give up writing it.
    pub(crate) stop: Stop,
}

/// The part of an image for one platform.
#[derive(Debug, Clone)]
pub struct PlatformImage {
    /// Which.
    pub platform: Platform,
    /// Image config.
    pub config: Document,
    /// Manifest.
    pub manifest: Document,
    /// Layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

impl Image {
    /// What a name of the image stands for: the index, or the only manifest.
    pub fn top(&self) -> &Document {
        match (&self.index, self.manifests.as_slice()) {
            (Some(index), _) => index,
            (None, [only, ..]) => &only.manifest,
            (None, []) => unreachable!("an image without a platform always has an index"),
        }
    }

    /// The config, when there is just one.
    pub fn config(&self) -> Option<&Document> {
        match (&self.index, self.manifests.as_slice()) {
            (None, [only]) => Some(&only.config),
            _ => None,
        }
    }

    /// All documents, what is named by others before what names it.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        let images = self.manifests.iter().flat_map(|image| [&image.config, &image.manifest]);
        let attestations = self.attestations.iter().flat_map(AttestationManifest::documents);
        images.chain(attestations).chain(&self.index)
    }

    /// All layers, each once.
    pub(crate) fn layers(&self) -> BTreeMap<Digest, &LayerBlob> {
        let layers = self.manifests.iter().flat_map(|image| &image.layers);
        layers.map(|layer| (layer.descriptor.digest, layer)).collect()
    }

    /// Descriptor of the top document, with the platform when it is a manifest.
    pub fn descriptor(&self) -> Descriptor {
        let platform = match (&self.index, self.manifests.as_slice()) {
            (None, [only]) => Some(DescriptorPlatform::from(&only.platform)),
            _ => None,
        };
        Descriptor { platform, ..self.top().descriptor.clone() }
    }

    /// The same with the time of the image, as a layout lists it. The reference writes the time of the export where there is
    /// no epoch; here an image that is exported twice gives the same bytes.
    pub(crate) fn dated_descriptor(&self) -> Descriptor {
        let mut annotations = self.top_annotations.clone();
        annotations.insert(annotation::CREATED.to_owned(), self.created.clone());
        Descriptor { annotations: Some(annotations), ..self.descriptor() }
    }
}

/// Puts the image together, making layer blobs where there are none, several at once.
///
/// With [`Content::Elsewhere`], blobs that a registry has stay there.
///
/// # Errors
/// When a layer cannot be made, or the annotations do not fit the image.
pub fn assemble(
    store: &cache::Store,
    result: &ImageResult,
    options: &ImageOptions,
    content: Content,
) -> Result<Image, ExportError> {
    assemble_followed(store, result, options, content, None)
}

/// As [`assemble`]; `follow` is given the layer blobs that have to be made, when that begins.
///
/// # Errors
/// When a layer cannot be made, or the annotations do not fit the image.
pub fn assemble_followed(
    store: &cache::Store,
    result: &ImageResult,
    options: &ImageOptions,
    content: Content,
    follow: Option<&cache::Follow<'_>>,
) -> Result<Image, ExportError> {
    let _span = tree::trace::span("assemble", || "image".to_owned());
    let mut annotations = result.annotations.clone();
    annotations.0.extend(options.annotations.0.iter().cloned());
    let with_index = result.index || result.platforms.len() != 1 || !result.attestations.is_empty();
    check_annotations(&annotations, with_index, options.oci_types)?;

    let epoch = result.platforms.iter().find_map(|platform| platform.source_date_epoch);
    let options =
        &ImageOptions { source_date_epoch: options.source_date_epoch.or(epoch), ..options.clone() };
    let layers = result.platforms.iter().flat_map(|platform| platform.reference.layers());
    let layers = blobs::of_layers(
        store,
        layers,
        &Wanted { options, content, choice: Choice::AsAsked, follow },
    )?;
    let mut manifests = Vec::with_capacity(result.platforms.len());
    let mut created: Option<Timestamp> = None;
    for platform in &result.platforms {
        let (image, time) = platform_image(platform, &layers, &annotations, options)?;
        created = created.max(time);
        manifests.push(image);
    }
    let attestations = attest::manifests(result, &manifests, options)?;
    let index = with_index.then(|| index(&manifests, &attestations, &annotations, options));
    let top_annotations = match manifests.as_slice() {
        [only] if !with_index => {
            annotations.of(AnnotationTarget::ManifestDescriptor, Some(&only.platform))
        }
        _ => annotations.of(AnnotationTarget::IndexDescriptor, None),
    };
    Ok(Image {
        manifests,
        attestations,
        index,
        created: in_seconds(created),
        top_annotations,
        stop: options.stop.clone(),
    })
}

/// A time as annotations have it; the epoch stands for none.
pub(crate) fn in_seconds(time: Option<Timestamp>) -> String {
    let seconds = time.map_or(0, Timestamp::as_second);
    Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

fn check_annotations(
    annotations: &Annotations,
    with_index: bool,
    oci_types: bool,
) -> Result<(), ExportError> {
    let of_index = annotations.has(AnnotationTarget::Index)
        || annotations.has(AnnotationTarget::IndexDescriptor);
    if !oci_types && (of_index || annotations.has(AnnotationTarget::ManifestDescriptor)) {
        return Err(ExportError::Annotations(
            "index and descriptor annotations conflict with `oci-mediatypes=false`",
        ));
    }
    if of_index && !with_index {
        return Err(ExportError::Annotations(
            "index annotations not supported for single platform export",
        ));
    }
    Ok(())
}

/// Config and manifest of one platform, and the time of the image.
fn platform_image(
    result: &PlatformResult,
    layers: &blobs::LayerBlobs,
    annotations: &Annotations,
    options: &ImageOptions,
) -> Result<(PlatformImage, Option<Timestamp>), ExportError> {
    let layers = layers.of(&result.reference);
    let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let epoch = options.source_date_epoch.or(result.source_date_epoch);
    let config = finished_config(result, diff_ids, epoch)?;
    let created = history::parse(config.created.as_deref())?;
    let annotations = annotations.of(AnnotationTarget::Manifest, Some(&result.platform));
    let image = PlatformImage::new(
        &result.platform,
        config.to_json(),
        layers,
        annotations,
        options.oci_types,
    );
    // An image without a single dated entry still belongs to an epoch.
    let time = epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()).or(created);
    Ok((image, time))
}

impl PlatformImage {
    /// Makes the manifest for a config and its layers.
    pub(crate) fn new(
        platform: &Platform,
        config: Vec<u8>,
        layers: Vec<LayerBlob>,
        annotations: BTreeMap<String, String>,
        oci_types: bool,
    ) -> Self {
        let config_type =
            if oci_types { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
        let kind = if oci_types { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST };
        let config = Document::new(config_type, config);
        let descriptors: Vec<Descriptor> =
            layers.iter().map(|layer| layer.descriptor.clone()).collect();
        let manifest = Manifest {
            schema_version: 2,
            media_type: kind.to_owned(),
            artifact_type: None,
            config: config.descriptor.clone(),
            layers: Some(descriptors).filter(|layers| !layers.is_empty()),
            subject: None,
            annotations: some(annotations),
        };
        let manifest = Document::new(kind, manifest.to_json());
        Self { platform: platform.clone(), config, manifest, layers }
    }
}

/// The config with layers and times filled in.
pub(crate) fn finished_config(
    result: &PlatformResult,
    diff_ids: Vec<DiffId>,
    epoch: Option<i64>,
) -> Result<ImageConfig, ExportError> {
    let mut config = result.config.clone();
    let mut entries = config.history.take().unwrap_or_default();
    let times: Vec<Option<Timestamp>> = result.reference.layers().iter().map(made_at).collect();
    config.created = history::complete(&mut entries, result.base_history, &times, epoch)?;
    config.history = Some(entries).filter(|entries| !entries.is_empty());
    config.rootfs.diff_ids = Some(diff_ids).filter(|layers| !layers.is_empty());
    Ok(config)
}

/// When a layer was made. For one that came with a base image that is not when it came here.
fn made_at(layer: &cache::Layer) -> Option<Timestamp> {
    if layer.is_base() { None } else { Timestamp::try_from(layer.created()).ok() }
}

/// The index that names these manifests.
pub(crate) fn index(
    manifests: &[PlatformImage],
    attestations: &[AttestationManifest],
    annotations: &Annotations,
    options: &ImageOptions,
) -> Document {
    let kind =
        if options.oci_types { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
    let entry = |image: &PlatformImage| Descriptor {
        annotations: some(
            annotations.of(AnnotationTarget::ManifestDescriptor, Some(&image.platform)),
        ),
        platform: Some(DescriptorPlatform::from(&image.platform)),
        ..image.manifest.descriptor.clone()
    };
    let index = Index {
        schema_version: 2,
        media_type: kind.to_owned(),
        manifests: manifests
            .iter()
            .map(entry)
            .chain(attestations.iter().map(AttestationManifest::descriptor))
            .collect(),
        annotations: some(annotations.of(AnnotationTarget::Index, None)),
    };
    Document::new(kind, index.to_json())
}

fn some(annotations: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    Some(annotations).filter(|annotations| !annotations.is_empty())
}
