//! A whole definition, as a BuildKit daemon takes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;

use super::{encode_op, wire};
use crate::{Definition, Digest, SourceInfo, SourceRange, Vertex};

/// Key of the description that holds the name of a vertex.
const NAME: &str = "llb.customname";

/// Encodes what the result of a definition needs, as `pb.Definition`; empty bytes when there is no result.
///
/// The last op has no content and one input: the result.
pub fn encode_definition(definition: &Definition) -> Vec<u8> {
    let Some(result) = definition.result else { return Vec::new() };
    let mut message = wire::Definition::default();
    let mut source = wire::Source::default();
    let mut infos: Vec<Arc<SourceInfo>> = Vec::new();
    for index in needed(definition, result.vertex) {
        let vertex = definition.vertex(index);
        message.def.push(encode_op(
            &vertex.op,
            &inputs(definition, vertex),
            vertex.platform.as_ref(),
        ));
        let digest = vertex.digest.to_string();
        message.metadata.insert(digest.clone(), metadata(vertex));
        let locations = vertex.metadata.sources.iter().map(|range| location(range, &mut infos));
        source.locations.insert(digest, wire::Locations { locations: locations.collect() });
    }
    source.infos = infos.iter().map(|info| source_info(info)).collect();
    message.source = Some(source);
    let digest = definition.vertex(result.vertex).digest.to_string();
    let input = wire::Input { digest, index: i64::try_from(result.output).unwrap_or(i64::MAX) };
    message.def.push(wire::Op { inputs: vec![input], ..wire::Op::default() }.encode_to_vec());
    message.encode_to_vec()
}

/// The vertex and everything it depends on, inputs before users.
fn needed(definition: &Definition, vertex: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![vertex];
    while let Some(index) = open.pop() {
        if needed.insert(index) {
            open.extend(definition.vertex(index).inputs.iter().map(|edge| edge.vertex));
        }
    }
    needed
}

fn inputs(definition: &Definition, vertex: &Vertex) -> Vec<(Digest, usize)> {
    vertex.inputs.iter().map(|edge| (definition.vertex(edge.vertex).digest, edge.output)).collect()
}

fn metadata(vertex: &Vertex) -> wire::OpMetadata {
    let mut description = vertex.metadata.description.clone();
    if !vertex.metadata.name.is_empty() {
        description.insert(NAME.to_owned(), vertex.metadata.name.clone());
    }
    wire::OpMetadata { ignore_cache: vertex.metadata.ignore_cache, description }
}

/// A place in one of `infos`, which grows by its file if need be.
fn location(range: &SourceRange, infos: &mut Vec<Arc<SourceInfo>>) -> wire::Location {
    let known = infos.iter().position(|info| Arc::ptr_eq(info, &range.info) || *info == range.info);
    let index = known.unwrap_or_else(|| {
        infos.push(Arc::clone(&range.info));
        infos.len() - 1
    });
    let position = |line| Some(wire::Position { line: to_i32(line), character: 0 });
    let range = wire::Range { start: position(range.start), end: position(range.end) };
    wire::Location { source_index: to_i32(index), ranges: vec![range] }
}

fn source_info(info: &SourceInfo) -> wire::SourceInfo {
    wire::SourceInfo {
        filename: info.filename.clone(),
        data: info.text.clone().into_bytes(),
        language: "Dockerfile".to_owned(),
    }
}

fn to_i32(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
