//! `cargo xtask realworld`: builds the applications of `testdata/realworld` as a user would.
//!
//! A Debian base is made once, pushed into a registry on loopback, and built upon: cold, warm, and after
//! one source file changed; what runs again is checked step by step. The pushed images are pulled back
//! by skopeo, unpacked by umoci and run by runc, and nothing of a secret may be left in the store.
//! `--crash` kills one of the builds at random moments and checks that the store still serves;
//! `--reproducible` builds each in several ways and compares the images.
//!
//! Needs root, the Debian packages of the tests, and a way to Debian's, npm's and PyPI's packages.

mod crash;
mod reproducible;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, String>;

/// A line that is put before the certificates, so that the secret can be told from public ones.
const SECRET_LINE: &str = "# private to this machine: 2c8f1d7e0b5a";

/// An application: what is edited, which steps must then run again (no others may), and what it prints.
struct Example {
    name: &'static str,
    edit: &'static str,
    from: &'static str,
    to: &'static str,
    runs_again: &'static [&'static str],
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
        arguments: &["/greet", "world"],
        prints: "hello, world",
        prints_after_edit: "good morning, world",
    },
    Example {
        name: "node",
        edit: "src/page.js",
        from: "'year'",
        to: "'the year'",
        runs_again: &[
            "[build 1/3] COPY src",
            "[build 2/3] COPY build.js",
            "[build 3/3] RUN node build.js",
            "[runtime 4/5] COPY --from=build",
            "[runtime 5/5] COPY package.json",
        ],
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
        let _ = remove(&self.scratch);
    }
}

/// Runs the examples named in `words` (all when none is), compares them with `--reproducible`, or runs the crash test
/// with `--crash`.
pub(crate) fn run(top: &Path, tool: &Path, words: &[String]) -> Outcome<()> {
    let world = World::start(top, tool)?;
    if words.iter().any(|word| word == "--crash") {
        return crash::crash(&world);
    }
    let (flags, names): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with("--"));
    let known = ["--reproducible"];
    if let Some(flag) = flags.iter().find(|flag| !known.contains(&flag.as_str())) {
        return Err(format!("realworld has no option `{flag}`"));
    }
    for example in &EXAMPLES {
        if names.is_empty() || names.iter().any(|word| *word == example.name) {
            match flags.iter().any(|word| *word == "--reproducible") {
                true => world.reproduce(example.name)?,
                false => world.example(example)?,
            }
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
        write_bundle(&scratch.join("ca"))?;
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
            .args(self.options(root))
            .arg(format!("--tag={}/example/{name}:1", self.host()))
            .arg("--push")
            .arg(context);
        command
    }

    /// What every build is given.
    fn options(&self, root: &Path) -> Vec<String> {
        let mut words = vec![
            format!("--root={}", root.display()),
            "--progress=plain".to_owned(),
            format!("--build-arg=BASE={}/library/debian:bookworm", self.host()),
        ];
        // What only this machine knows comes as secrets.
        let bundle = self.scratch.join("ca");
        if bundle.exists() {
            words.push(format!("--secret=id=ca,src={}", bundle.display()));
        }
        if let Some(list) = std::env::var_os("REALWORLD_APT_LIST") {
            words.push(format!("--secret=id=apt,src={}", list.to_string_lossy()));
        }
        words
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
        expect_steps(example, &steps_run(&printed))?;
        self.expect_output(example, example.prints_after_edit)?;
        expect_no_secret(&root)?;
        println!(
            "{:8} cold {:6.2} s   warm {:6.3} s   after an edit {:6.2} s   store {:4} MiB   runs: {:?}",
            example.name,
            cold.as_secs_f64(),
            warm.as_secs_f64(),
            changed.as_secs_f64(),
            megabytes(&root)?,
            example.prints_after_edit
        );
        remove(&root)
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
        remove(&place)?;
        if printed.contains(expect) {
            return Ok(());
        }
        Err(format!("{}: expected `{expect}` from the image, got:\n{printed}", example.name))
    }
}

/// Fails unless the steps that ran are those named by the example, and no others.
fn expect_steps(example: &Example, ran: &[String]) -> Outcome<()> {
    let mut left: Vec<&String> = ran.iter().collect();
    for expected in example.runs_again {
        let Some(at) = left.iter().position(|name| name.contains(expected)) else {
            return Err(format!("{}: `{expected}` did not run again: {ran:?}", example.name));
        };
        left.remove(at);
    }
    if left.is_empty() {
        return Ok(());
    }
    Err(format!("{}: an edit of {} made {left:?} run again", example.name, example.edit))
}

/// Writes this machine's certificates to `place`, under a line that no image can have.
fn write_bundle(place: &Path) -> Outcome<()> {
    let bundle = std::env::var_os("SSL_CERT_FILE")
        .map_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"), PathBuf::from);
    let Ok(certificates) = fs::read_to_string(bundle) else {
        return Ok(());
    };
    fs::write(place, format!("{SECRET_LINE}\n{certificates}")).map_err(|error| error.to_string())
}

/// Fails when a file of the store at `root` has text of the secret.
fn expect_no_secret(root: &Path) -> Outcome<()> {
    let found = Command::new("grep")
        .args(["--recursive", "--files-with-matches", "--text", "--fixed-strings", SECRET_LINE])
        .arg(root)
        .output()
        .map_err(|error| format!("grep: {error}"))?;
    match found.status.code() {
        Some(1) => Ok(()),
        _ => Err(format!("a secret is left in: {}", String::from_utf8_lossy(&found.stdout))),
    }
}

/// Removes a folder, many files at once: some disks take their time for each.
fn remove(folder: &Path) -> Outcome<()> {
    let script = r#"find "$1" -type f -print0 | xargs -0 -r -P 8 -n 200 rm -f; rm -rf "$1""#;
    check(Command::new("sh").args(["-c", script, "sh"]).arg(folder), "rm").map(drop)
}

/// What a folder takes on disk.
fn megabytes(folder: &Path) -> Outcome<u64> {
    let printed = check(Command::new("du").args(["-s", "--block-size=1M"]).arg(folder), "du")?;
    let number = printed.split_whitespace().next().unwrap_or_default();
    number.parse().map_err(|_| format!("du printed `{printed}`"))
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
