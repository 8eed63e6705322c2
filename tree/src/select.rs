//! What a `COPY`, `ADD` or bind mount selects of a tree.
//!
//! One reading of the rules, for the copy and for the cache key: what is hashed is what is copied.
//!
//! Format: spec `instructions.md` §7.2, §7.3, §7.9, §7.10.

use std::path::{Component, Path, PathBuf};

use crate::path::{clean, resolve};
use crate::pattern::{Inherited, Patterns, glob_match};
use crate::{Kind, Metadata, TreeError, View};

/// Directories that may be nested in a selection.
pub(crate) const MAX_DEPTH: usize = 512;

/// Refuses a `path` that is nested deeper than any real tree; as a whole it is `whole`.
pub(crate) fn check_depth(path: &Path, whole: &Path) -> Result<(), TreeError> {
    if path.iter().count() > MAX_DEPTH {
        return Err(TreeError::TooDeep { path: crate::path::absolute(whole) });
    }
    Ok(())
}

/// One thing that is copied: a file, or a directory with what is in it.
#[derive(Debug)]
pub(crate) struct Source {
    /// As it was named or matched, cleaned: its last part is the name it is copied under.
    pub(crate) named: PathBuf,
    /// Where it is, without symlinks.
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
}

/// Finds the sources that a path or wildcard means, in the order in which they are copied.
pub(crate) fn sources(
    view: &dyn View,
    path: &str,
    wildcard: bool,
    follow: bool,
) -> Result<Vec<Source>, TreeError> {
    if !wildcard || !has_wildcards(path) {
        return Ok(vec![source(view, clean(path), follow)?]);
    }
    let (base, pattern) = split_wildcards(path);
    let base = resolve(view, &base, follow).map_err(TreeError::io("resolve", &base))?;
    let mut found = Vec::new();
    if view.metadata(&base).map_err(TreeError::io("read", &base))?.is_some_and(is_dir) {
        expand(view, &base, &pattern, &mut found)?;
    }
    found.into_iter().map(|named| source(view, named, follow)).collect()
}

fn source(view: &dyn View, named: PathBuf, follow: bool) -> Result<Source, TreeError> {
    let path = resolve(view, &named, follow).map_err(TreeError::io("resolve", &named))?;
    match view.metadata(&path).map_err(TreeError::io("read", &path))? {
        Some(metadata) => Ok(Source { named, path, metadata }),
        None => Err(TreeError::not_found(&named)),
    }
}

fn is_dir(metadata: Metadata) -> bool {
    metadata.kind == Kind::Dir
}

/// Whether a path has `*`, `?` or `[` that is not escaped.
pub(crate) fn has_wildcards(path: &str) -> bool {
    let mut rest = path.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' => drop(rest.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a path before its first part with a wildcard.
pub(crate) fn split_wildcards(path: &str) -> (PathBuf, Vec<String>) {
    let cleaned = clean(path);
    let parts: Vec<String> = cleaned
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect();
    let first = parts.iter().position(|part| has_wildcards(part)).unwrap_or(parts.len());
    (parts[..first].iter().collect(), parts[first..].to_vec())
}

/// Finds matches below `dir` in lexical order, one part of the pattern per level: no wildcard crosses `/`.
fn expand(
    view: &dyn View,
    dir: &Path,
    pattern: &[String],
    found: &mut Vec<PathBuf>,
) -> Result<(), TreeError> {
    let Some((first, rest)) = pattern.split_first() else { return Ok(()) };
    if !has_wildcards(first) && !first.contains('\\') {
        let path = dir.join(first);
        return match view.metadata(&path).map_err(TreeError::io("read", &path))? {
            Some(_) if rest.is_empty() => {
                found.push(path);
                Ok(())
            }
            Some(metadata) if is_dir(metadata.clone()) => expand(view, &path, rest, found),
            _ => Ok(()),
        };
    }
    for entry in view.read_dir(dir).map_err(TreeError::io("read", dir))? {
        if !glob_match(first, Path::new(&entry.name))? {
            continue;
        }
        let path = dir.join(&entry.name);
        if rest.is_empty() {
            found.push(path);
        } else if entry.metadata.kind == Kind::Dir {
            expand(view, &path, rest, found)?;
        }
    }
    Ok(())
}

/// Checks that paths exist below a source.
pub(crate) fn require(
    view: &dyn View,
    source: &Source,
    required: &[String],
) -> Result<(), TreeError> {
    for path in required {
        let named = source.path.join(clean(path));
        // Only what the walk can reach counts, and a walk follows no symlink.
        if view.metadata(&named).map_err(TreeError::io("read", &named))?.is_none() {
            return Err(TreeError::not_found(&source.named.join(clean(path))));
        }
    }
    Ok(())
}

/// What patterns say of one path of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is copied.
    Selected,
    /// A directory that is made only if something below it is selected.
    Passage,
    /// Nothing there is copied.
    Skipped,
}

/// Include and exclude patterns, matched against the path relative to the source.
#[derive(Debug)]
pub(crate) struct Filter {
    include: Option<Patterns>,
    exclude: Patterns,
}

/// What a directory hands down to the paths in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterState {
    include: Inherited,
    exclude: Inherited,
}

impl Filter {
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, TreeError> {
        let include = if include.is_empty() { None } else { Some(Patterns::new(include)?) };
        Ok(Self { include, exclude: Patterns::new(exclude)? })
    }

    /// Whether there are no patterns.
    pub(crate) fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Whether there are include patterns.
    pub(crate) fn has_includes(&self) -> bool {
        self.include.is_some()
    }

    pub(crate) fn step(
        &self,
        relative: &Path,
        kind: Kind,
        parent: &FilterState,
    ) -> (Verdict, FilterState) {
        let mut state = FilterState::default();
        let mut included = true;
        let mut excluded = false;
        if let Some(include) = &self.include {
            (included, state.include) = include.step(relative, &parent.include);
        }
        if !self.exclude.is_empty() {
            (excluded, state.exclude) = self.exclude.step(relative, &parent.exclude);
        }
        if included && !excluded {
            return (Verdict::Selected, state);
        }
        let reaches_in = included
            || self.include.as_ref().is_some_and(|include| include.may_match_below(relative));
        let reaches_out = !excluded || self.exclude.may_reinclude_below(relative);
        let passage = kind == Kind::Dir && reaches_in && reaches_out;
        (if passage { Verdict::Passage } else { Verdict::Skipped }, state)
    }
}
