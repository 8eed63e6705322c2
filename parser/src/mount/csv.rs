//! One record of comma-separated values, as Go's `encoding/csv` reads it.

/// Returns the fields of the record; the error is the text of the reference.
pub(super) fn record(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(text, quoted)?,
            None => plain_field(text, rest)?,
        };
        fields.push(field);
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// Reads a field up to the next comma, and returns what follows that comma.
fn plain_field<'a>(text: &str, rest: &'a str) -> Result<(String, Option<&'a str>), String> {
    let (field, after) = match rest.split_once(',') {
        Some((field, after)) => (field, Some(after)),
        None => (rest, None),
    };
    if let Some(quote) = field.find('"') {
        return Err(error(text, &rest[quote..], "bare \" in non-quoted field"));
    }
    Ok((field.to_owned(), after))
}

/// Reads a field up to its closing quote, and returns what follows the comma after it.
fn quoted_field<'a>(text: &str, quoted: &'a str) -> Result<(String, Option<&'a str>), String> {
    const CAUSE: &str = "extraneous or missing \" in quoted-field";
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return Err(error(text, "", CAUSE));
        };
        field.push_str(part);
        match after.chars().next() {
            None => return Ok((field, None)),
            Some(',') => return Ok((field, Some(&after[1..]))),
            Some('"') => field.push('"'),
            Some(_) => return Err(error(text, &rest[part.len()..], CAUSE)),
        }
        rest = &after[1..];
    }
}

/// Makes the text of an error where `rest` begins.
fn error(text: &str, rest: &str, cause: &str) -> String {
    format!("parse error on line 1, column {}: {cause}", text.len() - rest.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_quotes() {
        let fields = |text| record(text).map(|fields| fields.join("|"));
        assert_eq!(fields("a=1,,b"), Ok("a=1||b".into()));
        assert_eq!(fields("\"a,\"\"b\"\"\",c"), Ok("a,\"b\"|c".into()));
        assert_eq!(fields(""), Err("EOF".into()));
        let bare = "parse error on line 1, column 2: bare \" in non-quoted field";
        assert_eq!(fields("a\"b"), Err(bare.into()));
        assert!(fields("\"a").is_err());
        assert!(fields("\"a\"b").is_err());
    }
}
