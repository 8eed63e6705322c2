//! Which entries a listing or a prune is about: `--filter` of `du` and `prune`.
//!
//! ```text
//! filter = term { "," term }
//! term   = key [ ("=" | "==" | "!=" | "~=") value ]
//! ```
//!
//! All terms must hold. `!=` is not equal, `~=` contains.

use std::time::Duration;

use super::entry::{Entry, Kind};

/// Keys that take a value.
const WORDS: [&str; 5] = ["description", "id", "parents", "type", "until"];

/// Keys that are a fact, and may have `true` or `false`.
const FACTS: [&str; 5] = ["immutable", "inuse", "mutable", "private", "shared"];

/// Kinds of entries, the reference's names.
const KINDS: [&str; 6] =
    ["exec.cachemount", "frontend", "internal", "regular", "source.git.checkout", "source.local"];

/// A filter that cannot be read; the message says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// Terms that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    terms: Vec<Term>,
    /// Only what has not been used for so long.
    pub until: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    key: &'static str,
    sign: Sign,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Is,
    IsNot,
    Contains,
}

impl Filter {
    /// Accepts everything that has not been used for so long.
    pub fn until(age: Duration) -> Self {
        Self { terms: Vec::new(), until: Some(age) }
    }

    /// Reads filters as users write them.
    ///
    /// # Errors
    /// When a key, a kind or a duration is not known.
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        let mut all = Self::default();
        let terms = filters.iter().flat_map(|filter| filter.as_ref().split(','));
        for text in terms.map(str::trim).filter(|text| !text.is_empty()) {
            let (key, sign, value) = split(text);
            // An older name.
            let key = if key == "unused-for" { "until" } else { key };
            if let Some(key) = WORDS.into_iter().find(|word| *word == key) {
                let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
                    FilterError(format!("the filter `{text}` has no value: want {key}=VALUE"))
                })?;
                if key == "until" {
                    all.until = all.until.max(Some(duration(value)?));
                    continue;
                }
                if key == "type" && sign != Sign::Contains && !KINDS.contains(&value) {
                    return Err(FilterError(format!(
                        "unknown type `{value}` in the filter `{text}`: want one of {}",
                        KINDS.join(", ")
                    )));
                }
                all.terms.push(Term { key, sign, value: value.to_owned() });
            } else if let Some(key) = FACTS.into_iter().find(|fact| *fact == key) {
                let value = match value.unwrap_or("true") {
                    "true" | "1" => "true",
                    "false" | "0" => "false",
                    other => {
                        return Err(FilterError(format!(
                            "invalid value `{other}` in the filter `{text}`: want true or false"
                        )));
                    }
                };
                all.terms.push(Term { key, sign, value: value.to_owned() });
            } else {
                return Err(FilterError(format!(
                    "unknown filter `{key}`: want one of {}, {}",
                    WORDS.join(", "),
                    FACTS.join(", ")
                )));
            }
        }
        Ok(all)
    }

    /// Whether it has terms beside `until`.
    pub(crate) fn has_terms(&self) -> bool {
        !self.terms.is_empty()
    }

    /// Whether the terms beside `until` hold for an entry.
    pub fn accepts(&self, entry: &Entry) -> bool {
        self.terms.iter().all(|term| term.holds(entry))
    }
}

impl Term {
    fn holds(&self, entry: &Entry) -> bool {
        let fact = |fact: bool| self.compare(if fact { "true" } else { "false" });
        match self.key {
            "id" => match self.sign {
                Sign::Contains => entry.id.contains(&self.value),
                // The listing's ids are long.
                sign => entry.id.starts_with(&self.value) == (sign == Sign::Is),
            },
            "description" => self.compare(&entry.description),
            "type" => self.compare(entry.kind.name()),
            "parents" => {
                let any = entry.parents.iter().any(|parent| match self.sign {
                    Sign::Contains => parent.contains(&self.value),
                    _ => parent.starts_with(&self.value),
                });
                any == (self.sign != Sign::IsNot)
            }
            "inuse" => fact(entry.in_use),
            "shared" => fact(entry.shared),
            "private" => fact(!entry.shared),
            "mutable" => fact(entry.kind.is_mutable()),
            _ => fact(!entry.kind.is_mutable()),
        }
    }

