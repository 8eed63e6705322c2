//! The JSON (exec) form of arguments.

/// What arguments are when read as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json<'a> {
    /// No JSON array: the shell form.
    No,
    /// An array that does not only hold strings.
    NotStrings,
    /// The elements, decoded, each with its source text.
    Strings(Vec<(String, &'a str)>),
}

/// Reads arguments as JSON. The whole text has to be one array; text that is no valid JSON is
/// silently taken for the shell form.
pub(crate) fn parse(args: &str) -> Json<'_> {
    let args = args.trim_start();
    if !args.starts_with('[') {
        return Json::No;
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(args) else { return Json::No };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    match strings.collect::<Option<Vec<_>>>() {
        Some(strings) => Json::Strings(strings.into_iter().zip(literals(args)).collect()),
        None => Json::NotStrings,
    }
}

/// Iterates over the string literals of a valid array of strings, quotes included.
fn literals(array: &str) -> impl Iterator<Item = &str> {
    let mut rest = array;
    std::iter::from_fn(move || {
        rest = &rest[rest.find('"')?..];
        let mut is_escaped = false;
        let end = rest[1..].find(|c| {
            let is_end = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        })?;
        let (literal, after) = rest.split_at(end + 2);
        rest = after;
        Some(literal)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_strings_and_other_things() {
        let strings = parse(r#" [ "a\"]" , "\u0041\\", "" ] "#);
        let expect = [("a\"]", r#""a\"]""#), ("A\\", r#""\u0041\\""#), ("", r#""""#)];
        let expect = expect.map(|(text, raw)| (text.to_owned(), raw)).to_vec();
        assert_eq!(strings, Json::Strings(expect));
        assert_eq!(parse("[]"), Json::Strings(vec![]));
        for text in ["", "a", "['a']", r#"["a",]"#, r#"["a"] b"#, r#"["a""#, "[a]"] {
            assert_eq!(parse(text), Json::No, "{text}");
        }
        for text in ["[1]", r#"["a", ["b"]]"#, "[null]"] {
            assert_eq!(parse(text), Json::NotStrings, "{text}");
        }
    }
}
