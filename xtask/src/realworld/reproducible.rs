//! `cargo xtask realworld --reproducible`: the applications come out the same, whoever builds them and wherever.
//!
//! Each is built from two folders: as root and as a user without rights, on one core and on all, with an empty store
//! and from the cache. What comes from the cache must be the same image. Of what is built anew, steps may differ that
//! write the time of day or a random number, such as logs of package managers; what else differs is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Outcome, World, check, remove};
use crate::users::{self, WITH_RANGE, id_of};

/// Steps of others that write the time of day, by a part of what they run.
const UNSTEADY: [&str; 4] = ["apt-get", "npm install", "pip install", "useradd"];

/// Seconds since 1970 of everything that is newer.
const EPOCH: &str = "1700000000";

/// An image: its digest, and each step that made a layer with the digest of that.
#[derive(PartialEq, Eq)]
struct Built {
    digest: String,
    layers: Vec<(String, String)>,
}

impl World {
    /// Builds an application in all ways and compares what came of it.
    pub(super) fn reproduce(&self, name: &str) -> Outcome<()> {
        users::ensure(WITH_RANGE)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let all = format!("0-{}", cores - 1);
        let (one, all) = ("0", all.as_str());
        let by_root = self.twice(name, "a", None, [one, all])?;
        let by_user = self.twice(name, "and-a-longer-name", Some(WITH_RANGE), [all, one])?;
        let pairs = by_root.layers.iter().zip(&by_user.layers);
        let differing: Vec<&str> =
            pairs.filter(|(one, other)| one != other).map(|((step, _), _)| step.as_str()).collect();
        let is_steady = |step: &&&str| !UNSTEADY.iter().any(|part| step.contains(part));
        let wrong: Vec<&&str> = differing.iter().filter(is_steady).collect();
        if by_root.layers.len() != by_user.layers.len() || !wrong.is_empty() {
            return Err(format!("{name}: root and {WITH_RANGE} differ in {wrong:?}"));
        }
        let same = by_root.layers.len() - differing.len();
        println!("{name:8} {same} of {} layers the same everywhere", by_root.layers.len());
        differing.iter().for_each(|step| println!("         differs by itself: {step}"));
        Ok(())
    }

    /// Builds with an empty store and then from the cache; both must be one image.
    fn twice(
        &self,
        name: &str,
        place: &str,
        user: Option<&str>,
        cores: [&str; 2],
    ) -> Outcome<Built> {
        let place = self.scratch.join(format!("{name}-{place}"));
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let from = self.top.join("testdata/realworld").join(name);
        check(Command::new("cp").arg("-r").arg(from).arg(place.join("context")), "cp")?;
        check(Command::new("cp").arg(&self.tool).arg(place.join("build")), "cp")?;
        check(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&place), "chmod")?;
        if let Some(user) = user {
            check(Command::new("chown").args(["-R", user]).arg(&place), "chown")?;
            check(Command::new("chmod").arg("a+rx").arg(&self.scratch), "chmod")?;
        }
        let cold = self.built(name, &place, user, cores[0])?;
        let cached = self.built(name, &place, user, cores[1])?;
        let who = user.unwrap_or("root");
        if cold != cached {
            return Err(format!(
                "{name} as {who}: {} at first, {} from the cache",
                cold.digest, cached.digest
            ));
        }
        remove(&place)?;
        Ok(cold)
    }

    fn built(&self, name: &str, place: &Path, user: Option<&str>, cores: &str) -> Outcome<Built> {
        let layout = place.join("image");
        let _ = fs::remove_dir_all(&layout);
        let words = self.options(&place.join("state"));
        let mut command = Command::new("taskset");
        command.args(["-c", cores]);
        if let Some((uid, gid)) = user.and_then(id_of) {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}")]);
            command.args(["--clear-groups", "--"]).env("HOME", place);
        }
        command.arg(place.join("build")).args(words).env("SOURCE_DATE_EPOCH", EPOCH);
        let output = format!("type=oci,tar=false,rewrite-timestamp=true,dest={}", layout.display());
        command.args(["-o", &output]).arg(place.join("context"));
        check(&mut command, &format!("build of {name}"))?;
        Built::read(&layout)
    }
}

impl Built {
    fn read(layout: &Path) -> Outcome<Self> {
        let json = |path: PathBuf| -> Outcome<Value> {
            let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        let digest = |value: &Value| value["digest"].as_str().unwrap_or_default().to_owned();
        let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
        let index = json(layout.join("index.json"))?;
        let top = digest(&index["manifests"][0]);
        let manifest = json(blob(&top))?;
        let config = json(blob(&digest(&manifest["config"])))?;
        let history = config["history"].as_array().into_iter().flatten();
        let steps = history.filter(|entry| entry["empty_layer"] != true);
        let steps = steps.map(|entry| entry["created_by"].as_str().unwrap_or("base").to_owned());
        let layers = manifest["layers"].as_array().into_iter().flatten().map(digest);
        Ok(Self { digest: top, layers: steps.zip(layers).collect() })
    }
}
