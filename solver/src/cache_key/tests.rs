use llb::op::{
    CacheMount, CdiDevice, ExecMeta, HostIp, MkdirAction, MkfileAction, ProxyEnv, RmAction,
    SecretEnv, SecretMount, SshMount, SymlinkAction, Ulimit,
};
use llb::{Digest, Edge, VertexMetadata};
use proptest::prelude::*;

use super::*;

/// Everything of a vertex that says what it is.
type Identity = (Key, Vec<(Key, Vec<Selection>)>);

fn identity(op: Op, platform: Option<&Platform>) -> Identity {
    let inputs = (0..3).map(|vertex| Edge { vertex, output: 0 }).collect();
    let (digest, metadata) = (Digest::of(b""), VertexMetadata::default());
    let map = cache_map(&Vertex { op, inputs, platform: platform.cloned(), digest, metadata });
    (map.op, map.inputs.into_iter().map(|input| (input.selector, input.content)).collect())
}

/// Changes that count: any two sets of them must differ, whatever else they change.
type Changes<T> = &'static [(&'static str, fn(&mut T))];

#[track_caller]
fn check_all_count<T: Clone>(base: &T, changes: Changes<T>, identity: impl Fn(&T) -> Identity) {
    let mut seen = vec![("nothing", identity(base))];
    for (name, change) in changes {
        let mut changed = base.clone();
        change(&mut changed);
        let now = identity(&changed);
        for (other, before) in &seen {
            assert_ne!(&now, before, "`{name}` is as `{other}`");
        }
        seen.push((name, now));
    }
}

fn subset<T: Clone>(base: &T, changes: Changes<T>, picks: &[bool]) -> T {
    let mut changed = base.clone();
    for ((_, change), _) in changes.iter().zip(picks).filter(|(_, pick)| **pick) {
        change(&mut changed);
    }
    changed
}

fn bind(dest: &str, input: usize) -> Mount {
    Mount {
        input: Some(input),
        selector: String::new(),
        dest: dest.to_owned(),
        output: None,
        readonly: true,
        kind: MountKind::Bind,
        content_cache: ContentCache::Default,
    }
}

fn special(dest: &str, kind: MountKind) -> Mount {
    Mount { input: None, kind, ..bind(dest, 0) }
}

fn secret() -> SecretMount {
    SecretMount { id: "s".into(), uid: 0, gid: 0, mode: 0o400, optional: false }
}

fn ssh() -> SshMount {
    SshMount { id: "default".into(), uid: 0, gid: 0, mode: 0o600, optional: false }
}

const ROOT: usize = 0;
const BIND: usize = 1;
const CACHE: usize = 2;
const SECRET: usize = 3;
const SSH: usize = 4;
const TMPFS: usize = 5;
const BIND_TOO: usize = 6;

fn exec() -> ExecOp {
    let meta =
        ExecMeta { args: vec!["a".into(), "b".into()], cwd: "/".into(), ..ExecMeta::default() };
    let root = Mount { output: Some(0), readonly: false, ..bind("/", 0) };
    let cache = CacheMount { id: "/cache".into(), sharing: CacheSharing::Shared };
    let mounts = vec![
        root,
        bind("/bind", 1),
        special("/cache", MountKind::Cache(cache)),
        special("/secret", MountKind::Secret(secret())),
        special("/ssh", MountKind::Ssh(ssh())),
        special("/tmp", MountKind::Tmpfs { size: 0 }),
        Mount { selector: "too".into(), ..bind("/too", 1) },
    ];
    ExecOp { meta, mounts, ..ExecOp::default() }
}

fn secret_of(exec: &mut ExecOp, change: impl FnOnce(&mut SecretMount)) {
    let mut its = secret();
    change(&mut its);
    exec.mounts[SECRET].kind = MountKind::Secret(its);
}

fn ssh_of(exec: &mut ExecOp, change: impl FnOnce(&mut SshMount)) {
    let mut its = ssh();
    change(&mut its);
    exec.mounts[SSH].kind = MountKind::Ssh(its);
}

