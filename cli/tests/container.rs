//! Builds in a plain container: root with the capabilities, the seccomp profile and the devices that Docker gives by
//! default, and neither mounts nor namespaces of its own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

// The names of what Docker's default profile allows are the same as those of a step.
#[allow(dead_code, reason = "the filter uses more of it")]
#[path = "../../sandbox/src/seccomp/profile.rs"]
mod profile;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::CapabilitySet;
use serde_json::{Value, json};
use support::{Place, can_run, has, repository};

/// Capabilities of a container.
const CAPABILITIES: [(&str, CapabilitySet); 14] = [
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FSETID", CapabilitySet::FSETID),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_MKNOD", CapabilitySet::MKNOD),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETUID", CapabilitySet::SETUID),
    ("CAP_SETFCAP", CapabilitySet::SETFCAP),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_SYS_CHROOT", CapabilitySet::SYS_CHROOT),
    ("CAP_KILL", CapabilitySet::KILL),
    ("CAP_AUDIT_WRITE", CapabilitySet::AUDIT_WRITE),
];

const DOCKERFILE: &str = "\
FROM busybox AS build
RUN mkdir -p /app/bin /app/etc && echo one > /app/etc/conf && ln /app/etc/conf /app/etc/same && ln -s conf /app/etc/link
RUN rm /app/etc/conf && chmod 600 /app/etc/same && rm -r /home && mkdir /home && echo 'user:x:1234:1234::/home:/bin/sh' >> /etc/passwd && chown user /app/bin
RUN --mount=type=cache,target=/root/.cache echo kept > /root/.cache/x && mkfifo /app/pipe
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=s cat /root/.cache/x /run/secrets/s | wc -c > /app/count
COPY file /app/file
RUN --mount=type=bind,target=/src --mount=type=tmpfs,target=/scratch cp /src/file /scratch/x && cmp /scratch/x /app/file
RUN (setsid sleep 4242 &); echo two >> /app/file
RUN tar -C /app -cf /app.tar etc && mkdir /copy && tar -C /copy -xf /app.tar
USER user
RUN id > /tmp/id && ! touch /etc/x 2>/dev/null
FROM busybox
COPY --from=build /app /app
COPY --from=build /copy /copy
RUN test $(cat /app/count) = 17 && rm /app/count
";

