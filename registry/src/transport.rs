//! TLS, proxies and single HTTP requests; tells what went wrong with one.
//!
//! A client of the HTTP library is made for each kind of connection when the first URL needs it: reading
//! the system's certificates takes longer than a request on loopback.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Body, Method, Response, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;

use crate::config::Route;
use crate::config::certificates::Certificates;
use crate::error::TlsFault;
use crate::guard::{self, Guard};
use crate::options::{is_loopback, is_private_to_machine};
use crate::proxy;
use crate::session::clean;
use crate::tls::{self, Identities, Trust};
use crate::{ClientOptions, Error};

/// Redirects followed for one request.
pub(crate) const MOST_REDIRECTS: usize = 10;

/// Error bodies are read up to this many bytes.
pub(crate) const LONGEST_MESSAGE: usize = 16 << 10;

/// The connections of a client.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    /// To whoever has no certificates of their own.
    common: Connections,
}

/// One client for each kind of connection.
#[derive(Debug, Default)]
struct Connections(Mutex<HashMap<Kind, reqwest::Client>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    security: Security,
    /// To this machine: never through a proxy, to which it would mean another one. Others go through the proxies of
    /// the environment, where it names any.
    is_local: bool,
    /// Whether the certificate of this machine is shown.
    shows_certificate: bool,
    /// Whether no newer version of TLS than 1.2 is spoken.
    is_old: bool,
    /// Whether names that mean this machine are not followed.
    is_guarded: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Security {
    Plain,
    Verified,
    Unverified,
}

/// What connections to one host have of their own.
///
/// Authorities are trusted also of those the host leads to, such as its token server and its storage; certificates are
/// shown to the host alone.
#[derive(Debug)]
pub(crate) struct HostTls {
    authorities: Vec<CertificateDer<'static>>,
    identities: Arc<Identities>,
    connect_timeout: Option<Duration>,
    connections: Connections,
}

impl HostTls {
    /// Reads the certificates that a file names for a host, and those in the folder of its name.
    pub(crate) fn read(
        route: Option<&Route>,
        folder: Option<&Certificates>,
    ) -> Result<Option<Self>, Error> {
        let named = route.map(|route| route.certificates.clone()).unwrap_or_default();
        let certificates = named.or(folder);
        let connect_timeout = route.and_then(|route| route.connect_timeout);
        if certificates.is_empty() && connect_timeout.is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            authorities: certificates.read_authorities()?,
            identities: Arc::new(Identities::new(certificates.read_clients()?)),
            connect_timeout,
            connections: Connections::default(),
        }))
    }

    /// The file with the certificate that the host saw last.
    pub(crate) fn shown(&self) -> Option<PathBuf> {
        self.identities.shown()
    }
}

/// One request, before it is authorized.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Sent as it is; such a request is not redirected unless the method is GET or HEAD.
    pub(crate) body: Option<Vec<u8>>,
    /// Whether a certificate that is not trusted is accepted.
    pub(crate) unverified: bool,
    /// Certificates for the host.
    pub(crate) tls: Option<Arc<HostTls>>,
    /// Whether the host may see the certificate in `tls`.
    pub(crate) shows_certificate: bool,
    /// Headers that only the host itself may see.
    pub(crate) own: Option<HeaderMap>,
    /// Whether no newer version of TLS than 1.2 is to be spoken.
    pub(crate) old_tls: bool,
    /// Whether a server elsewhere led here, so that no name may lead to this machine.
    pub(crate) guarded: bool,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            unverified: false,
            tls: None,
            shows_certificate: false,
            own: None,
            old_tls: false,
            guarded: false,
        }
    }

    /// What is sent before the body. What the protocol needs counts more than what a file wants sent.
    pub(crate) fn all_headers(&self) -> HeaderMap {
        let mut all = self.own.clone().unwrap_or_default();
        for name in self.headers.keys() {
            all.remove(name);
        }
        for (name, value) in &self.headers {
            all.append(name, value.clone());
        }
        all
    }

    /// Leaves out what only the host itself may see.
    fn leave(&mut self) {
        self.headers.remove(AUTHORIZATION);
        (self.unverified, self.shows_certificate, self.own) = (false, false, None);
    }

    /// Method and URL for messages, without what may be secret in the URL.
    pub(crate) fn asked(&self) -> String {
        asked(&self.method, &self.url)
    }
}

