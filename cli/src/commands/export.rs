//! Turns `-o`, `-t`, `--push` and `--load` into exporters, and runs them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use cache::CacheError;
use exporters::engine;
use exporters::layout::{self, Flavor};
use exporters::{
    Annotations, Content, Destination, ExportError, ImageResult, Kind, Output, PlatformResult,
    Stop, Target,
};
use frontend::Options;
use llb::event::{Explanation, VertexError};
use llb::{Digest, Event, EventSink, Reference};
use registry::HostOptions;
use solver::Engine;

use crate::args::BuildArgs;
use crate::commands::{deletion, engines, registry_failure, store_failure, transfers};
use crate::explain::Entry;
use crate::report::{Exit, Failure, chain};

/// Where a build's result goes.
pub(crate) struct Outputs {
    outputs: Vec<Output>,
    names: Vec<Reference>,
    annotations: Annotations,
    index: bool,
    /// Attestations are only for images that are pushed.
    inline_only: bool,
    /// The container engines that images are loaded into, by the Docker contexts that name them.
    engines: BTreeMap<Option<String>, engine::Engine>,
}

/// What identifies what was exported.
#[derive(Debug, Default)]
pub(crate) struct Exported {
    /// Image id, when there is an image.
    pub(crate) id: Option<Digest>,
    /// Whether an output went to the standard output.
    pub(crate) to_stdout: bool,
    metadata: BTreeMap<String, serde_json::Value>,
}

impl Exported {
    /// Text of the metadata file.
    /// `build` is the id of the build.
    pub(crate) fn metadata_json(&self, build: &str) -> String {
        let empty = || String::from("{}");
        let mut metadata = self.metadata.clone();
        let reference = format!("bricklayer/local/{build}");
        metadata.insert("buildx.build.ref".to_owned(), reference.into());
        metadata.values_mut().for_each(crate::guard::redact_json);
        serde_json::to_string_pretty(&metadata).unwrap_or_else(|_| empty())
    }

    /// Adds further entries to the metadata.
    pub(crate) fn note(&mut self, entries: impl IntoIterator<Item = (String, serde_json::Value)>) {
        self.metadata.extend(entries);
    }

    /// Adds why steps ran to the metadata.
    pub(crate) fn explain(&mut self, explanations: &[Explanation]) {
        let entries: Vec<Entry> = explanations.iter().map(Entry::of).collect();
        let value = serde_json::to_value(entries).unwrap_or_default();
        self.metadata.insert("bricklayer.explain".to_owned(), value);
    }

    fn take(&mut self, exported: &exporters::Exported) {
        let mut put =
            |key: &str, value: serde_json::Value| self.metadata.insert(key.to_owned(), value);
        if let Some(config) = exported.config {
            put("containerimage.config.digest", config.to_string().into());
        }
        if let Some(descriptor) = &exported.descriptor {
            put("containerimage.digest", descriptor.digest.to_string().into());
            put("containerimage.descriptor", serde_json::to_value(descriptor).unwrap_or_default());
        }
        if !exported.names.is_empty() {
            put("image.name", exported.names.join(",").into());
        }
        self.id = Some(exported.id);
    }
}

