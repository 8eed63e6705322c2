//! What the caller decides about a conversion.

use std::collections::{BTreeMap, BTreeSet};

use llb::entitlement::Entitlement;
use llb::op::{HostIp, NetworkMode, Ulimit};
use llb::{Digest, Platform};

/// Settings of one conversion.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Name of the Dockerfile for messages.
    pub filename: String,
    /// Stage to build; the last one when `None`.
    pub target: Option<String>,
    /// `--build-arg` values by name.
    pub build_args: BTreeMap<String, String>,
    /// Platforms to build for; empty means `build_platform`, not asked for.
    pub platforms: Vec<Platform>,
    /// Platform of the machine that builds.
    pub build_platform: Platform,
    /// `--label` values; they win over `LABEL`.
    pub labels: BTreeMap<String, String>,
    /// The build context.
    pub context: MainContext,
    /// Named contexts by name, optionally with `::os/arch` behind it.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Whose steps run even if the cache has a result.
    pub no_cache: NoCache,
    /// Network of `RUN` without `--network`, or with `--network=default`.
    pub network: NetworkMode,
    /// Further lines of `/etc/hosts` in `RUN`.
    pub extra_hosts: Vec<HostIp>,
    /// Resource limits of `RUN`.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes; 0 is the default.
    pub shm_size: i64,
    /// Parent control group of `RUN`; empty is the default.
    pub cgroup_parent: String,
    /// Host name in `RUN`; empty is the default.
    pub hostname: String,
    /// Rights granted to this build.
    pub entitlements: BTreeSet<Entitlement>,
    /// Lines of the ignore file, for the lint `CopyIgnoredFile`.
    pub ignore_patterns: Vec<String>,
    /// How image references are resolved.
    pub resolve_mode: ResolveMode,
    /// `SOURCE_DATE_EPOCH` in seconds.
    pub source_date_epoch: Option<i64>,
    /// What the source that `SOURCE_DATE_EPOCH` names has said, once it was asked: its time, if it has one. See
    /// [`epoch_source`](crate::epoch_source).
    pub epoch_of_source: Option<Option<i64>>,
    /// Whether the result is an index even for one platform; step names then show the platform.
    pub multi_platform: bool,
    /// Convert every stage, whether the target needs it or not (`--check` without target).
    pub all_stages: bool,
}

/// The build context: what `COPY`, `ADD` and bind mounts without `from` read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MainContext {
    /// A folder; the caller serves it as `local://context`.
    #[default]
    Local,
    /// Nothing.
    Empty,
    /// The tree of a git repository.
    Git {
        /// URL as given.
        url: String,
    },
    /// The file behind a URL, under the name [`FILE_NAME`](Self::FILE_NAME).
    HttpFile {
        /// URL as given.
        url: String,
    },
    /// What is in the archive behind a URL.
    HttpArchive {
        /// URL as given.
        url: String,
    },
    /// What is in an archive that the caller serves as `archive://context`.
    Archive {
        /// Digest of the archive.
        digest: Digest,
    },
}

impl MainContext {
    /// Name of the file that a context behind a URL is.
    pub const FILE_NAME: &str = "context";
}

/// A build context that has a name (`--build-context name=value`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder; the caller serves it as `local://name`.
    Local {
        /// Name of the local source.
        name: String,
    },
    /// An image in an OCI layout folder.
    OciLayout {
        /// The folder.
        path: String,
        /// Tag in the layout; `latest` when neither tag nor digest is given.
        tag: Option<String>,
        /// Manifest or index digest.
        digest: Option<Digest>,
    },
    /// The result of a stage of the same Dockerfile, files and config.
    Stage {
        /// Name of the stage, in any letter case.
        name: String,
    },
    /// An image of a registry.
    Image {
        /// Reference as given.
        reference: String,
    },
    /// The tree of a git repository.
    Git {
        /// URL as given.
        url: String,
    },
    /// The file behind a URL, under the name `context`; an archive is not unpacked.
    Http {
        /// URL as given.
        url: String,
    },
}

/// Whose steps ignore the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    /// None.
    #[default]
    None,
    /// Those of all stages.
    All,
    /// Those of these stages, by name in any letter case.
    Stages(Vec<String>),
}

/// How image references become digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResolveMode {
    /// As the builder likes.
    #[default]
    Default,
    /// Always ask the registry (`--pull`).
    ForcePull,
    /// Take an image of the local store if there is one.
    PreferLocal,
}
