//! A sketch and a draft of the same actions give the same layer.

use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt, symlink};

use fs_err as fs;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::apply::tests::may_make_nodes;
use crate::diff::snapshot_tests::snapshot;
use crate::diff::write_layer;
use crate::draft::Draft;
use crate::layer::{Encoding, LayerDir};
use crate::tar::{EntryKind, Reader};

/// What a tree is planted with; what cannot be made is left out.
#[derive(Debug, Clone)]
enum Plant {
    File(String, String, u32),
    Dir(String, u32),
    Link(String, String),
    Name(String, String),
}

fn any_path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

fn any_plant() -> impl Strategy<Value = Plant> {
    prop_oneof![
        4 => (any_path(), "[xy]{0,3}", prop_oneof![Just(0o644), Just(0o755), Just(0o4711)])
            .prop_map(|(path, text, mode)| Plant::File(path, text, mode)),
        2 => (any_path(), prop_oneof![Just(0o755), Just(0o700)])
            .prop_map(|(path, mode)| Plant::Dir(path, mode)),
        1 => (any_path(), prop_oneof![any_path(), Just("/a".to_owned()), Just("../b".to_owned())])
            .prop_map(|(path, target)| Plant::Link(path, target)),
        1 => (any_path(), any_path()).prop_map(|(path, other)| Plant::Name(path, other)),
    ]
}

fn plant(root: &Path, plants: &[Plant]) {
    for plant in plants {
        let (Plant::File(path, ..)
        | Plant::Dir(path, _)
        | Plant::Link(path, _)
        | Plant::Name(path, _)) = plant;
        let full = root.join(path);
        let real = |path: &Path| path.ancestors().all(|it| !it.is_symlink() || it == path);
        if !real(&full) || full.is_symlink() {
            continue;
        }
        if let Some(parent) = full.parent() {
            let _ = fs::create_dir_all(parent);
        }
        match plant {
            Plant::File(_, text, mode) => {
                if fs::write(&full, text).is_ok() {
                    fs::set_permissions(&full, PermissionsExt::from_mode(*mode)).unwrap();
                }
            }
            Plant::Dir(_, mode) => {
                if fs::create_dir_all(&full).is_ok() && full.is_dir() {
                    fs::set_permissions(&full, PermissionsExt::from_mode(*mode)).unwrap();
                }
            }
            Plant::Link(_, target) => drop(symlink(target, &full)),
            Plant::Name(_, other) => {
                if root.join(other).is_file() && real(&root.join(other)) {
                    let _ = fs::hard_link(root.join(other), &full);
                }
            }
        }
    }
}

fn any_copy() -> impl Strategy<Value = CopyOptions> {
    let source =
        prop_oneof![any_path(), Just("/".to_owned()), Just("*".to_owned()), Just("a/*".to_owned())];
    let dest = (any_path(), prop_oneof![Just(""), Just("/"), Just("/.")])
        .prop_map(|(path, end)| format!("/{path}{end}"));
    let dest = prop_oneof![4 => dest, 1 => Just("/".to_owned())];
    let patterns = prop_oneof![
        4 => Just(Vec::new()),
        1 => Just(vec!["b".to_owned()]),
        1 => Just(vec!["**/c".to_owned()]),
        1 => Just(vec!["*/b".to_owned(), "a".to_owned()]),
    ];
    let mode = prop_oneof![
        3 => Just((None, String::new())),
        1 => Just((Some(0o640), String::new())),
        1 => Just((None, "go=rX".to_owned())),
    ];
    let owner = prop_oneof![3 => Just(None), 1 => Just(Some((7, 8)))];
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.9));
    (source, dest, patterns.clone(), patterns, mode, owner, flags).prop_map(
        |(
            source,
            dest,
            include,
            exclude,
            (mode, mode_text),
            owner,
            (follow, contents, parents),
        )| {
            CopyOptions {
                source,
                dest,
                owner,
                mode,
                mode_text,
                follow_symlink: follow,
                dir_copy_contents: contents,
                create_dest_path: parents,
                allow_wildcard: true,
                allow_empty_wildcard: true,
                include,
                exclude,
                ..CopyOptions::default()
            }
        },
    )
}

