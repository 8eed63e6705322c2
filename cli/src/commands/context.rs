//! Where the build context and the Dockerfile come from.
//!
//! What is on this machine is read at once. What is behind a URL, in a repository or in an archive is brought by the
//! job, which also unpacks it; then the Dockerfile is read from its tree.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cache::Ref;
use frontend::{MainContext, Options};
use llb::op::SourceOp;
use llb::url::redacted;
use llb::{Definition, Edge, Op, VertexMetadata};
use solver::Job;
use tree::codec::{Compression, detect};
use tree::{Kind, View};

use super::{op_failure, solve_failure};
use crate::args::BuildArgs;
use crate::inputs::{DockerfileText, MAX_TEXT, dockerfile};
use crate::report::{Exit, Failure, chain};

/// Bytes of a file that tell whether it is an archive.
const BEGINNING: u64 = 1024;

/// The context and the Dockerfile as the command line names them.
pub(crate) struct Origin {
    context: BuildContext,
    dockerfile: DockerfilePlace,
}

enum BuildContext {
    Folder(PathBuf),
    Remote(MainContext),
    /// An archive on standard input, of which so much has been read.
    Archive(Vec<u8>),
    Empty,
}

enum DockerfilePlace {
    /// A file of this machine: the one of `-f`, else that of the context.
    Here(Option<String>),
    /// On standard input, of which so much has been read.
    Stdin(Vec<u8>),
    /// Behind a URL.
    Url(String),
    /// In a context that is no folder, under the name of `-f` if there is one.
    InContext(Option<String>),
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

impl Origin {
    /// Tells what the argument and `-f` are. Standard input is read as far as it takes to know.
    ///
    /// # Errors
    /// When the context is none, or both are on standard input.
    pub(crate) fn of(args: &BuildArgs) -> Result<Self, Failure> {
        let file = args.file.as_deref();
        let Some(text) = args.context.as_deref() else {
            return Err(usage("`build` requires exactly one argument: the build context")
                .hint("usage: build [OPTIONS] CONTEXT; the current folder is `.`"));
        };
        if text == "-" {
            return Self::of_stdin(file);
        }
        let path = PathBuf::from(text);
        if path.is_dir() {
            let dockerfile =
                elsewhere(file).unwrap_or(DockerfilePlace::Here(file.map(str::to_owned)));
            return Ok(Self { context: BuildContext::Folder(path), dockerfile });
        }
        if let Some(remote) = MainContext::remote(text) {
            let in_context = || match file {
                Some(file) if Path::new(file).is_absolute() => {
                    DockerfilePlace::Here(Some(file.to_owned()))
                }
                _ => DockerfilePlace::InContext(file.map(str::to_owned)),
            };
            let dockerfile = elsewhere(file).unwrap_or_else(in_context);
            return Ok(Self { context: BuildContext::Remote(remote), dockerfile });
        }
        if path.exists() {
            let message = format!("unable to prepare context: path \"{text}\" is not a folder");
            return Err(usage(message)
                .hint("the argument is the build context; name the Dockerfile with -f"));
        }
        let failure = usage(format!("unable to prepare context: path \"{text}\" not found"));
        Err(match llb::suggest::nearest(text, crate::args::COMMANDS) {
            Some(command) => failure.hint(format!("did you mean the command `build {command}`?")),
            None => failure,
        })
    }

    fn of_stdin(file: Option<&str>) -> Result<Self, Failure> {
        if file == Some("-") {
            let message = "invalid argument: can't use stdin for both build context and dockerfile";
            return Err(usage(message)
                .hint("give a folder as context, or put the Dockerfile into the archive"));
        }
        let mut start = Vec::new();
        io::stdin().lock().take(BEGINNING).read_to_end(&mut start).map_err(unreadable_stdin)?;
        if is_archive(&start) {
            let in_context = || DockerfilePlace::InContext(file.map(str::to_owned));
            let dockerfile = elsewhere(file).unwrap_or_else(in_context);
            return Ok(Self { context: BuildContext::Archive(start), dockerfile });
        }
        if file.is_some() {
            let message =
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles";
            return Err(usage(message).hint(
                "standard input is not an archive, so it is taken as the Dockerfile: leave out -f, or give a folder as the context",
            ));
        }
        let dockerfile = DockerfilePlace::Stdin(start);
        Ok(Self { context: BuildContext::Empty, dockerfile })
    }

