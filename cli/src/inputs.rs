//! What the user provides to a build: Dockerfile, contexts, ignore files, secrets and ssh agents.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use solver::{Guard, Reaction};
use tree::context::Context;
use tree::pattern::Patterns;
use zeroize::Zeroizing;

use crate::report::{Exit, Failure, chain};

/// Largest secret.
const MAX_SECRET: u64 = 500 << 10;

/// Largest Dockerfile or ignore file.
pub(crate) const MAX_TEXT: u64 = 64 << 20;

/// A Dockerfile as it was read.
pub(crate) struct DockerfileText {
    /// Name for messages.
    pub(crate) name: String,
    /// Where it is; `None` when it came from standard input.
    pub(crate) path: Option<PathBuf>,
    /// Its bytes.
    pub(crate) text: Vec<u8>,
}

/// Reads the Dockerfile of a context: `file` if given, else `Dockerfile`, else `dockerfile`.
pub(crate) fn dockerfile(context: &Path, file: Option<&str>) -> Result<DockerfileText, Failure> {
    let mut path = file.map_or_else(|| context.join("Dockerfile"), PathBuf::from);
    let lower = context.join("dockerfile");
    if file.is_none() && !path.exists() && lower.exists() {
        path = lower;
    }
    let text = read_limited(&path, file.is_some()).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            let name = file.unwrap_or("Dockerfile");
            Failure::new(
                Exit::Build,
                format!("failed to read dockerfile: open {name}: no such file or directory"),
            )
            .hint(format!("looked for `{}`; name another one with -f", path.display()))
        } else {
            Failure::new(Exit::Build, format!("failed to read dockerfile: {error}"))
        }
    })?;
    let name = path.file_name().map_or_else(
        || file.unwrap_or("Dockerfile").to_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    Ok(DockerfileText { name, path: Some(path), text })
}

