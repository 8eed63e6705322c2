//! Solving with the cache gives what solving without it gives, whatever changes in between.
//!
//! Small random definitions of file ops and merges over a folder of the user's are solved in one store again
//! and again, and each time in a store of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fs_err as fs;
use llb::op::{
    CopyAction, FileAction, FileActionKind, FileInput, FileOp, MkdirAction, MkfileAction, Owner,
    RmAction, SourceOp, SymlinkAction, UserId,
};
use llb::{Definition, Edge, Op, VertexMetadata};
use proptest::prelude::*;
use sandbox::Cancel;
use solver::{Engine, EngineOptions, Session};
use tempfile::TempDir;
use tree::context::Context;
use tree::{Kind, View};

const NAMES: [&str; 3] = ["a", "b", "d"];

/// One vertex, in numbers that are taken modulo what there is.
#[derive(Debug, Clone)]
struct Step {
    base: usize,
    source: usize,
    ignore_cache: bool,
    actions: Vec<Act>,
}

#[derive(Debug, Clone)]
enum Act {
    Copy { from: usize, to: usize, contents: bool, wildcard: bool, own: bool },
    Mkfile { at: usize, data: u8, owner: u32 },
    Mkdir { at: usize, mode: i32 },
    Rm { at: usize },
    Symlink { at: usize, to: usize },
}

/// A definition and the folder that it reads.
#[derive(Debug, Clone)]
struct Case {
    steps: Vec<Step>,
    folder: Vec<(usize, u8)>,
}

fn act() -> impl Strategy<Value = Act> {
    let path = 0..12usize;
    prop_oneof![
        3 => (path.clone(), path.clone(), any::<bool>(), proptest::bool::weighted(0.8), any::<bool>()).prop_map(
            |(from, to, contents, wildcard, own)| Act::Copy { from, to, contents, wildcard, own }
        ),
        2 => (path.clone(), 0..3u8, 0..2u32)
            .prop_map(|(at, data, owner)| Act::Mkfile { at, data, owner }),
        2 => (path.clone(), prop_oneof![Just(0o755), Just(0o700)])
            .prop_map(|(at, mode)| Act::Mkdir { at, mode }),
        1 => path.clone().prop_map(|at| Act::Rm { at }),
        1 => (path.clone(), path).prop_map(|(at, to)| Act::Symlink { at, to }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let actions = proptest::collection::vec(act(), 0..4);
    (0..8usize, 0..8usize, proptest::bool::weighted(0.2), actions).prop_map(
        |(base, source, ignore_cache, actions)| Step { base, source, ignore_cache, actions },
    )
}

fn case() -> impl Strategy<Value = Case> {
    let folder = proptest::collection::vec((0..12usize, 0..3u8), 0..4);
    (proptest::collection::vec(step(), 1..6), folder)
        .prop_map(|(steps, folder)| Case { steps, folder })
}

/// A path of up to two parts.
fn path(number: usize) -> String {
    let last = NAMES[number % 3];
    match number / 3 {
        0 => format!("/{last}"),
        folder => format!("/{}/{last}", NAMES[folder - 1]),
    }
}

fn kind(act: &Act) -> FileActionKind {
    let timestamp = 1_000_000_000;
    match act {
        Act::Copy { from, to, contents, wildcard, .. } => {
            FileActionKind::Copy(Box::new(CopyAction {
                src: if *wildcard { "/*".to_owned() } else { path(*from) },
                dest: path(*to),
                owner: None,
                mode: -1,
                mode_str: String::new(),
                follow_symlink: true,
                dir_copy_contents: *contents,
                attempt_unpack: false,
                create_dest_path: true,
                allow_wildcard: *wildcard,
                allow_empty_wildcard: true,
                timestamp,
                include_patterns: Vec::new(),
                exclude_patterns: Vec::new(),
                always_replace_existing_dest_paths: false,
                required_paths: Vec::new(),
            }))
        }
        Act::Mkfile { at, data, owner } => {
            let owner = Some(Owner { user: Some(UserId::Id(*owner)), group: None });
            let (path, data) = (path(*at), vec![*data]);
            FileActionKind::Mkfile(MkfileAction { path, mode: 0o644, data, owner, timestamp })
        }
        Act::Mkdir { at, mode } => {
            let (path, mode, make_parents, owner) = (path(*at), *mode, true, None);
            FileActionKind::Mkdir(MkdirAction { path, mode, make_parents, owner, timestamp })
        }
        Act::Rm { at } => FileActionKind::Rm(RmAction {
            path: path(*at),
            allow_not_found: true,
            allow_wildcard: false,
        }),
        Act::Symlink { at, to } => {
            let (old_path, new_path, owner) = (path(*to), path(*at), None);
            FileActionKind::Symlink(SymlinkAction { old_path, new_path, owner, timestamp })
        }
    }
}

fn definition(steps: &[Step], ignore: bool) -> (Definition, Edge) {
    let mut definition = Definition::default();
    let local = SourceOp { identifier: "local://context".into(), attrs: BTreeMap::new() };
    let mut last = definition.add(Op::Source(local), Vec::new(), None, VertexMetadata::default());
    let mut made = vec![last];
    for (number, step) in steps.iter().enumerate() {
        let pick = |number: usize| Edge { vertex: made[number % made.len()], output: 0 };
        let inputs = vec![pick(step.base), pick(step.source)];
        let action = |(index, act): (usize, &Act)| FileAction {
            input: if index == 0 { FileInput::Input(0) } else { FileInput::Action(index - 1) },
            secondary_input: match act {
                Act::Copy { own: true, .. } if index > 0 => FileInput::Action(index - 1),
                Act::Copy { .. } => FileInput::Input(1),
                _ => FileInput::Scratch,
            },
            output: (index + 1 == step.actions.len()).then_some(0),
            kind: kind(act),
        };
        let actions: Vec<FileAction> = step.actions.iter().enumerate().map(action).collect();
        let op = if actions.is_empty() { Op::Merge } else { Op::File(FileOp { actions }) };
        let ignore_cache = ignore && step.ignore_cache;
        let name = format!("step {number}");
        let metadata = VertexMetadata { ignore_cache, name, ..VertexMetadata::default() };
        last = definition.add(op, inputs, None, metadata);
        made.push(last);
    }
    (definition, Edge { vertex: last, output: 0 })
}

/// The folder that the user gives.
struct Folder(PathBuf);

impl Session for Folder {
    fn context(&self, _name: &str) -> Option<Arc<Context>> {
        Context::open(&self.0, Default::default(), None).ok().map(Arc::new)
    }

    fn is_ignored(&self, _name: &str, _path: &str) -> bool {
        false
    }

    fn guard(&self) -> Option<solver::Guard> {
        None
    }

    fn secret(&self, _id: &str) -> io::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
        Ok(None)
    }

    fn forwarded_agent(&self, _id: &str) -> Option<PathBuf> {
        None
    }

    fn ssh_agent(&self, _id: &str) -> Option<PathBuf> {
        None
    }
}

/// What a file tree holds: of each path kind, mode, owner and content.
type Listing = BTreeMap<PathBuf, (Kind, u32, u32, u32, Vec<u8>)>;

fn listing(view: &dyn View) -> Listing {
    let mut found = Listing::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in view.read_dir(&folder).unwrap() {
            let (path, its) = (folder.join(&entry.name), entry.metadata);
            let mut content = Vec::new();
            match its.kind {
                Kind::File => drop(view.open(&path).unwrap().read_to_end(&mut content).unwrap()),
                Kind::Symlink => {
                    content = view.read_link(&path).unwrap().into_os_string().into_encoded_bytes();
                }
                Kind::Dir => open.push(path.clone()),
                _ => {}
            }
            found.insert(path, (its.kind, its.mode, its.uid, its.gid, content));
        }
    }
    found
}

