//! What is known of a repository elsewhere: a bare repository in the store.
//!
//! ```text
//! mounts/<id>/repository    objects, and a ref for each that was asked for
//! mounts/<id>/unfinished    there while the repository is being changed
//! ```
//!
//! It is kept as cache mounts are: used by one build at a time, the least recently used pruned first. A
//! build that was killed leaves the mark, and the next one starts afresh. The lock is shared with every
//! git that works on it, so it is held until the last of them has ended.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use cache::{CacheError, CacheMount, CacheMountRequest, Sharing};
use fs_err as fs;
use llb::GitUrl;

use super::command::{Call, Git, Ran, last_words};
use super::error::{GitError, is_damage, is_refused};
use super::request::is_commit;
use super::resolve::{Resolved, remote_error};
use crate::error::OpError;

/// Sets these folders apart from those that steps can have mounted.
const OWNERS: &str = "git";

/// A repository, for as long as it is used.
pub(super) struct Repository<'a> {
    git: &'a Git<'a>,
    url: &'a GitUrl,
    folder: PathBuf,
    mark: PathBuf,
    holder: File,
    _mount: CacheMount,
}

impl<'a> Repository<'a> {
    /// Waits for the repository of an address, making it if there is none; `format` is git's hash.
    ///
    /// # Errors
    /// When the store or git fails.
    pub(super) fn open(git: &'a Git<'a>, url: &'a GitUrl, format: &str) -> Result<Self, OpError> {
        let request = CacheMountRequest {
            identity: &format!("git {format} {}", url.without_credentials()),
            sharing: Sharing::Locked,
            owners: OWNERS,
            init: &|_| Ok(()),
            cancelled: &|| git.job.cancel.is_cancelled(),
        };
        let mount = git.job.engine.store.cache_mount(&request).map_err(|error| match error {
            CacheError::Cancelled(_) => OpError::Canceled,
            error => error.into(),
        })?;
        let (folder, mark) = (mount.path.join("repository"), mount.path.join("unfinished"));
        let holder = mount.holder()?;
        let repository = Self { git, url, folder, mark, holder, _mount: mount };
        if repository.mark.exists() || !repository.folder.join("HEAD").exists() {
            repository.make(format)?;
        }
        Ok(repository)
    }

