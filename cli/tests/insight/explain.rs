//! `--explain`: each way in which a step can differ from its last run, told in words.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::support::{Place, Ran, can_run};

const DOCKERFILE: &str = "\
FROM busybox AS build
COPY src /src
ARG VERSION=1
ENV MODE=fast
RUN cat /src/a.txt > /out
FROM busybox
COPY --from=build /out /app/
";

fn place() -> Place {
    Place::new(&[("Dockerfile", DOCKERFILE), ("src/a.txt", "a"), ("src/b.txt", "b")])
}

/// The text with times to the minute masked.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(" UTC") {
        let (before, after) = rest.split_at(at);
        let time = before.len() - "2026-01-02 03:04".len();
        assert!(before[time..].starts_with("20"), "{before}");
        out = out + &before[..time] + "[time]";
        rest = &after[" UTC".len()..];
    }
    out + rest
}

/// What `--explain` says in a build that has run.
#[track_caller]
fn told(ran: &Ran) -> Vec<String> {
    let (_, text) = ran.stderr.split_once("\nExplanation:\n").expect("an explanation");
    text.lines().map_while(|line| line.strip_prefix(" - ")).map(masked).collect()
}

/// Builds with `--explain` and checks what is told.
#[track_caller]
fn check(place: &Place, words: &[&str], expect: &[&str]) {
    let mut all = vec!["--explain", "-t", "app:1"];
    all.extend(words);
    assert_eq!(told(&place.build(&all).ok()), expect);
}

#[test]
fn every_kind_of_change_is_named() {
    if !can_run() {
        return;
    }
    let place = place();
    let write = |name: &str, text: &str| place.write(name, text);
    let dockerfile = |from: &str, to: &str| {
        let path = place.path("ctx/Dockerfile");
        let text = fs_err::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs_err::write(&path, text.replace(from, to)).unwrap();
    };
    let from_build = "cached: [stage-1 1/2] COPY --from=build /out /app/ — made by the build of [time] (-t app:1)";
    let cached_copy = "cached: [build 1/3] COPY src /src — made by the build of [time] (-t app:1)";

    check(
        &place,
        &[],
        &[
            "ran: [build 1/3] COPY src /src — never built before on this store",
            "ran: [build 2/3] RUN cat /src/a.txt > /out — never built before on this store",
            "ran: [stage-1 1/2] COPY --from=build /out /app/ — never built before on this store",
        ],
    );
    let cached_run =
        "cached: [build 2/3] RUN cat /src/a.txt > /out — made by the build of [time] (-t app:1)";
    check(&place, &[], &[cached_copy, cached_run, from_build]);

    // Files: their content, mode, coming and going. What is made of them stays the same but once.
    let copy = |reason: &str| format!("ran: [build 1/3] COPY src /src — {reason}");
    let run =
        "ran: [build 2/3] RUN cat /src/a.txt > /out — its input [build 1/3] COPY src /src ran";
    write("src/b.txt", "changed");
    check(&place, &[], &[&copy("src/b.txt changed (content)"), run, from_build]);
    let mode = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(place.path("ctx/src/b.txt"), mode).unwrap();
    check(&place, &[], &[&copy("mode of src/b.txt changed: 0644 → 0755"), run, from_build]);
    write("src/deep/c.txt", "c");
    check(&place, &[], &[&copy("new folder src/deep, and 1 more"), run, from_build]);
    write("src/d.txt", "d");
    check(&place, &[], &[&copy("new file src/d.txt"), run, from_build]);
    fs_err::remove_file(place.path("ctx/src/d.txt")).unwrap();
    // It is as it was two builds ago.
    check(&place, &[], &[cached_copy, cached_run, from_build]);
    fs_err::remove_file(place.path("ctx/src/deep/c.txt")).unwrap();
    // Compared with the last time that it ran, when there was `d.txt`.
    check(&place, &[], &[&copy("src/d.txt was removed, and 1 more"), run, from_build]);
    write("src/a.txt", "other");
    check(
        &place,
        &[],
        &[
            &copy("src/a.txt changed (content)"),
            run,
            "ran: [stage-1 1/2] COPY --from=build /out /app/ — out changed (content)",
        ],
    );

    // What is said of the step itself.
    let run = |reason: &str| format!("ran: [build 2/3] RUN cat /src/a.txt > /out — {reason}");
    check(
        &place,
        &["--build-arg=VERSION=2"],
        &[cached_copy, &run("ARG VERSION changed: \"1\" → \"2\""), from_build],
    );
    dockerfile("MODE=fast", "MODE=slow");
    check(
        &place,
        &["--build-arg=VERSION=2"],
        &[cached_copy, &run("ENV MODE changed: \"fast\" → \"slow\""), from_build],
    );
    dockerfile("RUN cat", "USER root\nRUN cat");
    check(
        &place,
        &["--build-arg=VERSION=2"],
        &[cached_copy, &run("user is new: \"root\""), from_build],
    );
    dockerfile("RUN cat /src/a.txt > /out", "RUN cat /src/a.txt | cat > /out");
    let told_command = "ran: [build 2/3] RUN cat /src/a.txt | cat > /out — command changed: \
                        \"/bin/sh -c cat /src/a.txt > /out\" → \"/bin/sh -c cat /src/a.txt | cat > /out\"";
    check(&place, &["--build-arg=VERSION=2"], &[cached_copy, told_command, from_build]);
    dockerfile("COPY src /src", "COPY --chmod=700 src /src");
    check(
        &place,
        &["--build-arg=VERSION=2"],
        &[
            "ran: [build 1/3] COPY --chmod=700 src /src — mode is new: \"0700\"",
            "ran: [build 2/3] RUN cat /src/a.txt | cat > /out — its input [build 1/3] COPY --chmod=700 src /src ran",
            from_build,
        ],
    );
}

