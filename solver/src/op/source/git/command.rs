//! Runs git, and nothing that the user's or the machine's settings of git, or a repository, may say.
//!
//! Invariants:
//! - git reads no settings but those given here: no hooks, helpers, templates, filters or prompts.
//! - Only the transport of the address is spoken: a redirect leads to no other, least of all to a repository of
//!   this machine.
//! - Credentials are given to one host only, never as arguments, and never on the way of a redirect.
//! - git and what it has started are gone when [`Git::run`] returns, also when the build is stopped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use llb::GitUrl;
use llb::git_url::GitScheme;
use llb::url::redacted;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::error::{GitError, Trouble};
use super::request::Request;
use crate::engine::JobInner;
use crate::error::OpError;

/// The oldest git whose settings can be given without files.
const OLDEST: (u32, u32) = (2, 32);
const OLDEST_TEXT: &str = "2.32";

/// Most bytes of output that are kept.
const MAX_OUTPUT: u64 = 64 << 20;

/// Most bytes of what git says of itself that are kept.
const MAX_WORDS: usize = 256 << 10;

/// Seconds after which a transfer that does not go on is given up.
const STALLED: &str = "120";

/// Nanoseconds after which a call looks whether the transfers of its job are to end.
const PAUSE: i64 = 100_000_000;

/// A place where there is nothing.
const NOWHERE: &str = "/dev/null";

/// How ssh is run: it asks nobody anything, and leaves no process behind.
const SSH: &str = "ssh -o BatchMode=yes -o ControlMaster=no";

/// What git is told by variables.
const ENVIRONMENT: [(&str, &str); 11] = [
    ("LC_ALL", "C"),
    ("HOME", NOWHERE),
    ("XDG_CONFIG_HOME", NOWHERE),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", NOWHERE),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_LITERAL_PATHSPECS", "1"),
    ("GIT_SSH_COMMAND", SSH),
];

/// The settings that git has, besides those that depend on the call.
const SETTINGS: [(&str, &str); 17] = [
    ("core.hooksPath", NOWHERE),
    ("core.attributesFile", NOWHERE),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("core.logAllRefUpdates", "false"),
    ("credential.helper", ""),
    ("safe.directory", "*"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("init.defaultBranch", "master"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("transfer.unpackLimit", "1"),
    ("checkout.workers", "0"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", STALLED),
];

/// How git is run, as far as that is not the builder's own decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitOptions {
    /// Variables for git and ssh: where programs are (`PATH`), proxies, certificates.
    pub environment: Vec<(OsString, OsString)>,
}

/// Takes what git says, for the user to see.
pub(crate) type Log<'a> = dyn Fn(&[u8]) + Sync + 'a;

/// Runs git for one source.
pub(super) struct Git<'a> {
    pub(super) job: &'a JobInner,
    pub(super) request: &'a Request,
    pub(super) log: &'a Log<'a>,
}

/// One call of git.
#[derive(Clone, Default)]
pub(super) struct Call<'c> {
    /// The command and its arguments.
    pub(super) words: Vec<&'c OsStr>,
    /// The repository; none is looked for elsewhere.
    pub(super) repository: Option<&'c Path>,
    /// Where files are written.
    pub(super) folder: Option<&'c Path>,
    /// Where the list of those files is kept.
    pub(super) index: Option<&'c Path>,
    /// Keeps others away from the repository for as long as git lives, even if it outlives the builder.
    pub(super) holder: Option<&'c File>,
    /// Whether a repository of this machine may be read.
    pub(super) reads_local: bool,
    /// The repository elsewhere that is asked.
    pub(super) remote: Option<&'c GitUrl>,
    /// Of the output, which ends each record with a zero byte, only records that begin so are kept.
    pub(super) records: Option<&'c str>,
}

/// What git left.
pub(super) struct Ran {
    pub(super) is_ok: bool,
    pub(super) output: Vec<u8>,
    /// What it said of itself, without credentials.
    pub(super) words: String,
}

impl Ran {
    /// The output as a line of text.
    pub(super) fn line(&self) -> String {
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }
}

/// Credentials, and for which host.
struct Auth {
    origin: String,
    header: String,
}

