//! Runs the real executable in a folder of its own.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test file uses its part, and fails by panicking"
)]

pub(crate) mod users;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Folder of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether this process may run steps; prints why not.
pub(crate) fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: needs root");
    }
    root
}

/// Whether a program is there, or a file at its whole path; prints if not.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    if !found {
        println!("SKIP: {program} is not installed");
    }
    found
}

/// Runs a program and gives what it printed; fails with its output unless it succeeded.
#[track_caller]
pub(crate) fn tool(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {words:?}:\n{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// Unpacks an image of an OCI layout with umoci, runs it with runc, and gives what it printed.
#[track_caller]
pub(crate) fn run_image(place: &Place, layout: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = format!("bricklayer-test-{}-{number}", std::process::id());
    let bundle = place.path(&id);
    tool("umoci", &["unpack", "--image", layout, bundle.to_str().unwrap()]);
    let config = bundle.join("config.json");
    let text = fs_err::read_to_string(&config).unwrap();
    let text = text.replace("\"terminal\": true", "\"terminal\": false");
    fs_err::write(&config, text.replace("\"terminal\":true", "\"terminal\":false")).unwrap();
    tool("runc", &["run", "--bundle", bundle.to_str().unwrap(), &id])
}

/// Copies the executable, by another program: a file that this process has open for writing, or one that it is just
/// starting, cannot be run.
pub(crate) fn copy_program(to: &Path) {
    let mut command = Command::new("cp");
    assert!(command.arg(env!("CARGO_BIN_EXE_bricklayer")).arg(to).status().unwrap().success());
}

/// A build context, a state folder and a place for outputs.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// An empty place whose context has these files.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs_err::create_dir(place.path("ctx")).unwrap();
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    /// A path below the place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the context.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path("ctx").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// A command of the executable with this place's state folder.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bricklayer"));
        command
            .args(words)
            .env("BRICKLAYER_ROOT", self.path("state"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("BUILDKIT_PROGRESS")
            .stdin(Stdio::null())
            .current_dir(self.folder.path());
        command
    }

    /// Runs `build words… ctx` with the base images of the conformance kit.
    pub(crate) fn build(&self, words: &[&str]) -> Ran {
        self.build_with(words, &[])
    }

    /// The same with further environment variables.
    pub(crate) fn build_with(&self, words: &[&str], env: &[(&str, &str)]) -> Ran {
        let images = repository().join("testdata/conformance/images");
        let contexts: Vec<String> = ["busybox", "onbuild", "nosh"]
            .iter()
            .map(|name| {
                format!("--build-context={name}=oci-layout://{}/{name}:latest", images.display())
            })
            .collect();
        let mut command = self.command(words);
        command.args(contexts).arg("ctx").envs(env.iter().copied());
        let ran = self.ran(command.output().unwrap());
        self.expect_nothing_half_written(&ran.stderr);
        ran
    }

    /// No entry is left that is not finished, once a process that tidies up after a build is done.
    pub(crate) fn expect_nothing_half_written(&self, context: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while fs_err::read_dir(self.path("state/ingest")).map_or(0, Iterator::count) > 0 {
            assert!(Instant::now() < deadline, "half-written entries are left:\n{context}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What `build words… ctx` writes when its output is a terminal; `None` when there is no program for that.
    pub(crate) fn on_terminal(&self, words: &[&str], env: &[(&str, &str)]) -> Option<String> {
        if !has("script") {
            return None;
        }
        let program = env!("CARGO_BIN_EXE_bricklayer");
        let line = format!("'{program}' {} ctx", words.join(" "));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("BRICKLAYER_ROOT", self.path("state"));
        command.env_remove("NO_COLOR").env("TERM", "xterm").envs(env.iter().copied());
        command.stdin(Stdio::null()).current_dir(self.folder.path());
        Some(self.ran(command.output().unwrap()).stdout)
    }

    /// Runs `build words…`.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.ran(self.command(words).output().unwrap())
    }

    /// Output with what differs from run to run masked.
    pub(crate) fn ran(&self, output: Output) -> Ran {
        let mask = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes)
                .replace(&*self.folder.path().to_string_lossy(), "[place]");
            text.replace(&*repository().to_string_lossy(), "[repository]")
        };
        Ran {
            code: output.status.code(),
            stdout: mask(&output.stdout),
            stderr: mask(&output.stderr),
        }
    }
}

impl Ran {
    /// Fails with the output unless the command succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The report of a failure: everything behind the progress.
    pub(crate) fn report(&self) -> String {
        let starts = ["------", "ONBUILD trigger", "Dockerfile:", "ERROR: "];
        let lines: Vec<&str> = self.stderr.lines().collect();
        let from = lines
            .iter()
            .position(|line| starts.iter().any(|start| line.starts_with(start)))
            .unwrap_or(0);
        format!("exit {}\n{}", self.code.unwrap_or(-1), lines[from..].join("\n"))
    }
}
