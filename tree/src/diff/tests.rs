use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Cursor, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use tempfile::TempDir;

use super::{FlatOptions, append_tree, write_layer, write_tree};
use crate::apply::apply_layer;
use crate::apply::tests::may_make_nodes;
use crate::codec::Sha256;
use crate::layer::{self, Encoding, LayerDir};
use crate::stack::Stack;
use crate::tar::{EntryKind, Reader, Writer};
use crate::{Kind, View};

/// A lower layer, the upper folder over it, and more folders where needed.
struct Folders {
    root: TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        for name in ["lower", "upper", "applied"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Self { root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn layer(&self, name: &str) -> LayerDir {
        LayerDir::new(self.path(name))
    }

    /// Makes a directory, with mode 0755 and an old time.
    fn dir(&self, path: &str) -> &Self {
        fs::create_dir(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(0o755)).unwrap();
        self.time(path, 1000, 0)
    }

    /// Makes a file, with mode 0644 and an old time.
    fn file(&self, path: &str, content: &str) -> &Self {
        fs::write(self.path(path), content).unwrap();
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(0o644)).unwrap();
        self.time(path, 1000, 0)
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.path(path)).unwrap();
        self.time(path, 1000, 0)
    }

    fn hard_link(&self, path: &str, target: &str) -> &Self {
        fs::hard_link(self.path(target), self.path(path)).unwrap();
        self
    }

    fn time(&self, path: &str, seconds: i64, nanoseconds: i64) -> &Self {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, self.path(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        self
    }

    fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.path(path), PermissionsExt::from_mode(mode)).unwrap();
        self
    }

    fn whiteout(&self, path: &str) -> &Self {
        let (dir, name) = path.rsplit_once('/').unwrap();
        layer::make_whiteout(self.layer(dir).root().unwrap(), OsStr::new(name)).unwrap();
        self
    }

    fn opaque(&self, path: &str) -> &Self {
        layer::set_opaque(self.layer(path).root().unwrap(), Encoding::default()).unwrap();
        self
    }

    fn tar(&self) -> Vec<u8> {
        let lower = Stack::new(vec![self.layer("lower")]);
        let mut tar = Vec::new();
        write_layer(&self.layer("upper"), &lower, Encoding::default(), &mut tar).unwrap();
        tar
    }

    #[track_caller]
    fn check(&self, expect: &[&str]) {
        assert_eq!(dump(&self.tar()), expect);
    }
}

/// One line an entry: path, mode, content or link.
fn dump(tar: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(Cursor::new(tar));
    let mut lines = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8(entry.path.clone()).unwrap();
        let link = String::from_utf8(entry.link.clone()).unwrap();
        let mut content = String::new();
        reader.read_to_string(&mut content).unwrap();
        lines.push(match entry.kind {
            EntryKind::Dir => format!("{path}/ {:o}", entry.mode),
            EntryKind::File => format!("{path} {:o} {content}", entry.mode).trim_end().to_owned(),
            EntryKind::Symlink => format!("{path} -> {link}"),
            EntryKind::HardLink => format!("{path} = {link}"),
            kind => format!("{path} {kind:?} {:?}", entry.device),
        });
    }
    lines
}