impl Git<'_> {
    /// Runs git; what it leaves says whether it succeeded.
    ///
    /// # Errors
    /// When it could not be run to its end.
    pub(super) fn run(&self, call: &Call<'_>) -> Result<Ran, OpError> {
        self.check()?;
        let auth = call.remote.map(|url| self.auth(url)).transpose()?.flatten();
        let ran = self.run_as(call, auth.as_ref())?;
        if let (Some(url), Some(_), false) = (call.remote, &auth, ran.is_ok)
            && Trouble::of(&ran.words, url) == Trouble::Redirected
        {
            // Whoever is sent on gets no credentials; the other address may do without.
            return self.run_as(call, None);
        }
        Ok(ran)
    }

    /// Runs git on what is in the store, where it has no reason to fail.
    ///
    /// # Errors
    /// When it fails nevertheless; `action` says what it was to do.
    pub(super) fn local(&self, action: &'static str, call: &Call<'_>) -> Result<Ran, OpError> {
        let ran = self.run(call)?;
        if ran.is_ok {
            return Ok(ran);
        }
        Err(GitError::Local { action, message: last_words(&ran.words) }.into())
    }

    /// Makes sure, once, that git can be run in safety.
    fn check(&self) -> Result<(), OpError> {
        let is_known = &self.job.engine.git_is_known;
        if is_known.get().is_none() {
            let call = Call { words: vec![OsStr::new("version")], ..Call::default() };
            check_version(&self.run_as(&call, None)?.line())?;
            let _ = is_known.set(());
        }
        Ok(())
    }

    fn run_as(&self, call: &Call<'_>, auth: Option<&Auth>) -> Result<Ran, OpError> {
        let mut command = self.command(call, auth);
        if let Some(holder) = call.holder {
            let holder = holder.try_clone().map_err(|source| OpError::Io {
                action: "share the lock of",
                path: call.repository.unwrap_or(Path::new("")).to_owned(),
                source,
            })?;
            command.stdin(Stdio::from(holder));
        }
        let child = command.spawn().map_err(|source| GitError::Program { source })?;
        let (status, output, words) = self.attend(child, call.records)?;
        if self.job.is_stopping() {
            return Err(OpError::Canceled);
        }
        let text = String::from_utf8_lossy(&words);
        // A server can have git say anything.
        let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
        let mut words = redacted(&text).into_owned();
        if let Some(auth) = auth {
            words = words.replace(&auth.header, "xxxxx");
        }
        Ok(Ran { is_ok: status.success(), output, words })
    }

    fn command(&self, call: &Call<'_>, auth: Option<&Auth>) -> Command {
        let mut command = Command::new("git");
        command.args(&call.words).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(
            self.job.engine.options.git.environment.iter().map(|(name, value)| (name, value)),
        );
        if let Some(agent) = &self.request.agent
            && let Some(socket) = self.job.session.ssh_agent(agent)
        {
            command.env("SSH_AUTH_SOCK", socket);
        }
        let transports = match call.remote.map(GitUrl::scheme) {
            Some(GitScheme::Https) => "https",
            Some(GitScheme::Http) => "http:https",
            Some(GitScheme::Ssh) => "ssh",
            Some(GitScheme::Git) => "git",
            None if call.reads_local => "file",
            None => "none",
        };
        command.envs(ENVIRONMENT).env("GIT_ALLOW_PROTOCOL", transports);
        command.env("GIT_DIR", call.repository.unwrap_or(Path::new(NOWHERE)));
        for (name, path) in [("GIT_WORK_TREE", call.folder), ("GIT_INDEX_FILE", call.index)] {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        let mut settings =
            SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let redirects = if auth.is_some() { "false" } else { "initial" };
        settings.push(("http.followRedirects".to_owned(), redirects.to_owned()));
        if let Some(auth) = auth {
            let header = format!("Authorization: {}", auth.header);
            settings.push((format!("http.{}.extraHeader", auth.origin), header));
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (name, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name);
            command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        command
    }

    /// Reads what a process writes until it ends, or ends it when the build is stopped.
    fn attend(
        &self,
        mut child: Child,
        records: Option<&str>,
    ) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), OpError> {
        let failed = |source: io::Error| OpError::from(GitError::Program { source });
        let (out, err) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|scope| {
            let output = scope.spawn(|| match (out, records) {
                (None, _) => Ok(Vec::new()),
                (Some(pipe), None) => read_all(pipe, MAX_OUTPUT),
                (Some(pipe), Some(start)) => read_records(pipe, start, MAX_OUTPUT),
            });
            let words = scope.spawn(|| err.map_or(Ok(Vec::new()), read_words));
            let ended = self.wait(&child);
            // Also what it has started: as long as it is not waited for, the group is its own.
            let group = Pid::from_child(&child);
            let _ = kill_process_group(group, Signal::KILL);
            let status = child.wait().map_err(failed)?;
            ended.map_err(failed)?;
            let join = |handle: std::thread::ScopedJoinHandle<'_, io::Result<Vec<u8>>>| {
                handle.join().unwrap_or_else(|_| Err(io::Error::other("a reader failed")))
            };
            let output = join(output).map_err(failed)?;
            Ok((status, output, join(words).map_err(failed)?))
        })
    }

    /// Waits until a process has ended or the build is stopped.
    fn wait(&self, child: &Child) -> io::Result<()> {
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE };
        while !self.job.is_stopping() {
            let mut watched = [
                PollFd::new(&process, PollFlags::IN),
                PollFd::from_borrowed_fd(self.job.cancel.as_fd(), PollFlags::IN),
            ];
            let ready = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&pause)))?;
            if ready > 0 {
                break;
            }
        }
        Ok(())
    }

    /// Credentials for an address: secrets for its host, then those for the host of the source itself,
    /// then those that are part of the address.
    fn auth(&self, url: &GitUrl) -> Result<Option<Auth>, OpError> {
        if !url.scheme().is_http() {
            return Ok(None);
        }
        let (header, token) = (&self.request.header_secret, &self.request.token_secret);
        let host = url.host();
        let is_own_host = url.origin() == self.request.url.origin();
        let mut names = vec![
            (format!("{header}.{host}"), false, !header.is_empty()),
            (format!("{token}.{host}"), true, !token.is_empty()),
        ];
        names.push((header.clone(), false, is_own_host && !header.is_empty()));
        names.push((token.clone(), true, is_own_host && !token.is_empty()));
        for (id, is_token, is_wanted) in names {
            let secret = if is_wanted { self.secret(&id)? } else { None };
            let Some(value) = secret else { continue };
            let header = if is_token {
                registry::basic_authorization("x-access-token", &value)
            } else {
                value
            };
            return Ok(Some(Auth { origin: url.origin(), header }));
        }
        Ok(url.credentials().map(|(user, password)| Auth {
            origin: url.origin(),
            header: registry::basic_authorization(&user, &password),
        }))
    }

    fn secret(&self, id: &str) -> Result<Option<String>, OpError> {
        let unusable =
            |reason: String| OpError::from(GitError::Secret { id: id.to_owned(), reason });
        let value = self.job.session.secret(id).map_err(|error| unusable(error.to_string()))?;
        let Some(value) = value else { return Ok(None) };
        let text =
            std::str::from_utf8(&value).map_err(|_| unusable("it is not text".to_owned()))?;
        let text = text.trim();
        if text.contains(|c: char| c.is_control()) {
            return Err(unusable("it has more than one line".to_owned()));
        }
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }
}

