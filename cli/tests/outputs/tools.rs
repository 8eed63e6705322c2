//! Programs of others read, copy and run what is written.

use fs_err as fs;

use crate::documents::{check_layout, refused};
use crate::support::{Place, can_run, has, run_image, tool};
use crate::{sample, unpacked};

#[test]
fn every_archive_is_read_copied_and_run() {
    if !can_run() || !["skopeo", "umoci", "podman", "buildah"].into_iter().all(has) {
        return;
    }
    let place = sample();
    let kinds = [
        ("plain", "type=oci,compression=uncompressed,force-compression=true"),
        ("gzip", "type=oci"),
        ("zstd", "type=oci,compression=zstd,force-compression=true"),
        ("stargz", "type=oci,compression=estargz,force-compression=true"),
        ("docker", "type=docker"),
        ("old", "type=docker,oci-mediatypes=false"),
    ];
    let outputs = kinds.map(|(name, output)| format!("{output},dest={name}.tar"));
    let mut words = vec!["-t", "app:1"];
    outputs.iter().for_each(|output| words.extend(["-o", output]));
    place.build(&words).ok();
    let storage = place.path("storage");
    let run_root = place.path("run");
    let options = [
        "--root",
        storage.to_str().unwrap(),
        "--runroot",
        run_root.to_str().unwrap(),
        "--storage-driver=vfs",
    ];
    for (name, output) in kinds {
        let kind = if output.starts_with("type=oci") { "oci-archive" } else { "docker-archive" };
        check_layout(&unpacked(&place, &format!("{name}.tar"), &format!("{name}.layout")));
        let from = format!("{kind}:{}", place.path(&format!("{name}.tar")).display());
        assert!(tool("skopeo", &["inspect", "--config", &from]).contains("/data/a"), "{name}");
        let copied = format!("{}:1", place.path(&format!("{name}.copied")).display());
        tool("skopeo", &["copy", "-q", &from, &format!("oci:{copied}")]);
        // umoci knows no zstd.
        if name != "zstd" {
            assert_eq!(run_image(&place, &copied), "text of a\n", "{name}");
        }
        let programs: &[&str] = match name {
            "gzip" | "docker" => &["podman", "buildah"],
            _ => &["podman"],
        };
        for program in programs {
            let id = tool(program, &[&options[..], &["pull", "-q", &from]].concat());
            let id = id.trim();
            let shown = tool(program, &[&options[..], &["inspect", "--type=image", id]].concat());
            assert!(shown.contains("/data/a"), "{program}, {name}: {shown}");
            if *program == "podman" {
                let mount = tool("podman", &[&options[..], &["image", "mount", id]].concat());
                let text = fs::read_to_string(format!("{}/data/same", mount.trim())).unwrap();
                assert_eq!(text, "text of a\n", "{name}");
                tool("podman", &[&options[..], &["image", "umount", id]].concat());
            }
            tool(program, &[&options[..], &["rmi", "-f", id]].concat());
        }
    }
}

#[test]
fn a_layout_folder_and_its_index_are_read() {
    if !can_run() || !has("skopeo") || !has("umoci") {
        return;
    }
    let place = sample();
    place.build(&["-t", "app:1", "-o", "type=oci,dest=layout,tar=false"]).ok();
    place.build(&["-t", "app:2", "--provenance", "-o", "type=oci,dest=layout,tar=false"]).ok();
    let found = check_layout(&place.path("layout"));
    assert_eq!((found.images, found.attestations), (2, 1));
    let layout = place.path("layout");
    for tag in ["1", "2"] {
        let from = format!("oci:{}:{tag}", layout.display());
        assert!(tool("skopeo", &["inspect", "--config", &from]).contains("/data/a"));
        let to = format!("{}:{tag}", place.path(&format!("copy{tag}")).display());
        tool("skopeo", &["copy", "-q", &from, &format!("oci:{to}")]);
        assert_eq!(run_image(&place, &to), "text of a\n");
    }
}

#[test]
fn schemas_refuse_what_is_none_of_their_documents() {
    let place = Place::new(&[
        ("layout", r#"{"imageLayoutVersion":"2"}"#),
        ("index", r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:0"}]}"#),
        ("manifest", r#"{"schemaVersion":2,"config":{},"layers":null}"#),
        ("config", r#"{"created":"today","architecture":"a","os":"o","rootfs":{"type":"layers"}}"#),
    ]);
    for (name, schema, complaints) in [
        ("layout", "image-layout-schema", &["/imageLayoutVersion: '2'"][..]),
        ("index", "image-index-schema", &["/mediaType: 'x' does", "/manifests/0: 'size' is"]),
        ("manifest", "image-manifest-schema", &["/config: 'digest' is", "/layers: None is"]),
        ("config", "config-schema", &["/created: 'today'", "/rootfs: 'diff_ids' is"]),
    ] {
        let found = refused(&[(schema, place.path("ctx").join(name))]);
        for complaint in complaints {
            assert!(found.contains(complaint) || found.is_empty(), "{complaint}\n{found}");
        }
    }
}
