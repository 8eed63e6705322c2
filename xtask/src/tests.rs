//! `cargo xtask test`: everything that CI runs, with the set-up that it needs.
//!
//! A test that cannot run on this machine prints a line that begins with `SKIP:`. As root nothing may be
//! skipped: the run then fails and shows the reasons.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::shell::{as_root, has, is_root, line, run};
use crate::users;

/// Programs and files that tests use, with the Debian packages that have them.
const NEEDED: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("runc", "runc"),
    ("podman", "podman"),
    ("dockerd", "docker.io"),
    ("buildah", "buildah"),
    ("taskset", "util-linux"),
    ("newuidmap", "uidmap"),
    ("htpasswd", "apache2-utils"),
    ("git", "git"),
    ("python3", "python3"),
    ("bzip2", "bzip2"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("cc", "build-essential"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("script", "bsdutils"),
    ("ssh-agent", "openssh-client"),
    ("openssl", "openssl"),
    ("ps", "procps"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("useradd", "passwd"),
    ("setpriv", "util-linux"),
    ("/usr/bin/jsonschema", "python3-jsonschema"),
    (
        "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema/config-schema.json",
        "golang-github-opencontainers-image-spec-dev",
    ),
];

/// A test run that prints nothing for so long hangs: no test takes a tenth of it, and building prints nothing
/// for a few minutes at most.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// Version of cargo-deny that the configuration is written for.
const CARGO_DENY: &str = "0.20.2";

/// Runs every test; `tool` is the builder as the tests' profile makes it.
pub(crate) fn test(
    top: &Path,
    dist: impl Fn() -> Result<std::path::PathBuf, String>,
) -> Result<(), String> {
    let began = Instant::now();
    install()?;
    let cargo = || {
        let mut command = Command::new("cargo");
        command.current_dir(top);
        command
    };
    step("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    // Apart from what runs them: the compiler may be silent for longer than any test.
    step("compiling the tests", || {
        run(cargo().args(["test", "--profile", "ci", "--workspace", "--no-run"]))
    })?;
    step("unit, property, snapshot and end-to-end tests", || {
        let mut command = cargo();
        // The same cases in every run, so that a failure belongs to a change and not to luck.
        if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
            command.env("PROPTEST_RNG_SEED", "1");
        }
        command.args([
            "test",
            "--profile",
            "ci",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ]);
        let skips = run_counting_skips(&mut command)?;
        if !skips.is_empty() && is_root() {
            return Err(format!("tests were skipped that can run here:\n{}", skips.join("\n")));
        }
        Ok(())
    })?;
    step("conformance cases", || conformance(top, &dist()?, &Runner::ROOT))?;
    let plain = format!("conformance cases, isolation {}", Runner::CHROOT.isolation);
    step(&plain, || conformance(top, &dist()?, &Runner::CHROOT))?;
    for runner in [Runner::RANGE, Runner::SINGLE] {
        step(&format!("conformance cases, isolation {}", runner.isolation), || {
            as_user(top, &dist()?, &runner)
        })?;
    }
    step("lints", || {
        run(cargo().args([
            "clippy",
            "--profile",
            "ci",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("documentation", || {
        run(cargo().env("RUSTDOCFLAGS", "-D warnings").args([
            "doc",
            "--profile",
            "ci",
            "--workspace",
            "--no-deps",
        ]))
    })?;
    step("licences and sources of dependencies", || deny(top))?;
    println!("\nall checks passed in {} s", began.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("\n== {name}");
    let began = Instant::now();
    work()?;
    println!("-- {name}: {} s", began.elapsed().as_secs());
    Ok(())
}

fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(program, _)| !has(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("== installing {}", missing.join(", "));
    let apt = Path::new("/usr/bin/apt-get");
    run(as_root(apt).args(["update", "-qq"]))?;
    run(as_root(apt)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(missing))
}

/// Runs a command, passing its output on, and returns its lines that report a skip.
///
/// Neither a test that hangs nor a process that outlives the tests holds it up.
fn run_counting_skips(command: &mut Command) -> Result<Vec<String>, String> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", line(command)))?;
    let (sender, lines) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
            lines.try_for_each(|line| sender.send(line))
        });
    }
    let mut skips = Vec::new();
    let mut heard = Instant::now();
    let mut status = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(100)) {
            Ok(bytes) => {
                heard = Instant::now();
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim_end();
                if text.contains("SKIP:") {
                    skips.push(text.to_owned());
                }
                if is_report(text) {
                    println!("{text}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                status = child.try_wait().map_err(|error| error.to_string())?;
                if status.is_some() && heard.elapsed() > Duration::from_secs(5) {
                    return Err(format!(
                        "a process outlives the tests that started it\n{}",
                        processes()
                    ));
                }
                if heard.elapsed() > SILENCE {
                    let all = processes();
                    child.kill().map_err(|error| error.to_string())?;
                    let minutes = SILENCE.as_secs() / 60;
                    return Err(format!("nothing was printed for {minutes} minutes\n{all}"));
                }
            }
        }
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().map_err(|error| error.to_string())?,
    };
    if status.success() { Ok(skips) } else { Err(format!("{} ended with {status}", line(command))) }
}

/// Whether a line of a test run is of interest: what passing tests print is only when it is a skip.
fn is_report(text: &str) -> bool {
    let starts =
        ["test ", "running ", "failures", "error", "thread", "   Doc-tests", "SKIP:", "    "];
    starts.iter().any(|start| text.starts_with(start)) && !text.ends_with("... ok")
}

/// What runs on the machine, as a tree.
fn processes() -> String {
    let output = Command::new("ps").args(["-eo", "pid,ppid,stat,etime,args", "--forest"]).output();
    output.map_or_else(
        |error| format!("ps: {error}"),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// Who runs the conformance cases.
struct Runner {
    /// A user without rights; root if there is none.
    user: Option<&'static str>,
    /// How the steps are then isolated.
    isolation: &'static str,
    /// The list of cases that are known to fail, in the folder of the cases' kit.
    known: &'static str,
}

impl Runner {
    const ROOT: Self = Self { user: None, isolation: "root", known: "known-failures.txt" };
    const CHROOT: Self =
        Self { user: None, isolation: "chroot", known: "known-failures-chroot.txt" };
    const RANGE: Self = Self {
        user: Some(users::WITH_RANGE),
        isolation: "rootless",
        known: "known-failures-rootless.txt",
    };
    const SINGLE: Self = Self {
        user: Some(users::WITHOUT_RANGE),
        isolation: "single-id",
        known: "known-failures-single-id.txt",
    };
}

/// Runs the cases as a user without rights, on a copy of kit and executable that every user can read.
fn as_user(top: &Path, tool: &Path, runner: &Runner) -> Result<(), String> {
    if let Some(name) = runner.user {
        users::ensure(name)?;
    }
    let place = std::env::temp_dir().join(format!("bricklayer-conformance-{}", std::process::id()));
    let copied = || {
        run(Command::new("mkdir").arg("-p").arg(place.join("testdata")))?;
        let kit = top.join("testdata/conformance");
        run(Command::new("cp").arg("-r").arg(kit).arg(place.join("testdata")))?;
        run(Command::new("cp").arg(tool).arg(place.join("build")))?;
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(&place))
    };
    let done = copied().and_then(|()| {
        let result = top.join("target");
        conformance_with(&place, &place.join("build"), runner, &result)
    });
    run(Command::new("rm").arg("-rf").arg(&place))?;
    done
}

/// Runs the shared cases; those that fail must be on the list of known failures.
fn conformance(top: &Path, tool: &Path, runner: &Runner) -> Result<(), String> {
    conformance_with(top, tool, runner, &top.join("target"))
}

fn conformance_with(
    top: &Path,
    tool: &Path,
    runner: &Runner,
    results: &Path,
) -> Result<(), String> {
    if !is_root() {
        return Err("the conformance cases run containers: run the tests as root".to_owned());
    }
    let kit = top.join("testdata/conformance");
    let result = results.join(format!("conformance-{}.json", runner.isolation));
    let status = Command::new("python3")
        .arg(kit.join("conformance.py"))
        .args(["run", "--most", "2", "--tool"])
        .arg(tool)
        .args(runner.user.map(|user| format!("--user={user}")))
        .env("BRICKLAYER_ISOLATION", runner.isolation)
        .arg("--json")
        .arg(&result)
        .arg(kit.join("cases"))
        .status()
        .map_err(|error| format!("python3: {error}"))?;
    let text = std::fs::read_to_string(&result)
        .map_err(|error| format!("{}: {error}", result.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let cases = json.as_object().ok_or("the result is no object")?;
    let failed: Vec<&str> = cases
        .iter()
        .filter(|(_, bad)| bad.as_array().is_none_or(|bad| !bad.is_empty()))
        .map(|(name, _)| name.as_str())
        .collect();
    let known = std::fs::read_to_string(kit.join(runner.known)).unwrap_or_default();
    let known: Vec<&str> = known
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let new: Vec<&&str> = failed.iter().filter(|name| !known.contains(name)).collect();
    let mended: Vec<&&str> = known.iter().filter(|name| !failed.contains(name)).collect();
    if !new.is_empty() {
        return Err(format!("these cases failed and are not known to: {new:?}"));
    }
    if !mended.is_empty() {
        return Err(format!("these cases pass now; take them off {}: {mended:?}", runner.known));
    }
    if status.success() != failed.is_empty() {
        return Err("the runner and its result file disagree".to_owned());
    }
    println!(
        "{} of {} cases pass, {} are known to fail",
        cases.len() - failed.len(),
        cases.len(),
        failed.len()
    );
    Ok(())
}

fn deny(top: &Path) -> Result<(), String> {
    if !has("cargo-deny") && !has_cargo_deny() {
        run(Command::new("cargo")
            .args(["install", "cargo-deny", "--locked", "--debug", "--version", CARGO_DENY])
            .current_dir("/"))?;
    }
    let check = |what: &[&str]| {
        let mut command = Command::new("cargo");
        command.current_dir(top).args(["deny", "--log-level", "error", "check"]).args(what);
        command
    };
    run(&mut check(&["licenses", "bans", "sources"]))?;
    // The advisory database is on a code host that not every machine reaches.
    let output = check(&["advisories"]).output().map_err(|error| format!("cargo deny: {error}"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        println!("advisories: none");
    } else if printed.contains("failed to fetch advisory database")
        || printed.contains("failed to load advisory database")
    {
        println!("advisories: not checked, their database cannot be reached from here");
    } else {
        return Err(format!("cargo deny check advisories:\n{printed}"));
    }
    Ok(())
}

fn has_cargo_deny() -> bool {
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    home.is_ok_and(|home| Path::new(&home).join("bin/cargo-deny").is_file())
}