    /// The context, if it is a folder.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.context {
            BuildContext::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// The Dockerfile, if it is on this machine.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn dockerfile(&mut self) -> Result<Option<DockerfileText>, Failure> {
        match &mut self.dockerfile {
            DockerfilePlace::Here(file) => {
                let folder = match &self.context {
                    BuildContext::Folder(folder) => folder.as_path(),
                    _ => Path::new("/"),
                };
                dockerfile(folder, file.as_deref()).map(Some)
            }
            DockerfilePlace::Stdin(start) => {
                let mut text = std::mem::take(start);
                let more = MAX_TEXT.saturating_sub(text.len() as u64);
                let mut rest = io::stdin().lock().take(more);
                rest.read_to_end(&mut text).map_err(unreadable_stdin)?;
                Ok(Some(DockerfileText { name: "Dockerfile".to_owned(), path: None, text }))
            }
            DockerfilePlace::Url(_) | DockerfilePlace::InContext(_) => Ok(None),
        }
    }

    /// Brings a context that is no folder, notes in the options what it is, and gives the Dockerfile if it was not
    /// on this machine.
    ///
    /// # Errors
    /// When the context or the Dockerfile cannot be had.
    pub(crate) fn settle(
        self,
        job: &Job,
        options: &mut Options,
    ) -> Result<Option<DockerfileText>, Failure> {
        let mut file_of_context = None;
        options.context = match self.context {
            BuildContext::Folder(_) => MainContext::Local,
            BuildContext::Empty => MainContext::Empty,
            BuildContext::Archive(start) => {
                let mut archive = start.chain(io::stdin().lock());
                let digest = job.keep_archive(&mut archive).map_err(|error| {
                    let failure = op_failure(&error);
                    let cause = chain(&error);
                    let message = format!("unable to prepare context from standard input: {cause}");
                    Failure { message, ..failure }
                })?;
                MainContext::Archive { digest }
            }
            BuildContext::Remote(MainContext::HttpFile { url }) => {
                options.context = MainContext::HttpFile { url: url.clone() };
                let tree = Tree::of_context(job, options)?;
                if tree.has_archive()? {
                    MainContext::HttpArchive { url }
                } else {
                    file_of_context = Some(tree);
                    MainContext::HttpFile { url }
                }
            }
            BuildContext::Remote(remote) => remote,
        };
        match (self.dockerfile, file_of_context) {
            (DockerfilePlace::Here(_) | DockerfilePlace::Stdin(_), _) => Ok(None),
            (DockerfilePlace::Url(url), _) => dockerfile_of_url(job, &url).map(Some),
            (DockerfilePlace::InContext(None), Some(tree)) => {
                let name = "Dockerfile".to_owned();
                tree.text(Path::new(MainContext::FILE_NAME), name).map(Some)
            }
            (DockerfilePlace::InContext(Some(file)), Some(_)) => Err(usage(format!(
                "the build context is a single file, no archive: there can be no `{file}` in it"
            ))
            .hint("such a file is the Dockerfile itself: leave out -f")),
            (DockerfilePlace::InContext(file), None) => {
                Tree::of_context(job, options)?.dockerfile(file.as_deref()).map(Some)
            }
        }
    }
}

/// The Dockerfile of `-f` when it is neither in the context nor a file of this machine.
fn elsewhere(file: Option<&str>) -> Option<DockerfilePlace> {
    match (file?, MainContext::remote(file?)) {
        ("-", _) => Some(DockerfilePlace::Stdin(Vec::new())),
        (_, Some(MainContext::HttpFile { url })) => Some(DockerfilePlace::Url(url)),
        _ => None,
    }
}

fn unreadable_stdin(error: io::Error) -> Failure {
    Failure::new(Exit::Machine, format!("could not read standard input: {error}"))
}

/// Whether a file begins as an archive does. One whose first block is empty is an archive too, without anything in it.
fn is_archive(start: &[u8]) -> bool {
    detect(start) != Compression::Plain
        || tree::tar::is_archive(start)
        || start.first_chunk::<512>().is_some_and(|block| *block == [0; 512])
}

