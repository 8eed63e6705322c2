//! Values that look like secrets.
//!
//! Three things count: a private key, the form of a well-known kind of token, and a long random text under a
//! name that speaks of a secret. Values are never shown.

use super::names;

/// A kind of token that is known by how it begins.
struct Token {
    prefix: &'static str,
    /// Least length of what follows, and the most if it is fixed.
    rest: (usize, usize),
    kind: &'static str,
}

const fn token(prefix: &'static str, rest: (usize, usize), kind: &'static str) -> Token {
    Token { prefix, rest, kind }
}

/// Longest rest of a token of no fixed length.
const ANY: usize = 1024;

const TOKENS: &[Token] = &[
    token("AKIA", (16, 16), "an AWS access key"),
    token("ASIA", (16, 16), "an AWS access key"),
    token("ghp_", (36, 251), "a GitHub token"),
    token("gho_", (36, 251), "a GitHub token"),
    token("ghu_", (36, 251), "a GitHub token"),
    token("ghs_", (36, 251), "a GitHub token"),
    token("ghr_", (36, 251), "a GitHub token"),
    token("github_pat_", (22, 251), "a GitHub token"),
    token("glpat-", (20, ANY), "a GitLab token"),
    token("xoxb-", (20, ANY), "a Slack token"),
    token("xoxp-", (20, ANY), "a Slack token"),
    token("xapp-", (20, ANY), "a Slack token"),
    token("AIza", (35, 35), "a Google API key"),
    token("sk_live_", (16, ANY), "a Stripe key"),
    token("rk_live_", (16, ANY), "a Stripe key"),
    token("npm_", (36, 36), "an npm token"),
    token("pypi-AgEIcHlwaS5vcmc", (50, ANY), "a PyPI token"),
    token("dckr_pat_", (20, ANY), "a Docker Hub token"),
    token("hf_", (34, 34), "a Hugging Face token"),
    token("dop_v1_", (64, 64), "a DigitalOcean token"),
    token("hvs.", (24, ANY), "a Vault token"),
    token("SG.", (66, 66), "a SendGrid key"),
    token("sk-ant-", (32, ANY), "an Anthropic key"),
    token("sk-proj-", (32, ANY), "an OpenAI key"),
    token("AGE-SECRET-KEY-1", (58, 58), "an age key"),
];

/// Words of a name after which even a random value is no secret: it names, measures or locates one.
const HARMLESS_WORDS: &[&str] = &[
    "algorithm",
    "checksum",
    "digest",
    "dir",
    "endpoint",
    "expiry",
    "fingerprint",
    "fingerprints",
    "gpg",
    "hash",
    "header",
    "host",
    "id",
    "issuer",
    "md5",
    "name",
    "path",
    "pgp",
    "sha1",
    "sha256",
    "sha512",
    "ttl",
    "type",
    "uri",
    "url",
];

/// Shortest text that can be called random, in characters.
const SHORTEST: usize = 20;

/// What the value of the variable `name` looks like, if it looks like a secret.
pub(crate) fn kind(name: &str, value: &str) -> Option<&'static str> {
    let value = value.trim();
    if value.contains("-----BEGIN ") && value.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    if is_web_token(value) {
        return Some("a JSON web token");
    }
    let token = TOKENS.iter().find(|token| {
        let rest = value.strip_prefix(token.prefix);
        rest.is_some_and(|rest| {
            (token.rest.0..=token.rest.1).contains(&rest.len())
                && rest.bytes().all(is_token_byte)
                && is_varied(rest)
        })
    });
    if let Some(token) = token {
        return Some(token.kind);
    }
    let lower = name.to_lowercase();
    let is_harmless = lower.split('_').any(|word| HARMLESS_WORDS.contains(&word));
    (names::looks_secret(name) && !is_harmless && is_random(value)).then_some("a random text")
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whether a text is more than a placeholder such as `xxxx` or `000000`.
fn is_varied(text: &str) -> bool {
    bits_per_character(text) >= 2.5
}

/// Whether a text is three parts of base64 of which the first two are JSON objects.
fn is_web_token(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').take(4).collect();
    let [header, payload, signature] = parts[..] else { return false };
    let is_part = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'='))
    };
    header.starts_with("eyJ")
        && payload.starts_with("eyJ")
        && signature.len() >= SHORTEST
        && [header, payload, signature].into_iter().all(is_part)
}

