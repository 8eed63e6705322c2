//! What lists and shows images, and what names and removes them.

use crate::support::Place;
use crate::{count, id, run_elsewhere, two_images};

#[test]
fn every_command_shows_an_example() {
    let place = Place::new(&[]);
    let help = place.run(&["--help"]).ok().stdout;
    assert!(help.contains("\nExample: build "), "{help}");
    let text = help.split("Commands: ").nth(1).unwrap().split('(').next().unwrap().to_owned();
    let commands: Vec<&str> =
        text.split([',', ' ', '\n']).filter(|word| !word.is_empty()).collect();
    assert!(commands.len() >= 15, "{commands:?}");
    for command in commands {
        let help = place.run(&[command, "--help"]).ok().stdout;
        assert!(help.contains(&format!("Example: build {command}")), "{command}: {help}");
    }
}

#[test]
fn a_misspelt_option_names_the_right_one() {
    let place = Place::new(&[]);
    for (words, near) in [
        (&["images", "--digest"][..], "'--digests'"),
        (&["history", "--no-trunk", "x"], "'--no-trunc'"),
        (&["load", "--imput=x"], "'--input'"),
        (&["pull", "--plattform=linux/amd64", "x"], "'--platform'"),
        (&["diff", "--tines", "a", "b"], "'--times'"),
        (&["save", "--outptu=x", "a"], "'--output'"),
        (&["push", "--all-tag", "a"], "'--all-tags'"),
        (&["rmi", "--no-prun", "a"], "'--no-prune'"),
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, Some(2), "{words:?}");
        assert!(ran.stderr.contains(near), "{words:?}: {}", ran.stderr);
    }
    let ran = place.run(&["imagse"]);
    assert!(ran.stderr.contains("did you mean the command `build images`?"), "{}", ran.stderr);
}

#[test]
fn images_are_listed_as_docker_lists_them() {
    let place = two_images();
    let (one, two) = (id(&place, "app:1"), id(&place, "app:2"));
    let short = |id: &str| id["sha256:".len()..][..12].to_owned();
    let listed = place.run(&["images"]).ok().stdout;
    let columns = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<Vec<String>> = listed.lines().map(columns).collect();
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let names: Vec<[&str; 3]> =
        lines[1..].iter().map(|line| [&*line[0], &*line[1], &*line[2]]).collect();
    let (short_one, short_two) = (short(&one), short(&two));
    assert_eq!(
        names,
        [["app", "2", &short_two], ["other", "latest", &short_two], ["app", "1", &short_one]]
    );
    let run = |words: &[&str]| place.run(&[&["images"], words].concat()).ok().stdout;
    assert_eq!(run(&["-q"]), format!("{short_two}\n{short_one}\n"));
    assert_eq!(run(&["-q", "--no-trunc", "app:1"]), format!("{one}\n"));
    assert!(run(&["--digests"]).lines().next().unwrap().contains("DIGEST"));
    let name = "{{.Repository}}:{{.Tag}}";
    for (words, expect) in [
        (&["--filter=label=a=b"][..], "app:1\n"),
        (&["--filter", "label=a"], "app:2\nother:latest\napp:1\n"),
        (&["--filter", "reference=oth*"], "other:latest\n"),
        (&["app"], "app:2\napp:1\n"),
        (&["docker.io/library/app:2"], "app:2\n"),
        (&["--filter", "before=app:2"], "app:1\n"),
        (&["--filter", "since=app:1", "app"], "app:2\n"),
        (&["--filter", "until=1h"], ""),
        (&["--filter", "dangling=true"], ""),
        (&["nothing"], ""),
    ] {
        assert_eq!(run(&[words, &["--format", name]].concat()), expect, "{words:?}");
    }
    let rows: Vec<serde_json::Value> =
        run(&["--format=json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[2]["ID"]), (3, &one.as_str().into()));
    assert!(rows[2]["Size"].as_u64().unwrap() > 300_000);
}

#[test]
fn wrong_filters_and_templates_say_what_is_right() {
    let place = Place::new(&[]);
    for (words, message) in [
        (
            &["images", "--filter", "refernce=x"][..],
            "ERROR: unknown filter `refernce=x`: want one of dangling, label, reference, before, since, until\n  \
             help: did you mean `reference`?\n",
        ),
        (
            &["images", "--filter", "dangling=maybe"],
            "ERROR: invalid value of the filter `dangling=maybe`: want true or false\n",
        ),
        (
            &["images", "--format", "{{.Repositry}}"],
            "ERROR: invalid template `{{.Repositry}}`: there is no field `.Repositry`\n  help: did you mean `.Repository`?\n",
        ),
        (
            &["history", "--format", "{{.Sise}}", "x"],
            "ERROR: invalid template `{{.Sise}}`: there is no field `.Sise`\n  help: did you mean `.Size`?\n",
        ),
        (
            &["diff", "--format", "{{.File}}", "a", "b"],
            "ERROR: invalid template `{{.File}}`: there is no field `.File`\n  help: did you mean `.Files`?\n",
        ),
        (&["tag", "x", "App"], "ERROR: invalid tag \"App\": repository name must be lowercase\n"),
        (
            &["tag", "x", "sha256:12"],
            "ERROR: invalid tag \"sha256:12\": it looks like the id of an image\n",
        ),
        (
            &["load", "x.tar"],
            "ERROR: `x.tar` is no option\n  help: an archive is read with -i PATH\n",
        ),
        (
            &["image", "ls"],
            "ERROR: there is no command `build image ls`\n  help: it is called `build images`\n",
        ),
    ] {
        let ran = place.run(words);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), message), "{words:?}");
    }
}

