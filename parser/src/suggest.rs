//! "Did you mean": the nearest known word to a misspelt one.

/// Differences from this number on are no misspelling.
const TOO_FAR: usize = 3;

/// No known word is this long; longer input is not compared.
const MAX_LEN: usize = 64;

/// Returns the nearest option, or none if all are too far or one is equal.
pub(crate) fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.len() > MAX_LEN || options.contains(&word) {
        return None;
    }
    let length = word.chars().count();
    // Each character more or less is one difference.
    let may_be_near = |option: &&&str| option.chars().count().abs_diff(length) < TOO_FAR;
    let near = |option: &&'a str| (distance(word, option), *option);
    let candidates = options.iter().filter(may_be_near).map(near);
    let (distance, option) = candidates.min_by_key(|(distance, _)| *distance)?;
    (distance < TOO_FAR).then_some(option)
}

/// Returns ` (did you mean X?)` or nothing.
pub(crate) fn hint(word: &str, options: &[&str]) -> String {
    nearest(word, options).map(|it| format!(" (did you mean {it}?)")).unwrap_or_default()
}

/// As [`hint`], but letter case does not count, and the suggestion follows that of the word.
pub(crate) fn hint_ignoring_case(word: &str, options: &[&str]) -> String {
    let lower = word.to_lowercase();
    let Some(option) = nearest(&lower, options) else { return String::new() };
    let is_upper = word != lower && word == word.to_uppercase();
    let option = if is_upper { option.to_uppercase() } else { option.to_owned() };
    format!(" (did you mean {option}?)")
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_in_the_case_of_the_input() {
        let options = ["run", "copy", "from"];
        assert_eq!(hint_ignoring_case("RUNN", &options), " (did you mean RUN?)");
        assert_eq!(hint_ignoring_case("cpy", &options), " (did you mean copy?)");
        assert_eq!(hint_ignoring_case("Form", &options), " (did you mean from?)");
        assert_eq!(hint("install", &options), "");
        assert_eq!(hint("run", &options), "");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