/// Wording and exit code of an error of an exporter.
pub(crate) fn export_failure(error: &ExportError) -> Failure {
    let message = chain(error);
    if super::is_disk_full(error) {
        return match error {
            ExportError::Write { path, .. } => super::output_is_full(message, Some(path)),
            ExportError::File { .. } | ExportError::Archive(_) => {
                super::output_is_full(message, None)
            }
            ExportError::Cache(error) => store_failure(error, message),
            _ => super::disk_full(message),
        };
    }
    match error {
        ExportError::Cache(error) => store_failure(error, message),
        ExportError::Push { source, .. } => match source.downcast_ref::<registry::Error>() {
            Some(error) => registry_failure(error, message),
            None => Failure::new(Exit::Network, message),
        },
        ExportError::Write { .. } | ExportError::Archive(_) => Failure::new(Exit::Machine, message),
        ExportError::Engine(_) => Failure::new(Exit::Machine, message).hint(engines::OTHER_WAY),
        ExportError::InvalidOutput { .. }
        | ExportError::InvalidAnnotation { .. }
        | ExportError::UnknownAttribute { .. }
        | ExportError::Conflict { .. }
        | ExportError::NoEpoch
        | ExportError::InvalidValue { .. }
        | ExportError::InvalidName { .. }
        | ExportError::Unsupported(_)
        | ExportError::NoName
        | ExportError::TaggedByDigest(_)
        | ExportError::SeveralPlatforms
        | ExportError::Destination(_)
        | ExportError::Annotations(_) => Failure::new(Exit::Usage, message),
        _ => Failure::new(Exit::Build, message),
    }
}

impl Outputs {
    /// Reads the flags; everything that can be wrong without a result is found here.
    pub(crate) fn parse(
        args: &BuildArgs,
        names: &[Reference],
        options: &Options,
    ) -> Result<Self, Failure> {
        let mut outputs = Vec::new();
        for text in &args.outputs {
            let mut output = Output::parse(text).map_err(|error| export_failure(&error))?;
            if output.image.rewrite_timestamp {
                let epoch = &mut output.image.source_date_epoch;
                *epoch = epoch.or(options.source_date_epoch);
            }
            deletion::check(&output, &args.allow)?;
            outputs.push(output);
        }
        if args.push {
            match outputs.iter_mut().find(|output| output.kind == Kind::Image) {
                Some(output) => output.push.enabled = true,
                None => {
                    let mut output = Output::new(Kind::Image);
                    output.store = false;
                    output.push.enabled = true;
                    outputs.push(output);
                }
            }
        }
        if args.load && !outputs.iter().any(is_loaded) {
            outputs.push(Output::new(Kind::Docker));
        }
        if outputs.is_empty() {
            outputs.push(Output::new(Kind::Image));
        }
        let mut annotations = Annotations::default();
        for text in &args.annotations {
            annotations
                .0
                .extend(Annotations::parse_flag(text).map_err(|error| export_failure(&error))?.0);
        }
        let mut all = Self {
            outputs,
            names: names.to_vec(),
            annotations,
            index: options.multi_platform || options.platforms.len() > 1,
            inline_only: false,
            engines: BTreeMap::new(),
        };
        all.check()?;
        for output in all.outputs.iter().filter(|output| is_loaded(output)) {
            let fits = |found: &engine::Engine| all.check_engine(found, output);
            let found = engines::find(output.context.as_deref(), fits)?;
            all.engines.insert(output.context.clone(), found);
        }
        Ok(all)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.outputs.iter().filter(|output| is_to_stdout(output)).count() > 1 {
            let message = "two outputs cannot both be written to standard output";
            return Err(Failure::new(Exit::Usage, message));
        }
        if self.uses_stdout() && std::io::stdout().is_terminal() {
            return Err(Failure::new(Exit::Usage, "an archive is not written to a terminal")
                .hint("redirect the output or give dest=PATH"));
        }
        if self.index
            && self.outputs.iter().any(|output| output.kind == Kind::Docker && !is_loaded(output))
        {
            return Err(export_failure(&ExportError::SeveralPlatforms));
        }
        let lacks_name = |output: &Output| output.push.enabled && self.names_of(output).is_empty();
        if self.outputs.iter().any(lacks_name) {
            return Err(Failure::new(Exit::Usage, "tag is needed when pushing to registry")
                .hint("name the image with -t REGISTRY/NAME:TAG"));
        }
        Ok(())
    }

    /// Whether an engine can keep what the output gives it.
    fn check_engine(&self, found: &engine::Engine, output: &Output) -> Result<(), Failure> {
        match found {
            engine::Engine::Docker(_) if self.index => {
                Err(export_failure(&ExportError::SeveralPlatforms))
            }
            engine::Engine::Containerd(_) if self.names_of(output).is_empty() => {
                Err(Failure::new(Exit::Usage, "containerd keeps no image that has no name")
                    .hint("name the image with -t NAME"))
            }
            _ => Ok(()),
        }
    }

