//! Machines that are set up in unusual ways, in each tier: what works there, and what is said where something cannot.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::users::{UserPlace, WITH_RANGE, WITHOUT_RANGE, can_be_user, id_of};
use support::{Place, Ran, can_run};

const DOCKERFILE: &str = "FROM busybox\n\
    RUN echo one > /one && chmod 600 /one && ls -l /proc /dev > /dev/null\n\
    RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t touch /c/x /t/x && mkdir /two\n\
    COPY Dockerfile /three\n";

/// A place for each tier with its name.
fn places() -> Vec<(&'static str, UserPlace)> {
    let place = || Place::new(&[("Dockerfile", DOCKERFILE)]);
    let mut all =
        vec![("root", UserPlace::of_root(place())), ("chroot", UserPlace::of_root(place()))];
    if can_be_user() {
        all.push(("rootless", UserPlace::of(WITH_RANGE, place())));
        all.push(("single-id", UserPlace::of(WITHOUT_RANGE, place())));
    }
    all
}

fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}' ", word.to_str().unwrap())).collect()
}

/// Runs `build words… ctx` of a tier in a shell, after what `script` does; in `script`, `BUILD` is the command.
fn shell(tier: &str, place: &UserPlace, words: &[&str], script: &str) -> Ran {
    let isolation = format!("--isolation={tier}");
    let mut command = place.command(&[&[&*isolation, "--progress=plain"], words].concat());
    command.args(place.contexts()).arg("ctx");
    let mut shell = Command::new("unshare");
    shell.args(["-m", "bash", "-c", &script.replace("BUILD", &quoted(&command))]);
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(place.path("")).stdin(Stdio::null());
    place.place.ran(shell.output().unwrap())
}

/// Has every tier build after `script`, and looks at the image.
#[track_caller]
fn check(script: &str) {
    if !can_run() {
        return;
    }
    for (tier, place) in places() {
        let script = script.replace("PLACE", &place.path("").display().to_string());
        let ran = shell(tier, &place, &["-o", "type=tar,dest=out.tar"], &script);
        assert_eq!(ran.code, Some(0), "{tier}: {}", ran.stderr);
        let list = Command::new("tar").arg("-tvf").arg(place.path("out.tar")).output().unwrap();
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        for (mode, name) in
            [("-rw-------", " one\n"), ("drwxr-xr-x", " two/\n"), ("-rw-r--r--", " three\n")]
        {
            let found = list.split_inclusive('\n').find(|line| line.ends_with(name));
            assert!(found.is_some_and(|line| line.starts_with(mode)), "{tier}: {name}: {list}");
        }
    }
}

#[test]
fn a_narrow_umask_changes_no_image() {
    check("umask 077; exec BUILD");
}

#[test]
fn other_processes_may_be_hidden() {
    check("mount -t proc -o hidepid=2 none /proc && exec BUILD");
}

#[test]
fn temporary_folders_may_be_closed_to_programs_and_to_writing() {
    // The place itself is in one of them, and stays as it is.
    check(
        "mount --bind /tmp /tmp && mount --bind PLACE PLACE && mount -t tmpfs -o ro none /var/tmp && \
         mount -o remount,bind,ro,nosuid,nodev,noexec /tmp && cd PLACE && exec BUILD",
    );
}

#[test]
fn a_state_folder_may_be_where_no_program_runs() {
    if !can_run() {
        return;
    }
    for (tier, place) in places() {
        let state = place.path("state");
        fs_err::create_dir(&state).unwrap();
        place.hand_over();
        // Devices are needed where there are no mounts.
        let nodev = if tier == "chroot" { "" } else { "nodev," };
        let script = format!(
            "mount -t tmpfs -o {nodev}nosuid,noexec,mode=777 none '{}' && exec BUILD",
            state.display()
        );
        let ran = shell(tier, &place, &["-o", "type=cacheonly"], &script);
        if tier == "chroot" {
            assert_eq!(ran.code, Some(1), "{}", ran.stderr);
            let hint = "  help: the builder's state is on a file system that runs no programs (`noexec`): choose \
                        another place with --root";
            assert!(ran.stderr.contains(hint), "{}", ran.stderr);
        } else {
            assert_eq!(ran.code, Some(0), "{tier}: {}", ran.stderr);
        }
    }
}

#[test]
fn a_root_of_overlays_is_a_root() {
    if !can_run() {
        return;
    }
    for (tier, place) in places() {
        let folder = place.path("").display().to_string();
        // As in a container whose root is an overlay: overlays cannot be stacked upon it.
        let script = format!(
            "cd '{folder}' && mkdir -p over && mount -t tmpfs none over && mkdir over/{{lower,upper,work,state}} && \
             mount -t overlay -o lowerdir=over/lower,upperdir=over/upper,workdir=over/work none over/state && \
             chmod 777 over/state && export BRICKLAYER_ROOT='{folder}/over/state/s' && exec BUILD"
        );
        let ran = shell(tier, &place, &["-o", "type=tar,dest=out.tar"], &script);
        assert_eq!(ran.code, Some(0), "{tier}: {}", ran.stderr);
    }
}

