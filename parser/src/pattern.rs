//! The pattern language of `${v#p}`, `${v%p}` and `${v/p/r}`.
//!
//! `*` is any string and `?` any character, neither across a line break; `\*`, `\?`, `\\`, `\}` and
//! `\/` stand for the character after the backslash; all else stands for itself.
//!
//! A match is found by running all states of the pattern side by side, so that no pattern makes it
//! exponential. What is left, text times pattern, is bounded by a [`Budget`].

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// `*`
    AnyString,
    /// `?`
    AnyChar,
    /// A character that stands for itself.
    Char(char),
}

/// A compiled pattern.
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

/// Steps that may still be spent on matching.
pub(crate) struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(1 << 27)
    }
}

/// Matching took too many steps.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfBudget;

/// A backslash before a character that cannot be escaped; none at the end of the pattern.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadEscape(pub(crate) Option<char>);

/// Which of several matches from the same start to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Shortest,
    Longest,
}

impl Pattern {
    /// Compiles a pattern.
    pub(crate) fn new(text: &str) -> Result<Self, BadEscape> {
        let mut tokens = Vec::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::AnyString,
                '?' => Token::AnyChar,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    other => return Err(BadEscape(other)),
                },
                c => Token::Char(c),
            });
        }
        // Equal neighbours add nothing but work.
        tokens.dedup_by(|a, b| *a == Token::AnyString && *b == Token::AnyString);
        Ok(Self { tokens })
    }

    /// Returns the value without the matching prefix, if there is one.
    pub(crate) fn strip_prefix<'v>(
        &self,
        value: &'v str,
        take: Take,
        budget: &mut Budget,
    ) -> Result<&'v str, OutOfBudget> {
        let length = matched(&self.tokens, value.chars(), take, budget)?;
        Ok(&value[length.unwrap_or(0)..])
    }

    /// Returns the value without the matching suffix, if there is one.
    pub(crate) fn strip_suffix<'v>(
        &self,
        value: &'v str,
        take: Take,
        budget: &mut Budget,
    ) -> Result<&'v str, OutOfBudget> {
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let length = matched(&tokens, value.chars().rev(), take, budget)?;
        Ok(&value[..value.len() - length.unwrap_or(0)])
    }

    /// Returns the byte range of the first match at or after `from`, the longest of its start.
    pub(crate) fn find(
        &self,
        value: &str,
        from: usize,
        budget: &mut Budget,
    ) -> Result<Option<(usize, usize)>, OutOfBudget> {
        let starts = value[from..].char_indices().map(|(at, _)| from + at);
        for start in starts.chain([value.len()]) {
            if let Some(n) = matched(&self.tokens, value[start..].chars(), Take::Longest, budget)? {
                return Ok(Some((start, start + n)));
            }
        }
        Ok(None)
    }
}

/// Returns how many bytes from the start of the text the pattern matches.
fn matched(
    tokens: &[Token],
    text: impl Iterator<Item = char>,
    take: Take,
    budget: &mut Budget,
) -> Result<Option<usize>, OutOfBudget> {
    let mut states = Vec::new();
    enter(tokens, 0, &mut states);
    let mut next = Vec::new();
    let (mut length, mut found) = (0, None);
    let mut text = text.peekable();
    loop {
        if states.last() == Some(&tokens.len()) {
            found = Some(length);
            if take == Take::Shortest {
                return Ok(found);
            }
        }
        let Some(c) = text.next() else { return Ok(found) };
        let cost = 1 + states.len() as u64;
        budget.0 = budget.0.checked_sub(cost).ok_or(OutOfBudget)?;
        next.clear();
        for &state in &states {
            match tokens.get(state) {
                Some(Token::AnyString) if c != '\n' => enter(tokens, state, &mut next),
                Some(Token::AnyChar) if c != '\n' => enter(tokens, state + 1, &mut next),
                Some(Token::Char(expected)) if *expected == c => {
                    enter(tokens, state + 1, &mut next);
                }
                _ => {}
            }
        }
        if next.is_empty() {
            return Ok(found);
        }
        std::mem::swap(&mut states, &mut next);
        length += c.len_utf8();
    }
}

/// Adds a state and what is reachable from it without reading. States stay sorted and unique, as
/// they are entered in ascending order, each at most one step past the last.
fn enter(tokens: &[Token], state: usize, states: &mut Vec<usize>) {
    if states.last().is_none_or(|last| *last < state) {
        states.push(state);
    }
    let after = state + 1;
    let may_skip = tokens.get(state) == Some(&Token::AnyString);
    if may_skip && states.last().is_none_or(|last| *last < after) {
        states.push(after);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, value: &str, expect: [&str; 4]) {
        let pattern = Pattern::new(pattern).unwrap();
        let mut budget = Budget::default();
        let actual = [
            pattern.strip_prefix(value, Take::Shortest, &mut budget).unwrap(),
            pattern.strip_prefix(value, Take::Longest, &mut budget).unwrap(),
            pattern.strip_suffix(value, Take::Shortest, &mut budget).unwrap(),
            pattern.strip_suffix(value, Take::Longest, &mut budget).unwrap(),
        ];
        assert_eq!(actual, expect);
    }

    #[test]
    fn prefixes_and_suffixes() {
        check("*a", "banana", ["nana", "", "banan", ""]);
        check("na*", "banana", ["banana", "banana", "bana", "ba"]);
        check("?", "é", ["", "", "", ""]);
        check(r"\*", "*a*", ["a*", "a*", "*a", "*a"]);
        check("[a]", "[a]b", ["b", "b", "[a]b", "[a]b"]);
        check("", "x", ["x", "x", "x", "x"]);
        check("*", "a\nb", ["a\nb", "\nb", "a\nb", "a\n"]);
    }

    #[test]
    fn an_escaped_letter_is_an_error() {
        assert_eq!(Pattern::new(r"a\n").err(), Some(BadEscape(Some('n'))));
        assert_eq!(Pattern::new(r"\").err(), Some(BadEscape(None)));
    }

    #[test]
    fn work_is_bounded() {
        let value = "a".repeat(100_000);
        let pattern = Pattern::new("*a*a*a*b").unwrap();
        assert_eq!(pattern.find(&value, 0, &mut Budget::default()), Err(OutOfBudget));
    }

    /// The obvious definition, exponential.
    fn matches(tokens: &[Token], text: &[char]) -> bool {
        match (tokens, text) {
            ([], []) => true,
            ([Token::AnyString, rest @ ..], _) => {
                matches(rest, text)
                    || text.first().is_some_and(|c| *c != '\n' && matches(tokens, &text[1..]))
            }
            ([Token::AnyChar, rest @ ..], [c, text @ ..]) => *c != '\n' && matches(rest, text),
            ([Token::Char(a), rest @ ..], [c, text @ ..]) => a == c && matches(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,6}", value in "[ab\n]{0,8}") {
            let compiled = Pattern::new(&pattern).unwrap();
            let chars: Vec<char> = value.chars().collect();
            let fits: Vec<usize> =
                (0..=chars.len()).filter(|n| matches(&compiled.tokens, &chars[..*n])).collect();
            let run = |take| matched(&compiled.tokens, value.chars(), take, &mut Budget::default());
            prop_assert_eq!(run(Take::Shortest).unwrap(), fits.first().copied());
            prop_assert_eq!(run(Take::Longest).unwrap(), fits.last().copied());
        }
    }
}
