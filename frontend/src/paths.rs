//! Paths inside an image: always with `/`, never touching a file system.

/// Cleans `path` as if it were absolute: `..` stays at the root, no trailing slash.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `path` seen from the directory `from`, absolute and clean.
pub(crate) fn join(from: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { clean(&format!("{from}/{path}")) }
}

/// Like [`join`], but keeps what marks a directory: a last `/` or `/.`, or `.` alone.
pub(crate) fn join_destination(from: &str, path: &str) -> String {
    let joined = join(from, path);
    let is_directory =
        path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    if is_directory && joined != "/" { joined + "/" } else { joined }
}

/// Last part of a path, without regard to a trailing slash; `/` for the root.
pub(crate) fn base_name(path: &str) -> &str {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if name.is_empty() { "/" } else { name }
}

/// Whether a path has a pattern character that is not escaped.
pub(crate) fn has_wildcard(path: &str) -> bool {
    let mut escaped = false;
    for c in path.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (path, expect) in [("", "/"), ("../a", "/a"), ("/a/./b/../c//", "/a/c"), ("/..", "/")] {
            assert_eq!(clean(path), expect, "{path:?}");
        }
        assert_eq!(join("/w", "../x"), "/x");
        assert_eq!(join("/w", "/y/"), "/y");
    }

    #[test]
    fn destinations_keep_their_slash() {
        for (path, expect) in [
            (".", "/w/"),
            ("", "/w/"),
            ("a/", "/w/a/"),
            ("a/.", "/w/a/"),
            ("/", "/"),
            ("b", "/w/b"),
            ("..", "/"),
        ] {
            assert_eq!(join_destination("/w", path), expect, "{path:?}");
        }
    }

    #[test]
    fn escaped_pattern_characters_are_plain() {
        assert!(has_wildcard("a*") && has_wildcard("[x]") && has_wildcard("a\\\\?"));
        assert!(!has_wildcard("a\\*b") && !has_wildcard("plain]"));
    }
}
