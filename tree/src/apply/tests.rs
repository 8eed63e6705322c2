use std::io::{self, Cursor};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Applied, adopt_parents, apply_layer};
use crate::layer::{Encoding, LayerDir, Whiteouts};
use crate::stack::Stack;
use crate::tar::{Entry, EntryKind, Writer};
use crate::{Timestamp, View, layer};

/// Whether this process may make device nodes and trusted attributes; says so when it may not.
pub(crate) fn may_make_nodes() -> bool {
    let probe = TempDir::new().unwrap();
    let probe = LayerDir::new(probe.path());
    let made = probe.root().and_then(|root| {
        layer::make_whiteout(root, "w".as_ref())?;
        layer::set_opaque(root, Encoding::default())
    });
    if let Err(error) = &made {
        println!("SKIP: cannot make whiteouts here: {error}");
    }
    made.is_ok()
}

fn dir(path: &str) -> (Entry, &'static [u8]) {
    (Entry { mode: 0o755, ..Entry::new(EntryKind::Dir, path.into()) }, b"")
}

fn file(path: &str, content: &'static str) -> (Entry, &'static [u8]) {
    let entry = Entry {
        mode: 0o644,
        size: content.len() as u64,
        ..Entry::new(EntryKind::File, path.into())
    };
    (entry, content.as_bytes())
}

fn link(kind: EntryKind, path: &str, target: &str) -> (Entry, &'static [u8]) {
    (Entry { link: target.into(), ..Entry::new(kind, path.into()) }, b"")
}

fn symlink(path: &str, target: &str) -> (Entry, &'static [u8]) {
    link(EntryKind::Symlink, path, target)
}

fn hard_link(path: &str, target: &str) -> (Entry, &'static [u8]) {
    link(EntryKind::HardLink, path, target)
}

fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        match entry.kind {
            EntryKind::File => writer.append_file(entry, &mut &content[..]).unwrap(),
            _ => writer.append(entry).unwrap(),
        }
    }
    writer.finish().unwrap()
}

/// A layer folder `layer` in a folder whose every other file would show that something got out.
struct Cage {
    outer: TempDir,
}

impl Cage {
    fn new() -> Self {
        let outer = TempDir::new().unwrap();
        fs::create_dir(outer.path().join("layer")).unwrap();
        Self { outer }
    }

    fn layer(&self) -> LayerDir {
        LayerDir::new(self.outer.path().join("layer"))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.outer.path().join("layer").join(path)
    }

    fn apply(&self, entries: &[(Entry, &[u8])]) -> io::Result<Applied> {
        apply_layer(&mut Cursor::new(tar(entries)), &self.layer(), Encoding::default())
    }

    /// All paths of the folder with what they are: directories `/` or opaque `/!`, whiteouts `-`, links
    /// `-> target`, files `=content`.
    fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        list(&self.path(""), "", &mut lines);
        let outside = fs::read_dir(self.outer.path()).unwrap().count();
        assert_eq!(outside, 1, "something got out");
        lines
    }
}

fn list(dir: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut entries: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        if kind.is_dir() {
            let opaque =
                layer::is_opaque(LayerDir::new(&path).root().unwrap(), Whiteouts::Trusted).unwrap();
            lines.push(format!("{name}/{}", if opaque { "!" } else { "" }));
            list(&path, &format!("{name}/"), lines);
        } else if kind.is_symlink() {
            lines.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
        } else if kind.is_char_device() && metadata.rdev() == 0 {
            lines.push(format!("{name} -"));
        } else if kind.is_file() {
            lines.push(format!("{name} ={}", fs::read_to_string(&path).unwrap()));
        } else {
            lines.push(format!("{name} special"));
        }
    }
}

#[track_caller]
fn check(entries: &[(Entry, &[u8])], expect: &[&str]) {
    if !may_make_nodes() {
        return;
    }
    let cage = Cage::new();
    cage.apply(entries).unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(cage.dump(), expect);
}

#[track_caller]
fn check_error(entries: &[(Entry, &[u8])], cause: &str) {
    let cage = Cage::new();
    let error = cage.apply(entries).unwrap_err();
    let error = error.into_inner().unwrap();
    assert!(error.to_string().starts_with("cannot unpack `"), "{error}");
    let actual = std::error::Error::source(error.as_ref()).unwrap().to_string();
    assert!(actual.contains(cause), "{actual}");
    cage.dump();
}

