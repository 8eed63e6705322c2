//! Shell words: quotes, escapes and variables.
//!
//! ```text
//! text ──scan──▶ one string        (`expand`)
//!           └──▶ words at blanks   (`expand_words`)
//! ```
//!
//! Unset variables are empty, and the result tells their names, so that the caller can warn.
//!
//! Invariants:
//! - `${}` forms nest to any depth: those that are open are a list, not a recursion.
//! - All results grow in one buffer, in which a form's word becomes its result, so that nesting does
//!   not copy: linear in the text and what it expands to. Matching of patterns, values that are dropped
//!   again and results are bounded by a [`Budget`], and nothing expands to more than [`MAX_SIZE`].

use std::collections::BTreeSet;

use crate::pattern::{BadEscape, Pattern, Take};

mod error;

pub use crate::pattern::{Budget, OutOfBudget};
pub use error::{QuoteKind, WordError, WordErrorKind};

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
/// Unbalanced quotes, a bad `${}` form, a `${v:?}` whose variable is missing, or a budget that is used up.
pub fn expand(
    text: &str,
    escape: char,
    lookup: Lookup<'_>,
    mode: Mode,
    budget: &Budget,
) -> Result<Expanded, WordError> {
    let scanner = Scanner::new(text, escape, lookup, mode, budget).run()?;
    let (used, unset) = (scanner.used.names(), scanner.unset.names());
    Ok(Expanded { text: scanner.out, used, unset })
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
    budget: &Budget,
) -> Result<ExpandedWords, WordError> {
    let scanner = Scanner::new(text, escape, lookup, mode, budget).run()?;
    let (used, unset) = (scanner.used.names(), scanner.unset.names());
    Ok(ExpandedWords { words: scanner.words(), used, unset })
}

/// Expands the body of a heredoc: quotes are ordinary characters, the escape is always `\`.
///
/// # Errors
/// A bad `${}` form, a `${v:?}` whose variable is missing, or a budget that is used up.
pub fn expand_heredoc(
    body: &str,
    lookup: Lookup<'_>,
    budget: &Budget,
) -> Result<Expanded, WordError> {
    let mode = Mode { ignore_quotes: true, ..Mode::default() };
    expand(body, '\\', lookup, mode, budget)
}

/// Names in order of first use.
#[derive(Default)]
struct Names<'a> {
    names: Vec<&'a str>,
    seen: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    fn add(&mut self, name: &'a str) {
        if self.seen.insert(name) {
            self.names.push(name);
        }
    }

    fn names(&self) -> Vec<String> {
        self.names.iter().map(|name| (*name).to_owned()).collect()
    }
}

/// How text is read: differs between the word of a form and what is around it.
#[derive(Clone, Copy)]
struct Level {
    /// Whether this is inside `"..."`.
    in_quotes: bool,
    /// Whether escape characters stay.
    raw_escapes: bool,
}

/// A `${}` form whose end is not read yet.
struct Form<'a> {
    name: &'a str,
    part: Part,
    /// Where its result begins in the buffer.
    start: usize,
    /// Where its word, or its pattern, begins in the buffer.
    word: usize,
    /// How the text around it is read.
    around: Level,
}

/// What of a form is being read.
#[derive(Clone, Copy)]
enum Part {
    /// The word behind an operator other than `/`, with or without a colon.
    Word { has_colon: bool, operator: Option<char> },
    /// The pattern of `${v/p/r}` or `${v//p/r}`, and once its end in the buffer is known, the
    /// replacement.
    Replace { all: bool, pattern_end: Option<usize> },
}

impl Form<'_> {
    /// Returns what ends the part that is being read.
    fn stop(&self) -> char {
        match self.part {
            Part::Replace { pattern_end: None, .. } => '/',
            Part::Replace { .. } | Part::Word { .. } => '}',
        }
    }

    /// Returns the error that this end is missing.
    fn missing(&self) -> WordErrorKind {
        match self.stop() {
            '/' => WordErrorKind::MissingSlash,
            _ => WordErrorKind::MissingBrace,
        }
    }
}

