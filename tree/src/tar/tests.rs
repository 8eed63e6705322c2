use std::io::{self, Cursor, Read, Write};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::{Entry, EntryKind, Reader, Writer, is_archive};
use crate::Timestamp;

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        if entry.kind == EntryKind::File {
            writer.append_file(entry, &mut &content[..]).unwrap();
        } else {
            writer.append(entry).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(Cursor::new(bytes));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn file(path: &str, size: usize) -> Entry {
    let mtime = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
    Entry { mode: 0o644, size: size as u64, mtime, ..Entry::new(EntryKind::File, path.into()) }
}

/// Non-empty fields of the blocks of an archive without contents, in the form `offset:text`.
fn dump(bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    for block in bytes[..bytes.len() - 1024].chunks(512) {
        let mut line = String::new();
        let mut at = 0;
        while at < block.len() {
            let length = block[at..].iter().take_while(|&&byte| byte != 0).count();
            if length > 0 {
                line += &format!("{at}:{} ", String::from_utf8_lossy(&block[at..at + length]));
            }
            at += length + 1;
        }
        lines.push(line.trim_end_matches(' ').to_owned());
    }
    lines
}

#[track_caller]
fn check(entry: &Entry, expect: &[&str]) {
    let bytes = archive(&[(entry.clone(), &[])]);
    let actual = dump(&bytes);
    assert_eq!(actual, expect);
    let back = &read_all(&bytes).unwrap()[0].0;
    assert_eq!(back, entry);
}

#[test]
fn a_plain_file_needs_no_extended_header() {
    let header = "0:a/b 100:0000644 108:0000000 116:0000000 124:00000000000 136:14524770400 148:007621 \
                  155: 0 257:ustar 263:00 329:0000000 337:0000000";
    check(&file("a/b", 0), &[header]);
}

#[test]
fn directories_links_and_devices() {
    let dir = Entry { mode: 0o1777, ..Entry::new(EntryKind::Dir, b"tmp".to_vec()) };
    let line = &dump(&archive(&[(dir, &[])]))[0];
    assert!(line.starts_with("0:tmp/ 100:0001777"), "{line}");
    let link = Entry { link: b"../x".to_vec(), ..Entry::new(EntryKind::Symlink, b"l".to_vec()) };
    let line = &dump(&archive(&[(link, &[])]))[0];
    assert!(line.contains("155: 2../x 257:ustar"), "{line}");
    let device =
        Entry { device: (8, 0o12345), ..Entry::new(EntryKind::BlockDevice, b"d".to_vec()) };
    let line = &dump(&archive(&[(device, &[])]))[0];
    assert!(line.contains("155: 4 257:ustar 263:00 329:0000010 337:0012345"), "{line}");
}

#[test]
fn an_empty_archive_is_the_well_known_one() {
    let digest = crate::codec::Sha256::digest(&archive(&[]));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn a_long_name_is_split_before_it_is_extended() {
    let name = format!("{}/{}", "p".repeat(120), "n".repeat(90));
    let lines = dump(&archive(&[(file(&name, 0), &[])]));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with(&format!("0:{} 100:", "n".repeat(90))), "{lines:?}");
    assert!(lines[0].ends_with(&format!(" 345:{}", "p".repeat(120))), "{lines:?}");

    let exact = "x".repeat(100);
    assert_eq!(dump(&archive(&[(file(&exact, 0), &[])])).len(), 1);
    let dir = Entry::new(EntryKind::Dir, format!("{}/{}", "p".repeat(20), "n".repeat(100)).into());
    assert_eq!(dump(&archive(&[(dir, &[])])).len(), 3, "the slash of a directory counts");
}

#[test]
fn names_that_do_not_fit_get_a_path_record() {
    let name = format!("d/{}", "n".repeat(150));
    let lines = dump(&archive(&[(file(&name, 0), &[])]));
    assert!(lines[0].starts_with(&format!("0:d/PaxHeaders.0/{}", "n".repeat(85))), "{lines:?}");
    assert!(
        lines[0].contains("0000000 108:0000000 116:0000000 124:00000000242 136:00000000000"),
        "{lines:?}"
    );
    assert!(
        lines[0].ends_with("155: x 257:ustar 263:00"),
        "the device fields stay empty: {lines:?}"
    );
    assert_eq!(lines[1], format!("0:162 path={name}\n"));
    assert!(lines[2].starts_with(&format!("0:{}", &name[..100])), "{lines:?}");

    let lines = dump(&archive(&[(file("é/ü.txt", 0), &[])]));
    assert!(lines[0].starts_with("0:/PaxHeaders.0/.txt"), "{lines:?}");
    assert_eq!(lines[1], "0:18 path=é/ü.txt\n");
    assert!(lines[2].starts_with("0:/.txt"), "{lines:?}");
}

#[test]
fn a_directory_is_its_own_place_for_the_extended_header() {
    let dir = Entry::new(EntryKind::Dir, "aé".into());
    let lines = dump(&archive(&[(dir, &[])]));
    assert!(lines[0].starts_with("0:a/PaxHeaders.0 100:"), "{lines:?}");
    assert_eq!(lines[1], "0:13 path=aé/\n");
}

#[test]
fn a_splittable_name_gets_a_record_when_something_else_needs_one() {
    let name = format!("{}/{}", "p".repeat(120), "n".repeat(90));
    let lines = dump(&archive(&[(Entry { uid: 3_000_000, ..file(&name, 0) }, &[])]));
    assert_eq!(lines[1], format!("0:221 path={name}\n15 uid=3000000\n"));
    assert!(!lines[2].contains("345:"), "{lines:?}");
    assert!(lines[2].contains("108:0000000 "), "a number that does not fit is 0: {lines:?}");
}

#[test]
fn records_are_sorted_by_key() {
    let entry = Entry {
        uid: 1 << 21,
        gid: (1 << 21) - 1,
        mtime: Timestamp { seconds: -5, nanoseconds: 0 },
        xattrs: vec![("security.capability".into(), vec![1, 0, 0, 2]), ("user.b".into(), vec![])],
        ..file("f", 0)
    };
    let bytes = archive(&[(entry.clone(), &[])]);
    let records = "41 SCHILY.xattr.security.capability=\x01\0\0\x02\n24 SCHILY.xattr.user.b=\n12 mtime=-5\n15 uid=2097152\n";
    assert_eq!(std::str::from_utf8(&bytes[512..512 + records.len()]).unwrap(), records);
    assert_eq!(read_all(&bytes).unwrap()[0].0, entry);
}

#[test]
fn record_lengths_count_their_own_digits() {
    for length in 80..110 {
        let mut record = Vec::new();
        super::pax::write(&mut record, b"k", &vec![b'v'; length]);
        let digits: String = record
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .map(|&b| char::from(b))
            .collect();
        assert_eq!(digits.parse::<usize>().unwrap(), record.len());
    }
}

#[test]
fn a_cut_name_does_not_end_in_a_slash() {
    let name = format!("{}/é{}", "n".repeat(99), "m".repeat(10));
    let lines = dump(&archive(&[(file(&name, 0), &[])]));
    assert!(lines[2].starts_with(&format!("0:{} 100:", "n".repeat(99))), "{lines:?}");
}

#[test]
fn content_is_padded_and_must_be_complete() {
    let entries = [
        (file("a", 513), vec![7; 513]),
        (file("b", 0), vec![]),
        (file("c", 200_000), vec![9; 200_000]),
    ];
    let borrowed: Vec<_> =
        entries.iter().map(|(entry, content)| (entry.clone(), content.as_slice())).collect();
    let bytes = archive(&borrowed);
    assert_eq!(bytes.len() % 512, 0);
    assert!(read_all(&bytes).unwrap() == entries);
    let error =
        Writer::new(Vec::new()).append_file(&file("a", 10), &mut &[0_u8; 9][..]).unwrap_err();
    assert_eq!(error.to_string(), "`a` became shorter while it was read");
}

#[test]
fn truncated_archives_are_errors() {
    let bytes = archive(&[(file(&"n".repeat(200), 700), &[1; 700]), (file("b", 10), &[2; 10])]);
    for cut in [1, 511, 513, 1024 + 3, 1536 + 100, 2048, 2048 + 511, 3100] {
        assert_eq!(
            read_all(&bytes[..cut]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof,
            "cut at {cut}"
        );
    }
    // The end may be missing.
    assert_eq!(read_all(&bytes[..bytes.len() - 1024]).unwrap().len(), 2);
    assert_eq!(read_all(&bytes[..bytes.len() - 512]).unwrap().len(), 2);
    assert_eq!(read_all(&[]).unwrap().len(), 0);
}

/// A header with the given type flag and size, sealed.
fn raw(flag: u8, name: &str, size: u64) -> Vec<u8> {
    let mut header = ::tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_mut_bytes()[156] = flag;
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// Records `key=value` with their lengths.
fn record(text: &str) -> Vec<u8> {
    let (key, value) = text.split_once('=').unwrap();
    let mut record = Vec::new();
    super::pax::write(&mut record, key.as_bytes(), value.as_bytes());
    record
}

fn with_records(records: &[u8], next: &[u8]) -> Vec<u8> {
    let mut bytes = raw(b'x', "x", records.len() as u64);
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    [&bytes, next].concat()
}

#[track_caller]
fn refused(bytes: &[u8], message: &str) {
    assert_eq!(read_all(bytes).unwrap_err().to_string(), format!("the tar archive has {message}"));
}

#[test]
fn hostile_headers_are_refused() {
    refused(&raw(b'S', "s", 0), "a sparse file, which is not supported");
    refused(
        &with_records(&record("GNU.sparse.major=1"), &raw(b'0', "s", 0)),
        "a sparse file, which is not supported",
    );
    refused(&raw(b'x', "x", 2 << 20), "an extended header of more than 1 MiB");
    refused(&raw(b'L', "x", 8 << 30), "an extended header of more than 1 MiB");
    refused(&raw(b'Z', "x", 0), "an unknown kind of entry, `Z`");
    refused(&with_records(b"99 path=a\n", &raw(b'0', "s", 0)), "a bad extended header");
    refused(&with_records(b"0 path=a\n", &raw(b'0', "s", 0)), "a bad extended header");
    refused(&with_records(b"4 a=", &raw(b'0', "s", 0)), "a bad extended header");
    refused(&with_records(&record("path=\0"), &raw(b'0', "s", 0)), "a name with a NUL in it");
    refused(
        &with_records(&record("uid=4294967295"), &raw(b'0', "s", 0)),
        "a `uid` that is too large",
    );
    refused(&with_records(&record("size=-50"), &raw(b'0', "s", 0)), "a bad `size` record");
    let mut broken = raw(b'0', "x", 0);
    broken[0] = b'y';
    refused(&broken, "a header with a wrong checksum");
    let long = record(&format!("path={}", "n".repeat(4997)));
    refused(&with_records(&long, &raw(b'0', "s", 0)), "a name of more than 4096 bytes");
    let huge = with_records(&record("size=18446744073709551615"), &raw(b'0', "s", 0));
    refused(&huge, "a size that is too large");
}

#[test]
fn other_dialects_are_read() {
    let long = "l".repeat(300);
    let mut gnu = raw(b'L', "././@LongLink", 301);
    gnu.extend_from_slice(long.as_bytes());
    gnu.resize(512 + 512, 0);
    gnu.extend(raw(b'0', "short", 0));
    assert_eq!(read_all(&gnu).unwrap()[0].0.path, long.as_bytes());

    let times = with_records(
        &[record("mtime=12.3456789"), record("comment=ignored")].concat(),
        &raw(0, "dir/", 0),
    );
    let entry = read_all(&[raw(b'g', "g", 0), times].concat()).unwrap().remove(0).0;
    assert_eq!(entry.kind, EntryKind::Dir);
    assert_eq!(entry.path, b"dir");
    assert_eq!(entry.mtime, Timestamp { seconds: 12, nanoseconds: 345_678_900 });
    let before = with_records(&record("mtime=-1.5"), &raw(b'0', "f", 0));
    let expect = Timestamp { seconds: -2, nanoseconds: 500_000_000 };
    assert_eq!(read_all(&before).unwrap()[0].0.mtime, expect);
}

#[test]
fn numbers_are_read_in_every_form() {
    let with = |field: &[u8]| {
        let mut header = raw(b'0', "f", 0);
        header[136..148].copy_from_slice(field);
        let mut sealed = ::tar::Header::new_ustar();
        sealed.as_mut_bytes().copy_from_slice(&header);
        sealed.set_cksum();
        read_all(sealed.as_bytes()).map(|entries| entries[0].0.mtime.seconds)
    };
    assert_eq!(with(&[0; 12]).unwrap(), 0);
    assert_eq!(with(b"            ").unwrap(), 0);
    assert_eq!(with(b"  17 \0\0\0\0\0\0\0").unwrap(), 0o17);
    assert_eq!(with(b"777777777777").unwrap(), 0o777_777_777_777);
    assert_eq!(with(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]).unwrap(), (2 << 32) + 1);
    assert_eq!(with(&[0xff; 12]).unwrap(), -1);
    assert_eq!(with(&[&[0xff; 11][..], &[0xf0]].concat()).unwrap(), -16);
    assert!(with(&[&[0x80][..], &[0xff; 11]].concat()).is_err());
    assert!(with(b"89          ").is_err());
}

#[test]
fn the_system_tar_reads_what_we_write() {
    let mut names = vec![
        "plain".to_owned(),
        "é/ü".to_owned(),
        format!("{}/{}", "p".repeat(120), "n".repeat(90)),
    ];
    names.push(format!("d/{}", "n".repeat(200)));
    let entries: Vec<_> = names.iter().map(|name| (file(name, 3), &b"abc"[..])).collect();
    let bytes = archive(&entries);
    let Ok(mut tar) = Command::new("tar")
        .args(["--quoting-style=literal", "-tf", "-"])
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        println!("SKIP: no `tar` program");
        return;
    };
    tar.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = tar.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), names.join("\n") + "\n");
}

