use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use proptest::prelude::*;
use tempfile::TempDir;

use super::{Changes, extract_changes, write_layer};
use crate::View;
use crate::apply::tests::may_make_nodes;
use crate::diff::snapshot_tests::snapshot_all as snapshot;
use crate::draft::{copy_tree, graft};
use crate::layer::{Encoding, LayerDir};
use crate::stack::Stack;
use crate::survey::Survey;

/// Lower layers, a plain copy of them, and the layer that its changes make.
struct Folders {
    root: TempDir,
}

impl Folders {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        for name in ["low", "high", "copy", "layer", "upper", "work", "merged", "kept"] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::set_permissions(root.path().join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        Self { root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn layer(&self, name: &str) -> LayerDir {
        LayerDir::new(self.path(name))
    }

    fn lower(&self) -> Stack {
        Stack::new(vec![self.layer("low"), self.layer("high")])
    }

    fn copy(&self) -> Survey {
        self.copy_to("copy")
    }

    fn copy_to(&self, name: &str) -> Survey {
        let encoding = Encoding::default();
        copy_tree(&self.lower(), Path::new(""), &self.layer(name), encoding).unwrap();
        let survey = Survey::take(&self.layer(name)).unwrap();
        survey.settle();
        survey
    }

    /// Makes the layer, and moves what is in it out of the copy.
    fn extract(&self, before: &Survey) -> Stack {
        self.extract_to("layer", before, false).unwrap();
        self.lower().push(self.layer("layer"))
    }

    fn extract_to(&self, name: &str, before: &Survey, keep: bool) -> std::io::Result<Survey> {
        let (folder, lower) = (&self.layer("copy"), &self.lower());
        let after = Survey::take(folder)?;
        let changes = Changes { folder, before, after: &after, lower, keep };
        extract_changes(&changes, &self.layer(name), Encoding::default())?;
        Ok(after)
    }

    /// Runs a script in one of the folders.
    #[track_caller]
    fn shell(&self, folder: &str, script: &str) {
        let done = Command::new("sh").args(["-ec", script]).current_dir(self.path(folder)).status();
        assert!(done.unwrap().success(), "{script}");
    }

    fn tar(&self, upper: &str) -> Vec<u8> {
        let mut tar = Vec::new();
        write_layer(&self.layer(upper), &self.lower(), Encoding::default(), &mut tar).unwrap();
        tar
    }
}

/// One change of a tree; one that cannot be made is left out.
#[derive(Debug, Clone)]
enum Edit {
    Write(String, String),
    Dir(String),
    Symlink(String),
    Link(String, String),
    Rename(String, String),
    Remove(String),
    Mode(String, u32),
    Owner(String, u32),
    Fifo(String),
    Attribute(String),
}

impl Edit {
    fn make(&self, root: &Path) {
        let at = |path: &String| root.join(path);
        let _ = match self {
            // A pipe would wait for a reader, a link lead elsewhere.
            Self::Write(path, text) => match fs::symlink_metadata(at(path)) {
                Ok(found) if !found.is_file() => Ok(()),
                _ => fs::write(at(path), text),
            },
            Self::Dir(path) => fs::create_dir(at(path)),
            Self::Symlink(path) => symlink("nowhere/at/all", at(path)),
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Rename(from, to) => fs::rename(at(from), at(to)),
            Self::Remove(path) => {
                fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path)))
            }
            Self::Mode(path, mode) if !at(path).is_symlink() => {
                fs::set_permissions(at(path), PermissionsExt::from_mode(*mode))
            }
            Self::Mode(..) => Ok(()),
            Self::Owner(path, owner) => std::os::unix::fs::lchown(at(path), Some(*owner), None),
            Self::Fifo(path) => {
                let mode = rustix::fs::Mode::RUSR;
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, at(path), kind, mode, 0).map_err(Into::into)
            }
            Self::Attribute(path) => {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(at(path), "user.x", b"1", flags).map_err(Into::into)
            }
        };
    }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let path = || "[ab](/[ab]){0,2}";
    prop_oneof![
        4 => (path(), "[01]{0,2}").prop_map(|(path, text)| Edit::Write(path, text)),
        4 => path().prop_map(Edit::Dir),
        1 => path().prop_map(Edit::Symlink),
        1 => (path(), path()).prop_map(|(from, to)| Edit::Link(from, to)),
        1 => (path(), path()).prop_map(|(from, to)| Edit::Rename(from, to)),
        3 => path().prop_map(Edit::Remove),
        1 => (path(), 0o600_u32..0o4755).prop_map(|(path, mode)| Edit::Mode(path, mode | 0o700)),
        1 => (path(), 0_u32..3).prop_map(|(path, owner)| Edit::Owner(path, owner)),
        1 => path().prop_map(Edit::Fifo),
        1 => path().prop_map(Edit::Attribute),
    ]
}

fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(any_edit(), 0..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The copy reads as the layers; the layers and the extracted one read as the edited copy.
    #[test]
    fn the_layer_is_what_was_changed_in_the_copy(
        low in any_edits(),
        high in any_edits(),
        edits in any_edits(),
    ) {
        if !may_make_nodes() {
            return Ok(());
        }
        let folders = Folders::new();
        low.iter().for_each(|edit| edit.make(&folders.path("low")));
        high.iter().for_each(|edit| edit.make(&folders.path("high")));
        let before = folders.copy();
        let copy = || Stack::new(vec![folders.layer("copy")]);
        prop_assert_eq!(snapshot(&copy()), snapshot(&folders.lower()));
        edits.iter().for_each(|edit| edit.make(&folders.path("copy")));
        let wanted = snapshot(&copy());
        folders.extract_to("upper", &before, true).unwrap();
        prop_assert_eq!(snapshot(&copy()), wanted.clone());
        prop_assert_eq!(snapshot(&folders.lower().push(folders.layer("upper"))), wanted.clone());
        prop_assert_eq!(folders.tar("upper"), {
            folders.extract(&before);
            folders.tar("layer")
        });
        prop_assert_eq!(snapshot(&folders.lower().push(folders.layer("layer"))), wanted.clone());
        // The layer put onto a copy of those below makes the edited copy again.
        folders.copy_to("merged");
        graft(folders.layer("layer").into(), &folders.layer("merged"), Encoding::default()).unwrap();
        prop_assert_eq!(snapshot(&Stack::new(vec![folders.layer("merged")])), wanted);
    }

    /// A tree that goes on to be worked in makes a second layer over the first.
    #[test]
    fn a_second_step_goes_on_in_the_tree_of_the_first(
        low in any_edits(),
        first in any_edits(),
        second in any_edits(),
    ) {
        if !may_make_nodes() {
            return Ok(());
        }
        let folders = Folders::new();
        low.iter().for_each(|edit| edit.make(&folders.path("low")));
        let before = folders.copy();
        first.iter().for_each(|edit| edit.make(&folders.path("copy")));
        let between = folders.extract_to("upper", &before, true).unwrap();
        between.settle();
        second.iter().for_each(|edit| edit.make(&folders.path("copy")));
        let folder = folders.layer("copy");
        let lower = folders.lower().push(folders.layer("upper"));
        let wanted = snapshot(&Stack::new(vec![folder.clone()]));
        let after = Survey::take(&folder).unwrap();
        let changes =
            Changes { folder: &folder, before: &between, after: &after, lower: &lower, keep: true };
        extract_changes(&changes, &folders.layer("layer"), Encoding::default()).unwrap();
        prop_assert_eq!(snapshot(&lower.push(folders.layer("layer"))), wanted);
    }
}

#[test]
fn an_unchanged_copy_makes_an_empty_layer() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.shell("low", "mkdir -p d/e; echo 1 > d/f; ln d/f d/g; ln -s /etc d/l; mkfifo d/p");
    let before = folders.copy();
    let inode = |name: &str| fs::metadata(folders.path(name)).unwrap().ino();
    assert_eq!(inode("copy/d/f"), inode("copy/d/g"));
    folders.extract(&before);
    assert_eq!(fs::read_dir(folders.path("layer")).unwrap().count(), 0);
}

#[test]
fn a_directory_made_anew_has_no_attributes_of_the_old_one() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.shell("low", "mkdir -p d/e");
    for path in ["d", "d/e"] {
        Edit::Attribute(path.to_owned()).make(&folders.path("low"));
    }
    let before = folders.copy();
    folders.shell("copy", "rm -r d; mkdir -p d/e");
    let wanted = snapshot(&Stack::new(vec![folders.layer("copy")]));
    folders.extract(&before);
    folders.copy_to("merged");
    graft(folders.layer("layer").into(), &folders.layer("merged"), Encoding::default()).unwrap();
    assert_eq!(snapshot(&Stack::new(vec![folders.layer("merged")])), wanted);
}

