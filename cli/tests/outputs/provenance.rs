//! What is said of how an image was made.

use serde_json::{Value, json};

use crate::documents::check_layout;
use crate::server::Server;
use crate::support::{Place, can_run};
use crate::{blob, json, tool, unpacked};

const DOCKERFILE: &str = "\
FROM busybox
ARG VERSION
ARG URL
COPY Dockerfile /
RUN --mount=type=secret,id=token echo $VERSION > /version
";

/// The only attestation manifest of a layout, its descriptor, and the statement.
fn attestation(layout: &std::path::Path) -> (Value, Value, Value) {
    let top = json(&layout.join("index.json"));
    let index = json(&blob(layout, &top["manifests"][0]));
    let descriptor = index["manifests"][1].clone();
    let manifest = json(&blob(layout, &descriptor));
    let statement = json(&blob(layout, &manifest["layers"][0]));
    (manifest, descriptor, statement)
}

#[test]
fn everything_is_said_but_secrets_and_credentials() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", DOCKERFILE)]);
    let words = [
        "-t",
        "localhost:5000/app:1",
        "--provenance=builder-id=https://ci.example/7",
        "--build-arg=VERSION=1.2",
        "--build-arg=URL=https://user:hunter2@example.com/x",
        "--secret=id=token,env=TOKEN",
        "--label=who=me",
        "-o",
        "type=oci,dest=i.tar",
    ];
    place.build_with(&words, &[("TOKEN", "a-very-secret-value")]).ok();
    let layout = unpacked(&place, "i.tar", "layout");
    let found = check_layout(&layout);
    assert_eq!((found.images, found.attestations), (1, 1));
    let (manifest, descriptor, statement) = attestation(&layout);
    assert_eq!(descriptor["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
    assert_eq!(descriptor["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(
        descriptor["annotations"]["vnd.docker.reference.digest"],
        manifest["subject"]["digest"]
    );
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(manifest["config"]["data"], "e30=");
    assert_eq!(
        manifest["layers"][0]["annotations"]["in-toto.io/predicate-type"],
        "https://slsa.dev/provenance/v1"
    );
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(
        statement["subject"][0]["name"],
        "pkg:docker/localhost%3A5000/app@1?platform=linux%2Famd64"
    );
    let subject = manifest["subject"]["digest"].as_str().unwrap();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], subject[7..]);

    let predicate = &statement["predicate"];
    let build = &predicate["buildDefinition"];
    let request = &build["externalParameters"]["request"];
    assert_eq!(build["externalParameters"]["configSource"]["path"], "Dockerfile");
    assert_eq!(request["args"]["build-arg:VERSION"], "1.2");
    assert_eq!(request["args"]["label:who"], "me");
    assert_eq!(request["secrets"], json!([{ "id": "token", "optional": true }]));
    assert_eq!(request["locals"], json!([{ "name": "context" }]));
    let base = &build["resolvedDependencies"][0];
    assert!(base["uri"].as_str().unwrap().contains("busybox"), "{base}");
    assert_eq!(base["digest"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(predicate["runDetails"]["builder"]["id"], "https://ci.example/7");
    let metadata = &predicate["runDetails"]["metadata"];
    assert_eq!(metadata["buildkit_hermetic"], false);
    let steps = build["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap();
    assert!(steps.len() > 3 && steps.iter().all(|step| step["id"].is_string()));
    let layers = metadata["buildkit_metadata"]["layers"].as_object().unwrap();
    let (step, listed) = layers.iter().next().unwrap();
    assert!(steps.iter().any(|it| format!("{}:0", it["id"].as_str().unwrap()) == *step), "{step}");
    assert_eq!(listed[0].as_array().unwrap().len(), 3);
    let text = statement.to_string();
    assert!(!text.contains("hunter2") && !text.contains("a-very-secret-value"), "{text}");
}

#[test]
fn little_is_said_if_little_is_asked_for() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nARG A\nCOPY Dockerfile /\n")]);
    let words = [
        "--attest=type=provenance,mode=min",
        "--build-arg=A=b",
        "-o",
        "type=oci,oci-artifact=false,dest=i.tar",
    ];
    place.build(&words).ok();
    let (manifest, _, statement) = attestation(&unpacked(&place, "i.tar", "layout"));
    assert_eq!(manifest.get("artifactType"), None);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(statement["subject"], json!([]));
    let build = &statement["predicate"]["buildDefinition"];
    assert_eq!(build["externalParameters"]["request"].get("args"), None);
    assert_eq!(build["internalParameters"].get("buildConfig"), None);
    // None unless asked for: then the image is a plain manifest.
    for words in
        [&["-o", "type=oci,dest=p.tar"][..], &["--provenance=false", "-o", "type=oci,dest=p.tar"]]
    {
        place.build(words).ok();
        let index = json(&unpacked(&place, "p.tar", "plain").join("index.json"));
        assert_eq!(
            index["manifests"][0]["mediaType"],
            "application/vnd.oci.image.manifest.v1+json"
        );
    }
}

#[test]
fn files_have_it_beside_them() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /d/\n")]);
    let words = [
        "--provenance",
        "-o",
        "type=local,dest=out,attestation-prefix=x-",
        "-o",
        "type=tar,dest=o.tar",
    ];
    place.build(&words).ok();
    let statement = json(&place.path("out/x-provenance.json"));
    assert_eq!(statement["subject"][0]["name"], "d/Dockerfile");
    let sum = tool("sha256sum", &[place.path("ctx/Dockerfile").to_str().unwrap()]);
    assert_eq!(statement["subject"][0]["digest"]["sha256"], sum[..64]);
    let list = tool("tar", &["-tvf", place.path("o.tar").to_str().unwrap()]);
    assert!(
        list.lines()
            .any(|line| line.starts_with("-rw-------") && line.ends_with(" provenance.json")),
        "{list}"
    );
    let platforms =
        ["--provenance", "--platform=linux/amd64,linux/arm64", "-o", "type=local,dest=two"];
    place.build(&platforms).ok();
    assert!(place.path("two/linux_arm64/provenance.json").exists());
}

#[test]
fn what_cannot_carry_it_is_told() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let stored = place.build(&["--provenance", "-t", "app"]).ok();
    assert!(
        stored.stderr.contains("WARNING: no output carries the provenance"),
        "{}",
        stored.stderr
    );
    let docker = place.build(&["--provenance", "-o", "type=docker,dest=d.tar"]);
    assert!(
        docker.stderr.contains("docker exporter does not support exporting manifest lists"),
        "{}",
        docker.stderr
    );
    let old = place.build(&["--provenance", "-o", "type=oci,oci-mediatypes=false,dest=o.tar"]);
    assert_eq!(old.code, Some(2));
    assert!(
        old.stderr.contains("attestations conflict with `oci-mediatypes=false`"),
        "{}",
        old.stderr
    );
    let sbom = place.build(&["--sbom"]);
    assert_eq!(sbom.code, Some(2));
    assert!(sbom.stderr.contains("ERROR: --sbom is not supported yet"), "{}", sbom.stderr);
}