#[test]
fn whiteouts_become_device_nodes_and_opaque_marks() {
    check(
        &[dir("a"), file("a/.wh.x", ""), dir("b"), file("b/.wh..wh..opq", ""), file("b/n", "1")],
        &["a/", "a/x -", "b/!", "b/n =1"],
    );
    check(&[file(".wh..wh..opq", ""), file("a", "1")], &["a =1"]);
    check(
        &[file(".wh..wh.plnk", ""), file(".wh..wh.aufs/x", ""), file("d/.wh..wh.x", "")],
        &["d/"],
    );
}

#[test]
fn an_opaque_mark_keeps_what_the_layer_brings_in_any_order() {
    check(
        &[
            dir("d"),
            file("d/a", "1"),
            file("d/.wh.b", ""),
            file("d/.wh..wh..opq", ""),
            file("d/.wh.c", ""),
        ],
        &["d/!", "d/a =1"],
    );
    check(
        &[
            file("d/.wh..wh..opq", ""),
            dir("d/e"),
            file("d/e/.wh.x", ""),
            file("d/e/.wh..wh..opq", ""),
        ],
        &["d/!", "d/e/"],
    );
}

#[test]
fn a_directory_in_the_place_of_something_deleted_hides_what_was_below() {
    check(&[file(".wh.d", ""), dir("d"), file("d/a", "1")], &["d/!", "d/a =1"]);
    check(&[file(".wh.d", ""), file("d/a", "1")], &["d/!", "d/a =1"]);
    check(&[file("d", "0"), dir("d"), file("d/a", "1")], &["d/!", "d/a =1"]);
    check(&[file(".wh.d", ""), file("d", "1")], &["d =1"]);
}

#[test]
fn the_last_of_several_entries_counts() {
    check(&[file("a", "1"), file("a", "2")], &["a =2"]);
    check(&[dir("d"), file("d/x", "1"), file("d", "2")], &["d =2"]);
    check(&[dir("d"), file("d/x", "1"), dir("d")], &["d/", "d/x =1"]);
    check(&[file("a", "1"), symlink("a", "b")], &["a -> b"]);
    check(&[file("a", "1"), file(".wh.a", "")], &["a -"]);
    check(
        &[dir("d/e"), file("d/e/x", "1"), file(".wh.d", ""), file("d/e/y", "2")],
        &["d/!", "d/e/", "d/e/y =2"],
    );
}

#[test]
fn paths_stay_inside() {
    check(
        &[file("../x", "1"), file("/../../y", "2"), file("a/../../z", "3"), file("/abs", "4")],
        &["abs =4", "x =1", "y =2", "z =3"],
    );
    check(&[dir("."), dir("/"), dir("a/.."), file("./b", "1")], &["b =1"]);
    check(&[symlink("l", "/"), file("l/x", "1")], &["l -> /", "x =1"]);
    check(&[symlink("l", "../../.."), file("l/x", "1")], &["l -> ../../..", "x =1"]);
    check(&[symlink("l", "/etc"), file("l/passwd", "1")], &["etc/", "etc/passwd =1", "l -> /etc"]);
    check(&[symlink("l", "/tmp"), file("l", "1")], &["l =1"]);
    check(&[symlink("l", "/tmp"), dir("l"), file("l/x", "1")], &["l/!", "l/x =1"]);
    check(
        &[symlink("l", "/tmp"), file("l/.wh.x", ""), file(".wh.l", "")],
        &["l -", "tmp/", "tmp/x -"],
    );
    check(&[symlink("l", "a/../b"), file("l/x", "1")], &["b/", "b/x =1", "l -> a/../b"]);
}

#[test]
fn a_replaced_parent_is_not_followed_from_memory() {
    // The directory was open when it became a link.
    check(
        &[dir("d"), file("d/a", "1"), symlink("d", "/out"), file("d/b", "2")],
        &["d -> /out", "out/", "out/b =2"],
    );
    check(&[dir("d/e/f"), symlink("d", "/"), dir("d/e/f")], &["d -> /", "e/", "e/f/"]);
}

