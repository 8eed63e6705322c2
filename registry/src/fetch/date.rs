//! Dates in HTTP headers.

use jiff::civil::DateTime;

/// Seconds since the epoch of a date in any of the three forms that HTTP knows; `None` for other text.
///
/// The name of the day is not looked at.
///
/// Format: RFC 9110 §5.6.7.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    let (format, rest) = match text.split_once(", ") {
        Some((_, rest)) if rest.contains('-') => ("%d-%b-%y %H:%M:%S GMT", rest),
        Some((_, rest)) => ("%d %b %Y %H:%M:%S GMT", rest),
        None => ("%b %e %H:%M:%S %Y", text.split_once(' ')?.1),
    };
    let civil = DateTime::strptime(format, rest.trim_start()).ok()?;
    Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_three_forms_mean_one_time() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn other_text_is_no_date() {
        for text in
            ["", "yesterday", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 99 Nov 1994 08:49:37 GMT", "1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
