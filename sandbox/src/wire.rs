//! What the supervising side and the zygote say to each other.
//!
//! Both are the same executable, so the form carries no version. Numbers are little-endian, and
//! texts and lists are preceded by their length as a `u32`.
//!
//! ```text
//! control socket   supervisor -> zygote   PREPARE, once; RUN, flags, and [spec, stdout, stderr, reply]
//!                  zygote -> supervisor   READY, once
//! reply socket     zygote -> supervisor   STARTED, with the pidfd of the step
//!                  step   -> supervisor   FAILED and a Failure: the program did not begin
//!                  zygote -> supervisor   ENDED, exit code, signal; or FAILED and a Failure
//! ```
//!
//! The spec itself is in a sealed memfd: it can be long and may hold secrets, so only the step's own
//! process reads it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::spec::{Credentials, Mount, MountKind, Network, Resource, Rlimit, Root, Security, Spec};
use crate::tier::Tier;

/// The zygote is up.
pub(crate) const READY: u8 = b'R';
/// A step is asked for.
pub(crate) const RUN: u8 = b'X';
/// A step is to be asked for.
pub(crate) const PREPARE: u8 = b'P';
/// Flag of [`RUN`]: the step gets a network namespace.
pub(crate) const OWN_NETWORK: u8 = 1;
/// Flag of [`RUN`]: the step is an [ordinary](Spec::is_ordinary) one.
pub(crate) const ORDINARY: u8 = 2;
/// Flag of [`RUN`]: another step is to be asked for.
pub(crate) const ANOTHER: u8 = 4;
/// Flag of [`RUN`]: what the step asks about owners is recorded.
pub(crate) const RECORDED: u8 = 8;
/// Flag of [`RUN`]: the step gets no namespaces, but a keeper.
pub(crate) const CHROOT: u8 = 16;
/// Flag of [`RUN`], with [`CHROOT`]: nodes of devices would open, so the step may make none.
pub(crate) const NO_NODES: u8 = 32;
/// The step's process exists.
pub(crate) const STARTED: u8 = b'S';
/// The step could not be run.
pub(crate) const FAILED: u8 = b'F';
/// The step's process ended.
pub(crate) const ENDED: u8 = b'E';

/// Longest message on a reply socket, in bytes.
pub(crate) const MAX_REPLY: usize = 16 << 10;
/// Longest text in a [`Failure`], in bytes.
const MAX_TEXT: usize = 4 << 10;

/// Why a step did not begin, as its own process found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What failed.
    pub(crate) kind: FailureKind,
    /// What was tried, or the path or program concerned.
    pub(crate) text: String,
    /// Number of the kernel's error; 0 if there is none.
    pub(crate) errno: i32,
}

/// What failed when a step began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// `text` is what was tried.
    Setup,
    /// `text` is the working directory.
    WorkingDirectory,
    /// `text` is a program that no directory of `PATH` has.
    NotInPath,
    /// `text` is a program that could not be found or executed.
    Exec,
    /// `text` is a program that is there and executable, and yet the kernel says "not found".
    NoInterpreter,
    /// `text` is what the kernel refused of an overlay.
    Overlay,
}

/// The other side sent what this side does not understand.
#[derive(Debug)]
pub(crate) struct Malformed;

type Decoded<T> = Result<T, Malformed>;

/// Writes values one after the other.
#[derive(Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).expect("a spec is built from texts far below 4 GiB"));
    }

    fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend_from_slice(value);
    }

    fn path(&mut self, value: &Path) {
        self.bytes(value.as_os_str().as_bytes());
    }

    fn list<T>(&mut self, values: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.length(values.len());
        for value in values {
            each(self, value);
        }
    }

    fn limit(&mut self, value: Option<u64>) {
        self.u64(value.unwrap_or(u64::MAX));
    }

    fn overlay(&mut self, lowers: &[PathBuf], writable: Option<(&Path, &Path)>) {
        self.list(lowers, |out, lower| out.path(lower));
        self.u8(writable.is_some().into());
        if let Some((upper, work)) = writable {
            self.path(upper);
            self.path(work);
        }
    }
}

/// Reads values one after the other.
struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn u8(&mut self) -> Decoded<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn bytes(&mut self) -> Decoded<Vec<u8>> {
        let length = self.u32()?;
        Ok(self.take(length as usize)?.to_vec())
    }

    fn text(&mut self) -> Decoded<String> {
        String::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    fn os(&mut self) -> Decoded<OsString> {
        Ok(OsString::from_vec(self.bytes()?))
    }

    fn path(&mut self) -> Decoded<PathBuf> {
        Ok(self.os()?.into())
    }

    fn flag(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Decoded<T>) -> Decoded<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| each(self)).collect()
    }

    fn limit(&mut self) -> Decoded<Option<u64>> {
        Ok(Some(self.u64()?).filter(|value| *value != u64::MAX))
    }

    fn writable(&mut self) -> Decoded<Option<(PathBuf, PathBuf)>> {
        Ok(if self.flag()? { Some((self.path()?, self.path()?)) } else { None })
    }
}

