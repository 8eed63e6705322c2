//! What `diff` finds.

use crate::support::{Place, can_run};
use crate::two_images;

#[test]
fn files_config_and_history_are_compared() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[(
        "Dockerfile",
        "FROM busybox AS one\nENV A=1 B=2\n\
             RUN mkdir /d && echo x > /d/same && echo x > /d/content && echo x > /d/size && touch /d/mode /d/owner /d/gone \
             && ln -s same /d/link && mkfifo /d/kind\n\
             FROM one AS two\nENV A=3\nUSER 0\n\
             RUN echo y > /d/content && echo longer > /d/size && chmod 4711 /d/mode && chown 1:2 /d/owner && rm /d/gone \
             && rm /d/link && ln -s other /d/link && rm /d/kind && mkdir -p /d/kind/new && touch /d/same\n",
    )]);
    place.build(&["-t", "one", "--target=one"]).ok();
    place.build(&["-t", "two", "--target=two"]).ok();
    let ran = place.run(&["diff", "one", "two"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        &lines[..11],
        [
            "C /d/content (content)",
            "D /d/gone",
            "C /d/kind (kind pipe → folder, mode 0644 → 0755)",
            "A /d/kind/new/",
            "C /d/link (target same → other)",
            "C /d/mode (mode 0644 → 4711)",
            "C /d/owner (owner 0:0 → 1:2)",
            "C /d/size (size 2 → 7)",
            "config Env.A: 1 → 3",
            "config User: added, 0",
            "history + ENV A=3",
        ],
        "{}",
        ran.stdout
    );
    let swapped = place.run(&["diff", "--only=files,config", "two", "one"]);
    assert!(swapped.stdout.contains("A /d/gone\n") && swapped.stdout.contains("D /d/kind/new/\n"));
    assert!(swapped.stdout.contains("config User: removed, was 0\n"), "{}", swapped.stdout);
    let times = place.run(&["diff", "--times", "--only=files", "one", "two"]).stdout;
    assert!(times.contains("C /d/content (content"), "{times}");
    let json: serde_json::Value =
        serde_json::from_str(&place.run(&["diff", "--format=json", "one", "two"]).stdout).unwrap();
    assert_eq!((json["Same"].as_bool(), json["Files"].as_array().unwrap().len()), (Some(false), 8));
    assert_eq!(json["Files"][5]["What"][0]["After"], "4711");
    let template = "{{range .Files}}{{.Path}} {{end}}{{len .History}}";
    let printed = place.run(&["diff", "--format", template, "one", "two"]).stdout;
    assert!(printed.starts_with("/d/content /d/gone ") && printed.ends_with(" 3\n"), "{printed}");
}

#[test]
fn the_exit_code_tells_whether_anything_differs() {
    let place = two_images();
    for (words, code) in [
        (&["app:1", "app:1"][..], 0),
        (&["app:2", "other"], 0),
        (&["app:1", "app:2"], 1),
        (&["--quiet", "app:1", "app:2"], 1),
        (&["--only=config", "app:1", "app:2"], 1),
        (&["--only=history", "app:1", "app:2"], 0),
        (&["app:1", "absent"], 2),
        (&["app:1"], 2),
        (&["--only=nothing", "app:1", "app:2"], 2),
        (&["--platform=linux/s390x", "app:1", "app:2"], 2),
    ] {
        let ran = place.run(&[&["diff"], words].concat());
        assert_eq!(ran.code, Some(code), "{words:?}: {}{}", ran.stdout, ran.stderr);
        assert!(code == 1 && !words.contains(&"--quiet") || ran.stdout.is_empty(), "{words:?}");
    }
}
