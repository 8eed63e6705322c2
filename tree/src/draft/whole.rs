//! A merged tree as one plain folder, for a step that cannot have it merged by the kernel.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::{CopyOptions, Draft};
use crate::layer::{Encoding, LayerDir};
use crate::path::absolute;
use crate::stack::Stack;
use crate::{DirEntry, FileData, Kind, Metadata, TreeError, View};

/// Copies what is at `path` of a tree to the same path of a plain folder: owners, modes, extended
/// attributes, times and hard links. Sockets are left out, for nobody listens on them any more.
///
/// # Errors
/// When there is nothing, or a file system fails.
pub fn copy_tree(
    tree: &Stack,
    path: &Path,
    into: &LayerDir,
    encoding: Encoding,
) -> Result<(), TreeError> {
    // A name that an option cannot carry has the whole tree copied.
    let path = path.to_str().unwrap_or_default();
    let parent = Path::new(path).parent().unwrap_or(Path::new(""));
    let dest = format!("{}/", absolute(parent).display());
    let options = CopyOptions {
        source: format!("/{path}"),
        dest,
        dir_copy_contents: path.is_empty(),
        create_dest_path: true,
        ..CopyOptions::default()
    };
    Draft::new(Stack::empty(), into.clone(), encoding).copy(&WithoutSockets(tree), &options)
}

/// A tree of which sockets are not shown.
pub(super) struct WithoutSockets<'a>(pub(super) &'a Stack);

impl View for WithoutSockets<'_> {
    fn metadata(&self, path: &Path) -> io::Result<Option<Metadata>> {
        self.0.metadata(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = self.0.read_dir(path)?;
        entries.retain(|entry| entry.metadata.kind != Kind::Socket);
        Ok(entries)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.0.open(path)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.read_link(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.0.xattrs(path)
    }
}
