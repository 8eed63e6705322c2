//! Laws that hold for every Dockerfile: layout does not matter, bad input is refused, nothing panics.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use frontend::Build;

fn build(text: &str) -> Build {
    let options = support::options(&[], "/ctx");
    support::convert(text.as_bytes(), &options).unwrap().unwrap()
}

/// Digests of the vertices, in order.
fn digests(text: &str) -> Vec<String> {
    build(text).definition.vertices().iter().map(|vertex| vertex.digest.to_string()).collect()
}

const PLAIN: &str = "FROM busybox AS one\nARG A=1\nRUN echo $A\nCOPY --chown=1:2 --chmod=644 a /a\n\
                     FROM busybox\nCOPY --from=one /a /b\nRUN --mount=type=tmpfs,target=/t true\n";

#[track_caller]
fn check_same(other: &str) {
    assert_eq!(digests(PLAIN), digests(other), "{other}");
}

#[test]
fn comments_case_names_and_layout_do_not_change_vertices() {
    check_same(
        "# note\n\nfrom busybox As Other\n\targ A=1\n# in between\nrun echo $A\n\
         CoPy --chmod=644   --chown=1:2 \\\n# inside\n  a    /a\nFROM   busybox\nCOPY --from=OTHER /a /b\n\
         RUN --mount=target=/t,type=tmpfs   true",
    );
    check_same(
        "FROM busybox\nARG A=1\nRUN echo $A\nCOPY --chown=1:2 --chmod=0644 ./x/../a /a\n\
         FROM busybox AS last\nCOPY --from=0 a /b\n\
         RUN --mount=type=tmpfs,dst=t true\n",
    );
    check_same(
        "FROM busybox AS one\nLABEL a=b\nARG A=1\nEXPOSE 80\nRUN echo $A\nCMD [\"x\"]\n\
         COPY --chown=1:2 --chmod=644 a /a\nFROM busybox\nENTRYPOINT [\"y\"]\nCOPY --from=one /a /b\n\
         VOLUME /v\nRUN --mount=type=tmpfs,target=/t true\n",
    );
}

#[test]
fn what_counts_changes_vertices() {
    for (from, to) in [
        ("A=1", "A=2"),
        ("echo $A", "echo  $A"),
        ("--chown=1:2", "--chown=1:3"),
        ("--chmod=644", "--chmod=600"),
        (" a /a", " b /a"),
        (" a /a", " a /c"),
        ("/a /b", "/a /b/"),
        ("target=/t", "target=/u"),
        ("tmpfs", "cache"),
        ("FROM busybox AS one", "FROM kit AS one"),
    ] {
        assert_ne!(digests(PLAIN), digests(&PLAIN.replace(from, to)), "{from} -> {to}");
    }
}

#[test]
fn unused_stages_leave_no_trace() {
    let with_unused = format!("FROM nowhere.invalid/x AS unused\nRUN echo x\nCOPY big /\n{PLAIN}");
    check_same(&with_unused);
}

#[test]
fn stages_are_described() {
    let dockerfile = parser::parse(
        b"# base the first one\nFROM busybox AS Base\n# nothing to see\nFROM base\n#  other\n# last  the end \nFROM ${X:-base} AS last\n",
    )
    .unwrap();
    let stages: Vec<String> = frontend::stages(&dockerfile)
        .iter()
        .map(|stage| {
            format!("{:?} {} {:?} {}", stage.name, stage.base, stage.description, stage.is_default)
        })
        .collect();
    assert_eq!(
        stages,
        [
            r#"Some("base") busybox Some("the first one") false"#,
            "None base None false",
            r#"Some("last") ${X:-base} Some(" the end") true"#,
        ]
    );
}

/// Cuts every sample at every character and leaves out every line.
#[test]
fn damaged_samples_do_not_panic() {
    let folder = support::images().join("../../frontend");
    let mut converted = 0;
    for entry in fs_err::read_dir(folder).unwrap() {
        let text = String::from_utf8(fs_err::read(entry.unwrap().path()).unwrap()).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let shortened = (0..lines.len()).map(|left_out| {
            let kept = lines.iter().enumerate().filter(|(index, _)| *index != left_out);
            kept.map(|(_, line)| *line).collect()
        });
        let cut = text.char_indices().map(|(end, _)| text[..end].to_owned());
        let options = support::options(&[], "/ctx");
        for damaged in shortened.chain(cut) {
            let _ = support::convert(damaged.as_bytes(), &options);
            converted += 1;
        }
    }
    assert!(converted > 5000, "only {converted}");
}

#[test]
fn hostile_input_is_handled_in_time() {
    let long = "x".repeat(60_000);
    let many: String = (0..2_000)
        .map(|n| format!("ENV V{n}=$U{n} {long}{n}\n").replace(&format!(" {long}"), "="))
        .collect();
    for text in [
        format!("FROM busybox\nWORKDIR ${long}\nENV {long}=1\nWORKDIR ${long}y\n"),
        many.replacen("ENV", "FROM busybox\nENV", 1),
        (0..3_000)
            .map(|n| {
                format!(
                    "FROM {} AS s{}\n",
                    if n == 0 { "busybox".to_owned() } else { format!("s{}", n - 1) },
                    n
                )
            })
            .collect(),
        format!(
            "FROM busybox\nEXPOSE 1-65535 1-65535\nRUN {}true\n",
            "--mount=target=/a ".repeat(2_000)
        ),
    ] {
        let _ = support::convert(text.as_bytes(), &support::options(&[], "/ctx"));
    }
}

/// Dockerfiles of real projects are converted as far as their images are known.
#[test]
fn real_dockerfiles_are_understood() {
    let data = support::images().join("../..");
    for path in [
        "realworld/c/Dockerfile",
        "realworld/node/Dockerfile",
        "realworld/python/Dockerfile",
        "demo/Dockerfile",
    ] {
        let text = fs_err::read(data.join(path)).unwrap();
        let converted = support::convert(&text, &support::options(&[], "/ctx"));
        assert!(converted.is_ok(), "{path}: {converted:?}");
    }
}
