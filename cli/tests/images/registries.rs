//! `push` and `pull` through a registry.

use crate::process::Registry;
use crate::support::{Place, has, tool};
use crate::{id, run_elsewhere, two_images};

#[test]
fn what_was_pushed_is_pulled_and_known_by_its_digest() {
    let place = two_images();
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let host = registry.host.clone();
    let name = |tag: &str| format!("{host}/team/app:{tag}");
    for tag in ["1", "2"] {
        place.run(&["tag", &format!("app:{tag}"), &name(tag)]).ok();
    }
    let repository = format!("{host}/team/app");
    let pushed = place.run(&["push", "--all-tags", &repository]).ok().stdout;
    let digest = pushed.lines().find_map(|line| line.strip_prefix("1: ")).unwrap().to_owned();
    let shown = place.run(&["inspect", "-f", "{{index .RepoDigests 0}}", &name("1")]).ok().stdout;
    assert!(shown.trim().ends_with(&format!("@{digest}")), "{shown}");

    let pulled = run_elsewhere(&place, &["pull", &name("1")]).ok();
    let expect =
        |status: &str| format!("Digest: {digest}\nStatus: {status} for {0}\n{0}\n", name("1"));
    assert_eq!(pulled.stdout, expect("Downloaded newer image"));
    assert_eq!(pulled.stderr.lines().filter(|line| line.ends_with(": Pull complete")).count(), 3);
    let again = run_elsewhere(&place, &["pull", &name("1")]).ok();
    assert_eq!(again.stdout, expect("Image is up to date"));
    let by_digest = format!("{repository}@{digest}");
    for given in [name("1"), by_digest.clone()] {
        let found = run_elsewhere(&place, &["inspect", "-f", "{{.Id}}", &given]).ok().stdout;
        assert_eq!(found.trim(), id(&place, "app:1"), "{given}");
    }
    let sizes = ["history", "--format={{.Size}}"];
    let own = place.run(&[&sizes[..], &["app:1"]].concat()).ok().stdout;
    let theirs = run_elsewhere(&place, &[&sizes[..], &[&name("1")]].concat()).ok().stdout;
    assert_eq!(own, theirs);
    // Everything is here: the registry may go.
    drop(registry);
    run_elsewhere(&place, &["save", "-o", "pulled.tar", &by_digest]).ok();
    let digests = run_elsewhere(&place, &["images", "--digests", "--format={{.Digest}}"]).ok();
    assert_eq!(digests.stdout, format!("{digest}\n"));
    run_elsewhere(&place, &["rmi", &by_digest]).ok();
    assert_eq!(run_elsewhere(&place, &["images", "-q"]).ok().stdout, "");
    let gone = run_elsewhere(&place, &["pull", &name("1")]);
    assert_eq!(gone.code, Some(3), "{}", gone.stderr);
}

#[test]
fn what_is_said_of_an_image_is_pushed_beside_it() {
    if !has("docker-registry") || !has("skopeo") {
        return;
    }
    let place = Place::new(&[(
        "Dockerfile",
        "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n",
    )]);
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let repository = format!("{}/team/app", registry.host);
    let read = |version: &str| {
        let words = ["inspect", "--raw", "--tls-verify=false"];
        let text =
            tool("skopeo", &[&words[..], &[&format!("docker://{repository}{version}")]].concat());
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let blob = |digest: &str| {
        let path =
            format!("registry/data/docker/registry/v2/blobs/sha256/{}/{digest}/data", &digest[..2]);
        serde_json::from_slice::<serde_json::Value>(&fs_err::read(place.path(&path)).unwrap())
            .unwrap()
    };
    let name = format!("{repository}:1");
    let unknown = serde_json::json!({ "architecture": "unknown", "os": "unknown" });
    for (version, build) in [("v1", "buildDefinition"), ("v0.2", "invocation")] {
        let provenance = format!("--provenance=version={version}");
        let platforms = "--platform=linux/amd64,linux/arm64";
        place.build(&[&provenance, platforms, "-t", &name, "--push"]).ok();
        let index = read(":1");
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 4, "{index}");
        let (images, said) = manifests.split_at(2);
        for (image, said) in images.iter().zip(said) {
            assert_eq!(said["platform"], unknown);
            assert_eq!(said["annotations"]["vnd.docker.reference.digest"], image["digest"]);
            let manifest = read(&format!("@{}", said["digest"].as_str().unwrap()));
            assert_eq!(manifest["subject"]["digest"], image["digest"]);
            assert_eq!(
                manifest["artifactType"],
                "application/vnd.docker.attestation.manifest.v1+json"
            );
            let kind = format!("https://slsa.dev/provenance/{version}");
            let layer = &manifest["layers"][0];
            assert_eq!(layer["annotations"]["in-toto.io/predicate-type"], kind);
            let statement = blob(&layer["digest"].as_str().unwrap()["sha256:".len()..]);
            assert_eq!(statement["predicateType"], kind);
            let digest = image["digest"].as_str().unwrap();
            assert_eq!(statement["subject"][0]["digest"]["sha256"], digest["sha256:".len()..]);
            assert!(statement["predicate"][build].is_object(), "{statement}");
            // Where layers are listed depends on the version.
            let layers = &read(&format!("@{digest}"))["layers"];
            assert!(statement.to_string().contains(layers[0]["digest"].as_str().unwrap()));
        }
    }
}

#[test]
fn platforms_are_pulled_as_they_are_asked_for() {
    let place =
        Place::new(&[("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY f-$TARGETARCH /f\n")]);
    place.write("f-amd64", "amd64\n");
    place.write("f-arm64", "arm64\n");
    let Some(registry) = Registry::start_in(&place.path("registry")) else { return };
    let name = format!("{}/multi:1", registry.host);
    place.build(&["--platform=linux/amd64,linux/arm64", "-t", &name, "--push"]).ok();
    let platforms = || {
        let words = ["inspect", "-f", "{{range .Variants}}{{.Platform}} {{end}}", &name];
        run_elsewhere(&place, &words).ok().stdout
    };
    run_elsewhere(&place, &["pull", "-q", "--platform=linux/arm64", &name]).ok();
    assert_eq!(platforms(), "linux/arm64 \n");
    let both = run_elsewhere(&place, &["pull", "--platform=linux/amd64,linux/arm64", &name]).ok();
    assert_eq!(platforms(), "linux/amd64 linux/arm64 \n");
    // Pushed again it is what it was.
    let digest = both.stdout.lines().next().unwrap().strip_prefix("Digest: ").unwrap().to_owned();
    let pushed = run_elsewhere(&place, &["push", &name]).ok().stdout;
    assert_eq!(pushed.trim(), digest);
    let none = run_elsewhere(&place, &["pull", "--platform=linux/s390x", &name]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
    assert!(none.stderr.contains("linux/s390x"), "{}", none.stderr);
    let wrong = run_elsewhere(&place, &["pull", "--platform=linux/amd64/v1/x", &name]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    // Without an index what the image is for shows in its config.
    let single = format!("{}/single:1", registry.host);
    place.build(&["--platform=linux/arm64", "-t", &single, "--push"]).ok();
    let other = run_elsewhere(&place, &["pull", "--platform=linux/amd64", &single]);
    assert_eq!(other.code, Some(1), "{}", other.stderr);
    assert!(other.stderr.contains("it is for `linux/arm64`"), "{}", other.stderr);
}