fn any_entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let name = prop_oneof![
        "[a-z]{1,12}(/[a-zé]{1,60}){0,5}",
        "[a-z]{90,110}",
        "[a-z]{100,160}/[a-z]{80,110}"
    ];
    let seconds = prop_oneof![-10_i64..10, Just(1 << 33), Just((1 << 33) - 1)];
    let content = prop::collection::vec(any::<u8>(), 0..1500);
    (name, seconds, content, 0_u32..u32::MAX, any::<bool>(), 0_u32..0o10000).prop_map(
        |(name, seconds, content, uid, is_dir, mode)| {
            let kind = if is_dir { EntryKind::Dir } else { EntryKind::File };
            let content = if is_dir { Vec::new() } else { content };
            let mut entry = Entry::new(kind, name.into());
            entry.mtime.seconds = seconds;
            (entry.uid, entry.gid, entry.mode) = (uid, uid / 1000, mode);
            entry.size = content.len() as u64;
            (entry, content)
        },
    )
}

proptest! {
    #[test]
    fn reading_gives_back_what_was_written(entries in prop::collection::vec(any_entry(), 0..6)) {
        let borrowed: Vec<_> = entries.iter().map(|(entry, content)| (entry.clone(), content.as_slice())).collect();
        prop_assert_eq!(read_all(&archive(&borrowed)).unwrap(), entries);
    }

    #[test]
    fn noise_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), flag in any::<u8>()) {
        let _ = read_all(&bytes);
        let _ = read_all(&[raw(flag, "x", bytes.len() as u64), bytes].concat());
    }
}

#[test]
fn an_archive_is_known_by_its_first_header() {
    let bytes = archive(&[(Entry::new(EntryKind::Dir, b"d".to_vec()), b"")]);
    assert!(is_archive(&bytes) && is_archive(&bytes[..512]));
    assert!(!is_archive(&bytes[..511]) && !is_archive(&[0; 1024]) && !is_archive(&[b'x'; 512]));
}
