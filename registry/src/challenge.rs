//! `WWW-Authenticate`: what a registry wants to see (RFC 9110 §11.6.1).

/// One way to log in that a registry offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// URL of the token server.
        realm: String,
        /// What the token server calls the registry; may be empty.
        service: String,
        /// What the request needs; may be empty.
        scope: String,
    },
}

/// Reads one header value. Schemes that are not known are left out, and so is all after a mistake.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (scheme, after) = token(rest);
        if scheme.is_empty() {
            return challenges;
        }
        let (parameters, after) = parameters(after);
        rest = after;
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or_else(String::new, |(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") && !value("realm").is_empty() {
            challenges.push(Challenge::Bearer {
                realm: value("realm"),
                service: value("service"),
                scope: value("scope"),
            });
        }
    }
}

/// Takes `name=value, name="value"`; stops before a word without `=`, which is the next scheme.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let (name, after) = token(start);
        let Some(after) = after.trim_start().strip_prefix('=') else { return (parameters, start) };
        if name.is_empty() {
            return (parameters, "");
        }
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => {
                let (value, after) = token(after);
                (value.to_owned(), after)
            }
        };
        parameters.push((name.to_owned(), value));
        rest = after;
    }
}

/// Splits off a token of RFC 9110; empty when there is none.
fn token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~/:".contains(c))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Takes what follows an opening quote up to the closing one, or to the end of the text.
fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() }
    }

    #[track_caller]
    fn check(header: &str, expect: &[Challenge]) {
        assert_eq!(parse(header), expect, "input: {header:?}");
    }

    #[test]
    fn usual_challenges_are_read() {
        check(
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
            &[bearer("https://auth.example/token", "registry.example", "repository:a/b:pull,push")],
        );
        check(r#"Basic realm="Registry Realm""#, &[Challenge::Basic]);
        check("basic", &[Challenge::Basic]);
        check(r#"bearer realm=https://a/t, service=s"#, &[bearer("https://a/t", "s", "")]);
        check(
            r#"Basic realm="a", Bearer realm="b\"c", service="d""#,
            &[Challenge::Basic, bearer("b\"c", "d", "")],
        );
        check(r#"Negotiate, Basic realm="x""#, &[Challenge::Basic]);
    }

    #[test]
    fn malformed_challenges_end_the_reading() {
        for header in
            ["", " , ", "=", "Bearer", "Bearer realm", "Bearer =x", "\"", "ü", "Bearer realm=\"\""]
        {
            check(header, &[]);
        }
        check("Bearer realm=\"unclosed", &[bearer("unclosed", "", "")]);
        check("Bearer realm=\"x\\", &[bearer("x", "", "")]);
    }
}
