//! Gzip layers whose files can be fetched one by one: eStargz.
//!
//! ```text
//! member   headers up to the first file with content
//! member   a piece of a file, and the headers behind its last piece
//! …
//! member   the end of the tar
//! member   a tar entry with the table of contents, and the end of that tar
//! footer   an empty member that says where the one before begins
//! ```
//!
//! The tar that went in comes out byte for byte before the table, so that programs which know nothing of the format
//! see just its files. The table is part of what the diff id is the hash of.
//!
//! Format: stargz-snapshotter, `docs/estargz.md`.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Read, Write};

use serde::Serialize;

use super::compress::Members;
use super::gzip::Level;
use super::{BLOCK, HashWriter, Sha256};
use crate::Timestamp;
use crate::tar::{Entry, EntryKind, Reader, Writer};

/// Name of the tar entry with the table.
const TABLE: &str = "stargz.index.json";

/// What is known of such a layer when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estargz {
    /// SHA-256 of the table of contents.
    pub table: [u8; 32],
    /// SHA-256 of the uncompressed bytes.
    pub diff_id: [u8; 32],
    /// How many of them there are.
    pub size: u64,
}

/// Compresses a tar.
///
/// # Errors
/// When `tar` is none or has a table already, or one of the streams fails.
pub fn write_estargz(tar: impl Read, mut out: impl Write, level: u32) -> io::Result<Estargz> {
    let level = Level::new(level)?;
    let members = Members::new(&mut out, level);
    let mut pieces = Pieces { members, block: Vec::new(), hash: Sha256::new(), size: 0 };
    let mut rows = rows(BufReader::with_capacity(64 << 10, tar), &mut pieces)?;
    pieces.cut()?;
    let Pieces { members, hash, size, .. } = pieces;
    let (_, ends) = members.finish()?;
    let begin = |member: u64| match usize::try_from(member) {
        Ok(number @ 1..) => ends.get(number - 1).copied().unwrap_or(0),
        _ => 0,
    };
    for row in &mut rows {
        row.offset = row.member.map_or(0, begin);
    }
    let table_at = ends.last().copied().unwrap_or(0);

    let document = Table { version: 1, entries: &rows };
    let mut table = HashWriter::new(io::sink());
    serde_json::to_writer(&mut table, &document)?;
    let (_, table, length) = table.finish();
    let members = Members::new(&mut out, level);
    let mut pieces = Pieces { members, block: Vec::new(), hash, size };
    let mut writer = Writer::new(&mut pieces);
    let entry = Entry { size: length, ..Entry::new(EntryKind::File, TABLE.into()) };
    writer.begin_file(&entry)?;
    writer.stream(&entry, |out| {
        let mut out = BufWriter::new(out);
        serde_json::to_writer(&mut out, &document)?;
        out.flush()
    })?;
    writer.finish()?;
    pieces.cut()?;
    let Pieces { members, hash, size, .. } = pieces;
    members.finish()?;
    out.write_all(&footer(table_at))?;
    Ok(Estargz { table, diff_id: hash.finish(), size })
}

/// The empty member at the end; its header has the place of the table.
fn footer(table_at: u64) -> [u8; 51] {
    let mut footer = [0; 51];
    // Extra field, no time, unknown system; 26 bytes of it, one piece called `SG` of 22.
    footer[..16].copy_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
    footer[16..32].copy_from_slice(format!("{table_at:016x}").as_bytes());
    footer[32..38].copy_from_slice(b"STARGZ");
    // A stored block of nothing, the last one.
    footer[38..43].copy_from_slice(&[1, 0, 0, 255, 255]);
    footer
}

/// Cuts a stream into members, and hashes it.
struct Pieces<W: Write> {
    members: Members<W>,
    block: Vec<u8>,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Pieces<W> {
    /// Ends a member; returns the number of the next one.
    fn cut(&mut self) -> io::Result<u64> {
        if !self.block.is_empty() {
            self.members.push(std::mem::take(&mut self.block))?;
        }
        Ok(self.members.pushed())
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.cut()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies all that is read.
struct Tee<'a, R, W: Write> {
    from: R,
    to: &'a mut Pieces<W>,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.to.write_all(&buffer[..count])?;
        Ok(count)
    }
}

/// The table of contents.
#[derive(Serialize)]
struct Table<'a> {
    version: u32,
    entries: &'a [Row],
}

/// An entry of the table: a file, or a further piece of the one before.
#[derive(Serialize, Default)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    modtime: String,
    #[serde(rename = "linkName", skip_serializing_if = "String::is_empty")]
    link: String,
    #[serde(skip_serializing_if = "is_zero_32")]
    mode: u32,
    #[serde(skip_serializing_if = "is_zero_32")]
    uid: u32,
    #[serde(skip_serializing_if = "is_zero_32")]
    gid: u32,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(rename = "devMajor", skip_serializing_if = "is_zero_32")]
    major: u32,
    #[serde(rename = "devMinor", skip_serializing_if = "is_zero_32")]
    minor: u32,
    /// Counted by who reads the table.
    #[serde(rename = "NumLink")]
    links: u32,
    /// Values in base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    /// Of the whole file.
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(rename = "chunkOffset", skip_serializing_if = "is_zero")]
    piece_at: u64,
    #[serde(rename = "chunkSize", skip_serializing_if = "is_zero")]
    piece_size: u64,
    #[serde(rename = "chunkDigest", skip_serializing_if = "String::is_empty")]
    piece_digest: String,
    /// Number of the member that begins with the piece; its place is known when all are written.
    #[serde(skip)]
    member: Option<u64>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_32(number: &u32) -> bool {
    *number == 0
}

