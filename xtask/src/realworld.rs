//! `cargo xtask realworld`: builds the applications of `testdata/realworld` as a user would.
//!
//! A Debian base is made once, pushed into a registry on loopback, and built upon: cold, warm, and after
//! one source file changed; what runs again is checked step by step. The pushed images are pulled back
//! by skopeo, unpacked by umoci and run by runc. `--crash` kills one of the builds at random moments and
//! checks that the store still serves.
//!
//! Needs root, the Debian packages of the tests, and a way to Debian's, npm's and PyPI's packages.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, String>;

/// An application: what is edited, which steps must then run again, and which must not.
struct Example {
    name: &'static str,
    edit: &'static str,
    from: &'static str,
    to: &'static str,
    runs_again: &'static [&'static str],
    stays: &'static [&'static str],
    arguments: &'static [&'static str],
    prints: &'static str,
    prints_after_edit: &'static str,
}

const EXAMPLES: [Example; 3] = [
    Example {
        name: "c",
        edit: "src/greeting.c",
        from: "\"hello\"",
        to: "\"good morning\"",
        runs_again: &["COPY src", "RUN make", "COPY --from=build"],
        stays: &["apt-get install", "COPY Makefile"],
        arguments: &["/greet", "world"],
        prints: "hello, world",
        prints_after_edit: "good morning, world",
    },
    Example {
        name: "node",
        edit: "src/page.js",
        from: "'year'",
        to: "'the year'",
        runs_again: &["COPY src", "RUN node build.js", "COPY --from=build"],
        stays: &["apt-get install", "npm install", "COPY package.json", "RUN useradd"],
        arguments: &["node", "dist/server.js", "--self-test"],
        prints: "version 1.0.0, Year 2020, id of 4",
        prints_after_edit: "version 1.0.0, The year 2020, id of 4",
    },
    Example {
        name: "python",
        edit: "app/__main__.py",
        from: "self-test: ",
        to: "self-check: ",
        runs_again: &["COPY app", "RUN python -m app"],
        stays: &["apt-get install", "RUN python3 -m venv", "pip install", "COPY --from=venv"],
        arguments: &["python", "-m", "app", "--self-test"],
        prints: "self-test: hello from flask",
        prints_after_edit: "self-check: hello from flask",
    },
];

/// Everything a run needs; dropping it ends the registry and removes the scratch folder.
struct World {
    tool: PathBuf,
    top: PathBuf,
    scratch: PathBuf,
    port: u16,
    registry: Child,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.registry.kill();
        let _ = self.registry.wait();
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// Runs the examples named in `words` (all when none is), or the crash test with `--crash`.
pub(crate) fn run(top: &Path, tool: &Path, words: &[String]) -> Outcome<()> {
    let world = World::start(top, tool)?;
    if words.iter().any(|word| word == "--crash") {
        return crash(&world);
    }
    for example in &EXAMPLES {
        if words.is_empty() || words.iter().any(|word| word == example.name) {
            world.example(example)?;
        }
    }
    Ok(())
}

impl World {
    fn start(top: &Path, tool: &Path) -> Outcome<Self> {
        let scratch = std::env::temp_dir().join(format!("realworld-{}", std::process::id()));
        fs::create_dir_all(scratch.join("registry")).map_err(|error| error.to_string())?;
        let port = free_port()?;
        let config = scratch.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            scratch.join("registry").display()
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let registry = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("docker-registry: {error}"))?;
        let world = Self { tool: tool.to_owned(), top: top.to_owned(), scratch, port, registry };
        wait_for(port)?;
        world.push_base()?;
        Ok(world)
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes the Debian base once and pushes it.
    fn push_base(&self) -> Outcome<()> {
        let layout = self.top.join("target/realworld/debian");
        if !layout.join("index.json").exists() {
            println!("making a Debian base in {}", layout.display());
            let _ = fs::remove_dir_all(&layout);
            fs::create_dir_all(layout.parent().unwrap_or(Path::new("/")))
                .map_err(|error| error.to_string())?;
            check(Command::new(self.top.join("bench/make-base.sh")).arg(&layout), "make-base.sh")?;
        }
        let (from, to) = (
            format!("oci:{}:latest", layout.display()),
            format!("docker://{}/library/debian:bookworm", self.host()),
        );
        check(
            Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &from, &to]),
            "skopeo copy",
        )
        .map(drop)
    }

    /// A build of `context`: what it printed, and how long it took.
    fn build(&self, name: &str, context: &Path, root: &Path) -> Outcome<(String, Duration)> {
        let started = Instant::now();
        let printed = check(&mut self.command(name, context, root), &format!("build of {name}"))?;
        Ok((printed, started.elapsed()))
    }

    fn command(&self, name: &str, context: &Path, root: &Path) -> Command {
        let mut command = Command::new(&self.tool);
        command
            .env("BRICKLAYER_ROOT", root)
            .arg("--progress=plain")
            .arg(format!("--build-arg=BASE={}/library/debian:bookworm", self.host()))
            .arg(format!("--tag={}/example/{name}:1", self.host()))
            .arg("--push");
        // What only this machine knows comes as secrets.
        if let Some(bundle) = std::env::var_os("SSL_CERT_FILE") {
            command.arg(format!("--secret=id=ca,src={}", bundle.to_string_lossy()));
        }
        if let Some(list) = std::env::var_os("REALWORLD_APT_LIST") {
            command.arg(format!("--secret=id=apt,src={}", list.to_string_lossy()));
        }
        command.arg(context);
        command
    }

    fn example(&self, example: &Example) -> Outcome<()> {
        let context = self.scratch.join(example.name);
        let root = self.scratch.join(format!("{}-state", example.name));
        let from = self.top.join("testdata/realworld").join(example.name);
        check(Command::new("cp").arg("-r").arg(&from).arg(&context), "cp")?;
        let (_, cold) = self.build(example.name, &context, &root)?;
        self.expect_output(example, example.prints)?;
        let (printed, warm) = self.build(example.name, &context, &root)?;
        let again = steps_run(&printed);
        if !again.is_empty() {
            return Err(format!(
                "{}: nothing changed, but these steps ran: {again:?}\n{printed}",
                example.name
            ));
        }
        let file = context.join(example.edit);
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        fs::write(&file, text.replace(example.from, example.to))
            .map_err(|error| error.to_string())?;
        let (printed, changed) = self.build(example.name, &context, &root)?;
        let again = steps_run(&printed);
        let missing =
            example.runs_again.iter().find(|step| !again.iter().any(|name| name.contains(*step)));
        let extra = example.stays.iter().find(|step| again.iter().any(|name| name.contains(*step)));
        if let Some(step) = missing.or(extra) {
            return Err(format!(
                "{}: after an edit of {}, `{step}` is wrong in {again:?}",
                example.name, example.edit
            ));
        }
        self.expect_output(example, example.prints_after_edit)?;
        println!(
            "{:8} cold {:6.2} s   warm {:6.3} s   after an edit {:6.2} s   runs: {:?}",
            example.name,
            cold.as_secs_f64(),
            warm.as_secs_f64(),
            changed.as_secs_f64(),
            example.prints_after_edit
        );
        Ok(())
    }

    /// Pulls the image back, unpacks and runs it, and looks for `expect` in what it prints.
    fn expect_output(&self, example: &Example, expect: &str) -> Outcome<()> {
        let place = self.scratch.join(format!("{}-run", example.name));
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).map_err(|error| error.to_string())?;
        let image = format!("docker://{}/example/{}:1", self.host(), example.name);
        let layout = place.join("layout");
        let target = format!("oci:{}:1", layout.display());
        check(
            Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &image, &target]),
            "skopeo copy",
        )?;
        let bundle = place.join("bundle");
        let unpack = ["unpack", "--image", &format!("{}:1", layout.display())];
        check(Command::new("umoci").args(unpack).arg(&bundle), "umoci unpack")?;
        let config = bundle.join("config.json");
        let text = fs::read_to_string(&config).map_err(|error| error.to_string())?;
        let mut json: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| error.to_string())?;
        json["process"]["terminal"] = false.into();
        json["process"]["args"] =
            example.arguments.iter().map(|word| serde_json::Value::from(*word)).collect();
        fs::write(&config, json.to_string()).map_err(|error| error.to_string())?;
        let id = format!("realworld-{}-{}", example.name, std::process::id());
        let printed = check(
            Command::new("runc").args(["run", "--bundle"]).arg(&bundle).arg(&id),
            "runc run",
        )?;
        let _ = fs::remove_dir_all(&place);
        if printed.contains(expect) {
            return Ok(());
        }
        Err(format!("{}: expected `{expect}` from the image, got:\n{printed}", example.name))
    }
}

