//! Where the time of a build comes from.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use frontend::EpochSource;

const FILE: &str = "\
ARG V=1
FROM scratch AS Dep
ARG V
ARG URL=https://example.org/$V.tar
ADD $URL /
FROM scratch AS two
ADD https://a/x https://a/y /
FROM scratch AS more
ADD https://a/x /
COPY y /
FROM busybox AS based
ADD https://a/x /
FROM dep
";

/// The source of the time, or the error with its hint.
#[track_caller]
fn check(value: &str, args: &str, expect: &str) {
    let text = format!("ARG SOURCE_DATE_EPOCH={value}\n{FILE}");
    let dockerfile = parser::parse(text.as_bytes()).unwrap();
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let options = support::options(&args, "/ctx");
    let found = match frontend::epoch_source(&dockerfile, &options) {
        Ok(EpochSource::Given) => "given".to_owned(),
        Ok(EpochSource::Timeless) => "timeless".to_owned(),
        Ok(EpochSource::Source(source)) => source.identifier,
        Err(error) => {
            assert!(error.hint.is_some());
            error.to_string()
        }
    };
    assert_eq!(found, expect, "{value} {args:?}");
}

#[test]
fn numbers_and_nothing_are_given() {
    check("", "", "given");
    check("17", "", "given");
    check("-1", "", "given");
    check("context", "--epoch 3", "given");
    check("context", "--epoch-of-source none", "given");
    check("x", "--build-arg SOURCE_DATE_EPOCH=12", "given");
}

#[test]
fn the_context_may_have_a_time() {
    check("context", "", "timeless");
    check("context", "--context empty", "timeless");
    check("context", "--context archive", "archive://context");
    check("context", "--context https://h/Dockerfile", "https://h/Dockerfile");
    check("context", "--context https://h/x.tar", "https://h/x.tar");
}

#[test]
fn named_contexts_and_stages_that_only_download_have_a_time() {
    check("ctx", "--build-context ctx=https://h/x", "https://h/x");
    check("ctx", "--build-context ctx=folder", "timeless");
    check("dep", "", "https://example.org/1.tar");
    check("DEP", "--build-arg V=2", "https://example.org/2.tar");
    check("ctx", "--build-context ctx=target:dep", "https://example.org/1.tar");
}

#[test]
fn other_names_are_refused() {
    for name in ["yesterday", "two", "more", "based", "1.5"] {
        check(name, "", &format!("invalid SOURCE_DATE_EPOCH: `{name}`"));
    }
    check(
        "image",
        "--build-context image=docker-image://busybox",
        "invalid SOURCE_DATE_EPOCH: `image`",
    );
}
