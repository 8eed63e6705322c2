//! Many processes build overlapping Dockerfiles on one store, and some of them are killed.
//!
//! `BRICKLAYER_STRESS_ROUNDS=50 cargo test --profile ci -p cli --test store stress` is the long form.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::support::{Place, can_run, repository};
use crate::{Listing, Random, listing};

const PROCESSES: usize = 20;

/// What all have in common. Every step notes in a cache mount that it ran; two take a mount that only one may have.
const COMMON: &str = "\
FROM busybox AS base
ARG ROUND
RUN --mount=type=cache,id=count,target=/c echo base-$ROUND >> /c/log; echo base $ROUND > /base
COPY shared /shared
FROM base AS tools
RUN --mount=type=cache,id=count,target=/c --mount=type=cache,id=locked,sharing=locked,target=/l \
    echo tools-$ROUND >> /c/log; mkdir /l/busy && sleep 0.05 && rmdir /l/busy && echo tools $ROUND > /tools
FROM base AS data
RUN --mount=type=cache,id=count,target=/c --mount=type=cache,id=private,sharing=private,target=/p \
    echo data-$ROUND >> /c/log; mkdir /p/busy && sleep 0.02 && rmdir /p/busy && echo data $ROUND > /data
";

/// What each has for itself.
const ENDS: [&str; 5] = [
    "FROM tools\nCOPY --from=data /data /\n",
    "FROM data\nRUN --mount=type=cache,id=count,target=/c echo own-$ROUND >> /c/log; cat /base /data > /own\n",
    "FROM scratch\nCOPY --from=tools /tools /base /\nCOPY --from=data /data /\n",
    "FROM base\nCOPY --from=tools /tools /\nRUN --mount=type=cache,id=count,target=/c --mount=type=cache,id=locked,sharing=locked,target=/l \
     echo last-$ROUND >> /c/log; mkdir /l/busy && rmdir /l/busy && cat /tools /shared > /last\n",
    "FROM tools\nCOPY other /other\n",
];

/// Files that the images must have, by which of them it is.
fn expected(which: usize, round: usize) -> Vec<(&'static str, String)> {
    let base = ("base", format!("base {round}\n"));
    let tools = ("tools", format!("tools {round}\n"));
    let data = ("data", format!("data {round}\n"));
    match which {
        0 => vec![base, tools, data],
        1 => vec![("own", format!("base {round}\ndata {round}\n")), base, data],
        2 => vec![tools, base, data],
        3 => vec![("last", format!("tools {round}\nshared {round}\n")), base, tools],
        _ => vec![("other", "other".to_owned()), base, tools],
    }
}

struct Site {
    place: Place,
    random: Random,
    kills: usize,
}

impl Site {
    fn new() -> Self {
        let place = Place::new(&[("other", "other")]);
        for (number, end) in ENDS.iter().enumerate() {
            place.write(&format!("Dockerfile.{number}"), &format!("{COMMON}{end}"));
        }
        Self { place, random: Random::new(), kills: 0 }
    }

    fn command(&self, which: usize, round: usize, out: &Path) -> Command {
        let image = repository().join("testdata/conformance/images/busybox");
        let mut command = self.place.command(&["--progress=plain"]);
        command
            .arg(format!("--build-context=busybox=oci-layout://{}:latest", image.display()))
            .arg(format!("--build-arg=ROUND={round}"))
            .arg(format!("--file=ctx/Dockerfile.{which}"))
            .arg(format!("--output={}", out.display()))
            .arg("ctx");
        command
    }