#[test]
fn an_empty_diff_is_the_well_known_tar() {
    let folders = Folders::new();
    let hex: String =
        Sha256::digest(&folders.tar()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn parents_come_first_even_when_they_are_unchanged() {
    let folders = Folders::new();
    folders
        .dir("lower/a")
        .dir("lower/a/b")
        .dir("lower/idle")
        .dir("upper/a")
        .dir("upper/a/b")
        .dir("upper/idle");
    folders.file("upper/a/b/new", "1").dir("upper/fresh").dir("upper/fresh/er");
    folders.check(&["a/ 755", "a/b/ 755", "a/b/new 644 1", "fresh/ 755", "fresh/er/ 755"]);
}

#[test]
fn names_are_in_lexical_order_directory_by_directory() {
    let folders = Folders::new();
    folders
        .dir("upper/o")
        .file("upper/o/new", "")
        .file("upper/o-x", "")
        .file("upper/o.x", "")
        .file("upper/o2", "");
    folders.check(&["o/ 755", "o/new 644", "o-x 644", "o.x 644", "o2 644"]);
}

#[test]
fn what_was_only_copied_up_is_left_out() {
    let folders = Folders::new();
    for layer in ["lower", "upper"] {
        let path = |name: &str| format!("{layer}/{name}");
        folders.dir(&path("d")).file(&path("d/same"), "1").link(&path("d/link"), "x");
        folders.file(&path("d/nano"), "1").time(&path("d/nano"), 1000, 5);
    }
    // With nanoseconds, equal times are believed; without, the content is compared.
    folders.file("upper/d/nano", "2").time("upper/d/nano", 1000, 5);
    folders.check(&[]);
    folders.time("upper/d", 2000, 0).check(&[]);
    folders.file("upper/d/same", "2").check(&["d/ 755", "d/same 644 2"]);
    folders
        .file("upper/d/same", "1")
        .time("upper/d/same", 1000, 1)
        .check(&["d/ 755", "d/same 644 1"]);
    folders
        .time("upper/d/same", 1000, 0)
        .mode("upper/d/same", 0o4755)
        .check(&["d/ 755", "d/same 4755 1"]);
    folders.mode("upper/d/same", 0o644).mode("upper/d", 0o700).check(&["d/ 700"]);
}

#[test]
fn a_changed_link_target_of_equal_length_is_a_change() {
    let folders = Folders::new();
    folders.link("lower/l", "aa").link("upper/l", "bb").check(&["l -> bb"]);
}

#[test]
fn a_capability_is_a_change_and_travels() {
    let folders = Folders::new();
    folders.file("lower/f", "1").file("upper/f", "1");
    let capability = [&[1, 0, 0, 2][..], &[0; 16]].concat();
    let flags = rustix::fs::XattrFlags::empty();
    let set =
        rustix::fs::setxattr(folders.path("upper/f"), "security.capability", &capability, flags);
    if set.is_err() {
        println!("SKIP: cannot set capabilities here");
        return;
    }
    rustix::fs::setxattr(folders.path("upper/f"), "user.other", b"x", flags).unwrap();
    folders.time("upper/f", 1000, 0);
    let tar = folders.tar();
    let entry = Reader::new(Cursor::new(&tar)).next_entry().unwrap().unwrap();
    assert_eq!(entry.xattrs, [("security.capability".into(), capability)]);
}

#[test]
fn whiteouts_stand_where_the_deleted_name_sorts() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders
        .dir("lower/o")
        .file("lower/o/1", "")
        .file("lower/o/p", "")
        .file("lower/z", "")
        .file("lower/y", "");
    folders.dir("upper/o").whiteout("upper/o/1").file("upper/o/new", "").whiteout("upper/o/p");
    folders.whiteout("upper/z").whiteout("upper/never-was");
    folders.check(&["o/ 755", "o/.wh.1 0", "o/new 644", "o/.wh.p 0", ".wh.z 0"]);
}

#[test]
fn a_whiteout_has_no_time_and_no_owner() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.file("lower/x", "").whiteout("upper/x");
    let tar = folders.tar();
    let entry = Reader::new(Cursor::new(&tar)).next_entry().unwrap().unwrap();
    assert_eq!(entry, crate::tar::Entry::new(EntryKind::File, b".wh.x".to_vec()));
}

#[test]
fn another_kind_in_the_same_place_needs_no_whiteout() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.dir("lower/a").file("lower/a/x", "").file("lower/b", "").link("lower/c", "a");
    folders
        .file("upper/a", "1")
        .dir("upper/b")
        .file("upper/b/y", "")
        .dir("upper/c")
        .opaque("upper/c");
    folders.check(&["a 644 1", "b/ 755", "b/y 644", "c/ 755"]);
}

#[test]
fn an_opaque_directory_becomes_single_whiteouts() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders
        .dir("lower/o")
        .file("lower/o/1", "")
        .file("lower/o/same", "")
        .dir("lower/o/sub")
        .file("lower/o/sub/x", "");
    folders
        .dir("lower/o/gone")
        .file("lower/o/gone/y", "")
        .file("lower/o/z", "")
        .file("lower/o/zz", "");
    folders
        .dir("upper/o")
        .file("upper/o/new", "")
        .file("upper/o/same", "")
        .dir("upper/o/sub")
        .file("upper/o/sub/w", "");
    folders.whiteout("upper/o/z").opaque("upper/o").time("upper/o", 1000, 0);
    folders.check(&[
        "o/ 755",
        "o/.wh.1 0",
        "o/.wh.gone 0",
        "o/new 644",
        "o/sub/ 755",
        "o/sub/w 644",
        "o/sub/.wh.x 0",
        "o/.wh.z 0",
        "o/.wh.zz 0",
    ]);
}

