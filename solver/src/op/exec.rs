//! `RUN`: prepares the root, runs the process in the sandbox, keeps what it changed as a layer.
//!
//! Mount points and the working directory are made in the step's own layer before the sandbox starts, and
//! those that the step left empty are taken out again afterwards, so that they leave no trace.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::SystemTime;

use cache::{LayerMeta, Ref, Workspace, WorkspaceKind, WorkspaceRoot};
use llb::event::Event;
use llb::op::{ExecOp, MountKind, NetworkMode, SecurityMode};
use llb::{Edge, Platform};
use rustix::fs::StatVfsMountFlags;
use sandbox::{
    Cgroup, Credentials, Environment, ExecReason, Exit, Network, Proxies, ResolverOverrides,
    Resource, Rlimit, Root, SandboxError, Security, Spec, Tier,
};
use tree::draft::Stub;
use tree::passwd::StepUser;
use zeroize::Zeroizing;

use crate::error::OpError;
use crate::guard;
use crate::op::mounts::{Held, prepare, take_caches};
use crate::op::{foreign, limits, output, plain};
use crate::solve::Solve;
use crate::value::Value;

/// Runs the step; `log` gets the last lines that it wrote.
pub(crate) fn execute(
    solve: &Solve<'_>,
    vertex: usize,
    exec: &ExecOp,
    log: &mut Vec<String>,
) -> Result<Vec<Value>, OpError> {
    refuse_unsupported(exec)?;
    let tier = solve.job.tier()?;
    plain::refuse(tier, exec)?;
    let root = exec.mounts.iter().find(|mount| mount.dest == "/");
    let parent = match root.and_then(|mount| mount.input) {
        Some(input) => super::tree(solve, solve.value(input_edge(solve, vertex, input)?)?)?,
        None => Ref::scratch(),
    };
    let lower = parent.stack()?;
    let user = tree::passwd::step_user(&lower, &exec.meta.user)
        .map_err(|error| process_error(exec, error.to_string(), None, None))?;
    let mut step = Step {
        workspace: (solve.job.engine.store.workspace(&parent)?)
            .with_mount_points()
            .going_on(solve.is_in_root(vertex)),
        held: Held::default(),
        stubs: Vec::new(),
        user,
        tier,
    };
    take_caches(solve, vertex, exec, &mut step.held)?;
    tell_missing_devices(solve, vertex, exec);
    let group = limits::group(solve, vertex, exec)?;
    let began = SystemTime::now();
    let exit = loop {
        let kind = solve.job.engine.store.workspace_kind();
        let mut spec = step.spec(solve, vertex, exec)?;
        if kind == WorkspaceKind::Overlay && matches!(spec.root, Root::Dir(_)) {
            // Another step has changed the kind meanwhile: what is mounted on is to be made in the tree.
            continue;
        }
        spec.cgroups = group.as_ref().map(Cgroup::entrances).unwrap_or_default();
        match output::run(solve, vertex, &spec, log) {
            Err(OpError::Sandbox(SandboxError::OverlayRefused { source, .. }))
                if kind == WorkspaceKind::Overlay =>
            {
                use_plain_trees(solve, vertex, &source);
            }
            ended => {
                let platform = solve.definition.vertex(vertex).platform.as_ref();
                break ended.map_err(|error| start_error(solve, exec, platform, error, log))?;
            }
        }
    };
    let owner = (step.user.uid, step.user.gid);
    let Step { mut workspace, held, stubs, .. } = step;
    check_exit(solve, exec, exit, &workspace, (group.as_ref(), log))?;
    drop(group);
    doubt_if_full(solve, vertex, began);
    solve.check_folders(vertex);
    let mut draft = workspace.draft()?;
    draft.remove_stubs(stubs).map_err(OpError::File)?;
    if tier == Tier::SingleId {
        draft.own_new(owner).map_err(OpError::File)?;
    }
    drop(draft);
    guard::check(solve, vertex, || workspace.changes().map(Into::into))?;
    // The result that has it is saved next.
    let layer =
        workspace.commit_later(&LayerMeta::now(&solve.definition.vertex(vertex).metadata.name))?;
    drop(held);
    Ok(vec![Value::Tree(parent.push(layer))])
}

