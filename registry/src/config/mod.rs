//! What files say of registries: which places stand for one, and how each is reached.
//!
//! ```text
//! registries    registries.conf of Podman and its kin: mirrors, other places, insecure and blocked registries
//! hosts         hosts.toml of containerd: mirrors, what each may do, headers and certificates
//! certificates  folders per host with certificate authorities and client certificates, as Docker has them
//! document      TOML texts, and where a mistake in one stands
//! ```
//!
//! Invariants:
//! - One file decides about a reference: `registries.conf` where a table of it fits, else the `hosts.toml` of its host,
//!   else that of `_default`.
//! - Nothing is passed over that could mean something: what is not known or not supported is an error that names it.
//!   Only the keys about short names are left alone, since no name is short here.
//! - A name is only ever sent elsewhere: what an image is called does not depend on these files.
//!
//! Files are read when the first request needs them.

pub(crate) mod certificates;
mod document;
pub(crate) mod hosts;
mod registries;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use llb::Reference;
use reqwest::header::HeaderMap;

use crate::Error;
use crate::options::Scheme;
use certificates::Certificates;
use registries::Registries;

/// Where the files are that say how registries are reached. None need exist. See [`config_paths`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigPaths {
    /// A `registries.conf` that counts alone, and must exist.
    pub registries: Option<PathBuf>,
    /// Else folders that may have a `registries.conf` and a `registries.conf.d`, the most important one first.
    pub containers: Vec<PathBuf>,
    /// Folders with `HOST/hosts.toml`, the most important one first.
    pub hosts: Vec<PathBuf>,
    /// Folders with `HOST/*.crt`, `*.cert` and `*.key`, the most important one first.
    pub certificates: Vec<PathBuf>,
}

/// Where the configuration of registries is looked for, for whoever has this environment: the user's folders, then those
/// of the system. `variable` looks up an environment variable.
pub fn config_paths(variable: impl Fn(&str) -> Option<OsString>) -> ConfigPaths {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME");
    let own = set("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = set("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let own = |path: &str| own.as_ref().map(|own| own.join(path));
    let system = |path: &str| Some(PathBuf::from("/etc").join(path));
    let folders = |all: &[Option<PathBuf>]| all.iter().flatten().cloned().collect::<Vec<_>>();
    ConfigPaths {
        registries: set("CONTAINERS_REGISTRIES_CONF"),
        containers: folders(&[own("containers"), system("containers")]),
        hosts: folders(&[own("containerd/certs.d"), system("containerd/certs.d")]),
        certificates: folders(&[
            own("containers/certs.d"),
            docker.map(|docker| docker.join("certs.d")),
            own("docker/certs.d"),
            system("containers/certs.d"),
            system("docker/certs.d"),
        ]),
    }
}

impl ConfigPaths {
    /// The files with mirrors and other places that there are, in the order in which they are read; those of single
    /// hosts are left out.
    ///
    /// # Errors
    /// [`Error::Config`] for one that cannot be read or understood.
    pub fn in_force(&self) -> Result<Vec<PathBuf>, Error> {
        Registries::read(self)?;
        registries::files(self)
    }
}

/// What the files say.
#[derive(Debug)]
pub(crate) struct Config {
    paths: ConfigPaths,
    registries: Registries,
    /// By host, each looked up once.
    hosts: Mutex<BTreeMap<String, Option<Arc<hosts::HostFile>>>>,
    certificates: Mutex<BTreeMap<String, Option<Arc<Certificates>>>>,
}

/// One place that may stand for a reference, the best first, the registry itself last.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// What is asked for there.
    pub(crate) reference: Reference,
    /// How its host is reached.
    pub(crate) way: Way,
    /// What may be asked for.
    pub(crate) serves: Serves,
}

