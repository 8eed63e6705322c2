//! Actions against small trees: one line per path, before and after.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use fs_err as fs;
use fs_err::os::unix::fs::symlink;
use tempfile::TempDir;

use super::*;
use crate::context::Context;
use crate::pattern::Patterns;
use crate::tar::{Entry, EntryKind, Writer};

/// Whether this process may make trees with owners; says so when not.
fn may_chown() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: making files of other owners needs root");
    }
    root
}

/// Makes a tree: `path/` is a directory, `path -> target` a link, `path = text` a file, `path == other` a
/// hard link; ` @mode:uid:gid` may follow.
fn plant(root: &Path, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (line, attributes) = line.split_once(" @").unwrap_or((line, ""));
        let path;
        if let Some((name, target)) = line.split_once(" -> ") {
            path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, &path).unwrap();
        } else if let Some((name, other)) = line.split_once(" == ") {
            path = root.join(name);
            fs::hard_link(root.join(other), &path).unwrap();
        } else if let Some((name, text)) = line.split_once(" = ") {
            path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        } else {
            path = root.join(line.trim_end_matches('/'));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let mut parts = attributes.split(':').filter(|part| !part.is_empty());
        if let (Some(mode), Some(uid), Some(gid)) = (parts.next(), parts.next(), parts.next()) {
            let (uid, gid) = (uid.parse().unwrap(), gid.parse().unwrap());
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).unwrap();
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
    }
}

/// Lists a tree in the form that `plant` reads; the plain modes and owner are left out.
fn dump(view: &dyn View) -> String {
    fn list(view: &dyn View, dir: &Path, out: &mut Vec<String>) {
        for entry in view.read_dir(dir).unwrap() {
            let path = dir.join(&entry.name);
            let metadata = &entry.metadata;
            let name = path.display();
            let (mut line, plain) = match metadata.kind {
                Kind::Dir => (format!("{name}/"), 0o755),
                Kind::Symlink => {
                    (format!("{name} -> {}", view.read_link(&path).unwrap().display()), 0o777)
                }
                Kind::File => {
                    let text = io::read_to_string(view.open(&path).unwrap()).unwrap();
                    (format!("{name} = {text}"), 0o644)
                }
                kind => (format!("{name} {kind:?}"), 0o644),
            };
            if (metadata.mode, metadata.uid, metadata.gid) != (plain, 0, 0) {
                line += &format!(" @{:o}:{}:{}", metadata.mode, metadata.uid, metadata.gid);
            }
            out.push(line);
            if metadata.kind == Kind::Dir {
                list(view, &path, out);
            }
        }
    }
    let mut out = Vec::new();
    list(view, Path::new(""), &mut out);
    out.join("\n")
}

struct Case {
    _folder: TempDir,
    source: Stack,
    draft: Draft,
    /// The folder everything is in, with a file that nothing may touch.
    outside: PathBuf,
}

fn case(source: &str, lower: &str) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, lines: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        plant(&path, lines);
        LayerDir::new(path)
    };
    let source = Stack::new(vec![make("source", source)]);
    let lower = Stack::new(vec![make("lower", lower)]);
    let draft = Draft::new(lower, make("upper", ""), Encoding::default());
    Case { source, draft, outside: folder.path().to_owned(), _folder: folder }
}

fn options(source: &str, dest: &str) -> CopyOptions {
    CopyOptions {
        source: source.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyOptions::default()
    }
}