/// Reads a word from left to right.
struct Scanner<'a> {
    text: &'a str,
    /// Offset of what is to be read next.
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    mode: Mode,
    level: Level,
    open: Vec<Form<'a>>,
    /// The result so far, the unfinished ones of all open forms included.
    out: String,
    /// Offsets of the blanks in the result that separate words, ascending.
    blanks: Vec<usize>,
    budget: &'a Budget,
    used: Names<'a>,
    unset: Names<'a>,
}

impl<'a> Scanner<'a> {
    fn new(
        text: &'a str,
        escape: char,
        lookup: Lookup<'a>,
        mode: Mode,
        budget: &'a Budget,
    ) -> Self {
        Self {
            text,
            at: 0,
            escape,
            lookup,
            mode,
            level: Level { in_quotes: false, raw_escapes: mode.raw_escapes },
            open: Vec::new(),
            out: String::with_capacity(text.len()),
            blanks: Vec::new(),
            budget,
            used: Names::default(),
            unset: Names::default(),
        }
    }

    fn run(mut self) -> Result<Self, WordError> {
        match self.read_all() {
            Ok(()) => Ok(self),
            Err(cause) => {
                // A mistake at the very end is that of the outermost form which is not closed.
                let outermost = self.open.first().filter(|_| self.at == self.text.len());
                let cause = outermost.map_or(cause, Form::missing);
                Err(WordError { word: self.text.to_owned(), cause })
            }
        }
    }

    fn read_all(&mut self) -> Result<(), WordErrorKind> {
        while self.at < self.text.len() {
            if self.level.in_quotes { self.quoted()? } else { self.plain()? }
        }
        if self.level.in_quotes {
            return Err(WordErrorKind::Unterminated(QuoteKind::Double));
        }
        if let Some(form) = self.open.last() {
            return Err(form.missing());
        }
        self.budget.keep(self.out.len()).map_err(|OutOfBudget| WordErrorKind::TooLargeTogether)
    }

    /// Reads up to and with the next character that means something, outside of double quotes.
    fn plain(&mut self) -> Result<(), WordErrorKind> {
        let stop = self.open.last().map(Form::stop);
        let (escape, quotes) = (self.escape, !self.mode.ignore_quotes);
        let special = |c: char| match c {
            '$' | '<' => true,
            '\'' | '"' => quotes,
            c => c == escape || Some(c) == stop,
        };
        let start = self.out.len();
        self.take_until(special)?;
        self.note_blanks(start);
        let Some(c) = self.next() else { return Ok(()) };
        match c {
            c if Some(c) == stop => self.end_part(),
            '$' => self.dollar(),
            '\'' if quotes => self.single_quoted(),
            '"' if quotes => {
                self.level.in_quotes = true;
                self.add_quote(c)
            }
            '<' => self.less_than(),
            escape => {
                if self.level.raw_escapes {
                    self.add_char(escape)?;
                }
                self.next().map_or(Ok(()), |escaped| self.add_char(escaped))
            }
        }
    }

    /// Reads up to and with the next character that means something in double quotes.
    fn quoted(&mut self) -> Result<(), WordErrorKind> {
        let escape = self.escape;
        self.take_until(|c| matches!(c, '"' | '$') || c == escape)?;
        let Some(c) = self.next() else { return Ok(()) };
        match c {
            '"' => {
                self.level.in_quotes = false;
                self.add_quote(c)
            }
            '$' => self.dollar(),
            escape => {
                let may_escape = |c: char| matches!(c, '"' | '$') || c == escape;
                let escaped = self.peek().filter(|c| may_escape(*c));
                if self.level.raw_escapes || (escaped.is_none() && self.peek().is_some()) {
                    self.add_char(escape)?;
                }
                let Some(escaped) = escaped else { return Ok(()) };
                self.at += escaped.len_utf8();
                self.add_char(escaped)
            }
        }
    }

