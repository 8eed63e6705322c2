//! Patterns by the letter of the rules: slow, without a thought for anything but being right.
//!
//! Every question is answered by trying all ways to split the path. Rules: spec `instructions.md` §12 (ignore files)
//! and §7.2 (`COPY` wildcards, which are those of Go's `filepath.Match`).

/// A part of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    /// Stands for itself.
    Char(char),
    /// `?`: one character but `/`.
    One,
    /// `*`: any number of characters but `/`.
    Many,
    /// `[a-z]`, or `[^a-z]`: one character in a range, or in none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**/`: any number of whole path parts. Without its `/` it is the same.
    Parts,
    /// `**` at the end: all the rest.
    Rest,
}

/// Reads a pattern; `None` if it is malformed. Only ignore patterns have `**`.
fn terms(pattern: &str, is_ignore: bool) -> Option<Vec<Term>> {
    let mut letters: Vec<char> = pattern.chars().rev().collect();
    let mut terms = Vec::new();
    while let Some(letter) = letters.pop() {
        terms.push(match letter {
            '*' if is_ignore && letters.last() == Some(&'*') => {
                letters.pop();
                letters.pop_if(|next| *next == '/');
                if letters.is_empty() { Term::Rest } else { Term::Parts }
            }
            '*' => Term::Many,
            '?' => Term::One,
            '[' => {
                let negated = letters.pop_if(|next| *next == '^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || letters.pop_if(|next| *next == ']').is_none() {
                    let low = class_letter(&mut letters)?;
                    let is_range = letters.pop_if(|next| *next == '-').is_some();
                    ranges.push((low, if is_range { class_letter(&mut letters)? } else { low }));
                }
                Term::Class { negated, ranges }
            }
            '\\' => Term::Char(letters.pop()?),
            other => Term::Char(other),
        });
    }
    Some(terms)
}

fn class_letter(letters: &mut Vec<char>) -> Option<char> {
    match letters.pop()? {
        '-' | ']' => None,
        '\\' => letters.pop(),
        other => Some(other),
    }
}

/// Whether the terms match the whole path.
fn fits(terms: &[Term], path: &[char]) -> bool {
    let Some((term, terms)) = terms.split_first() else { return path.is_empty() };
    let rest_fits = |length: usize| fits(terms, &path[length..]);
    match term {
        Term::Rest => true,
        Term::Parts => {
            let ends = (0..path.len()).filter(|at| path[*at] == '/').map(|at| at + 1);
            rest_fits(0) || ends.into_iter().any(rest_fits)
        }
        Term::Many => {
            let longest = path.iter().position(|c| *c == '/').unwrap_or(path.len());
            (0..=longest).any(rest_fits)
        }
        Term::One => path.first().is_some_and(|c| *c != '/') && rest_fits(1),
        Term::Char(c) => path.first() == Some(c) && rest_fits(1),
        Term::Class { negated, ranges } => {
            let is_in = |c: &char| ranges.iter().any(|(low, high)| low <= c && c <= high);
            path.first().is_some_and(|c| is_in(c) != *negated) && rest_fits(1)
        }
    }
}

fn letters(text: &str) -> Vec<char> {
    text.chars().collect()
}

/// What Go's `filepath.Match` says; `None` for a malformed pattern.
pub(crate) fn glob(pattern: &str, path: &str) -> Option<bool> {
    Some(fits(&terms(pattern, false)?, &letters(path)))
}

/// Whether an ignore pattern, clean and without `!`, matches just this path; `None` if it is malformed.
pub(crate) fn ignore_pattern(pattern: &str, path: &str) -> Option<bool> {
    let terms = terms(pattern, true)?;
    // The one exception: `**` before plain text is any ending, not only whole parts.
    match pattern.strip_prefix("**") {
        Some(plain) if !plain.contains(['*', '?', '[', ']', '\\']) => {
            Some(path.ends_with(plain) || plain.strip_prefix('/') == Some(path))
        }
        _ => Some(fits(&terms, &letters(path))),
    }
}

/// A pattern of an ignore file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// Whether it takes paths back in.
    pub(crate) negated: bool,
    /// What is left of the line.
    pub(crate) pattern: String,
}

/// The rules of an ignore file, in order; `None` if one of them is malformed.
pub(crate) fn read(text: &str) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    for line in text.strip_prefix('\u{feff}').unwrap_or(text).split('\n') {
        let trimmed = line.trim();
        if line.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let negated = trimmed.starts_with('!');
        let pattern = if negated { trimmed[1..].trim() } else { trimmed };
        if pattern.is_empty() {
            return None;
        }
        let mut pattern = clean(pattern);
        if pattern.len() > 1 && pattern.starts_with('/') {
            pattern.remove(0);
        }
        // The matcher trims and cleans once more, now with the `!`: `!/` is a lone `!`, `!..` a name that `..` removes,
        // and what is blank before a last `/` goes too.
        let text = if negated { format!("!{pattern}") } else { pattern };
        if text.trim().is_empty() {
            continue;
        }
        let text = clean(text.trim());
        let (negated, pattern) = match text.strip_prefix('!') {
            Some("") => return None,
            Some(rest) => (true, rest.to_owned()),
            None => (false, text),
        };
        terms(&pattern, true)?;
        rules.push(Rule { negated, pattern });
    }
    Some(rules)
}

/// Removes empty parts and `.`, and `..` with the part before it; above the root there is nothing.
fn clean(path: &str) -> String {
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    while let Some(at) = (0..parts.len()).find(|at| {
        parts[*at] == ".." && (*at == 0 && !root.is_empty() || *at > 0 && parts[at - 1] != "..")
    }) {
        parts.remove(at);
        if at > 0 {
            parts.remove(at - 1);
        }
    }
    match root.to_owned() + &parts.join("/") {
        empty if empty.is_empty() => ".".to_owned(),
        path => path,
    }
}

/// The path and all its parents, the outermost first.
fn with_parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

/// Whether the path is ignored when every rule is asked about it and all its parents: the last that matches decides.
pub(crate) fn is_ignored(rules: &[Rule], path: &str) -> Option<bool> {
    let mut ignored = false;
    for rule in rules {
        for path in with_parents(path) {
            if ignore_pattern(&rule.pattern, path)? {
                ignored = !rule.negated;
            }
        }
    }
    Some(ignored)
}

/// Whether a walk down to the path finds it ignored. A rule is asked only where it would change the verdict, and what
/// matched a directory matches all below it.
pub(crate) fn is_ignored_on_a_walk(rules: &[Rule], path: &str) -> Option<bool> {
    let mut has_matched = vec![false; rules.len()];
    let mut ignored = false;
    for path in with_parents(path) {
        ignored = false;
        for (rule, has_matched) in rules.iter().zip(&mut has_matched) {
            let would_change = ignored == rule.negated;
            *has_matched |= would_change && ignore_pattern(&rule.pattern, path)?;
            if *has_matched {
                ignored = !rule.negated;
            }
        }
    }
    Some(ignored)
}
