//! PAX records: `<length> <key>=<value>\n`, the length counting itself.

use crate::Timestamp;

/// Prefix of the records that hold extended attributes.
pub(super) const XATTR: &str = "SCHILY.xattr.";

/// Appends one record.
pub(super) fn write(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    const PUNCTUATION: usize = 3;
    let rest = key.len() + value.len() + PUNCTUATION;
    let mut length = rest + digits(rest);
    if rest + digits(length) > length {
        length = rest + digits(length);
    }
    out.extend(length.to_string().bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Splits the first record off; `None` when it is malformed.
pub(super) fn split_first(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(number(&records[..space])?).ok()?;
    if length > records.len() || length < space + 2 {
        return None;
    }
    let (record, rest) = records.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Reads a decimal number without a sign.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads seconds with an optional fraction, of which nine digits count; `-1.25` is before `-1`.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timestamp {
            seconds: seconds.checked_sub(1)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Some(Timestamp { seconds, nanoseconds })
}
