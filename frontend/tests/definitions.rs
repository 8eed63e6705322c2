//! Definitions of real Dockerfiles go to BuildKit's wire form and back unchanged.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use frontend::NamedContext;
use llb::pb::{decode_definition, encode_definition};
use llb::{Definition, Digest, Vertex};

#[test]
fn every_sample_and_case_has_the_same_graph_when_decoded() {
    let mut compared = 0;
    for (path, args) in dockerfiles() {
        let mut options = support::options(&args, "/ctx");
        for name in ["busybox", "onbuild", "nosh"] {
            let path = support::images().join(name).display().to_string();
            let layout = NamedContext::OciLayout { path, tag: None, digest: None };
            options.contexts.entry(name.to_owned()).or_insert(layout);
        }
        let text = fs_err::read(&path).unwrap();
        let Ok(Ok(build)) = support::convert(&text, &options) else { continue };
        for target in &build.targets {
            let mut definition = build.definition.clone();
            definition.result = target.result;
            check(&path, &definition);
            compared += 1;
        }
    }
    assert!(compared > 250, "only {compared} definitions were compared");
}

/// The samples of the parser and the frontend and the conformance cases, each with its command line.
fn dockerfiles() -> Vec<(PathBuf, Vec<String>)> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata");
    let list = |folder: &str| {
        let entries = fs_err::read_dir(testdata.join(folder)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let is_dockerfile = |path: &PathBuf| path.extension().is_some_and(|it| it == "Dockerfile");
    let samples = list("parser").into_iter().chain(list("frontend")).filter(is_dockerfile);
    let samples = samples.map(|path| {
        let text = fs_err::read(&path).unwrap();
        let args = String::from_utf8_lossy(&text);
        let args = args.lines().filter_map(|line| line.strip_prefix("#: "));
        let args = args.flat_map(|line| line.split(' ').map(str::to_owned)).collect();
        (path, args)
    });
    let cases = list("conformance/cases").into_iter().filter_map(|folder| {
        let case = fs_err::read(folder.join("case.json")).unwrap();
        let case: serde_json::Value = serde_json::from_slice(&case).unwrap();
        let args = serde_json::from_value(case["steps"][0]["args"].clone()).unwrap_or_default();
        Some((folder.join("ctx/Dockerfile"), args)).filter(|(path, _)| path.is_file())
    });
    samples.chain(cases).collect()
}

#[track_caller]
fn check(path: &Path, definition: &Definition) {
    let bytes = encode_definition(definition);
    let decoded = decode_definition(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(encode_definition(&decoded), bytes, "{path:?}");
    let Some(result) = definition.result else {
        return assert_eq!(decoded, Definition::default(), "{path:?}");
    };
    let digest = |definition: &Definition, vertex: usize| definition.vertex(vertex).digest;
    let end = decoded.result.unwrap();
    assert_eq!(digest(&decoded, end.vertex), digest(definition, result.vertex), "{path:?}");
    assert_eq!(end.output, result.output, "{path:?}");
    // The wire form has one vertex for each digest, whatever ignores the cache.
    let original: BTreeMap<Digest, &Vertex> =
        definition.vertices().iter().rev().map(|vertex| (vertex.digest, vertex)).collect();
    for vertex in decoded.vertices() {
        let before = original[&vertex.digest];
        assert_eq!((&vertex.op, &vertex.platform), (&before.op, &before.platform), "{path:?}");
        let inputs = |of: &Definition, vertex: &Vertex| -> Vec<(Digest, usize)> {
            vertex.inputs.iter().map(|edge| (digest(of, edge.vertex), edge.output)).collect()
        };
        assert_eq!(inputs(&decoded, vertex), inputs(definition, before), "{path:?}");
        let mut metadata = vertex.metadata.clone();
        metadata.ignore_cache = before.metadata.ignore_cache;
        assert_eq!(metadata, before.metadata, "{path:?}");
    }
}
