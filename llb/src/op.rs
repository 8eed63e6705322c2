//! Operations of a definition, field for field those of BuildKit's LLB.

use std::collections::BTreeMap;

/// What a vertex does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a definition has few ops, and most of them are exec ops"
)]
pub enum Op {
    /// Brings a file tree from outside: an image, the build context, a URL, a git repository.
    Source(SourceOp),
    /// Runs a process.
    Exec(ExecOp),
    /// Changes files without running anything.
    File(FileOp),
    /// Lays its inputs over each other, first input lowest.
    Merge,
    /// The difference between the first input (lower) and the second (upper); a missing one is empty.
    Diff {
        /// Whether the vertex has a lower input (always input 0 when it has one).
        lower: bool,
        /// Whether the vertex has an upper input (the last input when it has one).
        upper: bool,
    },
}

/// A source: `identifier` says what, `attrs` how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOp {
    /// `docker-image://ref`, `oci-layout://…`, `local://name`, `git://…`, `http(s)://…`.
    pub identifier: String,
    /// Attributes by their BuildKit names, such as `local.followpaths`.
    pub attrs: BTreeMap<String, String>,
}

/// Runs a process in a root file system made of [`mounts`](Self::mounts).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOp {
    /// Command and its surroundings.
    pub meta: ExecMeta,
    /// Mounts, sorted by destination; the root mount `/` is output 0.
    pub mounts: Vec<Mount>,
    /// Network mode of the step.
    pub network: NetworkMode,
    /// Security mode of the step.
    pub security: SecurityMode,
    /// Secrets given as environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// CDI devices.
    pub cdi_devices: Vec<CdiDevice>,
}

/// Command and surroundings of an [`ExecOp`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecMeta {
    /// Argument vector; `args[0]` is looked up in the step's `PATH`.
    pub args: Vec<String>,
    /// `NAME=value`, in insertion order.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `user[:group]` as written; empty means root.
    pub user: String,
    /// Proxy variables; they never count for the cache.
    pub proxy_env: Option<ProxyEnv>,
    /// Further lines of `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Host name; empty means the default.
    pub hostname: String,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Parent control group.
    pub cgroup_parent: String,
    /// Remove empty parents of mount stubs too (always set by our frontend).
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that mean success; empty means only 0.
    pub valid_exit_codes: Vec<i32>,
}

/// Proxy settings handed to a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyEnv {
    /// `http_proxy`
    pub http_proxy: String,
    /// `https_proxy`
    pub https_proxy: String,
    /// `ftp_proxy`
    pub ftp_proxy: String,
    /// `no_proxy`
    pub no_proxy: String,
    /// `all_proxy`
    pub all_proxy: String,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostIp {
    /// Name, lower-case.
    pub host: String,
    /// Address.
    pub ip: String,
}

/// A resource limit; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// Name without `RLIMIT_`, lower-case (`nofile`).
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// A mount of an [`ExecOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Index of the vertex input that is mounted; `None` for an empty one.
    pub input: Option<usize>,
    /// Path below the input that is mounted; empty for all of it.
    pub selector: String,
    /// Where it appears in the step.
    pub dest: String,
    /// Output index of what the step leaves in it; `None` throws it away.
    pub output: Option<usize>,
    /// Whether the step may not write it.
    pub readonly: bool,
    /// What kind of mount.
    pub kind: MountKind,
    /// Whether the content of the input may stand for it in the cache key.
    pub content_cache: ContentCache,
}

/// Kinds of mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// An input tree.
    Bind,
    /// A secret as a file.
    Secret(SecretMount),
    /// A forwarded ssh agent.
    Ssh(SshMount),
    /// A directory that outlives builds.
    Cache(CacheMount),
    /// A tmpfs, with a size limit in bytes (0: none).
    Tmpfs {
        /// Bytes; 0 means no limit.
        size: i64,
    },
}

/// When the content of a mounted input counts instead of its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentCache {
    /// For read-only, outputless or whole mounts other than `/`.
    #[default]
    Default,
    /// Always.
    On,
    /// Never.
    Off,
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMount {
    /// Identity.
    pub id: String,
    /// Who may use it at the same time.
    pub sharing: CacheSharing,
}

/// Sharing of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSharing {
    /// By all at once.
    #[default]
    Shared,
    /// Each user has its own.
    Private,
    /// One after the other.
    Locked,
}

/// A secret as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretMount {
    /// Name by which it was given.
    pub id: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Whether the step runs without it.
    pub optional: bool,
}

