//! `# syntax=` and `BUILDKIT_SYNTAX`: which frontend a file asks for.
//!
//! No frontend image is ever run. Docker's own frontend images ask for what this builder does anyway; what any other
//! frontend would make of the file cannot be known, so the user is warned.

use std::collections::BTreeMap;

use llb::Reference;
use parser::Directive;

use crate::report::{Exit, Failure};

/// The build-arg that goes before the directive.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// Forces the built-in frontend.
const BUILT_IN: &str = "dockerfile.v0";

/// What to do about a frontend that is not run.
const HINT: &str = "frontend images are never run: use docker/dockerfile:1, dockerfile.v0 or none";

/// Checks which frontend is asked for; a directive that names an unknown one gives a warning.
pub(crate) fn check(
    build_args: &BTreeMap<String, String>,
    directive: Option<&Directive>,
) -> Result<Option<String>, Failure> {
    if let Some(given) = build_args.get(ARGUMENT) {
        let refuse = |message: String| Err(Failure::new(Exit::Usage, message).hint(HINT));
        return match given.split_whitespace().next() {
            None => refuse(format!("the build-arg {ARGUMENT} is empty")),
            Some(image) if is_dockerfile(image) => Ok(None),
            Some(image) => {
                refuse(format!("{ARGUMENT}={image} asks for a frontend that is not known"))
            }
        };
    }
    let unknown = directive.filter(|directive| !is_dockerfile(directive.first_word()));
    Ok(unknown.map(|directive| {
        format!(
            "`syntax={}` asks for a frontend that is not known (line {}); the file is read as a Dockerfile: {HINT}",
            directive.first_word(),
            directive.line
        )
    }))
}

/// Whether a frontend is that of Dockerfiles: the built-in one, Docker's, or a mirror of that.
fn is_dockerfile(image: &str) -> bool {
    image == BUILT_IN
        || Reference::parse(image).is_ok_and(|reference| {
            let repository = reference.repository();
            ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|known| {
                repository
                    .strip_suffix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_frontends_and_their_mirrors_are_known() {
        for image in [
            "dockerfile.v0",
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "mirror.example.com/hub/docker/dockerfile:1",
        ] {
            assert!(is_dockerfile(image), "{image}");
        }
        for image in [
            "docker/buildx-bake",
            "dockerfile",
            "x/mydocker/dockerfile:1",
            "dockerfile.v1",
            "UPPER",
        ] {
            assert!(!is_dockerfile(image), "{image}");
        }
    }
}