    /// Reads the rest of `'...'`.
    fn single_quoted(&mut self) -> Result<(), WordErrorKind> {
        self.add_quote('\'')?;
        self.take_until(|c| c == '\'')?;
        self.next().ok_or(WordErrorKind::Unterminated(QuoteKind::Single))?;
        self.add_quote('\'')
    }

    /// Reads what follows `<`. Blanks after `<<` or `<<-` belong to the word, so that a heredoc
    /// whose name stands apart is one word.
    fn less_than(&mut self) -> Result<(), WordErrorKind> {
        self.add_char('<')?;
        if !self.skip_if('<') {
            return Ok(());
        }
        self.add_char('<')?;
        if self.skip_if('-') {
            self.add_char('-')?;
        }
        self.take_until(|c| !c.is_whitespace())
    }

    /// Reads what follows `$`: all of a variable, or the beginning of a form.
    fn dollar(&mut self) -> Result<(), WordErrorKind> {
        if self.skip_if('{') {
            return self.braced();
        }
        let start = self.out.len();
        let name = self.name();
        if name.is_empty() {
            return self.add_char('$');
        }
        match self.get(name)? {
            None if self.mode.skip_unset => {
                self.add_char('$')?;
                self.add(name)?;
            }
            value => self.add(&value.unwrap_or_default())?,
        }
        self.note_blanks(start);
        Ok(())
    }

