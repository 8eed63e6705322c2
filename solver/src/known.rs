//! By which keys each vertex is known, and what the records say of them.
//!
//! A vertex's output has *lookup* keys, under which it and results of its users may be found, and a *save*
//! key, under which what is made now will be found later. Lookup keys are all that the records know: one
//! definition may have led to several contents, each with a key. The save key is the vertex's own, of the
//! most that is known of its inputs; what is made never gets the key of another content. A vertex that
//! ignores the cache has no lookup keys, and neither have its users unless content speaks for them, but
//! what is made is kept for the next build.
//!
//! Keys need no result: those of a whole graph are known before anything is built, which is what lets a
//! lookup start at the target. An input that counts by content is known early when it is the build
//! context, and else when it has been built.

use std::sync::OnceLock;

use cache::{Key, KeyBuilder, Link, Records};
use llb::{Definition, Edge, Op};

use crate::cache_key::{CacheMap, InputMap, cache_map};
use crate::error::OpError;
use crate::op::source::is_local;

/// Keys of one output of a vertex.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputKeys {
    /// Under which users may be found now.
    pub(crate) lookup: Vec<Key>,
    /// Under which it and its users will be found later; `None` when that is not known yet.
    pub(crate) save: Option<Key>,
}

/// Keys of a vertex.
#[derive(Debug, Clone, Default)]
pub(crate) struct VertexKeys {
    /// By output number.
    pub(crate) outputs: Vec<OutputKeys>,
    /// For each input, the keys it is saved under, with their selectors.
    pub(crate) parents: Vec<Vec<(Key, Key)>>,
    /// Whether some input was made afresh, so that a result found by its content is the newest again.
    pub(crate) renews: bool,
}

impl VertexKeys {
    /// The keys of a source, the best first.
    pub(crate) fn of_source(keys: Vec<Key>) -> Self {
        let outputs = vec![OutputKeys { save: keys.first().copied(), lookup: keys }];
        Self { outputs, ..Self::default() }
    }

    /// Takes the key under which a result was found, or made, as the only one of an output: the others may
    /// stand for other contents.
    pub(crate) fn choose(&mut self, output: usize, key: Key) {
        if let Some(output) = self.outputs.get_mut(output) {
            *output = OutputKeys { lookup: vec![key], save: Some(key) };
        }
    }

    /// The keys of what was made under the save keys.
    pub(crate) fn made(mut self) -> Self {
        for output in &mut self.outputs {
            output.lookup.retain(|key| Some(*key) == output.save);
        }
        self
    }
}

/// Gives what is not in the definition itself.
pub(crate) trait Facts {
    /// Finds out at once what can be asked about the sources among `vertices`, before their keys are wanted.
    ///
    /// # Errors
    /// When a source cannot be had; with its vertex.
    fn prepare(&self, vertices: &[usize]) -> Result<(), (usize, OpError)>;

    /// Keys of a source, such as those of an image's manifest and of its chain of layers.
    fn source_keys(&self, vertex: usize) -> Result<Vec<Key>, OpError>;

    /// Content key of an input, if its files are at hand without building anything.
    fn content_key(&self, user: usize, edge: Edge, map: &InputMap) -> Result<Option<Key>, OpError>;
}

/// Hashes what is selected of an input.
pub(crate) type ContentKey<'c> = dyn Fn(Edge, &InputMap) -> Result<Option<Key>, OpError> + 'c;

/// The selector of a key that stands for content.
fn content_selector() -> Key {
    KeyBuilder::new("content-selector.v1").finish()
}

/// Whether the key of an input stands for its content, by its selector.
pub(crate) fn is_content(selector: &Key) -> bool {
    *selector == content_selector()
}

/// What is known of each vertex of one solve.
pub(crate) struct Known<'a> {
    definition: &'a Definition,
    records: &'a dyn Records,
    maps: Vec<OnceLock<CacheMap>>,
    outputs: Vec<usize>,
    early: Vec<OnceLock<VertexKeys>>,
    late: Vec<OnceLock<VertexKeys>>,
}