#[test]
fn standard_streams_may_be_closed() {
    check("exec BUILD <&- >&- 2>&-");
}

#[test]
fn who_reads_the_output_may_stop_reading() {
    if !can_run() {
        return;
    }
    for (tier, place) in places() {
        let ran = shell(tier, &place, &[], "BUILD 2>&1 | head -n 1; echo ${PIPESTATUS[0]}");
        assert!(ran.stdout.ends_with("\n0\n"), "{tier}: {}{}", ran.stdout, ran.stderr);
        let words = ["-o", "type=tar,dest=-"];
        let ran = shell(tier, &place, &words, "BUILD | head -c 10 | wc -c; echo ${PIPESTATUS[0]}");
        assert_eq!(ran.stdout, "10\n4\n", "{tier}: {}", ran.stderr);
        // It depends on the time what is being written then.
        let told = ["the archive", "`-`"]
            .map(|what| format!("ERROR: cannot write {what}: Broken pipe (os error 32)"));
        assert!(told.iter().any(|told| ran.stderr.contains(told)), "{tier}: {}", ran.stderr);
    }
}

#[test]
fn few_descriptors_are_enough_and_too_few_are_told() {
    check("ulimit -n 64; exec BUILD");
    if !can_run() {
        return;
    }
    for (tier, place) in places() {
        let ran = shell(tier, &place, &[], "ulimit -n 20; exec BUILD");
        assert_eq!(ran.code, Some(4), "{tier}: {}", ran.stderr);
        let hint =
            "  help: this process may have 20 files open: allow it more, with `ulimit -n 1024`";
        assert!(ran.stderr.contains(hint), "{tier}: {}", ran.stderr);
    }
}

#[test]
fn too_few_processes_are_told() {
    if !can_run() || !can_be_user() {
        return;
    }
    for (tier, place) in places().into_iter().skip(2) {
        for count in [8, 4] {
            let script = format!("prlimit --nproc={count} BUILD");
            let ran = shell(tier, &place, &[], &script);
            assert!(!ran.stderr.contains("panicked"), "{tier} {count}: {}", ran.stderr);
            // Other tests run as the same user: `setpriv` may not be able to begin at all.
            assert!(
                matches!(ran.code, Some(0 | 4 | 126)),
                "{tier} {count}: {:?} {}",
                ran.code,
                ran.stderr
            );
            if ran.code == Some(4) {
                let hint = "Resource temporarily unavailable";
                let told =
                    ran.stderr.contains(hint) || ran.stderr.contains("processes and threads");
                assert!(told, "{tier} {count}: {}", ran.stderr);
            }
        }
    }
}

/// Runs a command of a user without the state folder being named.
fn without_state(place: &UserPlace, user: &str, env: &[(&str, &str)], words: &[&str]) -> Ran {
    let (uid, gid) = id_of(user).unwrap();
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    command.arg("--").arg(place.path("build")).args(words).env_clear();
    command.env("PATH", "/usr/bin:/bin").envs(env.iter().copied());
    command.current_dir(place.path("")).stdin(Stdio::null());
    place.place.ran(command.output().unwrap())
}