/// Method and URL for messages: query, user and password are left out, for they may be secret.
pub(crate) fn asked(method: &Method, url: &Url) -> String {
    format!("{method} {}{}", origin(url), clean(url.path()))
}

fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), address(url))
}

/// Host and port of `url`.
pub(crate) fn address(url: &Url) -> String {
    format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or_default()
    )
}

impl Transport {
    /// The client for connections that `request` needs.
    pub(crate) fn client(
        &self,
        request: &Request,
        options: &ClientOptions,
    ) -> Result<reqwest::Client, Error> {
        let tls = request.tls.as_deref();
        let kind = Kind {
            security: match (request.url.scheme(), request.unverified) {
                ("http", _) => Security::Plain,
                (_, false) => Security::Verified,
                (_, true) => Security::Unverified,
            },
            is_local: request.url.host_str().is_some_and(is_loopback),
            shows_certificate: request.shows_certificate,
            is_old: request.old_tls,
            is_guarded: request.guarded,
        };
        let connections = tls.map_or(&self.common, |tls| &tls.connections);
        let mut made = connections.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&kind) {
            return Ok(client.clone());
        }
        let client = build(kind, tls, options)?;
        made.insert(kind, client.clone());
        Ok(client)
    }

    /// Sends `request`, following redirects of GET, HEAD and requests without a body.
    ///
    /// Authorization is dropped for good once a redirect leaves the host.
    pub(crate) async fn send(
        &self,
        host: &str,
        mut request: Request,
        options: &ClientOptions,
    ) -> Result<Response, Error> {
        for _ in 0..=MOST_REDIRECTS {
            let client = self.client(&request, options)?;
            let mut builder = client
                .request(request.method.clone(), request.url.clone())
                .headers(request.all_headers());
            if let Some(body) = &request.body {
                builder = builder.body(Body::from(body.clone()));
            }
            let answer = tokio::time::timeout(options.read_timeout, builder.send()).await;
            let response = match answer {
                Ok(answer) => answer.map_err(|error| broken(host, &request, error))?,
                Err(_) => return Err(silent(host, &request, options.read_timeout)),
            };
            let bodiless = request.body.is_none() && request.method != Method::PUT;
            let Some(target) = redirect_target(host, &request, &response)?.filter(|_| bodiless)
            else {
                return Ok(response);
            };
            if !same_origin(&request.url, &target) {
                request.leave();
                request.guarded |= !is_near(&response);
            }
            request.url = target;
        }
        Err(bad_answer(host, &request, format!("redirected more than {MOST_REDIRECTS} times")))
    }
}

/// Whether an answer came from this machine: from a server on it, or through a proxy on it.
pub(crate) fn is_near(response: &Response) -> bool {
    response.remote_addr().is_some_and(|from| from.ip().to_canonical().is_loopback())
}

fn redirect_target(
    host: &str,
    request: &Request,
    response: &Response,
) -> Result<Option<Url>, Error> {
    if !is_redirect(response.status()) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location
        .ok_or_else(|| bad_answer(host, request, "redirected without a usable location".into()))?;
    follow(&request.url, location).map(Some).map_err(|problem| bad_answer(host, request, problem))
}

/// Whether an answer with this status leads elsewhere.
pub(crate) fn is_redirect(status: StatusCode) -> bool {
    [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ]
    .contains(&status)
}

