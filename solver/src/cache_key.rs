//! Cache keys: what of a vertex counts for the cache.
//!
//! A vertex is known by its [`CacheMap`]: a key of the op by itself, and for each input how that input
//! counts: by its definition (with a selector), by the content of some of its files, or both. The
//! encoding is our own, typed and length-framed; `file.v1` and the like are raised whenever the same
//! fields come to mean a different result.

use std::borrow::Cow;

use cache::{Key, KeyBuilder};
use llb::op::{
    CacheSharing, ContentCache, CopyAction, ExecOp, FileAction, FileActionKind, FileInput, FileOp,
    Mount, MountKind, NetworkMode, Owner, SecurityMode, UserId,
};
use llb::{Op, Platform, Vertex};
use tree::content::Selection;

use crate::check;

/// How a vertex is known.
#[derive(Debug, Clone)]
pub(crate) struct CacheMap {
    /// The op by itself.
    pub(crate) op: Key,
    /// One entry per input of the vertex.
    pub(crate) inputs: Vec<InputMap>,
}

/// How an input counts.
#[derive(Debug, Clone)]
pub(crate) struct InputMap {
    /// What of the input is used, when it is known by its definition.
    pub(crate) selector: Key,
    /// The files whose content may stand for the input; empty when it counts by definition only.
    pub(crate) content: Vec<Selection>,
}

impl InputMap {
    /// An input of which everything counts.
    pub(crate) fn whole() -> Self {
        let all =
            Selection { paths: vec!["/".to_owned()], follow_links: true, ..Selection::default() };
        Self { selector: no_selector(), content: vec![all] }
    }

    /// Adds which files are selected, by their names, to a key.
    pub(crate) fn add_selection(&self, key: KeyBuilder) -> KeyBuilder {
        key.list(&self.content, |key, selection| {
            key.strs(&selection.paths)
                .bool(selection.wildcard)
                .bool(selection.follow_links)
                .strs(&selection.include)
                .strs(&selection.exclude)
                .strs(&selection.required)
        })
    }
}

/// The cache map of a vertex.
pub(crate) fn cache_map(vertex: &Vertex) -> CacheMap {
    match &vertex.op {
        Op::Source(source) => CacheMap {
            op: KeyBuilder::new("source.v1").str(&source.identifier).finish(),
            inputs: Vec::new(),
        },
        Op::Exec(exec) => exec_map(exec, vertex.platform.as_ref(), vertex.inputs.len()),
        Op::File(file) => file_map(file, vertex.inputs.len()),
        Op::Merge => by_definition(KeyBuilder::new("merge.v1").finish(), vertex.inputs.len()),
        Op::Diff { lower, upper } => by_definition(
            KeyBuilder::new("diff.v1").bool(*lower).bool(*upper).finish(),
            vertex.inputs.len(),
        ),
    }
}

fn by_definition(op: Key, inputs: usize) -> CacheMap {
    CacheMap {
        op,
        inputs: (0..inputs)
            .map(|_| InputMap { selector: no_selector(), content: Vec::new() })
            .collect(),
    }
}

fn no_selector() -> Key {
    KeyBuilder::new("selector.v1").finish()
}

fn file_map(file: &FileOp, inputs: usize) -> CacheMap {
    let mut key = KeyBuilder::new("file.v1");
    for action in &file.actions {
        key = file_action(key, action);
    }
    let inputs = (0..inputs).map(|input| file_input_map(file, FileInput::Input(input))).collect();
    CacheMap { op: key.finish(), inputs }
}

/// How an input of a file op counts. What is taken of it is listed in the order of the actions: two copies
/// that change places are another op.
fn file_input_map(file: &FileOp, here: FileInput) -> InputMap {
    let copies: Vec<&CopyAction> =
        file.actions.iter().filter_map(|action| copy_from(action, here)).collect();
    let selector = KeyBuilder::new("selector.v1").list(&copies, |key, copy| key.str(&copy.src));
    // An archive is found behind a symlink that is not followed otherwise.
    let is_seen_whole = |copy: &CopyAction| !copy.attempt_unpack || copy.follow_symlink;
    let is_known_by_content = copies.iter().all(|copy| is_seen_whole(copy))
        && !file.actions.iter().any(|action| action.input == here || names_owner(action, here));
    let content = if is_known_by_content {
        copies.into_iter().map(copy_selection).collect()
    } else {
        Vec::new()
    };
    InputMap { selector: selector.finish(), content }
}

