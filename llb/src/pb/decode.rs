//! From bytes to [`Op`].

use prost::Message as _;

use super::schema::OP;
use super::{NONE, number, wire};
use crate::digest::InvalidDigest;
use crate::op::{
    CacheMount, CacheSharing, CdiDevice, ContentCache, CopyAction, ExecMeta, ExecOp, FileAction,
    FileActionKind, FileInput, FileOp, HostIp, MkdirAction, MkfileAction, Mount, MountKind,
    NetworkMode, Owner, ProxyEnv, RmAction, SecretEnv, SecretMount, SecurityMode, SourceOp,
    SshMount, SymlinkAction, Ulimit, UserId,
};
use crate::{Digest, Op, Platform};

/// An op as it came over the wire, with what names its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What is done.
    pub op: Op,
    /// Digest of each input vertex and the output of it that is used.
    pub inputs: Vec<(Digest, usize)>,
    /// For which platform.
    pub platform: Option<Platform>,
}

/// Why bytes are no op this builder knows.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no protobuf message of this shape.
    #[error("invalid protobuf message of an op")]
    Protobuf(#[from] prost::DecodeError),
    /// The bytes are no protobuf message at all.
    #[error("malformed protobuf message")]
    Malformed,
    /// A field that this builder does not know.
    #[error("unknown field {number} of `{message}`")]
    UnknownField {
        /// Message of `ops.proto` that has it.
        message: &'static str,
        /// Number of the field.
        number: u32,
    },
    /// An input that is no op of the definition.
    #[error("the definition has no op {digest}, which another one needs")]
    UnknownInput {
        /// Name of the op that is missing.
        digest: Digest,
    },
    /// An input is not named by a digest.
    #[error("invalid digest of an op")]
    Digest(#[from] InvalidDigest),
    /// A field has a value that this builder does not know.
    #[error("unknown value {value} of `{field}` in an op")]
    UnknownValue {
        /// Field of `ops.proto`.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// A message lacks a part.
    #[error("op without `{0}`")]
    Missing(&'static str),
    /// The op is valid, but nothing this builder can do.
    #[error("ops with `{0}` are not supported")]
    Unsupported(&'static str),
}

/// Decodes what [`encode_op`](super::encode_op) wrote, or an op made elsewhere.
///
/// # Errors
/// When the bytes are malformed, name inputs that do not exist, or use what this builder lacks.
pub fn decode_op(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let message = wire::Op::decode(bytes)?;
    OP.check(bytes)?;
    if message.constraints.is_some_and(|constraints| !constraints.filter.is_empty()) {
        return Err(DecodeError::Unsupported("constraints.filter"));
    }
    let mut inputs = Vec::with_capacity(message.inputs.len());
    for input in message.inputs {
        inputs.push((input.digest.parse()?, index("inputs.index", input.index)?));
    }
    let op = match message.op.ok_or(DecodeError::Missing("op"))? {
        wire::OpKind::Source(source) => {
            Op::Source(SourceOp { identifier: source.identifier, attrs: source.attrs })
        }
        wire::OpKind::Exec(exec) => Op::Exec(exec_op(*exec, inputs.len())?),
        wire::OpKind::File(file) => {
            let actions = file.actions.into_iter().enumerate();
            let count = inputs.len();
            let actions = actions
                .map(|(number, action)| Indexes { inputs: count, actions: number }.action(action));
            Op::File(FileOp { actions: actions.collect::<Result<_, _>>()? })
        }
        wire::OpKind::Build(_) => return Err(DecodeError::Unsupported("build")),
        wire::OpKind::Merge(merge) => {
            // The list may name an input more than once or in another order; ours is the list itself.
            let picks =
                merge.inputs.iter().map(|pick| pick_input("merge.inputs", pick.input, &inputs));
            inputs = picks.collect::<Result<_, _>>()?;
            Op::Merge
        }
        wire::OpKind::Diff(diff) => {
            let side = |field, side: Option<wire::OpInput>| match side {
                None | Some(wire::OpInput { input: NONE }) => Ok(None),
                Some(pick) => pick_input(field, pick.input, &inputs).map(Some),
            };
            let (lower, upper) = (side("diff.lower", diff.lower)?, side("diff.upper", diff.upper)?);
            let op = Op::Diff { lower: lower.is_some(), upper: upper.is_some() };
            inputs = lower.into_iter().chain(upper).collect();
            op
        }
    };
    let platform = message.platform.map(|platform| Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
        os_version: platform.os_version,
        os_features: platform.os_features,
    });
    Ok(Decoded { op, inputs, platform })
}

pub(super) fn index(field: &'static str, value: i64) -> Result<usize, DecodeError> {
    usize::try_from(value).map_err(|_| DecodeError::UnknownValue { field, value })
}

fn optional(field: &'static str, value: i64) -> Result<Option<usize>, DecodeError> {
    if value == NONE { Ok(None) } else { index(field, value).map(Some) }
}

fn pick_input(
    field: &'static str,
    value: i64,
    inputs: &[(Digest, usize)],
) -> Result<(Digest, usize), DecodeError> {
    inputs.get(index(field, value)?).copied().ok_or(DecodeError::UnknownValue { field, value })
}

fn unknown<T>(field: &'static str, value: i32) -> Result<T, DecodeError> {
    Err(DecodeError::UnknownValue { field, value: value.into() })
}

fn exec_op(exec: wire::ExecOp, inputs: usize) -> Result<ExecOp, DecodeError> {
    Ok(ExecOp {
        meta: meta(exec.meta.ok_or(DecodeError::Missing("exec.meta"))?),
        mounts: exec
            .mounts
            .into_iter()
            .map(|message| mount(message, inputs))
            .collect::<Result<_, _>>()?,
        network: match exec.network {
            0 => NetworkMode::Unset,
            1 => NetworkMode::Host,
            2 => NetworkMode::None,
            other => return unknown("exec.network", other),
        },
        security: match exec.security {
            0 => SecurityMode::Sandbox,
            1 => SecurityMode::Insecure,
            other => return unknown("exec.security", other),
        },
        secret_env: exec
            .secret_env
            .into_iter()
            .map(|env| SecretEnv { id: env.id, name: env.name, optional: env.optional })
            .collect(),
        cdi_devices: exec
            .cdi_devices
            .into_iter()
            .map(|device| CdiDevice { name: device.name, optional: device.optional })
            .collect(),
    })
}

fn meta(meta: wire::Meta) -> ExecMeta {
    ExecMeta {
        args: meta.args,
        env: meta.env,
        cwd: meta.cwd,
        user: meta.user,
        proxy_env: meta.proxy_env.map(|proxy| ProxyEnv {
            http_proxy: proxy.http_proxy,
            https_proxy: proxy.https_proxy,
            ftp_proxy: proxy.ftp_proxy,
            no_proxy: proxy.no_proxy,
            all_proxy: proxy.all_proxy,
        }),
        extra_hosts: meta
            .extra_hosts
            .into_iter()
            .map(|entry| HostIp { host: entry.host, ip: entry.ip })
            .collect(),
        hostname: meta.hostname,
        ulimits: meta
            .ulimit
            .into_iter()
            .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
            .collect(),
        cgroup_parent: meta.cgroup_parent,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes,
    }
}

fn mount(mount: wire::Mount, inputs: usize) -> Result<Mount, DecodeError> {
    if !mount.result_id.is_empty() {
        return Err(DecodeError::Unsupported("mount.resultID"));
    }
    let input = optional("mount.input", mount.input)?;
    if input.is_some_and(|input| input >= inputs) {
        return Err(DecodeError::UnknownValue { field: "mount.input", value: mount.input });
    }
    let kind = match mount.mount_type {
        number::BIND => MountKind::Bind,
        number::SECRET => {
            let secret = mount.secret.ok_or(DecodeError::Missing("mount.secretOpt"))?;
            let wire::CredentialOpt { id, uid, gid, mode, optional } = secret;
            MountKind::Secret(SecretMount { id, uid, gid, mode, optional })
        }
        number::SSH => {
            let wire::CredentialOpt { id, uid, gid, mode, optional } =
                mount.ssh.ok_or(DecodeError::Missing("mount.SSHOpt"))?;
            MountKind::Ssh(SshMount { id, uid, gid, mode, optional })
        }
        number::CACHE => {
            let cache = mount.cache.ok_or(DecodeError::Missing("mount.cacheOpt"))?;
            let sharing = match cache.sharing {
                0 => CacheSharing::Shared,
                1 => CacheSharing::Private,
                2 => CacheSharing::Locked,
                other => return unknown("mount.cacheOpt.sharing", other),
            };
            MountKind::Cache(CacheMount { id: cache.id, sharing })
        }
        number::TMPFS => MountKind::Tmpfs { size: mount.tmpfs.unwrap_or_default().size },
        other => return unknown("mount.mountType", other),
    };
    Ok(Mount {
        input,
        selector: mount.selector,
        dest: mount.dest,
        output: optional("mount.output", mount.output)?,
        readonly: mount.readonly,
        kind,
        content_cache: match mount.content_cache {
            0 => ContentCache::Default,
            1 => ContentCache::On,
            2 => ContentCache::Off,
            other => return unknown("mount.contentCache", other),
        },
    })
}

/// What the numbers in one file action may mean: inputs of the vertex, then the actions before it.
#[derive(Clone, Copy)]
struct Indexes {
    inputs: usize,
    actions: usize,
}

impl Indexes {
    fn input(self, field: &'static str, value: i64) -> Result<FileInput, DecodeError> {
        let Some(index) = optional(field, value)? else { return Ok(FileInput::Scratch) };
        match index.checked_sub(self.inputs) {
            None => Ok(FileInput::Input(index)),
            Some(action) if action < self.actions => Ok(FileInput::Action(action)),
            Some(_) => Err(DecodeError::UnknownValue { field, value }),
        }
    }

    fn user(self, user: Option<wire::UserOpt>) -> Result<Option<UserId>, DecodeError> {
        Ok(match user.and_then(|user| user.user) {
            None => None,
            Some(wire::UserKind::ById(id)) => Some(UserId::Id(id)),
            Some(wire::UserKind::ByName(named)) => Some(UserId::Name {
                input: self.input("owner.input", named.input)?,
                name: named.name,
            }),
        })
    }

    fn owner(self, owner: Option<wire::ChownOpt>) -> Result<Option<Owner>, DecodeError> {
        let Some(owner) = owner else { return Ok(None) };
        Ok(Some(Owner { user: self.user(owner.user)?, group: self.user(owner.group)? }))
    }

    fn action(self, action: wire::FileAction) -> Result<FileAction, DecodeError> {
        Ok(FileAction {
            input: self.input("action.input", action.input)?,
            secondary_input: self.input("action.secondaryInput", action.secondary_input)?,
            output: optional("action.output", action.output)?,
            kind: self.kind(action.action.ok_or(DecodeError::Missing("file.action"))?)?,
        })
    }

    fn kind(self, kind: wire::FileActionKind) -> Result<FileActionKind, DecodeError> {
        Ok(match kind {
            wire::FileActionKind::Copy(copy) => FileActionKind::Copy(Box::new(CopyAction {
                src: copy.src,
                dest: copy.dest,
                owner: self.owner(copy.owner)?,
                mode: copy.mode,
                mode_str: copy.mode_str,
                follow_symlink: copy.follow_symlink,
                dir_copy_contents: copy.dir_copy_contents,
                attempt_unpack: copy.attempt_unpack,
                create_dest_path: copy.create_dest_path,
                allow_wildcard: copy.allow_wildcard,
                allow_empty_wildcard: copy.allow_empty_wildcard,
                timestamp: copy.timestamp,
                include_patterns: copy.include_patterns,
                exclude_patterns: copy.exclude_patterns,
                always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
                required_paths: copy.required_paths,
            })),
            wire::FileActionKind::Mkfile(mkfile) => FileActionKind::Mkfile(MkfileAction {
                path: mkfile.path,
                mode: mkfile.mode,
                data: mkfile.data,
                owner: self.owner(mkfile.owner)?,
                timestamp: mkfile.timestamp,
            }),
            wire::FileActionKind::Mkdir(mkdir) => FileActionKind::Mkdir(MkdirAction {
                path: mkdir.path,
                mode: mkdir.mode,
                make_parents: mkdir.make_parents,
                owner: self.owner(mkdir.owner)?,
                timestamp: mkdir.timestamp,
            }),
            wire::FileActionKind::Rm(rm) => FileActionKind::Rm(RmAction {
                path: rm.path,
                allow_not_found: rm.allow_not_found,
                allow_wildcard: rm.allow_wildcard,
            }),
            wire::FileActionKind::Symlink(link) => FileActionKind::Symlink(SymlinkAction {
                old_path: link.old_path,
                new_path: link.new_path,
                owner: self.owner(link.owner)?,
                timestamp: link.timestamp,
            }),
        })
    }
}
