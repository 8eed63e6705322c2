use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::SystemTime;

use cache::{CacheError, NewResult, Ref, StoredResult};
use llb::VertexMetadata;
use llb::op::{
    CopyAction, ExecMeta, ExecOp, FileAction, FileActionKind, FileInput, FileOp, Mount, SourceOp,
};

use super::*;

/// Records in memory; a result is its key alone.
#[derive(Default)]
struct Memory {
    links: Mutex<Vec<Link>>,
    results: Mutex<Vec<Key>>,
}

impl Records for Memory {
    fn query(
        &self,
        op: &Key,
        output: u32,
        inputs: &[Vec<(Key, Key)>],
    ) -> Result<Vec<Key>, CacheError> {
        let links = self.links.lock().unwrap();
        let leads = |link: &Link, input: usize, key: Key| {
            (link.op, link.output, link.input as usize, link.key) == (*op, output, input, key)
                && inputs[input].contains(&(link.parent, link.selector))
        };
        let mut keys: Vec<Key> = links.iter().map(|link| link.key).collect();
        keys.sort_by_key(ToString::to_string);
        keys.dedup();
        keys.retain(|key| {
            (0..inputs.len()).all(|input| links.iter().any(|link| leads(link, input, *key)))
        });
        Ok(keys)
    }

    fn load(&self, key: &Key) -> Result<Option<StoredResult>, CacheError> {
        let found = self.results.lock().unwrap().contains(key);
        let (reference, created) = (Ref::scratch(), SystemTime::UNIX_EPOCH);
        Ok(found.then_some(StoredResult { reference, created, why: Vec::new() }))
    }

    fn save(&self, links: &[Link], result: Option<&NewResult>) -> Result<(), CacheError> {
        self.links.lock().unwrap().extend_from_slice(links);
        self.results.lock().unwrap().extend(result.map(|result| result.key));
        Ok(())
    }
}

/// A definition whose vertices have contents: what their files hash to once they are made.
#[derive(Default, Clone)]
struct Build {
    definition: Definition,
    contents: BTreeMap<usize, &'static str>,
}

impl Build {
    fn add(
        &mut self,
        op: Op,
        inputs: &[usize],
        ignore_cache: bool,
        content: &'static str,
    ) -> usize {
        let inputs = inputs.iter().map(|&vertex| Edge { vertex, output: 0 }).collect();
        let metadata = VertexMetadata { ignore_cache, ..VertexMetadata::default() };
        let vertex = self.definition.add(op, inputs, None, metadata);
        self.contents.insert(vertex, content);
        vertex
    }

    fn image(&mut self, name: &str) -> usize {
        let op = SourceOp { identifier: format!("docker-image://{name}"), attrs: BTreeMap::new() };
        self.add(Op::Source(op), &[], false, "")
    }

    fn folder(&mut self, content: &'static str) -> usize {
        let op = SourceOp { identifier: "local://context".into(), attrs: BTreeMap::new() };
        self.add(Op::Source(op), &[], false, content)
    }

    fn step(
        &mut self,
        line: &str,
        base: usize,
        ignore_cache: bool,
        content: &'static str,
    ) -> usize {
        let meta = ExecMeta { args: vec![line.to_owned()], ..ExecMeta::default() };
        let root = Mount {
            input: Some(0),
            selector: String::new(),
            dest: "/".into(),
            output: Some(0),
            readonly: false,
            kind: llb::op::MountKind::Bind,
            content_cache: llb::op::ContentCache::Default,
        };
        let op = ExecOp { meta, mounts: vec![root], ..ExecOp::default() };
        self.add(Op::Exec(op), &[base], ignore_cache, content)
    }

    /// Copies one file of the last input onto the first, or onto nothing.
    fn copy(&mut self, inputs: &[usize], content: &'static str) -> usize {
        let copy = CopyAction {
            src: "/f".into(),
            dest: "/".into(),
            owner: None,
            mode: -1,
            mode_str: String::new(),
            follow_symlink: true,
            dir_copy_contents: true,
            attempt_unpack: false,
            create_dest_path: true,
            allow_wildcard: false,
            allow_empty_wildcard: false,
            timestamp: -1,
            include_patterns: Vec::new(),
            exclude_patterns: Vec::new(),
            always_replace_existing_dest_paths: false,
            required_paths: Vec::new(),
        };
        let base = if inputs.len() > 1 { FileInput::Input(0) } else { FileInput::Scratch };
        let action = FileAction {
            input: base,
            secondary_input: FileInput::Input(inputs.len() - 1),
            output: Some(0),
            kind: FileActionKind::Copy(Box::new(copy)),
        };
        self.add(Op::File(FileOp { actions: vec![action] }), inputs, false, content)
    }

