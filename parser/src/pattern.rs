//! The pattern language of `${v#p}`, `${v%p}` and `${v/p/r}`.
//!
//! `*` is any string and `?` any character, neither across a line break; `\*`, `\?`, `\\`, `\}` and
//! `\/` stand for the character after the backslash; all else stands for itself.
//!
//! A match is found by running all states of the pattern side by side, so that no pattern makes it
//! exponential, and no text quadratic. What is left, text times pattern, is bounded by a [`Budget`].

use std::cell::Cell;

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

/// What the expansion of words may still cost: shared by all words of a file, it bounds what the file costs.
///
/// Once it is used up nothing more is granted, however little it is.
#[derive(Debug)]
pub struct Budget {
    steps: Cell<u64>,
    bytes: Cell<usize>,
    is_used_up: Cell<bool>,
}

impl Budget {
    /// A budget of so many steps of matching, a small part of a microsecond each, and for so many bytes of
    /// results.
    pub fn new(steps: u64, bytes: usize) -> Self {
        Self { steps: Cell::new(steps), bytes: Cell::new(bytes), is_used_up: Cell::new(false) }
    }

    /// Whether something was asked for that was not left.
    pub fn is_used_up(&self) -> bool {
        self.is_used_up.get()
    }

    /// Pays for this many steps.
    pub(crate) fn spend(&self, steps: usize) -> Result<(), OutOfBudget> {
        let left = self.granted(self.steps.get().checked_sub(steps as u64))?;
        self.steps.set(left);
        Ok(())
    }

    /// Pays for copying this many bytes, of which many are as good as one step.
    pub(crate) fn spend_on_copy(&self, bytes: usize) -> Result<(), OutOfBudget> {
        self.spend(1 + bytes / 16)
    }

    /// Pays for a result of this many bytes, or for something else that is kept of what words expand to.
    ///
    /// # Errors
    /// All that was paid for together is too large.
    pub fn keep(&self, bytes: usize) -> Result<(), OutOfBudget> {
        let left = self.granted(self.bytes.get().checked_sub(bytes))?;
        self.bytes.set(left);
        Ok(())
    }

    /// What is left, if it was enough and has been so far.
    fn granted<T>(&self, left: Option<T>) -> Result<T, OutOfBudget> {
        self.is_used_up.set(self.is_used_up.get() || left.is_none());
        left.filter(|_| !self.is_used_up.get()).ok_or(OutOfBudget)
    }
}

/// A [`Budget`] is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfBudget;

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
        budget: &Budget,
    ) -> Result<&'v str, OutOfBudget> {
        let length = matched(&self.tokens, value.chars(), take, budget)?;
        Ok(&value[length.unwrap_or(0)..])
    }

    /// Returns the value without the matching suffix, if there is one.
    pub(crate) fn strip_suffix<'v>(
        &self,
        value: &'v str,
        take: Take,
        budget: &Budget,
    ) -> Result<&'v str, OutOfBudget> {
        let tokens: Vec<Token> = self.tokens.iter().rev().copied().collect();
        let length = matched(&tokens, value.chars().rev(), take, budget)?;
        Ok(&value[..value.len() - length.unwrap_or(0)])
    }

    /// Returns the byte range of the first match at or after `from`, the longest of its start.
    ///
    /// All starts are tried side by side: each state remembers the first start that led to it.
    pub(crate) fn find(
        &self,
        value: &str,
        from: usize,
        budget: &Budget,
    ) -> Result<Option<(usize, usize)>, OutOfBudget> {
        let (mut states, mut next) = (Vec::new(), Vec::new());
        let mut found: Option<(usize, usize)> = None;
        let mut chars = value[from..].chars();
        let mut at = from;
        enter_at(&self.tokens, 0, at, &mut states);
        while let Some(&(state, start)) = states.last() {
            if state == self.tokens.len() {
                found = Some((start, at));
                states.retain(|(_, other)| *other <= start);
            }
            let Some(c) = chars.next() else { break };
            budget.spend(1 + states.len())?;
            at += c.len_utf8();
            next.clear();
            if found.is_none() {
                enter_at(&self.tokens, 0, at, &mut next);
            }
            for &(state, start) in &states {
                if let Some(state) = advance(&self.tokens, state, c) {
                    enter_at(&self.tokens, state, start, &mut next);
                }
            }
            std::mem::swap(&mut states, &mut next);
        }
        Ok(found)
    }
}

