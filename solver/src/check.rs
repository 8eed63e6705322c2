//! Refuses definitions that no builder could run, before anything is done.
//!
//! A definition may come from outside; what is behind this may rely on every number in it: inputs, outputs
//! and actions that are named exist, and no file action uses itself or a later one.

use llb::op::{ExecOp, FileAction, FileActionKind, FileInput, FileOp, MountKind, Owner, UserId};
use llb::{Definition, Edge, Op, Vertex};

use crate::error::OpError;

/// Checks all vertices, and that the targets exist.
///
/// # Errors
/// The first vertex that is wrong, by its index.
pub(crate) fn definition(
    definition: &Definition,
    targets: &[Edge],
) -> Result<(), (usize, OpError)> {
    let vertices = definition.vertices();
    for (index, vertex) in vertices.iter().enumerate() {
        let fail = |message: String| (index, OpError::Invalid(message));
        for (number, edge) in vertex.inputs.iter().enumerate() {
            let known = vertices[..index].get(edge.vertex);
            if known.is_none_or(|input| edge.output >= outputs(input)) {
                return Err(fail(format!("input {number} is not made by any vertex before")));
            }
        }
        let outcome = match &vertex.op {
            Op::File(file) => check_file(file, vertex.inputs.len()),
            Op::Exec(exec) => {
                check_devices(exec).map_err(|error| (index, error))?;
                check_exec(exec, vertex.inputs.len())
            }
            Op::Source(_) | Op::Merge | Op::Diff { .. } => Ok(()),
        };
        outcome.map_err(fail)?;
    }
    for target in targets {
        if vertices.get(target.vertex).is_none_or(|vertex| target.output >= outputs(vertex)) {
            let message = "the result is not made by any vertex".to_owned();
            return Err((target.vertex, OpError::Invalid(message)));
        }
    }
    Ok(())
}

/// Refuses a device that a step cannot do without: there are none. Those that it can do without are left out.
fn check_devices(exec: &ExecOp) -> Result<(), OpError> {
    let required = exec.cdi_devices.iter().find(|device| !device.optional);
    required.map_or(Ok(()), |device| Err(OpError::Device { name: device.name.clone() }))
}

/// How many outputs a vertex has.
fn outputs(vertex: &Vertex) -> usize {
    match &vertex.op {
        Op::File(file) => file.actions.iter().filter(|action| action.output.is_some()).count(),
        Op::Source(_) | Op::Exec(_) | Op::Merge | Op::Diff { .. } => 1,
    }
}

fn check_file(file: &FileOp, inputs: usize) -> Result<(), String> {
    let mut outputs: Vec<usize> = file.actions.iter().filter_map(|action| action.output).collect();
    outputs.sort_unstable();
    if outputs.iter().enumerate().any(|(number, output)| number != *output) {
        return Err("the outputs of a file op are not counted from 0".to_owned());
    }
    for (index, action) in file.actions.iter().enumerate() {
        for input in inputs_of(action) {
            match input {
                FileInput::Input(input) if input >= inputs => {
                    return Err(format!("file action {index} uses input {input} of {inputs}"));
                }
                FileInput::Action(earlier) if earlier >= index => {
                    return Err(format!("file action {index} uses action {earlier}"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Everything that an action uses.
pub(crate) fn inputs_of(action: &FileAction) -> impl Iterator<Item = FileInput> {
    let names = owner(action).into_iter().flat_map(|owner| [&owner.user, &owner.group]);
    let names = names.flatten().filter_map(|id| match id {
        UserId::Name { input, .. } => Some(*input),
        UserId::Id(_) => None,
    });
    [action.input, action.secondary_input].into_iter().chain(names)
}

/// The owner that an action gives.
pub(crate) fn owner(action: &FileAction) -> Option<&Owner> {
    match &action.kind {
        FileActionKind::Copy(copy) => copy.owner.as_ref(),
        FileActionKind::Mkfile(make) => make.owner.as_ref(),
        FileActionKind::Mkdir(make) => make.owner.as_ref(),
        FileActionKind::Symlink(link) => link.owner.as_ref(),
        FileActionKind::Rm(_) => None,
    }
}

fn check_exec(exec: &ExecOp, inputs: usize) -> Result<(), String> {
    let mut roots = 0;
    for mount in &exec.mounts {
        if mount.input.is_some_and(|input| input >= inputs) {
            return Err(format!("the mount at `{}` uses an input of {inputs}", mount.dest));
        }
        if mount.dest == "/" {
            roots += 1;
            let is_plain = mount.kind == MountKind::Bind && mount.selector.is_empty();
            if roots > 1 || !is_plain || mount.output.is_some_and(|output| output != 0) {
                return Err("a root that is not one whole tree, kept as output 0".to_owned());
            }
        }
    }
    Ok(())
}
