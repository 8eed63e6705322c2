//! A pattern as a small automaton, run over all its states at once.
//!
//! Time is bounded by pattern length × path length whatever the pattern, so a hostile ignore file cannot
//! make matching slow. Paths are read as UTF-8; a byte that is not is one character of its own.

/// Which wildcards a pattern may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    /// `*`, `?`, classes and escapes.
    Glob,
    /// The same and `**`.
    Ignore,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: one character but `/`.
    One,
    /// `*`: any run of characters but `/`.
    Star,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: nothing, or whatever ends in `/`. Leads to the `DeepLoop` behind it and past it.
    DeepEnter,
    DeepLoop,
    /// `**` at the end: whatever follows.
    Rest,
}

impl Machine {
    /// Returns `None` for a malformed pattern.
    pub(super) fn compile(pattern: &str, syntax: Syntax) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                '*' if syntax == Syntax::Ignore && rest.starts_with('*') => {
                    rest = &rest[1..];
                    rest = rest.strip_prefix('/').unwrap_or(rest);
                    if rest.is_empty() {
                        tokens.push(Token::Rest);
                    } else {
                        tokens.extend([Token::DeepEnter, Token::DeepLoop]);
                    }
                }
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '[' => {
                    let (class, after) = class(rest)?;
                    tokens.push(class);
                    rest = after;
                }
                '\\' => {
                    let escaped = rest.chars().next()?;
                    rest = &rest[escaped.len_utf8()..];
                    tokens.push(Token::Char(escaped));
                }
                other => tokens.push(Token::Char(other)),
            }
        }
        Some(Self { tokens })
    }

    /// Whether the whole path matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        self.run(path, |states| states.contains(self.tokens.len()))
    }

    /// Whether some path that begins with `start` and is longer can match.
    pub(super) fn may_start_with(&self, start: &[u8]) -> bool {
        self.run(start, |states| (0..self.tokens.len()).any(|state| states.contains(state)))
    }

    fn run(&self, path: &[u8], verdict: impl FnOnce(&States<'_>) -> bool) -> bool {
        const SMALL: usize = 4;
        let words = self.tokens.len() / 64 + 1;
        let mut small = [0_u64; 2 * SMALL];
        let mut large = Vec::new();
        let memory = if words <= SMALL {
            &mut small[..2 * words]
        } else {
            large.resize(2 * words, 0);
            &mut large[..]
        };
        let (now, next) = memory.split_at_mut(words);
        let (mut now, mut next) = (States(now), States(next));
        self.enter(&mut now, 0);
        let mut rest = path;
        while !rest.is_empty() {
            let (letter, length) = decode(rest);
            rest = &rest[length..];
            next.0.fill(0);
            for state in now.iter() {
                self.advance(state, letter, &mut next);
            }
            if next.0.iter().all(|word| *word == 0) {
                return false;
            }
            std::mem::swap(&mut now, &mut next);
        }
        verdict(&now)
    }

    /// Adds a state and all that it leads to without reading anything.
    fn enter(&self, states: &mut States<'_>, state: usize) {
        let mut state = state;
        loop {
            states.insert(state);
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest) => state += 1,
                Some(Token::DeepEnter) => {
                    states.insert(state + 1);
                    state += 2;
                }
                _ => return,
            }
        }
    }

    fn advance(&self, state: usize, letter: char, next: &mut States<'_>) {
        let Some(token) = self.tokens.get(state) else { return };
        match token {
            Token::Char(c) if *c == letter => self.enter(next, state + 1),
            Token::One if letter != '/' => self.enter(next, state + 1),
            Token::Star if letter != '/' => self.enter(next, state),
            Token::Class { negated, ranges } => {
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter));
                if inside != *negated {
                    self.enter(next, state + 1);
                }
            }
            // In the reference this is a dot of a regular expression, which stops at a line feed.
            Token::DeepLoop if letter != '\n' => {
                next.insert(state);
                if letter == '/' {
                    self.enter(next, state + 1);
                }
            }
            Token::Rest if letter != '\n' => self.enter(next, state),
            _ => {}
        }
    }
}

/// A set of states, one bit each.
struct States<'a>(&'a mut [u64]);

impl States<'_> {
    fn insert(&mut self, state: usize) {
        self.0[state / 64] |= 1 << (state % 64);
    }

    fn contains(&self, state: usize) -> bool {
        self.0[state / 64] & (1 << (state % 64)) != 0
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(index, &word)| {
            let mut word = word;
            std::iter::from_fn(move || {
                let bit = word.trailing_zeros() as usize;
                (word != 0).then(|| {
                    word &= word - 1;
                    index * 64 + bit
                })
            })
        })
    }
}

/// Reads a class whose `[` is consumed; returns it and what follows its `]`.
fn class(text: &str) -> Option<(Token, &str)> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !ranges.is_empty()) {
            return Some((Token::Class { negated, ranges }, after));
        }
        let (low, after) = class_letter(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix('-') {
            (high, rest) = class_letter(after)?;
        }
        ranges.push((low, high));
    }
}

fn class_letter(text: &str) -> Option<(char, &str)> {
    let mut letters = text.chars();
    let letter = match letters.next()? {
        '-' | ']' => return None,
        '\\' => letters.next()?,
        other => other,
    };
    Some((letter, letters.as_str()))
}

/// Decodes the first character of a path that is not empty; a stray byte is U+FFFD.
fn decode(bytes: &[u8]) -> (char, usize) {
    if bytes[0].is_ascii() {
        return (char::from(bytes[0]), 1);
    }
    let window = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid
        .chars()
        .next()
        .map_or((char::REPLACEMENT_CHARACTER, 1), |letter| (letter, letter.len_utf8()))
}
