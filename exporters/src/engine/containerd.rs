//! The result into a containerd, by its program `ctr`.
//!
//! ```text
//! ctr images ls         does a name stand for the image already? then only names are given
//! ctr content ls        which blobs are there? layers that are, are left away
//! ctr images import -   the image as an OCI archive
//! ```
//!
//! containerd keeps blobs as they come, and hands them on so: layers are compressed as for an archive, and the digest of the
//! image is that of an archive. What it keeps is named; what has no name is soon gone.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use llb::{Digest, Reference};

use super::{EngineError, Loaded};
use crate::image::Image;
use crate::layout::{Flavor, write_tar_without};
use crate::{Content, Destination, ExportError, Exported, ImageOptions, ImageResult};

/// Most that is read of what `ctr` complains of, in bytes.
const MOST_COMPLAINTS: u64 = 64 << 10;

/// How long a short question may take.
const PATIENCE: &str = "60s";

/// Where a containerd listens, and the namespace of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Containerd {
    /// Its socket.
    pub socket: PathBuf,
    /// Such as `default`, or `k8s.io` of Kubernetes.
    pub namespace: String,
}

impl Containerd {
    /// Whether it answers, and `ctr` is there to ask it.
    ///
    /// # Errors
    /// When it does not, or there is no `ctr`.
    pub fn try_connect(&self) -> io::Result<()> {
        UnixStream::connect(&self.socket)?;
        self.ask("say its version", &["version"]).map(drop).map_err(|error| match error {
            EngineError::Io(error) => error,
            error => io::Error::other(error),
        })
    }

    fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).arg("--namespace").arg(&self.namespace);
        command.args(words).stdin(Stdio::null());
        command
    }

    /// What `ctr` prints.
    fn ask(&self, action: &'static str, words: &[&str]) -> Result<String, EngineError> {
        let output = self.ctr(&[&["--timeout", PATIENCE], words].concat()).output();
        let Output { status, stdout, stderr } = output.map_err(|error| missing(&error))?;
        match status.success() {
            true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
            false => Err(refused(action, &stderr)),
        }
    }

    /// Names of images, with the digests that they stand for.
    fn images(&self) -> Result<Vec<(String, Digest)>, EngineError> {
        let list = self.ask("list its images", &["images", "ls"])?;
        let row = |line: &str| {
            let mut columns = line.split_whitespace();
            let name = columns.next()?.to_owned();
            Some((name, columns.nth(1)?.parse().ok()?))
        };
        Ok(list.lines().filter_map(row).collect())
    }

    fn blobs(&self) -> Result<HashSet<Digest>, EngineError> {
        let list = self.ask("list its blobs", &["content", "ls", "--quiet"])?;
        Ok(list.lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Names the image as it is named already under `known`.
    fn tag(&self, known: &str, names: &[Reference]) -> Result<(), EngineError> {
        for name in names.iter().map(Reference::to_string).filter(|name| name != known) {
            self.ask("name the image", &["images", "tag", "--force", known, &name])?;
        }
        Ok(())
    }

    /// Sends the image as an archive, without the blobs that it has.
    fn import(
        &self,
        store: &cache::Store,
        image: &Image,
        names: &[Reference],
        has: &HashSet<Digest>,
    ) -> Result<(), ExportError> {
        let io = |error: io::Error| ExportError::Engine(error.into());
        // What is left away here would be looked for there.
        let platform = image.descriptor().platform.map(|_| image.manifests[0].platform.to_string());
        let platforms = match &platform {
            Some(platform) => &["--platform", platform][..],
            None => &["--all-platforms"],
        };
        let words = [&["images", "import"], platforms, &["-"]].concat();
        let mut command = self.ctr(&words);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| ExportError::Engine(missing(&error)))?;
        let (Some(stdin), Some(stderr)) = (child.stdin.take(), child.stderr.take()) else {
            unreachable!("both have just been made pipes");
        };
        let listening =
            std::thread::Builder::new().spawn(move || complaints(stderr)).map_err(io)?;
        let archive = Destination::Stream(Box::new(stdin));
        let written = write_tar_without(has, store, &[(image, names)], Flavor::Oci, archive);
        let status = child.wait().map_err(io)?;
        let complaints = match listening.join() {
            Ok(complaints) => complaints,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match written {
            // It complains of an archive that breaks off, but that is not the cause.
            Err(error) if !is_unheard(&error) => Err(error),
            _ if status.success() => Ok(()),
            _ => Err(ExportError::Engine(refused("load the image", &complaints))),
        }
    }
}

/// Gives an image to a containerd under its names, without layers that it has.
///
/// # Errors
/// When a layer cannot be made, or `ctr` is missing or fails.
pub(super) fn load(
    containerd: &Containerd,
    store: &cache::Store,
    result: &ImageResult,
    options: &ImageOptions,
) -> Result<Loaded, ExportError> {
    let image = crate::assemble(store, result, options, Content::Here)?;
    let layers = image.layers();
    let loaded = |sent: usize, known: bool| Loaded {
        exported: Exported::new(&image, image.dated_descriptor(), &result.names),
        engine: "containerd",
        sent,
        layers: layers.len(),
        known,
    };
    let top = image.top().descriptor.digest;
    let images = containerd.images().map_err(ExportError::Engine)?;
    // Of an index it may have only what is for its own machine.
    let known = images.iter().find(|(_, digest)| image.index.is_none() && *digest == top);
    if let Some((known, _)) = known {
        containerd.tag(known, &result.names).map_err(ExportError::Engine)?;
        return Ok(loaded(0, true));
    }
    let mut has = containerd.blobs().map_err(ExportError::Engine)?;
    has.retain(|digest| layers.contains_key(digest));
    let mut outcome = containerd.import(store, &image, &result.names, &has);
    if matches!(outcome, Err(ExportError::Engine(EngineError::Refused { .. }))) && !has.is_empty() {
        // What nothing there uses may have been removed meanwhile.
        has.clear();
        outcome = containerd.import(store, &image, &result.names, &has);
    }
    outcome.map(|()| loaded(layers.len() - has.len(), false))
}

/// Why `ctr` could not be started.
fn missing(error: &io::Error) -> EngineError {
    EngineError::Io(io::Error::other(match error.kind() {
        ErrorKind::NotFound => "`ctr`, the program of containerd, is not installed".to_owned(),
        _ => format!("cannot run `ctr`: {error}"),
    }))
}

/// Whether writing failed only because the reader went away.
fn is_unheard(error: &ExportError) -> bool {
    match error {
        ExportError::Archive(source) | ExportError::Write { source, .. } => {
            source.kind() == ErrorKind::BrokenPipe
        }
        _ => false,
    }
}

/// Reads all that a program complains of, and keeps the beginning.
fn complaints(mut from: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = from.by_ref().take(MOST_COMPLAINTS).read_to_end(&mut kept);
    let _ = io::copy(&mut from, &mut io::sink());
    kept
}

/// The last line of what it says is what it ended with.
fn refused(action: &'static str, complaints: &[u8]) -> EngineError {
    let text = String::from_utf8_lossy(complaints);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let message = line.unwrap_or("`ctr` failed").trim_start_matches("ctr: ").to_owned();
    EngineError::Refused { action, message }
}
