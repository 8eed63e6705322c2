//! The blocking facade.

use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use llb::image::Descriptor;
use llb::{Digest, Platform, Reference};
use reqwest::{Method, StatusCode};
use tokio::runtime::{self, Runtime};

use crate::auth::Scopes;
use crate::credential::Credential;
use crate::download::Download;
use crate::manifest::{self, DEEPEST_INDEX, Document, LARGEST_DOCUMENT, Parsed, ResolvedImage};
use crate::place::Wanted;
use crate::progress::{Meter, Watch};
use crate::pull::{self, BlobReader};
use crate::push::{self, Pushed};
use crate::session::{Ask, Shared};
use crate::transport::bad_answer;
use crate::upload::Upload;
use crate::upload::growing::{Growing, GrowingUpload};
use crate::{Cancel, ClientOptions, Error};

/// Asks registries. Cheap to clone; clones share connections, tokens and the runtime.
///
/// Making one costs nothing: runtime, certificates and credentials are set up by the first request that
/// needs them.
#[derive(Debug, Clone)]
pub struct Client {
    core: Arc<Core>,
    cancel: Cancel,
    deadline: Option<Instant>,
    watch: Option<Watch>,
}

/// The runtime and what its tasks share. Tasks hold only `shared`, so the runtime never ends inside itself.
pub(crate) struct Core {
    shared: Arc<Shared>,
    runtime: OnceLock<Runtime>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl Core {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn runtime(&self) -> Result<&Runtime, Error> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let made = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("registry")
            .enable_all()
            .build();
        let made = made.map_err(|error| Error::Setup(error.into()))?;
        Ok(self.runtime.get_or_init(|| made))
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A credential helper or a reader that hangs must not keep the program from ending.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ends `future` when the flag is set or the deadline passes.
pub(crate) async fn limited<T>(
    cancel: &Cancel,
    deadline: Option<Instant>,
    future: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let expired = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        () = expired => Err(Error::DeadlineExceeded),
        result = future => result,
    }
}

impl Client {
    /// Makes a client; nothing is read or opened yet.
    pub fn new(options: ClientOptions) -> Self {
        Self::over(Shared::new(options, None))
    }

    /// One that shows a credential everywhere, whatever the files say.
    pub(crate) fn with_credential(options: ClientOptions, given: Credential) -> Self {
        Self::over(Shared::new(options, Some(given)))
    }

    fn over(shared: Shared) -> Self {
        let core = Core { shared: Arc::new(shared), runtime: OnceLock::new() };
        Self { core: Arc::new(core), cancel: Cancel::new(), deadline: None, watch: None }
    }

    /// Asks a registry for nothing but an answer.
    pub(crate) fn ping(&self, host: &str) -> Result<(), Error> {
        self.run(async {
            let shared = &self.core.shared;
            let (host, scopes) = (shared.registry(host)?, Scopes::none());
            let ask = Ask::new(Method::GET, String::new(), &scopes, &host.name);
            let response = shared.send(&host, &ask).await?;
            if response.status() == StatusCode::NOT_FOUND {
                let request = shared.request(&host, &ask).await?;
                let answer = "not found: this is no registry".to_owned();
                return Err(bad_answer(&host.name, &request, answer));
            }
            Ok(())
        })
    }

