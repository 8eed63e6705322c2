//! Text forms of Go that the reference builder writes into an image's history.
//!
//! Covers quoted strings (`%q`), lists and durations, as far as histories need them.

/// Quotes as Go's `%q`: printable characters stay, the others become escapes.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            _ if is_printable(c) => quoted.push(c),
            _ if u32::from(c) < 0x80 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// Quotes every element: `["a" "b"]`.
pub(crate) fn quote_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

/// Go's idea of a printable character: letters, marks, numbers, punctuation, symbols, ASCII space.
fn is_printable(c: char) -> bool {
    let format = matches!(
        u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
            | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xfffb | 0xfffe | 0xffff
            | 0xe0000..=0x10_ffff
    );
    c == ' ' || !(c.is_control() || c.is_whitespace() || format)
}

/// Writes a duration as Go does: `1m30s`, `500ms`, `0s`.
pub(crate) fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0 => "0s".to_owned(),
        value @ 1..1_000 => format!("{value}ns"),
        value @ 1_000..1_000_000 => format!("{}µs", decimal(value, 1_000)),
        value @ 1_000_000..1_000_000_000 => format!("{}ms", decimal(value, 1_000_000)),
        value => {
            let (minutes, rest) = (value / 60_000_000_000, value % 60_000_000_000);
            let seconds = format!("{}s", decimal(rest, 1_000_000_000));
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// `value / unit` with as many decimals as are not zero.
fn decimal(value: u64, unit: u64) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_that_of_go() {
        assert_eq!(quote("a\"b\\\n\t\u{1}é\u{200b}\u{1f600}"), r#""a\"b\\\n\t\x01é\u200b😀""#);
        assert_eq!(quote_list(&[]), "[]");
        assert_eq!(quote_list(&["a".to_owned(), "b c".to_owned()]), r#"["a" "b c"]"#);
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanoseconds, written) in [
            (0, "0s"),
            (90_000_000_000, "1m30s"),
            (250_000_000, "250ms"),
            (3_600_000_000_000, "1h0m0s"),
            (1_500_000_000, "1.5s"),
            (2_000, "2µs"),
            (1_999_999, "1.999999ms"),
        ] {
            assert_eq!(duration(nanoseconds), written);
        }
    }
}
