//! Whole definitions: there and back, foreign ones, damaged ones, and how they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::tests::{op, platform, text};
use super::*;
use crate::op::{
    FileAction, FileActionKind, FileInput, FileOp, MkfileAction, Owner, SourceOp, UserId,
};
use crate::{Definition, Digest, Edge, Op, SourceInfo, SourceRange, VertexMetadata};

fn metadata() -> impl Strategy<Value = VertexMetadata> {
    let range = (0..2usize, 0..9usize, 0..9usize).prop_map(|(file, start, end)| {
        let text = format!("text of {file}\n");
        let info = Arc::new(SourceInfo { filename: format!("f{file}"), text });
        SourceRange { info, start, end }
    });
    let texts = (text(), btree_map(text(), text(), 0..3), option::of(text()));
    (any::<bool>(), texts, vec(range, 0..3)).prop_map(
        |(ignore_cache, (name, description, stage), sources)| VertexMetadata {
            ignore_cache,
            name,
            description,
            stage,
            sources,
        },
    )
}

/// Any definition; its result is its last vertex, which need not build upon all others.
fn definition() -> impl Strategy<Value = Definition> {
    let inputs = vec((any::<prop::sample::Index>(), 0..3usize), 0..4);
    let vertex = (inputs, platform(), metadata()).prop_flat_map(|(inputs, platform, metadata)| {
        // The first vertex has nothing to build upon.
        (op(inputs.len()), op(0)).prop_map(move |(op, first)| {
            (op, first, inputs.clone(), platform.clone(), metadata.clone())
        })
    });
    let vertex = vertex.boxed();
    (vec(vertex, 1..7), 0..3usize).prop_map(|(vertices, output)| {
        let mut definition = Definition::default();
        let mut last = 0;
        for (op, first, inputs, platform, metadata) in vertices {
            let count = definition.vertices().len();
            let inputs = inputs
                .iter()
                .filter(|_| count > 0)
                .map(|(index, output)| Edge { vertex: index.index(count), output: *output });
            let inputs: Vec<Edge> = inputs.collect();
            let op = if count == 0 { first } else { op };
            last = definition.add(op, inputs, platform, metadata);
        }
        definition.result = Some(Edge { vertex: last, output });
        definition
    })
}

/// What the wire form keeps: the vertices that the result needs, one for each digest.
fn kept(definition: &Definition) -> Definition {
    let mut needed = vec![definition.result.unwrap().vertex];
    let mut open = needed.clone();
    while let Some(index) = open.pop() {
        for edge in &definition.vertex(index).inputs {
            if !needed.contains(&edge.vertex) {
                needed.push(edge.vertex);
                open.push(edge.vertex);
            }
        }
    }
    needed.sort_unstable();
    let digest = |index: usize| definition.vertex(index).digest;
    let ignored: Vec<Digest> = needed
        .iter()
        .filter(|index| definition.vertex(**index).metadata.ignore_cache)
        .map(|index| digest(*index))
        .collect();
    let mut kept = Definition::default();
    let mut new: BTreeMap<Digest, usize> = BTreeMap::new();
    let edge = |new: &BTreeMap<Digest, usize>, edge: Edge| Edge {
        vertex: new[&digest(edge.vertex)],
        output: edge.output,
    };
    for index in needed {
        let vertex = definition.vertex(index);
        if !new.contains_key(&vertex.digest) {
            let inputs = vertex.inputs.iter().map(|input| edge(&new, *input)).collect();
            let ignore_cache = ignored.contains(&vertex.digest);
            let metadata = VertexMetadata { ignore_cache, ..vertex.metadata.clone() };
            let added = kept.add(vertex.op.clone(), inputs, vertex.platform.clone(), metadata);
            new.insert(vertex.digest, added);
        }
    }
    kept.result = definition.result.map(|result| edge(&new, result));
    kept
}

