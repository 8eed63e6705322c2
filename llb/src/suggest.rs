//! "Did you mean": the known word nearest to an unknown one.

/// Differences from this number on are no misspelling.
const TOO_FAR: usize = 3;

/// Longest word, in bytes, that is compared: hostile input must not make this slow.
const MAX_WORD: usize = 128;

/// The nearest of `options` to `word`: none when all are too far, or when one is `word` itself.
///
/// How far is too far is told by the Levenshtein distance. Which of several is the nearest is told by the distance in
/// which two letters in the wrong order are one mistake, since that is how people mistype; then by the order of
/// `options`.
pub fn nearest<'o>(word: &str, options: impl IntoIterator<Item = &'o str>) -> Option<&'o str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let word: Vec<char> = word.chars().collect();
    let mut best: Option<((usize, usize), &str)> = None;
    for option in options.into_iter().filter(|option| option.len() <= MAX_WORD) {
        let Some((plain, swapping)) = distances(&word, option) else { continue };
        if plain == 0 {
            return None;
        }
        if best.is_none_or(|(least, _)| (swapping, plain) < least) {
            best = Some(((swapping, plain), option));
        }
    }
    best.map(|(_, option)| option)
}

/// As [`nearest`], but letter case does not count, and the suggestion follows that of the word.
///
/// `options` are lower-case.
pub fn nearest_ignoring_case<'o>(
    word: &str,
    options: impl IntoIterator<Item = &'o str>,
) -> Option<String> {
    let lower = word.to_lowercase();
    let option = nearest(&lower, options)?;
    let is_upper = word != lower && word == word.to_uppercase();
    Some(if is_upper { option.to_uppercase() } else { option.to_owned() })
}

/// What is put behind a message: ` (did you mean WORD?)`, or nothing.
pub fn question(word: Option<impl AsRef<str>>) -> String {
    word.map(|word| format!(" (did you mean {}?)", word.as_ref())).unwrap_or_default()
}

/// Distances by characters, unless they are too far: that of Levenshtein, and that in which swapping two neighbours
/// is one edit too.
fn distances(a: &[char], b: &str) -> Option<(usize, usize)> {
    let mut b_chars = ['\0'; MAX_WORD];
    let mut length = 0;
    for c in b.chars() {
        *b_chars.get_mut(length)? = c;
        length += 1;
    }
    let b = &b_chars[..length];
    if a.len().abs_diff(b.len()) >= TOO_FAR {
        return None;
    }
    let mut rows = [[(0, 0); MAX_WORD + 1]; 3];
    rows[0].iter_mut().enumerate().for_each(|(j, cell)| *cell = (j, j));
    for i in 1..=a.len() {
        let [row, above, before] = [i, i - 1, i + 1].map(|i| i % 3);
        rows[row][0] = (i, i);
        for j in 1..=b.len() {
            let replaced = usize::from(a[i - 1] != b[j - 1]);
            let least = |corner: usize, top: usize, left: usize| {
                (corner + replaced).min(top + 1).min(left + 1)
            };
            let (corner, top, left) = (rows[above][j - 1], rows[above][j], rows[row][j - 1]);
            let mut swapping = least(corner.1, top.1, left.1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                swapping = swapping.min(rows[before][j - 2].1 + 1);
            }
            rows[row][j] = (least(corner.0, top.0, left.0), swapping);
        }
        // From here on it only gets farther.
        if rows[row][..=b.len()].iter().all(|(plain, _)| *plain >= TOO_FAR) {
            return None;
        }
    }
    Some(rows[a.len() % 3][b.len()]).filter(|(plain, _)| *plain < TOO_FAR)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(nearest("base", ["vase", "base"]), None);
        assert_eq!(nearest("other", ["base"]), None);
        assert_eq!(nearest("install", ["run", "copy"]), None);
        assert_eq!(nearest("x", []), None);
        assert_eq!(nearest(&"x".repeat(200), ["x"]), None);
        assert_eq!(nearest("cafe", ["café"]), Some("café"));
        assert_eq!(nearest("a", ["abc", "ab"]), Some("ab"));
        assert_eq!(nearest("", ["ab", "abc"]), Some("ab"));
        assert_eq!(nearest("abcd", ["ab", "abcdef", "abcdefg"]), Some("ab"));
    }

    #[test]
    fn swapped_letters_are_one_mistake_for_the_order_and_two_for_the_limit() {
        assert_eq!(nearest("rnu", ["env", "run"]), Some("run"));
        assert_eq!(nearest("form", ["for", "from"]), Some("for"));
        assert_eq!(nearest("NMAE", ["PATH", "NAMES", "NAM", "NAME"]), Some("NAME"));
        assert_eq!(nearest("badc", ["abcd"]), None);
    }

    #[test]
    fn the_case_of_the_word_is_kept() {
        let options = ["run", "copy", "from"];
        let near = |word| nearest_ignoring_case(word, options).unwrap_or_default();
        assert_eq!(near("RUNN"), "RUN");
        assert_eq!(near("cpy"), "copy");
        assert_eq!(near("Form"), "from");
        assert_eq!(near("RUN"), "");
    }

    proptest! {
        #[test]
        fn distances_are_symmetric_and_swapping_is_never_farther(a in "[abcé]{0,6}", b in "[abcé]{0,6}") {
            let both = |a: &str, b: &str| distances(&a.chars().collect::<Vec<_>>(), b);
            let found = both(&a, &b);
            prop_assert_eq!(both(&b, &a), found);
            if let Some((plain, swapping)) = found {
                prop_assert!(swapping <= plain && plain < TOO_FAR);
                prop_assert_eq!(plain == 0, a == b);
            }
            let edited = b.chars().skip(1).collect::<String>();
            prop_assert!(both(&b, &edited).is_some_and(|(plain, _)| plain <= 1));
        }
    }
}
