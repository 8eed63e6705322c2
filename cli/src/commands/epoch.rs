//! `--source-date-epoch`: the time that a build pretends to be made at.
//!
//! ```text
//! --source-date-epoch=1700000000   seconds since 1970
//! --source-date-epoch=git          the time of the commit that the context is at
//! ```

use std::path::Path;
use std::process::{Command, Stdio};

use frontend::{MainContext, Options};

use crate::args::BuildArgs;
use crate::report::{Exit, Failure};

const NAME: &str = "SOURCE_DATE_EPOCH";

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, message)
}

/// Takes the flag into the options; it counts instead of the variable of the environment. `folder` is the context, if
/// it is a folder.
///
/// # Errors
/// When the value is none, or there is no commit to ask.
pub(crate) fn apply(
    args: &BuildArgs,
    folder: Option<&Path>,
    options: &mut Options,
) -> Result<(), Failure> {
    let Some(text) = args.source_date_epoch.as_deref() else { return Ok(()) };
    let is_given = |text: &String| text == NAME || text.starts_with("SOURCE_DATE_EPOCH=");
    if args.build_args.iter().any(is_given) {
        return Err(usage(
            "--source-date-epoch and --build-arg SOURCE_DATE_EPOCH cannot be used together",
        ));
    }
    let value = match (text, folder) {
        ("git", Some(folder)) => commit_time(folder)?.to_string(),
        // The frontend asks the repository itself.
        ("git", None) if is_repository(args) => "context".to_owned(),
        ("git", None) => {
            return Err(usage(
                "--source-date-epoch=git: the context is neither a folder nor a git repository",
            ));
        }
        (text, _) => {
            let seconds = text.parse::<i64>().ok();
            let is_time = |seconds: &i64| jiff::Timestamp::from_second(*seconds).is_ok();
            let seconds = seconds.filter(is_time).ok_or_else(|| {
                usage(format!(
                    "invalid --source-date-epoch `{text}`: want git, or seconds since 1970"
                ))
            })?;
            seconds.to_string()
        }
    };
    options.source_date_epoch = value.parse().ok();
    options.build_args.insert(NAME.to_owned(), value);
    Ok(())
}

fn is_repository(args: &BuildArgs) -> bool {
    let remote = args.context.as_deref().and_then(MainContext::remote);
    matches!(remote, Some(MainContext::Git { .. }))
}

/// When the commit that a folder is at was made. No settings of git are read but those of the repository, and nothing
/// is fetched.
fn commit_time(folder: &Path) -> Result<i64, Failure> {
    let failed = |why: &str| {
        usage(format!(
            "--source-date-epoch=git: cannot read the commit of `{}`: {why}",
            folder.display()
        ))
        .hint("give the time in seconds since 1970, or SOURCE_DATE_EPOCH in the environment")
    };
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(folder)
        .args(["-c", "safe.directory=*", "cat-file", "commit", "HEAD"])
        .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
        .envs([("GIT_ALLOW_PROTOCOL", "none"), ("GIT_NO_LAZY_FETCH", "1")])
        .envs([("GIT_TERMINAL_PROMPT", "0"), ("LC_ALL", "C")])
        .stdin(Stdio::null());
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(name);
    }
    let output = command.output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = text.lines().next().unwrap_or_default();
        return Err(failed(text.strip_prefix("fatal: ").unwrap_or(text)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    time_of(&text).ok_or_else(|| failed("it has no time"))
}

/// The time in the line `committer NAME <MAIL> SECONDS ZONE` of a commit.
fn time_of(commit: &str) -> Option<i64> {
    let header = commit.split("\n\n").next()?;
    let line = header.lines().find_map(|line| line.strip_prefix("committer "))?;
    line.rsplit(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_commit_is_that_of_its_committer() {
        let commit = "tree a\nauthor A <a> 1 +0000\ncommitter B C <b> 1700000000 +0200\n\ncommitter x <y> 5 +0000\n";
        assert_eq!(time_of(commit), Some(1_700_000_000));
        assert_eq!(time_of("tree a\n\ncommitter x <y> 5 +0000"), None);
    }
}
