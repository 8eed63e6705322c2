use super::*;

const MOUNTS: &str = "\
25 1 0:22 / / rw - ext4 /dev/vda rw
30 25 0:26 / MOUNT/unified rw,nosuid shared:9 master:1 - cgroup2 cgroup2 rw
31 25 0:27 / MOUNT/memory rw shared:8 - cgroup cgroup rw,memory
32 25 0:28 /docker/abc MOUNT/cpu,cpuset rw - cgroup cgroup rw,cpu,cpuset
33 25 0:29 / MOUNT/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

const OWN: &str = "\
4:memory:/a/b
3:cpuset,cpu:/docker/abc/x
2:name=systemd:/user
0::/own
";

/// A machine whose groups are folders of a temporary one.
fn machine(mounts: &str, own: &str, folder: &Path) -> Cgroups {
    let mounts = mounts.replace("MOUNT", folder.to_str().unwrap());
    Cgroups { hierarchies: find::hierarchies(&mounts, own) }
}

fn all() -> Resources {
    Resources {
        memory: Some(1 << 20),
        memory_swap: Some(3 << 20),
        cpu_shares: Some(1024),
        cpu_period: Some(50_000),
        cpu_quota: Some(25_000),
        cpuset_cpus: Some("0-1".to_owned()),
        cpuset_mems: Some("0".to_owned()),
        pids: Some(100),
    }
}

fn content(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn hierarchies_are_found_with_the_own_group() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("unified/own");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("cgroup.controllers"), "io pids\n").unwrap();
    let found = machine(MOUNTS, OWN, folder.path()).hierarchies;
    let shown: Vec<String> = found
        .iter()
        .map(|it| {
            let names: Vec<_> = it.controllers.iter().map(|it| it.name()).collect();
            let own = it.own.strip_prefix(folder.path()).unwrap();
            format!("{:?} {} {}", it.version, names.join(","), own.display())
        })
        .collect();
    let expect = ["Two pids unified/own", "One memory memory/a/b", "One cpu,cpuset cpu,cpuset/x"];
    assert_eq!(shown, expect);
    // Inside a container without a namespace for groups the own path is that of the machine.
    let inside = machine(MOUNTS, "3:cpu,cpuset:/elsewhere\n", folder.path()).hierarchies;
    assert_eq!(inside[0].own, folder.path().join("cpu,cpuset"));
}

#[test]
fn limits_of_one_tree_are_written_below_the_parent() {
    let folder = tempfile::tempdir().unwrap();
    let mounts = "30 25 0:26 / MOUNT rw - cgroup2 cgroup2 rw\n";
    let root = folder.path();
    fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
    for name in ["", "ci", "ci/buildkit"] {
        fs::create_dir_all(root.join(name)).unwrap();
        fs::write(root.join(name).join("cgroup.subtree_control"), "memory io\n").unwrap();
    }
    let group = machine(mounts, "0::/\n", root).create(Some("/ci"), &all()).unwrap();
    let [folder] = &group.folders[..] else { panic!("one tree") };
    assert_eq!(folder.path.parent(), Some(&*root.join("ci/buildkit")));
    for (file, value) in [
        ("memory.max", "1048576"),
        ("memory.swap.max", "2097152"),
        ("cpu.weight", "39"),
        ("cpu.max", "25000 50000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "100"),
    ] {
        assert_eq!(content(&folder.path.join(file)), value, "{file}");
    }
    assert_eq!(group.entrances(), [folder.path.join("cgroup.procs")]);
    for name in ["", "ci", "ci/buildkit"] {
        // A plain file keeps what was written last.
        let passed = content(&root.join(name).join("cgroup.subtree_control"));
        assert_eq!(passed, "+pids", "{name}");
    }
    assert!(!group.was_out_of_memory());
    fs::write(folder.path.join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
    assert!(group.was_out_of_memory());
}

#[test]
fn limits_of_several_trees_are_written_below_the_own_groups() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for group in ["unified/own", "memory/a/b", "cpu,cpuset/x"] {
        fs::create_dir_all(root.join(group)).unwrap();
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        fs::write(root.join("cpu,cpuset/x").join(file), "0-7\n").unwrap();
    }
    let limits = Resources { pids: None, cpuset_mems: None, memory_swap: Some(-1), ..all() };
    let group = machine(MOUNTS, OWN, root).create(None, &limits).unwrap();
    let [memory, cpu] = &group.folders[..] else { panic!("two trees") };
    assert!(memory.path.starts_with(root.join("memory/a/b/buildkit")));
    assert_eq!(content(&memory.path.join("memory.limit_in_bytes")), "1048576");
    assert_eq!(content(&memory.path.join("memory.memsw.limit_in_bytes")), "-1");
    assert!(cpu.path.starts_with(root.join("cpu,cpuset/x/buildkit")));
    for (file, value) in [
        ("cpu.shares", "1024"),
        ("cpu.cfs_period_us", "50000"),
        ("cpu.cfs_quota_us", "25000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0-7"),
    ] {
        assert_eq!(content(&cpu.path.join(file)), value, "{file}");
    }
    fs::write(memory.path.join("memory.oom_control"), "under_oom 0\noom_kill 2\n").unwrap();
    assert!(group.was_out_of_memory());
    // The group without a limit of its own takes what its parent has.
    let plain = machine(MOUNTS, OWN, root).create(Some("/p"), &Resources::default());
    let error = plain.unwrap_err();
    assert!(error.is_of_machine(), "{error}");
}

#[test]
fn what_a_machine_does_not_have_is_named() {
    let none = Cgroups { hierarchies: Vec::new() };
    let error = none.create(None, &all()).unwrap_err();
    assert!(error.is_of_machine());
    assert_eq!(error.to_string(), "there is no control group for `memory` on this machine");
}

#[test]
fn parents_are_paths_below_the_root_or_slices() {
    let path = |text: &str| clean_parent(text).map(|path| path.display().to_string()).ok();
    assert_eq!(path("/a/b").as_deref(), Some("a/b"));
    assert_eq!(path("a").as_deref(), Some("a"));
    assert_eq!(path("/").as_deref(), Some(""));
    assert_eq!(path("ci-heavy.slice:").as_deref(), Some("ci.slice/ci-heavy.slice"));
    assert_eq!(path("ci.slice:docker:").as_deref(), Some("ci.slice/docker"));
    for bad in ["../a", "/a/../../b", "a/./b/..", "-.slice:x", "a.slice:../x", "x/../y.slice:z"] {
        assert_eq!(path(bad), None, "{bad}");
    }
    assert_eq!(
        clean_parent("..").unwrap_err().to_string(),
        "invalid cgroup parent `..`: want an absolute path below the root of the control groups"
    );
}

#[test]
fn groups_of_builders_that_are_gone_are_swept_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (left, used) = (folder.path().join("1-0"), folder.path().join("2-0"));
    fs::create_dir(&left).unwrap();
    fs::create_dir(&used).unwrap();
    let lock = lock(&used).unwrap();
    sweep(folder.path());
    assert!(!left.exists() && used.exists());
    drop(lock);
    sweep(folder.path());
    assert!(!used.exists());
}
