//! URLs as text: what of them may be shown.

use std::borrow::Cow;

/// What stands for a part that is not shown.
const HIDDEN: &str = "xxxxx";

/// The text with user names and passwords of URLs hidden, wherever in it they are.
///
/// A user name without a password may be a token, so it is hidden too; that of ssh (`git@host`) is none.
#[must_use]
pub fn redacted(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown = shown + before + "://";
        rest = after;
        let end = after.find(is_end_of_host).unwrap_or(after.len());
        let Some((user, _)) = after[..end].rsplit_once('@') else { continue };
        let has_password = user.contains(':');
        if has_password || !before.ends_with("ssh") {
            shown += HIDDEN;
            shown += if has_password { ":xxxxx" } else { "" };
            rest = &after[user.len()..];
        }
    }
    if shown.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(shown + rest) }
}

fn is_end_of_host(c: char) -> bool {
    c.is_whitespace() || ['/', '?', '#', '"', '\'', '`'].contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_they_are() {
        for (text, expect) in [
            ("https://h/a@b", "https://h/a@b"),
            ("https://user:pass@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://token@h", "https://xxxxx@h"),
            ("https://u:p@ss@h/x", "https://xxxxx:xxxxx@h/x"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:p@h/x", "ssh://xxxxx:xxxxx@h/x"),
            (
                "ADD https://a:b@h/x http://c:d@i/y /z",
                "ADD https://xxxxx:xxxxx@h/x http://xxxxx:xxxxx@i/y /z",
            ),
            ("git@h:a/b", "git@h:a/b"),
            ("no URL", "no URL"),
            ("://", "://"),
        ] {
            assert_eq!(redacted(text), expect, "{text}");
        }
    }
}
