//! TLS to hosts that have certificates of their own: whom to trust, and what to show.
//!
//! - A certificate from the folder of a host is trusted as an authority, and also when the host shows just that one: what
//!   `openssl req -x509` makes for a server is marked as an authority, which servers otherwise must not be.
//! - Of several certificates to show, a host sees the first that comes from an authority which it names. Where it names none,
//!   or only others, it sees the first.
//!
//! Format: RFC 5280 §4.1, RFC 8446 §4.2.4.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InconsistentKeys, RootCertStore,
    SignatureScheme,
};

/// Whom a connection trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The system's authorities, or Mozilla's where the system has none, and those of the host.
    Verified,
    /// Whoever answers.
    Anybody,
}

/// The certificates in a PEM text, each of which can be an authority; `None` if that does not hold for one, or there is
/// none.
pub(crate) fn authorities(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    let mut store = RootCertStore::empty();
    let usable = found.iter().all(|certificate| store.add(certificate.clone()).is_ok());
    (usable && !found.is_empty()).then_some(found)
}

/// A certificate to show, with its key.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    key: Arc<CertifiedKey>,
    /// Who vouches for it and for the others of its chain, as in the certificates.
    issuers: Vec<Vec<u8>>,
    path: PathBuf,
}

/// Why a certificate cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unshowable {
    /// There is none, or no key.
    Missing,
    /// The key wants a password.
    Encrypted,
    /// The key is that of another certificate.
    Mismatch,
}

impl Identity {
    /// Reads PEM texts; `path` is the file with the certificate.
    pub(crate) fn read(certificate: &[u8], key: &[u8], path: PathBuf) -> Result<Self, Unshowable> {
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(Unshowable::Missing)?;
        if ["ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"]
            .iter()
            .any(|mark| key.windows(mark.len()).any(|part| part == mark.as_bytes()))
        {
            return Err(Unshowable::Encrypted);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Unshowable::Missing)?;
        let key = provider().key_provider.load_private_key(key).map_err(|_| Unshowable::Missing)?;
        let issuers = chain.iter().filter_map(|one| Some(issuer(one)?.to_owned())).collect();
        let key = Arc::new(CertifiedKey::new(chain, key));
        // Whether an odd certificate will do is for the server to say, but no server takes one of another key.
        match key.keys_match() {
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(Unshowable::Mismatch)
            }
            _ => Ok(Self { key, issuers, path }),
        }
    }
}

/// Certificates to show, and which of them was shown last.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    all: Vec<Identity>,
    shown: Mutex<Option<PathBuf>>,
}

impl Identities {
    pub(crate) fn new(all: Vec<Identity>) -> Self {
        Self { all, shown: Mutex::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The file with the certificate that was shown last.
    pub(crate) fn shown(&self) -> Option<PathBuf> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(
        &self,
        wanted_authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let usable =
            || self.all.iter().filter(|identity| identity.key.key.choose_scheme(schemes).is_some());
        let is_wanted = |identity: &&Identity| {
            identity.issuers.iter().any(|issuer| wanted_authorities.contains(&issuer.as_slice()))
        };
        let chosen = usable().find(is_wanted).or_else(|| usable().next())?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(chosen.path.clone());
        Some(Arc::clone(&chosen.key))
    }

    fn has_certs(&self) -> bool {
        !self.is_empty()
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default()
        .map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone)
}

/// What connections to a host with these certificates begin with. `is_old` is for no newer version than TLS 1.2.
///
/// # Errors
/// When the authorities cannot be used.
pub(crate) fn config(
    trust: Trust,
    authorities: &[CertificateDer<'static>],
    identities: Option<Arc<Identities>>,
    is_old: bool,
) -> Result<ClientConfig, Error> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Verified => {
            let (inner, own) = (system(authorities, &provider)?, authorities.to_vec());
            Arc::new(Verifier { inner, own })
        }
        Trust::Anybody => Arc::new(Anybody(Arc::clone(&provider))),
    };
    let versions = if is_old { &[&rustls::version::TLS12][..] } else { rustls::ALL_VERSIONS };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identities.filter(|identities| !identities.is_empty()) {
        Some(identities) => config.with_client_cert_resolver(identities),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Trusts the system's authorities, or Mozilla's where the system has none, and more.
fn system(
    more: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let with = |roots: Vec<CertificateDer<'static>>| {
        rustls_platform_verifier::Verifier::new_with_extra_roots(roots, Arc::clone(provider))
    };
    let system = with(Vec::new());
    if more.is_empty()
        && let Ok(system) = system
    {
        return Ok(Arc::new(system));
    }
    let mut roots = more.to_vec();
    if system.is_err() {
        roots.extend(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
    }
    Ok(Arc::new(with(roots)?))
}

/// Trusts also a host that shows just a certificate which is in its folder.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match verdict {
            // This is found out after the certificate's time, and before its name and its signature.
            Err(error) if is_for_authority(&error) && self.own.contains(end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Whether a certificate is refused as it is marked as an authority's.
fn is_for_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_))
        && format!("{error:?}").contains("CaUsedAsEndEntity")
}

/// An error in words; times as dates.
pub(crate) fn told(error: &Error) -> String {
    let date = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).ok();
        let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
        time.map_or_else(|| "long ago".to_owned(), |time| time.strftime("%F %T UTC").to_string())
    };
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            format!("the certificate expired {}, it is {}", date(not_after), date(time))
        }
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            format!("the certificate is valid from {} on, it is {}", date(not_before), date(time))
        }
        other => other.to_string(),
    }
}

/// Trusts whoever answers.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Who vouches for a certificate: the value with its head, as servers name authorities.
fn issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (_, certificate, _) = value(certificate)?;
    let (_, mut rest, _) = value(certificate)?;
    // The version may be left out; serial number and algorithm may not.
    if rest.first() == Some(&0xa0) {
        rest = value(rest)?.2;
    }
    rest = value(value(rest)?.2)?.2;
    Some(value(rest)?.0)
}

/// The first DER value of `bytes`: whole, without its head, and what follows it.
fn value(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let first = usize::from(*bytes.get(1)?);
    let (head, length) = if first < 0x80 {
        (2, first)
    } else {
        let digits = bytes.get(2..2 + (first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (2 + digits.len(), length)
    };
    let end = head.checked_add(length)?;
    Some((bytes.get(..end)?, bytes.get(head..end)?, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_read_as_servers_name_them() {
        let root = &webpki_root_certs::TLS_SERVER_ROOT_CERTS[0];
        let anchor = webpki_anchor(root);
        // A root vouches for itself.
        let (_, inside, rest) = value(issuer(root).unwrap()).unwrap();
        assert_eq!((inside, rest), (anchor.as_slice(), &[][..]));
        for length in 0..root.len() {
            assert!(value(&root[..length]).is_none_or(|(whole, _, _)| whole.len() <= length));
            let _ = issuer(&root[..length]);
        }
        assert_eq!(value(&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
    }

    /// The subject of an authority, without its head.
    fn webpki_anchor(certificate: &CertificateDer<'static>) -> Vec<u8> {
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).unwrap();
        store.roots[0].subject.to_vec()
    }
}
