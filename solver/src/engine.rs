//! The engine: one per process, with one store; jobs are builds that it runs.
//!
//! This is the boundary a server could stand on: whatever belongs to a user (folders, secrets, events,
//! the wish to stop) reaches a [`Job`] through its [`Session`], its event sink and its [`Cancel`] token.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use cache::{
    BlobProvider, FileSystem, Key, Lock, Ref, SpaceWatch, Spool, Store, StoreOptions, WorkspaceKind,
};
use llb::event::{Event, Explanation};
use llb::op::SourceOp;
use llb::{Definition, Digest, Edge, EventSink, Platform};
use sandbox::{Cancel, Resources, Sandbox, Tier};
use tree::Stop;
use tree::layer::{Encoding, Owners, Whiteouts};

use crate::beforehand::Prepare;
use crate::check;
use crate::error::{OpError, SolveError};
use crate::explain::{BuildLabel, Told};
use crate::image::{ImageFacts, Providers};
use crate::op::source::Downloads;
use crate::op::source::git::{Answers, GitOptions};
use crate::session::Session;
use crate::solve::Solve;
use crate::value::Value;

/// How an engine is set up.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Folder of the store.
    pub root: PathBuf,
    /// How steps are isolated.
    pub isolation: IsolationOptions,
    /// Most RUN steps at the same time; `None` is no limit.
    pub jobs: Option<usize>,
    /// How registries are spoken to.
    pub registry: registry::ClientOptions,
    /// How git is run.
    pub git: GitOptions,
    /// What each RUN step may use.
    pub resources: Resources,
}

/// How steps are isolated, and what there is to say about it.
#[derive(Debug, Clone)]
pub struct IsolationOptions {
    /// The tier; `None` where no step can run.
    pub tier: Option<Tier>,
    /// Why it is this one; empty where nothing need be said.
    pub reason: String,
    /// What would make steps run, or run better.
    pub lift: Option<String>,
}

impl Default for IsolationOptions {
    fn default() -> Self {
        Self { tier: Some(Tier::Root), reason: String::new(), lift: None }
    }
}

impl IsolationOptions {
    /// How the folders of the store keep what the file system cannot say for this tier.
    fn encoding(&self) -> Encoding {
        let owners = match self.tier {
            Some(Tier::Root) => return Encoding::default(),
            Some(Tier::Rootless) => Owners::Ranged,
            Some(Tier::Chroot) => Owners::Native,
            // Without a namespace there is one id too.
            Some(Tier::SingleId) | None => Owners::Recorded,
        };
        Encoding { owners, whiteouts: Whiteouts::User }
    }

    /// How steps of this tier see what they build upon, at first.
    fn workspaces(&self) -> WorkspaceKind {
        match self.tier {
            Some(tier) if !tier.has_namespaces() => WorkspaceKind::PlainTree,
            _ => WorkspaceKind::Overlay,
        }
    }
}

/// Runs builds on one store.
pub struct Engine {
    pub(crate) inner: Arc<EngineInner>,
}

/// What an image was asked for as: its source and platform.
type ImageKey = (String, Option<Platform>);

pub(crate) struct EngineInner {
    pub(crate) options: EngineOptions,
    pub(crate) store: Store,
    pub(crate) registry: Arc<registry::Client>,
    /// Fetches blobs of base images.
    pub(crate) providers: Arc<Providers>,
    transfers: registry::Cancel,
    pub(crate) images: Mutex<HashMap<ImageKey, Arc<ImageFacts>>>,
    /// Whether git is there and new enough.
    pub(crate) git_is_known: OnceLock<()>,
    sandbox: Arc<Starter>,
    /// Whether the user was told how steps are isolated.
    told_isolation: AtomicBool,
    /// There once a solve has taken a moment.
    space: OnceLock<SpaceWatch>,
    /// Whether anything was not in the cache.
    pub(crate) has_worked: AtomicBool,
    /// Threads that open the store and start the process that starts steps.
    warming: Mutex<Vec<JoinHandle<()>>>,
}

