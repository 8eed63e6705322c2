//! What an archive says it has: its documents, read and checked, but none of its layers.
//!
//! ```text
//! oci-layout + index.json    OCI layout; an index in it is an image of several platforms
//! manifest.json              Docker archive: a config, tars, names
//! ```
//!
//! An archive with both, as Docker writes it since 25 and this builder too, is read as an OCI layout, since that has
//! the manifests.
//!
//! Format: OCI image layout 1.1; `docker save`.

use std::collections::BTreeMap;

use llb::image::{
    Compression, Descriptor, ImageConfig, Index, MOST_LAYERS, Manifest, annotation, blob_path,
};
use llb::{DiffId, Digest, Platform, Reference};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ImportError;
use super::archive::Archive;

const ATTACHED: &str = "vnd.docker.reference.type";

/// How deep indexes may be nested.
const DEEPEST_INDEX: usize = 4;

/// One image of an archive.
#[derive(Debug)]
pub(super) struct PlannedImage {
    pub(super) names: Vec<Reference>,
    /// The index, byte for byte.
    pub(super) index: Option<Vec<u8>>,
    pub(super) variants: Vec<PlannedVariant>,
}

/// One platform of an image.
#[derive(Debug)]
pub(super) struct PlannedVariant {
    pub(super) platform: Platform,
    pub(super) config: Vec<u8>,
    pub(super) created: Option<String>,
    /// The manifest, byte for byte.
    pub(super) manifest: Option<Vec<u8>>,
    /// Lowest first.
    pub(super) layers: Vec<PlannedLayer>,
}

/// One layer of an archive.
#[derive(Debug, Clone)]
pub(super) struct PlannedLayer {
    /// The file that has it.
    pub(super) file: String,
    /// What the manifest says of it, where there is one.
    pub(super) descriptor: Option<Descriptor>,
    pub(super) diff_id: DiffId,
}

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads the documents of an archive. Without `platforms` all platforms of its images are taken.
pub(super) fn images(
    archive: &Archive,
    platforms: &[Platform],
) -> Result<Vec<PlannedImage>, ImportError> {
    let docker: Option<Vec<DockerImage>> = match archive.document("manifest.json")? {
        Some(bytes) => Some(parse(&bytes, "manifest.json", "list of images")?),
        None => None,
    };
    let mut images = match (archive.document("index.json")?, docker) {
        (Some(index), docker) => layout(archive, &index, docker.as_deref().unwrap_or_default())?,
        (None, Some(docker)) => {
            docker.iter().map(|image| docker_image(archive, image)).collect::<Result<_, _>>()?
        }
        (None, None) => {
            let path = archive.name.clone();
            return Err(match archive.document("repositories")? {
                Some(_) => ImportError::TooOld { path },
                None => ImportError::NoImages { path },
            });
        }
    };
    if images.is_empty() {
        return Err(ImportError::NoImages { path: archive.name.clone() });
    }
    if !platforms.is_empty() {
        images.iter_mut().try_for_each(|image| image.keep(platforms))?;
    }
    Ok(images)
}

impl PlannedImage {
    /// For messages.
    fn title(&self) -> String {
        match (self.names.first(), self.variants.first()) {
            (Some(name), _) => format!("image `{}`", name.familiar()),
            (None, Some(variant)) => format!("image {}", Digest::of(&variant.config)),
            (None, None) => "the image".to_owned(),
        }
    }

    /// Leaves only the best variant for each of these platforms.
    fn keep(&mut self, platforms: &[Platform]) -> Result<(), ImportError> {
        let mut kept = Vec::new();
        for platform in platforms {
            let best = (0..self.variants.len())
                .filter_map(|at| Some((platform.rank(&self.variants[at].platform)?, at)))
                .min();
            let Some((_, at)) = best else {
                let offered: Vec<String> =
                    self.variants.iter().map(|one| format!("`{}`", one.platform)).collect();
                return Err(ImportError::Platform {
                    image: self.title(),
                    platform: platform.to_string(),
                    offered: offered.join(", "),
                });
            };
            kept.push(at);
        }
        let mut at = 0..;
        self.variants.retain(|_| at.next().is_some_and(|at| kept.contains(&at)));
        Ok(())
    }
}