/// Returns how many bytes from the start of the text the pattern matches.
fn matched(
    tokens: &[Token],
    text: impl Iterator<Item = char>,
    take: Take,
    budget: &Budget,
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
        budget.spend(1 + states.len())?;
        next.clear();
        for &state in &states {
            if let Some(state) = advance(tokens, state, c) {
                enter(tokens, state, &mut next);
            }
        }
        if next.is_empty() {
            return Ok(found);
        }
        std::mem::swap(&mut states, &mut next);
        length += c.len_utf8();
    }
}

/// Returns the state that the character leads to.
fn advance(tokens: &[Token], state: usize, c: char) -> Option<usize> {
    match tokens.get(state)? {
        Token::AnyString => (c != '\n').then_some(state),
        Token::AnyChar => (c != '\n').then_some(state + 1),
        Token::Char(expected) => (*expected == c).then_some(state + 1),
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

/// As [`enter`], for states with the start of their match, of which the first counts.
fn enter_at(tokens: &[Token], state: usize, start: usize, states: &mut Vec<(usize, usize)>) {
    let last = if tokens.get(state) == Some(&Token::AnyString) { state + 1 } else { state };
    for state in state..=last {
        // A state that is there already is one of the last two.
        match states.iter_mut().rev().take(2).find(|(known, _)| *known == state) {
            Some((_, known)) => *known = start.min(*known),
            None => states.push((state, start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(pattern: &str, value: &str, expect: [&str; 4]) {
        let pattern = Pattern::new(pattern).unwrap();
        let budget = Budget::new(1 << 25, 0);
        let actual = [
            pattern.strip_prefix(value, Take::Shortest, &budget).unwrap(),
            pattern.strip_prefix(value, Take::Longest, &budget).unwrap(),
            pattern.strip_suffix(value, Take::Shortest, &budget).unwrap(),
            pattern.strip_suffix(value, Take::Longest, &budget).unwrap(),
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
        let value = "a".repeat(1 << 20);
        let find = |pattern: &str| {
            let pattern = Pattern::new(pattern).unwrap();
            pattern.find(&value, 0, &Budget::new(1 << 25, 0))
        };
        assert_eq!(find("*a*a*a*b"), Ok(None));
        assert_eq!(find(&"a*".repeat(100_000)), Err(OutOfBudget));
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
            let run = |take| matched(&compiled.tokens, value.chars(), take, &Budget::new(1 << 25, 0));
            prop_assert_eq!(run(Take::Shortest).unwrap(), fits.first().copied());
            prop_assert_eq!(run(Take::Longest).unwrap(), fits.last().copied());
        }

        #[test]
        fn the_first_match_is_the_longest_of_its_start(
            pattern in "[ab*?]{0,6}", value in "[ab\n]{0,8}", from in 0..9_usize,
        ) {
            let compiled = Pattern::new(&pattern).unwrap();
            let from = from.min(value.len());
            let longest = |start| {
                matched(&compiled.tokens, value[start..].chars(), Take::Longest, &Budget::new(1 << 25, 0))
                    .unwrap()
            };
            let mut starts = from..=value.len();
            let expect = starts.find_map(|start| Some((start, start + longest(start)?)));
            prop_assert_eq!(compiled.find(&value, from, &Budget::new(1 << 25, 0)).unwrap(), expect);
        }
    }
}
