//! A step that is set up for real: all namespaces, mounts, limits and filters of one, up to the program, which is not there.

use std::path::{Path, PathBuf};

use fs_err as fs;
use sandbox::tier::Tier;
use sandbox::{Cancel, Root, Sandbox, SandboxError, Spec};

use super::Finding;
use super::checks::{OTHER_FOLDER, is_open, place_of};
use crate::commands::machine;
use crate::report::chain;

const MAKE_FOLDER: &str = "make a folder";
const MAKE_FILE: &str = "make a file";

/// A folder that goes with the value.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sets a step up; returns what came of it and whether steps are possible.
pub(super) fn step(tier: Option<Tier>, root: &Path) -> (Finding, bool) {
    const NAME: &str = "step";
    let Some(tier) = tier else {
        let finding = Finding::missing(NAME, "not tried", "RUN is not possible, all else is");
        return (finding, false);
    };
    if !tier.has_namespaces() {
        let means = "steps work on plain copies, and nothing but the changed root keeps them apart";
        return (Finding::limited(NAME, "runs without namespaces and overlays", means), true);
    }
    let place = place_of(root);
    if !is_open(&place) {
        let found = "not tried: there is no folder for it";
        return (Finding::missing(NAME, found, "RUN is not possible").lift(OTHER_FOLDER), false);
    }
    let folder = place.join(format!(".bricklayer-doctor-{}", std::process::id()));
    let folder = Folder(folder);
    match attempt(tier, &folder.0, true) {
        Ok(()) => (Finding::ok(NAME, "was set up, over an overlay"), true),
        Err(refused @ SandboxError::OverlayRefused { .. }) => {
            let why = chain(&refused);
            match attempt(tier, &folder.0, false) {
                Ok(()) => {
                    let finding = Finding::limited(
                        NAME,
                        format!("was set up, but not over an overlay: {why}"),
                        "each RUN step works on a full copy of its root, which is slower",
                    );
                    let lift = "choose a state folder on ext4, XFS, Btrfs or tmpfs with --root";
                    (finding.lift(lift), true)
                }
                Err(error) => (failed(NAME, &error), false),
            }
        }
        Err(error) => (failed(NAME, &error), false),
    }
}

fn failed(name: &'static str, error: &SandboxError) -> Finding {
    let found = chain(error);
    let lift = match error {
        SandboxError::Supervise { action: MAKE_FOLDER | MAKE_FILE, .. } => OTHER_FOLDER.to_owned(),
        _ => machine::exhausted(&found, true).unwrap_or_else(|| machine::sandbox_hint(error)),
    };
    Finding::missing(name, found, "RUN is not possible, all else is").lift(lift)
}

/// Sets one up in a new folder.
fn attempt(tier: Tier, folder: &Path, is_overlay: bool) -> Result<(), SandboxError> {
    let failed = |action: &'static str| {
        move |source: std::io::Error| SandboxError::Supervise { action, source }
    };
    let path = |name: &str| folder.join(if is_overlay { "overlay" } else { "plain" }).join(name);
    for name in ["lower", "upper/etc", "work"] {
        fs::create_dir_all(path(name)).map_err(failed(MAKE_FOLDER))?;
    }
    for name in ["upper/etc/hosts", "upper/etc/resolv.conf"] {
        fs::write(path(name), "").map_err(failed(MAKE_FILE))?;
    }
    let root = match is_overlay {
        true => {
            Root::Overlay { lowers: vec![path("lower")], upper: path("upper"), work: path("work") }
        }
        false => Root::Dir(path("upper")),
    };
    let mut spec = Spec::new(root, vec!["/nothing".to_owned()]);
    spec.tier = tier;
    let null = || fs::OpenOptions::new().write(true).open("/dev/null");
    let output = || Ok(null().map_err(failed("open /dev/null"))?.into_parts().0.into());
    let cancel = Cancel::new()?;
    match Sandbox::start()?.run(&spec, output()?, output()?, &cancel) {
        // All was there but the program.
        Err(SandboxError::Exec { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}
