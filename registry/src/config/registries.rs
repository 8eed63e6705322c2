//! `registries.conf`, version 2: tables by prefix, with mirrors, another place, or a block.
//!
//! Format: containers-registries.conf(5), containers-registries.conf.d(5).

use std::path::{Path, PathBuf};

use llb::Reference;
use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::document::{self, line_of};
use super::{ConfigPaths, Endpoint, Serves, Way, unusable};
use crate::Error;

/// The tables of all files.
#[derive(Debug, Default)]
pub(super) struct Registries {
    /// One per prefix.
    tables: Vec<Table>,
}

/// One `[[registry]]`.
#[derive(Debug)]
struct Table {
    /// Where it stands.
    file: PathBuf,
    line: usize,
    prefix: Prefix,
    /// What the prefix stands for; `None` is itself.
    location: Option<String>,
    insecure: Option<bool>,
    blocked: bool,
    mirrors: Vec<Mirror>,
}

#[derive(Debug)]
struct Mirror {
    location: String,
    insecure: Option<bool>,
    serves: Serves,
}

/// Which names a table is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Prefix {
    /// `host[:port][/folder…]`
    Name(String),
    /// `*.domain[/folder…]`: all hosts below the domain.
    Domain {
        /// With the dot before it.
        domain: String,
        /// Empty, or with the slash before it.
        folder: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Spanned<FileTable>>,
    #[serde(default)]
    credential_helpers: Option<Spanned<Vec<String>>>,
    /// Version 1.
    #[serde(default)]
    registries: Option<Spanned<IgnoredAny>>,
    #[serde(default)]
    additional_layer_store_auth_helper: Option<Spanned<IgnoredAny>>,
    // About short names: every name is read as Docker reads it.
    #[serde(default, rename = "unqualified-search-registries")]
    _unqualified_search_registries: Option<Vec<String>>,
    #[serde(default, rename = "short-name-mode")]
    _short_name_mode: Option<String>,
    #[serde(default, rename = "aliases")]
    _aliases: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Spanned<FileMirror>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileMirror {
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: Option<bool>,
    #[serde(default)]
    pull_from_mirror: String,
}

/// The files to read, in this order: those that come later count more.
pub(super) fn files(paths: &ConfigPaths) -> Result<Vec<PathBuf>, Error> {
    if let Some(alone) = &paths.registries {
        return match fs_err::metadata(alone) {
            Ok(_) => Ok(vec![alone.clone()]),
            Err(error) => Err(unusable(alone, None, document::reason(&error))),
        };
    }
    let conf = |folder: &PathBuf| folder.join("registries.conf");
    let main = paths.containers.iter().position(|folder| conf(folder).exists());
    let mut files: Vec<_> = main.map(|at| conf(&paths.containers[at])).into_iter().collect();
    // What the user has of their own replaces what the system has, further files included.
    let folders = &paths.containers[..main.map_or(paths.containers.len(), |at| at + 1)];
    for folder in folders.iter().rev() {
        let folder = folder.join("registries.conf.d");
        let Some(mut further) = document::list(&folder)? else { continue };
        further.retain(|path| path.extension().is_some_and(|end| end == "conf") && path.is_file());
        files.extend(further);
    }
    Ok(files)
}

impl Registries {
    pub(super) fn read(paths: &ConfigPaths) -> Result<Self, Error> {
        let mut all = Self::default();
        for path in files(paths)? {
            let Some(text) = document::read(&path)? else { continue };
            all.add(&path, &text)?;
        }
        Ok(all)
    }

    /// Takes over the tables of a file, in place of earlier ones.
    pub(super) fn add(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        for table in parse(path, text)? {
            self.tables.retain(|known| known.prefix != table.prefix);
            self.tables.push(table);
        }
        Ok(())
    }

    /// The places for `reference`; `None` when no table is about it.
    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Option<Vec<Endpoint>>, Error> {
        let name = reference.name();
        let Some((table, length)) = self.find(&name) else { return Ok(None) };
        if table.blocked {
            return Err(table.refusal(reference.to_string()));
        }
        let mut endpoints = Vec::new();
        for mirror in &table.mirrors {
            endpoints.push(Endpoint {
                reference: table.moved(reference, &name[length..], &mirror.location)?,
                way: Way { insecure: mirror.insecure, route: None },
                serves: mirror.serves,
            });
        }
        let way = Way { insecure: table.insecure, route: None };
        let moved = match &table.location {
            Some(location) => table.moved(reference, &name[length..], location)?,
            None => reference.clone(),
        };
        // Other tools send uploads where the name says, too.
        let serves = if moved == *reference { Serves::ALL } else { Serves::READS };
        endpoints.push(Endpoint { reference: moved, way: way.clone(), serves });
        if serves != Serves::ALL {
            let serves = Serves { tags: false, digests: false, pinned: false, ..Serves::ALL };
            endpoints.push(Endpoint { reference: reference.clone(), way, serves });
        }
        Ok(Some(endpoints))
    }

    /// How the registry of this name is reached; `None` when no table is about all of it.
    pub(super) fn way_to(&self, host: &str) -> Result<Option<Way>, Error> {
        let Some((table, _)) = self.find(host) else { return Ok(None) };
        if table.blocked {
            return Err(table.refusal(host.to_owned()));
        }
        Ok(Some(Way { insecure: table.insecure, route: None }))
    }

    /// The table with the longest prefix of `name`, and how much of the name that covers.
    fn find(&self, name: &str) -> Option<(&Table, usize)> {
        let fitting =
            self.tables.iter().filter_map(|table| Some((table, table.prefix.covers(name)?)));
        fitting.max_by_key(|(table, length)| (*length, matches!(table.prefix, Prefix::Name(_))))
    }
}

impl Table {
    fn refusal(&self, what: String) -> Error {
        Error::Blocked { what, path: self.file.clone(), line: self.line }
    }

    /// `reference` with `location` in place of the prefix, after which `rest` follows.
    fn moved(&self, reference: &Reference, rest: &str, location: &str) -> Result<Reference, Error> {
        let name = format!("{location}{rest}");
        let moved =
            name.split_once('/').and_then(|(host, path)| reference.with_name(host, path).ok());
        moved.ok_or_else(|| {
            let problem =
                format!("makes `{name}` of `{}`, which is no image name", reference.name());
            unusable(&self.file, Some(self.line), problem)
        })
    }
}

impl Prefix {
    fn new(text: &str) -> Self {
        let Some(rest) = text.strip_prefix('*').filter(|rest| rest.starts_with('.')) else {
            return Self::Name(text.to_owned());
        };
        let at = rest.find('/').unwrap_or(rest.len());
        Self::Domain { domain: rest[..at].to_owned(), folder: rest[at..].to_owned() }
    }

    /// How many bytes of `name` (`host[:port]/repository`, or a host alone) the prefix stands for.
    fn covers(&self, name: &str) -> Option<usize> {
        let ends = |length: usize| matches!(name.as_bytes().get(length), None | Some(b'/'));
        match self {
            Self::Name(prefix) => {
                (name.starts_with(prefix.as_str()) && ends(prefix.len())).then_some(prefix.len())
            }
            Self::Domain { domain, folder } => {
                let host = name.split('/').next().unwrap_or_default();
                // A port counts only where the prefix has one.
                let bare = match (domain.contains(':'), host.rsplit_once(':')) {
                    (false, Some((bare, _))) => bare,
                    _ => host,
                };
                let below = bare.len() > domain.len() && bare.ends_with(domain.as_str());
                let length = host.len() + folder.len();
                let fits = below && name[host.len()..].starts_with(folder.as_str());
                (fits && ends(length)).then_some(length)
            }
        }
    }
}

/// The tables of one file.
fn parse(path: &Path, text: &str) -> Result<Vec<Table>, Error> {
    let file: File = document::parse(path, text)?;
    let at = |span: std::ops::Range<usize>| Some(line_of(text, span.start));
    if let Some(old) = &file.registries {
        let problem = "version 1 of the format, `[registries.…]`, is not supported: write `[[registry]]` tables";
        return Err(unusable(path, at(old.span()), problem));
    }
    if let Some(helpers) = &file.credential_helpers
        && let Some(helper) = helpers.get_ref().iter().find(|name| *name != OWN_FILES)
    {
        let problem = format!(
            "the credential helper `{helper}` for all registries is not supported here: name it in an auth.json or config.json"
        );
        return Err(unusable(path, at(helpers.span()), problem));
    }
    if let Some(helper) = &file.additional_layer_store_auth_helper {
        let problem = "`additional-layer-store-auth-helper` is not supported";
        return Err(unusable(path, at(helper.span()), problem));
    }
    let mut tables: Vec<Table> = Vec::new();
    for spanned in file.registry {
        let line = line_of(text, spanned.span().start);
        let fail = |line: usize, problem: String| unusable(path, Some(line), problem);
        let line_of = |span: std::ops::Range<usize>| line_of(text, span.start);
        let table = table(path, line, spanned.into_inner(), line_of)
            .map_err(|(line, problem)| fail(line, problem))?;
        if let Some(twice) = tables.iter().find(|known| known.prefix == table.prefix) {
            let problem =
                format!("there is a table for this prefix at line {} already", twice.line);
            return Err(fail(line, problem));
        }
        tables.push(table);
    }
    Ok(tables)
}

/// The only source of credentials that is known by a name.
const OWN_FILES: &str = "containers-auth.json";

/// What is wrong, and at which line.
type Mistake = (usize, String);

fn table(
    path: &Path,
    line: usize,
    table: FileTable,
    line_of: impl Fn(std::ops::Range<usize>) -> usize,
) -> Result<Table, Mistake> {
    let here = |problem: String| (line, problem);
    let (key, written) = match (table.prefix.as_str(), table.location.as_str()) {
        ("", "") => {
            return Err(here("a `[[registry]]` without `prefix` and `location`".to_owned()));
        }
        ("", location) => ("location", location),
        (prefix, _) => ("prefix", prefix),
    };
    let prefix = Prefix::new(place(key, written, true).map_err(here)?);
    let location = Some(table.location.as_str()).filter(|location| !location.is_empty());
    let location = location.map(|text| place("location", text, false)).transpose().map_err(here)?;
    let own_place = Prefix::Name(location.unwrap_or_default().to_owned()) == prefix;
    let mut mirrors = Vec::new();
    for spanned in table.mirror {
        let line = line_of(spanned.span());
        let mirror = spanned.into_inner();
        let place =
            place("location", &mirror.location, false).map_err(|problem| (line, problem))?;
        let mode = mirror.pull_from_mirror.as_str();
        if table.mirror_by_digest_only && !mode.is_empty() {
            let problem = "`pull-from-mirror` and `mirror-by-digest-only` contradict each other: take one of them out";
            return Err((line, problem.to_owned()));
        }
        let serves = match mode {
            "digest-only" => Serves::PINNED,
            "tag-only" => Serves { pinned: false, ..Serves::READS },
            "" if table.mirror_by_digest_only => Serves::PINNED,
            "" | "all" => Serves::READS,
            other => {
                let known = "want `all`, `digest-only` or `tag-only`";
                return Err((line, format!("`pull-from-mirror` is `{other}`: {known}")));
            }
        };
        mirrors.push(Mirror { location: place.to_owned(), insecure: mirror.insecure, serves });
    }
    Ok(Table {
        file: path.to_owned(),
        line,
        prefix,
        location: location.filter(|_| !own_place).map(str::to_owned),
        insecure: table.insecure,
        blocked: table.blocked,
        mirrors,
    })
}

/// Checks `host[:port][/folder…]`, perhaps with `*.` before it.
fn place<'a>(key: &str, text: &'a str, wildcard: bool) -> Result<&'a str, String> {
    let text = text.trim_end_matches('/');
    if text.is_empty() {
        return Err(format!("`{key}` is empty"));
    }
    if text.contains("://") {
        return Err(format!("`{key}` is `{text}`: want HOST[:PORT][/FOLDER] without `https://`"));
    }
    let (host, path) = text.split_once('/').unwrap_or((text, "x"));
    if path.contains([':', '@']) {
        return Err(format!("`{key}` is `{text}`: a tag or digest is not supported there"));
    }
    let host = if wildcard { host.strip_prefix("*.").unwrap_or(host) } else { host };
    let any = Reference::parse("x.example/x").map_err(|error| error.to_string())?;
    match any.with_name(host, path) {
        Ok(_) => Ok(text),
        Err(_) => Err(format!("`{key}` is `{text}`, which is no HOST[:PORT][/FOLDER]")),
    }
}
