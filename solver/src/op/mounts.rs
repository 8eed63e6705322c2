//! Mounts of a step, from what the definition says to what the sandbox takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cache::{CacheError, CacheMount, CacheMountRequest, Ref, Sharing, Workspace, WorkspaceRoot};
use llb::op::{CacheSharing, ExecOp, Mount, MountKind};
use tree::View;
use tree::draft::{CopyOptions, Draft};
use tree::layer::{Encoding, LayerDir};
use tree::node::Kind;
use tree::stack::Stack;

use crate::error::OpError;
use crate::op::agent::Agent;
use crate::op::exec::{input_edge, secret_value};
use crate::op::source;
use crate::solve::Solve;
use crate::value::Value;
use crate::waiting::Wait;

/// What must outlive the process: ssh agents, locks of cache mounts, scratch layers of merged and writable binds.
#[derive(Default)]
pub(crate) struct Held {
    agents: Vec<Agent>,
    caches: BTreeMap<String, CacheMount>,
    /// Cache mounts that are moved to where the step finds them.
    lent: BTreeSet<String>,
    scratch: Vec<Workspace>,
}

/// A mount that is ready, and whether its mount point is a file.
pub(crate) struct Ready {
    pub(crate) mount: sandbox::Mount,
    pub(crate) is_file: bool,
}

/// Prepares a mount; `None` when there is nothing to mount, such as an optional secret that nobody gave.
pub(crate) fn prepare(
    solve: &Solve<'_>,
    vertex: usize,
    mount: &Mount,
    held: &mut Held,
) -> Result<Option<Ready>, OpError> {
    let target = PathBuf::from(&mount.dest);
    let ready = |kind: sandbox::MountKind, readonly: bool, is_file: bool| {
        Ok(Some(Ready {
            mount: sandbox::Mount { target: target.clone(), readonly, kind },
            is_file,
        }))
    };
    match &mount.kind {
        // The size of /dev/shm is part of the standard mounts.
        MountKind::Tmpfs { .. } if mount.dest == "/dev/shm" => Ok(None),
        MountKind::Tmpfs { size } => ready(
            sandbox::MountKind::Tmpfs { size: u64::try_from(*size).unwrap_or(0) },
            mount.readonly,
            false,
        ),
        MountKind::Secret(secret) => {
            let Some(contents) = secret_value(solve, &secret.id, secret.optional)? else {
                return Ok(None);
            };
            let kind = sandbox::MountKind::File {
                contents,
                mode: secret.mode,
                uid: secret.uid,
                gid: secret.gid,
            };
            ready(kind, true, true)
        }
        MountKind::Ssh(ssh) => {
            let Some(upstream) = solve.job.session.forwarded_agent(&ssh.id) else {
                return match ssh.optional {
                    true => Ok(None),
                    false => Err(OpError::SshNotFound { id: ssh.id.clone() }),
                };
            };
            let mut workspace = solve.job.engine.store.workspace(&Ref::scratch())?;
            let folder = workspace.work()?;
            let agent = Agent::start(upstream, &folder, (ssh.uid, ssh.gid), ssh.mode);
            let agent = agent.map_err(|source| OpError::Io {
                action: "forward the ssh agent at",
                path: folder,
                source,
            })?;
            let source = agent.path().to_owned();
            // The agent before its folder: fields are dropped in this order.
            held.agents.push(agent);
            held.scratch.push(workspace);
            ready(sandbox::MountKind::Bind { source, sub: PathBuf::new() }, false, true)
        }
        MountKind::Cache(cache) => {
            let identity = cache_identity(solve, vertex, mount, cache)?;
            let taken = held.caches.get(&identity);
            let taken = taken
                .ok_or_else(|| OpError::Missing { kind: "cache mount", name: identity.clone() })?;
            if !solve.job.tier()?.has_namespaces() {
                let kind = match mount.readonly {
                    true => copied(solve, taken, &mut held.scratch)?,
                    false => lent(solve, mount, identity, taken, &mut held.lent)?,
                };
                return ready(kind, false, false);
            }
            ready(
                sandbox::MountKind::Bind { source: taken.path.clone(), sub: PathBuf::new() },
                mount.readonly,
                false,
            )
        }
        MountKind::Bind => {
            let (kind, is_file) = bind_mount(solve, vertex, mount, held)?;
            ready(kind, mount.readonly, is_file)
        }
    }
}