#[test]
fn hard_links_are_resolved_inside() {
    if !may_make_nodes() {
        return;
    }
    let cage = Cage::new();
    cage.apply(&[
        file("a", "1"),
        symlink("s", "/"),
        hard_link("b", "/s/../a"),
        hard_link("c", "s"),
        hard_link("a", "a"),
    ])
    .unwrap();
    assert_eq!(cage.dump(), ["a =1", "b =1", "c -> /", "s -> /"]);
    let inode = |path| fs::symlink_metadata(cage.path(path)).unwrap().ino();
    assert_eq!(inode("a"), inode("b"));
    assert_eq!(inode("c"), inode("s"));
    check(&[file("a", "1"), file("b", "2"), hard_link("b", "a")], &["a =1", "b =1"]);
    check_error(
        &[hard_link("p", "/etc/passwd")],
        "a hard link to `/etc/passwd`, which the layer does not have",
    );
    check_error(&[hard_link("p", "../../etc/passwd")], "which the layer does not have");
    check_error(
        &[symlink("e", "/etc"), hard_link("p", "e/passwd")],
        "which the layer does not have",
    );
    check_error(&[dir("d"), hard_link("p", "d")], "a hard link to a directory");
    check_error(&[file(".wh.x", ""), hard_link("p", "x")], "which the layer does not have");
    check_error(&[file("d/x", "1"), hard_link("d", "d/x")], "which the layer does not have");
    check_error(&[hard_link("p", "/")], "which the layer does not have");
}

#[test]
fn bad_names_are_errors() {
    check_error(&[file(".wh.", "")], "a whiteout of no name");
    check_error(&[file("d/.wh..", "")], "a whiteout of no name");
    check_error(&[file("d/.wh...", "")], "a whiteout of no name");
    let long = "n".repeat(300);
    check_error(&[file(&long, "")], "too long");
    check_error(&[dir(&long)], "too long");
    check_error(&[file(&format!("{long}/x"), "")], "too long");
    check_error(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "")], "symbolic link");
    check_error(&[file("f", ""), file("f/x", "")], "as a directory and as something else");
    let deep = "d/".repeat(1500);
    check_error(
        &[dir(&deep), symlink("l", &format!("/{deep}")), file(&format!("l/{deep}x"), "")],
        "too long",
    );
}

#[test]
fn a_deep_tree_needs_no_deep_stack_of_descriptors() {
    if !may_make_nodes() {
        return;
    }
    let cage = Cage::new();
    let deep = "d/".repeat(500);
    let below = format!("{deep}x");
    cage.apply(&[dir(&deep), file(&below, "1"), hard_link("y", &below)]).unwrap();
    assert_eq!(fs::read_to_string(cage.path("y")).unwrap(), "1");
}

#[test]
fn devices_are_made_but_no_hidden_whiteouts() {
    let device =
        |kind, device| (Entry { mode: 0o600, device, ..Entry::new(kind, b"n".to_vec()) }, &b""[..]);
    check(&[device(EntryKind::CharDevice, (1, 3))], &["n special"]);
    check(&[device(EntryKind::BlockDevice, (7, 99))], &["n special"]);
    check(&[device(EntryKind::Fifo, (0, 0))], &["n special"]);
    check_error(&[device(EntryKind::CharDevice, (0, 0))], "a device node that would be a whiteout");
}

#[test]
fn truncated_and_sparse_tars_are_errors() {
    let bytes = tar(&[file("a", "content"), file("b", "more")]);
    for cut in [100, 512, 515, 1024 + 100, 1536] {
        let cage = Cage::new();
        let result =
            apply_layer(&mut Cursor::new(&bytes[..cut]), &cage.layer(), Encoding::default());
        assert!(result.is_err(), "cut at {cut}");
        cage.dump();
    }
}

#[test]
fn attributes_are_kept() {
    if !may_make_nodes() {
        return;
    }
    let cage = Cage::new();
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    // An empty set of capabilities in its second version.
    let capability = [&1_u32.to_be_bytes()[..], &[0; 16]].concat();
    let capability = [&[1, 0, 0, 2][..], &capability[4..]].concat();
    let (mut setuid, content) = file("d/f", "x");
    setuid = Entry {
        mode: 0o6755,
        uid: 1234,
        gid: 5678,
        mtime: time(1_600_000_000, 0),
        xattrs: vec![
            ("security.capability".into(), capability.clone()),
            ("trusted.overlay.opaque".into(), b"y".to_vec()),
            ("trusted.overlay.whiteout".into(), b"y".to_vec()),
            ("user.x".into(), b"1".to_vec()),
        ],
        ..setuid
    };
    let sticky = Entry { mode: 0o1777, gid: 7, mtime: time(1_500_000_000, 0), ..dir("d").0 };
    let sticky = Entry { xattrs: vec![("user.overlay.opaque".into(), b"y".to_vec())], ..sticky };
    let old = Entry { uid: 9, mtime: time(-5, 0), ..symlink("d/l", "f").0 };
    let old = Entry { xattrs: vec![("user.x".into(), b"1".to_vec())], ..old };
    cage.apply(&[(sticky, b""), (setuid, content), (old, b"")]).unwrap();
    assert_eq!(cage.dump(), ["d/", "d/f =x", "d/l -> f"]);
    let found = |path| fs::symlink_metadata(cage.path(path)).unwrap();
    let metadata = found("d/f");
    assert_eq!(
        (metadata.permissions().mode(), metadata.uid(), metadata.gid()),
        (0o106_755, 1234, 5678)
    );
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_600_000_000, 0));
    let metadata = found("d");
    assert_eq!(
        (metadata.permissions().mode(), metadata.gid(), metadata.mtime()),
        (0o41777, 7, 1_500_000_000)
    );
    assert_eq!((found("d/l").uid(), found("d/l").mtime()), (9, -5));
    let stack = Stack::new(vec![cage.layer()]);
    let xattrs = stack.xattrs(Path::new("d/f")).unwrap();
    assert_eq!(
        xattrs,
        [("security.capability".into(), capability), ("user.x".into(), b"1".to_vec())]
    );
}

