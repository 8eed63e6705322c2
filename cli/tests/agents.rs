//! Steps that use an ssh agent: a real one, with a real key.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::users::{UserPlace, WITH_RANGE, WITHOUT_RANGE, can_be_user, ensure, id_of};
use support::{Place, can_run, has};

/// An agent that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(program: &str, words: &[&str], socket: &Path) -> String {
    let output = Command::new(program).args(words).env("SSH_AUTH_SOCK", socket).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A place whose base has the machine's `ssh-add`, an agent with one key, and the key as `ssh-add -l` shows it.
fn place() -> (Place, Agent, String) {
    place_of(None)
}

/// The same with the agent of a user.
fn place_of(user: Option<&'static str>) -> (Place, Agent, String) {
    let place = Place::new(&[]);
    let socket = place.path("agent.sock");
    let mut command = match user {
        None => Command::new("ssh-agent"),
        Some(user) => {
            ensure(user).unwrap();
            let (uid, gid) = id_of(user).unwrap();
            std::os::unix::fs::chown(place.path(""), Some(uid), Some(gid)).unwrap();
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
            command.args(["--clear-groups", "--", "ssh-agent"]);
            command
        }
    };
    command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null());
    let agent = Agent(command.spawn().unwrap());
    while !socket.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let key = place.path("key");
    let path = key.to_str().unwrap();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test key", "-f", path], &socket);
    run("ssh-add", &["-q", path], &socket);
    let shown = run("ssh-add", &["-l"], &socket);
    assert!(shown.contains("test key"), "{shown}");
    let libraries = run("ldd", &["/usr/bin/ssh-add"], &socket);
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain(["/usr/bin/ssh-add"]) {
        let to = place.path("ctx/root").join(path.trim_start_matches('/'));
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(path, to).unwrap();
    }
    (place, agent, shown)
}

fn dockerfile(place: &Place, step: &str) {
    // The user needs a name in the image, or `ssh-add` gives up.
    place.write("Dockerfile", &format!("FROM busybox\nCOPY root /\nRUN {step}\n"));
}

fn can_forward() -> bool {
    can_run() && has("ssh-agent") && has("ssh-add") && has("ssh-keygen") && has("ldd")
}

#[test]
fn a_step_lists_and_uses_keys_and_cannot_change_them() {
    if !can_forward() {
        return;
    }
    let (place, _agent, shown) = place();
    dockerfile(
        &place,
        "--mount=type=ssh stat -c '%a %u %F' \"$SSH_AUTH_SOCK\" > /out; echo \"$SSH_AUTH_SOCK\" >> /out; \
         ssh-add -l >> /out; ssh-add -D 2>> /out; ssh-add -l >> /out",
    );
    let socket = place.path("agent.sock");
    let own = [("SSH_AUTH_SOCK", socket.to_str().unwrap())];
    place.build_with(&["--ssh", "default", "-o", "out"], &own).ok();
    let out = fs_err::read_to_string(place.path("out/out")).unwrap();
    let expect = format!(
        "600 0 socket\n/run/buildkit/ssh_agent.0\n{shown}Failed to remove all identities.\n{shown}"
    );
    assert_eq!(out, expect);
    assert!(!place.path("out/run/buildkit").exists(), "the mount point stayed");
    assert_eq!(run("ssh-add", &["-l"], &socket), shown);
}

/// A step of a tier lists the keys of an agent and signs with one, and can neither change them nor find the agent later.
#[track_caller]
fn check_tier(tier: &str, user: Option<&'static str>) {
    if !can_forward() || user.is_some() && !can_be_user() {
        return;
    }
    let (place, _agent, shown) = place_of(user);
    place.write(
        "Dockerfile",
        "FROM busybox\nCOPY root /\nCOPY key.pub /key.pub\n\
         RUN --mount=type=ssh,uid=0 ssh-add -l > /out && ssh-add -T /key.pub && echo signed >> /out; \
         ssh-add -D 2>> /out; ssh-add -l >> /out\n\
         RUN test -z \"$SSH_AUTH_SOCK\" && test ! -e /run/buildkit && echo gone >> /out\n",
    );
    fs_err::copy(place.path("key.pub"), place.path("ctx/key.pub")).unwrap();
    let place = match user {
        Some(user) => UserPlace::of(user, place),
        None => UserPlace::of_root(place),
    };
    let isolation = format!("--isolation={tier}");
    let agent = format!("default={}", place.path("agent.sock").display());
    place.build(&["--ssh", &agent, &isolation, "-o", "out"]).ok();
    let out = fs_err::read_to_string(place.path("out/out")).unwrap();
    assert_eq!(out, format!("{shown}signed\nFailed to remove all identities.\n{shown}gone\n"));
}

#[test]
fn a_step_of_root_uses_an_agent() {
    check_tier("root", None);
}

#[test]
fn a_rootless_step_uses_the_agent_of_the_user() {
    check_tier("rootless", Some(WITH_RANGE));
}

#[test]
fn a_step_with_one_id_uses_the_agent_of_the_user() {
    check_tier("single-id", Some(WITHOUT_RANGE));
}

#[test]
fn a_step_without_namespaces_uses_an_agent() {
    check_tier("chroot", None);
}

#[test]
fn agents_have_ids_places_and_owners() {
    if !can_forward() {
        return;
    }
    let (place, _agent, shown) = place();
    dockerfile(
        &place,
        "--mount=type=ssh,id=deploy,target=/agent,uid=7,gid=8,mode=0660,required=true \
         --mount=type=ssh,id=none stat -c '%a %u %g' /agent > /out; \
         SSH_AUTH_SOCK=/agent ssh-add -l >> /out; [ ! -e /run/buildkit/ssh_agent.1 ]",
    );
    let forward = format!("deploy={}", place.path("agent.sock").display());
    place.build(&["--ssh", &forward, "-o", "out"]).ok();
    let out = fs_err::read_to_string(place.path("out/out")).unwrap();
    assert_eq!(out, format!("660 7 8\n{shown}"));
}

#[test]
fn what_is_wrong_with_an_agent_is_told() {
    if !can_forward() {
        return;
    }
    let (place, _agent, _) = place();
    dockerfile(&place, "--mount=type=ssh,required=true true");
    let failed = |words: &[&str], own: &str, code: i32, expect: &[&str]| {
        let ran = place.build_with(words, &[("SSH_AUTH_SOCK", own)]);
        let told = ran.stderr;
        assert_eq!(ran.code, Some(code), "{words:?}: {told}");
        for part in expect {
            assert!(told.contains(part), "{words:?}: {part}: {told}");
        }
    };
    let expect = ["unset ssh forward key default", "Dockerfile:3", "--ssh default"];
    failed(&[], "", 1, &expect);
    let expect = ["make sure SSH_AUTH_SOCK is set", "ssh-add"];
    failed(&["--ssh", "default"], "", 2, &expect);
    let expect = ["failed to stat `/nowhere/agent` of ssh agent `x`", "want --ssh default|ID"];
    failed(&["--ssh", "x=/nowhere/agent"], "", 2, &expect);
    let key = format!("default={}", place.path("key").display());
    failed(&["--ssh", &key], "", 2, &["key files are not supported", "ssh-add KEY"]);
    let own = place.path("agent.sock");
    let twice = ["--ssh", "default", "--ssh", "default"];
    failed(&twice, own.to_str().unwrap(), 2, &["duplicate ssh ID `default`"]);
}