#[test]
fn an_opaque_directory_that_is_as_before_is_no_change() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders
        .dir("lower/o")
        .file("lower/o/a", "1")
        .dir("upper/o")
        .file("upper/o/a", "1")
        .opaque("upper/o");
    folders.dir("upper/new").opaque("upper/new");
    folders.check(&["new/ 755"]);
}

#[test]
fn names_of_one_file_are_links_to_the_first() {
    let folders = Folders::new();
    folders
        .dir("upper/d")
        .file("upper/d/a", "1")
        .hard_link("upper/b", "upper/d/a")
        .hard_link("upper/d/c", "upper/d/a");
    folders.link("upper/l", "x").hard_link("upper/m", "upper/l");
    folders.check(&["b 644 1", "d/ 755", "d/a = b", "d/c = b", "l -> x", "m = l"]);
}

#[test]
fn in_an_opaque_directory_unchanged_names_follow_a_new_one() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.dir("lower/o").file("lower/o/a", "1").file("lower/o/z", "1");
    folders.dir("upper/o").opaque("upper/o").file("upper/o/a", "1");
    folders.hard_link("upper/o/b", "upper/o/a").hard_link("upper/o/z", "upper/o/a");
    folders.check(&["o/ 755", "o/b 644 1", "o/a = o/b", "o/z = o/b"]);
}

#[test]
fn special_files_are_kept_and_sockets_are_not() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    let _socket = std::os::unix::net::UnixListener::bind(folders.path("upper/socket")).unwrap();
    let mode = rustix::fs::Mode::RUSR;
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        CWD,
        folders.path("upper/null"),
        rustix::fs::FileType::CharacterDevice,
        mode,
        device,
    )
    .unwrap();
    rustix::fs::mknodat(CWD, folders.path("upper/pipe"), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    folders.check(&["null CharDevice (1, 3)", "pipe Fifo (0, 0)"]);
}

#[test]
fn a_renamed_directory_is_an_error() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.dir("upper/d");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(folders.path("upper/d"), "trusted.overlay.redirect", b"/x", flags)
        .unwrap();
    let result = write_layer(
        &folders.layer("upper"),
        &Stack::default(),
        Encoding::default(),
        &mut Vec::new(),
    );
    let message = "`/d` was renamed by an overlay with `redirect_dir`, which is not supported";
    assert_eq!(result.unwrap_err().to_string(), message);
}

#[test]
fn a_file_without_its_data_is_an_error() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.file("upper/f", "");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(folders.path("upper/f"), "trusted.overlay.metacopy", b"", flags).unwrap();
    let result = write_layer(
        &folders.layer("upper"),
        &Stack::default(),
        Encoding::default(),
        &mut Vec::new(),
    );
    let message =
        "cannot read `/f`: has only metadata in an overlay with `metacopy`, which is not supported";
    assert_eq!(result.unwrap_err().to_string(), message);
}

#[test]
fn a_real_overlay_gives_the_expected_layer() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders
        .dir("lower/d")
        .file("lower/d/a", "1")
        .file("lower/d/b", "2")
        .dir("lower/e")
        .file("lower/e/f", "3");
    folders.dir("lower/r").file("lower/r/old", "").file("lower/touched", "4");
    folders.dir("work").dir("merged");
    let script = "mount -t overlay o -o lowerdir=lower,upperdir=upper,workdir=work merged && cd merged && \
        rm d/a && echo new >d/n && rm -r r && mkdir r && chmod 755 r && echo 5 >r/new && chmod 644 d/n r/new && \
        rm -r e && chmod 600 touched && chmod 644 touched && mv d/b d/c";
    let run = Command::new("unshare")
        .args(["-m", "sh", "-ec", script])
        .current_dir(folders.root.path())
        .output();
    if !run.as_ref().is_ok_and(|output| output.status.success()) {
        println!("SKIP: cannot mount an overlay here: {run:?}");
        return;
    }
    folders.check(&[
        "d/ 755",
        "d/.wh.a 0",
        "d/.wh.b 0",
        "d/c 644 2",
        "d/n 644 new",
        ".wh.e 0",
        "r/ 755",
        "r/new 644 5",
        "r/.wh.old 0",
    ]);
}