impl<'a> Known<'a> {
    pub(crate) fn new(
        definition: &'a Definition,
        records: &'a dyn Records,
        targets: &[Edge],
    ) -> Self {
        let vertices = definition.vertices();
        let mut outputs = vec![1; vertices.len()];
        let uses = vertices.iter().flat_map(|vertex| &vertex.inputs).chain(targets);
        for edge in uses {
            outputs[edge.vertex] = outputs[edge.vertex].max(edge.output + 1);
        }
        Self {
            definition,
            records,
            maps: vertices.iter().map(|_| OnceLock::new()).collect(),
            outputs,
            early: vertices.iter().map(|_| OnceLock::new()).collect(),
            late: vertices.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// How the vertex is known.
    pub(crate) fn map(&self, vertex: usize) -> &CacheMap {
        self.maps[vertex].get_or_init(|| cache_map(self.definition.vertex(vertex)))
    }

    /// Keys of a vertex, as far as they can be known without building anything.
    ///
    /// # Errors
    /// When a file that the vertex or one below it selects is not there; with the vertex that wants it.
    pub(crate) fn early(
        &self,
        vertex: usize,
        facts: &dyn Facts,
    ) -> Result<&VertexKeys, (usize, OpError)> {
        let ancestors = self.ancestors(vertex);
        facts.prepare(&ancestors)?;
        for below in ancestors {
            if self.keys(below).is_none() {
                let keys =
                    self.compute(below, facts, &|edge, map| facts.content_key(below, edge, map));
                let keys = keys.map_err(|error| (below, error))?;
                let _ = self.early[below].set(keys);
            }
        }
        Ok(self.keys(vertex).unwrap_or_else(|| self.early[vertex].get_or_init(VertexKeys::default)))
    }

    /// Keys of a vertex whose inputs are all there; `content` hashes what is selected of an input.
    ///
    /// # Errors
    /// When hashing fails.
    pub(crate) fn late(
        &self,
        vertex: usize,
        facts: &dyn Facts,
        content: &ContentKey<'_>,
    ) -> Result<VertexKeys, OpError> {
        self.compute(vertex, facts, content)
    }

    /// Links from everything that the inputs are known by to the vertex's own keys.
    pub(crate) fn links(&self, vertex: usize, keys: &VertexKeys) -> Vec<Link> {
        let map = self.map(vertex);
        let mut links = Vec::new();
        for (number, output) in keys.outputs.iter().enumerate() {
            let Some(key) = output.save else { continue };
            for (input, parents) in keys.parents.iter().enumerate() {
                for (parent, selector) in parents {
                    links.push(Link {
                        op: map.op,
                        output: number as u32,
                        input: input as u32,
                        parent: *parent,
                        selector: *selector,
                        key,
                    });
                }
            }
        }
        links
    }

    /// Fixes the keys of a vertex that has its result.
    pub(crate) fn settle(&self, vertex: usize, keys: VertexKeys) {
        let _ = self.late[vertex].set(keys);
    }

    /// The best keys known of a vertex so far.
    pub(crate) fn keys(&self, vertex: usize) -> Option<&VertexKeys> {
        self.late[vertex].get().or_else(|| self.early[vertex].get())
    }

    /// The vertex and all that it depends on, inputs first, without those whose keys are settled.
    fn ancestors(&self, vertex: usize) -> Vec<usize> {
        let mut seen = vec![false; vertex + 1];
        let mut stack = vec![vertex];
        while let Some(next) = stack.pop() {
            if !std::mem::replace(&mut seen[next], true) && self.keys(next).is_none() {
                stack.extend(self.definition.vertex(next).inputs.iter().map(|edge| edge.vertex));
            }
        }
        (0..=vertex).filter(|&index| seen[index]).collect()
    }

    fn compute(
        &self,
        index: usize,
        facts: &dyn Facts,
        content: &ContentKey<'_>,
    ) -> Result<VertexKeys, OpError> {
        let vertex = self.definition.vertex(index);
        if let Op::Source(_) = vertex.op {
            return Ok(VertexKeys::of_source(facts.source_keys(index)?));
        }
        let map = self.map(index);
        // For each input: keys under which this vertex may be found, and keys under which it is saved.
        let (mut lookup, mut save) = (Vec::new(), Vec::new());
        let mut renews = false;
        for (number, (edge, input)) in vertex.inputs.iter().zip(&map.inputs).enumerate() {
            let keys = self.keys(edge.vertex).and_then(|keys| keys.outputs.get(edge.output));
            let (found, saved) = keys.map_or((&[][..], None), |keys| (&keys.lookup[..], keys.save));
            renews |= found.is_empty() && saved.is_some();
            renews |= self.keys(edge.vertex).is_some_and(|keys| keys.renews);
            let mut find: Vec<_> = found.iter().map(|key| (*key, input.selector)).collect();
            let mut keep = self.saved(*edge, found, saved, input.selector);
            let key = match self.settled_content(index, number) {
                Some(key) => Some(key),
                None => self.content_of(*edge, input, content)?,
            };
            if let Some(key) = key {
                let entry = (key, content_selector());
                find.insert(0, entry);
                keep.insert(0, entry);
            }
            lookup.push(find);
            save.push(keep);
        }
        let ignores = vertex.metadata.ignore_cache;
        let outputs = (0..self.outputs[index])
            .map(|output| self.output_keys(map, output, &lookup, &save, ignores))
            .collect::<Result<_, _>>()?;
        Ok(VertexKeys { outputs, parents: save, renews })
    }

    /// The keys of an input under which its user is saved. All keys of a source stand for one content.
    fn saved(
        &self,
        edge: Edge,
        lookup: &[Key],
        save: Option<Key>,
        selector: Key,
    ) -> Vec<(Key, Key)> {
        let is_source = matches!(self.definition.vertex(edge.vertex).op, Op::Source(_));
        let keys = if is_source { lookup } else { save.as_slice() };
        keys.iter().map(|key| (*key, selector)).collect()
    }

    /// Whether the user's folders among the inputs of a vertex are still as its keys say.
    ///
    /// # Errors
    /// When hashing fails.
    pub(crate) fn is_steady(
        &self,
        vertex: usize,
        content: &ContentKey<'_>,
    ) -> Result<bool, OpError> {
        let its = self.definition.vertex(vertex);
        for (number, (edge, input)) in its.inputs.iter().zip(&self.map(vertex).inputs).enumerate() {
            if let Some(before) = self.settled_content(vertex, number)
                && self.content_of(*edge, input, content)? != Some(before)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Content key that an input which is a folder of the user's had at the first look. It stays: what is
    /// copied is compared with it.
    fn settled_content(&self, vertex: usize, number: usize) -> Option<Key> {
        let edge = self.definition.vertex(vertex).inputs.get(number)?;
        match &self.definition.vertex(edge.vertex).op {
            Op::Source(source) if is_local(source) => {
                Some(self.early[vertex].get()?.parents.get(number)?.first()?.0)
            }
            _ => None,
        }
    }

    /// Content key of an input, if content counts and is known. A folder of the user's has no other key.
    fn content_of(
        &self,
        edge: Edge,
        input: &InputMap,
        content: &ContentKey<'_>,
    ) -> Result<Option<Key>, OpError> {
        if !input.content.is_empty() {
            return content(edge, input);
        }
        match &self.definition.vertex(edge.vertex).op {
            Op::Source(source) if is_local(source) => content(edge, &InputMap::whole()),
            _ => Ok(None),
        }
    }

    fn output_keys(
        &self,
        map: &CacheMap,
        output: usize,
        lookup: &[Vec<(Key, Key)>],
        save: &[Vec<(Key, Key)>],
        ignores: bool,
    ) -> Result<OutputKeys, OpError> {
        let mut own = KeyBuilder::new("vertex.v1").key(&map.op).u64(output as u64);
        for parents in save {
            let Some((key, selector)) = parents.first() else {
                // An input that is not known yet: its content will say.
                return Ok(OutputKeys::default());
            };
            own = own.key(key).key(selector);
        }
        let own = own.finish();
        if ignores || lookup.iter().any(Vec::is_empty) {
            return Ok(OutputKeys { lookup: Vec::new(), save: Some(own) });
        }
        let mut found = self.records.query(&map.op, output as u32, lookup)?;
        if !found.contains(&own) {
            found.push(own);
        }
        Ok(OutputKeys { lookup: found, save: Some(own) })
    }
}

#[cfg(test)]
mod tests;