const EXEC: Changes<ExecOp> = &[
    ("args", |exec| exec.meta.args.push("c".into())),
    ("env", |exec| exec.meta.env.push("A=1".into())),
    ("cwd", |exec| exec.meta.cwd = "/w".into()),
    ("user", |exec| exec.meta.user = "u".into()),
    ("host", |exec| exec.meta.extra_hosts.push(HostIp { host: "h".into(), ip: "1.1.1.1".into() })),
    ("hostname", |exec| exec.meta.hostname = "h".into()),
    ("ulimit", |exec| {
        exec.meta.ulimits.push(Ulimit { name: "nofile".into(), soft: 1, hard: 2 });
    }),
    ("cgroup", |exec| exec.meta.cgroup_parent = "c".into()),
    ("stubs", |exec| exec.meta.remove_mount_stubs_recursive = true),
    ("exit codes", |exec| exec.meta.valid_exit_codes.push(1)),
    ("network", |exec| exec.network = NetworkMode::None),
    ("security", |exec| exec.security = SecurityMode::Insecure),
    ("secret variable", |exec| {
        let (id, name) = ("s".into(), "S".into());
        exec.secret_env.push(SecretEnv { id, name, optional: false });
    }),
    ("device", |exec| {
        exec.cdi_devices.push(CdiDevice { name: "d".into(), optional: false });
    }),
    ("mount input", |exec| exec.mounts[BIND].input = Some(2)),
    ("mount selector", |exec| exec.mounts[BIND].selector = "sub".into()),
    ("mount dest", |exec| exec.mounts[BIND].dest = "/other".into()),
    ("mount output", |exec| exec.mounts[ROOT].output = None),
    ("mount readonly", |exec| exec.mounts[ROOT].readonly = true),
    ("mount content", |exec| exec.mounts[BIND_TOO].content_cache = ContentCache::Off),
    ("cache id of one's own", |exec| {
        let sharing = CacheSharing::Shared;
        exec.mounts[CACHE].kind = MountKind::Cache(CacheMount { id: "own".into(), sharing });
    }),
    ("secret id", |exec| secret_of(exec, |secret| secret.id = "t".into())),
    ("ssh id", |exec| ssh_of(exec, |ssh| ssh.id = "t".into())),
    ("tmpfs size", |exec| exec.mounts[TMPFS].kind = MountKind::Tmpfs { size: 1 }),
];

/// More changes, of fields that one above changes too.
const EXEC_MORE: Changes<ExecOp> = &[
    ("args split elsewhere", |exec| exec.meta.args = vec!["a b".into()]),
    ("network host", |exec| exec.network = NetworkMode::Host),
    ("ulimit soft", |exec| {
        exec.meta.ulimits.push(Ulimit { name: "nofile".into(), soft: 2, hard: 2 });
    }),
    ("ulimit hard", |exec| {
        exec.meta.ulimits.push(Ulimit { name: "nofile".into(), soft: 1, hard: 3 });
    }),
    ("secret variable name", |exec| {
        let (id, name) = ("s".into(), "T".into());
        exec.secret_env.push(SecretEnv { id, name, optional: false });
    }),
    ("secret variable optional", |exec| {
        let (id, name) = ("s".into(), "S".into());
        exec.secret_env.push(SecretEnv { id, name, optional: true });
    }),
    ("device optional", |exec| {
        exec.cdi_devices.push(CdiDevice { name: "d".into(), optional: true });
    }),
    ("secret uid", |exec| secret_of(exec, |secret| secret.uid = 1)),
    ("secret gid", |exec| secret_of(exec, |secret| secret.gid = 1)),
    ("secret mode", |exec| secret_of(exec, |secret| secret.mode = 0o444)),
    ("secret optional", |exec| secret_of(exec, |secret| secret.optional = true)),
    ("ssh uid", |exec| ssh_of(exec, |ssh| ssh.uid = 1)),
    ("ssh gid", |exec| ssh_of(exec, |ssh| ssh.gid = 1)),
    ("ssh mode", |exec| ssh_of(exec, |ssh| ssh.mode = 0o644)),
    ("ssh optional", |exec| ssh_of(exec, |ssh| ssh.optional = true)),
    ("mount kind", |exec| exec.mounts[TMPFS].kind = MountKind::Bind),
    ("mounts change places", |exec| {
        exec.mounts[BIND].selector = "too".into();
        exec.mounts[BIND_TOO].selector = String::new();
    }),
];