    fn content(&self, edge: Edge) -> Key {
        KeyBuilder::new("test").str(self.contents[&edge.vertex]).finish()
    }

    fn known<'a>(&'a self, records: &'a Memory) -> Known<'a> {
        let last = self.definition.vertices().len() - 1;
        Known::new(&self.definition, records, &[Edge { vertex: last, output: 0 }])
    }

    /// Makes everything that is not in the records, as a solve does; says what was made.
    fn run(&self, records: &Memory) -> Vec<usize> {
        let known = self.known(records);
        let mut made = Vec::new();
        for (vertex, its) in self.definition.vertices().iter().enumerate() {
            known.early(vertex, self).unwrap();
            if matches!(its.op, Op::Source(_)) {
                continue;
            }
            let keys = known.late(vertex, self, &|edge, _| Ok(Some(self.content(edge)))).unwrap();
            let hit = found(records, &keys);
            let mut settled = keys.clone().made();
            match hit {
                Some(key) => settled.choose(0, key),
                None => made.push(vertex),
            }
            let links = known.links(vertex, &settled);
            let (reference, created) = (Ref::scratch(), SystemTime::UNIX_EPOCH);
            let key = settled.outputs[0].save.unwrap();
            let result = NewResult { key, reference, created, why: Vec::new() };
            records.save(&links, hit.is_none().then_some(&result)).unwrap();
            known.settle(vertex, settled);
        }
        made
    }

    /// Whether a vertex is found before anything is made.
    fn is_found_early(&self, vertex: usize, records: &Memory) -> bool {
        found(records, self.known(records).early(vertex, self).unwrap()).is_some()
    }
}

fn found(records: &Memory, keys: &VertexKeys) -> Option<Key> {
    let lookup = &keys.outputs.first()?.lookup;
    lookup.iter().find(|key| records.load(key).unwrap().is_some()).copied()
}

impl Facts for Build {
    fn prepare(&self, _: &[usize]) -> Result<(), (usize, OpError)> {
        Ok(())
    }

    fn source_keys(&self, vertex: usize) -> Result<Vec<Key>, OpError> {
        Ok(match &self.definition.vertex(vertex).op {
            Op::Source(source) if !is_local(source) => {
                // A tag and what it stands for: `a:1` and `a:2` have one chain of layers.
                let chain = source.identifier.rsplit_once(':').map_or("", |(name, _)| name);
                [chain, &source.identifier].map(|id| KeyBuilder::new("i").str(id).finish()).to_vec()
            }
            _ => Vec::new(),
        })
    }

    fn content_key(&self, _: usize, edge: Edge, _: &InputMap) -> Result<Option<Key>, OpError> {
        match &self.definition.vertex(edge.vertex).op {
            Op::Source(source) if is_local(source) => Ok(Some(self.content(edge))),
            _ => Ok(None),
        }
    }
}

/// `FROM image`, `RUN line`, then `FROM scratch`, `COPY --from`.
fn two_stages(line: &str, content: &'static str, ignore_cache: bool) -> Build {
    let mut build = Build::default();
    let image = build.image("a:1");
    let step = build.step(line, image, ignore_cache, content);
    build.copy(&[step], "");
    build
}

#[test]
fn what_was_made_is_found_by_its_definition() {
    let records = Memory::default();
    let build = two_stages("make", "1", false);
    assert!(!build.is_found_early(2, &records));
    assert_eq!(build.run(&records), [1, 2]);
    assert!(build.is_found_early(1, &records) && build.is_found_early(2, &records));
    assert!(build.run(&records).is_empty());
    assert!(!two_stages("make more", "1", false).is_found_early(1, &records));
}

#[test]
fn another_tag_of_the_same_layers_is_found() {
    let records = Memory::default();
    let on = |tag| {
        let mut build = Build::default();
        let image = build.image(tag);
        build.step("make", image, false, "");
        build
    };
    on("a:1").run(&records);
    assert!(on("a:2").is_found_early(1, &records));
    assert!(!on("b:1").is_found_early(1, &records));
}

