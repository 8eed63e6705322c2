//! What the compiler does not check: which crate may use which, and words that may not stand in the code.

use std::fs;
use std::path::{Path, PathBuf};

/// Each crate with those below it that it may use, besides the ones of [`ANYONE_USES`].
const LAYERS: [(&str, &[&str]); 10] = [
    ("cli", &["parser", "cache", "sandbox", "registry", "frontend", "solver", "exporters"]),
    ("frontend", &["parser"]),
    ("solver", &["cache", "sandbox", "registry"]),
    ("exporters", &["cache", "registry"]),
    ("parser", &[]),
    ("cache", &[]),
    ("sandbox", &[]),
    ("registry", &[]),
    ("llb", &[]),
    ("tree", &[]),
];

/// Layer 0: any crate may use them, but not they each other.
const ANYONE_USES: [&str; 2] = ["llb", "tree"];

/// Crates outside the layers, which nothing may use.
const OUTSIDE: [&str; 1] = ["xtask"];

/// The one crate with code that the compiler cannot check.
const UNCHECKED: &str = "sandbox";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The members of the workspace that are crates of the product, with the packages they depend on, in
/// whatever section of the manifest.
fn manifests() -> Vec<(String, Vec<String>)> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |package: &serde_json::Value| package["name"].as_str().unwrap().to_owned();
    // Dependencies on crates of the workspace are the ones with a path.
    let edges = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["path"].is_string()).map(name).collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|package| (name(package), edges(package))).collect()
}

/// What is wrong with the edges from `name`.
fn wrong_edges(name: &str, edges: &[String]) -> Vec<String> {
    if OUTSIDE.contains(&name) {
        return Vec::new();
    }
    let Some((_, below)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!("`{name}` has no place in the layers")];
    };
    let allowed = |edge: &&String| {
        let anyone = ANYONE_USES.contains(&edge.as_str()) && !ANYONE_USES.contains(&name);
        anyone || below.contains(&edge.as_str())
    };
    edges
        .iter()
        .filter(|edge| !allowed(edge))
        .map(|edge| format!("`{name}` may not use `{edge}`"))
        .collect()
}

#[test]
fn crates_use_only_what_is_below_them() {
    let manifests = manifests();
    let wrong: Vec<_> =
        manifests.iter().flat_map(|(name, edges)| wrong_edges(name, edges)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (layer, _) in LAYERS {
        assert!(manifests.iter().any(|(name, _)| name == layer), "`{layer}` is gone");
    }
}

#[test]
fn wrong_edges_are_noticed() {
    let edge = |to: &str| vec![to.to_owned()];
    assert_eq!(wrong_edges("cache", &edge("registry")), ["`cache` may not use `registry`"]);
    assert_eq!(wrong_edges("tree", &edge("llb")), ["`tree` may not use `llb`"]);
    assert_eq!(wrong_edges("solver", &edge("exporters")), ["`solver` may not use `exporters`"]);
    assert_eq!(wrong_edges("parser", &edge("xtask")), ["`parser` may not use `xtask`"]);
    assert_eq!(wrong_edges("new", &[]), ["`new` has no place in the layers"]);
    assert!(wrong_edges("parser", &edge("llb")).is_empty());
}

/// All source files of the crates, with the crate's name.
fn sources() -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for name in LAYERS.iter().map(|(name, _)| *name).chain(OUTSIDE) {
        let mut folders = vec![top().join(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    found.push((name, path));
                }
            }
        }
    }
    found
}

/// Lines of `text`, numbered from 1, without comments to their end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = |line: &'_ str| line.find("//").unwrap_or(line.len());
    text.lines().enumerate().map(move |(number, line)| (number + 1, &line[..code(line)]))
}

/// Whether `line` opens code that the compiler cannot check.
fn is_unchecked(line: &str) -> bool {
    let word = concat!("un", "safe");
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].trim_start();
        let starts = line[..at]
            .chars()
            .next_back()
            .is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '"');
        let follows = ["{", "(", "fn ", "impl ", "impl<", "extern ", "trait "];
        starts && (after.is_empty() || follows.iter().any(|next| after.starts_with(next)))
    })
}

/// Files whose code has a line that `is_wrong`, as `path:line`.
fn offenders(is_wrong: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, path) in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = code(&text).filter(|(_, line)| is_wrong(name, line));
        found.extend(lines.map(|(number, _)| format!("{}:{number}", path.display())));
    }
    found
}

#[test]
fn only_the_sandbox_has_code_that_the_compiler_cannot_check() {
    let found = offenders(|name, line| name != UNCHECKED && is_unchecked(line));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_is_left_for_later() {
    let words = [concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME")];
    let found = offenders(|_, line| words.iter().any(|word| line.contains(word)));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unchecked_code_is_recognised() {
    let word = concat!("un", "safe");
    for line in ["X { ", "X fn f()", "let a = X{1};", "pub X impl<T> A", "X"] {
        assert!(is_unchecked(&line.replace('X', word)), "{line}");
    }
    for line in ["X_code", "is_X()", "an X thing", "\"X {\""] {
        assert!(!is_unchecked(&line.replace('X', word)), "{line}");
    }
    assert_eq!(code("a // b\n// c").collect::<Vec<_>>(), [(1, "a "), (2, "")]);
}

/// The packages that each member of the workspace depends on, as its code names them.
fn dependencies() -> Vec<(String, PathBuf, Vec<String>)> {
    let output = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(top())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let folder = Path::new(&text(&package["manifest_path"])).parent().unwrap().to_owned();
            let all = package["dependencies"].as_array().unwrap().iter();
            let names = all.map(|dependency| text(&dependency["name"]).replace('-', "_"));
            (text(&package["name"]), folder, names.collect())
        })
        .collect()
}

#[test]
fn every_dependency_is_used() {
    let mut idle = Vec::new();
    for (name, folder, used) in dependencies() {
        let mut code = String::new();
        for (_, path) in sources().iter().filter(|(_, path)| path.starts_with(&folder)) {
            code.push_str(&fs::read_to_string(path).unwrap());
        }
        let is_named = |package: &String| {
            [format!("{package}::"), format!("use {package} "), format!("{package}!")]
                .iter()
                .any(|form| code.contains(form))
        };
        idle.extend(
            used.iter()
                .filter(|package| !is_named(package))
                .map(|package| format!("{name}: {package}")),
        );
    }
    assert!(idle.is_empty(), "named in a manifest and never in the code: {idle:?}");
}
