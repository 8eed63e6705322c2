//! A whole definition, as a BuildKit daemon takes it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use prost::Message as _;

use super::schema::DEFINITION;
use super::{DecodeError, Decoded, decode_op, encode_op, wire};
use crate::{Definition, Digest, Edge, SourceInfo, SourceRange, Vertex, VertexMetadata};

/// Key of the description that holds the name of a vertex.
const NAME: &str = "llb.customname";

/// Key of the description that holds the name of its stage.
const STAGE: &str = "bricklayer.stage";

/// Encodes what the result of a definition needs, as `pb.Definition`; empty bytes when there is no result.
///
/// The last op has no content and one input: the result. Two vertices that differ only in whether they ignore the
/// cache are one op there, which ignores it.
pub fn encode_definition(definition: &Definition) -> Vec<u8> {
    message(definition).encode_to_vec()
}

/// The message of a definition; an empty one when there is no result.
pub(super) fn message(definition: &Definition) -> wire::Definition {
    let mut message = wire::Definition::default();
    let Some(result) = definition.result else { return message };
    let mut source = wire::Source::default();
    let mut infos: Vec<Arc<SourceInfo>> = Vec::new();
    for index in needed(definition, result.vertex) {
        let vertex = definition.vertex(index);
        let digest = vertex.digest.to_string();
        if let Some(known) = message.metadata.get_mut(&digest) {
            known.ignore_cache |= vertex.metadata.ignore_cache;
            continue;
        }
        let inputs = inputs(definition, vertex);
        message.def.push(encode_op(&vertex.op, &inputs, vertex.platform.as_ref()));
        message.metadata.insert(digest.clone(), metadata(vertex));
        let locations = vertex.metadata.sources.iter().map(|range| location(range, &mut infos));
        source.locations.insert(digest, wire::Locations { locations: locations.collect() });
    }
    source.infos = infos.iter().map(|info| source_info(info)).collect();
    message.source = Some(source);
    let digest = definition.vertex(result.vertex).digest.to_string();
    let input = wire::Input { digest, index: i64::try_from(result.output).unwrap_or(i64::MAX) };
    message.def.push(wire::Op { inputs: vec![input], ..wire::Op::default() }.encode_to_vec());
    message
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
    if let Some(stage) = &vertex.metadata.stage {
        description.insert(STAGE.to_owned(), stage.clone());
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

/// Decodes what [`encode_definition`] wrote, or a definition made elsewhere.
///
/// The result has the ops that the last one needs, inputs before users. An op made elsewhere may get another digest
/// than it had there: that of the same op as this crate encodes it. Capabilities, progress groups and columns of the
/// source map are read over: they say nothing of what is built.
///
/// # Errors
/// When the bytes are malformed, name ops that are not among them, or use what this builder does not know.
pub fn decode_definition(bytes: &[u8]) -> Result<Definition, DecodeError> {
    let mut definition = Definition::default();
    if bytes.is_empty() {
        return Ok(definition);
    }
    let message = wire::Definition::decode(bytes)?;
    DEFINITION.check(bytes)?;
    let (last, ops) = message.def.split_last().ok_or(DecodeError::Missing("def"))?;
    let about = about(message.metadata, message.source)?;
    let order: Vec<Digest> = ops.iter().map(|op| Digest::of(op)).collect();
    let ops: Vec<Decoded> = ops.iter().map(|op| decode_op(op)).collect::<Result<_, _>>()?;
    let ops = order.iter().copied().zip(ops).collect();
    let mut foreign = Foreign { ops, about, added: HashMap::new() };
    let (digest, output) = result(last)?;
    let needed = foreign.needed(digest)?;
    for digest in order.iter().filter(|digest| needed.contains(digest)) {
        foreign.add_to(&mut definition, *digest)?;
    }
    let vertex = foreign.vertex(&digest)?;
    definition.result = Some(Edge { vertex, output });
    Ok(definition)
}

/// The one input of the op that ends a definition.
fn result(bytes: &[u8]) -> Result<(Digest, usize), DecodeError> {
    super::schema::OP.check(bytes)?;
    let last = wire::Op::decode(bytes)?;
    match (last.op, last.inputs.as_slice()) {
        (None, [input]) => {
            Ok((input.digest.parse()?, super::decode::index("inputs.index", input.index)?))
        }
        _ => Err(DecodeError::Missing("result")),
    }
}

/// The parts of a definition by the digests that they have in it.
struct Foreign {
    ops: HashMap<Digest, Decoded>,
    about: HashMap<Digest, VertexMetadata>,
    /// Vertices that were made of them.
    added: HashMap<Digest, usize>,
}

impl Foreign {
    fn op(&self, digest: Digest) -> Result<&Decoded, DecodeError> {
        self.ops.get(&digest).ok_or(DecodeError::UnknownInput { digest })
    }

    fn vertex(&self, digest: &Digest) -> Result<usize, DecodeError> {
        self.added.get(digest).copied().ok_or(DecodeError::UnknownInput { digest: *digest })
    }

    /// An op and everything it depends on.
    fn needed(&self, wanted: Digest) -> Result<HashSet<Digest>, DecodeError> {
        let mut needed = HashSet::new();
        let mut open = vec![wanted];
        while let Some(digest) = open.pop() {
            if needed.insert(digest) {
                open.extend(self.op(digest)?.inputs.iter().map(|(input, _)| *input));
            }
        }
        Ok(needed)
    }

    /// Adds an op behind all that it depends on, unless it was added already.
    fn add_to(&mut self, definition: &mut Definition, wanted: Digest) -> Result<(), DecodeError> {
        let mut opened = HashSet::new();
        let mut open = vec![wanted];
        while let Some(digest) = open.pop() {
            if self.added.contains_key(&digest) {
                continue;
            }
            let inputs = &self.op(digest)?.inputs;
            if opened.insert(digest) {
                open.push(digest);
                open.extend(inputs.iter().rev().map(|(input, _)| *input));
                continue;
            }
            // All inputs are there by now: an op that depends on itself would have to hold its own digest.
            let edge = |(digest, output): &(Digest, usize)| {
                Ok(Edge { vertex: self.vertex(digest)?, output: *output })
            };
            let inputs = inputs.iter().map(edge).collect::<Result<_, DecodeError>>()?;
            let Decoded { op, platform, .. } = self.op(digest)?.clone();
            let metadata = self.about.remove(&digest).unwrap_or_default();
            self.added.insert(digest, definition.add(op, inputs, platform, metadata));
        }
        Ok(())
    }
}

/// Metadata by digest, with the places of the source map.
fn about(
    metadata: BTreeMap<String, wire::OpMetadata>,
    source: Option<wire::Source>,
) -> Result<HashMap<Digest, VertexMetadata>, DecodeError> {
    let mut about: HashMap<Digest, VertexMetadata> = HashMap::new();
    for (digest, metadata) in metadata {
        let mut description = metadata.description;
        let (name, stage) =
            (description.remove(NAME).unwrap_or_default(), description.remove(STAGE));
        let ignore_cache = metadata.ignore_cache;
        let sources = Vec::new();
        let metadata = VertexMetadata { ignore_cache, name, description, stage, sources };
        about.insert(digest.parse()?, metadata);
    }
    let wire::Source { locations, infos } = source.unwrap_or_default();
    let infos: Vec<Arc<SourceInfo>> = infos.into_iter().map(read_info).collect();
    for (digest, locations) in locations {
        let sources = &mut about.entry(digest.parse()?).or_default().sources;
        for location in locations.locations {
            let number = location.source_index;
            let info = usize::try_from(number).ok().and_then(|index| infos.get(index)).ok_or(
                DecodeError::UnknownValue { field: "locations.sourceIndex", value: number.into() },
            )?;
            for range in location.ranges {
                let (start, end) = (line(range.start)?, line(range.end)?);
                sources.push(SourceRange { info: Arc::clone(info), start, end });
            }
        }
    }
    Ok(about)
}

fn line(position: Option<wire::Position>) -> Result<usize, DecodeError> {
    super::decode::index("position.line", position.unwrap_or_default().line.into())
}

fn read_info(info: wire::SourceInfo) -> Arc<SourceInfo> {
    let text = match String::from_utf8(info.data) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    Arc::new(SourceInfo { filename: info.filename, text })
}