    /// The same client, whose requests end when `cancel` is set.
    #[must_use]
    pub fn with_cancel(&self, cancel: Cancel) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// The same client, whose requests and streams end at `deadline`.
    #[must_use]
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self.clone() }
    }

    /// The same client, which tells `watch` of the blobs that it transfers.
    #[must_use]
    pub fn with_watch(&self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self.clone() }
    }

    /// What users should hear of although it went well, each once: warnings of registries, and mirrors that did not
    /// help. Clones share them.
    pub fn take_notices(&self) -> Vec<String> {
        self.core.shared.notices.take()
    }

    /// The runtime, and what ends requests.
    pub(crate) fn parts(&self) -> (&Arc<Core>, Cancel, Option<Instant>) {
        (&self.core, self.cancel.clone(), self.end())
    }

    /// When what begins now must have ended.
    fn end(&self) -> Option<Instant> {
        let longest = self.core.shared.options.transfer_timeout;
        let own = longest.and_then(|longest| Instant::now().checked_add(longest));
        self.deadline.into_iter().chain(own).min()
    }

    fn meter(&self, blob: &Descriptor) -> Meter {
        Meter::new(self.watch.clone(), blob)
    }

    fn run<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.core.runtime()?.block_on(limited(&self.cancel, self.end(), future))
    }

    /// Returns media type, digest and size of what `reference` names. By HEAD where the registry knows it:
    /// the digest is what the registry claims until the document is fetched by it.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the errors of every request.
    pub fn head(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let shared = &self.core.shared;
        self.run(shared.first(reference, Wanted::Named, async |place| {
            match pull::head(shared, place).await? {
                Some(descriptor) => Ok(descriptor),
                None => Ok(pull::document(shared, place).await?.descriptor),
            }
        }))
    }

    /// Returns the manifest or index that `reference` names; verified when it has a digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLarge`] above 4 MiB, [`Error::BadDigest`], [`Error::BadAnswer`] for
    /// what is no manifest, and the errors of every request.
    pub fn resolve(&self, reference: &Reference) -> Result<Document, Error> {
        self.run(self.document(reference, Wanted::Named))
    }

    async fn document(&self, reference: &Reference, wanted: Wanted) -> Result<Document, Error> {
        let shared = &self.core.shared;
        shared.first(reference, wanted, async |place| pull::document(shared, place).await).await
    }

    /// Returns the manifest or index with this digest in the repository of `repository`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn manifest_by_digest(
        &self,
        repository: &Reference,
        digest: Digest,
    ) -> Result<Document, Error> {
        self.resolve(&repository.with_digest(digest))
    }

    /// Returns the manifest for `platform` of the image that `reference` names, through nested indexes. An
    /// image without an index is taken as it is: what it is for stands in its config.
    ///
    /// # Errors
    /// [`Error::NoMatchingPlatform`], and as [`resolve`](Self::resolve).
    pub fn resolve_image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, Error> {
        self.resolve_image_knowing(reference, platform, &|_| None)
    }

    /// As [`resolve_image`](Self::resolve_image), but asks for no document that `known` has: of a name with a digest
    /// perhaps for none at all.
    ///
    /// # Errors
    /// As [`resolve_image`](Self::resolve_image).
    pub fn resolve_image_knowing(
        &self,
        reference: &Reference,
        platform: &Platform,
        known: &dyn Fn(Digest) -> Option<Vec<u8>>,
    ) -> Result<ResolvedImage, Error> {
        // Whether the image may be used at all does not depend on what is known of it.
        self.core.shared.places(reference, Wanted::Named)?;
        self.run(async {
            let known = |digest: Digest| Document::known(known(digest)?, digest);
            let top = match reference.digest().and_then(known) {
                Some(document) => document,
                None => self.document(reference, Wanted::Named).await?,
            };
            let mut document = top.clone();
            for _ in 0..=DEEPEST_INDEX {
                let parsed = document.parse().map_err(|answer| Error::BadAnswer {
                    host: reference.host().to_owned(),
                    asked: reference.to_string(),
                    answer,
                    status: None,
                })?;
                let index = match parsed {
                    Parsed::Manifest(manifest) => {
                        return Ok(ResolvedImage { top, document, manifest: *manifest });
                    }
                    Parsed::Index(index) => index,
                };
                let what = reference.to_string();
                let entry = manifest::choose(&index, platform, &what)?;
                if entry.size > LARGEST_DOCUMENT {
                    return Err(Error::TooLarge { what, limit: LARGEST_DOCUMENT });
                }
                let found = match known(entry.digest) {
                    Some(document) => document,
                    None => self.document(reference, Wanted::Manifest(entry.digest)).await?,
                };
                if found.descriptor.size != entry.size {
                    let problem = format!(
                        "the index says that {} has {} bytes, not {}",
                        entry.digest, entry.size, found.descriptor.size
                    );
                    return Err(Error::BadDigest { what, problem });
                }
                document = found;
            }
            let problem = format!("more than {DEEPEST_INDEX} indexes are nested in one another");
            Err(Error::Unusable { what: reference.to_string(), problem })
        })
    }

    /// Returns a short blob, such as an image config, whole and verified.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `limit` bytes, [`Error::NotFound`], [`Error::BadDigest`], and the errors of
    /// every request.
    pub fn small_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let shared = &self.core.shared;
        self.run(shared.first(repository, Wanted::Blob, async |place| {
            pull::small_blob(shared, place, blob, limit).await
        }))
    }

    /// Opens a blob for reading; the reader verifies it. Returns as soon as the registry has answered.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadDigest`] when its size is not the descriptor's, and the errors of
    /// every request. Later ones come from the reader, as [`io::Error`]s that hold an [`Error`]: when that
    /// [is elsewhere](Error::is_elsewhere), a second call asks another place.
    pub fn blob(&self, repository: &Reference, blob: &Descriptor) -> Result<BlobReader, Error> {
        let shared = &self.core.shared;
        let (download, giver) =
            self.run(shared.first_blob(repository, blob.digest, async |place| {
                Download::start(Arc::clone(shared), place, blob).await
            }))?;
        let (giver, meter) = (Arc::new(giver), self.meter(blob));
        let (reader, sender) =
            BlobReader::new(Arc::clone(&self.core), blob, Arc::clone(&giver), meter);
        let (cancel, deadline) = (self.cancel.clone(), self.end());
        self.core.runtime()?.spawn(async move {
            let result = tokio::select! {
                result = limited(&cancel, deadline, download.run(&sender)) => result,
                () = sender.closed() => Ok(()),
            };
            if let Err(error) = result {
                // The reader may be gone, and then nobody needs to know.
                let _ = sender.send(Err(giver.judge(error))).await;
            }
        });
        Ok(reader)
    }

    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// Those of every request.
    pub fn blob_exists(&self, repository: &Reference, digest: Digest) -> Result<bool, Error> {
        let scopes = Scopes::pull(repository);
        self.run(pull::blob_exists(&self.core.shared, repository, digest, &scopes))
    }

    /// Puts a blob into `repository`: not at all if it is there, by a mount if `mount_from` is another
    /// repository of the same registry that has it, else by sending the bytes. `source` opens them anew for
    /// each try and must give exactly the blob's size.
    ///
    /// # Errors
    /// [`Error::Source`] when the bytes cannot be read, and the errors of every request.
    pub fn push_blob(
        &self,
        repository: &Reference,
        blob: &Descriptor,
        source: impl Fn() -> io::Result<Box<dyn Read + Send>> + Sync,
        mount_from: Option<&Reference>,
    ) -> Result<Pushed, Error> {
        let (shared, meter) = (&self.core.shared, self.meter(blob));
        self.core.runtime()?.block_on(async {
            let mut upload = Upload::new(shared, repository, blob, &source, meter)?;
            let push = push::push_blob(shared, repository, blob, &mut upload, mount_from);
            let pushed = limited(&self.cancel, self.end(), push).await;
            if pushed.is_err() {
                upload.cancel().await;
            }
            pushed
        })
    }

    /// Puts a blob into `repository` while it is made; whether it is there then. Nothing is sent of one that is short, and
    /// what was sent of one that came to nothing is given up: who wants it there calls [`push_blob`](Self::push_blob).
    ///
    /// # Errors
    /// [`Error::Source`] when the bytes cannot be read, and the errors of every request.
    pub fn push_growing(
        &self,
        repository: &Reference,
        blob: Arc<dyn Growing>,
    ) -> Result<bool, Error> {
        let (shared, watch) = (&self.core.shared, self.watch.clone());
        self.core.runtime()?.block_on(async {
            let mut upload = GrowingUpload::new(shared, repository, blob, watch)?;
            let pushed = limited(&self.cancel, self.end(), upload.send()).await;
            if !matches!(pushed, Ok(true)) {
                upload.cancel().await;
            }
            pushed
        })
    }

    /// Puts a manifest or index under the tag of `reference`, or under its own digest when `reference` has no
    /// tag. What it names must be there before.
    ///
    /// # Errors
    /// [`Error::Unusable`] when `reference` has another digest than `bytes`, and the errors of every request.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, Error> {
        self.run(push::push_manifest(&self.core.shared, reference, media_type, bytes))
    }
}
