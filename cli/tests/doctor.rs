//! `build doctor`, as root and as a user without rights.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;
use support::{Place, can_run};

/// The report of a command.
fn report(place: &Place, command: &mut Command) -> (Option<i32>, Value) {
    let ran = place.ran(command.output().unwrap());
    let report = serde_json::from_str(&ran.stdout);
    (ran.code, report.unwrap_or_else(|error| panic!("{error}: {}\n{}", ran.stdout, ran.stderr)))
}

fn finding<'r>(report: &'r Value, name: &str) -> &'r Value {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["name"] == name).unwrap_or_else(|| panic!("{name}"))
}

const NAMES: [&str; 18] = [
    "kernel",
    "capabilities",
    "user namespaces",
    "sub ids",
    "newuidmap",
    "/proc",
    "seccomp",
    "landlock",
    "cgroup memory",
    "cgroup cpu",
    "cgroup cpuset",
    "cgroup pids",
    "emulators",
    "state folder",
    "space",
    "reflinks",
    "registries",
    "step",
];

/// Every finding says how it stands, and what to do if something is amiss.
fn check_form(report: &Value) {
    for name in NAMES {
        let found = finding(report, name);
        let state = found["state"].as_str().unwrap();
        assert!(["ok", "limited", "missing"].contains(&state), "{found}");
        assert_ne!(found["found"], "", "{found}");
        if state != "ok" {
            assert!(found["means"].as_str().is_some_and(|text| !text.is_empty()), "{found}");
        }
    }
}

#[test]
fn root_has_all_that_steps_need() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    let (code, report) = report(&place, &mut place.command(&["doctor", "--format=json"]));
    assert_eq!((code, &report["steps"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!(report["isolation"]["tier"], "root");
    check_form(&report);
    for name in ["capabilities", "seccomp", "step", "state folder"] {
        assert_eq!(finding(&report, name)["state"], "ok", "{name}");
    }
    // Nothing is left, nor made.
    let left: Vec<_> = fs_err::read_dir(place.folder.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");

    let shown = place.run(&["doctor"]).ok().stdout;
    let begin = "Steps are isolated as `root`: root of the machine.\n\nok       kernel ";
    assert!(shown.starts_with(begin), "{shown}");
    assert!(shown.contains("\nok       step             was set up, over an overlay\n"), "{shown}");
}

#[test]
fn a_user_without_rights_is_told_what_would_lift_the_limits() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    // A user of whom the machine knows nothing.
    let (user, group) = (54_321, 54_321);
    let home = place.path("home");
    fs_err::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(user), Some(group)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(place.folder.path(), mode).unwrap();
    // Folders of the repository may be closed to others.
    let program = home.join("build");
    support::copy_program(&program);
    let state = home.join("state");
    let mut command = Command::new(&program);
    command.args(["doctor", "--format=json", "--root"]).arg(&state);
    command.env_remove("BRICKLAYER_ROOT").uid(user).gid(group).current_dir(&home);
    let (code, report) = report(&place, &mut command);
    check_form(&report);
    let capabilities = finding(&report, "capabilities");
    assert_eq!(capabilities["state"], "limited");
    assert_eq!(capabilities["found"], "none, as of the user `54321`");
    let ids = finding(&report, "sub ids");
    assert_eq!(ids["state"], "limited", "{ids}");
    let lift = ids["lift"].as_str().unwrap();
    assert!(lift.contains("54321:") && lift.contains("/etc/subuid"), "{lift}");
    let tier = &report["isolation"]["tier"];
    let steps = report["steps"].as_bool().unwrap();
    assert_eq!(code, Some(if steps { 0 } else { 4 }));
    match finding(&report, "user namespaces")["state"].as_str().unwrap() {
        "ok" => assert_eq!((tier, steps), (&Value::from("single-id"), true), "{report}"),
        _ => assert_eq!((tier, steps), (&Value::Null, false), "{report}"),
    }
    assert!(!report["isolation"]["lacks"].as_array().unwrap().is_empty(), "{report}");

    // What is asked for and cannot be had is told as such.
    let mut command = Command::new(&program);
    command.args(["doctor", "--isolation=root", "--root"]).arg(&state);
    command.uid(user).gid(group).current_dir(&home);
    let ran = place.ran(command.output().unwrap());
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    let expect = "Steps cannot be isolated: not what was asked for.\n  for more: ";
    assert!(ran.stdout.starts_with(expect), "{}", ran.stdout);
    assert!(ran.stdout.contains("missing  step             not tried\n"), "{}", ran.stdout);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[]);
    let ran = place.run(&["doctor", "--root=/proc/nowhere", "--format=json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["steps"], false, "{report}");
    let step = finding(&report, "step");
    let found = step["found"].as_str().unwrap();
    assert!(found.starts_with("cannot make a folder for a step: "), "{found}");
    assert_eq!(step["lift"], "choose a folder that you may write with --root or BRICKLAYER_ROOT");
    let wrong = place.run(&["doctor", "--format=xml"]);
    assert_eq!(
        (wrong.code, wrong.stderr.as_str()),
        (Some(2), "ERROR: invalid format `xml`: want text or json\n")
    );
    let wrong = place.run(&["doctor", "--isolation=vm"]);
    let expect = "ERROR: invalid isolation `vm`: want auto, root, rootless, single-id or chroot\n";
    assert_eq!((wrong.code, wrong.stderr.as_str()), (Some(2), expect));
}
