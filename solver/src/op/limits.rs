//! The control group of a step that has limits.

use std::time::SystemTime;

use llb::Event;
use llb::op::ExecOp;
use sandbox::{Cgroup, CgroupError, Cgroups};

use crate::error::{OpError, chain};
use crate::solve::Solve;

/// Makes the group of a step; `None` when it has no limits, or when the machine lets this process have none, which is told in the
/// output of the step.
pub(crate) fn group(
    solve: &Solve<'_>,
    vertex: usize,
    exec: &ExecOp,
) -> Result<Option<Cgroup>, OpError> {
    let limits = &solve.job.engine.options.resources;
    let parent = Some(exec.meta.cgroup_parent.as_str()).filter(|parent| !parent.is_empty());
    if limits.is_empty() && parent.is_none() {
        return Ok(None);
    }
    let machine = Cgroups::look().map_err(|source| OpError::Io {
        action: "look for control groups in",
        path: "/proc/self".into(),
        source,
    })?;
    match machine.create(parent, limits) {
        Ok(group) => Ok(Some(group)),
        Err(error) if error.is_of_machine() => {
            tell(solve, vertex, &error);
            Ok(None)
        }
        Err(error) => Err(OpError::Cgroup(error)),
    }
}

fn tell(solve: &Solve<'_>, vertex: usize, error: &CgroupError) {
    let text = format!(
        "WARNING: the step runs without the limits that were asked for: {}; a control group that this user may \
         write is needed, for example of `systemd-run --user --scope -p Delegate=yes`, or one named with --cgroup-parent\n",
        chain(error)
    );
    let (vertex, at) = (solve.shown(vertex), SystemTime::now());
    solve.job.events.send(Event::Log { vertex, stream: 2, data: text.into_bytes(), at });
}

/// What to do about a step that was out of memory.
pub(crate) fn memory_hint(solve: &Solve<'_>) -> String {
    let limit = match solve.job.engine.options.resources.memory {
        Some(bytes) => format!("its limit of {bytes} bytes (--resource memory=)"),
        None => "the limit of its control group".to_owned(),
    };
    format!(
        "the kernel killed a process of the step at {limit}: raise it, or have the step do less at once"
    )
}
