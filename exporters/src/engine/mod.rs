//! The result into a container engine that runs: Docker, Podman by the same interface, or containerd.
//!
//! ```text
//! GET  /images/{id}/json     does it have the image? then only names are given
//! GET  /images/json, …       which layers does Docker have? those are left away
//! POST /images/load          manifest.json · <config>.json · <diff id>.tar …
//! POST /images/{id}/tag      each name
//! ```
//!
//! An engine on the same machine unpacks what it gets, so layers are written as plain tars right from where they are:
//! nothing is compressed, and nothing is added to the store.
//!
//! Docker looks for the file of a layer only when it does not have the chain that the layer ends; Podman, and Docker
//! with containerd's image store, want them all. An archive that is refused for want of layers is sent once more, whole.
//!
//! Format: Docker Engine API 1.24 and later; `docker save`.

mod containerd;
mod http;

use std::collections::HashSet;
use std::io::{self, Write};

use cache::Layer;
use llb::{DiffId, Digest, Reference};
use serde_json::{Value, json};
use tree::tar::{Entry, EntryKind, Writer};

use crate::image::finished_config;
use crate::piped::Piped;
use crate::{Content, ExportError, Exported, ImageOptions, ImageResult};

pub use containerd::Containerd;
pub use http::Address;

/// Most images of an engine whose layers are asked for.
const MOST_IMAGES: usize = 100;

/// Why an engine does not have the image.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be spoken with, or what it was to get cannot be read.
    #[error("the exchange with the engine broke off")]
    Io(#[from] io::Error),
    /// It refused what was asked.
    #[error("the engine refused to {action}: {message}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// What it said.
        message: String,
    },
    /// What was to be sent could not be made.
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
}

/// What was done to give an engine an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// What is known of the image.
    pub exported: Exported,
    /// Name of the engine.
    pub engine: &'static str,
    /// Layers that were sent.
    pub sent: usize,
    /// Layers of the image.
    pub layers: usize,
    /// Whether the engine had the image already.
    pub known: bool,
}

/// A container engine that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// Docker or Podman.
    Docker(Address),
    /// containerd.
    Containerd(Containerd),
}

impl Engine {
    /// Whether somebody listens.
    ///
    /// # Errors
    /// When nobody does.
    pub fn try_connect(&self) -> io::Result<()> {
        match self {
            Self::Docker(address) => address.try_connect(),
            Self::Containerd(containerd) => containerd.try_connect(),
        }
    }
}

/// Gives an image to an engine under its names, sending what the engine does not have.
///
/// # Errors
/// When a layer cannot be read, the engine fails, or is Docker and the result has several platforms.
pub fn load(
    engine: &Engine,
    store: &cache::Store,
    result: &ImageResult,
    options: &ImageOptions,
) -> Result<Loaded, ExportError> {
    let address = match engine {
        Engine::Docker(address) => address,
        Engine::Containerd(containerd) => {
            return containerd::load(containerd, store, result, options);
        }
    };
    if options.table || options.rewrite_timestamp {
        let image = crate::assemble(store, result, options, Content::Here)?;
        load_docker(address, &*crate::as_written(store, result, &image)?, options)
    } else {
        load_docker(address, result, options)
    }
}

/// Gives an image with the layers as they are to Docker or Podman.
fn load_docker(
    address: &Address,
    result: &ImageResult,
    options: &ImageOptions,
) -> Result<Loaded, ExportError> {
    let [platform] = result.platforms.as_slice() else {
        return Err(ExportError::SeveralPlatforms);
    };
    if result.index || !result.attestations.is_empty() {
        return Err(ExportError::SeveralPlatforms);
    }
    let mut layers = Vec::new();
    for layer in platform.reference.layers() {
        layers.push((layer.diff_id_unless(&options.stop)?, layer));
    }
    let diff_ids: Vec<DiffId> = layers.iter().map(|(diff_id, _)| *diff_id).collect();
    let epoch = options.source_date_epoch.or(platform.source_date_epoch);
    let config = finished_config(platform, diff_ids, epoch)?.to_json();
    let image = Archive { id: Digest::of(&config), config, layers, names: &result.names };
    let given = give(address, &image, options).map_err(ExportError::Engine)?;
    Ok(Loaded {
        exported: Exported {
            descriptor: None,
            config: Some(image.id),
            id: image.id,
            names: result.names.iter().map(Reference::to_string).collect(),
        },
        engine: given.engine,
        sent: given.sent,
        layers: image.layers.len(),
        known: given.known,
    })
}

struct Given {
    engine: &'static str,
    sent: usize,
    known: bool,
}

