//! The options of `RUN --mount`.
//!
//! A value is one CSV record of `key=value` fields, read from left to right: `type` has to precede
//! the keys that depend on it. Each field's value is expanded on its own, so the text of a variable
//! can hold commas.

use llb::suggest;
use thiserror::Error;

use crate::quote::Quoted;

mod csv;

/// Reads the fields of one record of comma-separated values; a field with a comma is quoted as a whole.
///
/// # Errors
/// What is wrong with the quotes, or `EOF` where there is nothing.
pub fn fields(text: &str) -> Result<Vec<String>, String> {
    csv::record(text)
}

/// A mount, with the defaults that do not depend on the stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// Kind of mount.
    pub kind: MountKind,
    /// Target path as given, perhaps relative to the working directory; empty if not given.
    pub target: String,
    /// `source` as given; empty if not given, and for secrets, where it is merged into `id`.
    pub source: String,
    /// `from`: stage, context or image; not empty.
    pub from: Option<String>,
    /// Whether the step may not write.
    pub readonly: bool,
    /// `id` of a cache, secret or ssh mount as given; not empty.
    pub id: Option<String>,
    /// `sharing` of a cache mount.
    pub sharing: Sharing,
    /// `size` of a tmpfs in bytes.
    pub size: Option<u64>,
    /// `required` of a secret or ssh mount.
    pub required: bool,
    /// `env` of a secret mount.
    pub env: Option<String>,
    /// `mode`, from octal.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// Kind of mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// `bind`, the default.
    #[default]
    Bind,
    /// `cache`
    Cache,
    /// `tmpfs`
    Tmpfs,
    /// `secret`
    Secret,
    /// `ssh`
    Ssh,
}

impl MountKind {
    const ALL: [(&str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
        ("tmpfs", Self::Tmpfs),
    ];

    /// Returns the word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// How several steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each step has its own.
    Private,
    /// One after another.
    Locked,
}

impl Sharing {
    const ALL: [(&str, Self); 3] =
        [("locked", Self::Locked), ("private", Self::Private), ("shared", Self::Shared)];
}

/// All keys that can be suggested.
const KEYS: [&str; 19] = [
    "destination",
    "dst",
    "env",
    "from",
    "gid",
    "id",
    "mode",
    "readonly",
    "readwrite",
    "required",
    "ro",
    "rw",
    "sharing",
    "size",
    "source",
    "src",
    "target",
    "type",
    "uid",
];

/// Why the value of a `--mount` is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MountError {
    /// Quotes that do not match, or nothing at all.
    #[error("failed to parse csv mounts: {0}")]
    Csv(String),
    /// A variable in `from`.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableInFrom,
    /// An unknown type.
    #[error("unsupported mount type {}{hint}", Quoted(.value))]
    Type {
        /// The type.
        value: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// An unknown sharing mode.
    #[error("unsupported sharing value {}{hint}", Quoted(.value))]
    Sharing {
        /// The mode.
        value: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// A key that this type does not have.
    #[error("unexpected key '{key}' for mount type '{}'", .kind.name())]
    KeyForType {
        /// The key.
        key: String,
        /// The type.
        kind: MountKind,
    },
    /// An unknown key.
    #[error("unexpected key '{key}' in '{field}'{hint}")]
    Key {
        /// The key.
        key: String,
        /// The whole field.
        field: String,
        /// ` (did you mean ...?)` or nothing.
        hint: String,
    },
    /// A key without a value that needs one.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// A value that is no boolean or no size.
    #[error("invalid value for {key}: {value}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// A value that is no number.
    #[error("invalid value {value} for {key}")]
    Number {
        /// The key: `mode`, `uid` or `gid`.
        key: String,
        /// The value.
        value: String,
    },
    /// `mode`, `uid` or `gid` of a mount that has none.
    #[error("{key} not allowed for \"{}\" type mounts", .kind.name())]
    Ownership {
        /// The key.
        key: &'static str,
        /// The type.
        kind: MountKind,
    },
    /// `from` of a secret.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// `sharing` of a secret.
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// A secret without any name.
    #[error("invalid secret mount. one of source, target required")]
    SecretName,
    /// A secret with two names.
    #[error("both source and id can't be set")]
    SecretNames,
    /// `sharing` of a mount that is no cache.
    #[error("invalid cache sharing set for {} mount", .0.name())]
    NoCacheSharing(MountKind),
    /// `source` of an ssh mount.
    #[error("ssh does not support source")]
    SshSource,
}

impl MountError {
    /// What to do about it, when the message does not say it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Csv(_) => "write key=value,key=value; quote a whole field that has a comma",
            Self::Type { hint, .. } if hint.is_empty() => {
                "the types are bind, cache, tmpfs, secret and ssh"
            }
            Self::Sharing { hint, .. } if hint.is_empty() => "a cache is shared, private or locked",
            Self::Key { hint, .. } if hint.is_empty() => {
                "the keys are type, source, target, from, readonly, readwrite, id, sharing, size, mode, uid, gid, \
                 env and required"
            }
            Self::KeyForType { .. } => "`type` comes before the keys that only one type has",
            Self::NoValue(_) => "only readonly, readwrite and required stand alone",
            Self::Value { key, .. } if key == "size" => "write a number, with k, m or g behind it",
            Self::Value { .. } => "write true or false",
            Self::Number { key, .. } if key == "mode" => "write octal digits, such as 0755",
            Self::Number { .. } => "write a number",
            Self::Ownership { .. } => "cache, secret and ssh mounts have an owner and a mode",
            Self::SecretFrom | Self::SecretSharing => "leave it out: a secret has no such key",
            Self::SecretName => "add id=NAME",
            Self::SecretNames => "source is another word for id: leave one of them out",
            Self::NoCacheSharing(_) => "only mounts of type=cache are shared",
            Self::SshSource => "name the agent with id=NAME",
            _ => return None,
        })
    }
}

