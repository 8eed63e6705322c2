//! What `save` writes others read, and what others write `load` reads.

use std::process::Stdio;

use crate::support::{Place, has, tool};
use crate::{elsewhere, id, run_elsewhere, two_images};

#[test]
fn several_images_in_one_archive_come_back_with_their_names() {
    let place = two_images();
    let ids = ["app:1", "app:2"].map(|name| id(&place, name));
    place.run(&["save", "-o", "two.tar", "app"]).ok();
    let printed = run_elsewhere(&place, &["load", "--input", "two.tar"]).ok().stdout;
    assert_eq!(printed, "Loaded image: app:1\nLoaded image: app:2\n");
    for (name, id) in ["app:1", "app:2"].iter().zip(&ids) {
        let found = run_elsewhere(&place, &["inspect", "-f", "{{.Id}}", name]).ok().stdout;
        assert_eq!(found.trim(), id);
    }
    let absent = run_elsewhere(&place, &["inspect", "other"]);
    assert_eq!(absent.code, Some(1), "only names that were asked for are in the archive");
    // What has come in can go out, and is the same.
    run_elsewhere(&place, &["save", "-o", "again.tar", "app:1", "app:2"]).ok();
    assert!(
        fs_err::read(place.path("two.tar")).unwrap()
            == fs_err::read(place.path("again.tar")).unwrap()
    );
    // An id gives no name.
    place.run(&["save", "-o", "bare.tar", &ids[0]]).ok();
    let printed = run_elsewhere(&place, &["load", "-q", "-i", "bare.tar"]).ok().stdout;
    assert_eq!(printed, format!("{}\n", ids[0]));
}