#[test]
fn a_step_that_was_pruned_or_not_to_be_cached_says_so() {
    if !can_run() {
        return;
    }
    let place = place();
    place.build(&["-t", "app:1"]).ok();
    place.run(&["prune", "--force", "--all"]).ok();
    let pruned = "built on [time], but its result was pruned on [time]";
    let input = "its input [build 1/3] COPY src /src ran";
    check(
        &place,
        &[],
        &[
            &format!("ran: [build 1/3] COPY src /src — {pruned}"),
            &format!("ran: [build 2/3] RUN cat /src/a.txt > /out — {input}"),
            &format!("ran: [stage-1 1/2] COPY --from=build /out /app/ — {pruned}"),
        ],
    );
    let afresh = "the cache was not to be used (--no-cache)";
    check(
        &place,
        &["--no-cache"],
        &[
            &format!("ran: [build 1/3] COPY src /src — {afresh}"),
            &format!("ran: [build 2/3] RUN cat /src/a.txt > /out — {afresh}"),
            &format!("ran: [stage-1 1/2] COPY --from=build /out /app/ — {afresh}"),
        ],
    );
}

#[test]
fn a_new_base_image_and_a_new_step_are_told_from_what_they_cause() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM base\nRUN touch /x\n")]);
    let images = crate::support::repository().join("testdata/conformance/images");
    let base = |layout: &str| format!("--build-context=base=oci-layout://{layout}");
    let first = base(&format!("{}/busybox", images.display()));
    let never = "ran: [1/2] RUN touch /x — never built before on this store";
    check(&place, &[&first], &[never]);
    place.write("other/Dockerfile", "FROM busybox\nRUN touch /other\n");
    place.build(&["-f", "ctx/other/Dockerfile", "-o", "type=oci,tar=false,dest=other"]).ok();
    let ran = place.build(&["--explain", &base(&place.path("other").display().to_string())]).ok();
    let [line] = &told(&ran)[..] else { panic!("{}", ran.stderr) };
    let start = "ran: [1/2] RUN touch /x — the base image changed: base@sha256:";
    assert!(line.starts_with(start) && line.contains("… → sha256:"), "{line}");

    place.write("Dockerfile", "FROM base\nRUN touch /new\nRUN touch /x\n");
    check(
        &place,
        &[&first],
        &[
            "ran: [1/3] RUN touch /new — command changed: \"/bin/sh -c touch /x\" → \"/bin/sh -c touch /new\"",
            "ran: [2/3] RUN touch /x — its input [1/3] RUN touch /new ran",
        ],
    );
}