proptest! {
    #[test]
    fn decoding_gives_the_same_graph(definition in definition()) {
        let bytes = encode_definition(&definition);
        let decoded = decode_definition(&bytes).unwrap();
        prop_assert_eq!(&encode_definition(&decoded), &bytes);
        prop_assert_eq!(decoded, kept(&definition));
    }

    #[test]
    fn damaged_definitions_are_an_error_or_another_definition(
        definition in definition(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = encode_definition(&definition);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(if is_cut { at } else { bytes.len() });
        if let Ok(decoded) = decode_definition(&bytes) {
            let again = encode_definition(&decoded);
            prop_assert_eq!(decode_definition(&again).unwrap(), decoded);
        }
    }

    #[test]
    fn every_op_is_one_line_of_json(definition in definition()) {
        let bytes = encode_definition(&definition);
        let count = wire::Definition::decode(bytes.as_slice()).unwrap().def.len();
        let lines = definition_json(&definition);
        prop_assert_eq!(lines.len(), count);
        for line in lines {
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert!(value["Op"]["Op"].is_object() && value["OpMetadata"].is_object(), "{}", line);
        }
    }
}

fn source(name: &str) -> Op {
    Op::Source(SourceOp { identifier: name.to_owned(), attrs: BTreeMap::new() })
}

/// The bytes of a source op without inputs.
fn source_bytes(name: &str) -> Vec<u8> {
    encode_op(&source(name), &[], None)
}

/// An op without content that ends in this input.
fn end(digest: Digest) -> Vec<u8> {
    let input = wire::Input { digest: digest.to_string(), index: 0 };
    wire::Op { inputs: vec![input], ..wire::Op::default() }.encode_to_vec()
}

#[test]
fn a_definition_holds_what_its_result_needs_and_ends_in_it() {
    let source = |name: &str| {
        Op::Source(SourceOp { identifier: name.to_owned(), attrs: Default::default() })
    };
    let info =
        Arc::new(SourceInfo { filename: "Dockerfile".to_owned(), text: "FROM a".to_owned() });
    let metadata = VertexMetadata {
        ignore_cache: true,
        name: "[1/1] FROM a".to_owned(),
        sources: vec![SourceRange { info, start: 1, end: 2 }],
        ..VertexMetadata::default()
    };
    let mut definition = Definition::default();
    assert!(encode_definition(&definition).is_empty());
    let needed = definition.add(source("a"), Vec::new(), None, metadata);
    definition.add(source("unused"), Vec::new(), None, VertexMetadata::default());
    let merge = definition.add(
        Op::Merge,
        vec![Edge { vertex: needed, output: 0 }],
        None,
        VertexMetadata::default(),
    );
    definition.result = Some(Edge { vertex: merge, output: 0 });

    let message = wire::Definition::decode(encode_definition(&definition).as_slice()).unwrap();
    let digests: Vec<Digest> = message.def.iter().map(|op| Digest::of(op)).collect();
    assert_eq!(digests[..2], [definition.vertex(needed).digest, definition.vertex(merge).digest]);
    let last = wire::Op::decode(message.def[2].as_slice()).unwrap();
    assert_eq!((last.op, last.inputs[0].digest.parse()), (None, Ok(digests[1])));
    let about = &message.metadata[&digests[0].to_string()];
    assert_eq!(
        (about.ignore_cache, about.description["llb.customname"].as_str()),
        (true, "[1/1] FROM a")
    );
    let source = message.source.unwrap();
    let range = &source.locations[&digests[0].to_string()].locations[0].ranges[0];
    let line = |position: &Option<wire::Position>| position.as_ref().unwrap().line;
    assert_eq!((line(&range.start), line(&range.end), source.infos.len()), (1, 2, 1));
}

#[track_caller]
fn check_refused(message: wire::Definition, expect: &str) {
    check_refused_bytes(&message.encode_to_vec(), expect);
}

#[track_caller]
fn check_refused_bytes(bytes: &[u8], expect: &str) {
    assert_eq!(decode_definition(bytes).unwrap_err().to_string(), expect);
}

#[test]
fn what_is_not_known_is_an_error_by_its_name() {
    let (a, digest) = (source_bytes("a"), Digest::of(&source_bytes("a")));
    let with = |def: Vec<Vec<u8>>| wire::Definition { def, ..wire::Definition::default() };
    let whole = with(vec![a.clone(), end(digest)]);
    assert!(decode_definition(&whole.encode_to_vec()).is_ok());
    check_refused(with(vec![a]), "op without `result`");
    check_refused(
        with(vec![end(digest)]),
        &format!("the definition has no op {digest}, which another one needs"),
    );
    check_refused_bytes(b"\x1a\x00", "op without `def`");
    check_refused_bytes(b"\x22\x00", "unknown field 4 of `definition`");
    check_refused_bytes(
        b"\x12\x07\x0a\x01a\x12\x02\x22\x00",
        "ops with `export_cache` are not supported",
    );
    check_refused_bytes(b"\x12\x07\x0a\x01a\x12\x02\x3a\x00", "unknown field 7 of `metadata`");
    let location = wire::Location { source_index: 3, ranges: Vec::new() };
    let locations = wire::Locations { locations: vec![location] };
    let locations = [(digest.to_string(), locations)].into();
    let source = Some(wire::Source { locations, infos: Vec::new() });
    check_refused(
        wire::Definition { source, ..whole.clone() },
        "unknown value 3 of `locations.sourceIndex` in an op",
    );
    let metadata = [("sha256:12".to_owned(), wire::OpMetadata::default())].into();
    check_refused(wire::Definition { metadata, ..whole }, "invalid digest of an op");
}

#[test]
fn capabilities_and_progress_groups_are_read_over() {
    let (a, digest) = (source_bytes("a"), Digest::of(&source_bytes("a")));
    let mut bytes = wire::Definition { def: vec![a, end(digest)], ..wire::Definition::default() }
        .encode_to_vec();
    // caps { "source.image": true } progress_group { id: "g" }
    let about = b"\x2a\x10\x0a\x0csource.image\x10\x01\x32\x03\x0a\x01g".as_slice();
    let key = digest.to_string();
    let entry = [&[0x0a, 71], key.as_bytes(), &[0x12, 23], about].concat();
    bytes.extend([&[0x12, 98], entry.as_slice()].concat());
    let decoded = decode_definition(&bytes).unwrap();
    assert_eq!(decoded.vertices()[0].metadata, VertexMetadata::default());
}

#[test]
fn ops_in_another_order_and_another_encoding_are_the_same_graph() {
    let mut expect = Definition::default();
    let a = expect.add(source("a"), Vec::new(), None, VertexMetadata::default());
    let above = vec![Edge { vertex: a, output: 0 }];
    let merge = expect.add(Op::Merge, above, None, VertexMetadata::default());
    expect.result = Some(Edge { vertex: merge, output: 0 });
    // Without the empty `constraints` that this crate writes: other bytes, and so other digests.
    let short = |bytes: Vec<u8>| bytes.strip_suffix(b"\x5a\x00").unwrap().to_vec();
    let a = short(source_bytes("a"));
    let merge = short(encode_op(&Op::Merge, &[(Digest::of(&a), 0)], None));
    let end = end(Digest::of(&merge));
    let def = vec![merge, short(source_bytes("unused")), a, end];
    let bytes = wire::Definition { def, ..wire::Definition::default() }.encode_to_vec();
    assert_eq!(decode_definition(&bytes).unwrap(), expect);
}

#[test]
fn long_chains_need_no_deep_stack() {
    let mut def = vec![source_bytes("a")];
    for _ in 0..20_000 {
        let below = Digest::of(&def[def.len() - 1]);
        def.push(encode_op(&Op::Merge, &[(below, 0)], None));
    }
    let end = end(Digest::of(&def[def.len() - 1]));
    def.reverse();
    def.push(end);
    let bytes = wire::Definition { def, ..wire::Definition::default() }.encode_to_vec();
    assert_eq!(decode_definition(&bytes).unwrap().vertices().len(), 20_001);
}

#[test]
fn a_vertex_that_ignores_the_cache_and_one_that_does_not_become_one() {
    let mut definition = Definition::default();
    let mut add = |op: Op, inputs: Vec<Edge>, ignore_cache| {
        let metadata = VertexMetadata { ignore_cache, ..VertexMetadata::default() };
        definition.add(op, inputs, None, metadata)
    };
    let ignoring = add(source("a"), Vec::new(), true);
    let other = add(source("a"), Vec::new(), false);
    let inputs = [ignoring, other].map(|vertex| Edge { vertex, output: 0 });
    let merge = add(Op::Merge, inputs.into(), false);
    definition.result = Some(Edge { vertex: merge, output: 0 });
    let decoded = decode_definition(&encode_definition(&definition)).unwrap();
    let flags: Vec<bool> =
        decoded.vertices().iter().map(|vertex| vertex.metadata.ignore_cache).collect();
    assert_eq!(flags, [true, false]);
}

#[test]
fn json_is_that_of_buildctl_with_places() {
    let info = Arc::new(SourceInfo { filename: "Dockerfile".to_owned(), text: String::new() });
    let mut definition = Definition::default();
    let about = VertexMetadata {
        name: "[1/2] FROM a".to_owned(),
        sources: vec![SourceRange { info, start: 1, end: 1 }],
        ..VertexMetadata::default()
    };
    let image = definition.add(source("docker-image://a"), Vec::new(), None, about);
    let mkfile = MkfileAction {
        path: "/a".to_owned(),
        mode: 0o644,
        data: b"hi <\xff".to_vec(),
        owner: Some(Owner { user: Some(UserId::Id(0)), group: None }),
        timestamp: -1,
    };
    let action = FileAction {
        input: FileInput::Input(0),
        secondary_input: FileInput::Scratch,
        output: Some(0),
        kind: FileActionKind::Mkfile(mkfile),
    };
    let above = vec![Edge { vertex: image, output: 0 }];
    let op = Op::File(FileOp { actions: vec![action] });
    let file = definition.add(op, above, None, VertexMetadata::default());
    definition.result = Some(Edge { vertex: file, output: 0 });

    let (image, file) = (definition.vertex(image).digest, definition.vertex(file).digest);
    let end = Digest::of(&end(file));
    let expect = [
        format!(
            "{}\"{image}\"{}",
            r#"{"Op":{"Op":{"source":{"identifier":"docker-image://a"}},"constraints":{}},"Digest":"#,
            r#","OpMetadata":{"description":{"llb.customname":"[1/2] FROM a"}},"Source":[{"filename":"Dockerfile","start":1,"end":1}]}"#
        ),
        format!(
            "{}\"{image}\"{}{}\"{file}\"{}",
            r#"{"Op":{"inputs":[{"digest":"#,
            r#","index":0}],"Op":{"file":{"actions":[{"input":0,"secondaryInput":-1,"output":0,"Action":{"mkfile":"#,
            r#"{"path":"/a","mode":420,"data":"aGkgPP8=","owner":{"user":{"User":{"byId":0}}},"timestamp":-1}}}]}},"constraints":{}},"Digest":"#,
            r#","OpMetadata":{},"Source":[]}"#
        ),
        format!(
            "{}\"{file}\"{}\"{end}\"{}",
            r#"{"Op":{"inputs":[{"digest":"#,
            r#","index":0}],"Op":{}},"Digest":"#,
            r#","OpMetadata":{}}"#
        ),
    ];
    assert_eq!(definition_json(&definition), expect);
    assert!(definition_json(&Definition::default()).is_empty());
}