const EXEC_IRRELEVANT: Changes<ExecOp> = &[
    ("proxy", |exec| {
        let http_proxy = "http://p".into();
        exec.meta.proxy_env = Some(ProxyEnv { http_proxy, ..ProxyEnv::default() });
    }),
    ("address of a host", |exec| {
        exec.meta.extra_hosts.iter_mut().for_each(|host| host.ip = "2.2.2.2".into());
    }),
];

fn exec_identity(exec: &ExecOp) -> Identity {
    identity(Op::Exec(exec.clone()), None)
}

#[test]
fn every_field_of_an_exec_op_counts() {
    check_all_count(&exec(), EXEC, exec_identity);
    check_all_count(&exec(), EXEC_MORE, exec_identity);
}

#[test]
fn every_field_of_the_platform_counts_for_a_step() {
    let platform = Platform::parse("linux/arm64").unwrap();
    let changes: Changes<Platform> = &[
        ("os", |it| it.os = "windows".into()),
        ("architecture", |it| it.architecture = "arm".into()),
        ("variant", |it| it.variant = "v9".into()),
        ("version", |it| it.os_version = "1".into()),
        ("features", |it| it.os_features.push("f".into())),
    ];
    check_all_count(&platform, changes, |it| identity(Op::Exec(exec()), Some(it)));
}

#[test]
fn a_cache_mount_counts_by_its_place_only() {
    let own = |id: &str, sharing| {
        let mut exec = exec();
        exec.mounts[CACHE].kind = MountKind::Cache(CacheMount { id: id.into(), sharing });
        exec_identity(&exec)
    };
    assert_eq!(own("a", CacheSharing::Shared), own("b", CacheSharing::Locked));
    assert_ne!(own("/cache", CacheSharing::Shared), own("a", CacheSharing::Shared));
    assert_eq!(own("/cache", CacheSharing::Private), own("a", CacheSharing::Shared));
    assert_ne!(own("ns//cache", CacheSharing::Shared), own("a", CacheSharing::Shared));
}

#[test]
fn the_content_of_the_root_never_stands_for_it() {
    let map = exec_map(&exec(), None, 3);
    assert!(map.inputs[0].content.is_empty());
    assert_eq!(map.inputs[1].content.len(), 2);
}

const COPY: usize = 1;
const MKFILE: usize = 2;
const MKDIR: usize = 3;
const SYMLINK: usize = 4;
const RM: usize = 5;
const COPY_OWN: usize = 6;

fn copy_action() -> CopyAction {
    CopyAction {
        src: "/dir/a".into(),
        dest: "/x".into(),
        owner: None,
        mode: -1,
        mode_str: String::new(),
        follow_symlink: true,
        dir_copy_contents: false,
        attempt_unpack: false,
        create_dest_path: false,
        allow_wildcard: false,
        allow_empty_wildcard: false,
        timestamp: -1,
        include_patterns: Vec::new(),
        exclude_patterns: Vec::new(),
        always_replace_existing_dest_paths: false,
        required_paths: Vec::new(),
    }
}

fn file() -> FileOp {
    let action = |index: usize, kind| FileAction {
        input: if index == 0 { FileInput::Input(0) } else { FileInput::Action(index - 1) },
        secondary_input: FileInput::Scratch,
        output: None,
        kind,
    };
    let copy = |index, secondary_input, src: &str| {
        let copy = CopyAction { src: src.into(), ..copy_action() };
        FileAction { secondary_input, ..action(index, FileActionKind::Copy(Box::new(copy))) }
    };
    let (mode, owner, timestamp) = (0o644, None, -1);
    let path: String = "/p".into();
    let mkfile =
        MkfileAction { path: path.clone(), mode, data: b"1".to_vec(), owner: None, timestamp };
    let mkdir =
        MkdirAction { path: path.clone(), mode, make_parents: false, owner: None, timestamp };
    let symlink = SymlinkAction { old_path: "/o".into(), new_path: "/n".into(), owner, timestamp };
    let rm = RmAction { path, allow_not_found: false, allow_wildcard: false };
    let actions = vec![
        copy(0, FileInput::Input(1), "/other/a"),
        copy(1, FileInput::Input(1), "/dir/a"),
        action(2, FileActionKind::Mkfile(mkfile)),
        action(3, FileActionKind::Mkdir(mkdir)),
        action(4, FileActionKind::Symlink(symlink)),
        action(5, FileActionKind::Rm(rm)),
        FileAction { output: Some(0), ..copy(6, FileInput::Action(0), "/dir/a") },
    ];
    FileOp { actions }
}