fn text(lines: &str) -> String {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check_with(source: &str, lower: &str, options: &CopyOptions, expect: &str) {
    if !may_chown() {
        return;
    }
    let mut case = case(source, lower);
    let actual = match case.draft.copy(&case.source, options) {
        Ok(()) => dump(&case.draft.view()),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(actual, text(expect), "COPY {} {}", options.source, options.dest);
    let names = fs::read_dir(&case.outside).unwrap().count();
    assert_eq!(names, 3, "something was made outside");
}

#[track_caller]
fn check(source: &str, lower: &str, copy: (&str, &str), expect: &str) {
    check_with(source, lower, &options(copy.0, copy.1), expect);
}

#[test]
fn destinations_resolve_as_in_the_reference() {
    check("a = 1", "", ("a", "/b"), "b = 1");
    check("a = 1", "", ("a", "/x/"), "x/\nx/a = 1");
    check("a = 1", "", ("a", "/x/."), "x/\nx/a = 1");
    check("a = 1", "x/", ("a", "/x"), "x/\nx/a = 1");
    check("a = 1", "", ("a", "/"), "a = 1");
    check("a = 1", "", ("/../../a", "/p/q/b"), "p/\np/q/\np/q/b = 1");
    check("a = 1", "x = old @600:5:6", ("a", "/x"), "x = 1");
    check("d/f = 1\nd/e/", "", ("d", "/x"), "x/\nx/e/\nx/f = 1");
    check("d/f = 1", "x/old = 2", ("d/", "/x"), "x/\nx/f = 1\nx/old = 2");
    check("d/f = 1", "", ("/", "/"), "d/\nd/f = 1");
    check("a = 1", "r/\nl -> /r", ("a", "/l/b"), "l -> /r\nr/\nr/b = 1");
    check("a = 1", "l -> ../../r", ("a", "/l"), "l -> ../../r\nr = 1");
    check("a = 1", "x/a -> /etc", ("a", "/x/"), "x/\nx/a = 1");
}

#[test]
fn kinds_that_clash_are_errors() {
    check("a = 1", "x/a/", ("a", "/x/"), "error: cannot replace to directory /x/a with file");
    check("d/s/f = 1", "x/s = 1", ("d", "/x"), "error: cannot copy to non-directory: /x/s");
    check("d/s/f = 1", "x/s -> /r\nr/", ("d", "/x"), "error: cannot copy to non-directory: /x/s");
    check("a = 1", "", ("b", "/x"), "error: \"/b\": not found");
    check("l -> gone", "", ("l", "/x"), "error: \"/l\": not found");
    let replace = CopyOptions { always_replace: true, ..options("d", "/x") };
    check_with("d/s/f = 1", "x/s = 1", &replace, "x/\nx/s/\nx/s/f = 1");
    check_with("d/s = 1", "x/s/f = 1", &replace, "x/\nx/s = 1");
}

#[test]
fn symlinks_named_are_followed_and_those_inside_are_kept() {
    check("l -> d/f\nd/f = 1", "", ("l", "/x/"), "x/\nx/l = 1");
    check("l -> /d\nd/f -> g", "", ("l", "/x/"), "x/\nx/f -> g");
    check("p -> d\nd/f = 1", "", ("p/f", "/x"), "x = 1");
    check("l -> ../../../d/f\nd/f = 1", "", ("l", "/x"), "x = 1");
    check("d/up -> /etc/passwd", "", ("d", "/x"), "x/\nx/up -> /etc/passwd");
}

#[test]
fn nothing_leads_out_of_source_or_destination() {
    check("l -> /etc/passwd", "", ("l", "/x"), "error: \"/l\": not found");
    check("l -> /etc\nb = 1", "", ("l/passwd", "/x"), "error: \"/l/passwd\": not found");
    check("a = 1", "e -> /../../etc", ("a", "/e/x"), "e -> /../../etc\netc/\netc/x = 1");
    check("a = 1", "e -> ../..", ("a", "/e/x"), "e -> ../..\nx = 1");
    let error = "error: cannot resolve `/l`";
    check("l -> m\nm -> l", "", ("l", "/x"), error);
    check("a = 1", "l -> m\nm -> l", ("a", "/l"), error);
}

#[test]
fn wildcards_match_whole_parts_in_order() {
    let tree = "a.txt = 1\nb.txt = 2\n.c.txt = 3\nd/e.txt = 4";
    check(tree, "", ("*.txt", "/x/"), "x/\nx/.c.txt = 3\nx/a.txt = 1\nx/b.txt = 2");
    check(tree, "", ("?.txt", "/x"), "x = 2");
    check(tree, "", ("*/e.txt", "/x/"), "x/\nx/e.txt = 4");
    check(tree, "", ("z*", "/x/"), "");
    check("d1/a = 1\nd2/b = 2", "", ("d*", "/x/"), "x/\nx/a = 1\nx/b = 2");
}

#[test]
fn attributes_follow_the_table() {
    let tree = "d/ @700:7:8\nd/f = 1 @4750:7:8\nd/s/ @711:9:9";
    check(tree, "", ("d", "/p/x"), "p/\np/x/\np/x/f = 1 @4750:7:8\np/x/s/ @711:9:9");
    check(tree, "x/ @750:3:4", ("d", "/x"), "x/ @750:3:4\nx/f = 1 @4750:7:8\nx/s/ @711:9:9");
    check(tree, "x/s/ @750:3:4", ("d", "/x"), "x/\nx/f = 1 @4750:7:8\nx/s/ @711:9:9");
    let changed = CopyOptions { owner: Some((1, 2)), mode: Some(0o640), ..options("d", "/x") };
    check_with(tree, "", &changed, "x/ @640:1:2\nx/f = 1 @640:1:2\nx/s/ @640:1:2");
    let symbolic = CopyOptions { mode_text: "go=rX".to_owned(), ..options("d", "/x") };
    check_with(tree, "", &symbolic, "x/\nx/f = 1 @4755:7:8\nx/s/ @755:9:9");
}

#[test]
fn patterns_select_below_a_directory() {
    let tree = "d/a.txt = 1\nd/b = 2\nd/s/c.txt = 3\nd/s/k = 4";
    let without = |patterns: &[&str]| CopyOptions {
        exclude: patterns.iter().map(|&p| p.to_owned()).collect(),
        ..options("d", "/x")
    };
    check_with(tree, "", &without(&["*.txt"]), "x/\nx/b = 2\nx/s/\nx/s/c.txt = 3\nx/s/k = 4");
    check_with(tree, "", &without(&["**/*.txt"]), "x/\nx/b = 2\nx/s/\nx/s/k = 4");
    check_with(tree, "", &without(&["s"]), "x/\nx/a.txt = 1\nx/b = 2");
    check_with(tree, "", &without(&["*", "!s/k"]), "x/\nx/s/\nx/s/k = 4");
    let named = CopyOptions { exclude: vec!["*.txt".to_owned()], ..options("d/a.txt", "/x/") };
    check_with(tree, "", &named, "x/\nx/a.txt = 1");
}

#[test]
fn parents_are_made_after_the_source() {
    let tree = "a/ @700:1:1\na/b/ @711:2:2\na/b/c = 1\na/z = 2";
    let parents =
        |include: &str| CopyOptions { include: vec![include.to_owned()], ..options("/", "/x/") };
    check_with(tree, "", &parents("a/b/c"), "x/\nx/a/ @700:1:1\nx/a/b/ @711:2:2\nx/a/b/c = 1");
    check_with(tree, "", &parents("**/z"), "x/\nx/a/ @700:1:1\nx/a/z = 2");
    check_with(tree, "", &parents("q*"), "x/");
    let required = CopyOptions { required: vec!["a/q".to_owned()], ..parents("a/q") };
    check_with(tree, "", &required, "error: \"/a/q\": not found");
}

#[test]
fn hard_links_of_one_source_stay_linked() {
    let mut case = case("d/a = 1\nd/b == d/a", "");
    case.draft.copy(&case.source, &options("d", "/x")).unwrap();
    let upper = case.outside.join("upper/x");
    assert_eq!(
        fs::metadata(upper.join("a")).unwrap().ino(),
        fs::metadata(upper.join("b")).unwrap().ino()
    );
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let mut case = case("d/a = 1\nd/s/b = 2", "x/");
    let time = filetime(1_000_000_001, 123_456_789);
    for path in ["d/a", "d/s/b", "d/s", "d"] {
        let path = case.outside.join("source").join(path);
        rustix::fs::utimensat(rustix::fs::CWD, &path, &time, rustix::fs::AtFlags::empty()).unwrap();
    }
    case.draft.copy(&case.source, &options("d", "/x")).unwrap();
    for path in ["x", "x/a", "x/s", "x/s/b"] {
        let metadata = case.draft.view().metadata(Path::new(path)).unwrap().unwrap();
        let expect = Timestamp { seconds: 1_000_000_001, nanoseconds: 123_456_789 };
        assert_eq!(metadata.mtime, expect, "{path}");
    }
}

fn filetime(seconds: i64, nanoseconds: i64) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    rustix::fs::Timestamps { last_access: time, last_modification: time }
}

#[test]
fn a_deleted_directory_does_not_come_back() {
    if !may_chown() {
        return;
    }
    let mut case = case("n = new", "d/old = 1\nd/s/x = 2\nk = 3");
    let remove = |path: &str| RemoveOptions { path: path.to_owned(), ..RemoveOptions::default() };
    case.draft.remove(&remove("/d")).unwrap();
    assert_eq!(dump(&case.draft.view()), "k = 3");
    let again = case.draft.remove(&remove("/d"));
    assert!(matches!(again, Err(TreeError::NotFound { .. })));
    case.draft.copy(&case.source, &options("n", "/d/")).unwrap();
    assert_eq!(dump(&case.draft.view()), "d/\nd/n = new\nk = 3");
    let all = RemoveOptions { allow_wildcard: true, ..remove("/*") };
    case.draft.remove(&all).unwrap();
    assert_eq!(dump(&case.draft.view()), "");
}

#[test]
fn directories_below_are_copied_up_as_they_are() {
    if !may_chown() {
        return;
    }
    let mut case = case("a = 1", "p/ @1777:5:6\np/q/ @700:7:8\np/q/old = 2");
    case.draft.copy(&case.source, &options("a", "/p/q/b")).unwrap();
    let upper = Stack::new(vec![LayerDir::new(case.outside.join("upper"))]);
    assert_eq!(dump(&upper), "p/ @1777:5:6\np/q/ @700:7:8\np/q/b = 1");
}

#[test]
fn files_directories_and_links_are_made() {
    if !may_chown() {
        return;
    }
    let mut case = case("", "l -> /real");
    let draft = &mut case.draft;
    let mkdir = |path: &str, make_parents| MkdirOptions {
        path: path.to_owned(),
        mode: 0o755,
        make_parents,
        owner: Some((3, 4)),
        ..MkdirOptions::default()
    };
    assert!(draft.mkdir(&mkdir("/a/b", false)).is_err());
    draft.mkdir(&mkdir("/a/b", true)).unwrap();
    draft.mkdir(&mkdir("/l", false)).unwrap();
    draft
        .mkfile(&MkfileOptions {
            path: "/a/f".into(),
            mode: 0o600,
            data: b"x".into(),
            ..MkfileOptions::default()
        })
        .unwrap();
    let link =
        SymlinkOptions { path: "/a/s".into(), target: "f".into(), ..SymlinkOptions::default() };
    draft.symlink(&link).unwrap();
    assert!(draft.symlink(&link).is_err());
    let expect =
        "a/ @755:3:4\na/b/ @755:3:4\na/f = x @600:0:0\na/s -> f\nl -> /real\nreal/ @755:3:4";
    assert_eq!(dump(&draft.view()), expect);
}

#[test]
fn stubs_leave_no_trace_unless_used() {
    if !may_chown() {
        return;
    }
    let mut case = case("", "etc/\ne -> /etc\nout -> /../../tmp");
    let draft = &mut case.draft;
    let mut stubs = draft.ensure_dir("/root/.cache/x").unwrap();
    stubs.extend(draft.ensure_file("/e/hosts").unwrap());
    stubs.extend(draft.ensure_dir("/etc").unwrap());
    stubs.extend(draft.ensure_dir("/out/y").unwrap());
    stubs.extend(draft.ensure_file("/used/file").unwrap());
    assert!(case.outside.join("upper/tmp/y").is_dir());
    fs::write(case.outside.join("upper/used/file"), "kept").unwrap();
    draft.ensure_cwd("/w/d", 5, 6).unwrap();
    draft.remove_stubs(stubs).unwrap();
    let expect = "e -> /etc\netc/\nout -> /../../tmp\nused/\nused/file = kept @755:0:0\nw/ @755:5:6\nw/d/ @755:5:6";
    assert_eq!(dump(&draft.view()), expect);
}

fn archive(entries: &[(EntryKind, &str, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (kind, path, content) in entries {
        let mut entry = Entry::new(*kind, path.as_bytes().to_vec());
        entry.mode = if *kind == EntryKind::Dir { 0o755 } else { 0o644 };
        match kind {
            EntryKind::File => {
                entry.size = content.len() as u64;
                writer.append_file(&entry, &mut content.as_bytes()).unwrap();
                continue;
            }
            EntryKind::Symlink | EntryKind::HardLink => entry.link = content.as_bytes().to_vec(),
            _ => {}
        }
        writer.append(&entry).unwrap();
    }
    writer.finish().unwrap()
}

#[track_caller]
fn check_add(entries: &[(EntryKind, &str, &str)], lower: &str, dest: &str, expect: &str) {
    if !may_chown() {
        return;
    }
    let mut case = case("", lower);
    fs::write(case.outside.join("source/t"), archive(entries)).unwrap();
    let add = CopyOptions { attempt_unpack: true, ..options("t", dest) };
    let actual = match case.draft.copy(&case.source, &add) {
        Ok(()) => dump(&case.draft.view()),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(actual, text(expect));
}

#[test]
fn archives_are_unpacked_inside_their_destination() {
    use EntryKind::{Dir, File, HardLink, Symlink};
    check_add(&[(Dir, "d", ""), (File, "d/f", "1")], "", "/x", "x/\nx/d/\nx/d/f = 1");
    check_add(&[(File, "../../e", "1"), (File, "/abs", "2")], "", "/x", "x/\nx/abs = 2\nx/e = 1");
    check_add(
        &[(Symlink, "l", "/etc"), (File, "l/f", "1")],
        "",
        "/x",
        "x/\nx/etc/\nx/etc/f = 1\nx/l -> /etc",
    );
    check_add(
        &[(Symlink, "l", "../../.."), (File, "l/f", "1")],
        "",
        "/x",
        "x/\nx/f = 1\nx/l -> ../../..",
    );
    check_add(&[(File, ".wh.a", "w")], "x/a = 1", "/x", "x/\nx/.wh.a = w\nx/a = 1");
    check_add(&[(File, "d", "new")], "x/d/old = 1", "/x", "x/\nx/d = new");
    check_add(&[(Dir, "d", "")], "x/d/old = 1 ", "/x", "x/\nx/d/\nx/d/old = 1");
    check_add(&[(File, "a", "1"), (HardLink, "b", "a")], "", "/x", "x/\nx/a = 1\nx/b = 1");
    check_add(&[(HardLink, "b", "low")], "x/low = 1", "/x", "x/\nx/b = 1\nx/low = 1");
}

#[test]
fn what_is_no_archive_is_copied() {
    let add = CopyOptions { attempt_unpack: true, ..options("t", "/x") };
    check_with("t = not an archive", "", &add, "x = not an archive");
}

#[test]
fn context_hides_owners_and_what_is_ignored() {
    if !may_chown() {
        return;
    }
    let mut case = case("a = 1 @640:5:6\nd/x = 2\nd/keep = 3\nn/y = 4", "");
    let ignore = Patterns::parse_ignore_file(b"d\n!d/keep\nn\n").unwrap();
    let context = Context::open(&case.outside.join("source"), ignore, None).unwrap();
    case.draft.copy(&context, &options("/", "/")).unwrap();
    assert_eq!(dump(&case.draft.view()), "a = 1 @640:0:0\nd/\nd/keep = 3");
    let missing = case.draft.copy(&context, &options("n/y", "/")).unwrap_err();
    assert_eq!(missing.to_string(), "\"/n/y\": not found");
}

#[test]
fn extended_attributes_are_copied_where_possible() {
    let mut case = case("a = 1", "");
    let from = case.outside.join("source/a");
    if rustix::fs::setxattr(&from, "user.x", b"v", rustix::fs::XattrFlags::empty()).is_err() {
        eprintln!("SKIP: the file system has no user attributes");
        return;
    }
    case.draft.copy(&case.source, &options("a", "/b")).unwrap();
    let xattrs = case.draft.view().xattrs(Path::new("b")).unwrap();
    assert!(xattrs.iter().any(|(name, value)| name.as_bytes() == b"user.x" && value == b"v"));
}

#[test]
fn devices_pipes_and_sockets_are_copied() {
    if !may_chown() {
        return;
    }
    let mut case = case("", "");
    let source = case.outside.join("source");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    let device = rustix::fs::makedev(1, 3);
    let made =
        [(rustix::fs::FileType::CharacterDevice, "null"), (rustix::fs::FileType::Fifo, "pipe")]
            .map(|(kind, name)| {
                rustix::fs::mknodat(rustix::fs::CWD, source.join(name), kind, mode, device)
            });
    if made.iter().any(Result::is_err) {
        eprintln!("SKIP: device nodes cannot be made here");
        return;
    }
    let _socket = std::os::unix::net::UnixListener::bind(source.join("sock")).unwrap();
    for name in ["null", "pipe", "sock"] {
        fs::set_permissions(source.join(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    case.draft.copy(&case.source, &options("/", "/")).unwrap();
    assert_eq!(dump(&case.draft.view()), "null CharDevice\npipe Fifo\nsock = ");
}
