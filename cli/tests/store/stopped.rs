//! Builders that are stopped (`SIGSTOP`) while they hold what another build waits for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, can_run, repository};

/// A build that ends with the test, also when it is stopped then.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::CONT);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn build(place: &Place, file: &str) -> Command {
    let image = repository().join("testdata/conformance/images/busybox");
    let busybox = format!("--build-context=busybox=oci-layout://{}:latest", image.display());
    let mut command = place.command(&["--progress=plain", "-f", file, &busybox, "ctx"]);
    command.stderr(Stdio::piped());
    command
}

/// Stops a build in the middle of `first`, and has another one of `second` wait for it.
#[track_caller]
fn check(first: &str, second: &str, told: &str) {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("one", first), ("two", second)]);
    let mut holder = Stopped(build(&place, "ctx/one").spawn().unwrap());
    let lines = BufReader::new(holder.0.stderr.take().unwrap());
    let mut lines = lines.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with(" begun")), "the first step did not begin");
    let pid = Pid::from_child(&holder.0);
    kill_process(pid, Signal::STOP).unwrap();
    let expect = [
        told.to_owned(),
        format!(
            "process {0} uses the same state folder and is stopped: `kill -CONT {0}` lets it go on",
            pid.as_raw_nonzero()
        ),
    ];
    let mut waiting = Stopped(build(&place, "ctx/two").spawn().unwrap());
    let began = Instant::now();
    let mut seen = Vec::new();
    for line in BufReader::new(waiting.0.stderr.take().unwrap()).lines().map_while(Result::ok) {
        seen.push(line);
        if expect.iter().all(|text| seen.iter().any(|line| line.contains(text))) {
            kill_process(pid, Signal::CONT).unwrap();
            std::thread::spawn(move || lines.for_each(drop));
            assert!(waiting.0.wait().unwrap().success());
            assert!(holder.0.wait().unwrap().success());
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{seen:#?}");
    }
    panic!("{expect:#?} not in {seen:#?}");
}

#[test]
fn a_step_that_a_stopped_builder_runs_is_waited_for_and_the_builder_named() {
    let dockerfile = "FROM busybox\nRUN echo begun; sleep 6\n";
    check(dockerfile, dockerfile, "waiting for another build that runs this step");
}

#[test]
fn a_cache_mount_of_a_stopped_builder_is_waited_for_and_the_builder_named() {
    let mount = "--mount=type=cache,sharing=locked,target=/c";
    check(
        &format!("FROM busybox\nRUN {mount} echo begun; sleep 6\n"),
        &format!("FROM busybox\nRUN {mount} true\n"),
        "waiting for another step or build that uses the cache mount `/c`",
    );
}

#[test]
fn a_lock_of_the_store_is_not_waited_for_in_silence() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    place.build(&[]).ok();
    let mut options = fs_err::OpenOptions::new();
    let file = options.read(true).write(true).open(place.path("state/locks/names")).unwrap();
    // All names at once.
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut command = place.command(&["prune", "--force"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut waiting = Stopped(command.spawn().unwrap());
    let mut lines = BufReader::new(waiting.0.stderr.take().unwrap()).lines();
    let told = lines.next().unwrap().unwrap();
    let state = place.path("state");
    let expect =
        format!("waiting for another process that uses the state folder `{}`", state.display());
    assert_eq!(told, expect);
    drop(file);
    assert!(waiting.0.wait().unwrap().success());
    assert!(lines.next().is_none());
}