/// Returns the form of a spec for the zygote.
pub(crate) fn encode_spec(spec: &Spec) -> Vec<u8> {
    let mut out = Encoder::default();
    out.u8(spec.tier as u8);
    match &spec.root {
        Root::Overlay { lowers, upper, work } => {
            out.u8(0);
            out.overlay(lowers, Some((upper, work)));
        }
        Root::Dir(path) => {
            out.u8(1);
            out.path(path);
        }
    }
    // Without mounts all that is mounted elsewhere is in the tree by now; secrets need not travel.
    let mounts = if spec.tier.has_namespaces() { &spec.mounts[..] } else { &[] };
    out.list(mounts, encode_mount);
    out.list(&spec.args, |out, arg| out.bytes(arg.as_bytes()));
    out.list(&spec.env, |out, entry| out.bytes(entry.as_bytes()));
    out.path(&spec.cwd);
    out.u32(spec.user.uid);
    out.u32(spec.user.gid);
    out.list(&spec.user.groups, |out, group| out.u32(*group));
    out.bytes(spec.hostname.as_bytes());
    out.u8((spec.network == Network::None).into());
    out.u8((spec.security == Security::Insecure).into());
    out.list(&spec.rlimits, |out, limit| {
        out.u8(limit.resource.index());
        out.limit(limit.soft);
        out.limit(limit.hard);
    });
    out.list(&spec.cgroups, |out, path| out.path(path));
    out.u64(spec.shm_size);
    out.bytes(&spec.hosts);
    out.bytes(&spec.resolv_conf);
    out.0
}

fn encode_mount(out: &mut Encoder, mount: &Mount) {
    out.path(&mount.target);
    out.u8(mount.readonly.into());
    match &mount.kind {
        MountKind::Bind { source, sub } => {
            out.u8(0);
            out.path(source);
            out.path(sub);
        }
        MountKind::Overlay { lowers, sub, writable } => {
            out.u8(1);
            out.overlay(lowers, writable.as_ref().map(|(upper, work)| (&**upper, &**work)));
            out.path(sub);
        }
        MountKind::Tmpfs { size } => {
            out.u8(2);
            out.u64(*size);
        }
        MountKind::File { contents, mode, uid, gid } => {
            out.u8(3);
            out.bytes(contents);
            out.u32(*mode);
            out.u32(*uid);
            out.u32(*gid);
        }
        MountKind::Moved { source, note } => {
            out.u8(4);
            out.path(source);
            out.u8(note.is_some().into());
            if let Some(note) = note {
                out.path(note);
            }
        }
    }
}

/// Returns the spec of the form that [`encode_spec`] makes.
pub(crate) fn decode_spec(bytes: &[u8]) -> Decoded<Spec> {
    let mut from = Decoder(bytes);
    let spec = Spec {
        tier: match from.u8()? {
            0 => Tier::Root,
            1 => Tier::Rootless,
            2 => Tier::SingleId,
            3 => Tier::Chroot,
            _ => return Err(Malformed),
        },
        root: match from.u8()? {
            0 => {
                let lowers = from.list(Decoder::path)?;
                let (upper, work) = from.writable()?.ok_or(Malformed)?;
                Root::Overlay { lowers, upper, work }
            }
            1 => Root::Dir(from.path()?),
            _ => return Err(Malformed),
        },
        mounts: from.list(decode_mount)?,
        args: from.list(Decoder::text)?,
        env: from.list(Decoder::os)?,
        cwd: from.path()?,
        user: Credentials { uid: from.u32()?, gid: from.u32()?, groups: from.list(Decoder::u32)? },
        hostname: from.text()?,
        network: if from.flag()? { Network::None } else { Network::Host },
        security: if from.flag()? { Security::Insecure } else { Security::Sandbox },
        rlimits: from.list(|from| {
            let resource = Resource::from_index(from.u8()?).ok_or(Malformed)?;
            Ok(Rlimit { resource, soft: from.limit()?, hard: from.limit()? })
        })?,
        cgroups: from.list(Decoder::path)?,
        shm_size: from.u64()?,
        hosts: from.bytes()?,
        resolv_conf: from.bytes()?,
        // Of this only the zygote has to know.
        another: false,
    };
    if from.0.is_empty() { Ok(spec) } else { Err(Malformed) }
}

