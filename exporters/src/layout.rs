//! OCI image layout as a tar or a folder, and the Docker archive, which is one with a file more.
//!
//! ```text
//! blobs/sha256/<hex>   documents and layers
//! index.json           one descriptor for each name
//! manifest.json        Docker archive only
//! oci-layout           version
//! ```
//!
//! Invariants:
//! - A tar has its entries sorted by name and no times or owners, so it depends on the image only.
//! - In a folder, `index.json` is exchanged after all it names is there, under a lock.
//!
//! Format: OCI image layout 1.1.

use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Write};
use std::path::Path;

use fs_err::{self as fs, File};
use llb::image::{Descriptor, Index, annotation, blob_path, media_type};
use llb::{Digest, Reference};
use serde::Serialize;
use tree::tar::{Entry, EntryKind, Writer};

use crate::blobs::{LayerBlob, in_parallel};
use crate::destination::{Destination, PartialFile};
use crate::image::{Image, PlatformImage};
use crate::{ExportError, Exported};

const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Which layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// OCI only.
    Oci,
    /// With the `manifest.json` that `docker load` reads.
    Docker,
}

/// Writes the image as one tar.
///
/// # Errors
/// When a blob cannot be read or the destination not be written; a file is then left as it was. When a
/// Docker archive is asked for several platforms.
pub fn write_tar(
    store: &cache::Store,
    image: &Image,
    names: &[Reference],
    flavor: Flavor,
    destination: Destination,
) -> Result<Exported, ExportError> {
    write_tar_of(store, &[(image, names)], flavor, destination)?;
    Ok(Exported::new(image, image.dated_descriptor(), names))
}

/// Writes several images with their names as one tar; what they share is there once.
///
/// # Errors
/// As [`write_tar`].
pub fn write_tar_of(
    store: &cache::Store,
    images: &[(&Image, &[Reference])],
    flavor: Flavor,
    destination: Destination,
) -> Result<(), ExportError> {
    write_tar_without(&HashSet::new(), store, images, flavor, destination)
}

/// Writes several images as one tar without the blobs that its reader `has`.
pub(crate) fn write_tar_without(
    has: &HashSet<Digest>,
    store: &cache::Store,
    images: &[(&Image, &[Reference])],
    flavor: Flavor,
    destination: Destination,
) -> Result<(), ExportError> {
    let _span = tree::trace::span("write", || "archive".to_owned());
    let documents = Documents::of(images, flavor)?;
    let stop = images.first().map(|(image, _)| image.stop.clone()).unwrap_or_default();
    let layers: BTreeMap<Digest, &LayerBlob> =
        images.iter().flat_map(|(image, _)| image.layers()).collect();
    destination.write(&stop, |out| {
        let mut tar = Tar(Writer::new(out));
        tar.folder("blobs")?;
        tar.folder("blobs/sha256")?;
        let mut blobs: BTreeMap<Digest, Blob<'_>> = BTreeMap::new();
        blobs.extend(layers.iter().map(|(digest, layer)| (*digest, Blob::Layer(layer))));
        blobs.extend(
            images
                .iter()
                .flat_map(|(image, _)| image.documents())
                .map(|document| (document.descriptor.digest, Blob::Document(&document.bytes))),
        );
        for (digest, blob) in blobs.into_iter().filter(|(digest, _)| !has.contains(digest)) {
            let path = blob_path(&digest);
            match blob {
                Blob::Document(bytes) => tar.bytes(&path, 0o444, bytes)?,
                Blob::Layer(layer) => {
                    let content = layer.content(store)?;
                    tar.file(&path, 0o444, content.size(), &mut content.open()?)?;
                }
            }
        }
        tar.bytes("index.json", 0o644, &documents.index.to_json_compact())?;
        if let Some(manifest) = &documents.docker {
            tar.bytes("manifest.json", 0o644, manifest)?;
        }
        tar.bytes("oci-layout", 0o444, LAYOUT)?;
        tar.0.finish().map(drop).map_err(stream_error)
    })
}

/// Writes the image into a folder, beside the images that are there.
///
/// An entry of the same name is replaced; without a name the image is called `latest`.
///
/// # Errors
/// When a blob cannot be read, the folder not be written, or its index is none.
pub fn write_folder(
    store: &cache::Store,
    image: &Image,
    names: &[Reference],
    flavor: Flavor,
    folder: &Path,
) -> Result<Exported, ExportError> {
    let documents = Documents::of(&[(image, names)], flavor)?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)
        .map_err(|source| ExportError::Write { path: blobs.clone(), source })?;
    let layers: Vec<&LayerBlob> = image.layers().into_values().collect();
    in_parallel(&layers, |layer| {
        let path = blobs.join(layer.descriptor.digest.hex());
        if has_size(&path, layer.descriptor.size) {
            return Ok(());
        }
        let content = layer.content(store)?;
        write_file(&path, 0o444, &mut image.stop.guard(content.open()?))
    })?;
    for document in image.documents() {
        let path = blobs.join(document.descriptor.digest.hex());
        if !has_size(&path, document.descriptor.size) {
            write_file(&path, 0o444, &mut document.bytes.as_slice())?;
        }
    }
    let lock_path = folder.join("index.json.lock");
    let lock = File::create(&lock_path)
        .map_err(|source| ExportError::Write { path: lock_path.clone(), source })?;
    lock.lock().map_err(|source| ExportError::Write { path: lock_path.clone(), source })?;
    let index = merged_index(&folder.join("index.json"), documents.index, names.is_empty())?;
    write_file(&folder.join("index.json"), 0o644, &mut index.to_json_compact().as_slice())?;
    if let Some(manifest) = &documents.docker {
        write_file(&folder.join("manifest.json"), 0o644, &mut manifest.as_slice())?;
    }
    write_file(&folder.join("oci-layout"), 0o444, &mut &LAYOUT[..])?;
    Ok(Exported::new(image, image.dated_descriptor(), names))
}

