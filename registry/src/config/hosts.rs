//! `HOST/hosts.toml` of containerd: the hosts that stand for one, each with what it may be asked for.
//!
//! Format: containerd's `docs/hosts.md`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use llb::Reference;
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::certificates::{Certificates, ClientCertificate};
use super::document::{self, line_of};
use super::{Endpoint, Route, Serves, Way, unusable};
use crate::Error;
use crate::login::{HUB, HUB_AUTHORITY};
use crate::options::Scheme;

/// Name of the folder for hosts that have none of their own.
const DEFAULT: &str = "_default";

/// What a file says.
#[derive(Debug)]
pub(crate) struct HostFile {
    /// Mirrors in the order of the file, then the registry itself.
    hosts: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    serves: Serves,
    route: Arc<Route>,
}

/// The whole file. It repeats [`Settings`], as fields that are flattened cannot be checked for unknown ones.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    server: Option<Spanned<String>>,
    #[serde(default)]
    host: HashMap<Spanned<String>, Settings>,
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    ca: Option<Many>,
    #[serde(default)]
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: Option<bool>,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    dial_timeout: Option<String>,
    #[serde(default)]
    header: BTreeMap<String, Many>,
}

/// What may be said of each host; of the registry itself at the top of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    capabilities: Option<Vec<String>>,
    #[serde(default)]
    ca: Option<Many>,
    #[serde(default)]
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: Option<bool>,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    dial_timeout: Option<String>,
    #[serde(default)]
    header: BTreeMap<String, Many>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or a list of strings")]
enum Many {
    One(String),
    All(Vec<String>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a file, a list of files, or a list of pairs of a certificate and its key"
)]
enum Clients {
    One(String),
    All(Vec<Client>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a file, or a pair of a certificate and its key")]
enum Client {
    Both(String),
    Pair(String, String),
}

impl Many {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::All(all) => all,
        }
    }
}

impl HostFile {
    /// Finds the file for `host`, in the first of `folders` that has one, or one for all.
    ///
    /// # Errors
    /// [`Error::Config`] when it cannot be used.
    pub(super) fn find(folders: &[PathBuf], host: &str) -> Result<Option<Self>, Error> {
        for name in folder_names(host).iter().map(String::as_str).chain([DEFAULT]) {
            for folder in folders {
                let path = folder.join(name).join("hosts.toml");
                if let Some(text) = document::read(&path)? {
                    return Self::parse(&path, &text, host).map(Some);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn parse(path: &Path, text: &str, host: &str) -> Result<Self, Error> {
        let file: File = document::parse(path, text)?;
        let line = |span: std::ops::Range<usize>| line_of(text, span.start);
        let mut mirrors: Vec<_> = file.host.into_iter().collect();
        mirrors.sort_by_key(|(name, _)| name.span().start);
        let mut hosts = Vec::new();
        for (name, settings) in mirrors {
            let line = line(name.span());
            let entry = Entry::new(path, host, name.get_ref(), settings);
            hosts.push(entry.map_err(|problem| unusable(path, Some(line), problem))?);
        }
        let (server, line) = match file.server {
            Some(server) => (server.get_ref().clone(), Some(line(server.span()))),
            None => (String::new(), None),
        };
        let server = if server.is_empty() { own_address(host) } else { server };
        let settings = Settings {
            capabilities: file.capabilities,
            ca: file.ca,
            client: file.client,
            skip_verify: file.skip_verify,
            override_path: file.override_path,
            dial_timeout: file.dial_timeout,
            header: file.header,
        };
        let entry = Entry::new(path, host, &server, settings);
        hosts.push(entry.map_err(|problem| unusable(path, line, problem))?);
        Ok(Self { hosts })
    }

    pub(super) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        let endpoint = |entry: &Entry| {
            let host = name_of(&entry.route.authority);
            let moved = reference.with_name(host, reference.repository());
            let problem = |_| Error::Unusable {
                what: reference.to_string(),
                problem: format!("`{host}` is no address of a registry"),
            };
            let way = Way { insecure: None, route: Some(Arc::clone(&entry.route)) };
            Ok(Endpoint { reference: moved.map_err(problem)?, way, serves: entry.serves })
        };
        self.hosts.iter().map(endpoint).collect()
    }

    pub(super) fn way_to_server(&self) -> Way {
        Way { insecure: None, route: self.hosts.last().map(|entry| Arc::clone(&entry.route)) }
    }
}

impl Entry {
    /// `address` is that of the file, perhaps without `https://`; what is wrong otherwise.
    fn new(path: &Path, host: &str, address: &str, settings: Settings) -> Result<Self, String> {
        let with_scheme = if address.starts_with("http://") || address.starts_with("https://") {
            address.to_owned()
        } else {
            format!("https://{address}")
        };
        let malformed = || format!("`{address}` is no address of a registry");
        // Another scheme, or one with a slash too few, would pass for a host.
        if with_scheme.split_once("://").is_some_and(|(_, rest)| rest.contains(":/")) {
            return Err(malformed());
        }
        let url = Url::parse(&with_scheme).map_err(|_| malformed())?;
        if url.query().is_some() || url.fragment().is_some() || url.host_str().is_none() {
            return Err(malformed());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "an address with a user or a password is not supported: log in to the host instead"
                    .to_owned(),
            );
        }
        let authority = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let mut api = url.path().trim_end_matches('/').to_owned();
        if !settings.override_path && !api.ends_with("/v2") {
            api.push_str("/v2");
        }
        api.push('/');
        let certificates = certificates(path, settings.ca, settings.client);
        let has_tls = !certificates.is_empty() || settings.skip_verify.is_some();
        let verified = match settings.skip_verify {
            Some(true) => Scheme::HttpsUnverified,
            _ => Scheme::Https,
        };
        let schemes = match url.scheme() {
            // Settings for TLS mean that it is to be tried.
            "http" if has_tls => vec![verified, Scheme::Http],
            "http" => vec![Scheme::Http],
            _ => vec![verified],
        };
        let own = authority == host || (host == HUB && authority == HUB_AUTHORITY);
        let timeout = settings.dial_timeout.as_deref().map(duration).transpose()?;
        Ok(Self {
            serves: serves(settings.capabilities)?,
            route: Arc::new(Route {
                namespace: (!own).then(|| host.to_owned()),
                authority,
                schemes,
                path: api,
                headers: headers(settings.header)?,
                certificates,
                connect_timeout: timeout,
            }),
        })
    }
}

/// Folders for a host: a port may be written with underscores.
pub(super) fn folder_names(host: &str) -> Vec<String> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => {
            vec![format!("{name}_{port}_"), host.to_owned()]
        }
        _ => vec![host.to_owned()],
    }
}

