//! Attestations of an image: in-toto statements in manifests of their own.
//!
//! ```text
//! index ─▶ manifest of a platform
//!       ─▶ attestation manifest ─▶ empty config, or that of an image for no platform
//!                               ─▶ statement: subjects, predicate
//! ```
//!
//! In a folder or tar of files, a statement is a file in the root, and its subjects are the files.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use llb::image::{Descriptor, DescriptorPlatform, ImageConfig, Manifest, media_type};
use llb::{DiffId, Digest, Platform, Reference};
use serde::Serialize;
use serde_json::Value;
use tree::codec::HashWriter;
use tree::stack::Stack;
use tree::{Kind, View};

use crate::image::{Document, PlatformImage};
use crate::{ExportError, ImageOptions, ImageResult};

const IN_TOTO: &str = "application/vnd.in-toto+json";
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// Something said about the image of one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Attestation {
    /// Number of the platform in the result.
    pub platform: usize,
    /// What kind of thing is said.
    pub predicate_type: String,
    /// What is said.
    pub predicate: Value,
    /// Where in the predicate the layers are listed, and under which name.
    pub layers_at: Option<(String, String)>,
    /// Name of the file in a folder or tar.
    pub file: String,
}

/// A manifest with what is said about one image.
#[derive(Debug, Clone)]
pub struct AttestationManifest {
    /// The manifest.
    pub manifest: Document,
    /// Its config.
    pub config: Document,
    /// The statements.
    pub statements: Vec<Document>,
    /// The manifest it is about.
    subject: Digest,
}

/// An in-toto statement.
#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    subject: &'a [Subject],
    predicate: &'a Value,
}

#[derive(Serialize)]
struct Subject {
    name: String,
    digest: BTreeMap<&'static str, String>,
}

impl Subject {
    fn new(name: String, digest: Digest) -> Self {
        Self { name, digest: BTreeMap::from([("sha256", digest.hex())]) }
    }
}

/// The manifests for what is said about the images of a result.
pub(crate) fn manifests(
    result: &ImageResult,
    images: &[PlatformImage],
    options: &ImageOptions,
) -> Result<Vec<AttestationManifest>, ExportError> {
    if !result.attestations.is_empty() && !options.oci_types {
        return Err(ExportError::Annotations("attestations conflict with `oci-mediatypes=false`"));
    }
    let mut all = Vec::new();
    for (number, image) in images.iter().enumerate() {
        let about = result.attestations.iter().filter(|one| one.platform == number);
        let said: Vec<Attestation> = about.map(|one| with_layers(one, image)).collect();
        if !said.is_empty() {
            all.push(manifest(&said, image, &result.names, options));
        }
    }
    Ok(all)
}

fn with_layers(attestation: &Attestation, image: &PlatformImage) -> Attestation {
    let mut attestation = attestation.clone();
    if let Some((pointer, name)) = &attestation.layers_at
        && let Some(Value::Object(list)) = attestation.predicate.pointer_mut(pointer)
    {
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|layer| serde_json::to_value(&layer.descriptor).unwrap_or_default())
            .collect();
        list.insert(name.clone(), Value::Array(vec![Value::Array(layers)]));
    }
    attestation
}

