//! The tree that a step sees, and what is left of it.

use fs_err::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use sandbox::{Credentials, Mount, MountKind, Root, SandboxError};

use crate::fixture::{Step, fixture, folder};

fn mount(target: &str, readonly: bool, kind: MountKind) -> Mount {
    Mount { target: target.into(), readonly, kind }
}

fn bind(source: &Path, sub: &str) -> MountKind {
    MountKind::Bind { source: source.to_owned(), sub: sub.into() }
}

/// Makes a folder with one file and returns it.
fn layer(at: &Path, name: &str, file: &str, text: &str) -> PathBuf {
    let layer = at.join(name);
    let file = layer.join(file);
    fs_err::create_dir_all(file.parent().unwrap()).unwrap();
    fs_err::write(file, text).unwrap();
    layer
}

pub(crate) fn standard_mounts() {
    let out = Step::exec(&["/bin/cat", "/proc/self/mounts"]).run().ok();
    let options = |target: &str, kind: &str| {
        let mut line = out.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = line.rfind(|line| line[1] == target && line[2] == kind);
        found.unwrap_or_else(|| panic!("no {kind} at {target}: {out}"))[3].to_owned()
    };
    for (target, kind, expect) in [
        ("/proc", "proc", "rw,nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "rw,nosuid,nodev,size=65536k,mode=755"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec,relatime,size=65536k"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("/etc/hosts", "tmpfs", "ro,nosuid,nodev,noexec"),
        ("/etc/resolv.conf", "tmpfs", "ro,nosuid,nodev,noexec"),
        ("/", "overlay", "rw,nodev"),
    ] {
        let options = options(target, kind);
        assert!(options.starts_with(expect), "{target}: {options}");
    }
    // The machine's own tree and the builder's paths are not to be seen.
    let folder = fixture().image.parent().unwrap().to_str().unwrap();
    assert!(!out.contains(folder) && !out.contains("ext4"), "{out}");
    let size = Step::script("df -k /dev/shm | tail -n 1").with(|spec| spec.shm_size = 1 << 20);
    assert!(size.run().ok().contains(" 1024 "));
}

pub(crate) fn etc_files_are_read_only() {
    let script = "cat /etc/hosts /etc/resolv.conf; echo x > /etc/hosts; rm /etc/resolv.conf";
    let outcome = Step::script(script).run();
    assert_eq!(outcome.stdout, "127.0.0.1\tlocalhost\nnameserver 10.9.8.7\n");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert!(outcome.stderr.contains("Resource busy") || outcome.stderr.contains("busy"));
    assert_ne!(outcome.result.unwrap().code, 0);
}

pub(crate) fn layer_has_only_changes() {
    let step =
        Step::script("mkdir -p /a/b /run; echo 1 > /a/b/c; echo 2 > /run/x; echo 3 > /dev/y");
    step.run().ok();
    let mut names = Vec::new();
    walk(&step.upper(), Path::new(""), &mut names);
    names.retain(|name| !name.starts_with("etc"));
    assert_eq!(names, ["a", "a/b", "a/b/c", "run", "run/x"]);
    assert_eq!(fs_err::read(step.upper().join("etc/hosts")).unwrap(), b"");
}

fn walk(root: &Path, at: &Path, names: &mut Vec<String>) {
    let mut entries: Vec<_> =
        fs_err::read_dir(root.join(at)).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let name = at.join(entry.file_name());
        names.push(name.to_str().unwrap().to_owned());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &name, names);
        }
    }
}

pub(crate) fn device_nodes() {
    let script = "cd /dev; ls; stat -c '%a %t:%T %n' null zero full random urandom tty; \
                  for link in fd stdin ptmx; do readlink $link; done; head -c 2 zero | wc -c; test ! -e console";
    let out = Step::script(script).run().ok();
    assert_eq!(
        out,
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n\
         urandom\nzero\n666 1:3 null\n666 1:5 zero\n666 1:7 full\n666 1:8 random\n\
         666 1:9 urandom\n666 5:0 tty\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n2\n"
    );
}

pub(crate) fn bind_mounts() {
    let at = folder();
    let source = layer(at.path(), "source", "sub/file", "text\n");
    let script = "cat /ro/sub/file /sub/file; echo new > /ro/x; echo new > /rw/y";
    let step = Step::script(script).with(|spec| {
        spec.mounts = vec![
            mount("/rw", false, bind(&source, "")),
            mount("/ro", true, bind(&source, "")),
            mount("/sub/", true, bind(&source, "sub")),
        ];
    });
    let outcome = step.run();
    assert_eq!(outcome.stdout, "text\ntext\n");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(fs_err::read(source.join("y")).unwrap(), b"new\n");
    assert!(!source.join("x").exists());
}