fn give(
    address: &Address,
    image: &Archive<'_>,
    options: &ImageOptions,
) -> Result<Given, EngineError> {
    let id = image.id.to_string();
    let found = address.ask("GET", &format!("/images/{id}/json"))?;
    let engine = if found.is_podman { "Podman" } else { "Docker" };
    if found.is_success() {
        tag(address, &id, image.names)?;
        return Ok(Given { engine, sent: 0, known: true });
    }
    if found.status != 404 {
        return Err(refused("say whether it has the image", &found));
    }
    let has = if found.is_podman { 0 } else { known_layers(address, image)? };
    let mut first = has;
    let mut loaded = send(address, image, first, options)?;
    if loaded.is_err() && first > 0 {
        // It is of a kind that wants all layers.
        first = 0;
        loaded = send(address, image, first, options)?;
    }
    loaded?;
    // Podman gives names of its own making to what has none of another registry.
    let there = address.ask("GET", &format!("/images/{id}/json"))?;
    if there.is_success() {
        tag(address, &id, image.names)?;
    }
    Ok(Given { engine, sent: image.layers.len() - first, known: false })
}

/// Sends the archive without its first layers. The inner result is what the engine made of it.
fn send(
    address: &Address,
    image: &Archive<'_>,
    first: usize,
    options: &ImageOptions,
) -> Result<Result<(), EngineError>, EngineError> {
    let answer = address
        .send("/images/load?quiet=1", |out| image.write(&mut options.stop.guard(out), first))?;
    if !answer.is_success() {
        return Ok(Err(refused("load the image", &answer)));
    }
    // Docker tells of a failure in the middle of what it says.
    let lines = answer.body.split(|byte| *byte == b'\n');
    let values = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let error = values.filter_map(|value| Some(value.get("error")?.as_str()?.to_owned())).next();
    Ok(match error {
        Some(message) => Err(EngineError::Refused { action: "load the image", message }),
        None => Ok(()),
    })
}

/// How many of the image's first layers Docker has, as the first layers of some other image.
fn known_layers(address: &Address, image: &Archive<'_>) -> Result<usize, EngineError> {
    let images = address.ask("GET", "/images/json")?;
    let Ok(Value::Array(images)) = serde_json::from_slice(&images.body) else { return Ok(0) };
    let wanted: Vec<String> = image.layers.iter().map(|(diff_id, _)| diff_id.to_string()).collect();
    let mut most = 0;
    let ids = images.iter().filter_map(|image| image.get("Id")?.as_str()).take(MOST_IMAGES);
    for id in ids.filter(|id| id.parse::<Digest>().is_ok()) {
        let answer = address.ask("GET", &format!("/images/{id}/json"))?;
        let value: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        // An id of a manifest is one of containerd's image store, which has no use for a part.
        if value.get("Descriptor").is_some_and(|descriptor| !descriptor.is_null()) {
            return Ok(0);
        }
        let Some(Value::Array(layers)) = value.pointer("/RootFS/Layers") else { continue };
        let same = layers.iter().zip(&wanted).take_while(|(layer, wanted)| **layer == **wanted);
        most = most.max(same.count());
        if most == wanted.len() {
            break;
        }
    }
    Ok(most)
}

fn tag(address: &Address, id: &str, names: &[Reference]) -> Result<(), EngineError> {
    for name in names {
        let tag = name.tag().unwrap_or("latest");
        let path = format!("/images/{id}/tag?repo={}&tag={tag}", name.name().replace(':', "%3A"));
        let answer = address.ask("POST", &path)?;
        if !answer.is_success() {
            return Err(refused("name the image", &answer));
        }
    }
    Ok(())
}

fn refused(action: &'static str, answer: &http::Answer) -> EngineError {
    EngineError::Refused { action, message: answer.message() }
}

/// An image as `docker load` takes it.
struct Archive<'a> {
    id: Digest,
    config: Vec<u8>,
    /// Lowest first.
    layers: Vec<(DiffId, &'a Layer)>,
    names: &'a [Reference],
}

impl Archive<'_> {
    /// Writes it without the files of its first layers.
    fn write(&self, out: &mut dyn Write, first: usize) -> Result<(), EngineError> {
        let file = |diff_id: &DiffId| format!("{}.tar", diff_id.0.hex());
        let config = format!("{}.json", self.id.hex());
        let names: Vec<String> = self.names.iter().map(Reference::to_string).collect();
        let layers: Vec<String> = self.layers.iter().map(|(diff_id, _)| file(diff_id)).collect();
        let manifest = json!([{
            "Config": config, "RepoTags": Some(names).filter(|names| !names.is_empty()), "Layers": layers,
        }]);
        let mut tar = Writer::new(out);
        let entry = |path: &str, size: u64| Entry {
            mode: 0o644,
            size,
            ..Entry::new(EntryKind::File, path.into())
        };
        for (path, bytes) in
            [("manifest.json", manifest.to_string().into_bytes()), (&config, self.config.clone())]
        {
            tar.append_file(&entry(path, bytes.len() as u64), &mut bytes.as_slice())?;
        }
        let mut written = HashSet::new();
        for (diff_id, layer) in self.layers.iter().skip(first) {
            // An image may have the same layer twice.
            if written.insert(*diff_id) {
                let size = layer.measure()?;
                let mut content = Piped::start(layer)?;
                let appended = tar.append_file(&entry(&file(diff_id), size), &mut content);
                content.end(appended)??;
            }
        }
        tar.finish()?;
        Ok(())
    }
}