#[derive(Debug, Clone)]
enum Action {
    Copy(CopyOptions),
    Dir(MkdirOptions),
    File(MkfileOptions),
    Link(SymlinkOptions),
}

fn any_action() -> impl Strategy<Value = Action> {
    let owner = prop_oneof![Just(None), Just(Some((3, 4)))];
    prop_oneof![
        6 => any_copy().prop_map(Action::Copy),
        1 => (any_path(), any::<bool>(), owner.clone()).prop_map(|(path, make_parents, owner)| {
            Action::Dir(MkdirOptions { path, mode: 0o750, make_parents, owner, timestamp: None })
        }),
        1 => (any_path(), owner).prop_map(|(path, owner)| {
            let data = b"made".to_vec();
            Action::File(MkfileOptions { path, mode: 0o600, data, owner, timestamp: None })
        }),
        1 => any_path().prop_map(|path| {
            let target = "a".to_owned();
            Action::Link(SymlinkOptions { target, path, owner: None, timestamp: None })
        }),
    ]
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder
}

/// Entries of a tar, with times from now on masked.
fn listing(tar: &[u8], now: i64) -> Vec<String> {
    let mut reader = Reader::new(tar);
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let mut bytes = Vec::new();
        if entry.kind == EntryKind::File {
            io::Read::take(&mut reader, entry.size).read_to_end(&mut bytes).unwrap();
        }
        let seconds = entry.mtime.seconds;
        let time = if seconds >= now { "now".to_owned() } else { seconds.to_string() };
        lines.push(format!(
            "{} {:?} {:o} {}:{} {} {time} {} {:?} {}",
            entry.path.escape_ascii(),
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            entry.link.escape_ascii(),
            entry.xattrs,
            bytes.escape_ascii()
        ));
    }
    lines
}

/// Makes everything that was planted old, so that its times are told from those of the making. Whole seconds
/// prove nothing, so that contents are compared.
fn age(root: &Path) {
    let done = std::process::Command::new("find")
        .arg(root)
        .args(["-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"])
        .status();
    assert!(done.unwrap().success());
}

fn check(low: &[Plant], source: &[Plant], actions: &[Action]) {
    let (lower, from, upper) = (folder(), folder(), folder());
    plant(lower.path(), low);
    plant(from.path(), source);
    age(lower.path());
    age(from.path());
    // The kernel stamps files with a clock that lags a little.
    let now = now().seconds - 2;
    let below = Stack::new(vec![LayerDir::new(lower.path())]);
    let view: Arc<dyn View> = Arc::new(Stack::new(vec![LayerDir::new(from.path())]));
    let mut draft = Draft::new(below.clone(), LayerDir::new(upper.path()), Encoding::default());
    let mut sketch = Sketch::new(below.clone()).unwrap();
    for action in actions {
        let (drafted, sketched) = match action {
            Action::Copy(options) => {
                (draft.copy(view.as_ref(), options), sketch.copy(&view, options))
            }
            Action::Dir(options) => (draft.mkdir(options), sketch.mkdir(options)),
            Action::File(options) => (draft.mkfile(options), sketch.mkfile(options)),
            Action::Link(options) => (draft.symlink(options), sketch.symlink(options)),
        };
        // Both make what comes before the mistake, if not in the same order: then there is no layer.
        match (drafted, sketched) {
            (Ok(()), Ok(())) => {}
            (Err(drafted), Err(sketched)) => {
                assert_eq!(kind_of(&drafted), kind_of(&sketched), "{action:?}");
                return;
            }
            (drafted, sketched) => panic!("{action:?}: {drafted:?} against {sketched:?}"),
        }
    }
    let mut drafted = Vec::new();
    write_layer(&LayerDir::new(upper.path()), &below, Encoding::default(), &mut drafted).unwrap();
    let shown = snapshot(&sketch, now);
    let mut sketched = Vec::new();
    let unplaced = sketch.write(&mut sketched).unwrap();
    assert_eq!(listing(&drafted, now), listing(&sketched, now));
    let mut tar = tempfile::tempfile().unwrap();
    tar.write_all(&sketched).unwrap();
    let packed = unplaced.place(tar.try_clone().unwrap());
    let decoded = Packed::decode(&packed.encode(), tar).unwrap();
    let expect = snapshot(&below.push(LayerDir::new(upper.path())), now);
    assert_eq!(expect, shown);
    assert_eq!(expect, snapshot(&below.push(decoded), now));
}

