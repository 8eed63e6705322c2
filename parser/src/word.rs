//! Shell words: quotes, escapes and variables.
//!
//! ```text
//! text ──scan──▶ pieces ──▶ one string        (`expand`)
//!                      └──▶ words at blanks   (`expand_words`)
//! ```
//!
//! Unset variables are empty, and the result tells their names, so that the caller can warn.
//!
//! Invariants:
//! - Linear in the text and what it expands to, but for patterns, whose work is bounded.
//! - `${}` forms nest at most [`MAX_DEPTH`] deep, and nothing expands to more than [`MAX_SIZE`].

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use crate::pattern::{BadEscape, Budget, OutOfBudget, Pattern, Take};

mod error;

pub use error::{QuoteKind, WordError, WordErrorKind};

/// Nesting of `${}` forms and quotes that is accepted.
pub const MAX_DEPTH: usize = 100;

/// Size of a result, in bytes, that is accepted.
pub const MAX_SIZE: usize = 16 << 20;

/// Looks up a variable: `None` if it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What to do with quotes, escapes and unset variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// Keep quote characters in the result.
    pub raw_quotes: bool,
    /// Keep escape characters in the result.
    pub raw_escapes: bool,
    /// Leave references to unset variables as they are.
    pub skip_unset: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
}

/// A processed word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The result.
    pub text: String,
    /// Names of set variables that were used, each once, in order of first use.
    pub used: Vec<String>,
    /// Names of unset variables that were used, each once, in order of first use. A variable whose
    /// form has a default value, such as `${v:-w}`, counts too.
    pub unset: Vec<String>,
}

/// The words of a processed text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpandedWords {
    /// The words; none of them is empty.
    pub words: Vec<String>,
    /// Names of set variables that were used, each once, in order of first use.
    pub used: Vec<String>,
    /// Names of unset variables that were used, each once, in order of first use.
    pub unset: Vec<String>,
}

/// Processes a text as a single word.
///
/// # Errors
/// Unbalanced quotes, a bad `${}` form, or a `${v:?}` whose variable is missing.
pub fn expand(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    mode: Mode,
) -> Result<Expanded, WordError> {
    let mut scanner = Scanner::new(text, escape, lookup, mode);
    match scanner.until(None) {
        Ok(pieces) => {
            Ok(Expanded { text: pieces.text, used: scanner.used.names, unset: scanner.unset.names })
        }
        Err(cause) => Err(WordError { word: text.to_owned(), cause }),
    }
}

/// Processes a text and splits the result at blanks, also at those that come from variables, but
/// not at those in quotes.
///
/// # Errors
/// As [`expand`].
pub fn expand_words(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    mode: Mode,
) -> Result<ExpandedWords, WordError> {
    let mut scanner = Scanner::new(text, escape, lookup, mode);
    match scanner.until(None) {
        Ok(pieces) => Ok(ExpandedWords {
            words: pieces.into_words(),
            used: scanner.used.names,
            unset: scanner.unset.names,
        }),
        Err(cause) => Err(WordError { word: text.to_owned(), cause }),
    }
}

/// Expands the body of a heredoc: quotes are ordinary characters, the escape is always `\`.
///
/// # Errors
/// A bad `${}` form, or a `${v:?}` whose variable is missing.
pub fn expand_heredoc(body: &str, lookup: Lookup<'_>) -> Result<Expanded, WordError> {
    let mode = Mode { ignore_quotes: true, ..Mode::default() };
    expand(body, '\\', lookup, mode)
}

/// Names in order of first use.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    seen: BTreeSet<String>,
}

impl Names {
    fn add(&mut self, name: &str) {
        if self.seen.insert(name.to_owned()) {
            self.names.push(name.to_owned());
        }
    }
}

/// What a scan yields: the text, and the blanks in it that separate words.
#[derive(Default)]
struct Pieces {
    text: String,
    /// Offsets of the separating blanks, ascending.
    blanks: Vec<usize>,
}