/// A step that is about to run.
struct Step {
    workspace: Workspace,
    held: Held,
    /// What was made for mounts alone.
    stubs: Vec<Stub>,
    user: StepUser,
    tier: Tier,
}

impl Step {
    /// Prepares the root and the mounts; once more after the kind of workspaces has changed.
    fn spec(&mut self, solve: &Solve<'_>, vertex: usize, exec: &ExecOp) -> Result<Spec, OpError> {
        let mut draft = self.workspace.draft()?;
        draft.ensure_cwd(&exec.meta.cwd, self.user.uid, self.user.gid).map_err(OpError::File)?;
        for target in ["/proc", "/dev", "/sys"] {
            draft.ensure_dir(target).map_err(OpError::File)?;
        }
        for target in ["/etc/resolv.conf", "/etc/hosts"] {
            self.stubs.extend(draft.ensure_file(target).map_err(OpError::File)?);
        }
        let mut mounts = Vec::new();
        for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
            if let Some(ready) = prepare(solve, vertex, mount, &mut self.held)? {
                let made = if ready.is_file {
                    draft.ensure_file(&mount.dest)
                } else {
                    draft.ensure_dir(&mount.dest)
                };
                self.stubs.extend(made.map_err(OpError::File)?);
                mounts.push(ready.mount);
            }
        }
        drop(draft);
        let insecure = exec.security == SecurityMode::Insecure;
        Ok(Spec {
            tier: self.tier,
            root: match self.workspace.root()? {
                WorkspaceRoot::Dir(path) => Root::Dir(path),
                WorkspaceRoot::Overlay { lowers, upper, work } => {
                    Root::Overlay { lowers, upper, work }
                }
            },
            mounts,
            args: exec.meta.args.clone(),
            env: environment(solve, exec, &self.user)?,
            cwd: PathBuf::from(&exec.meta.cwd),
            user: Credentials {
                uid: self.user.uid,
                gid: self.user.gid,
                groups: self.user.groups.clone(),
            },
            hostname: hostname(exec).to_owned(),
            network: if exec.network == NetworkMode::None { Network::None } else { Network::Host },
            security: if insecure { Security::Insecure } else { Security::Sandbox },
            rlimits: rlimits(exec),
            cgroups: Vec::new(),
            shm_size: shm_size(exec),
            hosts: hosts(exec)?,
            resolv_conf: resolv_conf(exec.network == NetworkMode::Host)?,
            another: solve.leads_to_step(vertex),
        })
    }
}

/// Has this and all later steps of the process work on plain trees, and says so once.
fn use_plain_trees(solve: &Solve<'_>, vertex: usize, why: &std::io::Error) {
    let store = &solve.job.engine.store;
    if store.set_workspace_kind(WorkspaceKind::PlainTree) == WorkspaceKind::PlainTree {
        return;
    }
    let text = format!(
        "WARNING: the file system of `{}` cannot be used for overlays ({why}): each RUN step works on a \
         full copy of its root, which is slower; choose a place on another file system with --root\n",
        store.root().display()
    );
    let (vertex, at) = (solve.shown(vertex), SystemTime::now());
    solve.job.events.send(Event::Log { vertex, stream: 2, data: text.into_bytes(), at });
}

/// Has the result of a step not be kept if the disk was full while it ran: a step may go on without what it could not
/// write.
fn doubt_if_full(solve: &Solve<'_>, vertex: usize, began: SystemTime) {
    let store = &solve.job.engine.store;
    if !store.was_full_since(began) {
        return;
    }
    solve.doubt(vertex);
    let disk = cache::FileSystem::of(store.root()).map(|disk| format!(" ({disk})"));
    let text = format!(
        "WARNING: the disk that holds the builder's state was full while this step ran{}: what it could not write may \
         be missing, so that its result is not kept for other builds\n",
        disk.unwrap_or_default()
    );
    let (vertex, at) = (solve.shown(vertex), SystemTime::now());
    solve.job.events.send(Event::Log { vertex, stream: 2, data: text.into_bytes(), at });
}

