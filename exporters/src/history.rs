//! Times and layers of an image's history.
//!
//! The frontend leaves one entry per instruction, without times; entries that came with the base image
//! have theirs.

use jiff::Timestamp;
use llb::image::History;

use crate::ExportError;

/// Comment of entries that stand for layers no instruction is known for.
const COMMENT: &str = "buildkit.exporter.image.v0";

/// Fits `history` to layers made at these times (`None` for a base layer), lowest first.
///
/// - Layers that no entry stands for get one at the end; entries without a layer are marked so.
/// - The entry of a layer gets the time the layer was made; an entry without any gets that before it,
///   or that of the first new layer, or the last known.
/// - With an epoch (seconds), it is the time of all entries but the first `base`, which came with the
///   base image.
///
/// Returns the time of the image: that of the last entry that has one, but never after the epoch.
pub(crate) fn complete(
    history: &mut Vec<History>,
    base: usize,
    layers: &[Option<Timestamp>],
    epoch: Option<i64>,
) -> Result<Option<String>, ExportError> {
    match_layers(history, layers);
    fill_times(history, base);
    let Some(epoch) = epoch.and_then(|epoch| Timestamp::from_second(epoch).ok()) else {
        return Ok(last_time(history));
    };
    for entry in history.iter_mut().skip(base) {
        entry.created = Some(epoch.to_string());
    }
    let last = last_time(history);
    let late = parse(last.as_deref())?.is_some_and(|last| last > epoch);
    Ok(if late { Some(epoch.to_string()) } else { last })
}

/// Gives every layer one entry, and every entry that has one the layer's time.
fn match_layers(history: &mut Vec<History>, layers: &[Option<Timestamp>]) {
    let mut left = layers.iter();
    for entry in history.iter_mut().filter(|entry| !entry.empty_layer) {
        match left.next() {
            None => entry.empty_layer = true,
            Some(created) => {
                if entry.created.is_none() {
                    entry.created = created.map(|created| created.to_string());
                }
            }
        }
    }
    history.extend(left.map(|created| History {
        created: created.map(|created| created.to_string()),
        comment: COMMENT.to_owned(),
        ..History::default()
    }));
}

/// Gives every entry a time, if any has one. `history` is split so that an entry of an instruction
/// never takes the time of a base image when there is a new layer.
fn fill_times(history: &mut [History], base: usize) {
    let (from_base, new) = history.split_at_mut(base.min(history.len()));
    let first_new = new.iter().find_map(|entry| entry.created.clone());
    fill_from(from_base, first_new.clone());
    let last_base = last_time(from_base);
    fill_from(new, first_new.or(last_base));
}

/// Gives an entry without a time that before it, or that of the first one that has any, or `otherwise`.
fn fill_from(history: &mut [History], otherwise: Option<String>) {
    let mut known = history.iter().find_map(|entry| entry.created.clone()).or(otherwise);
    for entry in history {
        match &entry.created {
            Some(created) => known = Some(created.clone()),
            None => entry.created.clone_from(&known),
        }
    }
}

fn last_time(history: &[History]) -> Option<String> {
    history.iter().rev().find_map(|entry| entry.created.clone())
}

/// Parses an RFC 3339 time.
pub(crate) fn parse(time: Option<&str>) -> Result<Option<Timestamp>, ExportError> {
    time.map(|time| time.parse().map_err(|_| ExportError::Time(time.to_owned()))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as `time`, `-` for none, with `e` in front for one without a layer.
    #[track_caller]
    fn check(entries: &str, layers: &[Option<i64>], epoch: Option<i64>, expect: &str) {
        let second = |second: i64| Timestamp::from_second(second).unwrap();
        let entry = |text: &str| {
            let (empty_layer, time) =
                text.strip_prefix('e').map_or((false, text), |time| (true, time));
            let created = (time != "-").then(|| second(time.parse().unwrap()).to_string());
            History { created, empty_layer, ..History::default() }
        };
        let mut history: Vec<_> = entries.split_whitespace().map(entry).collect();
        let base = history.iter().take_while(|entry| entry.created.is_some()).count();
        let layers: Vec<_> = layers.iter().map(|layer| layer.map(second)).collect();
        let created = complete(&mut history, base, &layers, epoch).unwrap();
        let show = |time: &Option<String>| {
            parse(time.as_deref())
                .unwrap()
                .map_or("-".to_owned(), |time| time.as_second().to_string())
        };
        let mut actual = history.iter().fold(String::new(), |text, entry| {
            let empty = if entry.empty_layer { "e" } else { "" };
            let extra = if entry.comment == COMMENT { "+" } else { "" };
            format!("{text}{empty}{}{extra} ", show(&entry.created))
        });
        actual.push_str(&format!("created {}", show(&created)));
        assert_eq!(actual, expect, "entries: {entries:?}");
    }

    #[test]
    fn new_entries_take_the_times_of_their_layers() {
        check("1 e2 - e- -", &[None, Some(10), Some(11)], None, "1 e2 10 e10 11 created 11");
    }

    #[test]
    fn entries_before_the_first_new_layer_take_its_time() {
        check("1 e- e- - e-", &[None, Some(10)], None, "1 e10 e10 10 e10 created 10");
        check("e- -", &[Some(10)], None, "e10 10 created 10");
    }

    #[test]
    fn without_new_layers_the_last_base_time_counts() {
        check("1 e2 e-", &[None], None, "1 e2 e2 created 2");
        check("e- e-", &[], None, "e- e- created -");
        check("", &[], None, "created -");
    }

    #[test]
    fn layers_and_entries_are_made_to_fit() {
        check("1", &[None, Some(10), Some(11)], None, "1 10+ 11+ created 11");
        check("1 2 -", &[None], None, "1 e2 e2 created 2");
    }

    #[test]
    fn the_epoch_is_the_time_of_what_is_new() {
        check("1 e9 - e-", &[None, Some(10)], Some(5), "1 e9 5 e5 created 5");
        check("1 - e-", &[None, Some(10)], Some(50), "1 50 e50 created 50");
        check("e-", &[], Some(5), "e5 created 5");
        check("9", &[None], Some(5), "9 created 5");
    }

    #[test]
    fn times_are_written_as_go_writes_them() {
        let time = |nanoseconds| Timestamp::new(1_700_000_000, nanoseconds).unwrap().to_string();
        assert_eq!(time(0), "2023-11-14T22:13:20Z");
        assert_eq!(time(120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(time(123_456_789), "2023-11-14T22:13:20.123456789Z");
    }
}
