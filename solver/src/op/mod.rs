//! What each kind of op does. A new op is a new file here and an arm in [`execute`].

pub(crate) mod agent;
mod exec;
pub(crate) mod file;
mod foreign;
mod limits;
pub(crate) mod missing;
pub(crate) mod mounts;
pub(crate) mod output;
mod plain;
mod reuse;
pub(crate) mod source;

use std::io;
use std::path::Path;

use llb::Op;
use rustix::io::Errno;

use crate::error::OpError;
use crate::solve::Solve;
use crate::value::Value;

/// Runs a vertex whose inputs are all there; `log` gets the last lines that it wrote.
pub(crate) fn execute(
    solve: &Solve<'_>,
    vertex: usize,
    log: &mut Vec<String>,
) -> Result<Vec<Value>, OpError> {
    match &solve.definition.vertex(vertex).op {
        Op::Source(source) => Ok(vec![solve.source_value(vertex, source)?]),
        Op::Exec(exec) => exec::execute(solve, vertex, exec, log),
        Op::File(file) => file::execute(solve, vertex, file),
        Op::Merge => merge(solve, vertex),
        Op::Diff { .. } => Err(OpError::NotSupported("the diff op".to_owned())),
    }
}

/// Layers are independent of what lies below them, so a merge is their concatenation.
fn merge(solve: &Solve<'_>, vertex: usize) -> Result<Vec<Value>, OpError> {
    let mut references = Vec::new();
    for edge in &solve.definition.vertex(vertex).inputs {
        references.push(tree(solve, solve.value(*edge)?)?);
    }
    Ok(vec![Value::Tree(cache::Ref::concat(&references))])
}

/// Gives a path that a step has mounted an owner, if that is an id of the user namespace that this may run in.
///
/// Where it is not, steps have no other id either.
fn own(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    match std::os::unix::fs::chown(path, Some(uid), Some(gid)) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// The value as layers; a context is copied into one.
pub(crate) fn tree(solve: &Solve<'_>, value: &Value) -> Result<cache::Ref, OpError> {
    match value {
        Value::Tree(reference) => Ok(reference.clone()),
        Value::Context(..) | Value::Archive(_) => source::materialise(solve.job, value, "/"),
    }
}
