//! What commands of Docker are called here, for people who type them from habit.

use std::ffi::OsString;
use std::path::Path;

use crate::args::COMMANDS;
use crate::report::{Exit, Failure};

/// Makes `--help` of the command `help`, as in `build help images`.
pub(crate) fn expand_help(words: &mut Vec<OsString>) {
    let is_help = words.get(1).is_some_and(|word| word == "help");
    if is_help && words.len() <= 3 && !Path::new("help").exists() {
        words.remove(1);
        words.push("--help".into());
    }
}

/// The failure that tells how a command of Docker is called here, if the words are one: `build image ls`.
pub(crate) fn failure(words: &[OsString]) -> Option<Failure> {
    let word = |at: usize| words.get(at).and_then(|word| word.to_str()).unwrap_or_default();
    let (first, second) = (word(1), word(2));
    if Path::new(first).exists() {
        return None;
    }
    let (asked, here) = match (first, second) {
        ("image", "ls" | "list") => (2, "images"),
        ("image", "rm" | "remove") => (2, "rmi"),
        ("image", "prune") => (2, "rmi $(build images --quiet --filter dangling=true)"),
        ("image", command) if COMMANDS.contains(&command) => (2, command),
        ("builder" | "buildx", command @ ("prune" | "du")) => (2, command),
        ("builder" | "buildx" | "image", "build") => (2, "CONTEXT"),
        ("build", _) => (1, "CONTEXT"),
        ("system", "df") => (2, "du"),
        ("system", "prune") => (2, "prune"),
        ("version", "") => (1, "--version"),
        _ => return None,
    };
    let asked = if asked == 1 { first.to_owned() } else { format!("{first} {second}") };
    let message = format!("there is no command `build {asked}`");
    Some(Failure::new(Exit::Usage, message).hint(format!("it is called `build {here}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(Into::into).collect()
    }

    #[track_caller]
    fn check(text: &str, message: &str, hint: &str) {
        let failure = failure(&words(text)).unwrap();
        assert_eq!((failure.message.as_str(), failure.hint.as_deref()), (message, Some(hint)));
    }

    #[test]
    fn commands_of_docker_are_told_by_their_names_here() {
        check(
            "build image ls -q",
            "there is no command `build image ls`",
            "it is called `build images`",
        );
        check(
            "build image inspect a",
            "there is no command `build image inspect`",
            "it is called `build inspect`",
        );
        check("build build .", "there is no command `build build`", "it is called `build CONTEXT`");
        check(
            "build system df",
            "there is no command `build system df`",
            "it is called `build du`",
        );
    }

    #[test]
    fn other_words_are_left_alone() {
        for text in ["build .", "build image", "build image of-something", "build src ls", "build"]
        {
            assert!(failure(&words(text)).is_none(), "{text}");
        }
    }

    #[test]
    fn help_is_a_command_too() {
        for (text, expect) in [
            ("build help", "build --help"),
            ("build help images", "build images --help"),
            ("build help a b", "build help a b"),
            ("build images help", "build images help"),
        ] {
            let mut words = words(text);
            expand_help(&mut words);
            assert_eq!(words, self::words(expect), "{text}");
        }
    }
}
