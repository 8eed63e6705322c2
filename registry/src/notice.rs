//! What went well and is yet worth telling: warnings of registries, and mirrors that did not help.

use std::sync::{Mutex, PoisonError};

use reqwest::header::{HeaderMap, WARNING};

use crate::session::clean;

/// Notices that are kept; a server cannot fill a screen.
const MOST: usize = 20;

/// Notices, each once.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// About what there was a notice, and what it says.
    all: Vec<(String, String)>,
    /// How many of them were taken.
    taken: usize,
}

impl Notices {
    /// Keeps `text`, unless there was one about the same before.
    pub(crate) fn add(&self, about: String, text: impl FnOnce() -> String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.all.len() < MOST && kept.all.iter().all(|(before, _)| *before != about) {
            kept.all.push((about, text()));
        }
    }

    /// Keeps the warnings in an answer of the registry `host`.
    pub(crate) fn hear(&self, host: &str, headers: &HeaderMap) {
        let values = headers.get_all(WARNING).iter().filter_map(|value| value.to_str().ok());
        for warning in values.filter_map(warning) {
            let text = format!("registry `{host}` says: {warning}");
            self.add(text.clone(), || text);
        }
    }

    /// Those that nobody has taken yet.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = kept.all.iter().skip(kept.taken).map(|(_, text)| text.clone()).collect();
        kept.taken = kept.all.len();
        new
    }
}

/// The text of a warning for users, `299 - "text"`; any other kind is none of theirs.
///
/// Format: OCI distribution specification 1.1, "Warnings".
pub(crate) fn warning(value: &str) -> Option<String> {
    let quoted = value.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
    let (mut text, mut chars) = (String::new(), quoted.chars());
    while let Some(c) = chars.next() {
        match c {
            // What comes after the text would be a date, which there must not be.
            '"' => return None,
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    Some(clean(&text)).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expect: Option<&str>) {
        assert_eq!(warning(value).as_deref(), expect, "{value}");
    }

    #[test]
    fn only_warnings_for_users_are_read() {
        check(r#"299 - "this tag goes away""#, Some("this tag goes away"));
        check(r#" 299 - "a \"b\" \\ c" "#, Some(r#"a "b" \ c"#));
        check("299 - \"a\tb\"", Some("ab"));
        check(r#"299 - "dated" "Tue, 15 Nov 1994 08:12:31 GMT""#, None);
        check(r#"199 - "other""#, None);
        check(r#"299 proxy.example "other""#, None);
        check(r#"299 - "" "#, None);
        check("299 - text", None);
        check("299 - \"", None);
    }

    #[test]
    fn notices_are_given_once_and_are_not_many() {
        let notices = Notices::default();
        for number in [1, 1, 2] {
            notices.add(number.to_string(), || format!("notice {number}"));
        }
        assert_eq!(notices.take(), ["notice 1", "notice 2"]);
        notices.add("1".to_owned(), || "again".to_owned());
        assert_eq!(notices.take(), [""; 0]);
        for number in 3..1000 {
            notices.add(number.to_string(), String::new);
        }
        assert_eq!(notices.take().len(), MOST - 2);
    }
}
