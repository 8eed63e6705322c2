//! `push` and `pull` through a registry.

use crate::process::Registry;
use crate::support::Place;
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
