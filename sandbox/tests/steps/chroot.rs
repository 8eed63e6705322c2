//! Steps without namespaces and mounts.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{
    Cancel, Credentials, Environment, Mount, MountKind, Network, Root, Sandbox, SandboxError,
    Security, Spec, Tier, complete_environment,
};
use tempfile::TempDir;

use crate::fixture::{Outcome, fixture, folder, kill_builder};

/// The first argument by which this binary, inside a step, tries to get out.
pub(crate) const ESCAPE: &str = "chroot-escape";

/// The first argument by which this binary runs an endless step.
pub(crate) const HANGING_BUILDER: &str = "chroot-hanging-builder";

fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::start_for(Tier::Chroot).unwrap())
}

/// A step in a copy of the image.
struct Step {
    spec: Spec,
    folder: TempDir,
}

impl Step {
    fn exec(args: &[&str]) -> Self {
        let folder = folder();
        let root = folder.path().join("root");
        let done = Command::new("cp").arg("-a").arg(&fixture().image).arg(&root).status();
        assert!(done.unwrap().success());
        fs_err::create_dir_all(root.join("etc")).unwrap();
        for name in ["etc/hosts", "etc/resolv.conf"] {
            fs_err::write(root.join(name), "of the image\n").unwrap();
        }
        for name in ["proc", "sys", "dev"] {
            fs_err::create_dir_all(root.join(name)).unwrap();
        }
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut spec = Spec::new(Root::Dir(root), args);
        spec.tier = Tier::Chroot;
        spec.env = complete_environment(&Environment::default());
        spec.hosts = b"127.0.0.1\tlocalhost\n".to_vec();
        spec.resolv_conf = b"nameserver 10.9.8.7\n".to_vec();
        Self { spec, folder }
    }

    fn script(script: &str) -> Self {
        Self::exec(&["/bin/sh", "-c", script])
    }

    fn with(mut self, change: impl FnOnce(&mut Spec)) -> Self {
        change(&mut self.spec);
        self
    }