#[test]
fn nanoseconds_of_pax_times_are_kept() {
    if !may_make_nodes() {
        return;
    }
    let mut builder = ::tar::Builder::new(Vec::new());
    let pax = [("mtime", &b"1600000000.123456789"[..])];
    builder.append_pax_extensions(pax).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_mtime(5);
    builder.append_data(&mut header, "f", io::empty()).unwrap();
    let cage = Cage::new();
    apply_layer(
        &mut Cursor::new(builder.into_inner().unwrap()),
        &cage.layer(),
        Encoding::default(),
    )
    .unwrap();
    assert_eq!(fs::metadata(cage.path("f")).unwrap().mtime_nsec(), 123_456_789);
}

#[test]
fn parents_that_are_not_listed_take_after_the_layers_below() {
    if !may_make_nodes() {
        return;
    }
    let lower = Cage::new();
    let tmp = Entry {
        mode: 0o1777,
        gid: 5,
        mtime: Timestamp { seconds: 77, nanoseconds: 0 },
        ..dir("tmp").0
    };
    lower.apply(&[(tmp, b"")]).unwrap();
    let upper = Cage::new();
    let applied = upper
        .apply(&[file("tmp/new/x", "1"), file("late/x", ""), dir("late"), dir("listed")])
        .unwrap();
    assert_eq!(applied.implied, ["tmp", "tmp/new"].map(PathBuf::from));
    assert_eq!(fs::metadata(upper.path("tmp/new")).unwrap().mtime(), 0);
    adopt_parents(&upper.layer(), &applied.implied, &Stack::new(vec![lower.layer()])).unwrap();
    let metadata = fs::metadata(upper.path("tmp")).unwrap();
    assert_eq!((metadata.mode(), metadata.gid(), metadata.mtime()), (0o41777, 5, 77));
    assert_eq!(fs::metadata(upper.path("tmp/new")).unwrap().mode(), 0o40755);
}

#[test]
#[ignore = "timing, run by hand"]
fn bench_apply() {
    let entries: Vec<_> =
        (0..20_000).map(|n| file(&format!("d{}/f{n}", n / 200), "content")).collect();
    let bytes = tar(&entries);
    let cage = Cage::new();
    let start = std::time::Instant::now();
    apply_layer(&mut Cursor::new(bytes), &cage.layer(), Encoding::default()).unwrap();
    println!("20000 files: {:?}", start.elapsed());
}

fn any_name() -> impl Strategy<Value = String> {
    "(\\.\\./|/|\\./)?(a|b|l|\\.wh\\.a|\\.wh\\.b|\\.wh\\.l)(/(a|b|\\.\\.|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)){0,3}/?"
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a tar says, nothing outside of the folder changes, and nothing panics.
    #[test]
    fn nothing_gets_out(entries in prop::collection::vec((any_name(), 0_u8..5, any_name()), 1..12)) {
        let cage = Cage::new();
        let canary = cage.outer.path().join("canary");
        fs::write(&canary, "untouched").unwrap();
        let entries: Vec<_> = entries.iter().map(|(name, kind, target)| match kind {
            0 => dir(name.trim_end_matches('/')),
            1 | 2 => file(name.trim_end_matches('/'), "x"),
            3 => symlink(name.trim_end_matches('/'), if target.len() % 3 == 0 { "../../canary" } else { target }),
            _ => hard_link(name.trim_end_matches('/'), if target.len() % 3 == 0 { "../canary" } else { target }),
        }).collect();
        let _ = cage.apply(&entries);
        prop_assert_eq!(fs::read_to_string(&canary).unwrap(), "untouched");
        prop_assert_eq!(fs::metadata(&canary).unwrap().nlink(), 1);
        prop_assert_eq!(fs::read_dir(cage.outer.path()).unwrap().count(), 2);
    }
}
