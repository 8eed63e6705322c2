//! Switches with a value, as Docker's client takes them: `--pull=true`, `--push=false`.

use std::ffi::OsString;

use clap::{ArgAction, Command};

/// `words` with each switch of `command` as it is without a value, or not at all; of several the last counts.
pub(crate) fn plain(command: &Command, words: &[OsString]) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::with_capacity(words.len());
    let mut words = words.iter();
    for word in words.by_ref() {
        let switch = word.to_str().and_then(valued).filter(|(name, _)| is_switch(command, name));
        match switch {
            Some((name, is_on)) => {
                let plain = format!("--{name}");
                kept.retain(|earlier| *earlier != *plain);
                kept.extend(is_on.then(|| plain.into()));
            }
            None => kept.push(word.clone()),
        }
        if word == "--" {
            break;
        }
    }
    kept.extend(words.cloned());
    kept
}

fn is_switch(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|argument| {
        matches!(argument.get_action(), ArgAction::SetTrue) && argument.get_long() == Some(name)
    })
}

/// Name and value of `--name=value`, if the value is one of Go's truth values.
fn valued(word: &str) -> Option<(&str, bool)> {
    let (name, value) = word.strip_prefix("--")?.split_once('=')?;
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some((name, true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some((name, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::BuildArgs;

    #[track_caller]
    fn check(words: &str, expect: &str) {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let kept = plain(&BuildArgs::command(), &words);
        assert_eq!(kept.join(" ".as_ref()), expect, "{words:?}");
    }

    #[test]
    fn switches_take_truth_values() {
        check("build --pull=true --no-cache=1 .", "build --pull --no-cache .");
        check("build --push=false --load=F .", "build .");
        check("build --pull --pull=false .", "build .");
        check("build --pull=false --pull .", "build --pull .");
        // These are no switches, or no truth values.
        check("build --provenance=true --pull=often .", "build --provenance=true --pull=often .");
        check("build -- --pull=true", "build -- --pull=true");
    }
}
