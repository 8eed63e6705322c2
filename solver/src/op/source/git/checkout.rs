//! The files of a commit as a layer.
//!
//! git writes them right where the layer will be; a part of a tree, whose parents may say how its files are
//! to be written, is written elsewhere and moved. Submodules are sources of their own, each with its own
//! repository: nothing that a repository says about them is given to git but an address, and that is
//! checked as those of users are.
//!
//! Invariants:
//! - A path of a repository is looked up in the commit, or part by part in what was written of it: no
//!   symlink that a repository holds is ever followed.
//! - One repository is locked at a time.

use std::cell::Cell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use cache::{LayerMeta, Ref};
use fs_err as fs;
use llb::GitUrl;
use llb::url::redacted;
use tree::Timestamp;

use super::command::{Call, Git};
use super::error::GitError;
use super::repository::Repository;
use super::resolve::Resolved;
use super::submodule::{Submodule, submodules};
use crate::error::OpError;

/// Deepest nesting of submodules.
const MAX_DEPTH: usize = 32;

/// Makes the layer of a source.
///
/// # Errors
/// When it cannot be fetched or written.
pub(super) fn checkout(git: &Git<'_>, resolved: &Resolved) -> Result<Ref, OpError> {
    let request = git.request;
    let store = &git.job.engine.store;
    let mut workspace = store.workspace(&Ref::scratch())?;
    let (upper, work) = (workspace.upper(), workspace.work()?);
    let checkout = Checkout { git, work: &work, next: Cell::new(0), top_time: Cell::new(None) };
    let wanted = Wanted {
        url: &request.url,
        what: resolved.clone(),
        part: &request.subdir,
        git_dir: request.keeps_git_dir.then(|| upper.path().join(".git")),
        depth: 0,
    };
    checkout.write(&wanted, upper.path())?;
    let mtime = checkout.top_time.get().map(|seconds| Timestamp { seconds, nanoseconds: 0 });
    tree::checkout::settle(upper.path(), mtime)?;
    let what = resolved.name.as_deref().unwrap_or(&resolved.object);
    let layer = workspace.commit(&LayerMeta::now(format!("git {}#{what}", request.url)))?;
    Ok(Ref::scratch().push(layer))
}

/// When a commit was made, in seconds since the epoch.
///
/// # Errors
/// When it cannot be fetched.
pub(super) fn commit_time(git: &Git<'_>, resolved: &Resolved) -> Result<i64, OpError> {
    let repository = Repository::of(git, &git.request.url, &resolved.object)?;
    repository.fetch(resolved)?;
    time_of(&repository, &resolved.object)
}

fn time_of(repository: &Repository<'_>, object: &str) -> Result<i64, OpError> {
    let name = format!("{object}^{{commit}}");
    let words = ["show", "--no-patch", "--format=%ct", "--end-of-options", &name];
    let ran = repository.read("read a commit", &words)?;
    ran.line().parse().map_err(|_| {
        let message = format!("the commit {object} has no time");
        GitError::Local { action: "read a commit", message }.into()
    })
}

/// One layer being filled.
struct Checkout<'a> {
    git: &'a Git<'a>,
    /// A folder for what is not part of the layer.
    work: &'a Path,
    next: Cell<u32>,
    /// Time of the commit of the source itself, if files are to have it.
    top_time: Cell<Option<i64>>,
}

/// What is to be written: the source itself, or a submodule.
struct Wanted<'a> {
    url: &'a GitUrl,
    what: Resolved,
    /// Folder of the tree; empty is all of it.
    part: &'a [String],
    /// Where its own repository is kept.
    git_dir: Option<PathBuf>,
    depth: usize,
}

/// Where a part of a tree is.
enum Place {
    /// In the tree itself.
    Here,
    /// Below a submodule: its path is as many parts of it.
    InSubmodule(usize),
}