#[test]
fn a_flat_tree_has_everything_once() {
    let folders = Folders::new();
    folders
        .dir("lower/d")
        .file("lower/d/a", "1")
        .hard_link("lower/d/b", "lower/d/a")
        .link("lower/l", "d");
    folders.file("upper/z", "2").time("upper/z", 1000, 600_000_000);
    let stack = Stack::new(vec![folders.layer("lower"), folders.layer("upper")]);
    let mut tar = Vec::new();
    write_tree(&stack, &mut tar).unwrap();
    let expect = ["d/ 755", "d/a 644 1", "d/b = d/a", "l -> d", "z 644 2"];
    assert_eq!(dump(&tar), expect);
    let mut reader = Reader::new(Cursor::new(&tar));
    let last = std::iter::from_fn(|| reader.next_entry().unwrap()).last().unwrap();
    assert_eq!(last.mtime.seconds, 1001, "rounded, not cut");

    let mut writer = Writer::new(Vec::new());
    let options = FlatOptions { prefix: Some("linux_amd64".to_owned()), mtime: Some(42) };
    append_tree(&mut writer, &stack, &options).unwrap();
    let tar = writer.finish().unwrap();
    assert_eq!(
        dump(&tar)[..4],
        [
            "linux_amd64/ 755",
            "linux_amd64/d/ 755",
            "linux_amd64/d/a 644 1",
            "linux_amd64/d/b = linux_amd64/d/a"
        ]
    );
    let mut reader = Reader::new(Cursor::new(&tar));
    assert!(
        std::iter::from_fn(|| reader.next_entry().unwrap()).all(|entry| entry.mtime.seconds == 42)
    );
}

#[test]
#[ignore = "timing, run by hand"]
fn bench_write_layer() {
    let folders = Folders::new();
    fs::write(folders.path("upper/one"), "x").unwrap();
    let lower = Stack::new(vec![folders.layer("lower")]);
    let timed = |what: &str| {
        for _ in 0..3 {
            let start = std::time::Instant::now();
            write_layer(&folders.layer("upper"), &lower, Encoding::default(), &mut std::io::sink())
                .unwrap();
            println!("{what}: {:?}", start.elapsed());
        }
    };
    timed("1 file");
    for dir in 0..200 {
        fs::create_dir(folders.path(&format!("upper/d{dir}"))).unwrap();
        for file in 0..200 {
            fs::write(folders.path(&format!("upper/d{dir}/f{file}")), "content").unwrap();
        }
    }
    timed("40001 files");
}

/// A small tree: what is at each path.
type Model = BTreeMap<String, Node>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir(u32),
    File(u32, u8),
    Link(u8),
}

fn any_model() -> impl Strategy<Value = Model> {
    let node = prop_oneof![
        4 => (0_u32..2).prop_map(|mode| Node::Dir(0o700 + mode)),
        4 => (0_u32..2, 0_u8..2).prop_map(|(mode, content)| Node::File(0o600 + mode, content)),
        1 => (0_u8..2).prop_map(Node::Link),
    ];
    prop::collection::btree_map("[ab]{1,2}(/[ab]){0,3}", node, 0..12).prop_map(|mut model| {
        // What lies below anything but a directory goes, and missing parents come.
        for path in model.keys().cloned().collect::<Vec<_>>() {
            let parents: Vec<_> =
                path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect();
            if parents.iter().any(|parent| !matches!(model.get(parent), None | Some(Node::Dir(_))))
            {
                model.remove(&path);
            } else {
                for parent in parents {
                    model.entry(parent).or_insert(Node::Dir(0o755));
                }
            }
        }
        model
    })
}

