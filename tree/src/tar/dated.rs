//! Archives whose files are no younger than a given time.

use std::io::{self, BufReader, Read, Write};

use super::{EntryKind, Reader, Writer};
use crate::Timestamp;

/// Copies an archive; what was changed after `latest`, in seconds, gets that time.
///
/// An archive of a [`Writer`] in which nothing is younger comes out byte for byte.
///
/// # Errors
/// When `tar` is no archive, or one of the streams fails.
pub fn no_later_than(latest: i64, tar: impl Read, out: impl Write) -> io::Result<()> {
    let latest = Timestamp { seconds: latest, nanoseconds: 0 };
    let mut reader = Reader::new(BufReader::with_capacity(64 << 10, tar));
    let mut writer = Writer::new(out);
    while let Some(mut entry) = reader.next_entry()? {
        entry.mtime = entry.mtime.min(latest);
        match entry.kind {
            EntryKind::File => writer.append_file(&entry, &mut reader)?,
            _ => writer.append(&entry)?,
        }
    }
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    writer.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Entry;

    #[test]
    fn only_what_is_younger_is_changed() {
        let archive = |old: i64, young: i64| {
            let mut writer = Writer::new(Vec::new());
            let at = |seconds, path: String| Entry {
                mtime: Timestamp { seconds, nanoseconds: 0 },
                size: 3,
                mode: 0o640,
                xattrs: vec![("security.capability".into(), vec![0, 255])],
                ..Entry::new(EntryKind::File, path.into())
            };
            writer.append_file(&at(old, "é".repeat(90)), &mut &b"old"[..]).unwrap();
            writer.append_file(&at(young, "young".to_owned()), &mut &b"new"[..]).unwrap();
            let link = Entry { link: "young".into(), ..at(young, "link".to_owned()) };
            writer.append(&Entry { kind: EntryKind::HardLink, size: 0, ..link }).unwrap();
            writer.finish().unwrap()
        };
        let changed = |latest| {
            let mut out = Vec::new();
            no_later_than(latest, &archive(-5, 900)[..], &mut out).unwrap();
            out
        };
        assert!(changed(900) == archive(-5, 900));
        assert!(changed(7) == archive(-5, 7));
        assert!(no_later_than(7, &archive(-5, 900)[..1500], Vec::new()).is_err());
    }
}
