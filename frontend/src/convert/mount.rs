//! Converts the mounts of `RUN --mount`.

use llb::op::{
    CacheMount, CacheSharing, ContentCache, FileAction, FileActionKind, FileInput, FileOp,
    MkdirAction, Mount, MountKind, Owner, SecretEnv, SecretMount, SshMount, UserId,
};
use llb::{Edge, Op};
use parser::mount::{self, Sharing};
use parser::{MountFlag, Run};

use super::Converter;
use crate::error::{ErrorKind, FrontendError};
use crate::expand;
use crate::paths;
use crate::place::Place;
use crate::stage::{StageId, Step};

/// Path of the initial directory of a cache inside its own tree.
const CACHE_ROOT: &str = "/cache";

/// A mount whose input is not numbered yet.
pub(super) struct PlacedMount {
    /// What is mounted; `None` for an empty tree.
    pub(super) source: Option<Edge>,
    /// The mount.
    pub(super) mount: Mount,
}

/// What the mounts of a step come to.
#[derive(Default)]
pub(super) struct Mounts {
    /// Mounts, in written order.
    pub(super) mounts: Vec<PlacedMount>,
    /// Secrets in the environment.
    pub(super) secret_env: Vec<SecretEnv>,
    /// Paths of ssh sockets.
    pub(super) ssh_sockets: Vec<String>,
}

/// A mount of this kind that no step output comes from.
pub(super) fn plain(dest: String, readonly: bool, kind: MountKind) -> Mount {
    Mount {
        input: None,
        selector: String::new(),
        dest,
        output: None,
        readonly,
        kind,
        content_cache: ContentCache::Default,
    }
}

impl Converter<'_, '_> {
    /// Reads the mounts of a `RUN`.
    pub(super) fn mounts(&mut self, step: &Step<'_>, run: &Run) -> Result<Mounts, FrontendError> {
        let mut mounts = Mounts::default();
        let mut read = Vec::new();
        for (index, flag) in run.mounts.iter().enumerate() {
            let from = step.sources.get(index).copied().flatten();
            read.push(self.mount(step.place, flag, from, &mut mounts));
        }
        self.all(read)?;
        Ok(mounts)
    }

    /// Reads one mount.
    fn mount(
        &mut self,
        place: Place,
        flag: &MountFlag,
        from: Option<StageId>,
        mounts: &mut Mounts,
    ) -> Result<(), FrontendError> {
        let options = self.mount_options(place, flag)?;
        let at = |kind| place.error_at(flag.value.span, kind);
        match options.kind {
            mount::MountKind::Secret => self.secret(place, &options, mounts).map_err(at),
            mount::MountKind::Ssh => self.ssh(place, &options, mounts).map_err(at),
            mount::MountKind::Bind | mount::MountKind::Cache | mount::MountKind::Tmpfs => {
                let dest = self.mount_target(&options.target).map_err(at)?;
                if let Some(id) = from {
                    self.check_mountable(id, &dest).map_err(at)?;
                }
                mounts.mounts.push(self.file_mount(place, &options, from, dest)?);
                Ok(())
            }
        }
    }

    fn mount_options(&self, place: Place, flag: &MountFlag) -> Result<mount::Mount, FrontendError> {
        let mut expand = |text: &str| -> Result<String, ErrorKind> {
            let expanded = expand::single(text, self.cx.escape(), &self.state.env, self.cx.budget)?;
            self.report_unset(place, &expanded.unset);
            Ok(expanded.text)
        };
        mount::parse(&flag.value.text, &mut expand)
            .map_err(|kind| place.error_at(flag.value.span, kind))
    }

    /// A mount target seen from the working directory.
    fn mount_target(&self, target: &str) -> Result<String, ErrorKind> {
        let target = paths::join(&self.cwd(), target);
        if target == "/" { Err(ErrorKind::InvalidMountTarget { target }) } else { Ok(target) }
    }

    /// Fails for a stage that comes later.
    fn check_mountable(&self, id: StageId, target: &str) -> Result<(), ErrorKind> {
        if !self.plan.is_later(id, self.id) {
            return Ok(());
        }
        Err(ErrorKind::MountFromLaterStage {
            from: self.plan.stages[id].shown.clone(),
            target: target.to_owned(),
        })
    }