    /// Reads what follows `${`, up to the word of the form if it has one.
    fn braced(&mut self) -> Result<(), WordErrorKind> {
        match self.peek() {
            None => return Err(WordErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(WordErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let part = match self.next() {
            Some('}') => return self.simple(name),
            Some(':') => Part::Word { has_colon: true, operator: self.next() },
            Some(operator @ ('+' | '-' | '?' | '#' | '%')) => {
                Part::Word { has_colon: false, operator: Some(operator) }
            }
            Some('/') => Part::Replace { all: self.skip_if('/'), pattern_end: None },
            other => return Err(unsupported(false, other)),
        };
        self.begin(name, part)
    }

    /// Adds the value of `${name}`.
    fn simple(&mut self, name: &'a str) -> Result<(), WordErrorKind> {
        let start = self.out.len();
        match self.get(name)? {
            None if self.mode.skip_unset => {
                for part in ["${", name, "}"] {
                    self.add(part)?;
                }
            }
            value => self.add(&value.unwrap_or_default())?,
        }
        self.note_blanks(start);
        Ok(())
    }

    /// Begins a form that has a word.
    fn begin(&mut self, name: &'a str, part: Part) -> Result<(), WordErrorKind> {
        let start = self.out.len();
        if self.is_kept(name)? {
            self.add("${")?;
            self.add(name)?;
            match part {
                Part::Word { has_colon, operator } => {
                    self.add(if has_colon { ":" } else { "" })?;
                    operator.map_or(Ok(()), |operator| self.add_char(operator))?;
                }
                Part::Replace { all, .. } => self.add(if all { "//" } else { "/" })?,
            }
        }
        // What becomes a pattern keeps its escapes, which mean something there.
        let raw_escapes = match part {
            Part::Word { operator, .. } => matches!(operator, Some('#' | '%')),
            Part::Replace { .. } => true,
        };
        let word = self.out.len();
        self.open.push(Form { name, part, start, word, around: self.level });
        self.level = Level { in_quotes: false, raw_escapes };
        Ok(())
    }

    /// Returns whether a form stays as it is, as its variable is not set.
    fn is_kept(&mut self, name: &str) -> Result<bool, WordErrorKind> {
        if !self.mode.skip_unset {
            return Ok(false);
        }
        self.budget.spend(1)?;
        let value = (self.lookup)(name);
        self.budget.spend_on_copy(value.as_deref().map_or(0, str::len))?;
        Ok(value.is_none())
    }

    /// Ends the part that is being read of the innermost form, and with its last part the form.
    fn end_part(&mut self) -> Result<(), WordErrorKind> {
        let Some(mut form) = self.open.pop() else { return Ok(()) };
        if let Part::Replace { pattern_end: pattern_end @ None, .. } = &mut form.part {
            *pattern_end = Some(self.out.len());
            if self.is_kept(form.name)? {
                self.add_char('/')?;
            }
            self.open.push(form);
            return Ok(());
        }
        self.level = form.around;
        match self.get(form.name)? {
            None if self.mode.skip_unset => self.add_char('}')?,
            value => self.substitute(&form, value)?,
        }
        self.note_blanks(form.start);
        Ok(())
    }

    /// Puts the result of a form in the place of its word.
    fn substitute(&mut self, form: &Form<'a>, value: Option<String>) -> Result<(), WordErrorKind> {
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        match form.part {
            Part::Word { has_colon, operator: Some(operator @ ('-' | '+' | '?')) } => {
                let is_usable = is_set && !(has_colon && value.is_empty());
                match operator {
                    '+' if is_usable => Ok(()),
                    '+' => self.replace_from(form.word, ""),
                    _ if is_usable => self.replace_from(form.word, &value),
                    '-' => Ok(()),
                    _ => Err(required(form.name, &self.out[form.word..], is_set)),
                }
            }
            Part::Word { has_colon: false, operator: Some(operator @ ('#' | '%')) } => {
                let left = strip(&value, operator, &self.out[form.word..], self.budget)?;
                self.replace_from(form.word, left)
            }
            Part::Word { has_colon, operator } => Err(unsupported(has_colon, operator)),
            Part::Replace { all, pattern_end } => {
                let pattern_end = pattern_end.unwrap_or(self.out.len());
                let pattern = &self.out[form.word..pattern_end];
                let replacement = &self.out[pattern_end..];
                let compiled = compile(pattern, self.budget)?;
                let result = replace(&value, &compiled, replacement, all, self.budget)?;
                self.replace_from(form.word, &result)
            }
        }
    }

    /// Reads a name: a word of letters, digits and underscores, a number, or one special character.
    /// Empty if none stands here.
    fn name(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = match rest.chars().next() {
            Some(first) if first.is_ascii_digit() => length_while(rest, |c| c.is_ascii_digit()),
            Some(first) if is_special(first) => first.len_utf8(),
            _ => length_while(rest, |c| c.is_alphanumeric() || c == '_'),
        };
        self.at += length;
        &rest[..length]
    }

    /// Looks up a variable and notes its use.
    fn get(&mut self, name: &'a str) -> Result<Option<String>, WordErrorKind> {
        // Values are copied, so that there is no more of that when nothing is left.
        self.budget.spend(1)?;
        let value = (self.lookup)(name);
        match &value {
            Some(value) => {
                self.used.add(name);
                self.budget.spend_on_copy(value.len())?;
            }
            None => self.unset.add(name),
        }
        Ok(value)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn skip_if(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        self.at += if is_next { c.len_utf8() } else { 0 };
        is_next
    }

    /// Adds the text up to the next character that ends it.
    fn take_until(&mut self, is_end: impl Fn(char) -> bool) -> Result<(), WordErrorKind> {
        let rest = &self.text[self.at..];
        let length = length_while(rest, |c| !is_end(c));
        self.at += length;
        self.add(&rest[..length])
    }

    fn add(&mut self, text: &str) -> Result<(), WordErrorKind> {
        if self.out.len() + text.len() > MAX_SIZE {
            return Err(WordErrorKind::TooLarge);
        }
        self.out.push_str(text);
        Ok(())
    }

    fn add_char(&mut self, c: char) -> Result<(), WordErrorKind> {
        self.add(c.encode_utf8(&mut [0; 4]))
    }

    fn add_quote(&mut self, quote: char) -> Result<(), WordErrorKind> {
        if self.mode.raw_quotes { self.add_char(quote) } else { Ok(()) }
    }

    fn replace_from(&mut self, start: usize, text: &str) -> Result<(), WordErrorKind> {
        self.out.truncate(start);
        self.add(text)
    }

    /// Notes the blanks from an offset on as those that separate words. In quotes, and in the words
    /// of forms, no blank does.
    fn note_blanks(&mut self, start: usize) {
        if self.open.is_empty() && !self.level.in_quotes {
            let blanks = self.out[start..].char_indices().filter(|(_, c)| c.is_whitespace());
            self.blanks.extend(blanks.map(|(at, _)| start + at));
        }
    }

    /// Returns the words of the result.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut start = 0;
        for end in self.blanks.iter().copied().chain([self.out.len()]) {
            if start < end {
                words.push(self.out[start..end].to_owned());
            }
            start = end + self.out[end..].chars().next().map_or(0, char::len_utf8);
        }
        words
    }
}

fn length_while(text: &str, fits: impl Fn(char) -> bool) -> usize {
    text.find(|c| !fits(c)).unwrap_or(text.len())
}

fn is_special(c: char) -> bool {
    matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')
}

fn unsupported(has_colon: bool, operator: Option<char>) -> WordErrorKind {
    let colon = if has_colon { ":" } else { "" };
    // The end of the text shows as the replacement character, as in the reference.
    let operator = operator.unwrap_or(char::REPLACEMENT_CHARACTER);
    WordErrorKind::UnsupportedModifier(format!("{colon}{operator}"))
}

fn required(name: &str, message: &str, is_set: bool) -> WordErrorKind {
    let message = match (message, is_set) {
        ("", false) => "is not allowed to be unset",
        ("", true) => "is not allowed to be empty",
        (message, _) => message,
    };
    WordErrorKind::Required { name: name.to_owned(), message: message.to_owned() }
}

fn compile(pattern: &str, budget: &Budget) -> Result<Pattern, WordErrorKind> {
    budget.spend_on_copy(pattern.len())?;
    Pattern::new(pattern).map_err(|BadEscape(escaped)| {
        let escaped = escaped.unwrap_or(char::REPLACEMENT_CHARACTER);
        WordErrorKind::InvalidPattern { pattern: pattern.to_owned(), escaped }
    })
}

impl From<OutOfBudget> for WordErrorKind {
    fn from(_: OutOfBudget) -> Self {
        Self::TooExpensive
    }
}

/// Returns the value without the prefix (`#`) or suffix (`%`) that the pattern matches. A doubled
/// operator, whose second character starts `pattern`, takes the longest match.
fn strip<'v>(
    value: &'v str,
    operator: char,
    pattern: &str,
    budget: &Budget,
) -> Result<&'v str, WordErrorKind> {
    let (take, pattern) = match pattern.strip_prefix(operator) {
        Some(pattern) => (Take::Longest, pattern),
        None => (Take::Shortest, pattern),
    };
    let compiled = compile(pattern, budget)?;
    if operator == '#' {
        Ok(compiled.strip_prefix(value, take, budget)?)
    } else {
        Ok(compiled.strip_suffix(value, take, budget)?)
    }
}

/// Replaces the first match or all of them. An empty match directly after another one is none.
fn replace(
    value: &str,
    pattern: &Pattern,
    replacement: &str,
    all: bool,
    budget: &Budget,
) -> Result<String, WordErrorKind> {
    let mut out = String::new();
    let mut add = |text: &str, budget: &Budget| {
        budget.spend_on_copy(text.len())?;
        if out.len() + text.len() > MAX_SIZE {
            return Err(WordErrorKind::TooLarge);
        }
        out.push_str(text);
        Ok(())
    };
    let (mut from, mut copied) = (0, 0);
    while let Some((start, end)) = pattern.find(value, from, budget)? {
        let is_empty_again = start == end && start == copied && start > 0;
        if !is_empty_again {
            add(&value[copied..start], budget)?;
            add(replacement, budget)?;
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
    add(&value[copied..], budget)?;
    Ok(out)
}

#[cfg(test)]
mod tests;
