//! The commands about images with the real executable, and real archives, registries and engines.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod archives;
mod differences;
mod engines;
mod hostile;
mod lists;
#[path = "../../../registry/tests/support/process.rs"]
mod process;
mod registries;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use support::Place;

/// Two images that share all but their last layer: `app:1` with the label `a=b`, `app:2` with `a=c`.
fn two_images() -> Place {
    let place = Place::new(&[
        ("Dockerfile", "FROM busybox\nLABEL a=b\nENV E=1\nCOPY shared /shared\nCOPY own /own\n"),
        ("shared", &"shared by both\n".repeat(20_000)),
        ("own", "one\n"),
    ]);
    place.build(&["-t", "app:1"]).ok();
    place.write("own", "two, and longer\n");
    place.build(&["-t", "app:2", "-t", "other", "--label=a=c"]).ok();
    place
}

/// An id of an image.
fn id(place: &Place, name: &str) -> String {
    place.run(&["inspect", "-f", "{{.Id}}", name]).ok().stdout.trim().to_owned()
}

/// The same place with an empty store.
fn elsewhere(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(words);
    command.env("BRICKLAYER_ROOT", place.path("elsewhere"));
    command
}

/// Runs a command on the other store.
#[track_caller]
fn run_elsewhere(place: &Place, words: &[&str]) -> support::Ran {
    place.ran(elsewhere(place, words).output().unwrap())
}

/// How many names there are in a folder that may not be there.
fn count(folder: &Path) -> usize {
    fs_err::read_dir(folder).map_or(0, Iterator::count)
}