#[test]
fn the_metadata_file_has_it_if_it_is_asked_for() {
    let place = Place::new(&[("Dockerfile", "from scratch\nCOPY Dockerfile /\nMAINTAINER me\n")]);
    let words = [
        "-t",
        "app:1",
        "-t",
        "other:2",
        "-o",
        "type=oci,dest=i.tar",
        "--metadata-file=m",
        "--iidfile=id",
        "--label=a=b",
        "--label=c",
    ];
    place.build(&words).ok();
    let plain = json(&place.path("m"));
    let keys: Vec<&String> = plain.as_object().unwrap().keys().collect();
    let expect = [
        "buildx.build.ref",
        "containerimage.config.digest",
        "containerimage.descriptor",
        "containerimage.digest",
        "image.name",
    ];
    assert_eq!(keys, expect);
    assert_eq!(plain["image.name"], "docker.io/library/app:1,docker.io/library/other:2");
    assert_eq!(plain["containerimage.descriptor"]["digest"], plain["containerimage.digest"]);
    assert_eq!(plain["containerimage.descriptor"]["platform"]["os"], "linux");
    let id = fs_err::read_to_string(place.path("id")).unwrap();
    assert_eq!(plain["containerimage.config.digest"], id);
    let layout = unpacked(&place, "i.tar", "layout");
    let config = json(&blob(&layout, &json!({ "digest": id })));
    assert_eq!(config["config"]["Labels"], json!({ "a": "b", "c": "" }));

    let env = [("BUILDX_METADATA_PROVENANCE", "max"), ("BUILDX_METADATA_WARNINGS", "1")];
    place.build_with(&words, &env).ok();
    let full = json(&place.path("m"));
    let provenance = &full["buildx.build.provenance"];
    assert_eq!(provenance["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(provenance["invocation"]["configSource"]["entryPoint"], "Dockerfile");
    assert!(provenance["materials"].is_array() && provenance["builder"]["id"].is_string());
    let warning = &full["buildx.build.warnings"][0];
    assert!(
        warning["sourceInfo"]["data"].is_string()
            && warning["range"][0]["start"]["line"].is_number()
    );
    assert_eq!(
        full["containerimage.digest"], plain["containerimage.digest"],
        "said beside, not attached"
    );

    place.build(&["-o", "type=local,dest=out", "--metadata-file=m"]).ok();
    let keys: Vec<String> = json(&place.path("m")).as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["buildx.build.ref"]);
    let refused = place.build(&["-o", "type=local,dest=out", "--iidfile=id"]);
    assert!(
        refused.stderr.contains("local and tar exporters are incompatible with image ID file"),
        "{}",
        refused.stderr
    );
    let wrong = place.build_with(&["--metadata-file=m"], &[("BUILDX_METADATA_PROVENANCE", "most")]);
    assert!(
        wrong
            .stderr
            .contains("invalid BUILDX_METADATA_PROVENANCE `most`: want min, max or disabled"),
        "{}",
        wrong.stderr
    );
}

/// What is brought from elsewhere is listed with what it was.
#[test]
fn files_behind_urls_have_their_hashes() {
    let place = Place::new(&[]);
    let server = Server::of_files(&[("/file", b"content")]);
    let file = server.url("/file").replace("://", "://user:pass@");
    place.write("Dockerfile", &format!("FROM scratch\nADD {file} /f\n"));
    place.build(&["--provenance", "-o", "type=oci,dest=i.tar"]).ok();
    let (_, _, statement) = attestation(&unpacked(&place, "i.tar", "layout"));
    let found = &statement["predicate"]["buildDefinition"]["resolvedDependencies"][0];
    let sum = tool("sh", &["-c", "printf content | sha256sum"]);
    assert_eq!(found["digest"]["sha256"], sum[..64]);
    assert_eq!(found["uri"], file.replace("user:pass", "xxxxx:xxxxx"));
    assert!(!statement.to_string().contains("user:pass"));
}
