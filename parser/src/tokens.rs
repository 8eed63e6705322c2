//! Splitting the arguments of an instruction: flags, quote-aware words, plain words.

/// A flag word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFlag<'a> {
    /// The text as written.
    pub(crate) raw: &'a str,
    /// The text after `--`, with quotes and escapes removed.
    pub(crate) text: String,
}

/// Splits leading flags off the arguments. Both the arguments and the rest are trimmed.
///
/// The flags end at the first word that does not start with `--`, or with a bare `--`, which is
/// dropped.
pub(crate) fn flags(args: &str, escape: char) -> (Vec<RawFlag<'_>>, &str) {
    let mut flags = Vec::new();
    let mut rest = args.trim();
    while let Some((flag, after)) = flag(rest, escape) {
        rest = after.trim_start();
        if flag.text.is_empty() {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// Reads one flag word: what follows `--`, up to the next blank outside of quotes. Returns it and
/// what is left.
///
/// Quotes are removed, and an escape makes the next character an ordinary one, also in quotes. An
/// escape, or a quote that is open, at the end of the text is dropped.
fn flag(input: &str, escape: char) -> Option<(RawFlag<'_>, &str)> {
    let written = input.strip_prefix("--")?;
    let mut text = String::new();
    let mut quote = None;
    let mut chars = written.char_indices();
    let end = loop {
        let Some((at, c)) = chars.next() else { break written.len() };
        match c {
            c if c == escape => text.extend(chars.next().map(|(_, c)| c)),
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote.is_none() && c.is_whitespace() => break at,
            c => text.push(c),
        }
    };
    let (raw, after) = input.split_at(end + "--".len());
    Some((RawFlag { raw, text }, after))
}

/// Splits the arguments of `ENV`, `LABEL` and `ARG` at blanks outside of quotes. Quotes and escapes
/// stay in the words, but an escape at the end of the text is dropped.
pub(crate) fn quoted_words(args: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = args.trim_start();
    loop {
        let (word, after) = rest.split_at(quoted_word_end(rest, escape));
        if word.is_empty() {
            return words;
        }
        words.push(word);
        rest = after.trim_start();
    }
}

/// Returns where the word at the start of the text ends, as [`quoted_words`] says.
fn quoted_word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            // In single quotes an escape is an ordinary character.
            c if c == escape && quote != Some('\'') => match chars.next() {
                Some(_) => {}
                None => return at,
            },
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            c if quote.is_none() && c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// Returns whether the character separates a keyword from its arguments, and plain words.
pub(crate) fn is_separator(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Splits arguments at blanks, whatever quotes say.
pub(crate) fn plain_words(args: &str) -> Vec<&str> {
    args.split(is_separator).filter(|word| !word.is_empty()).collect()
}

/// Splits text at its first run of blanks. The second part is `None` if there is none.
pub(crate) fn split_first(text: &str) -> (&str, Option<&str>) {
    match text.split_once(is_separator) {
        Some((first, rest)) => (first, Some(rest.trim_start_matches(is_separator))),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_the_first_other_word() {
        let split = |args| {
            let (flags, rest) = flags(args, '\\');
            (flags.into_iter().map(|it| it.text).collect::<Vec<_>>().join("|"), rest)
        };
        assert_eq!(split("--a --b=c  d --e"), ("a|b=c".into(), "d --e"));
        assert_eq!(split("--a -- --b"), ("a".into(), "--b"));
        assert_eq!(split("-a"), (String::new(), "-a"));
        assert_eq!(split("--a='b c'\"d\\\"e\"\\ f g"), ("a=b cd\"e f".into(), "g"));
        assert_eq!(split("--a='b"), ("a=b".into(), ""));
        assert_eq!(split("--a=b\\"), ("a=b".into(), ""));
        assert_eq!(split("--a\u{a0}b"), ("a".into(), "b"));
        assert_eq!(split("--"), (String::new(), ""));
    }

    #[test]
    fn quoted_words_keep_quotes() {
        let words = |args| quoted_words(args, '\\');
        assert_eq!(words(r#" a=b  c="d e"'f g' "#), ["a=b", r#"c="d e"'f g'"#]);
        assert_eq!(words(r#"a\ b "c\" d" 'e\' f"#), [r"a\ b", r#""c\" d""#, r"'e\'", "f"]);
        assert_eq!(words("a='b c"), ["a='b c"]);
        assert_eq!(words("a\\"), ["a"]);
        assert_eq!(words("\"a\\"), ["\"a"]);
        assert_eq!(words("\\"), [""; 0]);
        assert_eq!(words("'' \"\""), ["''", "\"\""]);
    }
}
