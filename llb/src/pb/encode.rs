//! From [`Op`] to bytes.

use prost::Message as _;

use super::{NONE, number, wire};
use crate::op::{
    CacheSharing, ContentCache, ExecMeta, ExecOp, FileAction, FileActionKind, FileInput, Mount,
    MountKind, NetworkMode, Owner, ProxyEnv, SecretMount, SecurityMode, SshMount, UserId,
};
use crate::{Digest, Op, Platform};

/// Encodes an op with its inputs (digest of the input vertex, output of it) and platform.
///
/// The sha256 of the result is the vertex digest.
pub fn encode_op(op: &Op, inputs: &[(Digest, usize)], platform: Option<&Platform>) -> Vec<u8> {
    let kind = match op {
        Op::Source(source) => wire::OpKind::Source(wire::SourceOp {
            identifier: source.identifier.clone(),
            attrs: source.attrs.clone(),
        }),
        Op::Exec(exec) => wire::OpKind::Exec(Box::new(exec_op(exec))),
        Op::File(file) => wire::OpKind::File(wire::FileOp {
            actions: file.actions.iter().map(|action| file_action(action, inputs.len())).collect(),
        }),
        Op::Merge => wire::OpKind::Merge(wire::MergeOp {
            inputs: (0..inputs.len()).map(|index| input(Some(index))).collect(),
        }),
        Op::Diff { lower, upper } => {
            let last = usize::from(*lower);
            wire::OpKind::Diff(wire::DiffOp {
                lower: Some(input(lower.then_some(0))),
                upper: Some(input(upper.then_some(last))),
            })
        }
    };
    let message = wire::Op {
        inputs: inputs
            .iter()
            .map(|(digest, output)| wire::Input {
                digest: digest.to_string(),
                index: to_i64(*output),
            })
            .collect(),
        op: Some(kind),
        platform: platform.map(|platform| wire::Platform {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
        }),
        // The reference writes an empty message when there are no filters.
        constraints: Some(wire::WorkerConstraints::default()),
    };
    message.encode_to_vec()
}