#[test]
fn names_of_one_new_file_stay_together() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.shell("low", "mkdir d; echo 1 > d/old");
    let before = folders.copy();
    folders.shell("copy", "echo 2 > d/a; ln d/a b; ln d/old c");
    folders.extract_to("upper", &before, true).unwrap();
    folders.extract(&before);
    for layer in ["upper", "layer"] {
        let file = |name: &str| fs::metadata(folders.path(layer).join(name)).unwrap();
        assert_eq!((file("d/a").nlink(), file("d/a").ino()), (2, file("b").ino()));
        assert!(!folders.path(layer).join("d/old").exists());
        assert!(folders.path(layer).join("c").exists());
    }
}

#[test]
fn what_would_mean_a_deletion_does_not_get_into_the_layer() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.shell("low", "mkdir d; echo 1 > f");
    let before = folders.copy();
    folders.shell("copy", ": > f; mkdir new");
    for (name, key) in [("f", "user.overlay.whiteout"), ("new", "user.overlay.redirect")] {
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(folders.path("copy").join(name), key, b"y", flags).is_err() {
            println!("SKIP: the file system has no user attributes");
            return;
        }
    }
    let stack = folders.extract(&before);
    assert_eq!(stack.metadata(Path::new("f")).unwrap().unwrap().size, 0);
    folders.tar("layer");

    folders.shell("copy", "mknod c c 0 0");
    for (into, keep) in [("upper", true), ("work", false)] {
        let error = folders.extract_to(into, &before, keep).unwrap_err().to_string();
        assert!(error.contains("`/c`") && error.contains("marks a deletion"), "{error}");
    }
}

/// Changes of all kinds, with times that do not depend on when they are made.
const EDITS: &str = "
    echo more >> d/kept; chmod 600 d/mode; rm d/gone; rm -r all/*; echo 1 > all/new
    rm -r replaced; mkdir replaced; echo 2 > replaced/b; ln replaced/b replaced/c
    rm -r dir; echo now a file > dir; rm file; mkdir -p file/in; ln d/same hard; ln -s x link
    mkdir fresh; mkfifo fresh/pipe; touch -d @1000.5 d/touched; rm -r whole; touch d/x; rm d/x
    chown 5:6 d/owner; rm renamed/*; rmdir renamed; mv d/moved fresh/moved
    find . -newermt '2020-01-01' -exec touch -h -d @1600000000.25 {} +
";

#[test]
fn tars_equal_those_of_an_overlay() {
    if !may_make_nodes() {
        return;
    }
    let folders = Folders::new();
    folders.shell(
        "low",
        "mkdir d all replaced dir whole renamed
        for name in kept mode gone same touched owner moved; do echo $name > d/$name; done
        for name in a b c; do
            for dir in all replaced dir whole renamed; do echo $name > $dir/$name; done
        done
        echo file > file; touch -d @5 d/kept",
    );
    folders.shell("high", "mkdir d; echo high > d/kept");
    for layer in ["low", "high"] {
        folders.shell(layer, "find . -exec touch -h -d @1000.5 {} +");
    }
    let path = |name: &str| folders.path(name).display().to_string();
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={},redirect_dir=off",
        path("high"),
        path("low"),
        path("upper"),
        path("work")
    );
    let mount = ["-t", "overlay", "overlay", "-o", &options, &path("merged")].map(str::to_owned);
    if !Command::new("mount").args(&mount).status().is_ok_and(|status| status.success()) {
        println!("SKIP: cannot mount an overlay here");
        return;
    }
    let edited = std::panic::catch_unwind(|| folders.shell("merged", EDITS));
    assert!(Command::new("umount").arg(path("merged")).status().unwrap().success());
    edited.unwrap();
    let before = folders.copy();
    folders.shell("copy", EDITS);
    folders.extract_to("kept", &before, true).unwrap();
    folders.extract(&before);
    let list = |tar: Vec<u8>| {
        let mut archive = tar::Archive::new(std::io::Cursor::new(tar));
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            format!("{:?} {:?}", entry.path().unwrap(), entry.header())
        });
        entries.collect::<Vec<_>>()
    };
    let (plain, overlay) = (folders.tar("layer"), folders.tar("upper"));
    assert_eq!(list(plain.clone()), list(overlay.clone()));
    assert!(plain == overlay, "contents differ");
    assert!(folders.tar("kept") == overlay, "contents of a copy differ");
}
