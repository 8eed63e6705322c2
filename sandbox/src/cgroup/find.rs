//! Which control groups there are, and in which this process is.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::values::{Controller, Version};

/// A mounted tree of control groups.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    /// Where its root is.
    pub(super) mount: PathBuf,
    /// Folder of the group that this process is in.
    pub(super) own: PathBuf,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn hierarchies(mounts: &str, own: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|line| hierarchy(line, own)).collect()
}

/// `36 35 98:0 /root /mount options - type source super-options`, with fields of any number before the dash.
fn hierarchy(line: &str, own: &str) -> Option<Hierarchy> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(3);
    let (root, mount) = (unescaped(fields.next()?), PathBuf::from(unescaped(fields.next()?)));
    let mut fields = after.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
    match kind {
        "cgroup2" => {
            let own = group_of(own, |names| names.is_empty())?;
            let own = below(&mount, &root, own);
            // What the own group has been given, which is what can be given on; of the root it is what there is.
            let there = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
            let controllers = known(there.split_whitespace());
            Some(Hierarchy { version: Version::Two, controllers, mount, own })
        }
        "cgroup" => {
            let controllers = known(options.split(','));
            let first = controllers.first()?.name();
            let own = group_of(own, |names| names.split(',').any(|name| name == first))?;
            let own = below(&mount, &root, own);
            Some(Hierarchy { version: Version::One, controllers, mount, own })
        }
        _ => None,
    }
}

fn known<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Controller> {
    names.filter_map(Controller::from_name).collect()
}

/// Path of the own group in the hierarchy whose names are the right ones: `4:memory:/path`.
fn group_of(own: &str, is_right: impl Fn(&str) -> bool) -> Option<&str> {
    let mut lines = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        Some((names, path))
    });
    lines.find(|(names, _)| is_right(names)).map(|(_, path)| path)
}

/// Folder of a group in a hierarchy of which `root` is mounted. A group that is not below it is told by its path outside; the
/// process is then in the one that is mounted.
fn below(mount: &Path, root: &str, group: &str) -> PathBuf {
    match Path::new(group).strip_prefix(root) {
        Ok(rest) => mount.join(rest),
        Err(_) => mount.to_owned(),
    }
}

/// A field of mountinfo, in which blanks are octal numbers behind a backslash.
fn unescaped(field: &str) -> String {
    let mut text = field.to_owned();
    for (code, sign) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, sign);
    }
    text
}