#[test]
fn equal_content_is_found_once_the_input_is_made() {
    let records = Memory::default();
    two_stages("make", "1", false).run(&records);
    let other = two_stages("make otherwise", "1", false);
    assert!(!other.is_found_early(2, &records));
    assert_eq!(other.run(&records), [1]);
    // The definition is linked to it now.
    assert!(other.is_found_early(2, &records));
    assert_eq!(two_stages("make differently", "2", false).run(&records), [1, 2]);
}

#[test]
fn ignoring_the_cache_reaches_users_only_through_content() {
    let records = Memory::default();
    let plain = two_stages("make", "1", false);
    plain.run(&records);
    let afresh = two_stages("make", "1", true);
    assert!(!afresh.is_found_early(1, &records) && !afresh.is_found_early(2, &records));
    assert_eq!(afresh.run(&records), [1]);
    assert_eq!(two_stages("make", "2", true).run(&records), [1, 2]);
    assert!(plain.is_found_early(1, &records), "what was made afresh is kept");

    let mut chain = Build::default();
    let image = chain.image("a:1");
    let step = chain.step("make", image, true, "1");
    chain.step("test", step, false, "");
    assert_eq!(chain.run(&records), [1, 2]);
    assert_eq!(chain.run(&records), [1, 2], "a user by definition is made again too");
}

#[test]
fn the_users_own_folder_counts_by_content_and_is_known_early() {
    let records = Memory::default();
    let copy = |content| {
        let mut build = Build::default();
        let (image, folder) = (build.image("a:1"), build.folder(content));
        build.copy(&[image, folder], "");
        build
    };
    copy("1").run(&records);
    assert!(copy("1").is_found_early(2, &records));
    assert!(!copy("2").is_found_early(2, &records));
    let base = |content| {
        let mut build = Build::default();
        let folder = build.folder(content);
        build.step("make", folder, false, "");
        build
    };
    assert_eq!(base("1").run(&records), [1]);
    assert!(base("1").is_found_early(1, &records) && !base("2").is_found_early(1, &records));
}

#[test]
fn all_inputs_must_lead_to_one_key() {
    let records = Memory::default();
    let copy = |image, content| {
        let mut build = Build::default();
        let (image, folder) = (build.image(image), build.folder(content));
        build.copy(&[image, folder], "");
        build
    };
    copy("a:1", "1").run(&records);
    copy("b:1", "2").run(&records);
    assert!(!copy("a:1", "2").is_found_early(2, &records));
    assert!(!copy("b:1", "1").is_found_early(2, &records));
}

/// A step that makes `1` at first and `2` when it is made afresh; what is then built upon `2` must not be
/// found by those who have `1`.
#[test]
fn what_is_built_upon_one_content_is_never_found_from_another() {
    let records = Memory::default();
    let with_user = |line: &str, content, ignore, user: &str| {
        let mut build = two_stages(line, content, ignore);
        build.step(user, 2, false, "");
        build
    };
    two_stages("make", "1", false).run(&records);
    two_stages("make", "2", true).run(&records);
    let user = with_user("make", "2", false, "use");
    let known = user.known(&records);
    let keys = known.early(2, &user).unwrap().clone();
    let both = &keys.outputs[0].lookup;
    assert!(both.len() >= 2, "the definition has led to both");
    // The newer one is taken.
    let mut settled = keys.clone();
    let newer = *records.results.lock().unwrap().last().unwrap();
    settled.choose(0, newer);
    known.settle(2, settled);
    let upon = known.late(3, &user, &|_, _| Ok(None)).unwrap();
    let links = known.links(3, &upon.clone().made());
    assert!(links.iter().all(|link| link.parent == newer), "{links:?}");
    let (reference, created) = (Ref::scratch(), SystemTime::UNIX_EPOCH);
    let key = upon.outputs[0].save.unwrap();
    let result = NewResult { key, reference, created, why: Vec::new() };
    records.save(&links, Some(&result)).unwrap();
    assert!(user.is_found_early(3, &records));
    assert_eq!(with_user("make otherwise", "1", false, "use").run(&records), [1, 3]);
}

/// The records may know of keys whose results are gone: what is made gets its own key nevertheless.
#[test]
fn what_is_made_never_gets_the_key_of_another_content() {
    let records = Memory::default();
    two_stages("make", "1", false).run(&records);
    records.results.lock().unwrap().clear();
    assert_eq!(two_stages("make", "2", false).run(&records), [1, 2]);
    assert_eq!(two_stages("make otherwise", "1", false).run(&records), [1, 2]);
}