    /// Starts all at once, kills some if asked to, and looks at what the others made.
    fn round(&mut self, round: usize, kills: bool) {
        self.place.write("shared", &format!("shared {round}\n"));
        let out = |number: usize| self.place.path(&format!("out-{number}"));
        let mut children: Vec<Option<Child>> = (0..PROCESSES)
            .map(|number| {
                let log = fs::File::create(self.place.path(&format!("log-{number}"))).unwrap();
                let mut command = self.command(number % ENDS.len(), round, &out(number));
                Some(command.stderr(Stdio::from(log.into_file())).spawn().unwrap())
            })
            .collect();
        if kills {
            self.kills += kill_some(&mut self.random, &mut children);
        }
        let deadline = Instant::now() + Duration::from_secs(180);
        let mut same: BTreeMap<usize, Listing> = BTreeMap::new();
        for (number, child) in children.iter_mut().enumerate() {
            let Some(child) = child else { continue };
            let log = || fs::read_to_string(self.place.path(&format!("log-{number}"))).unwrap();
            let status = loop {
                if let Some(status) = child.try_wait().unwrap() {
                    break status;
                }
                if Instant::now() > deadline {
                    child.kill().unwrap();
                    panic!("round {round}: build {number} is stuck:\n{}", log());
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            assert!(status.success(), "round {round}, build {number}: {status}\n{}", log());
            self.check(number % ENDS.len(), round, &out(number), &mut same);
        }
        for which in 0..ENDS.len() {
            let out = self.place.path("out-after");
            let status = self.command(which, round, &out).stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "round {round}: {status}");
            self.check(which, round, &out, &mut same);
        }
        if !kills {
            self.expect_each_step_once(round);
        }
        self.expect_nothing_left();
    }

    /// All images of one Dockerfile are the same, and hold what they must.
    fn check(&self, which: usize, round: usize, out: &Path, same: &mut BTreeMap<usize, Listing>) {
        let found = listing(out);
        for (name, text) in expected(which, round) {
            let (_, content) = found.get(name).unwrap_or_else(|| panic!("no {name} in {which}"));
            assert_eq!(String::from_utf8_lossy(content), text, "round {round}, image {which}");
        }
        let first = same.entry(which).or_insert_with(|| found.clone());
        assert!(*first == found, "round {round}: two images of Dockerfile {which} differ");
        fs::remove_dir_all(out).unwrap();
    }

    fn expect_each_step_once(&self, round: usize) {
        let mut ran: Vec<String> = Vec::new();
        for mount in fs::read_dir(self.place.path("state/mounts")).unwrap() {
            let log = fs::read_to_string(mount.unwrap().path().join("log")).unwrap_or_default();
            let own = log.lines().filter(|line| line.ends_with(&format!("-{round}")));
            ran.extend(own.map(str::to_owned));
        }
        ran.sort();
        let expect = ["base", "data", "last", "own", "tools"].map(|name| format!("{name}-{round}"));
        assert_eq!(ran, expect, "steps that ran");
    }

    /// No mount, no process, nothing half written.
    fn expect_nothing_left(&self) {
        let state = self.place.path("state");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let name = state.to_str().unwrap();
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let mut left: Vec<String> =
                mounts.lines().filter(|line| line.contains(name)).map(str::to_owned).collect();
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
                if String::from_utf8_lossy(&environ).contains(name) {
                    left.push(format!("process {}", entry.file_name().display()));
                }
            }
            if left.is_empty() {
                break;
            }
            // What was killed takes its children with it, but not at once.
            assert!(Instant::now() < deadline, "{left:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.place.run(&["du"]).ok();
        self.place.expect_nothing_half_written("");
        let locks: Vec<_> = fs::read_dir(state.join("locks")).unwrap().collect();
        assert!(locks.len() < 200, "{} lock files are left", locks.len());
    }
}

/// Kills builds that are still running, the first one at once: a fast machine has none left soon after. How many.
fn kill_some(random: &mut Random, children: &mut [Option<Child>]) -> usize {
    for kill in 0..PROCESSES / 3 {
        if kill > 0 {
            std::thread::sleep(Duration::from_millis(random.below(120) as u64));
        }
        let mut running: Vec<&mut Option<Child>> = children
            .iter_mut()
            .filter_map(|child| {
                let status = child.as_mut()?.try_wait().unwrap();
                status.is_none().then_some(child)
            })
            .collect();
        if running.is_empty() {
            return kill;
        }
        let victim = random.below(running.len());
        let mut child = running[victim].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
    PROCESSES / 3
}

#[test]
fn stress_of_many_builds_with_kills_gives_right_images_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let rounds: usize = std::env::var("BRICKLAYER_STRESS_ROUNDS")
        .ok()
        .map_or(2, |rounds| rounds.parse().expect("a number of rounds"));
    let began = Instant::now();
    let mut site = Site::new();
    for round in 0..rounds {
        site.round(round, round % 2 == 1);
    }
    assert!(rounds < 2 || site.kills > 0, "no build was still running when it was to be killed");
    let (kills, took) = (site.kills, began.elapsed());
    println!("{rounds} rounds of {PROCESSES} builds, {kills} killed, {took:.1?}");
    let freed = site.place.run(&["prune", "-f"]).ok().stdout;
    assert!(freed.contains("Total:"), "{freed}");
    let layers = fs::read_dir(site.place.path("state/layers")).unwrap().count();
    assert_eq!(layers, 0, "layers are left");
}