/// A forwarded ssh agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshMount {
    /// Name by which it was given.
    pub id: String,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Whether the step runs without it.
    pub optional: bool,
}

/// A secret as an environment variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEnv {
    /// Name by which the secret was given.
    pub id: String,
    /// Variable.
    pub name: String,
    /// Whether the step runs without it (then with an empty value).
    pub optional: bool,
}

/// A CDI device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CdiDevice {
    /// Qualified name.
    pub name: String,
    /// Whether the step runs without it.
    pub optional: bool,
}

/// Network mode of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NetworkMode {
    /// The builder's default (the host's network).
    #[default]
    Unset,
    /// The host's network, asked for.
    Host,
    /// Loopback only.
    None,
}

/// Security mode of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// All rights of the builder; needs an entitlement.
    Insecure,
}

/// A list of actions on file trees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOp {
    /// Actions, in order.
    pub actions: Vec<FileAction>,
}

/// What an action works on: an input of the vertex, or the result of an earlier action.
///
/// In the wire form both are one number: values from the number of inputs on mean actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileInput {
    /// Nothing: an empty tree.
    Scratch,
    /// Input `n` of the vertex.
    Input(usize),
    /// Result of action `n`.
    Action(usize),
}

/// One action of a [`FileOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAction {
    /// The tree that is changed.
    pub input: FileInput,
    /// The tree that is copied from (copy only, else `Scratch`).
    pub secondary_input: FileInput,
    /// Output index of the changed tree; `None` when only later actions use it.
    pub output: Option<usize>,
    /// What is done.
    pub kind: FileActionKind,
}

/// Kinds of file action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies files from the secondary input.
    Copy(Box<CopyAction>),
    /// Makes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes a path.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyAction {
    /// Source path or pattern, absolute within the secondary input.
    pub src: String,
    /// Destination, absolute within the input; a trailing `/` means a directory.
    pub dest: String,
    /// Owner of what is copied; `None` keeps the source's.
    pub owner: Option<Owner>,
    /// Permission bits; -1 keeps the source's.
    pub mode: i32,
    /// Symbolic mode (`u+x`); empty when not used.
    pub mode_str: String,
    /// Follow a symlink named as source.
    pub follow_symlink: bool,
    /// Copy the contents of a directory instead of the directory.
    pub dir_copy_contents: bool,
    /// Unpack archives.
    pub attempt_unpack: bool,
    /// Make missing parents of `dest`.
    pub create_dest_path: bool,
    /// `src` is a pattern.
    pub allow_wildcard: bool,
    /// A pattern that matches nothing is no error.
    pub allow_empty_wildcard: bool,
    /// Modification time of what is copied, nanoseconds since the epoch; -1 keeps the source's.
    pub timestamp: i64,
    /// Only paths matching one of these.
    pub include_patterns: Vec<String>,
    /// No path matching these.
    pub exclude_patterns: Vec<String>,
    /// Replace what is at the destination even if its type differs.
    pub always_replace_existing_dest_paths: bool,
    /// Paths that must exist below `src` (`--parents` without wildcards).
    pub required_paths: Vec<String>,
}

/// Makes a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkfileAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Content.
    pub data: Vec<u8>,
    /// Owner; `None` is root.
    pub owner: Option<Owner>,
    /// Modification time, nanoseconds since the epoch; -1 is now.
    pub timestamp: i64,
}

/// Makes a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkdirAction {
    /// Where.
    pub path: String,
    /// Permission bits.
    pub mode: i32,
    /// Make missing parents, and accept a directory that exists.
    pub make_parents: bool,
    /// Owner; `None` is root.
    pub owner: Option<Owner>,
    /// Modification time, nanoseconds since the epoch; -1 is now.
    pub timestamp: i64,
}

/// Removes a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RmAction {
    /// What.
    pub path: String,
    /// A missing path is no error.
    pub allow_not_found: bool,
    /// `path` is a pattern.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What the link says.
    pub old_path: String,
    /// Where the link is.
    pub new_path: String,
    /// Owner; `None` is root.
    pub owner: Option<Owner>,
    /// Modification time, nanoseconds since the epoch; -1 is now.
    pub timestamp: i64,
}

/// An owner: user and group, each by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// User; `None` means root.
    pub user: Option<UserId>,
    /// Group; `None` means the user's primary group, or the user's number.
    pub group: Option<UserId>,
}

/// A user or group by number or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserId {
    /// By number.
    Id(u32),
    /// By name, looked up in `/etc/passwd` or `/etc/group` of `input`.
    Name {
        /// The name.
        name: String,
        /// The tree whose files are consulted.
        input: FileInput,
    },
}
