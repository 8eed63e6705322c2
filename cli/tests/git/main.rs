//! Git repositories with the real executable and real git, served on loopback.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod add;
mod contexts;
mod credentials;
mod hostile;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fs_err as fs;
use server::{Repository, Rules, Server};
use support::{Place, Ran};

/// A place with a folder of repositories and their server.
struct Fixture {
    place: Place,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let place = Place::new(&[]);
        fs::create_dir(place.path("repos")).unwrap();
        let server = Server::start(&place.path("repos"), rules);
        Self { place, server }
    }

    fn repository(&self, name: &str, files: &[(&str, &str)]) -> Repository {
        Repository::new(&self.place.path("repos"), name, files)
    }

    /// Builds `FROM scratch` and these lines into the folder `out`; `{}` is the server's address.
    fn build(&self, lines: &str, words: &[&str]) -> Ran {
        let lines = lines.replace("{}", self.server.url("").trim_end_matches('/'));
        self.place.write("Dockerfile", &format!("FROM scratch\n{lines}\n"));
        let out = self.place.path("out");
        let _ = fs::remove_dir_all(&out);
        let mut all = vec!["--progress=plain", "-o", "out"];
        all.extend(words);
        all.push("ctx");
        self.place.ran(self.place.command(&all).output().unwrap())
    }

    /// What a build put out, see [`listing`].
    #[track_caller]
    fn built(&self, lines: &str) -> String {
        self.build(lines, &[]).ok();
        self.out()
    }

    fn out(&self) -> String {
        listing(&self.place.path("out"))
    }

    /// Everything that the store and the last outputs hold, as bytes.
    fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for folder in ["state", "out"] {
            let mut open = vec![self.place.path(folder)];
            while let Some(path) = open.pop() {
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if metadata.is_dir() {
                    open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                } else if metadata.is_file() {
                    found.push((path.display().to_string(), fs::read(&path).unwrap()));
                }
            }
        }
        found
    }
}

/// Paths of a folder with mode, owner and content or link target, without what is below `.git`.
fn listing(root: &Path) -> String {
    let mut lines = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let shown = path.strip_prefix(root).unwrap().display().to_string();
            let mode = metadata.mode() & 0o7777;
            let owner = format!("{}:{}", metadata.uid(), metadata.gid());
            if metadata.is_dir() {
                lines.push(format!("{shown}/ {mode:o} {owner}"));
                if !path.ends_with(".git") {
                    open.push(path);
                }
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                lines.push(format!("{shown} -> {} {owner}", target.display()));
            } else {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                lines.push(format!("{shown} {mode:o} {owner} {text:?}"));
            }
        }
    }
    lines.sort();
    lines.join("\n")
}
