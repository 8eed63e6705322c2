//! Files behind URLs.

use std::collections::BTreeMap;

use llb::op::SourceOp;

use super::path_of;

/// The source op of the file behind `url`, which the tree has under the name `file`.
pub(crate) fn source(url: &str, file: &str, checksum: Option<&str>) -> SourceOp {
    let mut attrs = BTreeMap::from([("http.filename".to_owned(), file.to_owned())]);
    if let Some(checksum) = checksum {
        attrs.insert("http.checksum".to_owned(), checksum.to_owned());
    }
    SourceOp { identifier: url.to_owned(), attrs }
}

/// Name of the file behind a URL: the last part of its path, once `%` escapes are replaced.
pub(crate) fn file_name(url: &str) -> String {
    let path = decoded(path_of(url)).unwrap_or_default();
    match path.trim_end_matches('/').rsplit('/').next() {
        Some(name) if !["", ".", ".."].contains(&name) && !name.contains('\0') => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
}

/// Text with its `%` escapes replaced; `None` when one of them is none, or they do not give text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_after_the_path_of_their_url() {
        for (url, expect) in [
            ("http://h/a/b.tgz?x=/y", "b.tgz"),
            ("http://h/a/", "a"),
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/..", "__unnamed__"),
            ("http://h/a%20b+c%c3%a9", "a b+cé"),
            ("http://h/dir%2Fname%2F", "name"),
            ("http://h/%2e%2e", "__unnamed__"),
            ("http://h/a%00", "__unnamed__"),
            ("http://h/%ff", "__unnamed__"),
            ("http://h/100%", "__unnamed__"),
            ("http://h/%zz", "__unnamed__"),
            ("http://h/%é1", "__unnamed__"),
        ] {
            assert_eq!(file_name(url), expect, "{url}");
        }
    }
}