impl Pieces {
    /// Adds text whose blanks separate words.
    fn add_open(&mut self, text: &str) -> Result<(), WordErrorKind> {
        let start = self.text.len();
        let blanks = text.char_indices().filter(|(_, c)| c.is_whitespace());
        self.blanks.extend(blanks.map(|(at, _)| start + at));
        self.add_closed(text)
    }

    /// Adds text whose blanks are part of the word.
    fn add_closed(&mut self, text: &str) -> Result<(), WordErrorKind> {
        if self.text.len() + text.len() > MAX_SIZE {
            return Err(WordErrorKind::TooLarge);
        }
        self.text.push_str(text);
        Ok(())
    }

    fn add_open_char(&mut self, c: char) -> Result<(), WordErrorKind> {
        self.add_open(c.encode_utf8(&mut [0; 4]))
    }

    fn add_closed_char(&mut self, c: char) -> Result<(), WordErrorKind> {
        self.add_closed(c.encode_utf8(&mut [0; 4]))
    }

    fn into_words(self) -> Vec<String> {
        let mut words = Vec::new();
        let mut start = 0;
        for end in self.blanks.iter().copied().chain([self.text.len()]) {
            if start < end {
                words.push(self.text[start..end].to_owned());
            }
            start = end + self.text[end..].chars().next().map_or(0, char::len_utf8);
        }
        words
    }
}

