//! Where two results of one build differ, path by path.

use std::collections::BTreeMap;
use std::io::{self, Read};

use cache::Layer;
use tree::codec::HashWriter;
use tree::tar::{Entry, EntryKind, Reader};

use crate::piped::Piped;
use crate::{ExportError, ImageResult, PlatformResult, Stop};

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The platform, if there are several.
    pub platform: Option<String>,
    /// The step that wrote it, as the history of the image has it.
    pub step: String,
    /// The path, from the root; empty for the config of the image.
    pub path: String,
    /// What differs: `content`, `mode`, `time`…; `first only` and `second only` for a path that just one has.
    pub what: Vec<&'static str>,
}

impl Difference {
    /// Whether nothing but times differ.
    pub fn is_time(&self) -> bool {
        self.what == ["time"]
    }
}

/// Compares the layers and configs of two results. Times after `latest` (seconds) count as that.
///
/// # Errors
/// When a layer cannot be read.
pub fn differences(
    first: &ImageResult,
    second: &ImageResult,
    latest: Option<i64>,
    stop: &Stop,
) -> Result<Vec<Difference>, ExportError> {
    let mut all = Vec::new();
    let several = first.platforms.len() > 1;
    for (one, other) in first.platforms.iter().zip(&second.platforms) {
        let platform = several.then(|| one.platform.to_string());
        if one.config != other.config {
            let (step, path) = ("the config of the image".to_owned(), String::new());
            let what = vec!["content"];
            all.push(Difference { platform: platform.clone(), step, path, what });
        }
        let steps = steps(one);
        let count = one.reference.layers().len().max(other.reference.layers().len());
        for number in 0..count {
            let list = |layer: Option<&Layer>| {
                layer.map_or_else(|| Ok(BTreeMap::new()), |layer| listing(layer, latest, stop))
            };
            let [one, other] = [one, other].map(|result| result.reference.layers().get(number));
            if let (Some(one), Some(other)) = (one, other)
                && (one == other || one.diff_id_unless(stop)? == other.diff_id_unless(stop)?)
            {
                continue;
            }
            let step = steps.get(number).cloned().unwrap_or_else(|| format!("layer {number}"));
            let found = compare(list(one)?, list(other)?);
            all.extend(found.into_iter().map(|(path, what)| {
                let (platform, step) = (platform.clone(), step.clone());
                Difference { platform, step, path, what }
            }));
        }
    }
    Ok(all)
}

/// What made each layer.
fn steps(result: &PlatformResult) -> Vec<String> {
    let history = result.config.history.iter().flatten();
    history.filter(|entry| !entry.empty_layer).map(|entry| entry.created_by.clone()).collect()
}

/// An entry of a layer, and the hash of its content.
type Listed = (Entry, [u8; 32]);

fn listing(
    layer: &Layer,
    latest: Option<i64>,
    stop: &Stop,
) -> Result<BTreeMap<Vec<u8>, Listed>, ExportError> {
    let mut tar = Piped::start(layer).map_err(ExportError::Archive)?;
    let listed = read(&mut tar, latest, stop);
    tar.end(listed)?.map_err(ExportError::Archive)
}

fn read(tar: impl Read, latest: Option<i64>, stop: &Stop) -> io::Result<BTreeMap<Vec<u8>, Listed>> {
    let mut listed = BTreeMap::new();
    let mut reader = Reader::new(stop.guard(io::BufReader::new(tar)));
    while let Some(mut entry) = reader.next_entry()? {
        let mut hash = HashWriter::new(io::sink());
        if entry.kind == EntryKind::File {
            io::copy(&mut reader, &mut hash)?;
        }
        let (_, hash, _) = hash.finish();
        entry.mtime.nanoseconds = 0;
        entry.mtime.seconds = latest.map_or(entry.mtime.seconds, |it| it.min(entry.mtime.seconds));
        listed.insert(entry.path.clone(), (entry, hash));
    }
    io::copy(&mut reader.into_inner(), &mut io::sink())?;
    Ok(listed)
}

fn compare(
    first: BTreeMap<Vec<u8>, Listed>,
    mut second: BTreeMap<Vec<u8>, Listed>,
) -> Vec<(String, Vec<&'static str>)> {
    let mut found = BTreeMap::new();
    for (path, one) in first {
        let what = match second.remove(&path) {
            None => vec!["first only"],
            Some(other) => what_differs(&one, &other),
        };
        if !what.is_empty() {
            found.insert(path, what);
        }
    }
    found.extend(second.into_keys().map(|path| (path, vec!["second only"])));
    let text = |path: Vec<u8>| format!("/{}", String::from_utf8_lossy(&path));
    found.into_iter().map(|(path, what)| (text(path), what)).collect()
}

fn what_differs((one, hash): &Listed, (other, other_hash): &Listed) -> Vec<&'static str> {
    let all = [
        ("kind", one.kind != other.kind || one.device != other.device),
        ("content", hash != other_hash || one.size != other.size),
        ("link", one.link != other.link),
        ("mode", one.mode != other.mode),
        ("owner", (one.uid, one.gid) != (other.uid, other.gid)),
        ("attributes", one.xattrs != other.xattrs),
        ("time", one.mtime != other.mtime),
    ];
    all.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use tree::Timestamp;
    use tree::tar::Writer;

    use super::*;

    fn tar(files: &[(&str, &str, i64)]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (path, text, seconds) in files {
            let entry = Entry {
                size: text.len() as u64,
                mtime: Timestamp { seconds: *seconds, nanoseconds: 0 },
                ..Entry::new(EntryKind::File, path.as_bytes().to_vec())
            };
            writer.append_file(&entry, &mut text.as_bytes()).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn each_path_tells_what_differs() {
        let first = tar(&[("a", "same", 1), ("b", "one", 1), ("c", "", 5), ("d", "x", 9)]);
        let second = tar(&[("a", "same", 1), ("b", "two", 2), ("c", "", 6), ("e", "x", 9)]);
        let found = |latest| {
            let list = |tar: &[u8]| read(tar, latest, &Stop::default()).unwrap();
            let found = compare(list(&first), list(&second));
            found
                .iter()
                .map(|(path, what)| format!("{path} {}", what.join("+")))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(None), ["/b content+time", "/c time", "/d first only", "/e second only"]);
        assert_eq!(found(Some(1)), ["/b content", "/d first only", "/e second only"]);
    }
}