    /// Whether anything of the result has a config.
    pub(crate) fn has_image(&self) -> bool {
        let without = |kind| matches!(kind, Kind::Local | Kind::Tar | Kind::CacheOnly);
        self.outputs.iter().any(|output| !without(output.kind))
    }

    /// Notes for images.
    pub(crate) fn annotations(&self) -> &Annotations {
        &self.annotations
    }

    /// Whether something is written to standard output.
    pub(crate) fn uses_stdout(&self) -> bool {
        self.outputs.iter().any(is_to_stdout)
    }

    /// Gives up exporting when `stop` says so.
    pub(crate) fn stop_when(&mut self, stop: &Stop) {
        self.outputs.iter_mut().for_each(|output| output.image.stop = stop.clone());
    }

    /// Makes of a layer what the outputs will ask for.
    pub(crate) fn preparation(&self, engine: &Engine) -> Arc<solver::Prepare> {
        let store = engine.store().clone();
        let images = self.outputs.iter().filter_map(|output| match output.kind {
            // Nothing of it is compressed.
            Kind::Docker if self.goes_to_docker(output) => Some((output.image.clone(), None)),
            Kind::Oci | Kind::Docker => Some((output.image.clone(), Some(Content::Here))),
            Kind::Image if output.push.enabled => {
                Some((output.image.clone(), Some(Content::Elsewhere)))
            }
            Kind::Image if output.store => Some((output.image.clone(), None)),
            _ => None,
        });
        let images: Vec<_> = images.collect();
        Arc::new(move |layer| {
            for (options, content) in &images {
                // The export meets the same error, and tells it.
                let _ = exporters::prepare(&store, layer, options, *content);
            }
        })
    }

    /// Whether it is loaded into Docker or Podman.
    fn goes_to_docker(&self, output: &Output) -> bool {
        is_loaded(output)
            && matches!(self.engines.get(&output.context), Some(engine::Engine::Docker(_)))
    }

    /// Refuses to cut back times when nobody says to which: neither the output nor the build for any of its platforms.
    pub(crate) fn check_times(&self, targets: &[frontend::Target]) -> Result<(), Failure> {
        let is_dated = targets.iter().any(|target| target.source_date_epoch.is_some());
        let lacks = |output: &Output| {
            output.image.rewrite_timestamp && output.image.source_date_epoch.is_none()
        };
        if !is_dated && self.outputs.iter().any(lacks) {
            return Err(export_failure(&ExportError::NoEpoch));
        }
        Ok(())
    }

    /// Refuses an image id file when there is no image.
    pub(crate) fn check_iidfile(&self) -> Result<(), Failure> {
        if self.outputs.iter().any(|output| matches!(output.kind, Kind::Local | Kind::Tar)) {
            return Err(Failure::new(
                Exit::Usage,
                "local and tar exporters are incompatible with image ID file",
            ));
        }
        Ok(())
    }

    /// Settings of the registries that the outputs name.
    pub(crate) fn hosts(&self) -> BTreeMap<String, HostOptions> {
        let insecure = self.outputs.iter().filter(|output| output.push.insecure);
        insecure
            .flat_map(|output| self.names_of(output))
            .map(|name| (name.host().to_owned(), HostOptions { insecure: Some(true) }))
            .collect()
    }

    /// What the image is to be called, by all outputs.
    pub(crate) fn image_names(&self) -> Vec<String> {
        self.outputs
            .iter()
            .flat_map(|output| self.names_of(output))
            .map(Reference::to_string)
            .collect()
    }

    fn names_of<'a>(&'a self, output: &'a Output) -> &'a [Reference] {
        if self.names.is_empty() { &output.names } else { &self.names }
    }