fn to_i64(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn optional(index: Option<usize>) -> i64 {
    index.map_or(NONE, to_i64)
}

fn input(index: Option<usize>) -> wire::OpInput {
    wire::OpInput { input: optional(index) }
}

fn exec_op(exec: &ExecOp) -> wire::ExecOp {
    wire::ExecOp {
        meta: Some(meta(&exec.meta)),
        mounts: exec.mounts.iter().map(mount).collect(),
        network: match exec.network {
            NetworkMode::Unset => 0,
            NetworkMode::Host => 1,
            NetworkMode::None => 2,
        },
        security: match exec.security {
            SecurityMode::Sandbox => 0,
            SecurityMode::Insecure => 1,
        },
        secret_env: exec
            .secret_env
            .iter()
            .map(|env| wire::SecretEnv {
                id: env.id.clone(),
                name: env.name.clone(),
                optional: env.optional,
            })
            .collect(),
        cdi_devices: exec
            .cdi_devices
            .iter()
            .map(|device| wire::CdiDevice { name: device.name.clone(), optional: device.optional })
            .collect(),
    }
}

fn meta(meta: &ExecMeta) -> wire::Meta {
    wire::Meta {
        args: meta.args.clone(),
        env: meta.env.clone(),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        proxy_env: meta.proxy_env.as_ref().map(proxy_env),
        extra_hosts: meta
            .extra_hosts
            .iter()
            .map(|entry| wire::HostIp { host: entry.host.clone(), ip: entry.ip.clone() })
            .collect(),
        hostname: meta.hostname.clone(),
        ulimit: meta
            .ulimits
            .iter()
            .map(|limit| wire::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes.clone(),
    }
}

fn proxy_env(proxy: &ProxyEnv) -> wire::ProxyEnv {
    wire::ProxyEnv {
        http_proxy: proxy.http_proxy.clone(),
        https_proxy: proxy.https_proxy.clone(),
        ftp_proxy: proxy.ftp_proxy.clone(),
        no_proxy: proxy.no_proxy.clone(),
        all_proxy: proxy.all_proxy.clone(),
    }
}

fn mount(mount: &Mount) -> wire::Mount {
    let mut message = wire::Mount {
        input: optional(mount.input),
        selector: mount.selector.clone(),
        dest: mount.dest.clone(),
        output: optional(mount.output),
        readonly: mount.readonly,
        content_cache: match mount.content_cache {
            ContentCache::Default => 0,
            ContentCache::On => 1,
            ContentCache::Off => 2,
        },
        ..wire::Mount::default()
    };
    match &mount.kind {
        MountKind::Bind => message.mount_type = number::BIND,
        MountKind::Secret(SecretMount { id, uid, gid, mode, optional }) => {
            message.mount_type = number::SECRET;
            message.secret = Some(credential(id, *uid, *gid, *mode, *optional));
        }
        MountKind::Ssh(SshMount { id, uid, gid, mode, optional }) => {
            message.mount_type = number::SSH;
            message.ssh = Some(credential(id, *uid, *gid, *mode, *optional));
        }
        MountKind::Cache(cache) => {
            message.mount_type = number::CACHE;
            let sharing = match cache.sharing {
                CacheSharing::Shared => 0,
                CacheSharing::Private => 1,
                CacheSharing::Locked => 2,
            };
            message.cache = Some(wire::CacheOpt { id: cache.id.clone(), sharing });
        }
        MountKind::Tmpfs { size } => {
            message.mount_type = number::TMPFS;
            message.tmpfs = Some(wire::TmpfsOpt { size: *size });
        }
    }
    message
}

fn credential(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> wire::CredentialOpt {
    wire::CredentialOpt { id: id.to_owned(), uid, gid, mode, optional }
}

fn file_action(action: &FileAction, inputs: usize) -> wire::FileAction {
    let owner = |owner: &Option<Owner>| owner.as_ref().map(|owner| chown(owner, inputs));
    let kind = match &action.kind {
        FileActionKind::Copy(copy) => wire::FileActionKind::Copy(Box::new(wire::CopyAction {
            src: copy.src.clone(),
            dest: copy.dest.clone(),
            owner: owner(&copy.owner),
            mode: copy.mode,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            attempt_unpack: copy.attempt_unpack,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            timestamp: copy.timestamp,
            include_patterns: copy.include_patterns.clone(),
            exclude_patterns: copy.exclude_patterns.clone(),
            always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
            mode_str: copy.mode_str.clone(),
            required_paths: copy.required_paths.clone(),
        })),
        FileActionKind::Mkfile(mkfile) => wire::FileActionKind::Mkfile(wire::MkfileAction {
            path: mkfile.path.clone(),
            mode: mkfile.mode,
            data: mkfile.data.clone(),
            owner: owner(&mkfile.owner),
            timestamp: mkfile.timestamp,
        }),
        FileActionKind::Mkdir(mkdir) => wire::FileActionKind::Mkdir(wire::MkdirAction {
            path: mkdir.path.clone(),
            mode: mkdir.mode,
            make_parents: mkdir.make_parents,
            owner: owner(&mkdir.owner),
            timestamp: mkdir.timestamp,
        }),
        FileActionKind::Rm(rm) => wire::FileActionKind::Rm(wire::RmAction {
            path: rm.path.clone(),
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        FileActionKind::Symlink(link) => wire::FileActionKind::Symlink(wire::SymlinkAction {
            old_path: link.old_path.clone(),
            new_path: link.new_path.clone(),
            owner: owner(&link.owner),
            timestamp: link.timestamp,
        }),
    };
    wire::FileAction {
        input: file_input(action.input, inputs),
        secondary_input: file_input(action.secondary_input, inputs),
        output: optional(action.output),
        action: Some(kind),
    }
}

/// Inputs come first in the numbering, then the results of actions.
fn file_input(input: FileInput, inputs: usize) -> i64 {
    match input {
        FileInput::Scratch => NONE,
        FileInput::Input(index) => to_i64(index),
        FileInput::Action(index) => to_i64(inputs.saturating_add(index)),
    }
}

fn chown(owner: &Owner, inputs: usize) -> wire::ChownOpt {
    let user = |id: &Option<UserId>| {
        id.as_ref().map(|id| wire::UserOpt {
            user: Some(match id {
                UserId::Id(id) => wire::UserKind::ById(*id),
                UserId::Name { name, input } => wire::UserKind::ByName(wire::NamedUser {
                    name: name.clone(),
                    input: file_input(*input, inputs),
                }),
            }),
        })
    };
    wire::ChownOpt { user: user(&owner.user), group: user(&owner.group) }
}