/// What may be asked for at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serves {
    /// What a tag stands for.
    pub(crate) tags: bool,
    /// Manifests and blobs of a reference with a tag, once it is known what it stands for.
    pub(crate) digests: bool,
    /// Manifests and blobs of a reference in which the user wrote a digest.
    pub(crate) pinned: bool,
    /// Uploads.
    pub(crate) pushes: bool,
}

impl Serves {
    /// Whatever there is to read.
    pub(crate) const READS: Self = Self { tags: true, digests: true, pinned: true, pushes: false };
    /// Only what the user wrote a digest for.
    pub(crate) const PINNED: Self = Self { tags: false, digests: false, ..Self::READS };
    /// The registry itself.
    pub(crate) const ALL: Self = Self { pushes: true, ..Self::READS };
}

/// How a host is reached, where that does not follow from its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Way {
    /// Whether less than verified TLS will do; `None` is what fits the name.
    pub(crate) insecure: Option<bool>,
    /// What a file says of the host by itself.
    pub(crate) route: Option<Arc<Route>>,
}

/// A host as `hosts.toml` describes it.
#[derive(Debug)]
pub(crate) struct Route {
    /// Host and port as in a URL.
    pub(crate) authority: String,
    /// Ways to speak to it, in the order to try.
    pub(crate) schemes: Vec<Scheme>,
    /// Path of the API, with a slash at its end.
    pub(crate) path: String,
    /// For whom it stands in: told with each request.
    pub(crate) namespace: Option<String>,
    /// Sent with each request.
    pub(crate) headers: HeaderMap,
    /// Beside those of the folders for its name.
    pub(crate) certificates: Certificates,
    /// Longest time to make a connection.
    pub(crate) connect_timeout: Option<Duration>,
}

impl Config {
    /// Reads what is about all hosts.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that cannot be read or understood.
    pub(crate) fn read(paths: &ConfigPaths) -> Result<Self, Error> {
        Ok(Self {
            paths: paths.clone(),
            registries: Registries::read(paths)?,
            hosts: Mutex::default(),
            certificates: Mutex::default(),
        })
    }

    /// The places that stand for `reference`, in the order to try.
    ///
    /// # Errors
    /// [`Error::Blocked`], and [`Error::Config`] when a file cannot be used or makes no reference of this one.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        if let Some(endpoints) = self.registries.endpoints(reference)? {
            return Ok(endpoints);
        }
        match self.host_file(reference.host())? {
            Some(file) => file.endpoints(reference),
            None => Ok(vec![Endpoint {
                reference: reference.clone(),
                way: Way::default(),
                serves: Serves::ALL,
            }]),
        }
    }

    /// How the registry `host` itself is reached, when there is no reference.
    ///
    /// # Errors
    /// As [`endpoints`](Self::endpoints).
    pub(crate) fn way_to(&self, host: &str) -> Result<Way, Error> {
        if let Some(way) = self.registries.way_to(host)? {
            return Ok(way);
        }
        Ok(self.host_file(host)?.map(|file| file.way_to_server()).unwrap_or_default())
    }

    fn host_file(&self, host: &str) -> Result<Option<Arc<hosts::HostFile>>, Error> {
        let mut known = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = known.get(host) {
            return Ok(file.clone());
        }
        let file = hosts::HostFile::find(&self.paths.hosts, host)?.map(Arc::new);
        known.insert(host.to_owned(), file.clone());
        Ok(file)
    }

    /// The certificates in the folders for `host`, if there are any.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file that cannot be used.
    pub(crate) fn certificates(&self, host: &str) -> Result<Option<Arc<Certificates>>, Error> {
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(certificates) = known.get(host) {
            return Ok(certificates.clone());
        }
        let found = certificates::find(&self.paths, host)?.map(Arc::new);
        known.insert(host.to_owned(), found.clone());
        Ok(found)
    }

    /// The folder for certificates of `host`, to tell where one might be put.
    pub(crate) fn folder_for(&self, host: &str) -> Option<PathBuf> {
        certificates::folder_for(&self.paths, host)
    }
}