/// Says in the output of a step which of the devices that it asks for it does without.
fn tell_missing_devices(solve: &Solve<'_>, vertex: usize, exec: &ExecOp) {
    for device in &exec.cdi_devices {
        let text = format!(
            "WARNING: CDI devices are not supported: the step runs without `{}`, which is not required\n",
            device.name
        );
        let (vertex, at) = (solve.shown(vertex), SystemTime::now());
        solve.job.events.send(Event::Log { vertex, stream: 2, data: text.into_bytes(), at });
    }
}

/// The edge behind an input number of a mount.
pub(crate) fn input_edge(solve: &Solve<'_>, vertex: usize, input: usize) -> Result<Edge, OpError> {
    let edge = solve.definition.vertex(vertex).inputs.get(input).copied();
    edge.ok_or_else(|| OpError::NotSupported(format!("mount input {input} of a vertex without it")))
}

fn refuse_unsupported(exec: &ExecOp) -> Result<(), OpError> {
    if exec.mounts.iter().any(|mount| mount.dest != "/" && mount.output.is_some()) {
        return Err(OpError::NotSupported("keeping what a step writes to a mount".to_owned()));
    }
    Ok(())
}

fn hostname(exec: &ExecOp) -> &str {
    if exec.meta.hostname.is_empty() { sandbox::DEFAULT_HOSTNAME } else { &exec.meta.hostname }
}

fn hosts(exec: &ExecOp) -> Result<Vec<u8>, OpError> {
    let mut extra = Vec::new();
    for line in &exec.meta.extra_hosts {
        let address = line
            .ip
            .parse()
            .map_err(|_| OpError::NotSupported(format!("the address `{}` of a host", line.ip)))?;
        extra.push((line.host.clone(), address));
    }
    Ok(sandbox::hosts_file(hostname(exec), &extra))
}

fn resolv_conf(unfiltered: bool) -> Result<Vec<u8>, OpError> {
    let machine = sandbox::machine_resolver(unfiltered).map_err(|source| OpError::Io {
        action: "read",
        path: PathBuf::from("/etc/resolv.conf"),
        source,
    })?;
    Ok(sandbox::resolv_conf(&machine, unfiltered, &ResolverOverrides::default()))
}

fn shm_size(exec: &ExecOp) -> u64 {
    let tmpfs = exec.mounts.iter().find(|mount| mount.dest == "/dev/shm").map(|mount| &mount.kind);
    match tmpfs {
        Some(MountKind::Tmpfs { size }) if *size > 0 => size.unsigned_abs(),
        _ => sandbox::DEFAULT_SHM_SIZE,
    }
}

fn rlimits(exec: &ExecOp) -> Vec<Rlimit> {
    let limit = |value: i64| u64::try_from(value).ok();
    exec.meta
        .ulimits
        .iter()
        .filter_map(|ulimit| {
            let resource = Resource::from_name(&ulimit.name)?;
            Some(Rlimit { resource, soft: limit(ulimit.soft), hard: limit(ulimit.hard) })
        })
        .collect()
}

/// The environment of a step: what the Dockerfile says and what comes on top.
fn environment(
    solve: &Solve<'_>,
    exec: &ExecOp,
    user: &StepUser,
) -> Result<Vec<OsString>, OpError> {
    let mut secrets = Vec::new();
    for secret in &exec.secret_env {
        let value = secret_value(solve, &secret.id, secret.optional)?.unwrap_or_default();
        secrets.push((secret.name.clone(), value.to_vec()));
    }
    let proxy = exec.meta.proxy_env.clone().unwrap_or_default();
    let ssh = exec.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
    Ok(sandbox::complete_environment(&Environment {
        stage: &exec.meta.env,
        ssh_socket: ssh.map(|mount| mount.dest.as_str()),
        proxies: Proxies {
            http: proxy.http_proxy,
            https: proxy.https_proxy,
            ftp: proxy.ftp_proxy,
            no: proxy.no_proxy,
            all: proxy.all_proxy,
        },
        secrets: &secrets,
        home: user.home.to_str(),
    }))
}

/// The value of a secret; `None` when it was not given and need not be.
pub(crate) fn secret_value(
    solve: &Solve<'_>,
    id: &str,
    optional: bool,
) -> Result<Option<Zeroizing<Vec<u8>>>, OpError> {
    let value = solve.job.session.secret(id);
    let value = value.map_err(|source| OpError::Io {
        action: "read secret",
        path: PathBuf::from(id),
        source,
    })?;
    if value.is_none() && !optional {
        return Err(OpError::SecretNotFound { id: id.to_owned() });
    }
    Ok(value)
}

