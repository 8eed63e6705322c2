//! What a selection selects, path by path: so that two of them can be told apart in words.
//!
//! It says of each path what [`content`] hashes: kind, permission bits, owner, and a short hash of what
//! it holds. A selection of more than [`MOST`] files is listed by its directories alone, each with a hash of the files
//! in it.
//!
//! ```text
//! listing = zstd( magic (4) · flags (u8) · entry… )
//! entry   = shared prefix with the path before (u16) · rest (u16) · rest of the path
//!         · kind (u8) · mode (u32) · uid (u32) · gid (u32) · hash (8)
//! ```
//!
//! Numbers are little-endian, entries in byte order of their paths. Flag 1: directories only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;

use crate::select::{self, Filter, FilterState, Verdict};
use crate::{DirEntry, Kind, Metadata, TreeError, View, content};

/// Files that are listed one by one at most.
pub const MOST: usize = 5_000;

/// Directories that are listed at most; a selection of more is not listed at all.
const MOST_DIRECTORIES: usize = 50_000;

const MAGIC: &[u8; 4] = b"BLl1";

/// Bytes that a listing may have at most when it is read.
const LARGEST: usize = 32 << 20;

/// A selection, path by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Whether only directories are listed.
    is_coarse: bool,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of what it holds.
    hash: [u8; 8],
}

/// How one path differs between two listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// What is different.
    pub what: ChangeKind,
}

/// What is different of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there before; says whether it is a directory.
    New(bool),
    /// It is not there any more.
    Removed,
    /// It was a thing of another kind.
    Kind,
    /// Its bytes, target, device number or extended attributes.
    Content,
    /// Something among the files of this directory.
    Within,
    /// Permission bits, before and now.
    Mode(u32, u32),
    /// User and group, before and now.
    Owner((u32, u32), (u32, u32)),
}

/// Lists what some selections select; `None` when that is too much.
///
/// # Errors
/// When the file system fails, or a path that was there is not.
pub fn list(
    view: &dyn View,
    selections: &[content::Selection],
) -> Result<Option<Listing>, TreeError> {
    for is_coarse in [false, true] {
        let mut entries = BTreeMap::new();
        let mut fits = true;
        for selection in selections {
            let filter = Filter::new(&selection.include, &selection.exclude)?;
            let walk = Walk { view, filter: &filter, is_coarse };
            for path in &selection.paths {
                let sources =
                    select::sources(view, path, selection.wildcard, selection.follow_links)?;
                for source in sources {
                    let mut found = Vec::new();
                    fits &= walk.source(&source, path.ends_with('/'), &mut found)?;
                    entries.extend(found);
                    fits &= is_coarse || entries.len() <= MOST;
                    if !fits {
                        break;
                    }
                }
            }
        }
        if fits {
            return Ok(Some(Listing { entries, is_coarse }));
        }
    }
    Ok(None)
}

type Found = Vec<(Vec<u8>, Entry)>;

struct Walk<'a> {
    view: &'a dyn View,
    filter: &'a Filter,
    is_coarse: bool,
}

