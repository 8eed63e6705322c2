//! "Did you mean": the known word nearest to an unknown one.

use std::cell::Cell;

/// Longest word, in bytes, that is compared: hostile input must not make this slow.
const MAX_WORD: usize = 128;

/// Largest distance at which words are near.
const MAX_DISTANCE: usize = 2;

/// The first of `options` with the least edit distance to `word`, if that is 1 or 2.
pub fn nearest<'o>(word: &str, options: impl IntoIterator<Item = &'o str>) -> Option<&'o str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for option in options.into_iter().filter(|option| option.len() <= MAX_WORD) {
        let most = best.map_or(MAX_DISTANCE, |(distance, _)| distance - 1);
        let found = if word.is_ascii() && option.is_ascii() {
            distance(word.as_bytes(), option.as_bytes(), most)
        } else {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            distance(&chars(word), &chars(option), most)
        };
        match found {
            Some(0) => return None,
            Some(found) => best = Some((found, option)),
            None => {}
        }
    }
    best.map(|(_, option)| option)
}

/// Levenshtein distance, unless it is more than `most`.
fn distance<T: PartialEq>(mut a: &[T], mut b: &[T], most: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > most {
        return None;
    }
    while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b)
        && first_a == first_b
    {
        (a, b) = (rest_a, rest_b);
    }
    while let ([rest_a @ .., last_a], [rest_b @ .., last_b]) = (a, b)
        && last_a == last_b
    {
        (a, b) = (rest_a, rest_b);
    }
    let mut row = [0; MAX_WORD + 1];
    row.iter_mut().enumerate().for_each(|(place, distance)| *distance = place);
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
        if row[..=b.len()].iter().all(|distance| *distance > most) {
            return None;
        }
    }
    Some(row[b.len()]).filter(|distance| *distance <= most)
}

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
    use super::{Budget, nearest};

    #[test]
    fn comparing_comes_to_an_end() {
        let budget = Budget(std::cell::Cell::new(3));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(budget.nearest("bsae", ["alpine", "base"]), None);
    }

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(nearest("base", ["base", "vase"]), None);
        assert_eq!(nearest("other", ["base"]), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest("NMAE", ["PATH", "NAMES", "NAM", "NAME"]), Some("NAM"));
        assert_eq!(nearest("cafe", ["café"]), Some("café"));
        assert_eq!(nearest("a", ["abc", "ab"]), Some("ab"));
        assert_eq!(nearest("", ["ab", "abc"]), Some("ab"));
        assert_eq!(nearest("abcd", ["ab", "abcdef", "abcdefg"]), Some("ab"));
    }
}