/// The image of an entry of `manifest.json`.
fn docker_image(archive: &Archive, image: &DockerImage) -> Result<PlannedImage, ImportError> {
    let by = "manifest.json";
    let config = needed(archive, &image.config, by)?;
    // The name of the file is the digest, in all forms that Docker has written.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(expected) = Digest::from_hex(stem) {
        check_digest(&image.config, &config, expected)?;
    }
    let parsed: ImageConfig = parse(&config, &image.config, "image config")?;
    let files = image.layers.clone().unwrap_or_default();
    let diff_ids = parsed.rootfs.diff_ids.clone().unwrap_or_default();
    check_count(&of(&image.config), files.len(), diff_ids.len())?;
    let layers = files
        .into_iter()
        .zip(diff_ids)
        .map(|(file, diff_id)| PlannedLayer { file, descriptor: None, diff_id })
        .collect();
    let names = image.repo_tags.iter().flatten().map(|name| parse_name(name));
    let names: Vec<Reference> = names.collect::<Result<_, _>>()?;
    check_names(&names, &[])?;
    Ok(PlannedImage {
        names,
        index: None,
        variants: vec![PlannedVariant {
            platform: Platform::from(&parsed),
            created: parsed.created,
            config,
            manifest: None,
            layers,
        }],
    })
}

/// The images of `index.json`, each once.
fn layout(
    archive: &Archive,
    index: &[u8],
    docker: &[DockerImage],
) -> Result<Vec<PlannedImage>, ImportError> {
    let index: Index = parse(index, "index.json", "image index")?;
    let mut images: Vec<(Digest, PlannedImage)> = Vec::new();
    for descriptor in index.manifests.iter().filter(|descriptor| !is_attached(descriptor)) {
        let name = name_of(descriptor)?;
        check_names(name.as_slice(), &[descriptor.digest])?;
        if let Some((_, image)) = images.iter_mut().find(|(digest, _)| *digest == descriptor.digest)
        {
            image.names.extend(name);
            continue;
        }
        let bytes = blob(archive, descriptor, "index.json")?;
        let mut image = PlannedImage { names: Vec::new(), index: None, variants: Vec::new() };
        collect(archive, bytes, &mut image, 0)?;
        image.names.extend(name);
        if image.variants.is_empty() {
            // Something else that is kept in a layout, such as a signature.
            continue;
        }
        if image.names.is_empty() {
            image.names = docker_names(docker, &image)?;
        }
        images.push((descriptor.digest, image));
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

/// The names that `manifest.json` gives to the image.
fn docker_names(
    docker: &[DockerImage],
    image: &PlannedImage,
) -> Result<Vec<Reference>, ImportError> {
    let [only] = image.variants.as_slice() else { return Ok(Vec::new()) };
    let hex = Digest::of(&only.config).hex();
    let same = docker.iter().filter(|entry| entry.config.contains(&hex));
    let names = same.flat_map(|entry| entry.repo_tags.iter().flatten());
    let names: Vec<Reference> = names.map(|name| parse_name(name)).collect::<Result<_, _>>()?;
    check_names(&names, &[])?;
    Ok(names)
}

/// Adds what a manifest or index leads to.
fn collect(
    archive: &Archive,
    bytes: Vec<u8>,
    image: &mut PlannedImage,
    depth: usize,
) -> Result<(), ImportError> {
    let file = blob_path(&Digest::of(&bytes));
    let shape: BTreeMap<String, serde::de::IgnoredAny> = parse(&bytes, &file, "image manifest")?;
    if !shape.contains_key("manifests") {
        return variant(archive, bytes, &file).map(|variant| image.variants.extend(variant));
    }
    let index: Index = parse(&bytes, &file, "image index")?;
    if depth >= DEEPEST_INDEX {
        let reason = "indexes are nested too deeply".to_owned();
        return Err(ImportError::Document { file, kind: "image index", reason });
    }
    let (mut wanted, mut found) = (0, 0);
    for descriptor in index.manifests.iter().filter(|descriptor| !is_attached(descriptor)) {
        wanted += 1;
        // Docker saves the whole index of an image of which it has one platform.
        if let Some(bytes) = maybe_blob(archive, descriptor)? {
            found += 1;
            collect(archive, bytes, image, depth + 1)?;
        }
    }
    if wanted > 0 && found == 0 {
        let first = index.manifests.iter().find(|descriptor| !is_attached(descriptor));
        let missing = first.map(|descriptor| blob_path(&descriptor.digest)).unwrap_or_default();
        return Err(ImportError::Missing { file: missing, by: format!("`{file}`") });
    }
    if depth == 0 {
        image.index = Some(bytes);
    }
    Ok(())
}

/// What a manifest is for a platform; `None` for one that is of no image.
fn variant(
    archive: &Archive,
    bytes: Vec<u8>,
    file: &str,
) -> Result<Option<PlannedVariant>, ImportError> {
    let manifest: Manifest = parse(&bytes, file, "image manifest")?;
    let kind = &manifest.config.media_type;
    if manifest.artifact_type.is_some() || !(kind.is_empty() || kind.contains("image")) {
        return Ok(None);
    }
    let config = blob(archive, &manifest.config, file)?;
    let parsed: ImageConfig = parse(&config, &blob_path(&manifest.config.digest), "image config")?;
    let descriptors = manifest.layers.unwrap_or_default();
    let diff_ids = parsed.rootfs.diff_ids.clone().unwrap_or_default();
    check_count(&of(file), descriptors.len(), diff_ids.len())?;
    let mut layers = Vec::with_capacity(descriptors.len());
    for (descriptor, diff_id) in descriptors.into_iter().zip(diff_ids) {
        if Compression::of_layer(&descriptor.media_type).is_none() {
            let (digest, media_type) = (descriptor.digest, descriptor.media_type);
            return Err(ImportError::LayerType { digest, media_type });
        }
        let file = blob_path(&descriptor.digest);
        layers.push(PlannedLayer { file, descriptor: Some(descriptor), diff_id });
    }
    Ok(Some(PlannedVariant {
        platform: Platform::from(&parsed),
        created: parsed.created,
        config,
        manifest: Some(bytes),
        layers,
    }))
}

/// The name that an entry of `index.json` has, if it has a whole one: a tag alone names nothing here.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, ImportError> {
    let Some(annotations) = &descriptor.annotations else { return Ok(None) };
    let whole = |name: &&String| name.contains([':', '/']);
    let name = annotations
        .get(annotation::IMAGE_NAME)
        .or_else(|| annotations.get(annotation::REF_NAME).filter(whole));
    name.map(|name| parse_name(name)).transpose()
}

fn is_attached(descriptor: &Descriptor) -> bool {
    let annotations = descriptor.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(ATTACHED)) || descriptor.artifact_type.is_some()
}

