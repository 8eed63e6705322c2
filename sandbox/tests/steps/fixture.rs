//! A root to run steps in: the small image of the conformance kit, unpacked once.

use std::io::{BufRead, BufReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use sandbox::{Cancel, Environment, Exit, Root, Sandbox, SandboxError, Spec, complete_environment};
use tempfile::TempDir;

/// What all tests share.
pub(crate) struct Fixture {
    pub(crate) sandbox: Sandbox,
    /// The unpacked image, lower layer of every step.
    pub(crate) image: PathBuf,
    folder: TempDir,
}

static FIXTURE: OnceLock<Fixture> = OnceLock::new();

/// Returns the fixture, or why there can be none here.
pub(crate) fn probe() -> Result<&'static Fixture, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".to_owned());
    }
    let caps = rustix::thread::capabilities(None).map_err(|errno| errno.to_string())?;
    if !caps.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN) {
        return Err("needs CAP_SYS_ADMIN".to_owned());
    }
    let kit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/conformance/images/busybox");
    if !kit.exists() {
        return Err(format!("no image at {}", kit.display()));
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs_err::create_dir(&image).unwrap();
    for layer in layers(&kit) {
        let done = Command::new("tar").arg("-xf").arg(layer).arg("-C").arg(&image).status();
        assert!(done.unwrap().success(), "tar cannot unpack the image");
    }
    let sandbox = Sandbox::start().unwrap();
    Ok(FIXTURE.get_or_init(|| Fixture { sandbox, image, folder }))
}

/// Returns the fixture that [`probe`] has made.
pub(crate) fn fixture() -> &'static Fixture {
    FIXTURE.get().expect("main probes before it runs a test")
}

/// Removes what the tests left behind.
pub(crate) fn clean_up() {
    if let Some(fixture) = FIXTURE.get() {
        fs_err::remove_dir_all(fixture.folder.path()).unwrap();
    }
}

fn layers(kit: &Path) -> Vec<PathBuf> {
    let read = |path: PathBuf| -> serde_json::Value {
        serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
    };
    let blob = |descriptor: &serde_json::Value| {
        let digest = descriptor["digest"].as_str().unwrap();
        kit.join("blobs").join(digest.replace(':', "/"))
    };
    let index = read(kit.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]));
    manifest["layers"].as_array().unwrap().iter().map(blob).collect()
}

/// A fresh folder for one test.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in(fixture().folder.path()).unwrap()
}

/// A step over the image with an upper folder of its own.
pub(crate) struct Step {
    pub(crate) spec: Spec,
    pub(crate) folder: TempDir,
}

/// What came of a step.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<Exit, SandboxError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Step {
    /// A step that runs a program.
    pub(crate) fn exec(args: &[&str]) -> Self {
        let folder = folder();
        let path = |name: &str| {
            let path = folder.path().join(name);
            fs_err::create_dir(&path).unwrap();
            path
        };
        // The caller of the sandbox provides what mounts cover.
        let upper = path("upper");
        fs_err::create_dir_all(upper.join("etc")).unwrap();
        for name in ["etc/hosts", "etc/resolv.conf"] {
            fs_err::write(upper.join(name), "").unwrap();
        }
        let lowers = vec![fixture().image.clone()];
        let root = Root::Overlay { lowers, upper, work: path("work") };
        let mut spec = Spec::new(root, args.iter().map(|arg| (*arg).to_owned()).collect());
        spec.env = complete_environment(&Environment::default());
        spec.hosts = b"127.0.0.1\tlocalhost\n".to_vec();
        spec.resolv_conf = b"nameserver 10.9.8.7\n".to_vec();
        Self { spec, folder }
    }

    /// A step that runs a script.
    pub(crate) fn script(script: &str) -> Self {
        Self::exec(&["/bin/sh", "-c", script])
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.folder.path().join("upper")
    }

    pub(crate) fn run(&self) -> Outcome {
        self.run_with(&Cancel::new().unwrap())
    }

    pub(crate) fn run_with(&self, cancel: &Cancel) -> Outcome {
        self.run_in(&fixture().sandbox, cancel)
    }

    pub(crate) fn run_in(&self, sandbox: &Sandbox, cancel: &Cancel) -> Outcome {
        Outcome::of(&self.spec, sandbox, cancel)
    }
}

/// Starts a program that is the builder of an endless step with its output, kills it once the step is ready, and waits
/// until every process that holds the output is dead.
pub(crate) fn kill_builder(command: &mut Command) {
    let mut builder = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(builder.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    builder.kill().unwrap();
    builder.wait().unwrap();
    assert_eq!(out.read_to_string(&mut line).unwrap(), 0);
}

impl Outcome {
    /// Runs a step, whatever comes of it.
    pub(crate) fn of(spec: &Spec, sandbox: &Sandbox, cancel: &Cancel) -> Self {
        let (out, stdout) = pipe().unwrap();
        let (err, stderr) = pipe().unwrap();
        let drain = |mut from: std::io::PipeReader| {
            thread::spawn(move || {
                let mut text = Vec::new();
                from.read_to_end(&mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            })
        };
        let (out, err) = (drain(out), drain(err));
        let result = sandbox.run(spec, OwnedFd::from(stdout), OwnedFd::from(stderr), cancel);
        Self { result, stdout: out.join().unwrap(), stderr: err.join().unwrap() }
    }

    /// Checks that the step succeeded, and returns what it printed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        match self.result {
            Ok(Exit { code: 0, .. }) => self.stdout,
            _ => panic!("{self:?}"),
        }
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> Self {
        match self.result {
            Ok(exit) if exit.code == code => self,
            _ => panic!("not {code}: {self:?}"),
        }
    }

    /// Checks that there was no end of its own, and returns the whole chain of the error.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        match self.result {
            Ok(_) => panic!("{self:?}"),
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    text.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                text
            }
        }
    }
}
