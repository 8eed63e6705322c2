//! Patterns over relative paths: ignore files, `--exclude`, `--parents`, and `COPY` wildcards.
//!
//! [`Patterns`] is an ordered list in the syntax of `.dockerignore`: the last pattern that says something
//! about a path decides, `!` takes a path back in, and a pattern that matches a directory covers all below
//! it. [`glob_match`] is the plain wildcard match of a single `COPY` source.
//!
//! Two questions look alike and are not:
//! - [`Patterns::matches`] and its incremental form [`Patterns::step`] answer what a *walk* answers, as in
//!   the reference: a directory hands down only the matches that were asked for while deciding about it.
//! - [`Patterns::matches_or_parent`] asks every pattern about every parent. With `a/b`, `!a` the walk keeps
//!   `a/b` matched (at `a` the `!a` had nothing to take back), this one does not.
//!
//! Format: spec `instructions.md` §12 and §7.10.

mod ignore_file;
mod machine;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use machine::{Machine, Syntax};

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A class is not closed or empty, or the pattern ends in `\`.
    #[error("syntax error in pattern `{pattern}`")]
    Syntax {
        /// The pattern as written.
        pattern: String,
    },
    /// A `!` with nothing behind it.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneNegation,
}

/// Ordered list of ignore patterns.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
    negations: bool,
}

/// What a directory hands down to the paths in it: which patterns cover it as a whole.
#[derive(Debug, Clone, Default)]
pub struct Inherited {
    covered: Vec<bool>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    matcher: Matcher,
}

/// The three cheap forms say the same as the machine would, but for a leading `**` without a `/` behind
/// it: `**.txt` is any path that *ends* so, while `**.t*` wants a whole name.
#[derive(Debug, Clone)]
enum Matcher {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Machine(Machine),
}

impl Patterns {
    /// Makes a matcher of patterns that stand in order; blank ones are skipped.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        let mut result = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let cleaned = ignore_file::clean(pattern);
            let (negated, text) = match cleaned.strip_prefix('!') {
                Some("") => return Err(PatternError::LoneNegation),
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            let matcher = Matcher::compile(text)
                .ok_or_else(|| PatternError::Syntax { pattern: pattern.to_owned() })?;
            result.negations |= negated;
            result.patterns.push(Pattern { negated, matcher });
        }
        Ok(result)
    }

    /// Reads an ignore file: one pattern a line, `#` in the first column begins a comment.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn parse_ignore_file(text: &[u8]) -> Result<Self, PatternError> {
        Self::new(&ignore_file::read(text))
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a walk down to this relative path finds it matched.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        let mut inherited = Inherited::default();
        for end in parent_ends(bytes) {
            (_, inherited) = self.step_bytes(&bytes[..end], &inherited, false);
        }
        self.step_bytes(bytes, &inherited, false).0
    }

    /// Whether the patterns match a path or one of its parents, all patterns being asked about each.
    #[must_use]
    pub fn matches_or_parent(&self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        let mut matched = false;
        for pattern in &self.patterns {
            if pattern.negated == matched && pattern.covers(bytes) {
                matched = !pattern.negated;
            }
        }
        matched
    }

    /// One step of a walk: whether `path` matches, given what its parent directory handed down, and what
    /// it hands down itself. Paths in the root get `&Inherited::default()`.
    #[must_use]
    pub fn step(&self, path: &Path, parent: &Inherited) -> (bool, Inherited) {
        let bytes = path.as_os_str().as_bytes();
        // Without anything handed down the path may lie deeper: its parents count as well.
        self.step_bytes(bytes, parent, parent.covered.is_empty())
    }

    fn step_bytes(&self, path: &[u8], parent: &Inherited, with_parents: bool) -> (bool, Inherited) {
        let mut matched = false;
        let mut covered = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.covered.get(index).copied().unwrap_or(false);
            if !hit {
                if pattern.negated != matched {
                    continue;
                }
                hit =
                    if with_parents { pattern.covers(path) } else { pattern.matcher.matches(path) };
            }
            covered[index] = hit;
            if hit {
                matched = !pattern.negated;
            }
        }
        (matched, Inherited { covered })
    }

    /// Whether a plain (not negated) pattern can match a path strictly below `dir`; false lets a walk for
    /// included paths skip it. That `dir` may itself be matched is not asked here.
    #[must_use]
    pub fn may_match_below(&self, dir: &Path) -> bool {
        self.reaches_below(dir, false)
    }

    /// Whether a `!` pattern can match a path strictly below `dir`; false lets a walk skip an excluded
    /// directory.
    #[must_use]
    pub fn may_reinclude_below(&self, dir: &Path) -> bool {
        self.negations && self.reaches_below(dir, true)
    }

    fn reaches_below(&self, dir: &Path, negated: bool) -> bool {
        let mut prefix = dir.as_os_str().as_bytes().to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        self.patterns.iter().any(|p| p.negated == negated && p.matcher.may_start_with(&prefix))
    }
}

impl Pattern {
    /// Whether the path or one of its parents matches.
    fn covers(&self, path: &[u8]) -> bool {
        self.matcher.matches(path)
            || parent_ends(path).any(|end| self.matcher.matches(&path[..end]))
    }
}

impl Matcher {
    fn compile(pattern: &str) -> Option<Self> {
        let machine = Machine::compile(pattern, Syntax::Ignore)?;
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        if !special(pattern) {
            return Some(Self::Exact(pattern.into()));
        }
        if let Some(prefix) = pattern.strip_suffix("**").filter(|rest| !special(rest)) {
            return Some(Self::Prefix(prefix.into()));
        }
        if let Some(suffix) = pattern.strip_prefix("**").filter(|rest| !special(rest)) {
            return Some(Self::Suffix(suffix.into()));
        }
        Some(Self::Machine(machine))
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix(b"/").is_some_and(|rest| rest == path)
            }
            Self::Machine(machine) => machine.matches(path),
        }
    }

    /// Whether some path that begins with `start` and is longer can match.
    fn may_start_with(&self, start: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.len() > start.len() && text.starts_with(start),
            Self::Prefix(prefix) => prefix.starts_with(start) || start.starts_with(prefix),
            Self::Suffix(_) => true,
            Self::Machine(machine) => machine.may_start_with(start),
        }
    }
}

/// Ends of the proper parents of a path, shortest first.
fn parent_ends(path: &[u8]) -> impl Iterator<Item = usize> + '_ {
    path.iter()
        .enumerate()
        .filter(|&(index, &byte)| byte == b'/' && index > 0)
        .map(|(index, _)| index)
}

/// Matches a whole path against one wildcard pattern, as Go's `filepath.Match` does: `*` and `?` stop at
/// `/`, `[a-z]` and `[^a]` are classes, `\` escapes.
///
/// # Errors
/// When the pattern is malformed, whether or not the path could match.
pub fn glob_match(pattern: &str, path: &Path) -> Result<bool, PatternError> {
    let machine = Machine::compile(pattern, Syntax::Glob)
        .ok_or_else(|| PatternError::Syntax { pattern: pattern.to_owned() })?;
    Ok(machine.matches(path.as_os_str().as_bytes()))
}

#[cfg(test)]
mod tests;
