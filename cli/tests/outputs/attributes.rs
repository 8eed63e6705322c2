//! What attributes do.

use fs_err as fs;

use crate::documents::check_layout;
use crate::support::{Place, can_run, has};
use crate::{blob, json, manifest, sample, tool, unpacked};

#[test]
fn every_compression_gives_the_same_files() {
    if !can_run() || !has("zstd") {
        return;
    }
    let place = sample();
    for (compression, end, reader) in [
        ("uncompressed", "tar", "cat"),
        ("gzip,compression-level=9", "gzip", "gzip -dc"),
        ("zstd,compression-level=2", "zstd", "zstd -dc"),
        ("estargz", "gzip", "gzip -dc"),
    ] {
        let output =
            format!("type=oci,dest=i.tar,force-compression=true,compression={compression}");
        place.build(&["-o", &output]).ok();
        let layout = unpacked(&place, "i.tar", &compression[..4]);
        let found = check_layout(&layout);
        assert_eq!(found.layer_types.len(), 1, "{:?}", found.layer_types);
        assert!(
            found.layer_types.iter().all(|kind| kind.ends_with(end)),
            "{:?}",
            found.layer_types
        );
        let (manifest, base) = (manifest(&layout), usize::from(compression == "estargz"));
        let config = json(&blob(&layout, &manifest["config"]));
        for number in 0..3 {
            let layer = &manifest["layers"][number];
            let path = blob(&layout, layer);
            let sum = tool("sh", &["-c", &format!("{reader} < {} | sha256sum", path.display())]);
            let diff_id = config["rootfs"]["diff_ids"][number].as_str().unwrap();
            assert!(diff_id.ends_with(&sum[..64]), "{compression}, layer {number}");
            let table = &layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"];
            assert_eq!(table.is_string(), base == 1, "{layer}");
        }
        let upper = blob(&layout, &manifest["layers"][1]);
        let names = tool("sh", &["-c", &format!("{reader} < {} | tar -t", upper.display())]);
        let expect = ["data/", "data/a", "data/b", "data/gone", "data/large"];
        assert_eq!(names.lines().collect::<Vec<_>>(), expect, "{compression}");
    }
}

#[test]
fn a_base_keeps_its_blob_unless_it_is_forced_into_a_table() {
    if !can_run() {
        return;
    }
    let place = sample();
    let tables = |words: &str, name: &str| {
        place.build(&["-o", &format!("type=oci,dest=i.tar,compression=estargz{words}")]).ok();
        let layout = unpacked(&place, "i.tar", name);
        let layers = manifest(&layout)["layers"].clone();
        let has = |layer: &serde_json::Value| {
            layer["annotations"]["containerd.io/snapshot/stargz/toc.digest"].is_string()
        };
        layers.as_array().unwrap().iter().map(has).collect::<Vec<_>>()
    };
    assert_eq!(tables("", "one"), [false, true, true]);
    assert_eq!(tables(",force-compression=true", "two"), [true, true, true]);
    // What was made for a table does not stand for gzip.
    place.build(&["-o", "type=oci,dest=g.tar"]).ok();
    let plain = manifest(&unpacked(&place, "g.tar", "three"));
    assert_eq!(plain["layers"][1].get("annotations"), None);
}

#[test]
fn times_are_cut_back_in_new_layers_only() {
    if !can_run() {
        return;
    }
    let place = sample();
    let epoch = [("SOURCE_DATE_EPOCH", "1600000000")];
    let output = "type=oci,dest=i.tar,rewrite-timestamp=true";
    place
        .build_with(
            &["-t", "app:1", "-o", output, "-o", "type=image,rewrite-timestamp=true"],
            &epoch,
        )
        .ok();
    let layout = unpacked(&place, "i.tar", "one");
    let rewritten = manifest(&layout);
    place.build(&["-o", "type=oci,dest=p.tar"]).ok();
    let plain = manifest(&unpacked(&place, "p.tar", "two"));
    assert_eq!(rewritten["layers"][0], plain["layers"][0]);
    for number in 1..3 {
        assert_ne!(rewritten["layers"][number], plain["layers"][number]);
        let path = blob(&layout, &rewritten["layers"][number]);
        let list = tool("tar", &["--utc", "-tvzf", path.to_str().unwrap()]);
        // A whiteout has no time.
        let is_cut = |line: &str| line.contains(" 2020-09-13 12:26 ") || line.contains("/.wh.");
        assert!(list.lines().all(is_cut), "{list}");
    }
    check_layout(&layout);
    // The local store has the same layers.
    place.run(&["save", "-o", "s.tar", "app:1"]).ok();
    let saved = manifest(&unpacked(&place, "s.tar", "three"));
    assert_eq!(saved["layers"], rewritten["layers"]);
    let refused = place.build(&["-o", output]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains(
            "`rewrite-timestamp` needs a time: set SOURCE_DATE_EPOCH or --source-date-epoch"
        ),
        "{}",
        refused.stderr
    );
    // Before anything is built.
    assert!(
        !refused.stderr.contains("RUN") && !refused.stderr.contains("COPY"),
        "{}",
        refused.stderr
    );
    // The Dockerfile may say it as well.
    place.write("Dockerfile", &format!("ARG SOURCE_DATE_EPOCH=1600000000\n{}", crate::DOCKERFILE));
    place.build(&["-o", output]).ok();
}

