//! The command line of `build [OPTIONS] CONTEXT`.
//!
//! All flags of `docker buildx build` are known. Those whose feature is missing are refused by
//! [`BuildArgs::unsupported`]; the only ones ignored are those that the reference builder ignores too.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// Names that are commands when they come first; a context folder of such a name is written `./images`.
pub(crate) const COMMANDS: [&str; 15] = [
    "images", "inspect", "history", "diff", "tag", "rmi", "save", "load", "push", "pull", "du",
    "prune", "login", "logout", "doctor",
];

/// Names kept for commands to come.
pub(crate) const RESERVED: [&str; 7] =
    ["bake", "run", "shell", "cache", "index", "graph", "analyze"];

/// Build an image from a Dockerfile
#[derive(Debug, Parser, Default)]
#[command(
    name = "build",
    version,
    override_usage = "build [OPTIONS] CONTEXT\n       build COMMAND [OPTIONS]",
    after_help = "Commands: images, inspect, history, diff, tag, rmi, save, load, push, pull, du, prune, login, logout, doctor (see `build COMMAND --help`).\n\n\
                  Example: build -t app:1.0 --target runtime .",
    max_term_width = 100
)]
pub(crate) struct BuildArgs {
    /// Build context, which COPY and ADD read from: a folder, a URL, a git repository, or `-` for an archive (or just a
    /// Dockerfile) on standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: Option<String>,

    /// Name of the image, `name[:tag]`; may be given several times
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,
    /// Dockerfile, relative to the current folder [default: CONTEXT/Dockerfile]; also a URL, or `-` for standard input.
    /// If the context is not a folder, a path inside the context
    #[arg(short = 'f', long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Build this stage instead of the last
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set an ARG, `NAME=value`; without `=`, the value comes from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,
    /// Additional context: `name=` and a folder, URL, git repository, `oci-layout://PATH[:TAG|@DIGEST]`,
    /// `docker-image://REFERENCE` or `target:STAGE`
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(crate) build_contexts: Vec<String>,
    /// Secret for RUN --mount=type=secret: `id=ID[,src=PATH|,env=VAR]`
    #[arg(long = "secret", value_name = "SPEC")]
    pub(crate) secrets: Vec<String>,
    /// What to do when the value of a secret gets into a layer, config or history: error, warn or off. Unless it is off,
    /// `***` stands for the value in all output [default: error]
    #[arg(long, value_name = "WHAT")]
    pub(crate) secret_guard: Option<String>,
    /// Where the result goes: `type=oci|docker|tar|local|image|registry|cacheonly[,dest=PATH][,…]`, a folder, or `-`
    #[arg(short = 'o', long = "output", value_name = "SPEC")]
    pub(crate) outputs: Vec<String>,
    /// Push the image to the registry of each of its names
    #[arg(long)]
    pub(crate) push: bool,
    /// Load the image into the running Docker, Podman or containerd, like --output type=docker
    #[arg(long)]
    pub(crate) load: bool,
    /// Run every step again, cached or not
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again, cached or not: `a,b`
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask the registry for base images even if they are in the image store
    #[arg(long)]
    pub(crate) pull: bool,
    /// How progress is shown: auto, plain, tty, quiet, rawjson (a JSON object per line), none
    #[arg(long, value_name = "MODE", env = "BUILDKIT_PROGRESS")]
    pub(crate) progress: Option<String>,
    /// Print only the image id
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the image id to this file
    #[arg(long, value_name = "PATH")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "PATH")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Platform of the result, such as linux/amd64, or several separated by commas
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Vec<String>,
    /// Folder of the builder's state
    #[arg(long, value_name = "PATH", env = "BRICKLAYER_ROOT")]
    pub(crate) root: Option<PathBuf>,
    /// Add a label to the image, `key[=value]`
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Add an annotation, `[manifest|index:]key=value`
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// Add a line to /etc/hosts in RUN, `host:ip`
    #[arg(long = "add-host", value_name = "HOST:IP", value_delimiter = ',')]
    pub(crate) add_hosts: Vec<String>,
    /// Limit of a resource in RUN, `name=soft[:hard]`
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    pub(crate) ulimits: Vec<String>,
    /// Size of /dev/shm in RUN, such as 128m
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Limit what each RUN step may use: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    /// or pids, `name=value[,name=value]`
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    pub(crate) resources: Vec<String>,
    /// Control group under which those of RUN steps are made [default: that of this process]
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// Network of RUN steps that do not choose one themselves: default, none, host
    #[arg(long, value_name = "MODE")]
    pub(crate) network: Option<String>,
    /// Let RUN use an ssh agent, `default|ID[=SOCKET]`
    #[arg(long = "ssh", value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// Grant a right to the build: network.host, security.insecure, device[=NAME]
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// How many RUN steps may run at the same time [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<usize>,
    /// How RUN steps are isolated: auto, root, rootless, single-id or chroot [default: auto, the first that is possible]
    #[arg(long, value_name = "TIER", env = "BRICKLAYER_ISOLATION")]
    pub(crate) isolation: Option<String>,
    /// Check the Dockerfile and build nothing
    #[arg(long)]
    pub(crate) check: bool,
    /// What to do instead of building: build, check, outline, targets or subrequests.describe, with `,format=json` and `,ignorestatus=true`
    #[arg(long, value_name = "METHOD", alias = "print")]
    pub(crate) call: Option<String>,
    /// Print the definition of the build, as json or binary, and build nothing
    #[arg(long, value_name = "FORM", num_args = 0..=1, default_missing_value = "json", require_equals = true)]
    pub(crate) print_llb: Option<String>,
    /// Attest how the image was made: `mode=max|min[,builder-id=ID][,…]`, or false [default: false]
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) provenance: Option<String>,
    /// Add an attestation: `type=provenance[,mode=max|min][,…]`
    #[arg(long = "attest", value_name = "SPEC")]
    pub(crate) attest: Vec<String>,
    /// Attest what the image contains; only false is supported
    #[arg(long, value_name = "SPEC", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) sbom: Option<String>,
    /// Time of the image instead of now: seconds since 1970, or `git` for the time of the context's commit
    #[arg(long, value_name = "git|SECONDS", allow_hyphen_values = true)]
    pub(crate) source_date_epoch: Option<String>,
    /// Build twice without the cache, and report what differs
    #[arg(long)]
    pub(crate) verify: bool,
    /// Explain why each step ran, and which build made what was cached
    #[arg(long)]
    pub(crate) explain: bool,
    /// Write a timeline of the build to this file, for the viewers of Chrome and Perfetto; `-` is standard output
    #[arg(long, value_name = "PATH")]
    pub(crate) trace: Option<PathBuf>,
    /// Show more when something fails
    #[arg(short = 'D', long)]
    pub(crate) debug: bool,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    #[command(flatten)]
    pub(crate) later: LaterArgs,
    #[command(flatten)]
    pub(crate) ignored: IgnoredArgs,
}

