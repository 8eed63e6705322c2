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
use std::fmt::Write as _;
use std::io::{self, BufReader, BufWriter, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};

use super::compress::{Member, Members};
use super::gzip::Level;
use super::{BLOCK, Background, HashWriter, Sha256};
use crate::Timestamp;
use crate::tar::{Entry, EntryKind, Reader, Writer};

/// Name of the tar entry with the table.
const TABLE: &str = "stargz.index.json";
/// Kind of a row that is a file.
const FILE: &str = "reg";

/// What is known of such a layer when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estargz {
    /// SHA-256 of the table of contents.
    pub table: [u8; 32],
    /// SHA-256 of the tar that went in, and how many bytes it has.
    pub tar: ([u8; 32], u64),
    /// SHA-256 of the uncompressed bytes, and how many there are.
    pub diff_id: ([u8; 32], u64),
}

/// Compresses a tar.
///
/// # Errors
/// When `tar` is none or has a table already, or one of the streams fails.
pub fn write_estargz(tar: impl Read, mut out: impl Write, level: u32) -> io::Result<Estargz> {
    let level = Level::new(level)?;
    let mut pieces = Pieces::new(Members::new(&mut out, level), HashWriter::new(io::sink()));
    let mut rows = rows(BufReader::with_capacity(64 << 10, tar), &mut pieces)?;
    let (members, hash) = pieces.finish()?;
    for row in &mut rows {
        if let Some(member) = row.member.and_then(|number| members.get(number)) {
            row.offset = member.begin;
            row.piece_digest = member.hash;
            // A file of one piece is not hashed twice.
            if row.kind == FILE && row.digest.is_none() {
                row.digest = member.hash;
            }
        }
    }
    let table_at = members.last().map_or(0, |member| member.end);

    let document = Table { version: 1, entries: &rows };
    let mut table = HashWriter::new(io::sink());
    serde_json::to_writer(&mut table, &document)?;
    let (_, table, length) = table.finish();
    let tar = hash.clone();
    let mut pieces = Pieces::new(Members::new(&mut out, level), hash);
    let mut writer = Writer::new(&mut pieces);
    let entry = Entry { size: length, ..Entry::new(EntryKind::File, TABLE.into()) };
    writer.begin_file(&entry)?;
    writer.stream(&entry, |out| {
        let mut out = BufWriter::new(out);
        serde_json::to_writer(&mut out, &document)?;
        out.flush()
    })?;
    writer.finish()?;
    let (_, diff_id) = pieces.finish()?;
    out.write_all(&footer(table_at))?;
    let [tar, diff_id] = [tar, diff_id].map(|hash| {
        let (_, hash, size) = hash.finish();
        (hash, size)
    });
    Ok(Estargz { table, tar, diff_id })
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

/// The hash of all uncompressed bytes.
type Hash = HashWriter<io::Sink>;

/// Cuts a stream into members, and hashes it on a thread of its own.
struct Pieces<W: Write> {
    members: Members<W>,
    block: Vec<u8>,
    /// How much of the block is a piece of a file.
    piece: usize,
    hash: Background<Hash>,
}

impl<W: Write> Pieces<W> {
    fn new(members: Members<W>, hash: Hash) -> Self {
        Self { members, block: Vec::new(), piece: 0, hash: Background::new(hash) }
    }

    /// Ends a member.
    fn cut(&mut self) -> io::Result<()> {
        let (block, piece) = (std::mem::take(&mut self.block), std::mem::take(&mut self.piece));
        if block.is_empty() { Ok(()) } else { self.members.push(block, piece) }
    }

    /// Begins a member with a piece of so many bytes; returns its number.
    fn begin(&mut self, piece: usize) -> io::Result<usize> {
        self.cut()?;
        self.piece = piece;
        Ok(self.members.pushed())
    }

    /// Writes what is left.
    fn finish(mut self) -> io::Result<(Vec<Member>, Hash)> {
        self.cut()?;
        Ok((self.members.finish()?.1, self.hash.finish()?))
    }
}

impl<W: Write> Write for Pieces<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.cut()?;
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        self.hash.write_all(&bytes[..count])?;
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
    /// Of the whole file; that of its only piece is known with it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_digest")]
    digest: Option<[u8; 32]>,
    #[serde(rename = "chunkOffset", skip_serializing_if = "is_zero")]
    piece_at: u64,
    #[serde(rename = "chunkSize", skip_serializing_if = "is_zero")]
    piece_size: u64,
    #[serde(
        rename = "chunkDigest",
        skip_serializing_if = "Option::is_none",
        serialize_with = "as_digest"
    )]
    piece_digest: Option<[u8; 32]>,
    /// Number of the member that begins with the piece; its place and hash are known when all are written.
    #[serde(skip)]
    member: Option<usize>,
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
    if entry.size == 0 {
        rows.push(Row { digest: Some(Sha256::digest(&[])), ..row });
        return Ok(());
    }
    let first = rows.len();
    let mut whole = (entry.size > BLOCK as u64).then(Sha256::new);
    let mut buffer = vec![0; usize::try_from(entry.size).unwrap_or(BLOCK).min(64 << 10)];
    let mut done = 0;
    while done < entry.size {
        let length = usize::try_from(entry.size - done).unwrap_or(BLOCK).min(BLOCK);
        row.member = Some(reader.inner_mut().to.begin(length)?);
        let mut left = length;
        while left > 0 {
            let room = left.min(buffer.len());
            let count = reader.read(&mut buffer[..room])?;
            if let Some(whole) = &mut whole {
                whole.update(&buffer[..count]);
            }
            left -= count;
        }
        row.piece_at = done;
        done += length as u64;
        // The last piece ends where the file does.
        row.piece_size = if done < entry.size { length as u64 } else { 0 };
        let next = Row { name: row.name.clone(), kind: "chunk", ..Row::default() };
        rows.push(std::mem::replace(&mut row, next));
    }
    rows[first].digest = whole.map(Sha256::finish);
    Ok(())
}

/// Writes a hash as digests are written.
fn as_digest<S: Serializer>(hash: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash.iter().flatten() {
        write!(text, "{byte:02x}").map_err(serde::ser::Error::custom)?;
    }
    serializer.serialize_str(&text)
}

fn row(entry: &Entry) -> Row {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = match entry.kind {
        EntryKind::File => FILE,
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
            .map(|(name, value)| (name.to_string_lossy().into(), STANDARD.encode(value)))
            .collect(),
        ..Row::default()
    }
}

/// A time in whole seconds, in UTC; those of no calendar are the last that there are.
fn rfc_3339(time: Timestamp) -> String {
    let (first, last) = (jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    jiff::Timestamp::from_second(time.seconds.clamp(first, last)).unwrap_or_default().to_string()
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
        let size = plain.len() as u64;
        assert_eq!((digest_of(known.diff_id.0), known.diff_id.1), (sha256(&plain), size));
        assert_eq!((digest_of(known.tar.0), known.tar.1), (sha256(&tar), tar.len() as u64));
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
    fn texts_of_times() {
        let time = |seconds| rfc_3339(Timestamp { seconds, nanoseconds: 0 });
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time(i64::MAX), "9999-12-30T22:00:00Z");
    }
}