    fn compare(&self, actual: &str) -> bool {
        match self.sign {
            Sign::Is => actual == self.value,
            Sign::IsNot => actual != self.value,
            Sign::Contains => actual.contains(&self.value),
        }
    }
}

fn split(text: &str) -> (&str, Sign, Option<&str>) {
    let Some(at) = text.find('=') else { return (text, Sign::Is, None) };
    let (left, right) = (&text[..at], &text[at + 1..]);
    let (key, sign) = match left.as_bytes().last() {
        Some(b'!') => (&left[..left.len() - 1], Sign::IsNot),
        Some(b'~') => (&left[..left.len() - 1], Sign::Contains),
        _ => (left, Sign::Is),
    };
    let value = right.strip_prefix('=').filter(|_| sign == Sign::Is).unwrap_or(right);
    (key.trim(), sign, Some(value.trim()))
}

/// `24h`, `1h30m`, `90s`.
fn duration(text: &str) -> Result<Duration, FilterError> {
    let bad = || {
        FilterError(format!(
            "invalid duration `{text}`: want numbers with a unit ms, s, m, h, d or w, such as 24h or 1h30m"
        ))
    };
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let factor: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(bad()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(factor).map(Duration::from_millis).ok_or_else(bad)?;
        sum = sum.checked_add(part).ok_or_else(bad)?;
    }
    if text.is_empty() { Err(bad()) } else { Ok(sum) }
}

impl Kind {
    /// The name of the kind, as filters have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CacheMount => KINDS[0],
            Self::Internal => KINDS[2],
            Self::Regular => KINDS[3],
            Self::Git => KINDS[4],
            Self::Local => KINDS[5],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: "abc123".to_owned(),
            kind: Kind::Regular,
            parents: vec!["def".to_owned()],
            description: "RUN make all".to_owned(),
            bytes: 1,
            created: None,
            used: None,
            in_use: false,
            shared: true,
            reclaimable: false,
        }
    }

    #[track_caller]
    fn check(filter: &str, expect: bool) {
        assert_eq!(Filter::parse(&[filter]).unwrap().accepts(&entry()), expect, "{filter}");
    }

    #[test]
    fn every_term_looks_at_its_part() {
        for (filter, expect) in [
            ("", true),
            ("type=regular", true),
            ("type==regular", true),
            ("type!=regular", false),
            ("type=frontend", false),
            ("type~=reg", true),
            ("id=abc", true),
            ("id!=abc", false),
            ("id~=c12", true),
            ("id=c12", false),
            ("description~=make", true),
            ("description=make", false),
            ("parents=def", true),
            ("parents!=def", false),
            ("shared", true),
            ("private", false),
            ("private=false", true),
            ("inuse", false),
            ("inuse!=true", true),
            ("mutable", false),
            ("immutable", true),
            ("type=regular,private", false),
            ("until=24h", true),
        ] {
            check(filter, expect);
        }
    }

    #[test]
    fn the_longest_until_counts() {
        let filter = Filter::parse(&["until=1h30m,until=10s", "unused-for=2m"]).unwrap();
        assert_eq!(filter.until, Some(Duration::from_secs(5400)));
    }

    #[test]
    fn what_is_not_known_is_told_with_what_is() {
        for (filter, message) in [
            (
                "color=red",
                "unknown filter `color`: want one of description, id, parents, type, until, immutable, inuse, mutable, private, shared",
            ),
            (
                "type=layer",
                "unknown type `layer` in the filter `type=layer`: want one of exec.cachemount, frontend, internal, regular, source.git.checkout, source.local",
            ),
            ("id", "the filter `id` has no value: want id=VALUE"),
            (
                "shared=maybe",
                "invalid value `maybe` in the filter `shared=maybe`: want true or false",
            ),
            (
                "until=5 days",
                "invalid duration `5 days`: want numbers with a unit ms, s, m, h, d or w, such as 24h or 1h30m",
            ),
            (
                "until=99999999999999999h",
                "invalid duration `99999999999999999h`: want numbers with a unit ms, s, m, h, d or w, such as 24h or 1h30m",
            ),
        ] {
            assert_eq!(Filter::parse(&[filter]).unwrap_err().to_string(), message);
        }
    }
}
