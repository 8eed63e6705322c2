//! Rights that a build has to be granted: what works with them and what is said without them.

mod support;

use support::{Place, can_run};

/// What a step wrote behind `out: `, in the plain progress: `#5 0.123 out: text`.
fn output(stderr: &str) -> Vec<String> {
    let lines = stderr.lines().filter_map(|line| line.split_once(" out: "));
    let lines = lines.filter(|(before, _)| before.split(' ').count() == 2);
    lines.map(|(_, line)| line.to_owned()).collect()
}

/// Runs one step and gives the lines that it marked with `out: `.
#[track_caller]
fn run(step: &str, words: &[&str]) -> Vec<String> {
    let place = Place::new(&[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
    let mut all = vec!["--progress=plain", "--no-cache"];
    all.extend_from_slice(words);
    output(&place.build(&all).ok().stderr)
}

#[test]
fn an_insecure_step_has_all_rights_of_the_builder() {
    if !can_run() {
        return;
    }
    // Spec: all capabilities in every set, no seccomp filter, nothing masked or read-only, more devices.
    let script = "RUN --security=insecure \
        for set in Inh Prm Eff Bnd Amb; do \
            echo \"out: $set $(sed -n s/^Cap$set:.//p /proc/self/status)\"; done; \
        echo \"out: $(grep ^Seccomp: /proc/self/status)\"; \
        echo \"out: sys $(grep ' /sys sysfs ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1)\"; \
        echo \"out: cgroup $(grep ' /sys/fs/cgroup cgroup2 ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1)\"; \
        mkdir /m && mount -t tmpfs x /m && echo 'out: mounted'; \
        mknod /null c 1 3 && echo x > /null && echo 'out: device'; \
        test -b /dev/loop0 && echo 'out: loop'; \
        for path in /proc/kcore /proc/timer_list; do \
            test ! -e $path || ! grep -q \" $path \" /proc/mounts && echo \"out: $path seen\"; done; \
        (echo 3 > /proc/sys/vm/drop_caches) && echo 'out: proc/sys'";
    let lines = run(script, &["--allow=security.insecure"]);
    let held = rustix::thread::capabilities(None).unwrap().permitted.bits();
    let mut expect: Vec<String> =
        ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("{set} {held:016x}")).into();
    expect.extend(["Seccomp:\t0", "sys rw"].map(str::to_owned));
    let has_cgroups = fs_err::read_to_string("/proc/mounts").unwrap().contains(" cgroup2 ");
    let cgroups = lines.iter().find(|line| line.starts_with("cgroup")).cloned().unwrap_or_default();
    assert!(!has_cgroups || ["cgroup rw", "cgroup "].contains(&cgroups.as_str()), "{cgroups}");
    expect.push(cgroups);
    let rest =
        ["mounted", "device", "loop", "/proc/kcore seen", "/proc/timer_list seen", "proc/sys"];
    expect.extend(rest.map(str::to_owned));
    assert_eq!(lines, expect);
}

#[test]
fn a_right_for_insecure_steps_changes_nothing_for_others() {
    if !can_run() {
        return;
    }
    let lines = run(
        "RUN echo \"out: $(grep ^Seccomp: /proc/self/status)\"; mount -t tmpfs x /mnt || echo 'out: refused'",
        &["--allow=security.insecure,network.host"],
    );
    assert_eq!(lines, ["Seccomp:\t2", "refused"]);
}

#[test]
fn a_step_on_the_hosts_network_needs_the_right_and_has_the_machines_resolver() {
    if !can_run() {
        return;
    }
    let lines = run(
        "RUN --network=host echo \"out: $(readlink /proc/self/ns/net)\"; \
         sed 's/^/out: /' /etc/resolv.conf",
        &["--allow=network.host"],
    );
    let own = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(lines[0], own.to_string_lossy());
    // Loopback name servers stay: they are reached from there.
    let machine = fs_err::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|line| line.starts_with("nameserver")).collect()
    };
    let machine = servers(&machine);
    if !machine.is_empty() {
        assert_eq!(servers(&lines[1..].join("\n")), machine);
    }
    // A network for the whole build is granted by asking for it.
    let lines = run("RUN echo \"out: $(readlink /proc/self/ns/net)\"", &["--network=host"]);
    assert_eq!(lines[0], own.to_string_lossy());
}

#[track_caller]
fn check(dockerfile: &str, words: &[&str], expect: &str) {
    let place = Place::new(&[("Dockerfile", dockerfile)]);
    let report = place.build(words).report();
    assert_eq!(report.trim_end(), expect.trim());
}

#[test]
fn a_required_device_is_refused_before_anything_runs() {
    check(
        "FROM busybox\nRUN echo not reached\nRUN --device=vendor.com/gpu=all,required true\n",
        &["--progress=quiet", "--allow=device=vendor.com/gpu"],
        r#"
exit 1
Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     RUN echo not reached
   3 | >>> RUN --device=vendor.com/gpu=all,required true
     |                  ^^^^^^^^^^^^^^^^^^ not supported
   4 |     
--------------------
ERROR: failed to solve: CDI device vendor.com/gpu=all is required, and CDI devices are not supported
  help: a device that is not required is left out: is the step of use without it?
"#,
    );
}

#[test]
fn a_device_that_is_not_required_is_left_out_and_told() {
    if !can_run() {
        return;
    }
    let place =
        Place::new(&[("Dockerfile", "FROM busybox\nRUN --device=vendor.com/gpu=all ls /dev\n")]);
    let ran = place.build(&["--progress=plain"]).ok();
    let warning = "WARNING: CDI devices are not supported: the step runs without `vendor.com/gpu=all`, \
                   which is not required";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
}

#[test]
fn rights_are_read_from_the_command_line() {
    let place = Place::new(&[("Dockerfile", "FROM scratch\n")]);
    for word in [
        "--allow=device",
        "--allow=device=v/c=0,alias=gpu",
        "--allow=network.host,security.insecure",
    ] {
        place.build(&["--print-llb", word]).ok();
    }
    let refused = |word: &str| {
        let ran = place.build(&["--print-llb", word]);
        assert_eq!(ran.code, Some(2), "{word}: {}", ran.stderr);
        ran.stderr
    };
    assert_eq!(
        refused("--allow=network.hots"),
        "ERROR: unknown entitlement network.hots\n  help: did you mean `network.host`?\n"
    );
    assert_eq!(
        refused("--allow=device="),
        "ERROR: invalid entitlement device=: want device, device=NAME or device=NAME,alias=NAME\n"
    );
}
