//! Whatever is edited, a build with the cache gives what a build without it gives.
//!
//! Random edits of a Dockerfile, its context and its arguments, each followed by a build in a store that has all the
//! builds before it and by one that uses no cache. `BRICKLAYER_MODEL_EDITS` sets how many.

use fs_err as fs;

use crate::support::{Place, can_run};
use crate::{Listing, Random, listing};

const FILES: [&str; 5] = ["a", "b", "d/c", "d/e/f", "t.txt"];

/// Instructions of the first stage; `{}` is a random digit.
const FIRST: [&str; 10] = [
    "COPY a /a{}",
    "COPY . /all",
    "COPY --chmod=75{} d /d",
    "ADD d/ /added/",
    "ENV E=e{}",
    "ARG A=a{}",
    "RUN echo $E $A > /env{}",
    "RUN (find / -xdev -type f -name '[a-f]*' | grep -v -e ^/bin -e ^/proc -e ^/sys -e ^/dev | sort | xargs cat; echo) > /sum 2>/dev/null",
    "WORKDIR /w{}",
    "COPY --exclude=*.txt . /some",
];

/// And of the second.
const SECOND: [&str; 8] = [
    "COPY --from=one / /one/",
    "COPY --from=one /sum* /",
    "COPY --link b* /linked/",
    "RUN --mount=type=bind,target=/ctx cat /ctx/a* /ctx/b* > /bound{} 2>/dev/null || true",
    "RUN --mount=type=bind,from=one,target=/m ls /m | grep -v -e dev -e proc -e sys > /names",
    "ARG A",
    "RUN echo second $A > /second; rm -rf /one/all",
    "LABEL l={}",
];

/// A project that is edited.
struct Project {
    files: Vec<Option<(u32, String)>>,
    first: Vec<String>,
    second: Vec<String>,
    argument: Option<usize>,
}

impl Project {
    fn edit(&mut self, random: &mut Random) {
        match random.below(8) {
            0 | 1 => {
                let content = random.below(4).to_string();
                let mode = [0o644, 0o600, 0o755][random.below(3)];
                let file = random.below(FILES.len());
                self.files[file] = (random.below(4) > 0).then_some((mode, content));
            }
            2 => self.argument = (random.below(2) > 0).then(|| random.below(3)),
            number => {
                let (lines, pool) = if number < 6 {
                    (&mut self.first, &FIRST[..])
                } else {
                    (&mut self.second, &SECOND[..])
                };
                let line =
                    pool[random.below(pool.len())].replace("{}", &random.below(3).to_string());
                let at = random.below(lines.len() + 1);
                match random.below(3) {
                    0 if at < lines.len() => drop(lines.remove(at)),
                    1 if at < lines.len() => lines[at] = line,
                    _ => lines.insert(at, line),
                }
                // Long files make no other mistakes than short ones.
                lines.truncate(6);
            }
        }
    }

    fn dockerfile(&self) -> String {
        let lines = |lines: &[String]| lines.join("\n");
        format!(
            "FROM busybox AS one\nENV E=none A=none\n{}\nFROM busybox\n{}\nCOPY a* b* /end/\n",
            lines(&self.first),
            lines(&self.second)
        )
    }

    fn write(&self, place: &Place) {
        use std::os::unix::fs::PermissionsExt;
        let context = place.path("ctx");
        for (name, file) in FILES.iter().zip(&self.files) {
            let path = context.join(name);
            match file {
                None => drop(fs::remove_file(path)),
                Some((mode, content)) => {
                    place.write(name, content);
                    fs::set_permissions(path, std::fs::Permissions::from_mode(*mode)).unwrap();
                }
            }
        }
        fs::create_dir_all(context.join("d/e")).unwrap();
        place.write("Dockerfile", &self.dockerfile());
        place.write(".dockerignore", "Dockerfile\n");
    }

    /// What a build gives: the files and the config; of a failure only that it is one.
    fn built(&self, place: &Place, words: &[&str]) -> Option<(Listing, serde_json::Value)> {
        let out = place.path("out");
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        let argument = self.argument.map(|value| format!("--build-arg=A=given{value}"));
        let mut all = vec!["-o", "out", "-o", "type=image,name=app"];
        all.extend_from_slice(words);
        all.extend(argument.as_deref());
        let ran = place.build(&all);
        if ran.code == Some(1) {
            return None;
        }
        let ran = ran.ok();
        let mut config: serde_json::Value =
            serde_json::from_str(&place.run(&["inspect", "app"]).ok().stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
        without_times(&mut config);
        Some((listing(&out), config))
    }
}

/// Takes away what differs from build to build: times, and digests of layers, whose files have times.
fn without_times(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| {
                ![
                    "created",
                    "id",
                    "Id",
                    "rootfs",
                    "RootFS",
                    "Created",
                    "Digest",
                    "digest",
                    "ConfigDigest",
                    "Size",
                    "size",
                ]
                .contains(&name.as_str())
            });
            fields.values_mut().for_each(without_times);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_times),
        _ => {}
    }
}

#[test]
fn the_cache_never_shows_whatever_is_edited() {
    if !can_run() {
        return;
    }
    let edits: usize = std::env::var("BRICKLAYER_MODEL_EDITS")
        .ok()
        .map_or(20, |edits| edits.parse().expect("a number of edits"));
    let (cached, fresh) = (Place::new(&[]), Place::new(&[]));
    let mut random = Random::new();
    let mut project = Project {
        files: vec![Some((0o644, "0".to_owned())); FILES.len()],
        first: vec![FIRST[1].to_owned(), FIRST[7].to_owned()],
        second: vec![SECOND[1].to_owned(), SECOND[3].replace("{}", "0")],
        argument: None,
    };
    let mut worked = 0;
    for edit in 0..edits {
        project.write(&cached);
        project.write(&fresh);
        let with = project.built(&cached, &[]);
        let without = project.built(&fresh, &["--no-cache"]);
        worked += usize::from(with.is_some());
        if with != without {
            let differ = |(with, without): (&Listing, &Listing)| -> Vec<String> {
                let all = with.keys().chain(without.keys());
                all.filter(|path| with.get(*path) != without.get(*path)).cloned().collect()
            };
            let files = with.as_ref().zip(without.as_ref()).map(|(a, b)| differ((&a.0, &b.0)));
            let configs = with.map(|it| it.1.to_string()) == without.map(|it| it.1.to_string());
            panic!(
                "edit {edit}: files {files:?}, same config {configs}, argument {:?}\n{}",
                project.argument,
                project.dockerfile()
            );
        }
        // Some edits at once, so that a build finds more than one thing changed.
        for _ in 0..=random.below(3) {
            project.edit(&mut random);
        }
    }
    assert!(worked * 2 > edits, "only {worked} of {edits} builds worked");
}