/// The layers that a mount shows and the path below them; a context is copied as far as it is mounted.
fn mounted_tree(solve: &Solve<'_>, vertex: usize, mount: &Mount) -> Result<Ref, OpError> {
    let Some(input) = mount.input else { return Ok(Ref::scratch()) };
    let value = solve.value(input_edge(solve, vertex, input)?)?;
    match value {
        Value::Tree(reference) => Ok(reference.clone()),
        Value::Context(..) | Value::Archive(_) => {
            let path = if mount.selector.is_empty() { "/" } else { &mount.selector };
            source::materialise(solve.job, value, path)
        }
    }
}

fn bind_mount(
    solve: &Solve<'_>,
    vertex: usize,
    mount: &Mount,
    held: &mut Held,
) -> Result<(sandbox::MountKind, bool), OpError> {
    let tree = mounted_tree(solve, vertex, mount)?;
    let stack = tree.stack()?;
    let io = |source| OpError::Io {
        action: "open mount source",
        path: PathBuf::from(&mount.selector),
        source,
    };
    let sub = tree::path::resolve(&stack, &tree::path::clean(&mount.selector), true).map_err(io)?;
    let found = stack.metadata(&sub).map_err(io)?;
    let Some(found) = found else {
        return Err(OpError::MountSource { path: Path::new("/").join(&sub) });
    };
    let is_file = found.kind != Kind::Dir;
    if mount.readonly
        && solve.job.tier()?.has_namespaces()
        && let [layer] = &tree.dirs()?[..]
    {
        let source = layer.path().to_owned();
        return Ok((sandbox::MountKind::Bind { source, sub }, is_file));
    }
    let mut workspace = solve.job.engine.store.workspace(&tree)?;
    let kind = match workspace.root_with(&sub)? {
        WorkspaceRoot::Dir(source) if !solve.job.tier()?.has_namespaces() => {
            sandbox::MountKind::Moved { source: source.join(&sub), note: None }
        }
        WorkspaceRoot::Dir(source) => sandbox::MountKind::Bind { source, sub },
        WorkspaceRoot::Overlay { lowers, upper, work } => {
            let writable = (!mount.readonly || lowers.is_empty()).then_some((upper, work));
            sandbox::MountKind::Overlay { lowers, sub, writable }
        }
    };
    held.scratch.push(workspace);
    Ok((kind, is_file))
}

/// A cache mount as it is moved to where a step finds it.
fn lent(
    solve: &Solve<'_>,
    mount: &Mount,
    identity: String,
    taken: &CacheMount,
    lent: &mut BTreeSet<String>,
) -> Result<sandbox::MountKind, OpError> {
    if !lent.insert(identity) {
        return Err(OpError::Isolation {
            tier: solve.job.tier()?,
            what: format!("has a cache mount in one place only, not also at `{}`", mount.dest),
            hint: "mount it once, and use that path for both".to_owned(),
        });
    }
    Ok(sandbox::MountKind::Moved { source: taken.path.clone(), note: Some(taken.note()?) })
}

/// A cache mount that a step may read: a copy, so that whatever the step does to it has no effect.
fn copied(
    solve: &Solve<'_>,
    taken: &CacheMount,
    scratch: &mut Vec<Workspace>,
) -> Result<sandbox::MountKind, OpError> {
    let mut workspace = solve.job.engine.store.workspace(&Ref::scratch())?;
    let source = workspace.work()?;
    let cache = Stack::new(vec![LayerDir::new(taken.path.clone())]);
    fill(&cache, "", &source)?;
    let own = cache.metadata(Path::new("")).and_then(|found| {
        let Some(own) = found else { return Ok(()) };
        std::os::unix::fs::chown(&source, Some(own.uid), Some(own.gid))?;
        fs_err::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(own.mode))
    });
    own.map_err(|error| OpError::Io { action: "copy to", path: source.clone(), source: error })?;
    scratch.push(workspace);
    Ok(sandbox::MountKind::Moved { source, note: None })
}