/// Reads a word from left to right.
struct Scanner<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    mode: Mode,
    depth: usize,
    budget: Budget,
    used: Names,
    unset: Names,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, escape: char, lookup: Lookup<'a>, mode: Mode) -> Self {
        Self {
            rest: text.chars().peekable(),
            escape,
            lookup,
            mode,
            depth: 0,
            budget: Budget::default(),
            used: Names::default(),
            unset: Names::default(),
        }
    }

    /// Reads up to and with the stop character, or to the end if there is none.
    fn until(&mut self, stop: Option<char>) -> Result<Pieces, WordErrorKind> {
        let mut out = Pieces::default();
        while let Some(c) = self.rest.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '$' => out.add_open(&self.dollar()?)?,
                '\'' if !self.mode.ignore_quotes => self.single_quoted(&mut out)?,
                '"' if !self.mode.ignore_quotes => self.double_quoted(&mut out)?,
                '<' => self.less_than(&mut out)?,
                c if c == self.escape => {
                    if self.mode.raw_escapes {
                        out.add_closed_char(c)?;
                    }
                    if let Some(escaped) = self.rest.next() {
                        out.add_closed_char(escaped)?;
                    }
                }
                c => out.add_open_char(c)?,
            }
        }
        // Only `${}` forms stop early, and only a missing delimiter ends them so.
        match stop {
            None => Ok(out),
            Some('/') => Err(WordErrorKind::MissingSlash),
            Some(_) => Err(WordErrorKind::MissingBrace),
        }
    }

    /// Reads one more level, with escapes kept or not.
    fn nested(&mut self, stop: char, raw_escapes: bool) -> Result<String, WordErrorKind> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(WordErrorKind::TooDeep);
        }
        let outer = std::mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let result = self.until(Some(stop));
        self.mode.raw_escapes = outer;
        self.depth -= 1;
        Ok(result?.text)
    }

    /// Reads what follows `<`. Blanks after `<<` or `<<-` belong to the word, so that a heredoc
    /// whose name stands apart is one word.
    fn less_than(&mut self, out: &mut Pieces) -> Result<(), WordErrorKind> {
        out.add_closed_char('<')?;
        if self.rest.next_if_eq(&'<').is_none() {
            return Ok(());
        }
        out.add_closed_char('<')?;
        if self.rest.next_if_eq(&'-').is_some() {
            out.add_closed_char('-')?;
        }
        while let Some(blank) = self.rest.next_if(|c| c.is_whitespace()) {
            out.add_closed_char(blank)?;
        }
        Ok(())
    }

    /// Reads the rest of `'...'`.
    fn single_quoted(&mut self, out: &mut Pieces) -> Result<(), WordErrorKind> {
        if self.mode.raw_quotes {
            out.add_closed_char('\'')?;
        }
        loop {
            match self.rest.next() {
                Some('\'') => break,
                Some(c) => out.add_closed_char(c)?,
                None => return Err(WordErrorKind::Unterminated(QuoteKind::Single)),
            }
        }
        if self.mode.raw_quotes {
            out.add_closed_char('\'')?;
        }
        Ok(())
    }

    /// Reads the rest of `"..."`.
    fn double_quoted(&mut self, out: &mut Pieces) -> Result<(), WordErrorKind> {
        if self.mode.raw_quotes {
            out.add_closed_char('"')?;
        }
        loop {
            match self.rest.next() {
                Some('"') => break,
                Some('$') => out.add_closed(&self.dollar()?)?,
                Some(c) if c == self.escape => {
                    let escape = self.escape;
                    let may_escape = |c: &char| matches!(c, '"' | '$') || *c == escape;
                    let escaped = self.rest.next_if(may_escape);
                    if self.mode.raw_escapes || (escaped.is_none() && self.rest.peek().is_some()) {
                        out.add_closed_char(c)?;
                    }
                    if let Some(escaped) = escaped {
                        out.add_closed_char(escaped)?;
                    }
                }
                Some(c) => out.add_closed_char(c)?,
                None => return Err(WordErrorKind::Unterminated(QuoteKind::Double)),
            }
        }
        if self.mode.raw_quotes {
            out.add_closed_char('"')?;
        }
        Ok(())
    }

    /// Reads what follows `$`.
    fn dollar(&mut self) -> Result<String, WordErrorKind> {
        if self.rest.next_if_eq(&'{').is_some() {
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.get(&name) {
            None if self.mode.skip_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// Reads what follows `${`.
    fn braced(&mut self) -> Result<String, WordErrorKind> {
        match self.rest.peek() {
            None => return Err(WordErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(WordErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            Some('}') => match self.get(&name) {
                None if self.mode.skip_unset => Ok(format!("${{{name}}}")),
                value => Ok(value.unwrap_or_default()),
            },
            Some(':') => {
                let operator = self.rest.next();
                self.modified(&name, true, operator)
            }
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                self.modified(&name, false, Some(operator))
            }
            Some('/') => self.replaced(&name),
            other => Err(unsupported("", other)),
        }
    }

    /// Reads what follows `${name` and an operator other than `/`.
    fn modified(
        &mut self,
        name: &str,
        null_is_unset: bool,
        operator: Option<char>,
    ) -> Result<String, WordErrorKind> {
        let raw_escapes = matches!(operator, Some('#' | '%'));
        let word = self.nested('}', raw_escapes)?;
        let colon = if null_is_unset { ":" } else { "" };
        let value = self.get(name);
        if value.is_none() && self.mode.skip_unset {
            let operator = operator.map(String::from).unwrap_or_default();
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let usable = value.as_deref().filter(|value| !(null_is_unset && value.is_empty()));
        match operator {
            Some('-') => Ok(usable.map_or(word, str::to_owned)),
            Some('+') => Ok(usable.map_or(String::new(), |_| word)),
            Some('?') => match usable {
                Some(usable) => Ok(usable.to_owned()),
                None => Err(required(name, word, value.is_some())),
            },
            Some(operator @ ('#' | '%')) if !null_is_unset => {
                self.stripped(&value.unwrap_or_default(), operator, &word)
            }
            other => Err(unsupported(colon, other)),
        }
    }

    /// Returns the value without the prefix (`#`) or suffix (`%`) that the pattern matches. A
    /// doubled operator, whose second character starts `pattern`, takes the longest match.
    fn stripped(
        &mut self,
        value: &str,
        operator: char,
        pattern: &str,
    ) -> Result<String, WordErrorKind> {
        let (take, pattern) = match pattern.strip_prefix(operator) {
            Some(pattern) => (Take::Longest, pattern),
            None => (Take::Shortest, pattern),
        };
        let compiled = Pattern::new(pattern).map_err(|cause| invalid(pattern, &cause))?;
        let left = if operator == '#' {
            compiled.strip_prefix(value, take, &mut self.budget)?
        } else {
            compiled.strip_suffix(value, take, &mut self.budget)?
        };
        Ok(left.to_owned())
    }

    /// Reads what follows `${name/`.
    fn replaced(&mut self, name: &str) -> Result<String, WordErrorKind> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = self.nested('/', true)?;
        let replacement = self.nested('}', true)?;
        let value = self.get(name);
        if value.is_none() && self.mode.skip_unset {
            let slash = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"));
        }
        let compiled = Pattern::new(&pattern).map_err(|cause| invalid(&pattern, &cause))?;
        replace(&value.unwrap_or_default(), &compiled, &replacement, all, &mut self.budget)
    }

    /// Reads a name: a word of letters, digits and underscores, a number, or one special character.
    /// Empty if none stands here.
    fn name(&mut self) -> String {
        let mut name = String::new();
        let Some(first) = self.rest.next_if(|c| is_name_char(*c) || is_special(*c)) else {
            return name;
        };
        name.push(first);
        if is_special(first) && !first.is_numeric() {
            return name;
        }
        let only_digits = is_digit(first);
        let fits = |c: &char| if only_digits { is_digit(*c) } else { is_name_char(*c) };
        while let Some(c) = self.rest.next_if(fits) {
            name.push(c);
        }
        name
    }

    /// Looks up a variable and notes its use.
    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        if value.is_some() {
            self.used.add(name)
        } else {
            self.unset.add(name)
        }
        value
    }
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn is_special(c: char) -> bool {
    matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!' | '0')
}

fn unsupported(colon: &str, operator: Option<char>) -> WordErrorKind {
    // The end of the text shows as the replacement character, as in the reference.
    let operator = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
    WordErrorKind::UnsupportedModifier(format!("{colon}{operator}"))
}

fn required(name: &str, message: String, is_set: bool) -> WordErrorKind {
    let message = match (message.is_empty(), is_set) {
        (false, _) => message,
        (true, false) => "is not allowed to be unset".to_owned(),
        (true, true) => "is not allowed to be empty".to_owned(),
    };
    WordErrorKind::Required { name: name.to_owned(), message }
}

fn invalid(pattern: &str, cause: &BadEscape) -> WordErrorKind {
    let escaped = cause.0.unwrap_or(char::REPLACEMENT_CHARACTER);
    WordErrorKind::InvalidPattern { pattern: pattern.to_owned(), escaped }
}

impl From<OutOfBudget> for WordErrorKind {
    fn from(_: OutOfBudget) -> Self {
        Self::TooExpensive
    }
}

/// Replaces the first match or all of them. An empty match directly after another one is none.
fn replace(
    value: &str,
    pattern: &Pattern,
    replacement: &str,
    all: bool,
    budget: &mut Budget,
) -> Result<String, WordErrorKind> {
    let mut out = Pieces::default();
    let (mut from, mut copied) = (0, 0);
    while let Some((start, end)) = pattern.find(value, from, budget)? {
        let is_empty_again = start == end && start == copied && start > 0;
        if !is_empty_again {
            out.add_closed(&value[copied..start])?;
            out.add_closed(replacement)?;
            copied = end;
        }
        if !all {
            break;
        }
        // An empty match must not be found again.
        let step = value[end..].chars().next().map(char::len_utf8);
        from = match step {
            _ if end > start => end,
            Some(step) => end + step,
            None => break,
        };
    }
    out.add_closed(&value[copied..])?;
    Ok(out.text)
}

#[cfg(test)]
mod tests;