#[test]
fn an_image_is_shown_and_its_history_told() {
    let place = two_images();
    let run = |words: &[&str]| place.run(words).ok().stdout;
    assert_eq!(
        run(&["inspect", "-f", "{{.Config.Labels.a}} {{.Os}}", "app:1", "app:2"]),
        "b linux\nc linux\n"
    );
    assert_eq!(
        run(&["inspect", "--type=image", "-f", "{{json .RepoTags}}", "app:2"]),
        "[\"app:2\",\"other:latest\"]\n"
    );
    let shown: serde_json::Value = serde_json::from_str(&run(&["inspect", "app:1"])).unwrap();
    assert_eq!(shown[0]["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    assert_eq!(shown[0]["Config"]["Env"][1], "E=1");
    let partly = place.run(&["inspect", "absent", "app:1"]);
    assert_eq!(partly.code, Some(1));
    assert!(partly.stdout.contains("app:1") && partly.stderr.contains("no such image: `absent`"));

    let history = run(&["history", "app:1"]);
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].starts_with("IMAGE ") && lines[0].ends_with("COMMENT"), "{history}");
    assert!(lines[1].contains("COPY own /own # buildkit"), "{history}");
    assert!(lines[2].starts_with("<missing>") && lines[2].contains("COPY shared"), "{history}");
    let steps = run(&["history", "--format", "{{.CreatedBy}}|{{.Size}}", "app:1"]);
    assert!(steps.contains("ENV E=1|0B\nLABEL a=b|0B\n"), "{steps}");
    let ids = run(&["history", "-q", "--no-trunc", "app:1"]);
    assert_eq!(ids.lines().next().unwrap(), id(&place, "app:1"));
}

#[test]
fn names_come_and_go_and_the_image_with_the_last() {
    let place = two_images();
    let two = id(&place, "app:2");
    place.run(&["tag", &two["sha256:".len()..][..12], "reg.example.com:5000/team/app"]).ok();
    let conflict = place.run(&["rmi", &two]);
    assert_eq!(conflict.code, Some(1));
    assert!(conflict.stderr.contains("has several names"), "{}", conflict.stderr);
    assert!(conflict.stderr.contains("all at once with --force"), "{}", conflict.stderr);
    let some = place.run(&["rmi", "absent", "other", "app:1"]);
    assert_eq!(some.code, Some(1), "what is there goes all the same");
    assert!(some.stderr.contains("no such image: `absent`"), "{}", some.stderr);
    assert!(some.stdout.starts_with("Untagged: other:latest\nUntagged: app:1\nDeleted: sha256:"));
    let all = place.run(&["rmi", "-f", "absent", &two]).ok();
    assert_eq!(
        all.stdout,
        format!(
            "Untagged: app:2\nUntagged: reg.example.com:5000/team/app:latest\nDeleted: {two}\n"
        )
    );
    assert_eq!(place.run(&["images", "-q"]).ok().stdout, "");
}

#[test]
fn shared_layers_are_kept_once_and_go_with_the_last_image() {
    let place = two_images();
    place.run(&["save", "-o", "two.tar", "app:1", "app:2"]).ok();
    let total = || {
        let printed = run_elsewhere(&place, &["du", "--format", "{{json .}}"]).ok().stdout;
        let rows = printed.lines().map(|line| serde_json::from_str(line).unwrap());
        let kinds = ["regular", "source.image", "blob", "image"];
        let rows: Vec<serde_json::Value> = rows.collect();
        let sizes = rows.iter().filter(|row| {
            let kind = row["Type"].as_str().unwrap_or_default();
            kinds.iter().any(|one| kind.contains(one))
        });
        sizes.map(|row| row["Size"].as_u64().unwrap()).sum::<u64>()
    };
    let blobs = || count(&place.path("elsewhere/blobs/sha256"));
    run_elsewhere(&place, &["load", "-i", "two.tar"]).ok();
    // Two layers that both have, one of each alone, and two configs.
    assert_eq!(blobs(), 6);
    let both = total();
    run_elsewhere(&place, &["load", "-i", "two.tar"]).ok();
    assert_eq!((blobs(), total()), (6, both), "loading again adds nothing");
    run_elsewhere(&place, &["rmi", "app:1"]).ok();
    assert_eq!(blobs(), 4, "the shared layers stay");
    let one = total();
    assert!(one < both && one > both / 2, "{one} of {both}");
    run_elsewhere(&place, &["rmi", "--no-prune", "app:2"]).ok();
    assert_eq!(blobs(), 4);
    run_elsewhere(&place, &["load", "-i", "two.tar"]).ok();
    run_elsewhere(&place, &["rmi", "app:1", "app:2"]).ok();
    assert_eq!((blobs(), count(&place.path("elsewhere/layers")), total()), (0, 0, 0));
}

#[test]
fn the_cache_of_builds_outlives_an_image() {
    let place = two_images();
    place.run(&["rmi", "app:1", "app:2", "other"]).ok();
    let ran = place.build(&["-t", "app:2", "--progress=plain"]).ok();
    assert!(ran.stderr.contains("CACHED"), "{}", ran.stderr);
}