/// The Dockerfile behind a URL.
fn dockerfile_of_url(job: &Job, url: &str) -> Result<DockerfileText, Failure> {
    let name = "Dockerfile";
    let attrs = [("http.filename".to_owned(), name.to_owned())].into();
    let op = Op::Source(SourceOp { identifier: url.to_owned(), attrs });
    let metadata = VertexMetadata {
        name: format!("[internal] load remote build definition from {}", redacted(url)),
        ..VertexMetadata::default()
    };
    let mut definition = Definition::default();
    let vertex = definition.add(op, Vec::new(), None, metadata);
    let tree = Tree::solved(job, &definition, Edge { vertex, output: 0 })?;
    tree.text(Path::new(name), name.to_owned())
}

/// A tree that the job has brought.
struct Tree(Box<dyn View>);

impl Tree {
    /// That of the build context.
    fn of_context(job: &Job, options: &Options) -> Result<Self, Failure> {
        let definition = frontend::main_context(options)
            .map_err(|error| usage(format!("unable to prepare context: {}", chain(&error))))?;
        match definition.as_ref().and_then(|definition| Some((definition, definition.result?))) {
            Some((definition, result)) => Self::solved(job, definition, result),
            None => Self::of(&Ref::scratch()),
        }
    }

    fn solved(job: &Job, definition: &Definition, result: Edge) -> Result<Self, Failure> {
        let trees = job.solve(definition, &[result]).map_err(|error| solve_failure(&error))?;
        trees.first().map_or_else(|| Self::of(&Ref::scratch()), Self::of)
    }

    fn of(tree: &Ref) -> Result<Self, Failure> {
        let stack = tree.stack().map_err(|error| op_failure(&error.into()))?;
        Ok(Self(Box::new(stack)))
    }

    /// Whether the file that the context is is an archive.
    fn has_archive(&self) -> Result<bool, Failure> {
        let path = Path::new(MainContext::FILE_NAME);
        let read = || -> io::Result<bool> {
            let mut start = Vec::new();
            self.0.open(path)?.take(BEGINNING).read_to_end(&mut start)?;
            Ok(is_archive(&start))
        };
        let prepare = |error: &dyn std::error::Error| {
            Failure::new(Exit::Build, format!("unable to prepare context: {}", chain(error)))
        };
        if !read().map_err(|error| prepare(&error))? {
            return Ok(false);
        }
        let file = self.0.open(path).map_err(|error| prepare(&error))?;
        tree::draft::check_archive(Box::new(file)).map_err(|error| prepare(&error))?;
        Ok(true)
    }

    /// The Dockerfile of the context: `file` if given, else `Dockerfile`, else `dockerfile`.
    fn dockerfile(&self, file: Option<&str>) -> Result<DockerfileText, Failure> {
        let asked = file.unwrap_or("Dockerfile");
        for name in [asked, if file.is_none() { "dockerfile" } else { asked }] {
            let path = tree::path::clean(name);
            let shown = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let found = tree::path::resolve(self.0.as_ref(), &path, true);
            let found = found.map_err(|error| unreadable(&error))?;
            if self.0.metadata(&found).map_err(|error| unreadable(&error))?.is_some() {
                return self.text(&found, shown);
            }
        }
        let message = format!("failed to read dockerfile: open {asked}: no such file or directory");
        Err(Failure::new(Exit::Build, message).hint(
            "the build context has no such file; paths are relative to its root: name another one with -f",
        ))
    }

    /// A text at a resolved path.
    fn text(&self, path: &Path, name: String) -> Result<DockerfileText, Failure> {
        let read = || -> io::Result<Vec<u8>> {
            let found = self.0.metadata(path)?;
            if found.is_none_or(|found| found.kind != Kind::File) {
                return Err(io::Error::other(format!(
                    "`{}` is not a regular file",
                    path.display()
                )));
            }
            let mut text = Vec::new();
            self.0.open(path)?.take(MAX_TEXT + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MAX_TEXT {
                let message = format!("`{}` is larger than {MAX_TEXT} bytes", path.display());
                return Err(io::Error::other(message));
            }
            Ok(text)
        };
        let text = read().map_err(|error| unreadable(&error))?;
        Ok(DockerfileText { name, path: None, text })
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::new(Exit::Build, format!("failed to read dockerfile: {error}"))
}