/// The name by which a host is known in references and files with credentials.
fn name_of(authority: &str) -> &str {
    if authority == HUB_AUTHORITY { HUB } else { authority }
}

/// Where a registry is when the file does not say.
fn own_address(host: &str) -> String {
    if host == HUB {
        return format!("https://{HUB_AUTHORITY}");
    }
    let scheme = if crate::options::is_loopback(host) { "http" } else { "https" };
    format!("{scheme}://{host}")
}

fn serves(capabilities: Option<Vec<String>>) -> Result<Serves, String> {
    let Some(all) = capabilities.filter(|all| !all.is_empty()) else { return Ok(Serves::ALL) };
    let mut serves = Serves { tags: false, digests: false, pinned: false, pushes: false };
    for one in all {
        match one.to_ascii_lowercase().as_str() {
            "pull" => (serves.digests, serves.pinned) = (true, true),
            "resolve" => serves.tags = true,
            "push" => serves.pushes = true,
            _ => {
                return Err(format!(
                    "the capability `{one}` is not supported: want `pull`, `resolve` or `push`"
                ));
            }
        }
    }
    Ok(serves)
}

fn headers(all: BTreeMap<String, Many>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, values) in all {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| format!("`{name}` is no name of a header"))?;
        for value in values.into_vec() {
            // What a value is stays out of messages: it may be a password.
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| format!("the value of the header `{name}` is malformed"))?;
            value.set_sensitive(true);
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}

fn certificates(path: &Path, authorities: Option<Many>, clients: Option<Clients>) -> Certificates {
    // Paths begin at the folder of the file.
    let folder = path.parent().unwrap_or(Path::new(""));
    let authorities = authorities.map(Many::into_vec).unwrap_or_default();
    let clients = match clients {
        None => Vec::new(),
        Some(Clients::One(one)) => vec![Client::Both(one)],
        Some(Clients::All(all)) => all,
    };
    let client = |client| match client {
        Client::Both(both) => ClientCertificate { certificate: folder.join(both), key: None },
        Client::Pair(certificate, key) => {
            ClientCertificate { certificate: folder.join(certificate), key: Some(folder.join(key)) }
        }
    };
    Certificates {
        authorities: authorities.into_iter().map(|file| folder.join(file)).collect(),
        clients: clients.into_iter().map(client).collect(),
    }
}

/// A time such as `500ms`, `2s` or `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("`dial_timeout` is `{text}`: want a time such as `2s` or `500ms`");
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(malformed)?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| malformed())?;
        let units = [
            ("ms", 0.001),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("ns", 1e-9),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let unit =
            units.iter().find_map(|(unit, factor)| Some((after.strip_prefix(unit)?, factor)));
        let (after, factor) = unit.ok_or_else(malformed)?;
        (rest, sum) = (after, sum + number * factor);
    }
    let duration = Duration::try_from_secs_f64(sum).ok().filter(|time| !time.is_zero());
    duration.ok_or_else(malformed)
}
