//! Runs the executable as a user without rights.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Place, Ran, has, repository};

#[path = "../../../xtask/src/users.rs"]
mod accounts;

#[allow(unused_imports, reason = "each test file uses its part")]
pub(crate) use accounts::{WITH_RANGE, WITHOUT_RANGE, ensure, id_of};

/// A place that belongs to a user, with an executable and base images that it can read.
pub(crate) struct UserPlace {
    pub(crate) place: Place,
    user: Option<&'static str>,
}

/// Whether this process may become another user; prints why not.
pub(crate) fn can_be_user() -> bool {
    super::can_run() && has("newuidmap") && has("setpriv")
}

/// Who builds in a tier; `None` is root.
fn user_of(tier: &str) -> Option<&'static str> {
    match tier {
        "rootless" => Some(WITH_RANGE),
        "single-id" => Some(WITHOUT_RANGE),
        _ => None,
    }
}

/// Whether this process may build in a tier; prints why not.
pub(crate) fn can_build_in(tier: &str) -> bool {
    super::can_run() && (user_of(tier).is_none() || can_be_user())
}

impl UserPlace {
    /// An empty place of a user, whose context has these files.
    pub(crate) fn new(user: &'static str, files: &[(&str, &str)]) -> Self {
        Self::of(user, Place::new(files))
    }

    /// The same for a place that is there; all in it becomes the user's.
    pub(crate) fn of(user: &'static str, place: Place) -> Self {
        ensure(user).unwrap();
        Self::with(Some(user), place)
    }

    /// The same for whoever builds in a tier.
    pub(crate) fn of_tier(tier: &str, place: Place) -> Self {
        match user_of(tier) {
            Some(user) => Self::of(user, place),
            None => Self::of_root(place),
        }
    }

    /// The same for root.
    pub(crate) fn of_root(place: Place) -> Self {
        Self::with(None, place)
    }

    fn with(user: Option<&'static str>, place: Place) -> Self {
        let images = repository().join("testdata/conformance/images");
        let copied = Command::new("cp").arg("-r").arg(images).arg(place.path("images")).status();
        assert!(copied.unwrap().success());
        super::copy_program(&place.path("build"));
        let itself = Self { place, user };
        itself.hand_over();
        itself
    }

    /// Gives everything in the place to the user.
    pub(crate) fn hand_over(&self) {
        let folder = self.place.folder.path();
        for words in [["chown", "-R"], ["chmod", "-R"]] {
            let user = self.user.unwrap_or("root");
            let whom =
                if words[0] == "chown" { format!("{user}:{user}") } else { "u+rwX,a+rX".into() };
            let done = Command::new(words[0]).arg(words[1]).arg(whom).arg(folder).status();
            assert!(done.unwrap().success());
        }
    }

    /// The command line of `build words…`, to be run by the user.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let user = self.user.unwrap_or("root");
        let (uid, gid) = id_of(user).unwrap();
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()])
            .arg("--")
            .arg(self.place.path("build"))
            .args(words)
            .env("BRICKLAYER_ROOT", self.place.path("state"))
            .env("DOCKER_CONFIG", self.place.path("docker"))
            .env("HOME", self.place.folder.path())
            .env("USER", user)
            .env_remove("SOURCE_DATE_EPOCH")
            .env_remove("BUILDKIT_PROGRESS")
            .env_remove("BRICKLAYER_ISOLATION")
            .stdin(Stdio::null())
            .current_dir(self.place.folder.path());
        command
    }

    /// The options that give a build its base images.
    pub(crate) fn contexts(&self) -> Vec<String> {
        let image = |name: &&str| {
            let images = self.place.path("images");
            format!("--build-context={name}=oci-layout://{}/{name}:latest", images.display())
        };
        ["busybox", "kit", "links"].iter().map(image).collect()
    }

    /// Runs `build words… ctx` with the base images.
    pub(crate) fn build(&self, words: &[&str]) -> Ran {
        let mut command = self.command(words);
        command.args(self.contexts()).arg("ctx");
        self.place.ran(command.output().unwrap())
    }

    /// Runs `build words…`.
    pub(crate) fn run(&self, words: &[&str]) -> Ran {
        self.place.ran(self.command(words).output().unwrap())
    }

    /// A path below the place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }
}