/// The URL that `location` means in an answer from `base`.
///
/// A host that is asked by HTTPS and names itself by plain HTTP stands behind a proxy that ends TLS: it is
/// asked by HTTPS again. No other way leads from HTTPS to plain HTTP, and none from elsewhere to this machine.
///
/// # Errors
/// What is wrong with the location.
pub(crate) fn follow(base: &Url, location: &str) -> Result<Url, String> {
    let mut target = base.join(location).map_err(|_| "named a malformed location".to_owned())?;
    if !["http", "https"].contains(&target.scheme()) || target.host_str().is_none() {
        return Err(format!("redirected to a `{}:` address", clean(target.scheme())));
    }
    let is_private = |url: &Url| url.host_str().is_some_and(is_private_to_machine);
    if is_private(&target) && !is_private(base) {
        let host = clean(target.host_str().unwrap_or_default());
        return Err(format!("redirected to `{host}`, which is this machine and not the server's"));
    }
    if base.scheme() == "https" && target.scheme() == "http" {
        let refused = Err("redirected from https to plain http".to_owned());
        if base.host_str() != target.host_str()
            || target.port().is_some_and(|port| Some(port) != base.port())
        {
            return refused;
        }
        if target.set_scheme("https").and_then(|()| target.set_port(base.port())).is_err() {
            return refused;
        }
    }
    Ok(target)
}

/// Whether credentials for `a` may be shown to `b`.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

fn builder(kind: Kind, tls: Option<&HostTls>, options: &ClientOptions) -> reqwest::ClientBuilder {
    let mut builder = reqwest::Client::builder();
    if kind.is_local {
        builder = builder.no_proxy();
    }
    if kind.is_guarded {
        builder = builder.dns_resolver(Arc::new(Guard));
    }
    let connect_timeout = tls.and_then(|tls| tls.connect_timeout);
    builder
        .user_agent(options.user_agent.as_str())
        .connect_timeout(connect_timeout.unwrap_or(options.connect_timeout))
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .hickory_dns(true)
        .http2_adaptive_window(true)
}

/// The client for connections of a kind.
fn build(
    kind: Kind,
    tls: Option<&HostTls>,
    options: &ClientOptions,
) -> Result<reqwest::Client, Error> {
    let builder = || builder(kind, tls, options);
    let identities = tls.map(|tls| &tls.identities).filter(|_| kind.shows_certificate).cloned();
    let trust = match kind.security {
        Security::Plain => return builder().tls_certs_only([]).build().map_err(setup),
        Security::Unverified => Trust::Anybody,
        Security::Verified => Trust::Verified,
    };
    let mut authorities = tls.map(|tls| tls.authorities.clone()).unwrap_or_default();
    for pem in &options.certificate_authorities {
        authorities
            .extend(tls::authorities(pem).ok_or_else(|| setup("no certificate in PEM form"))?);
    }
    let config = tls::config(trust, &authorities, identities, kind.is_old).map_err(setup)?;
    builder().tls_backend_preconfigured(config).build().map_err(setup)
}

fn setup(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    Error::Setup(error.into())
}

/// An answer that the protocol does not allow.
pub(crate) fn bad_answer(host: &str, request: &Request, answer: String) -> Error {
    Error::BadAnswer { host: host.to_owned(), asked: request.asked(), answer, status: None }
}

/// An answer whose status is no success, with the server's own words, if any.
pub(crate) fn bad_status(
    host: &str,
    request: &Request,
    status: StatusCode,
    message: &str,
) -> Error {
    Error::BadAnswer {
        host: host.to_owned(),
        asked: request.asked(),
        answer: answered(status, message),
        status: Some(status.as_u16()),
    }
}

/// A status and the server's own words, if any.
pub(crate) fn answered(status: StatusCode, message: &str) -> String {
    let separator = if message.is_empty() { "" } else { ": " };
    format!("answered {status}{separator}{message}")
}

/// A server that said nothing for the read timeout.
pub(crate) fn silent(host: &str, request: &Request, timeout: Duration) -> Error {
    let how = format!("nothing was received for {} seconds", timeout.as_secs_f32());
    stopped(host, request, NO_ANSWER, how)
}

/// A server whose answer stopped before its end, and how.
pub(crate) fn too_slow(host: &str, request: &Request, how: String) -> Error {
    stopped(host, request, BROKEN, how)
}

