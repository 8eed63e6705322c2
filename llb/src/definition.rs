//! The graph: vertices, edges, and what is said about them without being part of their identity.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Digest, Op, Platform};

/// One output of one vertex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Index into [`Definition::vertices`].
    pub vertex: usize,
    /// Output of that vertex.
    pub output: usize,
}

/// An operation with its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vertex {
    /// What is done.
    pub op: Op,
    /// What it is done to; only vertices with smaller indexes.
    pub inputs: Vec<Edge>,
    /// For which platform; `None` for ops that do not depend on it.
    pub platform: Option<Platform>,
    /// Name of the vertex: sha256 of the deterministic encoding of the above.
    pub digest: Digest,
    /// What is not part of the digest.
    pub metadata: VertexMetadata,
}

/// What is known of a vertex without being part of its digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VertexMetadata {
    /// Run it even if the cache has a result.
    pub ignore_cache: bool,
    /// Name shown to the user, such as `[build 2/4] RUN make`.
    pub name: String,
    /// Further descriptions by key, such as `com.docker.dockerfile.v1.command`.
    pub description: BTreeMap<String, String>,
    /// Name of the stage it belongs to, for `--no-cache-filter` and messages.
    pub stage: Option<String>,
    /// Where it comes from, innermost first.
    pub sources: Vec<SourceRange>,
}

impl VertexMetadata {
    /// Bytes of all texts but the source files, which vertices share.
    fn size(&self) -> usize {
        let described = self.description.iter().map(|(key, text)| key.len() + text.len());
        self.name.len() + self.stage.as_ref().map_or(0, String::len) + described.sum::<usize>()
    }
}

/// Lines of a source file, 1-based and inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRange {
    /// The file.
    pub info: Arc<SourceInfo>,
    /// First line.
    pub start: usize,
    /// Last line.
    pub end: usize,
}

/// A source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// Name as given by the user.
    pub filename: String,
    /// Content.
    pub text: String,
}

/// A graph of vertices in which every vertex comes after its inputs.
///
/// No two vertices have one digest, except that one which ignores the cache never stands for one that
/// does not: they, and what is built upon them, stay apart.
///
/// Built with [`Definition::add`] only, which is what keeps it acyclic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Definition {
    vertices: Vec<Vertex>,
    known: BTreeMap<(Digest, bool, Vec<Edge>), usize>,
    /// Bytes of all ops and what is said about them.
    size: usize,
    /// The output that is wanted; `None` is an empty file tree.
    pub result: Option<Edge>,
}

impl Definition {
    /// Adds a vertex, or finds the one with the same op, inputs, platform and wish to ignore the cache, whose
    /// metadata is kept.
    ///
    /// # Panics
    /// When an input does not exist yet.
    pub fn add(
        &mut self,
        op: Op,
        inputs: Vec<Edge>,
        platform: Option<Platform>,
        metadata: VertexMetadata,
    ) -> usize {
        for edge in &inputs {
            assert!(
                edge.vertex < self.vertices.len(),
                "inputs are added before the vertices that use them"
            );
        }
        let digests: Vec<(Digest, usize)> =
            inputs.iter().map(|edge| (self.vertices[edge.vertex].digest, edge.output)).collect();
        let encoded = crate::pb::encode_op(&op, &digests, platform.as_ref());
        let digest = Digest::of(&encoded);
        let key = (digest, metadata.ignore_cache, inputs.clone());
        if let Some(&index) = self.known.get(&key) {
            return index;
        }
        let index = self.vertices.len();
        self.known.insert(key, index);
        self.size += encoded.len() + metadata.size();
        self.vertices.push(Vertex { op, inputs, platform, digest, metadata });
        index
    }

    /// Bytes of all ops and what is said about them, as a measure of the memory it takes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// All vertices, inputs before users.
    pub fn vertices(&self) -> &[Vertex] {
        &self.vertices
    }

    /// The vertex with this index.
    pub fn vertex(&self, index: usize) -> &Vertex {
        &self.vertices[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::SourceOp;

    #[test]
    fn equal_vertices_are_one_unless_one_ignores_the_cache() {
        let mut definition = Definition::default();
        let source = |name: &str| {
            Op::Source(SourceOp { identifier: name.to_owned(), attrs: BTreeMap::new() })
        };
        let mut add = |name: &str, ignore_cache| {
            let metadata = VertexMetadata { ignore_cache, ..VertexMetadata::default() };
            definition.add(source(name), Vec::new(), None, metadata)
        };
        assert_eq!(
            (add("local://a", false), add("local://b", false), add("local://a", true)),
            (0, 1, 2)
        );
        assert_eq!((add("local://a", false), add("local://a", true)), (0, 2));
        let mut above = |vertex| {
            definition.add(
                Op::Merge,
                vec![Edge { vertex, output: 0 }],
                None,
                VertexMetadata::default(),
            )
        };
        assert_eq!((above(0), above(2), above(0)), (3, 4, 3));
    }
}
