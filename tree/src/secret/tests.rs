use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::layer::LayerDir;
use crate::stack::Stack;

fn secrets(values: &[&str]) -> Arc<Secrets> {
    let secrets = Secrets::default();
    for (number, value) in values.iter().enumerate() {
        secrets.add(&number.to_string(), value.as_bytes());
    }
    Arc::new(secrets)
}

fn encoded(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..1 + chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes(group);
        let digits = (0..=chunk.len()).map(|at| alphabet[(number >> (18 - 6 * at) & 63) as usize]);
        text.extend(digits.map(char::from));
    }
    text
}

#[test]
fn short_values_are_not_looked_for() {
    let secrets = secrets(&["1234567", "1234567\n\n", "", "\n"]);
    assert!(secrets.is_empty());
    assert_eq!(secrets.find(b"1234567"), None);
}

#[test]
fn a_value_is_found_without_the_line_end_of_its_file() {
    let secrets = secrets(&["abcdefgh\r\n"]);
    assert_eq!(secrets.find(b"x=abcdefgh;"), Some("0".to_owned()));
    assert_eq!(secrets.redact("a abcdefgh b"), "a *** b");
}

#[test]
fn base64_is_found_behind_and_before_anything() {
    let secrets = secrets(&["p\u{fe}ssw\u{ff}rd?~>"]);
    for before in ["", "a", "ab", "abc", "user:"] {
        for after in ["", "x", "xy"] {
            let text = format!("{before}p\u{fe}ssw\u{ff}rd?~>{after}");
            for alphabet in [STANDARD, URL_SAFE] {
                let text = encoded(text.as_bytes(), alphabet);
                assert!(secrets.find(text.as_bytes()).is_some(), "{before} {after}: {text}");
            }
        }
    }
}

#[test]
fn overlapping_values_are_one() {
    let secrets = secrets(&["12345678", "56789abc"]);
    assert_eq!(secrets.redact("_123456789abc_12345678_"), "_***_***_");
}

#[test]
fn a_value_in_a_longer_one_waits_for_the_rest() {
    let mut redactor = Redactor::new(secrets(&["password1", "password1-and-more"]));
    let mut shown = redactor.take(b"is password1");
    shown.extend(redactor.take(b"-and-more or password1"));
    shown.extend(redactor.end());
    assert_eq!(String::from_utf8(shown).unwrap(), "is *** or ***");
}

#[test]
fn every_place_of_a_tree_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let value = "sw0rdfish";
    fs_err::create_dir_all(path("a/b")).unwrap();
    fs_err::write(path("a/b/file"), format!("password={value}\n")).unwrap();
    fs_err::hard_link(path("a/b/file"), path("a/again")).unwrap();
    fs_err::write(path(&format!("a/{value}.txt")), "x").unwrap();
    std::os::unix::fs::symlink(format!("/run/{value}"), path("link")).unwrap();
    fs_err::write(path("marked"), "").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(path("marked"), "user.note", value.as_bytes(), flags).unwrap();
    fs_err::write(path("innocent"), "swordfish sw0rdfis sw0rdfiſh").unwrap();
    let stack = Stack::new(vec![LayerDir::new(folder.path())]);
    let leaks = secrets(&[value]).leaks(&stack, &Stop::default()).unwrap();
    let mut told: Vec<String> =
        leaks.iter().map(|leak| format!("{} {:?}", leak.path.display(), leak.place)).collect();
    told.sort();
    // A file with several names is looked at under the first.
    let expect =
        ["/a/***.txt Name", "/a/again Content", "/link Target", "/marked Attribute(\"user.note\")"];
    assert_eq!(told, expect);
}

#[test]
fn a_search_stops_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("file"), "123456789").unwrap();
    let stack = Stack::new(vec![LayerDir::new(folder.path())]);
    assert!(secrets(&["12345678"]).leaks(&stack, &Stop::when(|| true)).is_err());
}

#[test]
fn values_longer_than_a_piece_are_found() {
    let long = "0123456789abcdef".repeat(40_000);
    let secrets = secrets(&[&long]);
    let text = format!("{}{long}", "0123456789abcdef".repeat(3) + "x");
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("file"), &text).unwrap();
    let stack = Stack::new(vec![LayerDir::new(folder.path())]);
    assert_eq!(secrets.leaks(&stack, &Stop::default()).unwrap().len(), 1);
    assert_eq!(secrets.redact(&text), "0123456789abcdef".repeat(3) + "x***");
}

/// Gives its bytes in pieces of a few.
struct Dribble<'a>(&'a [u8], usize);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

proptest! {
    /// Wherever a value stands to the ends of pieces, it is found.
    #[test]
    fn content_is_found_at_the_ends_of_pieces(shift in 0usize..40, step in 1000usize..9000) {
        let secrets = secrets(&["correct horse battery"]);
        let needles = secrets.needles();
        let stop = Stop::default();
        let mut search = Search::new(&needles, &stop);
        let mut bytes = vec![b'c'; PIECE - shift];
        bytes.extend_from_slice(b"correct horse battery");
        bytes.extend_from_slice(&[b'y'; 50]);
        let found = search.content(&mut Dribble(&bytes, step)).unwrap();
        prop_assert_eq!(found, Some("0".to_owned()));
        bytes.truncate(PIECE - shift + 20);
        prop_assert_eq!(search.content(&mut Dribble(&bytes, step)).unwrap(), None);
    }

    /// An output in pieces comes out as it would in one.
    #[test]
    fn pieces_do_not_matter_to_a_redactor(
        parts in prop::collection::vec(prop_oneof![
            Just("abababab"), Just("ab"), Just("secret-of-mine"), Just("secret-of"), Just("s"), Just("\n"),
        ], 0..30),
        cuts in prop::collection::vec(1usize..12, 1..40),
    ) {
        let text = parts.concat();
        let secrets = secrets(&["abababab", "secret-of-mine", "mine\nsecret"]);
        let mut redactor = Redactor::new(Arc::clone(&secrets));
        let (mut shown, mut rest) = (Vec::new(), text.as_bytes());
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            shown.extend(redactor.take(piece));
            rest = after;
        }
        shown.extend(redactor.end());
        let shown = String::from_utf8(shown).unwrap();
        for value in ["abababab", "secret-of-mine", "mine\nsecret"] {
            prop_assert!(!shown.contains(value), "{}", shown);
        }
        // What is no secret is all there.
        let plain = |text: &str| text.chars().filter(|c| *c == '\n').count();
        prop_assert!(plain(&shown) <= plain(&text));
        if secrets.find(text.as_bytes()).is_none() {
            prop_assert_eq!(shown, text);
        }
    }
}

#[test]
fn names_that_are_no_text_are_told_without_the_value() {
    let secrets = secrets(&["sw0rdfish"]);
    let path = PathBuf::from(std::ffi::OsString::from_vec(b"\xffsw0rdfish\xfe".to_vec()));
    assert_eq!(secrets.redact_path(&path).as_os_str().as_bytes(), b"/\xff***\xfe");
}
