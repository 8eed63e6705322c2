//! Runs the real executable in a folder of its own.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Whether this process may run steps; prints why not.
pub fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP: needs root");
    }
    root
}

/// Whether a program is there; prints if not.
pub fn has(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path.split(':').any(|folder| Path::new(folder).join(program).is_file());
    if !found {
        println!("SKIP: {program} is not installed");
    }
    found
}

/// A build context, a state folder and a place for outputs.
pub struct Place {
    pub folder: TempDir,
}

/// What a command did.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    /// An empty place whose context has these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs_err::create_dir(place.path("ctx")).unwrap();
        for (name, text) in files {
            place.write(name, text);
        }
        place
    }

    /// A path below the place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path("ctx").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    /// A command of the executable with this place's state folder.
    pub fn command(&self, words: &[&str]) -> Command {
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
    pub fn build(&self, words: &[&str]) -> Ran {
        let images = repository().join("testdata/conformance/images");
        let contexts: Vec<String> = ["busybox", "onbuild", "nosh"]
            .iter()
            .map(|name| {
                format!("--build-context={name}=oci-layout://{}/{name}:latest", images.display())
            })
            .collect();
        let mut command = self.command(words);
        command.args(contexts).arg("ctx");
        self.ran(command.output().unwrap())
    }

    /// Runs `build words…`.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.ran(self.command(words).output().unwrap())
    }

    /// Output with what differs from run to run masked.
    pub fn ran(&self, output: Output) -> Ran {
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
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The report of a failure: everything behind the progress.
    pub fn report(&self) -> String {
        let from = ["\n------\n", "\nDockerfile:", "\nERROR: "]
            .iter()
            .filter_map(|mark| self.stderr.find(mark))
            .min();
        let text = from.map_or(self.stderr.as_str(), |at| &self.stderr[at + 1..]);
        format!("exit {}\n{text}", self.code.unwrap_or(-1))
    }
}