fn stopped(host: &str, request: &Request, reason: &'static str, how: String) -> Error {
    Error::Unreachable {
        host: host.to_owned(),
        address: address(&request.url),
        asked: request.asked(),
        reason,
        hint: NETWORK,
        source: Some(how.into()),
    }
}

/// A request that got no answer, or only a part of one.
pub(crate) fn broken(host: &str, request: &Request, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let (host, mut address) = (host.to_owned(), address(&request.url));
    let proxy = proxy::of(&request.url);
    if let Some(proxy) = &proxy {
        let _ = write!(address, " through the proxy `{proxy}`");
    }
    let local = request.url.host_str().is_some_and(is_loopback);
    if cause(&error) == guard::MEANS_THIS_MACHINE {
        let name = clean(request.url.host_str().unwrap_or_default());
        let answer = format!("led to `{name}`, which is this machine and not the server's");
        return bad_answer(&host, request, answer);
    }
    let (reason, hint) = match Trouble::of(&error) {
        Trouble::Request => {
            return bad_answer(&host, request, "cannot be asked: the address is malformed".into());
        }
        Trouble::Tls => {
            let (fault, folder, source) = (tls_fault(&error), None, cause(&error).into());
            return Error::Tls { host, address, fault, folder, source };
        }
        Trouble::Certificate => {
            let (shown, folder, source) = (None, None, cause(&error).into());
            return Error::ClientCertificate { host, address, shown, folder, source };
        }
        Trouble::Refused if proxy.is_some() => (REFUSED, PROXY),
        Trouble::NoSuchHost if proxy.is_some() => (NO_SUCH_HOST, PROXY),
        Trouble::CannotConnect if cause(&error).contains("proxy authorization required") => (
            "cannot connect",
            "the proxy wants a login: give it in $HTTPS_PROXY, as http://USER:PASSWORD@HOST:PORT",
        ),
        Trouble::Refused if local => (REFUSED, "check that the registry is running"),
        Trouble::Refused => {
            (REFUSED, "check that the registry is running, and that the port is right")
        }
        Trouble::NoSuchHost => {
            (NO_SUCH_HOST, "check the name of the registry and the DNS settings")
        }
        Trouble::NoAnswer => (NO_ANSWER, NETWORK),
        Trouble::CannotConnect => ("cannot connect", NETWORK),
        Trouble::Broken => (BROKEN, NETWORK),
    };
    let source = (![REFUSED, NO_SUCH_HOST].contains(&reason)).then(|| cause(&error).into());
    Error::Unreachable { host, address, asked: request.asked(), reason, hint, source }
}

/// What is wrong, without what the HTTP library was doing at the time.
fn cause(error: &reqwest::Error) -> String {
    if let Some(tls) = io_cause(error).and_then(io::Error::get_ref)
        && let Some(tls) = tls.downcast_ref::<rustls::Error>()
    {
        return tls::told(tls);
    }
    let mut innermost: &(dyn StdError + 'static) = error;
    while let Some(next) = innermost.source() {
        innermost = next;
    }
    innermost.to_string()
}

/// What to do when the proxy cannot be asked.
const PROXY: &str = "check the proxy settings, $HTTPS_PROXY and $HTTP_PROXY; $NO_PROXY names hosts that are asked without";

/// What is the matter with a certificate that is not trusted.
fn tls_fault(error: &reqwest::Error) -> TlsFault {
    let text = io_cause(error).map(|error| error.to_string().to_lowercase()).unwrap_or_default();
    if text.contains("invalidcontenttype") {
        TlsFault::Plain
    } else if text.contains("expired") || text.contains("not valid yet") {
        TlsFault::Time
    } else if text.contains("not valid for name") {
        TlsFault::Name
    } else {
        TlsFault::Trust
    }
}

/// Reason of a failure: nobody listens on the port.
pub(crate) const REFUSED: &str = "connection refused";
/// Reason of a failure: the name of the host is not known.
pub(crate) const NO_SUCH_HOST: &str = "no such host";
/// Reason of a failure: an answer did not come whole.
pub(crate) const BROKEN: &str = "connection broke";
/// Reason of a failure: the server says nothing.
pub(crate) const NO_ANSWER: &str = "no answer";

/// Kinds of failure of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The request itself cannot be sent.
    Request,
    /// No trusted TLS connection.
    Tls,
    /// The server wants to see a certificate, or another than it saw.
    Certificate,
    /// Nobody listens.
    Refused,
    /// The name is not known.
    NoSuchHost,
    /// Nothing is said.
    NoAnswer,
    /// No connection for another reason.
    CannotConnect,
    /// The connection ended too early.
    Broken,
}