enum Blob<'a> {
    Document(&'a [u8]),
    Layer(&'a LayerBlob),
}

/// The files that name the blobs.
struct Documents {
    index: Index,
    docker: Option<Vec<u8>>,
}

impl Documents {
    fn of(images: &[(&Image, &[Reference])], flavor: Flavor) -> Result<Self, ExportError> {
        let docker = match flavor {
            Flavor::Oci => None,
            Flavor::Docker => {
                let all = images.iter().map(|(image, names)| {
                    match (&image.index, image.manifests.as_slice()) {
                        (None, [only]) => Ok(docker_manifest(only, names)),
                        _ => Err(ExportError::SeveralPlatforms),
                    }
                });
                Some(llb::image::to_json(&all.collect::<Result<Vec<_>, _>>()?))
            }
        };
        let index = Index {
            schema_version: 2,
            media_type: media_type::OCI_INDEX.to_owned(),
            manifests: images.iter().flat_map(|(image, names)| descriptors(image, names)).collect(),
            annotations: None,
        };
        Ok(Self { index, docker })
    }
}

/// One descriptor for each name, or one without a name.
fn descriptors(image: &Image, names: &[Reference]) -> Vec<Descriptor> {
    let plain = image.dated_descriptor();
    if names.is_empty() {
        return vec![plain];
    }
    let named = |name: &Reference| {
        let mut descriptor = plain.clone();
        let annotations = descriptor.annotations.get_or_insert_default();
        annotations.insert(annotation::IMAGE_NAME.to_owned(), name.to_string());
        if let Some(tag) = name.tag() {
            annotations.insert(annotation::REF_NAME.to_owned(), tag.to_owned());
        }
        descriptor
    };
    names.iter().map(named).collect()
}

/// One image of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn docker_manifest(image: &PlatformImage, names: &[Reference]) -> DockerManifest {
    let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
    DockerManifest {
        config: blob_path(&image.config.descriptor.digest),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: image.layers.iter().map(|layer| blob_path(&layer.descriptor.digest)).collect(),
    }
}

/// The new entries beside those of the index that is there, except for those with the same name.
fn merged_index(path: &Path, mut index: Index, unnamed: bool) -> Result<Index, ExportError> {
    if unnamed {
        for descriptor in &mut index.manifests {
            descriptor
                .annotations
                .get_or_insert_default()
                .insert(annotation::REF_NAME.to_owned(), "latest".to_owned());
        }
    }
    let old = match fs::read(path) {
        Ok(text) => {
            let foreign = |source| ExportError::ForeignIndex { path: path.to_owned(), source };
            Index::from_json(&text).map_err(foreign)?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(index),
        Err(source) => return Err(ExportError::Write { path: path.to_owned(), source }),
    };
    let name = |descriptor: &Descriptor| {
        let annotations = descriptor.annotations.clone().unwrap_or_default();
        (
            annotations.get(annotation::IMAGE_NAME).cloned(),
            annotations.get(annotation::REF_NAME).cloned(),
        )
    };
    let replaced = |old: &Descriptor| index.manifests.iter().any(|new| name(new) == name(old));
    let mut manifests: Vec<Descriptor> =
        old.manifests.into_iter().filter(|old| !replaced(old)).collect();
    manifests.append(&mut index.manifests);
    Ok(Index { manifests, annotations: old.annotations, ..index })
}

/// A file that is there already under the name of its hash is not written again.
fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

fn write_file(path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), ExportError> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| ExportError::Write { path: path.to_owned(), source };
    let mut file = PartialFile::create(path)?;
    std::io::copy(content, file.file()).map_err(failed)?;
    file.file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    file.commit()
}

/// Entries as a layout has them.
struct Tar<W: Write>(Writer<W>);

impl<W: Write> Tar<W> {
    fn folder(&mut self, path: &str) -> Result<(), ExportError> {
        let entry = Entry { mode: 0o755, ..Entry::new(EntryKind::Dir, path.into()) };
        self.0.append(&entry).map_err(stream_error)
    }

    fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<(), ExportError> {
        self.file(path, mode, bytes.len() as u64, &mut &*bytes)
    }

    fn file(
        &mut self,
        path: &str,
        mode: u32,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), ExportError> {
        let entry = Entry { mode, size, ..Entry::new(EntryKind::File, path.into()) };
        self.0.append_file(&entry, content).map_err(stream_error)
    }
}

/// A failure while an archive is written; files tell their own path.
fn stream_error(source: std::io::Error) -> ExportError {
    ExportError::Archive(source)
}