pub(crate) fn bind_source_stays_inside() {
    let at = folder();
    let source = layer(at.path(), "source", "etc/canary", "inside\n");
    layer(at.path(), "", "canary", "outside\n");
    symlink("/", source.join("root")).unwrap();
    symlink("../../..", source.join("up")).unwrap();
    symlink("/proc/self/root", source.join("magic")).unwrap();
    for sub in ["root", "up", "up/..", "../.."] {
        let step = Step::exec(&["/bin/cat", "/m/etc/canary"]).with(|spec| {
            spec.mounts = vec![mount("/m", true, bind(&source, sub))];
        });
        assert_eq!(step.run().ok(), "inside\n", "{sub}");
    }
    let step = Step::script("ls /m").with(|spec| {
        spec.mounts = vec![mount("/m", true, bind(&source, "magic"))];
    });
    step.run().error();
}

/// A place below a mount source that turns into a link to the machine's root and back.
pub(crate) fn racing_links_stay_inside() {
    let at = folder();
    let source = layer(at.path(), "source", "place/canary", "inside\n");
    layer(&source, "", "canary", "inside\n");
    symlink("/", source.join("other")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (place, other) = (source.join("place"), source.join("other"));
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &place, CWD, &other, exchange).unwrap();
            }
        });
        for _ in 0..200 {
            let step = Step::exec(&["/bin/cat", "/m/canary"]).with(|spec| {
                spec.mounts = vec![mount("/m", true, bind(&source, "place"))];
            });
            // A lookup that loses the race may fail; it may not find anything else.
            let outcome = step.run();
            if outcome.result.is_ok() && outcome.stdout != "inside\n" {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
                panic!("{outcome:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// A place in a mount that others write too, as a shared cache mount is, turns into links to the machine's files while
/// something is mounted below it.
pub(crate) fn racing_targets_stay_inside() {
    let at = folder();
    let (shared, outside) = (at.path().join("shared"), at.path().join("outside"));
    for folder in [&shared, &shared.join("place"), &outside] {
        fs_err::create_dir(folder).unwrap();
    }
    symlink(&outside, shared.join("other")).unwrap();
    let source = layer(at.path(), "source", "file", "text\n");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (place, other) = (shared.join("place"), shared.join("other"));
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &place, CWD, &other, exchange).unwrap();
            }
        });
        for number in 0..100 {
            let step = Step::exec(&["/bin/true"]).with(|spec| {
                let deep = format!("/c/place/{number}");
                spec.mounts = vec![
                    mount("/c", false, bind(&shared, "")),
                    mount(&format!("{deep}/folder"), true, bind(&source, "")),
                    mount(&format!("{deep}-file"), true, bind(&source, "file")),
                ];
            });
            // A lookup that loses the race may fail, or lead to the place of that name in the root.
            let _ = step.run();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

pub(crate) fn overlay_mounts() {
    let at = folder();
    let lowers =
        vec![layer(at.path(), "1", "d/low", "low\n"), layer(at.path(), "2", "d/high", "high\n")];
    let path = |name: &str| {
        fs_err::create_dir(at.path().join(name)).unwrap();
        at.path().join(name)
    };
    let writable = Some((path("upper"), path("work")));
    let overlay = |lowers: &[PathBuf], sub: &str, writable| MountKind::Overlay {
        lowers: lowers.to_vec(),
        sub: sub.into(),
        writable,
    };
    let script = "cat /ro/d/low /ro/d/high /one/d/low /sub/low /file; \
                  echo new > /rw/d/low; cat /rw/d/low; echo x > /ro/x";
    let step = Step::script(script).with(|spec| {
        spec.mounts = vec![
            mount("/ro", true, overlay(&lowers, "", None)),
            mount("/one", true, overlay(&lowers[..1], "", None)),
            mount("/sub", true, overlay(&lowers, "d", None)),
            mount("/file", true, overlay(&lowers, "d/high", None)),
            mount("/rw", false, overlay(&lowers, "", writable)),
        ];
    });
    let outcome = step.run();
    assert_eq!(outcome.stdout, "low\nhigh\nlow\nlow\nhigh\nnew\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(fs_err::read(lowers[0].join("d/low")).unwrap(), b"low\n");
    assert_eq!(fs_err::read(at.path().join("upper/d/low")).unwrap(), b"new\n");
}

pub(crate) fn tmpfs_and_secrets() {
    let secret = vec![b's'; 500 << 10];
    let script = "stat -c '%a %u %g %s' /run/secrets/big; md5sum < /run/secrets/big; \
                  echo x > /run/secrets/big; df -k /scratch | tail -n 1; echo y > /scratch/y; \
                  grep -E ' /(run/secrets/big|scratch) ' /proc/self/mounts";
    let step = Step::script(script).with(|spec| {
        let contents = secret.clone();
        let file = MountKind::File { contents: contents.into(), mode: 0o440, uid: 5, gid: 6 };
        spec.mounts = vec![
            mount("/run/secrets/big", true, file),
            mount("/scratch", false, MountKind::Tmpfs { size: 2 << 20 }),
        ];
    });
    let outcome = step.run();
    assert!(outcome.stdout.starts_with("440 5 6 512000\n"), "{outcome:?}");
    assert!(outcome.stdout.contains(" 2048 "), "{outcome:?}");
    assert!(outcome.stdout.contains("/run/secrets/big tmpfs ro,nosuid,nodev,noexec"));
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    // Only the place that it was put over is on the disk.
    assert_eq!(fs_err::metadata(step.upper().join("run/secrets/big")).unwrap().len(), 0);
    assert!(!step.upper().join("scratch/y").exists());
}

pub(crate) fn targets_are_made_inside_other_mounts() {
    let at = folder();
    let source = layer(at.path(), "source", "file", "text\n");
    let step = Step::script("cat /dev/deep/er/file /t/x/y").with(|spec| {
        spec.mounts = vec![
            mount("/t/x/y", true, bind(&source, "file")),
            mount("/t", false, MountKind::Tmpfs { size: 0 }),
            mount("/dev/deep/er", true, bind(&source, "")),
        ];
    });
    assert_eq!(step.run().ok(), "text\ntext\n");
}

pub(crate) fn links_in_the_root_stay_inside() {
    let at = folder();
    let source = layer(at.path(), "source", "file", "text\n");
    let outside = at.path().join("outside");
    fs_err::create_dir(&outside).unwrap();
    let step = Step::script("ls /inner; cat /inner/file").with(|spec| {
        spec.mounts = vec![mount("/link", true, bind(&source, ""))];
    });
    // Both lead to the step's own directories.
    symlink("../../../inner", step.upper().join("link")).unwrap();
    fs_err::create_dir(step.upper().join("inner")).unwrap();
    assert_eq!(step.run().ok(), "file\ntext\n");

    let step = Step::script("true");
    symlink(&outside, step.upper().join("proc")).unwrap();
    let error = step.run().error();
    assert!(error.starts_with("cannot mount `/proc`"), "{error}");
}

pub(crate) fn many_layers() {
    let at = folder();
    let mut lowers = vec![fixture().image.clone()];
    lowers.extend(
        (1..500)
            .map(|number| layer(at.path(), &number.to_string(), &format!("many/{number}"), "x")),
    );
    let step = Step::script("ls /many | wc -l").with(|spec| {
        let Root::Overlay { lowers: below, .. } = &mut spec.root else { unreachable!() };
        *below = lowers;
    });
    assert_eq!(step.run().ok(), "499\n");
}

pub(crate) fn too_many_layers() {
    let step = Step::script("true").with(|spec| {
        let Root::Overlay { lowers, .. } = &mut spec.root else { unreachable!() };
        *lowers = vec![fixture().image.clone(); 501];
    });
    let outcome = step.run();
    assert!(
        matches!(outcome.result, Err(SandboxError::TooManyLayers { count: 501, max: 500 })),
        "{outcome:?}"
    );
}

pub(crate) fn long_layer_paths() {
    let at = folder();
    let name = format!("{}/with:a,b\\c", "long".repeat(60));
    let lower = layer(&at.path().join(&name), "layer", "found", "text\n");
    let step = Step::exec(&["/bin/cat", "/found"]).with(|spec| {
        let Root::Overlay { lowers, .. } = &mut spec.root else { unreachable!() };
        lowers.push(lower);
    });
    assert_eq!(step.run().ok(), "text\n");
}

pub(crate) fn user_mount_replaces_standard() {
    let at = folder();
    let source = layer(at.path(), "source", "file", "mine\n");
    let script =
        "cat /etc/hosts; grep -c ' /dev/shm ' /proc/self/mounts; df -k /dev/shm | tail -n 1";
    let step = Step::script(script).with(|spec| {
        spec.mounts = vec![
            mount("/etc/hosts", true, bind(&source, "file")),
            mount("/dev/shm", false, MountKind::Tmpfs { size: 3 << 20 }),
        ];
    });
    let out = step.run().ok();
    assert!(out.starts_with("mine\n1\n") && out.contains(" 3072 "), "{out}");
}

pub(crate) fn folder_as_root() {
    let at = folder();
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").arg(&fixture().image).arg(at.path()).status().unwrap().success());
    let root = at.path().join("image");
    let step = Step::script("echo text > /written; id -u").with(|spec| {
        spec.root = Root::Dir(root.clone());
        spec.user = Credentials::default();
    });
    assert_eq!(step.run().ok(), "0\n");
    assert_eq!(fs_err::read(root.join("written")).unwrap(), b"text\n");
}

pub(crate) fn missing_source_is_named() {
    let at = folder();
    let source = layer(at.path(), "source", "file", "");
    let step = Step::script("true").with(|spec| {
        spec.mounts = vec![mount("/m", true, bind(&source, "no/such"))];
    });
    assert_eq!(
        step.run().error(),
        "cannot find the mount source `no/such`: No such file or directory (os error 2)"
    );
}

pub(crate) fn no_mount_is_left() {
    let mounts = || fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    Step::script("true").run().ok();
    assert_eq!(mounts(), before);
}