/// Whether a text is long, of letters and digits in no order, as keys are.
fn is_random(text: &str) -> bool {
    let is_key_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    let has = |class: fn(&u8) -> bool| text.bytes().any(|byte| class(&byte));
    if text.len() < SHORTEST || text.starts_with('/') || !text.bytes().all(is_key_byte) {
        return false;
    }
    // Words joined by dashes are names; random texts change between letters and digits again and again.
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    let least = if is_hex { 3.0 } else { 3.5 };
    has(u8::is_ascii_digit)
        && has(u8::is_ascii_alphabetic)
        && bits_per_character(text) >= least
        && changes(text) * 5 >= text.len()
}

/// How often a text changes between small letters, capitals and digits.
fn changes(text: &str) -> usize {
    let class = |byte: u8| match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let bytes = text.as_bytes();
    bytes.windows(2).filter(|pair| class(pair[0]) != class(pair[1])).count()
}

/// Shannon entropy of the characters of a text.
fn bits_per_character(text: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in text.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let total = f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX));
    let part = |count: &u32| {
        let share = f64::from(*count) / total;
        -share * share.log2()
    };
    counts.iter().filter(|count| **count > 0).map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::kind;

    /// Texts are put together here so that no file of the project holds what looks like a secret.
    fn made(prefix: &str, length: usize) -> String {
        let letters = "aZ3kQ9xT1mB7vLp0RsD5wYc8NgH2jFu6";
        prefix.chars().chain(letters.chars().cycle().take(length)).collect()
    }

    #[test]
    fn tokens_are_known_by_their_form() {
        for (prefix, length, expect) in [
            ("ghp_", 36, "a GitHub token"),
            ("github_pat_", 82, "a GitHub token"),
            ("glpat-", 20, "a GitLab token"),
            ("npm_", 36, "an npm token"),
            ("sk_live_", 24, "a Stripe key"),
            ("AIza", 35, "a Google API key"),
        ] {
            assert_eq!(kind("X", &made(prefix, length)), Some(expect), "{prefix}");
            assert_eq!(kind("X", &made(prefix, 5)), None, "{prefix} is too short");
            let placeholder = format!("{prefix}{}", "x".repeat(length));
            assert_eq!(kind("X", &placeholder), None, "{prefix} is a placeholder");
        }
        assert_eq!(kind("X", &made("AKIA", 16).to_uppercase()), Some("an AWS access key"));
        assert_eq!(kind("X", &made("npm_", 40)), None);
        assert_eq!(kind("X", &format!("see {}", made("ghp_", 36))), None);
    }

    #[test]
    fn keys_and_web_tokens_are_found_under_any_name() {
        let key = |what| format!("-----BEGIN {what}-----\nabc\n-----END {what}-----");
        assert_eq!(kind("X", &key("RSA PRIVATE KEY")), Some("a private key"));
        assert_eq!(kind("X", &key("PGP PRIVATE KEY BLOCK")), Some("a private key"));
        assert_eq!(kind("X", &key("PUBLIC KEY")), None);
        assert_eq!(kind("X", &key("CERTIFICATE")), None);
        let token = format!("{}.{}.{}", made("eyJ", 20), made("eyJ", 40), made("", 43));
        assert_eq!(kind("X", &token), Some("a JSON web token"));
        assert_eq!(kind("X", "eyJ.eyJ.x"), None);
        assert_eq!(kind("X", "a.b.c"), None);
    }

    #[test]
    fn random_texts_count_under_a_secret_name_only() {
        let value = made("", 32);
        for name in ["API_KEY", "db_password", "JWT_SECRET", "SECRET_KEY_BASE"] {
            assert_eq!(kind(name, &value), Some("a random text"), "{name}");
        }
        for name in [
            "BUILD",
            "COMMIT",
            "PUBLIC_KEY",
            "TOKEN_FILE",
            "KEY_ID",
            "TOKEN_SHA256",
            "GPG_KEY",
            "TOKEN_URL",
        ] {
            assert_eq!(kind(name, &value), None, "{name}");
        }
        assert_eq!(kind("KEY", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"), Some("a random text"));
    }

    #[test]
    fn ordinary_values_are_no_secrets() {
        for value in [
            "",
            "changeme",
            "s3cret",
            "please-change-this-value-2024",
            "/run/secrets/database-password-1",
            "${OTHER_PASSWORD_VALUE_1}",
            "https://example.com/a1b2c3d4e5f6a7b8",
            "1234567890123456789012345",
            "aaaaaaaaaaaaaaaaaaaaaaa1",
            "my-application-signing-key-v1",
            "00000000-0000-0000-0000-000000000000",
            "MyApplicationPasswordPlaceholder",
            "a value with 1 blank and 2 more words",
        ] {
            assert_eq!(kind("DB_PASSWORD", value), None, "{value}");
        }
    }
}
