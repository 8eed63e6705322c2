//! The same input gives the same digest; `--verify` tells where it does not.

use std::process::Command;

use crate::support::users::{UserPlace, WITH_RANGE, can_be_user};
use crate::support::{Place, can_run, has, repository};
use crate::tool;

#[test]
fn digests_do_not_depend_on_user_cores_folder_or_cache() {
    if !can_be_user() || !has("python3") || !has("taskset") {
        return;
    }
    // A place of the user's has a copy of the executable that it may run.
    let place = UserPlace::new(WITH_RANGE, &[]);
    let script = repository().join("testdata/conformance/reproducible.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(format!("--tool={}", place.path("build").display()))
        .arg(format!("--user={WITH_RANGE}"))
        .arg(format!("--images={}", place.path("images").display()))
        .env_remove("BRICKLAYER_ISOLATION")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    assert!(printed.ends_with("46 the same, 0 different\n"), "{printed}");
}

#[test]
fn a_second_build_is_compared_path_by_path() {
    if !can_run() {
        return;
    }
    let steady = "FROM busybox\nCOPY Dockerfile /\nRUN echo same > /same\n";
    let place = Place::new(&[("Dockerfile", steady)]);
    let output = "type=oci,dest=i.tar,rewrite-timestamp=true";
    let words = ["--verify", "--progress=plain", "--source-date-epoch=1700000000", "-o", output];
    let ran = place.build(&words).ok();
    assert!(ran.stderr.contains("verified: a second build gave the same"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("RUN echo same > /same\n").count(), 2, "{}", ran.stderr);

    let random = "FROM busybox\nRUN mkdir /d && cat /proc/sys/kernel/random/uuid > /d/id && echo x > /d/x\nRUN touch /d/x.$(cat /proc/sys/kernel/random/uuid)\n";
    place.write("Dockerfile", random);
    let ran = place.build(&words);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    for part in [
        "RUN /bin/sh -c mkdir /d && cat /proc/sys/kernel/random/uuid > /d/id && echo x > /d/x # buildkit\n  /d/id: content\n",
        "RUN /bin/sh -c touch /d/x.$(cat /proc/sys/kernel/random/uuid) # buildkit\n  /d/x.",
        ": first only\n",
        ": second only\n",
        "ERROR: a second build differs in 3 paths",
    ] {
        assert!(ran.stderr.contains(part), "{part}\n{}", ran.stderr);
    }
    assert!(!ran.stderr.contains("/d/x:") && place.path("i.tar").exists(), "{}", ran.stderr);
}

#[test]
fn without_a_time_a_second_build_differs_in_times() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo x > /x; sleep 1\n")]);
    let ran = place.build(&["--verify", "-o", "type=oci,dest=i.tar"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("/x: time\n"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("ERROR: a second build differs in the times of "),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("help: set the time with --source-date-epoch=git"),
        "{}",
        ran.stderr
    );
    // Files alone have no time of their own in the config.
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    place.build(&["--verify", "-o", "type=tar,dest=i.tar"]).ok();
    let ran = place.build(&["--verify", "-t", "app"]);
    assert!(ran.stderr.contains("the time of the image is that of the build"), "{}", ran.stderr);
}

#[test]
fn the_time_of_a_commit_is_that_of_the_image() {
    if !has("git") {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    let context = place.path("ctx");
    let context = context.to_str().unwrap();
    let words = ["--source-date-epoch=git", "-o", "type=oci,dest=i.tar", "--metadata-file=m"];
    let refused = place.build(&words);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("--source-date-epoch=git: cannot read the commit of `ctx`: "),
        "{}",
        refused.stderr
    );
    tool("git", &["-C", context, "init", "-q"]);
    tool("git", &["-C", context, "add", "."]);
    tool(
        "sh",
        &[
            "-c",
            &format!(
                "cd {context} && GIT_COMMITTER_DATE='1500000000 +0200' git -c user.name=a -c user.email=b commit -qm x"
            ),
        ],
    );
    place.build_with(&words, &[("SOURCE_DATE_EPOCH", "1")]).ok();
    let text = fs_err::read_to_string(place.path("m")).unwrap();
    assert!(
        text.contains("\"org.opencontainers.image.created\": \"2017-07-14T02:40:00Z\""),
        "{text}"
    );
    let both = place.build(&["--source-date-epoch=1", "--build-arg=SOURCE_DATE_EPOCH=2"]);
    assert!(both.stderr.contains("cannot be used together"), "{}", both.stderr);
}