/// What sort of mistake it is: texts may name another of several paths.
fn kind_of(error: &TreeError) -> std::mem::Discriminant<TreeError> {
    std::mem::discriminant(error)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_sketch_gives_the_layer_of_a_draft(
        low in proptest::collection::vec(any_plant(), 0..8),
        source in proptest::collection::vec(any_plant(), 0..10),
        actions in proptest::collection::vec(any_action(), 1..4),
    ) {
        if may_make_nodes() {
            check(&low, &source, &actions);
        }
    }

    #[test]
    fn damaged_indexes_are_refused(at in 0_usize..2000, bit in 0_u8..8) {
        let from = folder();
        plant(from.path(), &[
            Plant::File("a/b".to_owned(), "x".to_owned(), 0o644),
            Plant::Link("a/c".to_owned(), "b".to_owned()),
        ]);
        let view: Arc<dyn View> = Arc::new(Stack::new(vec![LayerDir::new(from.path())]));
        let mut sketch = Sketch::new(Stack::empty()).unwrap();
        let all = CopyOptions { source: "/".to_owned(), dest: "/d/".to_owned(), dir_copy_contents: true,
            create_dest_path: true, ..CopyOptions::default() };
        sketch.copy(&view, &all).unwrap();
        let mut tar = Vec::new();
        let packed = sketch.write(&mut tar).unwrap().place(tempfile::tempfile().unwrap());
        let mut bytes = packed.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Packed::decode(&bytes, tempfile::tempfile().unwrap()).is_err());
    }
}

#[test]
fn many_files_are_read_ahead_and_in_order() {
    let from = folder();
    let plants: Vec<Plant> = (0..300)
        .map(|n| Plant::File(format!("d{}/f{n}", n % 7), format!("text {n}").repeat(n), 0o644))
        .collect();
    plant(from.path(), &plants);
    let copy = CopyOptions {
        source: "/".to_owned(),
        dest: "/x".to_owned(),
        dir_copy_contents: true,
        create_dest_path: true,
        ..CopyOptions::default()
    };
    if may_make_nodes() {
        let view: Arc<dyn View> = Arc::new(Stack::new(vec![LayerDir::new(from.path())]));
        let upper = folder();
        let mut draft =
            Draft::new(Stack::empty(), LayerDir::new(upper.path()), Encoding::default());
        draft.copy(view.as_ref(), &copy).unwrap();
        let (mut drafted, mut sketched) = (Vec::new(), Vec::new());
        write_layer(
            &LayerDir::new(upper.path()),
            &Stack::empty(),
            Encoding::default(),
            &mut drafted,
        )
        .unwrap();
        let mut sketch = Sketch::new(Stack::empty()).unwrap();
        sketch.copy(&view, &copy).unwrap();
        sketch.write(&mut sketched).unwrap();
        assert_eq!(listing(&drafted, i64::MAX), listing(&sketched, i64::MAX));
    }
}

#[test]
fn a_file_that_changes_its_size_is_an_error() {
    let from = folder();
    fs::write(from.path().join("a"), "before").unwrap();
    let view: Arc<dyn View> = Arc::new(Stack::new(vec![LayerDir::new(from.path())]));
    let mut sketch = Sketch::new(Stack::empty()).unwrap();
    let copy =
        CopyOptions { source: "/a".to_owned(), dest: "/a".to_owned(), ..CopyOptions::default() };
    sketch.copy(&view, &copy).unwrap();
    fs::write(from.path().join("a"), "x").unwrap();
    let error = sketch.write(&mut io::sink()).unwrap_err();
    assert_eq!(error.to_string(), "`a` became shorter while it was read");
}