#[test]
fn the_last_run_is_that_of_the_result_used_last() {
    if !can_run() {
        return;
    }
    let dockerfile = "FROM busybox\nARG VERSION\nRUN touch /one\nRUN touch /two\n";
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let build = |version: &str| {
        place.build(&["-t", version, &format!("--build-arg=VERSION={version}")]).ok();
    };
    build("1");
    build("2");
    // Nothing runs, but it is what the next build is compared with.
    build("1");
    let reason = "ARG VERSION changed: \"1\" → \"3\"";
    check(
        &place,
        &["--build-arg=VERSION=3"],
        &[
            &format!("ran: [1/3] RUN touch /one — {reason}"),
            &format!("ran: [2/3] RUN touch /two — {reason}"),
        ],
    );
    check(
        &place,
        &["--build-arg=VERSION=2"],
        &[
            "cached: [1/3] RUN touch /one — made by the build of [time] (-t 2)",
            "cached: [2/3] RUN touch /two — made by the build of [time] (-t 2)",
        ],
    );
}

#[test]
fn values_of_secrets_are_neither_told_nor_kept() {
    if !can_run() {
        return;
    }
    let dockerfile = "FROM busybox\nARG API_TOKEN\nRUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null\n";
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    fs_err::write(place.path("secret"), "hunter2-secret").unwrap();
    let build = |token: &str| {
        let token = format!("--build-arg=API_TOKEN={token}");
        place.build(&["--explain", "--secret=id=s,src=secret", "--trace=t.json", &token]).ok()
    };
    build("hunter2-one");
    let ran = build("hunter2-two");
    let expect = "ran: [stage-0 1/2] RUN --mount=type=secret,id=s cat /run/secrets/s > /dev/null — \
                  ARG API_TOKEN changed (its value is not shown)";
    assert_eq!(told(&ran), [expect]);
    for file in ["state/db.sqlite", "state/db.sqlite-wal", "t.json"] {
        let bytes = fs_err::read(place.path(file)).unwrap();
        let found = bytes.windows(7).any(|bytes| bytes == b"hunter2");
        assert!(!found, "{file} holds a secret");
    }
}

#[test]
fn programs_read_explanations_in_the_metadata_and_in_rawjson() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN echo hi\n")]);
    place.build(&["-t", "app:1"]).ok();
    let ran = place
        .build(&["--explain", "--progress=rawjson", "--metadata-file=meta.json", "-t", "app:2"])
        .ok();
    assert!(!ran.stderr.contains("\nExplanation"), "{}", ran.stderr);
    let lines: Vec<Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<&Value> = lines
        .iter()
        .filter_map(|line| line.get("bricklayer.explain")?.as_array())
        .flatten()
        .collect();
    let [step] = told[..] else { panic!("{told:?}") };
    assert_eq!(step["name"], "[1/2] RUN echo hi");
    assert_eq!((&step["cached"], &step["reason"]), (&true.into(), &"cached".into()));
    assert_eq!(step["build"]["label"], "-t app:1");
    assert!(step["build"]["at"].as_str().unwrap().ends_with('Z'), "{step}");
    assert!(step["text"].as_str().unwrap().starts_with("made by the build of 20"), "{step}");
    let vertices = lines.iter().filter_map(|line| line.get("vertexes")?.as_array()).flatten();
    let mut digests = vertices.map(|vertex| &vertex["digest"]);
    assert!(digests.any(|digest| *digest == step["vertex"]));

    let text = fs_err::read_to_string(place.path("meta.json")).unwrap();
    let metadata: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metadata["bricklayer.explain"], serde_json::json!([step]));
    let reference = metadata["buildx.build.ref"].as_str().unwrap();
    assert!(reference.starts_with("bricklayer/local/"), "{reference}");

    // Without the flag there is nothing.
    place.build(&["--metadata-file=meta.json", "-t", "app:2"]).ok();
    let text = fs_err::read_to_string(place.path("meta.json")).unwrap();
    assert!(!text.contains("bricklayer.explain"), "{text}");
}