impl Checkout<'_> {
    /// Writes a tree into a folder, which is empty.
    fn write(&self, wanted: &Wanted<'_>, into: &Path) -> Result<(), OpError> {
        if wanted.depth > MAX_DEPTH {
            return Err(GitError::TooDeep(self.git.request.url.to_string()).into());
        }
        let Wanted { url, what, part, .. } = wanted;
        let repository = Repository::of(self.git, url, &what.object)?;
        repository.fetch(what)?;
        if wanted.depth == 0 && self.git.request.has_commit_time {
            self.top_time.set(Some(time_of(&repository, &what.object)?));
        }
        let commit = format!("{}^{{commit}}", what.object);
        if let Place::InSubmodule(length) = self.locate(&repository, &commit, part)? {
            let (path, rest) = part.split_at(length);
            let found = submodules(&repository, url, &commit, &path.join("/"))?;
            let found = found.into_iter().next();
            drop(repository);
            return match found {
                Some(submodule) => self.write_submodule(&submodule, wanted, rest, None, into),
                None => Err(self.bad_subdir("its submodule is not to be fetched".to_owned())),
            };
        }
        let found = if self.git.request.has_submodules {
            submodules(&repository, url, &commit, &part.join("/"))?
        } else {
            Vec::new()
        };
        let folder = if part.is_empty() { into.to_owned() } else { self.fresh()? };
        match &wanted.git_dir {
            Some(git_dir) => self.write_with_git_dir(&repository, wanted, git_dir, &folder)?,
            None => self.write_files(&repository, &commit, part, &folder)?,
        }
        drop(repository);
        for submodule in &found {
            self.write_below(submodule, wanted, &folder)?;
        }
        if part.is_empty() {
            return Ok(());
        }
        let path: PathBuf = part.iter().collect();
        tree::checkout::move_contents(&folder, &path, into)
            .map_err(|error| self.bad_subdir(error.to_string()))
    }

    /// Makes sure that every part of a path is a folder, or else a submodule.
    fn locate(
        &self,
        repository: &Repository<'_>,
        commit: &str,
        part: &[String],
    ) -> Result<Place, OpError> {
        for length in 1..=part.len() {
            let path = part[..length].join("/");
            let words = ["ls-tree", "-z", "--full-tree", "--end-of-options", commit, &path];
            let ran = repository.read("list a tree", &words)?;
            let listing = String::from_utf8_lossy(&ran.output);
            match listing.split(' ').next().unwrap_or_default() {
                "040000" => {}
                "160000" if self.git.request.has_submodules => {
                    return Ok(Place::InSubmodule(length));
                }
                "160000" => {
                    return Err(self.bad_subdir(format!(
                        "`{path}` is a submodule, and submodules are not fetched"
                    )));
                }
                "120000" => return Err(self.bad_subdir(format!("`{path}` is a symlink"))),
                "" => return Err(self.bad_subdir(format!("`{path}` is not in the repository"))),
                _ => return Err(self.bad_subdir(format!("`{path}` is not a folder"))),
            }
        }
        Ok(Place::Here)
    }

    fn bad_subdir(&self, reason: String) -> OpError {
        GitError::Subdir { subdir: self.git.request.subdir.join("/"), reason }.into()
    }

    /// Writes files alone.
    fn write_files(
        &self,
        repository: &Repository<'_>,
        commit: &str,
        part: &[String],
        folder: &Path,
    ) -> Result<(), OpError> {
        let index = self.fresh()?.join("index");
        let write = |words: &[&OsStr]| {
            let call = Call { folder: Some(folder), index: Some(&index), ..repository.call(words) };
            repository.run("write files", &call)
        };
        write(&["read-tree", "--no-recurse-submodules", commit].map(OsStr::new))?;
        if !part.is_empty() {
            let path = part.join("/");
            let words = ["checkout", "--quiet", "--no-recurse-submodules", commit, "--", &path];
            write(&words.map(OsStr::new))?;
        } else {
            write(&["checkout-index", "--all", "--force", "--quiet"].map(OsStr::new))?;
        }
        Ok(())
    }

    /// Writes files and the repository that they belong to, without more of its history than one commit.
    fn write_with_git_dir(
        &self,
        repository: &Repository<'_>,
        wanted: &Wanted<'_>,
        git_dir: &Path,
        folder: &Path,
    ) -> Result<(), OpError> {
        let Wanted { url, what, .. } = wanted;
        fs::create_dir_all(git_dir).map_err(|source| failed("create", git_dir, source))?;
        let run = |words: &[&str], reads_local: bool| {
            let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
            let call = Call {
                words,
                repository: Some(git_dir),
                folder: Some(folder),
                reads_local,
                ..Call::default()
            };
            repository.run("write a repository", &call)
        };
        let format = if what.object.len() == 64 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        run(&["init", "--quiet", "--template=", &format], false)?;
        let from = repository.folder().to_string_lossy();
        let name = what.name.clone().unwrap_or_else(|| format!("refs/keep/{}", what.object));
        let refspec = format!("+{}:{name}", what.object);
        let fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--depth=1",
            "--no-write-fetch-head",
            "--update-head-ok",
        ];
        run(&[&fetch[..], &["--", &from, &refspec]].concat(), true)?;
        let commit = format!("{}^{{commit}}", what.object);
        run(&["update-ref", "--no-deref", "HEAD", &what.commit], false)?;
        if what.name.is_none() {
            run(&["update-ref", "-d", &name], false)?;
        }
        run(&["remote", "add", "--", "origin", &url.without_credentials()], false)?;
        run(&["read-tree", "--no-recurse-submodules", &commit], false)?;
        run(&["checkout-index", "--all", "--force", "--quiet"], false)?;
        Ok(())
    }

    /// Writes a submodule where it belongs in what was written of its parent.
    fn write_below(
        &self,
        submodule: &Submodule,
        parent: &Wanted<'_>,
        folder: &Path,
    ) -> Result<(), OpError> {
        let path = Path::new(&submodule.path);
        let into = folder.join(path);
        if !tree::checkout::is_real_dir(folder, path).map_err(|e| failed("open", &into, e))? {
            let message = format!("`{}` is not a folder", submodule.path);
            return Err(GitError::Local { action: "write a submodule", message }.into());
        }
        let git_dir =
            parent.git_dir.as_ref().map(|parent| parent.join("modules").join(&submodule.name));
        self.write_submodule(submodule, parent, &[], git_dir, &into)
    }

    fn write_submodule(
        &self,
        submodule: &Submodule,
        parent: &Wanted<'_>,
        part: &[String],
        git_dir: Option<PathBuf>,
        into: &Path,
    ) -> Result<(), OpError> {
        let Submodule { path, url, commit, .. } = submodule;
        (self.git.log)(format!("submodule {path}: {url}#{commit}\n").as_bytes());
        let what = Resolved::commit(commit);
        let depth = parent.depth + 1;
        let wanted = Wanted { url, what, part, git_dir, depth };
        self.write(&wanted, into).and_then(|()| link(&wanted, into)).map_err(|error| {
            if error.is_canceled() {
                return error;
            }
            GitError::Submodule { path: redacted(path).into_owned(), source: Box::new(error) }
                .into()
        })
    }

    /// A new folder that is not part of the layer.
    fn fresh(&self) -> Result<PathBuf, OpError> {
        let number = self.next.replace(self.next.get() + 1);
        let folder = self.work.join(format!("git-{number}"));
        fs::create_dir(&folder).map_err(|source| failed("create", &folder, source))?;
        Ok(folder)
    }
}