    fn mount(self, target: &str, kind: MountKind) -> Self {
        let mount = Mount { target: target.into(), readonly: false, kind };
        self.with(|spec| spec.mounts.push(mount))
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn run(&self) -> Outcome {
        self.run_in(sandbox(), &Cancel::new().unwrap())
    }

    fn run_in(&self, sandbox: &Sandbox, cancel: &Cancel) -> Outcome {
        let outcome = Outcome::of(&self.spec, sandbox, cancel);
        // The folder is the caller's to remove.
        let _ = fs_err::remove_dir_all(self.folder.path().join("aside"));
        outcome
    }
}

/// Everything in a folder with what a later step could see of it.
fn listing(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        let own = fs_err::symlink_metadata(&at).unwrap();
        let name = at.strip_prefix(folder).unwrap().display().to_string();
        let time = (own.mtime(), own.mtime_nsec());
        found.push(format!(
            "{name} {:o} {}:{} {} {time:?}",
            own.mode(),
            own.uid(),
            own.gid(),
            own.ino()
        ));
        if own.is_dir() {
            open.extend(fs_err::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Processes whose command line holds a word that nothing else has.
fn processes(word: &str) -> usize {
    let lines = fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path().join("cmdline");
        Some(String::from_utf8_lossy(&fs_err::read(path).ok()?).into_owned())
    });
    lines.filter(|line| line.contains(word)).count()
}

/// Waits until as many processes of a step sleep.
#[track_caller]
fn await_sleeping(word: &str, count: usize) {
    let begin = Instant::now();
    while processes(&format!("sleep\0{word}")) < count {
        assert!(begin.elapsed() < Duration::from_secs(20), "{word}: the step does not come up");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn expect_none(word: &str) {
    let begin = Instant::now();
    while processes(word) > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "{word}: processes are left");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn a_step_finds_its_tree_and_little_else() {
    let script = "id -u; pwd; umask; ls /proc /sys; cat /etc/hosts /etc/resolv.conf; \
                  echo x > /dev/null && head -c 4 /dev/zero | wc -c; ls -l /dev/tty; \
                  test -w /dev/shm && echo shared; cat; echo $$ > /pid";
    let out = Step::script(script).run().ok();
    let expect = "0\n/\n0022\n/proc:\n\n/sys:\n127.0.0.1\tlocalhost\nnameserver 10.9.8.7\n4\n";
    assert!(out.starts_with(expect), "{out}");
    assert!(out.contains("5,   0") && out.ends_with("shared\n"), "{out}");
    let user = Credentials { uid: 1000, gid: 1001, groups: vec![1001, 7] };
    let step = Step::script("id; touch /tmp/x; touch /x").with(|spec| spec.user = user);
    let outcome = step.run().fails_with(1);
    assert_eq!(outcome.stdout, "uid=1000 gid=1001 groups=7,1001\n");
}

pub(crate) fn nothing_is_left_in_the_tree() {
    let step = Step::script(
        "touch /dev/shm/a /dev/b; mkdir /proc/c 2>/dev/null; chmod 755 /proc; mkdir /proc/d; \
         echo x > /t/file; echo 1",
    )
    .mount("/t", MountKind::Tmpfs { size: 0 });
    fs_err::create_dir(step.root().join("t")).unwrap();
    let before = listing(&step.root());
    assert_eq!(step.run().ok(), "1\n");
    assert_eq!(listing(&step.root()), before);
    // What the step itself does in a folder of which something was covered counts.
    let step = Step::script("echo 2 > /etc/new; touch -d @1000 /etc");
    step.run().ok();
    let etc = fs_err::metadata(step.root().join("etc")).unwrap();
    assert_eq!(etc.mtime(), 1000);
    let hosts = fs_err::read_to_string(step.root().join("etc/hosts")).unwrap();
    assert_eq!(hosts, "of the image\n");
}

pub(crate) fn exit_codes() {
    Step::script("exit 3").run().fails_with(3);
    Step::script("kill -9 $$").run().fails_with(137);
    let error = Step::exec(&["no-such-program"]).run().error();
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    let error = Step::script("true").with(|spec| spec.cwd = "/nowhere".into()).run().error();
    assert!(error.contains("working directory `/nowhere`"), "{error}");
}

pub(crate) fn what_is_left_running_dies() {
    let word = format!("31{}", std::process::id());
    let script = format!(
        "(trap '' TERM HUP INT; setsid sleep {word} & setsid sh -c 'sleep {word} & sleep {word}' &) ; \
         sleep {word} & sleep 0.1; echo done"
    );
    assert_eq!(Step::script(&script).run().ok(), "done\n");
    assert_eq!(processes(&word), 0);
}

/// Processes that go on making others are outrun.
pub(crate) fn many_processes_die() {
    let word = format!("32{}", std::process::id());
    let script = format!(
        "breed() {{ while :; do (sleep {word} &); (breed &); sleep 0.05; done; }}; breed & sleep 0.4"
    );
    let step = Step::script(&script).with(|spec| {
        // Of a user of its own, so that the limit counts nothing else.
        spec.user = Credentials { uid: 54321, gid: 54321, groups: Vec::new() };
        let resource = sandbox::Resource::Nproc;
        spec.rlimits.push(sandbox::Rlimit { resource, soft: Some(300), hard: Some(300) });
    });
    let _ = step.run();
    assert_eq!(processes(&word), 0);
}

pub(crate) fn cancel_is_immediate() {
    let word = format!("33{}", std::process::id());
    let step = Step::script(&format!("trap '' TERM; sleep {word} & sleep {word}"));
    let cancel = Cancel::new().unwrap();
    thread::scope(|scope| {
        let run = scope.spawn(|| step.run_in(sandbox(), &cancel));
        await_sleeping(&word, 2);
        let begin = Instant::now();
        cancel.cancel();
        let outcome = run.join().unwrap();
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
        assert!(matches!(outcome.result, Err(SandboxError::Cancelled)), "{outcome:?}");
    });
    assert_eq!(processes(&word), 0);
}

/// The number of a process by what its status file says.
fn process_with(test: impl Fn(&str) -> bool) -> Option<Pid> {
    let all = fs_err::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let status = fs_err::read_to_string(path.join("status")).ok()?;
        Some((path.file_name()?.to_str()?.parse().ok()?, status))
    });
    all.into_iter()
        .find(|(_, status): &(i32, String)| test(status))
        .and_then(|it| Pid::from_raw(it.0))
}

pub(crate) fn keeper_death_ends_the_step() {
    let word = format!("34{}", std::process::id());
    let sandbox = Sandbox::start_for(Tier::Chroot).unwrap();
    let zygote = format!("PPid:\t{}\n", sandbox.helper_id());
    let step = Step::script(&format!("setsid sleep {word} & sleep {word}"));
    thread::scope(|scope| {
        let run = scope.spawn(|| step.run_in(&sandbox, &Cancel::new().unwrap()));
        await_sleeping(&word, 2);
        let keeper = process_with(|status| status.contains(&zygote)).unwrap();
        kill_process(keeper, Signal::KILL).unwrap();
        let outcome = run.join().unwrap();
        assert!(matches!(&outcome.result, Ok(exit) if exit.code == 137), "{outcome:?}");
    });
    expect_none(&word);
    // The next one is not disturbed.
    assert_eq!(Step::script("echo on").run_in(&sandbox, &Cancel::new().unwrap()).ok(), "on\n");
}

pub(crate) fn zygote_death_ends_the_step() {
    let word = format!("35{}", std::process::id());
    let sandbox = Sandbox::start_for(Tier::Chroot).unwrap();
    let step = Step::script(&format!("setsid sleep {word} & sleep {word}"));
    thread::scope(|scope| {
        let run = scope.spawn(|| step.run_in(&sandbox, &Cancel::new().unwrap()));
        await_sleeping(&word, 2);
        let zygote = Pid::from_raw(sandbox.helper_id().cast_signed()).unwrap();
        kill_process(zygote, Signal::KILL).unwrap();
        let outcome = run.join().unwrap();
        assert!(matches!(outcome.result, Err(SandboxError::HelperLost)), "{outcome:?}");
    });
    expect_none(&word);
}

pub(crate) fn builder_death_ends_the_step() {
    let word = format!("36{}", std::process::id());
    let step = Step::script(&format!("setsid sleep {word} & echo ready; sleep {word}"));
    let mut builder = Command::new("/proc/self/exe");
    builder.args([HANGING_BUILDER, &step.root().to_string_lossy(), &step.spec.args[2]]);
    // Every process of the step holds the pipe until it is dead.
    kill_builder(&mut builder);
    expect_none(&word);
}

/// Runs an endless step with this process's own output.
pub(crate) fn hanging_builder() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    let mut spec = Spec::new(
        Root::Dir(PathBuf::from(&arguments[0])),
        vec!["/bin/sh".to_owned(), "-c".to_owned(), arguments[1].clone()],
    );
    spec.tier = Tier::Chroot;
    spec.env = vec!["PATH=/bin".into()];
    let output = || rustix::io::dup(std::io::stdout()).unwrap();
    let sandbox = Sandbox::start_for(Tier::Chroot).unwrap();
    let end = sandbox.run(&spec, output(), output(), &Cancel::new().unwrap());
    eprintln!("the endless step ended: {end:?}");
    ExitCode::FAILURE
}

/// The version of Landlock that the kernel has; 0 is none.
fn landlock() -> i64 {
    // SAFETY: with the flag for the version no attributes are read.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, 1) }.max(0)
}

pub(crate) fn nobody_gets_out() {
    let name = format!("bricklayer-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let own = std::process::id().to_string();
    let step = Step::exec(&["/probe", ESCAPE, &own, &name]);
    fs_err::copy(std::env::current_exe().unwrap(), step.root().join("probe")).unwrap();
    let out = step.run().ok();
    let mut expect = String::new();
    for (name, number) in [
        ("chroot", libc::EPERM),
        ("unshare", libc::EPERM),
        ("setns", libc::EPERM),
        ("mount", libc::EPERM),
        ("pivot_root", libc::EPERM),
        ("open_by_handle_at", libc::EPERM),
        ("ptrace builder", libc::EPERM),
        ("read builder", libc::EPERM),
        ("ptrace parent", libc::EPERM),
        ("read parent", libc::EPERM),
    ] {
        expect.push_str(&format!("{name} {number}\n"));
    }
    expect.push_str("descriptors 0\nroot is top true\nno_new_privs 1\n");
    assert!(out.starts_with(&expect), "{out}\nnot\n{expect}");
    if landlock() < 6 {
        println!("SKIP: the kernel's Landlock knows neither signals nor abstract sockets");
        return;
    }
    let rest = format!(
        "signal builder {0}\nsignal parent {0}\nsignal all {0}\nabstract socket {0}\n",
        libc::EPERM
    );
    assert_eq!(out[expect.len()..], rest, "{out}");
}

/// Inside a step: tries to get out, and prints what the kernel says.
pub(crate) fn try_to_get_out(arguments: &[String]) -> ExitCode {
    let builder: i64 = arguments[1].parse().unwrap();
    let parent: i64 = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().into());
    let tell = |name: &str, result: i64| {
        let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        println!("{name} {}", if result >= 0 { 0 } else { error });
    };
    let mut byte = 0_u8;
    let own = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let other = libc::iovec { iov_base: (&raw const own) as *mut libc::c_void, iov_len: 1 };
    let call = |number: i64, a: i64, b: i64, c: i64| {
        // SAFETY: the pointers among the arguments, here and below, are of C strings and of structures that live.
        unsafe { libc::syscall(number, a, b, c, 0, 0, 0) }
    };
    let text = |text: &'static std::ffi::CStr| text.as_ptr() as i64;
    tell("chroot", call(libc::SYS_chroot, text(c"/tmp"), 0, 0));
    tell("unshare", call(libc::SYS_unshare, i64::from(libc::CLONE_NEWUSER), 0, 0));
    tell("setns", call(libc::SYS_setns, 0, 0, 0));
    tell("mount", call(libc::SYS_mount, text(c"x"), text(c"/tmp"), text(c"tmpfs")));
    tell("pivot_root", call(libc::SYS_pivot_root, text(c"."), text(c"."), 0));
    tell("open_by_handle_at", call(libc::SYS_open_by_handle_at, 0, 0, 0));
    for (name, process) in [("builder", builder), ("parent", parent)] {
        let seize = i64::from(libc::PTRACE_SEIZE);
        tell(&format!("ptrace {name}"), call(libc::SYS_ptrace, seize, process, 0));
        // SAFETY: both lists have one entry and live as long as the call.
        let read = unsafe {
            libc::syscall(
                libc::SYS_process_vm_readv,
                process,
                &raw const own,
                1,
                &raw const other,
                1,
                0,
            )
        };
        tell(&format!("read {name}"), read);
    }
    let open = (3..1024).filter(|fd| call(libc::SYS_fcntl, *fd, libc::F_GETFD.into(), 0) >= 0);
    println!("descriptors {}", open.count());
    let inode = |path: &str| fs_err::metadata(path).unwrap().ino();
    println!("root is top {}", inode("/") == inode("/../../.."));
    let privileges = i64::from(libc::PR_GET_NO_NEW_PRIVS);
    println!("no_new_privs {}", call(libc::SYS_prctl, privileges, 0, 0));
    tell("signal builder", call(libc::SYS_kill, builder, 0, 0));
    tell("signal parent", call(libc::SYS_kill, parent, 0, 0));
    tell("signal all", call(libc::SYS_kill, 1, 0, 0));
    let address = SocketAddr::from_abstract_name(&arguments[2]).unwrap();
    let code =
        UnixStream::connect_addr(&address).map_or_else(|error| error.raw_os_error(), |_| Some(0));
    println!("abstract socket {}", code.unwrap_or(0));
    ExitCode::SUCCESS
}

pub(crate) fn moved_folders_come_back() {
    let step = Step::script("cat /c/old; echo 2 > /c/new; test -L /c || echo here");
    let (source, note) = (step.folder.path().join("cache"), step.folder.path().join("note"));
    fs_err::create_dir(&source).unwrap();
    fs_err::write(source.join("old"), "1\n").unwrap();
    let inode = fs_err::metadata(&source).unwrap().ino();
    let kind = || MountKind::Moved { source: source.clone(), note: Some(note.clone()) };
    let step = step.mount("/c", kind());
    assert_eq!(step.run().ok(), "1\nhere\n");
    assert_eq!(fs_err::read_to_string(source.join("new")).unwrap(), "2\n");
    assert_eq!(fs_err::metadata(&source).unwrap().ino(), inode);
    assert!(!note.is_symlink() && !step.root().join("c").exists());

    // While it is away the note says where it is.
    let cancel = Cancel::new().unwrap();
    let waiting = step.with(|spec| spec.args[2] = "sleep 1000".to_owned());
    thread::scope(|scope| {
        let run = scope.spawn(|| waiting.run_in(sandbox(), &cancel));
        while !fs_err::read_link(&note).is_ok_and(|place| place.join("old").exists()) {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!source.exists());
        cancel.cancel();
        run.join().unwrap();
    });
    assert!(source.join("old").exists() && !note.is_symlink());

    // A step that takes it away finds it empty the next time, as a mount that was emptied.
    let gone = waiting.with(|spec| spec.args[2] = "rm -r /c; ln -s /etc /c".to_owned());
    let outcome = gone.run();
    assert!(outcome.stderr.contains("WARNING: the step moved or removed `/c`"), "{outcome:?}");
    assert_eq!(fs_err::read_dir(&source).unwrap().count(), 0);
    assert!(gone.root().join("etc").is_dir() && !note.is_symlink());
}

pub(crate) fn secrets_do_not_stay() {
    let contents = format!("hush-{}", std::process::id()).into_bytes();
    let kind = MountKind::File { contents: contents.clone().into(), mode: 0o400, uid: 7, gid: 8 };
    let step = Step::script("cat /run/secrets/s; stat -c ' %a %u %g' /run/secrets/s")
        .mount("/run/secrets/s", kind);
    fs_err::create_dir_all(step.root().join("run/secrets")).unwrap();
    let expect = format!("{} 400 7 8\n", String::from_utf8_lossy(&contents));
    assert_eq!(step.run().ok(), expect);
    let secret = String::from_utf8_lossy(&contents).into_owned();
    let found = Command::new("grep").args(["-rlF", &secret]).arg(step.folder.path()).output();
    let found = found.unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

pub(crate) fn links_in_the_tree_stay_inside() {
    let outside = folder();
    let file = outside.path().join("hosts");
    fs_err::write(&file, "of the machine").unwrap();
    let step = Step::script("cat /etc/hosts");
    let etc = step.root().join("etc");
    fs_err::remove_dir_all(&etc).unwrap();
    std::os::unix::fs::symlink(outside.path(), &etc).unwrap();
    let outcome = step.run();
    assert!(!outcome.stdout.contains("machine"), "{outcome:?}");
    assert_eq!(fs_err::read_to_string(&file).unwrap(), "of the machine");
    assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 1);
    // A socket goes where it is wanted, and nowhere else.
    let socket = outside.path().join("agent");
    let _listener = UnixListener::bind(&socket).unwrap();
    let kind = MountKind::Bind { source: socket.clone(), sub: PathBuf::new() };
    let step = Step::script("test -S /agent && echo socket").mount("/agent", kind);
    assert_eq!(step.run().ok(), "socket\n");
    assert!(fs_err::metadata(&socket).unwrap().file_type().is_socket());
    assert!(!step.root().join("agent").exists());
}

pub(crate) fn changed_files_of_the_builder_are_told() {
    let outcome = Step::script("echo 10.1.1.1 own >> /etc/hosts; rm /etc/resolv.conf").run();
    for name in ["hosts", "resolv.conf"] {
        let expect = format!("WARNING: the step changed `/etc/{name}`, which is the builder's");
        assert!(outcome.stderr.contains(&expect), "{outcome:?}");
    }
    assert_eq!(Step::script("true").run().stderr, "");
}

pub(crate) fn what_cannot_be_given_is_refused() {
    let error = Step::script("true").with(|spec| spec.network = Network::None).run().error();
    assert!(error.contains("a network of its own"), "{error}");
    let error = Step::script("true").with(|spec| spec.security = Security::Insecure).run().error();
    assert!(error.contains("all rights"), "{error}");
    let kind = MountKind::Bind { source: fixture().image.clone(), sub: PathBuf::new() };
    let step = Step::script("true").mount("/m", kind);
    let before = listing(&step.root());
    let error = step.run().error();
    assert!(error.contains("a mount of folders"), "{error}");
    assert_eq!(listing(&step.root()), before);
    assert_eq!(step.root().metadata().unwrap().permissions().mode() & 0o777, 0o755);
}