/// Returns the `from` of a raw value, in which variables are refused, but for a lone `$` at the
/// end. This is all that is looked at before the instruction is expanded.
///
/// # Errors
/// A value that is no CSV record, and a variable in `from`.
pub fn from(raw: &str) -> Result<Option<String>, MountError> {
    let mut from = None;
    for field in csv::record(raw).map_err(MountError::Csv)? {
        if let Some((key, value)) = field.split_once('=')
            && key.eq_ignore_ascii_case("from")
        {
            if value.find('$').is_some_and(|at| at + 1 < value.len()) {
                return Err(MountError::VariableInFrom);
            }
            from = Some(value.to_owned());
        }
    }
    Ok(from.filter(|from| !from.is_empty()))
}

/// Parses the raw value of a `--mount`, passing each field's value through `expand`.
///
/// # Errors
/// The first wrong option, or the first error of `expand`.
pub fn parse<E: From<MountError>>(
    raw: &str,
    expand: &mut dyn FnMut(&str) -> Result<String, E>,
) -> Result<Mount, E> {
    let mut mount = Mount::default();
    let mut given = Given::default();
    for field in csv::record(raw).map_err(MountError::Csv)? {
        match field.split_once('=') {
            None => bare(&mut mount, &mut given, &field)?,
            Some((key, value)) => {
                let (key, value) = (key.to_lowercase(), expand(value)?);
                option(&mut mount, &mut given, &field, key, value)?;
            }
        }
    }
    let is_writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
    mount.readonly = given.readonly.unwrap_or(!is_writable);
    mount.sharing = given.sharing.unwrap_or_default();
    validate(&mount, &given)?;
    if mount.kind == MountKind::Secret && !mount.source.is_empty() {
        mount.id = Some(std::mem::take(&mut mount.source));
    }
    Ok(mount)
}

/// What makes a difference by being given, whatever it says.
#[derive(Default)]
struct Given {
    readonly: Option<bool>,
    sharing: Option<Sharing>,
}