#[test]
fn explanations_come_with_failures_and_not_without_a_build() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", "FROM busybox\nRUN true\nRUN exit 3\n")]);
    place.build(&["--explain"]);
    let ran = place.build(&["--explain"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        told(&ran),
        [
            "cached: [1/3] RUN true — made by the build of [time] (context ctx)",
            "ran: [2/3] RUN exit 3 — never built before on this store",
        ]
    );
    let place = Place::new(&[("Dockerfile", "FROM scratch\nENV a=b\n")]);
    let ran = place.build(&["--explain"]).ok();
    assert!(ran.stderr.contains("\nExplanation: no step was needed.\n"), "{}", ran.stderr);
    let ran = place.run(&["--explain", "--check", "ctx"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("--explain is about what a build did"), "{}", ran.stderr);
    assert!(ran.stderr.contains("leave out --check, --call or --print-llb"), "{}", ran.stderr);
}

/// The block of that language in the page for users.
fn example(page: &str, language: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_example_of_the_documentation_is_what_is_told() {
    if !can_run() {
        return;
    }
    let page = crate::support::repository().join("docs/explain.md");
    let page = fs_err::read_to_string(page).unwrap();
    let place = Place::new(&[
        ("Dockerfile", &example(&page, "dockerfile")),
        ("settings.txt", "s"),
        ("src/main.txt", "1"),
    ]);
    place.build(&["-t", "app:1.0"]).ok();
    place.write("src/main.txt", "2");
    let ran = place.build(&["--explain", "-t", "app:1.1"]).ok();
    let expect = masked(&example(&page, "text")).replace("Explanation:\n", "");
    // A base that is given as a context is no step.
    let expect = [("2/2", "1/2"), ("2/4", "1/4"), ("3/4", "2/4"), ("4/4", "3/4")]
        .iter()
        .fold(expect, |text, (with, without)| text.replace(with, without));
    let lines: Vec<String> = told(&ran).iter().map(|line| format!(" - {line}\n")).collect();
    assert_eq!(lines.concat(), expect);
}

#[test]
fn files_of_equal_content_elsewhere_are_not_named() {
    let place = Place::new(&[
        (
            "Dockerfile",
            "FROM scratch AS d\nCOPY d /d/\nFROM scratch\nCOPY a.txt /\nCOPY --from=d /d /d/\n",
        ),
        ("a.txt", "same"),
        ("d/one", "1"),
    ]);
    place.build(&[]).ok();
    for (name, text) in [
        (
            "Dockerfile",
            "FROM scratch AS d\nCOPY e /d/\nFROM scratch\nCOPY b.txt /\nCOPY --from=d /d /d/\n",
        ),
        ("b.txt", "same"),
        ("e/one", "1"),
    ] {
        let path = place.path("other").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }
    place.run(&["other"]).ok();
    fs_err::write(place.path("other/b.txt"), "another").unwrap();
    fs_err::write(place.path("other/e/two"), "2").unwrap();
    let ran = place.run(&["--explain", "other"]).ok();
    for told in ["COPY b.txt / — b.txt changed (content)\n", "COPY e /d/ — new file e/two\n"] {
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
}