    /// The repository of an address for a commit, whose id says by which hash it is.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn of(git: &'a Git<'a>, url: &'a GitUrl, commit: &str) -> Result<Self, OpError> {
        Self::open(git, url, if commit.len() == 64 { "sha256" } else { "sha1" })
    }

    /// The folder of the repository.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn make(&self, format: &str) -> Result<(), OpError> {
        let failed = |action: &'static str| {
            let path = self.folder.clone();
            move |source| OpError::Io { action, path, source }
        };
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove")(error));
            }
            _ => {}
        }
        fs::write(&self.mark, "").map_err(failed("mark"))?;
        let format = format!("--object-format={format}");
        let words = ["init", "--quiet", "--bare", "--template=", &format].map(OsStr::new);
        self.git.local("make a repository", &self.call(&words))?;
        fs::remove_file(&self.mark).map_err(failed("unmark"))
    }

    /// A call of git on this repository.
    pub(super) fn call<'c>(&'c self, words: &[&'c OsStr]) -> Call<'c> {
        Call {
            words: words.to_vec(),
            repository: Some(&self.folder),
            holder: Some(&self.holder),
            ..Call::default()
        }
    }

    /// Runs git on this repository, to read it.
    ///
    /// # Errors
    /// When it fails; then the next one to open the repository starts afresh.
    pub(super) fn read(&self, action: &'static str, words: &[&str]) -> Result<Ran, OpError> {
        let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        self.run(action, &self.call(&words))
    }

    /// As [`read`](Self::read), for a [`call`](Self::call) with more to it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(super) fn run(&self, action: &'static str, call: &Call<'_>) -> Result<Ran, OpError> {
        let ran = self.git.run(call)?;
        if ran.is_ok {
            return Ok(ran);
        }
        if let Some(error) = self.full_disk(&ran.words) {
            return Err(error);
        }
        let message = last_words(&ran.words);
        if ran.words.contains("invalid path '") {
            let url = self.url.to_string();
            return Err(GitError::Tree { url, message }.into());
        }
        self.spoil();
        Err(GitError::Local { action, message }.into())
    }

    /// What git says of a full disk, as the error that it is.
    fn full_disk(&self, words: &str) -> Option<OpError> {
        let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let is_full =
            words.contains("No space left on device") || words.contains("Disk quota exceeded");
        is_full.then(|| OpError::Io { action: "write", path: self.folder.clone(), source })
    }

    /// Has the next one to open the repository start afresh.
    fn spoil(&self) {
        // If not even that can be done, the next one will fail as this one did.
        let _ = fs::write(&self.mark, "");
    }

    /// Whether the commit of an object is there.
    fn has(&self, object: &str) -> Result<bool, OpError> {
        let name = format!("{object}^{{commit}}");
        let words = ["cat-file", "-e", &name].map(OsStr::new);
        Ok(self.git.run(&self.call(&words))?.is_ok)
    }

    /// Makes sure that an object is there with its files: first it alone is asked for, then its ref, then
    /// all that the repository has.
    ///
    /// # Errors
    /// When the repository elsewhere cannot be asked, or does not have it.
    pub(super) fn fetch(&self, wanted: &Resolved) -> Result<(), OpError> {
        let object = &wanted.object;
        if self.has(object)? {
            return Ok(());
        }
        let kept = format!("refs/keep/{object}");
        let mut refspecs = vec![format!("+{object}:{kept}")];
        refspecs.extend(wanted.name.as_ref().map(|name| format!("+{name}:{kept}")));
        for refspec in &refspecs {
            self.fetch_with(&["--depth=1"], &[refspec])?;
            if self.has(object)? {
                return Ok(());
            }
        }
        self.fetch_all(wanted.name.as_deref())?;
        if self.has(object)? {
            return Ok(());
        }
        Err(GitError::NoRef { url: self.url.to_string(), name: object.clone() }.into())
    }

    /// Gets all branches and tags with their histories, and the ref `name`.
    fn fetch_all(&self, name: Option<&str>) -> Result<(), OpError> {
        let is_shallow = self.folder.join("shallow").exists();
        let depth: &[&str] = if is_shallow { &["--unshallow"] } else { &[] };
        let other = name.map(|name| format!("+{name}:refs/keep/{name}"));
        let mut refspecs = vec!["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        refspecs.extend(other.as_deref());
        let options = [depth, &["--prune"]].concat();
        if !self.fetch_with(&options, &refspecs)? && is_shallow {
            self.fetch_with(&["--prune"], &refspecs)?;
        }
        Ok(())
    }

    /// Fetches; false when the repository elsewhere does not take this way of asking.
    fn fetch_with(&self, options: &[&str], refspecs: &[&str]) -> Result<bool, OpError> {
        let address = self.url.without_credentials();
        let fixed = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-head-ok"];
        let words: Vec<&OsStr> = fixed
            .iter()
            .chain(options)
            .copied()
            .chain(["--", &address])
            .chain(refspecs.iter().copied())
            .map(OsStr::new)
            .collect();
        let failed = |source| OpError::Io { action: "mark", path: self.mark.clone(), source };
        fs::write(&self.mark, "").map_err(failed)?;
        let call = Call { remote: Some(self.url), ..self.call(&words) };
        let ran = self.git.run(&call)?;
        if !ran.is_ok {
            self.sweep();
        }
        // git that ends by itself leaves nothing else half done.
        fs::remove_file(&self.mark).map_err(failed)?;
        if ran.is_ok {
            return Ok(true);
        }
        if let Some(error) = self.full_disk(&ran.words) {
            return Err(error);
        }
        if is_refused(&ran.words) {
            return Ok(false);
        }
        if is_damage(&ran.words) {
            self.spoil();
            let message = last_words(&ran.words);
            return Err(GitError::Local { action: "add to a repository", message }.into());
        }
        Err(remote_error(self.url, &ran.words).into())
    }

    /// Removes packs that did not come to their end.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(self.folder.join("objects/pack")) else { return };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with("tmp_") {
                // What stays is in nobody's way.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The one commit whose id begins so.
    ///
    /// # Errors
    /// When there is none or more than one.
    pub(super) fn complete(&self, beginning: &str) -> Result<String, OpError> {
        self.fetch_all(None)?;
        let name = format!("{beginning}^{{commit}}");
        let words = ["rev-parse", "--verify", "--end-of-options", &name].map(OsStr::new);
        let ran = self.git.run(&self.call(&words))?;
        let (url, name) = (self.url.to_string(), beginning.to_owned());
        if ran.is_ok && is_commit(&ran.line()) {
            return Ok(ran.line());
        }
        Err(match ran.words.contains("ambiguous") {
            true => GitError::Ambiguous { url, name },
            false => GitError::NoRef { url, name },
        }
        .into())
    }
}