/// Takes the cache mounts of a step into use, in one order for all steps: two that want the same ones
/// never wait for each other. A mount that a step names twice is one folder.
pub(crate) fn take_caches(
    solve: &Solve<'_>,
    vertex: usize,
    exec: &ExecOp,
    held: &mut Held,
) -> Result<(), OpError> {
    let has_namespaces = solve.job.tier()?.has_namespaces();
    let mut wanted = BTreeMap::new();
    for mount in &exec.mounts {
        if let MountKind::Cache(cache) = &mount.kind {
            wanted
                .entry(cache_identity(solve, vertex, mount, cache)?)
                .or_insert((mount, cache.sharing));
        }
    }
    for (identity, (mount, sharing)) in wanted {
        if solve.definition.vertex(vertex).metadata.ignore_cache {
            solve.job.reset_cache_mounts(&identity)?;
        }
        let base = match mount.input {
            None => None,
            Some(_) => Some(mounted_tree(solve, vertex, mount)?.stack()?),
        };
        let init = |folder: &Path| match &base {
            None => Ok(()),
            Some(stack) => fill(stack, &mount.selector, folder),
        };
        let what = format!("another step or build that uses the cache mount `{}`", mount.dest);
        let wait = Wait::new(solve, vertex, Some(what));
        let request = CacheMountRequest {
            identity: &identity,
            sharing: match sharing {
                // What is moved to one step is not there for another.
                CacheSharing::Shared if !has_namespaces => Sharing::Locked,
                CacheSharing::Shared => Sharing::Shared,
                CacheSharing::Private => Sharing::Private,
                CacheSharing::Locked => Sharing::Locked,
            },
            owners: "native",
            init: &init,
            cancelled: &|| wait.is_given_up(),
        };
        let taken = solve.job.engine.store.cache_mount(&request).map_err(|error| match error {
            CacheError::Cancelled(_) => OpError::Canceled,
            error => error.into(),
        })?;
        held.caches.insert(identity, taken);
    }
    Ok(())
}

/// Identity of a cache mount; what it is filled with at first is part of it.
fn cache_identity(
    solve: &Solve<'_>,
    vertex: usize,
    mount: &Mount,
    cache: &llb::op::CacheMount,
) -> Result<String, OpError> {
    let Some(input) = mount.input else { return Ok(cache.id.clone()) };
    let base = solve.definition.vertex(input_edge(solve, vertex, input)?.vertex);
    Ok(format!("{}:{}:{}", cache.id, base.digest, mount.selector))
}

/// Fills a new cache mount with what is at `selector` of its base.
fn fill(base: &Stack, selector: &str, folder: &Path) -> Result<(), CacheError> {
    let failed = |source: std::io::Error| CacheError::Io { path: folder.to_owned(), source };
    let mut draft =
        Draft::new(Stack::empty(), LayerDir::new(folder.to_owned()), Encoding::default());
    let options = CopyOptions {
        source: if selector.is_empty() { "/".to_owned() } else { selector.to_owned() },
        dest: "/".to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    draft.copy(base, &options).map_err(|error| failed(std::io::Error::other(error)))?;
    // The folder itself is as its base has it: that is how a mount gets an owner and a mode.
    let path = tree::path::resolve(base, &tree::path::clean(selector), true).map_err(failed)?;
    let Some(root) = base.metadata(&path).map_err(failed)?.filter(|_| !path.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let set = || -> std::io::Result<()> {
        super::own(folder, (root.uid, root.gid))?;
        fs_err::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(root.mode))
    };
    set().map_err(failed)
}