/// A container without anything but busybox, the executable and a place.
struct Container {
    place: Place,
    bundle: PathBuf,
    capabilities: Vec<&'static str>,
    user: u32,
    /// Whether namespaces and mounts are allowed in it, and nothing of /proc is hidden, as with `--security-opt`.
    has_namespaces: bool,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Container {
    /// `None`, with the reason printed, where there can be none.
    fn new(files: &[(&str, &str)]) -> Option<Self> {
        if !can_run() || !has("runc") {
            return None;
        }
        let place = Place::new(files);
        let bundle = place.path("bundle");
        fs_err::create_dir_all(bundle.join("rootfs")).unwrap();
        for layer in layers(&repository().join("testdata/conformance/images/busybox")) {
            let mut tar = Command::new("tar");
            tar.arg("-xf").arg(layer).arg("-C").arg(bundle.join("rootfs"));
            assert!(tar.status().unwrap().success());
        }
        let capabilities = CAPABILITIES.iter().map(|(name, _)| *name).collect();
        Some(Self { place, bundle, capabilities, user: 0, has_namespaces: false })
    }

    /// With another first process than root.
    fn of_user(mut self, has_namespaces: bool) -> Self {
        self.capabilities.clear();
        (self.user, self.has_namespaces) = (1000, has_namespaces);
        for place in ["", "bundle/rootfs/root"] {
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs_err::set_permissions(self.place.path(place), open).unwrap();
        }
        self
    }

    fn without(mut self, capability: &str) -> Self {
        self.capabilities.retain(|name| *name != capability);
        self
    }

    /// Runs a shell script as its first process; returns whether that succeeded, and what it wrote.
    fn run(&self, script: &str) -> (bool, String) {
        let config = serde_json::to_vec(&self.config(script)).unwrap();
        fs_err::write(self.bundle.join("config.json"), config).unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("bricklayer-container-{}-{number}", std::process::id());
        let output = Command::new("runc")
            .args(["run", "--bundle"])
            .arg(&self.bundle)
            .arg(id)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let text = [&output.stderr[..], &output.stdout[..]].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs `build` with the base image, and then a script.
    #[track_caller]
    fn build(&self, words: &str, after: &str) -> (bool, String) {
        self.run(&format!(
            "build --progress=plain --build-context=busybox=oci-layout:///kit/busybox:latest {words} /place/ctx; \
             code=$?; {after}; exit $code"
        ))
    }

    fn config(&self, script: &str) -> Value {
        let bind = |source: PathBuf, target: &str, mode: &str| json!({"destination": target, "type": "bind", "source": source, "options": ["rbind", mode]});
        let plain = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
        let caps = &self.capabilities;
        let namespaces =
            ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({"type": kind}));
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": self.user, "gid": self.user},
                "args": ["/bin/sh", "-c", script],
                "env": ["PATH=/usr/local/bin:/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/root", "CANARY=of-the-builder"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
                "noNewPrivileges": false,
            },
            "root": {"path": "rootfs", "readonly": false},
            "hostname": "container",
            "mounts": [
                plain("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                plain("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                plain("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                plain("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                bind(env!("CARGO_BIN_EXE_bricklayer").into(), "/usr/local/bin/build", "ro"),
                bind(repository().join("testdata/conformance/images"), "/kit", "ro"),
                bind(self.place.folder.path().to_owned(), "/place", "rw"),
            ],
            "linux": {
                "namespaces": namespaces,
                "resources": {"devices": devices()},
                "seccomp": seccomp(self.has_namespaces),
                "maskedPaths": if self.has_namespaces { vec![] } else { MASKED.to_vec() },
                "readonlyPaths": if self.has_namespaces { vec![] } else { READ_ONLY.to_vec() },
            },
        })
    }
}

const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a process needs for namespaces of its own, but for `clone3`, which no profile can look into.
const FOR_NAMESPACES: [&str; 14] = [
    "clone",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "fsopen",
    "fsconfig",
    "fsmount",
    "open_tree",
    "move_mount",
    "mount_setattr",
    "sethostname",
    "setdomainname",
];

/// What may be opened: nothing but the nodes that do no harm.
fn devices() -> Vec<Value> {
    let allow = |major: i64, minor: i64| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let mut rules = vec![
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "type": "c", "access": "m"}),
        json!({"allow": true, "type": "b", "access": "m"}),
    ];
    rules
        .extend([(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)].map(|(a, b)| allow(a, b)));
    rules
}