fn decode_mount(from: &mut Decoder<'_>) -> Decoded<Mount> {
    let target = from.path()?;
    let readonly = from.flag()?;
    let kind = match from.u8()? {
        0 => MountKind::Bind { source: from.path()?, sub: from.path()? },
        1 => {
            let lowers = from.list(Decoder::path)?;
            let writable = from.writable()?;
            MountKind::Overlay { lowers, sub: from.path()?, writable }
        }
        2 => MountKind::Tmpfs { size: from.u64()? },
        3 => MountKind::File {
            contents: from.bytes()?.into(),
            mode: from.u32()?,
            uid: from.u32()?,
            gid: from.u32()?,
        },
        4 => MountKind::Moved {
            source: from.path()?,
            note: if from.flag()? { Some(from.path()?) } else { None },
        },
        _ => return Err(Malformed),
    };
    Ok(Mount { target, readonly, kind })
}

/// A message on a reply socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Comes with the pidfd.
    Started,
    /// The step did not begin.
    Failed(Failure),
    /// The step's process ended with a code, or by a signal if that is not 0.
    Ended { code: i32, signal: i32 },
}

impl Reply {
    /// Returns the bytes of the message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        match self {
            Self::Started => out.u8(STARTED),
            Self::Failed(failure) => {
                out.u8(FAILED);
                out.u8(failure.kind as u8);
                out.u32(failure.errno.cast_unsigned());
                out.bytes(&failure.text.as_bytes()[..failure.text.floor_char_boundary(MAX_TEXT)]);
            }
            Self::Ended { code, signal } => {
                out.u8(ENDED);
                out.u32(code.cast_unsigned());
                out.u32(signal.cast_unsigned());
            }
        }
        out.0
    }

    /// Returns the message that `bytes` are.
    pub(crate) fn decode(bytes: &[u8]) -> Decoded<Self> {
        let mut from = Decoder(bytes);
        Ok(match from.u8()? {
            STARTED => Self::Started,
            FAILED => {
                let kind = match from.u8()? {
                    0 => FailureKind::Setup,
                    1 => FailureKind::WorkingDirectory,
                    2 => FailureKind::NotInPath,
                    3 => FailureKind::Exec,
                    4 => FailureKind::NoInterpreter,
                    5 => FailureKind::Overlay,
                    _ => return Err(Malformed),
                };
                let errno = from.u32()?.cast_signed();
                Self::Failed(Failure { kind, errno, text: from.text()? })
            }
            ENDED => {
                Self::Ended { code: from.u32()?.cast_signed(), signal: from.u32()?.cast_signed() }
            }
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Spec {
        let mount = |target: &str, readonly, kind| Mount { target: target.into(), readonly, kind };
        Spec {
            mounts: vec![
                mount("/a", true, MountKind::Bind { source: "/s".into(), sub: "x".into() }),
                mount(
                    "/b",
                    false,
                    MountKind::Overlay {
                        lowers: vec!["/1".into(), "/2".into()],
                        sub: PathBuf::new(),
                        writable: Some(("/u".into(), "/w".into())),
                    },
                ),
                mount("/c", false, MountKind::Tmpfs { size: 7 }),
                mount(
                    "/d",
                    true,
                    MountKind::File { contents: vec![0, 255].into(), mode: 0o400, uid: 1, gid: 2 },
                ),
            ],
            env: vec!["A=b\nc".into(), OsString::from_vec(b"B=\xff".to_vec())],
            user: Credentials { uid: 5, gid: 6, groups: vec![6, 7] },
            network: Network::None,
            security: Security::Insecure,
            rlimits: vec![Rlimit { resource: Resource::Nofile, soft: Some(64), hard: None }],
            cgroups: vec!["/sys/fs/cgroup/x/cgroup.procs".into()],
            hosts: b"h".to_vec(),
            resolv_conf: b"r".to_vec(),
            another: false,
            ..Spec::new(
                Root::Overlay { lowers: vec!["/l".into()], upper: "/u".into(), work: "/w".into() },
                vec!["sh".into(), "-c".into(), "true".into()],
            )
        }
    }

    #[test]
    fn a_spec_comes_back_as_it_was() {
        let spec = full();
        assert_eq!(decode_spec(&encode_spec(&spec)).unwrap(), spec);
        let plain = Spec::new(Root::Dir("/r".into()), vec!["x".into()]);
        assert_eq!(decode_spec(&encode_spec(&plain)).unwrap(), plain);
    }

    #[test]
    fn a_cut_or_longer_form_is_refused() {
        let bytes = encode_spec(&full());
        for length in 0..bytes.len() {
            assert!(decode_spec(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(decode_spec(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn replies_come_back_and_fit() {
        let failure =
            Failure { kind: FailureKind::NoInterpreter, text: "é".repeat(9000), errno: 2 };
        let bytes = Reply::Failed(failure).encode();
        assert!(bytes.len() <= MAX_REPLY);
        assert!(Reply::decode(&bytes).is_ok());
        for reply in [Reply::Started, Reply::Ended { code: -1, signal: 9 }] {
            assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
        }
    }
}