/// Copies a tar into pieces and lists what it has.
fn rows<W: Write>(tar: impl Read, pieces: &mut Pieces<W>) -> io::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut reader = Reader::new(Tee { from: tar, to: pieces });
    while let Some(entry) = reader.next_entry()? {
        if entry.path == TABLE.as_bytes() {
            let message = format!("there is a file `{TABLE}` already, which eStargz cannot have");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let row = row(&entry);
        match entry.kind {
            EntryKind::File => content(&mut reader, &entry, row, &mut rows)?,
            _ => rows.push(row),
        }
    }
    // Behind the end of the archive there may be more.
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    Ok(rows)
}

/// Copies the content of a file, each piece at the beginning of a member.
fn content<R: Read, W: Write>(
    reader: &mut Reader<Tee<'_, R, W>>,
    entry: &Entry,
    mut row: Row,
    rows: &mut Vec<Row>,
) -> io::Result<()> {
    let first = rows.len();
    let mut whole = Sha256::new();
    let mut done = 0;
    let mut buffer = vec![0; usize::try_from(entry.size).unwrap_or(BLOCK).min(64 << 10)];
    while done < entry.size {
        row.member = Some(reader.inner_mut().to.cut()?);
        let length = (entry.size - done).min(BLOCK as u64);
        let mut hash = Sha256::new();
        let mut left = length;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
            let count = reader.read(&mut buffer[..room])?;
            hash.update(&buffer[..count]);
            whole.update(&buffer[..count]);
            left -= count as u64;
        }
        row.piece_at = done;
        done += length;
        // The last piece ends where the file does.
        row.piece_size = if done < entry.size { length } else { 0 };
        row.piece_digest = digest(hash);
        let next = Row { name: row.name.clone(), kind: "chunk", ..Row::default() };
        rows.push(std::mem::replace(&mut row, next));
    }
    if entry.size == 0 {
        rows.push(row);
    }
    rows[first].digest = digest(whole);
    Ok(())
}