impl Walk<'_> {
    /// Lists one source; `false` when it is too large.
    fn source(
        &self,
        source: &select::Source,
        contents_only: bool,
        found: &mut Found,
    ) -> Result<bool, TreeError> {
        let named = &source.named;
        if source.metadata.kind != Kind::Dir {
            found.push(self.entry(&source.path, named, &source.metadata)?);
            return Ok(true);
        }
        if !contents_only && !source.path.as_os_str().is_empty() {
            found.push(self.entry(&source.path, named, &source.metadata)?);
        }
        let root = Root { path: &source.path, named };
        self.folder(&root, Path::new(""), &FilterState::default(), found)
    }

    fn folder(
        &self,
        root: &Root<'_>,
        relative: &Path,
        state: &FilterState,
        found: &mut Found,
    ) -> Result<bool, TreeError> {
        let path = root.path.join(relative);
        select::check_depth(relative, &path)?;
        let entries = self.view.list(&path).map_err(TreeError::io("read", &path))?;
        let (mut leaves, mut folders) = (Vec::new(), Vec::new());
        for entry in entries.iter() {
            let kind = entry.metadata.kind;
            let below = relative.join(&entry.name);
            let (verdict, state) = self.filter.step(&below, kind, state);
            match (verdict, kind) {
                (Verdict::Skipped, _) => {}
                (_, Kind::Dir) => folders.push((entry, below, verdict, state)),
                _ => leaves.push(entry),
            }
        }
        let most = if self.is_coarse { MOST_DIRECTORIES } else { MOST };
        if found.len() + if self.is_coarse { 0 } else { leaves.len() } > most {
            return Ok(false);
        }
        self.leaves(root, relative, &path, &leaves, found)?;
        for (entry, below, verdict, state) in folders {
            let before = found.len();
            found.push(self.entry(
                &path.join(&entry.name),
                &root.named.join(&below),
                &entry.metadata,
            )?);
            if !self.folder(root, &below, &state, found)? {
                return Ok(false);
            }
            if verdict != Verdict::Selected && found.len() == before + 1 {
                // Nothing in it is selected.
                found.truncate(before);
            }
        }
        Ok(true)
    }

    /// Lists the files of a directory: each, or all of them as one.
    fn leaves(
        &self,
        root: &Root<'_>,
        relative: &Path,
        path: &Path,
        leaves: &[&DirEntry],
        found: &mut Found,
    ) -> Result<(), TreeError> {
        if leaves.is_empty() {
            return Ok(());
        }
        if !self.is_coarse {
            let named = root.named.join(relative);
            let listed = leaves.par_iter().with_min_len(64).map(|entry| {
                self.entry(&path.join(&entry.name), &named.join(&entry.name), &entry.metadata)
            });
            found.extend(listed.collect::<Result<Vec<_>, _>>()?);
            return Ok(());
        }
        let hash = content::files_digest(self.view, path, leaves)?;
        let mut name = root.named.join(relative).as_os_str().as_bytes().to_vec();
        name.extend_from_slice(b"/*");
        let entry = Entry { kind: b'*', mode: 0, uid: 0, gid: 0, hash: short(hash) };
        found.push((name, entry));
        Ok(())
    }

    fn entry(
        &self,
        path: &Path,
        named: &Path,
        metadata: &Metadata,
    ) -> Result<(Vec<u8>, Entry), TreeError> {
        let is_link = metadata.kind == Kind::Symlink;
        let entry = Entry {
            kind: match metadata.kind {
                Kind::File | Kind::Socket => b'f',
                Kind::Dir => b'd',
                Kind::Symlink => b'l',
                Kind::CharDevice => b'c',
                Kind::BlockDevice => b'b',
                Kind::Fifo => b'p',
            },
            mode: if is_link { 0o777 } else { metadata.mode },
            uid: metadata.uid,
            gid: metadata.gid,
            hash: short(content::held_digest(self.view, path, metadata)?),
        };
        Ok((named.as_os_str().as_bytes().to_vec(), entry))
    }
}

struct Root<'a> {
    path: &'a Path,
    named: &'a Path,
}

fn short(hash: [u8; 32]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&hash[..8]);
    short
}

impl Listing {
    /// How this one differs from one of before, in order of the paths. Empty when nothing that both list does.
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let (mut old, mut new) = (before.clone(), self.clone());
        if old.is_coarse != new.is_coarse {
            // What only one of them lists says nothing.
            old.entries.retain(|_, entry| entry.kind == b'd');
            new.entries.retain(|_, entry| entry.kind == b'd');
        }
        let mut changes = Vec::new();
        for (path, entry) in &new.entries {
            if let Some(what) = entry.change_since(old.entries.remove(path)) {
                changes.push((path.clone(), what));
            }
        }
        changes.extend(old.entries.into_keys().map(|path| (path, ChangeKind::Removed)));
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        let shown = |path: Vec<u8>| {
            let path = path.strip_suffix(b"/*").unwrap_or(&path);
            let path = if path.is_empty() { b"." } else { path };
            OsStr::from_bytes(path).to_string_lossy().into_owned()
        };
        changes.into_iter().map(|(path, what)| Change { path: shown(path), what }).collect()
    }

    /// The encoded form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(u8::from(self.is_coarse));
        let mut before: &[u8] = &[];
        for (path, entry) in &self.entries {
            let shared = path.iter().zip(before).take_while(|(a, b)| a == b).count();
            let (Ok(first), Ok(rest)) = (u16::try_from(shared), u16::try_from(path.len() - shared))
            else {
                continue;
            };
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&rest.to_le_bytes());
            bytes.extend_from_slice(&path[shared..]);
            bytes.push(entry.kind);
            for number in [entry.mode, entry.uid, entry.gid] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&entry.hash);
            before = path;
        }
        // In memory, at a level that there is, this does not fail.
        zstd::bulk::compress(&bytes, 1).unwrap_or_default()
    }

    /// Reads the encoded form; `None` when it is damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = zstd::bulk::decompress(bytes, LARGEST).ok()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        let (&flags, mut rest) = rest.split_first()?;
        let mut entries = BTreeMap::new();
        let mut path: Vec<u8> = Vec::new();
        while !rest.is_empty() {
            let shared = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
            if shared > path.len() || length > rest.len() {
                return None;
            }
            path.truncate(shared);
            let (more, after) = rest.split_at(length);
            path.extend_from_slice(more);
            rest = after;
            let [kind] = take(&mut rest)?;
            let mut number = || Some(u32::from_le_bytes(take(&mut rest)?));
            let (mode, uid, gid) = (number()?, number()?, number()?);
            let hash = take(&mut rest)?;
            entries.insert(path.clone(), Entry { kind, mode, uid, gid, hash });
        }
        Some(Self { entries, is_coarse: flags & 1 != 0 })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

