//! The `tar` exporter: the files of a result in one tar.

use tree::diff::{FlatOptions, append_tree};
use tree::tar::{Entry, EntryKind, Writer};

use crate::destination::Destination;
use crate::local::{Roots, roots};
use crate::{ExportError, ImageResult, Output};

/// Writes the files of all platforms; with several, each has a folder of its own.
///
/// # Errors
/// When the files cannot be read or the destination not be written; a file is then left as it was.
pub fn write(
    result: &ImageResult,
    output: &Output,
    destination: Destination,
) -> Result<(), ExportError> {
    let Roots { split, roots } = roots(result, output)?;
    destination.write(&output.image.stop, |out| {
        let mut writer = Writer::new(out);
        for root in &roots {
            let prefix = split.then(|| root.platform.directory_name());
            let folder = prefix.as_ref().map(|name| format!("{name}/")).unwrap_or_default();
            let options = FlatOptions { prefix, mtime: root.epoch };
            append_tree(&mut writer, &root.files, &options).map_err(ExportError::Archive)?;
            for (name, text) in &root.said {
                let mut entry = Entry::new(EntryKind::File, format!("{folder}{name}").into());
                entry.mode = 0o600;
                entry.size = text.len() as u64;
                entry.mtime.seconds = root.epoch.unwrap_or(0);
                writer.append_file(&entry, &mut text.as_slice()).map_err(ExportError::Archive)?;
            }
        }
        writer.finish().map(drop).map_err(ExportError::Archive)
    })
}
