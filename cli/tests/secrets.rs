//! Values of secrets that would get into an image, and into what is shown of a build.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use support::{Place, can_run};

const VALUE: &str = "hunter2-and-more";

/// A place with a secret in a file beside the context, and the same in a file of the context.
fn place(dockerfile: &str) -> Place {
    let place = Place::new(&[("Dockerfile", dockerfile), ("token", VALUE), ("other", "harmless")]);
    fs_err::write(place.path("token"), format!("{VALUE}\n")).unwrap();
    place
}

const GIVEN: &str = "--secret=id=tok,src=token";
const HINT: &str = "  help: give the value to the one command that needs it, with RUN --mount=type=secret, \
    and write it to no file of the image; for a file of the context, name it in .dockerignore. \
    --secret-guard=warn builds nevertheless";
const CONFIG_HINT: &str = "  help: values of ARG, ENV and LABEL, and the texts of commands, are part of the image \
    for everyone to read: use RUN --mount=type=secret instead. --secret-guard=warn builds nevertheless";

#[track_caller]
fn leaks(dockerfile: &str, words: &[&str], found: &str) {
    let place = place(dockerfile);
    let mut all = vec![GIVEN, "--progress=plain"];
    all.extend_from_slice(words);
    let ran = place.build(&all);
    let lines = dockerfile.lines().count();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    let expect = format!(
        "ERROR: failed to solve: the layer of this step gives a secret away: {found}\n{HINT}"
    );
    assert!(ran.stderr.contains(&expect), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("Dockerfile:{lines}\n")), "{}", ran.stderr);
    // Nothing was kept: the step runs again, and what it makes is no layer of the store.
    let again = place.build(&all);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    let state = std::process::Command::new("grep")
        .args(["-rlaF", VALUE])
        .arg(place.path("state"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&state.stdout), "", "the store has the value");
}

#[test]
fn a_step_that_writes_a_secret_fails() {
    if !can_run() {
        return;
    }
    let run = |script: &str| format!("FROM busybox\nRUN --mount=type=secret,id=tok {script}\n");
    let file = "has the value of secret `tok`";
    leaks(
        &run("mkdir -p /a/b && (echo -n token=; cat /run/secrets/tok) > /a/b/npmrc"),
        &[],
        &format!("the file `/a/b/npmrc` {file}"),
    );
    // Across pieces, in a long file.
    leaks(
        &run("(head -c 262135 /dev/zero; cat /run/secrets/tok; head -c 1000 /dev/zero) > /big"),
        &[],
        &format!("the file `/big` {file}"),
    );
    leaks(
        &run("touch /x-$(cat /run/secrets/tok)-y"),
        &[],
        &format!("the name of `/x-***-y` {file}"),
    );
    leaks(
        &run("ln -s /srv/$(cat /run/secrets/tok) /link"),
        &[],
        &format!("the target of the symlink `/link` {file}"),
    );
    leaks(
        &run("echo -n user:$(cat /run/secrets/tok) | base64 > /auth"),
        &[],
        &format!("the file `/auth` {file}"),
    );
    leaks(
        &run("for n in 1 2 3 4 5 6; do cp /run/secrets/tok /f$n; done"),
        &[],
        &format!(
            "{}; and there is more",
            [1, 2, 3, 4, 5].map(|n| format!("the file `/f{n}` {file}")).join("; ")
        ),
    );
}