/// Applies a field without `=`.
fn bare(mount: &mut Mount, given: &mut Given, field: &str) -> Result<(), MountError> {
    let key = field.to_lowercase();
    match key.as_str() {
        "readonly" | "ro" => given.readonly = Some(true),
        "readwrite" | "rw" => given.readonly = Some(false),
        "required" => {
            check_required(mount, key)?;
            mount.required = true;
        }
        _ => return Err(MountError::NoValue(field.to_owned())),
    }
    Ok(())
}

/// Applies a field with `=`, whose value is expanded.
fn option(
    mount: &mut Mount,
    given: &mut Given,
    field: &str,
    key: String,
    value: String,
) -> Result<(), MountError> {
    match key.as_str() {
        "type" => mount.kind = kind(value)?,
        "from" => mount.from = Some(value).filter(|value| !value.is_empty()),
        "source" | "src" => mount.source = value,
        "target" | "dst" | "destination" => mount.target = value,
        "readonly" | "ro" => given.readonly = Some(boolean(key, value)?),
        "readwrite" | "rw" => given.readonly = Some(!boolean(key, value)?),
        "required" => {
            check_required(mount, key.clone())?;
            mount.required = boolean(key, value)?;
        }
        "size" if mount.kind == MountKind::Tmpfs => {
            mount.size = Some(size(&value).ok_or(MountError::Value { key, value })?);
        }
        "size" => return Err(MountError::KeyForType { key, kind: mount.kind }),
        "id" => mount.id = Some(value).filter(|value| !value.is_empty()),
        "sharing" => given.sharing = Some(sharing(value)?),
        "mode" => mount.mode = Some(number(key, value, 8)?),
        "uid" => mount.uid = Some(number(key, value, 10)?),
        "gid" => mount.gid = Some(number(key, value, 10)?),
        "env" => mount.env = Some(value),
        _ => {
            let hint = suggest::question(suggest::nearest(&key, KEYS));
            return Err(MountError::Key { key, field: field.to_owned(), hint });
        }
    }
    Ok(())
}

/// Checks what does not depend on the order of the fields.
fn validate(mount: &Mount, given: &Given) -> Result<(), MountError> {
    let kind = mount.kind;
    if matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
        let ownership = [("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)];
        if let Some((key, _)) = ownership.into_iter().find(|(_, value)| value.is_some()) {
            return Err(MountError::Ownership { key, kind });
        }
    }
    if kind == MountKind::Secret {
        let names = [mount.source.is_empty(), mount.id.is_none(), mount.target.is_empty()];
        match names {
            _ if mount.from.is_some() => return Err(MountError::SecretFrom),
            _ if given.sharing.is_some() => return Err(MountError::SecretSharing),
            [true, true, true] => return Err(MountError::SecretName),
            [false, false, _] => return Err(MountError::SecretNames),
            _ => {}
        }
    }
    if given.sharing.is_some() && kind != MountKind::Cache {
        return Err(MountError::NoCacheSharing(kind));
    }
    if kind == MountKind::Ssh && !mount.source.is_empty() {
        return Err(MountError::SshSource);
    }
    Ok(())
}

fn check_required(mount: &Mount, key: String) -> Result<(), MountError> {
    match mount.kind {
        MountKind::Secret | MountKind::Ssh => Ok(()),
        kind => Err(MountError::KeyForType { key, kind }),
    }
}

fn kind(value: String) -> Result<MountKind, MountError> {
    let lower = value.to_lowercase();
    match MountKind::ALL.iter().find(|(name, _)| *name == lower) {
        Some((_, kind)) => Ok(*kind),
        None => {
            let hint =
                suggest::question(suggest::nearest(&lower, MountKind::ALL.map(|(name, _)| name)));
            Err(MountError::Type { value, hint })
        }
    }
}

fn sharing(value: String) -> Result<Sharing, MountError> {
    let lower = value.to_lowercase();
    match Sharing::ALL.iter().find(|(name, _)| *name == lower) {
        Some((_, sharing)) => Ok(*sharing),
        None => {
            let hint =
                suggest::question(suggest::nearest(&lower, Sharing::ALL.map(|(name, _)| name)));
            Err(MountError::Sharing { value, hint })
        }
    }
}

fn boolean(key: String, value: String) -> Result<bool, MountError> {
    match value.as_str() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(MountError::Value { key, value }),
    }
}

