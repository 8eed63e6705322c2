//! Trees as text, for comparing them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Kind, View};

/// Everything that a step can see of a tree.
pub(crate) fn snapshot_all(view: &dyn View) -> BTreeMap<PathBuf, String> {
    snapshot(view, i64::MAX)
}

/// The same, with times from `now` on masked.
pub(crate) fn snapshot(view: &dyn View, now: i64) -> BTreeMap<PathBuf, String> {
    fn below(view: &dyn View, dir: &Path, now: i64, all: &mut BTreeMap<PathBuf, String>) {
        for entry in view.read_dir(dir).unwrap() {
            let path = dir.join(&entry.name);
            let it = &entry.metadata;
            let content = match it.kind {
                Kind::File => {
                    let mut text = String::new();
                    std::io::Read::read_to_string(&mut view.open(&path).unwrap(), &mut text)
                        .unwrap();
                    text
                }
                Kind::Symlink => view.read_link(&path).unwrap().display().to_string(),
                _ => String::new(),
            };
            let xattrs = view.xattrs(&path).unwrap();
            let time = if it.mtime.seconds >= now { None } else { Some(it.mtime) };
            let line = format!(
                "{:?} {:o} {}:{} {} {time:?} {:?} {content:?} {xattrs:?}",
                it.kind, it.mode, it.uid, it.gid, it.size, it.rdev
            );
            all.insert(path.clone(), line);
            if it.kind == Kind::Dir {
                below(view, &path, now, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    below(view, Path::new(""), now, &mut all);
    all
}
