//! Names of variables: which of them speak of a secret.

/// Words that make a variable look like a secret.
const SECRET_WORDS: &[&str] = &[
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Words that make a variable look harmless in spite of a secret word.
const HARMLESS_WORDS: &[&str] = &["public", "file", "version"];

/// Whether a variable of this name probably holds a secret.
#[must_use]
pub fn looks_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(SECRET_WORDS) && !has(HARMLESS_WORDS)
}

#[cfg(test)]
mod tests {
    use super::looks_secret;

    #[test]
    fn secrets_are_found_as_whole_words() {
        for name in ["API_TOKEN", "DB_PASSWORD", "key", "AWS_SECRET_ACCESS_KEY"] {
            assert!(looks_secret(name), "{name}");
        }
        for name in ["TOKENIZER", "PUBLIC_KEY", "SECRET_FILE", "monkey", "TOKEN_VERSION"] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}