    /// A bind, cache or tmpfs mount.
    fn file_mount(
        &mut self,
        place: Place,
        options: &mount::Mount,
        from: Option<StageId>,
        dest: String,
    ) -> Result<PlacedMount, FrontendError> {
        if options.kind == mount::MountKind::Tmpfs {
            let size = i64::try_from(options.size.unwrap_or(0)).unwrap_or(i64::MAX);
            return Ok(PlacedMount {
                source: None,
                mount: plain(dest, options.readonly, MountKind::Tmpfs { size }),
            });
        }
        let is_cache = options.kind == mount::MountKind::Cache;
        let path = paths::clean(&options.source);
        let mut source = match from {
            Some(id) => self.stage_source(id, &path).and_then(|state| state.edge),
            None if is_cache => None,
            None => self.context_source(place, &path)?,
        };
        let mut selector = if path == "/" { String::new() } else { path };
        let has_owner = options.uid.is_some() || options.gid.is_some() || options.mode.is_some();
        if selector.is_empty() && is_cache && has_owner {
            source = Some(self.cache_root(place, options, source));
            CACHE_ROOT.clone_into(&mut selector);
        }
        let kind = if is_cache { MountKind::Cache(self.cache(options)) } else { MountKind::Bind };
        let mount = Mount { selector, ..plain(dest, options.readonly, kind) };
        Ok(PlacedMount { source, mount })
    }

    fn cache(&self, options: &mount::Mount) -> CacheMount {
        let namespace =
            self.cx.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map_or("", String::as_str);
        let id = options
            .id
            .clone()
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| default_cache_id(&options.target));
        CacheMount {
            id: format!("{namespace}/{id}"),
            sharing: match options.sharing {
                Sharing::Shared => CacheSharing::Shared,
                Sharing::Private => CacheSharing::Private,
                Sharing::Locked => CacheSharing::Locked,
            },
        }
    }

    /// A tree with the first state of a cache directory that has an owner or mode of its own.
    fn cache_root(&mut self, place: Place, options: &mount::Mount, base: Option<Edge>) -> Edge {
        let action = MkdirAction {
            path: CACHE_ROOT.to_owned(),
            mode: i32::try_from(options.mode.unwrap_or(0o755) & 0o7777).unwrap_or(0o755),
            make_parents: false,
            owner: Some(Owner {
                user: Some(UserId::Id(options.uid.unwrap_or(0))),
                group: Some(UserId::Id(options.gid.unwrap_or(0))),
            }),
            timestamp: -1,
        };
        let input = if base.is_some() { FileInput::Input(0) } else { FileInput::Scratch };
        let op = FileOp {
            actions: vec![FileAction {
                input,
                secondary_input: FileInput::Scratch,
                output: Some(0),
                kind: FileActionKind::Mkdir(action),
            }],
        };
        let inputs = base.into_iter().collect();
        self.add_internal(place, "setting cache mount permissions", Op::File(op), inputs)
    }

    fn secret(
        &self,
        place: Place,
        options: &mount::Mount,
        mounts: &mut Mounts,
    ) -> Result<(), ErrorKind> {
        let id = match options.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            None if options.target.is_empty() => return Err(ErrorKind::UnnamedSecret),
            None => paths::base_name(&options.target).to_owned(),
        };
        let optional = !options.required;
        self.cx.notes.secret(self.id, &id, options.required, place.lines);
        if let Some(name) = &options.env {
            mounts.secret_env.push(SecretEnv { id: id.clone(), name: name.clone(), optional });
        }
        let dest = if !options.target.is_empty() {
            self.mount_target(&options.target)?
        } else if options.env.is_none() {
            self.mount_target(&format!("/run/secrets/{}", paths::base_name(&id)))?
        } else {
            return Ok(());
        };
        let secret = SecretMount {
            id,
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            mode: options.mode.unwrap_or(0o400),
            optional,
        };
        mounts.mounts.push(PlacedMount {
            source: None,
            mount: plain(dest, true, MountKind::Secret(secret)),
        });
        Ok(())
    }

    fn ssh(
        &self,
        place: Place,
        options: &mount::Mount,
        mounts: &mut Mounts,
    ) -> Result<(), ErrorKind> {
        let dest = if options.target.is_empty() {
            format!("/run/buildkit/ssh_agent.{}", mounts.ssh_sockets.len())
        } else {
            self.mount_target(&options.target)?
        };
        let ssh = SshMount {
            id: options
                .id
                .clone()
                .filter(|id| !id.is_empty())
                .unwrap_or_else(|| "default".to_owned()),
            uid: options.uid.unwrap_or(0),
            gid: options.gid.unwrap_or(0),
            mode: options.mode.unwrap_or(0o600),
            optional: !options.required,
        };
        self.cx.notes.ssh(self.id, &ssh.id, options.required, place.lines);
        mounts.ssh_sockets.push(dest.clone());
        mounts
            .mounts
            .push(PlacedMount { source: None, mount: plain(dest, true, MountKind::Ssh(ssh)) });
        Ok(())
    }
}

/// Identity of a cache that has none: its target as written, cleaned.
fn default_cache_id(target: &str) -> String {
    let clean = paths::clean(target);
    match (target.starts_with('/'), clean.strip_prefix('/')) {
        (false, Some("")) => ".".to_owned(),
        (false, Some(relative)) => relative.to_owned(),
        _ => clean,
    }
}
