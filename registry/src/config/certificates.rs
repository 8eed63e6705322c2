//! Certificates for one host: authorities to trust beside those of the system, and those to show.
//!
//! Format: Docker's "Verify repository client with certificates"; containers-certs.d(5).

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::hosts::folder_names;
use super::{ConfigPaths, document, unusable};
use crate::Error;
use crate::tls::{self, Identity, Unshowable};

/// Where the certificates of a host are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Files with certificate authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// What may be shown to the host.
    pub(crate) clients: Vec<ClientCertificate>,
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
        self.authorities.is_empty() && self.clients.is_empty()
    }

    /// These, and those of `others` that there are none of here.
    pub(crate) fn or(&self, others: Option<&Self>) -> Self {
        let mut all = self.clone();
        if let Some(others) = others {
            all.authorities.extend(others.authorities.iter().cloned());
            if all.clients.is_empty() {
                all.clients.clone_from(&others.clients);
            }
        }
        all
    }

    /// Reads the authorities.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file.
    pub(crate) fn read_authorities(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let mut all = Vec::new();
        for path in &self.authorities {
            let found = tls::authorities(&read(path)?);
            let none = || unusable(path, None, "holds no certificate in PEM form");
            all.extend(found.ok_or_else(none)?);
        }
        Ok(all)
    }

    /// Reads what may be shown to the host.
    ///
    /// # Errors
    /// [`Error::Config`] that names the file.
    pub(crate) fn read_clients(&self) -> Result<Vec<Identity>, Error> {
        self.clients.iter().map(ClientCertificate::read).collect()
    }
}

impl ClientCertificate {
    fn read(&self) -> Result<Identity, Error> {
        let certificate = read(&self.certificate)?;
        let key = self.key.as_ref().map(|key| read(key)).transpose()?;
        let key = key.as_ref().unwrap_or(&certificate);
        let identity = Identity::read(&certificate, key, self.certificate.clone());
        identity.map_err(|reason| {
            let key = self.key.as_ref().unwrap_or(&self.certificate).display();
            let problem = match reason {
                Unshowable::Missing => {
                    format!("holds no certificate, or `{key}` no key, in PEM form")
                }
                Unshowable::Encrypted => {
                    format!("the key in `{key}` is encrypted, which is not supported")
                }
                Unshowable::Mismatch => format!("is not the certificate of the key in `{key}`"),
            };
            unusable(&self.certificate, None, problem)
        })
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
            let key = path.with_extension("key");
            if !files.contains(&key) {
                return Err(unusable(
                    path,
                    None,
                    format!("its key `{}` is missing", key.display()),
                ));
            }
            let key = Some(key);
            found.clients.push(ClientCertificate { certificate: path.clone(), key });
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
