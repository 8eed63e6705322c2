//! The files of a result, in a folder and in a tar.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use cache::Ref;
use common::{Bench, entries, platform_result, result, write};
use exporters::{Destination, ImageResult, Output, local, tar};
use fs_err as fs;

/// Whatever is done to make a result, as one layer over nothing.
fn files(bench: &Bench, fill: impl FnOnce(&Path)) -> ImageResult {
    let layer = bench.layer(&Ref::scratch(), 1000, fill);
    result(Ref::scratch().push(layer), &[])
}

fn export(
    bench: &Bench,
    result: &ImageResult,
    attributes: &str,
) -> Result<std::path::PathBuf, exporters::ExportError> {
    let output = Output::parse(&format!("type=local,dest=x{attributes}")).unwrap();
    let folder = bench.path("parent/out");
    local::write(result, &output, &folder).map(|()| folder)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_time(path: &Path, seconds: i64) {
    let file = fs::File::open(path).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.unsigned_abs());
    file.file().set_modified(time).unwrap();
}

#[test]
fn modes_links_and_times_are_kept() {
    let bench = Bench::new();
    let result = files(&bench, |root| {
        fs::create_dir_all(root.join("closed/deep")).unwrap();
        write(root, "closed/deep/a", "content");
        fs::hard_link(root.join("closed/deep/a"), root.join("b")).unwrap();
        fs::os::unix::fs::symlink("../nowhere", root.join("link")).unwrap();
        fs::set_permissions(root.join("b"), PermissionsExt::from_mode(0o4751)).unwrap();
        set_time(&root.join("b"), 77);
        set_time(&root.join("closed/deep"), 88);
        set_time(&root.join("closed"), 99);
        fs::set_permissions(root.join("closed"), PermissionsExt::from_mode(0o555)).unwrap();
    });
    // A second export finds what the first has closed.
    for _ in 0..2 {
        let folder = export(&bench, &result, "").unwrap();
        let a = fs::metadata(folder.join("closed/deep/a")).unwrap();
        assert_eq!((a.ino(), a.nlink()), (fs::metadata(folder.join("b")).unwrap().ino(), 2));
        assert_eq!(
            (mode(&folder), mode(&folder.join("b")), mode(&folder.join("closed"))),
            (0o700, 0o4751, 0o555)
        );
        let times = ["b", "closed/deep", "closed"]
            .map(|path| fs::metadata(folder.join(path)).unwrap().mtime());
        assert_eq!(times, [77, 88, 99]);
        assert_eq!(fs::read_link(folder.join("link")).unwrap(), Path::new("../nowhere"));
    }
}

#[test]
fn what_is_there_stays_unless_it_has_the_same_name() {
    let bench = Bench::new();
    let folder = bench.path("parent/out");
    fs::create_dir_all(folder.join("file/was/a/folder")).unwrap();
    fs::create_dir_all(folder.join("kept")).unwrap();
    write(&folder, "kept/old", "old");
    write(&folder, "dir", "was a file");
    let result = files(&bench, |root| {
        fs::create_dir(root.join("kept")).unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        write(root, "file", "new");
        write(root, "kept/new", "new");
        write(root, "dir/new", "new");
    });
    export(&bench, &result, "").unwrap();
    for path in ["file", "kept/new", "dir/new"] {
        assert_eq!(fs::read_to_string(folder.join(path)).unwrap(), "new");
    }
    assert_eq!(fs::read_to_string(folder.join("kept/old")).unwrap(), "old");
}

#[test]
fn links_that_are_in_the_way_are_replaced_not_followed() {
    let bench = Bench::new();
    let (folder, outside) = (bench.path("parent/out"), bench.path("outside"));
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir(&outside).unwrap();
    write(&outside, "file", "precious");
    fs::os::unix::fs::symlink(&outside, folder.join("dir")).unwrap();
    fs::os::unix::fs::symlink(outside.join("file"), folder.join("file")).unwrap();
    let result = files(&bench, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        write(root, "dir/file", "new");
        write(root, "file", "new");
    });
    export(&bench, &result, "").unwrap();
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "precious");
    assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(folder.join("dir/file")).unwrap(), "new");
}

#[test]
fn with_an_epoch_all_times_are_that() {
    let bench = Bench::new();
    let result = files(&bench, |root| {
        fs::create_dir(root.join("d")).unwrap();
        write(root, "d/f", "x");
        fs::os::unix::fs::symlink("f", root.join("d/l")).unwrap();
    });
    let folder = export(&bench, &result, ",source-date-epoch=5").unwrap();
    for path in ["d", "d/f", "d/l"] {
        assert_eq!(fs::symlink_metadata(folder.join(path)).unwrap().mtime(), 5, "{path}");
    }
}

fn two_platforms(bench: &Bench, other: &str) -> ImageResult {
    let mut result = files(bench, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        write(root, "dir/a", "amd64");
    });
    let layer = bench.layer(&Ref::scratch(), 1000, |root| {
        fs::create_dir(root.join("dir")).unwrap();
        write(root, other, "arm");
    });
    result.platforms.push(platform_result(Ref::scratch().push(layer), "linux/arm/v7"));
    result
}

#[test]
fn each_platform_has_a_folder_of_its_own() {
    let bench = Bench::new();
    let result = two_platforms(&bench, "dir/a");
    let folder = export(&bench, &result, "").unwrap();
    assert_eq!(fs::read_to_string(folder.join("linux_amd64/dir/a")).unwrap(), "amd64");
    assert_eq!(fs::read_to_string(folder.join("linux_arm_v7/dir/a")).unwrap(), "arm");
    assert_eq!(mode(&folder.join("linux_arm_v7")), 0o755);
}

#[test]
fn platforms_in_one_folder_must_not_have_files_of_one_name() {
    let bench = Bench::new();
    let folder = export(&bench, &two_platforms(&bench, "dir/b"), ",platform-split=false").unwrap();
    assert_eq!(fs::read_to_string(folder.join("dir/a")).unwrap(), "amd64");
    assert_eq!(fs::read_to_string(folder.join("dir/b")).unwrap(), "arm");
    let error =
        export(&bench, &two_platforms(&bench, "dir/a"), ",platform-split=false").unwrap_err();
    let expect =
        "cannot overwrite dir/a from linux/amd64 with linux/arm/v7 when split option is disabled";
    assert_eq!(error.to_string(), expect);
}

#[test]
fn a_tar_has_everything_in_order() {
    let bench = Bench::new();
    let output = Output::parse("-").unwrap();
    let path = bench.path("out.tar");
    let list = |result: &ImageResult| {
        tar::write(result, &output, Destination::File(path.clone())).unwrap();
        entries(&fs::read(&path).unwrap()).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(list(&files(&bench, |root| write(root, "f", "x"))), ["f"]);
    assert_eq!(list(&result(Ref::scratch(), &[])), [""; 0]);
    let expect = [
        "linux_amd64/",
        "linux_amd64/dir/",
        "linux_amd64/dir/a",
        "linux_arm_v7/",
        "linux_arm_v7/dir/",
        "linux_arm_v7/dir/a",
    ];
    assert_eq!(list(&two_platforms(&bench, "dir/a")), expect);
}
