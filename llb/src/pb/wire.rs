//! The messages of `solver/pb/ops.proto`, by field number.

use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Op {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<Input>,
    #[prost(oneof = "OpKind", tags = "2, 3, 4, 5, 6, 7")]
    pub(super) op: Option<OpKind>,
    #[prost(message, optional, tag = "10")]
    pub(super) platform: Option<Platform>,
    #[prost(message, optional, tag = "11")]
    pub(super) constraints: Option<WorkerConstraints>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum OpKind {
    #[prost(message, boxed, tag = "2")]
    Exec(Box<ExecOp>),
    #[prost(message, tag = "3")]
    Source(SourceOp),
    #[prost(message, tag = "4")]
    File(FileOp),
    #[prost(message, tag = "5")]
    Build(BuildOp),
    #[prost(message, tag = "6")]
    Merge(MergeOp),
    #[prost(message, tag = "7")]
    Diff(DiffOp),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Platform {
    #[prost(string, tag = "1")]
    pub(super) architecture: String,
    #[prost(string, tag = "2")]
    pub(super) os: String,
    #[prost(string, tag = "3")]
    pub(super) variant: String,
    #[prost(string, tag = "4")]
    pub(super) os_version: String,
    #[prost(string, repeated, tag = "5")]
    pub(super) os_features: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WorkerConstraints {
    #[prost(string, repeated, tag = "1")]
    pub(super) filter: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Input {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(int64, tag = "2")]
    pub(super) index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExecOp {
    #[prost(message, optional, tag = "1")]
    pub(super) meta: Option<Meta>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
    #[prost(int32, tag = "3")]
    pub(super) network: i32,
    #[prost(int32, tag = "4")]
    pub(super) security: i32,
    #[prost(message, repeated, tag = "5")]
    pub(super) secret_env: Vec<SecretEnv>,
    #[prost(message, repeated, tag = "6")]
    pub(super) cdi_devices: Vec<CdiDevice>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Meta {
    #[prost(string, repeated, tag = "1")]
    pub(super) args: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) env: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) cwd: String,
    #[prost(string, tag = "4")]
    pub(super) user: String,
    #[prost(message, optional, tag = "5")]
    pub(super) proxy_env: Option<ProxyEnv>,
    #[prost(message, repeated, tag = "6")]
    pub(super) extra_hosts: Vec<HostIp>,
    #[prost(string, tag = "7")]
    pub(super) hostname: String,
    #[prost(message, repeated, tag = "9")]
    pub(super) ulimit: Vec<Ulimit>,
    #[prost(string, tag = "10")]
    pub(super) cgroup_parent: String,
    #[prost(bool, tag = "11")]
    pub(super) remove_mount_stubs_recursive: bool,
    #[prost(int32, repeated, tag = "12")]
    pub(super) valid_exit_codes: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProxyEnv {
    #[prost(string, tag = "1")]
    pub(super) http_proxy: String,
    #[prost(string, tag = "2")]
    pub(super) https_proxy: String,
    #[prost(string, tag = "3")]
    pub(super) ftp_proxy: String,
    #[prost(string, tag = "4")]
    pub(super) no_proxy: String,
    #[prost(string, tag = "5")]
    pub(super) all_proxy: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HostIp {
    #[prost(string, tag = "1")]
    pub(super) host: String,
    #[prost(string, tag = "2")]
    pub(super) ip: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Ulimit {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int64, tag = "2")]
    pub(super) soft: i64,
    #[prost(int64, tag = "3")]
    pub(super) hard: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SecretEnv {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(bool, tag = "3")]
    pub(super) optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CdiDevice {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bool, tag = "2")]
    pub(super) optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mount {
    #[prost(int64, tag = "1")]
    pub(super) input: i64,
    #[prost(string, tag = "2")]
    pub(super) selector: String,
    #[prost(string, tag = "3")]
    pub(super) dest: String,
    #[prost(int64, tag = "4")]
    pub(super) output: i64,
    #[prost(bool, tag = "5")]
    pub(super) readonly: bool,
    #[prost(int32, tag = "6")]
    pub(super) mount_type: i32,
    #[prost(message, optional, tag = "19")]
    pub(super) tmpfs: Option<TmpfsOpt>,
    #[prost(message, optional, tag = "20")]
    pub(super) cache: Option<CacheOpt>,
    #[prost(message, optional, tag = "21")]
    pub(super) secret: Option<CredentialOpt>,
    #[prost(message, optional, tag = "22")]
    pub(super) ssh: Option<CredentialOpt>,
    #[prost(string, tag = "23")]
    pub(super) result_id: String,
    #[prost(int32, tag = "24")]
    pub(super) content_cache: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TmpfsOpt {
    #[prost(int64, tag = "1")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CacheOpt {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(int32, tag = "2")]
    pub(super) sharing: i32,
}

/// `SecretOpt` and `SSHOpt`, which have the same fields.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CredentialOpt {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint32, tag = "2")]
    pub(super) uid: u32,
    #[prost(uint32, tag = "3")]
    pub(super) gid: u32,
    #[prost(uint32, tag = "4")]
    pub(super) mode: u32,
    #[prost(bool, tag = "5")]
    pub(super) optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SourceOp {
    #[prost(string, tag = "1")]
    pub(super) identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) attrs: BTreeMap<String, String>,
}

/// A nested definition; only its presence is read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BuildOp {}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MergeOp {
    #[prost(message, repeated, tag = "1")]
    pub(super) inputs: Vec<OpInput>,
}

/// `MergeInput`, `LowerDiffInput` and `UpperDiffInput`, which have the same field.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OpInput {
    #[prost(int64, tag = "1")]
    pub(super) input: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DiffOp {
    #[prost(message, optional, tag = "1")]
    pub(super) lower: Option<OpInput>,
    #[prost(message, optional, tag = "2")]
    pub(super) upper: Option<OpInput>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FileOp {
    #[prost(message, repeated, tag = "2")]
    pub(super) actions: Vec<FileAction>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FileAction {
    #[prost(int64, tag = "1")]
    pub(super) input: i64,
    #[prost(int64, tag = "2")]
    pub(super) secondary_input: i64,
    #[prost(int64, tag = "3")]
    pub(super) output: i64,
    #[prost(oneof = "FileActionKind", tags = "4, 5, 6, 7, 8")]
    pub(super) action: Option<FileActionKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum FileActionKind {
    #[prost(message, boxed, tag = "4")]
    Copy(Box<CopyAction>),
    #[prost(message, tag = "5")]
    Mkfile(MkfileAction),
    #[prost(message, tag = "6")]
    Mkdir(MkdirAction),
    #[prost(message, tag = "7")]
    Rm(RmAction),
    #[prost(message, tag = "8")]
    Symlink(SymlinkAction),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CopyAction {
    #[prost(string, tag = "1")]
    pub(super) src: String,
    #[prost(string, tag = "2")]
    pub(super) dest: String,
    #[prost(message, optional, tag = "3")]
    pub(super) owner: Option<ChownOpt>,
    #[prost(int32, tag = "4")]
    pub(super) mode: i32,
    #[prost(bool, tag = "5")]
    pub(super) follow_symlink: bool,
    #[prost(bool, tag = "6")]
    pub(super) dir_copy_contents: bool,
    #[prost(bool, tag = "7")]
    pub(super) attempt_unpack: bool,
    #[prost(bool, tag = "8")]
    pub(super) create_dest_path: bool,
    #[prost(bool, tag = "9")]
    pub(super) allow_wildcard: bool,
    #[prost(bool, tag = "10")]
    pub(super) allow_empty_wildcard: bool,
    #[prost(int64, tag = "11")]
    pub(super) timestamp: i64,
    #[prost(string, repeated, tag = "12")]
    pub(super) include_patterns: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    pub(super) exclude_patterns: Vec<String>,
    #[prost(bool, tag = "14")]
    pub(super) always_replace_existing_dest_paths: bool,
    #[prost(string, tag = "15")]
    pub(super) mode_str: String,
    #[prost(string, repeated, tag = "16")]
    pub(super) required_paths: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MkfileAction {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(int32, tag = "2")]
    pub(super) mode: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) data: Vec<u8>,
    #[prost(message, optional, tag = "4")]
    pub(super) owner: Option<ChownOpt>,
    #[prost(int64, tag = "5")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MkdirAction {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(int32, tag = "2")]
    pub(super) mode: i32,
    #[prost(bool, tag = "3")]
    pub(super) make_parents: bool,
    #[prost(message, optional, tag = "4")]
    pub(super) owner: Option<ChownOpt>,
    #[prost(int64, tag = "5")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RmAction {
    #[prost(string, tag = "1")]
    pub(super) path: String,
    #[prost(bool, tag = "2")]
    pub(super) allow_not_found: bool,
    #[prost(bool, tag = "3")]
    pub(super) allow_wildcard: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SymlinkAction {
    #[prost(string, tag = "1")]
    pub(super) old_path: String,
    #[prost(string, tag = "2")]
    pub(super) new_path: String,
    #[prost(message, optional, tag = "3")]
    pub(super) owner: Option<ChownOpt>,
    #[prost(int64, tag = "4")]
    pub(super) timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ChownOpt {
    #[prost(message, optional, tag = "1")]
    pub(super) user: Option<UserOpt>,
    #[prost(message, optional, tag = "2")]
    pub(super) group: Option<UserOpt>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserOpt {
    #[prost(oneof = "UserKind", tags = "1, 2")]
    pub(super) user: Option<UserKind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum UserKind {
    #[prost(message, tag = "1")]
    ByName(NamedUser),
    #[prost(uint32, tag = "2")]
    ById(u32),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NamedUser {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int64, tag = "2")]
    pub(super) input: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) def: Vec<Vec<u8>>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(super) metadata: BTreeMap<String, OpMetadata>,
    #[prost(message, optional, tag = "3")]
    pub(super) source: Option<Source>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OpMetadata {
    #[prost(bool, tag = "1")]
    pub(super) ignore_cache: bool,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(super) description: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Source {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) locations: BTreeMap<String, Locations>,
    #[prost(message, repeated, tag = "2")]
    pub(super) infos: Vec<SourceInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Locations {
    #[prost(message, repeated, tag = "1")]
    pub(super) locations: Vec<Location>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Location {
    #[prost(int32, tag = "1")]
    pub(super) source_index: i32,
    #[prost(message, repeated, tag = "2")]
    pub(super) ranges: Vec<Range>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Range {
    #[prost(message, optional, tag = "1")]
    pub(super) start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub(super) end: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Position {
    #[prost(int32, tag = "1")]
    pub(super) line: i32,
    #[prost(int32, tag = "2")]
    pub(super) character: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SourceInfo {
    #[prost(string, tag = "1")]
    pub(super) filename: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) data: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(super) language: String,
}