/// Reads a pipe to its end, and keeps its beginning.
fn read_all(mut pipe: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    pipe.by_ref().take(most).read_to_end(&mut kept)?;
    io::copy(&mut pipe, &mut io::sink())?;
    Ok(kept)
}

/// Reads a pipe to its end, and keeps the records that begin with `start`.
fn read_records(pipe: impl Read, start: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    for record in BufReader::new(pipe).split(0) {
        let record = record?;
        if record.starts_with(start.as_bytes()) && ((kept.len() + record.len()) as u64) < most {
            kept.extend_from_slice(&record);
            kept.push(0);
        }
    }
    Ok(kept)
}

/// Reads a pipe to its end, and keeps what came last.
fn read_words(mut pipe: impl Read) -> io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 8 << 10]);
    loop {
        match pipe.read(&mut buffer)? {
            0 => return Ok(kept),
            count => kept.extend_from_slice(&buffer[..count]),
        }
        kept.drain(..kept.len().saturating_sub(MAX_WORDS));
    }
}

/// The last line that says what is wrong, without git's `fatal: `.
pub(super) fn last_words(words: &str) -> String {
    let lines = || words.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_end = |line: &&str| line.starts_with("fatal: ") || line.starts_with("error: ");
    // The last line of ssh's troubles is only a guess.
    let told = lines().rfind(|line| is_end(line) && !line.contains("Could not read from remote"));
    let line = told.or_else(|| {
        lines().rfind(|line| {
            !line.starts_with("fatal: ")
                && !line.starts_with("Please make sure")
                && *line != "and the repository exists."
        })
    });
    let line = line.or_else(|| lines().next_back()).unwrap_or("it said nothing");
    line.trim_start_matches("fatal: ").trim_start_matches("error: ").to_owned()
}

/// Checks what `git version` prints.
fn check_version(line: &str) -> Result<(), GitError> {
    let found = line.strip_prefix("git version ").unwrap_or(line);
    let found = found.split(' ').next().unwrap_or_default();
    let mut numbers = found.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST {
        return Err(GitError::Version { found: found.to_owned(), wanted: OLDEST_TEXT });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for good in [
            "git version 2.32.0",
            "git version 2.47.3",
            "git version 3.0.0.rc1",
            "git version 2.39.5 (Apple Git-154)",
        ] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        let error = check_version("git version 2.30.2").unwrap_err();
        assert_eq!(error.to_string(), "git 2.30.2 is too old: 2.32 or later is needed");
        assert!(check_version("").is_err());
    }

    #[test]
    fn the_line_that_matters_is_told() {
        for (words, expect) in [
            ("warning: x\nfatal: repository 'h' not found\n", "repository 'h' not found"),
            (
                "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\nand the repository exists.\n",
                "git@h: Permission denied (publickey).",
            ),
            ("", "it said nothing"),
        ] {
            assert_eq!(last_words(words), expect);
        }
    }
}
