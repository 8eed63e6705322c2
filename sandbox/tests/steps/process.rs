//! What the process of a step is.

use std::path::PathBuf;

use sandbox::{Credentials, Environment, Resource, Rlimit, complete_environment};

use crate::fixture::Step;

pub(crate) fn ids_are_as_asked() {
    let ids = |uid, gid, groups: &[u32]| {
        let user = Credentials { uid, gid, groups: groups.to_vec() };
        Step::script("id -u; id -g; id -G; grep ^Groups /proc/self/status")
            .with(|spec| spec.user = user)
            .run()
            .ok()
    };
    assert_eq!(ids(0, 0, &[0]), "0\n0\n0\nGroups:\t0 \n");
    assert_eq!(ids(1000, 1001, &[1001, 7]), "1000\n1001\n1001 7\nGroups:\t7 1001 \n");
    assert_eq!(ids(1000, 1000, &[]), "1000\n1000\n1000\nGroups:\t \n");
}

pub(crate) fn environment_is_exact() {
    let stage = ["A=first".to_owned(), "B=two\nlines".to_owned(), "A=last".to_owned()];
    let step = Step::exec(&["/bin/env"]).with(|spec| {
        spec.env = complete_environment(&Environment { stage: &stage, ..Default::default() });
    });
    assert_eq!(
        step.run().ok(),
        "B=two\nlines\nA=last\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         HOME=/\n"
    );
}

pub(crate) fn name_and_session() {
    let script = "hostname; cat /proc/sys/kernel/domainname; echo $$; \
                  cut -d' ' -f4-8 /proc/self/stat; ls /proc | grep -c '^[0-9]'";
    let out = Step::script(script).run().ok();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(&lines[..3], ["buildkitsandbox", "", "1"]);
    // Parent, group and session are in the namespace; there is no terminal and no group of one.
    assert_eq!(lines[3], "1 1 1 0 -1");
    // The shell, `ls` and `grep`.
    assert!(lines[4].parse::<u32>().unwrap() <= 3, "{out}");
    let named = Step::exec(&["hostname"]).with(|spec| spec.hostname = "other".to_owned());
    assert_eq!(named.run().ok(), "other\n");
}

pub(crate) fn standard_descriptors_only() {
    // 3 is that of the directory that is being read.
    let out = Step::exec(&["/bin/ls", "/proc/self/fd"]).run().ok();
    assert_eq!(out, "0\n1\n2\n3\n");
    let script = "cat; readlink /proc/self/fd/0; test -t 0 || test -t 1 || echo plain";
    assert_eq!(Step::script(script).run().ok(), "/dev/null\nplain\n");
    let both = Step::script("echo out; echo err >&2").run();
    assert_eq!((&*both.stdout, &*both.stderr), ("out\n", "err\n"));
}

pub(crate) fn output_opens_again_for_the_user() {
    let step = Step::script("echo x > /dev/stdout; echo y > /dev/stderr").with(|spec| {
        spec.user = Credentials { uid: 1000, gid: 1000, groups: vec![] };
    });
    let outcome = step.run();
    assert_eq!((&*outcome.stdout, &*outcome.stderr), ("x\n", "y\n"), "{outcome:?}");
}

pub(crate) fn working_directory() {
    let at = |cwd: &str| {
        let step = Step::exec(&["/bin/pwd"]).with(|spec| spec.cwd = PathBuf::from(cwd));
        fs_err::os::unix::fs::symlink("/usr/../bin", step.upper().join("link")).unwrap();
        fs_err::os::unix::fs::symlink("/proc/self/fd", step.upper().join("fds")).unwrap();
        step.run()
    };
    assert_eq!(at("/etc").ok(), "/etc\n");
    assert_eq!(at("/link").ok(), "/bin\n");
    assert_eq!(
        at("/missing/here").error(),
        "cannot enter the working directory `/missing/here`: No such file or directory (os error 2)"
    );
    // No descriptor of the builder is a way out.
    for number in 0..64 {
        let error = at(&format!("/proc/self/fd/{number}")).error();
        assert!(error.starts_with("cannot enter"), "{error}");
        let error = at(&format!("/fds/{number}")).error();
        assert!(error.starts_with("cannot enter"), "{error}");
    }
}

pub(crate) fn program_lookup() {
    let run = |program: &str, path: &str| {
        let step = Step::exec(&[program]).with(|spec| {
            spec.env = vec![format!("PATH={path}").into()];
        });
        let tools = step.upper().join("opt/tools");
        fs_err::create_dir_all(&tools).unwrap();
        let file = |name: &str, text: &str, mode| {
            let path = tools.join(name);
            fs_err::write(&path, text).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs_err::set_permissions(path, mode).unwrap();
        };
        file("tool", "#!/bin/sh\necho found\n", 0o755);
        file("plain", "#!/bin/sh\n", 0o644);
        file("garbage", "no program\n", 0o755);
        file("orphan", "#!/no/such/interpreter\n", 0o755);
        step.run()
    };
    assert_eq!(run("tool", "/bin:/opt/tools").ok(), "found\n");
    assert_eq!(run("/opt/tools/tool", "").ok(), "found\n");
    let error = |program, expect: &str| assert_eq!(run(program, "/opt/tools").error(), expect);
    error("nowhere", "exec: \"nowhere\": executable file not found in $PATH");
    error("plain", "exec: \"plain\": executable file not found in $PATH");
    error("/nowhere", "exec: \"/nowhere\": stat /nowhere: no such file or directory");
    error("/opt/tools/plain", "exec: \"/opt/tools/plain\": permission denied");
    error("/opt/tools", "exec: \"/opt/tools\": is a directory");
    error("garbage", "exec: \"garbage\": exec format error");
    let orphan = run("orphan", "/opt/tools").error();
    assert!(orphan.starts_with("exec: \"orphan\": no such file or directory"), "{orphan}");
    assert_eq!(
        run("", "/bin").error(),
        "the empty command of the step cannot be handed to a process"
    );
}

pub(crate) fn limits() {
    let step = Step::script("ulimit -n; ulimit -Hn").with(|spec| {
        let resource = Resource::Nofile;
        spec.rlimits = vec![Rlimit { resource, soft: Some(64), hard: Some(128) }];
    });
    assert_eq!(step.run().ok(), "64\n128\n");
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap();
    assert_eq!(Step::script("ulimit -n").run().ok(), format!("{own}\n"));
}

pub(crate) fn umask_is_022() {
    assert_eq!(Step::script("umask; touch /f; stat -c %a /f").run().ok(), "0022\n644\n");
}

pub(crate) fn signals_are_default() {
    let out = Step::exec(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).run().ok();
    assert_eq!(out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}
