//! Durations as Go writes them: `1h30m`, `1.5s`, `-2ms`.

use std::time::Duration;

use crate::quote::Quoted;

/// Largest duration, as Go counts it: nanoseconds in 63 bits.
const MAX: u128 = i64::MAX as u128;

/// A duration and its sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) is_negative: bool,
    pub(crate) amount: Duration,
}

/// Parses a duration; the error is the text after `time: `.
pub(crate) fn parse(text: &str) -> Result<Signed, String> {
    let invalid = || format!("invalid duration {}", Quoted(text));
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Signed { is_negative: false, amount: Duration::ZERO });
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (name, after) = after.split_at(end);
        if name.is_empty() {
            return Err(format!("missing unit in duration {}", Quoted(text)));
        }
        let unit = unit(name)
            .ok_or_else(|| format!("unknown unit {} in duration {}", Quoted(name), Quoted(text)))?;
        total += nanoseconds(whole, fraction, unit).ok_or_else(invalid)?;
        if total > MAX {
            return Err(invalid());
        }
        rest = after;
    }
    // The bound above makes the number fit.
    let amount = Duration::from_nanos(u64::try_from(total).map_err(|_| invalid())?);
    Ok(Signed { is_negative, amount })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Returns the unit in nanoseconds.
fn unit(name: &str) -> Option<u128> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Returns `whole.fraction` units in nanoseconds, if that is in range.
fn nanoseconds(whole: &str, fraction: &str, unit: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(unit).filter(|it| *it <= MAX)?;
    // More digits than this are below a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(whole + fraction * unit / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<i128, &str>) {
        let actual = parse(text).map(|it| {
            let nanos = i128::try_from(it.amount.as_nanos()).unwrap();
            if it.is_negative { -nanos } else { nanos }
        });
        assert_eq!(actual, expect.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn durations() {
        check("0", Ok(0));
        check("1h1m1s", Ok(3_661_000_000_000));
        check("1.5s", Ok(1_500_000_000));
        check(".5ms", Ok(500_000));
        check("1.s", Ok(1_000_000_000));
        check("-2us", Ok(-2000));
        check("+1ns", Ok(1));
        check("", Err("invalid duration \"\""));
        check("5", Err("missing unit in duration \"5\""));
        check("5x", Err("unknown unit \"x\" in duration \"5x\""));
        check("a", Err("invalid duration \"a\""));
        check("99999999999999999999h", Err("invalid duration \"99999999999999999999h\""));
    }
}
