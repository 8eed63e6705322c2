//! "Did you mean": the known word nearest to an unknown one.

/// Longest word, in bytes, that is compared: hostile input must not make this slow.
const MAX_WORD: usize = 128;

/// The first of `options` with the least edit distance to `word`, if that is 1 or 2.
pub fn nearest<'o>(word: &str, options: impl IntoIterator<Item = &'o str>) -> Option<&'o str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let options = options.into_iter().filter(|option| option.len() <= MAX_WORD);
    let scored = options.map(|option| (distance(word, option), option));
    let (distance, option) = scored.min_by_key(|(distance, _)| *distance)?;
    (1..3).contains(&distance).then_some(option)
}

/// Levenshtein distance by characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_near_words_are_suggested() {
        assert_eq!(nearest("bsae", ["alpine", "base"]), Some("base"));
        assert_eq!(nearest("base", ["base", "vase"]), None);
        assert_eq!(nearest("other", ["base"]), None);
        assert_eq!(nearest("x", []), None);
    }
}
