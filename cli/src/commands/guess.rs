//! A guess, before anything is looked up, whether steps will run: what takes a moment to start can start meanwhile.
//!
//! A wrong guess costs that moment, and changes nothing else.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parser::Dockerfile;
use parser::ast::InstructionKind;

/// Names at the top of a context that are looked at.
const MOST: usize = 64;

/// How far the clock by which files get their times may be behind.
const LAG: Duration = Duration::from_millis(10);

/// Whether a `RUN` of the Dockerfile will likely have to run: something of what the build reads has changed since
/// anything was written to the store, as far as a short look tells.
pub(crate) fn expects_steps(
    tree: &Dockerfile,
    path: Option<&Path>,
    context: Option<&Path>,
    last_written: Option<SystemTime>,
) -> bool {
    let has_steps = tree.instructions.iter().any(|it| matches!(it.kind, InstructionKind::Run(_)));
    let Some(last) = last_written else { return has_steps };
    has_steps
        && (path.is_some_and(|path| has_changed(path, last))
            || context.is_some_and(|folder| has_changed_inside(folder, last)))
}

fn has_changed_inside(folder: &Path, last: SystemTime) -> bool {
    let Ok(entries) = fs_err::read_dir(folder) else { return false };
    entries.take(MOST).flatten().any(|entry| has_changed(&entry.path(), last))
}

fn has_changed(path: &Path, last: SystemTime) -> bool {
    fs_err::symlink_metadata(path).is_ok_and(|metadata| {
        let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
        let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
        UNIX_EPOCH + Duration::new(seconds, nanoseconds) + LAG >= last
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Dockerfile {
        parser::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_younger_than_the_store_lets_steps_be_expected() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("file"), "").unwrap();
        let (before, after) = (UNIX_EPOCH, SystemTime::now() + Duration::from_secs(60));
        let guess =
            |text: &str, last| expects_steps(&parsed(text), None, Some(folder.path()), last);
        let steps = "FROM scratch\nRUN true\n";
        assert!(guess(steps, Some(before)));
        assert!(!guess(steps, Some(after)));
        assert!(guess(steps, None), "a store that is new has nothing");
        assert!(!guess("FROM scratch\nCOPY file /\n", Some(before)));
        let file = folder.path().join("file");
        assert!(expects_steps(&parsed(steps), Some(&file), None, Some(before)));
        assert!(!expects_steps(&parsed(steps), Some(&file), None, Some(after)));
    }
}
