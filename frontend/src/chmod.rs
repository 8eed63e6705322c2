//! Parses the values of `--chmod`, octal or symbolic.

/// Permission bits to set on what is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// These bits.
    Octal(i32),
    /// A symbolic change such as `u+x,go=rX`.
    Symbolic(String),
}

impl Chmod {
    /// Reads a value; `None` when it is neither octal up to 07777 nor symbolic.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(bits) = u32::from_str_radix(text, 8) {
            return (bits <= 0o7777 && !text.starts_with('+'))
                .then_some(Self::Octal(i32::try_from(bits).ok()?));
        }
        let is_symbolic = !text.is_empty() && text.split(',').all(is_clause);
        is_symbolic.then(|| Self::Symbolic(text.to_owned()))
    }
}

/// Whether `clause` is `[ugoa]*` and then one or more of an operator with its permissions.
fn is_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
        let copied = after.strip_prefix(['u', 'g', 'o']);
        rest = copied.unwrap_or_else(|| after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']));
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        assert_eq!(Chmod::parse("0755"), Some(Chmod::Octal(0o755)));
        assert_eq!(Chmod::parse("7777"), Some(Chmod::Octal(0o7777)));
        for text in ["u+x", "go=rX", "g=u", "+X", "a=rw,u+s,o-rwx", "u=rwx,go=rx", "o="] {
            assert_eq!(Chmod::parse(text), Some(Chmod::Symbolic(text.to_owned())));
        }
        for bad in ["99999", "10000", "", "u", "u+q", "u+x,", "rwx", "+7", "-1"] {
            assert_eq!(Chmod::parse(bad), None, "{bad:?}");
        }
    }
}