/// Whether an action looks names of users or groups up in an input.
fn names_owner(action: &FileAction, here: FileInput) -> bool {
    let ids =
        check::owner(action).into_iter().flat_map(|owner| [&owner.user, &owner.group]).flatten();
    ids.into_iter().any(|id| matches!(id, UserId::Name { input, .. } if *input == here))
}

fn copy_from(action: &FileAction, input: FileInput) -> Option<&CopyAction> {
    match &action.kind {
        FileActionKind::Copy(copy) if action.secondary_input == input => Some(copy),
        _ => None,
    }
}

/// The files that a copy takes.
pub(crate) fn copy_selection(copy: &CopyAction) -> Selection {
    Selection {
        paths: vec![copy.src.clone()],
        wildcard: copy.allow_wildcard,
        follow_links: copy.follow_symlink,
        include: copy.include_patterns.clone(),
        exclude: copy.exclude_patterns.clone(),
        required: copy.required_paths.clone(),
    }
}

/// What counts of a copy's source by itself: its last part, under which it is copied. The rest counts with
/// the input, unless it is the result of an earlier action.
fn source_name(source: &str, input: FileInput) -> Cow<'_, str> {
    match input {
        FileInput::Action(_) => source.into(),
        FileInput::Input(_) | FileInput::Scratch => {
            let path = tree::path::clean(source);
            path.file_name().unwrap_or_default().to_string_lossy().into_owned().into()
        }
    }
}

fn file_action(key: KeyBuilder, action: &FileAction) -> KeyBuilder {
    let key = file_input(file_input(key.str("action"), action.input), action.secondary_input);
    let key = key.u64(action.output.map_or(0, |output| output as u64 + 1));
    match &action.kind {
        FileActionKind::Copy(copy) => {
            let key = owner(
                key.str("copy")
                    .str(&source_name(&copy.src, action.secondary_input))
                    .str(&copy.dest),
                copy.owner.as_ref(),
            );
            key.i64(i64::from(copy.mode))
                .str(&copy.mode_str)
                .bool(copy.follow_symlink)
                .bool(copy.dir_copy_contents)
                .bool(copy.attempt_unpack)
                .bool(copy.create_dest_path)
                .bool(copy.allow_wildcard)
                .bool(copy.allow_empty_wildcard)
                .i64(copy.timestamp)
                .strs(&copy.include_patterns)
                .strs(&copy.exclude_patterns)
                .bool(copy.always_replace_existing_dest_paths)
                .strs(&copy.required_paths)
        }
        FileActionKind::Mkfile(make) => owner(
            key.str("mkfile")
                .str(&make.path)
                .i64(i64::from(make.mode))
                .bytes(&make.data)
                .i64(make.timestamp),
            make.owner.as_ref(),
        ),
        FileActionKind::Mkdir(make) => owner(
            key.str("mkdir")
                .str(&make.path)
                .i64(i64::from(make.mode))
                .bool(make.make_parents)
                .i64(make.timestamp),
            make.owner.as_ref(),
        ),
        FileActionKind::Rm(remove) => {
            key.str("rm").str(&remove.path).bool(remove.allow_not_found).bool(remove.allow_wildcard)
        }
        FileActionKind::Symlink(link) => owner(
            key.str("symlink").str(&link.old_path).str(&link.new_path).i64(link.timestamp),
            link.owner.as_ref(),
        ),
    }
}

fn file_input(key: KeyBuilder, input: FileInput) -> KeyBuilder {
    match input {
        FileInput::Scratch => key.u64(0),
        FileInput::Input(index) => key.u64(1).u64(index as u64),
        FileInput::Action(index) => key.u64(2).u64(index as u64),
    }
}

fn owner(key: KeyBuilder, owner: Option<&Owner>) -> KeyBuilder {
    let id = |key: KeyBuilder, id: Option<&UserId>| match id {
        None => key.u64(0),
        Some(UserId::Id(id)) => key.u64(1).u64(u64::from(*id)),
        Some(UserId::Name { name, input }) => file_input(key.u64(2).str(name), *input),
    };
    match owner {
        None => key.bool(false),
        Some(owner) => id(id(key.bool(true), owner.user.as_ref()), owner.group.as_ref()),
    }
}