/// What is asked for in place of `reference`, by a text that may be of either kind of file.
#[cfg(feature = "fuzzing")]
pub(crate) fn endpoints_in(text: &str, reference: &Reference) -> Vec<Reference> {
    let (path, mut registries) = (std::path::Path::new("file"), Registries::default());
    let by_table = registries.add(path, text).and_then(|()| registries.endpoints(reference));
    let host_file = hosts::HostFile::parse(path, text, reference.host());
    let by_host = host_file.and_then(|file| file.endpoints(reference));
    let all = by_table.ok().flatten().into_iter().chain(by_host.ok()).flatten();
    all.map(|endpoint| endpoint.reference).collect()
}

/// A file of the configuration that cannot be used. `line` counts from 1.
pub(crate) fn unusable(
    path: impl Into<PathBuf>,
    line: Option<usize>,
    problem: impl Into<String>,
) -> Error {
    Error::Config { path: path.into(), line, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_documentation_are_understood() {
        let text = include_str!("../../../docs/registries.md");
        let folder = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        for block in text.split("```toml\n# ").skip(1) {
            let (name, rest) = block.split_once('\n').unwrap();
            let text = rest.split("```").next().unwrap();
            let path = folder.path().join(name.trim_start_matches("/etc/containerd/certs.d/"));
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
            seen.push(name);
        }
        assert_eq!(seen, ["registries.conf", "/etc/containerd/certs.d/docker.io/hosts.toml"]);
        let reference = Reference::parse("debian").unwrap();
        let shown = |paths: ConfigPaths| {
            let endpoints = Config::read(&paths).unwrap().endpoints(&reference).unwrap();
            endpoints.iter().map(|at| at.reference.name()).collect::<Vec<_>>().join(" ")
        };
        let folder = folder.path().to_owned();
        let registries = ConfigPaths {
            registries: Some(folder.join("registries.conf")),
            ..ConfigPaths::default()
        };
        assert_eq!(
            shown(registries),
            "mirror.example.com/hub/library/debian 10.0.0.5:5000/library/debian docker.io/library/debian"
        );
        let hosts = ConfigPaths { hosts: vec![folder], ..ConfigPaths::default() };
        assert_eq!(
            shown(hosts),
            "mirror.example.com/library/debian 10.0.0.5:5000/library/debian docker.io/library/debian"
        );
    }

    #[test]
    fn folders_follow_the_environment() {
        let paths = |all: &'static [(&str, &str)]| {
            config_paths(move |name| {
                let found = all.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let shown = |folders: &[PathBuf]| {
            folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let plain = paths(&[("HOME", "/h")]);
        assert_eq!(plain.registries, None);
        assert_eq!(shown(&plain.containers), "/h/.config/containers /etc/containers");
        assert_eq!(shown(&plain.hosts), "/h/.config/containerd/certs.d /etc/containerd/certs.d");
        assert_eq!(
            shown(&plain.certificates),
            "/h/.config/containers/certs.d /h/.docker/certs.d /h/.config/docker/certs.d /etc/containers/certs.d /etc/docker/certs.d"
        );
        let set = paths(&[
            ("HOME", "/h"),
            ("XDG_CONFIG_HOME", "/x"),
            ("DOCKER_CONFIG", "/d"),
            ("CONTAINERS_REGISTRIES_CONF", "/r.conf"),
        ]);
        assert_eq!(set.registries, Some(PathBuf::from("/r.conf")));
        assert_eq!(shown(&set.containers), "/x/containers /etc/containers");
        assert_eq!(
            shown(&set.certificates),
            "/x/containers/certs.d /d/certs.d /x/docker/certs.d /etc/containers/certs.d /etc/docker/certs.d"
        );
        let none = paths(&[("CONTAINERS_REGISTRIES_CONF", "")]);
        assert_eq!((none.registries, shown(&none.containers)), (None, "/etc/containers".into()));
    }
}