/// Reads a text. A pipe is waited for only where the user named it: one that lies in the context might never
/// be written to.
fn read_limited(path: &Path, named: bool) -> io::Result<Vec<u8>> {
    let found = fs::metadata(path)?;
    let is_readable = found.is_file() || (named && found.file_type().is_fifo());
    if !is_readable {
        return Err(io::Error::other(format!("`{}` is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(io::Error::other(format!(
            "`{}` is larger than {MAX_TEXT} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Lines of the ignore file that counts: `<Dockerfile>.dockerignore`, else `.dockerignore` of the context.
pub(crate) fn ignore_file(context: &Path, dockerfile: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let specific = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in specific.into_iter().chain([context.join(".dockerignore")]) {
        match read_limited(&path, false) {
            Ok(bytes) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(
                    Exit::Build,
                    format!("failed to read ignore file: {error}"),
                ));
            }
        }
    }
    Ok(Vec::new())
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// Parses `--secret id=ID[,src=PATH|,env=VAR][,type=file|env]`.
pub(crate) fn secret(
    spec: &str,
    is_set: impl Fn(&str) -> bool,
) -> Result<(String, SecretSource), Failure> {
    let usage = |message: String| {
        Failure::new(Exit::Usage, message).hint(
            "want --secret id=ID[,src=PATH|,env=VARIABLE]; a field with a comma is quoted as a whole: 'id=ID,\"src=PATH\"'",
        )
    };
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    let fields = parser::mount::fields(spec)
        .map_err(|why| usage(format!("invalid secret `{spec}`: {why}")))?;
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| usage(format!("invalid secret field `{field}`: want key=value")))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => source = Some(value.to_owned()),
            "env" => variable = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(usage(format!("unsupported secret type `{value}`"))),
            _ => return Err(usage(format!("unexpected key `{key}` in secret `{spec}`"))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| usage("secret missing ID".to_owned()))?;
    let found = match (kind.as_deref(), source, variable) {
        (Some("env"), source, variable) => {
            SecretSource::Variable(variable.or(source).unwrap_or_else(|| id.clone()))
        }
        (_, Some(path), _) => SecretSource::File(path.into()),
        (_, None, Some(variable)) => SecretSource::Variable(variable),
        (None, None, None) if is_set(&id) => SecretSource::Variable(id.clone()),
        (_, None, None) => SecretSource::File(id.clone().into()),
    };
    if let SecretSource::File(path) = &found
        && let Err(error) = fs::metadata(path)
    {
        return Err(Failure::new(
            Exit::Usage,
            format!("failed to stat `{}` of secret `{id}`: {error}", path.display()),
        ));
    }
    Ok((id, found))
}

/// Parses each `--ssh default|ID[=SOCKET]`; `own` is the socket of the user's agent.
pub(crate) fn agents(
    given: &[String],
    own: Option<PathBuf>,
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let usage = |message: String, hint: &str| Failure::new(Exit::Usage, message).hint(hint);
    let own = own.filter(|path| !path.as_os_str().is_empty());
    let mut agents = BTreeMap::new();
    for spec in given {
        let (id, path) = match spec.split_once('=') {
            Some((id, path)) => (id, Some(path)),
            None => (spec.as_str(), None),
        };
        let id = if id.is_empty() { "default" } else { id };
        let socket = match (path.filter(|path| !path.is_empty()), &own) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(own)) => own.clone(),
            (None, None) => {
                return Err(usage(
                    "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".to_owned(),
                    "start an agent and give it a key: eval \"$(ssh-agent)\" && ssh-add",
                ));
            }
        };
        let is_socket = match fs::metadata(&socket) {
            Ok(metadata) => metadata.file_type().is_socket(),
            Err(_) if path.is_some_and(|path| path.contains(',')) => false,
            Err(error) => {
                return Err(usage(
                    format!("failed to stat `{}` of ssh agent `{id}`: {error}", socket.display()),
                    "want --ssh default|ID[=SOCKET]",
                ));
            }
        };
        if !is_socket {
            return Err(usage(
                format!(
                    "`{}` of ssh agent `{id}` is not a socket, and key files are not supported",
                    socket.display()
                ),
                "put the key into an agent and forward that: eval \"$(ssh-agent)\" && ssh-add KEY, then \
                 --ssh ID",
            ));
        }
        if agents.insert(id.to_owned(), socket).is_some() {
            return Err(usage(format!("duplicate ssh ID `{id}`"), "give each ID once"));
        }
    }
    Ok(agents)
}

/// What a build may ask the user's side for.
pub(crate) struct Given {
    contexts: BTreeMap<String, (Arc<Context>, PathBuf)>,
    secrets: BTreeMap<String, SecretSource>,
    /// Values that have been read, each once: what is looked for is what was given.
    values: Mutex<BTreeMap<String, Zeroizing<Vec<u8>>>>,
    guard: Option<Guard>,
    agents: BTreeMap<String, PathBuf>,
}

impl Given {
    /// Opens nothing yet, but reads secrets that are to be looked for.
    pub(crate) fn new(
        secrets: BTreeMap<String, SecretSource>,
        reaction: Option<Reaction>,
        agents: BTreeMap<String, PathBuf>,
    ) -> Self {
        let guard = reaction
            .filter(|_| !secrets.is_empty())
            .map(|reaction| Guard { secrets: Arc::default(), reaction });
        let (contexts, values) = (BTreeMap::new(), Mutex::default());
        let given = Self { contexts, secrets, values, guard, agents };
        if let Some(guard) = &given.guard {
            for (id, source) in &given.secrets {
                // A pipe is read when a step wants it. What cannot be read is told when a step wants it.
                let is_at_hand = match source {
                    SecretSource::File(path) => fs::metadata(path).is_ok_and(|it| it.is_file()),
                    SecretSource::Variable(_) => true,
                };
                if is_at_hand {
                    let _ = solver::Session::secret(&given, id);
                }
            }
            crate::guard::hide(&guard.secrets);
        }
        given
    }

    /// Adds a folder with its ignore file; `cache` is where hashes of its files are kept.
    pub(crate) fn add_context(
        &mut self,
        name: &str,
        folder: &Path,
        ignore: &[u8],
        cache: &Path,
    ) -> Result<(), Failure> {
        let real = fs::canonicalize(folder)
            .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let mut ignore = ignore.to_owned();
        ignore.extend(own_state(&real, cache).into_iter().flatten());
        let patterns = Patterns::parse_ignore_file(&ignore).map_err(|error| {
            Failure::new(
                Exit::Build,
                format!("bad ignore file of `{}`: {}", folder.display(), chain(&error)),
            )
        })?;
        let hash_file = cache.join(cache_name(&real));
        let context = Context::open(&real, patterns, Some(&hash_file)).map_err(|error| {
            Failure::new(
                Exit::Build,
                format!("cannot read context `{}`: {error}", folder.display()),
            )
        })?;
        self.contexts.insert(name.to_owned(), (Arc::new(context), real));
        Ok(())
    }

    /// Keeps the hashes of what was read, for the next build.
    pub(crate) fn save_hashes(&self) {
        for (context, _) in self.contexts.values() {
            // The hashes only save time.
            let _ = context.save_cache();
        }
    }
}

/// A line for the ignore file of a context that the builder's state lies in: it is never part of it, or each build would
/// copy what the one before it left.
fn own_state(context: &Path, cache: &Path) -> Option<Vec<u8>> {
    let root = cache.parent()?;
    let root = fs::canonicalize(root).or_else(|_| std::path::absolute(root)).ok()?;
    let path = root.strip_prefix(context).ok()?.as_os_str().as_encoded_bytes();
    if path.is_empty() || path.contains(&b'\n') {
        return None;
    }
    let mut line = b"\n/".to_vec();
    for byte in path {
        if b"*?[]\\".contains(byte) {
            line.push(b'\\');
        }
        line.push(*byte);
    }
    line.push(b'\n');
    Some(line)
}

/// File name for the hashes of a context: its path, made one word.
fn cache_name(path: &Path) -> String {
    llb::Digest::of(path.as_os_str().as_encoded_bytes()).hex()
}

impl solver::Session for Given {
    fn context(&self, name: &str) -> Option<Arc<Context>> {
        self.contexts.get(name).map(|(context, _)| Arc::clone(context))
    }

    fn is_ignored(&self, name: &str, path: &str) -> bool {
        self.contexts.get(name).is_some_and(|(_, folder)| {
            folder.join(path.trim_start_matches('/')).symlink_metadata().is_ok()
        })
    }

    fn forwarded_agent(&self, id: &str) -> Option<PathBuf> {
        self.agents.get(id).cloned()
    }

    fn ssh_agent(&self, id: &str) -> Option<PathBuf> {
        crate::git::ssh_agent(id)
    }

    fn guard(&self) -> Option<Guard> {
        self.guard.clone()
    }

    fn secret(&self, id: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(source) = self.secrets.get(id) else { return Ok(None) };
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(id) {
            return Ok(Some(value.clone()));
        }
        let value = Zeroizing::new(match source {
            SecretSource::Variable(name) => {
                std::env::var_os(name).unwrap_or_default().into_encoded_bytes()
            }
            SecretSource::File(path) => {
                let mut value = Vec::with_capacity(MAX_SECRET as usize + 2);
                fs::File::open(path)?.take(MAX_SECRET + 1).read_to_end(&mut value)?;
                value
            }
        });
        if value.len() as u64 > MAX_SECRET {
            return Err(io::Error::other(format!(
                "secret `{id}` is larger than {MAX_SECRET} bytes"
            )));
        }
        if let Some(guard) = &self.guard {
            guard.secrets.add(id, &value);
        }
        values.insert(id.to_owned(), value.clone());
        Ok(Some(value))
    }
}
