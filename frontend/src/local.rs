//! Which paths of local sources the steps of a build use.
//!
//! One source vertex serves all users of a local source, so its paths are those of all of them. They
//! are known only when every stage is converted; therefore a conversion runs twice, first to collect
//! ([`Locals::collecting`]) and then with what was collected ([`Locals::known`]).

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use llb::op::SourceOp;

use crate::paths;

/// Name of the source of the build context.
pub(crate) const CONTEXT: &str = "context";

/// Used paths by source name.
type Used = BTreeMap<String, BTreeSet<String>>;

/// Paths of local sources.
#[derive(Debug, Default)]
pub(crate) struct Locals {
    collected: RefCell<Used>,
    known: Option<Used>,
}

impl Locals {
    /// Nothing is known yet.
    pub(crate) fn collecting() -> Self {
        Self::default()
    }

    /// What `self` has collected is known.
    pub(crate) fn known(self) -> Self {
        Self { collected: RefCell::default(), known: Some(self.collected.into_inner()) }
    }

    /// Notes that `path` of the source `name` is used; `/` is all of it.
    ///
    /// Of a pattern with `**` only the part before it counts, so that patterns go by components.
    pub(crate) fn note(&self, name: &str, path: &str) {
        let path = path.split_once("**").map_or(path, |(before, _)| {
            before.rsplit_once('/').map_or("/", |(directory, _)| directory)
        });
        self.collected.borrow_mut().entry(name.to_owned()).or_default().insert(paths::clean(path));
    }

    /// The source op of `name`.
    pub(crate) fn source(&self, name: &str) -> SourceOp {
        let used = self.known.as_ref().and_then(|known| known.get(name));
        let mut attrs = BTreeMap::new();
        if let Some(used) = used.filter(|used| !used.contains("/")) {
            let list: Vec<&str> = used.iter().map(|path| path.trim_start_matches('/')).collect();
            attrs.insert("local.followpaths".to_owned(), serde_json::Value::from(list).to_string());
        }
        SourceOp { identifier: format!("local://{name}"), attrs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_of_the_root_is_a_use_of_everything() {
        let locals = Locals::collecting();
        locals.note(CONTEXT, "b");
        locals.note(CONTEXT, "../a/");
        locals.note("deep", "/a/b*/**/*.md");
        locals.note("side", "/x");
        locals.note("side", ".");
        let locals = locals.known();
        let paths = locals.source(CONTEXT).attrs;
        assert_eq!(paths.get("local.followpaths").map(String::as_str), Some(r#"["a","b"]"#));
        let paths = locals.source("deep").attrs;
        assert_eq!(paths.get("local.followpaths").map(String::as_str), Some(r#"["a/b*"]"#));
        assert!(locals.source("side").attrs.is_empty());
    }
}