#[test]
fn a_user_without_a_home_has_a_state_folder_that_is_nobody_elses() {
    if !can_run() || !can_be_user() {
        return;
    }
    let place = UserPlace::of(WITH_RANGE, Place::new(&[]));
    let id = id_of(WITH_RANGE).unwrap().0;
    // The home that the list of users names is not there.
    let own = std::path::PathBuf::from(format!("/var/tmp/bricklayer-{id}"));
    let _ = fs_err::remove_dir_all(&own);
    let homes = ["", "relative", "/", "/nowhere/at/all"].map(|home| [("HOME", home)]);
    for env in [&[][..]].into_iter().chain(homes.iter().map(|env| &env[..])) {
        without_state(&place, WITH_RANGE, env, &["du"]).ok();
        assert_eq!(fs_err::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(own.join("format").exists() && !place.path("relative").exists());
    }
    fs_err::remove_dir_all(&own).unwrap();
    // Somebody else was first.
    fs_err::create_dir(&own).unwrap();
    fs_err::set_permissions(&own, PermissionsExt::from_mode(0o777)).unwrap();
    let ran = without_state(&place, WITH_RANGE, &[], &["du"]);
    let report = format!(
        "ERROR: cannot keep the builder's state in `{}`: it is not a folder of this user alone\n  help: this user has \
         no home folder: choose one with HOME, --root or BRICKLAYER_ROOT\n",
        own.display()
    );
    assert_eq!((ran.code, ran.stderr), (Some(4), report));
    fs_err::remove_dir(&own).unwrap();
}

/// Has each tier of `tiers` fail after `script` with what is told.
#[track_caller]
fn check_told(tiers: &[&str], words: &[&str], script: &str, told: &[&str]) {
    if !can_run() {
        return;
    }
    for (tier, place) in places().into_iter().filter(|(tier, _)| tiers.contains(tier)) {
        let ran = shell(tier, &place, words, script);
        assert_eq!(ran.code, Some(4), "{tier}: {}", ran.stderr);
        for told in told {
            assert!(ran.stderr.contains(told), "{tier}: no {told:?}: {}", ran.stderr);
        }
    }
}

const ALL: [&str; 4] = ["root", "rootless", "single-id", "chroot"];

#[test]
fn a_machine_without_proc_is_told() {
    let told = "no /proc is mounted";
    check_told(&ALL, &[], "umount -l /proc; exec BUILD", &[told, "mount -t proc proc /proc"]);
    let place = Place::new(&[]);
    let mut command = Command::new("unshare");
    let program = quoted(&place.command(&["doctor"]));
    command.args(["-m", "sh", "-c", &format!("umount -l /proc; exec {program}")]);
    if can_run() {
        let ran = place.ran(command.env("BRICKLAYER_ROOT", place.path("state")).output().unwrap());
        assert!(
            ran.stdout.contains("missing  /proc            no /proc is mounted\n"),
            "{}",
            ran.stdout
        );
        assert!(
            ran.stdout.contains("missing  seccomp          not known without /proc\n"),
            "{}",
            ran.stdout
        );
        assert!(!ran.stdout.contains("CONFIG_SECCOMP"), "{}", ran.stdout);
    }
}

#[test]
fn a_machine_without_devices_is_told_and_gets_no_lesser_tier() {
    let script = "mount -t tmpfs none /dev && exec BUILD";
    let told =
        "  help: there is no `/dev/null`: make one as root, with `mknod -m 666 /dev/null c 1 3`";
    check_told(&ALL[..3], &[], script, &[told]);
    if can_run() && can_be_user() {
        let place = UserPlace::of(WITH_RANGE, Place::new(&[("Dockerfile", DOCKERFILE)]));
        let ran = shell("auto", &place, &[], script);
        let report =
            "ERROR: cannot find out how steps can be isolated: the ids could not be mapped (";
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        assert!(ran.stderr.contains(report) && ran.stderr.contains(told), "{}", ran.stderr);
    }
}

#[test]
fn a_limit_of_namespaces_is_no_full_disk() {
    if !can_run() {
        return;
    }
    let place = Place::new(&[("Dockerfile", DOCKERFILE)]);
    let image = support::repository().join("testdata/conformance/images/busybox");
    let busybox = format!("--build-context=busybox=oci-layout://{}:latest", image.display());
    let build = place.command(&["--isolation=single-id", "--progress=plain", &busybox, "ctx"]);
    for kind in ["pid", "uts"] {
        // The limit of a user namespace of its own, which is the one that the build is root of.
        let script =
            format!("echo 0 > /proc/sys/user/max_{kind}_namespaces && exec {}", quoted(&build));
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "sh", "-c", &script]);
        command.envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ran = place.ran(command.current_dir(place.path("")).output().unwrap());
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        let report = format!(
            "cannot make the namespaces of a step: there may be none of a kind (`user.max_{kind}_namespaces` is 0)\n  \
             help: as root, set `sysctl -w user.max_{kind}_namespaces=15000`\n"
        );
        assert!(ran.stderr.ends_with(&report), "{}", ran.stderr);
    }
}

#[test]
fn files_may_be_limited_in_size() {
    let told = "  help: this process may write files of 0 bytes: allow it more, with `ulimit -f unlimited`";
    check_told(&ALL[..1], &[], "ulimit -f 0; exec BUILD", &[told]);
}

#[test]
fn a_small_stack_is_made_larger_or_told() {
    check("ulimit -Ss 64; exec BUILD");
    let told = "ERROR: the stack of this process may have 65536 bytes\n  help: allow it more, with `ulimit -s 8192`";
    check_told(&ALL[1..3], &[], "ulimit -s 64; exec BUILD", &[told]);
}

#[test]
fn a_limit_above_that_of_the_builder_is_told_as_such() {
    let words = ["--ulimit=nofile=1000:1000"];
    let told = [
        "cannot set the limit `nofile`: Operation not permitted (os error 1)",
        "  help: a step may have what the builder may have, and more only where that is root of the machine: ask for \
         less with --ulimit, or raise the limit of the builder",
    ];
    check_told(&ALL[1..3], &words, "ulimit -n 500; exec BUILD", &told);
}
