//! Certificates for one host: authorities to trust beside those of the system, and one to show.
//!
//! Format: Docker's "Verify repository client with certificates"; containers-certs.d(5).

use std::path::{Path, PathBuf};

use reqwest::{Certificate, Identity};

use super::hosts::folder_names;
use super::{ConfigPaths, document, unusable};
use crate::Error;

/// Where the certificates of a host are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Files with certificate authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// What is shown to the host.
    pub(crate) client: Option<ClientCertificate>,
}

/// A certificate to show, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub(crate) certificate: PathBuf,
    /// `None` when it is in the same file.
    pub(crate) key: Option<PathBuf>,
}

impl Certificates {
    pub(crate) fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.client.is_none()
    }

    /// These, and those of `others` that there are none of here.
    pub(crate) fn or(&self, others: Option<&Self>) -> Self {
        let mut all = self.clone();
        if let Some(others) = others {
            all.authorities.extend(others.authorities.iter().cloned());
            all.client = all.client.or_else(|| others.client.clone());
        }
        all
    }

    /// Reads the authorities.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file.
    pub(crate) fn read_authorities(&self) -> Result<Vec<Certificate>, Error> {
        let mut all = Vec::new();
        for path in &self.authorities {
            let pem = read(path)?;
            let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            // A client takes what it can read of many; one for these alone takes all or none.
            let test = reqwest::Client::builder().tls_certs_only(found.clone()).build();
            if found.is_empty() || test.is_err() {
                return Err(unusable(path, None, "holds no certificate in PEM form"));
            }
            all.extend(found);
        }
        Ok(all)
    }

    /// Reads what is shown to the host.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file.
    pub(crate) fn read_client(&self) -> Result<Option<Identity>, Error> {
        let Some(client) = &self.client else { return Ok(None) };
        let mut pem = read(&client.certificate)?;
        if let Some(key) = &client.key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|_| {
            let key = client.key.as_ref().unwrap_or(&client.certificate);
            let problem =
                format!("holds no certificate, or `{}` no key, in PEM form", key.display());
            unusable(&client.certificate, None, problem)
        })?;
        let test = reqwest::Client::builder().tls_certs_only([]).identity(identity.clone()).build();
        if test.is_err() {
            let key = client.key.as_ref().unwrap_or(&client.certificate);
            let problem = format!("cannot be shown with the key in `{}`", key.display());
            return Err(unusable(&client.certificate, None, problem));
        }
        Ok(Some(identity))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs_err::read(path).map_err(|error| unusable(path, None, document::reason(&error)))
}

/// The folders that certificates of `host` may be in, the most important one first.
fn candidates<'a>(paths: &'a ConfigPaths, host: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let docker = paths.certificates.iter().map(move |folder| folder.join(host));
    // Containerd reads these only where there is no `hosts.toml`.
    let containerd = paths.hosts.iter().flat_map(move |folder| {
        let names = folder_names(host).into_iter();
        names
            .map(move |name| folder.join(name))
            .filter(|folder| !folder.join("hosts.toml").exists())
    });
    docker.chain(containerd)
}

/// The folder to put certificates of `host` into: the one that there is, or the system's.
pub(super) fn folder_for(paths: &ConfigPaths, host: &str) -> Option<PathBuf> {
    let there = candidates(paths, host).find(|folder| folder.is_dir());
    there.or_else(|| Some(paths.certificates.last()?.join(host)))
}

/// What is in the first folder for `host` that there is.
pub(super) fn find(paths: &ConfigPaths, host: &str) -> Result<Option<Certificates>, Error> {
    for folder in candidates(paths, host) {
        let Some(files) = document::list(&folder)? else { continue };
        return collect(files).map(Some);
    }
    Ok(None)
}

fn collect(files: Vec<PathBuf>) -> Result<Certificates, Error> {
    let ends = |path: &Path, end: &str| path.extension().is_some_and(|found| found == end);
    let mut found = Certificates::default();
    for path in &files {
        if ends(path, "crt") {
            found.authorities.push(path.clone());
        } else if ends(path, "cert") {
            if let Some(other) = &found.client {
                let other = other.certificate.display();
                let problem =
                    format!("a second client certificate beside `{other}` is not supported");
                return Err(unusable(path, None, problem));
            }
            let key = path.with_extension("key");
            if !files.contains(&key) {
                return Err(unusable(
                    path,
                    None,
                    format!("its key `{}` is missing", key.display()),
                ));
            }
            let key = Some(key);
            found.client = Some(ClientCertificate { certificate: path.clone(), key });
        } else if ends(path, "key") && !files.contains(&path.with_extension("cert")) {
            let certificate = path.with_extension("cert");
            let problem = format!(
                "a key without its certificate `{}`; certificate authorities end in `.crt`",
                certificate.display()
            );
            return Err(unusable(path, None, problem));
        }
    }
    Ok(found)
}