/// Arguments as one string, quoted as the reference quotes them.
fn quoted(exec: &ExecOp) -> String {
    let text = exec.meta.args.join(" ");
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn process_error(
    exec: &ExecOp,
    reason: String,
    code: Option<i32>,
    hint: Option<String>,
) -> OpError {
    OpError::Process { command: quoted(exec), reason, code, hint }
}

/// A program that cannot be started is the step's own failure, with the code that the reference gives it.
fn start_error(
    solve: &Solve<'_>,
    exec: &ExecOp,
    platform: Option<&Platform>,
    error: OpError,
    log: &mut Vec<String>,
) -> OpError {
    let OpError::Sandbox(SandboxError::Exec { reason, .. }) = &error else { return error };
    log.push(format!("unable to start container process: {error}"));
    let own = Platform::host();
    let foreign = foreign::explain(platform.unwrap_or(&own), reason);
    let mut text = format!("exit code: 1: {error}");
    if let Some(cause) = foreign.as_ref().and_then(|foreign| foreign.cause.as_ref()) {
        text = format!("{text}: {cause}");
    }
    let hint = foreign.map(|foreign| foreign.hint).or_else(|| start_hint(solve, exec, reason));
    process_error(exec, text, Some(1), hint)
}

/// What to do about a program that cannot be started.
fn start_hint(solve: &Solve<'_>, exec: &ExecOp, reason: &ExecReason) -> Option<String> {
    let root = rustix::fs::statvfs(solve.job.engine.store.root());
    let runs_nothing = root.is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::NOEXEC));
    let is_shell = exec.meta.args.first().is_some_and(|program| program == "/bin/sh");
    let hint = match reason {
        ExecReason::Missing { .. } if is_shell => {
            "the image has no shell, which a command without brackets needs: give the program and its \
             arguments as a list, `RUN [\"program\", \"argument\"]`, or begin from an image with a shell"
        }
        ExecReason::NotInPath => "is the program installed in this stage?",
        ExecReason::Missing { .. } => "is the program in this stage, under this path?",
        ExecReason::Denied if runs_nothing => {
            "the builder's state is on a file system that runs no programs (`noexec`): choose another place with --root"
        }
        ExecReason::Denied => "is the program executable for the user of this step?",
        _ => return None,
    };
    Some(hint.to_owned())
}

fn check_exit(
    solve: &Solve<'_>,
    exec: &ExecOp,
    exit: Exit,
    workspace: &Workspace,
    (group, log): (Option<&Cgroup>, &[String]),
) -> Result<(), OpError> {
    let code = exit.code;
    let is_valid = match &exec.meta.valid_exit_codes[..] {
        [] => code == 0,
        valid => valid.contains(&code),
    };
    if is_valid {
        return Ok(());
    }
    if group.is_some_and(Cgroup::was_out_of_memory) {
        let reason = format!("exit code: {code}: cannot allocate memory");
        return Err(process_error(exec, reason, Some(code), Some(limits::memory_hint(solve))));
    }
    let tier = solve.job.tier()?;
    let hint = plain::hint(tier, exec, log).or_else(|| exit_hint(code, workspace));
    Err(process_error(exec, format!("exit code: {code}"), Some(code), hint))
}

/// What may be behind a failure that the step's own output often does not tell.
fn exit_hint(code: i32, workspace: &Workspace) -> Option<String> {
    let upper = workspace.upper();
    // Asked for while what the step wrote is still there.
    if let Ok(disk) = cache::FileSystem::of(upper.path())
        && disk.is_full()
    {
        return Some(format!(
            "the disk that holds the builder's state is full ({disk}): free some space, for example \
             with `build prune`, or choose another place with --root"
        ));
    }
    match code {
        126 => Some("exit code 126: the program was found but cannot be executed".to_owned()),
        127 => Some(
            "exit code 127: a program was not found; is it installed in this stage?".to_owned(),
        ),
        137 => {
            Some("exit code 137: the process was killed, often because memory ran out".to_owned())
        }
        _ => None,
    }
}