/// What a definition gives in a store; of a failure only that it is one.
fn solve(store: &Path, folder: &Path, case: &Case, ignore: bool) -> Option<Listing> {
    let options = EngineOptions { root: store.to_owned(), ..EngineOptions::default() };
    let engine = Engine::open(options).unwrap();
    let job = engine.job(Arc::new(Folder(folder.to_owned())), Arc::new(()), Cancel::new().unwrap());
    let (definition, target) = definition(&case.steps, ignore);
    let results = job.solve(&definition, &[target]).ok()?;
    Some(listing(&results[0].stack().unwrap()))
}

fn write(folder: &Path, files: &[(usize, u8)]) {
    fs::remove_dir_all(folder).unwrap();
    fs::create_dir(folder).unwrap();
    for (number, data) in files {
        let path = folder.join(&path(*number)[1..]);
        // A path that goes through a file is left out.
        if path.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok()) && !path.is_dir()
        {
            fs::write(&path, [*data]).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The cases after the first are changes of it: another step in some place, another folder.
    #[test]
    fn the_cache_never_shows(
        first in case(),
        changes in proptest::collection::vec((0..6usize, step(), case()), 1..4),
    ) {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: needs root, to give files away and to make whiteouts");
            return Ok(());
        }
        let place = TempDir::new().unwrap();
        let (shared, folder) = (place.path().join("shared"), place.path().join("folder"));
        fs::create_dir(&folder).unwrap();
        let mut cases = vec![first.clone(), first.clone()];
        for (at, step, other) in changes {
            let mut next = cases[cases.len() - 1].clone();
            if at < next.steps.len() {
                next.steps[at] = step;
            } else {
                next.folder = other.folder;
            }
            cases.push(next);
        }
        cases.push(first);
        for (number, case) in cases.iter().enumerate() {
            write(&folder, &case.folder);
            let with = solve(&shared, &folder, case, number % 2 == 1);
            let alone = place.path().join(format!("alone {number}"));
            let without = solve(&alone, &folder, case, false);
            prop_assert_eq!(with, without, "build {}", number);
        }
    }
}
