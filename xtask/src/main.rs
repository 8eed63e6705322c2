//! Project chores: `cargo xtask …`.
//!
//! Plain programs are run as a developer would run them; nothing here is part of the product.

#![expect(
    clippy::disallowed_methods,
    reason = "chores have no need of more than the standard library"
)]

mod attacks;
mod demo;
mod dist;
#[cfg(test)]
mod layering;
mod realworld;
mod shell;
mod tests;
mod users;

use std::path::Path;
use std::process::ExitCode;

use dist::{Profile, dist};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  dist [--profile ci]   make the executable: target/release/build, or target/ci/build
  demo                  make it, build the demo of testdata/demo twice and export it
  test                  install what the tests need and run every test
  attacks [NAME…]       show that tests of attacks fail without the defences (as root, on a machine to spare)
  realworld [--profile=ci] [--crash | --reproducible] [NAME...]
                        build the applications of testdata/realworld as a user would; kill
                        builds, or build in several ways and compare the images";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let top =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask is not in a workspace")?;
    let (command, rest) = arguments.split_first().ok_or(USAGE)?;
    match (command.as_str(), rest) {
        ("dist", rest) => {
            let place = dist(top, Profile::from_arguments(rest)?)?;
            println!("{}", place.display());
            Ok(())
        }
        ("demo", []) => demo::demo(top, &dist(top, Profile::Release)?),
        ("attacks", names) => attacks::run_all(top, names),
        ("test", []) => tests::test(top, || dist(top, Profile::Ci)),
        ("realworld", rest) => {
            let (profile, rest): (Vec<_>, Vec<_>) =
                rest.iter().cloned().partition(|word| word.starts_with("--profile="));
            realworld::run(top, &dist(top, Profile::from_arguments(&profile)?)?, &rest)
        }
        _ => Err(USAGE.to_owned()),
    }
}
