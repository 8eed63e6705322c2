//! Owners of what a step has made, where every process of it was the same to the kernel.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use super::Draft;

use crate::owner::Keeper;
use crate::select::check_depth;
use crate::stack::Merged;
use crate::{Kind, Metadata, TreeError, layer, walk};

/// The mark that overlayfs leaves on what it has copied from below.
const ORIGIN: &str = "user.overlay.origin";

impl Draft {
    /// Gives what is in the layer and belongs to nobody yet, because a step has made it, to the user of the step.
    ///
    /// # Errors
    /// When the file system fails.
    pub fn own_new(&self, owner: (u32, u32)) -> Result<(), TreeError> {
        let root = self.upper.root().map_err(TreeError::io("open", Path::new("")))?;
        let below = self.lower.merged(Path::new(""));
        let below = below.map_err(TreeError::io("read", Path::new("")))?;
        Owning { keeper: self.upper.keeper(), owner }.folder(root, Path::new(""), below)
    }
}

struct Owning<'a> {
    keeper: &'a Keeper,
    owner: (u32, u32),
}

impl Owning<'_> {
    fn folder(
        &self,
        dir: BorrowedFd<'_>,
        path: &Path,
        below: Option<Arc<Merged>>,
    ) -> Result<(), TreeError> {
        check_depth(path, path)?;
        for (name, kind) in walk::names(dir).map_err(TreeError::io("read", path))? {
            // Files that nobody owns are root's already.
            if self.owner == (0, 0) && kind == FileType::RegularFile {
                continue;
            }
            let path = path.join(&name);
            let found = walk::metadata(dir, &name).map_err(TreeError::io("read", &path))?;
            let Some(found) = found else { continue };
            let own = || self.name(dir, &name, &found, below.as_deref());
            own().map_err(TreeError::io("change", &path))?;
            if found.kind == Kind::Dir
                && let Some(inner) =
                    walk::open_dir(dir, &name).map_err(TreeError::io("open", &path))?
            {
                let below = match &below {
                    Some(below) => below.dir(&name).map_err(TreeError::io("read", &path))?,
                    None => None,
                };
                self.folder(inner.as_fd(), &path, below.map(Arc::new))?;
            }
        }
        Ok(())
    }

    fn name(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        found: &Metadata,
        below: Option<&Merged>,
    ) -> std::io::Result<()> {
        if layer::is_whiteout(dir, name, found)? || self.keeper.knows(dir, name, found)? {
            return Ok(());
        }
        if matches!(found.kind, Kind::File | Kind::Dir) {
            if self.owner == (0, 0) {
                return Ok(());
            }
            return match walk::xattr(dir, name, ORIGIN)? {
                Some(_) => Ok(()),
                None => self.keeper.own(dir, name, found.kind, self.owner),
            };
        }
        // These have no mark: what is as it was below is a copy of that.
        let before = match below {
            Some(below) => below.metadata(name)?,
            None => None,
        };
        let owner = match before {
            // A link is made anew when it changes; the others change in place.
            Some(before)
                if before.kind == found.kind
                    && (found.kind != Kind::Symlink || before.mtime == found.mtime) =>
            {
                (before.uid, before.gid)
            }
            _ => self.owner,
        };
        self.keeper.own(dir, name, found.kind, owner)
    }
}

#[cfg(test)]
mod tests {
    use fs_err as fs;
    use fs_err::os::unix::fs::symlink;

    use crate::View;
    use crate::layer::{Encoding, LayerDir, Owners, Whiteouts};
    use crate::stack::Stack;

    use super::*;

    #[test]
    fn what_belongs_to_nobody_is_given_to_the_user() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP: records stand for files of root");
            return;
        }
        let encoding = Encoding { owners: Owners::Recorded, whiteouts: Whiteouts::User };
        let top = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = top.path().join(name).join("fs");
            fs::create_dir_all(&path).unwrap();
            LayerDir::encoded(path, encoding)
        };
        let (lower, upper) = (folder("a"), folder("b"));
        symlink("x", lower.path().join("old")).unwrap();
        let draft = Draft::new(Stack::new(vec![lower]), upper.clone(), encoding);
        fs::create_dir(upper.path().join("made")).unwrap();
        fs::write(upper.path().join("made/file"), "").unwrap();
        symlink("y", upper.path().join("made/link")).unwrap();
        fs::write(upper.path().join("copied"), "").unwrap();
        let mark = |name: &str, key: &str, value: &[u8]| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(upper.path().join(name), key, value, flags).unwrap();
        };
        mark("copied", ORIGIN, b"");
        fs::write(upper.path().join("owned"), "").unwrap();
        mark("owned", crate::owner::ATTRIBUTE, b"0:0");
        layer::make_whiteout(upper.root().unwrap(), OsStr::new("gone")).unwrap();
        draft.own_new((1000, 50)).unwrap();
        let owner = |name: &str| {
            let found = draft.view().metadata(Path::new(name)).unwrap().unwrap();
            (found.uid, found.gid)
        };
        for name in ["made", "made/file", "made/link"] {
            assert_eq!(owner(name), (1000, 50), "{name}");
        }
        for name in ["copied", "owned", "old"] {
            assert_eq!(owner(name), (0, 0), "{name}");
        }
        assert_eq!(draft.view().metadata(Path::new("gone")).unwrap(), None);
    }
}
