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

/// Name of the file behind a URL: the last part of its path.
pub(crate) fn file_name(url: &str) -> String {
    let path = path_of(url).trim_end_matches('/');
    match path.rsplit('/').next() {
        Some(name) if !["", ".", ".."].contains(&name) => name.to_owned(),
        _ => "__unnamed__".to_owned(),
    }
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
        ] {
            assert_eq!(file_name(url), expect, "{url}");
        }
    }
}