/// Older flags for the limits that `--resource` sets.
#[derive(Debug, clap::Args, Default)]
pub(crate) struct LimitArgs {
    #[arg(short = 'm', long = "memory", hide = true)]
    pub(crate) memory: Option<String>,
    #[arg(long = "memory-swap", hide = true, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    #[arg(short = 'c', long = "cpu-shares", hide = true)]
    pub(crate) cpu_shares: Option<String>,
    #[arg(long = "cpu-period", hide = true)]
    pub(crate) cpu_period: Option<String>,
    #[arg(long = "cpu-quota", hide = true)]
    pub(crate) cpu_quota: Option<String>,
    #[arg(long = "cpuset-cpus", hide = true)]
    pub(crate) cpuset_cpus: Option<String>,
    #[arg(long = "cpuset-mems", hide = true)]
    pub(crate) cpuset_mems: Option<String>,
}

/// Flags whose features are still missing.
#[derive(Debug, clap::Args, Default)]
pub(crate) struct LaterArgs {
    #[arg(long = "cache-from", hide = true, action = ArgAction::Append)]
    cache_from: Vec<String>,
    #[arg(long = "cache-to", hide = true, action = ArgAction::Append)]
    cache_to: Vec<String>,
    #[arg(long = "policy", hide = true, action = ArgAction::Append)]
    policy: Vec<String>,
}

/// Flags that the reference accepts and that do nothing there either.
#[derive(Debug, clap::Args, Default)]
pub(crate) struct IgnoredArgs {
    /// There is only this builder.
    #[arg(long = "builder", hide = true)]
    builder: Option<String>,
    #[arg(long = "compress", hide = true)]
    compress: bool,
    #[arg(long = "rm", hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rm: Option<String>,
    #[arg(long = "force-rm", hide = true)]
    force_rm: bool,
    #[arg(long = "squash", hide = true)]
    pub(crate) squash: bool,
    #[arg(long = "security-opt", hide = true, action = ArgAction::Append)]
    pub(crate) security_opt: Vec<String>,
}

impl BuildArgs {
    /// The first flag given whose feature is still missing.
    pub(crate) fn unsupported(&self) -> Option<String> {
        let later = &self.later;
        let list = |values: &[String]| !values.is_empty();
        let table = [
            ("--cache-from", list(&later.cache_from)),
            ("--cache-to", list(&later.cache_to)),
            ("--policy", list(&later.policy)),
        ];
        table.iter().find(|(_, given)| *given).map(|(flag, _)| (*flag).to_owned())
    }

    /// Flags that were given and do nothing, to be warned about.
    pub(crate) fn without_effect(&self) -> Vec<&'static str> {
        let warned = self.isolation.as_deref().is_some_and(crate::isolation::is_foreign);
        [
            ("--isolation", warned),
            ("--squash", self.ignored.squash),
            ("--security-opt", !self.ignored.security_opt.is_empty()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_page_for_users_of_docker_names_every_flag() {
        let page = include_str!("../../docs/docker-build.md");
        let command = BuildArgs::command();
        let flags = command.get_arguments().filter_map(clap::Arg::get_long);
        let missing: Vec<&str> =
            flags.filter(|flag| !page.contains(&format!("`--{flag}`"))).collect();
        assert_eq!(missing, [""; 0]);
    }
}