fn exec_map(exec: &ExecOp, platform: Option<&Platform>, inputs: usize) -> CacheMap {
    let meta = &exec.meta;
    let mut key = KeyBuilder::new("exec.v1")
        .option(platform, platform_key)
        .strs(&meta.args)
        .strs(&meta.env)
        .str(&meta.cwd)
        .str(&meta.user)
        .str(&meta.hostname)
        .str(&meta.cgroup_parent)
        .u64(match exec.network {
            NetworkMode::Unset => 0,
            NetworkMode::Host => 1,
            NetworkMode::None => 2,
        })
        .u64(match exec.security {
            SecurityMode::Sandbox => 0,
            SecurityMode::Insecure => 1,
        })
        .u64(meta.extra_hosts.len() as u64);
    for host in &meta.extra_hosts {
        key = key.str(&host.host);
    }
    key = key.u64(meta.ulimits.len() as u64);
    for limit in &meta.ulimits {
        key = key.str(&limit.name).i64(limit.soft).i64(limit.hard);
    }
    key = key.list(&meta.valid_exit_codes, |key, code| key.i64(i64::from(*code)));
    key = key.bool(meta.remove_mount_stubs_recursive);
    key = key.u64(exec.secret_env.len() as u64);
    for secret in &exec.secret_env {
        key = key.str(&secret.id).str(&secret.name).bool(secret.optional);
    }
    key = key.u64(exec.cdi_devices.len() as u64);
    for device in &exec.cdi_devices {
        key = key.str(&device.name).bool(device.optional);
    }
    key = key.u64(exec.mounts.len() as u64);
    for mount in &exec.mounts {
        key = mount_key(key, mount);
    }
    let inputs = (0..inputs).map(|input| exec_input(exec, input)).collect();
    CacheMap { op: key.finish(), inputs }
}

fn platform_key(key: KeyBuilder, platform: &Platform) -> KeyBuilder {
    key.str(&platform.os)
        .str(&platform.architecture)
        .str(&platform.variant)
        .str(&platform.os_version)
        .strs(&platform.os_features)
}

fn mount_key(key: KeyBuilder, mount: &Mount) -> KeyBuilder {
    let key = key
        .str("mount")
        .str(&mount.dest)
        .bool(mount.readonly)
        .u64(mount.input.map_or(0, |input| input as u64 + 1))
        .u64(mount.output.map_or(0, |output| output as u64 + 1));
    match &mount.kind {
        MountKind::Bind => key.u64(0),
        MountKind::Secret(secret) => key
            .u64(1)
            .str(&secret.id)
            .u64(u64::from(secret.uid))
            .u64(u64::from(secret.gid))
            .u64(u64::from(secret.mode))
            .bool(secret.optional),
        MountKind::Ssh(ssh) => key
            .u64(2)
            .str(&ssh.id)
            .u64(u64::from(ssh.uid))
            .u64(u64::from(ssh.gid))
            .u64(u64::from(ssh.mode))
            .bool(ssh.optional),
        // An id or a way of sharing that somebody chose is a matter of where the files are kept, not of what
        // the step does.
        MountKind::Cache(cache) => {
            let is_default = cache.sharing == CacheSharing::Shared
                && (cache.id == mount.dest || cache.id.ends_with(&format!("/{}", mount.dest)));
            key.u64(3).str(if is_default { &cache.id } else { "" })
        }
        MountKind::Tmpfs { size } => key.u64(4).i64(*size),
    }
}

/// How an input of a step counts. Its mounts are listed in their order: two that change places are
/// another step.
fn exec_input(exec: &ExecOp, input: usize) -> InputMap {
    let mounts: Vec<&Mount> =
        exec.mounts.iter().filter(|mount| mount.input == Some(input)).collect();
    let selector =
        KeyBuilder::new("selector.v1").list(&mounts, |key, mount| key.str(&mount.selector));
    let by_content = mounts.iter().all(|mount| match mount.content_cache {
        ContentCache::On => true,
        ContentCache::Off => false,
        ContentCache::Default => mount.dest != "/" && (mount.readonly || mount.output.is_none()),
    });
    let content =
        if by_content { mounts.into_iter().map(mount_selection).collect() } else { Vec::new() };
    InputMap { selector: selector.finish(), content }
}

/// The files that a mount shows: with the folder itself, which `/` at the end would leave out.
fn mount_selection(mount: &Mount) -> Selection {
    let path = mount.selector.trim_end_matches('/');
    Selection {
        paths: vec![if path.is_empty() { "/" } else { path }.to_owned()],
        follow_links: true,
        ..Selection::default()
    }
}

#[cfg(test)]
mod tests;