fn digest(hash: Sha256) -> String {
    hash.finish().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn row(entry: &Entry) -> Row {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match entry.kind {
        EntryKind::File => "reg",
        EntryKind::HardLink => "hardlink",
        EntryKind::Symlink => "symlink",
        EntryKind::CharDevice => "char",
        EntryKind::BlockDevice => "block",
        EntryKind::Dir => "dir",
        EntryKind::Fifo => "fifo",
    };
    let end = if entry.kind == EntryKind::Dir { "/" } else { "" };
    let xattrs = entry.xattrs.iter();
    Row {
        name: format!("{}{end}", text(&entry.path)),
        kind,
        size: entry.size,
        modtime: rfc_3339(entry.mtime),
        link: text(&entry.link),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        major: entry.device.0,
        minor: entry.device.1,
        xattrs: xattrs
            .map(|(name, value)| (name.to_string_lossy().into(), base64(value)))
            .collect(),
        ..Row::default()
    }
}

/// A time in whole seconds, in UTC.
fn rfc_3339(time: Timestamp) -> String {
    let (days, seconds) = (time.seconds.div_euclid(86_400), time.seconds.rem_euclid(86_400));
    // Years that begin in March, so that the day which not every year has is the last one; in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let number = (0..3).fold(0_u32, |number, place| {
            number << 8 | u32::from(three.get(place).copied().unwrap_or(0))
        });
        for place in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use flate2::read::{GzDecoder, MultiGzDecoder};
    use serde_json::Value;
    use sha2::Digest;

    use super::*;

    const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

    fn sha256(bytes: &[u8]) -> String {
        let hash = sha2::Sha256::digest(bytes);
        hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    fn sample(large: &[u8]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let file = |path: &str, size: usize| Entry {
            mode: 0o4755,
            uid: 7,
            mtime: TIME,
            size: size as u64,
            ..Entry::new(EntryKind::File, path.into())
        };
        let dir = Entry { mode: 0o755, ..Entry::new(EntryKind::Dir, "etc".into()) };
        writer.append(&dir).unwrap();
        let small = Entry {
            xattrs: vec![("security.capability".into(), vec![1, 0, 0, 2, 0])],
            ..file("etc/small", 5)
        };
        writer.append_file(&small, &mut &b"small"[..]).unwrap();
        writer.append_file(&file("etc/empty", 0), &mut io::empty()).unwrap();
        writer.append_file(&file("large", large.len()), &mut &*large).unwrap();
        let link = Entry { link: "large".into(), ..Entry::new(EntryKind::HardLink, "same".into()) };
        writer.append(&link).unwrap();
        let link = Entry { link: "/large".into(), ..Entry::new(EntryKind::Symlink, "to".into()) };
        writer.append(&link).unwrap();
        let device = Entry { device: (1, 3), ..Entry::new(EntryKind::CharDevice, "null".into()) };
        writer.append(&device).unwrap();
        writer.finish().unwrap()
    }

    /// Reads the table as the format says: by the footer, which is the last 51 bytes.
    fn table(blob: &[u8]) -> (usize, Vec<u8>) {
        let footer = &blob[blob.len() - 51..];
        assert_eq!(footer[..16], [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0]);
        assert_eq!(&footer[32..38], b"STARGZ");
        let mut nothing = Vec::new();
        GzDecoder::new(footer).read_to_end(&mut nothing).unwrap();
        assert!(nothing.is_empty());
        let digits = std::str::from_utf8(&footer[16..32]).unwrap();
        let offset = usize::from_str_radix(digits, 16).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(&blob[offset..blob.len() - 51]));
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path_bytes().as_ref(), TABLE.as_bytes());
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        (offset, text)
    }

    #[test]
    fn every_piece_is_where_the_table_says() {
        let large: Vec<u8> = (0..2 * BLOCK + 77).map(|place| (place % 251) as u8).collect();
        let tar = sample(&large);
        let mut blob = Vec::new();
        let known = write_estargz(&tar[..], &mut blob, 6).unwrap();
        let (offset, text) = table(&blob);
        assert_eq!(digest_of(known.table), sha256(&text));
        let table: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(table["version"], 1);
        let rows = table["entries"].as_array().unwrap();
        let names: Vec<String> =
            rows.iter().map(|row| format!("{} {}", row["type"], row["name"])).collect();
        let expect = [
            r#""dir" "etc/""#,
            r#""reg" "etc/small""#,
            r#""reg" "etc/empty""#,
            r#""reg" "large""#,
            r#""chunk" "large""#,
            r#""chunk" "large""#,
            r#""hardlink" "same""#,
            r#""symlink" "to""#,
            r#""char" "null""#,
        ];
        assert_eq!(names, expect);
        let small = &rows[1];
        assert_eq!((&small["mode"], &small["uid"]), (&0o4755.into(), &7.into()));
        assert_eq!(small["modtime"], "2023-11-14T22:13:20Z");
        assert_eq!(small["xattrs"]["security.capability"], "AQAAAgA=");
        assert_eq!(
            (&rows[3]["digest"], &rows[1]["digest"]),
            (&sha256(&large).into(), &sha256(b"small").into())
        );
        assert_eq!((&rows[6]["linkName"], &rows[8]["devMinor"]), (&"large".into(), &3.into()));
        let mut content = Vec::new();
        for row in [&rows[3], &rows[4], &rows[5]] {
            assert_eq!(row["chunkOffset"].as_u64().unwrap_or(0), content.len() as u64);
            let left = large.len() - content.len();
            let size = row["chunkSize"].as_u64().map_or(left, |size| size as usize);
            let mut piece = vec![0; size];
            let from = row["offset"].as_u64().unwrap() as usize;
            GzDecoder::new(&blob[from..offset]).read_exact(&mut piece).unwrap();
            assert_eq!(row["chunkDigest"], sha256(&piece));
            content.extend(piece);
        }
        assert!(content == large);
    }

    fn digest_of(hash: [u8; 32]) -> String {
        hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
    }

    #[test]
    fn it_is_the_same_tar_for_who_knows_only_gzip() {
        let tar = sample(&[1; 100]);
        let mut blob = Vec::new();
        let known = write_estargz(&tar[..], &mut blob, 6).unwrap();
        let mut plain = Vec::new();
        MultiGzDecoder::new(&blob[..]).read_to_end(&mut plain).unwrap();
        assert!(plain.starts_with(&tar));
        assert_eq!((digest_of(known.diff_id), known.size), (sha256(&plain), plain.len() as u64));
        let mut again = Vec::new();
        write_estargz(&tar[..], &mut again, 6).unwrap();
        assert!(blob == again);
    }

    #[test]
    fn a_file_in_the_place_of_the_table_is_refused() {
        let mut writer = Writer::new(Vec::new());
        writer.append(&Entry::new(EntryKind::File, TABLE.into())).unwrap();
        let tar = writer.finish().unwrap();
        let error = write_estargz(&tar[..], Vec::new(), 6).unwrap_err();
        let expect = "there is a file `stargz.index.json` already, which eStargz cannot have";
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn texts_of_times_and_bytes() {
        let time = |seconds| rfc_3339(Timestamp { seconds, nanoseconds: 0 });
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(
            ["", "a", "ab", "abc"].map(|text| base64(text.as_bytes())),
            ["", "YQ==", "YWI=", "YWJj"]
        );
    }
}