/// The process that starts steps, once somebody asked for it.
struct Starter {
    tier: Tier,
    started: Mutex<Option<Arc<Sandbox>>>,
}

impl Starter {
    fn get(&self) -> Result<Arc<Sandbox>, OpError> {
        let mut slot = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = slot.as_ref() {
            return Ok(Arc::clone(sandbox));
        }
        let _span = tree::trace::span("start", || "process that starts steps".to_owned());
        Ok(Arc::clone(slot.insert(Arc::new(Sandbox::start_for(self.tier)?))))
    }
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        let slot = self.warming.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A thread that outlives the engine keeps the store open.
        for thread in slot.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Opens the store at `options.root`, making it if need be. Nothing else is set up yet.
    ///
    /// # Errors
    /// When the folder cannot be used.
    pub fn open(options: EngineOptions) -> Result<Self, OpError> {
        let transfers = registry::Cancel::new();
        let client = registry::Client::new(options.registry.clone());
        let registry = Arc::new(client.with_cancel(transfers.clone()));
        let providers = Arc::new(Providers::new(Arc::clone(&registry)));
        let provider: Arc<dyn BlobProvider> = Arc::<Providers>::clone(&providers);
        let (encoding, workspaces) = (options.isolation.encoding(), options.isolation.workspaces());
        let store = Store::open(&options.root, StoreOptions { provider, encoding, workspaces })?;
        let tier = options.isolation.tier.unwrap_or_default();
        Ok(Self {
            inner: Arc::new(EngineInner {
                options,
                store,
                registry,
                providers,
                transfers,
                images: Mutex::default(),
                git_is_known: OnceLock::new(),
                sandbox: Arc::new(Starter { tier, started: Mutex::default() }),
                told_isolation: AtomicBool::new(false),
                space: OnceLock::new(),
                has_worked: AtomicBool::new(false),
                warming: Mutex::default(),
            }),
        })
    }

    /// Opens the database of the store on a thread of its own, for a caller who has other things to do first; on
    /// another one the process that starts steps is started if some are expected to run.
    pub fn warm_up(&self, expects_steps: bool) {
        let store = self.inner.store.clone();
        let opening = std::thread::Builder::new().spawn(move || store.warm_up());
        let has_sandbox = expects_steps && self.inner.options.isolation.tier.is_some();
        let starting = has_sandbox.then(|| {
            let starter = Arc::clone(&self.inner.sandbox);
            // A failure is met again by the step.
            std::thread::Builder::new().spawn(move || drop(starter.get()))
        });
        let threads = [Some(opening), starting].into_iter().flatten().filter_map(Result::ok);
        self.inner.warming.lock().unwrap_or_else(PoisonError::into_inner).extend(threads);
    }

    /// The store of this engine.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Whether anything was not in the cache.
    pub fn has_worked(&self) -> bool {
        self.inner.has_worked.load(Ordering::Relaxed)
    }

    /// Ends what is being asked of registries, when set.
    pub fn transfers(&self) -> registry::Cancel {
        self.inner.transfers.clone()
    }

    /// The registry client of this engine.
    pub fn registry(&self) -> &Arc<registry::Client> {
        &self.inner.registry
    }

    /// Begins a job.
    pub fn job(
        &self,
        session: Arc<dyn Session>,
        events: Arc<dyn EventSink>,
        cancel: Cancel,
    ) -> Job {
        let engine = Arc::clone(&self.inner);
        // On a disk that is full already not even the first lookup could be noted.
        if FileSystem::of(engine.store.root()).is_ok_and(|disk| disk.is_full()) {
            let _ = engine.store.relieve(crate::room::FIRST);
        }
        let transfers = engine.transfers.child();
        Job {
            inner: JobInner {
                files: engine.registry.with_cancel(transfers.clone()),
                engine,
                session,
                events,
                cancel,
                transfers,
                downloads: Downloads::default(),
                git: Answers::default(),
                archives: Mutex::default(),
                told: Mutex::default(),
                reset: Mutex::default(),
                told_why: Told::default(),
                prepare: OnceLock::new(),
            },
        }
    }
}

