//! A whole tree as one tar, for `type=tar`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{entry, push};
use crate::tar::{Entry, EntryKind, Writer};
use crate::{Kind, Metadata, Timestamp, View};

/// How a tree is put into a tar.
#[derive(Debug, Clone, Default)]
pub struct FlatOptions {
    /// Directory of the tar that becomes the tree's root, without a `/` at its end; none for the tar's
    /// own root. It gets mode 0755.
    pub prefix: Option<String>,
    /// Seconds since the epoch that every time is set to.
    pub mtime: Option<i64>,
}

/// Writes a tree as a tar of its own.
///
/// # Errors
/// When the tree cannot be read or `out` fails.
pub fn write_tree(view: &dyn View, out: &mut dyn Write) -> io::Result<()> {
    let mut writer = Writer::new(out);
    append_tree(&mut writer, view, &FlatOptions::default())?;
    writer.finish()?;
    Ok(())
}

/// Appends a tree to a tar; its root is no entry.
///
/// # Errors
/// When the tree cannot be read or the tar cannot be written.
pub fn append_tree<W: Write>(
    writer: &mut Writer<W>,
    view: &dyn View,
    options: &FlatOptions,
) -> io::Result<()> {
    let mut walk =
        Walk { writer, view, mtime: options.mtime, prefix: Vec::new(), first: HashMap::new() };
    if let Some(prefix) = &options.prefix {
        let mtime = Timestamp { seconds: options.mtime.unwrap_or(0), nanoseconds: 0 };
        let root =
            Entry { mode: 0o755, mtime, ..Entry::new(EntryKind::Dir, prefix.clone().into()) };
        walk.writer.append(&root)?;
        walk.prefix = format!("{prefix}/").into();
    }
    walk.directory(&mut Vec::new())
}

struct Walk<'a, W: Write> {
    writer: &'a mut Writer<W>,
    view: &'a dyn View,
    mtime: Option<i64>,
    prefix: Vec<u8>,
    /// First path of each file that has several.
    first: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Walk<'_, W> {
    fn directory(&mut self, path: &mut Vec<u8>) -> io::Result<()> {
        for child in self.view.read_dir(as_path(path))? {
            let length = push(path, child.name.as_bytes());
            self.one(path, &child.metadata)?;
            if child.metadata.kind == Kind::Dir {
                self.directory(path)?;
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn one(&mut self, path: &[u8], metadata: &Metadata) -> io::Result<()> {
        let full = [&self.prefix, path].concat();
        let Some(mut entry) = entry(&full, metadata) else { return Ok(()) };
        entry.mtime = Timestamp {
            seconds: self.mtime.unwrap_or_else(|| rounded(metadata.mtime)),
            nanoseconds: 0,
        };
        entry.xattrs = self.view.xattrs(as_path(path))?;
        match metadata.kind {
            Kind::Symlink => {
                entry.link =
                    self.view.read_link(as_path(path))?.into_os_string().into_encoded_bytes()
            }
            Kind::Dir => {}
            _ if metadata.links > 1 => match self.first.get(&metadata.inode) {
                Some(first) => {
                    entry.link.clone_from(first);
                    entry.kind = EntryKind::HardLink;
                }
                None => drop(self.first.insert(metadata.inode, full)),
            },
            _ => {}
        }
        if entry.kind == EntryKind::File {
            let mut file = self.view.open(as_path(path))?;
            return self.writer.append_file(&entry, &mut file);
        }
        self.writer.append(&entry)
    }
}

/// The nearest second, as Go's writer has it where no format is asked for.
fn rounded(time: Timestamp) -> i64 {
    time.seconds.saturating_add(i64::from(time.nanoseconds >= 500_000_000))
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}