fn parse_name(name: &str) -> Result<Reference, ImportError> {
    Reference::parse(name).map_err(|source| ImportError::Name { name: name.to_owned(), source })
}

pub(super) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    file: &str,
    kind: &'static str,
) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|error| ImportError::Document {
        file: file.to_owned(),
        kind,
        reason: error.to_string(),
    })
}

fn blob(archive: &Archive, descriptor: &Descriptor, by: &str) -> Result<Vec<u8>, ImportError> {
    maybe_blob(archive, descriptor)?.ok_or_else(|| ImportError::Missing {
        file: blob_path(&descriptor.digest),
        by: format!("`{by}`"),
    })
}

/// A document, checked, if the archive has it.
fn maybe_blob(archive: &Archive, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, ImportError> {
    let path = blob_path(&descriptor.digest);
    let Some(bytes) = archive.document(&path)? else { return Ok(None) };
    check_digest(&path, &bytes, descriptor.digest)?;
    check_size(&path, bytes.len() as u64, descriptor)?;
    Ok(Some(bytes))
}

fn needed(archive: &Archive, file: &str, by: &str) -> Result<Vec<u8>, ImportError> {
    archive
        .document(file)?
        .ok_or_else(|| ImportError::Missing { file: file.to_owned(), by: format!("`{by}`") })
}

fn check_digest(file: &str, bytes: &[u8], expected: Digest) -> Result<(), ImportError> {
    let actual = Digest::of(bytes);
    if actual == expected {
        return Ok(());
    }
    Err(ImportError::Digest { what: format!("`{file}` of the archive"), expected, actual })
}

/// For messages: the image that this file is of.
fn of(file: &str) -> String {
    format!("of `{file}`")
}

/// Checks that a blob is as long as its descriptor says, which is handed on with the manifest.
pub(super) fn check_size(
    file: &str,
    actual: u64,
    descriptor: &Descriptor,
) -> Result<(), ImportError> {
    if actual == descriptor.size {
        return Ok(());
    }
    let what = format!("`{file}` of the archive");
    Err(ImportError::Size { what, expected: descriptor.size, actual })
}

/// Checks that a config has a diff id for each layer of a manifest, and that there are not too many.
pub(super) fn check_count(image: &str, layers: usize, diff_ids: usize) -> Result<(), ImportError> {
    let image = || image.to_owned();
    if layers > MOST_LAYERS {
        return Err(ImportError::TooManyLayers { image: image(), layers });
    }
    if layers != diff_ids {
        return Err(ImportError::LayerCount { image: image(), layers, diff_ids });
    }
    Ok(())
}

/// Checks that names which have a digest have one of these: others would be believed later.
fn check_names(names: &[Reference], digests: &[Digest]) -> Result<(), ImportError> {
    for name in names {
        if name.looks_like_id() {
            return Err(ImportError::NameOfId(name.familiar()));
        }
        if name.digest().is_some_and(|digest| !digests.contains(&digest)) {
            return Err(ImportError::NameLies(name.familiar()));
        }
    }
    Ok(())
}
