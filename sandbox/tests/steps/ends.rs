//! How steps end.

use std::io::{BufRead, BufReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{Cancel, Exit, Mount, MountKind, Root, Sandbox, SandboxError, Spec};

use crate::fixture::{Step, fixture, folder, kill_builder};

/// The first argument by which this binary runs a step that does not end.
pub(crate) const HANGING_BUILDER: &str = "hanging-builder";

/// A script that says that it runs, and then runs on, with children.
const ENDLESS: &str = "sleep 1000 & (sleep 1000; true) & echo ready; sleep 1000";

pub(crate) fn exit_codes() {
    for code in [0, 1, 3, 127, 255] {
        let outcome = Step::script(&format!("exit {code}")).run();
        assert_eq!(outcome.result.unwrap(), Exit { code, signal: None });
    }
    // A shell passes the status of a killed child on.
    Step::script("sh -c 'kill -9 $$'; exit $?").run().fails_with(137);
    Step::script("no-such-command").run().fails_with(127);
}

pub(crate) fn background_processes_die() {
    let step = Step::script("(sleep 1000; touch /late) & echo early > /early; exit 0");
    let begin = Instant::now();
    // The children hold the pipes, so this returns only because they are killed.
    step.run().ok();
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(step.upper().join("early").exists() && !step.upper().join("late").exists());
}

pub(crate) fn one_cannot_kill_itself() {
    assert_eq!(Step::script("kill -9 $$; echo alive").run().ok(), "alive\n");
}

/// Runs an endless step in a thread and calls `when_ready` as soon as it runs.
fn interrupted(sandbox: &Sandbox, cancel: &Cancel, when_ready: impl FnOnce()) -> SandboxError {
    let step = Step::script(ENDLESS);
    let (out, stdout) = pipe().unwrap();
    let stderr = OwnedFd::from(stdout.try_clone().unwrap());
    thread::scope(|scope| {
        let run = scope.spawn(|| sandbox.run(&step.spec, stdout.into(), stderr, cancel));
        let mut out = BufReader::new(out);
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        when_ready();
        let error = run.join().unwrap().unwrap_err();
        // Nothing is left that could write.
        assert_eq!(out.read_to_string(&mut line).unwrap(), 0);
        error
    })
}

pub(crate) fn cancel_is_immediate() {
    let cancel = Cancel::new().unwrap();
    let mut begin = Instant::now();
    let error = interrupted(&fixture().sandbox, &cancel, || {
        begin = Instant::now();
        cancel.cancel();
    });
    assert!(matches!(error, SandboxError::Cancelled), "{error:?}");
    assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
}

pub(crate) fn cancelled_before_the_start() {
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let step = Step::script("touch /ran");
    assert!(matches!(step.run_with(&cancel).result, Err(SandboxError::Cancelled)));
    assert!(!step.upper().join("ran").exists());
}

pub(crate) fn many_at_once() {
    const COUNT: usize = 64;
    let shared = folder();
    let script = format!(
        "touch /shared/$$-$N; while test $(ls /shared | wc -l) -lt {COUNT}; do sleep 0.05; done; \
         echo $N"
    );
    thread::scope(|scope| {
        let steps: Vec<_> = (0..COUNT)
            .map(|number| {
                let step = Step::script(&script).with(|spec| {
                    spec.env.push(format!("N={number}").into());
                    let kind =
                        MountKind::Bind { source: shared.path().to_owned(), sub: PathBuf::new() };
                    spec.mounts = vec![Mount { target: "/shared".into(), readonly: false, kind }];
                });
                scope.spawn(move || assert_eq!(step.run().ok(), format!("{number}\n")))
            })
            .collect();
        for step in steps {
            step.join().unwrap();
        }
    });
}

pub(crate) fn zygote_death_is_an_error() {
    let sandbox = Sandbox::start().unwrap();
    let zygote = Pid::from_raw(sandbox.helper_id().cast_signed()).unwrap();
    let error = interrupted(&sandbox, &Cancel::new().unwrap(), || {
        kill_process(zygote, Signal::KILL).unwrap();
    });
    assert!(matches!(error, SandboxError::HelperLost), "{error:?}");
    let after = Step::script("true").run_in(&sandbox, &Cancel::new().unwrap());
    assert!(matches!(after.result, Err(SandboxError::HelperLost)), "{after:?}");
}

pub(crate) fn builder_death_ends_steps() {
    let upper = folder();
    let mut builder = Command::new("/proc/self/exe");
    builder.arg(HANGING_BUILDER).arg(&fixture().image).arg(upper.path());
    // The zygote and every process of the step hold the pipe until they are dead.
    kill_builder(&mut builder);
}

/// Runs an endless step with this process's own output.
pub(crate) fn hanging_builder() -> ExitCode {
    let mut arguments = std::env::args_os().skip(2).map(PathBuf::from);
    let (image, folder) = (arguments.next().unwrap(), arguments.next().unwrap());
    let (upper, work) = (folder.join("upper"), folder.join("work"));
    fs_err::create_dir(&upper).unwrap();
    fs_err::create_dir(&work).unwrap();
    let root = Root::Overlay { lowers: vec![image], upper, work };
    let mut spec = Spec::new(root, ["/bin/sh", "-c", ENDLESS].map(str::to_owned).into());
    spec.env = vec!["PATH=/bin".into()];
    let output = || rustix::io::dup(std::io::stdout()).unwrap();
    let sandbox = Sandbox::start().unwrap();
    let end = sandbox.run(&spec, output(), output(), &Cancel::new().unwrap());
    eprintln!("the endless step ended: {end:?}");
    ExitCode::FAILURE
}