    /// The outputs, one by one.
    pub(crate) fn all(&self) -> &[Output] {
        &self.outputs
    }

    /// The trees of a build as exporters take them.
    pub(crate) fn result(&self, results: &[(&frontend::Target, cache::Ref)]) -> ImageResult {
        let platforms = results.iter().map(|(target, reference)| PlatformResult {
            platform: target.platform.clone(),
            reference: reference.clone(),
            config: target.config.clone(),
            base_history: target.base_history_len,
            source_date_epoch: target.source_date_epoch,
        });
        ImageResult {
            platforms: platforms.collect(),
            names: self.names.clone(),
            annotations: self.annotations.clone(),
            index: self.index,
            attestations: Vec::new(),
        }
    }

    /// Attestations are coming; with `inline_only` just for images that are pushed.
    pub(crate) fn attest(&mut self, inline_only: bool) {
        self.inline_only = inline_only;
    }

    /// Whether any output has a place for attestations: the local store has none.
    pub(crate) fn carry_attestations(&self) -> bool {
        self.outputs.iter().any(|output| self.carries_attestations(output))
    }

    fn carries_attestations(&self, output: &Output) -> bool {
        match output.kind {
            Kind::Image => output.push.enabled,
            Kind::CacheOnly => false,
            _ => !self.inline_only,
        }
    }

    /// Writes everything that was asked for.
    pub(crate) fn export(
        &self,
        engine: &Engine,
        mut result: ImageResult,
        events: &dyn EventSink,
    ) -> Result<Exported, Failure> {
        let mut exported = Exported { to_stdout: self.uses_stdout(), ..Exported::default() };
        let said = std::mem::take(&mut result.attestations);
        for output in &self.outputs {
            result.names = self.names_of(output).to_vec();
            let carries = self.carries_attestations(output);
            result.attestations = if carries { said.clone() } else { Vec::new() };
            let title = match (output.kind, output.push.enabled) {
                (Kind::CacheOnly, _) => continue,
                (Kind::Image, false) => "exporting to image store".to_owned(),
                (Kind::Image, true) => "exporting and pushing image".to_owned(),
                (Kind::Local, _) => "exporting to client directory".to_owned(),
                (Kind::Tar, _) => "exporting to client tarball".to_owned(),
                (Kind::Docker, _) if is_loaded(output) => "loading into the engine".to_owned(),
                (kind, _) => format!("exporting to {kind} image format"),
            };
            let vertex = Digest::of(format!("{title} {:?}", output.dest).as_bytes());
            events.send(Event::VertexStarted {
                vertex,
                inputs: Vec::new(),
                name: title.clone(),
                at: SystemTime::now(),
            });
            let span = tree::trace::span("export", move || title);
            let say = |text: String| {
                let data = format!("{text}\n").into_bytes();
                events.send(Event::Log { vertex, stream: 1, data, at: SystemTime::now() });
            };
            let export_one = || match self.engines.get(&output.context) {
                Some(to) if is_loaded(output) => {
                    load(engine.store(), to, &result, output, &say).map(Some)
                }
                _ if !output.push.enabled => export_one(engine, engine.registry(), &result, output),
                _ => transfers::told(engine.registry(), events, vertex, |client| {
                    export_one(engine, client, &result, output)
                }),
            };
            let mut outcome = export_one();
            // Without what proved damaged there may be another way; each try may find one more.
            for _ in 0..MOST_DAMAGE {
                if is_to_stdout(output) || !outcome.as_ref().is_err_and(is_dropped_damage) {
                    break;
                }
                outcome = export_one();
            }
            drop(span);
            let error = outcome.as_ref().err().map(|error| VertexError::Failed(chain(error)));
            events.send(Event::VertexCompleted {
                vertex,
                cached: false,
                error,
                at: SystemTime::now(),
            });
            let one = outcome.map_err(|error| export_failure(&error))?;
            if let Some(one) = one {
                exported.take(&one);
            }
        }
        Ok(exported)
    }
}

