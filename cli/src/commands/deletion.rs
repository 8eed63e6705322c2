//! Whether `mode=delete` may empty a folder.

use std::path::{Component, Path, PathBuf};

use exporters::{Output, Target};

use crate::commands::options::LOCAL_DELETE;
use crate::report::{Exit, Failure};

/// Refuses an output that would delete files of the current folder itself or outside of it, unless that is granted.
pub(crate) fn check(output: &Output, granted: &[String]) -> Result<(), Failure> {
    let Some(Target::Path(folder)) = output.dest.as_ref().filter(|_| output.delete) else {
        return Ok(());
    };
    let is_granted =
        granted.iter().flat_map(|text| text.split(',')).any(|text| text == LOCAL_DELETE);
    let here = std::env::current_dir().and_then(fs_err::canonicalize).ok();
    if is_granted || here.is_some_and(|here| is_below(folder, &here)) {
        return Ok(());
    }
    let message = format!(
        "`mode=delete` would delete files in `{}`, which is not below the current folder",
        folder.display()
    );
    Err(Failure::new(Exit::Usage, message).hint(format!("grant it with --allow {LOCAL_DELETE}")))
}

/// Whether a folder, which need not be there, is below `top` and not it itself.
fn is_below(folder: &Path, top: &Path) -> bool {
    let mut existing: PathBuf = top.join(folder);
    let mut is_whole = true;
    let found = loop {
        match fs_err::canonicalize(&existing) {
            Ok(found) => break found,
            // What is not there and is left by `..` is not looked into.
            Err(_) if matches!(existing.components().next_back(), Some(Component::Normal(_))) => {
                existing.pop();
                is_whole = false;
            }
            Err(_) => return false,
        }
    };
    found.starts_with(top) && (found != top || !is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_is_below() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs_err::canonicalize(folder.path()).unwrap();
        fs_err::create_dir(top.join("a")).unwrap();
        fs_err::os::unix::fs::symlink("/", top.join("root")).unwrap();
        let below = |path: &str| is_below(Path::new(path), &top);
        assert!(below("a") && below("./a/b/c") && below("new"));
        for path in [".", "..", "a/..", "root", "root/tmp", "new/../..", "/", "/nowhere"] {
            assert!(!below(path), "{path}");
        }
    }
}
