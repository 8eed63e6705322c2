//! Turns a finished result into an image or a file tree.
//!
//! ```text
//! ImageResult ─▶ image ─▶ layout   OCI layout or Docker archive, as a tar or a folder
//!                      ─▶ push     registry
//!             ─▶ engine            a container engine that runs
//!             ─▶ store             local image store, and from there to an image again (`stored`)
//!             ─▶ local, tar        the files themselves
//! archive, registry ─▶ import      local image store
//! ```
//!
//! Invariants:
//! - What is exported depends on the result and the options only: twice gives the same bytes.
//! - A file is there in full under the name that was asked for, or it is not touched.
//! - Nothing here prints or knows the command line beyond the syntax of one `--output`.

pub mod annotations;
mod attest;
mod blobs;
mod compare;
mod destination;
pub mod engine;
mod error;
mod history;
pub mod image;
pub mod import;
mod kept;
pub mod layout;
pub mod local;
mod mirror;
pub mod options;
mod piped;
pub mod push;
pub mod store;
mod stored;
pub mod tar;

use llb::image::Descriptor;
use llb::{Digest, Reference};

pub use annotations::Annotations;
pub use attest::{Attestation, AttestationManifest};
pub use blobs::{Content, prepare};
pub use compare::{Difference, differences};
pub use destination::{Destination, write_file};
pub use error::ExportError;
pub use image::{Image, ImageResult, PlatformResult, assemble, assemble_followed};
pub use kept::as_written;
pub use options::{ImageOptions, Kind, Naming, Output, PushOptions, Target};
pub use stored::{assemble_stored, assemble_stored_followed};
pub use tree::Stop;

/// What is known of an image once it is exported, for the metadata file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The index or only manifest; `None` when the image has none yet, as in the local store.
    pub descriptor: Option<Descriptor>,
    /// The config, when there is just one.
    pub config: Option<Digest>,
    /// The id of the image: digest of the config, or of the index when there are several.
    pub id: Digest,
    /// Names, in full.
    pub names: Vec<String>,
}

impl Exported {
    pub(crate) fn new(image: &Image, descriptor: Descriptor, names: &[Reference]) -> Self {
        let config = image.config().map(|config| config.descriptor.digest);
        let id = config.unwrap_or(descriptor.digest);
        Self {
            descriptor: Some(descriptor),
            config,
            id,
            names: names.iter().map(Reference::to_string).collect(),
        }
    }
}
