//! What a conversion asks for and what it gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use llb::image::ImageConfig;
use llb::{Definition, DiffId, Digest, Edge, Platform, SourceInfo};
use miette::SourceSpan;

use crate::lint::Rule;
use crate::options::ResolveMode;

/// Result of [`convert`](crate::convert()).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// These images must be resolved first; call again with them in [`ResolvedImages`].
    Needs(Vec<ImageRequest>),
    /// Everything is known.
    Done(Box<Build>),
}

/// An image whose digest and config are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRequest {
    /// Which image.
    pub location: ImageLocation,
    /// For which platform.
    pub platform: Platform,
    /// Whether another platform will do when the image has only that one.
    pub any_platform: bool,
    /// How the reference is to be resolved.
    pub mode: ResolveMode,
    /// Name as the Dockerfile has it, for messages.
    pub written: String,
    /// A stage or well-known image with a similar name, for the message when there is no such image.
    pub suggestion: Option<String>,
    /// Where it is asked for.
    pub lines: LineRange,
    /// Bytes of the Dockerfile to mark.
    pub at: SourceSpan,
    /// The trigger that asks for it, when that is not the Dockerfile itself.
    pub trigger: Option<Arc<SourceInfo>>,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageLocation {
    /// In a registry, by its canonical reference.
    Registry(String),
    /// In an OCI layout folder that was given as a named context.
    OciLayout {
        /// Name of the context.
        context: String,
        /// The folder.
        path: String,
        /// Tag in the layout.
        tag: Option<String>,
        /// Manifest or index digest.
        digest: Option<Digest>,
    },
}

/// First and last line, 1-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LineRange {
    /// First line.
    pub start: usize,
    /// Last line.
    pub end: usize,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of what the reference names: the index if there is one, else the manifest.
    pub digest: Digest,
    /// Config of the manifest for `platform`.
    pub config: ImageConfig,
    /// Platform of that manifest.
    pub platform: Platform,
    /// Canonical reference without digest, such as `docker.io/library/alpine:latest`.
    pub reference: String,
}

/// Images by what was asked for.
#[derive(Debug, Clone, Default)]
pub struct ResolvedImages {
    /// `None` for images that cannot be resolved.
    images: BTreeMap<(ImageLocation, Platform), Option<ResolvedImage>>,
}

impl ResolvedImages {
    /// Answers `request`.
    pub fn insert(&mut self, request: &ImageRequest, image: ResolvedImage) {
        self.images.insert((request.location.clone(), request.platform.clone()), Some(image));
    }

    /// Answers `request` with: this image cannot be resolved. Only for questions, not for builds.
    pub fn insert_unknown(&mut self, request: &ImageRequest) {
        self.images.insert((request.location.clone(), request.platform.clone()), None);
    }

    /// The answer to a request for `location` and `platform`.
    pub fn find(&self, location: &ImageLocation, platform: &Platform) -> Option<&ResolvedImage> {
        self.images.get(&(location.clone(), platform.clone()))?.as_ref()
    }

    /// Whether the image for `location` and `platform` cannot be resolved.
    pub(crate) fn is_unknown(&self, location: &ImageLocation, platform: &Platform) -> bool {
        matches!(self.images.get(&(location.clone(), platform.clone())), Some(None))
    }
}

/// A converted Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The graph of all targets; its `result` is that of the target when there is only one.
    pub definition: Definition,
    /// One for each platform, in the order asked for.
    pub targets: Vec<Target>,
    /// What the build checks found, by line.
    pub warnings: Vec<Warning>,
}

/// A result for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The platform.
    pub platform: Platform,
    /// Its file tree; `None` is an empty one.
    pub result: Option<Edge>,
    /// Its config, with history but without diff ids and times.
    pub config: ImageConfig,
    /// Number of history entries that come from the base image.
    pub base_history_len: usize,
    /// Layers of the base image, lowest first.
    pub base_layers: Vec<DiffId>,
    /// The base image, `reference@digest`; `None` when the target has none.
    pub base_image: Option<String>,
    /// `SOURCE_DATE_EPOCH` in seconds, from the options or the Dockerfile.
    pub source_date_epoch: Option<i64>,
}

/// What a build check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Which rule.
    pub rule: Rule,
    /// What was found.
    pub message: String,
    /// Where.
    pub lines: LineRange,
}

/// A stage of the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageInfo {
    /// Name, lower-case; `None` when it has none.
    pub name: Option<String>,
    /// Name of its base as written.
    pub base: String,
    /// Platform of its base as written.
    pub platform: Option<String>,
    /// Doc comment.
    pub description: Option<String>,
    /// Whether it is the default target.
    pub is_default: bool,
    /// Lines of its `FROM`.
    pub lines: LineRange,
}
