//! What steps may use: limits of memory, processors and processes.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Place, can_run};

fn place(step: &str) -> Place {
    Place::new(&[("Dockerfile", &format!("FROM busybox\nRUN {step}\n"))])
}

/// Whether the machine lets this process limit steps; prints if not.
fn can_limit() -> bool {
    let limits = sandbox::Resources { pids: Some(9), memory: Some(1 << 30), ..Default::default() };
    let group = sandbox::Cgroups::look().unwrap().create(None, &limits);
    if let Err(error) = &group {
        println!("SKIP: {error}");
    }
    group.is_ok()
}

#[test]
fn a_step_that_needs_too_much_memory_is_told_as_such() {
    if !can_run() || !can_limit() {
        return;
    }
    let place = place("tail -c 200000000 < /dev/zero");
    let ran = place.build(&["--resource=memory=24m", "--progress=plain"]);
    let report = ran.report();
    assert_eq!(ran.code, Some(1), "{report}");
    let expect = "ERROR: failed to solve: process \"/bin/sh -c tail -c 200000000 < /dev/zero\" did not complete \
        successfully: exit code: 137: cannot allocate memory\n  help: the kernel killed a process of the step at its \
        limit of 25165824 bytes (--resource memory=): raise it, or have the step do less at once";
    assert!(report.ends_with(expect), "{report}");
    assert!(report.contains("Dockerfile:2\n"), "{report}");
}

#[test]
fn limits_reach_the_step_and_are_no_part_of_its_key() {
    if !can_run() || !can_limit() {
        return;
    }
    let step = "for n in 1 2 3 4 5 6 7 8 9; do sleep 3 & done; true";
    let bare = place("true");
    bare.build(&["--resource", "pids=20,memory=64m", "-m=64m", "--resource=cpuset-cpus=0"]).ok();
    let again = bare.build(&["--resource=pids=40", "--progress=plain"]).ok().stderr;
    assert!(again.contains("CACHED"), "{again}");
    let many = place(step);
    let ran = many.build(&["--resource=pids=5", "--progress=plain"]);
    assert!(ran.stderr.contains("can't fork"), "{}", ran.stderr);
}

#[test]
fn a_parent_may_be_named() {
    if !can_run() || !can_limit() {
        return;
    }
    let name = format!("bricklayer-test-{}", std::process::id());
    let place = place("cat /proc/self/cgroup");
    let parent = format!("--cgroup-parent=/{name}");
    let shown = place.build(&[&parent, "--resource=pids=20", "--progress=plain"]).ok().stderr;
    let is_seen = shown.contains(&format!("pids:/{name}/buildkit/")) || shown.contains(" 0::/");
    assert!(is_seen, "{shown}");
    let find = Command::new("find")
        .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*{name}*")])
        .args(["-printf", "%p\n", "-exec", "rmdir", "{}", ";"])
        .output()
        .unwrap();
    let left = String::from_utf8_lossy(&find.stdout).into_owned();
    // The parent stays, the group of the step is gone.
    assert!(
        left.lines().all(|line| line.ends_with(&name) || line.ends_with("/buildkit")),
        "{left}"
    );
    let wrong = place.build(&["--cgroup-parent=/a/../..", "--progress=quiet"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("invalid cgroup parent `/a/../..`"), "{}", wrong.stderr);
}

#[test]
fn groups_of_a_killed_builder_are_removed_by_the_next() {
    if !can_run() || !can_limit() {
        return;
    }
    let name = format!("bricklayer-kill-{}", std::process::id());
    let parent = format!("--cgroup-parent={name}");
    let images = support::repository().join("testdata/conformance/images/busybox:latest");
    let base = format!("--build-context=busybox=oci-layout://{}", images.display());
    let place = place("echo begun; sleep 1000");
    let mut command = place.command(&[&parent, "--resource=pids=20", &base, "ctx"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let groups = || {
        let mut find = Command::new("find");
        find.args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*{name}/buildkit/*")]);
        let output = find.output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while groups().is_empty() {
        assert!(Instant::now() < deadline, "the step did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!groups().is_empty(), "nothing is left to be removed");
    place.write("Dockerfile", "FROM busybox\nRUN true\n");
    place.build(&[&parent, "--resource=pids=20"]).ok();
    assert_eq!(groups(), Vec::<String>::new());
    let mut clean = Command::new("find");
    clean.args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*{name}*")]);
    clean.args(["-exec", "rmdir", "{}", ";"]).output().unwrap();
}

#[test]
fn wrong_limits_are_told() {
    let place = place("true");
    for (words, expect) in [
        ("--resource=memroy=1g", "unknown resource \"memroy\"\n  help: did you mean `memory`?"),
        ("--resource=memory", "invalid resource `memory`: want name=value"),
        ("--memory=0", "invalid value `0` of resource memory: want a size above 0, such as 512m"),
        ("--cpu-quota=-5", "invalid value `-5` of resource cpu-quota: want a number above 0"),
        (
            "--resource=cpuset-cpus=a",
            "invalid value `a` of resource cpuset-cpus: want a list such as 0-2,4",
        ),
        ("--resource=pids=many", "invalid value `many` of resource pids: want a number above 0"),
        (
            "--memory-swap=1g",
            "memory-swap is memory and swap together: it needs a limit of memory, and cannot be below it",
        ),
    ] {
        let ran = place.run(&[words, "ctx"]);
        assert_eq!((ran.code, ran.stderr), (Some(2), format!("ERROR: {expect}\n")), "{words}");
    }
}