impl EngineInner {
    /// Sees to it that somebody keeps an eye on the disk.
    pub(crate) fn watch_space(&self) {
        self.space.get_or_init(|| self.store.watch_space());
    }

    /// The process that starts steps; made when the first one seems to be needed.
    pub(crate) fn sandbox(&self) -> Result<Arc<Sandbox>, OpError> {
        self.sandbox.get()
    }
}

impl JobInner {
    /// The tier of steps.
    pub(crate) fn tier(&self) -> Result<Tier, OpError> {
        let IsolationOptions { tier, reason, lift } = &self.engine.options.isolation;
        tier.ok_or_else(|| OpError::NoIsolation { reason: reason.clone(), lift: lift.clone() })
    }

    /// Says before the first step how steps are isolated.
    pub(crate) fn tell_isolation(&self) {
        let IsolationOptions { tier: Some(tier), reason, .. } = &self.engine.options.isolation
        else {
            return;
        };
        if !reason.is_empty() && !self.engine.told_isolation.swap(true, Ordering::Relaxed) {
            let name = format!("[internal] isolation: {tier} ({reason})");
            let (vertex, at) = (Digest::of(name.as_bytes()), SystemTime::now());
            let inputs = Vec::new();
            self.events.send(Event::VertexStarted { vertex, inputs, name, at });
            self.events.send(Event::VertexCompleted { vertex, cached: false, error: None, at });
        }
    }
}

/// One build: may solve several definitions; what it solved can be read until it ends.
pub struct Job {
    pub(crate) inner: JobInner,
}

pub(crate) struct JobInner {
    pub(crate) engine: Arc<EngineInner>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) cancel: Cancel,
    /// Gets files behind URLs.
    pub(crate) files: registry::Client,
    /// Ends the transfers of this job.
    transfers: registry::Cancel,
    /// What the URLs of this job have come to.
    pub(crate) downloads: Downloads,
    /// Which commits this job has found refs to be.
    pub(crate) git: Answers,
    /// Archives that the caller handed over.
    pub(crate) archives: Mutex<HashMap<Digest, Arc<Spool>>>,
    /// Vertices of which the user was told, in any solve.
    pub(crate) told: Mutex<HashSet<Digest>>,
    /// Cache mounts that this job has emptied.
    reset: Mutex<HashSet<String>>,
    /// What the build is called, and what it has explained.
    pub(crate) told_why: Told,
    /// Makes layers ready for the outputs.
    pub(crate) prepare: OnceLock<Arc<Prepare>>,
}

impl Job {
    /// Gets the file trees at `targets`, each from the cache or by running what it needs.
    ///
    /// # Errors
    /// The first vertex that failed.
    pub fn solve(
        &self,
        definition: &Definition,
        targets: &[Edge],
    ) -> Result<Vec<Ref>, Box<SolveError>> {
        self.solve_then(definition, targets, |trees| trees)
    }

    /// As [`solve`](Self::solve), and gives the trees to `then`, while what is to be kept of the solve is written.
    ///
    /// # Errors
    /// The first vertex that failed.
    pub fn solve_then<T>(
        &self,
        definition: &Definition,
        targets: &[Edge],
        then: impl FnOnce(Vec<Ref>) -> T,
    ) -> Result<T, Box<SolveError>> {
        check::definition(definition, targets).map_err(|(vertex, error)| {
            let metadata = definition.vertices().get(vertex).map(|vertex| vertex.metadata.clone());
            let metadata = metadata.unwrap_or_default();
            let (vertex, sources) = (metadata.name, metadata.sources);
            Box::new(SolveError { vertex, sources, log: Vec::new(), error })
        })?;
        Solve::new(&self.inner, definition, targets).run(targets, |values| {
            let mut trees = Vec::new();
            for (value, target) in values.iter().zip(targets) {
                let tree = match value {
                    Value::Tree(reference) => Ok(reference.clone()),
                    Value::Context(..) | Value::Archive(_) => {
                        crate::op::source::materialise(&self.inner, value, "/")
                    }
                };
                trees.push(tree.map_err(|error| {
                    let metadata = &definition.vertex(target.vertex).metadata;
                    let (vertex, sources) = (metadata.name.clone(), metadata.sources.clone());
                    Box::new(SolveError { vertex, sources, log: Vec::new(), error })
                })?);
            }
            Ok(then(trees))
        })
    }

