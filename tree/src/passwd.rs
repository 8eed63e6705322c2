//! Users and groups of an image: `/etc/passwd` and `/etc/group` of a tree.
//!
//! The files are the image's and not trusted: they are found inside the root, must be regular, and are
//! bounded. Lines are read leniently: a field that is missing or no number counts as empty or 0.
//!
//! Format: spec `sandbox.md` §2 for a step, `instructions.md` §7.6 for `--chown`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::path::{clean, resolve};
use crate::{Kind, View};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Largest file that is read, in bytes.
const MAX_SIZE: u64 = 10 << 20;

/// Largest user and group number.
const MAX_ID: u64 = (1 << 31) - 1;

/// Why a user or group is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswdError {
    /// The user is not in the file. The wording is the reference's.
    #[error("unable to find user {name}: no matching entries in passwd file")]
    NoUser {
        /// The user as written.
        name: String,
    },
    /// The group is not in the file. The wording is the reference's.
    #[error("unable to find group {name}: no matching entries in group file")]
    NoGroup {
        /// The group as written.
        name: String,
    },
    /// A number that is no user or group.
    #[error("uids and gids must be in range 0-{MAX_ID}, not `{text}`")]
    Range {
        /// The number as written.
        text: String,
    },
    /// The file is larger than any real one. The wording is the reference's.
    #[error("\"{path}\" exceeds {MAX_SIZE} bytes")]
    TooLarge {
        /// The file.
        path: &'static str,
    },
    /// The file is a directory, a device or the like.
    #[error("`{path}` is not a regular file")]
    NotRegular {
        /// The file.
        path: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Io {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A user as `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// User number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: String,
}

/// Who a step runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepUser {
    /// User number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Supplementary groups; the primary one is among them.
    pub groups: Vec<u32>,
    /// Home directory of the user number, else `/`.
    pub home: PathBuf,
}

/// A user or group by number or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// By number.
    Id(u32),
    /// By name.
    Name(String),
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Finds the first user of a name.
///
/// # Errors
/// When the file cannot be read; a missing one has no users.
pub fn lookup_user(view: &dyn View, name: &str) -> Result<Option<User>, PasswdError> {
    Ok(users(view)?.into_iter().find(|user| user.name == name))
}

/// Finds the number of the first group of a name.
///
/// # Errors
/// When the file cannot be read; a missing one has no groups.
pub fn lookup_group(view: &dyn View, name: &str) -> Result<Option<u32>, PasswdError> {
    Ok(groups(view)?.into_iter().find(|group| group.name == name).map(|group| group.gid))
}

/// Resolves the `USER` of a step: empty, `user` or `user:group`, each by number or by name.
///
/// # Errors
/// When a name is not known, a number is out of range or a file cannot be read.
pub fn step_user(view: &dyn View, spec: &str) -> Result<StepUser, PasswdError> {
    let (user, group) = match spec.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    if let Some(group) = group
        && let (Some(uid), Some(gid)) = (id_or_root(user)?, id_or_root(group)?)
    {
        // Numbers alone: the files are not asked, except for the home directory.
        let home = users(view).unwrap_or_default().into_iter().find(|known| known.uid == uid);
        return Ok(StepUser { uid, gid, groups: vec![gid], home: home_of(home.as_ref()) });
    }
    let users = users(view)?;
    let (uid, known) = match number(user)? {
        Some(uid) => (uid, users.iter().find(|known| known.uid == uid)),
        None => match users.iter().find(|known| known.name == user) {
            Some(known) => (known.uid, Some(known)),
            None => return Err(PasswdError::NoUser { name: user.to_owned() }),
        },
    };
    let home = home_of(known.or_else(|| users.iter().find(|known| known.uid == uid)));
    let Some(group) = group else {
        let gid = known.map_or(0, |known| known.gid);
        let mut all = vec![gid];
        if let Some(known) = known {
            let member = |group: &Group| group.members.contains(&known.name);
            for group in groups(view)?.iter().filter(|group| member(group)) {
                if !all.contains(&group.gid) {
                    all.push(group.gid);
                }
            }
        }
        return Ok(StepUser { uid, gid, groups: all, home });
    };
    let gid = match number(group)? {
        Some(gid) => gid,
        None => lookup_group(view, group)?
            .ok_or_else(|| PasswdError::NoGroup { name: group.to_owned() })?,
    };
    Ok(StepUser { uid, gid, groups: vec![gid], home })
}

/// Resolves `--chown`: an unknown user counts as 0, an unknown group as none given. Without a group, the
/// gid is the user's primary group, or the user's number.
///
/// # Errors
/// When a file cannot be read.
pub fn owner(
    view: &dyn View,
    user: Option<&Spec>,
    group: Option<&Spec>,
) -> Result<(u32, u32), PasswdError> {
    let (uid, primary) = match user {
        None => (0, 0),
        Some(Spec::Id(uid)) => (*uid, *uid),
        Some(Spec::Name(name)) => {
            lookup_user(view, name)?.map_or((0, 0), |known| (known.uid, known.gid))
        }
    };
    let gid = match group {
        None => None,
        Some(Spec::Id(gid)) => Some(*gid),
        Some(Spec::Name(name)) => lookup_group(view, name)?,
    };
    Ok((uid, gid.unwrap_or(primary)))
}

fn home_of(user: Option<&User>) -> PathBuf {
    user.filter(|user| !user.home.is_empty()).map_or_else(|| "/".into(), |user| (&user.home).into())
}

/// A number, or `None` for a name.
fn number(text: &str) -> Result<Option<u32>, PasswdError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(id) if id <= MAX_ID => Ok(u32::try_from(id).ok()),
        _ => Err(PasswdError::Range { text: text.to_owned() }),
    }
}

fn id_or_root(text: &str) -> Result<Option<u32>, PasswdError> {
    if text == "root" { Ok(Some(0)) } else { number(text) }
}

fn users(view: &dyn View) -> Result<Vec<User>, PasswdError> {
    Ok(lines(view, PASSWD)?
        .iter()
        .map(|fields| User {
            name: field(fields, 0).to_owned(),
            uid: id_field(fields, 2),
            gid: id_field(fields, 3),
            home: field(fields, 5).to_owned(),
        })
        .collect())
}

fn groups(view: &dyn View) -> Result<Vec<Group>, PasswdError> {
    Ok(lines(view, GROUP)?
        .iter()
        .map(|fields| Group {
            name: field(fields, 0).to_owned(),
            gid: id_field(fields, 2),
            members: field(fields, 3).split(',').map(|name| name.trim().to_owned()).collect(),
        })
        .collect())
}

fn field(fields: &[String], index: usize) -> &str {
    fields.get(index).map_or("", String::as_str)
}

fn id_field(fields: &[String], index: usize) -> u32 {
    field(fields, index).parse().unwrap_or(0)
}

/// Fields of the lines that are not blank; a file that is missing has none.
fn lines(view: &dyn View, path: &'static str) -> Result<Vec<Vec<String>>, PasswdError> {
    let failed = |source| PasswdError::Io { path, source };
    let found = resolve(view, Path::new(&clean(path)), true).map_err(failed)?;
    let Some(metadata) = view.metadata(&found).map_err(failed)? else { return Ok(Vec::new()) };
    if metadata.kind != Kind::File {
        return Err(PasswdError::NotRegular { path });
    }
    let mut bytes = Vec::new();
    let mut file = view.open(&found).map_err(failed)?.take(MAX_SIZE + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(PasswdError::TooLarge { path });
    }
    let text = String::from_utf8_lossy(&bytes);
    let blank = |line: &&str| !line.trim().is_empty();
    let fields = |line: &str| line.trim().split(':').map(str::to_owned).collect();
    Ok(text.lines().filter(blank).map(fields).collect())
}