#[test]
fn a_copied_secret_fails_the_build_in_either_form_of_a_layer() {
    let found = "the file `/app/token` has the value of secret `tok`";
    leaks("FROM busybox\nCOPY . /app/\n", &[], found);
    leaks("FROM busybox\nCOPY --chmod=600 token /app/token\n", &[], found);
    if can_run() {
        let place = place("FROM busybox\nCOPY . /app/\nRUN true\n");
        let ran = place.build(&[GIVEN]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(found), "{}", ran.stderr);
        assert!(ran.stderr.contains("Dockerfile:2\n"), "{}", ran.stderr);
    }
    let text = format!("FROM busybox\nCOPY <<EOF /conf\npassword={VALUE}\nEOF\n");
    let place = place(&text);
    let ran = place.build(&[GIVEN, "-o", "type=cacheonly"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("the file `/EOF` has"), "{}", ran.stderr);
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
}

#[test]
fn other_files_are_no_leak_and_short_values_are_not_looked_for() {
    let place = place("FROM busybox\nCOPY other /\n");
    place.build(&[GIVEN]).ok();
    fs_err::write(place.path("token"), "harmles").unwrap();
    place.write("other", "harmles");
    place.build(&[GIVEN]).ok();
}

#[track_caller]
fn config_leaks(dockerfile: &str, words: &[&str], found: &str, line: Option<usize>) {
    let place = place(dockerfile);
    let mut all = vec![GIVEN, "--progress=plain"];
    all.extend_from_slice(words);
    let ran = place.build(&all);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    let report = ran.report();
    let expect =
        format!("ERROR: failed to solve: {found} has the value of secret `tok`\n{CONFIG_HINT}");
    assert!(report.ends_with(&expect), "{report}");
    if let Some(line) = line {
        assert!(report.contains(&format!("Dockerfile:{line}\n")), "{report}");
    }
    // Without an image there is no config.
    all.extend(["-o", "type=cacheonly"]);
    place.build(&all).ok();
}

#[test]
fn a_secret_in_config_history_or_annotations_fails_the_build() {
    let arg = format!("--build-arg=TOKEN={VALUE}");
    let text = "FROM busybox\nARG OTHER\nARG TOKEN\nWORKDIR /x\n";
    config_leaks(
        &format!("{text}ENV T=$TOKEN\n"),
        &[&arg],
        "the entry `ARG TOKEN=***` of the history of the image",
        Some(3),
    );
    config_leaks(
        &format!("FROM busybox\nLABEL a=b\nCMD [\"x\", \"{VALUE}\"]\n"),
        &[],
        "the entry `CMD [\"x\" \"***\"]` of the history of the image",
        Some(3),
    );
    let label = format!("--label=note={VALUE}");
    config_leaks(
        "FROM busybox\n",
        &[&label],
        "`config.Labels.note` of the config of the image",
        None,
    );
    let note = format!("--annotation=note=is {VALUE}");
    config_leaks("FROM busybox\n", &[&note], "an annotation of the image", None);
    let note = format!("--annotation={VALUE}=x");
    config_leaks("FROM busybox\n", &[&note], "an annotation of the image", None);
    let name = format!("--tag=app:{VALUE}");
    config_leaks("FROM busybox\n", &[&name], "a name of the image", None);
    let name = format!("--output=type=oci,dest=o.tar,name=registry.example.com/{VALUE}/app");
    let ran = place("FROM busybox\n").build(&[GIVEN, &name]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = "a name of the image has the value of secret `tok`";
    assert!(ran.stderr.contains(found) && !ran.stderr.contains(VALUE), "{}", ran.stderr);
}

#[test]
fn a_secret_with_quotes_is_found_where_texts_are_written_in_json() {
    let value = r#"pass"word\and'more"#;
    let place = Place::new(&[("Dockerfile", "FROM busybox\n")]);
    fs_err::write(place.path("token"), value).unwrap();
    for (word, found) in [
        (format!("--annotation=note={value}"), "an annotation of the image"),
        (format!("--label=note={value}"), "`config.Labels.note` of the config of the image"),
    ] {
        let ran = place.build(&[GIVEN, &word]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains(found), "{}", ran.stderr);
    }
}

/// Everything that a build writes, with a secret in each place in which one can be.
#[test]
fn files_beside_the_image_are_without_values() {
    if !can_run() {
        return;
    }
    let place = place("FROM busybox\nARG NOTE\nRUN echo $NOTE > /dev/null\n");
    let args = [
        format!("--build-arg=NOTE={VALUE}"),
        format!("--build-arg={VALUE}=name"),
        format!("--label={VALUE}=name"),
        format!("--build-context={VALUE}=ctx"),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let words = [
        GIVEN,
        "--secret-guard=warn",
        "--progress=plain",
        "--explain",
        "--trace=trace",
        "--metadata-file=meta",
        "--provenance=mode=max",
        "-o",
        "type=oci,dest=image,tar=false",
    ];
    let ran = place.build(&[&words[..], &args].concat()).ok();
    let encoded = llb::base64::encode(VALUE.as_bytes());
    let is_clean =
        |text: &str| !text.contains(VALUE) && !text.contains(encoded.trim_end_matches('='));
    assert!(is_clean(&ran.stderr) && is_clean(&ran.stdout), "{}", ran.stderr);
    for name in ["trace", "meta"] {
        let text = fs_err::read_to_string(place.path(name)).unwrap();
        assert!(is_clean(&text), "{name}: {text}");
    }
    // Only the config has it, of which the warning tells; the provenance has not.
    let blobs = fs_err::read_dir(place.path("image/blobs/sha256")).unwrap();
    let texts = blobs.map(|blob| fs_err::read(blob.unwrap().path()).unwrap());
    let with: Vec<String> = texts
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .filter(|text| !is_clean(text))
        .collect();
    assert!(with.len() == 1 && with[0].contains("\"rootfs\""), "{with:?}");
    let meta = fs_err::read_to_string(place.path("meta")).unwrap();
    assert!(meta.contains("buildx.build.provenance") && meta.contains("***"), "{meta}");
}

#[test]
fn a_guard_may_warn_or_be_off() {
    if !can_run() {
        return;
    }
    let place = place(&format!(
        "FROM busybox\nLABEL t={VALUE}\nRUN --mount=type=secret,id=tok cp /run/secrets/tok /t; cat /t\n"
    ));
    let warned = place.build(&[GIVEN, "--secret-guard=warn", "--progress=plain"]).ok().stderr;
    for part in [
        "WARNING: the layer of this step gives secrets away: the file `/t` has the value of secret `tok`",
        "WARNING: the entry `LABEL t=***` of the history of the image has the value of secret `tok`",
    ] {
        assert!(warned.contains(part), "{warned}");
    }
    assert!(!warned.contains(VALUE), "{warned}");
    let off = ["--secret-guard=off", "--no-cache", "--progress=plain"];
    let shown = place.build(&[&[GIVEN][..], &off].concat()).ok().stderr;
    assert!(!shown.contains("gives secrets away") && shown.contains(VALUE), "{shown}");
    let wrong = place.build(&[GIVEN, "--secret-guard=no"]);
    assert_eq!(
        (wrong.code, wrong.stderr.as_str()),
        (Some(2), "ERROR: invalid --secret-guard `no`: want error, warn or off\n")
    );
}

/// A step that shows a secret in every way in which a build tells of something, and then fails.
const SHOWS: &str = "FROM busybox\nARG NOTE\n\
    RUN --mount=type=secret,id=tok cut -c1-7 /run/secrets/tok | tr -d '\\n'; sleep 0.2; \
    cut -c8- /run/secrets/tok; cat /run/secrets/tok >&2; echo $NOTE; echo last; exit 3\n";

#[test]
fn outputs_of_a_build_are_without_values() {
    if !can_run() {
        return;
    }
    let place = place(SHOWS);
    let note = format!("--build-arg=NOTE=<{VALUE}>");
    let mut shown = Vec::new();
    for progress in ["plain", "rawjson", "quiet"] {
        let mode = format!("--progress={progress}");
        let words = [GIVEN, &note, &mode, "--explain", "--trace=trace", "-o", "type=cacheonly"];
        let ran = place.build(&words);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let trace = fs_err::read_to_string(place.path("trace")).unwrap();
        let all = format!("{}{}{trace}", ran.stdout, ran.stderr);
        let encoded = llb::base64::encode(VALUE.as_bytes());
        assert!(!all.contains(VALUE) && !all.contains(&encoded), "{progress}: {all}");
        shown.push(ran.stderr);
    }
    let [plain, raw, _] = &shown[..] else { unreachable!() };
    let stars = plain.lines().filter(|line| line.ends_with(" ***")).count();
    assert!(stars >= 2 && plain.contains("<***>") && plain.contains("last"), "{plain}");
    assert!(raw.contains(&llb::base64::encode(b"last\n")) || raw.contains("data"), "{raw}");

    // What is written of a build that succeeds.
    place.write("Dockerfile", "FROM busybox\nARG NOTE\nRUN echo $NOTE > /dev/null\n");
    let words = [GIVEN, &note, "--explain", "--metadata-file=m", "-o", "type=cacheonly"];
    place.build(&words).ok();
    place.write("Dockerfile", "FROM busybox\nARG NOTE\nRUN echo ${NOTE} > /dev/null\n");
    place.build(&words).ok();
    let metadata = fs_err::read_to_string(place.path("m")).unwrap();
    assert!(metadata.contains("bricklayer.explain") && !metadata.contains(VALUE), "{metadata}");
}

#[test]
fn what_is_cached_was_looked_through_when_it_was_made() {
    if !can_run() {
        return;
    }
    let place = place("FROM busybox\nCOPY token /t\nRUN cp /t /u\n");
    place.build(&["-o", "type=cacheonly"]).ok();
    place.build(&[GIVEN, "-o", "type=cacheonly"]).ok();
    let again = place.build(&[GIVEN, "--no-cache", "-o", "type=cacheonly"]);
    assert_eq!(again.code, Some(1), "{}", again.stderr);
}

#[test]
fn a_secret_from_a_pipe_is_read_once_and_hidden_too() {
    if !can_run() {
        return;
    }
    let place = place(
        "FROM busybox\nRUN --mount=type=secret,id=p cat /run/secrets/p\n\
         RUN --mount=type=secret,id=p cp /run/secrets/p /leak\n",
    );
    let pipe = place.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = std::thread::spawn(move || fs_err::write(pipe, VALUE));
    let ran = place.build(&["--secret=id=p,src=pipe", "--progress=plain"]);
    writer.join().unwrap().unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("the file `/leak` has the value of secret `p`"), "{}", ran.stderr);
    assert!(ran.stderr.contains(" ***") && !ran.stderr.contains(VALUE), "{}", ran.stderr);
}

#[test]
fn the_path_of_a_secret_may_have_a_comma() {
    if !can_run() {
        return;
    }
    let place = place(
        "FROM busybox\nRUN --mount=type=secret,id=tok,required=true test $(wc -c < /run/secrets/tok) = 17\n",
    );
    fs_err::rename(place.path("token"), place.path("a,b")).unwrap();
    place.build(&["--secret", "id=tok,\"src=a,b\""]).ok();
    for (wrong, report) in [
        ("id=tok,src=a,b", "invalid secret field `b`: want key=value"),
        ("id=tok,src=\"a,b\"", "invalid secret `id=tok,src=\"a,b\"`: "),
    ] {
        let ran = place.build(&["--secret", wrong]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(report), "{}", ran.stderr);
        let hint = "a field with a comma is quoted as a whole: 'id=ID,\"src=PATH\"'";
        assert!(ran.stderr.contains(hint), "{}", ran.stderr);
    }
}
