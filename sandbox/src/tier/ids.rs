//! Ranges of ids, and who may use which (`/etc/subuid`, `/etc/subgid`).
//!
//! ```text
//! alice:100000:65536      by name
//! 1000:231072:65536       by number; several lines of one user add up
//! ```

/// Ids that a namespace has at least, so that nobody of an ordinary image is missing in it.
pub(super) const LEAST: u64 = 65_536;

/// Where the ranges of an administrator's own choice begin.
const FIRST: u64 = 100_000;

/// Consecutive ids of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    fn end(self) -> u64 {
        u64::from(self.start) + u64::from(self.count)
    }
}

/// Number of ids in ranges.
pub(super) fn total(ranges: &[IdRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// Ranges as text: `100000-165535`.
pub(super) fn shown(ranges: &[IdRange]) -> String {
    let text = |range: &IdRange| match range.count {
        1 => range.start.to_string(),
        _ => format!("{}-{}", range.start, range.end() - 1),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Reads the ranges of a user, known by number and perhaps by name. Lines that make no sense are nobody's.
pub(super) fn of_user(text: &str, id: u32, name: Option<&str>) -> Vec<IdRange> {
    let mut found = Vec::new();
    for (owner, range) in lines(text) {
        let is_own = name == Some(owner) || owner.parse() == Ok(id);
        if is_own && range.count > 0 && range.end() <= u64::from(u32::MAX) {
            found.push(range);
        }
    }
    found
}

/// Reads a line of `/proc/self/uid_map`: which ids of the parent namespace there are.
pub(super) fn of_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse);
        let (start, count) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(IdRange { start, count })
    };
    text.lines().filter_map(range).collect()
}

/// The line that would give a user a range that nobody else has.
pub(super) fn free_line(text: &str, name: &str) -> String {
    let taken = lines(text).map(|(_, range)| range.end()).max().unwrap_or(0);
    format!("{name}:{}:{LEAST}", taken.max(FIRST))
}

fn lines(text: &str) -> impl Iterator<Item = (&str, IdRange)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((owner, IdRange { start, count }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# by hand\nalice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:x:1\n\
        alice:4294967290:100\nalice:5:0\n";

    #[test]
    fn ranges_of_a_user_add_up() {
        let alice = of_user(TEXT, 1000, Some("alice"));
        let expect =
            [IdRange { start: 100_000, count: 65536 }, IdRange { start: 300_000, count: 10 }];
        assert_eq!(alice, expect);
        assert_eq!(total(&alice), 65546);
        assert_eq!(shown(&alice), "100000-165535, 300000-300009");
        assert_eq!(of_user(TEXT, 1, None), []);
    }

    #[test]
    fn a_free_range_is_behind_all_others() {
        assert_eq!(free_line("", "carol"), "carol:100000:65536");
        let text = "alice:100000:65536\nbob:165536:65536\n";
        assert_eq!(free_line(text, "carol"), "carol:231072:65536");
    }

    #[test]
    fn maps_are_read_as_the_ranges_outside() {
        let ranges = of_map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(shown(&ranges), "1000, 100000-165535");
        assert_eq!(of_map("0 x 1\n"), []);
    }
}