macro_rules! changes {
    ($index:expr, $kind:ident, $($name:literal: $its:ident => $change:expr),* $(,)?) => {
        &[$(($name, |file: &mut FileOp| {
            let FileActionKind::$kind($its) = &mut file.actions[$index].kind else { unreachable!() };
            $change;
        })),*]
    };
}

fn by_id(user: u32) -> Option<Owner> {
    Some(Owner { user: Some(UserId::Id(user)), group: None })
}

fn by_name(name: &str, input: FileInput) -> Option<Owner> {
    Some(Owner { user: Some(UserId::Name { name: name.into(), input }), group: None })
}

const COPIES: Changes<FileOp> = changes!(COPY, Copy,
    "folder of the source": copy => copy.src = "/moved/a".into(),
    "name of the source": copy => copy.src = "/dir/b".into(),
    "dest": copy => copy.dest = "/y".into(),
    "owner": copy => copy.owner = by_id(0),
    "owner's number": copy => copy.owner = by_id(1),
    "owner's group": copy => {
        copy.owner = Some(Owner { user: None, group: Some(UserId::Id(1)) });
    },
    "owner by name": copy => copy.owner = by_name("u", FileInput::Input(0)),
    "owner's name": copy => copy.owner = by_name("v", FileInput::Input(0)),
    "owner's tree": copy => copy.owner = by_name("u", FileInput::Action(0)),
    "mode": copy => copy.mode = 0,
    "mode in words": copy => copy.mode_str = "u+x".into(),
    "follow": copy => copy.follow_symlink = false,
    "contents": copy => copy.dir_copy_contents = true,
    "unpack": copy => copy.attempt_unpack = true,
    "parents": copy => copy.create_dest_path = true,
    "wildcard": copy => copy.allow_wildcard = true,
    "empty wildcard": copy => copy.allow_empty_wildcard = true,
    "timestamp": copy => copy.timestamp = 0,
    "include": copy => copy.include_patterns.push("i".into()),
    "exclude": copy => copy.exclude_patterns.push("i".into()),
    "replace": copy => copy.always_replace_existing_dest_paths = true,
    "required": copy => copy.required_paths.push("i".into()),
);

const MKFILES: Changes<FileOp> = changes!(MKFILE, Mkfile,
    "path": make => make.path = "/q".into(),
    "mode": make => make.mode = 0,
    "data": make => make.data = b"2".to_vec(),
    "owner": make => make.owner = by_id(0),
    "timestamp": make => make.timestamp = 0,
);

const MKDIRS: Changes<FileOp> = changes!(MKDIR, Mkdir,
    "path": make => make.path = "/q".into(),
    "mode": make => make.mode = 0,
    "parents": make => make.make_parents = true,
    "owner": make => make.owner = by_id(0),
    "timestamp": make => make.timestamp = 0,
);

const SYMLINKS: Changes<FileOp> = changes!(SYMLINK, Symlink,
    "target": link => link.old_path = "/q".into(),
    "path": link => link.new_path = "/q".into(),
    "owner": link => link.owner = by_id(0),
    "timestamp": link => link.timestamp = 0,
);

const RMS: Changes<FileOp> = changes!(RM, Rm,
    "path": remove => remove.path = "/q".into(),
    "missing": remove => remove.allow_not_found = true,
    "wildcard": remove => remove.allow_wildcard = true,
);