/// Docker's default profile: what is not named fails with EPERM.
fn seccomp(has_namespaces: bool) -> Value {
    let held = CAPABILITIES.iter().fold(CapabilitySet::empty(), |all, (_, one)| all | *one);
    let by_capability = profile::BY_CAPABILITY.iter().filter(|(needs, _)| held.contains(*needs));
    let lists = [profile::ALWAYS, profile::SINCE_KERNEL_4_8, profile::NATIVE];
    let names: Vec<&str> = lists
        .into_iter()
        .chain(by_capability.map(|(_, list)| *list))
        .flat_map(str::split_whitespace)
        .collect();
    let argument = |value: u32, second: u32, op: &str| json!([{"index": 0, "value": value, "valueTwo": second, "op": op}]);
    let allow = "SCMP_ACT_ALLOW";
    let masked = argument(profile::CLONE_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ");
    let clone = match has_namespaces {
        true => json!({"names": FOR_NAMESPACES, "action": allow}),
        false => json!({"names": ["clone"], "action": allow, "args": masked}),
    };
    let mut rules = vec![
        json!({"names": names, "action": allow}),
        clone,
        json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),
        json!({"names": ["socket"], "action": allow, "args": argument(40, 0, "SCMP_CMP_NE")}),
    ];
    rules.extend(profile::PERSONALITIES.map(|value| {
        json!({"names": ["personality"], "action": allow, "args": argument(value, 0, "SCMP_CMP_EQ")})
    }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

/// The layers of the first image of an OCI layout.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let read =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| {
        layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    let index = read(layout.join("index.json"));
    let manifest = read(blob(&index["manifests"][0]));
    manifest["layers"].as_array().unwrap().iter().map(blob).collect()
}

/// What each layer of an image holds, without times.
fn contents(layout: &Path) -> Vec<String> {
    let output = |words: &[&str], layer: &Path| {
        let output = Command::new("tar").args(words).arg(layer).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let listed = |layer: PathBuf| {
        let lines = output(&["--numeric-owner", "--full-time", "-tvf"], &layer);
        let without_times = lines.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            [&words[..3], &words[5..]].concat().join(" ")
        });
        let names = without_times.collect::<Vec<_>>().join("\n");
        format!("{names}\n{}", output(&["-xOf"], &layer))
    };
    layers(layout).into_iter().map(listed).collect()
}

#[test]
fn a_plain_container_builds_what_root_of_the_machine_builds() {
    let files = [("Dockerfile", DOCKERFILE), ("file", "of the context\n")];
    let Some(container) = Container::new(&files) else { return };
    let place = &container.place;
    let secret = format!("hush-{:07}", std::process::id());
    fs_err::write(place.path("secret"), &secret).unwrap();
    place.build(&["--secret=id=s,src=secret", "-o", "type=oci,dest=expected,tar=false"]).ok();
    let (ok, text) = container.build(
        "--secret=id=s,src=/place/secret -o type=oci,dest=/place/found,tar=false",
        "ps -o args | grep -c '[s]leep 4242'; ls /var/lib/bricklayer/ingest | wc -l; \
         find /var /tmp /root /run /dev/shm -type f -exec grep -lF \"$(cat /place/secret)\" {} + 2>/dev/null | wc -l",
    );
    assert!(ok, "{text}");
    assert!(text.contains("[internal] isolation: chroot ("), "{text}");
    // No process, no file that is half written, and no secret is left.
    assert!(text.ends_with("\n0\n0\n0\n"), "{text}");
    assert_eq!(contents(&place.path("found")), contents(&place.path("expected")));
    // Nothing of the container's own was touched.
    let own = fs_err::read_dir(container.bundle.join("rootfs")).unwrap();
    let mut own: Vec<String> =
        own.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    own.retain(|name| !["kit", "place", "proc", "dev", "sys"].contains(&name.as_str()));
    own.sort();
    assert_eq!(own, ["bin", "etc", "home", "root", "tmp", "usr", "var"]);
    let home = fs_err::metadata(container.bundle.join("rootfs/home")).unwrap();
    assert_eq!(home.uid(), 0);
    // All of it is known the second time.
    let (ok, text) = container
        .build("--secret=id=s,src=/place/secret -o type=oci,dest=/place/again,tar=false", "true");
    assert!(ok && text.matches(" CACHED").count() >= 9, "{text}");
}

#[test]
fn a_step_in_a_plain_container_does_not_get_out() {
    let attempts = "\
FROM busybox
RUN ls -A /proc | wc -l | sed 's/^/out: proc /'; \\
    env | grep -c CANARY | sed 's/^/out: canary /'; \\
    ls -d /var/lib/bricklayer /place /kit 2>/dev/null | wc -l | sed 's/^/out: others /'; \\
    chroot /tmp /x 2>&1 | sed 's/^/out: /'; \\
    unshare -U true 2>&1 | sed 's/^/out: /'; \\
    mount -t tmpfs x /tmp 2>&1 | sed 's/^/out: /'; \\
    mknod /disk b 8 0 && cat /disk 2>&1 | sed 's/^/out: /'; rm -f /disk; \\
    for fd in 3 4 5 6 7 8 9; do (eval \"true <&$fd\") 2>/dev/null && echo \"out: descriptor $fd\"; done; \\
    kill -9 1 2>&1 | sed 's/^/out: /'; kill -9 -1; true
";
    let Some(container) = Container::new(&[("Dockerfile", attempts)]) else { return };
    let (ok, text) = container.build("--isolation=chroot", "true");
    let lines = text.lines().filter_map(|line| Some(line.split_once(" out: ")?.1));
    let lines: Vec<&str> = lines.filter(|line| !line.contains("sed ")).collect();
    let said = |what: &str| lines.iter().any(|line| line.contains(what));
    for what in [
        "proc 0",
        "canary 0",
        "others 0",
        "can't change root directory to '/tmp': Operation not permitted",
        "unshare",
        "permission denied (are you root?)",
        "can't open '/disk': Operation not permitted",
    ] {
        assert!(said(what), "{what}: {text}");
    }
    assert!(!said("descriptor"), "{text}");
    // The builder lives: it says how the step ended, which has killed itself at most.
    assert!(ok || text.contains("exit code: 137"), "{text}");
}

#[test]
fn a_user_in_a_container_that_allows_namespaces_builds() {
    let dockerfile = "FROM busybox\nRUN id -u > /a && chown 7:8 /a && mkdir /d && mount | wc -l\n";
    let Some(container) = Container::new(&[("Dockerfile", dockerfile)]) else { return };
    let container = container.of_user(true);
    let (ok, text) = container.build("-o type=oci,dest=/place/out.tar", "id -u");
    assert!(ok, "{text}");
    assert!(
        text.contains("[internal] isolation: single-id (") && text.ends_with("\n1000\n"),
        "{text}"
    );
}

#[test]
fn a_user_in_a_container_that_allows_none_is_told_what_would() {
    let files = [
        ("Dockerfile", "FROM busybox AS copy\nCOPY file /file\nFROM copy\nRUN true\n"),
        ("file", "of the context\n"),
    ];
    let Some(container) = Container::new(&files) else { return };
    let container = container.of_user(false);
    let (ok, text) = container.build("--target=copy -o type=oci,dest=/place/out.tar", "true");
    assert!(ok, "{text}");
    let (ok, text) = container.build("", "echo code $code");
    assert!(!ok && text.contains("\ncode 4\n"), "{text}");
    for part in [
        "RUN is not possible here: not root",
        "help: one of these lifts it: ",
        "--cap-add SYS_CHROOT",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_state_folder_without_devices_is_told_as_such() {
    let files = [("Dockerfile", "FROM busybox\nRUN true\n")];
    let Some(container) = Container::new(&files) else { return };
    // The only file system of a container that takes no devices.
    let (ok, text) = container.build("--root=/dev/shm/state", "echo code $code");
    assert!(!ok && text.contains("\ncode 4\n"), "{text}");
    let expect = "help: the folder is on a file system that takes no devices (`nodev`): choose another with --root";
    assert!(text.contains(expect), "{text}");
}

#[test]
fn without_the_right_to_change_the_root_only_run_is_refused() {
    let files = [
        ("Dockerfile", "FROM busybox AS copy\nCOPY file /file\nFROM copy\nRUN true\n"),
        ("file", "of the context\n"),
    ];
    let Some(container) = Container::new(&files) else { return };
    let container = container.without("CAP_SYS_CHROOT");
    let (ok, text) = container.build("--target=copy -o type=oci,dest=/place/out.tar", "true");
    assert!(ok, "{text}");
    let (ok, text) = container.build("", "echo code $code");
    assert!(!ok && text.contains("\ncode 4\n"), "{text}");
    assert!(text.contains("4 | >>> RUN true"), "{text}");
    assert!(text.contains("no right to change the root directory (CAP_SYS_CHROOT)"), "{text}");
    assert!(text.contains("--cap-add SYS_CHROOT"), "{text}");
}

#[test]
fn other_rights_that_a_step_takes_are_named() {
    let files =
        [("Dockerfile", "FROM busybox AS copy\nCOPY Dockerfile /file\nFROM copy\nRUN true\n")];
    let Some(container) = Container::new(&files) else { return };
    let container = container.without("CAP_MKNOD").without("CAP_SETPCAP");
    let (ok, text) = container.build("--target=copy -o type=oci,dest=/place/out.tar", "true");
    assert!(ok, "{text}");
    let (ok, text) = container.build("", "echo code $code");
    assert!(!ok && text.contains("\ncode 4\n"), "{text}");
    for part in [
        "no right to make `/dev/null` (CAP_MKNOD), to take rights from a step (CAP_SETPCAP)",
        "run the container with `--cap-add MKNOD` and `--cap-add SETPCAP`",
        // Both of what stands in the way of user namespaces.
        "no /proc can be mounted, as parts of this one are hidden",
        "the kernel refuses user namespaces to this process (Operation not permitted (os error 1))",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