impl Entry {
    fn change_since(&self, before: Option<Self>) -> Option<ChangeKind> {
        let Some(before) = before else {
            return Some(if self.kind == b'*' {
                ChangeKind::Within
            } else {
                ChangeKind::New(self.kind == b'd')
            });
        };
        if before.kind != self.kind {
            return Some(ChangeKind::Kind);
        }
        if before.hash != self.hash {
            let is_many = self.kind == b'*';
            return Some(if is_many { ChangeKind::Within } else { ChangeKind::Content });
        }
        if before.mode != self.mode {
            return Some(ChangeKind::Mode(before.mode, self.mode));
        }
        let owners = ((before.uid, before.gid), (self.uid, self.gid));
        (owners.0 != owners.1).then_some(ChangeKind::Owner(owners.0, owners.1))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fs_err as fs;
    use proptest::prelude::*;

    use super::*;
    use crate::context::Context;
    use crate::pattern::Patterns;

    fn of(folder: &Path, path: &str) -> Listing {
        let context = Context::open(folder, Patterns::default(), None).unwrap();
        let selection =
            content::Selection { paths: vec![path.to_owned()], ..content::Selection::default() };
        list(&context, &[selection]).unwrap().unwrap()
    }

    fn changes(new: &Listing, old: &Listing) -> Vec<(String, ChangeKind)> {
        let decoded = Listing::decode(&old.encode()).unwrap();
        assert_eq!(decoded, *old);
        new.changes_since(&decoded).into_iter().map(|it| (it.path, it.what)).collect()
    }

    #[test]
    fn each_way_a_path_can_differ_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("src/old")).unwrap();
        for name in ["src/a", "src/b", "src/c", "src/d", "other"] {
            fs::write(path(name), name).unwrap();
        }
        let before = of(folder.path(), "/src");
        assert_eq!(changes(&before, &before), []);

        fs::write(path("src/a"), "changed").unwrap();
        fs::set_permissions(path("src/b"), std::fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(path("src/c")).unwrap();
        fs::remove_file(path("src/d")).unwrap();
        std::os::unix::fs::symlink("a", path("src/d")).unwrap();
        fs::create_dir(path("src/e")).unwrap();
        fs::write(path("src/e/f"), "").unwrap();
        fs::remove_dir(path("src/old")).unwrap();
        fs::write(path("other"), "not selected").unwrap();
        let after = of(folder.path(), "/src");
        let expect = [
            ("src/a", ChangeKind::Content),
            ("src/b", ChangeKind::Mode(0o644, 0o755)),
            ("src/c", ChangeKind::Removed),
            ("src/d", ChangeKind::Kind),
            ("src/e", ChangeKind::New(true)),
            ("src/e/f", ChangeKind::New(false)),
            ("src/old", ChangeKind::Removed),
        ];
        let expect: Vec<(String, ChangeKind)> =
            expect.into_iter().map(|(path, what)| (path.to_owned(), what)).collect();
        assert_eq!(changes(&after, &before), expect);
    }

    #[test]
    fn of_many_files_only_directories_are_told() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MOST {
            let parent = folder.path().join(format!("d{}", number % 10));
            fs::create_dir_all(&parent).unwrap();
            fs::write(parent.join(number.to_string()), "").unwrap();
        }
        let before = of(folder.path(), "/");
        assert!(before.is_coarse && before.entries.len() == 20, "{}", before.entries.len());
        fs::write(folder.path().join("d3/3"), "changed").unwrap();
        let after = of(folder.path(), "/");
        assert_eq!(changes(&after, &before), [("d3".to_owned(), ChangeKind::Within)]);
        assert!(after.encode().len() < 1000, "{}", after.encode().len());
        // A listing of files and one of directories have only the directories in common.
        fs::remove_dir_all(folder.path().join("d9")).unwrap();
        let fine = of(folder.path(), "/");
        assert!(!fine.is_coarse);
        assert_eq!(changes(&fine, &after), [("d9".to_owned(), ChangeKind::Removed)]);
    }

    proptest! {
        #[test]
        fn damaged_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Listing::decode(&bytes);
            let mut whole = MAGIC.to_vec();
            whole.extend_from_slice(&bytes);
            let _ = Listing::decode(&zstd::bulk::compress(&whole, 1).unwrap());
        }
    }
}