#[test]
fn archives_of_others_are_read_in_all_forms() {
    if !has("skopeo") {
        return;
    }
    let place = two_images();
    let path = |name: &str| place.path(name).display().to_string();
    place.run(&["save", "-o", "app.tar", "app:1"]).ok();
    let from = format!("docker-archive:{}", path("app.tar"));
    let copy = |to: &str| drop(tool("skopeo", &["copy", "-q", &from, to]));
    // Layers are `<id>/layer.tar` there, some as links to others.
    copy(&format!("docker-archive:{}:app:docker", path("docker.tar")));
    copy(&format!("oci-archive:{}:reg.example.com/app:oci", path("oci.tar")));
    copy(&format!("oci:{}:tag", path("layout")));
    for (words, printed) in [
        (["-i", "docker.tar"], "Loaded image: app:docker\n"),
        (["-i", "oci.tar"], "Loaded image: reg.example.com/app:oci\n"),
        (["-i", "layout"], "Loaded image ID: sha256:"),
    ] {
        let ran = run_elsewhere(&place, &[&["load"], &words[..]].concat()).ok();
        assert!(ran.stdout.starts_with(printed), "{words:?}: {}", ran.stdout);
    }
    let steps = run_elsewhere(&place, &["history", "--format", "{{.Size}}", "app:docker"]).ok();
    let own = place.run(&["history", "--format", "{{.Size}}", "app:1"]).ok();
    assert_eq!(steps.stdout, own.stdout);
    assert_eq!(
        run_elsewhere(&place, &["inspect", "-f", "{{.Id}}", "app:docker"]).ok().stdout.trim(),
        id(&place, "app:1")
    );
    // Its files are all there: nothing differs from what was built.
    run_elsewhere(&place, &["load", "-i", "app.tar"]).ok();
    let ran =
        run_elsewhere(&place, &["diff", "app:docker", "reg.example.com/app:oci", "--only=files"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{}", ran.stderr);
}

#[test]
fn compressed_archives_and_standard_input_are_read() {
    let place = two_images();
    place.run(&["save", "-o", "app.tar", "app:1"]).ok();
    for (program, end) in [("gzip", "gz"), ("zstd", "zst"), ("xz", "xz"), ("bzip2", "bz2")] {
        if !has(program) {
            continue;
        }
        let path = place.path(&format!("app.tar.{end}"));
        let output = std::process::Command::new(program)
            .args(["-c", &place.path("app.tar").display().to_string()])
            .output()
            .unwrap();
        fs_err::write(&path, output.stdout).unwrap();
        let file = fs_err::File::open(&path).unwrap().into_file();
        let output = elsewhere(&place, &["load"]).stdin(file).output().unwrap();
        assert_eq!(place.ran(output).ok().stdout, "Loaded image: app:1\n", "{end}");
        let path = path.display().to_string();
        run_elsewhere(&place, &["load", "-i", &path]).ok();
        run_elsewhere(&place, &["rmi", "app:1"]).ok();
    }
    // A pipe cannot be read twice.
    let mut saving = place.command(&["save", "app:1"]).stdout(Stdio::piped()).spawn().unwrap();
    let pipe = saving.stdout.take().unwrap();
    let output = elsewhere(&place, &["load"]).stdin(pipe).output().unwrap();
    assert_eq!(place.ran(output).ok().stdout, "Loaded image: app:1\n");
    assert!(saving.wait().unwrap().success());
    place.expect_nothing_half_written("load");
}

#[test]
fn an_image_of_several_platforms_goes_through_a_layout() {
    let place =
        Place::new(&[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n")]);
    place.write("f-amd64", "amd64\n");
    place.write("f-arm64", "arm64\n");
    place
        .build(&[
            "--platform=linux/amd64,linux/arm64",
            "-t",
            "multi",
            "-o",
            "type=image",
            "-o",
            "type=oci,dest=m.tar",
        ])
        .ok();
    let loaded = run_elsewhere(&place, &["load", "-i", "m.tar"]).ok();
    assert_eq!(loaded.stdout, "Loaded image: multi:latest\n");
    let platforms = ["inspect", "-f", "{{range .Variants}}{{.Platform}} {{end}}", "multi"];
    assert_eq!(run_elsewhere(&place, &platforms).ok().stdout, "linux/amd64 linux/arm64 \n");
    // The index is that of the archive.
    let digest = ["inspect", "-f", "{{index .RepoDigests 0}}", "multi"];
    let digest = run_elsewhere(&place, &digest).ok().stdout;
    run_elsewhere(&place, &["inspect", digest.trim()]).ok();
    let several = run_elsewhere(&place, &["save", "-o", "d.tar", "multi"]);
    assert_eq!(several.code, Some(1));
    assert!(several.stderr.contains("choose one with --platform, or write all with --format oci"));
    run_elsewhere(&place, &["save", "-o", "d.tar", "--platform=linux/arm64", "multi"]).ok();
    run_elsewhere(&place, &["save", "-o", "o.tar", "--format=oci", "multi"]).ok();
    let one = run_elsewhere(&place, &["load", "-i", "o.tar", "--platform", "linux/arm64"]).ok();
    assert_eq!(one.stdout, "Loaded image: multi:latest\n");
    assert_eq!(run_elsewhere(&place, &platforms).ok().stdout, "linux/arm64 \n");
    let none = run_elsewhere(&place, &["load", "-i", "o.tar", "--platform", "linux/s390x"]);
    assert_eq!(
        (none.code, none.stderr.as_str()),
        (
            Some(1),
            "ERROR: image `multi:latest` has nothing for platform `linux/s390x`: it is for `linux/amd64`, `linux/arm64`\n  \
             help: choose one of these with --platform\n"
        )
    );
}

#[test]
fn a_terminal_is_no_archive() {
    if !has("script") {
        return;
    }
    let place = two_images();
    for (words, message) in [
        ("save app:1", "an archive is not written to a terminal"),
        ("load", "an archive is not read from a terminal"),
    ] {
        let line = format!("'{}' {words}", env!("CARGO_BIN_EXE_bricklayer"));
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("BRICKLAYER_ROOT", place.path("state"));
        let printed = place.ran(command.stdin(Stdio::null()).output().unwrap()).stdout;
        assert!(printed.contains(message), "{words}: {printed}");
    }
}
