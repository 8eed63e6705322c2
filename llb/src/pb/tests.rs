//! Encoding and decoding are inverse, and foreign bytes are refused, not guessed at.

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use prost::Message as _;

use super::*;
use crate::op::*;
use crate::{Digest, Op, Platform};

pub(super) fn text() -> impl Strategy<Value = String> + Clone {
    "[a-z/<é]{0,4}"
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..3)
}

fn content_cache() -> impl Strategy<Value = ContentCache> {
    prop_oneof![Just(ContentCache::Default), Just(ContentCache::On), Just(ContentCache::Off)]
}

fn mount_kind() -> impl Strategy<Value = MountKind> {
    let credential = (text(), any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>());
    let sharing = prop_oneof![
        Just(CacheSharing::Shared),
        Just(CacheSharing::Private),
        Just(CacheSharing::Locked)
    ];
    prop_oneof![
        Just(MountKind::Bind),
        credential.clone().prop_map(|(id, uid, gid, mode, optional)| {
            MountKind::Secret(SecretMount { id, uid, gid, mode, optional })
        }),
        credential.prop_map(|(id, uid, gid, mode, optional)| MountKind::Ssh(SshMount {
            id,
            uid,
            gid,
            mode,
            optional
        })),
        (text(), sharing).prop_map(|(id, sharing)| MountKind::Cache(CacheMount { id, sharing })),
        any::<i64>().prop_map(|size| MountKind::Tmpfs { size }),
    ]
}

fn mount(inputs: usize) -> impl Strategy<Value = Mount> {
    let indexes = (option::of(0..inputs.max(1)), option::of(0..3usize));
    (indexes, text(), text(), any::<bool>(), mount_kind(), content_cache()).prop_map(
        move |((input, output), selector, dest, readonly, kind, content_cache)| Mount {
            input: input.filter(|_| inputs > 0),
            selector,
            dest,
            output,
            readonly,
            kind,
            content_cache,
        },
    )
}

fn meta() -> impl Strategy<Value = ExecMeta> {
    let proxy = (text(), text()).prop_map(|(http_proxy, all_proxy)| ProxyEnv {
        http_proxy,
        all_proxy,
        ..ProxyEnv::default()
    });
    let hosts = vec((text(), text()).prop_map(|(host, ip)| HostIp { host, ip }), 0..2);
    let limits = vec(
        (text(), any::<i64>(), any::<i64>()).prop_map(|(name, soft, hard)| Ulimit {
            name,
            soft,
            hard,
        }),
        0..2,
    );
    let names = (texts(), texts(), text(), text(), text(), text());
    (names, option::of(proxy), hosts, limits, any::<bool>(), vec(any::<i32>(), 0..3)).prop_map(
        |(
            (args, env, cwd, user, hostname, cgroup_parent),
            proxy_env,
            extra_hosts,
            ulimits,
            recursive,
            codes,
        )| ExecMeta {
            args,
            env,
            cwd,
            user,
            proxy_env,
            extra_hosts,
            hostname,
            ulimits,
            cgroup_parent,
            remove_mount_stubs_recursive: recursive,
            valid_exit_codes: codes,
        },
    )
}

fn exec(inputs: usize) -> impl Strategy<Value = ExecOp> {
    let network =
        prop_oneof![Just(NetworkMode::Unset), Just(NetworkMode::Host), Just(NetworkMode::None)];
    let security = prop_oneof![Just(SecurityMode::Sandbox), Just(SecurityMode::Insecure)];
    let secrets = vec((text(), text(), any::<bool>()), 0..2).prop_map(|list| {
        list.into_iter().map(|(id, name, optional)| SecretEnv { id, name, optional }).collect()
    });
    let devices = vec((text(), any::<bool>()), 0..2).prop_map(|list| {
        list.into_iter().map(|(name, optional)| CdiDevice { name, optional }).collect()
    });
    (meta(), vec(mount(inputs), 0..4), network, security, secrets, devices).prop_map(
        |(meta, mounts, network, security, secret_env, cdi_devices)| ExecOp {
            meta,
            mounts,
            network,
            security,
            secret_env,
            cdi_devices,
        },
    )
}