/// Kills the Node build at ten random moments; after each, and at the end, the store must serve.
fn crash(world: &World) -> Outcome<()> {
    let example = &EXAMPLES[1];
    let (context, root) = (world.scratch.join("crash"), world.scratch.join("crash-state"));
    check(
        Command::new("cp").arg("-r").arg(world.top.join("testdata/realworld/node")).arg(&context),
        "cp",
    )?;
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |now| now.subsec_nanos());
    let mut random = u64::from(seed) | 1;
    println!("crash test, seed {seed}");
    for round in 0..10 {
        // Each round has a new nonce in an early layer, so that there is something to kill.
        fs::write(context.join("package.json.nonce"), round.to_string())
            .map_err(|error| error.to_string())?;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Duration::from_millis(random % 12_000);
        let mut child = world
            .command(example.name, &context, &root)
            .arg(format!("--no-cache-filter={}", ["deps", "build", "runtime", "node"][round % 4]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| error.to_string())?;
        std::thread::sleep(moment);
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        let _ = child.kill();
        let _ = child.wait();
        println!(
            "round {round}: killed after {moment:?}{}",
            if ended.is_some() { " (it had ended)" } else { "" }
        );
    }
    world.build(example.name, &context, &root)?;
    world.expect_output(example, example.prints)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    if mounts.contains(&*root.to_string_lossy()) {
        return Err("a mount of the killed builds is left".to_owned());
    }
    println!("the next build works, and no mount is left");
    Ok(())
}

/// Names of the steps that ran, from plain progress.
fn steps_run(printed: &str) -> Vec<String> {
    let mut names = std::collections::BTreeMap::new();
    let mut ran = Vec::new();
    for line in printed.lines() {
        let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        if rest.starts_with('[') && !rest.starts_with("[internal]") {
            names.entry(number.to_owned()).or_insert_with(|| rest.to_owned());
        } else if rest.starts_with("DONE")
            && let Some(name) = names.get(number)
            && !name.contains("] FROM ")
        {
            ran.push(name.clone());
        }
    }
    ran
}

fn check(command: &mut Command, what: &str) -> Outcome<String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{what}: {error}"))?;
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        Ok(printed)
    } else {
        Err(format!("{what} failed ({}):\n{printed}", output.status))
    }
}

fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

fn wait_for(port: u16) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err(format!("the registry does not listen on port {port}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