fn make(folders: &Folders, layer: &str, path: &str, node: &Node) {
    let path = format!("{layer}/{path}");
    let _ = match node {
        Node::Dir(mode) => folders.dir(&path).mode(&path, *mode),
        Node::File(mode, content) => folders.file(&path, &content.to_string()).mode(&path, *mode),
        Node::Link(target) => folders.link(&path, &target.to_string()),
    };
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Makes the upper folder that turns `lower` into `upper`; `copied` says which unchanged files were copied
/// up and which directories made anew, as an overlay does it when a step is careless.
fn make_upper(folders: &Folders, lower: &Model, upper: &Model, copied: &[bool]) {
    let mut copied = copied.iter().copied().cycle();
    let mut opaque: Vec<String> = Vec::new();
    for (path, node) in upper {
        let hidden = opaque.iter().any(|dir| path.starts_with(&format!("{dir}/")));
        let careless = copied.next().unwrap_or(false);
        match node {
            Node::Dir(_) => {
                make(folders, "upper", path, node);
                if careless && matches!(lower.get(path), Some(Node::Dir(_))) {
                    folders.opaque(&format!("upper/{path}"));
                    opaque.push(path.clone());
                }
            }
            _ if hidden || careless || lower.get(path) != Some(node) => {
                make(folders, "upper", path, node)
            }
            _ => {}
        }
    }
    for path in lower.keys().filter(|path| !upper.contains_key(*path)) {
        let hidden = opaque.iter().any(|dir| path.starts_with(&format!("{dir}/")));
        let in_both = |dir: &str| {
            dir.is_empty()
                || [lower, upper].iter().all(|model| matches!(model.get(dir), Some(Node::Dir(_))))
        };
        if !hidden && in_both(parent(path)) {
            folders.whiteout(&format!("upper/{path}"));
        }
    }
}

fn snapshot(view: &dyn View) -> Model {
    fn below(view: &dyn View, dir: &Path, model: &mut Model) {
        for entry in view.read_dir(dir).unwrap() {
            let path = dir.join(&entry.name);
            let node = match entry.metadata.kind {
                Kind::Dir => Node::Dir(entry.metadata.mode),
                Kind::Symlink => {
                    Node::Link(view.read_link(&path).unwrap().to_str().unwrap().parse().unwrap())
                }
                _ => {
                    let mut content = String::new();
                    view.open(&path).unwrap().read_to_string(&mut content).unwrap();
                    Node::File(entry.metadata.mode, content.parse().unwrap())
                }
            };
            model.insert(path.to_str().unwrap().to_owned(), node.clone());
            if matches!(node, Node::Dir(_)) {
                below(view, &path, model);
            }
        }
    }
    let mut model = Model::new();
    below(view, Path::new(""), &mut model);
    model
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A removed path becomes a whiteout, so applying the diff gives the upper tree; and the diff holds
    /// nothing that did not change, but for the parents of what did.
    #[test]
    fn applying_a_diff_gives_the_upper_tree(
        lower in any_model(),
        upper in any_model(),
        copied in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        if !may_make_nodes() {
            return Ok(());
        }
        let folders = Folders::new();
        for (path, node) in &lower {
            make(&folders, "lower", path, node);
        }
        make_upper(&folders, &lower, &upper, &copied);
        let stack = Stack::new(vec![folders.layer("lower")]);
        prop_assert_eq!(&snapshot(&stack.push(folders.layer("upper"))), &upper, "the test's own upper folder");

        let tar = folders.tar();
        apply_layer(&mut Cursor::new(&tar), &folders.layer("applied"), Encoding::default()).unwrap();
        prop_assert_eq!(&snapshot(&stack.push(folders.layer("applied"))), &upper);

        let mut reader = Reader::new(Cursor::new(&tar));
        let mut paths = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            paths.push(String::from_utf8(entry.path).unwrap());
        }
        for path in &paths {
            let parent_of_other = paths.iter().any(|other| other.starts_with(&format!("{path}/")));
            let deleted = path.rsplit('/').next().unwrap().starts_with(".wh.");
            prop_assert!(deleted || parent_of_other || lower.get(path) != upper.get(path), "{path} did not change");
        }
    }
}

#[test]
fn times_are_cut_to_seconds() {
    let folders = Folders::new();
    folders.file("upper/f", "1").time("upper/f", 1000, 999_999_999);
    let tar = folders.tar();
    let entry = Reader::new(Cursor::new(&tar)).next_entry().unwrap().unwrap();
    assert_eq!((entry.mtime.seconds, entry.mtime.nanoseconds), (1000, 0));
    assert_eq!(fs::metadata(folders.path("upper/f")).unwrap().uid(), entry.uid);
}
