//! Rules about letter case.

/// Letter case of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Casing {
    /// All letters are small.
    Lower,
    /// All letters are capital.
    Upper,
    /// Both occur.
    Mixed,
}

/// Letter case of `word`.
pub(crate) fn of(word: &str) -> Casing {
    if word == word.to_uppercase() {
        Casing::Upper
    } else if word == word.to_lowercase() {
        Casing::Lower
    } else {
        Casing::Mixed
    }
}

/// The case that most of `words` have; capital letters win a tie.
pub(crate) fn majority<'w>(words: impl Iterator<Item = &'w str>) -> Casing {
    let mut balance = 0_i64;
    for word in words {
        match of(word) {
            Casing::Lower => balance -= 1,
            Casing::Upper => balance += 1,
            Casing::Mixed => {}
        }
    }
    if balance < 0 { Casing::Lower } else { Casing::Upper }
}

impl Casing {
    /// Name of the case in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lower => "lowercase",
            Self::Upper => "uppercase",
            Self::Mixed => "mixed case",
        }
    }
}
