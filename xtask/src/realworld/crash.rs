//! Kills builds at random moments, as the kernel does when memory is short, and looks at what is left.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{EXAMPLES, Example, Outcome, World, check, expect_no_secret, steps_run};

const EXAMPLE: &Example = &EXAMPLES[1];

/// What is new in a round, so that there is something to run.
#[derive(Clone, Copy)]
enum Change {
    /// An early line of the Dockerfile.
    All,
    /// The list of dependencies.
    Dependencies,
    /// A source file.
    Source,
}

/// Rounds on an empty store: the base is pulled and unpacked, and the first step begins.
const PULLS: usize = 3;

/// What of that has certainly begun.
const PULL: Duration = Duration::from_millis(1500);

/// Rounds after a build that has ended.
const CHANGES: [Change; 7] = [
    Change::Dependencies,
    Change::Source,
    Change::All,
    Change::Source,
    Change::Dependencies,
    Change::Source,
    Change::All,
];

/// Kills the Node build in ten rounds on one store; then the next build must work at once.
pub(super) fn crash(world: &World) -> Outcome<()> {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |now| now.subsec_nanos());
    println!("crash test, seed {seed}");
    let mut random = Random(u64::from(seed) | 1);
    let site = Site::new(world)?;
    let mut hits = 0;
    for round in 0..PULLS {
        site.apply(Change::All, round)?;
        hits += site.kill(PULL.mul_f64(random.next()))?;
    }
    let lasts = site.measure()?;
    for (round, change) in CHANGES.into_iter().enumerate() {
        site.apply(change, PULLS + 1 + round)?;
        // Builds are not equally quick each time: the last tenth would often be too late.
        hits += site.kill(lasts[change as usize].mul_f64(0.9 * random.next()))?;
    }
    if hits < CHANGES.len() {
        return Err(format!("only {hits} builds were still running when they were killed"));
    }
    let (_, last) = site.build()?;
    site.expect_no_process()?;
    site.expect_nothing_half_written()?;
    expect_no_secret(&site.root)?;
    world.expect_output(EXAMPLE, EXAMPLE.prints)?;
    let again = steps_run(&site.build()?.0);
    if !again.is_empty() {
        return Err(format!("the next but one build runs {again:?} again"));
    }
    println!("{hits} builds were killed; the next works ({last:.1?}), and nothing is left of them");
    Ok(())
}

/// Where it happens: nobody else has anything open below `place`.
struct Site<'a> {
    world: &'a World,
    place: PathBuf,
    context: PathBuf,
    root: PathBuf,
}

impl<'a> Site<'a> {
    fn new(world: &'a World) -> Outcome<Self> {
        let place = world.scratch.join("crash");
        let (context, root) = (place.join("context"), place.join("state"));
        fs::create_dir(&place).map_err(|error| error.to_string())?;
        let from = world.top.join("testdata/realworld").join(EXAMPLE.name);
        check(Command::new("cp").arg("-r").arg(&from).arg(&context), "cp")?;
        Ok(Self { world, place, context, root })
    }

    fn build(&self) -> Outcome<(String, Duration)> {
        self.world.build(EXAMPLE.name, &self.context, &self.root)
    }

    /// How long builds take, by what has changed. Their results are kept.
    fn measure(&self) -> Outcome<[Duration; 3]> {
        let mut lasts = [Duration::ZERO; 3];
        for change in [Change::All, Change::Dependencies, Change::Source] {
            self.apply(change, PULLS)?;
            lasts[change as usize] = self.build()?.1;
        }
        println!("builds that are not killed last {lasts:.1?}");
        Ok(lasts)
    }

    /// Makes the change to the context; `round` tells it from earlier ones.
    fn apply(&self, change: Change, round: usize) -> Outcome<()> {
        let file = self.context.join(match change {
            Change::All => "Dockerfile",
            Change::Dependencies => "package.json",
            Change::Source => "src/page.js",
        });
        let mut text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        if let Change::All = change {
            // Its value is also how processes of the steps are told from others.
            let mark = format!("ENV CRASH={}#{round}", self.place.display());
            let lines = text.lines().filter(|line| !line.starts_with("ENV CRASH="));
            let lines = lines.flat_map(|line| {
                let after = line.starts_with("ENV DEBIAN_FRONTEND").then_some(mark.as_str());
                [Some(line), after].into_iter().flatten()
            });
            text = lines.collect::<Vec<_>>().join("\n");
        }
        // In the other files, one more empty line is the change.
        text.push('\n');
        fs::write(&file, text).map_err(|error| error.to_string())
    }

    /// Starts a build and kills it after `moment`; 1 if it was still running then.
    fn kill(&self, moment: Duration) -> Outcome<usize> {
        // The builder's helper process has this open too, and can be told by it.
        let log = self.place.join("log");
        let file = fs::File::create(&log).map_err(|error| error.to_string())?;
        let mut child = self
            .world
            .command(EXAMPLE.name, &self.context, &self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| error.to_string())?;
        std::thread::sleep(moment);
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        let _ = child.kill();
        let _ = child.wait();
        let printed = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        match ended {
            None => {
                let mut headings =
                    printed.lines().filter(|line| line.contains(" [") || line.contains(" export"));
                let last: String =
                    headings.next_back().unwrap_or_default().chars().take(60).collect();
                println!("killed after {moment:8.1?} at: {last}");
                Ok(1)
            }
            Some(status) if status.success() => {
                println!("had ended before {moment:.1?}");
                Ok(0)
            }
            Some(_) => Err(format!("a build failed before it was killed:\n{printed}")),
        }
    }

    /// Fails when a process of the killed builds is left, or a mount in any process.
    fn expect_no_process(&self) -> Outcome<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(process) = self.process()? {
            if Instant::now() > deadline {
                return Err(format!("process {process} has something of the killed builds"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// A process of a build or a step, by its environment, mounts and open files.
    fn process(&self) -> Outcome<Option<String>> {
        let place = self.place.to_string_lossy();
        for entry in fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // Processes that have just ended have none of these.
            let has = |file| {
                let content = fs::read(entry.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&content).contains(&*place)
            };
            let opened = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let mut files = opened.filter_map(|file| fs::read_link(file.path()).ok());
            if has("environ") || has("mountinfo") || files.any(|file| file.starts_with(&self.place))
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Fails when something half-written is left in the store.
    fn expect_nothing_half_written(&self) -> Outcome<()> {
        let ingest = self.root.join("ingest");
        let entries = fs::read_dir(&ingest).map_err(|error| error.to_string())?;
        if let Some(entry) = entries.flatten().next() {
            return Err(format!("{} is left", entry.path().display()));
        }
        let blobs = self.root.join("blobs/sha256");
        for entry in fs::read_dir(&blobs).map_err(|error| error.to_string())?.flatten() {
            let printed = check(Command::new("sha256sum").arg(entry.path()), "sha256sum")?;
            if !printed.starts_with(&*entry.file_name().to_string_lossy()) {
                return Err(format!("{} has other content", entry.path().display()));
            }
        }
        Ok(())
    }
}

/// Numbers from 0 to 1, by xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}
