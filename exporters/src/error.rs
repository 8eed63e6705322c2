//! Why a result could not be exported.

use std::io;
use std::path::PathBuf;

use llb::{Digest, InvalidReference};

use crate::options::Kind;

/// Why a result could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The text of an output makes no sense.
    #[error("invalid output `{text}`: {reason}")]
    InvalidOutput {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text of an annotation makes no sense.
    #[error("invalid annotation `{text}`: {reason}")]
    InvalidAnnotation {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An output has no such attribute.
    #[error("unknown attribute `{name}` of output type {kind}{near}, want {valid}")]
    UnknownAttribute {
        /// Kind of output.
        kind: Kind,
        /// What was given.
        name: String,
        /// A guess at what was meant.
        near: String,
        /// What could have been given.
        valid: String,
    },
    /// Two attributes exclude each other.
    #[error("exporter option \"{one}\" conflicts with \"{other}\"")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Times are to be cut back, and nobody said to which.
    #[error("`rewrite-timestamp` needs a time: set SOURCE_DATE_EPOCH or --source-date-epoch")]
    NoEpoch,
    /// An attribute has a value that makes no sense.
    #[error("invalid value of `{name}`: {reason}")]
    InvalidValue {
        /// The attribute.
        name: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// An image name makes no sense.
    #[error("invalid name `{name}`")]
    InvalidName {
        /// What was given.
        name: String,
        /// What is wrong with it.
        #[source]
        source: InvalidReference,
    },
    /// The reference can do it, this builder cannot yet.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// The place to export to is missing or does not suit the output.
    #[error("{0}")]
    Destination(&'static str),
    /// Annotations cannot be written into this image.
    #[error("{0}")]
    Annotations(&'static str),
    /// A Docker archive holds one image only.
    #[error(
        "docker exporter does not support exporting manifest lists, use the oci exporter instead"
    )]
    SeveralPlatforms,
    /// A push needs a name.
    #[error("tag is needed when pushing to registry")]
    NoName,
    /// A push by digest must not name a tag.
    #[error("can't push tagged ref {0} by digest")]
    TaggedByDigest(String),
    /// Two platforms have different files of one name.
    #[error("cannot overwrite {path} from {first} with {second} when split option is disabled")]
    Collision {
        /// The path.
        path: String,
        /// Platform that has it already.
        first: String,
        /// Platform that has it too.
        second: String,
    },
    /// A time in the image config is no RFC 3339 time.
    #[error("invalid time `{0}` in the image config")]
    Time(String),
    /// The config of an image in the store is none.
    #[error("image {id} in the store is damaged")]
    StoredImage {
        /// The image.
        id: Digest,
        /// What is wrong with it.
        #[source]
        source: llb::image::InvalidDocument,
    },
    /// A layer has a media type that is none of a layer.
    #[error("layer {digest} has unknown media type `{media_type}`")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// What its descriptor says.
        media_type: String,
    },
    /// A blob that was just there is gone.
    #[error("blob {0} is not in the store")]
    MissingBlob(Digest),
    /// What is at the destination already is not what it should be.
    #[error("`{}` is no OCI image index", path.display())]
    ForeignIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: llb::image::InvalidDocument,
    },
    /// The destination cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A container engine does not have the image now.
    #[error("cannot load the image")]
    Engine(#[source] crate::engine::EngineError),
    /// An archive cannot be written: its destination failed, or a blob or file that goes into it.
    #[error("cannot write the archive")]
    Archive(#[source] io::Error),
    /// A file of the result cannot be exported.
    #[error("cannot export `{}`", path.display())]
    File {
        /// Path in the result.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
    /// The registry failed.
    #[error("failed to push {name}")]
    Push {
        /// What was pushed.
        name: String,
        /// What the registry said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