#[test]
fn a_mirrored_folder_loses_what_the_result_does_not_have() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY d /d\n"), ("d/kept", "new")]);
    let out = place.path("out");
    fs::create_dir_all(out.join("d/old/deep")).unwrap();
    fs::create_dir_all(out.join("other")).unwrap();
    fs::write(out.join("d/kept"), "old").unwrap();
    fs::write(out.join("d/old/deep/f"), "x").unwrap();
    fs::write(place.path("outside"), "stays").unwrap();
    fs::os::unix::fs::symlink(place.path("ctx"), out.join("link")).unwrap();
    place.build(&["-o", "type=local,dest=out"]).ok();
    assert!(out.join("other").exists() && out.join("d/old/deep/f").exists());
    place.build(&["-o", "type=local,dest=out,mode=delete"]).ok();
    let names = tool("find", &[out.to_str().unwrap(), "-mindepth", "1", "-printf", "%P "]);
    assert_eq!(names.split_whitespace().collect::<Vec<_>>(), ["d", "d/kept"]);
    assert_eq!(fs::read_to_string(out.join("d/kept")).unwrap(), "new");
    assert!(place.path("ctx/d/kept").exists());
    // Below the current folder only, unless that is granted.
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("mine"), "x").unwrap();
    let output = format!("type=local,mode=delete,dest={}", elsewhere.path().display());
    let refused = place.build(&["-o", &output]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("help: grant it with --allow buildx.local.delete"),
        "{}",
        refused.stderr
    );
    assert!(elsewhere.path().join("mine").exists());
    place.build(&["-o", &output, "--allow=buildx.local.delete"]).ok();
    assert!(!elsewhere.path().join("mine").exists());
}

#[test]
fn a_mirrored_folder_of_platforms_keeps_just_these() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let platforms = "--platform=linux/amd64,linux/arm64";
    fs::create_dir_all(place.path("out/linux_s390x")).unwrap();
    fs::create_dir_all(place.path("out/linux_arm64/old")).unwrap();
    place.build(&[platforms, "-o", "type=local,dest=out,mode=delete"]).ok();
    let out = place.path("out");
    let names = tool("find", &[out.to_str().unwrap(), "-mindepth", "1", "-printf", "%P\n"]);
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    let expect = ["linux_amd64", "linux_amd64/Dockerfile", "linux_arm64", "linux_arm64/Dockerfile"];
    assert_eq!(names, expect);
}

#[test]
fn what_is_no_file_is_written_and_not_replaced() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let sink = place.path("sink");
    fs::os::unix::fs::symlink("/dev/null", &sink).unwrap();
    let words = ["-o", "type=oci,dest=sink", "--metadata-file=sink", "--iidfile=sink"];
    place.build(&words).ok();
    assert_eq!(fs::read_link(&sink).unwrap(), std::path::Path::new("/dev/null"));
    let ran = place.build(&["-q", "-o", "type=oci,dest=/dev/stdout"]).ok();
    assert!(ran.stdout.starts_with("blobs/\0"), "{:?}", ran.stdout.get(..100));
    assert!(!ran.stdout.ends_with('\n'), "something is behind the archive");
}

