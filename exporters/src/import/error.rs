//! Why an image could not be brought into the store.

use std::io;
use std::path::PathBuf;

use cache::CacheError;
use llb::Digest;
use llb::image::MOST_LAYERS;

/// Why an image could not be brought into the store. Nothing of it is there then.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file or folder cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: String,
        /// What the system said, or what is wrong with the archive's bytes.
        #[source]
        source: io::Error,
    },
    /// The store cannot be written.
    #[error("cannot write into the store `{}`", path.display())]
    Write {
        /// The store.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The archive is a tar, but not of images.
    #[error("`{path}` is no image archive: it has neither `manifest.json` nor `index.json`")]
    NoImages {
        /// Which.
        path: String,
    },
    /// An archive of Docker 1.9 or older.
    #[error("`{path}` is an archive of a Docker before 1.10, which is not supported")]
    TooOld {
        /// Which.
        path: String,
    },
    /// A path or link of the archive leads out of it.
    #[error("the archive has the entry `{entry}`, which leads out of it")]
    Outside {
        /// The entry, with the target of a link.
        entry: String,
    },
    /// The archive has more entries than any image has.
    #[error("the archive has more than {0} entries")]
    TooManyEntries(usize),
    /// The archive does not have a file that it names.
    #[error("the archive lacks `{file}`, which {by} names")]
    Missing {
        /// The file.
        file: String,
        /// What names it.
        by: String,
    },
    /// A document is not what it should be.
    #[error("`{file}` of the archive is no {kind}: {reason}")]
    Document {
        /// The file.
        file: String,
        /// What was wanted.
        kind: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Bytes do not hash to their name.
    #[error("{what} has digest {actual} but should have {expected}")]
    Digest {
        /// What was hashed.
        what: String,
        /// What it should hash to.
        expected: Digest,
        /// What it hashes to.
        actual: Digest,
    },
    /// A blob is shorter or longer than its descriptor says.
    #[error("{what} has {actual} bytes but should have {expected}")]
    Size {
        /// What was measured.
        what: String,
        /// What its descriptor says.
        expected: u64,
        /// What there is.
        actual: u64,
    },
    /// An image has more layers than can be.
    #[error("the image {image} has {layers} layers, more than {MOST_LAYERS}")]
    TooManyLayers {
        /// Which.
        image: String,
        /// How many.
        layers: usize,
    },
    /// Config and manifest do not fit each other.
    #[error("the image {image} has {layers} layers, but its config names {diff_ids}")]
    LayerCount {
        /// Which.
        image: String,
        /// Of the manifest.
        layers: usize,
        /// Of the config.
        diff_ids: usize,
    },
    /// What a registry has under a name is something else than an image.
    #[error("`{name}` is no image: its config, of the type `{media_type}`, is not that of one")]
    NotAnImage {
        /// The name.
        name: String,
        /// What its manifest says.
        media_type: String,
    },
    /// A layer is of a kind that cannot be unpacked.
    #[error("layer {digest} has unknown media type `{media_type}`")]
    LayerType {
        /// The layer.
        digest: Digest,
        /// What its descriptor says.
        media_type: String,
    },
    /// There is nothing for the platform.
    #[error("{image} has nothing for platform `{platform}`: it is for {offered}")]
    Platform {
        /// The image.
        image: String,
        /// What was asked for.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// A name in the archive is none.
    #[error("the archive names an image `{name}`")]
    Name {
        /// What it says.
        name: String,
        /// What is wrong with it.
        #[source]
        source: llb::InvalidReference,
    },
    /// A name in the archive would hide the id of an image.
    #[error("the archive names an image `{0}`, which looks like the id of one")]
    NameOfId(String),
    /// A name in the archive has a digest, and the image another.
    #[error("the archive names an image `{0}`, but it does not have that digest")]
    NameLies(String),
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
