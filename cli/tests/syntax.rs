//! Which frontend a file asks for: Docker's own are taken for granted, others are told of.

mod support;

use support::Place;

#[track_caller]
fn check(directive: &str, words: &[&str], code: i32, expect: &str) {
    let place = Place::new(&[("Dockerfile", &format!("{directive}FROM scratch\n"))]);
    let mut all = vec!["--print-llb"];
    all.extend_from_slice(words);
    let ran = place.build(&all);
    assert_eq!((ran.code, ran.stderr.trim_end()), (Some(code), expect));
}

#[test]
fn dockers_frontend_is_ignored_as_a_hint() {
    check("# syntax=docker/dockerfile:1\n", &[], 0, "");
    check("# syntax=dockerfile.v0\n", &[], 0, "");
    check("// syntax=docker/dockerfile:1-labs\n", &[], 1, FIRST_LINE);
}

/// What is said of a line that begins with `//`: the directive is read there, but it is no comment.
const FIRST_LINE: &str = "Dockerfile:1\n--------------------\n   1 | >>> // syntax=docker/dockerfile:1-labs\n     \
     |     ^^ not an instruction\n   2 |     FROM scratch\n   3 |     \n--------------------\n\
     ERROR: failed to solve: dockerfile parse error on line 1: unknown instruction: //\n  help: a line that goes \
     on in the next one ends with `\\`; lines of a script belong in a heredoc";

#[test]
fn another_frontend_is_warned_about() {
    check(
        "# syntax=example.com/team/frontend:2 --flag\n",
        &[],
        0,
        "WARNING: `syntax=example.com/team/frontend:2` asks for a frontend that is not known (line 1); the file is \
         read as a Dockerfile: frontend images are never run: use docker/dockerfile:1, dockerfile.v0 or none",
    );
}

#[test]
fn the_build_arg_goes_before_the_directive() {
    let other = "# syntax=example.com/x\n";
    check(other, &["--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1.4"], 0, "");
    check(other, &["--build-arg=BUILDKIT_SYNTAX=dockerfile.v0"], 0, "");
    let hint =
        "help: frontend images are never run: use docker/dockerfile:1, dockerfile.v0 or none";
    check(
        "",
        &["--build-arg=BUILDKIT_SYNTAX=example.com/x"],
        2,
        &format!(
            "ERROR: BUILDKIT_SYNTAX=example.com/x asks for a frontend that is not known\n  {hint}"
        ),
    );
    check(
        "# syntax=docker/dockerfile:1\n",
        &["--build-arg=BUILDKIT_SYNTAX="],
        2,
        &format!("ERROR: the build-arg BUILDKIT_SYNTAX is empty\n  {hint}"),
    );
}