#[test]
fn a_folder_that_is_missing_is_told() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    for words in [
        &["-o", "type=oci,dest=new/file"][..],
        &["-o", "type=cacheonly", "--metadata-file=new/file"],
    ] {
        let ran = place.build(words);
        assert_eq!(ran.code, Some(4), "{words:?}");
        let expect = "ERROR: cannot write `new/file`: there is no folder `new`\n";
        assert!(ran.stderr.ends_with(expect), "{words:?}: {}", ran.stderr);
    }
}

#[test]
fn names_of_the_digest_are_kept_in_the_store() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let output = "type=image,name-canonical=true,dangling-name-prefix=spare";
    place
        .build(&["-t", "app:1", "-o", output, "-o", "type=oci,dest=i.tar", "--metadata-file=m"])
        .ok();
    let digest = json(&place.path("m"))["containerimage.digest"].as_str().unwrap().to_owned();
    for name in ["app:1".to_owned(), format!("app@{digest}"), format!("spare@{digest}")] {
        place.run(&["inspect", &name]).ok();
    }
    // Only if there is no other name, if that was asked for.
    place.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /other\n");
    let output = "type=image,dangling-name-prefix=spare,dangling-name-empty-only=true";
    place.build(&["-t", "app:2", "-o", output, "--metadata-file=m"]).ok();
    let list = place.run(&["images"]).ok().stdout;
    assert_eq!(list.matches("spare").count(), 1, "{list}");
    place.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /third\n");
    place.build(&["-o", output]).ok();
    let list = place.run(&["images"]).ok().stdout;
    assert_eq!(list.matches("spare").count(), 2, "{list}");
}

#[test]
fn a_folder_gets_only_what_it_lacks() {
    if !can_run() {
        return;
    }
    let place = sample();
    let output = "type=oci,dest=layout,tar=false";
    place.build(&["-t", "app:1", "-o", output]).ok();
    let before = tool(
        "find",
        &["layout/blobs", "-type", "f", "-printf", "%p %T@ %i\n"]
            .map(|word| {
                if word == "layout/blobs" {
                    place.path(word).to_str().unwrap().to_owned()
                } else {
                    word.to_owned()
                }
            })
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>(),
    );
    place.build(&["-t", "app:1", "-o", output]).ok();
    let path = place.path("layout/blobs");
    let after = tool("find", &[path.to_str().unwrap(), "-type", "f", "-printf", "%p %T@ %i\n"]);
    assert_eq!(before, after);
    place.build(&["-t", "app:2", "-o", output]).ok();
    assert_eq!(check_layout(&place.path("layout")).images, 2);
    assert!(place.path("layout/index.json.lock").exists());
}

#[test]
fn one_build_writes_everything_at_once() {
    if !can_run() {
        return;
    }
    let place = sample();
    let ran = place.build(&[
        "-t",
        "app:1",
        "-t",
        "registry.example:5000/app:2",
        "-o",
        "type=oci,dest=-,annotation.a=b,annotation-manifest-descriptor.c=d",
        "-o",
        "type=docker,dest=d.tar,oci-mediatypes=false",
        "-o",
        "type=local,dest=files",
        "-o",
        "type=tar,dest=files.tar",
        "-o",
        "type=image",
        "-o",
        "type=cacheonly",
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(place.path("files/data/large").exists());
    assert!(
        tool("tar", &["-tf", place.path("files.tar").to_str().unwrap()]).contains("data/large")
    );
    let docker = unpacked(&place, "d.tar", "docker");
    let types = check_layout(&docker).layer_types;
    assert!(
        types.iter().all(|kind| kind == "application/vnd.docker.image.rootfs.diff.tar.gzip"),
        "{types:?}"
    );
    let tags = json(&docker.join("manifest.json"))[0]["RepoTags"].clone();
    assert_eq!(tags, serde_json::json!(["app:1", "registry.example:5000/app:2"]));
    place.run(&["inspect", "app:1"]).ok();
}

#[test]
fn layers_are_unpacked_in_the_store_if_that_is_asked_for() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /f\n")]);
    let folders = || {
        let layers = fs::read_dir(place.path("state/layers")).unwrap();
        layers.filter(|layer| layer.as_ref().unwrap().path().join("fs/f").exists()).count()
    };
    place.build(&["-t", "app"]).ok();
    assert_eq!(folders(), 0);
    place.build(&["-t", "app", "-o", "type=image,unpack=true"]).ok();
    assert_eq!(folders(), 1);
}