fn manifest(
    said: &[Attestation],
    image: &PlatformImage,
    names: &[Reference],
    options: &ImageOptions,
) -> AttestationManifest {
    let is_artifact = options.oci_artifact.unwrap_or(true);
    let subject = image.manifest.descriptor.digest;
    let purls = names.iter().map(|name| purl(name, &image.platform));
    let subjects: Vec<Subject> = purls.map(|purl| Subject::new(purl, subject)).collect();
    let mut statements = Vec::with_capacity(said.len());
    let mut layers = Vec::with_capacity(said.len());
    for attestation in said {
        let document = Document::new(IN_TOTO, statement(attestation, &subjects));
        let kind = ("in-toto.io/predicate-type".to_owned(), attestation.predicate_type.clone());
        layers.push(Descriptor {
            annotations: Some(BTreeMap::from([kind])),
            ..document.descriptor.clone()
        });
        statements.push(document);
    }
    let config = if is_artifact {
        Document::new(EMPTY, b"{}".to_vec())
    } else {
        let ids = layers.iter().map(|layer| DiffId(layer.digest)).collect();
        let mut config = ImageConfig {
            architecture: "unknown".to_owned(),
            os: "unknown".to_owned(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = Some(ids);
        Document::new(media_type::OCI_CONFIG, config.to_json())
    };
    let data = is_artifact.then(|| "e30=".to_owned());
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        artifact_type: is_artifact.then(|| ARTIFACT.to_owned()),
        config: Descriptor { data, ..config.descriptor.clone() },
        layers: Some(layers),
        subject: is_artifact.then(|| image.manifest.descriptor.clone()),
        annotations: None,
    };
    let manifest = Document::new(media_type::OCI_MANIFEST, manifest.to_json());
    AttestationManifest { manifest, config, statements, subject }
}

impl AttestationManifest {
    /// As an index lists it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        let unknown = || "unknown".to_owned();
        let notes = [
            ("vnd.docker.reference.digest", self.subject.to_string()),
            ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ];
        let notes = notes.map(|(key, value)| (key.to_owned(), value));
        let platform = DescriptorPlatform {
            architecture: unknown(),
            os: unknown(),
            ..DescriptorPlatform::default()
        };
        Descriptor {
            annotations: Some(BTreeMap::from(notes)),
            platform: Some(platform),
            ..self.manifest.descriptor.clone()
        }
    }

    /// Everything it takes, what is named by others before what names it.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.blobs().chain([&self.manifest])
    }

    /// What the manifest names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Document> {
        [&self.config].into_iter().chain(&self.statements)
    }
}

fn statement(attestation: &Attestation, subject: &[Subject]) -> Vec<u8> {
    let statement = Statement {
        kind: STATEMENT,
        predicate_type: &attestation.predicate_type,
        subject,
        predicate: &attestation.predicate,
    };
    serde_json::to_vec(&statement).unwrap_or_default()
}

/// The image as package URLs name it.
pub(crate) fn purl(name: &Reference, platform: &Platform) -> String {
    let tag = name.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{}{tag}?platform={platform}", name.familiar_name().replace(':', "%3A"))
}

/// The files in a root that say something about the others, by name.
pub(crate) fn files(
    result: &ImageResult,
    number: usize,
    files: &Stack,
    prefix: &str,
    split: bool,
) -> Result<Vec<(String, Vec<u8>)>, ExportError> {
    let about = result.attestations.iter().filter(|one| one.platform == number);
    let about: Vec<&Attestation> = about.collect();
    let mut subjects = Vec::new();
    if !about.is_empty() {
        hash_files(files, Path::new(""), &mut subjects)?;
    }
    let mut all = Vec::new();
    for attestation in about {
        let text = statement(attestation, &subjects);
        let pretty = serde_json::from_slice::<Value>(&text)
            .and_then(|value| serde_json::to_vec_pretty(&value))
            .unwrap_or(text);
        let mut name = attestation.file.clone();
        if !split && result.platforms.len() > 1 {
            let platform = result.platforms[number].platform.directory_name();
            name = match name.rsplit_once('.') {
                Some((stem, end)) => format!("{stem}.{platform}.{end}"),
                None => format!("{name}.{platform}"),
            };
        }
        all.push((format!("{prefix}{name}"), pretty));
    }
    Ok(all)
}

/// The hash of every file below a directory.
fn hash_files(files: &Stack, path: &Path, subjects: &mut Vec<Subject>) -> Result<(), ExportError> {
    let failed = |source| ExportError::File { path: path.to_owned(), source };
    for entry in files.read_dir(path).map_err(failed)? {
        let path = path.join(&entry.name);
        let failed = |source| ExportError::File { path: path.clone(), source };
        match entry.metadata.kind {
            Kind::Dir => hash_files(files, &path, subjects)?,
            Kind::File => {
                let mut file = files.open(&path).map_err(failed)?;
                let mut hash = HashWriter::new(io::sink());
                io::copy(&mut file, &mut hash).map_err(failed)?;
                let (_, hash, _) = hash.finish();
                let name = path.to_string_lossy().into_owned();
                subjects.push(Subject::new(name, Digest::from_bytes(hash)));
            }
            _ => {}
        }
    }
    Ok(())
}