/// Makes a submodule and its repository, which is kept elsewhere, know each other.
fn link(wanted: &Wanted<'_>, folder: &Path) -> Result<(), OpError> {
    let Some(git_dir) = &wanted.git_dir else { return Ok(()) };
    let file = folder.join(".git");
    let text = format!("gitdir: {}\n", relative(folder, git_dir).display());
    fs::write(&file, text).map_err(|source| failed("write", &file, source))?;
    let config = git_dir.join("config");
    let read = fs::read_to_string(&config).map_err(|source| failed("read", &config, source))?;
    let tree = relative(git_dir, folder);
    let quoted = tree.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    let text = format!("{read}[core]\n\tworktree = \"{quoted}\"\n");
    fs::write(&config, text).map_err(|source| failed("write", &config, source))
}

/// The way from one folder to another, both absolute.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.iter().zip(to.iter()).take_while(|(one, other)| one == other).count();
    let up = from.iter().skip(shared).map(|_| OsStr::new(".."));
    up.chain(to.iter().skip(shared)).collect()
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> OpError {
    OpError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_between_folders() {
        for (from, to, expect) in [
            ("/a/b/c", "/a/.git/modules/x", "../../.git/modules/x"),
            ("/a/.git/modules/x", "/a/b/c", "../../../b/c"),
            ("/a", "/a/b", "b"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(expect));
        }
    }
}
