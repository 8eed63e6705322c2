//! Suggestions for many words, which come to an end.

use std::cell::Cell;

use llb::suggest::nearest;

/// How many words may still be compared; a file with thousands of unknown words among thousands of known ones
/// gets no suggestions for the last of them.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

impl Budget {
    /// Enough for every file that somebody has written.
    pub(crate) fn new() -> Self {
        Self(Cell::new(1_000_000))
    }

    /// As [`nearest`], as long as there is something left.
    pub(crate) fn nearest<'o>(
        &self,
        word: &str,
        options: impl IntoIterator<Item = &'o str>,
    ) -> Option<&'o str> {
        let mut left = self.0.get();
        let options = options.into_iter().inspect(|_| left = left.saturating_sub(1));
        let found = if self.0.get() == 0 { None } else { nearest(word, options) };
        self.0.set(left);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn comparing_comes_to_an_end() {
        let budget = Budget(std::cell::Cell::new(3));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), None);
    }
}
