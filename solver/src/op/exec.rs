//! `RUN`: prepares the root, runs the process in the sandbox, keeps what it changed as a layer.
//!
//! Mount points and the working directory are made in the step's own layer before the sandbox starts, and
//! those that the step left empty are taken out again afterwards, so that they leave no trace.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use cache::{CacheMountInit, Ref, Sharing, Workspace};
use llb::event::Event;
use llb::op::{CacheSharing, ExecOp, Mount, MountKind, NetworkMode, SecurityMode};
use sandbox::{Credentials, Network, Root, Security, Spec};
use tree::draft::Stub;

use crate::error::OpError;
use crate::op::source;
use crate::solve::Solve;
use crate::value::Value;

/// Lines of output kept for the report of a failure.
const TAIL_LINES: usize = 200;

/// Things that must outlive the process: locks of cache mounts, scratch layers of writable binds.
#[derive(Default)]
struct Held {
    caches: Vec<cache::CacheMount>,
    scratch: Vec<Workspace>,
}

/// Runs the step.
pub(crate) fn execute(
    solve: &Solve<'_>,
    vertex: usize,
    exec: &ExecOp,
    log: &mut Vec<String>,
) -> Result<Vec<Value>, OpError> {
    refuse_unsupported(solve, exec)?;
    let root = exec.mounts.iter().find(|mount| mount.dest == "/");
    let parent = match root.and_then(|mount| mount.input) {
        Some(input) => super::tree(solve, solve.value(edge(solve, vertex, input)?)?)?,
        None => Ref::scratch(),
    };
    let lower = parent.stack()?;
    let mut workspace = solve.job.engine.store.workspace(&parent)?;
    let user = tree::passwd::step_user(&lower, &exec.meta.user).map_err(|error| OpError::Process {
        command: quoted(&exec.meta.args),
        reason: error.to_string(),
        code: None,
    })?;
    let mut held = Held::default();
    let mut mounts = Vec::new();
    let mut extra_env = Vec::new();
    let mut draft = workspace.draft()?;
    draft.ensure_cwd(&exec.meta.cwd, user.uid, user.gid).map_err(OpError::File)?;
    let mut stubs = Vec::new();
    for target in ["/proc", "/dev", "/sys"] {
        draft.ensure_dir(target).map_err(OpError::File)?;
    }
    for target in ["/etc/resolv.conf", "/etc/hosts"] {
        stubs.extend(draft.ensure_file(target).map_err(OpError::File)?);
    }
    for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
        if let Some((mount, is_file)) = sandbox_mount(solve, vertex, exec, mount, &mut held, &mut extra_env)? {
            let made = if is_file { draft.ensure_file(&mount.target) } else { draft.ensure_dir(&mount.target) };
            stubs.extend(made.map_err(OpError::File)?);
            mounts.push(mount);
        }
    }
    drop(draft);
    let spec = Spec {
        root: root_of(&workspace)?,
        mounts,
        args: exec.meta.args.clone(),
        env: environment(solve, exec, &user, extra_env)?,
        cwd: PathBuf::from(&exec.meta.cwd),
        user: Credentials { uid: user.uid, gid: user.gid, groups: user.groups.clone() },
        hostname: hostname(exec).to_owned(),
        network: if exec.network == NetworkMode::None { Network::None } else { Network::Host },
        security: if exec.security == SecurityMode::Insecure { Security::Insecure } else { Security::Sandbox },
        rlimits: exec.meta.ulimits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard)).collect(),
        shm_size: shm_size(exec),
        hosts: sandbox::hosts_file(hostname(exec), &hosts(exec)),
        resolv_conf: resolv_conf(exec.network)?,
    };
    let outcome = run(solve, vertex, &spec, log)?;
    check_exit(exec, outcome)?;
    finish(&mut workspace, stubs)?;
    let layer = workspace.commit()?;
    let tree = Value::Tree(parent.push(layer));
    drop(held);
    Ok(vec![tree])
}