    /// Says what the build is called. Without this nothing is explained, nor noted for later builds; only the first call
    /// counts.
    pub fn label(&self, label: BuildLabel) {
        self.inner.told_why.set(label);
    }

    /// Has the layers of targets made ready for the outputs as soon as they are there, while other steps still run; only
    /// the first call counts.
    pub fn prepare_layers(&self, prepare: Arc<Prepare>) {
        let _ = self.inner.prepare.set(prepare);
    }

    /// Why the steps of all solves so far ran, or who made what was found, if the build's label asks for that.
    pub fn explanations(&self) -> Vec<Explanation> {
        self.inner.told_why.explanations()
    }

    /// Takes an archive, which the source `archive://…` with the returned digest then stands for, as long as the job
    /// lives.
    ///
    /// # Errors
    /// When it cannot be read or kept, is damaged where it begins, or is empty.
    pub fn keep_archive(&self, archive: &mut dyn Read) -> Result<Digest, OpError> {
        crate::op::source::keep_archive(&self.inner, archive)
    }

    /// The time of what a source brings, in seconds since the epoch: `Last-Modified` of a file behind a URL, that of
    /// the newest file of an archive, that of the commit of a repository. `None` when it has no time of its own, as a folder of the user's.
    ///
    /// # Errors
    /// When the source cannot be asked or had.
    pub fn source_time(&self, source: &SourceOp) -> Result<Option<i64>, OpError> {
        crate::op::source::time(&self.inner, source)
    }

    /// What a git repository or a file behind a URL brought, as far as that is known: `sha1` and the commit, or `sha256`
    /// and the hash of the file, in hexadecimal digits.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub fn source_hash(
        &self,
        source: &SourceOp,
    ) -> Result<Option<(&'static str, String)>, OpError> {
        crate::op::source::hash(&self.inner, source)
    }
}

impl JobInner {
    /// Stops everything that the job does.
    pub(crate) fn stop(&self) {
        self.cancel.cancel();
        self.stop_transfers();
    }

    /// Ends the transfers, for a job that is about to fail.
    pub(crate) fn stop_transfers(&self) {
        self.transfers.cancel();
    }

    /// Whether nothing more is to be transferred.
    pub(crate) fn is_stopping(&self) -> bool {
        self.cancel.is_cancelled() || self.transfers.is_cancelled()
    }

    /// Empties a cache mount, the first time that a step which ignores the cache asks for it: what later
    /// steps of the same build find there is what the earlier ones left.
    pub(crate) fn reset_cache_mounts(&self, identity: &str) -> Result<(), OpError> {
        let mut reset = self.reset.lock().unwrap_or_else(PoisonError::into_inner);
        if reset.insert(identity.to_owned()) {
            self.engine.store.reset_cache_mounts(identity)?;
        }
        Ok(())
    }

    /// Ends the reading and writing of files, however large, once the job is cancelled.
    pub(crate) fn stop_reading(&self) -> Stop {
        let cancel = self.cancel.clone();
        Stop::when(move || cancel.is_cancelled())
    }

    /// The right to run the step with this key, if nobody else has it.
    pub(crate) fn try_lock(&self, key: &Key) -> Result<Option<Lock>, OpError> {
        Ok(self.engine.store.try_lock(&step_lock(key))?)
    }

    /// Waits until nobody else runs the step with this key.
    pub(crate) fn lock(&self, key: &Key, is_given_up: &dyn Fn() -> bool) -> Result<Lock, OpError> {
        let lock = self.engine.store.lock(&step_lock(key), is_given_up);
        lock.map_err(|error| match error {
            cache::CacheError::Cancelled(_) => OpError::Canceled,
            error => error.into(),
        })
    }
}

/// Name of the lock that is held while a step runs.
fn step_lock(key: &Key) -> String {
    format!("step {key}")
}