/// Damaged blobs that an output gets over.
const MOST_DAMAGE: usize = 32;

/// Whether a blob proved damaged, and was dropped.
fn is_dropped_damage(error: &ExportError) -> bool {
    matches!(super::cause::<CacheError>(error), Some(CacheError::DamagedBlob { .. }))
}

fn is_to_stdout(output: &Output) -> bool {
    matches!(output.dest, Some(Target::Stdout))
        || (output.kind == Kind::Tar && output.dest.is_none())
}

/// Whether it goes into a container engine.
fn is_loaded(output: &Output) -> bool {
    output.kind == Kind::Docker && output.dest.is_none()
}

/// Loads the image, and says what that took.
fn load(
    store: &cache::Store,
    to: &engine::Engine,
    result: &ImageResult,
    output: &Output,
    say: &dyn Fn(String),
) -> Result<exporters::Exported, ExportError> {
    let loaded = engine::load(to, store, result, &output.image)?;
    let (engine, id) = (loaded.engine, loaded.exported.id);
    say(match loaded.known {
        true => format!("{engine} has image {id} already: no layer was sent"),
        false => format!("sent {} of {} layers to {engine}", loaded.sent, loaded.layers),
    });
    Ok(loaded.exported)
}

fn destination(output: &Output) -> Destination {
    match &output.dest {
        Some(Target::Path(path)) => Destination::File(path.clone()),
        _ => Destination::Stream(Box::new(std::io::stdout())),
    }
}

fn export_one(
    engine: &Engine,
    client: &registry::Client,
    result: &ImageResult,
    output: &Output,
) -> Result<Option<exporters::Exported>, ExportError> {
    let store = engine.store();
    let folder = || match &output.dest {
        Some(Target::Path(path)) => path.clone(),
        _ => PathBuf::from("."),
    };
    match output.kind {
        Kind::CacheOnly => Ok(None),
        Kind::Local => exporters::local::write(result, output, &folder()).map(|()| None),
        Kind::Tar => exporters::tar::write(result, output, destination(output)).map(|()| None),
        Kind::Oci | Kind::Docker => {
            let flavor = if output.kind == Kind::Oci { Flavor::Oci } else { Flavor::Docker };
            let image = exporters::assemble(store, result, &output.image, Content::Here)?;
            let exported = if output.tar {
                layout::write_tar(store, &image, &result.names, flavor, destination(output))?
            } else {
                layout::write_folder(store, &image, &result.names, flavor, &folder())?
            };
            Ok(Some(exported))
        }
        Kind::Image => export_image(client, store, result, output),
    }
}

/// Pushes and stores an image, each if it was asked for.
fn export_image(
    client: &registry::Client,
    store: &cache::Store,
    result: &ImageResult,
    output: &Output,
) -> Result<Option<exporters::Exported>, ExportError> {
    let options = &output.image;
    let changes_layers = options.table || options.rewrite_timestamp;
    let mut image = None;
    let mut exported = None;
    if output.push.enabled {
        let content = Content::Elsewhere;
        let make = |follow: &cache::Follow<'_>| {
            exporters::assemble_followed(store, result, options, content, Some(follow))
        };
        let (pushed, said) =
            exporters::push::make_and_push(client, store, &result.names, output.push, make)?;
        (image, exported) = (Some(pushed), Some(said));
    } else if output.store && (changes_layers || output.naming.needs_digest()) {
        image = Some(exporters::assemble(store, result, options, Content::Here)?);
    }
    if output.store {
        let (result, names) = match &image {
            Some(image) => (
                exporters::as_written(store, result, image)?,
                output.naming.names(&result.names, image.top().descriptor.digest),
            ),
            None => (Cow::Borrowed(result), result.names.clone()),
        };
        let stored = exporters::store::put(store, &result, options, &names, image.as_ref())?;
        if output.unpack {
            for platform in &result.platforms {
                platform.reference.dirs()?;
            }
        }
        exported.get_or_insert(stored);
    }
    Ok(exported)
}