fn file_input(inputs: usize, actions: usize) -> BoxedStrategy<FileInput> {
    (0..=inputs + actions)
        .prop_map(move |number| match number {
            0 => FileInput::Scratch,
            number if number <= inputs => FileInput::Input(number - 1),
            number => FileInput::Action(number - inputs - 1),
        })
        .boxed()
}

fn owner(inputs: usize, actions: usize) -> impl Strategy<Value = Option<Owner>> + Clone {
    let user = prop_oneof![
        any::<u32>().prop_map(UserId::Id),
        (text(), file_input(inputs, actions))
            .prop_map(|(name, input)| UserId::Name { name, input }),
    ];
    let user = option::of(user);
    option::of((user.clone(), user).prop_map(|(user, group)| Owner { user, group }))
}

fn copy(inputs: usize, actions: usize) -> impl Strategy<Value = CopyAction> {
    let lists = (texts(), texts(), texts());
    let flags = any::<[bool; 7]>();
    ((text(), text(), text()), owner(inputs, actions), any::<i32>(), any::<i64>(), lists, flags)
        .prop_map(
            |(
                (src, dest, mode_str),
                owner,
                mode,
                timestamp,
                (include, exclude, required),
                flags,
            )| CopyAction {
                src,
                dest,
                owner,
                mode,
                mode_str,
                follow_symlink: flags[0],
                dir_copy_contents: flags[1],
                attempt_unpack: flags[2],
                create_dest_path: flags[3],
                allow_wildcard: flags[4],
                allow_empty_wildcard: flags[5],
                timestamp,
                include_patterns: include,
                exclude_patterns: exclude,
                always_replace_existing_dest_paths: flags[6],
                required_paths: required,
            },
        )
}

fn action_kind(inputs: usize, actions: usize) -> impl Strategy<Value = FileActionKind> {
    let common = (text(), any::<i32>(), owner(inputs, actions), any::<i64>());
    prop_oneof![
        copy(inputs, actions).prop_map(|copy| FileActionKind::Copy(Box::new(copy))),
        (common.clone(), vec(any::<u8>(), 0..4)).prop_map(
            |((path, mode, owner, timestamp), data)| {
                FileActionKind::Mkfile(MkfileAction { path, mode, data, owner, timestamp })
            }
        ),
        (common.clone(), any::<bool>()).prop_map(
            |((path, mode, owner, timestamp), make_parents)| {
                FileActionKind::Mkdir(MkdirAction { path, mode, make_parents, owner, timestamp })
            }
        ),
        (text(), any::<bool>(), any::<bool>()).prop_map(
            |(path, allow_not_found, allow_wildcard)| {
                FileActionKind::Rm(RmAction { path, allow_not_found, allow_wildcard })
            }
        ),
        (common, text()).prop_map(|((new_path, _, owner, timestamp), old_path)| {
            FileActionKind::Symlink(SymlinkAction { old_path, new_path, owner, timestamp })
        }),
    ]
}

fn file(inputs: usize) -> impl Strategy<Value = FileOp> {
    let action = move |number: usize| {
        let trees = (file_input(inputs, number), file_input(inputs, number), option::of(0..3usize));
        (trees, action_kind(inputs, number)).prop_map(|((input, secondary_input, output), kind)| {
            FileAction { input, secondary_input, output, kind }
        })
    };
    (action(0), action(1), action(2), 0..4usize).prop_map(|(a, b, c, count)| FileOp {
        actions: [a, b, c].into_iter().take(count).collect(),
    })
}

pub(super) fn op(inputs: usize) -> BoxedStrategy<Op> {
    let source = (text(), btree_map(text(), text(), 0..4))
        .prop_map(|(identifier, attrs)| Op::Source(SourceOp { identifier, attrs }));
    let diff = Op::Diff { lower: inputs > 0, upper: inputs > 1 };
    prop_oneof![
        source,
        exec(inputs).prop_map(Op::Exec),
        file(inputs).prop_map(Op::File),
        Just(Op::Merge),
        Just(if inputs < 3 { diff } else { Op::Merge }),
    ]
    .boxed()
}

pub(super) fn platform() -> impl Strategy<Value = Option<Platform>> {
    let platform = (text(), text(), text(), text(), texts()).prop_map(
        |(os, architecture, variant, os_version, os_features)| Platform {
            os,
            architecture,
            variant,
            os_version,
            os_features,
        },
    );
    option::of(platform)
}