fn number(key: String, value: String, radix: u32) -> Result<u32, MountError> {
    let is_plain = !value.starts_with(['+', '-']);
    let number = u32::from_str_radix(&value, radix).ok().filter(|_| is_plain);
    number.ok_or(MountError::Number { key, value })
}

/// Parses a size such as `64m`, `1.5 GiB` or `100`, in powers of 1024.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_lowercase();
    let exponent = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" if unit != "i" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(exponent);
    // Casting saturates, and a size of that many bytes is no limit anyway.
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(raw: &str) -> Result<Mount, MountError> {
        parse(raw, &mut |value| Ok(value.replace("$v", "a,b")))
    }

    #[track_caller]
    fn check_error(raw: &str, expect: &str) {
        let actual = read(raw).map_or_else(|error| error.to_string(), |it| format!("{it:?}"));
        assert_eq!(actual, expect);
    }

    #[test]
    fn options_of_every_type() {
        let mount = read("Type=cache,target=$v,id=x,sharing=Locked,uid=1,gid=2,mode=0755").unwrap();
        let expect = Mount {
            kind: MountKind::Cache,
            target: "a,b".into(),
            id: Some("x".into()),
            sharing: Sharing::Locked,
            uid: Some(1),
            gid: Some(2),
            mode: Some(0o755),
            ..Mount::default()
        };
        assert_eq!(mount, expect);
        assert!(read("target=/x").unwrap().readonly);
        assert!(!read("target=/x,rw").unwrap().readonly);
        assert!(read("type=tmpfs,dst=/x,rw=false").unwrap().readonly);
        assert_eq!(read("type=tmpfs,dst=/x,size=1.5k").unwrap().size, Some(1536));
        assert_eq!(read("type=tmpfs,dst=/x,size=2 GiB").unwrap().size, Some(2 << 30));
        let secret = read("type=secret,id=a,env=B,required").unwrap();
        assert_eq!((secret.env.as_deref(), secret.required), (Some("B"), true));
        assert_eq!(read("type=secret,src=a").unwrap().id.as_deref(), Some("a"));
        assert_eq!(read("\"target=/a,b\",ro").unwrap().target, "/a,b");
    }

    #[test]
    fn messages() {
        check_error("type=bnd", r#"unsupported mount type "bnd" (did you mean bind?)"#);
        check_error("type=volume", r#"unsupported mount type "volume""#);
        check_error(
            "type=cache,sharing=lock",
            r#"unsupported sharing value "lock" (did you mean locked?)"#,
        );
        check_error("required", "unexpected key 'required' for mount type 'bind'");
        check_error("size=1", "unexpected key 'size' for mount type 'bind'");
        check_error("targt=/x", "unexpected key 'targt' in 'targt=/x' (did you mean target?)");
        check_error("target", "invalid field 'target' must be a key=value pair");
        check_error("ro=maybe", "invalid value for ro: maybe");
        check_error("type=tmpfs,size=big", "invalid value for size: big");
        check_error("type=cache,mode=9", "invalid value 9 for mode");
        check_error("type=cache,uid=-1", "invalid value -1 for uid");
        check_error("mode=755", "mode not allowed for \"bind\" type mounts");
        check_error("type=secret,id=a,from=b", "secret mount should not have a from");
        check_error("type=secret", "invalid secret mount. one of source, target required");
        check_error("type=secret,id=a,source=b", "both source and id can't be set");
        check_error("sharing=locked", "invalid cache sharing set for bind mount");
        check_error("type=ssh,source=a", "ssh does not support source");
        check_error("", "failed to parse csv mounts: EOF");
    }

    #[test]
    fn from_is_known_before_expansion() {
        assert_eq!(from("type=cache,FROM=base,target=$x"), Ok(Some("base".into())));
        assert_eq!(from("target=/x"), Ok(None));
        assert_eq!(from("from=a$"), Ok(Some("a$".into())));
        assert_eq!(from("from=$a"), Err(MountError::VariableInFrom));
    }
}
