//! Questions about the shape of a definition.

use llb::op::FileInput;
use llb::{Definition, Edge, Op};
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

/// The definition as a graph whose edges run from an input to its user; node `n` is vertex `n`.
pub(crate) fn graph(definition: &Definition) -> DiGraph<(), ()> {
    let mut graph =
        DiGraph::with_capacity(definition.vertices().len(), definition.vertices().len());
    for _ in definition.vertices() {
        graph.add_node(());
    }
    for (user, vertex) in definition.vertices().iter().enumerate() {
        for edge in &vertex.inputs {
            graph.update_edge(NodeIndex::new(edge.vertex), NodeIndex::new(user), ());
        }
    }
    graph
}

/// For each vertex the vertices that it uses, each once.
pub(crate) fn dependencies(definition: &Definition) -> Vec<Vec<usize>> {
    let graph = graph(definition);
    graph
        .node_indices()
        .map(|node| {
            graph.neighbors_directed(node, Direction::Incoming).map(NodeIndex::index).collect()
        })
        .collect()
}

/// For each vertex whether a step may need the files that it makes in folders: one runs upon them, or mounts
/// them, or upon what is built upon them.
pub(crate) fn in_folders(definition: &Definition) -> Vec<bool> {
    let mut needed = vec![false; definition.vertices().len()];
    for (user, vertex) in definition.vertices().iter().enumerate().rev() {
        for (number, edge) in vertex.inputs.iter().enumerate() {
            needed[edge.vertex] |= match &vertex.op {
                Op::Exec(_) | Op::Diff { .. } => true,
                Op::Merge => needed[user],
                Op::File(file) => {
                    let base = FileInput::Input(number);
                    needed[user] && file.actions.iter().any(|action| action.input == base)
                }
                Op::Source(_) => false,
            };
        }
    }
    needed
}

/// All vertices that a vertex depends on, inputs first, without itself.
pub(crate) fn ancestors(definition: &Definition, vertex: usize) -> Vec<usize> {
    let mut seen = vec![false; vertex + 1];
    let mut stack = vec![vertex];
    while let Some(next) = stack.pop() {
        for edge in &definition.vertex(next).inputs {
            if !std::mem::replace(&mut seen[edge.vertex], true) {
                stack.push(edge.vertex);
            }
        }
    }
    (0..vertex).filter(|&index| seen[index]).collect()
}
/// For each vertex whether a RUN step builds upon it.
pub(crate) fn below_steps(definition: &Definition) -> Vec<bool> {
    let mut below = vec![false; definition.vertices().len()];
    let steps = definition.vertices().iter().filter(|vertex| matches!(vertex.op, Op::Exec(_)));
    let mut open: Vec<usize> =
        steps.flat_map(|step| step.inputs.iter().map(|edge| edge.vertex)).collect();
    while let Some(vertex) = open.pop() {
        if !std::mem::replace(&mut below[vertex], true) {
            open.extend(definition.vertex(vertex).inputs.iter().map(|edge| edge.vertex));
        }
    }
    below
}

/// For each vertex whether the root of a RUN step has the layers that it makes.
pub(crate) fn in_roots(definition: &Definition) -> Vec<bool> {
    let mut open = Vec::new();
    for step in definition.vertices() {
        if let Op::Exec(exec) = &step.op {
            let root = exec.mounts.iter().find(|mount| mount.dest == "/");
            open.extend(root.and_then(|root| step.inputs.get(root.input?)).copied());
        }
    }
    in_layers(definition, open)
}

/// For each vertex whether the layers that it makes are layers of a target.
pub(crate) fn in_targets(definition: &Definition, targets: &[Edge]) -> Vec<bool> {
    in_layers(definition, targets.to_vec())
}

/// For each vertex whether the layers that it makes are layers of one of these.
fn in_layers(definition: &Definition, mut open: Vec<Edge>) -> Vec<bool> {
    let mut found = vec![false; definition.vertices().len()];
    while let Some(edge) = open.pop() {
        if std::mem::replace(&mut found[edge.vertex], true) {
            continue;
        }
        let vertex = definition.vertex(edge.vertex);
        let below = vertex.inputs.iter().enumerate().filter(|(number, _)| match &vertex.op {
            Op::Exec(exec) => {
                exec.mounts.iter().any(|mount| mount.dest == "/" && mount.input == Some(*number))
            }
            Op::File(file) => {
                let base = FileInput::Input(*number);
                file.actions.iter().any(|action| action.input == base)
            }
            Op::Merge => true,
            Op::Diff { .. } | Op::Source(_) => false,
        });
        open.extend(below.map(|(_, edge)| *edge));
    }
    found
}