fn any_op() -> impl Strategy<Value = Decoded> {
    let inputs = vec((any::<[u8; 32]>().prop_map(Digest::from_bytes), 0..3usize), 0..4);
    (inputs, platform()).prop_flat_map(|(inputs, platform)| {
        op(inputs.len()).prop_map(move |op| Decoded {
            op,
            inputs: inputs.clone(),
            platform: platform.clone(),
        })
    })
}

fn encode(message: &Decoded) -> Vec<u8> {
    encode_op(&message.op, &message.inputs, message.platform.as_ref())
}

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(message in any_op()) {
        let bytes = encode(&message);
        prop_assert_eq!(&encode(&message), &bytes);
        let decoded = decode_op(&bytes).unwrap();
        prop_assert_eq!(&encode(&decoded), &bytes);
        prop_assert_eq!(decoded, message);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_op(message in any_op(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode(&message);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = decode_op(&bytes) {
            let bytes = encode(&decoded);
            prop_assert_eq!(decode_op(&bytes).unwrap(), decoded);
        }
    }
}

#[test]
fn bytes_are_those_of_the_reference_encoding() {
    let attrs = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into();
    let op = Op::Source(SourceOp { identifier: "local://context".to_owned(), attrs });
    let platform =
        Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
    let expect = [
        b"\x1a\x21\x0a\x0flocal://context".as_slice(),
        b"\x12\x06\x0a\x01a\x12\x011",
        b"\x12\x06\x0a\x01b\x12\x012",
        b"\x52\x0e\x0a\x05amd64\x12\x05linux",
        b"\x5a\x00",
    ];
    assert_eq!(encode_op(&op, &[], Some(&platform)), expect.concat());
}

#[track_caller]
fn check_refused(op: wire::OpKind, expect: &str) {
    let message = wire::Op { op: Some(op), ..wire::Op::default() };
    assert_eq!(decode_op(&message.encode_to_vec()).unwrap_err().to_string(), expect);
}

#[test]
fn what_has_no_word_here_is_an_error() {
    let meta = Some(wire::Meta::default());
    let exec = wire::ExecOp { meta, ..wire::ExecOp::default() };
    let with =
        |mount| wire::OpKind::Exec(Box::new(wire::ExecOp { mounts: vec![mount], ..exec.clone() }));
    check_refused(
        wire::OpKind::Exec(Box::new(wire::ExecOp { network: 7, ..exec.clone() })),
        "unknown value 7 of `exec.network` in an op",
    );
    check_refused(
        with(wire::Mount { input: -1, mount_type: 9, ..wire::Mount::default() }),
        "unknown value 9 of `mount.mountType` in an op",
    );
    check_refused(with(wire::Mount::default()), "unknown value 0 of `mount.input` in an op");
    check_refused(wire::OpKind::Exec(Box::default()), "op without `exec.meta`");
    check_refused(wire::OpKind::Build(wire::BuildOp {}), "ops with `build` are not supported");
    let bytes = |bytes: &[u8]| decode_op(bytes).unwrap_err().to_string();
    assert_eq!(bytes(b"\x62\x01x"), "ops with `identity` are not supported");
    assert_eq!(bytes(b"\x68\x01"), "unknown field 13 of `op`");
    assert_eq!(bytes(b"\x12\x04\x0a\x02\x6a\x00"), "unknown field 13 of `exec.meta`");
    assert_eq!(bytes(b"\x1a\x04\x12\x02\x1a\x00"), "unknown field 3 of `attrs`");
    let action = wire::FileAction { input: 0, secondary_input: -1, ..wire::FileAction::default() };
    check_refused(
        wire::OpKind::File(wire::FileOp { actions: vec![action] }),
        "unknown value 0 of `action.input` in an op",
    );
    assert_eq!(decode_op(&[]).unwrap_err().to_string(), "op without `op`");
    assert!(decode_op(b"\xff").is_err());
}

#[test]
fn diff_of_an_upper_alone_keeps_its_side() {
    let inputs = vec![(Digest::of(b"u"), 1)];
    let message = Decoded { op: Op::Diff { lower: false, upper: true }, inputs, platform: None };
    assert_eq!(decode_op(&encode(&message)).unwrap(), message);
}
