//! The `build` command: reads the command line, wires the crates, shows what happens, exits.
//!
//! `main` stays single-threaded until the arguments are parsed. The same executable is also the process
//! that starts sandboxes, which is why its first act is to ask the sandbox whether that is what it is.

mod args;
mod commands;
mod counterparts;
mod excerpt;
mod explain;
mod git;
mod guard;
mod inputs;
mod isolation;
mod look;
mod metadata;
mod mistakes;
mod progress;
mod provenance;
mod report;
mod signals;
mod switches;
mod syntax;
mod template;
mod trace;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::args::{BuildArgs, COMMANDS, RESERVED};
use crate::report::{Exit, Failure};

fn main() -> ExitCode {
    let began = Instant::now();
    sandbox::maybe_run_zygote();
    sandbox::raise_limits();
    if let Some(failure) = commands::machine::missing_stack() {
        return report::fail(&failure).into();
    }
    commands::machine::report_missing_threads();
    cache::tell_long_waits(|text| report::tell(format_args!("{text}")));
    let mut words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    counterparts::expand_help(&mut words);
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    let outcome = if COMMANDS.contains(&first.as_str()) {
        words.remove(1);
        words[0] = format!("build {first}").into();
        commands::run(&first, &words)
    } else if RESERVED.contains(&first.as_str()) {
        Err(Failure::new(Exit::Usage, format!("the command `build {first}` is not supported yet"))
            .hint(format!("a context folder of that name is written `./{first}`")))
    } else if let Some(failure) = counterparts::failure(&words) {
        Err(failure)
    } else {
        parse::<BuildArgs>(&words).and_then(|args| commands::build::run(args, began))
    };
    outcome.unwrap_or_else(|failure| report::fail(&failure)).into()
}

/// Parses a command line; help and version are printed, and end the process with success.
fn parse<A: Parser>(words: &[std::ffi::OsString]) -> Result<A, Failure> {
    let command = A::command().mut_args(|arg| {
        // A variable that is empty is as good as none, as in Docker.
        let is_empty =
            arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
        if is_empty { arg.env(None::<&str>) } else { arg }
    });
    let words = switches::plain(&command, words);
    let parsed =
        command.try_get_matches_from(words).and_then(|matches| A::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if !error.use_stderr() {
            // Help was asked for; if it cannot be printed there is nobody to tell.
            let _ = error.print();
            std::process::exit(0);
        }
        let text = error.render().to_string();
        let text = text.trim_end();
        Failure::new(Exit::Usage, text.strip_prefix("error: ").unwrap_or(text))
    })
}