const ACTIONS: Changes<FileOp> = &[
    ("input", |file| file.actions[COPY].input = FileInput::Scratch),
    ("source", |file| file.actions[COPY].secondary_input = FileInput::Input(2)),
    ("source action", |file| file.actions[COPY].secondary_input = FileInput::Action(0)),
    ("output", |file| file.actions[COPY].output = Some(1)),
    ("order of copies", |file| file.actions.swap(0, 1)),
    ("folder in an earlier result", |file| {
        let FileActionKind::Copy(copy) = &mut file.actions[COPY_OWN].kind else { unreachable!() };
        copy.src = "/moved/a".into();
    }),
    ("one action less", |file| drop(file.actions.pop())),
];

fn file_identity(file: &FileOp) -> Identity {
    identity(Op::File(file.clone()), None)
}

#[test]
fn every_field_of_a_file_op_counts() {
    for changes in [COPIES, MKFILES, MKDIRS, SYMLINKS, RMS, ACTIONS] {
        check_all_count(&file(), changes, file_identity);
    }
}

#[test]
fn the_folder_of_a_copied_file_counts_with_the_input_only() {
    let mut moved = file();
    COPIES[0].1(&mut moved);
    let (before, after) = (file_identity(&file()), file_identity(&moved));
    assert_eq!(before.0, after.0);
    let mut same = file();
    let FileActionKind::Copy(copy) = &mut same.actions[COPY].kind else { unreachable!() };
    copy.src = "/dir/b/../a/.".into();
    assert_eq!(file_identity(&same).0, before.0);
}

#[test]
fn two_copies_that_change_places_are_another_op() {
    let copies = |order: [&str; 2]| {
        let mut file = file();
        for (index, src) in order.into_iter().enumerate() {
            let FileActionKind::Copy(copy) = &mut file.actions[index].kind else { unreachable!() };
            copy.src = src.into();
        }
        file_identity(&file)
    };
    assert_ne!(copies(["/a/f", "/b/f"]), copies(["/b/f", "/a/f"]));
}

#[test]
fn content_stands_for_an_input_only_if_nothing_else_of_it_is_read() {
    let content = |file: &FileOp| file_map(file, 3).inputs[1].content.len();
    assert_eq!(content(&file()), 2);
    let names = |owner| {
        let mut file = file();
        let FileActionKind::Mkdir(make) = &mut file.actions[MKDIR].kind else { unreachable!() };
        make.owner = owner;
        file
    };
    assert_eq!(content(&names(by_name("u", FileInput::Input(1)))), 0);
    assert_eq!(content(&names(by_name("u", FileInput::Input(0)))), 2);
    let mut unpack = file();
    let FileActionKind::Copy(copy) = &mut unpack.actions[COPY].kind else { unreachable!() };
    copy.attempt_unpack = true;
    assert_eq!(content(&unpack), 2);
    let FileActionKind::Copy(copy) = &mut unpack.actions[COPY].kind else { unreachable!() };
    copy.follow_symlink = false;
    assert_eq!(content(&unpack), 0);
}

#[test]
fn kinds_of_op_differ() {
    let ops = [
        Op::Merge,
        Op::Diff { lower: true, upper: true },
        Op::Diff { lower: false, upper: true },
        Op::Diff { lower: true, upper: false },
        Op::File(FileOp::default()),
        Op::Exec(ExecOp::default()),
    ];
    let keys: Vec<Key> = ops.into_iter().map(|op| identity(op, None).0).collect();
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key), "op {index}");
    }
}

proptest! {
    /// Whatever is changed together, two steps are one exactly if what counts of them is.
    #[test]
    fn steps_are_one_exactly_if_what_counts_is(
        a in proptest::collection::vec(any::<bool>(), EXEC.len()),
        b in proptest::collection::vec(any::<bool>(), EXEC.len()),
        free in proptest::collection::vec(any::<bool>(), EXEC_IRRELEVANT.len()),
    ) {
        let (one, two) = (subset(&exec(), EXEC, &a), subset(&exec(), EXEC, &b));
        prop_assert_eq!(exec_identity(&one) == exec_identity(&two), a == b);
        let also = subset(&one, EXEC_IRRELEVANT, &free);
        prop_assert_eq!(exec_identity(&also), exec_identity(&one));
    }
}