impl Trouble {
    /// What an error of the HTTP library is about.
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        let io = io_cause(error);
        let cause = io.map(io::Error::kind);
        if error.is_builder() {
            Self::Request
        } else if cause == Some(io::ErrorKind::InvalidData) && io.is_some_and(is_about_ours) {
            Self::Certificate
        } else if error.is_connect() && cause == Some(io::ErrorKind::InvalidData) {
            Self::Tls
        } else if cause == Some(io::ErrorKind::ConnectionRefused) {
            Self::Refused
        } else if error.is_dns() {
            Self::NoSuchHost
        } else if error.is_timeout() {
            Self::NoAnswer
        } else if error.is_connect() {
            Self::CannotConnect
        } else {
            Self::Broken
        }
    }
}

/// Whether a server ended the connection for want of a certificate (RFC 8446 §6.2).
fn is_about_ours(error: &io::Error) -> bool {
    let text = error.to_string();
    let alert = text.split_once("received fatal alert: ").map(|(_, alert)| alert);
    let about = [
        "CertificateRequired",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "AccessDenied",
    ];
    alert.is_some_and(|alert| about.iter().any(|name| alert.starts_with(name)))
}

/// What to do when there is a server but no conversation.
pub(crate) const NETWORK: &str = "check the network and the proxy settings";

/// The innermost error of the system in the chain of causes.
fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut found = None;
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            found = Some(io);
            // An `io::Error` that wraps another names as its source that one's source.
            next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static));
        } else {
            next = error.source();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, location: &str, expect: &str) {
        let base: Url = base.parse().unwrap();
        let actual = follow(&base, location).map_or_else(|problem| problem, |url| url.to_string());
        assert_eq!(actual, expect, "{base} -> {location}");
    }

    #[test]
    fn locations_never_lead_to_less_safety() {
        check("https://a/v2/", "/x?y=1", "https://a/x?y=1");
        check("https://a/v2/", "https://b/x", "https://b/x");
        check("http://a/v2/", "http://b/x", "http://b/x");
        check("https://a/v2/", "http://a/x", "https://a/x");
        check("https://a:5000/v2/", "http://a:5000/x", "https://a:5000/x");
        check("https://a/v2/", "http://b/x", "redirected from https to plain http");
        check("https://a/v2/", "http://a:81/x", "redirected from https to plain http");
        check("http://a/v2/", "file:///etc/passwd", "redirected to a `file:` address");
        check("http://a/v2/", "data:,x", "redirected to a `data:` address");
        check("http://a/v2/", "http://", "named a malformed location");
        let machine = |host: &str| {
            format!("redirected to `{host}`, which is this machine and not the server's")
        };
        for host in ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"] {
            check("https://a/v2/", &format!("https://{host}/x"), &machine(host));
            check("http://a/v2/", &format!("http://{host}:5000/x"), &machine(host));
        }
        check("https://a/v2/", "//0x7f.1/x", &machine("127.0.0.1"));
        check("http://127.0.0.1:1/v2/", "http://localhost:2/x", "http://localhost:2/x");
    }

    #[test]
    fn messages_hide_the_query_and_the_user() {
        let url = "https://u:p@a.example/v2/x?token=secret".parse().unwrap();
        assert_eq!(asked(&Method::GET, &url), "GET https://a.example:443/v2/x");
    }
}
